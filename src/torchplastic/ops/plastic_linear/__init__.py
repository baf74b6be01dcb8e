"""A feed-forward plastic layer through time.

Axes: T time, B batch, I presynaptic and J postsynaptic neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from torch import Tensor

from torchplastic.ops.plastic_linear.run import run
from torchplastic.rules import Rule
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
    return run("plastic_linear", x, w, alpha, eta, state, rule, drive, activation)
