"""The forward pass of the chunked algorithm in PyTorch. README.md derives it.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`, vectors are rows over neurons.
Steps of a chunk: k is the current one, l an earlier, m a later one; n in all, F of them free, the others fully clamped.
G groups of steps that share u: each free step is a group, and so is a run clamped to one pattern.
u_k = x(k-1) pre, v_k = x(k) post;  H' = d * H + u (x) s;  L(l..k) is the product of d over the steps
between l and k, L_k over those before k.  A leading g is dL/d…: gs, gd, gu, gv; G belongs to the trace.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from torchplastic.ops import cpu_cache
from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan.autograd import only_set, outputs_of
from torchplastic.ops.plastic_scan.chunked import algebra
from torchplastic.ops.plastic_scan.schedule import Chunk, chunks_of
from torchplastic.ops.plastic_scan.spec import Call
from torchplastic.rules import rule_of


class Kept(NamedTuple):
    """What the forward pass keeps. Chunks share the tensors; one without free steps has no rows in the last two."""

    x: Tensor
    """Outputs from the initial hidden on, zeros from N on, `[T + 1, B, ≥ N]`"""
    traces: Tensor
    """Those at the starts of all chunks but the first, `[chunks - 1, B, N, N]`"""
    recalled: Tensor
    """u P of the free steps, `[free steps, B, N]`"""
    z: Tensor
    """The pairs of each free step with the groups of its chunk, `[free steps, longest, B, N or 1]`"""


class Tables(NamedTuple):
    """What the free steps of a chunk fill in and read."""

    U: Tensor
    """u of each group, `[G, B, ≥ N]`"""
    z: Tensor
    """`[F, G, B, N or 1]`"""
    S: Tensor
    """L(l..k) s_l, summed over a group, advanced with k, `[G, B, N]`"""
    L: Tensor
    """L_k, advanced with k, `[B, N]`"""
    recalled: Tensor
    """`[F, B, N]`"""


class Scan:
    """What both passes share. A subclass may run the steps and the passes over the trace by kernels of its own."""

    merges = True
    """Whether steps that are clamped to one pattern form a group"""
    multiplies = True
    """Whether PyTorch multiplies with alpha"""

    def __init__(self, call: Call) -> None:
        self.call, self.rule, self.chunks = call, rule_of(call.rule), chunks_of(call.bounds, call.free)
        self.w, self.alpha, self.eta, self.trace = only_set(call)
        self.plastic = algebra.AlphaProducts(self.alpha, self.multiplies)
        self.decays = algebra.Decays(self.rule, self.eta)

    def prepare(self) -> None:
        """Bring w and P into the layout of the products of a step."""
        self._matrices = algebra.StepMatrices(self.w, self.plastic, len(self.trace))

    def load(self, H: Tensor, zero: bool) -> None:
        """Take the trace `[B, N, N]` at the chunk's start; zero: it is known to be zero and not read."""
        self._matrices.load(H, zero)

    def is_zero(self, chunk: Chunk) -> bool:
        """Whether the trace at the chunk's start is known to be zero."""
        return self.call.fresh and chunk.start == 0

    def groups(self, x: Tensor, chunk: Chunk) -> algebra.StepGroups:
        """The groups of a chunk's steps; reads only the rows of `x [T + 1, B, ≥ N]` that follow a clamped step.

        The first step of a clamped run is its own group: its u is the output of a free step, which has a gradient. The
        drive's gradient needs each step apart.
        """
        starts = list(range(chunk.stop - chunk.start))
        if self.merges and not self.call.needs[0] and x.device.type == "cpu":
            rows = x[chunk.start : chunk.stop].numpy()  # NumPy compares rows in a fraction of the time of tensors
            for low, high in chunk.clamped_runs():
                if high - low > 2:
                    held = (rows[low + 2 : high] == rows[low + 1 : high - 1]).all((1, 2))
                    repeats = {low + 2 + i for i, same in enumerate(held) if same}
                    starts = [k for k in starts if k not in repeats]
        return algebra.StepGroups(starts, chunk.stop - chunk.start)


