"""Run a plastic recurrent network through time: check the arguments and choose the implementation.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchplastic.ops import checks
from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan.numba_cpu import chunked as numba_chunked
from torchplastic.ops.plastic_scan.triton_gpu import persistent as resident
from torchplastic.ops.plastic_scan.numba_cpu import recurrent as stepwise
from torchplastic.ops.plastic_scan.triton_gpu import support as triton_support
from torchplastic.ops.plastic_scan.chunked import chunked
from torchplastic.ops.plastic_scan.schedule import cut, longest_chunk
from torchplastic.ops.plastic_scan.chunked.forward import ChunkedSpec
from torchplastic.ops.plastic_scan.triton_gpu.fused import LONGEST
from torchplastic.ops.plastic_scan.nonplastic import nonplastic
from torchplastic.ops.plastic_scan.reference import reference
from torchplastic.rules import HEBB, OJA, Rule, get_rule
from torchplastic.state import PlasticState

#: Device types that have autocast, asked once: torch.compile cannot ask in versions before 2.10.
AUTOCAST = frozenset(kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind))
IMPLS = ("auto", "reference", "chunked", "stepwise", "triton")


def plastic_scan(
    drive: Tensor,
    w: Tensor,
    alpha: Tensor | None,
    eta: Tensor | float | None,
    state: PlasticState | None = None,
    *,
    rule: str | Rule = "hebb",
    clamp: Tensor | None = None,
    clamped_steps: Sequence[bool] | None = None,
    nonlinearity: str = "tanh",
    impl: str = "auto",
    chunk_size: int | None = None,
) -> tuple[Tensor, PlasticState]:
    """Run a plastic recurrent network through time (Miconi et al. 2018, eq. 1 to 3).

        x(t) = f(x(t-1) (w + alpha * H(t)) + drive(t)),    H(t+1) = rule(H(t), x(t-1), x(t), eta)

    It computes in float32 or float64; under autocast in the dtype of w.

    Args:
        drive: the external input current of each neuron, added before the nonlinearity, `[T, B, N]` or unbatched
            `[T, N]`.
        w: fixed weights `[pre, post]`, `[N, N]`.
        alpha: plasticity coefficients, `[N, N]` one per connection, `[N]` one per postsynaptic neuron, 0-dim one in
            all, or None for no plasticity.
        eta: plasticity rate per step, a float, 0-dim or `[N]`. Ignored if alpha is None.
        state: state to continue from, hidden `[B, N]` and trace `[B, N, N]`; None means zeros.
        rule: a name in `RULES` or a `Rule`.
        clamp: bool `[T, B, N]`, or `[T, N]` for all sequences. Where true, the neuron's output is its drive, and the
            gradient of the drive is dL/dx of that neuron.
        clamped_steps: T bools on the host: whether the step is clamped for every neuron of every sequence. None reads
            them from `clamp`, which synchronises with a GPU.
        nonlinearity: "tanh", "relu", "sigmoid" or "identity".
        impl: the implementation; all give the same values and gradients. "reference" is the plain loop under autograd.
            The others store one trace per chunk of steps and have no second derivative: "chunked" is fastest for
            large networks and for clamped patterns; "stepwise" is fastest for up to some hundred neurons, and needs a
            CPU under Linux, numba (extra fast), and hebb or oja; "triton" needs a CUDA device, Triton (extra gpu), and
            hebb or oja. "auto" chooses one of the first three; it chooses "reference" for a rule without `linear`, and
            for one that trains tensors of its own.
        chunk_size: steps between two stored traces. For "chunked" it is the largest number of free (not fully clamped)
            steps in a chunk; a clamped run between them counts as two. None chooses it from N, B and the clamped steps.

    Returns:
        y: outputs of all steps, `[T, B, N]` or `[T, N]`.
        state: the state after the last step; its trace is None if alpha is None.

    Raises:
        ValueError: shapes, dtypes or devices that do not match; an unknown rule, nonlinearity or impl; an impl that
            cannot run here or cannot run this rule; a rule whose `linear` trains tensors that `update` does not use.
        RuntimeError: from backward(), through a state whose graph was freed.

    Examples:
        Two neurons clamped to 1 write the trace H(t+1) = 0.5 H(t) + 0.5:

        >>> y, state = tp.functional.plastic_scan(
        ...     torch.ones(3, 1, 2), torch.zeros(2, 2), torch.zeros(2, 2), 0.5, clamp=torch.ones(3, 2, dtype=torch.bool)
        ... )
        >>> state.trace  # 0 before the first step, then 0.5, then 0.75
        tensor([[[0.7500, 0.7500],
                 [0.7500, 0.7500]]])
    """
    rule = get_rule(rule)
    if drive.dim() not in (2, 3) or drive.shape[0] < 1:
        raise ValueError(f"plastic_scan: drive must be [T, B, N] or [T, N] with T >= 1; got {tuple(drive.shape)}.")
    if drive.device.type in AUTOCAST and torch.is_autocast_enabled(drive.device.type):
        with torch.autocast(drive.device.type, enabled=False):
            return plastic_scan(
                drive.to(w.dtype), w, alpha, eta, state, rule=rule, clamp=clamp, clamped_steps=clamped_steps,
                nonlinearity=nonlinearity, impl=impl, chunk_size=chunk_size,
            )  # fmt: skip
    batched = drive.dim() == 3
    N = drive.shape[-1]
    checks.connections("plastic_scan", N, N, w, alpha)
    checks.same_kind("plastic_scan", drive=drive, w=w, alpha=alpha)
    checks.one_of("nonlinearity", nonlinearity, NONLINEARITIES)
    checks.one_of("impl", impl, IMPLS)
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"plastic_scan: chunk_size must be at least 1; got {chunk_size}.")
    if impl == "chunked" and alpha is not None and rule.linear is None:
        raise ValueError(
            'plastic_scan: this rule has no `linear` form, so impl="chunked" cannot run it. Use impl="reference".'
        )
    if impl == "stepwise" and alpha is not None and not stepwise.supports(rule, w):
        raise ValueError(
            'plastic_scan: impl="stepwise" runs hebb and oja on a CPU under Linux with numba (extra fast), in float32 '
            'or float64. Use impl="auto".'
        )
    if impl == "triton" and alpha is not None and not triton_support.supports(rule, w):
        found = f"{w.dtype} on {w.device.type}" if rule in (HEBB, OJA) else "another rule"
        raise ValueError(
            'plastic_scan: impl="triton" runs hebb and oja on a CUDA device with Triton (extra gpu), in float32 or '
            f'float64; got {found}. Use impl="auto".'
        )
    eta = checks.plasticity_rate("plastic_scan", N, eta, alpha, like=w)
    if not batched:
        drive = drive.unsqueeze(1)
    T, B, _ = drive.shape
    clamp = _clamp(clamp, T, B, N, batched)
    hidden, trace = checks.plastic_state("plastic_scan", state, B if batched else None, N, N, alpha is not None, drive)

    if impl == "reference" or (alpha is not None and rule.linear is None):
        y, hidden, trace = reference(
            drive, w, alpha, eta, hidden, trace, rule=rule, clamp=clamp, nonlinearity=nonlinearity
        )
    else:
        # not a decorator, which would import the compiler with torchplastic (about a second)
        run = torch.compiler.disable(_fast) if torch.compiler.is_compiling() else _fast
        y, hidden, trace = run(
            drive,
            w,
            alpha,
            eta,
            hidden,
            trace,
            rule,
            clamp,
            clamped_steps,
            nonlinearity,
            impl,
            chunk_size,
            state is None,
        )
    if batched:
        return y, PlasticState(hidden, trace)
    return y.squeeze(1), PlasticState(hidden.squeeze(0), None if trace is None else trace.squeeze(0))


def _fast(
    drive: Tensor,
    w: Tensor,
    alpha: Tensor | None,
    eta: Tensor | None,
    hidden: Tensor,
    trace: Tensor | None,
    rule: Rule,
    clamp: Tensor | None,
    clamped_steps: Sequence[bool] | None,
    nonlinearity: str,
    impl: str,
    chunk_size: int | None,
    fresh: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    if alpha is None or eta is None or trace is None:
        return *nonplastic(drive, w, hidden, clamp, nonlinearity), None
    if _trains_its_own(rule, hidden, trace, eta):
        if impl == "chunked":
            raise ValueError(
                'plastic_scan: this rule uses tensors of its own that require a gradient, and impl="chunked" computes '
                'none for them. Use impl="reference" or "auto", or freeze them with requires_grad_(False).'
            )
        return reference(drive, w, alpha, eta, hidden, trace, rule=rule, clamp=clamp, nonlinearity=nonlinearity)
    if clamp is None:
        clamped_steps = [False] * len(drive)
    elif clamped_steps is None:
        clamped_steps = clamp.all(-1).all(-1).tolist()
    elif len(clamped_steps) != len(drive):
        raise ValueError(
            f"plastic_scan: clamped_steps must have {len(drive)} entries, one per step; got {len(clamped_steps)}."
        )
    if impl == "auto" and stepwise.is_preferred(clamped_steps, len(w)) and stepwise.supports(rule, w):
        impl = "stepwise"
    if impl == "stepwise":
        few = stepwise.RecurrentSpec(rule, clamp, nonlinearity, min(chunk_size or stepwise.CHUNK, len(drive)))
        return stepwise.stepwise(drive, w, alpha, eta, hidden, trace, few)
    if impl == "triton" and resident.fits(drive.shape[1], w):
        whole = resident.PersistentSpec(rule, clamp, tuple(clamped_steps), nonlinearity, chunk_size or resident.CHUNK)
        return resident.resident(drive, w, alpha, eta, hidden, trace, whole)
    fused = impl == "triton"
    if fused:
        alpha = alpha.expand_as(w)
    if chunk_size is None:
        profile = numba_chunked.cost_profile(drive.device.type, rule, alpha.dim() == 2)
        chunk_size = longest_chunk(
            clamped_steps, *drive.shape[1:], full=alpha.dim() == 2, profile=profile, itemsize=w.element_size()
        )
    chunks = cut(clamped_steps, min(chunk_size, LONGEST), longest_run=0) if fused else cut(clamped_steps, chunk_size)
    problem = ChunkedSpec(rule, clamp, nonlinearity, chunks, fresh, fused)
    return chunked(drive, w, alpha, eta, hidden, trace, problem)


def _trains_its_own(rule: Rule, hidden: Tensor, trace: Tensor, eta: Tensor) -> bool:
    """Whether a rule's functions use tensors that require a gradient, which the fast implementations do not compute.

    Runs both functions once, on one sequence without gradients. ValueError if only `linear` uses such tensors.
    """
    if rule is HEBB or rule is OJA or not torch.is_grad_enabled():
        return False
    assert rule.linear is not None
    v, H = (start.detach()[:1].clone() for start in (hidden, trace))
    rate = eta.detach()
    updated = rule.update(H, v, v, rate).requires_grad
    if any(part.requires_grad for part in rule.linear(v, rate)) and not updated:
        raise ValueError(
            "plastic_scan: this rule's `linear` uses tensors that require a gradient and its `update`, the equation "
            "that defines the gradient, does not. Use the same tensors in both."
        )
    return updated


def _clamp(clamp: Tensor | None, T: int, B: int, N: int, batched: bool) -> Tensor | None:
    if clamp is None:
        return None
    if clamp.dtype != torch.bool or tuple(clamp.shape) not in {(T, N), (T, B, N) if batched else (T, N)}:
        allowed = f"({T}, {B}, {N}) or ({T}, {N})" if batched else f"({T}, {N})"
        raise ValueError(f"plastic_scan: clamp must be bool {allowed}; got {clamp.dtype} {tuple(clamp.shape)}.")
    return (clamp.unsqueeze(1) if clamp.dim() == 2 else clamp).expand(T, B, N)
