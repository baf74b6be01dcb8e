"""The backward pass of the chunked algorithm in PyTorch, written by hand. README.md derives it.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`, vectors are rows over neurons.
Steps of a chunk: k is the current one, l an earlier, m a later one; n in all, F of them free, the others fully clamped.
G groups of steps that share u: each free step is a group, and so is a run clamped to one pattern.
u_k = x(k-1) pre, v_k = x(k) post;  H' = d * H + u (x) s;  L(l..k) is the product of d over the steps
between l and k, L_k over those before k.  A leading g is dL/d…: gs, gd, gu, gv; G belongs to the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torchplastic.ops import cpu_cache
from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan.chunked import algebra
from torchplastic.ops.plastic_scan.chunked.forward import Kept, Scan
from torchplastic.ops.plastic_scan.schedule import Chunk
from torchplastic.ops.plastic_scan.spec import Call, Grads


class Tables(NamedTuple):
    """What the free steps of a chunk read in the backward pass; k now, l earlier, i counts free steps."""

    start: int
    free: Sequence[int]
    groups: algebra.StepGroups
    U: Tensor
    """`[G, B, ≥ N]`"""
    between: Tensor
    """L(l..k) of the free steps k, `[F, inner, 1 or B, 1 or N]`"""
    s: Tensor
    """`[inner, B, N]`"""
    z: Tensor
    """By group, `[F, G, B, N]`"""
    recalled: Tensor
    """u P of the free steps, `[F, B, N]`"""
    LR: Tensor | None
    """`[F, inner, B, N]`, where d depends on v"""
    L: Tensor
    """L_k `[≥ inner, 1 or B, 1 or N]`"""


class Backward(Scan):
    """One backward pass: chunks in reverse, the free steps of each in reverse."""

    def __init__(self, call: Call, kept: Sequence[Tensor], grads: Grads) -> None:
        super().__init__(call)
        self.kept = Kept(*kept)
        self.in_lines, self.x = self.kept.x, self.kept.x[..., : len(self.w)]
        self.of_chunk = [self.groups(self.in_lines, chunk) for chunk in self.chunks]
        self.need_drive, self.need_w, self.need_alpha, self.need_eta, self.need_hidden, self.need_trace = call.needs
        self.g_eta = torch.zeros_like(self.x[0])  # dL/deta before its sum
        self.delta_in_lines = torch.zeros_like(self.in_lines[1:])
        self.delta = self.delta_in_lines[..., : len(self.w)]  # dL/d(input of the nonlinearity)
        self.gx = self.x.new_zeros(self.x.shape)  # dL/dx; row 0 belongs to the initial hidden
        g_y, g_hidden, g_trace = grads
        if g_y is not None:
            self.gx[1:] = g_y
        if g_hidden is not None:
            self.gx[-1] += g_hidden
        self.G = None if g_trace is None else cpu_cache.empty_like(g_trace).copy_(g_trace)  # None is 0
        self.M: Tensor | None = None  # scratch
        self.prepare()

    def prepare(self) -> None:
        """As in the forward pass, with room for pairs."""
        super().prepare()
        pairs = max(sum(map(g.before, c.free)) for c, g in zip(self.chunks, self.of_chunk, strict=True))
        self.g_alpha = algebra.AlphaGradient(self.alpha, len(self.trace), pairs)
        self.M = cpu_cache.empty_like(self.trace)

    def run(self) -> Grads:
        """-> gradients of drive, w, alpha, eta, hidden, trace."""
        chunks, first, row = self.chunks, 0, self.call.free_steps
        if not (self.need_drive or self.need_eta or self.need_hidden or self.need_trace):
            while first < len(chunks) and not chunks[first].free:  # fully clamped leading chunks contribute no gradient
                first += 1
        for i in reversed(range(first, len(chunks))):
            row -= len(chunks[i].free)
            self.chunk(i, row, carry=i > first or self.need_trace)

        gx, clamp, x = self.gx, self.call.clamp, self.x
        g_drive = self.delta if clamp is None or not self.need_drive else torch.where(clamp, gx[1:], self.delta)
        g_w = None
        if self.need_w:
            steps = [c.start + k for c in chunks for k in c.free]
            left, right = (algebra.take(rows, steps).flatten(0, 1) for rows in (x, self.delta))
            g_w = cpu_cache.empty(self.w.shape, self.w)
            torch.mm(left.T, right, out=g_w)
        g_eta = self.g_eta.sum(0) if self.eta.dim() else self.g_eta.sum()
        if self.need_trace and self.G is None:
            self.G = torch.zeros_like(self.trace)
        return g_drive, g_w, self.g_alpha.result(), g_eta, gx[0].clone(), self.G

    def chunk(self, i: int, row: int, carry: bool) -> None:
        """One chunk, with so many free steps before it.

        carry: whether an earlier chunk, the initial hidden or the initial trace needs G.
        """
        chunk, groups = self.chunks[i], self.of_chunk[i]
        start, stop, free = chunk
        H, zero = self.kept.traces[i - 1] if i else self.trace, self.is_zero(chunk)
        U, v = self.x[start:stop], self.x[start + 1 : stop + 1]
        gu, gv = self.gx[start:stop], self.gx[start + 1 : stop + 1]
        d, s, before, after = self.decays(v)

        # dL/du is needed if u is the output of a step whose dL/dv is needed: a free step, or any step if the
        # drive needs a gradient. The same holds for the rows of gs and gd, which eta needs too.
        wanted = [k for k in range(stop - start) if self.need_drive or (k and k - 1 in free)]
        if not self.need_drive and (self.need_hidden if start == 0 else not self.chunks[i - 1].ends_clamped):
            wanted.insert(0, 0)
        rows = stop - start if self.need_drive or self.need_eta else chunk.inner
        decay_of_v = d.shape[1:] == s.shape[1:]

        need_gd = decay_of_v or self.need_eta
        uG, sG, Q = self.products_with_g(
            None if zero or not need_gd else H,
            groups.one_of_each(U[:rows]),
            algebra.take(after * s, wanted) if wanted else None,
            one_decay(d),
        )
        uG = None if uG is None else groups.spread(uG, rows)
        gs, gd = self.from_the_end(uG, Q, s[:rows], d, after[:rows], need_gd)
        if sG is not None:
            algebra.add_to(gu, wanted, sG)
        if free:
            self.load(H, zero)
            self.inner_steps(chunk, groups, row, wanted, d[: chunk.inner], s[: chunk.inner], before, gs, gd)
            self.through_the_trace(None if zero else H, chunk, before, carry)
        elif self.G is not None and carry:
            self.G.mul_(before[-1].unsqueeze(-2))
        if self.need_drive:  # a clamped step's dL/dv is its drive's
            for low, high in chunk.clamped_runs():
                run = slice(low, high)
                gv[run] += self.vjp(v[run], None if gd is None else gd[run], gs[run])[0]
        if self.need_eta:
            self.g_eta += self.vjp(v[:rows], gd, gs)[1].sum(0)

    def inner_steps(
        self, chunk: Chunk, groups: algebra.StepGroups, row: int, wanted: list[int], d: Tensor, s: Tensor,
        before: Tensor, gs: Tensor, gd: Tensor | None,
    ) -> None:  # fmt: skip
        """The free steps of a chunk in reverse; completes delta, gx, gs and gd of its inner steps.

        row is that of the first of them in the tables, d and s are those of the inner steps, before is L_k, gs and gd
        hold the terms from the chunk's end.
        """
        start, free, inner = chunk.start, chunk.free, chunk.inner
        rows = slice(row, row + len(free))
        uP, z = self.kept.recalled[rows], self.kept.z[rows, : groups.before(inner)]
        steps = slice(start, start + inner)
        full = self.plastic.full
        every = self.decays.between(d, s)
        between = algebra.take(every, free)
        of_v = d.shape[1:] == s.shape[1:]  # d may depend on v
        in_sum = full and one_decay(d) and not of_v
        p = LR = None
        if not full or (gd is not None and not in_sum):
            p, LR = self.plastic_inputs(uP, groups.spread(z, inner, 1), s, d, between, free)
        # where d depends on v, its gradient joins dL/dv
        gd_of_v = gd[:inner] if gd is not None and of_v else None
        U = groups.one_of_each(self.x[steps])
        tables = Tables(start, free, groups, U, between, s, z, uP, None if gd_of_v is None else LR, before)
        of_constant = gd is not None and gd_of_v is None  # d is the same at all steps: the loop needs no gd
        self.free_steps(tables, wanted, gs[:inner], gd_of_v)
        self.g_alpha.keep_pairs(self.need_alpha)
        delta = self.delta[steps]
        if of_constant:
            assert gd is not None
            eps = self.plastic.vector(algebra.take(delta, free))
            if in_sum:
                sz = (groups.spread(z, inner, 1) * s).mul_(eps.unsqueeze(1)).sum(-1)
                gd[:inner, :, 0] += decay_gradient((eps * uP).sum(-1), sz, before[:inner], every, free)
            else:
                assert LR is not None
                gd[:inner] += (eps.unsqueeze(1) * LR).sum(0)
        if self.need_alpha and not full:
            assert p is not None
            self.g_alpha.add_vectors(algebra.take(delta, free), p)

    def free_steps(self, tables: Tables, wanted: list[int], gs: Tensor, gd: Tensor | None) -> None:
        """The free steps in reverse: completes delta, gx, gs and gd (where d depends on v)."""
        start, free, groups, U, between, s, z, _, LR, L = tables
        inner = len(gs)
        S, Lz = groups.sum(between * s, 1), between * groups.spread(z, inner, 1)
        steps, after = slice(start, start + inner), slice(start + 1, start + inner + 1)
        gu, delta, clamp = self.gx[steps], self.delta[steps], self.call.clamp
        df = NONLINEARITIES[self.call.nonlinearity].backward
        merged = len(U) < inner
        eps = delta if self.plastic.full else torch.zeros_like(delta)  # dL/dp
        u_rows, v_rows = self.x[steps].unbind(), self.x[after].unbind()
        gu_rows, gv_rows, gs_rows = gu.unbind(), self.gx[after].unbind(), gs.unbind()
        delta_rows, eps_rows = delta.unbind(), eps.unbind()
        for i in reversed(range(len(free))):
            k = free[i]
            g = groups.before(k)
            g_v = self.vjp(v_rows[k], None if gd is None else gd[k], gs_rows[k])[0]
            g_a = df(gv_rows[k].add_(g_v), v_rows[k])
            delta_rows[k].copy_(g_a if clamp is None else g_a.masked_fill(clamp[start + k], 0))
            if not self.plastic.full:
                torch.mul(self.alpha, delta_rows[k], out=eps_rows[k])
            if k in wanted:
                gu_rows[k].add_(self._matrices.backward(torch.stack((delta_rows[k], L[k] * eps_rows[k]))))
            if g:
                gs.addcmul_(eps_rows[k], Lz[i])  # 0 from l = k on
                if gd is not None:
                    assert LR is not None
                    gd.addcmul_(eps_rows[k], LR[i])
                right = S[i, : algebra.even(g)] * eps_rows[k]
                q = self.plastic.pairs_back(right)[:g]
                gu_rows[k].add_((U[:g] * q).sum(0))
                if merged:
                    algebra.add_to(gu, groups.first[:g], u_rows[k] * q)
                else:
                    gu[:k].addcmul_(u_rows[k], q)
                if self.plastic.full and self.need_alpha:
                    self.g_alpha.add_pairs(u_rows[k] * U[:g], right[:g])

    def vjp(self, v: Tensor, gd: Tensor | None, gs: Tensor) -> tuple[Tensor, Tensor]:
        return algebra.vjp(self.rule, v, self.eta, gd, gs)

    def products_with_g(
        self, H: Tensor | None, U: Tensor, E: Tensor | None, summed: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """`U G [n, B, N]`, `E G^T`, `colsum(G * H) [B, N]` or, summed, `[B, 1]`; None where G is 0 or a factor None."""
        if self.G is None:
            return None, None, None
        Q = None
        if H is not None:
            Q = algebra.dots(self.G, H) if summed else torch.mul(self.G, H, out=self.M).sum(-2)
        sG = None if E is None else algebra.times_transposed(E, self.G)
        return algebra.times(U, self.G).contiguous(), sG, Q

    def from_the_end(
        self, uG: Tensor | None, Q: Tensor | None, s: Tensor, d: Tensor, after: Tensor, need_gd: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The terms of gs and gd through the trace at the chunk's end: `[rows, B, N]` each.

        gs_k = L(k..n) (u_k G);  gd_k = L(k..n) Q_k with Q_k = colsum(G * H_k), updated along the chunk. If d is one
        number, only the sum of gd over the neurons counts, and the first neuron holds it.
        """
        if uG is None:
            return torch.zeros_like(s), torch.zeros_like(s) if need_gd else None
        if not need_gd:
            return after * uG, None
        gd = torch.zeros_like(uG)
        given = (s * uG).sum(-1, keepdim=True) if one_decay(d) else s * uG
        carried = [torch.zeros_like(given[0]) if Q is None else Q]
        for k in range(len(s) - 1):
            carried.append(torch.addcmul(given[k], d[k], carried[k]))
        gd[..., : given.shape[2]] = after * torch.stack(carried)
        return after * uG, gd

    def plastic_inputs(
        self, uP: Tensor, z: Tensor, s: Tensor, d: Tensor, between: Tensor, free: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """p of the free steps `[F, B, N]`, and L(k..m) R(m, k) with R(m, k) = u_m H_k (alpha inside where it is full).

        R(m, 0) = u_m P;  R(m, k+1) = d_k R(m, k) + s_k z(m, k);  p_k = R(k, k).  The table is `[m, k, B, N]`, m free.
        """
        R = [uP]
        for k in range(z.shape[1] - 1):
            R.append(torch.addcmul(s[k] * z[:, k], d[k], R[k]))
        table = torch.stack(R, 1)
        return torch.stack([table[j, k] for j, k in enumerate(free)]), between * table

    def through_the_trace(self, H: Tensor | None, chunk: Chunk, before: Tensor, carry: bool) -> None:
        """Move G to the start of a chunk if `carry`, and add to dL/dalpha of a full alpha.

        H: the trace at its start, None if it is zero; before is L_k.
        """
        rows = slice(chunk.start, chunk.stop)
        U, eps = (algebra.take(of_steps[rows], chunk.free) for of_steps in (self.x, self.plastic.vector(self.delta)))
        right, total = algebra.take(before, chunk.free) * eps, before[-1] if carry else None
        if self.G is not None and total is not None:
            self.G.mul_(total.unsqueeze(-2))
        if self.plastic.full:
            assert self.M is not None
            if H is None and total is None:
                return
            M = algebra.add_outer(self.M, U, right, beta=0)
            if total is not None:
                if self.G is None:
                    self.G = torch.mul(self.plastic.alpha, M, out=cpu_cache.empty_like(M))
                else:
                    self.G.addcmul_(self.plastic.alpha, M)
            if self.need_alpha and H is not None:
                self.g_alpha.add_matrices(H, M)
        elif total is not None:
            if self.G is None:
                self.G = algebra.add_outer(cpu_cache.empty_like(self.trace), U, right, beta=0)
            else:
                algebra.add_outer(self.G, U, right)


def one_decay(d: Tensor) -> bool:
    """Whether d `[n, 1 or B, 1 or N]` is one number per step. Then only the sum of dL/dd over the neurons counts."""
    return d.shape[1:] == (1, 1)


def decay_gradient(uP: Tensor, sz: Tensor, before: Tensor, between: Tensor, free: Sequence[int]) -> Tensor:
    """dL/dd of the inner steps through the plastic inputs of the free ones, summed over the neurons, `[inner, B]`.

    From the sums over the neurons uP of `eps_m * u_m P`, `[F, B]`, and sz of `eps_m * s_k * z(m, k)`, `[F, inner, B]`,
    with before, L_k `[inner, 1, 1]`, and between, L(l..k) of all inner steps `[k, l, 1, 1]`:
    sum_m L(k..m) r(m, k) with r(m, k) = eps_m . R(m, k), R as in `plastic_inputs` but written out:
    r(m, k) = L_k eps_m . u_m P + sum_l L(l..k) eps_m . (s_l * z(m, l)).
    """
    pairs = between[..., 0, 0]
    r = torch.addcmul(pairs @ sz, before[..., 0], uP.unsqueeze(1))
    return (algebra.take(pairs, free).unsqueeze(-1) * r).sum(0)
