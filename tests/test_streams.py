"""The command where output cannot be written, and what a run keeps on the disk."""

import json
import logging
import sys
from pathlib import Path

import pytest

from tests.command import plastic, rows
from torchplastic import runs
from torchplastic.experiments import signals
from torchplastic.runs import RunDirectory

TRAIN = [
    *("train", "patterns", "--preset", "smoke", "--threads", "1", "--task.bits", "12", "--task.patterns", "2"),
    *("--task.shown", "2", "--task.cycles", "1", "--log-every", "2"),
]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "where", ["2>&1 | head -n 1", "2>/dev/full", "2>&-", ">&-", ">/dev/full", ">&- 2>&-", "2>&1 | true"]
)
def test_training_goes_on_where_output_cannot_be_written(where, tmp_path, run_process):
    """A fault of use: a message that could not be written ended training, unsaved."""
    out = tmp_path / "run"
    command = f'"$@" {where}'
    arguments = [sys.executable, "-m", "torchplastic", *TRAIN, "--episodes", "40", "--out", out]
    found = run_process.start(["bash", "-c", command, "quiet", *arguments])
    printed, error = found.finish()
    assert RunDirectory(out).summary["episodes"] == 40
    assert "Traceback" not in printed + error
    if where == "2>&-":  # progress goes nowhere, and not to stdout
        assert printed.splitlines()[0].startswith(str(out))


@pytest.mark.parametrize("columns", ["1", "4", "7", "9"])
def test_help_in_a_very_narrow_terminal(columns, run_process):
    command = [sys.executable, "-m", "torchplastic", "train", "patterns", "--help"]
    assert "--preset" in run_process(command, seconds=30, env={"COLUMNS": columns}).out


def test_rows_are_on_the_disk_before_the_checkpoint(tmp_path, monkeypatch):
    order = []
    real = runs._settle
    monkeypatch.setattr(runs, "_settle", lambda path: (order.append(path.name), real(path))[1])
    run = RunDirectory.create(tmp_path / "run")
    run.append({"episode": 1})
    run.save_checkpoint({"model": {}, "optimizer": {}, "episode": 1})
    assert order == ["metrics.jsonl", "run"]


def test_a_file_is_closed_before_it_is_renamed(tmp_path, monkeypatch):
    """Windows renames no open file."""
    opened = []
    real = runs.Path.replace
    monkeypatch.setattr(runs.Path, "replace", lambda self, to: (opened.append(files_open()), real(self, to))[1])

    def files_open():
        return [str(number.readlink()) for number in Path("/proc/self/fd").iterdir() if number.exists()]

    runs.write_json(tmp_path / "x.json", {"a": 1})
    assert not [path for path in opened[0] if str(tmp_path) in path]


def test_lost_rows_are_named(tmp_path, caplog):
    out = tmp_path / "run"
    assert plastic(*TRAIN, "--episodes", 12, "--out", out) == 0
    lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(lines[:3]))
    with caplog.at_level(logging.WARNING, "torchplastic"):
        assert plastic("train", "--resume", out, "--episodes", 16) == 0
    assert "metrics.jsonl has no rows of episodes 7 to 12" in caplog.text
    assert [row["episode"] for row in rows(out)] == [2, 4, 6, 14, 16]


def test_what_a_killed_process_left_is_removed(tmp_path):
    out = tmp_path / "run"
    assert plastic(*TRAIN, "--episodes", 4, "--out", out) == 0
    (out / f".checkpoint.pt.abc{runs.UNFINISHED}").write_bytes(b"half")
    (out / ".mine").write_text("not ours")
    assert plastic("train", "--resume", out, "--episodes", 8) == 0
    assert not list(out.glob(f".*{runs.UNFINISHED}"))
    assert (out / ".mine").read_text() == "not ours"


@pytest.mark.parametrize("value", ["abc", "", "-1", "1.5"])
def test_a_parent_that_is_no_number(value, monkeypatch):
    monkeypatch.setenv(signals.PARENT, value)
    assert not signals.orphaned()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    runs.write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ZeroDivisionError):
        runs.replace_file(tmp_path / "x.json", lambda file: 1 / 0)
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
