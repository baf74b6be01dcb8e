"""Loss functions, each with the error that is reported beside it.

Axes: B batch, N neurons, M scored neurons (the first M), Q queries, W ways (classes).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import cross_entropy


class Score(NamedTuple):
    """The loss of each episode `[B]`, and its error (or reward) `[B]`, which is only reported."""

    loss: Tensor
    measured: Tensor


Objective = Callable[[Tensor, Tensor], Score]


def squared_error(measure: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """The paper's loss: the squared error of the last step, summed over the M scored neurons.

    measure: `(answer [B, M], target [B, M]) -> [B]`, the error to report.
    """

    def objective(last: Tensor, target: Tensor) -> Score:
        answer = last[:, : target.shape[1]]
        return Score((answer - target).square().sum(-1), measure(answer.detach(), target))

    return objective


def classification(logits: Tensor, target: Tensor) -> Score:
    """Cross-entropy and error rate of each episode, as means over its Q queries.

    logits `[B, Q, W]`, target int64 `[B, Q]`.
    """
    loss = cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    return Score(loss.mean(-1), (logits.detach().argmax(-1) != target).to(loss.dtype).mean(-1))
