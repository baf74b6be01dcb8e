"""From paths to what a report draws: runs, the runs of sweeps, and bench files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from torchplastic.legacy import modern
from torchplastic.runs import RunDirectory, RunRecord, run_directories

Json = dict[str, Any]
Samples = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Bench:
    """One bench file.

    path: the file, as passed.
    content: its JSON object, with `"kind": "bench"`.
    """

    path: Path
    content: Json

    @property
    def rows(self) -> list[Json]:
        """One entry per case and implementation."""
        return list(self.content.get("rows", []))


@dataclass(frozen=True)
class Sources:
    """The runs and bench files of a report, in the order of the paths."""

    runs: list[RunRecord]
    benches: list[Bench]


def read_sources(paths: Iterable[Path]) -> Sources:
    """Read the runs and bench files at these paths; a run that is named twice is read once.

    Raises ValueError, in one line, if a path is no run directory, sweep or bench file.
    """
    runs: dict[Path, RunRecord] = {}
    benches: dict[Path, Bench] = {}
    for path in paths:
        if path.is_file():
            benches.setdefault(path.resolve(), read_bench(path))
            continue
        for run in _runs(path):
            if run.path.resolve() not in runs:
                runs[run.path.resolve()] = run.read()
    return Sources(list(runs.values()), list(benches.values()))


def read_bench(path: Path) -> Bench:
    """Read a bench file. Raises ValueError for any other file."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(_refusal(path, "it is not JSON")) from error
    if not isinstance(content, dict) or content.get("kind") != "bench":
        raise ValueError(_refusal(path, 'it has no "kind": "bench"'))
    return Bench(path, modern(content, ""))


def _runs(path: Path) -> list[RunDirectory]:
    """The run directory, or those of the sweep. ValueError if the path is neither."""
    if not path.exists():
        raise ValueError(_refusal(path, "it does not exist"))
    if not path.is_dir():
        raise ValueError(_refusal(path, "it is neither a file nor a directory"))
    if not (runs := run_directories(path)):
        raise ValueError(_refusal(path, "it has neither config.json nor seed-*/config.json"))
    return runs


def _refusal(path: Path, why: str) -> str:
    return f"{path} is no run directory, sweep or bench file: {why}."
