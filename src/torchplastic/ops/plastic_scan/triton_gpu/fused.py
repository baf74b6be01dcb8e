"""The chunked algorithm on a GPU through Triton: one launch per free step, one per pass over a chunk's trace.

Same results as the PyTorch calls in forward.py and backward.py, whose letters these are. A step reads w, alpha and the
trace at the chunk's start once; its pairs, nonlinearity, clamp and rule are in the same kernel. Programs synchronise
only at the end of a launch, so any size runs.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`. Chunks have no clamped run inside.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchplastic.ops import cpu_cache
from torchplastic.ops.plastic_scan.triton_gpu import support as triton_support
from torchplastic.ops.plastic_scan.schedule import Chunk
from torchplastic.rules import Rule

FEWEST_PAIRS = 16  # rows of a matrix product in Triton
LONGEST = 64  # free steps of a chunk: the pairs of more do not fit into a multiprocessor's shared memory
PAIR_BYTES = 1024  # of a column of the pairs' table of a program, for the same reason


class Tile(NamedTuple):
    """How a step is shared: BB examples, R neurons of a program, BN of the others at a time."""

    BB: int
    R: int
    BN: int
    warps: int


def tile_of(batch: int, N: int, pairs: int = 1, itemsize: int = 4) -> Tile:
    """Few neurons per program in a small network; several examples per program share the reading of w and alpha."""
    examples = 4 if batch >= 4 else 2 if batch >= 2 else 1
    while examples > 1 and examples * pairs * itemsize > PAIR_BYTES:
        examples //= 2
    if examples == 1:
        return Tile(1, 16 if N < 4096 else 32, 64, 4)
    return Tile(examples, 16 if N < 2048 else 32, 32, 8)


PASS = {"R": 32, "BN": 64}  # of a pass over a trace


class Fused:
    """The kernels with what all chunks of a scan share."""

    def __init__(self, rule: Rule, nonlinearity: str, clamp: Tensor | None, w: Tensor, alpha: Tensor, eta: Tensor):
        kernels = triton_support.find_kernels()
        assert kernels is not None
        self.kernels: Any = kernels
        self.w, self.alpha = w.detach().contiguous(), alpha.detach().contiguous()
        self.eta = eta.detach().expand(len(w)).contiguous()
        self.clamp = self.eta if clamp is None else clamp.contiguous().view(torch.uint8)
        self.options = {
            "RULE": kernels.RULES[triton_support.name_of(rule)],
            "F": kernels.NONLINEARITIES[nonlinearity],
            "CLAMP": clamp is not None,
        }
        self.trace, self.zero = alpha, False

    def load(self, H: Tensor, zero: bool) -> None:
        """The trace `[B, N, N]` at the chunk's start; where that is known to be zero, nothing is read."""
        self.trace, self.zero = H.detach().contiguous(), zero

    def forward(self, drive: Tensor, x: Tensor, tables: tuple[Tensor, ...], t: int, steps: int) -> None:
        """The free steps of a chunk, from t on: fills in x `[T + 1, B, M]` and the chunk's tables."""
        _, z, S, L, uP = tables
        _, B, N = drive.shape
        drive = drive.detach().contiguous()
        for k in range(steps):
            tile = tile_of(B, N, _pairs(k), drive.element_size())
            triton_support.launch(
                self.kernels.step_forward, (-(-B // tile.BB), -(-N // tile.R)),
                (x, drive, self.clamp, self.w, self.alpha, self.eta, self.trace, z[k], S, L, uP[k]),
                (t + k, k, B, N, x.shape[2]), **self.options, ZERO=self.zero, MORE=k + 1 < steps,
                BB=tile.BB, R=tile.R, BN=tile.BN, PAIRS=_pairs(k), num_warps=tile.warps,
            )  # fmt: skip

    def backward(
        self, x: Tensor, gx: Tensor, delta: Tensor, tables: Any, first: bool, gs: Tensor, gd: Tensor | None
    ) -> None:
        """The free steps of a chunk in reverse: completes delta, gx, gs and gd (where d depends on v).

        x `[T + 1, B, M]`, gx `[T + 1, B, N]`, delta `[T, B, M]`; first: whether dL/du of its first step is wanted.
        """
        steps, (_, B, N), M = len(tables.free), gx.shape, x.shape[2]
        between = tables.between
        strides = [0 if size == 1 else stride for size, stride in zip(between.shape, between.stride(), strict=True)]
        z = tables.z.contiguous()
        vectors = (
            gs, gs if gd is None else gd, z, z if tables.LR is None else tables.LR.contiguous(), between,
            tables.s.contiguous(), x.new_empty(2 * steps, B, M),
        )  # fmt: skip
        options = {**self.options, "DECAY": gd is not None}
        for k in reversed(range(steps)):
            tile = tile_of(B, N, _pairs(k), x.element_size())
            grid = (-(-B // tile.BB), -(-N // tile.R))
            sizes = (tables.start + k, k, steps, B, N, M, *strides)
            if k == steps - 1:
                triton_support.launch(
                    self.kernels.last_step_backward, grid, (x, gx, delta, self.clamp, self.eta, *vectors), sizes,
                    **options, BB=tile.BB, R=tile.R, num_warps=tile.warps,
                )  # fmt: skip
            if k or first:
                L = tables.L[k].expand(B, N).contiguous()
                triton_support.launch(
                    self.kernels.step_backward, grid,
                    (x, gx, delta, self.clamp, self.w, self.alpha, self.eta, self.trace, L, *vectors), sizes,
                    **options, ZERO=self.zero, BB=tile.BB, R=tile.R, BN=tile.BN, PAIRS=_pairs(k),
                    num_warps=tile.warps,
                )  # fmt: skip

    def next_trace(self, H: Tensor, total: Tensor, U: Tensor, E: Tensor, out: Tensor, zero: bool) -> Tensor:
        """`total * H + sum over rows of the outer products of U [n, B, ≥ N] and E [n, B, N]`, into `out [B, N, N]`."""
        B, N, _ = out.shape
        total = total.expand(B, N)
        triton_support.launch(
            self.kernels.next_trace, (-(-N // PASS["R"]), -(-N // PASS["BN"]), B),
            (H.detach().contiguous(), total, U.contiguous(), E.contiguous(), out),
            (len(U), N, U.shape[2], *total.stride()), ZERO=zero, **PASS,
        )  # fmt: skip
        return out

    def through_the_trace(
        self,
        H: Tensor | None,
        x: Tensor,
        delta: Tensor,
        chunk: Chunk,
        total: Tensor,
        G: Tensor | None,
        carry: bool,
        dalpha: Tensor | None,
    ) -> Tensor | None:
        """`G = total * G + alpha * sum u (x) (L * delta)` where it is carried on, and dalpha of the chunk added. -> G

        H, G None: they are zero. dalpha None: it is not needed.
        """
        if not carry and dalpha is None:
            return G
        (_, B, M), N = delta.shape, len(self.w)
        fresh = G is None
        if carry and G is None:
            G = cpu_cache.empty((B, N, N), delta)
        total = total.expand(B, N)
        triton_support.launch(
            self.kernels.through_the_trace, (-(-N // PASS["R"]), -(-N // PASS["BN"])),
            (
                self.alpha if H is None else H.contiguous(), self.alpha, x, delta, self.eta, total,
                self.alpha if G is None else G, self.alpha if dalpha is None else dalpha,
            ),
            (chunk.start, chunk.inner, B, N, M, *total.stride()), RULE=self.options["RULE"],
            ZERO=H is None, FRESH=fresh, CARRY=carry, LEARN=dalpha is not None, **PASS,
        )  # fmt: skip
        return G


def _pairs(k: int) -> int:
    return 1 if k == 0 else max(FEWEST_PAIRS, 1 << (k - 1).bit_length())
