"""The paper's plain loop, differentiated by autograd. Every other implementation is tested against this one.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from torch import Tensor, stack, where

from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.rules import Rule


def reference(
    drive: Tensor,
    w: Tensor,
    alpha: Tensor | None,
    eta: Tensor | None,
    hidden: Tensor,
    trace: Tensor | None,
    *,
    rule: Rule,
    clamp: Tensor | None,
    nonlinearity: str,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`drive [T, B, N]`, `w [N, N]`, `hidden [B, N]`, `trace [B, N, N]` -> y `[T, B, N]`, hidden, trace.

    Miconi et al. 2018, eq. 1 and 2: the output uses the old trace, then the trace is updated.
    """
    f = NONLINEARITIES[nonlinearity].f
    x, H = hidden, trace
    outputs = []
    for t in range(drive.shape[0]):
        u = x
        a = u @ w if alpha is None or H is None else (u.unsqueeze(-2) @ (w + alpha * H)).squeeze(-2)
        x = f(a + drive[t])
        if clamp is not None:
            x = where(clamp[t], drive[t], x)
        if H is not None:
            H = rule.update(H, u, x, eta)
        outputs.append(x)
    return stack(outputs), x, H
