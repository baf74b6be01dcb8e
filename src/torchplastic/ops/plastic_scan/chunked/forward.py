"""The forward pass of the chunked implementation in PyTorch. ops/README.md derives it.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`, vectors are rows over neurons.
Steps of a chunk: k is the current one, l an earlier, m a later one; n in all, F of them free, the others fully clamped.
G groups of steps that share u: each free step is a group, and so is a run clamped to one pattern.
u_k = x(k-1) pre, v_k = x(k) post;  H' = d * H + u (x) s;  L(l..k) is the product of d over the steps
between l and k, L_k over those before k.  A leading g is dL/d…: gs, gd, gu, gv; G belongs to the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from torchplastic.ops import cpu_cache
from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan.chunked import algebra
from torchplastic.ops.plastic_scan.schedule import Chunk
from torchplastic.ops.plastic_scan.triton_gpu.fused import Fused
from torchplastic.rules import Rule


class ChunkedSpec(NamedTuple):
    """The arguments of a chunked scan that have no gradient."""

    rule: Rule
    clamp: Tensor | None  # [T, B, N] bool
    nonlinearity: str
    chunks: Sequence[Chunk]
    fresh: bool = False  # whether the initial trace is known to be zero; the first chunk then does not read it
    fused: bool = False  # whether Triton's kernels run the steps; chunks then have no clamped run inside


class Prepared(NamedTuple):
    """alpha, W and P in the layout of products, which the backward pass reuses."""

    plastic: algebra.AlphaProducts
    matrices: algebra.StepMatrices | Fused


def prepare(w: Tensor, alpha: Tensor, eta: Tensor, batch: int, problem: ChunkedSpec) -> Prepared:
    """Prepare what both passes need."""
    rule, clamp, nonlinearity = problem[:3]
    if problem.fused:
        return Prepared(algebra.AlphaProducts(alpha, products=False), Fused(rule, nonlinearity, clamp, w, alpha, eta))
    plastic = algebra.AlphaProducts(alpha)
    return Prepared(plastic, algebra.StepMatrices(w, plastic, batch))


def run_forward(
    drive: Tensor,
    w: Tensor,
    alpha: Tensor,
    eta: Tensor,
    hidden: Tensor,
    trace: Tensor,
    problem: ChunkedSpec,
    kept: list[Tensor] | None,
    merge: bool = True,
) -> tuple[Tensor, Tensor, Prepared, list[algebra.StepGroups]]:
    """-> x `[T + 1, B, ≥ N]` with x[0] the initial hidden and zeros from N on, the final trace, what was prepared, the
    groups of each chunk.

    `kept` collects for the backward pass, per chunk: the trace at its start, u P of its free steps, its
    table z. None stores nothing, and the trace is then updated in place.
    """
    prepared = prepare(w, alpha, eta, drive.shape[1], problem)
    plastic, matrices = prepared
    T, B, N = drive.shape
    x_padded = drive.new_zeros(T + 1, B, algebra.padded_width(N, drive))
    x = x_padded[..., :N]
    x[0] = hidden
    H = trace
    decays = algebra.Decays(problem.rule, eta)
    groups_of_chunks = []
    for chunk in problem.chunks:
        start, stop, free = chunk
        v = x[start + 1 : stop + 1]
        for low, high in chunk.clamped_runs():
            v[low:high] = drive[start + low : start + high]
        groups = _groups(x_padded[start:stop], chunk, merge and not problem.fused)
        groups_of_chunks.append(groups)
        inner = groups.before(chunk.inner)
        U = x_padded[start:stop] if inner == chunk.inner else drive.new_zeros(inner, *x_padded.shape[1:])
        z = drive.new_zeros(len(free), inner, B, N if plastic.full else 1)
        S = drive.new_empty(inner, B, N)  # L(l..k) s_l, summed over a group, advanced with k
        L = drive.new_ones(B, N)  # L_k
        uP = drive.new_empty(len(free), B, N)
        i = g = 0  # free steps, and groups, before step k
        zero = problem.fresh and start == 0
        if free:
            matrices.load(H, zero)
        tables = U, z, S, L, uP
        for k, after in chunk.free_runs():
            more = after < chunk.inner
            if isinstance(matrices, Fused):
                matrices.forward(drive, x_padded, tables, start, after)
            else:
                _steps_in_turn(prepared, problem, drive, eta, x_padded, tables, start + k, i, g, after - k, more)
            i, g = i + after - k, g + after - k
            if more:
                held = decays(v[after : free[i]])
                S[:g].mul_(held.before[-1])
                L.mul_(held.before[-1])
                s = held.after * held.s
                for first, last in pairwise(groups.first[g : groups.before(free[i]) + 1]):
                    U[g] = x_padded[start + first]
                    S[g] = s[first - after : last - after].sum(0)
                    g += 1

        if kept is not None:
            kept += [H, uP, z]
        out = cpu_cache.empty_like(H) if kept is not None or H is trace else H
        _, s, before, later = decays(v)
        rows = groups.one_of_each(x[start:stop]), groups.sum(later * s)
        if isinstance(matrices, Fused):
            H = matrices.next_trace(H, before[-1], *rows, out, zero)
        else:
            H = algebra.add_outer(out, *rows, beta=0) if zero else algebra.next_trace(H, before[-1], *rows, out)
    return x_padded, H, prepared, groups_of_chunks


def _steps_in_turn(
    prepared: Prepared,
    problem: ChunkedSpec,
    drive: Tensor,
    eta: Tensor,
    x: Tensor,
    tables: tuple[Tensor, ...],
    t: int,
    i: int,
    g: int,
    steps: int,
    more: bool,
) -> None:
    """`steps` free steps from t on, in PyTorch: fills in x and the chunk's tables."""
    rule, clamp = problem.rule, problem.clamp
    f = NONLINEARITIES[problem.nonlinearity].f
    plastic, matrices = prepared
    assert isinstance(matrices, algebra.StepMatrices)
    U, z, S, L, uP = tables
    N = drive.shape[2]
    for step in range(steps):
        u, now, after = x[t], drive[t], x[t + 1, :, :N]
        a, p = matrices.forward(u)
        uP[i] = p
        U[g] = u
        if i:
            z_k = z[i, :g] = plastic.pairs(u * U[: algebra.even(g)])[:g]
            p = torch.addcmul((S[:g] * z_k).sum(0), L, p)
        x_k = f(a.add_(now).add_(plastic.vector(p)))
        after.copy_(x_k if clamp is None else torch.where(clamp[t], now, x_k))
        if more or step + 1 < steps:
            d, S[g] = rule.linear(after, eta)  # type: ignore[misc]
            S[:g].mul_(d)
            L.mul_(d)
        t, i, g = t + 1, i + 1, g + 1


def _groups(U: Tensor, chunk: Chunk, merge: bool) -> algebra.StepGroups:
    """The groups of a chunk's steps; reads only the rows of `U [n, B, ≥ N]` that follow a clamped step.

    The first step of a clamped run is its own group: its u is the output of a free step, which has a gradient.
    """
    starts = list(range(len(U)))
    if merge and U.device.type == "cpu":
        rows = U.numpy()  # NumPy compares rows in a fraction of the time of tensors
        for low, high in chunk.clamped_runs():
            if high - low > 2:
                held = (rows[low + 2 : high] == rows[low + 1 : high - 1]).all((1, 2))
                repeats = {low + 2 + i for i, same in enumerate(held) if same}
                starts = [k for k in starts if k not in repeats]
    return algebra.StepGroups(starts, len(U))
