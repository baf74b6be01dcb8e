"""CIFAR-10 (Krizhevsky 2009): 60,000 pictures of 32 × 32, in the official archives or their extracted folders.

Axes: n pictures.
"""

from __future__ import annotations

import io
import logging
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from torchplastic.data import files
from torchplastic.data.pictures import Pictures, channel_sums

LOG = logging.getLogger("torchplastic")
SIDE = 32
PIXELS = 3 * SIDE * SIDE
RECORD = 1 + PIXELS  # a label, then the planes of red, green and blue
CLASSES = 10
MOST_BYTES = 1 << 26  # of a batch, which has 31 million
TRAIN, TEST = [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]
BATCHES = (*TRAIN, *TEST)
FULL = (50_000, 10_000)
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py", ".")


def find(place: Path) -> Path | None:
    """The archive or extracted folder at a path or in it; None if there is none."""
    if place.is_file():
        return place if place.name in ARCHIVES or tarfile.is_tarfile(place) else None
    for name in FOLDERS:
        folder = place / name
        if any((folder / f"{batch}{ending}").is_file() for batch in BATCHES for ending in (".bin", "")):
            return folder
    return next((place / name for name in ARCHIVES if (place / name).is_file()), None)


def read(path: Path) -> Pictures:
    """Read an archive or folder that `find` returned: five batches to train on, the test batch for validation.

    ValueError, in one line, if a file is missing, truncated or foreign. No code in a file is executed.
    """
    LOG.info("reading CIFAR-10 from %s", path)
    batches = _from_folder(path) if path.is_dir() else _from_archive(path)
    train, validation = (np.concatenate([batches[name] for name in names]) for names in (TRAIN, TEST))
    counts = (len(train), len(validation))
    if path.is_file() and counts != FULL:
        raise ValueError(f"{path} holds {sum(counts):,} pictures; the official archive has {sum(FULL):,}.")
    short = "" if counts == FULL else f" (the official set has {FULL[0]:,} and {FULL[1]:,})"
    source = f"CIFAR-10: {counts[0]:,} to train on, {counts[1]:,} for validation{short}"
    return Pictures(channel_sums(train), channel_sums(validation), source)


def _from_folder(folder: Path) -> dict[str, np.ndarray]:
    batches = {}
    for name in BATCHES:
        path = next((p for p in (folder / f"{name}.bin", folder / name) if p.is_file()), None)
        if path is None:
            raise ValueError(f"{folder} lacks {name}.bin; CIFAR-10 has five data batches and a test batch.")
        batches[name] = _reader(path.name)(files.file_bytes(path, MOST_BYTES), str(path))
    return batches


def _from_archive(path: Path) -> dict[str, np.ndarray]:
    """Read the members in memory, without extracting to disk."""
    batches = {}
    for name, content in files.tar_members(path, lambda name: name.removesuffix(".bin") in BATCHES, MOST_BYTES):
        stem = Path(name).name.removesuffix(".bin")
        batches[stem] = _reader(name)(content, f"{name} in {path}")
    if missing := [name for name in BATCHES if name not in batches]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; CIFAR-10 has five data batches and a test batch.")
    return batches


def _reader(name: str) -> Callable[[bytes, str], np.ndarray]:
    return _binary if name.endswith(".bin") else _pickled


def _binary(data: bytes, where: str) -> np.ndarray:
    """A batch in the binary layout -> uint8 `[n, 32, 32, 3]`."""
    if not data or len(data) % RECORD:
        raise ValueError(f"{where} is truncated or foreign: {len(data):,} bytes are not a multiple of {RECORD:,}.")
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    if (records[:, 0] >= CLASSES).any():
        raise ValueError(f"{where} is foreign: a label is {records[:, 0].max()}, CIFAR-10 has labels 0 to 9.")
    return _pixels(records[:, 1:])


def _pickled(data: bytes, where: str) -> np.ndarray:
    """A batch in the Python layout -> uint8 `[n, 32, 32, 3]`."""
    try:
        content = _Arrays(io.BytesIO(data), encoding="bytes").load()
        pixels = content[b"data"]
    except _RefusedError as error:
        raise ValueError(f"{where} is refused: {error}") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"{where} is truncated or foreign: {str(error) or type(error).__name__}") from None
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(pixels), PIXELS):
        raise ValueError(f"{where} is foreign: its data are not uint8 [n, {PIXELS:,}].")
    return _pixels(pixels)


def _pixels(planes: np.ndarray) -> np.ndarray:
    """`[n, 3072]`, plane by plane -> `[n, 32, 32, 3]`."""
    return planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


class _RefusedError(ValueError):
    pass


class _Arrays(pickle.Unpickler):
    """Loads arrays and plain values; refuses any other name in a pickle before looking it up."""

    NEEDED = frozenset(
        {("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
    )

    def __init__(self, file: IO[bytes], **options: Any) -> None:
        super().__init__(file, **options)

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            module = "multiarray"
        if (module, name) not in self.NEEDED:
            raise _RefusedError(f"it asks for {module}.{name}, which a file of pictures does not need.")
        return super().find_class("numpy._core.multiarray" if module == "multiarray" else module, name)
