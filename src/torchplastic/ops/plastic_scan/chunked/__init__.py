"""The chunked algorithm in PyTorch: exact, stores one trace per chunk of steps. README.md derives it.

It runs on every device, for every rule that has `linear` and for every kind of alpha.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from torchplastic.ops.plastic_scan.autograd import run_kernel
from torchplastic.ops.plastic_scan.chunked.backward import Backward
from torchplastic.ops.plastic_scan.chunked.forward import Forward
from torchplastic.ops.plastic_scan.cost_model import PASSES, CostProfile, longest_chunk
from torchplastic.ops.plastic_scan.schedule import Schedule, chunks_of, in_chunks
from torchplastic.ops.plastic_scan.spec import Backend, Call, Grads, Kernel, ScanSpec

COST_PROFILES = {
    "cpu": CostProfile(50e9, 160e9, 4.5e-4),  # measured: two cores, docs/performance.md
    "cuda": CostProfile(2e12, 2e13, 5e-4),  # from data sheets and the launches of a chunk, not measured
}


def schedule(spec: ScanSpec, profile: CostProfile | None = None) -> Schedule:
    """Chunks of `chunk_size` free steps, or as many as cost least by the profile."""
    profile = profile or COST_PROFILES.get(spec.device, COST_PROFILES["cuda"])
    longest = spec.chunk_size or longest_chunk(
        spec.clamped_steps, spec.B, spec.N, spec.alpha == "full", profile, spec.itemsize
    )
    return in_chunks(spec.clamped_steps, longest)


def supports(spec: ScanSpec) -> str | None:
    """Whether the rule is linear in the trace, and trains nothing of its own."""
    if spec.rule.linear is None:
        return "this rule has no `linear` form"
    if spec.trains_rule:
        return (
            "this rule uses tensors of its own that require a gradient, and it computes none for them "
            "(requires_grad_(False) freezes them)"
        )
    if spec.sets != 1:
        return f"it runs one parameter set, not {spec.sets}"
    return None


def training_bytes(spec: ScanSpec, cut: Schedule) -> int:
    """Traces at the starts of chunks and some more, the tables of pairs, and P and alpha."""
    B, N, full = spec.B, spec.N, spec.alpha == "full"
    chunks = chunks_of(cut.bounds, cut.free)
    tables = sum(len(c.free) * B * (c.inner * (N if full else 1) + N) for c in chunks)
    return spec.itemsize * ((len(chunks) + 5) * B * N * N + tables + 2 * N * N)


def moved_bytes(spec: ScanSpec, cut: Schedule) -> int:
    """The matrices that free steps and chunks pass over, there and back (README.md), with a full alpha."""
    matrices = 2 * (2 + spec.B) * cut.free_steps + PASSES * spec.B * (len(cut.bounds) - 1)
    return spec.itemsize * spec.N**2 * matrices


def forward(call: Call) -> Sequence[Tensor]:
    """As `Kernel.forward`."""
    return Forward(call).run()


def backward(call: Call, kept: Sequence[Tensor], grads: Grads) -> Grads:
    """As `Kernel.backward`."""
    return Backward(call, kept, grads).run()


BACKEND = Backend(
    impl="chunked",
    name="chunked, in PyTorch",
    best_for="what no compiled implementation runs",
    supports=supports,
    is_preferred=lambda spec: True,
    run=partial(run_kernel, Kernel(schedule, forward, backward)),
    training_bytes=lambda spec: training_bytes(spec, schedule(spec)),
    moved_bytes=lambda spec: moved_bytes(spec, schedule(spec)),
)
