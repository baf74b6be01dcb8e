"""What the hand-written backward passes refuse, each with a word on the way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

FREED = (
    "this state belongs to a graph that backward() has freed. Call state.detach() between optimiser steps, "
    "or pass state=None for a new episode."
)
TWICE = 'the fast forms have no second derivative. Use impl="reference" to differentiate twice.'


def saved_tensors(ctx: Any) -> tuple[Tensor, ...]:
    """`ctx.saved_tensors`; RuntimeError with the way out where backward() has freed them."""
    try:
        return ctx.saved_tensors
    except RuntimeError as error:
        if "inplace" in str(error):  # a tensor was changed since, and torch says which
            raise
        raise RuntimeError(FREED) from error


def refuse_second_derivative(
    sources: Sequence[Tensor | None], results: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients made under create_graph=True: they may be used, a derivative through them is an error.

    `sources` are the tensors that the gradients depend on.
    """
    if not torch.is_grad_enabled():
        return results
    present = [tensor for tensor in sources if tensor is not None]
    return _Once.apply(len(present), *present, *results)


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *inputs: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if tensor is None else tensor.clone() for tensor in inputs[count:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        raise RuntimeError(TWICE)
