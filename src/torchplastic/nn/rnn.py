"""The plastic recurrent layer and its single step, in the manner of torch.nn.RNN.

Axes: T time, B batch, I inputs, N neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchplastic.nn.plasticity import Plasticity
from torchplastic.nn.stepper import Stepper
from torchplastic.ops import checks
from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan import IMPLS, plastic_scan
from torchplastic.rules import Rule
from torchplastic.state import PlasticState


class PlasticRNNCell(Plasticity):
    """One step of a plastic recurrent network, `y, state = cell(x, state=None, clamp=None)`.

        y = f(h (w + alpha * H) + i2h(x)),    H' = rule(H, h, y, eta)        (Miconi et al. 2018, eq. 1 to 3)

    Args:
        input_size: I, or None: one input unit per neuron, added inside the nonlinearity, without
            weights and without bias.
        hidden_size: N.
        rule: name of a plasticity rule ("hebb", "oja") or a `Rule`.
        alpha: plasticity coefficients: "full" one per connection, "neuron" one per postsynaptic
            neuron, "shared" one, "none" no plasticity, which is the plain RNN (its trace is None).
        eta: plasticity rate at the start, a number or `[N]`.
        learn_eta: whether eta is a parameter (otherwise a buffer).
        bias: whether i2h has a bias.
        nonlinearity: tanh, relu, sigmoid or identity.
        impl: see `torchplastic.functional.plastic_scan`.
        chunk_size: see `torchplastic.functional.plastic_scan`.

    Parameters: `w [N, N]`, `alpha`, `eta`, and `i2h`, an nn.Linear(I, N), where input_size is given.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        *,
        rule: str | Rule = "hebb",
        alpha: str = "full",
        eta: float | Tensor = 0.01,
        learn_eta: bool = True,
        bias: bool = True,
        nonlinearity: str = "tanh",
        batch_first: bool = False,
        impl: str = "auto",
        chunk_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(hidden_size, hidden_size, rule, alpha, eta, learn_eta, device, dtype)
        if input_size is not None and input_size < 1:
            raise ValueError(f"{type(self).__name__}: input_size must be at least 1, or None; got {input_size}.")
        checks.one_of("nonlinearity", nonlinearity, NONLINEARITIES)
        checks.one_of("impl", impl, IMPLS)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.nonlinearity = nonlinearity
        self.batch_first = batch_first
        self.impl = impl
        self.chunk_size = chunk_size
        self.i2h = (
            None if input_size is None else nn.Linear(input_size, hidden_size, bias=bias, device=device, dtype=dtype)
        )
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """w and alpha from 0.01 N(0, 1), eta at its start, i2h as torch.nn.Linear."""
        self.reset_plasticity(generator)
        if self.i2h is not None:
            bound = self.i2h.in_features**-0.5
            with torch.no_grad():
                for parameter in self.i2h.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)

    def forward(
        self, x: Tensor, state: PlasticState | None = None, clamp: Tensor | None = None
    ) -> tuple[Tensor, PlasticState]:
        """`x [B, I]` or `[I]`, clamp `[B, N]` or `[N]` -> y `[B, N]` or `[N]`, and the state after it.

        Raises ValueError for shapes that do not fit.
        """
        units = self._input_units()
        if x.dim() not in (1, 2) or x.shape[-1] != units:
            raise ValueError(
                f"x must be [B, I], or [I] unbatched; got {tuple(x.shape)} with input_size={self.input_size}."
            )
        y, state = self._scan(x.unsqueeze(0), state, None if clamp is None else clamp.unsqueeze(0), None)
        return y.squeeze(0), state

    def stepper(self, batch: int, state: PlasticState | None = None) -> Stepper:
        """`y = step(x)`, x `[B, I]` -> y `[B, N]`: the layer as it acts, one step after the other, without gradients.

        Much faster than calling the layer step by step: no new trace is made at every step. `step.state()` is the
        `PlasticState` reached. state: where to start, None means zeros. The layer's parameters must not change
        meanwhile. Raises ValueError for a state that does not fit.
        """
        hidden, trace = checks.plastic_state(
            type(self).__name__, state, batch, self.hidden_size, self.hidden_size, self.alpha is not None, self.w
        )
        return Stepper(self, PlasticState(hidden, trace))

    def _input_units(self) -> int:
        return self.hidden_size if self.input_size is None else self.input_size

    def _scan(
        self,
        x: Tensor,
        state: PlasticState | None,
        clamp: Tensor | None,
        clamped_steps: Sequence[bool] | None,
    ) -> tuple[Tensor, PlasticState]:
        """`x [T, B, I]` or `[T, I]`, time first."""
        who = type(self).__name__
        if clamp is not None and self.input_size is not None:
            raise ValueError(
                f"{who}: clamp needs input_size=None, one input unit per neuron; got input_size={self.input_size}."
            )
        # checked here too, so that the message names the layer
        checks.plastic_state(
            who, state, x.shape[1] if x.dim() == 3 else None, self.hidden_size, self.hidden_size,
            self.alpha is not None, self.w,
        )  # fmt: skip
        return plastic_scan(
            x if self.i2h is None else self.i2h(x),
            self.w,
            self.alpha,
            self.eta,
            state,
            rule=self.rule,
            clamp=clamp,
            clamped_steps=clamped_steps,
            nonlinearity=self.nonlinearity,
            impl=self.impl,
            chunk_size=self.chunk_size,
        )

    def extra_repr(self) -> str:
        lines = [f"{self.input_size}, {super().extra_repr().split(', ', 1)[1]}"]
        if self.nonlinearity != "tanh":
            lines.append(f"nonlinearity={self.nonlinearity!r}")
        if self.batch_first:
            lines.append("batch_first=True")
        if self.impl != "auto":
            lines.append(f"impl={self.impl!r}")
        return ", ".join(lines)


class PlasticRNN(PlasticRNNCell):
    """A plastic recurrent layer, `y, state = rnn(x, state=None, clamp=None)`.

    Arguments and parameters as `PlasticRNNCell`; `batch_first` makes x, y and clamp `[B, T, …]`.
    With alpha="none" it equals torch.nn.RNN(…) with weight_hh = w.T.
    """

    def forward(
        self,
        x: Tensor,
        state: PlasticState | None = None,
        clamp: Tensor | None = None,
        clamped_steps: Sequence[bool] | None = None,
    ) -> tuple[Tensor, PlasticState]:
        """Run the layer over a sequence.

        Args:
            x: `[T, B, I]`, `[B, T, I]` with batch_first, or `[T, I]` unbatched.
            state: where to start; None means zeros.
            clamp: bool `[T, B, N]` (`[B, T, N]`) or `[T, N]`, only with input_size=None: where true the
                output of the neuron is the input value itself.
            clamped_steps: see `plastic_scan`.

        Returns:
            y `[T, B, N]` (`[B, T, N]`, `[T, N]`), and the state after the last step.

        Raises:
            ValueError: shapes that do not fit, or clamp with an input_size.
        """
        if x.dim() not in (2, 3) or x.shape[-1] != self._input_units():
            raise ValueError(
                "x must be [T, B, I], [B, T, I] with batch_first=True, or [T, I] unbatched; "
                f"got {tuple(x.shape)} with input_size={self.input_size}."
            )
        swap = self.batch_first and x.dim() == 3
        if swap:
            x = x.transpose(0, 1)
            clamp = clamp.transpose(0, 1) if clamp is not None and clamp.dim() == 3 else clamp
        y, state = self._scan(x, state, clamp, clamped_steps)
        return (y.transpose(0, 1) if swap else y), state
