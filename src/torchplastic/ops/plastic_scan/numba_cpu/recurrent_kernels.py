"""The recurrent algorithm on one example, compiled by numba for the CPU. Letters as in recurrent.py.

Axes: T time, B batch, N neurons; M is N rounded up to whole lines of the cache, R to an even number. Rows `[…, M]` hold
zeros from N on. Matrices are `[pre, post]`. All arrays are contiguous and of one dtype.

One example after the other: its trace, alpha and w stay in a core's cache while time passes. Examples are divided into
groups, which threads take; each group has its own sums, so they do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

from torchplastic.ops.plastic_scan.numba_cpu.elementwise import (
    activate,
    copy,
    decay_and_source,
    through_the_activation,
    through_the_rule,
)
from torchplastic.ops.plastic_scan.numba_cpu.jit import TABLE, inner, kernel, present
from torchplastic.ops.plastic_scan.numba_cpu.openmp import thread, threads
from torchplastic.ops.plastic_scan.numba_cpu.record import array, fields, mask, number
from torchplastic.ops.plastic_scan.numba_cpu.simd import LINE, load, splat, store, total

Array = Any  # array.Array, of the dtype of w


@inner
def move_on(H: Array, u: Array, d: Array, s: Array, out: Array) -> None:
    """`out = d * H + u (x) s`; out may be H."""
    rows, M = H.shape
    for i in range(rows):
        u_i = splat(u[i])
        for j in range(0, M, LINE):
            store(out, i * M + j, load(d, j) * load(H, i * M + j) + u_i * load(s, j))


@inner
def move_on_and_recall(
    H: Array, before: Array, d: Array, s: Array, u: Array, w: Array, alpha: Array, a: Array, out: Array
) -> None:
    """`out = d * H + before (x) s`, and `a += u @ (w + alpha * out)`; out may be H."""
    N, M = w.shape
    i = 0
    while i + 4 <= N:
        b0, b1, b2, b3 = splat(before[i]), splat(before[i + 1]), splat(before[i + 2]), splat(before[i + 3])
        u0, u1, u2, u3 = splat(u[i]), splat(u[i + 1]), splat(u[i + 2]), splat(u[i + 3])
        for j in range(0, M, LINE):
            k0 = i * M + j
            k1, k2, k3 = k0 + M, k0 + 2 * M, k0 + 3 * M
            decay, source = load(d, j), load(s, j)
            h0, h1 = decay * load(H, k0) + b0 * source, decay * load(H, k1) + b1 * source
            h2, h3 = decay * load(H, k2) + b2 * source, decay * load(H, k3) + b3 * source
            now = load(a, j) + u0 * (load(w, k0) + load(alpha, k0) * h0) + u1 * (load(w, k1) + load(alpha, k1) * h1)
            now = now + u2 * (load(w, k2) + load(alpha, k2) * h2) + u3 * (load(w, k3) + load(alpha, k3) * h3)
            store(out, k0, h0)
            store(out, k1, h1)
            store(out, k2, h2)
            store(out, k3, h3)
            store(a, j, now)
        i += 4
    while i < N:
        b0, u0 = splat(before[i]), splat(u[i])
        for j in range(0, M, LINE):
            k0 = i * M + j
            h0 = load(d, j) * load(H, k0) + b0 * load(s, j)
            store(a, j, load(a, j) + u0 * (load(w, k0) + load(alpha, k0) * h0))
            store(out, k0, h0)
        i += 1


FORWARD = fields(
    "tanh_at T B N M R chunk chunks threads rule nonlinearity settle drive clamp w alpha eta x H out kept pending sums"
)


@kernel
def forward(args: Any) -> None:
    """All steps of all examples.

    drive `[T, B, N]`; clamp bool `[T, B, N]` or none; w, alpha `[≥ N, M]`; eta `[M]`; x `[T + 1, B, M]`, of which x[0]
    is given and the rest is made; H `[B, N, M]`, the trace at the start; out, which may be H, that of the end; kept
    `[chunks, B, R, M]` or none: the traces before steps 0, chunk, 2 chunk, …; pending `[B, 3, M]`: u, d and s of the
    trace's next update, which runs with the step after it, the last one only if `settle`; sums `[threads, M]`, of
    zeros; tanh_at as in `activate`.
    """
    F = FORWARD
    T, B, N, M = number(args, F.T), number(args, F.B), number(args, F.N), number(args, F.M)
    rule, nonlinearity, chunk = number(args, F.rule), number(args, F.nonlinearity), number(args, F.chunk)
    drive, clamp = array(args, F.drive, (T, B, N)), mask(args, F.clamp, (present(args, F.clamp, T), B, N))
    w, alpha, eta = array(args, F.w, (N, M)), array(args, F.alpha, (N, M)), array(args, F.eta, (M,))
    x, H, out = array(args, F.x, (T + 1, B, M)), array(args, F.H, (B, N, M)), array(args, F.out, (B, N, M))
    kept = array(args, F.kept, (number(args, F.chunks), B, number(args, F.R), M))
    pending, sums = array(args, F.pending, (B, 3, M)), array(args, F.sums, (number(args, F.threads), M))
    tanh_at = number(args, F.tanh_at)
    me, team = thread(), threads()
    a = sums[me]
    for b in range(B * me // team, B * (me + 1) // team):
        trace, before, d, s = H[b], pending[b, 0], pending[b, 1], pending[b, 2]
        for t in range(T):
            u, v = x[t, b], x[t + 1, b]
            for j in range(N):
                a[j] = drive[t, b, j]
            move_on_and_recall(trace, before, d, s, u, w, alpha, a, out[b])
            trace = out[b]
            if len(kept) and t % chunk == 0:
                for i in range(N):
                    row = kept[t // chunk, b, i]
                    copy(trace[i], 0, M, row)
                    row[N:] = 0  # the padding of a given trace is unspecified
            activate(nonlinearity, tanh_at, a, 0, N, M, v)
            if clamp.size:
                for j in range(N):
                    if clamp[t, b, j]:
                        v[j] = drive[t, b, j]
            decay_and_source(rule, v, eta, 0, M, d, s)
            copy(u, 0, M, before)
        if number(args, F.settle):
            move_on(trace, before, d, s, out[b])


@inner
def back(
    G: Array, d: Array, u: Array, ga: Array, w: Array, alpha: Array, gu: Array, dalpha: Array, H: Array, d1: Array,
    u1: Array, s1: Array, gd: Array, gs: Array, gu1: Array,
) -> None:  # fmt: skip
    """Through a step, and through the trace's last move before it, which is d1, u1, s1 and began at H.

    With `h = d1 * H + u1 (x) s1`, the step's own trace: `gu += (w + alpha * h) @ ga`, `dalpha += u (x) ga * h`,
    `G = d * G + alpha * u (x) ga`; then `gd = sum_i G H`, `gs = u1 @ G`, `gu1 += G @ s1`.
    """
    R, M = G.shape
    zero = splat(ga.dtype.type(0))
    for j in range(0, M, LINE):
        store(gd, j, zero)
        store(gs, j, zero)
    for i in range(0, R, 2):
        u_0, u_1, p_0, p_1 = splat(u[i]), splat(u[i + 1]), splat(u1[i]), splat(u1[i + 1])
        sum_0 = sum_1 = more_0 = more_1 = zero
        for j in range(0, M, LINE):
            k0 = i * M + j
            k1 = k0 + M
            now, source, decay, decay1 = load(ga, j), load(s1, j), load(d, j), load(d1, j)
            e_0, e_1, c_0, c_1 = load(H, k0), load(H, k1), load(alpha, k0), load(alpha, k1)
            h_0, h_1, n_0, n_1 = decay1 * e_0 + p_0 * source, decay1 * e_1 + p_1 * source, u_0 * now, u_1 * now
            sum_0 = sum_0 + now * (load(w, k0) + c_0 * h_0)
            sum_1 = sum_1 + now * (load(w, k1) + c_1 * h_1)
            g_0, g_1 = decay * load(G, k0) + c_0 * n_0, decay * load(G, k1) + c_1 * n_1
            store(dalpha, k0, load(dalpha, k0) + n_0 * h_0)
            store(dalpha, k1, load(dalpha, k1) + n_1 * h_1)
            store(G, k0, g_0)
            store(G, k1, g_1)
            more_0 = more_0 + g_0 * source
            more_1 = more_1 + g_1 * source
            store(gd, j, load(gd, j) + g_0 * e_0 + g_1 * e_1)
            store(gs, j, load(gs, j) + p_0 * g_0 + p_1 * g_1)
        gu[i] += total(sum_0)
        gu[i + 1] += total(sum_1)
        gu1[i] += total(more_0)
        gu1[i + 1] += total(more_1)


@inner
def sums_of_trace(G: Array, H: Array, u: Array, s: Array, gd: Array, gs: Array, gu: Array) -> None:
    """Through the trace's last move alone: `gd = sum_i G H`, `gs = u @ G`, `gu += G @ s`."""
    R, M = G.shape
    zero = splat(s.dtype.type(0))
    for j in range(0, M, LINE):
        store(gd, j, zero)
        store(gs, j, zero)
    for i in range(R):
        u_i, more = splat(u[i]), zero
        for j in range(0, M, LINE):
            g = load(G, i * M + j)
            store(gd, j, load(gd, j) + g * load(H, i * M + j))
            store(gs, j, load(gs, j) + u_i * g)
            more = more + g * load(s, j)
        gu[i] += total(more)


