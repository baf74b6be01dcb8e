"""Products, decays and the gradient of alpha, which `forward.py` and `backward.py` share.

Axes: n steps of a chunk, B batch, N neurons; matrices are `[pre, post]`, vectors are rows over neurons.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from torchplastic.ops import cpu_cache
from torchplastic.ops.plastic_scan.schedule import runs
from torchplastic.rules import Rule

PAIR_ROWS = 640  # rows of pair products that are gathered before they are multiplied into dL/dalpha
FEW_ROWS = 16  # products of at most this many rows are bound by reading the matrix
SPLIT_FROM = 1 << 16  # elements of a matrix worth two cores
BLOCK_BYTES = 1 << 20  # block of a matrix for two operations in turn: the second finds it in the cache


def blocks_of(numel: int, device: torch.device) -> int:
    """The number of blocks of rows into which a matrix of `numel` elements is split, one per core."""
    return torch.get_num_threads() if device.type == "cpu" and numel >= SPLIT_FROM else 1


def padded_width(N: int, like: Tensor) -> int:
    """N rounded up, so that the rows of an N × N matrix split evenly."""
    blocks = blocks_of(N * N, like.device)
    return -(-N // blocks) * blocks


def even(k: int) -> int:
    """k rows or one more: BLAS multiplies 4 rows faster than 3. A single row is fastest."""
    return k + k % 2 if k > 1 else k


class FewRows:
    """Products of a few rows with a fixed matrix `M [N, K]`, or its transpose.

    Such a product is bound by reading M, and BLAS runs it on one core. Blocks of M run on all cores: blocks of columns,
    or of rows if the columns do not split evenly or M is transposed. A matrix whose rows do not split evenly runs
    whole; pad it to `padded_width` rows to avoid that.
    """

    def __init__(self, M: Tensor) -> None:
        self.M = M
        count = blocks_of(M.numel(), M.device)
        split = count > 1 and M.shape[0] % count == 0
        self.blocks = M.unflatten(0, (count, -1)) if split else None
        self.transposed = self.blocks.mT if self.blocks is not None else None
        self.columns = M.unflatten(1, (count, -1)).transpose(0, 1) if split and M.shape[1] % count == 0 else None

    def times(self, U: Tensor) -> Tensor:
        """`U [n, N] @ M` -> `[n, K]`."""
        if self.blocks is None or len(U) > FEW_ROWS:
            return U @ self.M
        if self.columns is not None:
            return torch.bmm(U.expand(len(self.columns), *U.shape), self.columns).transpose(0, 1).flatten(1)
        return torch.bmm(U.view(len(U), *self.blocks.shape[:2]).transpose(0, 1), self.blocks).sum(0)

    def times_transposed(self, V: Tensor) -> Tensor:
        """`V [n, K'] @ M^T` -> `[n, N]`; if K' < K, the missing columns count as zeros."""
        if self.transposed is None or len(V) > FEW_ROWS:
            return V @ self.M[:, : V.shape[1]].T
        product = torch.bmm(V.expand(len(self.transposed), *V.shape), self.transposed[:, : V.shape[1]])
        return product.transpose(0, 1).flatten(1)


class AlphaProducts:
    """Products with alpha: a full alpha inside the matrices, a vector alpha on the vectors after them.

    With `P = alpha * H`, or `P = H`, the plastic input of step k is
    `p_k = L_k * (u_k P) + sum_l L(l..k) s_l * z(k, l)`, and what reaches the neuron is `vector(p_k)`.
    """

    def __init__(self, alpha: Tensor, products: bool = True) -> None:
        """products: whether PyTorch multiplies with alpha; False if kernels do."""
        self.full = alpha.dim() == 2
        if self.full and products:
            matrix, N = alpha, len(alpha)
            if (size := padded_width(N, alpha)) > N:
                matrix = cpu_cache.empty((size, size), alpha)
                matrix[:N, :N] = alpha
                matrix[N:].zero_()
                matrix[:, N:].zero_()
            self._matrix = FewRows(matrix)
            alpha = matrix[:N, :N]  # one copy in the cache
        self.alpha = alpha

    def vector(self, p: Tensor) -> Tensor:
        return p if self.full else self.alpha * p

    def pairs(self, products: Tensor) -> Tensor:
        """z(k, l) for all l, from padded u_k * u_l `[l, B, N']` -> `[l, B, N]` with a full alpha, else `[l, B, 1]`."""
        if not self.full:
            return products.sum(-1, keepdim=True)
        return self._matrix.times(products.flatten(0, 1)).unflatten(0, products.shape[:2])[..., : len(self.alpha)]

    def pairs_back(self, g: Tensor) -> Tensor:
        """q(k, l), the same towards the presynaptic side, from L(l..k) s_l * eps_k `[l, B, N]`."""
        if not self.full:
            return g.sum(-1, keepdim=True)
        product = self._matrix.times_transposed(g.flatten(0, 1))
        return product.unflatten(0, g.shape[:2])[..., : g.shape[2]]


