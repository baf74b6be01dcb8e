"""The recurrence on a GPU, in Triton: what `persistent.py` and `fused.py` launch.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`; rows that are stored M long have zeros behind
the last neuron. i are presynaptic neurons, j postsynaptic ones. Letters as in README.md of plastic_scan.
"""

from __future__ import annotations

import triton
import triton.language as tl

RULES = {"hebb": 0, "oja": 1}
NONLINEARITIES = {"identity": 0, "tanh": 1, "relu": 2, "sigmoid": 3}
HEBB, OJA = tl.constexpr(0), tl.constexpr(1)
TANH, RELU, SIGMOID = tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)

# flags of a step
IS_FREE, PASSES_ON = 1, 2
FREE = tl.constexpr(IS_FREE)  # its neurons are computed, not all are clamped
PASS_ON = tl.constexpr(PASSES_ON)  # dL/dx of the step before it is wanted


@triton.jit
def tanh(a):
    """Near 0 by its continued fraction, because 1 - exp(-2a) has few digits there."""
    size = tl.abs(a)
    e = tl.exp(-2 * size)
    far = (1 - e) / (1 + e)
    near = tl.minimum(size, 0.5)
    q = near * near
    r = 1 + q / (3 + q / (5 + q / (7 + q / (9 + q / (11 + q / (13 + q / (15 + q / 17)))))))
    size_of = tl.where(size < 0.5, near / r, far)
    return tl.where(a < 0, -size_of, size_of)


@triton.jit
def nonlinear(a, F: tl.constexpr):
    """f(a)."""
    if F == TANH:
        a = tanh(a)
    elif F == RELU:
        a = tl.maximum(a, 0.0)
    elif F == SIGMOID:
        e = tl.exp(-tl.abs(a))
        a = tl.where(a < 0, e, 1) / (1 + e)
    return a


@triton.jit
def slope(v, F: tl.constexpr):
    """f'(a), from v = f(a)."""
    if F == TANH:
        v = 1 - v * v
    elif F == RELU:
        v = tl.where(v > 0, 1.0, 0.0).to(v.dtype)
    elif F == SIGMOID:
        v = v * (1 - v)
    else:
        v = v * 0 + 1
    return v


@triton.jit
def decay(v, eta, RULE: tl.constexpr):
    """d of the rule; its s is eta * v."""
    return 1 - eta * v * v if RULE == OJA else 1 - eta


