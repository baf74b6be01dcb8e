"""The free steps of a chunk through the compiled kernels, where these serve. Same results as the loops of PyTorch calls
in forward.py and backward.py, whose letters these are; what multiplies a matrix stays with PyTorch.

Axes: T time, B batch, N neurons, N' its padded size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchplastic.ops.plastic_scan import algebra
from torchplastic.rules import HEBB, OJA, Rule

DTYPES = (torch.float32, torch.float64)


@cache
def find_kernels() -> ModuleType | None:
    """The kernels, or None without numba."""
    try:
        from torchplastic.ops.plastic_scan import kernels
    except ImportError:
        return None
    return kernels


class Steps(NamedTuple):
    """What all free steps of a scan share."""

    kernels: Any
    rule: int
    nonlinearity: int
    clamp: Any
    eta: Any


def steps_for(rule: Rule, nonlinearity: str, clamp: Tensor | None, alpha: Tensor, eta: Tensor) -> Steps | None:
    """The compiled steps of a scan; None where they do not serve: another device, rule or alpha, or no numba."""
    if alpha.dim() != 2 or alpha.device.type != "cpu" or alpha.dtype not in DTYPES:
        return None
    kernels = find_kernels()
    if kernels is None or nonlinearity not in kernels.NONLINEARITIES or not (rule is HEBB or rule is OJA):
        return None
    mask = kernels.EMPTY_CLAMP if clamp is None else clamp.contiguous().numpy()
    rates = eta.detach().expand(len(alpha)).contiguous().numpy()
    number = kernels.HEBB if rule is HEBB else kernels.OJA
    return Steps(kernels, number, kernels.NONLINEARITIES[nonlinearity], mask, rates)


class Forward:
    """The free steps of the forward pass, chunk by chunk."""

    def __init__(
        self,
        steps: Steps,
        f: Callable[[Tensor], Tensor],
        plastic: algebra.Plastic,
        matrices: algebra.StepMatrices,
        drive: Tensor,
        x: Tensor,
    ) -> None:
        """f: the nonlinearity; x `[T + 1, B, N']` is filled in; drive `[T, B, N]`."""
        self.steps, self.f, self.plastic, self.matrices = steps, f, plastic, matrices
        self.drive = drive.detach().contiguous().numpy()
        self.values, self.x = x, x.numpy()
        self.input = drive.new_empty(drive.shape[1:])  # of the nonlinearity
        self.L = torch.empty_like(self.input)
        self.input_, self.L_ = self.input.numpy(), self.L.numpy()
        self.no_pairs = self.input.unsqueeze(0).numpy()  # not looked at

    def begin(self, U: Tensor, z: Tensor, S: Tensor) -> Tensor:
        """A chunk with its tables U `[G, B, N']`, z `[F, G, B, N]`, S `[G, B, N]` -> L `[B, N]`, which they move."""
        self.U, self.z, self.S = U.numpy(), z.numpy(), S.numpy()
        self.products = U.new_empty(len(U) + 1, *U.shape[1:])
        self.products_ = self.products.numpy()
        return self.L.fill_(1)

    def step(self, t: int, i: int, g: int, more: bool) -> Tensor:
        """Step t, free step i of the chunk, after g groups -> u P; with `more`, S and L move on to the next step."""
        kernels, rule = self.steps.kernels, self.steps.rule
        a, p = self.matrices.forward(self.values[t])
        if g:
            count = algebra.even(g)
            kernels.pair_rows(self.x, t, self.U, count, self.products_)
            pairs = self.plastic.pairs_in_blocks(self.products[:count]).numpy()
        else:
            pairs = self.no_pairs
        kernels.combine(a.numpy(), p.numpy(), self.drive, t, pairs, self.z, i, self.S, self.L_, g, self.input_)
        y = self.f(self.input).numpy()
        kernels.advance(y, self.drive, self.steps.clamp, t, self.x, self.steps.eta, rule, self.S, self.L_, g, more)
        return p


class Tables(NamedTuple):
    """What the free steps of a chunk read in the backward pass; k now, l earlier, i counts free steps."""

    start: int
    free: Sequence[int]
    groups: Sequence[int]
    U: Tensor
    """`[G, B, N]`"""
    S: Tensor
    """L(l..k) s_l of a group, `[F, G, B, N]`"""
    Lz: Tensor
    """`[F, inner, B, N]`"""
    LR: Tensor | None
    """`[F, inner, B, N]`, where d depends on v"""
    L: Tensor
    """L_k `[≥ inner, 1 or B, 1 or N]`"""


def backward_steps(
    steps: Steps,
    tables: Tables,
    wanted: Sequence[int],
    matrices: algebra.StepMatrices,
    plastic: algebra.Plastic,
    g_alpha: algebra.AlphaGradient,
    need_alpha: bool,
    x: Tensor,
    gx: Tensor,
    delta: Tensor,
    gs: Tensor,
    gd: Tensor | None,
) -> None:
    """The free steps in reverse: completes delta, gx, gs and gd (where d depends on v) of the chunk's inner steps.

    x, gx, delta, gs and gd are contiguous.
    """
    kernels, rule, clamp, eta = steps.kernels, steps.rule, steps.clamp, steps.eta
    start, free, groups = tables.start, tables.free, tables.groups
    _, B, N = gx.shape
    rows = gx.new_empty(2, B, N)
    L = tables.L.expand(-1, B, N).contiguous().numpy()
    nothing = rows.new_empty(0, 0, 0).numpy()
    U, S, Lz = (table.contiguous().numpy() for table in (tables.U, tables.S, tables.Lz))
    LR = nothing[None] if tables.LR is None else tables.LR.contiguous().numpy()
    first = torch.tensor(groups).numpy()
    values, gx_, delta_, gs_, rows_ = (tensor.numpy() for tensor in (x, gx, delta, gs, rows))
    gd_ = nothing if gd is None else gd.numpy()
    left, right = g_alpha.left.numpy(), g_alpha.right.numpy()
    for i in reversed(range(len(free))):
        k = free[i]
        t, g = start + k, groups.index(k)
        kernels.into_step(gx_, values, clamp, t, start, eta, rule, steps.nonlinearity, gs_, gd_, delta_, L, rows_)
        if k in wanted:
            gx[t].add_(matrices.backward(rows))
        if g:
            at, count = g_alpha.count, algebra.even(g)
            kernels.spread(delta_, t, i, count, k, S, Lz, LR, gs_, gd_, right, at)
            pairs = plastic.pairs_back_in_blocks(g_alpha.right[at : at + count]).numpy()
            kernels.out_of_step(gx_, values, t, U, first, start, pairs, g, left, at)
            if need_alpha:
                g_alpha.keep_pairs(g)
