"""The LSTM baseline, with the same call as the plastic layers.

Axes: T time, B batch, I inputs, N cells. Gates in the order of torch.nn.LSTM: input, forget, candidate, output.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchplastic.ops import checks
from torchplastic.state import LSTMState

CLAMP_GAIN = 20.0  # added to the gates of a clamped cell: sigmoid(20) = 1 - 2e-9


class LSTM(nn.Module):
    """An LSTM as the baseline, `y, state = lstm(x, state=None, clamp=None)`: one layer of torch.nn.LSTM.

    clamped_inputs=n ties the first n input units to the first n cells (the baseline of Miconi et al. 2018, section
    4.2). Where `clamp` is true, the input overrides its cell: 20 is added to the cell's input gate (open), subtracted
    from its forget gate (shut) and added to its output gate (open), and 20 times the input is added to the candidate.
    So an input of ±1 sets the output to tanh(±1). Where `clamp` is false, the input acts through its weights only.

    Args:
        input_size: I.
        hidden_size: N.
        clamped_inputs: n, at most the smaller of I and N.
        batch_first: x, y and clamp are `[B, T, …]` instead of `[T, B, …]`.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Attributes:
        core (LSTM): the parameters, a `torch.nn.LSTM(I, N)`.

    Raises:
        ValueError: a size below 1, or clamped_inputs outside 0 … min(I, N).

    Examples:
        >>> lstm = tp.LSTM(8, 32)
        >>> y, state = lstm(torch.randn(50, 4, 8))
        >>> y.shape, state.cell.shape
        (torch.Size([50, 4, 32]), torch.Size([4, 32]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        clamped_inputs: int = 0,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        input_size, hidden_size = checks.size("LSTM", input_size), checks.size("LSTM", hidden_size)
        if not 0 <= clamped_inputs <= min(input_size, hidden_size):
            raise ValueError(
                f"LSTM: clamped_inputs must be between 0 and {min(input_size, hidden_size)}, the smaller of "
                f"input_size and hidden_size; got {clamped_inputs}."
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.clamped_inputs = clamped_inputs
        self.batch_first = batch_first
        self.core = nn.LSTM(input_size, hidden_size, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights uniformly from ±1 / sqrt(N), as torch.nn.LSTM does.

        Args:
            generator: source of the random numbers; None uses PyTorch's global one.

        Examples:
            >>> tp.LSTM(8, 32).reset_parameters(torch.Generator().manual_seed(0))
        """
        bound = self.hidden_size**-0.5
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-bound, bound, generator=generator)

    def forward(
        self,
        x: Tensor,
        state: LSTMState | None = None,
        clamp: Tensor | None = None,
        clamped_steps: Sequence[bool] | None = None,
    ) -> tuple[Tensor, LSTMState]:
        """Run the LSTM over a sequence.

        Args:
            x: input, `[T, B, I]`, `[B, T, I]` with batch_first=True, or `[T, I]` unbatched.
            state: state to continue from; None means zeros.
            clamp: bool of the shape of x, or `[T, I]` for all sequences; true only on the first clamped_inputs units.
            clamped_steps: ignored; accepted so that all layers share one call.

        Returns:
            y: outputs of all steps, `[T, B, N]`, `[B, T, N]` with batch_first=True, or `[T, N]` unbatched. Under
                autocast its dtype may be lower.
            state: the state after the last step, in the dtype of the weights.

        Raises:
            ValueError: shapes, dtypes or devices that do not match, or a clamp beyond the first clamped_inputs units.

        Examples:
            >>> lstm = tp.LSTM(8, 32, clamped_inputs=8)
            >>> y, state = lstm(torch.ones(1, 1, 8), clamp=torch.ones(1, 8, dtype=torch.bool))
            >>> y[0, 0, 0].item()  # tanh(1)
            0.761594...
        """
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size:
            raise ValueError(
                "x must be [T, B, I], [B, T, I] with batch_first=True, or [T, I] unbatched; "
                f"got {tuple(x.shape)} with input_size={self.input_size}."
            )
        checks.input_kind("LSTM", x, next(self.core.parameters()))
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(next(self.core.parameters()).dtype)
        swap = self.batch_first and x.dim() == 3
        if swap:
            x = x.transpose(0, 1)
            clamp = clamp.transpose(0, 1) if clamp is not None and clamp.dim() == 3 else clamp
        if clamp is not None:
            clamp = self._check_clamp(clamp, x)
        if state is not None:
            _check_state(state, x, self.hidden_size)
        batched = x.dim() == 3
        if not batched:
            x, clamp = x.unsqueeze(1), None if clamp is None else clamp.unsqueeze(1)
        if state is None:
            h = c = x.new_zeros(x.shape[1], self.hidden_size)
        else:
            h, c = state if batched else (part.unsqueeze(0) for part in state)
        y, h, c = self._run(x, h, c, clamp)
        if not batched:
            return y.squeeze(1), LSTMState(h.squeeze(0), c.squeeze(0))
        return (y.transpose(0, 1) if swap else y), LSTMState(h, c)

    def _run(self, x: Tensor, h: Tensor, c: Tensor, clamp: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        weights: list[Tensor] = list(self.core.all_weights[0])
        if clamp is not None:
            # 2 n more input units with fixed weights apply the clamp, so that one call runs the whole sequence
            active = clamp[..., : self.clamped_inputs].to(x.dtype)
            x = torch.cat((x, active, active * x[..., : self.clamped_inputs]), -1)
            clamped = CLAMP_GAIN * torch.eye(self.hidden_size, self.clamped_inputs, dtype=x.dtype, device=x.device)
            nothing = torch.zeros_like(clamped)
            gates = torch.cat((clamped, -clamped, nothing, clamped))
            candidate = torch.cat((nothing, nothing, clamped, nothing))
            weights[0] = torch.cat((weights[0], gates, candidate), 1)
        start = [h.unsqueeze(0), c.unsqueeze(0)]
        y, h, c = torch.lstm(x, start, weights, True, 1, 0.0, self.training, False, False)
        return y, h.squeeze(0).to(x.dtype), c.squeeze(0).to(x.dtype)

    def _check_clamp(self, clamp: Tensor, x: Tensor) -> Tensor:
        if clamp.dtype != torch.bool or tuple(clamp.shape) not in {tuple(x.shape), (x.shape[0], x.shape[-1])}:
            raise ValueError(f"LSTM: clamp must be bool {tuple(x.shape)}; got {clamp.dtype} {tuple(clamp.shape)}.")
        self._check_units(clamp)
        if clamp.dim() < x.dim():
            clamp = clamp.unsqueeze(1).expand(x.shape)
        return clamp

    def _check_units(self, clamp: Tensor) -> None:
        if clamp[..., self.clamped_inputs :].any():
            raise ValueError(f"LSTM: clamp may be true on the first clamped_inputs={self.clamped_inputs} units only.")

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.clamped_inputs:
            text += f", clamped_inputs={self.clamped_inputs}"
        return f"{text}, batch_first=True" if self.batch_first else text


def _check_state(state: LSTMState, x: Tensor, N: int) -> None:
    batch = (x.shape[1],) if x.dim() == 3 else ()
    if not isinstance(state, tuple) or len(state) != 2:
        raise ValueError(f"LSTM: state must be an LSTMState or None, and is a {type(state).__name__}.")
    hidden, cell = state
    if batch and hidden.dim() == 2 and hidden.shape[0] != batch[0]:
        raise ValueError(
            f"LSTM: state has batch {hidden.shape[0]} but the input has batch {batch[0]}. "
            "Pass state=None, or pick rows with state.index_select(rows)."
        )
    for name, part in (("hidden", hidden), ("cell", cell)):
        if tuple(part.shape) != (*batch, N):
            raise ValueError(
                f"LSTM: state.{name} must be {(*batch, N)}; got {tuple(part.shape)}. Pass state=None for zeros."
            )
    checks.same_kind("LSTM", x=x, hidden=hidden, cell=cell)
