import json

import numpy as np
import pytest

from tests.report.builders import write_bench, write_json, write_run, write_sweep
from torchplastic.report.sources import read_sources
from torchplastic.runs import RunDirectory


def read(path):
    return RunDirectory(path).read()


def test_a_run_a_sweep_and_a_bench_file_in_one_call(tmp_path):
    run = write_run(tmp_path / "run")
    sweep = write_sweep(tmp_path / "sweep", [0, 2, 10])
    (sweep / "seed-11").mkdir()
    sources = read_sources([sweep, write_bench(tmp_path / "b.json"), run])
    assert [run.seed for run in sources.runs] == [0, 2, 10, 0]
    assert len(sources.benches) == 1


def test_a_run_named_twice_counts_once(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", [0, 1])
    assert len(read_sources([sweep, sweep / "seed-1", sweep / ".." / "sweep"]).runs) == 2


def test_a_torn_last_line_is_left_out(tmp_path):
    run = write_run(tmp_path / "run", episodes=50, finished=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"episode": 60, "seconds": 12.0, "lo')
    assert read(run).episodes == 50
    assert not read(run).finished


def test_a_broken_line_elsewhere_is_an_error_with_its_number(tmp_path):
    run = write_run(tmp_path / "run", episodes=30)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], "{", lines[2]]) + "\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 2 is no metrics row"):
        read(run)


def refused(path):
    with pytest.raises(ValueError) as caught:
        read_sources([path])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_other_paths_are_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no JSON")
    write_json(tmp_path / "other.json", {"kind": "other"})
    write_json(tmp_path / "list.json", [1, 2])
    write_json(tmp_path / "foreign" / "config.json", {"name": "x"})
    for name in ("missing", "empty", "notes.txt", "other.json", "list.json"):
        message = refused(tmp_path / name)
        assert message.startswith(f"{tmp_path / name} is no run directory, sweep or bench file: ")
    assert refused(tmp_path / "foreign").endswith('is no run directory: its config.json has no "experiment".')


def test_damaged_files_are_named(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "samples.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ValueError, match=r"samples\.npz cannot be read"):
        read(run).samples()
    np.savez(run / "samples.npz", **{"pictures/x/00 y": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match=r"samples\.npz cannot be read"):
        read(run).samples()
    (run / "summary.json").write_text('{"experiment": ')
    assert "summary.json cannot be read" in refused(run)


def test_what_was_noted_comes_from_the_summary_first(tmp_path):
    run = read(write_run(tmp_path / "run", data="from the configuration"))
    assert run.recorded("data") == "random bits"
    unfinished = read(write_run(tmp_path / "two", data="synthetic data", finished=False))
    assert unfinished.recorded("data") == "synthetic data"
    assert json.dumps(run.config)
