"""Pictures in classes for few-shot learning: a folder of drawings, or synthetic glyphs.

Axes: n pictures in all, C classes, S pixels a side.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from torchplastic.data import files
from torchplastic.reading import shown

AT_ONCE = 2000  # pictures per call of the pooling
GLYPHS, GLYPH_DRAWINGS = 250, 12  # of the synthetic data
Ink = Literal["dark", "light", "auto"]


@dataclass(frozen=True)
class Classes:
    """Pictures by class: ink is 255, paper 0.

    pictures: uint8 `[n, S, S]`, sorted by class.
    counts: int64 `[C]`, the number of pictures per class.
    names: C names of the classes.
    groups: C names of groups (alphabets), or None if unknown.
    source: a description for the results.
    """

    pictures: Tensor
    counts: Tensor
    names: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.names) or int(self.counts.sum()) != len(self.pictures):
            raise ValueError(
                f"{len(self.pictures)} pictures, {len(self.counts)} counts of {int(self.counts.sum())} pictures and "
                f"{len(self.names)} names do not agree."
            )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def first(self) -> Tensor:
        """The index of the first picture of each class, `[C]`."""
        return self.counts.cumsum(0) - self.counts

    @property
    def side(self) -> int:
        """S."""
        return self.pictures.shape[-1]

    @cached_property
    def digest(self) -> str:
        """A checksum of all pixels and of the class sizes."""
        return f"{zlib.crc32(self.counts.numpy().data, zlib.crc32(self.pictures.numpy().data)):08x}"

    def part(self, chosen: Tensor, source: str) -> Classes:
        """The chosen classes, bool `[C]`."""
        which = chosen.nonzero().flatten().tolist()
        return Classes(
            self.pictures[chosen.repeat_interleave(self.counts)],
            self.counts[chosen],
            tuple(self.names[c] for c in which),
            None if self.groups is None else tuple(self.groups[c] for c in which),
            source,
        )


def smaller(pictures: Tensor, side: int) -> Tensor:
    """Shrink bool or uint8 `[n, S, S]` to uint8 `[n, side, side]` by averaging areas."""
    most = 255.0 if pictures.dtype == torch.bool else 1.0
    parts = (adaptive_avg_pool2d(part.float() * most, side).round_().byte() for part in pictures.split(AT_ONCE))
    return torch.cat(list(parts))


# --- folders of drawings


def read_folder(folder: Path, side: int, ink: Ink = "auto") -> Classes:
    """Read one class per folder that contains pictures, named by its path; its parent folder is its group.

    ink: dark or light on the paper, or auto: the edges of a picture are paper. ValueError, in one line, if there are
    fewer than two classes or a picture cannot be read.
    """
    members: dict[str, list[Path]] = {}
    for path in files.pictures_below(folder):
        members.setdefault(path.parent.relative_to(folder).as_posix(), []).append(path)
    members.pop(".", None)
    if len(members) < 2:
        raise ValueError(
            f"{folder} holds {len(members)} folders with pictures; few-shot learning needs at least 2, one for each "
            "class."
        )
    pictures = torch.stack([read_drawing(path, side, ink) for paths in members.values() for path in paths])
    counts = torch.tensor([len(paths) for paths in members.values()])
    groups = tuple(name.rpartition("/")[0] for name in members)
    source = f"{len(pictures):,} pictures of {folder.name} in {len(members):,} classes, {side} × {side}"
    return Classes(pictures, counts, tuple(members), groups if any(groups) else None, source)


def read_drawing(path: Path | str, side: int = 31, ink: Ink = "auto") -> Tensor:
    """Read a drawing as uint8 `[side, side]`, ink 255 and paper 0, padded to a square with paper.

    ValueError, in one line, if the file is no readable picture, is far too long, or has no ink.
    """
    gray = files.gray(path)
    edges = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    dark = np.median(edges) > 127 if ink == "auto" else ink == "dark"
    inked = 255 - gray if dark else gray
    if inked.min() == inked.max():
        raise ValueError(f"{shown(path)} is blank: all of its pixels are {gray.min()}.")
    height, width = inked.shape
    if max(height, width) ** 2 > files.MOST_PIXELS:
        raise ValueError(f"{shown(path)} is too long to be padded to a square: {width:,} × {height:,} pixels.")
    down, right = max(width - height, 0), max(height - width, 0)
    square = np.pad(inked, ((down // 2, down - down // 2), (right // 2, right - right // 2)))
    return smaller(torch.from_numpy(square).unsqueeze(0), side)[0]


# --- synthetic data


def synthetic_glyphs(side: int) -> Classes:
    """Random glyphs of two to four curved strokes, each drawn several times with noise; a substitute for Omniglot."""
    random = np.random.default_rng(0)
    drawings = np.stack([_glyph(strokes, random) for strokes in _glyphs(random) for _ in range(GLYPH_DRAWINGS)])
    pictures = smaller(torch.from_numpy(drawings), side)
    counts = torch.full((GLYPHS,), GLYPH_DRAWINGS)
    source = f"synthetic data, not Omniglot: {GLYPHS} glyphs drawn by the program, {GLYPH_DRAWINGS} drawings each"
    return Classes(pictures, counts, tuple(f"glyph {c}" for c in range(GLYPHS)), None, source)


def _glyphs(random: np.random.Generator) -> list[list[np.ndarray]]:
    """The strokes of each glyph, three points each, 0 … 1."""
    return [[random.uniform(0.1, 0.9, (3, 2)) for _ in range(random.integers(2, 5))] for _ in range(GLYPHS)]


def _glyph(strokes: list[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """A noisy drawing of a glyph, bool `[105, 105]`; each stroke is a curve through its points."""
    picture = Image.new("1", (105, 105))
    pen = ImageDraw.Draw(picture)
    turn, shift = np.eye(2) + random.normal(0, 0.15, (2, 2)), random.normal(0, 0.05, 2)
    t = np.linspace(0, 1, 24)[:, None]
    for stroke in strokes:
        a, b, c = (stroke + random.normal(0, 0.04, stroke.shape) - 0.5) @ turn + 0.5 + shift
        curve = (1 - t) * (1 - 2 * t) * a + 4 * t * (1 - t) * b + t * (2 * t - 1) * c
        pen.line([(float(x), float(y)) for x, y in 104 * curve], fill=1, width=3)
    return np.asarray(picture)
