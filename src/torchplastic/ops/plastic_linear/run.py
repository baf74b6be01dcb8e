"""Check the arguments of a feed-forward layer, and run it.

Axes: T time, B batch, I presynaptic and J postsynaptic neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchplastic.ops import checks
from torchplastic.ops.nonlinearity import ACTIVATIONS
from torchplastic.ops.plastic_linear.reference import reference
from torchplastic.rules import Rule, get_rule
from torchplastic.state import PlasticState


def run(
    who: str,
    x: Tensor,
    w: Tensor,
    alpha: Tensor | None,
    eta: Tensor | float | None,
    state: PlasticState | None,
    rule: str | Rule,
    drive: Tensor | None,
    activation: str,
) -> tuple[Tensor, PlasticState]:
    """`plastic_linear` for a caller with this name, which errors begin with."""
    rule = get_rule(rule)
    if x.dim() not in (2, 3) or x.shape[0] < 1:
        raise ValueError(f"{who}: x must be [T, B, I] or [T, I] with T >= 1; got {tuple(x.shape)}.")
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            drive = None if drive is None else drive.to(w.dtype)
            return run(who, x.to(w.dtype), w, alpha, eta, state, rule, drive, activation)
    if w.dim() != 2:
        raise ValueError(f"{who}: w must be [pre, post]; got {tuple(w.shape)}.")
    batched = x.dim() == 3
    I, J = x.shape[-1], w.shape[1]
    checks.connections(who, I, J, w, alpha)
    checks.same_kind(who, x=x, w=w, alpha=alpha, drive=drive)
    checks.one_of("activation", activation, ACTIVATIONS)
    rate = checks.plasticity_rate(who, J, eta, alpha, like=w)
    if drive is not None and tuple(drive.shape) != (*x.shape[:-1], J):
        raise ValueError(f"{who}: drive must be {(*x.shape[:-1], J)}; got {tuple(drive.shape)}.")
    hidden, trace = checks.plastic_state(who, state, x.shape[1] if batched else None, I, J, alpha is not None, x)
    if not batched:
        x, drive = x.unsqueeze(1), None if drive is None else drive.unsqueeze(1)
    y, hidden, trace = reference(x, w, alpha, rate, hidden, trace, rule=rule, drive=drive, activation=activation)
    return checks.results(y, hidden, trace, batched)
