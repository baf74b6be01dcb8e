"""Where the chunked form cuts time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Chunk(NamedTuple):
    """Steps start … stop - 1: `free` steps that need the matrices, then a fully clamped run that does not."""

    start: int
    free: int
    stop: int

    @property
    def ends_clamped(self) -> bool:
        return self.stop - self.start > self.free


def cut(clamped_steps: Sequence[bool], longest: int) -> list[Chunk]:
    """Chunks of at most `longest` free steps, each followed by the clamped run after it.

    A clamped run enters nothing but the rank-n update of the trace, so it always ends its chunk.
    A run of free steps is cut evenly: 13 steps with longest=8 are 7 + 6.
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
            chunks.append(Chunk(t, size, t + size))
            t += size
        while t < T and clamped_steps[t]:
            t += 1
        chunks[-1] = chunks[-1]._replace(stop=t)
    return chunks
