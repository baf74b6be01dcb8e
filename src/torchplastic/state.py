"""Recurrent state as values: passed in, returned, never kept on a module.

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
        raise ValueError("index_select: this state is unbatched, it has no rows to pick.")
    return _map(state, lambda part: part.index_select(0, rows))


class PlasticState(NamedTuple):
    """State of a plastic layer: `hidden [B, N]` and the Hebbian `trace [B, I, N]` (recurrent: I = N).

    Unbatched `[N]` and `[I, N]`. `trace` is None in a network without plasticity.
    """

    hidden: Tensor
    trace: Tensor | None

    def detach(self) -> PlasticState:
        """The same values, cut from the graph that made them."""
        return _map(self, Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> PlasticState:
        """Every part through `Tensor.to(*args, **kwargs)`."""
        return _map(self, lambda part: part.to(*args, **kwargs))

    def reset(self, mask: Tensor | None = None) -> PlasticState:
        """Zeros where `mask [B]` (bool) is true, or everywhere with mask=None. ValueError for another shape."""
        return _reset(self, mask)

    def index_select(self, rows: Tensor) -> PlasticState:
        """The batch rows that the integer tensor `rows` names, in its order."""
        return _index_select(self, rows)


class LSTMState(NamedTuple):
    """State of the LSTM baseline: `hidden [B, N]` and `cell [B, N]` (unbatched `[N]`)."""

    hidden: Tensor
    cell: Tensor

    def detach(self) -> LSTMState:
        """The same values, cut from the graph that made them."""
        return _map(self, Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> LSTMState:
        """Every part through `Tensor.to(*args, **kwargs)`."""
        return _map(self, lambda part: part.to(*args, **kwargs))

    def reset(self, mask: Tensor | None = None) -> LSTMState:
        """Zeros where `mask [B]` (bool) is true, or everywhere with mask=None. ValueError for another shape."""
        return _reset(self, mask)

    def index_select(self, rows: Tensor) -> LSTMState:
        """The batch rows that the integer tensor `rows` names, in its order."""
        return _index_select(self, rows)
