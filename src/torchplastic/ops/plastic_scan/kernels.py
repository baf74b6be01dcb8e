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

from torchplastic.ops.plastic_scan.lanes import LINE, load, splat, store
from torchplastic.ops.plastic_scan.team import address, barrier, call_at, in_team, thread, threads

Array = Any  # np.ndarray, of the dtype of w
ROWS = 64  # of a matrix, or of vectors, that stay in a core's cache while others pass
TILE = 32  # of a transposed matrix
BAND = 4  # rows of a matrix that are held in registers, a line of each
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


# --- the trace and its adjoint: a tile of `BAND` rows and a line of columns at a time, held in registers


@inner
def fill_groups(
    x: Array, eta: Array, rule: int, start: int, stop: int, first: Array, low: int, high: int, S: Array, D: Array
) -> None:
    """What the steps of each group do to a trace, `H' = D * H + u (x) S`: S, D `[G, B, M]`; columns low … high - 1."""
    one = x.dtype.type(1)
    for g in range(len(first)):
        after = first[g + 1] if g + 1 < len(first) else stop - start
        for b in range(x.shape[1]):
            s, d = S[g, b], D[g, b]
            s[low:high] = 0
            d[low:high] = 1
            for k in range(first[g], after):
                v = x[start + k + 1, b]
                for j in range(low, high):
                    written = eta[j] * v[j]
                    left = one - (eta[j] if rule == HEBB else written * v[j])
                    s[j] = left * s[j] + written
                    d[j] *= left


@inner
def next_band(
    x: Array, S: Array, D: Array, start: int, first: Array, b: int, i: int, low: int, high: int, H: Array, out: Array,
    at: int, pitch: int,
) -> None:  # fmt: skip
    """Rows i … i + 3, columns low … high - 1 of example b, from `at` on in H and out; whole lines."""
    _, B, M = x.shape
    zero = splat(x.dtype.type(0))
    for j in range(low, high, LINE):
        at0 = at + j - low
        at1, at2, at3 = at0 + pitch, at0 + 2 * pitch, at0 + 3 * pitch
        h0 = h1 = h2 = h3 = zero
        if H.size:
            d = load(D, b * M + j)
            h0, h1, h2, h3 = d * load(H, at0), d * load(H, at1), d * load(H, at2), d * load(H, at3)
        for g in range(len(first)):
            t = start + first[g]
            s = load(S, (g * B + b) * M + j)
            h0 = h0 + splat(x[t, b, i]) * s
            h1 = h1 + splat(x[t, b, i + 1]) * s
            h2 = h2 + splat(x[t, b, i + 2]) * s
            h3 = h3 + splat(x[t, b, i + 3]) * s
        store(out, at0, h0)
        store(out, at1, h1)
        store(out, at2, h2)
        store(out, at3, h3)


@inner
def to_edge(A: Array, b: int, i: int, j: int, edge: Array) -> None:
    """What A `[B, N, ≥ N]` has of a tile that reaches beyond it; an empty A has none."""
    if A.size:
        for row in range(min(BAND, A.shape[1] - i)):
            for column in range(min(LINE, A.shape[2] - j)):
                edge[b, row, column] = A[b, i + row, j + column]


@inner
def from_edge(edge: Array, b: int, i: int, j: int, A: Array) -> None:
    """The way back."""
    if A.size:
        for row in range(min(BAND, A.shape[1] - i)):
            for column in range(min(LINE, A.shape[2] - j)):
                A[b, i + row, j + column] = edge[b, row, column]


@inner
def edge_of(A: Array) -> Array:
    """Room for a tile of each example of A; none where A is empty."""
    return np.zeros((len(A) if A.size else 0, BAND, LINE), A.dtype)


@inner
def _next_trace(
    H: Array, x: Array, eta: Array, rule: int, start: int, stop: int, first: Array, S: Array, D: Array, out: Array
) -> None:  # fmt: skip
    B, N, _ = out.shape
    low, high = share(N)
    fill_groups(x, eta, rule, start, stop, first, low, high, S, D)
    for g in range(len(first) - 2, -1, -1):  # D of a group becomes the product from it to the end
        for b in range(B):
            s, d, after = S[g, b], D[g, b], D[g + 1, b]
            for j in range(low, high):
                s[j] *= after[j]
                d[j] *= after[j]
    barrier()
    h_edge, edge = edge_of(H), edge_of(out)
    for b in range(B):
        for i in range(low, high, BAND):
            whole = N // LINE * LINE if i + BAND <= N else 0
            next_band(x, S, D, start, first, b, i, 0, whole, H, out, (b * N + i) * N, N)
            for j in range(whole, N, LINE):
                to_edge(H, b, i, j, h_edge)
                next_band(x, S, D, start, first, b, i, j, j + LINE, h_edge, edge, b * BAND * LINE, LINE)
                from_edge(edge, b, i, j, out)


