"""Pictures in classes, as few-shot learning takes them: any folder of drawings, or glyphs that the program draws.

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
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from torchplastic.data.pictures import is_picture, readable

AT_ONCE = 2000  # pictures that are made smaller at a time
GLYPHS, GLYPH_DRAWINGS = 250, 12  # of the synthetic data
Ink = Literal["dark", "light", "auto"]


@dataclass(frozen=True)
class Classes:
    """Pictures by class: ink is 255, paper 0.

    pictures: uint8 `[n, S, S]`, those of a class one after the other.
    counts: int64 `[C]`, the pictures of each class.
    names: of the classes, C of them.
    groups: of each class the group that it belongs to (an alphabet), or None where none is known.
    source: what they are, as results state it.
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
                f"{len(self.names)} names do not fit together."
            )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def first(self) -> Tensor:
        """Where each class begins, `[C]`."""
        return self.counts.cumsum(0) - self.counts

    @property
    def side(self) -> int:
        """S."""
        return self.pictures.shape[-1]

    @cached_property
    def digest(self) -> str:
        """Of all pixels and of how they are divided into classes."""
        return f"{zlib.crc32(self.counts.numpy().data, zlib.crc32(self.pictures.numpy().data)):08x}"

    def part(self, chosen: Tensor, source: str) -> Classes:
        """Some of the classes, bool `[C]`."""
        which = chosen.nonzero().flatten().tolist()
        return Classes(
            self.pictures[chosen.repeat_interleave(self.counts)],
            self.counts[chosen],
            tuple(self.names[c] for c in which),
            None if self.groups is None else tuple(self.groups[c] for c in which),
            source,
        )


def smaller(pictures: Tensor, side: int) -> Tensor:
    """bool or uint8 `[n, S, S]` to uint8 `[n, side, side]`: each pixel is the mean of the area it covers."""
    most = 255.0 if pictures.dtype == torch.bool else 1.0
    parts = (adaptive_avg_pool2d(part.float() * most, side).round_().byte() for part in pictures.split(AT_ONCE))
    return torch.cat(list(parts))


# --- a folder of the user's


def read_folder(folder: Path, side: int, ink: Ink = "auto") -> Classes:
    """A class for each folder that has pictures in it, named by its path; the folder above it is its group.

    ink: dark or light on the paper, or auto: what the edges of a picture are is paper. ValueError, in one line, for a
    folder without classes and a file that is no readable picture.
    """
    members: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if is_picture(path)):
        members.setdefault(path.parent.relative_to(folder).as_posix(), []).append(path)
    members.pop(".", None)
    if len(members) < 2:
        raise ValueError(
            f"{folder} holds {len(members)} folders with pictures; few-shot learning takes at least 2, one for each "
            "class."
        )
    pictures = torch.stack([read_drawing(path, side, ink) for paths in members.values() for path in paths])
    counts = torch.tensor([len(paths) for paths in members.values()])
    groups = tuple(name.rpartition("/")[0] for name in members)
    source = f"{len(pictures):,} pictures of {folder.name} in {len(members):,} classes, {side} × {side}"
    return Classes(pictures, counts, tuple(members), groups if any(groups) else None, source)


def read_drawing(path: Path | str, side: int = 31, ink: Ink = "auto") -> Tensor:
    """A drawing as uint8 `[side, side]`, ink 255 and paper 0; one that is not square is set on a square of paper.

    ValueError, in one line, for a file that is no readable picture.
    """
    with readable(path), Image.open(path) as picture:
        gray = np.asarray(_on_white(ImageOps.exif_transpose(picture)).convert("L"))
    edges = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    dark = np.median(edges) > 127 if ink == "auto" else ink == "dark"
    inked = 255 - gray if dark else gray
    height, width = inked.shape
    down, right = max(width - height, 0), max(height - width, 0)
    square = np.pad(inked, ((down // 2, down - down // 2), (right // 2, right - right // 2)))
    return smaller(torch.from_numpy(square).unsqueeze(0), side)[0]


def _on_white(picture: Image.Image) -> Image.Image:
    """What is transparent shows white paper."""
    if not picture.has_transparency_data:
        return picture
    coloured = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)


# --- synthetic data


def synthetic_glyphs(side: int) -> Classes:
    """Glyphs of two to four curved strokes that the program draws, each by several unsteady hands: no Omniglot."""
    random = np.random.default_rng(0)
    drawings = np.stack([_glyph(strokes, random) for strokes in _glyphs(random) for _ in range(GLYPH_DRAWINGS)])
    pictures = smaller(torch.from_numpy(drawings), side)
    counts = torch.full((GLYPHS,), GLYPH_DRAWINGS)
    source = f"synthetic data, not Omniglot: {GLYPHS} glyphs drawn by the program, {GLYPH_DRAWINGS} drawings each"
    return Classes(pictures, counts, tuple(f"glyph {c}" for c in range(GLYPHS)), None, source)


def _glyphs(random: np.random.Generator) -> list[list[np.ndarray]]:
    """For each glyph its strokes: three points each, 0 … 1."""
    return [[random.uniform(0.1, 0.9, (3, 2)) for _ in range(random.integers(2, 5))] for _ in range(GLYPHS)]


def _glyph(strokes: list[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """One drawing of a glyph, bool `[105, 105]`: its points moved a little, each stroke a curve through them."""
    picture = Image.new("1", (105, 105))
    pen = ImageDraw.Draw(picture)
    turn, shift = np.eye(2) + random.normal(0, 0.15, (2, 2)), random.normal(0, 0.05, 2)
    t = np.linspace(0, 1, 24)[:, None]
    for stroke in strokes:
        a, b, c = (stroke + random.normal(0, 0.04, stroke.shape) - 0.5) @ turn + 0.5 + shift
        curve = (1 - t) * (1 - 2 * t) * a + 4 * t * (1 - t) * b + t * (2 * t - 1) * c
        pen.line([(float(x), float(y)) for x, y in 104 * curve], fill=1, width=3)
    return np.asarray(picture)
