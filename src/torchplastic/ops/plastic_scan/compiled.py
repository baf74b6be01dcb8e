"""The work on one chunk through the compiled kernels, where these serve.

Same results as the PyTorch calls in forward.py and backward.py, whose letters these are.

Axes: T time, B batch, N neurons, M = N rounded up to whole lines of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchplastic.ops import workspace
from torchplastic.ops.plastic_scan import algebra
from torchplastic.ops.plastic_scan.chunks import Chunk
from torchplastic.rules import HEBB, OJA, Rule

DTYPES = (torch.float32, torch.float64)
DEEP = 1024  # rows of two factors that are multiplied at a time


@cache
def find_kernels() -> ModuleType | None:
    """The kernels, or None without numba or an OpenMP runtime of PyTorch's that they can use."""
    try:
        from torchplastic.ops.plastic_scan import kernels
    except ImportError:
        return None
    return kernels


def serves(rule: Rule, nonlinearity: str, alpha: Tensor) -> bool:
    """Whether the kernels can take this scan; not so on another device, for another rule or alpha, without numba."""
    if alpha.dim() != 2 or alpha.device.type != "cpu" or alpha.dtype not in DTYPES:
        return False
    kernels = find_kernels()
    return kernels is not None and nonlinearity in kernels.NONLINEARITIES and (rule is HEBB or rule is OJA)


