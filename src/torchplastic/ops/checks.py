"""Checks of public arguments. Each raises a ValueError of one line: what is wrong, the numbers, and the way out.

Axes: B batch, I presynaptic and N postsynaptic neurons (recurrent: I = N).
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from torchplastic.state import PlasticState


def one_of(what: str, value: str, allowed: Iterable[str]) -> None:
    """Check a name against a table."""
    if value not in allowed:
        raise ValueError(f"{what} must be one of {', '.join(allowed)}; got {value!r}.")


def impl(value: str, allowed: Iterable[str], aliases: Mapping[str, str]) -> str:
    """Check the name of an implementation; a name of an earlier version is replaced with a warning."""
    if value in aliases:
        warnings.warn(
            f'impl="{value}" has the name "{aliases[value]}" now; the old one goes with the next version.',
            FutureWarning,
            stacklevel=2,
        )
        return aliases[value]
    one_of("impl", value, allowed)
    return value


def size(who: str, value: int) -> int:
    """Check a number of units."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{who}: a size must be an int; got {value!r}.") from None
    if number < 1:
        raise ValueError(f"{who}: sizes must be at least 1; got {number}.")
    return number


def computes_in(who: str, dtype: torch.dtype, name: str = "dtype") -> None:
    """Check that a layer computes in this dtype."""
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{who} computes in float32 or float64; got {name} {dtype}. "
            "For mixed precision keep float32 parameters and use torch.autocast."
        )


def connections(who: str, I: int, N: int, w: Tensor, alpha: Tensor | None) -> None:
    """Check the shapes of w, `[I, N]`, and of alpha, `[I, N]`, `[N]`, 0-dim or None."""
    if tuple(w.shape) != (I, N):
        raise ValueError(f"{who}: w must be [pre, post] ({I}, {N}); got {tuple(w.shape)}.")
    if alpha is not None and tuple(alpha.shape) not in ((I, N), (N,), ()):  # no set: jit.trace has tensors for sizes
        raise ValueError(f"{who}: alpha must be ({I}, {N}), ({N},), 0-dim or None; got {tuple(alpha.shape)}.")


def same_kind(who: str, **tensors: Tensor | None) -> None:
    """Check that all tensors share one dtype, float32 or float64, and one device."""
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    kinds = {(tensor.dtype, tensor.device) for tensor in present.values()}
    if len(kinds) > 1:
        listing = ", ".join(f"{name} {tensor.dtype} on {tensor.device}" for name, tensor in present.items())
        raise ValueError(f"{who}: tensors must share dtype and device; got {listing}.")
    for dtype, _ in kinds:
        computes_in(who, dtype, next(iter(present)))


def eta_shape(who: str, N: int, eta: Tensor) -> None:
    """Check the shape of eta."""
    if tuple(eta.shape) not in ((), (1,), (N,)):
        raise ValueError(f"{who}: eta must be a number, 0-dim, (1,) or ({N},); got {tuple(eta.shape)}.")


def input_kind(who: str, x: Tensor, w: Tensor) -> None:
    """Check that an input has the dtype and the device of the parameters; under autocast it may be narrower."""
    if x.dtype == w.dtype and x.device == w.device:
        return
    if x.is_floating_point() and x.device == w.device and torch.is_autocast_enabled(x.device.type):
        return
    raise ValueError(
        f"{who}: x must be {w.dtype} on {w.device}, like the parameters; got {x.dtype} on {x.device}. "
        "Pass x.to(layer.w)."
    )


def plasticity_rate(who: str, N: int, eta: Tensor | float | None, alpha: Tensor | None, like: Tensor) -> Tensor | None:
    """Convert eta to a tensor; None without plasticity."""
    if alpha is None:
        return None
    if eta is None:
        raise ValueError(f"{who}: a plastic network needs eta; pass a float, a 0-dim tensor or ({N},).")
    if isinstance(eta, int | float):
        return like.new_full((), eta)  # created on the device, without a copy
    rate = torch.as_tensor(eta, dtype=None if isinstance(eta, Tensor) else like.dtype, device=like.device)
    eta_shape(who, N, rate)
    same_kind(who, w=like, eta=rate)
    return rate.reshape(()) if tuple(rate.shape) == (1,) else rate


def plastic_state(
    who: str, state: PlasticState | None, batch: int | None, I: int, N: int, plastic: bool, like: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Check a state, or create zeros: hidden `[B, N]` and trace `[B, I, N]` or None. batch=None is unbatched, B = 1."""
    B = 1 if batch is None else batch
    if state is None:
        return like.new_zeros(B, N), like.new_zeros(B, I, N) if plastic else None
    if not isinstance(state, tuple) or not 1 <= len(state) <= 3:
        raise ValueError(
            f"{who}: state must be a PlasticState or None, and is a {type(state).__name__}. A state of torch.nn.RNN "
            "has no trace: pass PlasticState(hidden, trace)."
        )
    hidden, trace, eligibility = (*state, None, None)[:3]  # from a trace of torch.jit a tuple without None
    if eligibility is not None:
        raise ValueError(
            f"{who}: the state has an eligibility trace but the rule has one trace only. "
            "Pass PlasticState(state.hidden, state.trace)."
        )
    if plastic != (trace is not None):
        raise ValueError(
            f"{who}: the state has {'no' if plastic else 'a'} trace but the layer "
            f"{'is' if plastic else 'is not'} plastic. Pass state=None, or a state from a layer with the same alpha."
        )
    lead = () if batch is None else (batch,)
    if hidden.dim() == 2 and batch is not None and hidden.shape[0] != batch:
        raise ValueError(
            f"{who}: state has batch {hidden.shape[0]} but the input has batch {batch}. "
            "Pass state=None, or pick rows with state.index_select(rows)."
        )
    for name, part, shape in (("hidden", hidden, (*lead, N)), ("trace", trace, (*lead, I, N))):
        if part is not None and tuple(part.shape) != shape:
            raise ValueError(
                f"{who}: state.{name} must be {shape}; got {tuple(part.shape)}. Pass state=None for zeros."
            )
    same_kind(who, input=like, hidden=hidden, trace=trace)
    if batch is None:
        return hidden.unsqueeze(0), None if trace is None else trace.unsqueeze(0)
    return hidden, trace


def results(y: Tensor, hidden: Tensor, trace: Tensor | None, batched: bool) -> tuple[Tensor, PlasticState]:
    """y and the state as a layer returns them; while torch.jit traces, which takes no None, a tuple without it."""
    if not batched:
        y, hidden, trace = y.squeeze(1), hidden.squeeze(0), None if trace is None else trace.squeeze(0)
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        return y, (hidden,) if trace is None else (hidden, trace)  # type: ignore[return-value]
    return y, PlasticState(hidden, trace)