class Forward(Scan):
    """One forward pass."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.prepare()

    def run(self) -> tuple[Tensor, ...]:
        """-> y, the final hidden, the final trace, and what is kept, if something needs a gradient."""
        call, plastic, (T, B, N) = self.call, self.plastic, self.call.drive.shape
        keep, width, drive = any(call.needs), N if plastic.full else 1, call.drive
        x_padded = drive.new_zeros(T + 1, B, algebra.padded_width(N, drive))
        x = x_padded[..., :N]
        x[0] = call.hidden
        H = self.trace
        traces = cpu_cache.empty((len(self.chunks) - 1 if keep else 0, B, N, N), drive)
        kept_recalled = drive.new_empty(call.free_steps if keep else 0, B, N)
        kept_z = drive.new_zeros(call.free_steps if keep else 0, call.longest, B, width)
        row = 0  # free steps before the chunk
        for number, chunk in enumerate(self.chunks):
            start, stop, free = chunk
            v = x[start + 1 : stop + 1]
            for low, high in chunk.clamped_runs():
                v[low:high] = drive[start + low : start + high]
            groups = self.groups(x_padded, chunk)
            inner = groups.before(chunk.inner)
            rows = slice(row, row + len(free))
            tables = Tables(
                U=x_padded[start:stop] if inner == chunk.inner else drive.new_zeros(inner, *x_padded.shape[1:]),
                z=kept_z[rows, :inner] if keep else drive.new_zeros(len(free), inner, B, width),
                S=drive.new_empty(inner, B, N),
                L=drive.new_ones(B, N),
                recalled=kept_recalled[rows] if keep else drive.new_empty(len(free), B, N),
            )
            zero = self.is_zero(chunk)
            if free:
                self.load(H, zero)
                self.inner_steps(chunk, groups, x_padded, tables)
            row += len(free)
            _, s, before, later = self.decays(v)
            if keep and number < len(traces):
                out = traces[number]
            else:
                out = cpu_cache.empty_like(H) if keep or H is self.trace else H
            U, E = groups.one_of_each(x[start:stop]), groups.sum(later * s)
            H = self.next_trace(H, before[-1], U, E, out, zero)
        y, last = outputs_of(x, N, keep)
        return (y, last, H, *Kept(x_padded, traces, kept_recalled, kept_z)) if keep else (y, last, H)

    def inner_steps(self, chunk: Chunk, groups: algebra.StepGroups, x: Tensor, tables: Tables) -> None:
        """The steps of a chunk up to its last free one: fills in x `[T + 1, B, ≥ N]` and the tables."""
        start, free = chunk.start, chunk.free
        U, _, S, L, _ = tables
        v = x[start + 1 : chunk.stop + 1, :, : L.shape[1]]
        i = g = 0  # free steps, and groups, before step k
        for k, after in chunk.free_runs():
            more = after < chunk.inner
            self.free_steps(x, tables, start + k, i, g, after - k, more)
            i, g = i + after - k, g + after - k
            if more:
                held = self.decays(v[after : free[i]])
                S[:g].mul_(held.before[-1])
                L.mul_(held.before[-1])
                s = held.after * held.s
                for first, last in pairwise(groups.first[g : groups.before(free[i]) + 1]):
                    U[g] = x[start + first]
                    S[g] = s[first - after : last - after].sum(0)
                    g += 1

    def free_steps(self, x: Tensor, tables: Tables, t: int, i: int, g: int, steps: int, more: bool) -> None:
        """Free steps from t on, with i free steps and g groups of the chunk before them; more: others follow."""
        drive, clamp, (U, z, S, L, uP) = self.call.drive, self.call.clamp, tables
        f = NONLINEARITIES[self.call.nonlinearity].f
        N = drive.shape[2]
        for step in range(steps):
            u, now, after = x[t], drive[t], x[t + 1, :, :N]
            a, p = self._matrices.forward(u)
            uP[i] = p
            U[g] = u
            if i:
                z_k = z[i, :g] = self.plastic.pairs(u * U[: algebra.even(g)])[:g]
                p = torch.addcmul((S[:g] * z_k).sum(0), L, p)
            x_k = f(a.add_(now).add_(self.plastic.vector(p)))
            after.copy_(x_k if clamp is None else torch.where(clamp[t], now, x_k))
            if more or step + 1 < steps:
                d, S[g] = self.rule.linear(after, self.eta)  # type: ignore[misc]
                S[:g].mul_(d)
                L.mul_(d)
            t, i, g = t + 1, i + 1, g + 1

    def next_trace(self, H: Tensor, total: Tensor, U: Tensor, E: Tensor, out: Tensor, zero: bool) -> Tensor:
        """`total * H + sum over rows of the outer products of U [n, B, N] and E [n, B, N]`, into `out [B, N, N]`."""
        return algebra.add_outer(out, U, E, beta=0) if zero else algebra.next_trace(H, total, U, E, out)
