"""How long a chunk should be: the length with the lowest estimated cost. README.md explains the terms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from torchplastic.ops.plastic_scan.schedule import Chunk, cut

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


@lru_cache(maxsize=256)
def longest_chunk(
    clamped_steps: tuple[bool, ...], B: int, N: int, full: bool, profile: CostProfile, itemsize: int = 4
) -> int:
    """The `longest` to pass to `cut`: the entry of `LENGTHS` with the lowest estimated cost.

    full: whether alpha is a matrix; itemsize: bytes of a number.
    """
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
