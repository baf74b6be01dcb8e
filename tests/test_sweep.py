"""A sweep is many runs: each as `plastic train` makes it, and what befalls one leaves the others alone."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tests.command import COMMAND, TINY, plastic, timeless, tiny
from torchplastic.experiments import signals
from torchplastic.experiments.sweep import _clear, position
from torchplastic.experiments.workers import LocalPool, SeedJob
from torchplastic.runs import RunDirectory, RunError
from torchplastic.train.progress import JobStatus, SweepProgress


def sweep(out, *more):
    return ["sweep", "patterns", "--preset", "smoke", *TINY, "--out", str(out), *more]


def wait_for_rows(out, seeds, parent, beyond=0):
    """Until those seeds have rows of metrics beyond that episode."""
    parent.wait_for(lambda: all(position(out / f"seed-{seed}")[0] > beyond for seed in seeds))


def child_of(parent, seed):
    """The process that trains a seed."""
    (found,) = (
        p for p in psutil.Process(parent.pid).children() if any(part.endswith(f"seed-{seed}") for part in p.cmdline())
    )
    return found


def test_each_seed_is_the_run_that_train_makes(tmp_path, capsys, run_process):
    out = tmp_path / "sweep"
    assert plastic(*sweep(out, "--seeds", "2", "--episodes", "25")) == 0
    assert "2 of 2 seeds finished" in capsys.readouterr().out
    assert plastic(*tiny(tmp_path / "alone", "--seed", "1", "--episodes", "25")) == 0
    assert timeless(out / "seed-1") == timeless(tmp_path / "alone")
    assert timeless(out / "seed-0") != timeless(out / "seed-1")

    before = {seed: (out / f"seed-{seed}" / "checkpoint.pt").stat() for seed in (0, 1)}
    assert plastic(*sweep(out, "--seeds", "2", "--episodes", "25")) == 0  # nothing left to do
    assert {seed: (out / f"seed-{seed}" / "checkpoint.pt").stat() for seed in (0, 1)} == before
    assert plastic(*sweep(out, "--seeds", "1", "--episodes", "40")) == 0
    assert position(out / "seed-0")[0] == 40
    assert position(out / "seed-1")[0] == 25


def test_a_killed_seed_is_reported_and_the_rest_goes_on(tmp_path, run_process):
    out = tmp_path / "sweep"
    more = ["--seeds", "3", "--jobs", "2", "--episodes", "600", "--save-seconds", "0"]
    parent = run_process.start([*COMMAND, *sweep(out, *more)])
    wait_for_rows(out, [1], parent)
    child_of(parent, 1).kill()
    output, errors = parent.finish()
    assert parent.returncode == 1
    assert "seed 1  failed" in output
    assert "(killed by SIGKILL)" in output
    assert "2 of 3 seeds finished" in output
    assert "the same command" in errors

    assert plastic(*sweep(out, *more)) == 0
    assert plastic(*tiny(tmp_path / "alone", "--seed", "1", "--episodes", "600")) == 0
    assert timeless(out / "seed-1") == timeless(tmp_path / "alone")


def test_ctrl_c_leaves_no_process_and_every_run_can_go_on(tmp_path, run_process):
    out = tmp_path / "sweep"
    more = ["--seeds", "3", "--jobs", "2", "--episodes", "1000000"]
    parent = run_process.start([*COMMAND, *sweep(out, *more)])
    wait_for_rows(out, [0, 1], parent)
    jobs = psutil.Process(parent.pid).children(recursive=True)
    assert len(jobs) >= 2
    parent.send_signal(signal.SIGINT)
    output, _ = parent.finish()
    assert parent.returncode == 130
    assert output.count("stopped") == 3
    assert not any(job.is_running() for job in jobs)
    assert json.loads((out / "seed-0" / "config.json").read_text())["seed"] == 0
    assert plastic(*sweep(out, "--seeds", "2", "--episodes", "1")) == 0


def test_runs_end_with_the_sweep_that_started_them(tmp_path, run_process):
    out = tmp_path / "sweep"
    parent = run_process.start([*COMMAND, *sweep(out, "--seeds", "1", "--episodes", "1000000")])
    wait_for_rows(out, [0], parent)
    job = child_of(parent, 0)
    parent.kill()
    parent.finish()
    job.wait(timeout=20)
    assert plastic(*sweep(out, "--seeds", "1", "--episodes", "1")) == 0


def test_damage_to_one_seed_is_its_own(tmp_path, capsys, run_process):
    out = tmp_path / "sweep"
    more = ["--seeds", "2", "--episodes", "10"]
    assert plastic(*sweep(out, *more)) == 0
    shutil.rmtree(out / "logs")
    shutil.rmtree(out / "seed-1")
    (out / "seed-0" / "summary.json").write_text("{torn")
    assert plastic(*sweep(out, *more)) == 1
    output = capsys.readouterr().out
    assert "seed 0  failed" in output
    assert "summary.json cannot be read" in output
    assert position(out / "seed-1")[0] == 10
    (out / "seed-1" / "config.json").unlink()
    assert plastic(*sweep(out, *more)) == 1
    assert "has metrics.jsonl and no config.json" in capsys.readouterr().out
    assert position(out / "seed-1")[0] == 10


def test_a_seed_that_was_stopped_before_it_trained_starts_anew(tmp_path, run_process):
    out = tmp_path / "sweep"
    assert plastic(*sweep(out, "--seeds", "1", "--episodes", "10")) == 0
    path = out / "seed-0"
    for file in path.iterdir():
        file.unlink()
    RunDirectory(path).save_checkpoint({"model": {}, "optimizer": {}, "episode": 0})
    (path / ".checkpoint.pt.abcdefgh").write_bytes(b"torn")
    (path / "lock").touch()
    assert plastic(*sweep(out, "--seeds", "1", "--episodes", "10")) == 0
    assert position(path)[0] == 10


def _note(path):
    (path / "lock").touch()
    (path / "notes.md").write_text("mine")


def _trained(path):
    RunDirectory(path).save_checkpoint({"model": {}, "optimizer": {}, "episode": 7})


def _linked(path):
    path.rmdir()
    path.with_name("elsewhere").mkdir()
    path.symlink_to(path.with_name("elsewhere"))


def _linked_checkpoint(path):
    _trained(path)
    (path / "checkpoint.pt").rename(path.with_name("kept.pt"))
    (path / "checkpoint.pt").symlink_to(path.with_name("kept.pt"))


@pytest.mark.parametrize(
    ("put", "words"),
    [
        (_note, "has notes.md and no config.json"),
        (_trained, "has a checkpoint of episode 7 and no config.json"),
        (_linked, "is no run directory"),
        (_linked_checkpoint, "has checkpoint.pt and no config.json"),
    ],
)
def test_a_sweep_removes_nothing_that_is_not_its_own(put, words, tmp_path):
    path = tmp_path / "seed-0"
    path.mkdir()
    put(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=words):
        _clear(path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", ["logs", "logs/seed-0.log"])
def test_a_sweep_writes_no_log_through_a_link(place, tmp_path, capsys, run_process):
    out, target = tmp_path / "sweep", tmp_path / "target"
    assert plastic(*sweep(out, "--seeds", "1", "--episodes", "10")) == 0
    (out / place).rename(target)
    (out / place).symlink_to(target)
    shutil.rmtree(out / "seed-0")
    assert plastic(*sweep(out, "--seeds", "1", "--episodes", "10")) == 1
    assert f"{place} is a link to" in capsys.readouterr().out
    assert not (out / "seed-0").exists()


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with signals.handle() as received:
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # the same request
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_without_ray_it_says_which_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "torchplastic.experiments.ray_pool", raising=False)
    assert plastic(*sweep(tmp_path / "sweep", "--backend", "ray")) == 2
    assert "torchplastic[cluster]" in capsys.readouterr().err


def test_a_failing_seed_says_why(tmp_path, capsys, run_process):
    out = tmp_path / "sweep"
    assert plastic(*sweep(out, "--seeds", "1", "--optim.lr", "1e38", "--episodes", "50")) == 1
    assert "seed 0  failed" in (output := capsys.readouterr().out)
    assert "the loss is" in output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["sweep"], "name an experiment"),
        (["sweep", "nothing"], "unknown experiment"),
        (["sweep", "patterns", "--seeds", "0"], "--seeds must be at least 1"),
        (["sweep", "patterns", "--jobs", "two"], "--jobs"),
        (["sweep", "patterns", "--seed", "3"], "sets the seeds"),
        (["sweep", "patterns", "--backend", "moon"], "--backend"),
        (["sweep", "patterns", "--task.bits", "0"], "task.bits"),
        (["sweep", "patterns", "--devices", "0"], "--devices must be at least 1"),
    ],
)
def test_wrong_use_is_one_line(args, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert plastic(*args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert words in captured.err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_sweep_or_another_one_is_left_alone(tmp_path, capsys, run_process):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("years of work")
    assert plastic(*sweep(tmp_path / "own")) == 2
    assert "is no sweep" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "own").iterdir()] == ["thesis.txt"]
    out = tmp_path / "sweep"
    assert plastic(*sweep(out, "--seeds", "1", "--episodes", "10")) == 0
    assert plastic(*sweep(out, "--seeds", "1", "--optim.lr", "0.1")) == 2
    assert "other settings" in capsys.readouterr().err


def test_the_place_of_a_sweep_depends_on_its_settings_alone(tmp_path):
    from torchplastic.experiments import catalog
    from torchplastic.experiments.sweep import default_path

    config = catalog.settings("patterns", "smoke")
    assert default_path(config).parent == Path("runs/sweeps")
    for change, same in (({"seed": 3}, True), ({"episodes": 9}, True), ({"threads": 2}, True), ({"batch": 2}, False)):
        other = type(config)(**{**vars(config), **change})
        assert (default_path(other) == default_path(config)) == same


class _Gpu:
    type = "cuda"


@pytest.mark.parametrize(
    ("gib", "main", "cores", "seeds", "more", "expected"),
    [
        (80, 64, 16, 10, {}, 10),  # every seed
        (80, 64, 4, 10, {}, 4),  # a core for each
        (11, 64, 16, 10, {}, 5),  # two GiB for a process, and little for the run
        (80, 7, 16, 10, {}, 3),  # of the main memory too
        (1, 64, 16, 10, {}, 1),  # the run itself says that it does not fit
        (80, 64, 16, 10, {"devices": 2}, 2),
        (80, 64, 16, 10, {"backend": "ray"}, 2),
        (80, 64, 16, 10, {"device": "cpu"}, 2),
    ],
)
def test_as_many_seeds_at_a_time_as_fit_on_one_gpu(gib, main, cores, seeds, more, expected, tmp_path, monkeypatch):
    from torchplastic.experiments import catalog, environment
    from torchplastic.experiments import sweep as module
    from torchplastic.train import memory

    told = {"devices": 1, "device": "cuda", "backend": "local", **more}
    if told["device"] == "cuda":
        monkeypatch.setattr(environment, "place", lambda config, device: _Gpu)
    monkeypatch.setattr(memory, "available", lambda device: int((gib if device.type == "cuda" else main) * 2**30))
    monkeypatch.setattr(module, "_cores", lambda: cores)
    config = catalog.settings("maze", "smoke")
    what = module.Sweep(config, tuple(range(seeds)), (), told["device"], told["devices"], tmp_path)
    assert module.default_jobs(what, told["backend"]) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_sweep_on_a_gpu_that_is_not_there_is_one_line(tmp_path, capsys):
    assert plastic(*sweep(tmp_path / "sweep", "--device", "cuda")) == 2
    assert "--device cuda cannot be used here" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_seeds_are_debugged_too(tmp_path, capsys, run_process):
    """Its log has the traceback; the last line says why, as ever."""
    out = tmp_path / "sweep"
    more = ["--seeds", "1", "--optim.lr", "1e38", "--episodes", "50", "--debug"]
    assert plastic(*sweep(out, *more)) == 1
    assert "the loss is" in capsys.readouterr().out
    assert "Traceback" in (out / "logs" / "seed-0.log").read_text()
    assert "debug" not in json.loads((out / "sweep.json").read_text())["settings"]


def test_the_pool_keeps_to_its_jobs_and_kills_what_does_not_end(tmp_path, run_process):
    deaf = "from signal import *; import time; signal(SIGTERM, SIG_IGN); print(1, flush=True); time.sleep(60)"
    jobs = [SeedJob(i, ("-c", deaf), tmp_path / f"{i}.log", 1) for i in range(3)]
    with LocalPool(2) as pool:
        pool.start(jobs)
        while not all((tmp_path / f"{i}.log").is_file() and (tmp_path / f"{i}.log").read_text() for i in (0, 1)):
            time.sleep(0.02)
        assert sorted(job.seed for job in pool.running()) == [0, 1]
        pool.interrupt()
        assert pool.ended(0.2) == []  # they do not listen, and the third is not started
        pool.interrupt()
        codes = {}
        while pool.unfinished():
            codes |= {job.seed: code for job, code in pool.ended(5)}
    assert codes == {0: -signal.SIGKILL, 1: -signal.SIGKILL}
    assert not (tmp_path / "2.log").exists()


def test_lines_in_a_pipe(capsys):
    with SweepProgress("sweep x", 100) as progress:
        progress.update([JobStatus(0, "running"), JobStatus(1, "waiting")])
        progress.update([JobStatus(0, "running", 50, 0.1), JobStatus(1, "waiting")])
        progress.update([JobStatus(0, "failed", 50, 0.1, "killed by SIGKILL"), JobStatus(1, "running")])
        progress.update([JobStatus(1, "finished", 100, 21.5, measure="reward")])
    assert capsys.readouterr().err.splitlines() == [
        "sweep x seed=0 running episode=0 of=100",
        "sweep x seed=0 failed episode=50 of=100 error=0.1 (killed by SIGKILL)",
        "sweep x seed=1 running episode=0 of=100",
        "sweep x seed=1 finished episode=100 of=100 reward=21.5",
    ]


@pytest.mark.parametrize("measure", ["error", "reward"])
def test_a_run_says_what_it_measures(measure, tmp_path):
    assert position(tmp_path) == (0, None, "")
    rows = [{"episode": 10, measure: 3.0}, {"episode": 20, measure: 2.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert position(tmp_path) == (20, 2.5, measure)


@pytest.mark.slow
def test_ray(tmp_path, capsys, run_process):
    pytest.importorskip("ray", reason="needs the extra cluster")
    out = tmp_path / "sweep"
    more = ["--seeds", "2", "--jobs", "2", "--backend", "ray"]
    assert plastic(*sweep(out, *more, "--episodes", "25")) == 0
    assert "2 of 2 seeds finished" in capsys.readouterr().out
    assert plastic(*tiny(tmp_path / "alone", "--seed", "1", "--episodes", "25")) == 0
    assert timeless(out / "seed-1") == timeless(tmp_path / "alone")

    parent = run_process.start([*COMMAND, *sweep(out, *more, "--episodes", "1000000")], seconds=200)
    wait_for_rows(out, (0, 1), parent, beyond=25)
    parent.send_signal(signal.SIGINT)
    output, _ = parent.finish()
    assert parent.returncode == 130
    assert output.count("stopped") == 2
    mine = [p for p in psutil.process_iter(["cmdline"]) if str(out) in " ".join(p.info["cmdline"] or [])]
    assert not [p for p in mine if p.pid != os.getpid()]
    assert plastic(*sweep(out, "--seeds", "2", "--episodes", "1")) == 0
