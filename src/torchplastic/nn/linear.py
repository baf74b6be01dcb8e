"""The feed-forward plastic layer.

Axes: T time, B batch, I presynaptic and J postsynaptic neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchplastic.nn.plasticity import Plasticity
from torchplastic.ops import checks
from torchplastic.ops.nonlinearity import ACTIVATIONS
from torchplastic.ops.plastic_linear.run import run
from torchplastic.rules import Rule
from torchplastic.state import PlasticState


class PlasticLinear(Plasticity):
    """A plastic feed-forward layer, `y, state = layer(x, state=None, drive=None)`, with one trace per sequence.

        y(t) = f(x(t) (w + alpha * H(t)) + drive(t)),    H(t+1) = rule(H(t), x(t), y(t), eta)

    The output layer of the Omniglot network (Miconi et al. 2018, section 4.3 and eq. 3): no bias, softmax.

    Args:
        in_features: I.
        out_features: J.
        rule: "hebb", "oja" or a `Rule`; see `RULES`.
        alpha: plasticity coefficients: "full" has one per connection, `[I, J]`; "neuron" one per postsynaptic
            neuron, `[J]`; "shared" one in all, 0-dim; "none" has no plasticity and no trace.
        eta: initial plasticity rate per step, a number or `[J]`.
        learn_eta: train eta as a parameter; False makes it a buffer.
        activation: "softmax" (over the J outputs), "tanh", "relu", "sigmoid" or "identity".
        batch_first: x, y and drive are `[B, T, …]` instead of `[T, B, …]`.
        device: device of the parameters.
        dtype: dtype of the parameters, float32 or float64.

    Attributes:
        w (Parameter): fixed weights, `[I, J]`.
        alpha (Parameter | None): plasticity coefficients, of the shape that `alpha` chooses.
        eta (Tensor | None): plasticity rate, 0-dim or `[J]`.

    Raises:
        ValueError: a size below 1, an unknown name, or eta of another shape.

    Examples:
        >>> layer = tp.PlasticLinear(64, 5)
        >>> y, state = layer(torch.randn(10, 4, 64))  # 10 steps, a batch of 4
        >>> y.shape, state.trace.shape
        (torch.Size([10, 4, 5]), torch.Size([4, 64, 5]))
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
        """Draw w and alpha from 0.01 N(0, 1) and set eta to its initial value.

        Args:
            generator: source of the random numbers; None uses PyTorch's global one.

        Examples:
            >>> tp.PlasticLinear(64, 5).reset_parameters(torch.Generator().manual_seed(0))
        """
        self.reset_plasticity(generator)

    def forward(
        self, x: Tensor, state: PlasticState | None = None, drive: Tensor | None = None
    ) -> tuple[Tensor, PlasticState]:
        """Run the layer over a sequence.

        Args:
            x: input, `[T, B, I]`, `[B, T, I]` with batch_first=True, or `[T, I]` unbatched.
            state: state to continue from; None means a trace of zeros.
            drive: external input current of the outputs, added before the activation, of the shape of y; None is zero.

        Returns:
            y: outputs of all steps, `[T, B, J]`, `[B, T, J]` with batch_first=True, or `[T, J]` unbatched.
            state: the last output, hidden `[B, J]`, and the trace `[B, I, J]` after the last step.

        Raises:
            ValueError: shapes, dtypes or devices that do not match.

        Examples:
            A strong drive sets the output while x is shown:

            >>> layer = tp.PlasticLinear(64, 3)
            >>> y, state = layer(torch.randn(1, 1, 64), drive=torch.tensor([[[0.0, 1000.0, 0.0]]]))
            >>> y.detach()
            tensor([[[0., 1., 0.]]])
        """
        if x.dim() not in (2, 3) or x.shape[-1] != self.in_features:
            raise ValueError(
                "x must be [T, B, I], [B, T, I] with batch_first=True, or [T, I] unbatched; "
                f"got {tuple(x.shape)} with in_features={self.in_features}."
            )
        swap = self.batch_first and x.dim() == 3
        if swap:
            x, drive = x.transpose(0, 1), None if drive is None else drive.transpose(0, 1)
        who = type(self).__name__
        y, state = run(who, x, self.w, self.alpha, self.eta, state, self.rule, drive, self.activation)
        return (y.transpose(0, 1) if swap else y), state

    def effective_weight(self, state: PlasticState | None = None) -> Tensor:
        """Compute `w + alpha * H`, the weights with which a state acts.

        `f(x @ layer.effective_weight(state))` applies the layer to any number of queries x `[B, Q, I]` and leaves the
        trace unchanged.

        Args:
            state: the state whose trace is H; None means a trace of zeros.

        Returns:
            Weights, `[B, I, J]`; `[I, J]` for an unbatched state or without a trace.

        Raises:
            ValueError: a state of another shape, dtype or device.

        Examples:
            >>> layer = tp.PlasticLinear(64, 5)
            >>> y, state = layer(torch.randn(10, 4, 64))
            >>> layer.effective_weight(state).shape
            torch.Size([4, 64, 5])
        """
        if self.alpha is None or state is None or state.trace is None:
            return self.w
        batch = state.trace.shape[0] if state.trace.dim() == 3 else None
        checks.plastic_state(type(self).__name__, state, batch, self.in_features, self.out_features, True, self.w)
        return self.w + self.alpha * state.trace

    def extra_repr(self) -> str:
        text = f"{super().extra_repr()}, activation={self.activation!r}"
        return f"{text}, batch_first=True" if self.batch_first else text
