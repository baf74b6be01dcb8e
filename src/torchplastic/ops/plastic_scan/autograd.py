"""Implementations with a backward pass of their own under autograd: the one autograd.Function, and its errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchplastic.ops.plastic_scan.spec import Call, Kernel, ScanSpec
from torchplastic.rules import key_of, rule_of

INPUTS = 6  # the first fields of a call, which have gradients


def run_kernel(
    kernel: Kernel,
    spec: ScanSpec,
    drive: Tensor,
    w: Tensor,
    alpha: Tensor | None,
    eta: Tensor | None,
    hidden: Tensor,
    trace: Tensor | None,
    clamp: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """-> y `[T, B, N]`, hidden, trace. Without gradients nothing is kept, whatever T.

    `drive [T, B, N]`, `w [N, N]`, alpha and eta as in `plastic_scan`, `hidden [B, N]`, `trace [B, N, N]`.
    """
    inputs = (drive, w, alpha, eta, hidden, trace)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs):
        return _Scan.apply(*inputs, clamp, kernel, spec)
    y, last, H, *_ = kernel.forward(make_call(kernel, spec, inputs, clamp, (False,) * INPUTS))
    return y, last, H


def outputs_of(x: Tensor, N: int, keep: bool) -> tuple[Tensor, Tensor]:
    """y and the last hidden from x `[T + 1, B, ≥ N]`. If x is not kept, y may be part of it."""
    y = x[1:, :, :N]
    return y.clone(memory_format=torch.contiguous_format) if keep else y.contiguous(), x[-1, :, :N].clone()


def run_kernel_per_connection(
    kernel: Kernel, spec: ScanSpec, drive: Tensor, w: Tensor, alpha: Tensor, eta: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """`run_kernel` of a kernel that takes alpha `[K, N, N]` and eta `[K, N]` only."""
    return run_kernel(kernel, spec, drive, w, alpha.expand_as(w), eta.expand(len(w)), *others)


def make_call(
    kernel: Kernel, spec: ScanSpec, inputs: Sequence[Tensor | None], clamp: Tensor | None, needs: tuple[bool, ...]
) -> Call:
    """The call of a scan with one parameter set."""
    plain = [tensor.detach() if tensor is not None and tensor.requires_grad else tensor for tensor in inputs]
    rest: list[Any] = [*kernel.schedule(spec), key_of(spec.rule), spec.nonlinearity, spec.fresh, needs]
    return Call._make([*_with_sets(plain), clamp, *rest])


def _with_sets(inputs: Sequence[Tensor | None]) -> list[Any]:
    """The same with an axis for the parameter sets of w, alpha and eta."""
    return [
        tensor.unsqueeze(0) if tensor is not None and 1 <= place <= 3 else tensor for place, tensor in enumerate(inputs)
    ]


def only_set(call: Call) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """w, alpha and eta of a plastic network with one parameter set, without that axis; and the trace."""
    w, alpha, eta, trace = call.w, call.alpha, call.eta, call.trace
    assert alpha is not None
    assert eta is not None
    assert trace is not None
    return w.squeeze(0), alpha.squeeze(0), eta.squeeze(0), trace


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        *inputs, clamp, kernel, spec = arguments
        call = make_call(kernel, spec, inputs, clamp, ctx.needs_input_grad[:INPUTS])
        y, last, H, *kept = kernel.forward(call)
        ctx.kernel, ctx.rest = kernel, call[INPUTS + 1 :]
        ctx.rule = rule_of(call.rule)  # alive until backward
        ctx.save_for_backward(*inputs, clamp, *kept)
        ctx.set_materialize_grads(False)
        return y, last, H

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = saved_tensors(ctx)
        inputs, clamp, kept = saved[:INPUTS], saved[INPUTS], saved[INPUTS + 1 :]
        with torch.no_grad(), torch.autocast(inputs[0].device.type, enabled=False):
            call = Call._make([*_with_sets(inputs), clamp, *ctx.rest])
            results = ctx.kernel.backward(call, kept, grads)
        wanted = tuple(
            result.view_as(tensor) if need and result is not None and tensor is not None else None
            for result, tensor, need in zip(results, inputs, call.needs, strict=True)
        )
        return *refuse_second_derivative((*inputs, *grads), wanted), None, None, None


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
