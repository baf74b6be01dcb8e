"""The autograd function of implementations that run a whole episode, and the errors of hand-written backward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class EpisodeDriver(Protocol):
    """Runs an episode forward and backward. Axes: T time, B batch, N neurons; rows are stored M ≥ N long."""

    def forward(
        self, drive: Tensor, hidden: Tensor, trace: Tensor, needs: Sequence[bool] | None
    ) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """-> x `[T + 1, B, M]` from the initial hidden on, the final trace, and what `backward` takes.

        needs: which of drive, w, alpha, eta, hidden, trace need a gradient; None stores nothing.
        """

    def backward(
        self, x: Tensor, kept: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
    ) -> tuple[Tensor, ...]:
        """Gradients of drive, w, alpha, eta, hidden, trace from those of y, the final hidden, the final trace.

        Entries whose `needs` flag is False are unspecified.
        """


def run_episode(
    make: Callable[..., EpisodeDriver],
    spec: Any,
    drive: Tensor,
    w: Tensor,
    alpha: Tensor,
    eta: Tensor,
    hidden: Tensor,
    trace: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """-> y `[T, B, N]`, hidden, trace, by `make(spec, w, alpha, eta, batch)`.

    spec has a `clamp`. Without gradients nothing is stored, whatever T.
    """
    inputs = (drive, w, alpha, eta, hidden, trace)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        return _WholeEpisode.apply(*inputs, make, spec)
    x, H, _ = make(spec, w, alpha, eta, drive.shape[1]).forward(drive, hidden, trace, None)
    x = x[..., : len(w)]
    return x[1:].contiguous(), x[-1].clone(), H  # a copy only where rows were padded


class _WholeEpisode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        drive, w, alpha, eta, hidden, trace, make, spec = inputs
        run = make(spec, w, alpha, eta, drive.shape[1])
        x, H, kept = run.forward(drive, hidden, trace, ctx.needs_input_grad[:6])
        ctx.make, ctx.spec = make, spec
        ctx.save_for_backward(drive, w, alpha, eta, hidden, trace, spec.clamp, x, *kept)
        ctx.set_materialize_grads(False)
        y, last = x[1:, :, : len(w)], x[-1, :, : len(w)]
        return y.clone(memory_format=torch.contiguous_format), last.clone(), H.contiguous()  # none a view of another

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        drive, w, alpha, eta, hidden, trace, _, x, *kept = saved_tensors(ctx)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            results = ctx.make(ctx.spec, w, alpha, eta, x.shape[1]).backward(x, kept, grads, ctx.needs_input_grad)
        wanted = tuple(g if need else None for g, need in zip(results, ctx.needs_input_grad, strict=False))
        return *refuse_second_derivative((drive, w, alpha, eta, hidden, trace, *grads), wanted), None, None


# --- errors of the hand-written backward passes

FREED = (
    "this state belongs to a graph that backward() has freed. Call state.detach() between optimiser steps, "
    "or pass state=None for a new episode."
)
TWICE = 'this implementation has no second derivative. Use impl="reference" to differentiate twice.'


def saved_tensors(ctx: Any) -> tuple[Tensor, ...]:
    """`ctx.saved_tensors`; RuntimeError that names the remedy if backward() has freed them."""
    try:
        return ctx.saved_tensors
    except RuntimeError as error:
        if "inplace" in str(error):  # a tensor was changed in place; torch's message names it
            raise
        raise RuntimeError(FREED) from error


def refuse_second_derivative(
    sources: Sequence[Tensor | None], results: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients made under create_graph=True: they may be used, but differentiating through them is an error.

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
