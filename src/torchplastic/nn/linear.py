"""The feed-forward plastic layer.

Axes: T time, B batch, I presynaptic and J postsynaptic neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchplastic.nn.plasticity import Plasticity
from torchplastic.ops import checks
from torchplastic.ops.nonlinearity import ACTIVATIONS
from torchplastic.ops.plastic_linear import plastic_linear
from torchplastic.rules import Rule
from torchplastic.state import PlasticState


class PlasticLinear(Plasticity):
    """A plastic feed-forward layer, `y, state = layer(x, state=None, drive=None)`, one trace per example.

        y(t) = f(x(t) (w + alpha * H(t)) + drive(t)),    H(t+1) = rule(H(t), x(t), y(t), eta)

    The layer of the Omniglot experiment (Miconi et al. 2018): no bias.

    Args:
        in_features: I.
        out_features: J.
        rule: as in `PlasticRNN`.
        alpha: as in `PlasticRNN`.
        eta: as in `PlasticRNN`.
        learn_eta: as in `PlasticRNN`.
        activation: softmax (over the J outputs), tanh, relu, sigmoid or identity.

    Parameters: `w [I, J]`, `alpha`, `eta`. State: hidden `[B, J]`, the last y; trace `[B, I, J]`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rule: str | Rule = "oja",
        alpha: str = "full",
        eta: float | Tensor = 0.01,
        learn_eta: bool = True,
        activation: str = "softmax",
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, rule, alpha, eta, learn_eta, device, dtype)
        checks.one_of("activation", activation, ACTIVATIONS)
        self.in_features = in_features
        self.out_features = out_features
        self.activation = activation
        self.batch_first = batch_first
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """w and alpha from 0.01 N(0, 1), eta at its start."""
        self.reset_plasticity(generator)

    def forward(
        self, x: Tensor, state: PlasticState | None = None, drive: Tensor | None = None
    ) -> tuple[Tensor, PlasticState]:
        """`x [T, B, I]` (`[B, T, I]` with batch_first, `[T, I]` unbatched), drive the same with J -> y, state.

        Raises ValueError for shapes that do not fit.
        """
        if x.dim() not in (2, 3) or x.shape[-1] != self.in_features:
            raise ValueError(
                "x must be [T, B, I], [B, T, I] with batch_first=True, or [T, I] unbatched; "
                f"got {tuple(x.shape)} with in_features={self.in_features}."
            )
        swap = self.batch_first and x.dim() == 3
        if swap:
            x, drive = x.transpose(0, 1), None if drive is None else drive.transpose(0, 1)
        checks.plastic_state(
            type(self).__name__, state, x.shape[1] if x.dim() == 3 else None, self.in_features, self.out_features,
            self.alpha is not None, self.w,
        )  # fmt: skip
        y, state = plastic_linear(
            x, self.w, self.alpha, self.eta, state, rule=self.rule, drive=drive, activation=self.activation
        )
        return (y.transpose(0, 1) if swap else y), state

    def effective_weight(self, state: PlasticState | None = None) -> Tensor:
        """`w + alpha * H` of a state, `[B, I, J]` (`[I, J]` unbatched or without a trace): the layer, held fixed.

        `f(x @ layer.effective_weight(state))` answers any number of questions x `[B, Q, I]` from one state.
        """
        if self.alpha is None or state is None or state.trace is None:
            return self.w
        batch = state.trace.shape[0] if state.trace.dim() == 3 else None
        checks.plastic_state(type(self).__name__, state, batch, self.in_features, self.out_features, True, self.w)
        return self.w + self.alpha * state.trace

    def extra_repr(self) -> str:
        text = f"{super().extra_repr()}, activation={self.activation!r}"
        return f"{text}, batch_first=True" if self.batch_first else text
