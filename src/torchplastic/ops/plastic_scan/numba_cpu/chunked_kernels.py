"""The chunked algorithm for a full alpha, compiled by numba for the CPU: one kernel forward, one backward.

Axes: t time, B batch, N neurons; M is N rounded up to whole lines of the cache. Arrays `[…, M]` hold zeros from N on.
Matrices are `[pre, post]`. All arrays are contiguous, of one dtype; an empty array stands for a missing one.
Letters as in chunked/forward.py and chunked/backward.py; l is a step before t.

The threads of a team call a kernel together. Each has its share of the neurons, or of the rows of a matrix, and writes
only there; a barrier precedes every read of what others wrote. What several kernels call, they call by its address:
linked code would be compiled again in each of them, which takes seconds.

How time is cut, for all steps: `bounds`, the first step of each chunk, with T behind them; `free`, whether a step is;
`group`, the number of the step's group, and `firsts`, the first step of each group. Groups are steps of a chunk that
share u, numbered through the episode; a free step is one of its own.
"""

from __future__ import annotations

from typing import Any

from torchplastic.ops.plastic_scan.numba_cpu.elementwise import (
    activate,
    add,
    add_product_of,
    copy,
    decay_and_source,
    decay_of,
    fill,
    multiply,
    through_the_activation,
    through_the_rule,
)
from torchplastic.ops.plastic_scan.numba_cpu.jit import TABLE, inner, kernel, present
from torchplastic.ops.plastic_scan.numba_cpu.matmul import (
    ROWS,
    add_dots_of_product,
    add_rows,
    add_rows_of_all,
    dots,
    share,
)
from torchplastic.ops.plastic_scan.numba_cpu.openmp import barrier, call_at, thread
from torchplastic.ops.plastic_scan.numba_cpu.record import array, fields, mask, number, numbers
from torchplastic.ops.plastic_scan.numba_cpu.simd import LINE, load, splat, store
from torchplastic.ops.plastic_scan.numba_cpu.trace_update import BAND, EDGES, next_trace, through_the_trace

Array = Any  # array.Array, of the dtype of w


