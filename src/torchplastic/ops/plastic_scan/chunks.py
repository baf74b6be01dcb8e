"""Where the chunked form cuts time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

LONGEST_CHUNK = 16  # free steps; see ops/README.md for the measurement
RUN = 2  # what a clamped run inside a chunk counts for: a pattern that is held is two rows of pairs
LONGEST_RUN = 32  # steps of a clamped run inside a chunk


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
        """Steps up to the last free one; after it there is a clamped run, or nothing."""
        return self.free[-1] + 1 if self.free else 0

    def clamped_runs(self) -> list[tuple[int, int]]:
        """Offsets (low, high) of each clamped run."""
        edges = (-1, *self.free, self.stop - self.start)
        return [(a + 1, b) for a, b in pairwise(edges) if b > a + 1]

    def free_runs(self) -> list[tuple[int, int]]:
        """Offsets (low, high) of each run of free steps."""
        return runs(self.free)

    @property
    def ends_clamped(self) -> bool:
        return self.inner < self.stop - self.start


def cut(clamped_steps: Sequence[bool], longest: int, longest_run: int = LONGEST_RUN) -> list[Chunk]:
    """Chunks of at most `longest` free steps; a fully clamped run between them counts as `RUN` steps.

    A clamped run enters nothing but the trace, so it ends a chunk for free; one of at most `longest_run` steps may lie
    inside, because every chunk passes over the matrices a few times. A run of free steps is cut evenly: 13 with
    longest=8 are 7 + 6.
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
    """Add free steps t … t + size - 1, to the last chunk where there is room."""
    last = chunks[-1] if chunks else None
    if last is not None and last.free and last.ends_clamped:
        runs = last.clamped_runs()
        low, high = runs[-1]
        if high - low <= longest_run and len(last.free) + RUN * len(runs) + size <= longest:
            offsets = range(t - last.start, t - last.start + size)
            chunks[-1] = Chunk(last.start, t + size, (*last.free, *offsets))
            return
    chunks.append(Chunk(t, t + size, tuple(range(size))))
