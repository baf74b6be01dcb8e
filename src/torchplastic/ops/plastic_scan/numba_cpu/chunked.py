"""The chunked implementation for a full alpha on a CPU, through the compiled kernels.

Same results as the PyTorch calls in forward.py and backward.py, whose letters these are.

Axes: T time, B batch, N neurons, M = N rounded up to whole lines of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchplastic.ops import cpu_cache
from torchplastic.ops.plastic_scan.chunked import algebra
from torchplastic.ops.plastic_scan.schedule import Chunk
from torchplastic.ops.plastic_scan.chunked.forward import ChunkedSpec
from torchplastic.rules import HEBB, OJA, Rule

DTYPES = (torch.float32, torch.float64)
DEEP = 1024  # rows of two factors that are multiplied at a time


@cache
def find_kernels() -> ModuleType | None:
    """The kernels, or None without numba or an OpenMP runtime of PyTorch's that they can use."""
    try:
        from torchplastic.ops.plastic_scan.numba_cpu import chunked_kernels as kernels
    except ImportError:
        return None
    return kernels


def supports(rule: Rule, like: Tensor) -> bool:
    """Whether kernels can take a scan with matrices like this one; not on another device, for another rule."""
    known = rule is HEBB or rule is OJA
    return known and like.device.type == "cpu" and like.dtype in DTYPES and find_kernels() is not None


def cost_profile(device: str, rule: Rule = HEBB, full: bool = True) -> str:
    """Which of `chunks.COST_PROFILES` runs a chunked scan on a device of that type; full: whether alpha is a matrix."""
    known = rule is HEBB or rule is OJA
    return "numba" if device == "cpu" and full and known and find_kernels() is not None else device


class ChunkLayout(NamedTuple):
    """The cut of time, in the lists that kernels.py describes."""

    bounds: Any
    free: Any
    group: Any
    firsts: Any

    def in_chunks(self, of_steps: Any) -> Any:
        """The sum of `[T]` in each chunk."""
        return np.add.reduceat(of_steps, self.bounds[:-1])

    def groups(self) -> int:
        """The most groups of a chunk."""
        return int(np.diff(self.group[self.bounds[:-1]], append=self.group[-1] + 1).max())

    def pairs(self) -> Any:
        """The pairs of a free step and a group before it, for each chunk."""
        before = self.group - np.repeat(self.group[self.bounds[:-1]], np.diff(self.bounds))
        return self.in_chunks(before * self.free)


def chunk_layout(chunks: Sequence[Chunk], group: Any) -> ChunkLayout:
    """group `[T]`: the number of each step's group."""
    bounds = np.array([0, *(chunk.stop for chunk in chunks)], np.int64)
    free = np.zeros(bounds[-1], np.int64)
    free[[chunk.start + k for chunk in chunks for k in chunk.free]] = 1
    return ChunkLayout(bounds, free, group, np.flatnonzero(np.diff(group, prepend=-1)))


def groups_of(chunks: Sequence[Chunk], drive: Tensor, merge: bool) -> Any:
    """The number of each step's group `[T]`, through the episode.

    The first step of a clamped run is a group of its own: its u is what a free step gave, which has a gradient. The u
    of the next is what the first was clamped to; where it stays the same, so does the group.
    """
    opens = np.ones(len(drive), np.int64)
    rows = drive.detach().numpy()
    for chunk in chunks if merge else ():
        for low, high in chunk.clamped_runs():
            first, last = chunk.start + low, chunk.start + high
            opens[first + 2 : last] = (rows[first + 1 : last - 1] != rows[first : last - 2]).any((1, 2))
    return np.cumsum(opens) - 1