class Compiled:
    """The kernels with what all chunks of a scan share."""

    def __init__(
        self, rule: Rule, nonlinearity: str, clamp: Tensor | None, w: Tensor, alpha: Tensor, eta: Tensor, batch: int
    ) -> None:
        kernels = find_kernels()
        assert kernels is not None
        self.kernels: Any = kernels
        self._dtype = str(w.dtype).removeprefix("torch.")
        self.threads = algebra.blocks_of(w.numel(), w.device)
        self.rule = kernels.HEBB if rule is HEBB else kernels.OJA
        self.nonlinearity = kernels.NONLINEARITIES[nonlinearity]
        self.clamp = kernels.EMPTY_CLAMP if clamp is None else clamp.contiguous().numpy()
        self.eta = eta.detach().expand(len(w)).contiguous().numpy()
        self.width = padded(len(w))
        self.alpha = alpha.detach().contiguous()
        self.W = self._in_lines(w)
        self.batch = batch
        self.nothing = w.new_empty(0, 0, 0).numpy()
        self.no_matrix = w.new_empty(0, 0).numpy()
        self.P = self.nothing  # stands for a zero trace

    def at(self, name: str) -> int:
        """The address of a kernel's body, or of `dots`."""
        return int(self.kernels.where(name, self._dtype))

    def _in_lines(self, matrix: Tensor) -> Any:
        """`[N, M]` with zeros behind each row."""
        matrix = matrix.detach().contiguous()
        N = len(matrix)
        if self.width > N:
            lines = workspace.empty((N, self.width), matrix)
            lines[:, :N] = matrix
            lines[:, N:] = 0
            matrix = lines
        return matrix.numpy()

    def transposed_alpha(self) -> Any:
        """`[N, M]`, which the pairs of the forward pass multiply."""
        out = workspace.empty((len(self.alpha), self.width), self.alpha).numpy()
        self.kernels.transpose(self.at("transpose"), self.alpha.numpy(), out, self.threads)
        return out

    def alpha_in_lines(self) -> Any:
        """`[N, M]`, which the pairs of the backward pass multiply."""
        return self._in_lines(self.alpha)

    def load(self, H: Tensor, zero: bool) -> None:
        """Make P for the forward pass from the trace at the chunk's start; where that is zero, nothing is read."""
        if not zero:
            if not self.P.size:
                self.P = workspace.empty((self.batch, len(self.alpha), self.width), self.alpha).numpy()
            self.kernels.scale(self.at("scale"), self.alpha.numpy(), H.contiguous().numpy(), self.P, self.threads)

    def release(self) -> None:
        """Free P, which the backward pass does not need."""
        self.P = self.nothing

    def by_group(self, groups: int) -> tuple[Any, Any]:
        """Room for S and D of the groups of a chunk."""
        S, D = workspace.empty((2, groups, self.batch, self.width), self.alpha).numpy()
        return S, D

    def add_product(self, left: Tensor, right: Tensor, out: Tensor, fresh: bool = False) -> Tensor:
        """`out += left^T @ right`, in place; left, right `[n, ≥ N]`; fresh: out holds nothing yet."""
        N, left, right = len(out), left.contiguous(), right.contiguous()
        scratch = workspace.empty((self.threads, self.kernels.ROWS, N), out).numpy()
        for start in range(0, max(1, len(left)), DEEP):
            U, V = left[start : start + DEEP], right[start : start + DEEP]
            columns, rows = workspace.empty((2, N, padded(len(U))), out).numpy()
            self.kernels.add_product(
                self.at("add_product"),
                self.at("dots"),
                U.numpy(),
                V.numpy(),
                columns,
                rows,
                scratch,
                fresh and not start,
                out.numpy(),
                self.threads,
            )
        return out

    def through_the_end(
        self, G: Tensor, H: Tensor | None, U: Tensor | None, E: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """-> `U @ G [n, B, N]`, `E @ G^T [n, B, N]`, the sums over the rows of `G * H [B, N]`; None for None."""
        B, N, _ = G.shape
        nothing = self.nothing
        UG, EG = (None if rows is None else rows.new_empty(B, len(rows), N) for rows in (U, E))
        Q = None if H is None else G.new_empty(B, N)
        self.kernels.through_the_end(
            self.at("through_the_end"),
            self.at("dots"),
            G.numpy(),
            nothing if H is None else H.contiguous().numpy(),
            nothing if U is None else _by_example(U),
            nothing if E is None else _by_example(E),
            nothing if UG is None else UG.numpy(),
            nothing if EG is None else EG.numpy(),
            self.no_matrix if Q is None else Q.numpy(),
            self.threads,
        )
        UG, EG = (None if rows is None else rows.transpose(0, 1).contiguous() for rows in (UG, EG))
        return UG, EG, Q


def _by_example(E: Tensor) -> Any:
    """`[n, B, N]` -> `[B, n, N]`."""
    return E.transpose(0, 1).contiguous().numpy()


def _of_examples(total: Tensor, like: Tensor) -> Any:
    """A decay `[1 or B, 1 or N]` -> `[B, N]`."""
    return total.expand(len(like), like.shape[-1]).contiguous().numpy()


class Forward:
    """The free steps of the forward pass, chunk by chunk."""

    def __init__(self, compiled: Compiled, drive: Tensor, x: Tensor) -> None:
        """x `[T + 1, B, M]` is filled in; drive `[T, B, N]`."""
        self.compiled = compiled
        self.drive = drive.detach().contiguous()
        self.x = x.numpy()
        self.alpha = compiled.transposed_alpha()
        self.a = torch.empty_like(self.drive[0]).numpy()

    def run(self, tables: tuple[Tensor, ...], t: int, i: int, g: int, steps: int, more: bool) -> None:
        """`steps` free steps from t on, i of the chunk, after g groups; with `more`, S and L move on to the next.

        tables: U `[G, B, M]`, z `[F, G, B, N]`, S `[G, B, N]`, L `[B, N]`, uP `[F, B, N]` of the chunk.
        """
        c = self.compiled
        U, z, S, L, uP = tables
        products = workspace.empty((c.threads, len(U) * U.shape[1], U.shape[2]), U)
        c.kernels.forward(
            c.at("forward"), c.at("dots"), self.x, self.drive.numpy(), c.clamp, c.eta, c.rule, c.nonlinearity,
            c.W, c.P, self.alpha, U.numpy(), products.numpy(), z.flatten(1, 2).numpy(), S.numpy(), L.numpy(), self.a,
            uP.numpy(), t, i, g, steps, more, c.threads,
        )  # fmt: skip

    def next_trace(self, H: Tensor, chunk: Chunk, groups: algebra.Groups, out: Tensor, zero: bool) -> Tensor:
        """The trace after a chunk, from H at its start, into out, which may be H. zero: H is."""
        c = self.compiled
        trace = c.nothing if zero else H.contiguous().numpy()
        S, D = c.by_group(len(groups.first))
        c.kernels.next_trace(
            c.at("next_trace"), trace, self.x, c.eta, c.rule, chunk.start, chunk.stop, _numbers(groups.first), S, D,
            out.numpy(), c.threads,
        )  # fmt: skip
        return out


class Tables(NamedTuple):
    """What the free steps of a chunk read in the backward pass; k now, l earlier, i counts free steps."""

    start: int
    free: Sequence[int]
    groups: algebra.Groups
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


class Backward:
    """The free steps of the backward pass, chunk by chunk."""

    def __init__(self, compiled: Compiled, x: Tensor, gx: Tensor, delta: Tensor, groups: int) -> None:
        """x `[T + 1, B, M]`, gx `[T + 1, B, N]`, delta `[T, B, M]`, at most `groups` in a chunk."""
        self.compiled = compiled
        self.x, self.gx, self.delta = x.numpy(), gx.numpy(), delta.numpy()
        _, B, N = gx.shape
        self.alpha = compiled.alpha_in_lines()
        self.rows = torch.zeros_like(x[:2]).numpy()
        self.q = workspace.empty((groups * B, N), gx).numpy()
        self.right = workspace.empty((2, groups * B, x.shape[2]), gx).numpy()
        self.right[..., N:] = 0

    def run(
        self, tables: Tables, wanted: Sequence[int], H: Tensor | None, gs: Tensor, gd: Tensor | None, summed: bool
    ) -> tuple[Tensor, Tensor] | None:
        """The free steps of a chunk in reverse: completes delta, gx, gs and gd (where d depends on v).

        H: the trace at its start, None for zero. summed: -> the sums over the neurons of delta u P `[F, B]` and of
        delta s z `[F, inner, B]`, else None.
        """
        c = self.compiled
        inner, B = len(tables.s), gs.shape[1]
        before = [tables.groups.before(k) for k in tables.free]
        group_of = [tables.groups.before(k + 1) - 1 for k in range(inner)]
        L = tables.L[:inner].expand(-1, *gs.shape[1:])
        U, between, s, z, uP, L_ = (
            table.contiguous().numpy() for table in (tables.U, tables.between, tables.s, tables.z, tables.recalled, L)
        )
        assert gd is None or tables.LR is not None
        LR = c.nothing[None] if tables.LR is None else tables.LR.contiguous().numpy()
        trace = c.nothing if H is None else H.contiguous().numpy()
        sums = gs.new_zeros(c.threads, len(tables.free), inner + 1, B) if summed else gs.new_empty(0, 0, 0, 0)
        c.kernels.backward(
            c.at("backward"), c.at("dots"), self.x, self.gx, self.delta, c.clamp, c.eta, c.rule, c.nonlinearity,
            c.W, trace, self.alpha, U, between, s, z, uP, LR, L_, gs.numpy(), c.nothing if gd is None else gd.numpy(),
            self.rows, self.q, self.right, tables.start,
            _numbers(tables.free), _numbers(tables.groups.first), _numbers(before),
            _numbers([k in wanted for k in range(inner)]), _numbers(group_of), sums.numpy(), c.threads,
        )  # fmt: skip
        if not summed:
            return None
        total = sums.sum(0)
        return total[:, inner], total[:, :inner]

    def through_the_trace(
        self,
        H: Tensor | None,
        chunk: Chunk,
        groups: algebra.Groups,
        G: Tensor | None,
        carry: bool,
        dalpha: Tensor | None,
    ) -> Tensor | None:
        """A chunk in reverse, whose delta is known: dalpha gets what its steps add to dL/dalpha. -> G at its start.

        H: the trace at its start. G None, H None: they are zero; G is changed in place. carry: whether somebody wants
        G; dalpha None: nobody wants it.
        """
        c = self.compiled
        if not carry and dalpha is None:
            return G
        fresh = G is None
        if carry and G is None:
            G = workspace.empty((c.batch, *c.alpha.shape), c.alpha)
        S, D = c.by_group(len(groups.first))
        c.kernels.through_the_trace(
            c.at("through_the_trace"), c.nothing if H is None else H.contiguous().numpy(), c.alpha.unsqueeze(0).numpy(),
            self.x, self.delta, c.eta, c.rule, chunk.start, chunk.stop, _numbers(groups.first),
            groups.before(chunk.inner), S, D, np.empty_like(S[0]), fresh,
            G.numpy() if carry and G is not None else c.nothing,
            c.nothing if dalpha is None else dalpha.unsqueeze(0).numpy(), c.threads,
        )  # fmt: skip
        return G


def _numbers(values: Sequence[int]) -> Any:
    return np.array(values, np.int64)


def padded(N: int) -> int:
    """N rounded up to whole lines of the cache."""
    line = find_kernels().LINE  # type: ignore[union-attr]
    return -(-N // line) * line
