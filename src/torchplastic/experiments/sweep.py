"""Train one run per seed, each in its own process: `plastic train` with `--seed S`.

DIR/sweep.json       the settings of the sweep
DIR/seed-S/          a run directory
DIR/logs/seed-S.log  the output of its process
"""

from __future__ import annotations

import json
import logging
import os
import signal
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from torchplastic.experiments import catalog, environment, signals
from torchplastic.experiments.config import Config
from torchplastic.experiments.workers import LocalPool, Pool, SeedJob
from torchplastic.legacy import modern
from torchplastic.runs import RunDirectory, RunError, flatten, locked, read_json, refuse_link, write_json
from torchplastic.train import memory
from torchplastic.train.progress import JobStatus, SweepProgress

LOG = logging.getLogger("torchplastic")
POLL = 0.5  # seconds between two updates of the progress
JOBS = 2  # default number of seeds at a time, except on one GPU
FREE = ("seed", "episodes", "threads", "capture", "save_seconds", "log_every")  # may change when a sweep continues


@dataclass(frozen=True)
class Sweep:
    """The settings of a sweep."""

    config: Config
    seeds: tuple[int, ...]
    flags: tuple[str, ...]
    """Flags of `plastic train`, without --seed, --threads and --out."""
    device: str
    devices: int
    path: Path
    debug: bool = False
    """Write tracebacks to the logs."""

    def run_path(self, seed: int) -> Path:
        """The run directory of a seed."""
        return self.path / f"seed-{seed}"


def settings(config: Config) -> dict[str, Any]:
    """The settings that identify a sweep: all but those in `FREE`."""
    return {name: value for name, value in config.to_dict().items() if name not in FREE}


def default_path(config: Config) -> Path:
    """runs/sweeps/EXPERIMENT-PRESET-HASH; the hash is of the settings, but for `FREE`, that are not the preset's.

    So a setting that a later version adds leaves the path as it is.
    """
    own, preset = (flatten(settings(each)) for each in (config, catalog.settings(config.experiment, config.preset)))
    changed = {name: value for name, value in own.items() if value != preset[name]}
    digest = sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]
    return Path("runs") / "sweeps" / f"{config.experiment}-{config.preset}-{digest}"


def default_jobs(sweep: Sweep, backend: str) -> int:
    """The default number of seeds at a time: as many as fit on one GPU, otherwise 2.

    A single seed leaves a GPU idle most of the time. Each seed needs a CPU core to launch its kernels.
    """
    device = environment.place(sweep.config, sweep.device)
    if device.type != "cuda" or sweep.devices > 1 or backend != "local":
        return JOBS
    needed = catalog.get(sweep.config.experiment).needed_bytes(sweep.config)
    return max(1, min(len(sweep.seeds), _cores(), memory.side_by_side(needed, device)))


def make_pool(backend: str, jobs: int) -> Pool:
    """A pool of processes on this machine ("local") or on a Ray cluster ("ray")."""
    if backend == "local":
        return LocalPool(jobs)
    from torchplastic.experiments.ray_pool import RayPool

    return RayPool(jobs)


