"""Load runs, sweeps and bench files from paths. Errors name the file and the problem in one line."""

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
    """One run directory, finished or in progress, with the present names of its keys.

    path: the directory, as passed.
    config: `config.json`.
    rows: the complete lines of `metrics.jsonl`.
    summary: `summary.json`, or None until the run has finished.
    evaluations: the files of `eval/`, by file name without suffix.
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
        """The name of the preset; empty if the configuration has none."""
        return str(self.config.get("preset", ""))

    @property
    def seed(self) -> Any:
        """The seed; None if the configuration has none."""
        return self.config.get("seed")

    @property
    def finished(self) -> bool:
        """Whether the run has written its summary."""
        return self.summary is not None

    @property
    def episodes(self) -> int:
        """Episodes trained so far."""
        return int(self.rows[-1]["episode"]) if self.rows else 0

    def recorded(self, key: str) -> Any:
        """The value of `key` in the summary, or else in the configuration; None if neither has it."""
        return (self.summary or {}).get(key, self.config.get(key))

    def samples(self) -> Samples:
        """The arrays of `samples.npz`, by key; empty if there is no such file.

        Raises ValueError if the file is not an archive of plain arrays.
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

    runs: list[LoadedRun]
    benches: list[Bench]


def read_sources(paths: Iterable[Path]) -> Sources:
    """Load the runs and bench files at these paths; a run that is named twice is loaded once.

    Raises ValueError, in one line, if a path is no run directory, sweep or bench file.
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
    """Whether the path is a run directory, and not a sweep or a bench file."""
    return (path / "config.json").is_file()


def run_directories(path: Path) -> list[Path]:
    """The path itself if it is a run directory; its runs `seed-*` if it is a sweep.

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
        raise ValueError(_refusal(path, "it has neither config.json nor seed-*/config.json"))
    return sorted(seeds, key=lambda child: (len(child.name), child.name))


def read_run(path: Path) -> LoadedRun:
    """Load a run. Raises ValueError if one of its files cannot be read."""
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
    """The rows of a metrics file; empty if there is no file.

    An incomplete last line is skipped, because the run may be writing it. Raises ValueError for any other broken line.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().decode(errors="replace").splitlines()
    rows: list[Json] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or "episode" not in row:
                raise ValueError('it is not an object with the key "episode"')
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}: line {number} is no metrics row: {_one_line(error)}.") from error
        rows.append(row)
    return rows


def read_bench(path: Path) -> Bench:
    """Load a bench file. Raises ValueError for any other file."""
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
        raise ValueError(f"{path} is not a JSON object.")
    return content


def _refusal(path: Path, why: str) -> str:
    return f"{path} is no run directory, sweep or bench file: {why}."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
