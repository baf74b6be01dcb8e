"""Forward through the chunks. Derivation in ops/README.md.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`, vectors are rows over neurons.
Steps of a chunk: k is now, l earlier, m later; n in all, F of them free, the others fully clamped.
G groups of steps that share u: a free step is one of its own, a pattern that is held is one.
u_k = x(k-1) pre, v_k = x(k) post;  H' = d * H + u (x) s;  L(l..k) is the product of d over the steps
between l and k, L_k over those before k.  A leading g is dL/d…: gs, gd, gu, gv; G belongs to the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torchplastic.ops import workspace
from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan import algebra
from torchplastic.ops.plastic_scan.chunks import Chunk
from torchplastic.ops.plastic_scan.compiled import Forward, Steps, steps_for
from torchplastic.rules import Rule


class Problem(NamedTuple):
    """What a scan takes that has no gradient."""

    rule: Rule
    clamp: Tensor | None  # [T, B, N] bool
    nonlinearity: str
    chunks: Sequence[Chunk]
    fresh: bool = False  # whether the initial trace is known to be zero: then its chunk reads no trace


class Prepared(NamedTuple):
    """alpha and W in the layout of products, and the compiled steps: what the backward pass takes over."""

    plastic: algebra.Plastic
    matrices: algebra.StepMatrices
    steps: Steps | None


def prepare(w: Tensor, alpha: Tensor, eta: Tensor, batch: int, problem: Problem) -> Prepared:
    """What both passes need."""
    plastic = algebra.Plastic(alpha)
    steps = steps_for(problem.rule, problem.nonlinearity, problem.clamp, alpha, eta)
    return Prepared(plastic, algebra.StepMatrices(w, plastic, batch), steps)


def run_forward(
    drive: Tensor,
    w: Tensor,
    alpha: Tensor,
    eta: Tensor,
    hidden: Tensor,
    trace: Tensor,
    problem: Problem,
    kept: list[Tensor] | None,
    merge: bool = True,
) -> tuple[Tensor, Tensor, Prepared, list[list[int]]]:
    """-> x `[T + 1, B, N]`, where x[0] is the initial hidden, the final trace, what was prepared, groups of each chunk.

    `kept` collects for the backward pass, per chunk: the trace at its start, u P of its free steps, its
    table z. None keeps nothing, and the trace is then updated in place.
    """
    rule, clamp = problem.rule, problem.clamp
    f = NONLINEARITIES[problem.nonlinearity].f
    prepared = prepare(w, alpha, eta, drive.shape[1], problem)
    plastic, matrices, steps = prepared
    T, B, N = drive.shape
    x_padded = drive.new_zeros(T + 1, B, algebra.padded(N, drive))
    x = x_padded[..., :N]
    x[0] = hidden
    H = trace
    compiled = Forward(steps, f, plastic, matrices, drive, x_padded) if steps else None
    groups_of_chunks = []
    for chunk in problem.chunks:
        start, stop, free = chunk
        v = x[start + 1 : stop + 1]
        for low, high in chunk.clamped_runs():
            v[low:high] = drive[start + low : start + high]
        groups = _groups(x_padded[start:stop], chunk, merge)
        groups_of_chunks.append(groups)
        U = x_padded[start:stop] if len(groups) == chunk.inner else drive.new_zeros(len(groups), *x_padded.shape[1:])
        z = drive.new_zeros(len(free), len(groups), B, N if plastic.full else 1)
        S = drive.new_empty(len(groups), B, N)  # L(l..k) s_l, summed over a group, advanced with k
        L: Tensor | None = None  # L_k; None is 1
        uP = []
        g = 0  # groups before step k
        zero = problem.fresh and start == 0
        if free:
            matrices.load(H, zero)
            if compiled:
                L = compiled.begin(U, z, S)
        for i, k in enumerate(free):
            t, more = start + k, i + 1 < len(free)
            if len(groups) < chunk.inner:
                U[g] = x_padded[t]
            if compiled:
                uP.append(compiled.step(t, i, g, more))
            else:
                u, now = x_padded[t], drive[t]
                a, p = matrices.forward(u)
                uP.append(p)
                if L is not None:
                    z_k = z[i, :g] = plastic.pairs(u * U[: algebra.even(g)])[:g]
                    p = torch.addcmul((S[:g] * z_k).sum(0), L, p)
                x_k = f(a.add_(now).add_(plastic.vector(p)))
                x[t + 1].copy_(x_k if clamp is None else torch.where(clamp[t], now, x_k))
                if more:
                    d, S[g] = rule.linear(x[t + 1], eta)  # type: ignore[misc]
                    S[:g].mul_(d)
                    L = d.expand(B, N).clone() if L is None else L.mul_(d)
            if more:
                g += 1
                if (after := free[i + 1]) > k + 1:  # a clamped run
                    d, s = algebra.decays(rule, v[k + 1 : after], eta)
                    total = algebra.products_before(d)[-1]
                    S[:g].mul_(total)
                    assert L is not None
                    L.mul_(total)
                    s = algebra.products_after(d) * s
                    while g < len(groups) and (low := groups[g]) < after:
                        high = groups[g + 1]
                        U[g] = x_padded[start + low]
                        S[g] = s[low - k - 1 : high - k - 1].sum(0)
                        g += 1

        d, s = algebra.decays(rule, v, eta)
        if kept is not None:
            kept += [H, torch.stack(uP) if uP else S, z]
        out = workspace.empty_like(H) if kept is not None or H is trace else H
        rows = x[start:stop], algebra.products_after(d) * s
        if len(free) < stop - start:
            rows = algebra.merge_repeats(*rows)
        H = (
            algebra.add_outer(out, *rows, beta=0)
            if zero
            else algebra.next_trace(H, algebra.products_before(d)[-1], *rows, out)
        )
    return x, H, prepared, groups_of_chunks


def _groups(U: Tensor, chunk: Chunk, merge: bool) -> list[int]:
    """Where the groups of a chunk's inner steps begin; of `U [n, B, N']` what follows a clamped step is read.

    The first step of a clamped run is a group of its own: its u is what a free step gave, which has a gradient.
    """
    starts = list(range(chunk.inner))
    if merge and U.device.type == "cpu":
        for low, high in chunk.clamped_runs():
            if high < chunk.inner and high - low > 2:
                held = (U[low + 2 : high] == U[low + 1 : high - 1]).flatten(1).all(1).tolist()
                repeats = {low + 2 + i for i, same in enumerate(held) if same}
                starts = [k for k in starts if k not in repeats]
    return starts
