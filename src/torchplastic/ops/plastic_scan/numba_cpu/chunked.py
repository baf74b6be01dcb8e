"""The chunked algorithm for a full alpha on a CPU, through the compiled kernels.

Same results as the PyTorch calls in chunked/forward.py and chunked/backward.py, whose letters these are.

Axes: T time, B batch, N neurons, M = N rounded up to whole lines of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchplastic.ops import cpu_cache
from torchplastic.ops.plastic_scan import chunked
from torchplastic.ops.plastic_scan.autograd import outputs_of
from torchplastic.ops.plastic_scan.chunked import algebra
from torchplastic.ops.plastic_scan.cost_model import CostProfile
from torchplastic.ops.plastic_scan.numba_cpu.scan import Scan, reason_against
from torchplastic.ops.plastic_scan.schedule import Schedule
from torchplastic.ops.plastic_scan.spec import Call, Grads, ScanSpec

COST_PROFILE = CostProfile(50e9, 160e9, 2e-5)  # that of PyTorch on a CPU without calls between chunks
DEEP = 1024  # rows of two factors that are multiplied at a time


def supports(spec: ScanSpec) -> str | None:
    """Whether the kernels can take a scan: None or the reason."""
    return reason_against(spec) if spec.alpha == "full" else f'it runs alpha="full", not "{spec.alpha}"'


def schedule(spec: ScanSpec) -> Schedule:
    """Chunks as in PyTorch, by the cost of these kernels."""
    return chunked.schedule(spec, COST_PROFILE)


def training_bytes(spec: ScanSpec) -> int:
    """As in PyTorch."""
    return chunked.training_bytes(spec, schedule(spec))


def moved_bytes(spec: ScanSpec) -> int:
    """As in PyTorch."""
    return chunked.moved_bytes(spec, schedule(spec))


class ChunkLayout(NamedTuple):
    """The cut of time, in the lists that chunked_kernels.py describes."""

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


def groups_of(call: Call) -> Tensor:
    """The number of each step's group `[T]`, through the episode.

    The first step of a clamped run in a chunk is a group of its own: its u is what a free step gave, which has a
    gradient. The u of the next is what the first was clamped to; where it stays the same, so does the group. The
    drive's gradient needs each step apart.
    """
    free, opens = call.free.numpy(), np.ones(len(call.free), np.int64)
    if not call.needs[0] and not free.all():
        held = np.flatnonzero(free[2:] + free[1:-1] + free[:-2] == 0) + 2  # clamped as the two steps before it
        starts = call.bounds.numpy()
        held = held[~np.isin(held, starts) & ~np.isin(held - 1, starts)]
        changes = (call.drive[1:] != call.drive[:-1]).flatten(1).any(1).numpy()  # from a step to the next
        opens[held] = changes[held - 2]
    return torch.from_numpy(np.cumsum(opens) - 1)


def chunk_layout(call: Call, group: Tensor) -> ChunkLayout:
    """The cut of time, with the groups of steps."""
    numbers = group.numpy()
    return ChunkLayout(call.bounds.numpy(), call.free.numpy(), numbers, np.flatnonzero(np.diff(numbers, prepend=-1)))


class Chunked(Scan):
    """A chunked scan."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.alpha, self.trace = self.alpha.contiguous(), self.trace.contiguous()
        self.common["eta"] = self.rows(self.eta)
        self.threads = algebra.blocks_of(self.w.numel(), self.w.device)
        self.first_trace = None if call.fresh else self.trace  # none is zero

    def layout_of(self, group: Tensor) -> ChunkLayout:
        """The cut of time with these groups; its arrays are in every record."""
        layout = chunk_layout(self.call, group)
        self.firsts = torch.from_numpy(layout.firsts)
        self.common |= {
            "T": len(self.drive), "chunks": len(layout.bounds) - 1, "groups": len(layout.firsts),
            "threads": self.threads, "most_groups": layout.groups(), "bounds": self.call.bounds,
            "free": self.call.free, "group": group, "firsts": self.firsts,
        }  # fmt: skip
        return layout

    def forward(self) -> tuple[Tensor, ...]:
        """-> y, hidden, trace; kept: x `[T + 1, B, M]`, traces at the starts of all chunks but the first, z, uP, …"""
        call, B, N, M = self.call, self.B, self.N, self.M
        keep, T = any(call.needs), len(self.drive)
        group = groups_of(call)
        layout = self.layout_of(group)
        groups, pairs, free = layout.groups(), layout.pairs(), layout.in_chunks(layout.free)
        x = self.w.new_zeros(T + 1, B, M)
        x[0, :, :N] = call.hidden
        w = self.rows(self.w)
        across = cpu_cache.empty((N, M), w)
        K = self.kernels
        self.run("transpose", K.matmul.TRANSPOSE, A=self.alpha, out=across, n=N, A_width=N, N=N, width=M)
        kept = cpu_cache.empty((len(layout.bounds) - 2 if keep else 0, B, N, N), w)
        final = cpu_cache.empty((B, N, N), w)
        z = self.empty((call.pairs if keep else int(pairs.max())) * B)
        uP = self.empty(call.free_steps if keep else int(free.max()), B)
        self.run(
            "chunked_forward", K.chunked.FORWARD, **self.common, dots_at=self.at("dots"),
            next_at=self.at("next_trace"), tanh_at=self.at("tanh"), z_rows=len(z), uP_rows=len(uP), keep=keep, x=x,
            drive=self.drive, W=w, alpha=self.alpha, across=across, trace=self.first_trace, kept=kept, final=final,
            P=cpu_cache.empty((B, N, M), w), z=z, uP=uP, products=cpu_cache.empty((self.threads, groups * B, M), w),
            a=x.new_zeros(B, M), S=x.new_zeros(groups, B, M), vectors=x.new_zeros(4, B, M), edges=self.edges(),
        )  # fmt: skip
        y, last = outputs_of(x, N, keep)
        made = w if w is not self.w else w.new_empty(0)
        return (y, last, final, x, kept, z, uP, group, made) if keep else (y, last, final)

    def edges(self) -> Tensor:
        """Room for the tiles at the edges of matrices, as trace_update.py describes."""
        K = self.kernels
        return self.w.new_empty(K.EDGES * self.threads, max(1, self.B), K.BAND, K.LINE)

    def backward(self, kept: Sequence[Tensor], grads: Grads) -> Grads:
        """Gradients of drive, w, alpha, eta, hidden, trace."""
        call, B, N, M = self.call, self.B, self.N, self.M
        need_drive, need_w, need_alpha, need_eta, need_hidden, need_trace = call.needs
        g_y, g_hidden, g_trace = grads
        x, traces, z, uP, group, made = kept
        T, w, K = len(self.drive), made if len(made) else self.w, self.kernels
        layout = self.layout_of(group)
        gx, delta = x.new_zeros(T + 1, B, M), x.new_zeros(T, B, M)
        if g_y is not None:
            gx[1:, :, :N] = g_y
        if g_hidden is not None:
            gx[-1, :, :N] += g_hidden
        back_to = 0
        if not (need_drive or need_eta or need_hidden or need_trace):
            with_free = np.flatnonzero(layout.in_chunks(layout.free))
            back_to = int(with_free[0]) if len(with_free) else len(layout.bounds) - 1  # a clamped start adds nothing
        G = cpu_cache.empty((B, N, N), x)
        if g_trace is not None:
            G.copy_(g_trace)
        elif need_trace and not layout.free.any():
            G.zero_()
        g_alpha, g_eta = cpu_cache.empty((N, N), x), x.new_zeros(M)
        if need_alpha:
            g_alpha.zero_()
        every, need_gd = need_drive or need_eta, need_eta or self.common["rule"] == K.jit.OJA
        wanted = torch.from_numpy(np.array([need_hidden, *layout.free[:-1]], np.int64))
        if need_drive:
            wanted[:] = 1
        groups, most = layout.groups(), int(layout.in_chunks(wanted.numpy()).max())
        steps = int(np.diff(layout.bounds).max()) if every else call.longest
        gs, UG, D = (cpu_cache.empty((rows, B, M), x) for rows in (steps, groups, groups))
        self.run(
            "chunked_backward", K.chunked.BACKWARD, **self.common, dots_at=self.at("dots"),
            back_at=self.at("through_the_trace"), most_wanted=most, steps=steps,
            z_rows=int(layout.pairs().sum()) * B, uP_rows=call.free_steps, given=g_trace is not None, need_gd=need_gd,
            every=every, back_to=back_to, carry_on=need_trace, x=x, gx=gx, delta=delta, W=w, alpha=self.alpha,
            in_lines=self.rows(self.alpha), trace=self.first_trace, kept=traces, z=z, uP=uP, G=G,
            dalpha=g_alpha if need_alpha else None, geta=g_eta, wanted=wanted, gs=gs, gd=x.new_zeros(steps, B, M),
            UG=UG, D=D, E=cpu_cache.empty((B, most, N), x), EG=self.empty(B, most), vectors=x.new_zeros(6, B, M),
            recalled=x.new_empty(steps, M), right=x.new_zeros(2, groups * B, M), q=x.new_zeros(groups * B, M),
            edges=self.edges(),
        )  # fmt: skip
        g_drive = delta[..., :N]
        if call.clamp is not None and need_drive:
            g_drive = torch.where(call.clamp, gx[1:, :, :N], g_drive)
        g_w = cpu_cache.empty((N, N), x)
        if need_w:
            free = torch.from_numpy(np.flatnonzero(layout.free))
            u, g_a = (rows.index_select(0, free).flatten(0, 1) for rows in (x, delta))
            self.product(u, g_a, g_w)
        return g_drive, g_w, g_alpha, g_eta[:N], gx[0, :, :N].contiguous(), G

    def product(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        """`out = left^T @ right`; left, right `[n, ≥ N]`, contiguous."""
        N, K = len(out), self.kernels
        if not len(left):
            out.zero_()
        scratch = cpu_cache.empty((self.threads, K.matmul.ROWS, N), out)
        for start in range(0, len(left), DEEP):
            U, V = left[start : start + DEEP], right[start : start + DEEP]
            width = -(-len(U) // K.LINE) * K.LINE
            self.run(
                "add_product", K.matmul.PRODUCT, dots_at=self.at("dots"), left=U, right=V,
                columns=cpu_cache.empty((N, width), out), rows=cpu_cache.empty((N, width), out), scratch=scratch,
                out=out, n=len(U), left_width=U.shape[1], right_width=V.shape[1], N=N, width=width,
                threads=self.threads, fresh=start == 0,
            )  # fmt: skip


def forward(call: Call) -> Sequence[Tensor]:
    """As `Kernel.forward`."""
    return Chunked(call).forward()


def backward(call: Call, kept: Sequence[Tensor], grads: Grads) -> Grads:
    """As `Kernel.backward`."""
    return Chunked(call).backward(kept, grads)
