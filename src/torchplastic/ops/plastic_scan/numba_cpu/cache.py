"""Where compiled kernels are kept on disk: a folder for each digest of the kernels' sources and of numba's version.

numba notices a change in the file of a function, but not in those of the functions that it calls. So a change in any
file of this folder gives another folder of compiled code, and nothing has to be touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
from filelock import FileLock

config: Any = numba.config
KEPT = 4  # folders of this and of earlier sources


@cache
def digest() -> str:
    """Of the sources of all kernels, and of the compiler."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    parts = [numba.__version__.encode(), *(file.read_bytes() for file in files)]
    return sha256(b"".join(parts)).hexdigest()[:16]


@cache
def folder() -> Path | None:
    """The folder of compiled code, under NUMBA_CACHE_DIR or the user's cache; None if neither can be written."""
    try:
        base = Path(config.CACHE_DIR) if config.CACHE_DIR else _user_cache()
        made = base / "torchplastic-kernels" / digest()
        made.mkdir(parents=True, exist_ok=True)
        os.utime(made)
        (made / "writable").touch()
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return None
    _forget_old(made.parent)
    return made


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _forget_old(parent: Path) -> None:
    """Keep the folders used last."""
    with contextlib.suppress(OSError):
        ours = [path for path in parent.iterdir() if re.fullmatch("[0-9a-f]{16}", path.name)]
        for path in sorted(ours, key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def used() -> Iterator[bool]:
    """Functions that are decorated meanwhile are cached in that folder, if there is one -> whether there is."""
    place, before = folder(), config.CACHE_DIR
    if place is not None:
        config.CACHE_DIR = str(place)
    try:
        yield place is not None
    finally:
        config.CACHE_DIR = before


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Of several processes, one compiles a kernel; the others wait, and read what it has written."""
    place = folder()
    lock = None if place is None else FileLock(place / f"{name}.lock")
    if lock is not None:
        try:
            lock.acquire()
        except (OSError, NotImplementedError):  # a file system without locks: each process compiles for itself
            lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
