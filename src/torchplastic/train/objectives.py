"""What is minimised and what is reported.

Axes: B batch, N neurons, M scored neurons (the first M).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Score(NamedTuple):
    """Per episode `[B]`: the loss, and the error that is reported beside it."""

    loss: Tensor
    error: Tensor


Objective = Callable[[Tensor, Tensor], Score]


def squared_error(measure: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """The paper's loss: squared error of the last step, summed over the M scored neurons.

    `measure(answer [B, M], target [B, M]) -> [B]` is the error reported beside it.
    """

    def objective(last: Tensor, target: Tensor) -> Score:
        answer = last[:, : target.shape[1]]
        return Score((answer - target).square().sum(-1), measure(answer.detach(), target))

    return objective
