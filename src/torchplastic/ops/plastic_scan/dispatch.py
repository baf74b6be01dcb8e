"""The list of implementations, and which of them runs a scan.

No other place names them all: names of `impl`, errors, predictions of memory, rows of the bench and choices of the
command come from this list. "auto" is the first that can run a scan and prefers it.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from torch import Tensor

from torchplastic.ops.plastic_scan import chunked, nonplastic, reference
from torchplastic.ops.plastic_scan.spec import Backend, ScanSpec, Steps

BACKENDS: list[Backend] = [
    *import_module("torchplastic.ops.plastic_scan.numba_cpu").BACKENDS,
    *import_module("torchplastic.ops.plastic_scan.triton_gpu").BACKENDS,
    nonplastic.BACKEND,
    chunked.BACKEND,
    reference.BACKEND,
]
ALIASES = {"stepwise": "recurrent"}
"""Names of earlier versions, which work for one more version with a warning."""


class Choice(NamedTuple):
    """Which implementation runs a scan, and why; its str has a line for each one of the list."""

    impl: str
    """The name that users choose by"""
    name: str
    """What runs, in a few words"""
    reasons: dict[str, str]
    """For each implementation, by its name: why it runs, or why not"""

    def __str__(self) -> str:
        width = max(map(len, self.reasons))
        lines = (f"{'>' if name == self.name else ' '} {name:{width}}  {why}" for name, why in self.reasons.items())
        return "\n".join(lines)


def impls() -> tuple[str, ...]:
    """The names of implementations that `impl=` takes.

    Returns:
        The names, "auto" first.

    Examples:
        >>> tp.functional.impls()[:2]
        ('auto', 'reference')
    """
    return ("auto", *dict.fromkeys(backend.impl for backend in reversed(BACKENDS) if backend.impl is not None))


def choose(who: str, spec: ScanSpec, impl: str = "auto") -> Backend:
    """The implementation that runs a scan. ValueError, for a caller with this name, if the named one cannot."""
    for backend in BACKENDS:
        if _why_not(backend, spec, impl) is None:
            return backend
    *_, general = (backend for backend in BACKENDS if backend.impl == impl)
    raise ValueError(f'{who}: impl="{impl}" cannot run this: {general.supports(spec)}. Use impl="auto".')


def runs(spec: ScanSpec, impl: str) -> bool:
    """Whether the named implementation runs a scan here."""
    return any(_why_not(backend, spec, impl) is None for backend in BACKENDS)


def steps(spec: ScanSpec, impl: str, *tensors: Tensor | None) -> Steps | None:
    """Single steps by the first implementation that has a way of its own and can run the scan, or None."""
    ways = (backend.steps for backend in BACKENDS if backend.supports(spec) is None and impl != "reference")
    return next((way(spec, *tensors) for way in ways if way is not None), None)


def explain(who: str, spec: ScanSpec, impl: str = "auto") -> Choice:
    """The choice with its reasons. ValueError as `choose`."""
    chosen, reasons = choose(who, spec, impl), {}
    for backend in BACKENDS:
        why_not = _why_not(backend, spec, impl)
        if why_not is None:
            why_not = "could run this, but comes later in the list"
        reasons[backend.name] = f"runs: it is for {backend.best_for}" if backend is chosen else why_not
    return Choice(chosen.impl or impl, chosen.name, reasons)


def _why_not(backend: Backend, spec: ScanSpec, impl: str) -> str | None:
    """Why a scan is not for this implementation; None if it is."""
    if (reason := backend.supports(spec)) is not None:
        return reason
    if impl == "auto" or (spec.alpha == "none" and impl != "reference"):  # nothing to choose without plasticity
        return None if backend.is_preferred(spec) else f"could run this, but is for {backend.best_for}"
    return None if backend.impl == impl else f'has the name impl="{backend.impl}"'
