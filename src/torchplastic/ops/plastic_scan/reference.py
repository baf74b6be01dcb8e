"""The paper's plain loop, differentiated by autograd. Every other implementation is tested against this one.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from torch import Tensor, stack, where

from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan.spec import Backend, ScanSpec

STEP_MATRICES = 4  # N² tensors that autograd stores per step: alpha H, w + alpha H, eta u v, H


def reference(
    spec: ScanSpec,
    drive: Tensor,
    w: Tensor,
    alpha: Tensor | None,
    eta: Tensor | None,
    hidden: Tensor,
    trace: Tensor | None,
    clamp: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`drive [T, B, N]`, `w [N, N]`, `hidden [B, N]`, `trace [B, N, N]` -> y `[T, B, N]`, hidden, trace.

    Miconi et al. 2018, eq. 1 and 2: the output uses the old trace, then the trace is updated.
    """
    f = NONLINEARITIES[spec.nonlinearity].f
    x, H = hidden, trace
    outputs = []
    for t in range(drive.shape[0]):
        u = x
        a = u @ w if alpha is None or H is None else (u.unsqueeze(-2) @ (w + alpha * H)).squeeze(-2)
        x = f(a + drive[t])
        if clamp is not None:
            x = where(clamp[t], drive[t], x)
        if H is not None:
            H = spec.rule.update(H, u, x, eta)
        outputs.append(x)
    return stack(outputs), x, H


BACKEND = Backend(
    impl="reference",
    name="the plain loop, under autograd",
    best_for="rules without `linear`, and rules that train tensors of their own",
    supports=lambda spec: None,
    is_preferred=lambda spec: True,
    run=reference,
    training_bytes=lambda spec: STEP_MATRICES * spec.T * spec.B * spec.N**2 * spec.itemsize,
)
