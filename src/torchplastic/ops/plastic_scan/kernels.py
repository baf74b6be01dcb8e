"""What a free step does to vectors, compiled by numba for the CPU: one call where PyTorch needs a dozen.

Axes: t time, B batch, N neurons, N' its padded size; g groups of earlier steps; n blocks of columns, K in each.
All arrays are contiguous and of one dtype. Letters as in forward.py and backward.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any  # np.ndarray, of the dtype of w
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def compiled(function: Any) -> Any:
    """Compiled at the first call, and kept on disk where there is a place for it."""
    try:
        return njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(**OPTIONS)(function)


HEBB, OJA = 0, 1
TANH, RELU, SIGMOID, IDENTITY = 0, 1, 2, 3
NONLINEARITIES = {"tanh": TANH, "relu": RELU, "sigmoid": SIGMOID, "identity": IDENTITY}


@compiled
def pair_rows(x: Array, t: int, U: Array, count: int, out: Array) -> None:
    """out[l] = x[t] * U[l] for l < count; x `[T + 1, B, N']`, U and out `[≥ count, B, N']`."""
    _, B, N = x.shape
    for l in range(count):
        for b in range(B):
            for j in range(N):
                out[l, b, j] = x[t, b, j] * U[l, b, j]


@compiled
def combine(
    a: Array, p: Array, drive: Array, t: int, pairs: Array, z: Array, i: int, S: Array, L: Array, g: int, out: Array
) -> None:
    """The input of the nonlinearity, `out = a + drive[t] + L * p + sum_{l < g} S[l] * z[i, l]`.

    a, p, L, out `[B, N]`; S `[G, B, N]`; pairs `[n, rows, K]`, row l B + b of each block, goes to z `[F, G, B, N]`.
    """
    B, N = out.shape
    blocks, _, K = pairs.shape
    for b in range(B):
        for j in range(N):
            out[b, j] = a[b, j] + drive[t, b, j] + L[b, j] * p[b, j]
        for l in range(g):
            for block in range(blocks):
                low = block * K
                for j in range(low, min(low + K, N)):
                    value = pairs[block, l * B + b, j - low]
                    z[i, l, b, j] = value
                    out[b, j] += S[l, b, j] * value


@compiled
def advance(
    y: Array,
    drive: Array,
    clamp: Array,
    t: int,
    x: Array,
    eta: Array,
    rule: int,
    S: Array,
    L: Array,
    g: int,
    more: bool,
) -> None:
    """x[t + 1] from the output y `[B, N]` and the clamp (empty: none); with `more`, S and L of the next step.

    S[g] = s, S[l < g] *= d, L *= d with d and s of the rule.
    """
    B, N = y.shape
    one = y.dtype.type(1)
    for b in range(B):
        for j in range(N):
            x[t + 1, b, j] = y[b, j]
        if clamp.size:
            for j in range(N):
                if clamp[t, b, j]:
                    x[t + 1, b, j] = drive[t, b, j]
        if more:
            for j in range(N):
                S[g, b, j] = eta[j] * x[t + 1, b, j]
            for l in range(g):
                for j in range(N):
                    S[l, b, j] *= one - (eta[j] if rule == HEBB else S[g, b, j] * x[t + 1, b, j])
            for j in range(N):
                L[b, j] *= one - (eta[j] if rule == HEBB else S[g, b, j] * x[t + 1, b, j])


@compiled
def into_step(
    gx: Array,
    x: Array,
    clamp: Array,
    t: int,
    start: int,
    eta: Array,
    rule: int,
    nonlinearity: int,
    gs: Array,
    gd: Array,
    delta: Array,
    L: Array,
    rows: Array,
) -> None:
    """dL/dv of step t, from it delta[t], and the rows `[2, B, N]` that the step's matrices multiply: delta and L delta.

    gx, delta `[T (+ 1), B, N]`; gs and gd `[n, B, N]` of the chunk from `start` on, gd empty where d is constant.
    """
    _, B, N = gx.shape
    k = t - start
    one = gx.dtype.type(1)
    for b in range(B):
        if rule == HEBB:
            for j in range(N):
                gx[t + 1, b, j] += eta[j] * gs[k, b, j]
        else:
            for j in range(N):
                v = x[t + 1, b, j]
                gx[t + 1, b, j] += eta[j] * (gs[k, b, j] - v * gd[k, b, j] - v * gd[k, b, j])
        for j in range(N):
            v = x[t + 1, b, j]
            slope = one
            if nonlinearity == TANH:
                slope = one - v * v
            elif nonlinearity == SIGMOID:
                slope = v * (one - v)
            elif nonlinearity == RELU:
                slope = one if v > 0 else one - one
            delta[t, b, j] = gx[t + 1, b, j] * slope
        if clamp.size:
            for j in range(N):
                if clamp[t, b, j]:
                    delta[t, b, j] = 0
        for j in range(N):
            rows[0, b, j] = delta[t, b, j]
            rows[1, b, j] = L[k, b, j] * delta[t, b, j]


@compiled
def spread(
    delta: Array, t: int, i: int, count: int, lower: int, S: Array, Lz: Array, LR: Array, gs: Array, gd: Array,
    right: Array, at: int,
) -> None:  # fmt: skip
    """What free step i says of the steps before it: gs += delta Lz[i], gd += delta LR[i] for the first `lower`.

    right[at + l] = S[i, l] * delta for l < count: the rows that alpha's transpose multiplies.
    S `[F, G, B, N]`; Lz, LR `[F, inner, B, N]`, LR empty where nobody asks for gd; right `[rows, B, N]`.
    """
    _, B, N = delta.shape
    for l in range(lower):
        for b in range(B):
            for j in range(N):
                gs[l, b, j] += delta[t, b, j] * Lz[i, l, b, j]
            if LR.size:
                for j in range(N):
                    gd[l, b, j] += delta[t, b, j] * LR[i, l, b, j]
    for l in range(count):
        for b in range(B):
            for j in range(N):
                right[at + l, b, j] = S[i, l, b, j] * delta[t, b, j]


@compiled
def out_of_step(
    gx: Array, x: Array, t: int, U: Array, first: Array, start: int, pairs: Array, g: int, left: Array, at: int
) -> None:
    """dL/du of step t and of the groups before it, from q = `pairs [n, rows, K]`; left[at + l] = u U[l].

    gx[t] += sum_l U[l] q[l];  gx[start + first[l]] += u q[l].
    """
    _, B, N = gx.shape
    blocks, _, K = pairs.shape
    for l in range(g):
        to = start + first[l]
        for b in range(B):
            for block in range(blocks):
                low = block * K
                for j in range(low, min(low + K, N)):
                    q = pairs[block, l * B + b, j - low]
                    gx[t, b, j] += U[l, b, j] * q
                    gx[to, b, j] += x[t, b, j] * q
            for j in range(N):
                left[at + l, b, j] = x[t, b, j] * U[l, b, j]


EMPTY_CLAMP = np.empty((0, 0, 0), np.bool_)
