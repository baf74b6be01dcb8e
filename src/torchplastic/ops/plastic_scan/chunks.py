"""Where the chunked implementation cuts time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

RUN = 2  # what a clamped run inside a chunk counts for: a pattern that is held is two rows of pairs
LONGEST_RUN = 32  # steps of a clamped run inside a chunk
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, 64)  # free steps, to choose from
PASSES = 14  # matrices of an example that a chunk moves with a full alpha; 10 with a vector
VECTOR_PASSES = 10
PAIR_VECTORS = 60  # vectors of an example that a pair moves


class CostProfile(NamedTuple):
    """What the choice of a length weighs against each other."""

    bandwidth: float
    """Bytes per second of passes over matrices"""
    arithmetic: float
    """Operations per second of the products of pairs"""
    calls: float
    """Seconds that a chunk costs whatever its size"""


COST_PROFILES = {
    "cpu": CostProfile(50e9, 160e9, 4.5e-4),  # measured: two cores, docs/performance.md
    "numba": CostProfile(50e9, 160e9, 2e-5),  # the same through numba_chunked.py: no calls between chunks
    "cuda": CostProfile(2e12, 2e13, 5e-4),  # from data sheets and the launches of a chunk, not measured
}


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

    def pairs(self) -> list[int]:
        """For each free step, how many rows of pairs it has: a free step before it is one, a clamped run is `RUN`."""
        rows: list[int] = []
        for runs_before, (low, high) in enumerate(self.free_runs()):
            earlier = len(rows) + RUN * runs_before
            rows += range(earlier, earlier + high - low)
        return rows

    @property
    def ends_clamped(self) -> bool:
        return self.inner < self.stop - self.start


def longest_chunk(
    clamped_steps: Sequence[bool], B: int, N: int, *, full: bool = True, profile: str = "cpu", itemsize: int = 4
) -> int:
    """The length to which `cut` is told to cut: of those in `LENGTHS` the one whose chunks cost least.

    full: whether alpha is a matrix; profile: one of `COST_PROFILES`; itemsize: bytes of a number.
    """
    known = COST_PROFILES.get(profile, COST_PROFILES["cuda"])
    return _longest_chunk(tuple(clamped_steps), B, N, full, known, itemsize)


@lru_cache(maxsize=256)
def _longest_chunk(
    clamped_steps: tuple[bool, ...], B: int, N: int, full: bool, profile: CostProfile, itemsize: int
) -> int:
    return min(LENGTHS, key=lambda length: seconds(cut(clamped_steps, length), B, N, full, profile, itemsize))


def seconds(chunks: Sequence[Chunk], B: int, N: int, full: bool, profile: CostProfile, itemsize: int) -> float:
    """What differs between cuts of the same steps: the passes of their chunks over whole matrices, and their pairs.

    Every chunk moves some matrices of each example, every pair some vectors. With a full alpha the pairs of a step are
    products with it too: it is read once for all of them and all examples, and up to some number they hide behind that.
    """
    matrix = N * N * itemsize / profile.bandwidth
    passes = profile.calls + B * matrix * (PASSES if full else VECTOR_PASSES)
    pairs = [pairs_of_step for chunk in chunks for pairs_of_step in chunk.pairs()]
    moved = len(chunks) * passes + sum(pairs) * B * PAIR_VECTORS * N * itemsize / profile.bandwidth
    if not full:
        return moved
    product = 4 * B * N * N / profile.arithmetic  # of a pair, both ways
    return moved + sum(max(2 * matrix, pairs_of_step * product) for pairs_of_step in pairs)


def cut(clamped_steps: Sequence[bool], longest: int, longest_run: int = LONGEST_RUN) -> list[Chunk]:
    """Chunks of at most `longest` free steps; a fully clamped run between them counts as `RUN` steps.

    A clamped run enters nothing but the trace, so it ends a chunk for free; those of at most `longest_run` steps may
    lie inside (0: none does), because every chunk passes over the matrices a few times. A run of free steps is cut
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
