"""Omniglot (Lake et al. 2015): 1,623 characters, each drawn by 20 people, in the official zips or their folders.

Axes: C characters, D drawings of each, S pixels a side.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchplastic.data import files
from torchplastic.data.classes import Classes, smaller
from torchplastic.data.download import cache_folder

LOG = logging.getLogger("torchplastic")
SIDE = 105
DRAWINGS = 20
VALIDATION = 100  # characters
CHARACTERS = {"images_background": 964, "images_evaluation": 659}
INSIDE = (".", "python", "omniglot", "omniglot/python", "omniglot-py", "omniglot-master/python")
NAME = re.compile(r"([^/]+)/([^/]+)/[^/]+\.png$", re.IGNORECASE)
MOST_BYTES = 1 << 20  # of a drawing, which has some 200
UNKNOWN = "alphabet_unknown"  # folder name in copies without alphabets


@dataclass(frozen=True)
class Characters:
    """Drawings of characters: ink is True, paper False.

    drawings: bool `[C, 20, 105, 105]`.
    digests: of each character's drawings, independent of their order and file names.
    alphabets: the name of each character's folder.
    background: bool `[C]`, True for the background set, False for the evaluation set.
    """

    drawings: Tensor
    digests: tuple[str, ...]
    alphabets: tuple[str, ...]
    background: Tensor

    def split(self, split: str) -> tuple[Tensor, Tensor, str]:
        """The training and the held-out characters, bool `[C]` each, and a description of the split.

        split: "fixed" (omniglot_split.txt); "validation": hold out its validation characters, and leave its test
        characters out; or "background": train on the background set, hold out the evaluation set.
        """
        if split == "background":
            return self.background, ~self.background, "the evaluation set"
        fixed = fixed_split()
        test, validation = (self._among(names) for names in (fixed.test, fixed.validation))
        if split == "validation":
            return ~(test | validation), validation, f"validation characters of the fixed split {fixed.digest}"
        return ~test, test, f"the fixed split {fixed.digest}"

    def _among(self, names: frozenset[str]) -> Tensor:
        return torch.tensor([digest in names for digest in self.digests])

    def classes(self, side: int) -> Classes:
        """The characters as classes of pictures, `side` pixels wide."""
        source = f"Omniglot: {len(self.digests):,} characters, {DRAWINGS} drawings each, {side} × {side}"
        known = len(set(self.alphabets) - {UNKNOWN}) > 1
        return Classes(
            smaller(self.drawings.flatten(0, 1), side),
            torch.full((len(self.digests),), DRAWINGS),
            self.digests,
            self.alphabets if known else None,
            source,
        )


class Split(NamedTuple):
    """The fixed split: every character's digest, those of the test characters, and the digest of the file.

    validation: of the training characters the 100 whose digest is smallest, to choose settings without a look at test.
    """

    known: frozenset[str]
    test: frozenset[str]
    digest: str

    @property
    def validation(self) -> frozenset[str]:
        return frozenset(sorted(self.known - self.test)[:VALIDATION])


@cache
def fixed_split() -> Split:
    """Read omniglot_split.txt: a line per character, `test` or `train` and its digest."""
    text = resources.files("torchplastic.data").joinpath("omniglot_split.txt").read_text(encoding="ascii")
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    test = frozenset(digest for part, digest in rows if part == "test")
    return Split(frozenset(digest for _, digest in rows), test, hashlib.sha256(text.encode()).hexdigest()[:16])


def find(place: Path) -> list[Path] | None:
    """The two zips or folders at a path, or in a usual folder below it; None if there are none.

    ValueError if one of the two is missing.
    """
    for inside in INSIDE:
        found = [
            next((path for path in (place / inside / part, place / inside / f"{part}.zip") if path.exists()), None)
            for part in CHARACTERS
        ]
        if any(found):
            missing = [part for part, path in zip(CHARACTERS, found, strict=True) if path is None]
            if missing:
                raise ValueError(
                    f"{place / inside} lacks {missing[0]}.zip (or the folder {missing[0]}); Omniglot is both "
                    f"{' and '.join(CHARACTERS)}. 'plastic data fetch omniglot' gets them."
                )
            return [path for path in found if path is not None]
    return None


def load(paths: Sequence[Path]) -> Characters:
    """Like `read`, but fast after the first time: it keeps a compact copy in the user's cache folder."""
    copy = cache_folder() / f"omniglot-{_fingerprint(paths)}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return _unpacked(copy)
    LOG.info("reading Omniglot from %s, once; later from a copy in %s", paths[0].parent, copy.parent)
    characters = read(paths)
    with contextlib.suppress(OSError):  # without a copy the next start takes longer
        _write_copy(characters, copy)
    return characters


