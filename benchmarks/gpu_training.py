"""Training for gpu.py: the runs that are too long for a CPU, side by side, through the command `plastic train`."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

RUNS = {
    "fifty-bit-lstm": ("fifty-bit", "--preset", "published", "--model.kind", "lstm", "--episodes", "500000"),
    "images": ("images", "--preset", "paper", "--episodes", "40000"),
    "maze": ("maze", "--preset", "paper", "--episodes", "1000000"),
}
TINY_RUNS = {"patterns": ("patterns", "--preset", "smoke", "--episodes", "20", "--task.bits", "20")}
SAVING = 20  # seconds, to save after a signal
SHORTEST = 30  # seconds; starting takes some of them


def missing_lab() -> str | None:
    """Why the laboratory cannot run here: a package that is not installed."""
    try:
        for module in ("cli.train", "experiments.launch", "tasks.maze_env"):
            importlib.import_module(f"torchplastic.{module}")
    except ImportError as error:
        return str(error)
    return None


def train(runs: dict[str, tuple[str, ...]], folder: Path, device: str, seconds: float) -> list[str]:
    """Start or resume every run, and stop them in time; each saves -> the names of those that have finished."""
    end = time.monotonic() + seconds
    folder.mkdir(parents=True, exist_ok=True)
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, settings in runs.items():
            with (folder / f"{name}.log").open("ab") as log:
                command = [sys.executable, "-m", "torchplastic", "train", *_where(folder / name, settings)]
                children[name] = subprocess.Popen(
                    [*command, "--device", device],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
        while time.monotonic() < end - SAVING and any(child.poll() is None for child in children.values()):
            time.sleep(0.2)
    finally:
        for child in children.values():
            if child.poll() is None:
                child.terminate()  # it saves
        for child in children.values():
            try:
                child.wait(max(1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
    for name, child in children.items():
        lines = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        print(f"{name}: {'finished' if not child.returncode else lines[-1] if lines else 'ended'}", flush=True)
    return [name for name, child in children.items() if not child.returncode]


def _where(path: Path, settings: tuple[str, ...]) -> list[str]:
    """The flags that resume a run, or start it in a directory that does not exist yet."""
    places = [path, *(path.with_name(f"{path.name}-{i}") for i in range(2, 100))]
    for place in places:
        if (place / "config.json").exists():
            return ["--resume", str(place)]
    return [*settings, "--out", str(next(place for place in places if not place.exists()))]
