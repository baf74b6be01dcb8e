"""What is minimised and what is reported.

Axes: B batch, N neurons, M scored neurons (the first M), Q questions, W ways (classes).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import cross_entropy


class Score(NamedTuple):
    """Per episode `[B]`: the loss, and the error (or reward) that is reported beside it."""

    loss: Tensor
    measured: Tensor


Objective = Callable[[Tensor, Tensor], Score]


def squared_error(measure: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """The paper's loss: squared error of the last step, summed over the M scored neurons.

    `measure(answer [B, M], target [B, M]) -> [B]` is the error reported beside it.
    """

    def objective(last: Tensor, target: Tensor) -> Score:
        answer = last[:, : target.shape[1]]
        return Score((answer - target).square().sum(-1), measure(answer.detach(), target))

    return objective


def classification(logits: Tensor, target: Tensor) -> Score:
    """Cross-entropy of an episode's questions, and the share that is answered wrongly: the mean over the Q of each.

    logits `[B, Q, W]`, target int64 `[B, Q]`.
    """
    loss = cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    return Score(loss.mean(-1), (logits.detach().argmax(-1) != target).to(loss.dtype).mean(-1))