@compiled
def next_trace(
    body: int, H: Array, x: Array, eta: Array, rule: int, start: int, stop: int, first: Array, S: Array, D: Array,
    out: Array, count: int,
) -> None:  # fmt: skip
    """The trace after the steps start … stop - 1, from H at their start, into out, which may be H; an empty H is zero.

    H, out `[B, N, N]`; x `[T + 1, B, M]`; eta `[N]`; first `[G]`, where each group of steps that share u begins.
    Scratch: S, D `[G, B, M]`.
    """
    in_team(body, _next_trace, (H, x, eta, rule, start, stop, first, S, D, out), count)


@inner
def back_band(
    x: Array, delta: Array, S: Array, D: Array, total: Array, start: int, first: Array, groups: int, i: int, low: int,
    high: int, fresh: bool, H: Array, alpha: Array, G: Array, dalpha: Array, at: int, pitch: int, size: int,
) -> None:  # fmt: skip
    """Rows i … i + 3, columns low … high - 1, from `at` on in each example's matrices of `size` numbers; whole lines.

    `M <- D * M + u (x) delta` from the last group to the first; before it, `u (x) S * M` joins dalpha.
    """
    _, B, M = x.shape
    zero = splat(x.dtype.type(0))
    for j in range(low, high, LINE):
        at0 = at + j - low
        at1, at2, at3 = at0 + pitch, at0 + 2 * pitch, at0 + 3 * pitch
        w0 = w1 = w2 = w3 = zero
        if dalpha.size:
            w0, w1, w2, w3 = load(dalpha, at0), load(dalpha, at1), load(dalpha, at2), load(dalpha, at3)
        for b in range(B):
            m0 = m1 = m2 = m3 = zero
            for g in range(groups - 1, -1, -1):
                t, place = start + first[g], (g * B + b) * M + j
                s, d, e = load(S, place), load(D, place), load(delta, (t * B + b) * M + j)
                u0, u1 = splat(x[t, b, i]), splat(x[t, b, i + 1])
                u2, u3 = splat(x[t, b, i + 2]), splat(x[t, b, i + 3])
                w0 = w0 + u0 * s * m0
                w1 = w1 + u1 * s * m1
                w2 = w2 + u2 * s * m2
                w3 = w3 + u3 * s * m3
                m0 = d * m0 + u0 * e
                m1 = d * m1 + u1 * e
                m2 = d * m2 + u2 * e
                m3 = d * m3 + u3 * e
            of0, of1, of2, of3 = at0 + b * size, at1 + b * size, at2 + b * size, at3 + b * size
            if H.size:
                w0 = w0 + load(H, of0) * m0
                w1 = w1 + load(H, of1) * m1
                w2 = w2 + load(H, of2) * m2
                w3 = w3 + load(H, of3) * m3
            if G.size:
                m0, m1 = load(alpha, at0) * m0, load(alpha, at1) * m1
                m2, m3 = load(alpha, at2) * m2, load(alpha, at3) * m3
                if not fresh:
                    d = load(total, b * M + j)
                    m0, m1 = m0 + d * load(G, of0), m1 + d * load(G, of1)
                    m2, m3 = m2 + d * load(G, of2), m3 + d * load(G, of3)
                store(G, of0, m0)
                store(G, of1, m1)
                store(G, of2, m2)
                store(G, of3, m3)
        if dalpha.size:
            store(dalpha, at0, w0)
            store(dalpha, at1, w1)
            store(dalpha, at2, w2)
            store(dalpha, at3, w3)


@inner
def _through_the_trace(
    H: Array, alpha: Array, x: Array, delta: Array, eta: Array, rule: int, start: int, stop: int, first: Array,
    groups: int, S: Array, D: Array, total: Array, fresh: bool, G: Array, dalpha: Array,
) -> None:  # fmt: skip
    N, B = alpha.shape[1], x.shape[1]
    low, high = share(N)
    fill_groups(x, eta, rule, start, stop, first, low, high, S, D)
    for b in range(B):
        d = total[b]
        d[low:high] = 1
        for g in range(len(first)):
            for j in range(low, high):
                d[j] *= D[g, b, j]
    barrier()
    h_edge, a_edge, g_edge, w_edge = edge_of(H), edge_of(alpha), edge_of(G), edge_of(dalpha)
    for i in range(low, high, BAND):
        whole = N // LINE * LINE if i + BAND <= N else 0
        back_band(
            x, delta, S, D, total, start, first, groups, i, 0, whole, fresh, H, alpha, G, dalpha, i * N, N, N * N
        )  # fmt: skip
        for j in range(whole, N, LINE):
            to_edge(alpha, 0, i, j, a_edge)
            to_edge(dalpha, 0, i, j, w_edge)
            for b in range(B):
                to_edge(H, b, i, j, h_edge)
                to_edge(G, b, i, j, g_edge)
            back_band(
                x, delta, S, D, total, start, first, groups, i, j, j + LINE, fresh, h_edge, a_edge, g_edge, w_edge, 0,
                LINE, BAND * LINE,
            )  # fmt: skip
            from_edge(w_edge, 0, i, j, dalpha)
            for b in range(B):
                from_edge(g_edge, b, i, j, G)


