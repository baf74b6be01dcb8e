"""Run a plastic recurrent layer one step at a time, without gradients, as an agent needs it.

Axes: B batch, I inputs, N neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear

from torchplastic.ops import checks
from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan.numba_cpu import recurrent as stepwise
from torchplastic.rules import get_rule
from torchplastic.state import PlasticState

if TYPE_CHECKING:
    from torchplastic.nn.rnn import PlasticRNNCell


class Stepper:
    """A running layer: `y = step(x)` with x `[B, I]` and y `[B, N]`. `PlasticRNN.stepper` creates it.

    It returns what the layer returns when called once per step, but updates the trace in place. Do not change the
    layer's parameters while it is in use.

    Args:
        layer: the recurrent layer.
        state: batched state to continue from; it is copied.

    Examples:
        >>> step = tp.PlasticRNN(8, 32).stepper(4)
        >>> step(torch.randn(4, 8)).shape
        torch.Size([4, 32])
    """

    def __init__(self, layer: PlasticRNNCell, state: PlasticState) -> None:
        self._layer, self._state = layer, state.detach()
        self._steps: stepwise.Steps | None = None
        rule = get_rule(layer.rule)
        if layer.alpha is not None and layer.impl != "reference" and stepwise.supports(rule, layer.w):
            assert layer.eta is not None
            assert state.trace is not None
            self._steps = stepwise.Steps(
                layer.w, layer.alpha, layer.eta, state.hidden, state.trace, rule, layer.nonlinearity
            )

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Run one step.

        Args:
            x: input, `[B, I]`.

        Returns:
            The output, `[B, N]`.

        Raises:
            ValueError: x of another shape, dtype or device.

        Examples:
            >>> tp.PlasticRNN(8, 32).stepper(4)(torch.randn(4, 8)).shape
            torch.Size([4, 32])
        """
        layer, (hidden, trace) = self._layer, self._state
        expected = (len(hidden), layer._input_units())
        if x.shape != expected:
            raise ValueError(
                f"stepper: x must be [B, I] = {expected}; got {tuple(x.shape)}. "
                "For another batch size call layer.stepper(batch)."
            )
        if trace is not None and self._steps is None:
            y, self._state = layer._scan(x.unsqueeze(0), self._state, None, None)
            return y.squeeze(0)
        drive = x if layer.i2h is None else linear(x, layer.i2h.weight, layer.i2h.bias)
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self._step(drive.to(layer.w.dtype))
        if drive.dtype != layer.w.dtype or drive.device != layer.w.device:
            checks.same_kind(type(layer).__name__, input=drive, w=layer.w)
        return self._step(drive)

    def _step(self, drive: Tensor) -> Tensor:
        if self._steps is not None:
            return self._steps(drive)
        layer = self._layer
        y = NONLINEARITIES[layer.nonlinearity].f(torch.addmm(drive, self._state.hidden, layer.w))
        self._state = PlasticState(y, None)
        return y.clone()

    def state(self) -> PlasticState:
        """Copy the current state.

        Returns:
            The state after the last step, for a layer or another stepper to continue from.

        Examples:
            >>> tp.PlasticRNN(8, 32).stepper(4).state()
            PlasticState(hidden=[4, 32], trace=[4, 32, 32], float32, cpu)
        """
        if self._steps is not None:
            return PlasticState(*self._steps.state())
        hidden, trace = self._state
        return PlasticState(hidden.clone(), None if trace is None else trace.clone())
