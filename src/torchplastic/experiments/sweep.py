"""The same run over many seeds, each a process of its own: `plastic train` with `--seed S`.

DIR/sweep.json       what the sweep runs
DIR/seed-S/          a run directory
DIR/logs/seed-S.log  what its process said
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from torchplastic.experiments import launch, registry, signals
from torchplastic.experiments.children import Child, LocalPool, Pool
from torchplastic.experiments.config import Config
from torchplastic.runs import Run, RunError, flatten, locked, read_json, write_json
from torchplastic.train import memory
from torchplastic.train.progress import Standing, SweepProgress

LOG = logging.getLogger("torchplastic")
POLL = 0.5  # seconds between two looks at the runs
JOBS = 2  # seeds at a time, where each has no GPU to share
FREE = ("seed", "episodes", "threads", "capture", "save_seconds", "log_every")  # may differ when a sweep goes on


@dataclass(frozen=True)
class Sweep:
    """What to run."""

    config: Config
    seeds: tuple[int, ...]
    flags: tuple[str, ...]
    """Flags of `plastic train` beyond the experiment, the seed and where to write."""
    device: str
    devices: int
    path: Path
    debug: bool = False
    """Whether the error of a seed comes with its traceback, in its log."""

    def run_path(self, seed: int) -> Path:
        """The run directory of a seed."""
        return self.path / f"seed-{seed}"


def settings(config: Config) -> dict[str, Any]:
    """What makes a sweep the same one: all settings but those that may differ between two calls."""
    return {name: value for name, value in config.to_dict().items() if name not in FREE}


def default_path(config: Config) -> Path:
    """runs/sweeps/EXPERIMENT-FORM-HASH; the hash is of all settings but those of `FREE`."""
    digest = sha256(json.dumps(settings(config), sort_keys=True).encode()).hexdigest()[:8]
    return Path("runs") / "sweeps" / f"{config.experiment}-{config.form}-{digest}"


def default_jobs(sweep: Sweep, backend: str) -> int:
    """How many seeds run at a time where nobody says: those that fit side by side on one GPU; elsewhere 2.

    A single seed leaves a GPU idle most of the time. Each has a core of the CPU, which sends it its work.
    """
    device = launch.place(sweep.config, sweep.device)
    if device.type != "cuda" or sweep.devices > 1 or backend != "local":
        return JOBS
    needed = registry.get(sweep.config.experiment).needed_bytes(sweep.config)
    return max(1, min(len(sweep.seeds), _cores(), memory.side_by_side(needed, device)))


def make_pool(backend: str, jobs: int) -> Pool:
    """What runs the processes: this machine, or Ray."""
    if backend == "local":
        return LocalPool(jobs)
    from torchplastic.experiments.on_ray import RayPool

    return RayPool(jobs)


def run_sweep(sweep: Sweep, pool: Pool, jobs: int) -> tuple[list[Standing], int | None]:
    """Run what is not finished -> how each seed stands, and the signal that ended it all, if one did.

    pool runs the processes, `jobs` at a time. A seed that fails does not stop the others.
    """
    threads = sweep.config.threads or max(1, _cores() // jobs)
    registry.get(sweep.config.experiment).data(sweep.config)  # before anything is made
    _claim(sweep)
    LOG.info("sweep %s", sweep.path)
    with locked(sweep.path):
        children = []
        states: dict[int, tuple[str, str]] = {}  # state, and why
        for seed in sweep.seeds:
            try:
                child = _child(sweep, seed, threads)
            except (RunError, OSError) as error:
                states[seed] = ("failed", str(error))
                continue
            states[seed] = ("waiting", "") if child else ("finished", "")
            children += [child] if child else []
        said = {child.seed: child.log.stat().st_size if child.log.is_file() else 0 for child in children}

        def standings() -> list[Standing]:
            found = []
            for seed, (state, why) in states.items():
                episode, measured, measure = position(sweep.run_path(seed))
                found.append(Standing(seed, state, episode, measured, why, measure))
            return found

        title = f"sweep {sweep.config.experiment} {sweep.config.form}"
        with SweepProgress(title, sweep.config.episodes) as progress, pool, signals.noted(pool.interrupt) as caught:
            pool.start(children)
            while pool.unfinished():
                for child, code in pool.ended(POLL):
                    states[child.seed] = _outcome(child, code, said[child.seed], bool(caught))
                for child in pool.running():
                    states[child.seed] = ("running", "")
                progress.update(standings())
        for seed, (state, _) in states.items():
            if state in ("waiting", "running"):
                states[seed] = ("stopped", "")
        return standings(), caught[0] if caught else None


def position(path: Path) -> tuple[int, float | None, str]:
    """Episodes that a run has done, its last error or reward, read from the end of its metrics, and which it is."""
    file = path / "metrics.jsonl"
    if not file.is_file():
        return 0, None, ""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 4096))
        lines = [line for line in stream.read().splitlines(keepends=True) if line.endswith(b"\n")]
    if not lines:
        return 0, None, ""
    try:
        row = json.loads(lines[-1])
    except ValueError:
        return 0, None, ""
    measure = "error" if "error" in row else "reward"
    return row["episode"], row.get(measure), measure


# --- pieces


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _claim(sweep: Sweep) -> None:
    """Make the directory, or see that it is this sweep's."""
    file = sweep.path / "sweep.json"
    about = {"experiment": sweep.config.experiment, "form": sweep.config.form, "settings": settings(sweep.config)}
    about = json.loads(json.dumps(about))
    if file.is_file():
        there = read_json(file)
        if there != about:
            old, new = (flatten(each) for each in (there, about))
            names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            raise RunError(f"{sweep.path} is a sweep with other settings: {', '.join(names)}. Choose another --out.")
        return
    if sweep.path.exists() and (not sweep.path.is_dir() or any(sweep.path.iterdir())):
        raise RunError(f"{sweep.path} exists and is no sweep. Choose another --out.")
    try:
        sweep.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {sweep.path}: {error.strerror}.") from None
    write_json(file, about)


