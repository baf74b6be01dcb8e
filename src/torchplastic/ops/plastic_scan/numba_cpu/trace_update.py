"""Passes over the trace and its adjoint: a tile of `BAND` rows and a line of columns at a time, held in registers.

Axes: B batch, N neurons; M is N rounded up to whole lines of the cache. Matrices are `[pre, post]`, `[B, N, N]`; where
a tile reaches beyond one, it is computed in a copy. An empty matrix stands for a missing one. All arrays are
contiguous, of one dtype. A group is some steps that share u, and `firsts` holds the first of each.
"""

from __future__ import annotations

from typing import Any

from torchplastic.ops.plastic_scan.numba_cpu.elementwise import decay_of
from torchplastic.ops.plastic_scan.numba_cpu.jit import TABLE, inner, kernel
from torchplastic.ops.plastic_scan.numba_cpu.matmul import share
from torchplastic.ops.plastic_scan.numba_cpu.openmp import barrier, thread
from torchplastic.ops.plastic_scan.numba_cpu.simd import LINE, load, splat, store

Array = Any  # array.Array, of the dtype of w
BAND = 4  # rows of a matrix that are held in registers, a line of each
EDGES = 4  # tiles of each example that a thread has room for: scratch `edges [EDGES · threads, ≥ 1, BAND, LINE]`


@inner
def to_edge(A: Array, b: int, i: int, j: int, edge: Array) -> None:
    """Copy the part of a tile inside A `[B, N, ≥ N]` to edge; an empty A has none."""
    if A.size:
        for row in range(min(BAND, A.shape[1] - i)):
            for column in range(min(LINE, A.shape[2] - j)):
                edge[b, row, column] = A[b, i + row, j + column]


@inner
def from_edge(edge: Array, b: int, i: int, j: int, A: Array) -> None:
    """Copy the part of a tile inside A from edge back."""
    if A.size:
        for row in range(min(BAND, A.shape[1] - i)):
            for column in range(min(LINE, A.shape[2] - j)):
                A[b, i + row, j + column] = edge[b, row, column]


@inner
def examples_of(A: Array) -> int:
    """How many matrices A has; 0 where it is empty."""
    return len(A) if A.size else 0


@inner
def next_band(
    x: Array, firsts: Array, S: Array, L: Array, b: int, i: int, low: int, high: int, H: Array, out: Array, at: int,
    pitch: int,
) -> None:  # fmt: skip
    """Rows i … i + 3, columns low … high - 1 of example b, from `at` on in H and out; whole lines."""
    _, B, M = x.shape
    zero = splat(x.dtype.type(0))
    for j in range(low, high, LINE):
        at0 = at + j - low
        at1, at2, at3 = at0 + pitch, at0 + 2 * pitch, at0 + 3 * pitch
        h0 = h1 = h2 = h3 = zero
        if H.size:
            d = load(L, b * M + j)
            h0, h1, h2, h3 = d * load(H, at0), d * load(H, at1), d * load(H, at2), d * load(H, at3)
        for g in range(len(firsts)):
            t = firsts[g]
            s = load(S, (g * B + b) * M + j)
            h0 = h0 + splat(x[t, b, i]) * s
            h1 = h1 + splat(x[t, b, i + 1]) * s
            h2 = h2 + splat(x[t, b, i + 2]) * s
            h3 = h3 + splat(x[t, b, i + 3]) * s
        store(out, at0, h0)
        store(out, at1, h1)
        store(out, at2, h2)
        store(out, at3, h3)


@kernel
def next_trace(H: Array, x: Array, firsts: Array, S: Array, L: Array, out: Array, edges: Array) -> None:
    """`out = L * H + sum over groups of u (x) S`; out may be H. S `[≥ G, B, M]`, L `[B, M]`, x `[T + 1, B, M]`."""
    B, N, _ = out.shape
    low, high = share(N)
    mine = EDGES * thread()
    h_edge, edge = edges[mine][: examples_of(H)], edges[mine + 1][: examples_of(out)]
    for b in range(B):
        for i in range(low, high, BAND):
            whole = N // LINE * LINE if i + BAND <= N else 0
            j = 0
            while j < N:  # all whole lines, then the others in copies; one call, which is compiled once
                inside = j < whole
                end = whole if inside else j + LINE
                if not inside:
                    to_edge(H, b, i, j, h_edge)
                next_band(
                    x, firsts, S, L, b, i, j, end, H if inside else h_edge, out if inside else edge,
                    (b * N + i) * N if inside else b * BAND * LINE, N if inside else LINE,
                )  # fmt: skip
                if not inside:
                    from_edge(edge, b, i, j, out)
                j = end