@triton.jit
def arrive(counter):
    """Signal the other programs of the example that this one has written its results."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release")


@triton.jit
def wait(counter, target):
    """Wait for `target` arrivals; everything written before them is then visible."""
    while tl.atomic_add(counter, 0, sem="acquire") < target:
        pass
    tl.debug_barrier()


@triton.jit
def resident_forward(
    drive, clamp, w, alpha, eta, trace, flags, x, kept, final, arrived,
    T, B, N, M, chunk, blocks, first_program,
    RULE: tl.constexpr, F: tl.constexpr, CLAMP: tl.constexpr, KEEP: tl.constexpr,
    R: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """A whole episode. A program owns R postsynaptic neurons of one example, and holds their w, alpha and trace.

    drive `[T, B, N]`; clamp uint8 of the same shape, where CLAMP; w, alpha `[N, M]`; eta `[N]`; trace, final
    `[B, N, M]`; flags int8 `[T]`; x `[T + 1, B, M]`, with the outputs of fully clamped steps in it; kept
    `[chunks, B, N, M]`, where KEEP; arrived int32 `[B]`, zeros.
    """
    program = tl.program_id(0) + first_program
    b = program // blocks
    j = (program % blocks) * R + tl.arange(0, R)
    i = tl.arange(0, BN)
    tile = i[:, None] * M + j[None, :]
    inside = (i < N)[:, None] & (j < M)[None, :]
    matrix = (N * M).to(tl.int64)
    W = tl.load(w + tile, mask=inside, other=0)
    A = tl.load(alpha + tile, mask=inside, other=0)
    H = tl.load(trace + b * matrix + tile, mask=inside, other=0)
    eta_j = tl.load(eta + j, mask=j < N, other=0)
    what = tl.load(flags)
    now = tl.load(drive + b * N + j, mask=j < N, other=0)
    met = 0
    for t in range(T):
        if KEEP and t % chunk == 0:
            tl.store(kept + ((t // chunk) * B + b) * matrix + tile, H, mask=inside)
        u = tl.load(x + (t * B + b) * M + i, mask=i < M, other=0, cache_modifier=".cg")
        is_free = (what & FREE) != 0
        after = x + ((t + 1) * B + b) * M + j
        if is_free:
            v = nonlinear(tl.sum(u[:, None] * (W + A * H), axis=0) + now, F)
            if CLAMP:
                held = tl.load(clamp + (t * B + b) * N + j, mask=j < N, other=0)
                v = tl.where(held != 0, now, v)
            v = tl.where(j < N, v, 0)
            tl.store(after, v, mask=j < M)
            arrive(arrived + b)
            met += blocks
        else:
            v = tl.load(after, mask=j < M, other=0)
        # while the others arrive: update the trace, and load this program's part of the next step
        H = decay(v, eta_j, RULE)[None, :] * H + u[:, None] * (eta_j * v)[None, :]
        ahead = tl.minimum(t + 1, T - 1)
        what = tl.load(flags + ahead)
        now = tl.load(drive + (ahead * B + b) * N + j, mask=j < N, other=0)
        if is_free:
            wait(arrived + b, met)
    tl.store(final + b * matrix + tile, H, mask=inside)


@triton.jit
def resident_backward(
    x, clamp, w, alpha, eta, flags, kept, g_y, g_trace, g_a, g_drive, g_alpha, g_eta, g_hidden, partial, arrived,
    T, B, N, M, chunk, blocks, first_program,
    RULE: tl.constexpr, F: tl.constexpr, CLAMP: tl.constexpr, NEED_DRIVE: tl.constexpr, NEED_ETA: tl.constexpr,
    R: tl.constexpr, BN: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    """The same episode in reverse. A program holds its columns of alpha, G and dL/dalpha.

    The trace that a step read is made again from the one kept at its chunk's start. dL/dx of a step is a sum over
    postsynaptic neurons, so over programs: each writes its part into `partial`, and reads the parts of its own neurons.

    g_y `[T, B, N]`; g_trace `[B, N, M]`, dL/d(final trace), becomes that of the initial one; written: g_a (dL/d(input
    of f)), g_drive `[T, B, N]`, g_alpha `[B, N, M]`, g_eta, g_hidden `[B, N]`; partial `[2, B, blocks, M]`; BQ is a
    power of two, at least blocks.
    """
    program = tl.program_id(0) + first_program
    b, block = program // blocks, program % blocks
    j = block * R + tl.arange(0, R)
    i = tl.arange(0, BN)
    q = tl.arange(0, BQ)
    tile = i[:, None] * M + j[None, :]
    inside = (i < N)[:, None] & (j < M)[None, :]
    mine = j < N
    matrix = (N * M).to(tl.int64)
    A = tl.load(alpha + tile, mask=inside, other=0)
    G = tl.load(g_trace + b * matrix + tile, mask=inside, other=0)
    GA = tl.zeros_like(A)
    eta_j = tl.load(eta + j, mask=mine, other=0)
    eta_sum = tl.zeros_like(eta_j)
    g_v = tl.load(g_y + ((T - 1) * B + b) * N + j, mask=mine, other=0)
    met = 0
    for back in range(T):
        t = T - 1 - back
        what = tl.load(flags + t)
        u = tl.load(x + (t * B + b) * M + i, mask=i < M, other=0)
        v = tl.load(x + ((t + 1) * B + b) * M + j, mask=j < M, other=0)
        d, s = decay(v, eta_j, RULE), eta_j * v
        at = (t * B + b) * N + j
        ga = tl.zeros_like(v)
        parts = tl.zeros_like(u)
        if ((what & FREE) != 0) or NEED_DRIVE or NEED_ETA:
            gs = tl.sum(u[:, None] * G, axis=0)
            if ((what & FREE) != 0) or RULE == OJA or NEED_ETA:
                start = (t // chunk) * chunk
                L = tl.full([R], 1, v.dtype)
                H = tl.zeros_like(A)
                for earlier in range(t - start):
                    k = t - 1 - earlier
                    u_k = tl.load(x + (k * B + b) * M + i, mask=i < M, other=0)
                    v_k = tl.load(x + ((k + 1) * B + b) * M + j, mask=j < M, other=0)
                    H += u_k[:, None] * (L * eta_j * v_k)[None, :]
                    L = L * decay(v_k, eta_j, RULE)
                H += L[None, :] * tl.load(kept + ((t // chunk) * B + b) * matrix + tile, mask=inside, other=0)
                gd = tl.zeros_like(gs)
                if RULE == OJA or NEED_ETA:
                    gd = tl.sum(G * H, axis=0)
                if RULE == OJA:
                    g_v += eta_j * (gs - 2 * v * gd)
                    eta_sum += v * gs - v * v * gd
                else:
                    g_v += eta_j * gs
                    eta_sum += v * gs - gd
                if (what & FREE) != 0:
                    ga = g_v * slope(v, F)
                    if CLAMP:
                        held = tl.load(clamp + at, mask=mine, other=1)
                        ga = tl.where(held != 0, 0, ga)
                    ga = tl.where(mine, ga, 0)
                    GA += u[:, None] * ga[None, :] * H
                    W = tl.load(w + tile, mask=inside, other=0)
                    parts = tl.sum((W + A * H) * ga[None, :], axis=1)
            else:
                g_v += eta_j * gs
        tl.store(g_a + at, ga, mask=mine)
        if NEED_DRIVE:
            given = ga
            if (what & FREE) == 0:
                given = g_v
            elif CLAMP:
                held = tl.load(clamp + at, mask=mine, other=1)
                given = tl.where(held != 0, g_v, ga)
            tl.store(g_drive + at, given, mask=mine)
        where = partial + (((met // blocks) % 2 * B + b) * blocks) * M
        if (what & PASS_ON) != 0:
            parts += tl.sum(G * s[None, :], axis=1)
            tl.store(where + block * M + i, parts, mask=i < M)
            arrive(arrived + b)
            met += blocks
        G = d[None, :] * G + A * (u[:, None] * ga[None, :])
        g_v = tl.load(g_y + ((t - 1) * B + b) * N + j, mask=mine & (t + 0 * j > 0), other=0)  # nothing before step 0
        if (what & PASS_ON) != 0:
            wait(arrived + b, met)
            all_parts = where + q[:, None] * M + j[None, :]
            asked = (q < blocks)[:, None] & (j < M)[None, :]
            g_v += tl.sum(tl.load(all_parts, mask=asked, other=0, cache_modifier=".cg"), axis=0)
    tl.store(g_trace + b * matrix + tile, G, mask=inside)
    tl.store(g_alpha + b * matrix + tile, GA, mask=inside)
    tl.store(g_eta + b * N + j, eta_sum, mask=mine)
    tl.store(g_hidden + b * N + j, g_v, mask=mine)


@triton.jit(do_not_specialize=["t", "k"])
def step_forward(
    x, drive, clamp, w, alpha, eta, trace, z, S, L, uP,
    t, k, B, N, M,
    RULE: tl.constexpr, F: tl.constexpr, CLAMP: tl.constexpr, ZERO: tl.constexpr, MORE: tl.constexpr,
    BB: tl.constexpr, R: tl.constexpr, BN: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Free step k of a chunk, step t of all: a program computes R postsynaptic neurons of BB examples.

    w, alpha and the trace at the chunk's start are read once: u W, u P, and z(k, l) of the k earlier steps l.
    x `[T + 1, B, M]`, read at t, written at t + 1; drive, clamp `[T, B, N]`; trace `[B, N, N]`, zero and not read where
    ZERO; z `[pairs, B, N]` and uP `[B, N]` of this step, written; S `[pairs, B, N]`, L `[B, N]` as in README.md,
    moved on to the next step where MORE. PAIRS: 1 where k is 0, else a power of two not below k, at least 16.
    """
    example = tl.program_id(0) * BB + tl.arange(0, BB)
    j = tl.program_id(1) * R + tl.arange(0, R)
    row = tl.arange(0, BB * PAIRS)
    row_example, row_step = tl.program_id(0) * BB + row // PAIRS, row % PAIRS
    row_there = (row_example < B) & (row_step < k)
    from_w = tl.zeros([BB, BN, R], w.dtype.element_ty)
    from_p = tl.zeros([BB, BN, R], w.dtype.element_ty)
    table = tl.zeros([BB * PAIRS, R], w.dtype.element_ty)
    now_of = x + (t * B + example) * M
    for start in range(0, N, BN):
        i = start + tl.arange(0, BN)
        tile = i.to(tl.int64)[:, None] * N + j[None, :]
        inside = (i < N)[:, None] & (j < N)[None, :]
        u = tl.load(now_of[:, None] + i[None, :], mask=(example < B)[:, None] & (i < N)[None, :], other=0)
        W = tl.load(w + tile, mask=inside, other=0)
        from_w += u[:, :, None] * W[None]
        if (not ZERO) or PAIRS > 1:
            A = tl.load(alpha + tile, mask=inside, other=0)
            if not ZERO:
                of_examples = example.to(tl.int64)[:, None, None] * N * N + tile[None]
                there = (example < B)[:, None, None] & inside[None]
                from_p += u[:, :, None] * (A[None] * tl.load(trace + of_examples, mask=there, other=0))
            if PAIRS > 1:
                asked = row_there[:, None] & (i < N)[None, :]
                then = tl.load(
                    x + ((t - k + row_step) * B + row_example)[:, None] * M + i[None, :], mask=asked, other=0
                )
                same = tl.load(x + (t * B + row_example)[:, None] * M + i[None, :], mask=asked, other=0)
                table = tl.dot(then * same, A, table, input_precision="ieee", out_dtype=w.dtype.element_ty)
    neurons = (example < B)[:, None] & (j < N)[None, :]
    at = example[:, None] * N + j[None, :]
    a, p = tl.sum(from_w, axis=1), tl.sum(from_p, axis=1)
    tl.store(uP + at, p, mask=neurons)
    if not ZERO:
        a += p * tl.load(L + at, mask=neurons, other=0)
    rows = (row_step * B + row_example)[:, None] * N + j[None, :]
    rows_there = row_there[:, None] & (j < N)[None, :]
    held_back = tl.load(S + rows, mask=rows_there, other=0)
    tl.store(z + rows, table, mask=rows_there)
    a += tl.sum(tl.reshape(table * held_back, [BB, PAIRS, R]), axis=1)
    now = tl.load(drive + t * B * N + at, mask=neurons, other=0)
    v = nonlinear(a + now, F)
    if CLAMP:
        v = tl.where(tl.load(clamp + t * B * N + at, mask=neurons, other=0) != 0, now, v)
    tl.store(x + ((t + 1) * B + example)[:, None] * M + j[None, :], v, mask=neurons)
    if MORE:
        eta_j = tl.load(eta + j, mask=j < N, other=0)[None, :]
        d = decay(v, eta_j, RULE) + v * 0
        every = tl.reshape(tl.broadcast_to(d[:, None, :], [BB, PAIRS, R]), [BB * PAIRS, R])
        tl.debug_barrier()
        tl.store(S + rows, held_back * every, mask=rows_there)
        tl.store(S + k * B * N + at, eta_j * v, mask=neurons)
        tl.store(L + at, tl.load(L + at, mask=neurons, other=0) * d, mask=neurons)


