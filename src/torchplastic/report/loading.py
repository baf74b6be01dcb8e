"""From paths to runs and bench files: what a report reads, and how it refuses what it cannot read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchplastic.legacy import modern, modern_text

Json = dict[str, Any]
Samples = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class LoadedRun:
    """One run directory, as far as it has been written.

    path: the directory, as it was given.
    config: `config.json`.
    rows: the whole lines of `metrics.jsonl`.
    summary: `summary.json`, or None while the run has not finished.
    evaluations: the files of `eval/` by their names without the ending.
    """

    path: Path
    config: Json
    rows: list[Json]
    summary: Json | None
    evaluations: dict[str, Json]

    @property
    def experiment(self) -> str:
        """The name of the experiment."""
        return str(self.config["experiment"])

    @property
    def preset(self) -> str:
        """The name of the preset, or an empty string."""
        return str(self.config.get("preset", ""))

    @property
    def seed(self) -> Any:
        """The seed, or None where the configuration has none."""
        return self.config.get("seed")

    @property
    def finished(self) -> bool:
        """Whether the run has written its summary."""
        return self.summary is not None

    @property
    def episodes(self) -> int:
        """Episodes trained so far."""
        return int(self.rows[-1]["episode"]) if self.rows else 0

    def noted(self, key: str) -> Any:
        """What the summary, or else the configuration, says under `key`; None where neither does."""
        return (self.summary or {}).get(key, self.config.get(key))

    def samples(self) -> Samples:
        """The arrays of `samples.npz` by their keys; empty while there is no such file.

        Raises ValueError for a file that is no archive of plain arrays.
        """
        path = self.path / "samples.npz"
        if not path.exists():
            return {}
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return {modern_text(key): archive[key] for key in archive.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} cannot be read: {_one_line(error)}.") from error


@dataclass(frozen=True)
class Bench:
    """One bench file.

    path: the file, as it was given.
    content: the JSON object in it, `"kind": "bench"`.
    """

    path: Path
    content: Json

    @property
    def rows(self) -> list[Json]:
        """One entry per case and implementation."""
        return list(self.content.get("rows", []))


@dataclass(frozen=True)
class Sources:
    """All that a report is drawn from, in the order of the paths."""

    runs: list[LoadedRun]
    benches: list[Bench]


def read_sources(paths: Iterable[Path]) -> Sources:
    """The runs and bench files that the paths name; a run that is named twice counts once.

    Raises ValueError, in one line, for a path that is no run directory, sweep or bench file.
    """
    runs: dict[Path, LoadedRun] = {}
    benches: dict[Path, Bench] = {}
    for path in paths:
        if path.is_file():
            benches.setdefault(path.resolve(), read_bench(path))
            continue
        for directory in run_directories(path):
            if directory.resolve() not in runs:
                runs[directory.resolve()] = read_run(directory)
    return Sources(list(runs.values()), list(benches.values()))


def is_run(path: Path) -> bool:
    """Whether the path is a run directory (and no sweep or bench file)."""
    return (path / "config.json").is_file()


def run_directories(path: Path) -> list[Path]:
    """The path itself if it is a run directory, the runs `seed-*` in it if it is a sweep's.

    Raises ValueError for any other path.
    """
    if not path.exists():
        raise ValueError(_refusal(path, "it does not exist"))
    if not path.is_dir():
        raise ValueError(_refusal(path, "it is neither a file nor a directory"))
    if is_run(path):
        return [path]
    seeds = [child for child in path.glob("seed-*") if is_run(child)]
    if not seeds:
        raise ValueError(_refusal(path, "there is neither config.json nor seed-*/config.json in it"))
    return sorted(seeds, key=lambda child: (len(child.name), child.name))


def read_run(path: Path) -> LoadedRun:
    """The run in that directory. Raises ValueError where one of its files cannot be read."""
    config = _read_object(path / "config.json")
    if "experiment" not in config:
        raise ValueError(_refusal(path, 'its config.json has no "experiment"'))
    experiment = str(config["experiment"])
    summary = path / "summary.json"
    return LoadedRun(
        path=path,
        config=modern(config, experiment),
        rows=modern(read_rows(path / "metrics.jsonl"), experiment),
        summary=modern(_read_object(summary), experiment) if summary.exists() else None,
        evaluations={
            file.stem: modern(_read_object(file), experiment) for file in sorted((path / "eval").glob("*.json"))
        },
    )


def read_rows(path: Path) -> list[Json]:
    """The rows of a metrics file; none while there is no file.

    A last line that is not whole is left out: the run may be writing it at this moment. Any other broken line
    raises ValueError.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().decode(errors="replace").splitlines()
    rows: list[Json] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or "episode" not in row:
                raise ValueError('no object with the key "episode"')
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}: line {number} is no metrics row: {_one_line(error)}.") from error
        rows.append(row)
    return rows


def read_bench(path: Path) -> Bench:
    """The bench file at that path. Raises ValueError for any other file."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(_refusal(path, "it is not JSON")) from error
    if not isinstance(content, dict) or content.get("kind") != "bench":
        raise ValueError(_refusal(path, 'it has no "kind": "bench"'))
    return Bench(path, content)


def _read_object(path: Path) -> Json:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {_one_line(error)}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object.")
    return content


def _refusal(path: Path, why: str) -> str:
    return f"{path} is no run directory, sweep or bench file: {why}."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
