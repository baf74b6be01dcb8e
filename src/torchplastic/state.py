"""The state of the recurrent layers, as values: layers take and return a state, and no module keeps one.

Axes: B batch, I presynaptic and N postsynaptic neurons. Unbatched state has no B axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

S = TypeVar("S", "PlasticState", "LSTMState")


def _map(state: S, f: Callable[[Tensor], Tensor]) -> S:
    parts: Iterator[Any] = (None if part is None else f(part) for part in state)
    return type(state)(*parts)


def _reset(state: S, mask: Tensor | None) -> S:
    if mask is None:
        return _map(state, torch.zeros_like)
    batch = state.hidden.shape[:-1]
    if mask.dtype != torch.bool or mask.shape != batch:
        raise ValueError(f"reset: mask must be bool {list(batch)}; got {mask.dtype} {list(mask.shape)}.")
    return _map(state, lambda part: part.masked_fill(mask.reshape(batch + (1,) * (part.dim() - len(batch))), 0))


def _index_select(state: S, rows: Tensor) -> S:
    if state.hidden.dim() != 2:
        raise ValueError(
            "index_select: an unbatched state has no rows to pick; hidden must be [B, N], "
            f"got {list(state.hidden.shape)}."
        )
    return _map(state, lambda part: part.index_select(0, rows))


def _summary(state: PlasticState | LSTMState) -> str:
    """Shapes, dtype and device in place of the values, which may fill megabytes. Without an eligibility trace, none."""
    fields: list[tuple[str, Any]] = list(zip(state._fields, state, strict=True))
    fields = [(name, part) for name, part in fields if part is not None or name != "eligibility"]
    shapes = [f"{name}={list(part.shape) if isinstance(part, Tensor) else repr(part)}" for name, part in fields]
    kinds = [f"{part.dtype}, {part.device}".removeprefix("torch.") for _, part in fields if isinstance(part, Tensor)]
    return f"{type(state).__name__}({', '.join([*shapes, *dict.fromkeys(kinds)])})"


class PlasticState(NamedTuple):
    """State of a plastic layer: the last output and the Hebbian trace.

    Its repr shows shapes, dtype and device, not values. In a recurrent layer I = N.

    Attributes:
        hidden: the last output, `[B, N]`; unbatched `[N]`.
        trace: the Hebbian trace H, `[B, I, N]`, one matrix `[pre, post]` per sequence; unbatched `[I, N]`. None in a
            network without plasticity (alpha="none").
        eligibility: the eligibility trace E of a rule with two traces, of the shape of the trace. None for a rule with
            one, as hebb and oja are.

    Examples:
        >>> y, state = tp.PlasticRNN(8, 32)(torch.randn(50, 4, 8))
        >>> state.detach()
        PlasticState(hidden=[4, 32], trace=[4, 32, 32], float32, cpu)
        >>> hidden, trace, eligibility = state
    """

    hidden: Tensor
    trace: Tensor | None
    eligibility: Tensor | None = None

    def __repr__(self) -> str:
        return _summary(self)

    def detach(self) -> PlasticState:
        """Cut the state from the autograd graph: gradients of later steps end here.

        Returns:
            A state with the same values, which shares their memory and requires no gradient.

        Examples:
            >>> rnn = tp.PlasticRNN(8, 32)
            >>> y, state = rnn(torch.randn(50, 4, 8))
            >>> y, state = rnn(torch.randn(50, 4, 8), state.detach())
        """
        return _map(self, Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> PlasticState:
        """Move or cast every tensor of the state.

        Args:
            *args: arguments of `torch.Tensor.to`, such as a device or a dtype.
            **kwargs: keyword arguments of `torch.Tensor.to`.

        Returns:
            The moved or cast state.

        Examples:
            >>> tp.PlasticState(torch.zeros(4, 32), None).to(torch.float64)
            PlasticState(hidden=[4, 32], trace=None, float64, cpu)
        """
        return _map(self, lambda part: part.to(*args, **kwargs))

    def reset(self, mask: Tensor | None = None) -> PlasticState:
        """Set the state of some or all sequences to zero, as at the start of an episode.

        Args:
            mask: bool `[B]`, true for each sequence to reset; 0-dim if unbatched. None resets all.

        Returns:
            A new state.

        Raises:
            ValueError: the mask has another shape or dtype.

        Examples:
            >>> state = tp.PlasticState(torch.ones(2, 3), torch.ones(2, 3, 3))
            >>> state.reset(torch.tensor([True, False])).hidden
            tensor([[0., 0., 0.],
                    [1., 1., 1.]])
        """
        return _reset(self, mask)

    def index_select(self, rows: Tensor) -> PlasticState:
        """Pick sequences of the batch.

        Args:
            rows: integer tensor `[K]`, the indices of the sequences, in the wanted order.

        Returns:
            The state of these K sequences.

        Raises:
            ValueError: the state is unbatched.

        Examples:
            >>> state = tp.PlasticState(torch.ones(4, 3), torch.ones(4, 3, 3))
            >>> state.index_select(torch.tensor([2, 0]))
            PlasticState(hidden=[2, 3], trace=[2, 3, 3], float32, cpu)
        """
        return _index_select(self, rows)


class LSTMState(NamedTuple):
    """State of the LSTM baseline.

    Its repr shows shapes, dtype and device, not values.

    Attributes:
        hidden: the last output, `[B, N]`; unbatched `[N]`.
        cell: the cells, `[B, N]`; unbatched `[N]`.

    Examples:
        >>> y, state = tp.LSTM(8, 32)(torch.randn(50, 4, 8))
        >>> state
        LSTMState(hidden=[4, 32], cell=[4, 32], float32, cpu)
    """

    hidden: Tensor
    cell: Tensor

    def __repr__(self) -> str:
        return _summary(self)

    def detach(self) -> LSTMState:
        """Cut the state from the autograd graph: gradients of later steps end here.

        Returns:
            A state with the same values, which shares their memory and requires no gradient.

        Examples:
            >>> lstm = tp.LSTM(8, 32)
            >>> y, state = lstm(torch.randn(50, 4, 8))
            >>> y, state = lstm(torch.randn(50, 4, 8), state.detach())
        """
        return _map(self, Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> LSTMState:
        """Move or cast every tensor of the state.

        Args:
            *args: arguments of `torch.Tensor.to`, such as a device or a dtype.
            **kwargs: keyword arguments of `torch.Tensor.to`.

        Returns:
            The moved or cast state.

        Examples:
            >>> tp.LSTMState(torch.zeros(4, 32), torch.zeros(4, 32)).to(torch.float64)
            LSTMState(hidden=[4, 32], cell=[4, 32], float64, cpu)
        """
        return _map(self, lambda part: part.to(*args, **kwargs))

    def reset(self, mask: Tensor | None = None) -> LSTMState:
        """Set the state of some or all sequences to zero, as at the start of an episode.

        Args:
            mask: bool `[B]`, true for each sequence to reset; 0-dim if unbatched. None resets all.

        Returns:
            A new state.

        Raises:
            ValueError: the mask has another shape or dtype.

        Examples:
            >>> state = tp.LSTMState(torch.ones(2, 3), torch.ones(2, 3))
            >>> state.reset(torch.tensor([True, False])).cell
            tensor([[0., 0., 0.],
                    [1., 1., 1.]])
        """
        return _reset(self, mask)

    def index_select(self, rows: Tensor) -> LSTMState:
        """Pick sequences of the batch.

        Args:
            rows: integer tensor `[K]`, the indices of the sequences, in the wanted order.

        Returns:
            The state of these K sequences.

        Raises:
            ValueError: the state is unbatched.

        Examples:
            >>> state = tp.LSTMState(torch.ones(4, 3), torch.ones(4, 3))
            >>> state.index_select(torch.tensor([2, 0]))
            LSTMState(hidden=[2, 3], cell=[2, 3], float32, cpu)
        """
        return _index_select(self, rows)