@compiled
def through_the_trace(
    body: int, H: Array, alpha: Array, x: Array, delta: Array, eta: Array, rule: int, start: int, stop: int,
    first: Array, groups: int, S: Array, D: Array, total: Array, fresh: bool, G: Array, dalpha: Array, count: int,
) -> None:  # fmt: skip
    """The steps start … stop - 1 in reverse: what they add to dL/dalpha, and G from their end to their start.

    H, G `[B, N, N]`, the trace at the start and the adjoint; alpha, dalpha `[1, N, N]`; x `[T + 1, B, M]`; delta
    `[T, B, M]`, 0 at clamped steps; eta `[N]`; first as in `next_trace`, and how many of these groups lie before the
    last free step. An empty H is zero, an empty G or dalpha is not wanted; `fresh`: G holds nothing yet.
    Scratch: S, D `[G, B, M]`, total `[B, M]`.
    """
    in_team(
        body, _through_the_trace,
        (H, alpha, x, delta, eta, rule, start, stop, first, groups, S, D, total, fresh, G, dalpha),
        count,
    )  # fmt: skip


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
    gd: Array, rows: Array, q: Array, right: Array, start: int, free: Array, groups: Array, before: Array,
    wanted: Array, group_of: Array, sums: Array,
) -> None:  # fmt: skip
    _, B, N = gx.shape
    low, high = share(N)
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for i in range(len(free) - 1, -1, -1):
        k, g = free[i], before[i]
        t = start + k
        scaled, pairs = rows[i % 2], right[i % 2]
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
                spread(decay, now, s[l, b], z[i, group, b], low, high, fresh, gs[l, b], pairs[group * B + b])
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
            call_at(dots_at, dots, (alpha, first, last, pairs[: g * B], q))
        for l in range(g):
            to_step = start + groups[l]
            for b in range(B):
                row = q[l * B + b]
                for j in range(low, high):
                    gx[t, b, j] += U[l, b, j] * row[j]
                    gx[to_step, b, j] += x[t, b, j] * row[j]


@compiled
def backward(
    body: int, dots_at: int, x: Array, gx: Array, delta: Array, clamp: Array, eta: Array, rule: int,
    nonlinearity: int, W: Array, H: Array, alpha: Array, U: Array, between: Array, s: Array, z: Array, uP: Array,
    LR: Array, L: Array, gs: Array, gd: Array, rows: Array, q: Array, right: Array, start: int, free: Array,
    groups: Array, before: Array, wanted: Array, group_of: Array, sums: Array, count: int,
) -> None:  # fmt: skip
    """The free steps of the chunk from `start` on, in reverse.

    x `[T + 1, B, M]`; gx `[T + 1, B, N]`; delta `[T, B, M]`; clamp, eta, W as in `forward`; H `[B, N, N]` or empty:
    zero; alpha `[N, M]`; U `[G, B, ≥ N]`; between, L(l..k) of the free steps k, `[F, inner, 1 or B, 1 or N]`;
    s `[inner, B, N]`; z `[F, G, B, N]`; uP `[F, B, N]`; LR `[F, inner, B, N]`, empty where d is constant;
    L `[inner, B, N]`; gs, gd `[≥ inner, B, N]`; free `[F]`, the offsets of the free steps, before `[F]`, the groups
    before each; groups, where each begins; wanted `[inner]`: whose dL/du is; group_of `[inner]`: each step's group.
    Scratch: rows `[2, B, M]` and right `[2, G B, M]`, zeros from N on; q `[G B, N]`.
    sums `[threads, F, inner + 1, B]` or empty: each thread's sums of delta s z, and of delta u P, over its neurons.
    Completes gx, delta, gs, gd.
    """
    in_team(
        body, _backward,
        (dots_at, x, gx, delta, clamp, eta, rule, nonlinearity, W, H, alpha, U, between, s, z, uP, LR, L, gs, gd,
         rows, q, right, start, free, groups, before, wanted, group_of, sums),
        count,
    )  # fmt: skip


# --- where the machine code lies of what is called by its address

TAKES = {
    "dots": (dots, "2 i i 2 2"),
    "transpose": (_transpose, "2 2"),
    "add_product": (_add_product, "i 2 2 2 2 3 b 2"),
    "through_the_end": (_through_the_end, "i 3 3 3 3 3 3 2"),
    "scale": (_scale, "2 3 3"),
    "next_trace": (_next_trace, "3 3 1 i i i n 3 3 3"),
    "through_the_trace": (_through_the_trace, "3 3 3 3 1 i i i n i 3 3 2 b 3 3"),
    "forward": (_forward, "i 3 3 m 1 i i 2 3 2 3 3 3 3 2 2 3 i i i i b"),
    "backward": (_backward, "i 3 3 3 m 1 i i 2 3 2 3 4 3 4 3 4 3 3 3 3 2 3 i n n n n n 4"),
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
