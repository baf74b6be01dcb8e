"""The recurrence without plasticity, with one product for dL/dw instead of one per step.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan.chunked.algebra import FewRows
from torchplastic.ops.plastic_scan.autograd import refuse_second_derivative, saved_tensors


def nonplastic(
    drive: Tensor, w: Tensor, hidden: Tensor, clamp: Tensor | None, nonlinearity: str
) -> tuple[Tensor, Tensor]:
    """`drive [T, B, N]`, `w [N, N]`, `hidden [B, N]` -> y `[T, B, N]` and the final hidden."""
    return _Nonplastic.apply(drive, w, hidden, clamp, nonlinearity)


class _Nonplastic(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        drive, w, hidden, clamp, nonlinearity = inputs
        f = NONLINEARITIES[nonlinearity].f
        matrix = FewRows(w)
        x = torch.cat((hidden.unsqueeze(0), drive))
        rows = x.unbind()
        for t, now in enumerate(drive.unbind()):
            v = f(now + matrix.times(rows[t]))
            rows[t + 1].copy_(v if clamp is None else torch.where(clamp[t], now, v))
        ctx.nonlinearity = nonlinearity
        ctx.save_for_backward(drive, w, hidden, x, clamp)
        ctx.set_materialize_grads(False)
        return x[1:], x[-1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        drive, w, hidden, x, clamp = saved_tensors(ctx)
        with torch.no_grad():
            results = _backward(w, x, clamp, ctx.nonlinearity, grads, ctx.needs_input_grad)
        return *refuse_second_derivative((drive, w, hidden, *grads), results), None, None


def _backward(
    w: Tensor, x: Tensor, clamp: Tensor | None, nonlinearity: str, grads: Any, needs: Any
) -> tuple[Tensor | None, ...]:
    df = NONLINEARITIES[nonlinearity].backward
    matrix = FewRows(w)
    g_y, g_hidden = grads
    gx = torch.zeros_like(x)
    if g_y is not None:
        gx[1:] = g_y
    if g_hidden is not None:
        gx[-1] += g_hidden
    delta = torch.empty_like(x[1:])
    for t in reversed(range(len(delta))):
        g = df(gx[t + 1], x[t + 1])
        delta[t] = g if clamp is None else g.masked_fill(clamp[t], 0)
        if t or needs[2]:
            gx[t] += matrix.times_transposed(delta[t])
    g_drive = delta if clamp is None else torch.where(clamp, gx[1:], delta)
    g_w = x[:-1].flatten(0, 1).T @ delta.flatten(0, 1) if needs[1] else None
    return g_drive if needs[0] else None, g_w, gx[0] if needs[2] else None
