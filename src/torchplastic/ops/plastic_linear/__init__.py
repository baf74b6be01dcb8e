"""A feed-forward plastic layer through time.

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


def plastic_linear(
    x: Tensor,
    w: Tensor,
    alpha: Tensor | None,
    eta: Tensor | float | None,
    state: PlasticState | None = None,
    *,
    rule: str | Rule = "oja",
    drive: Tensor | None = None,
    activation: str = "softmax",
) -> tuple[Tensor, PlasticState]:
    """Run a plastic feed-forward layer through time, with one trace per sequence (Miconi et al. 2018, section 4.3).

        y(t) = f(x(t) (w + alpha * H(t)) + drive(t)),    H(t+1) = rule(H(t), x(t), y(t), eta)

    It computes in float32 or float64; under autocast in the dtype of w.

    Args:
        x: input, `[T, B, I]` or unbatched `[T, I]`.
        w: fixed weights `[pre, post]`, `[I, J]`.
        alpha: plasticity coefficients, `[I, J]` one per connection, `[J]` one per postsynaptic neuron, 0-dim one in
            all, or None for no plasticity.
        eta: plasticity rate per step, a float, 0-dim or `[J]`. Ignored if alpha is None.
        state: state to continue from, hidden `[B, J]` (the last y, unused) and trace `[B, I, J]`; None means zeros.
        rule: a name in `RULES` or a `Rule`.
        drive: external input current of the outputs, added before the activation, `[T, B, J]` or `[T, J]`; None is
            zero.
        activation: "softmax" (over J), "tanh", "relu", "sigmoid" or "identity".

    Returns:
        y: outputs of all steps, `[T, B, J]` or `[T, J]`.
        state: the state after the last step.

    Raises:
        ValueError: shapes, dtypes or devices that do not match, or an unknown rule or activation.

    Examples:
        >>> x, w, alpha = torch.ones(2, 1, 3), torch.zeros(3, 2), torch.ones(3, 2)
        >>> drive = torch.tensor([1.0, 0.0]).expand(2, 1, 2)
        >>> y, state = tp.functional.plastic_linear(
        ...     x, w, alpha, 0.5, rule="hebb", drive=drive, activation="identity"
        ... )
        >>> y[:, 0]  # the second step adds what the first wrote into the trace
        tensor([[1.0000, 0.0000],
                [2.5000, 0.0000]])
    """
    rule = get_rule(rule)
    if x.dim() not in (2, 3) or x.shape[0] < 1:
        raise ValueError(f"plastic_linear: x must be [T, B, I] or [T, I] with T >= 1; got {tuple(x.shape)}.")
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            drive = None if drive is None else drive.to(w.dtype)
            return plastic_linear(x.to(w.dtype), w, alpha, eta, state, rule=rule, drive=drive, activation=activation)
    if w.dim() != 2:
        raise ValueError(f"plastic_linear: w must be [pre, post]; got {tuple(w.shape)}.")
    batched = x.dim() == 3
    I, J = x.shape[-1], w.shape[1]
    checks.connections("plastic_linear", I, J, w, alpha)
    checks.same_kind("plastic_linear", x=x, w=w, alpha=alpha, drive=drive)
    checks.one_of("activation", activation, ACTIVATIONS)
    rate = checks.plasticity_rate("plastic_linear", J, eta, alpha, like=w)
    if drive is not None and tuple(drive.shape) != (*x.shape[:-1], J):
        raise ValueError(f"plastic_linear: drive must be {(*x.shape[:-1], J)}; got {tuple(drive.shape)}.")
    hidden, trace = checks.plastic_state(
        "plastic_linear", state, x.shape[1] if batched else None, I, J, alpha is not None, x
    )
    if not batched:
        x, drive = x.unsqueeze(1), None if drive is None else drive.unsqueeze(1)
    y, hidden, trace = reference(x, w, alpha, rate, hidden, trace, rule=rule, drive=drive, activation=activation)
    if batched:
        return y, PlasticState(hidden, trace)
    return y.squeeze(1), PlasticState(hidden.squeeze(0), None if trace is None else trace.squeeze(0))
