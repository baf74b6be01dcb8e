"""A run directory: its files, read and replaced atomically, so that nothing is ever lost.

config.json         the settings; a directory with this file can be resumed
metrics.jsonl       a row every few updates
checkpoint.pt       the state of training; with config.json all that resuming needs
model.safetensors   the weights
samples.npz         arrays for the report, keyed by the kind of figure
eval/*.json         results of `plastic eval`
summary.json        the results, written when the run is finished
lock                locked while a process writes; released when it ends
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import filelock
import numpy as np
import torch
from torch import Tensor

from torchplastic.legacy import modern, modern_text
from torchplastic.reading import read_weights, readable, weights_file

LONGEST_ROW = 4096  # bytes
UNFINISHED = ".torchplastic-part"  # how the name of a file ends while it is written
PREFIXES = ("_orig_mod.", "module.")  # prefixes that torch.compile and data-parallel wrappers add to names


class RunError(ValueError):
    """A run directory that cannot be used; the message is one line with the way out."""


class RunDirectory:
    """Reads and writes the files of one run directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # --- opening

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Create an empty run directory. RunError if the path exists."""
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            hint = f", or continue it: plastic train --resume {path}" if (path / "config.json").is_file() else "."
            raise RunError(f"{path} exists. Choose another --out{hint}") from None
        except OSError as error:
            raise RunError(f"cannot make {path}: {error.strerror}.") from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open an existing run directory. RunError if it is none."""
        if not is_run(path):
            raise RunError(f"{path} is no run directory: it has no config.json.")
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for writing. RunError if another process has locked it."""
        with locked(self.path):
            yield

    def read(self) -> RunRecord:
        """All that a report needs, at once. RunError if a file is damaged."""
        return RunRecord(self.path, self.config, self.metrics(), self.summary, self.evals())

    # --- config and results

    @property
    def config(self) -> dict[str, Any]:
        """config.json with current names. RunError if it is damaged."""
        config = read_json(self.path / "config.json")
        if "experiment" not in config:
            raise RunError(f'{self.path} is no run directory: its config.json has no "experiment".')
        return modern(config, str(config["experiment"]))

    def write_config(self, config: dict[str, Any]) -> None:
        write_json(self.path / "config.json", config)

    @property
    def summary(self) -> dict[str, Any] | None:
        """summary.json, or None while the run is not finished."""
        path = self.path / "summary.json"
        return self._modern(read_json(path)) if path.is_file() else None

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_json(self.path / "summary.json", summary)

    def reopen(self) -> None:
        """Remove the files of a finished run before training continues, and what a killed process left unfinished.

        The checkpoint stays.
        """
        for unfinished in self.path.glob(f".*{UNFINISHED}"):
            unfinished.unlink(missing_ok=True)
        for name in ("summary.json", "model.safetensors", "samples.npz"):
            (self.path / name).unlink(missing_ok=True)

    def write_eval(self, name: str, result: dict[str, Any]) -> Path:
        """Replace eval/NAME.json. RunError if eval is a link."""
        refuse_link(self.path / "eval")
        (self.path / "eval").mkdir(exist_ok=True)
        write_json(self.path / "eval" / f"{name}.json", result)
        return self.path / "eval" / f"{name}.json"

    def evals(self) -> list[dict[str, Any]]:
        """All results under eval/, sorted by name."""
        paths = sorted((self.path / "eval").glob("*.json"))
        return self._modern([read_json(path) for path in paths])

    # --- metrics

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, without an incomplete last line. RunError for any other broken line."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        *lines, _ = path.read_bytes().decode(errors="replace").split("\n")
        return self._modern([_row(line, f"{path}: line {number}") for number, line in enumerate(lines, start=1)])

    def last_row(self) -> dict[str, Any]:
        """The last row of metrics.jsonl, read from its end and with the names in the file; empty without one."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LONGEST_ROW))
            *lines, _ = file.read().decode(errors="replace").split("\n")
        try:
            return _row(lines[-1], str(path)) if lines else {}
        except RunError:
            return {}

    def _modern(self, value: Any) -> Any:
        """A value of one of the run's files with current names; config.json is read once for all of it."""
        return modern(value, str(read_json(self.path / "config.json").get("experiment")))

    def append(self, row: dict[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def cut_metrics(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Remove all rows for which `keep` is false, and an incomplete last line."""
        self._replace_metrics([row for row in self.metrics() if keep(row)])

    def change_last_row(self, change: Callable[[dict[str, Any], int], dict[str, Any]]) -> None:
        """Replace the last row by `change(row, episode of the previous row)`."""
        *rows, last = self.metrics() or [{}]
        changed = change(last, rows[-1]["episode"] if rows else 0) if last else last
        if changed != last:
            self._replace_metrics([*rows, changed])

    def _replace_metrics(self, rows: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        replace_file(self.path / "metrics.jsonl", lambda file: file.write(text.encode()))

    # --- tensors

    def save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Replace checkpoint.pt. The rows before it are on the disk first, so that a power cut loses none."""
        _settle(self.path / "metrics.jsonl")
        replace_file(self.path / "checkpoint.pt", lambda file: torch.save(checkpoint, file))

    def checkpoint(self) -> dict[str, Any]:
        """Load checkpoint.pt onto the CPU; no code in it is executed. RunError if it is missing, damaged or foreign."""
        path = self.path / "checkpoint.pt"
        if not path.exists():
            raise RunError(f"{self.path} has no checkpoint.pt to continue from.")
        with readable(path, kind=RunError), warnings.catch_warnings(action="ignore"):  # of a foreign pickle
            _check_parts(path)
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict) or not {"model", "optimizer", "episode"} <= checkpoint.keys():
            raise RunError(f"{path} is no checkpoint of this program.")
        return checkpoint

    def save_weights(self, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Replace model.safetensors."""
        data = weights_file(weights, metadata)
        replace_file(self.path / "model.safetensors", lambda file: file.write(data))

    def weights(self) -> dict[str, Tensor]:
        """The weights without prefixes of wrappers: model.safetensors, or the checkpoint of an unfinished run."""
        path = self.path / "model.safetensors"
        return strip_prefixes(read_weights(path, RunError)[0] if path.is_file() else self.checkpoint()["model"])

    def save_samples(self, samples: dict[str, np.ndarray]) -> None:
        """Replace samples.npz."""
        replace_file(self.path / "samples.npz", lambda file: np.savez_compressed(file, allow_pickle=False, **samples))

    def samples(self) -> dict[str, np.ndarray]:
        """The arrays of samples.npz, by key; empty without it. RunError if it is no archive of plain arrays."""
        path = self.path / "samples.npz"
        if not path.is_file():
            return {}
        with readable(path, kind=RunError), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {modern_text(key): archive[key] for key in archive.files}


@dataclass(frozen=True)
class RunRecord:
    """What a run has written so far, finished or not, with current names.

    path: the directory, as passed. config: config.json. rows: metrics.jsonl. summary: summary.json, or None until the
    run has finished. evaluations: the files of eval/.
    """

    path: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: dict[str, Any] | None
    evaluations: list[dict[str, Any]]

    @property
    def experiment(self) -> str:
        """The name of the experiment."""
        return str(self.config["experiment"])

    @property
    def preset(self) -> str:
        """The name of the preset; empty if the config has none."""
        return str(self.config.get("preset", ""))

    @property
    def seed(self) -> Any:
        """The seed; None if the config has none."""
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
        """The value of `key` in the summary, or else in the config; None if neither has it."""
        return (self.summary or {}).get(key, self.config.get(key))

    def samples(self) -> dict[str, np.ndarray]:
        """The arrays of samples.npz, by key."""
        return RunDirectory(self.path).samples()


# --- finding runs


def is_run(path: Path) -> bool:
    """Whether the path is a run directory, and not a sweep or a file."""
    return (path / "config.json").is_file()


def run_directories(path: Path) -> list[RunDirectory]:
    """The run at this path; if it is a sweep, its runs `seed-*` in the order of the seeds; otherwise none."""
    seeds = sorted(path.glob("seed-*"), key=lambda child: (len(child.name), child.name))
    return [RunDirectory(each) for each in ([path] if is_run(path) else seeds) if is_run(each)]


# --- reading and replacing files


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. RunError if there is none."""
    with readable(path, "cannot be read", RunError):
        value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise RunError(f"{path} is not a file of this program: it holds no JSON object.")
    return value


def _check_parts(path: Path) -> None:
    """Raise a ValueError if a part of a checkpoint is not what was written, or unpacks to more than is there."""
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ValueError("its parts are compressed, which torch.save does not do")
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"its part {damaged} is not what was written")


def _row(line: str, where: str) -> dict[str, Any]:
    """A row of metrics. RunError if the line holds none."""
    try:
        row = json.loads(line)
        if not isinstance(row, dict) or "episode" not in row:
            raise ValueError('it is not an object with the key "episode"')
    except ValueError as error:
        raise RunError(f"{where} is no metrics row: {error}.") from None
    return row


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace a JSON file."""
    replace_file(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


def replace_file(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a temporary file and rename it to `path`, so that a reader sees the old file or the new one."""
    number, name = tempfile.mkstemp(UNFINISHED, f".{path.name}.", path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            write(file)
            file.flush()
            os.fsync(number)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)  # Windows renames no open file
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _settle(path.parent)


def _settle(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folder
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def refuse_link(path: Path) -> None:
    """Raise a RunError if a path of a run is a symbolic link, since its target does not belong to the run."""
    if path.is_symlink():
        raise RunError(f"{path} is a link to {path.readlink()}; links are not followed out of a run. Move it away.")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for writing. RunError if another process has locked it."""
    refuse_link(folder / "lock")
    lock = filelock.FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RunError(f"{folder} is in use: another process is writing to it. Wait for it, or stop it.") from None
    try:
        yield
    finally:
        lock.release()


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones: {"model": {"kind": "rnn"}} becomes {"model.kind": "rnn"}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def strip_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that torch.compile and data-parallel wrappers add to names."""
    stripped = {}
    for name, tensor in weights.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        stripped[name] = tensor
    return stripped


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
