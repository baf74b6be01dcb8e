"""Check the arguments of a scan, choose its implementation, and run it.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from torchplastic.ops import checks
from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan import dispatch, reference
from torchplastic.ops.plastic_scan.spec import ScanSpec
from torchplastic.rules import Rule, get_rule, trains_its_own
from torchplastic.state import PlasticState

#: Device types that have autocast, asked once: torch.compile cannot ask in versions before 2.10.
AUTOCAST = frozenset(kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind))
ALPHA_KINDS = ("shared", "neuron", "full")
"""By the number of axes"""


def run(
    who: str,
    drive: Tensor,
    w: Tensor,
    alpha: Tensor | None,
    eta: Tensor | float | None,
    state: PlasticState | None,
    rule: str | Rule,
    clamp: Tensor | None,
    clamped_steps: Sequence[bool] | None,
    nonlinearity: str,
    impl: str,
    chunk_size: int | None,
) -> tuple[Tensor, PlasticState]:
    """`plastic_scan` for a caller with this name, which errors begin with."""
    rule = get_rule(rule)
    if impl != "auto":
        impl = checks.impl(impl, dispatch.impls(), dispatch.ALIASES)
    if drive.dim() not in (2, 3) or drive.shape[0] < 1:
        raise ValueError(f"{who}: drive must be [T, B, N] or [T, N] with T >= 1; got {tuple(drive.shape)}.")
    if drive.device.type in AUTOCAST and torch.is_autocast_enabled(drive.device.type):
        with torch.autocast(drive.device.type, enabled=False):
            drive = drive.to(w.dtype)
            return run(
                who, drive, w, alpha, eta, state, rule, clamp, clamped_steps, nonlinearity, impl, chunk_size
            )  # fmt: skip
    batched = drive.dim() == 3
    N = drive.shape[-1]
    checks.connections(who, N, N, w, alpha)
    checks.same_kind(who, drive=drive, w=w, alpha=alpha)
    checks.one_of("nonlinearity", nonlinearity, NONLINEARITIES)
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"{who}: chunk_size must be at least 1; got {chunk_size}.")
    eta = checks.plasticity_rate(who, N, eta, alpha, like=w)
    if not batched:
        drive = drive.unsqueeze(1)
    T, B, _ = drive.shape
    clamp = _clamp(who, clamp, T, B, N, batched)
    fresh = state is None
    hidden, trace = checks.plastic_state(who, state, B if batched else None, N, N, alpha is not None, drive)
    spec = ScanSpec(
        T, B, N, "none" if alpha is None else ALPHA_KINDS[alpha.dim()], rule, nonlinearity, (), drive.device.type,
        w.dtype, chunk_size, fresh,
    )  # fmt: skip
    inputs = (drive, w, alpha, eta, hidden, trace, clamp)
    # torch.compile looks into the reference, and leaves the others to Python. disable is not a decorator here, which
    # would import the compiler with torchplastic (about a second)
    if impl == "reference" or (spec.alpha != "none" and rule.linear is None and impl == "auto"):
        y, hidden, trace = reference.reference(spec, *inputs)
    elif torch.compiler.is_compiling():
        y, hidden, trace = torch.compiler.disable(_run)(who, spec, impl, clamped_steps, *inputs)
    else:
        y, hidden, trace = _run(who, spec, impl, clamped_steps, *inputs)
    return checks.results(y, hidden, None if alpha is None else trace, batched)


def _run(
    who: str, spec: ScanSpec, impl: str, clamped_steps: Sequence[bool] | None, drive: Tensor, w: Tensor,
    alpha: Tensor | None, eta: Tensor | None, hidden: Tensor, trace: Tensor | None, clamp: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Run the implementation that is chosen for these steps."""
    inputs = (drive, w, alpha, eta, hidden, trace)
    if (only_reference := _only_reference(inputs)) is not None:
        if impl not in ("auto", "reference"):
            raise ValueError(f'{who}: impl="{impl}" has no {only_reference}. Use impl="reference" or "auto".')
        return reference.reference(spec, *inputs, clamp)
    if clamp is None or spec.alpha == "none":
        clamped_steps = (False,) * spec.T
    elif clamped_steps is None:
        clamped_steps = clamp.all(-1).all(-1).tolist()
    elif len(clamped_steps) != spec.T:
        raise ValueError(f"{who}: clamped_steps must have {spec.T} entries, one per step; got {len(clamped_steps)}.")
    spec = spec._replace(clamped_steps=tuple(clamped_steps), trains_rule=trains_its_own(spec.rule, spec.N, w, eta))
    return dispatch.choose(who, spec, impl).run(spec, *inputs, clamp)


def _only_reference(inputs: Sequence[Tensor | None]) -> str | None:
    """What this call asks for that only the reference has; None if it asks for nothing."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        return "trace of torch.jit"
    if any(tensor is not None and unpack_dual(tensor).tangent is not None for tensor in inputs):
        return "forward-mode derivative"
    return None


def _clamp(who: str, clamp: Tensor | None, T: int, B: int, N: int, batched: bool) -> Tensor | None:
    if clamp is None:
        return None
    if clamp.dtype != torch.bool or tuple(clamp.shape) not in ((T, N), (T, B, N) if batched else (T, N)):
        allowed = f"({T}, {B}, {N}) or ({T}, {N})" if batched else f"({T}, {N})"
        raise ValueError(f"{who}: clamp must be bool {allowed}; got {clamp.dtype} {tuple(clamp.shape)}.")
    return (clamp.unsqueeze(1) if clamp.dim() == 2 else clamp).expand(T, B, N)