@inner
def lines_of(n: int) -> tuple[int, int, int]:
    """This thread's share of n neurons, low … high - 1, and where its last line ends."""
    low, high = share(n)
    return low, high, -(-high // LINE) * LINE


@inner
def after_the_last_free(free: Array, start: int, stop: int) -> int:
    """The step after the last free one from start on, before stop; start where none is."""
    while stop > start and not free[stop - 1]:
        stop -= 1
    return stop


# --- forward


@inner
def plastic_input(u: Array, alpha: Array, H: Array, make: bool, P: Array, low: int, high: int, out: Array) -> None:
    """`out += u @ P`; if `make`, computes P = alpha * H on the way. u, out `[B, M]`, H, P `[B, N, ≥ N]`, alpha one."""
    N = len(alpha)
    for b in range(len(u)):
        for start in range(0, N, ROWS):
            stop = min(N, start + ROWS)
            for i in range(start, stop if make else start):
                c, h, p = alpha[i, low:high], H[b, i, low:high], P[b, i, low:high]
                for j in range(high - low):  # from 0, or it is not translated into vectors
                    p[j] = c[j] * h[j]
            add_rows(u[b], P[b], start, stop, low, high, out[b])


@inner
def pairs_of_step(
    dots_at: int, x: Array, t: int, firsts: Array, across: Array, rows: Array, low: int, high: int, z: Array
) -> None:
    """`z = (u(t) * u) @ alpha` for the u of all groups before t; z `[G B, M]`, across is alpha^T."""
    B, M = x.shape[1], x.shape[2]
    for l in range(len(firsts)):
        for b in range(B):
            now, earlier, row = x[t, b], x[firsts[l], b], rows[l * B + b]
            for j in range(0, M, LINE):
                store(row, j, load(now, j) * load(earlier, j))
    call_at(dots_at, dots, (across, low, high, rows[: len(z)], z))


FORWARD = fields(
    "dots_at next_at tanh_at T B N M chunks groups most_groups threads z_rows uP_rows rule nonlinearity keep"
    " x drive clamp eta W alpha across trace kept final P z uP products a S vectors edges bounds free group firsts"
)


@kernel
def forward(args: Any) -> None:
    """All steps, by chunks: makes x, the traces, z and uP.

    x `[T + 1, B, M]`, of which x[0] is given; drive `[T, B, N]`; clamp likewise or none; eta `[M]`; W `[N, M]`, alpha
    `[N, N]`, and across, transposed, `[N, M]`; trace `[B, N, N]`, the first one, or none: zero; kept
    `[chunks - 1, B, N, N]`: if `keep`, the traces after all chunks but the last; final `[B, N, N]`, that after it; z
    `[z_rows, M]`, for each free step and each group before it B rows; uP `[uP_rows, B, M]`, of each free step. Where
    nothing is kept, z and uP are those of a chunk. Scratch: P `[B, N, M]`; products `[threads, most_groups · B, M]`;
    a `[B, M]`; S `[most_groups, B, M]`; vectors `[4, B, M]`; edges as in trace_update.py.
    """
    F = FORWARD
    T, B, N, M = number(args, F.T), number(args, F.B), number(args, F.N), number(args, F.M)
    chunks, most, count = number(args, F.chunks), number(args, F.most_groups), number(args, F.threads)
    dots_at, next_at, tanh_at = number(args, F.dots_at), number(args, F.next_at), number(args, F.tanh_at)
    rule, nonlinearity, keep = number(args, F.rule), number(args, F.nonlinearity), number(args, F.keep)
    x, drive, clamp = (
        array(args, F.x, (T + 1, B, M)),
        array(args, F.drive, (T, B, N)),
        mask(args, F.clamp, (present(args, F.clamp, T), B, N)),
    )
    eta, W, alpha = array(args, F.eta, (M,)), array(args, F.W, (N, M)), array(args, F.alpha, (N, N))
    across, trace = array(args, F.across, (N, M)), array(args, F.trace, (present(args, F.trace, B), N, N))
    kept, final = array(args, F.kept, (chunks - 1, B, N, N)), array(args, F.final, (B, N, N))
    P, z = array(args, F.P, (B, N, M)), array(args, F.z, (number(args, F.z_rows), M))
    uP, products = array(args, F.uP, (number(args, F.uP_rows), B, M)), array(args, F.products, (count, most * B, M))
    a, S, vectors = array(args, F.a, (B, M)), array(args, F.S, (most, B, M)), array(args, F.vectors, (4, B, M))
    edges = array(args, F.edges, (EDGES * count, max(1, B), BAND, LINE))
    bounds, free = numbers(args, F.bounds, (chunks + 1,)), numbers(args, F.free, (T,))
    group, firsts = numbers(args, F.group, (T,)), numbers(args, F.firsts, (number(args, F.groups),))
    low, high, end = lines_of(N)
    mine, pairs_first = products[thread()], thread() % 2 == 1  # so that one reads while the other computes
    L, d, s = vectors[0], vectors[1, 0], vectors[2, 0]
    for t in range(T):
        if not free[t]:
            for b in range(B):
                for j in range(low, high):
                    x[t + 1, b, j] = drive[t, b, j]
    barrier()
    i = pair = 0  # rows of uP, and of z
    for chunk in range(len(bounds) - 1):
        start, stop = bounds[chunk], bounds[chunk + 1]
        inside, base = after_the_last_free(free, start, stop), group[start]
        H = trace
        if chunk > 0:
            H = kept[chunk - 1] if keep else final
        make = H.size > 0  # P is not made yet
        if not keep:
            i = pair = 0
        for b in range(B):
            fill(1, low, end, L[b])
        for t in range(start, inside):
            g = group[t] - base  # groups before it
            if free[t]:
                rows = z[pair : pair + g * B]
                before = firsts[base : base + g]
                if pairs_first:
                    pairs_of_step(dots_at, x, t, before, across, mine, low, high, rows)
                for b in range(B):
                    fill(0, low, end, uP[i, b])
                    for j in range(low, high):
                        a[b, j] = drive[t, b, j]
                add_rows_of_all(x[t], W, low, high, a)
                if H.size:
                    plastic_input(x[t], alpha, H, make, P, low, high, uP[i])
                make = False
                if not pairs_first:
                    pairs_of_step(dots_at, x, t, before, across, mine, low, high, rows)
                for b in range(B):
                    now, p, L_b = a[b], uP[i, b], L[b]
                    for j in range(low, end, LINE):
                        total = load(now, j) + load(L_b, j) * load(p, j)
                        for l in range(g):
                            total = total + load(S[l, b], j) * load(rows[l * B + b], j)
                        store(now, j, total)
                    activate(nonlinearity, tanh_at, now, low, high, end, x[t + 1, b])
                    if clamp.size:
                        for j in range(low, high):
                            if clamp[t, b, j]:
                                x[t + 1, b, j] = drive[t, b, j]
                i, pair = i + 1, pair + g * B
            for b in range(B):  # the trace's update, as the steps after it read it
                decay_and_source(rule, x[t + 1, b], eta, low, end, d, s)
                opens = t == firsts[base + g]
                for l in range(g if opens else g + 1):
                    multiply(d, low, end, S[l, b])
                multiply(d, low, end, L[b])
                now = S[g, b]
                for j in range(low, end, LINE):
                    store(now, j, load(s, j) if opens else load(now, j) + load(s, j))
            if free[t]:
                barrier()
        inner_groups = group[inside - 1] - base + 1 if inside > start else 0
        groups = group[stop - 1] - base + 1
        for b in range(B):  # the steps after the last free one, from the end
            left = vectors[3, b]
            fill(1, low, end, left)
            for t in range(stop - 1, inside - 1, -1):
                decay_and_source(rule, x[t + 1, b], eta, low, end, d, s)
                ends = t + 1 == stop or group[t + 1] > group[t]
                now = S[group[t] - base, b]
                for j in range(low, end, LINE):
                    source = load(left, j) * load(s, j)
                    store(now, j, source if ends else load(now, j) + source)
                multiply(d, low, end, left)
            for l in range(inner_groups):
                multiply(left, low, end, S[l, b])
            multiply(left, low, end, L[b])
        barrier()
        out = kept[chunk] if keep and chunk < len(kept) else final
        call_at(next_at, next_trace, (H, x, firsts[base : base + groups], S, L, out, edges))
        barrier()


# --- backward


@inner
def weigh_the_end(
    x: Array, eta: Array, rule: int, wanted: Array, start: int, last: int, stop: int, left: Array, d: Array, s: Array,
    gs: Array, E: Array,
) -> int:  # fmt: skip
    """For the steps start … last - 1, gs is the product of d over the steps after each, up to stop; left that of all.

    E `[B, ≥ wanted, N]` is that product times s where dL/du is wanted, from the last of these steps to the first. How
    many these are is returned.
    """
    B, N = E.shape[0], E.shape[2]
    low, high, end = lines_of(N)
    rows = 0
    for b in range(B):
        fill(1, low, end, left[b])
    for t in range(stop - 1, start - 1, -1):
        for b in range(B):
            product = left[b]
            decay_and_source(rule, x[t + 1, b], eta, low, end, d, s)
            if t < last:
                copy(product, low, end, gs[t - start, b])
            if wanted[t]:
                for j in range(low, high):
                    E[b, rows, j] = product[j] * s[j]
            multiply(d, low, end, product)
        rows += wanted[t]
    return rows


@inner
def products_with_the_end(
    dots_at: int, x: Array, H: Array, G: Array, b: int, need_Q: bool, rows: int, E: Array, firsts: Array, UG: Array,
    EG: Array, Q: Array,
) -> None:  # fmt: skip
    """Of example b: `UG = u @ G` for each group, `EG = E @ G^T` of so many rows, `Q = sum over rows of G * H`."""
    N = G.shape[1]
    low, high, end = lines_of(N)
    fill(0, low, end, Q[b])
    for l in range(len(firsts)):
        fill(0, low, end, UG[l, b])
    for above in range(0, N, ROWS):
        below = min(N, above + ROWS)
        for l in range(len(firsts)):
            add_rows(x[firsts[l], b], G[b], above, below, low, high, UG[l, b])
        if need_Q:
            q = Q[b, low:high]
            for i in range(above, below):
                g, h = G[b, i, low:high], H[b, i, low:high]
                for j in range(high - low):
                    q[j] += g[j] * h[j]
    call_at(dots_at, dots, (G[b], low, high, E[b][:rows], EG[b]))


@inner
def from_the_end(
    rule: int, v: Array, eta: Array, low: int, end: int, need_gd: bool, uG: Array, Q: Array, gs: Array, gd: Array
) -> None:  # fmt: skip
    """gs and gd of a step, from the product of d after it, which gs holds. Q moves on to the step after it."""
    one = splat(v.dtype.type(1))
    for j in range(low, end, LINE):
        after, of_trace, rate, y = load(gs, j), load(uG, j), load(eta, j), load(v, j)
        store(gs, j, after * of_trace)
        if need_gd:
            weighed = load(Q, j)
            store(gd, j, after * weighed)
            store(Q, j, decay_of(rule, one, rate, y) * weighed + rate * y * of_trace)


@inner
def recalled_from(rule: int, v: Array, eta: Array, low: int, end: int, z: Array, R: Array, out: Array) -> None:
    """`out = d * R + s * z`: what a later step would read of the trace, from one step to the next."""
    one = splat(v.dtype.type(1))
    for j in range(low, end, LINE):
        rate, y = load(eta, j), load(v, j)
        store(out, j, decay_of(rule, one, rate, y) * load(R, j) + rate * y * load(z, j))


@inner
def to_earlier(
    rule: int, v: Array, eta: Array, low: int, end: int, z: Array, R: Array, need_gd: bool, fresh: bool, e: Array,
    gs: Array, gd: Array, right: Array,
) -> None:  # fmt: skip
    """The gradient from a step to an earlier one with output v. e is `L(l..t) * eps`, then that of the step before.

    `gs += e * z`, `gd += e * R`, and `right += s * e`; fresh: it is set.
    """
    one = splat(v.dtype.type(1))
    for j in range(low, end, LINE):
        rate, y, now = load(eta, j), load(v, j), load(e, j)
        store(gs, j, load(gs, j) + now * load(z, j))
        if need_gd:
            store(gd, j, load(gd, j) + now * load(R, j))
        product = rate * y * now
        store(right, j, product if fresh else load(right, j) + product)
        store(e, j, now * decay_of(rule, one, rate, y))


@inner
def through_w(dots_at: int, W: Array, low: int, high: int, end: int, delta: Array, q: Array, gu: Array) -> None:
    """`gu += delta @ W^T`; q is scratch."""
    call_at(dots_at, dots, (W, low, high, delta, q))
    for b in range(len(gu)):
        add(q[b], low, end, gu[b])


BACKWARD = fields(
    "dots_at back_at T B N M chunks groups most_groups most_wanted steps threads z_rows uP_rows rule nonlinearity given"
    " need_gd every back_to carry_on x gx delta clamp eta W alpha in_lines trace kept z uP G dalpha geta wanted gs gd"
    " UG D E EG vectors recalled right q edges bounds free group firsts"
)


@kernel
def backward(args: Any) -> None:
    """All chunks from the last to number `back_to`, in reverse.

    x, clamp, eta, W, trace, kept, z, uP as `forward` takes or leaves them; alpha `[1, N, N]`, and `[N, M]` in lines;
    gx `[T + 1, B, M]`, dL/dx from outside, is completed; delta `[T, B, M]`, zeros, gets dL/da of the free steps; G
    `[B, N, N]`, the adjoint of the final trace, if one is given, becomes that of the first one if told to carry on;
    dalpha `[1, N, N]` is added to, or none; geta `[M]`, of zeros. need_gd: whether dL/dd is needed, for eta or v;
    every: whether gs and gd are, of the clamped steps after a chunk's last free one; wanted: of which steps dL/du is.
    Scratch, by the most of any chunk: gs and gd `[steps, B, M]`, gd of zeros; UG and D `[groups, B, M]`; E
    `[B, wanted, N]` and EG `[B, wanted, M]`, zeros from N on; vectors `[6, B, M]`, of zeros; recalled `[steps, M]`;
    right `[2, groups · B, M]` and q `[groups · B, M]`, of zeros; edges as in trace_update.py.
    """
    F = BACKWARD
    T, B, N, M = number(args, F.T), number(args, F.B), number(args, F.N), number(args, F.M)
    chunks, most, count = number(args, F.chunks), number(args, F.most_groups), number(args, F.threads)
    steps, most_wanted = number(args, F.steps), number(args, F.most_wanted)
    dots_at, back_at, back_to = number(args, F.dots_at), number(args, F.back_at), number(args, F.back_to)
    rule, nonlinearity, given = number(args, F.rule), number(args, F.nonlinearity), number(args, F.given) != 0
    need_gd, every, carry_on = (
        number(args, F.need_gd) != 0, number(args, F.every) != 0, number(args, F.carry_on) != 0
    )  # fmt: skip
    x, gx = array(args, F.x, (T + 1, B, M)), array(args, F.gx, (T + 1, B, M))
    delta, clamp = array(args, F.delta, (T, B, M)), mask(args, F.clamp, (present(args, F.clamp, T), B, N))
    eta, W, alpha = array(args, F.eta, (M,)), array(args, F.W, (N, M)), array(args, F.alpha, (1, N, N))
    in_lines, trace = array(args, F.in_lines, (N, M)), array(args, F.trace, (present(args, F.trace, B), N, N))
    kept, z = array(args, F.kept, (chunks - 1, B, N, N)), array(args, F.z, (number(args, F.z_rows), M))
    uP, G = array(args, F.uP, (number(args, F.uP_rows), B, M)), array(args, F.G, (B, N, N))
    dalpha, geta = array(args, F.dalpha, (present(args, F.dalpha, 1), N, N)), array(args, F.geta, (M,))
    gs, gd = array(args, F.gs, (steps, B, M)), array(args, F.gd, (steps, B, M))
    UG, D = array(args, F.UG, (most, B, M)), array(args, F.D, (most, B, M))
    E, EG = array(args, F.E, (B, most_wanted, N)), array(args, F.EG, (B, most_wanted, M))
    vectors, recalled = array(args, F.vectors, (6, B, M)), array(args, F.recalled, (steps, M))
    right, q = array(args, F.right, (2, most * B, M)), array(args, F.q, (most * B, M))
    edges = array(args, F.edges, (EDGES * count, max(1, B), BAND, LINE))
    bounds, free, wanted = (
        numbers(args, F.bounds, (chunks + 1,)), numbers(args, F.free, (T,)), numbers(args, F.wanted, (T,))
    )  # fmt: skip
    group, firsts = numbers(args, F.group, (T,)), numbers(args, F.firsts, (number(args, F.groups),))
    low, high, end = lines_of(N)
    pairs_first = thread() % 2 == 1  # so that one reads while the other computes
    alive = given  # whether G holds a gradient
    i, pair = len(uP), len(z)
    for chunk in range(len(bounds) - 2, back_to - 1, -1):
        start, stop = bounds[chunk], bounds[chunk + 1]
        inside, base = after_the_last_free(free, start, stop), group[start]
        last = stop if every else inside
        H = kept[chunk - 1] if chunk > 0 else trace
        if alive:
            rows = weigh_the_end(
                x, eta, rule, wanted, start, last, stop, vectors[0], vectors[1, 0], vectors[2, 0], gs, E
            )  # fmt: skip
            barrier()
            groups = group[last - 1] - base + 1 if last > start else 0
            for b in range(B):
                products_with_the_end(
                    dots_at, x, H, G, b, need_gd and H.size > 0, rows, E, firsts[base : base + groups], UG, EG,
                    vectors[3],
                )  # fmt: skip
                row = 0
                for t in range(stop - 1, start - 1, -1):
                    if wanted[t]:
                        add(EG[b, row], low, end, gx[t, b])
                        row += 1
                for t in range(start, last):
                    from_the_end(
                        rule, x[t + 1, b], eta, low, end, need_gd, UG[group[t] - base, b], vectors[3, b],
                        gs[t - start, b], gd[t - start, b],
                    )  # fmt: skip
        else:
            for k in range(last - start):
                for b in range(B):
                    fill(0, low, end, gs[k, b])
                    fill(0, low, end, gd[k, b])
        for t in range(inside - 1, start - 1, -1):
            if not free[t]:
                continue
            g = group[t] - base  # groups before it
            i, pair = i - 1, pair - g * B
            scaled, rows, k = vectors[4 + i % 2], right[i % 2], t - start
            for b in range(B):
                v, gv, now = x[t + 1, b], gx[t + 1, b], delta[t, b]
                through_the_rule(rule, v, eta, low, end, gd[k, b], gs[k, b], gv, geta)
                through_the_activation(nonlinearity, v, gv, low, end, now)
                if clamp.size:
                    for j in range(low, high):
                        if clamp[t, b, j]:
                            now[j] = 0
                if need_gd:
                    copy(uP[i, b], low, end, recalled[0])
                    for l in range(start, t - 1):
                        recalled_from(
                            rule, x[l + 1, b], eta, low, end, z[pair + (group[l] - base) * B + b], recalled[l - start],
                            recalled[l - start + 1],
                        )  # fmt: skip
                copy(now, low, end, scaled[b])
                for l in range(t - 1, start - 1, -1):
                    row = (group[l] - base) * B + b
                    to_earlier(
                        rule, x[l + 1, b], eta, low, end, z[pair + row], recalled[l - start], need_gd,
                        group[l + 1] > group[l], scaled[b], gs[l - start, b], gd[l - start, b], rows[row],
                    )  # fmt: skip
            barrier()
            if wanted[t] and not pairs_first:
                through_w(dots_at, W, low, high, end, delta[t], q, gx[t])
            for first in range(low, high, ROWS):
                after = min(high, first + ROWS)
                if wanted[t]:
                    for b in range(len(H)):
                        add_dots_of_product(in_lines, H[b], first, after, scaled[b], gx[t, b])
                call_at(dots_at, dots, (in_lines, first, after, rows[: g * B], q))
            for l in range(g):
                u_at = firsts[base + l]
                for b in range(B):
                    add_product_of(x[u_at, b], q[l * B + b], low, end, gx[t, b])
                    add_product_of(x[t, b], q[l * B + b], low, end, gx[u_at, b])
            if wanted[t] and pairs_first:
                through_w(dots_at, W, low, high, end, delta[t], q, gx[t])
        for t in range(start, last):
            if not free[t]:
                for b in range(B):
                    through_the_rule(
                        rule, x[t + 1, b], eta, low, end, gd[t - start, b], gs[t - start, b], gx[t + 1, b], geta
                    )  # fmt: skip
        carry = chunk > back_to or carry_on
        if inside > start:
            if carry or dalpha.size:
                groups = group[stop - 1] - base + 1
                call_at(
                    back_at, through_the_trace,
                    (H, alpha, x, delta, eta, rule, stop, free, firsts[base : base + groups],
                     group[inside - 1] - base + 1, UG, D, vectors[0], not alive, G if carry else G[:0], dalpha, edges),
                )  # fmt: skip
            alive = carry
        elif alive and carry:
            barrier()  # others still read G
            for b in range(B):
                for n in range(N):
                    row = G[b, n]
                    for j in range(low, high):
                        row[j] *= vectors[0, b, j]
        barrier()


TABLE.update(chunked_forward=(forward, "r"), chunked_backward=(backward, "r"))
