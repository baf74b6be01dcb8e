"""Products of matrices with a few rows, each thread with its share of the neurons or of the rows.

Axes: N neurons, M is N rounded up to whole lines of the cache. All arrays are contiguous, of one dtype.
"""

from __future__ import annotations

from typing import Any

from torchplastic.ops.plastic_scan.numba_cpu.jit import TABLE, inner, kernel
from torchplastic.ops.plastic_scan.numba_cpu.openmp import barrier, call_at, thread, threads
from torchplastic.ops.plastic_scan.numba_cpu.record import array, fields, number
from torchplastic.ops.plastic_scan.numba_cpu.simd import LINE

Array = Any  # array.Array, of the dtype of w
ROWS = 64  # of a matrix, or of vectors, that stay in a core's cache while others pass
TILE = 32  # of a transposed matrix


@inner
def share(n: int) -> tuple[int, int]:
    """This thread's share of n, in whole lines."""
    lines, me, team = -(-n // LINE), thread(), threads()
    return lines * me // team * LINE, min(n, lines * (me + 1) // team * LINE)


@inner
def add_rows(u: Array, A: Array, i: int, n: int, low: int, high: int, out: Array) -> None:
    """`out += u @ A`; u `[≥ n]`, A `[≥ n, K]`, of which rows i … n - 1 count, out `[K]`; columns low … high - 1."""
    part = out[low:high]
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
            add_rows(u[b], A, start, stop, low, high, out[b])


@kernel
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


@inner
def transpose_into(A: Array, out: Array) -> None:
    """out `[N, ≥ n]` = A^T, of A `[n, ≥ N]`; zeros behind it. Each thread its share of N."""
    low, high = share(len(out))
    for first in range(low, high, TILE):
        last = min(high, first + TILE)
        for start in range(0, len(A), TILE):
            for i in range(first, last):
                for j in range(start, min(len(A), start + TILE)):
                    out[i, j] = A[j, i]
        for i in range(first, last):
            out[i, len(A) :] = 0


TRANSPOSE = fields("A out n A_width N width")


@kernel
def transpose(args: Any) -> None:
    """out `[N, width]` = A^T, of A `[n, A_width]`; zeros behind it."""
    n, N = number(args, TRANSPOSE.n), number(args, TRANSPOSE.N)
    A = array(args, TRANSPOSE.A, (n, number(args, TRANSPOSE.A_width)))
    transpose_into(A, array(args, TRANSPOSE.out, (N, number(args, TRANSPOSE.width))))


PRODUCT = fields("dots_at left right columns rows scratch out n left_width right_width N width threads fresh")


@kernel
def add_product(args: Any) -> None:
    """`out += left^T @ right`; `fresh`: out holds nothing yet. left, right `[n, ≥ N]`, out `[N, N]`.

    Scratch: columns and rows `[N, width]`, width ≥ n of whole lines, scratch `[threads, ROWS, N]`.
    """
    n, N, width = number(args, PRODUCT.n), number(args, PRODUCT.N), number(args, PRODUCT.width)
    left = array(args, PRODUCT.left, (n, number(args, PRODUCT.left_width)))
    right = array(args, PRODUCT.right, (n, number(args, PRODUCT.right_width)))
    columns, rows = array(args, PRODUCT.columns, (N, width)), array(args, PRODUCT.rows, (N, width))
    out = array(args, PRODUCT.out, (N, N))
    product = array(args, PRODUCT.scratch, (number(args, PRODUCT.threads), ROWS, N))[thread()]
    low, high = share(N)
    none = 0
    transpose_into(left, columns)
    transpose_into(right, rows)
    barrier()
    for first in range(low, high, ROWS):
        last = min(high, first + ROWS)
        call_at(number(args, PRODUCT.dots_at), dots, (rows, none, N, columns[first:last], product))
        for i in range(first, last):
            to, more = out[i], product[i - first]
            if number(args, PRODUCT.fresh):
                for j in range(N):
                    to[j] = more[j]
            else:
                for j in range(N):
                    to[j] += more[j]


TABLE.update(dots=(dots, "2 i i 2 2"), transpose=(transpose, "r"), add_product=(add_product, "r"))
