"""Both algorithms on a CPU, compiled by numba, for a full alpha and the rules hebb and oja."""

from __future__ import annotations

from functools import partial

from torchplastic.ops.plastic_scan.autograd import run_kernel_per_connection
from torchplastic.ops.plastic_scan.numba_cpu import chunked, recurrent
from torchplastic.ops.plastic_scan.spec import Backend, Kernel

BACKENDS = (
    Backend(
        impl="recurrent",
        name="recurrent, compiled for the CPU",
        best_for=f"up to {recurrent.SMALL} neurons, and up to {recurrent.MEDIUM} if most steps are free",
        supports=recurrent.supports,
        is_preferred=recurrent.is_preferred,
        run=partial(run_kernel_per_connection, Kernel(recurrent.schedule, recurrent.forward, recurrent.backward)),
        training_bytes=recurrent.training_bytes,
        steps=recurrent.Steps,
    ),
    Backend(
        impl="chunked",
        name="chunked, compiled for the CPU",
        best_for="larger networks, and clamped patterns",
        supports=chunked.supports,
        is_preferred=lambda spec: True,
        run=partial(run_kernel_per_connection, Kernel(chunked.schedule, chunked.forward, chunked.backward)),
        training_bytes=chunked.training_bytes,
        moved_bytes=chunked.moved_bytes,
    ),
)
