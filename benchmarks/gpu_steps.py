"""The steps of gpu.py: parity on the device, a training step of each size, and training."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch

import torchplastic as tp
from tests.ops import parity
from torchplastic.bench import ROUNDS_OF_SCALING, measure, suites
from torchplastic.bench.measure import COPIED, copy_bandwidth
from torchplastic.functional import plastic_scan
from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.tasks.patterns import Patterns

IMPLS = [impl for impl in ("chunked", "triton") if impl in tp.functional.impls()]
"""What a GPU runs beside the reference"""
SECONDS = {  # of a step, by its kind: guesses, which the first step of a kind corrects
    "parity of chunked": 10.0,
    "parity of triton": 40.0,
    "copy": 5.0,
    "bench": 30.0,
    "growth": 25.0,
}
FAILURES = 20  # named of a step


@dataclass(frozen=True)
class Step:
    """A part of the work, done in one piece."""

    name: str
    kind: str
    run: Callable[[float | None], dict[str, Any]]
    """From bytes per second of a copy, if known, to the result, as JSON."""
    seconds: float
    """The first estimate of its time."""


@dataclass(frozen=True)
class Sizes:
    """How much is checked and measured."""

    scans: tuple[tuple[int, int | None, int], ...] = parity.SIZES
    large: tuple[tuple[int, int], ...] = parity.LARGE
    long: tuple[int, int, int, int] = (80, 4, 300, 100)  # T, B, N, and the chunk's length
    large_steps: int = 40
    neurons: int = 33  # elsewhere
    rules: tuple[str, ...] = tuple(tp.RULES)
    alphas: tuple[str, ...] = parity.ALPHAS
    clamps: tuple[str, ...] = parity.CLAMPS
    etas: tuple[str, ...] = parity.ETAS
    nonlinearities: tuple[str, ...] = tuple(NONLINEARITIES)
    rounds: int = 15
    copied: int = COPIED


TINY = Sizes(  # programs that wait for each other never end in the interpreter: one column, or many examples
    scans=((1, 3, 5), (4, None, 3)), large=((1, 8), (5, 9)), long=(6, 2, 5, 4), large_steps=3, neurons=6,
    rules=("oja",), alphas=("full", "none"), clamps=("mixed",), etas=("scalar",), nonlinearities=("tanh",), rounds=3,
    copied=1 << 16,
)  # fmt: skip


# --- parity


def parity_steps(device: torch.device, sizes: Sizes) -> list[Step]:
    """Every implementation against the reference, in float64 and float32, and in a captured training step."""
    steps = []

    def add(impl: str, what: str, checks: Callable[[], Iterator[tuple[str, Callable[[], None]]]]) -> None:
        run = partial(_check, impl, device, checks)
        kind = f"parity of {impl}"
        steps.append(Step(f"{kind}: {what}", kind, lambda _: run(), SECONDS[kind]))

    for impl in IMPLS:
        scan = partial(plastic_scan, impl=impl)
        for rule, alpha in product(sizes.rules, sizes.alphas):
            add(impl, f"{rule}, alpha {alpha}", partial(_kinds, scan, device, sizes, rule, alpha))
        for rule in sizes.rules:
            add(impl, f"{rule}, large", partial(_large, scan, device, sizes, rule))
        add(impl, "nonlinearities", partial(_nonlinearities, scan, device, sizes))
        add(impl, "long chunks", partial(_long_chunks, scan, device, sizes))
        captured = partial(parity.assert_captured_parity, impl, device, sizes.neurons)
        add(impl, "captured step", lambda captured=captured: iter([("captured step", captured)]))
    return steps


def _check(
    impl: str, device: torch.device, checks: Callable[[], Iterator[tuple[str, Callable[[], None]]]]
) -> dict[str, Any]:
    """Run every check, whatever fails before it -> their number, and the failures by name."""
    small = [tensor.to(device) for tensor in (torch.zeros(2, 1, 3), torch.zeros(3, 3), torch.ones(3, 3))]
    try:
        plastic_scan(*small, torch.tensor(0.1, device=device), impl=impl)
    except ValueError as error:
        return {"skipped": str(error)}
    failed, number = [], 0
    for name, check in checks():
        number += 1
        try:
            check()
        except Exception as error:
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # raises where the device is lost, which ends the step
            line = next(iter(str(error).splitlines()), "")
            failed.append(f"{name}: {type(error).__name__}: {line}")
            if len(failed) == 1:
                traceback.print_exc()
    return {"checks": number, "failures": len(failed), "failed": failed[:FAILURES]}


def _both(
    name: str, inputs: dict[str, Any], *scans: Callable[..., Any], **options: Any
) -> Iterator[tuple[str, Callable[[], None]]]:
    yield f"{name}, float64", lambda: parity.assert_parity(inputs, *scans, **options)
    yield f"{name}, float32", lambda: parity.assert_float32_parity(inputs, *scans, **options)


def _kinds(
    scan: Callable[..., Any], device: torch.device, sizes: Sizes, rule: str, alpha: str
) -> Iterator[tuple[str, Callable[[], None]]]:
    grads = tuple(name for name in parity.NAMES if alpha != "none" or name != "eta")
    for clamp, eta, (T, B, N) in product(sizes.clamps, sizes.etas, sizes.scans):
        inputs = parity.on(device, parity.random_inputs(T, B, N, alpha=alpha, eta=eta))
        mask = parity.random_clamp(clamp, T, B, N)
        mask = None if mask is None else mask.to(device)
        name = f"T {T}, B {B}, N {N}, clamp {clamp}, eta {eta}"
        yield from _both(name, inputs, scan, grads=grads, rule=rule, clamp=mask)


def _large(
    scan: Callable[..., Any], device: torch.device, sizes: Sizes, rule: str
) -> Iterator[tuple[str, Callable[[], None]]]:
    T = sizes.large_steps
    for B, N in sizes.large:
        inputs = parity.on(device, parity.random_inputs(T, B, N, eta="neuron"))
        mask = parity.random_clamp("steps", T, B, N).to(device)
        yield from _both(f"T {T}, B {B}, N {N}", inputs, scan, rule=rule, clamp=mask)


def _nonlinearities(
    scan: Callable[..., Any], device: torch.device, sizes: Sizes
) -> Iterator[tuple[str, Callable[[], None]]]:
    inputs = parity.on(device, parity.random_inputs(9, 2, sizes.neurons))
    for name in sizes.nonlinearities:
        yield from _both(name, inputs, scan, nonlinearity=name)


def _long_chunks(
    scan: Callable[..., Any], device: torch.device, sizes: Sizes
) -> Iterator[tuple[str, Callable[[], None]]]:
    T, B, N, length = sizes.long
    for dtype, rtol in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        inputs = parity.on(device, parity.random_inputs(T, B, N, dtype=dtype))
        fast = partial(scan, chunk_size=length)
        yield str(dtype), lambda inputs=inputs, fast=fast, rtol=rtol: parity.assert_parity(inputs, fast, rtol=rtol)


# --- time and memory


def bench_steps(device: torch.device, sizes: Sizes, lab: bool) -> list[Step]:
    """The speed of a copy, then the training step of each experiment's size, then growth with N, T and B."""
    steps = [Step("copy", "copy", lambda _: {"bandwidth": copy_bandwidth(device, sizes.copied)}, SECONDS["copy"])]
    chosen = TINY_SUITES if sizes is TINY else suites.SUITES if lab else suites.NETWORKS
    for name, cases in chosen.items():
        kind = "growth" if name.startswith("scaling") else "bench"
        rounds = min(sizes.rounds, ROUNDS_OF_SCALING) if kind == "growth" else sizes.rounds
        for case in cases():
            run = partial(_measured, case, rounds, device)
            steps.append(Step(f"{kind}: {case.suite}, {case.name}", kind, run, SECONDS[kind]))
    return sorted(steps, key=lambda step: list(SECONDS).index(step.kind))


def _measured(case: suites.Measured, rounds: int, device: torch.device, bandwidth: float | None) -> dict[str, Any]:
    return {"rows": measure(case, rounds, device, bandwidth)}


def _tiny(suite: str) -> list[suites.Measured]:
    task = Patterns(bits=7, patterns=1, shown=1, gap=1, cycles=1, test=1, input="additive")
    return [suites.Case(suite, str(task.neurons), f"{task.neurons} neurons, {task.steps} steps", task)]


TINY_SUITES = {"patterns": partial(_tiny, "patterns"), "scaling-n": partial(_tiny, "scaling N")}
