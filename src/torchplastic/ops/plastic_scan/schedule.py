"""Cuts time into chunks of steps. cost_model.py chooses their length; README.md explains both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

RUN = 2  # free steps that a clamped run inside a chunk counts as: a clamped pattern is two rows of pairs
LONGEST_RUN = 32  # the most steps of a clamped run inside a chunk


def runs(steps: Sequence[int]) -> list[tuple[int, int]]:
    """(low, high) of each run of neighbours among ascending numbers: 2, 3, 5 are (2, 4), (5, 6)."""
    lows = [k for i, k in enumerate(steps) if not i or steps[i - 1] + 1 < k]
    highs = [k + 1 for i, k in enumerate(steps) if i + 1 == len(steps) or k + 1 < steps[i + 1]]
    return list(zip(lows, highs, strict=True))


class Chunk(NamedTuple):
    """Steps start … stop - 1; `free` are the offsets of those that need the matrices, the others are fully clamped.

    The first step is free, unless none is.
    """

    start: int
    stop: int
    free: tuple[int, ...]

    @property
    def inner(self) -> int:
        """Steps up to the last free one; a clamped run, or nothing, follows it."""
        return self.free[-1] + 1 if self.free else 0

    def clamped_runs(self) -> list[tuple[int, int]]:
        """Offsets (low, high) of each clamped run."""
        edges = (-1, *self.free, self.stop - self.start)
        return [(a + 1, b) for a, b in pairwise(edges) if b > a + 1]

    def free_runs(self) -> list[tuple[int, int]]:
        """Offsets (low, high) of each run of free steps."""
        return runs(self.free)

    def pairs(self) -> list[int]:
        """The rows of pairs of each free step: one per free step before it, `RUN` per clamped run before it."""
        rows: list[int] = []
        for runs_before, (low, high) in enumerate(self.free_runs()):
            earlier = len(rows) + RUN * runs_before
            rows += range(earlier, earlier + high - low)
        return rows

    @property
    def ends_clamped(self) -> bool:
        return self.inner < self.stop - self.start


def cut(clamped_steps: Sequence[bool], longest: int, longest_run: int = LONGEST_RUN) -> list[Chunk]:
    """Chunks of at most `longest` free steps; a fully clamped run between them counts as `RUN` steps.

    A clamped run only updates the trace, so it ends a chunk at no cost; runs of at most `longest_run` steps may be
    inside one (0: none), because every chunk passes over the matrices a few times. A run of free steps is cut
    evenly: 13 with longest=8 are 7 + 6.
    """
    chunks: list[Chunk] = []
    t, T = 0, len(clamped_steps)
    while t < T:
        free = 0
        while t + free < T and not clamped_steps[t + free]:
            free += 1
        pieces = max(1, -(-free // longest))
        for i in range(pieces):
            size = (free + pieces - 1 - i) // pieces
            _append(chunks, t, size, longest, longest_run)
            t += size
        while t < T and clamped_steps[t]:
            t += 1
        chunks[-1] = chunks[-1]._replace(stop=t)
    return chunks


def _append(chunks: list[Chunk], t: int, size: int, longest: int, longest_run: int) -> None:
    """Add free steps t … t + size - 1, to the last chunk if there is room."""
    last = chunks[-1] if chunks else None
    if last is not None and last.free and last.ends_clamped:
        runs = last.clamped_runs()
        low, high = runs[-1]
        if high - low <= longest_run and len(last.free) + RUN * len(runs) + size <= longest:
            offsets = range(t - last.start, t - last.start + size)
            chunks[-1] = Chunk(last.start, t + size, (*last.free, *offsets))
            return
    chunks.append(Chunk(t, t + size, tuple(range(size))))


class Schedule(NamedTuple):
    """How time is cut, as implementations read it; `Call` in spec.py has the same fields."""

    bounds: Tensor
    free: Tensor
    free_steps: int
    longest: int
    pairs: int
    chunk_size: int


@lru_cache(maxsize=256)
def in_chunks(clamped_steps: tuple[bool, ...], longest: int, longest_run: int = LONGEST_RUN) -> Schedule:
    """The schedule of `cut`."""
    return _schedule(clamped_steps, tuple(cut(clamped_steps, longest, longest_run)), longest)


@lru_cache(maxsize=256)
def in_steps(clamped_steps: tuple[bool, ...], chunk_size: int) -> Schedule:
    """The schedule of an implementation that takes one step after the other and keeps every chunk_size-th trace."""
    T = len(clamped_steps)
    free = [t for t in range(T) if not clamped_steps[t]]
    starts = range(0, T, chunk_size)
    chunks = (Chunk(t, min(T, t + chunk_size), tuple(k - t for k in free if t <= k < t + chunk_size)) for t in starts)
    return _schedule(clamped_steps, tuple(chunks), chunk_size)


def _schedule(clamped_steps: tuple[bool, ...], chunks: tuple[Chunk, ...], chunk_size: int) -> Schedule:
    return Schedule(
        bounds=torch.from_numpy(np.array([0, *(chunk.stop for chunk in chunks)], np.int64)),
        free=torch.from_numpy(1 - np.array(clamped_steps, np.int64)),
        free_steps=len(clamped_steps) - sum(clamped_steps),
        longest=max(chunk.inner for chunk in chunks),
        pairs=sum(sum(chunk.free) for chunk in chunks),
        chunk_size=chunk_size,
    )


def chunks_of(bounds: Tensor, free: Tensor) -> list[Chunk]:
    """The chunks of a schedule."""
    flags = free.numpy().tolist()
    return [
        Chunk(start, stop, tuple(k for k in range(stop - start) if flags[start + k]))
        for start, stop in pairwise(bounds.numpy().tolist())
    ]
