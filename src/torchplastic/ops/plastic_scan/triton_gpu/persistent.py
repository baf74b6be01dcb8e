"""The triton implementation of networks that fit into the registers of a GPU: an episode is one kernel per pass.

Each program owns a few postsynaptic neurons of one example and keeps their columns of w, alpha and the trace in its
registers for the whole episode. All programs run at once, exchange one vector per step and synchronise once per free
step. One trace per chunk of steps is stored; the backward pass recomputes the others.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`, rows are stored M long.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from torchplastic.ops import cpu_cache
from torchplastic.ops.plastic_scan.triton_gpu import support as triton_support
from torchplastic.ops.plastic_scan.autograd import run_episode
from torchplastic.rules import Rule

CHUNK = 16  # steps between two stored traces
LINE = 32  # numbers to which rows are rounded up
COLUMNS = (8, 16, 32)  # postsynaptic neurons of a program; 8 float32 numbers are the shortest run that memory moves
TILE_BYTES = 1 << 15  # of a program's columns of one matrix: a few of them must fit into a multiprocessor's registers
FORWARD_WARPS, BACKWARD_WARPS = 16, 8  # the backward pass needs more registers per thread


class PersistentSpec(NamedTuple):
    """The arguments of a scan that have no gradient."""

    rule: Rule
    clamp: Tensor | None  # [T, B, N] bool
    clamped_steps: tuple[bool, ...]
    nonlinearity: str
    chunk: int = CHUNK


class Grid(NamedTuple):
    """How programs share a scan: `blocks` for each example, with R columns each, in tiles of BN rows."""

    blocks: int
    R: int
    BN: int


def grid_of(N: int, B: int, itemsize: int, programs: int) -> Grid | None:
    """The fewest columns per program with which all programs run at once on `programs` multiprocessors, or None."""
    BN = max(16, 1 << (N - 1).bit_length())
    for R in COLUMNS:
        blocks = -(-N // R)
        if blocks * B <= programs and BN * R * itemsize <= TILE_BYTES:
            return Grid(blocks, R, BN)
    return None


def fits(B: int, like: Tensor) -> bool:
    """Whether B examples of a network with matrices like this one fit into the GPU's registers at once."""
    return grid_of(len(like), B, like.element_size(), triton_support.multiprocessors(like.device)) is not None