@triton.jit
def through_neurons(
    x, gx, delta, clamp, eta, gs, gd, z, LR, between, s, E,
    t, k, example, j, inner, B, N, M, between_k, between_l, between_b, between_j,
    RULE: tl.constexpr, F: tl.constexpr, CLAMP: tl.constexpr, DECAY: tl.constexpr,
):  # fmt: skip
    """Free step k of a chunk, step t of all, back through the rule and the nonlinearity, for some neurons j.

    Completes gx of its output and delta, adds to gs and gd of the k earlier steps l, and writes E of the pairs (k, l),
    `L(l..k) s_l delta_k`. DECAY: gd is wanted. Shapes as in `step_backward`.
    """
    neurons = (example < B)[:, None] & (j < N)[None, :]
    at = example[:, None] * N + j[None, :]
    at_in_lines = example[:, None] * M + j[None, :]
    step, step_in_lines = B * N, B * M
    eta_j = tl.load(eta + j, mask=j < N, other=0)[None, :]
    v = tl.load(x + (t + 1) * step_in_lines + at_in_lines, mask=neurons, other=0)
    g_v = tl.load(gx + (t + 1) * step + at, mask=neurons, other=0)
    g_s = tl.load(gs + k * step + at, mask=neurons, other=0)
    if RULE == OJA:
        g_v += eta_j * (g_s - 2 * v * tl.load(gd + k * step + at, mask=neurons, other=0))
    else:
        g_v += eta_j * g_s
    tl.debug_barrier()  # all have read gx
    tl.store(gx + (t + 1) * step + at, g_v, mask=neurons)
    g_a = g_v * slope(v, F)
    if CLAMP:
        g_a = tl.where(tl.load(clamp + t * step + at, mask=neurons, other=0) != 0, 0, g_a)
    tl.store(delta + t * step_in_lines + at_in_lines, g_a, mask=neurons)
    of_pairs = between + k * between_k + example[:, None] * between_b + j[None, :] * between_j
    for earlier in range(k):
        row, pair = earlier * step + at, (k * inner + earlier) * step + at
        decayed = g_a * tl.load(of_pairs + earlier * between_l, mask=neurons, other=0)
        more = decayed * tl.load(z + pair, mask=neurons, other=0)
        tl.store(gs + row, tl.load(gs + row, mask=neurons, other=0) + more, mask=neurons)
        if DECAY:
            more = g_a * tl.load(LR + pair, mask=neurons, other=0)
            tl.store(gd + row, tl.load(gd + row, mask=neurons, other=0) + more, mask=neurons)
        held = E + ((k % 2) * inner + earlier) * step_in_lines + at_in_lines
        tl.store(held, decayed * tl.load(s + row, mask=neurons, other=0), mask=neurons)