class Kernels:
    """The kernels of an implementation, and a scan as they read it."""

    def __init__(self, kernels: Any, problem: Any, w: Tensor, alpha: Tensor, eta: Tensor) -> None:
        """problem: with a rule, a clamp and a nonlinearity; eta `[N]`."""
        codes = kernels.jit
        self.kernels, self.problem = kernels, problem
        self.N, self.M = len(w), padded_length(len(w))
        self.dtype = str(w.dtype).removeprefix("torch.")
        self.w, self.alpha, self.eta = w.detach(), alpha.detach(), self.rows(eta.detach()).numpy()
        self.rule = codes.HEBB if problem.rule is HEBB else codes.OJA
        self.nonlinearity = codes.NONLINEARITIES[problem.nonlinearity]
        self.clamp = codes.EMPTY_CLAMP if problem.clamp is None else problem.clamp.contiguous().numpy()

    def at(self, name: str) -> int:
        """The address of one of the kernels' functions."""
        return int(self.kernels.where(name, self.dtype))

    def rows(self, given: Tensor) -> Tensor:
        """`[…, N]` with zeros behind each row, `[…, M]`."""
        if given.is_contiguous() and given.shape[-1] == self.M:
            return given
        made = cpu_cache.empty((*given.shape[:-1], self.M), given)
        made[..., self.N :] = 0
        made[..., : self.N] = given
        return made


