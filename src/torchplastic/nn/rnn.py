"""The plastic recurrent layer and its single step, with the interface of torch.nn.RNN.

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
from torchplastic.ops.plastic_scan import dispatch
from torchplastic.ops.plastic_scan.run import run
from torchplastic.ops.plastic_scan.spec import ScanSpec
from torchplastic.rules import Rule, get_rule
from torchplastic.state import PlasticState


class PlasticRNNCell(Plasticity):
    """One step of a plastic recurrent network, `y, state = cell(x, state=None, clamp=None)`.

        y = f(h (w + alpha * H) + i2h(x)),    H' = rule(H, h, y, eta)        (Miconi et al. 2018, eq. 1 to 3)

    h is the hidden activity of the step before, H the Hebbian trace of each sequence.

    Args:
        input_size: I, or None: every neuron then has an input of its own, added before the nonlinearity without weights
            or bias, so that I = N.
        hidden_size: N.
        rule: "hebb", "oja" or a `Rule`; see `RULES`.
        alpha: plasticity coefficients: "full" has one per connection, `[N, N]`; "neuron" one per postsynaptic neuron,
            `[N]`; "shared" one in all, 0-dim; "none" has no plasticity and no trace, which is the plain RNN.
        eta: initial plasticity rate per step, a number or `[N]`.
        learn_eta: train eta as a parameter; False makes it a buffer.
        bias: give the input weights a bias.
        nonlinearity: "tanh", "relu", "sigmoid" or "identity".
        batch_first: no effect on a single step; `PlasticRNN` uses it.
        impl: implementation, see `torchplastic.functional.plastic_scan`; all give the same values and gradients.
        chunk_size: see `torchplastic.functional.plastic_scan`.
        device: device of the parameters.
        dtype: dtype of the parameters, float32 or float64.

    Attributes:
        w (Parameter): fixed weights, `[N, N]`.
        alpha (Parameter | None): plasticity coefficients, of the shape that `alpha` chooses.
        eta (Tensor | None): plasticity rate, 0-dim or `[N]`.
        i2h (Linear | None): input weights, `nn.Linear(I, N)`; None if input_size is None.

    Raises:
        ValueError: a size below 1, an unknown name, or eta of another shape.

    Examples:
        >>> cell = tp.PlasticRNNCell(8, 32)
        >>> y, state = cell(torch.randn(4, 8))
        >>> y, state = cell(torch.randn(4, 8), state)
        >>> y.shape, state.trace.shape
        (torch.Size([4, 32]), torch.Size([4, 32, 32]))
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
        if input_size is not None:
            input_size = checks.size(type(self).__name__, input_size)
        checks.one_of("nonlinearity", nonlinearity, NONLINEARITIES)
        impl = checks.impl(impl, dispatch.impls(), dispatch.ALIASES)
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
        """Draw w and alpha from 0.01 N(0, 1), i2h as torch.nn.Linear does, and set eta to its initial value.

        Args:
            generator: source of the random numbers; None uses PyTorch's global one.

        Examples:
            >>> tp.PlasticRNN(8, 32).reset_parameters(torch.Generator().manual_seed(0))
        """
        self.reset_plasticity(generator)
        if self.i2h is not None:
            bound = self.i2h.in_features**-0.5
            with torch.no_grad():
                for parameter in self.i2h.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)

    def forward(
        self, x: Tensor, state: PlasticState | None = None, clamp: Tensor | None = None
    ) -> tuple[Tensor, PlasticState]:
        """Run one step.

        Args:
            x: input, `[B, I]` or unbatched `[I]`.
            state: state to continue from; None means zeros.
            clamp: bool `[B, N]` or `[N]`, only with input_size=None: where true, the neuron's output is its input.

        Returns:
            y: output, `[B, N]` or `[N]`.
            state: the state after the step.

        Raises:
            ValueError: shapes, dtypes or devices that do not match, or clamp with an input_size.

        Examples:
            >>> y, state = tp.PlasticRNNCell(8, 32)(torch.randn(4, 8))
            >>> y.shape
            torch.Size([4, 32])
        """
        units = self._input_units()
        if x.dim() not in (1, 2) or x.shape[-1] != units:
            raise ValueError(
                f"x must be [B, I], or [I] unbatched; got {tuple(x.shape)} with input_size={self.input_size}."
            )
        y, state = self._scan(x.unsqueeze(0), state, None if clamp is None else clamp.unsqueeze(0), None)
        return y.squeeze(0), state

    def stepper(self, batch: int, state: PlasticState | None = None) -> Stepper:
        """Run the layer one step at a time without gradients: `y = step(x)`, x `[B, I]`, y `[B, N]`.

        An agent needs each output before the next input. The stepper updates its trace in place, so it is much faster
        than calling the layer once per step. Do not change the layer's parameters while it is in use.

        Args:
            batch: B, the number of sequences.
            state: state to continue from; None means zeros.

        Returns:
            A callable; its method `state()` returns a copy of the current `PlasticState`.

        Raises:
            ValueError: a state of another shape, dtype or device.

        Examples:
            >>> rnn = tp.PlasticRNN(8, 32)
            >>> step = rnn.stepper(4)
            >>> for _ in range(100):
            ...     y = step(torch.randn(4, 8))
            >>> step.state()
            PlasticState(hidden=[4, 32], trace=[4, 32, 32], float32, cpu)
        """
        hidden, trace = checks.plastic_state(
            type(self).__name__, state, batch, self.hidden_size, self.hidden_size, self.alpha is not None, self.w
        )
        spec = ScanSpec(
            1, batch, self.hidden_size, self.alpha_kind, get_rule(self.rule), self.nonlinearity, (False,),
            self.w.device.type, self.w.dtype, self.chunk_size,
        )  # fmt: skip
        eta = checks.plasticity_rate(type(self).__name__, self.hidden_size, self.eta, self.alpha, like=self.w)
        return Stepper(
            type(self).__name__, spec, self.impl, self.w, self.alpha, eta, self.i2h, PlasticState(hidden, trace)
        )

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
        checks.input_kind(who, x, self.w)
        return run(
            who, x if self.i2h is None else self.i2h(x), self.w, self.alpha, self.eta, state, self.rule, clamp,
            clamped_steps, self.nonlinearity, self.impl, self.chunk_size,
        )  # fmt: skip

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
    """A plastic recurrent layer, called like torch.nn.RNN: `y, state = rnn(x, state=None, clamp=None)`.

        x(t) = f(x(t-1) (w + alpha * H(t)) + input(t)),    H(t+1) = rule(H(t), x(t-1), x(t), eta)

    (Miconi et al. 2018, eq. 1 to 3.) `input` is `i2h(x)`, H the Hebbian trace of each sequence, and y holds the
    activity x(t) of every step. With alpha="none" the layer equals torch.nn.RNN with weight_hh = w.T.

    Args:
        input_size: I, or None: every neuron then has an input of its own, added before the nonlinearity without weights
            or bias, so that I = N.
        hidden_size: N.
        rule: "hebb", "oja" or a `Rule`; see `RULES`.
        alpha: plasticity coefficients: "full" has one per connection, `[N, N]`; "neuron" one per postsynaptic neuron,
            `[N]`; "shared" one in all, 0-dim; "none" has no plasticity and no trace, which is the plain RNN.
        eta: initial plasticity rate per step, a number or `[N]`.
        learn_eta: train eta as a parameter; False makes it a buffer.
        bias: give the input weights a bias.
        nonlinearity: "tanh", "relu", "sigmoid" or "identity".
        batch_first: x, y and clamp are `[B, T, …]` instead of `[T, B, …]`.
        impl: implementation, see `torchplastic.functional.plastic_scan`; all give the same values and gradients.
        chunk_size: see `torchplastic.functional.plastic_scan`.
        device: device of the parameters.
        dtype: dtype of the parameters, float32 or float64.

    Attributes:
        w (Parameter): fixed weights, `[N, N]`.
        alpha (Parameter | None): plasticity coefficients, of the shape that `alpha` chooses.
        eta (Tensor | None): plasticity rate, 0-dim or `[N]`.
        i2h (Linear | None): input weights, `nn.Linear(I, N)`; None if input_size is None.

    Raises:
        ValueError: a size below 1, an unknown name, or eta of another shape.

    Examples:
        >>> rnn = tp.PlasticRNN(8, 32, rule="oja")
        >>> x = torch.randn(50, 4, 8)  # 50 steps, a batch of 4, 8 inputs
        >>> y, state = rnn(x)
        >>> y.shape, state.trace.shape
        (torch.Size([50, 4, 32]), torch.Size([4, 32, 32]))
        >>> y[-1].square().mean().backward()
        >>> y, state = rnn(x, state.detach())  # the same sequences continue
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
            x: input, `[T, B, I]`, `[B, T, I]` with batch_first=True, or `[T, I]` unbatched.
            state: state to continue from; None means zeros.
            clamp: bool `[T, B, N]` (`[B, T, N]` with batch_first=True), or `[T, N]` for all sequences, only with
                input_size=None: where true, the neuron's output is its input.
            clamped_steps: T bools, see `torchplastic.functional.plastic_scan`.

        Returns:
            y: outputs of all steps, `[T, B, N]`, `[B, T, N]` with batch_first=True, or `[T, N]` unbatched.
            state: the state after the last step.

        Raises:
            ValueError: shapes, dtypes or devices that do not match, or clamp with an input_size.

        Examples:
            Clamp 30 neurons to a pattern for 10 steps:

            >>> rnn = tp.PlasticRNN(None, 30)
            >>> pattern = torch.randint(0, 2, (10, 1, 30)) * 2.0 - 1
            >>> y, state = rnn(pattern, clamp=torch.ones(10, 1, 30, dtype=torch.bool))
            >>> torch.equal(y, pattern)
            True
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
