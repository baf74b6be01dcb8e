"""The recurrence without plasticity, with one product for dL/dw instead of one per step.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan.autograd import outputs_of, run_kernel
from torchplastic.ops.plastic_scan.chunked.algebra import FewRows
from torchplastic.ops.plastic_scan.schedule import in_steps
from torchplastic.ops.plastic_scan.spec import Backend, Call, Grads, Kernel, ScanSpec


def forward(call: Call) -> tuple[Tensor, ...]:
    """-> y, the final hidden, no trace, and x from the initial hidden on."""
    f = NONLINEARITIES[call.nonlinearity].f
    matrix = FewRows(call.w[0])
    x = torch.cat((call.hidden.unsqueeze(0), call.drive))
    rows = x.unbind()
    for t, now in enumerate(call.drive.unbind()):
        v = f(now + matrix.times(rows[t]))
        rows[t + 1].copy_(v if call.clamp is None else torch.where(call.clamp[t], now, v))
    keep = any(call.needs)
    outputs = (*outputs_of(x, len(matrix.M), keep), x.new_empty(0))
    return (*outputs, x) if keep else outputs


def backward(call: Call, kept: Sequence[Tensor], grads: Grads) -> Grads:
    """Gradients of drive, w and hidden."""
    (x,), (g_y, g_hidden, _), clamp = kept, grads, call.clamp
    df = NONLINEARITIES[call.nonlinearity].backward
    matrix = FewRows(call.w[0])
    gx = torch.zeros_like(x)
    if g_y is not None:
        gx[1:] = g_y
    if g_hidden is not None:
        gx[-1] += g_hidden
    delta = torch.empty_like(x[1:])
    need_drive, need_w, *_, need_hidden, _ = call.needs
    for t in reversed(range(len(delta))):
        g = df(gx[t + 1], x[t + 1])
        delta[t] = g if clamp is None else g.masked_fill(clamp[t], 0)
        if t or need_hidden:
            gx[t] += matrix.times_transposed(delta[t])
    g_drive = delta if clamp is None or not need_drive else torch.where(clamp, gx[1:], delta)
    g_w = x[:-1].flatten(0, 1).T @ delta.flatten(0, 1) if need_w else None
    return g_drive, g_w, None, None, gx[0].clone(), None


class Running:
    """Single steps without gradients."""

    def __init__(self, spec: ScanSpec, w: Tensor, alpha: None, eta: None, hidden: Tensor, trace: None) -> None:
        self._w, self._hidden, self._f = w, hidden, NONLINEARITIES[spec.nonlinearity].f

    def __call__(self, drive: Tensor) -> Tensor:
        """`[B, N]` -> y `[B, N]`."""
        self._hidden = self._f(torch.addmm(drive, self._hidden, self._w))
        return self._hidden.clone()

    def state(self) -> tuple[Tensor, None]:
        """A copy of the hidden, and no trace."""
        return self._hidden.clone(), None


BACKEND = Backend(
    impl=None,
    name="the recurrence without plasticity",
    best_for='alpha="none"',
    supports=lambda spec: None if spec.alpha == "none" else "this network has plasticity",
    is_preferred=lambda spec: True,
    run=partial(run_kernel, Kernel(lambda spec: in_steps(spec.clamped_steps, spec.T), forward, backward)),
    training_bytes=lambda spec: 0,
    steps=Running,
)