class NumbaChunked(Kernels):
    """An episode of a chunked scan."""

    def __init__(self, problem: ChunkedSpec, w: Tensor, alpha: Tensor, eta: Tensor, batch: int) -> None:
        super().__init__(find_kernels(), problem, w, alpha.contiguous(), eta)
        self.threads = algebra.blocks_of(w.numel(), w.device)

    def empty(self, *shape: int) -> Tensor:
        """`[*shape, M]`, zeros from N on."""
        made = cpu_cache.empty((*shape, self.M), self.w)
        made[..., self.N :] = 0
        return made

    def forward(
        self, drive: Tensor, hidden: Tensor, trace: Tensor, needs: Sequence[bool] | None
    ) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """-> x `[T + 1, B, M]`, the final trace; kept: traces at the chunks' starts, z, uP, the steps' groups, w."""
        (T, B, N), M, chunks = drive.shape, self.M, self.problem.chunks
        keep = needs is not None
        layout = chunk_layout(chunks, groups_of(chunks, drive, merge=needs is None or not needs[0]))
        groups, pairs, free = layout.groups(), layout.pairs(), layout.in_chunks(layout.free)
        x = drive.new_zeros(T + 1, B, M)
        x[0, :, :N] = hidden.detach()
        w = self.rows(self.w)
        across = cpu_cache.empty((N, M), w)
        self.kernels.matmul.transpose(self.at("transpose"), self.alpha.numpy(), across.numpy(), self.threads)
        kept = cpu_cache.empty((len(chunks) - 1 if keep else 0, B, N, N), w)
        final = cpu_cache.empty((B, N, N), w)
        z = self.empty((pairs.sum() if keep else pairs.max()) * B)
        uP = self.empty(free.sum() if keep else free.max(), B)
        self.kernels.forward(
            self.at("forward"), self.at("dots"), self.at("next_trace"), self.at("tanh"), x.numpy(),
            drive.detach().contiguous().numpy(), self.clamp, self.eta, self.rule, self.nonlinearity, w.numpy(),
            self.alpha.numpy(), across.numpy(), self.first(trace), keep, kept.numpy(), final.numpy(),
            cpu_cache.empty((B, N, M), w).numpy(), z.numpy(), uP.numpy(),
            cpu_cache.empty((self.threads, groups * B, M), w).numpy(), x.new_zeros(B, M).numpy(),
            x.new_zeros(groups, B, M).numpy(), x.new_zeros(4, B, M).numpy(), *layout, self.threads,
        )  # fmt: skip
        return x, final, (trace, kept, z, uP, torch.from_numpy(layout.group), w)

    def first(self, trace: Tensor) -> Any:
        """The initial trace; an empty array if it is zero."""
        return self.none() if self.problem.fresh else trace.detach().contiguous().numpy()

    def none(self) -> Any:
        """A matrix of each example that is not there."""
        return self.w.new_empty(0, 0, 0).numpy()

    def backward(
        self, x: Tensor, kept: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
    ) -> tuple[Tensor, ...]:
        """Gradients of drive, w, alpha, eta, hidden, trace."""
        need_drive, need_w, need_alpha, need_eta, need_hidden, need_trace = needs[:6]
        g_y, g_hidden, g_trace = grads
        trace, traces, z, uP, group, w = kept
        (T, B, M), N, chunks = x[1:].shape, self.N, self.problem.chunks
        layout = chunk_layout(chunks, group.numpy())
        gx, delta = x.new_zeros(T + 1, B, M), x.new_zeros(T, B, M)
        if g_y is not None:
            gx[1:, :, :N] = g_y
        if g_hidden is not None:
            gx[-1, :, :N] += g_hidden
        back_to = 0
        if not (need_drive or need_eta or need_hidden or need_trace):
            while back_to < len(chunks) and not chunks[back_to].free:  # a clamped start has nothing to say
                back_to += 1
        G, given = cpu_cache.empty((B, N, N), x), g_trace is not None
        if g_trace is not None:
            G.copy_(g_trace)
        elif need_trace and not layout.free.any():
            G.zero_()
        g_alpha, g_eta = cpu_cache.empty((N, N), x), x.new_zeros(M)
        if need_alpha:
            g_alpha.zero_()
        every, need_gd = need_drive or need_eta, need_eta or self.problem.rule is OJA
        wanted = np.array([need_hidden, *layout.free[:-1]], np.int64)
        if need_drive:
            wanted[:] = 1
        groups, most = layout.groups(), layout.in_chunks(wanted).max()
        steps = max(chunk.stop - chunk.start if every else chunk.inner for chunk in chunks)
        gs, UG, D = (cpu_cache.empty((rows, B, M), x).numpy() for rows in (steps, groups, groups))
        E, EG = cpu_cache.empty((B, most, N), x).numpy(), self.empty(B, most).numpy()
        self.kernels.backward(
            self.at("backward"), self.at("dots"), self.at("through_the_trace"), x.numpy(), gx.numpy(), delta.numpy(),
            self.clamp, self.eta, self.rule, self.nonlinearity, w.numpy(), self.alpha.unsqueeze(0).numpy(),
            self.rows(self.alpha).numpy(), self.first(trace), traces.numpy(), z.numpy(), uP.numpy(), G.numpy(), given,
            g_alpha.unsqueeze(0).numpy() if need_alpha else self.none(), g_eta.numpy(), need_gd, every, back_to,
            need_trace, wanted, gs, x.new_zeros(steps, B, M).numpy(), UG, D, E, EG, x.new_zeros(6, B, M).numpy(),
            x.new_empty(steps, M).numpy(), x.new_zeros(2, groups * B, M).numpy(), x.new_zeros(groups * B, M).numpy(),
            *layout, self.threads,
        )  # fmt: skip
        g_drive = delta[..., :N]
        if self.problem.clamp is not None:
            g_drive = torch.where(self.problem.clamp, gx[1:, :, :N], g_drive) if need_drive else g_drive
        g_w = cpu_cache.empty((N, N), x)
        if need_w:
            free = torch.from_numpy(np.flatnonzero(layout.free))
            u, g_a = (rows.index_select(0, free).flatten(0, 1) for rows in (x, delta))
            self.product(u, g_a, g_w)
        return g_drive, g_w, g_alpha, g_eta[:N], gx[0, :, :N].contiguous(), G

    def product(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        """`out = left^T @ right`; left, right `[n, ≥ N]`."""
        N = len(out)
        scratch = cpu_cache.empty((self.threads, self.kernels.matmul.ROWS, N), out).numpy()
        for start in range(0, max(1, len(left)), DEEP):
            U, V = left[start : start + DEEP], right[start : start + DEEP]
            columns, rows = cpu_cache.empty((2, N, padded_length(len(U))), out).numpy()
            self.kernels.matmul.add_product(
                self.at("add_product"), self.at("dots"), U.numpy(), V.numpy(), columns, rows, scratch, start == 0,
                out.numpy(), self.threads,
            )  # fmt: skip


def padded_length(N: int) -> int:
    """N rounded up to whole lines of the cache."""
    line = find_kernels().LINE  # type: ignore[union-attr]
    return -(-N // line) * line
