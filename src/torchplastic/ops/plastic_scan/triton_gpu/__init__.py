"""Both algorithms on a GPU, through Triton, for the rules hebb and oja. They run where a user names them.

Parity is tested in Triton's interpreter. Their speed is unmeasured (`make gpu` measures it): "auto" does not take them.
"""

from __future__ import annotations

from functools import partial

from torchplastic.ops.plastic_scan import chunked
from torchplastic.ops.plastic_scan.autograd import run_kernel_per_connection
from torchplastic.ops.plastic_scan.spec import Backend, Kernel
from torchplastic.ops.plastic_scan.triton_gpu import fused, persistent

BACKENDS = (
    Backend(
        impl="triton",
        name="recurrent, in the registers of a GPU",
        best_for="those who name it, where all examples fit into the GPU's registers",
        supports=persistent.supports,
        is_preferred=lambda spec: False,
        run=partial(run_kernel_per_connection, Kernel(persistent.schedule, persistent.forward, persistent.backward)),
        training_bytes=persistent.training_bytes,
    ),
    Backend(
        impl="triton",
        name="chunked, on a GPU",
        best_for="those who name it, and larger networks",
        supports=fused.supports,
        is_preferred=lambda spec: False,
        run=partial(run_kernel_per_connection, Kernel(fused.schedule, fused.forward, fused.backward)),
        training_bytes=lambda spec: chunked.training_bytes(spec, fused.schedule(spec)),
        moved_bytes=lambda spec: chunked.moved_bytes(spec, fused.schedule(spec)),
    ),
)