BACKWARD = fields(
    "T B N M R chunk chunks groups threads rule nonlinearity given x clamp w alpha eta kept G gx ga dalpha geta scratch"
    " traces"
)


@kernel
def backward(args: Any) -> None:
    """All steps of all examples, in reverse.

    x, clamp, eta, kept as in `forward`; w, alpha `[R, M]`; G `[B, R, M]`, the adjoint of the trace at the end, zero
    where none is given, becomes that of the start; gx `[T + 1, B, M]`, the adjoint of the outputs, is completed, gx[0]
    is that of the initial hidden; made are ga `[T, B, M]`, the adjoint of what each step adds up, and sums for each
    group of examples, dalpha `[groups, R, M]` and geta `[groups, M]`; scratch `[threads, 7, M]` of zeros, traces
    `[threads, chunk, R, M]`.
    """
    F = BACKWARD
    T, B, N, M, R = number(args, F.T), number(args, F.B), number(args, F.N), number(args, F.M), number(args, F.R)
    rule, nonlinearity, chunk = number(args, F.rule), number(args, F.nonlinearity), number(args, F.chunk)
    groups, count = number(args, F.groups), number(args, F.threads)
    x, clamp, eta = (
        array(args, F.x, (T + 1, B, M)),
        mask(args, F.clamp, (present(args, F.clamp, T), B, N)),
        array(args, F.eta, (M,)),
    )
    w, alpha = array(args, F.w, (R, M)), array(args, F.alpha, (R, M))
    kept, G = array(args, F.kept, (number(args, F.chunks), B, R, M)), array(args, F.G, (B, R, M))
    gx, ga = array(args, F.gx, (T + 1, B, M)), array(args, F.ga, (T, B, M))
    dalpha, geta = array(args, F.dalpha, (groups, R, M)), array(args, F.geta, (groups, M))
    scratch, traces = array(args, F.scratch, (count, 7, M)), array(args, F.traces, (count, chunk, R, M))
    given = number(args, F.given)
    me, team = thread(), threads()
    d, d1, s1, none, gd, gs = (
        scratch[me, 0], scratch[me, 1], scratch[me, 2], scratch[me, 3], scratch[me, 4], scratch[me, 5]
    )  # fmt: skip
    H = traces[me]
    for group in range(me, groups, team):
        dalpha[group] = 0
        geta[group] = 0
        for b in range(B * group // groups, B * (group + 1) // groups):
            d1[:] = 1
            for t in range(T, -1, -1):
                copy(d1, 0, M, d)
                before = t - 1  # the step whose move of the trace comes next
                start = max(before, 0) // chunk * chunk
                if t == T or before == start + chunk - 1:
                    for i in range(R):
                        copy(kept[start // chunk, b, i], 0, M, H[0, i])
                    for k in range(start, before):
                        decay_and_source(rule, x[k + 1, b], eta, 0, M, d1, s1)
                        move_on(H[k - start], x[k, b], d1, s1, H[k + 1 - start])
                if t > 0:
                    decay_and_source(rule, x[t, b], eta, 0, M, d1, s1)
                else:
                    d1[:] = 1
                    s1[:] = 0
                u1 = none if t == 0 else x[before, b]
                gu1 = scratch[me, 6] if t == 0 else gx[before, b]
                if t < T:
                    back(
                        G[b], d, x[t, b], ga[t, b], w, alpha, gx[t, b], dalpha[group], H[max(before, 0) - start], d1,
                        u1, s1, gd, gs, gu1,
                    )  # fmt: skip
                elif given:
                    sums_of_trace(G[b], H[before - start], u1, s1, gd, gs, gu1)
                else:
                    gd[:] = 0
                    gs[:] = 0
                if t == 0:
                    continue
                v, gv, now = x[t, b], gx[t, b], ga[before, b]
                through_the_rule(rule, v, eta, 0, M, gd, gs, gv, geta[group])
                through_the_activation(nonlinearity, v, gv, 0, M, now)
                if clamp.size:
                    for j in range(clamp.shape[2]):
                        if clamp[before, b, j]:
                            now[j] = 0


TABLE.update(recurrent_forward=(forward, "r"), recurrent_backward=(backward, "r"))
