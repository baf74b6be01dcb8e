"""The chunked algorithm on a GPU through Triton: one launch per free step, one per pass over a chunk's trace.

Same results as the PyTorch calls in chunked/, whose passes these are with other steps. A step reads w, alpha and the
trace at the chunk's start once; its pairs, nonlinearity, clamp and rule are in the same kernel. Programs synchronise
only at the end of a launch, so any size runs.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`. Chunks have no clamped run inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchplastic.ops import cpu_cache
from torchplastic.ops.plastic_scan import chunked
from torchplastic.ops.plastic_scan.chunked.algebra import AlphaGradient
from torchplastic.ops.plastic_scan.chunked.backward import Backward as ChunkedBackward
from torchplastic.ops.plastic_scan.chunked.forward import Forward as ChunkedForward
from torchplastic.ops.plastic_scan.chunked.forward import Tables
from torchplastic.ops.plastic_scan.cost_model import longest_chunk
from torchplastic.ops.plastic_scan.schedule import Chunk, Schedule, in_chunks
from torchplastic.ops.plastic_scan.spec import Call, Grads, ScanSpec
from torchplastic.ops.plastic_scan.triton_gpu import support

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


def supports(spec: ScanSpec) -> str | None:
    """Any size: None or the reason."""
    return support.supports(spec)


def schedule(spec: ScanSpec) -> Schedule:
    """Chunks without a clamped run inside."""
    longest = spec.chunk_size or longest_chunk(
        spec.clamped_steps, spec.B, spec.N, True, chunked.COST_PROFILES["cuda"], spec.itemsize
    )
    return in_chunks(spec.clamped_steps, min(longest, LONGEST), longest_run=0)


class _Steps:
    """What both passes do with kernels of a GPU instead of PyTorch's."""

    merges = False
    multiplies = False
    call: Call
    w: Tensor
    alpha: Tensor
    eta: Tensor

    def prepare(self) -> None:
        """Contiguous matrices, and what the kernels are compiled for."""
        self.kernels: Any = support.find_kernels()
        self.w, self.alpha = self.w.contiguous(), self.alpha.contiguous()
        self.rate = self.eta.expand(len(self.w)).contiguous()
        clamp = self.call.clamp
        self.clamp = self.rate if clamp is None else clamp.contiguous().view(torch.uint8)
        self.options = support.options(self.call)

    def load(self, H: Tensor, zero: bool) -> None:
        """The trace `[B, N, N]` at the chunk's start; where that is known to be zero, nothing is read."""
        self.loaded, self.zero = H.contiguous(), zero


class Forward(_Steps, ChunkedForward):
    """One forward pass."""

    def free_steps(self, x: Tensor, tables: Tables, t: int, i: int, g: int, steps: int, more: bool) -> None:
        """All free steps of a chunk, from t on."""
        (_, z, S, L, uP), drive = tables, self.call.drive.contiguous()
        _, B, N = drive.shape
        for k in range(steps):
            tile = tile_of(B, N, _pairs(k), drive.element_size())
            support.launch(
                self.kernels.step_forward, (-(-B // tile.BB), -(-N // tile.R)),
                (x, drive, self.clamp, self.w, self.alpha, self.rate, self.loaded, z[k], S, L, uP[k]),
                (t + k, k, B, N, x.shape[2]), **self.options, ZERO=self.zero, MORE=k + 1 < steps,
                BB=tile.BB, R=tile.R, BN=tile.BN, PAIRS=_pairs(k), num_warps=tile.warps,
            )  # fmt: skip

    def next_trace(self, H: Tensor, total: Tensor, U: Tensor, E: Tensor, out: Tensor, zero: bool) -> Tensor:
        """`total * H + sum over rows of the outer products of U [n, B, ≥ N] and E [n, B, N]`, into `out [B, N, N]`."""
        B, N, _ = out.shape
        total = total.expand(B, N)
        support.launch(
            self.kernels.next_trace, (-(-N // PASS["R"]), -(-N // PASS["BN"]), B),
            (H.contiguous(), total, U.contiguous(), E.contiguous(), out),
            (len(U), N, U.shape[2], *total.stride()), ZERO=zero, **PASS,
        )  # fmt: skip
        return out


class Backward(_Steps, ChunkedBackward):
    """One backward pass."""

    def prepare(self) -> None:
        """As above, and no room for pairs, which the kernels sum."""
        super().prepare()
        self.g_alpha = AlphaGradient(self.alpha, len(self.trace), 0)

    def free_steps(self, tables: Any, wanted: list[int], gs: Tensor, gd: Tensor | None) -> None:
        """All free steps of a chunk in reverse."""
        x, gx, delta = self.in_lines, self.gx, self.delta_in_lines
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
                support.launch(
                    self.kernels.last_step_backward, grid, (x, gx, delta, self.clamp, self.rate, *vectors), sizes,
                    **options, BB=tile.BB, R=tile.R, num_warps=tile.warps,
                )  # fmt: skip
            if k or 0 in wanted:
                L = tables.L[k].expand(B, N).contiguous()
                support.launch(
                    self.kernels.step_backward, grid,
                    (x, gx, delta, self.clamp, self.w, self.alpha, self.rate, self.loaded, L, *vectors), sizes,
                    **options, ZERO=self.zero, BB=tile.BB, R=tile.R, BN=tile.BN, PAIRS=_pairs(k),
                    num_warps=tile.warps,
                )  # fmt: skip

    def through_the_trace(self, H: Tensor | None, chunk: Chunk, before: Tensor, carry: bool) -> None:
        """Move G to the start of a chunk if `carry`, and add to dL/dalpha."""
        if not carry and not self.need_alpha:
            return
        G: Tensor | None = self.G
        delta, dalpha = self.delta_in_lines, self.g_alpha.total if self.need_alpha else None
        (_, B, M), N = delta.shape, len(self.w)
        fresh = G is None
        if carry and G is None:
            G = cpu_cache.empty((B, N, N), delta)
        total = before[-1].expand(B, N)
        support.launch(
            self.kernels.through_the_trace, (-(-N // PASS["R"]), -(-N // PASS["BN"])),
            (
                self.alpha if H is None else H.contiguous(), self.alpha, self.in_lines, delta, self.rate, total,
                self.alpha if G is None else G, self.alpha if dalpha is None else dalpha,
            ),
            (chunk.start, chunk.inner, B, N, M, *total.stride()), RULE=self.options["RULE"],
            ZERO=H is None, FRESH=fresh, CARRY=carry, LEARN=dalpha is not None, **PASS,
        )  # fmt: skip
        self.G = G


def _pairs(k: int) -> int:
    return 1 if k == 0 else max(FEWEST_PAIRS, 1 << (k - 1).bit_length())


def forward(call: Call) -> Sequence[Tensor]:
    """As `Kernel.forward`."""
    return Forward(call).run()


def backward(call: Call, kept: Sequence[Tensor], grads: Grads) -> Grads:
    """As `Kernel.backward`."""
    return Backward(call, kept, grads).run()
