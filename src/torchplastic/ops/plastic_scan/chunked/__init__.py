"""The chunked implementation: exact, stores one trace per chunk of steps. ops/README.md derives it.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchplastic.ops.plastic_scan.numba_cpu import chunked as numba_chunked
from torchplastic.ops.plastic_scan.autograd import refuse_second_derivative, run_episode, saved_tensors
from torchplastic.ops.plastic_scan.chunked.backward import Backward
from torchplastic.ops.plastic_scan.chunked.forward import ChunkedSpec, run_forward


def chunked(
    drive: Tensor, w: Tensor, alpha: Tensor, eta: Tensor, hidden: Tensor, trace: Tensor, problem: ChunkedSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """`drive [T, B, N]`, `w [N, N]`, `hidden [B, N]`, `trace [B, N, N]` -> y `[T, B, N]`, hidden, trace.

    Equal to `reference` in values and gradients. Without gradients nothing is stored, whatever T.
    """
    if alpha.dim() == 2 and not problem.fused and numba_chunked.supports(problem.rule, w):
        return run_episode(numba_chunked.NumbaChunked, problem, drive, w, alpha, eta.expand(len(w)), hidden, trace)
    inputs = (drive, w, alpha, eta, hidden, trace)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        return _Chunked.apply(*inputs, problem)
    x, H = run_forward(*inputs, problem, kept=None)[:2]  # frees what was prepared before the output is copied
    x = x[..., : drive.shape[-1]]
    return x[1:].contiguous(), x[-1].clone(), H  # a copy only where rows were padded


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        drive, w, alpha, eta, hidden, trace, problem = inputs
        kept: list[Tensor] = []
        merge = not ctx.needs_input_grad[0]  # the drive's gradient needs each step apart
        x, H, ctx.prepared, ctx.groups = run_forward(drive, w, alpha, eta, hidden, trace, problem, kept, merge)
        ctx.problem = problem
        ctx.save_for_backward(drive, hidden, trace, w, alpha, eta, x, *kept)
        x = x[..., : drive.shape[-1]]
        ctx.set_materialize_grads(False)
        return x[1:].clone(memory_format=torch.contiguous_format), x[-1].clone(), H  # none a view of another

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = saved_tensors(ctx)
        prepared, ctx.prepared = ctx.prepared, None  # large; a second pass through a retained graph prepares it again
        with torch.no_grad():
            results = Backward(ctx.problem, prepared, ctx.groups, saved[3:], grads, ctx.needs_input_grad).run()
        return *refuse_second_derivative((*saved[:6], *grads), results), None