class StepMatrices:
    """The two matrices that a free step multiplies: W, and P of the chunk.

    For a single example they are stored side by side, so that one product reads both.
    """

    def __init__(self, w: Tensor, plastic: AlphaProducts, batch: int) -> None:
        self._w = w
        self._alpha = plastic.alpha if plastic.full else None
        self._both: FewRows | None = None
        self._zero = False  # whether P is
        if batch == 1:
            N, K = w.shape
            both = cpu_cache.empty((padded_width(N, w), 2 * K), w)
            both[:N, :K] = w
            both[N:].zero_()
            self._P = both[:N, K:].unsqueeze(0)
            self._both = FewRows(both)
            self._w_alone = FewRows(both[:, :K])
        elif self._alpha is not None:
            self._P = cpu_cache.empty((batch, *w.shape), w)

    def load(self, H: Tensor, zero: bool) -> None:
        """Make P from the trace `[B, N, N]` at the chunk's start; zero: it is known to be zero and not read."""
        self._zero = zero and self._both is not None
        if self._zero:
            return
        if self._alpha is not None:
            torch.mul(self._alpha, H, out=self._P)
        elif self._both is not None:
            self._P.copy_(H)
        else:
            self._P = H

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Padded `u [B, N']` -> u W and u P, `[B, N]`."""
        if self._zero:
            uW = self._w_alone.times(u)
            return uW, torch.zeros_like(uW)
        if self._both is not None:
            uW, uP = self._both.times(u).chunk(2, 1)
            return uW, uP
        u = u[:, : len(self._w)]
        return u @ self._w, torch.bmm(u.unsqueeze(1), self._P).squeeze(1)

    def backward(self, rows: Tensor) -> Tensor:
        """Rows `[2, B, N]`, g and h -> g W^T + h P^T."""
        if self._zero:
            return self._w_alone.times_transposed(rows[0])[:, : len(self._w)]
        if self._both is not None:
            return self._both.times_transposed(rows.view(1, -1))[:, : len(self._w)]
        return torch.addmm(torch.bmm(self._P, rows[1].unsqueeze(-1)).squeeze(-1), rows[0], self._w.T)


class AlphaGradient:
    """dL/dalpha, summed over chunks; the pair products are gathered and multiplied in one go."""

    def __init__(self, alpha: Tensor, batch: int, most: int) -> None:
        """most: the most pairs of a chunk; 0 allocates no room for pairs."""
        self.total = cpu_cache.empty(alpha.shape, alpha).zero_()
        self.batch, self.count = batch, 0  # count: pairs not yet multiplied
        if alpha.dim() == 2 and most:
            rows = PAIR_ROWS // max(1, batch) + most
            self.left, self.right = (cpu_cache.empty((rows, batch, len(alpha)), alpha) for _ in range(2))

    def add_matrices(self, H: Tensor, M: Tensor) -> None:
        """Full alpha: `sum_b H * M`, both `[B, N, N]`. Destroys M."""
        if len(H) == 1:
            self.total.addcmul_(H[0], M[0])
        else:
            self.total += M.mul_(H).sum(0)

    def add_pairs(self, left: Tensor, right: Tensor) -> None:
        """Full alpha: the outer products of rows `[n, B, N]`."""
        rows = slice(self.count, self.count + len(left))
        self.left[rows], self.right[rows] = left, right
        self.count += len(left)

    def keep_pairs(self, wanted: bool) -> None:
        """At the end of a chunk: make room for the next one. Drop the pairs if they are not wanted."""
        if not wanted:
            self.count = 0
        elif self.count * self.batch >= PAIR_ROWS:
            self._flush()

    def add_vectors(self, delta: Tensor, p: Tensor) -> None:
        """Per-neuron or shared alpha: `sum delta * p`, both `[n, B, N]`."""
        part = (delta * p).sum((0, 1))
        self.total += part if self.total.dim() else part.sum()

    def _flush(self) -> None:
        if self.count:
            left, right = self.left[: self.count].flatten(0, 1), self.right[: self.count].flatten(0, 1)
            self.total.addmm_(left.T.contiguous(), right)  # BLAS takes a fifth less time than for the transposed rows
            self.count = 0

    def result(self) -> Tensor:
        self._flush()
        return self.total


def times(U: Tensor, M: Tensor) -> Tensor:
    """Rows `[n, B, N]` times one matrix per example `[B, N, K]` -> `[n, B, K]`."""
    if len(M) != 1:
        return torch.bmm(U.transpose(0, 1), M).transpose(0, 1)
    U, M = U.squeeze(1), M[0]
    rows = splitting_rows(M)
    product = FewRows(M[:rows]).times(U[:, :rows].contiguous())
    return (product if rows == len(M) else product.addmm_(U[:, rows:], M[rows:])).unsqueeze(1)


def times_transposed(V: Tensor, M: Tensor) -> Tensor:
    """Rows `[n, B, K]` times the transpose of one matrix per example `[B, N, K]` -> `[n, B, N]`."""
    if len(M) != 1:
        return torch.bmm(V.transpose(0, 1), M.mT).transpose(0, 1)
    V, M = V.squeeze(1), M[0]
    rows = splitting_rows(M)
    product = FewRows(M[:rows]).times_transposed(V)
    return (product if rows == len(M) else torch.cat((product, V @ M[rows:].T), 1)).unsqueeze(1)


def splitting_rows(M: Tensor) -> int:
    """The rows of M that split evenly into blocks."""
    blocks = blocks_of(M.numel(), M.device)
    return len(M) // blocks * blocks


def add_outer(total: Tensor, U: Tensor, V: Tensor, beta: int = 1) -> Tensor:
    """In place `beta * total + sum over rows of the outer products of U [n, B, N] and V [n, B, K]`; `[B, N, K]`."""
    if len(total) == 1:
        total[0].addmm_(U.squeeze(1).T, V.squeeze(1), beta=beta)
        return total
    return total.baddbmm_(U.permute(1, 2, 0), V.transpose(0, 1), beta=beta)


def dots(A: Tensor, M: Tensor) -> Tensor:
    """The sum of the elementwise product of each pair of matrices `[B, N, K]` -> `[B, 1]`."""
    if len(A) == 1:
        return torch.dot(A.flatten(), M.flatten()).view(1, 1)
    return torch.bmm(A.flatten(1).unsqueeze(1), M.flatten(1).unsqueeze(2)).squeeze(2)


def next_trace(H: Tensor, total: Tensor, U: Tensor, E: Tensor, out: Tensor) -> Tensor:
    """`total * H + sum over rows of the outer products of U and E`, into `out [B, N, K]`, which may be H."""
    count = out.numel() * out.element_size() // BLOCK_BYTES if out.device.type == "cpu" else 1
    size = -(-out.shape[1] // max(1, count))
    for low in range(0, out.shape[1], size):
        rows = slice(low, low + size)
        torch.mul(H[:, rows], total.unsqueeze(-2), out=out[:, rows])
        add_outer(out[:, rows], U[..., rows], E)
    return out


def take(rows: Tensor, steps: Sequence[int]) -> Tensor:
    """`rows[steps]` of ascending steps, by slices: a list of numbers would be copied to the device.

    A view where the steps are neighbours.
    """
    parts = [rows[low:high] for low, high in runs(steps)]
    return parts[0] if len(parts) == 1 else torch.cat(parts or [rows[:0]])


def add_to(rows: Tensor, steps: Sequence[int], more: Tensor) -> None:
    """`rows[steps] += more` of ascending steps, by slices."""
    done = 0
    for low, high in runs(steps):
        rows[low:high] += more[done : done + high - low]
        done += high - low


class StepGroups:
    """Steps of a chunk that share u: a free step is a group of its own, a pattern that is held is one."""

    def __init__(self, first: list[int], steps: int) -> None:
        """first: where each group begins, of a chunk of so many steps."""
        self.first = first
        self._of_step: Tensor | None = None
        if len(first) < steps:
            lengths = [high - low for low, high in pairwise((*first, steps))]
            self._of_step = torch.arange(len(first)).repeat_interleave(torch.tensor(lengths))

    def before(self, step: int) -> int:
        """How many groups begin before that step."""
        return bisect_left(self.first, step)

    def one_of_each(self, rows: Tensor) -> Tensor:
        """One row per step, from the first on, -> the first of each group; no copy where each is its own."""
        return rows if self._of_step is None else take(rows, self.first[: self.before(len(rows))])

    def sum(self, rows: Tensor, dim: int = 0) -> Tensor:
        """One row per step, from the first on, -> one per group: their sum."""
        if self._of_step is None:
            return rows
        steps = rows.shape[dim]
        shape = (*rows.shape[:dim], self.before(steps), *rows.shape[dim + 1 :])
        return rows.new_zeros(shape).index_add_(dim, self._of_step[:steps], rows)

    def spread(self, rows: Tensor, steps: int, dim: int = 0) -> Tensor:
        """One row per group -> one per step, of so many steps."""
        return rows if self._of_step is None else rows.index_select(dim, self._of_step[:steps])


class Decayed(NamedTuple):
    """d and s of some steps in a row, and the products of d over those before and after each."""

    d: Tensor
    """`[n, 1 or B, 1 or N]`"""
    s: Tensor
    """`[n, B, N]`"""
    before: Tensor
    """L_k, with the product over all of them at the end, `[n + 1, …]`"""
    after: Tensor
    """L(k..n), `[n, …]`"""


class Decays:
    """What a rule makes of steps. Where d is the same at all steps, its products are formed once for each length."""

    def __init__(self, rule: Rule, eta: Tensor) -> None:
        self.rule, self.eta = rule, eta
        self._products: dict[int, tuple[Tensor, Tensor]] = {}
        self._between: dict[int, Tensor] = {}

    def __call__(self, v: Tensor) -> Decayed:
        d, s = decays(self.rule, v, self.eta)
        if d.shape[1:] == v.shape[1:]:
            return Decayed(d, s, products_before(d), products_after(d))
        if len(d) not in self._products:
            self._products[len(d)] = products_before(d), products_after(d)
        return Decayed(d, s, *self._products[len(d)])

    def between(self, d: Tensor, like: Tensor) -> Tensor:
        """`products_between` of steps whose v has the shape of like."""
        if d.shape[1:] == like.shape[1:]:
            return products_between(d)
        if len(d) not in self._between:
            self._between[len(d)] = products_between(d)
        return self._between[len(d)]


def decays(rule: Rule, v: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
    """`v [n, B, N]` -> d `[n, 1 or B, 1 or N]` and s `[n, B, N]` of the rule."""
    assert rule.linear is not None
    d, s = rule.linear(v, eta)
    if d.shape not in (v.shape, eta.shape) or s.shape != v.shape:  # broadcast, the gradients would be wrong
        raise ValueError(
            f"a rule's `linear(v, eta)` must return d of the shape of v or of eta and s of the shape of v; "
            f"got {tuple(d.shape)} and {tuple(s.shape)} for v {tuple(v.shape)} and eta {tuple(eta.shape)}."
        )
    return (d if d.dim() == 3 else d.expand(len(v), 1, *(d.shape or (1,)))), s


def products_before(d: Tensor) -> Tensor:
    """L_k, the product of d over the steps before k, for k = 0 … n: `[n + 1, …]`. Never a quotient."""
    return torch.cat([torch.ones_like(d[:1]), d.cumprod(0)])


def products_after(d: Tensor) -> Tensor:
    """L(k..n), the product of d over the steps after k, for k = 0 … n - 1: `[n, …]`."""
    return torch.cat([d[1:].flip(0).cumprod(0).flip(0), torch.ones_like(d[:1])])


def products_between(d: Tensor) -> Tensor:
    """L(l..k) of all pairs of steps, for k = 0 … n - 1: `[k, l, …]`, 0 where l is not before k."""
    n = len(d)
    steps = torch.arange(n, device=d.device)
    later = (steps > steps.unsqueeze(1)).view(n, n, 1, 1)  # [l, m]
    through = torch.where(later, d, 1).cumprod(1)  # [l, m]: the product over the steps after l, up to m
    return torch.where(later, through.roll(1, 1), 0).transpose(0, 1)


def vjp(rule: Rule, v: Tensor, eta: Tensor, gd: Tensor | None, gs: Tensor) -> tuple[Tensor, Tensor]:
    """dL/dv and (before its sum) dL/deta from dL/dd and dL/ds, all of the shape of v.

    The rule's closed form, or autograd on the vectors where it has none.
    """
    if rule.vjp is not None:
        return rule.vjp(v, eta, gd, gs)
    assert rule.linear is not None
    with torch.enable_grad():
        v = v.detach().requires_grad_()
        each = eta.detach().expand(v.shape).clone().requires_grad_()
        d, s = rule.linear(v, each)
        if gd is None:
            gd = torch.zeros_like(v)
        outputs = [(o, g) for o, g in ((d.expand(v.shape), gd), (s, gs)) if o.requires_grad]
        gv, geta = torch.autograd.grad([o for o, _ in outputs], [v, each], [g for _, g in outputs], allow_unused=True)
    return (torch.zeros_like(v) if gv is None else gv), (torch.zeros_like(v) if geta is None else geta)
