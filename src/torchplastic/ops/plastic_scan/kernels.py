"""The chunked form's work on one chunk, compiled by numba for the CPU. Letters as in forward.py and backward.py.

Axes: t time, B batch, N neurons; M is N rounded up to whole lines of the cache. Arrays `[…, M]` hold zeros from N on.
Matrices are `[pre, post]`. All arrays are contiguous, of one dtype; an empty one stands for one that is not there.

Each function with `count` starts a team of threads that call the function of the same name behind a `_`, whose address
is `body`; `dots_at` is the address of `dots`. Addresses, because what is linked is translated again by whoever links
it, and takes seconds. Of the neurons, or the rows of a matrix, each thread has its share, and what it writes lies in
it: between two steps the threads wait once for each other, so that all of them see all of x, or all of delta.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types

from torchplastic.ops.plastic_scan.team import address, barrier, call_at, in_team, thread, threads

Array = Any  # np.ndarray, of the dtype of w
LINE = 16  # numbers to which rows are rounded up: a line of the cache in float32, two in float64
ROWS = 64  # of a matrix, or of vectors, that stay in a core's cache while others pass
TILE = 32  # of a transposed matrix
# sums may be taken in any order
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "no_cfunc_wrapper": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz"},
}


def compiled(function: Any, **more: Any) -> Any:
    """Compiled at the first call, and kept on disk where there is a place for it."""
    try:
        return njit(cache=True, **OPTIONS, **more)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(**OPTIONS, **more)(function)


def inner(function: Any) -> Any:
    """The same for what is never called from Python."""
    return compiled(function, no_cpython_wrapper=True)


HEBB, OJA = 0, 1
TANH, RELU, SIGMOID, IDENTITY = 0, 1, 2, 3
NONLINEARITIES = {"tanh": TANH, "relu": RELU, "sigmoid": SIGMOID, "identity": IDENTITY}
EMPTY_CLAMP = np.empty((0, 0, 0), np.bool_)


# --- products


@inner
def share(n: int) -> tuple[int, int]:
    """This thread's share of n, in whole lines."""
    lines, me, team = -(-n // LINE), thread(), threads()
    return lines * me // team * LINE, min(n, lines * (me + 1) // team * LINE)


@inner
def add_rows(u: Array, A: Array, low: int, high: int, out: Array) -> None:
    """`out += u @ A`; u `[n]`, A `[n, K]`, out `[K]`; columns low … high - 1."""
    n = len(u)
    part = out[low:high]
    i = 0
    while i + 4 <= n:
        a0, a1, a2, a3 = A[i, low:high], A[i + 1, low:high], A[i + 2, low:high], A[i + 3, low:high]
        u0, u1, u2, u3 = u[i], u[i + 1], u[i + 2], u[i + 3]
        for j in range(high - low):
            part[j] += u0 * a0[j] + u1 * a1[j] + u2 * a2[j] + u3 * a3[j]
        i += 4
    while i < n:
        a0, u0 = A[i, low:high], u[i]
        for j in range(high - low):
            part[j] += u0 * a0[j]
        i += 1


@inner
def add_rows_of_all(u: Array, A: Array, low: int, high: int, out: Array) -> None:
    """`add_rows` for each row of u `[B, ≥ n]` and out `[B, K]`; a block of A `[n, K]` serves all of them."""
    n = len(A)
    for start in range(0, n, ROWS):
        stop = min(n, start + ROWS)
        for b in range(len(u)):
            add_rows(u[b, start:stop], A[start:stop], low, high, out[b])


@inner
def dots(A: Array, low: int, high: int, V: Array, out: Array) -> None:
    """`out = V @ A^T`; A `[n, K]`, V `[rows, K]`, out `[rows, n]`; columns low … high - 1 of out, rows of A.

    Four by four: eight numbers are read for sixteen products.
    """
    K = V.shape[1]
    zero = A.dtype.type(0)
    for first in range(0, len(V), ROWS):
        rows = min(len(V), first + ROWS)
        i = low
        while i + 4 <= high:
            a0, a1, a2, a3 = A[i], A[i + 1], A[i + 2], A[i + 3]
            r = first
            while r + 4 <= rows:
                v0, v1, v2, v3 = V[r], V[r + 1], V[r + 2], V[r + 3]
                s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = zero
                s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = zero
                for j in range(K):
                    x0, x1, x2, x3, y0, y1, y2, y3 = a0[j], a1[j], a2[j], a3[j], v0[j], v1[j], v2[j], v3[j]
                    s00 += x0 * y0
                    s01 += x1 * y0
                    s02 += x2 * y0
                    s03 += x3 * y0
                    s10 += x0 * y1
                    s11 += x1 * y1
                    s12 += x2 * y1
                    s13 += x3 * y1
                    s20 += x0 * y2
                    s21 += x1 * y2
                    s22 += x2 * y2
                    s23 += x3 * y2
                    s30 += x0 * y3
                    s31 += x1 * y3
                    s32 += x2 * y3
                    s33 += x3 * y3
                out[r, i], out[r, i + 1], out[r, i + 2], out[r, i + 3] = s00, s01, s02, s03
                out[r + 1, i], out[r + 1, i + 1], out[r + 1, i + 2], out[r + 1, i + 3] = s10, s11, s12, s13
                out[r + 2, i], out[r + 2, i + 1], out[r + 2, i + 2], out[r + 2, i + 3] = s20, s21, s22, s23
                out[r + 3, i], out[r + 3, i + 1], out[r + 3, i + 2], out[r + 3, i + 3] = s30, s31, s32, s33
                r += 4
            while r + 2 <= rows:
                v0, v1 = V[r], V[r + 1]
                s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = zero
                for j in range(K):
                    x0, x1, x2, x3, y0, y1 = a0[j], a1[j], a2[j], a3[j], v0[j], v1[j]
                    s00 += x0 * y0
                    s01 += x1 * y0
                    s02 += x2 * y0
                    s03 += x3 * y0
                    s10 += x0 * y1
                    s11 += x1 * y1
                    s12 += x2 * y1
                    s13 += x3 * y1
                out[r, i], out[r, i + 1], out[r, i + 2], out[r, i + 3] = s00, s01, s02, s03
                out[r + 1, i], out[r + 1, i + 1], out[r + 1, i + 2], out[r + 1, i + 3] = s10, s11, s12, s13
                r += 2
            if r < rows:
                v0 = V[r]
                s00 = s01 = s02 = s03 = zero
                for j in range(K):
                    s00 += a0[j] * v0[j]
                    s01 += a1[j] * v0[j]
                    s02 += a2[j] * v0[j]
                    s03 += a3[j] * v0[j]
                out[r, i], out[r, i + 1], out[r, i + 2], out[r, i + 3] = s00, s01, s02, s03
            i += 4
        while i < high:
            a0 = A[i]
            for r in range(first, rows):
                v0 = V[r]
                s00 = zero
                for j in range(K):
                    s00 += a0[j] * v0[j]
                out[r, i] = s00
            i += 1


@inner
def add_dots_of_product(A: Array, C: Array, low: int, high: int, v: Array, out: Array) -> None:
    """`out += (A * C) @ v`; A `[n, ≥ K]`, C `[n, K]`, v `[≥ K]`, out `[n]`; rows low … high - 1."""
    K = C.shape[1]
    zero = A.dtype.type(0)
    i = low
    while i + 2 <= high:
        a0, a1, c0, c1 = A[i], A[i + 1], C[i], C[i + 1]
        s0 = s1 = zero
        for j in range(K):
            s0 += a0[j] * c0[j] * v[j]
            s1 += a1[j] * c1[j] * v[j]
        out[i] += s0
        out[i + 1] += s1
        i += 2
    if i < high:
        a0, c0, s0 = A[i], C[i], zero
        for j in range(K):
            s0 += a0[j] * c0[j] * v[j]
        out[i] += s0


# --- whole matrices


@inner
def _transpose(A: Array, out: Array) -> None:
    low, high = share(len(out))
    for first in range(low, high, TILE):
        last = min(high, first + TILE)
        for start in range(0, len(A), TILE):
            for i in range(first, last):
                for j in range(start, min(len(A), start + TILE)):
                    out[i, j] = A[j, i]
        out[first:last, len(A) :] = 0


@compiled
def transpose(body: int, A: Array, out: Array, count: int) -> None:
    """out `[N, ≥ n]` = A^T, of A `[n, ≥ N]`; zeros behind it."""
    in_team(body, _transpose, (A, out), count)


@inner
def _add_product(
    dots_at: int, left: Array, right: Array, columns: Array, rows: Array, scratch: Array, fresh: bool, out: Array
) -> None:
    N = len(out)
    low, high = share(N)
    product, none = scratch[thread()], 0
    _transpose(left, columns)
    _transpose(right, rows)
    barrier()
    for first in range(low, high, ROWS):
        last = min(high, first + ROWS)
        call_at(dots_at, dots, (rows, none, N, columns[first:last], product))
        for i in range(first, last):
            to, more = out[i], product[i - first]
            if fresh:
                for j in range(N):
                    to[j] = more[j]
            else:
                for j in range(N):
                    to[j] += more[j]


@compiled
def add_product(
    body: int,
    dots_at: int,
    left: Array,
    right: Array,
    columns: Array,
    rows: Array,
    scratch: Array,
    fresh: bool,
    out: Array,
    count: int,
) -> None:
    """`out += left^T @ right`; `fresh`: out holds nothing yet. left, right `[n, ≥ N]`, out `[N, N]`.

    Scratch: columns and rows `[N, ≥ n]` of whole lines, scratch `[threads, ROWS, N]`.
    """
    in_team(body, _add_product, (dots_at, left, right, columns, rows, scratch, fresh, out), count)


@inner
def _through_the_end(dots_at: int, G: Array, H: Array, U: Array, E: Array, UG: Array, EG: Array, Q: Array) -> None:
    B, N, _ = G.shape
    low, high = share(N)
    for b in range(B):
        if UG.size:
            UG[b, :, low:high] = 0
            add_rows_of_all(U[b], G[b], low, high, UG[b])
        if EG.size:
            call_at(dots_at, dots, (G[b], low, high, E[b], EG[b]))
        if Q.size:
            q = Q[b, low:high]
            q[:] = 0
            for i in range(N):
                g, h = G[b, i, low:high], H[b, i, low:high]
                for j in range(high - low):
                    q[j] += g[j] * h[j]


@compiled
def through_the_end(
    body: int, dots_at: int, G: Array, H: Array, U: Array, E: Array, UG: Array, EG: Array, Q: Array, count: int
) -> None:
    """`UG = U @ G`, `EG = E @ G^T` and Q, the sums over the rows of `G * H`. An empty result is not wanted.

    G, H `[B, N, N]`, U, E, UG, EG `[B, n, N]`, Q `[B, N]`.
    """
    in_team(body, _through_the_end, (dots_at, G, H, U, E, UG, EG, Q), count)


@inner
def _scale(alpha: Array, H: Array, P: Array) -> None:
    B, N, M = P.shape
    low, high = share(N)
    for b in range(B):
        for i in range(low, high):
            a, h, p = alpha[i], H[b, i], P[b, i]
            for j in range(N):
                p[j] = a[j] * h[j]
            for j in range(N, M):
                p[j] = 0


@compiled
def scale(body: int, alpha: Array, H: Array, P: Array, count: int) -> None:
    """P `[B, N, M]` = alpha * H; alpha `[N, ≥ N]`, H `[B, N, N]`."""
    in_team(body, _scale, (alpha, H, P), count)


@inner
def _next_trace(H: Array, total: Array, U: Array, E: Array, out: Array) -> None:
    B, N, _ = out.shape
    low, high = share(N)
    u = np.empty(len(U), out.dtype)
    for b in range(B):
        for i in range(low, high):
            to = out[b, i]
            if H.size:
                h, d = H[b, i], total[b]
                for j in range(N):
                    to[j] = h[j] * d[j]
            else:
                to[:] = 0
            for k in range(len(U)):
                u[k] = U[k, b, i]
            add_rows(u, E[b], 0, N, to)


@compiled
def next_trace(body: int, H: Array, total: Array, U: Array, E: Array, out: Array, count: int) -> None:
    """`out = total * H + sum_k U[k] (x) E[:, k]`; H, out `[B, N, N]`, total `[B, N]`, U `[n, B, ≥ N]`, E `[B, n, N]`.

    out may be H. An empty H is zero.
    """
    in_team(body, _next_trace, (H, total, U, E, out), count)


@inner
def _through_the_trace(
    H: Array, alpha: Array, U: Array, E: Array, total: Array, fresh: bool, G: Array, dalpha: Array
) -> None:
    B, n, N = E.shape
    low, high = share(N)
    u = np.empty(n, E.dtype)
    m = np.empty(N, E.dtype)
    for b in range(B):
        for i in range(low, high):
            m[:] = 0
            for k in range(n):
                u[k] = U[k, b, i]
            add_rows(u, E[b], 0, N, m)
            if G.size:
                g, a, d = G[b, i], alpha[i], total[b]
                if fresh:
                    for j in range(N):
                        g[j] = a[j] * m[j]
                else:
                    for j in range(N):
                        g[j] = d[j] * g[j] + a[j] * m[j]
            if dalpha.size:
                to, h = dalpha[i], H[b, i]
                for j in range(N):
                    to[j] += h[j] * m[j]


@compiled
def through_the_trace(
    body: int,
    H: Array,
    alpha: Array,
    U: Array,
    E: Array,
    total: Array,
    fresh: bool,
    G: Array,
    dalpha: Array,
    count: int,
) -> None:
    """With `M = sum_k U[k] (x) E[:, k]`: `G = total * G + alpha * M`, `dalpha += sum_b H * M`; M is never stored.

    H, G `[B, N, N]`, alpha `[N, ≥ N]`, U `[n, B, ≥ N]`, E `[B, n, N]`, total `[B, N]`. An empty G or dalpha is not
    wanted; `fresh`: G holds nothing yet.
    """
    in_team(body, _through_the_trace, (H, alpha, U, E, total, fresh, G, dalpha), count)


# --- the free steps


@inner
def _forward(
    dots_at: int, x: Array, drive: Array, clamp: Array, eta: Array, rule: int, nonlinearity: int, W: Array, P: Array,
    alpha: Array, U: Array, products: Array, z: Array, S: Array, L: Array, a: Array, uP: Array, t: int, i: int,
    g: int, steps: int, more: bool,
) -> None:  # fmt: skip
    _, B, N = drive.shape
    M = x.shape[2]
    low, high = share(N)
    one = x.dtype.type(1)
    rows = products[thread()]
    for step in range(steps):
        last = step + 1 == steps and not more
        u = x[t]
        a[:, low:high] = 0
        uP[i, :, low:high] = 0
        add_rows_of_all(u, W, low, high, a)
        for b in range(len(P)):
            add_rows(u[b, :N], P[b], low, high, uP[i, b])
        for l in range(g):
            for b in range(B):
                for j in range(M):
                    rows[l * B + b, j] = u[b, j] * U[l, b, j]
        call_at(dots_at, dots, (alpha, low, high, rows[: g * B], z[i]))
        for b in range(B):
            now = a[b]
            for j in range(low, high):
                now[j] += drive[t, b, j] + L[b, j] * uP[i, b, j]
            for l in range(g):
                of_pair = z[i, l * B + b]
                for j in range(low, high):
                    now[j] += S[l, b, j] * of_pair[j]
            y = x[t + 1, b]
            for j in range(low, high):
                v = now[j]
                if nonlinearity == TANH:
                    v = math.tanh(v)
                elif nonlinearity == SIGMOID:
                    v = one / (one + math.exp(-v))
                elif nonlinearity == RELU:
                    v = v if v > 0 or v != v else one - one
                y[j] = v
            if clamp.size:
                for j in range(low, high):
                    if clamp[t, b, j]:
                        y[j] = drive[t, b, j]
            if not last:
                s = S[g, b]
                for j in range(low, high):
                    s[j] = eta[j] * y[j]
                    U[g, b, j] = u[b, j]
                for l in range(g):
                    for j in range(low, high):
                        S[l, b, j] *= one - (eta[j] if rule == HEBB else s[j] * y[j])
                for j in range(low, high):
                    L[b, j] *= one - (eta[j] if rule == HEBB else s[j] * y[j])
        t, i, g = t + 1, i + 1, g + 1
        barrier()


@compiled
def forward(
    body: int, dots_at: int, x: Array, drive: Array, clamp: Array, eta: Array, rule: int, nonlinearity: int, W: Array,
    P: Array, alpha: Array, U: Array, products: Array, z: Array, S: Array, L: Array, a: Array, uP: Array, t: int,
    i: int, g: int, steps: int, more: bool, count: int,
) -> None:  # fmt: skip
    """`steps` free steps in a row from step t on, free step i of the chunk, after g groups.

    x `[T + 1, B, M]`; drive `[T, B, N]`; clamp likewise or empty; eta `[N]`; W `[N, M]`, P `[B, N, M]` or empty: zero;
    alpha transposed `[N, M]`; of the chunk, U `[G, B, M]`, z `[F, G B, N]`, S `[G, B, N]`, L `[B, N]`, uP `[F, B, N]`.
    Scratch: products `[threads, G B, M]`, a `[B, N]`. Writes x, z, uP; with `more`, U, S and L of the step after them.
    """
    in_team(
        body,
        _forward,
        (
            dots_at,
            x,
            drive,
            clamp,
            eta,
            rule,
            nonlinearity,
            W,
            P,
            alpha,
            U,
            products,
            z,
            S,
            L,
            a,
            uP,
            t,
            i,
            g,
            steps,
            more,
        ),
        count,
    )


@inner
def spread(
    decay: Array, now: Array, s: Array, z: Array, low: int, high: int, fresh: bool, gs: Array, right: Array
) -> None:
    """What a step says of an earlier one: `gs += decay * now * z`, and `right += decay * s * now`; fresh: it is set.

    decay `[N]`, or `[1]` where it is one number; now, s, z, gs `[N]`, right `[M]`.
    """
    if len(decay) == 1:
        c = decay[0]
        for j in range(low, high):
            gs[j] += c * now[j] * z[j]
        if fresh:
            for j in range(low, high):
                right[j] = c * s[j] * now[j]
        else:
            for j in range(low, high):
                right[j] += c * s[j] * now[j]
    else:
        for j in range(low, high):
            gs[j] += decay[j] * now[j] * z[j]
        if fresh:
            for j in range(low, high):
                right[j] = decay[j] * s[j] * now[j]
        else:
            for j in range(low, high):
                right[j] += decay[j] * s[j] * now[j]


@inner
def product_sum(a: Array, b: Array, c: Array, low: int, high: int) -> float:
    """The sum of a b c over the neurons low … high - 1."""
    total = a.dtype.type(0)
    for j in range(low, high):
        total += a[j] * b[j] * c[j]
    return total


@inner
def _backward(
    dots_at: int, x: Array, gx: Array, delta: Array, clamp: Array, eta: Array, rule: int, nonlinearity: int, W: Array,
    H: Array, alpha: Array, U: Array, between: Array, s: Array, z: Array, uP: Array, LR: Array, L: Array, gs: Array,
    gd: Array, rows: Array, q: Array, left: Array, right: Array, at: int, start: int, free: Array, groups: Array,
    before: Array, wanted: Array, group_of: Array, sums: Array,
) -> None:  # fmt: skip
    _, B, N = gx.shape
    low, high = share(N)
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for i in range(len(free) - 1, -1, -1):
        k, g = free[i], before[i]
        t = start + k
        scaled = rows[i % 2]
        for b in range(B):
            v, gv, now = x[t + 1, b], gx[t + 1, b], delta[t, b]
            if rule == HEBB:
                for j in range(low, high):
                    gv[j] += eta[j] * gs[k, b, j]
            else:
                for j in range(low, high):
                    gv[j] += eta[j] * (gs[k, b, j] - v[j] * gd[k, b, j] - v[j] * gd[k, b, j])
            for j in range(low, high):
                slope = one
                if nonlinearity == TANH:
                    slope = one - v[j] * v[j]
                elif nonlinearity == SIGMOID:
                    slope = v[j] * (one - v[j])
                elif nonlinearity == RELU:
                    slope = one if v[j] > 0 else one - one
                now[j] = gv[j] * slope
            if clamp.size:
                for j in range(low, high):
                    if clamp[t, b, j]:
                        now[j] = 0
            for j in range(low, high):
                scaled[b, j] = L[k, b, j] * now[j]
            for l in range(k):
                group = group_of[l]
                fresh = l == 0 or group_of[l - 1] < group
                decay = between[i, l, min(b, between.shape[2] - 1)]
                spread(decay, now, s[l, b], z[i, group, b], low, high, fresh, gs[l, b], right[at + group, b])
                if LR.size:
                    for j in range(low, high):
                        gd[l, b, j] += now[j] * LR[i, l, b, j]
                if sums.size:
                    sums[thread(), i, l, b] = product_sum(now, s[l, b], z[i, group, b], low, high)
            if sums.size:
                total = zero
                for j in range(low, high):
                    total += now[j] * uP[i, b, j]
                sums[thread(), i, s.shape[0], b] = total
        barrier()
        pairs = right.reshape(-1, right.shape[2])[at * B : (at + g) * B]
        if wanted[k]:
            call_at(dots_at, dots, (W, low, high, delta[t], q))
            for b in range(B):
                for j in range(low, high):
                    gx[t, b, j] += q[b, j]
        for first in range(low, high, ROWS):
            last = min(high, first + ROWS)
            if wanted[k]:
                for b in range(len(H)):
                    add_dots_of_product(alpha, H[b], first, last, scaled[b], gx[t, b])
            call_at(dots_at, dots, (alpha, first, last, pairs, q))
        for l in range(g):
            for b in range(B):
                for j in range(low, high):
                    left[at + l, b, j] = x[t, b, j] * U[l, b, j]
        for l in range(g):
            to_step = start + groups[l]
            for b in range(B):
                row = q[l * B + b]
                for j in range(low, high):
                    gx[t, b, j] += U[l, b, j] * row[j]
                    gx[to_step, b, j] += x[t, b, j] * row[j]
        at += g


@compiled
def backward(
    body: int, dots_at: int, x: Array, gx: Array, delta: Array, clamp: Array, eta: Array, rule: int,
    nonlinearity: int, W: Array, H: Array, alpha: Array, U: Array, between: Array, s: Array, z: Array, uP: Array,
    LR: Array, L: Array, gs: Array, gd: Array, rows: Array, q: Array, left: Array, right: Array, at: int, start: int,
    free: Array, groups: Array, before: Array, wanted: Array, group_of: Array, sums: Array, count: int,
) -> None:  # fmt: skip
    """The free steps of the chunk from `start` on, in reverse.

    x `[T + 1, B, M]`; gx `[T + 1, B, N]`; delta `[T, B, M]`; clamp, eta, W as in `forward`; H `[B, N, N]` or empty:
    zero; alpha `[N, M]`; U `[G, B, ≥ N]`; between, L(l..k) of the free steps k, `[F, inner, 1 or B, 1 or N]`;
    s `[inner, B, N]`; z `[F, G, B, N]`; uP `[F, B, N]`; LR `[F, inner, B, N]`, empty where d is constant;
    L `[inner, B, N]`; gs, gd `[≥ inner, B, N]`; free `[F]`, the offsets of the free steps, before `[F]`, the groups
    before each; groups, where each begins; wanted `[inner]`: whose dL/du is; group_of `[inner]`: each step's group.
    Scratch: rows `[2, B, M]`, zeros from N on; q `[G B, N]`.
    sums `[threads, F, inner + 1, B]` or empty: each thread's sums of delta s z, and of delta u P, over its neurons.
    Completes gx, delta, gs, gd; the rows of alpha's gradient go to left `[rows, B, N]` and right `[rows, B, M]`, from
    row `at` on.
    """
    in_team(
        body, _backward,
        (dots_at, x, gx, delta, clamp, eta, rule, nonlinearity, W, H, alpha, U, between, s, z, uP, LR, L, gs, gd,
         rows, q, left, right, at, start, free, groups, before, wanted, group_of, sums),
        count,
    )  # fmt: skip


# --- where the machine code lies of what is called by its address

TAKES = {
    "dots": (dots, "2 i i 2 2"),
    "transpose": (_transpose, "2 2"),
    "add_product": (_add_product, "i 2 2 2 2 3 b 2"),
    "through_the_end": (_through_the_end, "i 3 3 3 3 3 3 2"),
    "scale": (_scale, "2 3 3"),
    "next_trace": (_next_trace, "3 2 3 3 3"),
    "through_the_trace": (_through_the_trace, "3 2 3 3 2 b 3 2"),
    "forward": (_forward, "i 3 3 m 1 i i 2 3 2 3 3 3 3 2 2 3 i i i i b"),
    "backward": (_backward, "i 3 3 3 m 1 i i 2 3 2 3 4 3 4 3 4 3 3 3 3 2 3 3 i i n n n n n 4"),
}
"""Arrays of so many axes; m a mask `[T, B, N]`, n a list of numbers, i an integer, b a flag."""


@cache
def where(name: str, dtype: str) -> int:
    """The address of a function for arrays of that dtype; compiles it, or reads it from the cache on disk."""
    kinds: dict[str, Any] = {str(axes): types.Array(getattr(types, dtype), axes, "C") for axes in (1, 2, 3, 4)}
    kinds |= {"m": types.Array(types.boolean, 3, "C"), "n": types.Array(types.int64, 1, "C")}
    kinds |= {"i": types.int64, "b": types.boolean}
    function, takes = TAKES[name]
    return address(function, [kinds[kind] for kind in takes.split()])
