"""Pictures to memorise: from any folder, or patches of a photograph that matplotlib ships.

Axes: n pictures, S pixels a side.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from torchplastic.data import files

WHITE = 3 * 255  # the channel sum of a white pixel
EDGE = 8  # pixels of the photograph's frame
FEWEST = 6  # pictures of a folder: three to train on, three for validation


@dataclass(frozen=True)
class Pictures:
    """Gray training and validation pictures as channel sums R + G + B, 0 … 765, int16 `[n, S, S]`.

    source: a description for the results.
    """

    train: Tensor
    validation: Tensor
    source: str

    @cached_property
    def digest(self) -> str:
        """The numbers of pictures and a checksum of all pixels."""
        sums = zlib.crc32(self.validation.numpy().data, zlib.crc32(self.train.numpy().data))
        return f"{len(self.train)} + {len(self.validation)} pictures, digest {sums:08x}"

    @property
    def side(self) -> int:
        """S."""
        return self.train.shape[-1]


def channel_sums(pixels: np.ndarray) -> Tensor:
    """uint8 `[…, S, S, 3]` -> int16 `[…, S, S]`."""
    return torch.from_numpy(pixels.sum(-1, dtype=np.int16))


def read_folder(folder: Path, side: int) -> Pictures:
    """Read all pictures in a folder and below, cropped to squares and resized.

    The last max(3, n // 10) by name are for validation. ValueError, in one line, if there are too few or one cannot
    be read.
    """
    paths = files.pictures_below(folder)
    if len(paths) < FEWEST:
        raise ValueError(
            f"{folder} holds {len(paths)} picture{'s' * (len(paths) != 1)} ({' '.join(sorted(files.SUFFIXES))}); at "
            f"least {FEWEST} are needed, 3 to train on and 3 for validation."
        )
    sums = channel_sums(np.stack([_square(path, side) for path in paths]))
    validation = max(3, len(paths) // 10)
    count = f"{len(paths) - validation:,} to train on, {validation:,} for validation"
    return Pictures(
        sums[:-validation], sums[-validation:], f"pictures of {folder.name}, resized to {side} × {side}: {count}"
    )


def _square(path: Path, side: int) -> np.ndarray:
    """The centre crop of a picture, uint8 `[side, side, 3]`."""
    return _resized(files.rgb(path), side)


def _resized(picture: Image.Image, side: int) -> np.ndarray:
    width, height = picture.size
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    box = (left, top, left + edge, top + edge)
    return np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0))


def photograph_patches(side: int) -> Pictures:
    """Patches of three sizes of the photograph that matplotlib ships; those of its right third are for validation."""
    from matplotlib.cbook import get_sample_data

    with Image.open(str(get_sample_data("grace_hopper.jpg", asfileobj=False))) as photograph:
        whole = photograph.convert("RGB")
    width, height = whole.size
    border = width * 2 // 3
    train = _patches(whole, side, (EDGE, EDGE, border, height - EDGE))
    validation = _patches(whole, side, (border, EDGE, width - EDGE, height - EDGE))
    count = f"{len(train):,} to train on, {len(validation):,} for validation"
    source = f"built-in data, no data set of natural images: patches of one photograph, {side} × {side}: {count}"
    return Pictures(channel_sums(train), channel_sums(validation), source)


def _patches(picture: Image.Image, side: int, within: tuple[int, int, int, int]) -> np.ndarray:
    """Squares of 64, 96 and 144 pixels, a quarter of their side apart, uint8 `[n, side, side, 3]`."""
    part = picture.crop(within)  # so that resizing does not blend in pixels beyond the edge
    width, height = part.size
    patches = [
        np.asarray(part.resize((side, side), Image.Resampling.LANCZOS, box=(x, y, x + edge, y + edge)))
        for edge in (64, 96, 144)
        for y in range(0, height - edge + 1, edge // 4)
        for x in range(0, width - edge + 1, edge // 4)
    ]
    return np.stack(patches)