def read(paths: Sequence[Path]) -> Characters:
    """All characters of the background and the evaluation set.

    ValueError, in one line, if a file is missing, corrupt or foreign, or a character is not in the fixed split.
    """
    drawings, digests, alphabets, background = [], [], [], []
    for part, path in zip(CHARACTERS, paths, strict=True):
        characters: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
        for name, content in _files(path):
            if match := NAME.search(name):
                characters[match[1], match[2]].append(_drawing(content, f"{name} in {path}"))
        if len(characters) != CHARACTERS[part]:
            raise ValueError(f"{path} holds {len(characters):,} characters; {part} of Omniglot has {CHARACTERS[part]}.")
        for (alphabet, character), drawn in sorted(characters.items()):
            if len(drawn) != DRAWINGS:
                raise ValueError(
                    f"{path} holds {len(drawn)} drawings of {alphabet}/{character}; Omniglot has {DRAWINGS}."
                )
            drawings.append(np.stack(drawn))
            digests.append(digest(drawings[-1]))
            alphabets.append(alphabet)
            background.append(part == "images_background")
    known = fixed_split().known
    if unknown := [name for name in digests if name not in known]:
        raise ValueError(
            f"{len(unknown):,} of {len(digests):,} characters in {' and '.join(map(str, paths))} are not in the fixed "
            f"split, so they are not Omniglot's: the first one's digest is {unknown[0]}."
        )
    stacked = torch.from_numpy(np.stack(drawings))
    return Characters(stacked, tuple(digests), tuple(alphabets), torch.tensor(background))


def digest(drawings: np.ndarray) -> str:
    """A digest of a character's drawings, bool `[D, S, S]`, independent of their order."""
    each = sorted(hashlib.sha256(np.packbits(drawing).tobytes()).digest() for drawing in drawings)
    return hashlib.sha256(b"".join(each)).hexdigest()[:16]


# --- helpers


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every picture in a zip or folder, sorted by name."""
    if path.is_dir():
        for file in files.pictures_below(path):
            yield file.relative_to(path.parent).as_posix(), files.file_bytes(file, MOST_BYTES)
    else:
        yield from files.zip_members(path, ".png", MOST_BYTES)


def _drawing(content: bytes, where: str) -> np.ndarray:
    """bool `[105, 105]`, ink True."""
    gray = files.gray(content, where)
    if gray.shape != (SIDE, SIDE):
        raise ValueError(f"{where} has {gray.shape[1]} × {gray.shape[0]} pixels; Omniglot has {SIDE} × {SIDE}.")
    return gray < 128


def _fingerprint(paths: Sequence[Path]) -> str:
    """A hash of names, sizes and modification times of the files."""
    state = hashlib.sha256()
    for path in paths:
        for file in files.pictures_below(path) if path.is_dir() else [path]:
            stat = file.stat()
            state.update(f"{file.absolute()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return state.hexdigest()[:16]


def _write_copy(characters: Characters, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    part = copy.with_name(f"{copy.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez_compressed(
            file,
            drawings=np.packbits(characters.drawings.numpy(), axis=-1),
            digests=np.array(characters.digests),
            alphabets=np.array(characters.alphabets),
            background=characters.background.numpy(),
        )
    part.replace(copy)


def _unpacked(copy: Path) -> Characters:
    with copy.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        drawings = np.unpackbits(archive["drawings"], axis=-1, count=SIDE).view(bool)
        digests, alphabets = (tuple(archive[name].tolist()) for name in ("digests", "alphabets"))
        return Characters(torch.from_numpy(drawings), digests, alphabets, torch.from_numpy(archive["background"]))
