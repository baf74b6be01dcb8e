"""Run a plastic recurrent layer one step at a time, without gradients, as an agent needs it.

Axes: B batch, I inputs, N neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from torchplastic.ops import checks
from torchplastic.ops.plastic_scan import dispatch
from torchplastic.ops.plastic_scan.run import run
from torchplastic.ops.plastic_scan.spec import ScanSpec
from torchplastic.state import PlasticState


class Stepper:
    """A running layer: `y = step(x)` with x `[B, I]` and y `[B, N]`. `PlasticRNN.stepper` creates it.

    It returns what the layer returns when called once per step, but updates the trace in place. Do not change the
    layer's parameters while it is in use.

    Args:
        who: the layer's name, for errors.
        spec: the scan of one step.
        impl: as in `plastic_scan`.
        w: as in `plastic_scan`, and so are the next two.
        alpha: plasticity coefficients.
        eta: plasticity rate.
        i2h: input weights, or None: x is the drive.
        state: batched state to continue from; it is copied.

    Examples:
        >>> step = tp.PlasticRNN(8, 32).stepper(4)
        >>> step(torch.randn(4, 8)).shape
        torch.Size([4, 32])
    """

    def __init__(
        self,
        who: str,
        spec: ScanSpec,
        impl: str,
        w: Tensor,
        alpha: Tensor | None,
        eta: Tensor | None,
        i2h: nn.Linear | None,
        state: PlasticState,
    ) -> None:
        self._who, self._spec, self._impl, self._i2h, self._state = who, spec, impl, i2h, state.detach()
        self._w, self._alpha, self._eta = w, alpha, eta
        self._steps = dispatch.steps(spec, impl, w, alpha, eta, *self._state[:2])

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
        w, i2h, spec = self._w, self._i2h, self._spec
        x = x.detach()  # without a tangent of forward-mode differentiation too
        expected = (spec.B, spec.N if i2h is None else i2h.in_features)
        if x.shape != expected:
            raise ValueError(
                f"stepper: x must be [B, I] = {expected}; got {tuple(x.shape)}. "
                "For another batch size call layer.stepper(batch)."
            )
        checks.input_kind(self._who, x, w)
        drive = x if i2h is None else linear(x, i2h.weight, i2h.bias)
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self._step(drive.to(w.dtype))
        return self._step(drive)

    def _step(self, drive: Tensor) -> Tensor:
        if self._steps is not None:
            return self._steps(drive)
        spec = self._spec
        y, self._state = run(
            self._who, drive.unsqueeze(0), self._w, self._alpha, self._eta, self._state, spec.rule, None, None,
            spec.nonlinearity, self._impl, spec.chunk_size,
        )  # fmt: skip
        return y.squeeze(0)

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
        hidden, trace, _ = self._state
        return PlasticState(hidden.clone(), None if trace is None else trace.clone())
