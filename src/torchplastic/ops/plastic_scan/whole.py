"""The autograd function of the forms that run an episode in one go, each way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from torchplastic.ops.plastic_scan.once import refuse_second_derivative, saved_tensors


class Run(Protocol):
    """An episode each way. Axes: T time, B batch, N neurons; rows are stored M ≥ N long."""

    def forward(
        self, drive: Tensor, hidden: Tensor, trace: Tensor, needs: Sequence[bool] | None
    ) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """-> x `[T + 1, B, M]` from the initial hidden on, the final trace, and what `backward` takes.

        needs: which of drive, w, alpha, eta, hidden, trace need a gradient; None keeps nothing.
        """

    def backward(
        self, x: Tensor, kept: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
    ) -> tuple[Tensor, ...]:
        """Gradients of drive, w, alpha, eta, hidden, trace from those of y, the final hidden, the final trace.

        Those that nobody needs may be anything.
        """


def run_whole(
    make: Callable[..., Run],
    problem: Any,
    drive: Tensor,
    w: Tensor,
    alpha: Tensor,
    eta: Tensor,
    hidden: Tensor,
    trace: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """-> y `[T, B, N]`, hidden, trace, by `make(problem, w, alpha, eta, batch)`.

    problem has a `clamp`. Without gradients nothing is kept, whatever T.
    """
    inputs = (drive, w, alpha, eta, hidden, trace)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        return _Scan.apply(*inputs, make, problem)
    x, H, _ = make(problem, w, alpha, eta, drive.shape[1]).forward(drive, hidden, trace, None)
    x = x[..., : len(w)]
    return x[1:].contiguous(), x[-1].clone(), H  # a copy only where rows were padded


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        drive, w, alpha, eta, hidden, trace, make, problem = inputs
        run = make(problem, w, alpha, eta, drive.shape[1])
        x, H, kept = run.forward(drive, hidden, trace, ctx.needs_input_grad[:6])
        ctx.make, ctx.problem = make, problem
        ctx.save_for_backward(drive, w, alpha, eta, hidden, trace, problem.clamp, x, *kept)
        ctx.set_materialize_grads(False)
        y, last = x[1:, :, : len(w)], x[-1, :, : len(w)]
        return y.clone(memory_format=torch.contiguous_format), last.clone(), H.contiguous()  # none a view of another

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        drive, w, alpha, eta, hidden, trace, _, x, *kept = saved_tensors(ctx)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            results = ctx.make(ctx.problem, w, alpha, eta, x.shape[1]).backward(x, kept, grads, ctx.needs_input_grad)
        wanted = tuple(g if need else None for g, need in zip(results, ctx.needs_input_grad, strict=False))
        return *refuse_second_derivative((drive, w, alpha, eta, hidden, trace, *grads), wanted), None, None