def resident(
    drive: Tensor, w: Tensor, alpha: Tensor, eta: Tensor, hidden: Tensor, trace: Tensor, problem: PersistentSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """`drive [T, B, N]`, `w [N, N]`, `hidden [B, N]`, `trace [B, N, N]` -> y `[T, B, N]`, hidden, trace.

    Equal to `reference` in values and gradients. Without gradients nothing is stored, whatever T.
    """
    N = len(w)
    return run_episode(TritonPersistent, problem, drive, w, alpha.expand(N, N), eta.expand(N), hidden, trace)


class TritonPersistent:
    """The kernels with what both passes share."""

    def __init__(self, problem: PersistentSpec, w: Tensor, alpha: Tensor, eta: Tensor, batch: int) -> None:
        self.problem, self.batch, self.N = problem, batch, len(w)
        self.M = -(-self.N // LINE) * LINE
        grid = grid_of(self.N, batch, w.element_size(), triton_support.multiprocessors(w.device))
        assert grid is not None
        self.grid = grid
        self.w, self.alpha = self.rows(w.detach()), self.rows(alpha.detach())
        self.eta = eta.detach().contiguous()
        self.clamp = self.eta if problem.clamp is None else problem.clamp.contiguous().view(torch.uint8)

    def rows(self, given: Tensor) -> Tensor:
        """`[…, N]` with zeros behind each row, `[…, M]`."""
        return pad(given, (0, self.M - self.N)).contiguous()

    def forward(
        self, drive: Tensor, hidden: Tensor, trace: Tensor, needs: Sequence[bool] | None
    ) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """-> x `[T + 1, B, M]`, the final trace; kept: the traces at the starts of chunks."""
        T, B, N = drive.shape
        keep = needs is not None
        problem = self.problem
        x = drive.new_zeros(T + 1, B, self.M)
        x[0, :, :N] = hidden
        x[1:, :, :N] = drive  # the outputs of fully clamped steps; the kernel writes the others
        final = cpu_cache.empty((B, N, self.M), drive)
        kept = cpu_cache.empty((-(-T // problem.chunk) if keep else 0, B, N, self.M), drive)
        flags = _flags(problem.clamped_steps, False, False, drive.device)
        self._launch(
            "resident_forward",
            drive.detach().contiguous(), self.clamp, self.w, self.alpha, self.eta, self.rows(trace.detach()), flags,
            x, kept, final, self._counters(),
            sizes=(T, B, N, self.M, problem.chunk, self.grid.blocks), num_warps=FORWARD_WARPS,
            KEEP=keep,
        )  # fmt: skip
        return x, final[..., :N].contiguous(), (kept,)

    def backward(
        self, x: Tensor, kept: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
    ) -> tuple[Tensor, ...]:
        """Gradients of drive, w, alpha, eta, hidden, trace."""
        T, B, N, M = len(x) - 1, x.shape[1], self.N, self.M
        need_drive, _, _, need_eta, need_hidden, _ = needs[:6]
        g_y, g_hidden, g_trace = grads
        gy = x.new_zeros(T, B, N) if g_y is None else g_y.contiguous()
        if g_hidden is not None:
            gy = torch.cat([gy[:-1], gy[-1:] + g_hidden])
        G = x.new_zeros(B, N, M) if g_trace is None else self.rows(g_trace)
        g_a, g_alpha = cpu_cache.empty((T, B, N), x), cpu_cache.empty_like(G)
        g_drive = cpu_cache.empty_like(g_a) if need_drive else g_a
        g_eta, g_x = cpu_cache.empty((2, B, N), x)
        partial = cpu_cache.empty((2, B, self.grid.blocks, M), x)
        flags = _flags(self.problem.clamped_steps, need_drive, need_hidden, x.device)
        self._launch(
            "resident_backward",
            x, self.clamp, self.w, self.alpha, self.eta, flags, kept[0], gy, G, g_a, g_drive, g_alpha, g_eta, g_x,
            partial, self._counters(), sizes=(T, B, N, M, self.problem.chunk, self.grid.blocks),
            num_warps=BACKWARD_WARPS, NEED_DRIVE=need_drive, NEED_ETA=need_eta,
            BQ=1 << (self.grid.blocks - 1).bit_length(),
        )  # fmt: skip
        g_w = x[:-1, :, :N].flatten(0, 1).t() @ g_a.flatten(0, 1)
        return g_drive, g_w, g_alpha.sum(0)[:, :N].contiguous(), g_eta.sum(0), g_x, G[..., :N].contiguous()

    def _counters(self) -> Tensor:
        return torch.zeros(self.batch, dtype=torch.int32, device=self.w.device)

    def _launch(self, name: str, *tensors: Tensor, sizes: tuple[int, ...], **flags: Any) -> None:
        kernels = triton_support.find_kernels()
        assert kernels is not None
        problem, grid = self.problem, self.grid
        triton_support.run_together(
            getattr(kernels, name), grid.blocks * self.batch, tensors, sizes,
            RULE=kernels.RULES[triton_support.name_of(problem.rule)], F=kernels.NONLINEARITIES[problem.nonlinearity],
            CLAMP=problem.clamp is not None, R=grid.R, BN=grid.BN, **flags,
        )  # fmt: skip


@cache  # never freed: a CUDA graph reads them by address
def _flags(clamped_steps: tuple[bool, ...], need_drive: bool, need_hidden: bool, device: torch.device) -> Tensor:
    """Flags of each step: whether it is free, and whether dL/d(output of the step before it) is needed."""
    from torchplastic.ops.plastic_scan.triton_gpu.kernels import IS_FREE, PASSES_ON

    free = [not clamped for clamped in clamped_steps]
    passes = [need_hidden, *(need_drive or f for f in free[:-1])]
    flags = [IS_FREE * f + PASSES_ON * p for f, p in zip(free, passes, strict=True)]
    return torch.tensor(flags, dtype=torch.int8, device=device)