def _child(sweep: Sweep, seed: int, threads: int) -> Child | None:
    """The process that takes a seed to its end; None where it is there. RunError where it cannot go on."""
    path, episodes = sweep.run_path(seed), sweep.config.episodes
    command = ["-m", "torchplastic", "train"]
    if (path / "config.json").is_file():
        run = Run.open(path)
        if run.summary is not None and run.summary["episodes"] >= episodes:
            return None
        command += ["--resume", str(path), "--episodes", str(max(episodes, _done(run)))]
        command += ["--device", sweep.device, "--devices", str(sweep.devices)]
    else:
        if path.exists():
            _clear(path)
        command += [sweep.config.experiment, *sweep.flags]
        command += ["--seed", str(seed), "--threads", str(threads), "--out", str(path)]
    on_gpu = sweep.device.startswith("cuda") or (sweep.device == "auto" and torch.cuda.is_available())
    command += ["--debug"] if sweep.debug else []
    log = sweep.path / "logs" / f"seed-{seed}.log"
    return Child(seed, tuple(command), log, threads, sweep.devices if on_gpu else 0)


def _clear(path: Path) -> None:
    """Remove what a run left that was stopped before its first checkpoint was complete."""
    with locked(path):
        if (path / "metrics.jsonl").exists():
            raise RunError(f"{path} has metrics and no config.json; move it away.")
        shutil.rmtree(path)


def _done(run: Run) -> int:
    """Episodes behind a run's checkpoint; 0 where it cannot be read, which its process will say."""
    try:
        return int(run.checkpoint()["episode"])
    except RunError:
        return 0


def _outcome(child: Child, code: int, said: int, stopping: bool) -> tuple[str, str]:
    """State of a child that has ended, and why; its log had `said` bytes before."""
    if code == 0:
        return "finished", ""
    if stopping:
        return "stopped", ""
    if code < 0:
        return "failed", f"killed by {signal.Signals(-code).name}"
    lines = child.log.read_bytes()[said:].decode(errors="replace").strip().splitlines()
    return "failed", (lines or [f"exit code {code}"])[-1].removeprefix("plastic: error: ")