def run_sweep(sweep: Sweep, pool: Pool, jobs: int) -> tuple[list[JobStatus], int | None]:
    """Run the unfinished seeds -> the status of each seed, and the signal that stopped the sweep, if any.

    pool: runs the processes, `jobs` at a time. A failing seed does not stop the others.
    """
    threads = sweep.config.threads or max(1, _cores() // jobs)
    catalog.get(sweep.config.experiment).data(sweep.config)  # raises before anything is written
    _claim(sweep)
    LOG.info("sweep %s", sweep.path)
    with locked(sweep.path):
        pending = []
        states: dict[int, tuple[str, str]] = {}  # state, and why
        for seed in sweep.seeds:
            try:
                job = _job(sweep, seed, threads)
            except (RunError, OSError) as error:
                states[seed] = ("failed", str(error))
                continue
            states[seed] = ("waiting", "") if job else ("finished", "")
            pending += [job] if job else []
        log_start = {job.seed: job.log.stat().st_size if job.log.is_file() else 0 for job in pending}

        def statuses() -> list[JobStatus]:
            found = []
            for seed, (state, why) in states.items():
                episode, measured, measure = position(sweep.run_path(seed))
                found.append(JobStatus(seed, state, episode, measured, why, measure))
            return found

        title = f"sweep {sweep.config.experiment} {sweep.config.preset}"
        with SweepProgress(title, sweep.config.episodes) as progress, pool, signals.handle(pool.interrupt) as received:
            pool.start(pending)
            while pool.unfinished():
                for job, code in pool.ended(POLL):
                    states[job.seed] = _outcome(job, code, log_start[job.seed], bool(received))
                for job in pool.running():
                    states[job.seed] = ("running", "")
                progress.update(statuses())
        for seed, (state, _) in states.items():
            if state in ("waiting", "running"):
                states[seed] = ("stopped", "")
        return statuses(), received[0] if received else None


def position(path: Path) -> tuple[int, float | None, str]:
    """A run's last episode, its last error or reward, and the name of that measure."""
    if not (row := RunDirectory(path).last_row()):
        return 0, None, ""
    measure = "error" if "error" in row else "reward"
    return row["episode"], row.get(measure), measure


# --- helpers


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _claim(sweep: Sweep) -> None:
    """Create the directory, or check that it belongs to this sweep. RunError if it does not."""
    file = sweep.path / "sweep.json"
    about = {"experiment": sweep.config.experiment, "preset": sweep.config.preset, "settings": settings(sweep.config)}
    about = json.loads(json.dumps(about))
    if file.is_file():
        there = modern(read_json(file), sweep.config.experiment)
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


def _job(sweep: Sweep, seed: int, threads: int) -> SeedJob | None:
    """The job that finishes a seed; None if it is finished. RunError if it cannot continue."""
    path, episodes = sweep.run_path(seed), sweep.config.episodes
    command = ["-m", "torchplastic", "train"]
    if (path / "config.json").is_file():
        run = RunDirectory.open(path)
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
    for place in (log.parent, log):
        refuse_link(place)
    return SeedJob(seed, tuple(command), log, threads, sweep.devices if on_gpu else 0)


def _clear(path: Path) -> None:
    """Remove a run that was stopped before its config was written. RunError if the folder holds anything else."""
    _started(path)
    with locked(path):
        for file in _started(path):
            file.unlink()
        path.rmdir()


def _started(path: Path) -> list[Path]:
    """The files of a run before its first update. RunError if there are others."""
    if path.is_symlink() or not path.is_dir():
        raise RunError(f"{path} is no run directory; move it away.")
    files = sorted(path.iterdir())
    for file in files:
        written = file.name in ("lock", "checkpoint.pt") or file.name.startswith((".checkpoint.pt.", ".config.json."))
        if not written or file.is_symlink() or not file.is_file():
            raise RunError(f"{path} has {file.name} and no config.json; move it away.")
    if (path / "checkpoint.pt").exists() and (episode := RunDirectory(path).checkpoint()["episode"]):
        raise RunError(f"{path} has a checkpoint of episode {episode} and no config.json; move it away.")
    return files


def _done(run: RunDirectory) -> int:
    """The episode of a run's checkpoint; 0 if it cannot be read, which its process then reports."""
    try:
        return int(run.checkpoint()["episode"])
    except RunError:
        return 0


def _outcome(job: SeedJob, code: int, log_start: int, stopping: bool) -> tuple[str, str]:
    """The state of an ended job, and the reason; its log had `log_start` bytes before."""
    if code == 0:
        return "finished", ""
    if stopping:
        return "stopped", ""
    if code < 0:
        return "failed", f"killed by {signal.Signals(-code).name}"
    lines = job.log.read_bytes()[log_start:].decode(errors="replace").strip().splitlines()
    return "failed", (lines or [f"exit code {code}"])[-1].removeprefix("plastic: error: ")