@triton.jit(do_not_specialize=["t", "k"])
def last_step_backward(
    x, gx, delta, clamp, eta, gs, gd, z, LR, between, s, E,
    t, k, inner, B, N, M, between_k, between_l, between_b, between_j,
    RULE: tl.constexpr, F: tl.constexpr, CLAMP: tl.constexpr, DECAY: tl.constexpr, BB: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """`through_neurons` of the last free step of a chunk, which no step's matrices come before."""
    example = tl.program_id(0) * BB + tl.arange(0, BB)
    j = tl.program_id(1) * R + tl.arange(0, R)
    through_neurons(
        x, gx, delta, clamp, eta, gs, gd, z, LR, between, s, E,
        t, k, example, j, inner, B, N, M, between_k, between_l, between_b, between_j, RULE, F, CLAMP, DECAY,
    )  # fmt: skip


@triton.jit(do_not_specialize=["t", "k"])
def step_backward(
    x, gx, delta, clamp, w, alpha, eta, trace, L, gs, gd, z, LR, between, s, E,
    t, k, inner, B, N, M, between_k, between_l, between_b, between_j,
    RULE: tl.constexpr, F: tl.constexpr, CLAMP: tl.constexpr, DECAY: tl.constexpr, ZERO: tl.constexpr,
    BB: tl.constexpr, R: tl.constexpr, BN: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Free step k of a chunk, step t of all, back through the matrices; then step k - 1 through its neurons.

    A program owns R presynaptic neurons of BB examples; w, alpha and the trace at the chunk's start are read once.
    x `[T + 1, B, M]`; delta `[T, B, M]`; gx `[T + 1, B, N]`; clamp `[T, B, N]`; trace `[B, N, N]`; L `[B, N]` of this
    step; gs, gd, s `[≥ inner, B, N]`; z, LR `[F, inner, B, N]`; between `[F, inner, …]` with these strides; E
    `[2, inner, B, M]`, the pairs of this step and of the next in turn. PAIRS as in `step_forward`.
    """
    example = tl.program_id(0) * BB + tl.arange(0, BB)
    i = tl.program_id(1) * R + tl.arange(0, R)
    row = tl.arange(0, BB * PAIRS)
    row_example, row_step = tl.program_id(0) * BB + row // PAIRS, row % PAIRS
    row_there = (row_example < B) & (row_step < k)
    total = tl.zeros([BB, R, BN], w.dtype.element_ty)
    q = tl.zeros([BB * PAIRS, R], w.dtype.element_ty)
    for start in range(0, N, BN):
        j = start + tl.arange(0, BN)
        tile = i.to(tl.int64)[:, None] * N + j[None, :]
        inside = (i < N)[:, None] & (j < N)[None, :]
        posts = (example < B)[:, None] & (j < N)[None, :]
        g = tl.load(delta + (t * B + example)[:, None] * M + j[None, :], mask=posts, other=0)
        total += g[:, None, :] * tl.load(w + tile, mask=inside, other=0)[None]
        if (not ZERO) or PAIRS > 1:
            A = tl.load(alpha + tile, mask=inside, other=0)
            if not ZERO:
                decayed = g * tl.load(L + example[:, None] * N + j[None, :], mask=posts, other=0)
                of_examples = example.to(tl.int64)[:, None, None] * N * N + tile[None]
                there = (example < B)[:, None, None] & inside[None]
                total += decayed[:, None, :] * (A[None] * tl.load(trace + of_examples, mask=there, other=0))
            if PAIRS > 1:
                asked = row_there[:, None] & (j < N)[None, :]
                at = (((k % 2) * inner + row_step) * B + row_example)[:, None] * M + j[None, :]
                q = tl.dot(
                    tl.load(E + at, mask=asked, other=0),
                    tl.trans(A),
                    q,
                    input_precision="ieee",
                    out_dtype=w.dtype.element_ty,
                )
    presynaptic = i[None, :]
    asked = row_there[:, None] & (i < N)[None, :]
    u_l = tl.load(x + ((t - k + row_step) * B + row_example)[:, None] * M + presynaptic, mask=asked, other=0)
    u_k = tl.load(x + (t * B + row_example)[:, None] * M + presynaptic, mask=asked, other=0)
    neurons = (example < B)[:, None] & (i < N)[None, :]
    own = gx + (t * B + example)[:, None] * N + presynaptic
    g_u = tl.sum(total, axis=2) + tl.sum(tl.reshape(u_l * q, [BB, PAIRS, R]), axis=1)
    tl.store(own, tl.load(own, mask=neurons, other=0) + g_u, mask=neurons)
    theirs = gx + ((t - k + row_step) * B + row_example)[:, None] * N + presynaptic
    tl.store(theirs, tl.load(theirs, mask=asked, other=0) + u_k * q, mask=asked)
    if PAIRS > 1:
        tl.debug_barrier()
        through_neurons(
            x, gx, delta, clamp, eta, gs, gd, z, LR, between, s, E,
            t - 1, k - 1, example, i, inner, B, N, M,
            between_k, between_l, between_b, between_j, RULE, F, CLAMP, DECAY,
        )  # fmt: skip


@triton.jit(do_not_specialize=["steps"])
def next_trace(
    trace, total, U, E, out, steps, N, M, total_b, total_j, ZERO: tl.constexpr, R: tl.constexpr, BN: tl.constexpr
):
    """`out = total * trace + sum over steps of U (x) E`, all `[B, N, N]`; U `[steps, B, M]`, E `[steps, B, N]`."""
    b, B = tl.program_id(2), tl.num_programs(2)
    i = tl.program_id(0) * R + tl.arange(0, R)
    j = tl.program_id(1) * BN + tl.arange(0, BN)
    tile = b.to(tl.int64) * N * N + i.to(tl.int64)[:, None] * N + j[None, :]
    inside = (i < N)[:, None] & (j < N)[None, :]
    if ZERO:
        H = tl.zeros([R, BN], trace.dtype.element_ty)
    else:
        scale = tl.load(total + b * total_b + j * total_j, mask=j < N, other=0)
        H = scale[None, :] * tl.load(trace + tile, mask=inside, other=0)
    for l in range(steps):
        u = tl.load(U + (l * B + b) * M + i, mask=i < N, other=0)
        e = tl.load(E + (l * B + b) * N + j, mask=j < N, other=0)
        H += u[:, None] * e[None, :]
    tl.store(out + tile, H, mask=inside)


@triton.jit(do_not_specialize=["t", "steps"])
def through_the_trace(
    trace, alpha, x, delta, eta, total, G, g_alpha, t, steps, B, N, M, total_b, total_j,
    RULE: tl.constexpr, ZERO: tl.constexpr, FRESH: tl.constexpr, CARRY: tl.constexpr, LEARN: tl.constexpr,
    R: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The free steps t … t + steps - 1 of a chunk: `G = total * G + alpha * sum of u (x) (L * delta)`, and dL/dalpha.

    `g_alpha += sum of (u (x) delta) * H_k`, with the traces H_k that the steps read made one after the other.
    CARRY: G is needed; FRESH: it is zero before, and not read. LEARN: alpha learns; ZERO: the trace is zero.
    """
    i = tl.program_id(0) * R + tl.arange(0, R)
    j = tl.program_id(1) * BN + tl.arange(0, BN)
    tile = i.to(tl.int64)[:, None] * N + j[None, :]
    inside = (i < N)[:, None] & (j < N)[None, :]
    eta_j = tl.load(eta + j, mask=j < N, other=0)
    if CARRY:
        A = tl.load(alpha + tile, mask=inside, other=0)
    learned = tl.zeros([R, BN], alpha.dtype.element_ty)
    example = tile
    for b in range(B):
        product = tl.zeros([R, BN], alpha.dtype.element_ty)
        H = tl.zeros([R, BN], alpha.dtype.element_ty)
        if LEARN and not ZERO:
            H = tl.load(trace + example, mask=inside, other=0)
        L = tl.full([BN], 1, alpha.dtype.element_ty)
        for k in range(steps):
            now = ((t + k) * B + b) * M
            u = tl.load(x + now + i, mask=i < N, other=0)
            v = tl.load(x + now + B * M + j, mask=j < N, other=0)
            g = tl.load(delta + now + j, mask=j < N, other=0)
            d = decay(v, eta_j, RULE)
            if CARRY:
                product += u[:, None] * (L * g)[None, :]
                L = L * d
            if LEARN:
                learned += u[:, None] * g[None, :] * H
                H = d[None, :] * H + u[:, None] * (eta_j * v)[None, :]
        if CARRY:
            back = A * product
            if not FRESH:
                scale = tl.load(total + b * total_b + j * total_j, mask=j < N, other=0)
                back += scale[None, :] * tl.load(G + example, mask=inside, other=0)
            tl.store(G + example, back, mask=inside)
        example += N * N
    if LEARN:
        tl.store(g_alpha + tile, tl.load(g_alpha + tile, mask=inside, other=0) + learned, mask=inside)
