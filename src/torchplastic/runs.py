"""A run directory: what lies in it, and how it is read and written without ever losing what was there.

config.json         what the run is; a directory with one can be resumed
metrics.jsonl       a row every few updates
checkpoint.pt       all that resuming needs besides config.json
model.safetensors   the weights alone
samples.npz         arrays for the report, keyed by the kind of figure
eval/*.json         what `plastic eval` measured
summary.json        when finished
lock                held while a process writes here; dies with it
"""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import filelock
import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from torchplastic.legacy import modern

PREFIXES = ("_orig_mod.", "module.")  # what torch.compile and data-parallel wrappers put before names


class RunError(ValueError):
    """A run directory that cannot be used, in one line that says what to do."""


class RunDirectory:
    """One run directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # --- opening

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """A new, empty run directory. RunError where something is there already."""
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            go_on = f", or go on with it: plastic train --resume {path}" if (path / "config.json").is_file() else "."
            raise RunError(f"{path} exists. Choose another --out{go_on}") from None
        except OSError as error:
            raise RunError(f"cannot make {path}: {error.strerror}.") from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run directory. RunError for anything else."""
        if not (path / "config.json").is_file():
            raise RunError(f"{path} is no run directory: it has no config.json.")
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run while writing to it. RunError where another process does."""
        with locked(self.path):
            yield

    # --- config and results

    @property
    def config(self) -> dict[str, Any]:
        """config.json, in today's names. RunError where it is damaged."""
        config = read_json(self.path / "config.json")
        return modern(config, str(config.get("experiment")))

    @property
    def experiment(self) -> str:
        """The experiment's name."""
        return str(self.config.get("experiment"))

    def write_config(self, config: dict[str, Any]) -> None:
        write_json(self.path / "config.json", config)

    @property
    def summary(self) -> dict[str, Any] | None:
        """summary.json, or None while the run is not finished."""
        path = self.path / "summary.json"
        return modern(read_json(path), self.experiment) if path.is_file() else None

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_json(self.path / "summary.json", summary)

    def reopen(self) -> None:
        """Take back what belongs to the end of a run, because training goes on; its checkpoint stays."""
        for name in ("summary.json", "model.safetensors", "samples.npz"):
            (self.path / name).unlink(missing_ok=True)

    def write_eval(self, name: str, result: dict[str, Any]) -> Path:
        """eval/NAME.json, replaced whole. RunError where eval is a link."""
        refuse_link(self.path / "eval")
        (self.path / "eval").mkdir(exist_ok=True)
        write_json(self.path / "eval" / f"{name}.json", result)
        return self.path / "eval" / f"{name}.json"

    def evals(self) -> list[dict[str, Any]]:
        """Every result under eval/, by name."""
        paths = sorted((self.path / "eval").glob("*.json"))
        return [modern(read_json(path), self.experiment) for path in paths]

    # --- metrics

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; a torn last line is left out."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        experiment = self.experiment
        return [modern(json.loads(line), experiment) for line in lines]

    def append(self, row: dict[str, Any]) -> None:
        """One more row, flushed at once."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def cut_metrics(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Keep these rows alone, and no torn line."""
        self._replace_metrics([row for row in self.metrics() if keep(row)])

    def change_last_row(self, change: Callable[[dict[str, Any], int], dict[str, Any]]) -> None:
        """Replace the last row by `change(row, the episode of the row before)`, where that differs."""
        *rows, last = self.metrics() or [{}]
        changed = change(last, rows[-1]["episode"] if rows else 0) if last else last
        if changed != last:
            self._replace_metrics([*rows, changed])

    def _replace_metrics(self, rows: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        replace_file(self.path / "metrics.jsonl", lambda file: file.write(text.encode()))

    # --- tensors

    def save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """checkpoint.pt, replaced whole."""
        replace_file(self.path / "checkpoint.pt", lambda file: torch.save(checkpoint, file))

    def checkpoint(self) -> dict[str, Any]:
        """checkpoint.pt, tensors on the CPU; executes nothing. RunError where it is missing, torn or foreign."""
        path = self.path / "checkpoint.pt"
        try:
            with warnings.catch_warnings(action="ignore"):  # of a foreign pickle; the error below says enough
                checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise RunError(f"{self.path} has no checkpoint.pt to go on from.") from None
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            words = "" if isinstance(error, KeyError) else str(error).strip()  # a KeyError says a bare number
            reason = words.splitlines()[0] if words else type(error).__name__
            raise RunError(f"{path} cannot be read, it is damaged or foreign: {reason[:150]}") from None
        if not isinstance(checkpoint, dict) or not {"model", "optimizer", "episode"} <= checkpoint.keys():
            raise RunError(f"{path} is no checkpoint of this program.")
        return checkpoint

    def save_weights(self, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """model.safetensors, replaced whole."""
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, metadata)
        replace_file(self.path / "model.safetensors", lambda file: file.write(data))

    def weights(self) -> dict[str, Tensor]:
        """model.safetensors without the prefixes of wrappers; of an unfinished run, those of the checkpoint."""
        path = self.path / "model.safetensors"
        return strip_prefixes(load_file(path) if path.is_file() else self.checkpoint()["model"])

    def save_samples(self, samples: dict[str, np.ndarray]) -> None:
        """samples.npz, replaced whole."""
        replace_file(self.path / "samples.npz", lambda file: np.savez_compressed(file, allow_pickle=False, **samples))


# --- how files are read and replaced


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. RunError where there is none."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} is not what this program writes: it holds no JSON object.")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """A JSON file, replaced whole."""
    replace_file(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


def replace_file(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write beside it, then rename over it: a reader sees the old file or the new one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def refuse_link(path: Path) -> None:
    """RunError where a link has the place of a folder or file of a run: what it leads to is not the run's."""
    if path.is_symlink():
        raise RunError(f"{path} is a link to {path.readlink()}; links are not followed out of a run. Move it away.")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder while writing to it. RunError where another process does."""
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
    """Names without what torch.compile and data-parallel wrappers put before them."""
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
