"""The loop of the feed-forward plastic layer, differentiated by autograd.

Axes: T time, B batch, I presynaptic and J postsynaptic neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from torch import Tensor, stack

from torchplastic.ops.nonlinearity import ACTIVATIONS
from torchplastic.rules import Rule


def reference(
    x: Tensor,
    w: Tensor,
    alpha: Tensor | None,
    eta: Tensor | None,
    hidden: Tensor,
    trace: Tensor | None,
    *,
    rule: Rule,
    drive: Tensor | None,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`x [T, B, I]`, `w [I, J]`, `trace [B, I, J]`, `drive [T, B, J]` -> y `[T, B, J]`, last y, trace.

    Miconi et al. 2018, section 4.3: `y = f(x (w + alpha * H) + drive)`, then the rule updates the trace with pre = x
    and post = y.
    """
    f = ACTIVATIONS[activation]
    H = trace
    outputs = []
    for t, u in enumerate(x.unbind()):
        a = u @ w if alpha is None or H is None else (u.unsqueeze(-2) @ (w + alpha * H)).squeeze(-2)
        hidden = f(a if drive is None else a + drive[t])
        if H is not None:
            H = rule.update(H, u, hidden, eta)
        outputs.append(hidden)
    return stack(outputs), hidden, H
