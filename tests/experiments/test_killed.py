"""Whatever moment a run is killed at, the resumed run is the undisturbed one.

The run directory is copied before every renaming, removal and row, and with half of the row: a process that is killed
leaves it as the copy is, temporary files included.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.command import timeless
from torchplastic import runs
from torchplastic.experiments import catalog, images, launch
from torchplastic.runs import RunDirectory, RunError
from torchplastic.tasks.images import Images
from torchplastic.tasks.patterns import Patterns

TASKS = {
    "images": Images(side=3, shown=1, gap=1, cycles=1),
    "patterns": Patterns(bits=8, patterns=2, shown=1, gap=1, cycles=1, test=1),
}
# Runs of 6 episodes. A row of 2 is whole where training ends, and one of 4 is not.
EXPERIMENTS = [("images", 2), ("images", 4), ("patterns", 2)]


def start(settings, out):
    return launch.start(catalog.get(settings.experiment), settings, out)


def config(experiment, episodes, log_every=2):
    """Saved after every update; validation values at every fourth episode, and at the end."""
    made = replace(
        catalog.settings(experiment, "smoke"), task=TASKS[experiment],
        episodes=episodes, log_every=log_every, save_seconds=0.0, threads=1,
    )  # fmt: skip
    return replace(made, eval_every=4, eval_episodes=2) if experiment == "images" else made


@pytest.fixture
def killed_at_every_moment(monkeypatch):
    """(run directory, what writes there) -> what a kill would leave of it, at each moment."""
    watched, copies = [], []

    def moment(half_a_row=""):
        for path in watched:
            copy = path.with_name(f"{path.name}-killed-{len(copies)}")
            copies.append(Path(shutil.copytree(path, copy)))
            if half_a_row:
                with (copy / "metrics.jsonl").open("a") as file:
                    file.write(half_a_row)

    def after_a_moment(act):
        def acts(*args, **kwargs):
            moment()
            return act(*args, **kwargs)

        return acts

    append = after_a_moment(RunDirectory.append)

    def append_or_tear(run, row):
        moment(json.dumps(row)[:-9])
        append(run, row)

    monkeypatch.setattr(Path, "replace", after_a_moment(Path.replace))
    monkeypatch.setattr(Path, "unlink", after_a_moment(Path.unlink))
    monkeypatch.setattr(RunDirectory, "append", append_or_tear)
    monkeypatch.setattr(runs.os, "fsync", lambda descriptor: None)  # a killed process loses nothing that it has written
    monkeypatch.setattr(images, "BASELINE_EPISODES", 4)  # they would take most of the time

    def watch(path, call):
        watched.append(path)
        call()
        watched.clear()
        return copies

    return watch


def left_by(path):
    """What a finished run holds, without what depends on the clock."""
    run = RunDirectory(path)
    with np.load(path / "samples.npz") as samples:
        arrays = {name: samples[name].tobytes() for name in samples.files}
    checkpoint = run.checkpoint()
    return {
        "rows": timeless(path),
        "weights": {name: tensor.tolist() for name, tensor in run.weights().items()},
        "checkpoint": {name: checkpoint[name] for name in ("episode", "row", "errors")},
        "generator": checkpoint["generator"].tolist(),
        "samples": arrays,
        "summary": {name: run.summary[name] for name in ("episodes", "final", "parameters")},
        "config": run.config,
    }


def validated(path):
    return [row["episode"] for row in timeless(path) if "val_error" in row]


@pytest.mark.parametrize(("experiment", "log_every"), EXPERIMENTS)
def test_a_run_that_was_killed(experiment, log_every, tmp_path, killed_at_every_moment):
    whole, settings = tmp_path / "whole", config(experiment, 6, log_every)
    killed = killed_at_every_moment(whole, lambda: start(settings, whole))
    assert validated(whole) == ([4, 6] if experiment == "images" else [])
    undisturbed, resumed = left_by(whole), 0
    for path in killed:
        if not (path / "config.json").exists():  # nothing was trained yet
            with pytest.raises(RunError, match="is no run directory"):
                launch.resume(path)
            continue
        launch.resume(path)
        assert left_by(path) == undisturbed, path
        resumed += 1
    assert resumed > 10


@pytest.mark.parametrize(("experiment", "log_every"), EXPERIMENTS)
def test_a_run_that_was_killed_as_it_went_on_further(experiment, log_every, tmp_path, killed_at_every_moment):
    """Resumed to more episodes it is the longer run; resumed to those that it had it is still the shorter one."""
    short, long, parted = (tmp_path / name for name in ("short", "long", "parted"))
    start(config(experiment, 6, log_every), short)
    start(config(experiment, 9, log_every), long)
    assert validated(long) == ([4, 8, 9] if experiment == "images" else [])
    shorter, longer, both = left_by(short), left_by(long), 0
    shutil.copytree(short, parted)
    for path in killed_at_every_moment(parted, lambda: launch.resume(parted, 9)):
        if RunDirectory(path).checkpoint()["episode"] == 6:
            back = Path(shutil.copytree(path, f"{path}-back"))
            launch.resume(back, 6)
            assert left_by(back) == shorter, path
            both += 1
        launch.resume(path, 9)
        assert left_by(path) == longer, path
    assert both > 4
    assert left_by(parted) == longer


def test_a_run_that_was_killed_before_its_end_may_end_there(tmp_path, killed_at_every_moment):
    """It gets the validation values of a run that was meant to end there."""
    short, long = tmp_path / "short", tmp_path / "long"
    start(config("images", 6), short)
    killed = killed_at_every_moment(long, lambda: start(config("images", 8), long))
    path = next(
        path for path in killed if (path / "checkpoint.pt").exists() and RunDirectory(path).checkpoint()["episode"] == 6
    )
    assert validated(path) == [4]
    launch.resume(path, 6)
    assert left_by(path) == left_by(short)