@inner
def fill_groups(
    x: Array, eta: Array, rule: int, stop: int, firsts: Array, low: int, high: int, S: Array, D: Array, total: Array
) -> None:
    """What the steps of each group do to a trace, `H' = D * H + u (x) S`, and total, the product of all D.

    S, D `[G, B, M]`, total `[B, M]`; columns low … high - 1.
    """
    _, B, M = x.shape
    one = splat(x.dtype.type(1))
    for b in range(B):
        for j in range(low, high, LINE):
            rate, all_of_them = load(eta, j), one
            for g in range(len(firsts)):
                s, d = one - one, one
                for t in range(firsts[g], firsts[g + 1] if g + 1 < len(firsts) else stop):
                    y = load(x, ((t + 1) * B + b) * M + j)
                    left = decay_of(rule, one, rate, y)
                    s, d = left * s + rate * y, left * d
                store(S, (g * B + b) * M + j, s)
                store(D, (g * B + b) * M + j, d)
                all_of_them = all_of_them * d
            store(total, b * M + j, all_of_them)


@inner
def back_band(
    x: Array, delta: Array, S: Array, D: Array, total: Array, free: Array, firsts: Array, groups: int, i: int,
    low: int, high: int, fresh: bool, H: Array, alpha: Array, G: Array, dalpha: Array, at: int, pitch: int, size: int,
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
                t, place = firsts[g], (g * B + b) * M + j
                s, d = load(S, place), load(D, place)
                u0, u1 = splat(x[t, b, i]), splat(x[t, b, i + 1])
                u2, u3 = splat(x[t, b, i + 2]), splat(x[t, b, i + 3])
                w0 = w0 + u0 * s * m0
                w1 = w1 + u1 * s * m1
                w2 = w2 + u2 * s * m2
                w3 = w3 + u3 * s * m3
                m0, m1, m2, m3 = d * m0, d * m1, d * m2, d * m3
                if free[t]:
                    e = load(delta, (t * B + b) * M + j)
                    m0, m1, m2, m3 = m0 + u0 * e, m1 + u1 * e, m2 + u2 * e, m3 + u3 * e
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


@kernel
def through_the_trace(
    H: Array, alpha: Array, x: Array, delta: Array, eta: Array, rule: int, stop: int, free: Array, firsts: Array,
    groups: int, S: Array, D: Array, total: Array, fresh: bool, G: Array, dalpha: Array, edges: Array,
) -> None:  # fmt: skip
    """The steps firsts[0] … stop - 1 in reverse: what they add to dL/dalpha, and G from their end to their start.

    H the trace at the start, G the adjoint; alpha, dalpha `[1, N, N]`; x `[T + 1, B, M]`; delta `[T, B, M]`; eta
    `[≥ N]`; `free` flags the free steps, `groups` counts the groups up to the last of these. An empty
    H is zero, an empty G or dalpha is not needed; `fresh`: G holds nothing yet. Scratch: S, D `[≥ G, B, M]`, total
    `[B, M]`.
    """
    N, B = alpha.shape[1], x.shape[1]
    low, high = share(N)
    fill_groups(x, eta, rule, stop, firsts, low, high, S, D, total)
    barrier()
    mine = EDGES * thread()
    h_edge, a_edge = edges[mine][: examples_of(H)], edges[mine + 1][: examples_of(alpha)]
    g_edge, w_edge = edges[mine + 2][: examples_of(G)], edges[mine + 3][: examples_of(dalpha)]
    for i in range(low, high, BAND):
        whole = N // LINE * LINE if i + BAND <= N else 0
        j = 0
        while j < N:  # as in next_trace
            inside = j < whole
            end = whole if inside else j + LINE
            if not inside:
                to_edge(alpha, 0, i, j, a_edge)
                to_edge(dalpha, 0, i, j, w_edge)
                for b in range(B):
                    to_edge(H, b, i, j, h_edge)
                    to_edge(G, b, i, j, g_edge)
            back_band(
                x, delta, S, D, total, free, firsts, groups, i, j, end, fresh, H if inside else h_edge,
                alpha if inside else a_edge, G if inside else g_edge, dalpha if inside else w_edge,
                i * N if inside else 0, N if inside else LINE, N * N if inside else BAND * LINE,
            )  # fmt: skip
            if not inside:
                from_edge(w_edge, 0, i, j, dalpha)
                for b in range(B):
                    from_edge(g_edge, b, i, j, G)
            j = end


TABLE.update(
    next_trace=(next_trace, "3 3 n 3 2 3 4"),
    through_the_trace=(through_the_trace, "3 3 3 3 1 i i n n i 3 3 2 b 3 3 4"),
)
