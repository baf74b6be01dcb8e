"""Cuts time into chunks for the chunked implementation, and chooses their length. ops/README.md explains both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

RUN = 2  # free steps that a clamped run inside a chunk counts as: a clamped pattern is two rows of pairs
LONGEST_RUN = 32  # the most steps of a clamped run inside a chunk
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, 64)  # free steps, to choose from
PASSES = 14  # matrices per example that a chunk reads or writes, with a full alpha
VECTOR_PASSES = 10
PAIR_VECTORS = 60  # vectors per example that a pair reads or writes


class CostProfile(NamedTuple):
    """Speed of a machine, for the choice of a chunk length."""

    bandwidth: float
    """Bytes per second of passes over matrices"""
    arithmetic: float
    """Operations per second of the products of pairs"""
    calls: float
    """Constant cost of a chunk, in seconds"""


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


def longest_chunk(
    clamped_steps: Sequence[bool], B: int, N: int, *, full: bool = True, profile: str = "cpu", itemsize: int = 4
) -> int:
    """The `longest` to pass to `cut`: the entry of `LENGTHS` with the lowest estimated cost.

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
    """Estimated cost of a cut, without the terms that are the same for every cut of these steps.

    Every chunk moves some matrices of each example, every pair some vectors. With a full alpha, pairs are products with
    it too: a step reads alpha once for all pairs and examples, and the arithmetic of few pairs hides behind that.
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
