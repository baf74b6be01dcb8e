"""How many bytes a training step keeps, counted before it runs.

Axes: T time, B batch, N neurons.
"""

from __future__ import annotations

from collections.abc import Sequence

from torchplastic.ops.plastic_scan import numba_chunked, resident, stepwise
from torchplastic.ops.plastic_scan.chunks import cut, longest_chunk

STEP_MATRICES = 4  # N² tensors that autograd keeps per step of the plain loop: alpha H, w + alpha H, eta u v, H


def training_bytes(
    clamped_steps: Sequence[bool],
    B: int,
    N: int,
    *,
    alpha: str = "full",
    impl: str = "auto",
    longest: int | None = None,
    device: str = "cpu",
    itemsize: int = 4,
) -> int:
    """Bytes of parameters, gradients, Adam and what backpropagation through T = len(clamped_steps) steps keeps.

    alpha: full, neuron, shared or none; impl as in `plastic_scan`, longest is its chunk; device: cpu or cuda;
    itemsize: 4 for float32.
    """
    T, matrix = len(clamped_steps), N * N
    learned = 2 * matrix if alpha == "full" else matrix
    vectors = 8 * T * B * N
    if alpha == "none":
        traces = 0
    elif impl == "reference":
        traces = STEP_MATRICES * T * B * matrix
    else:
        if longest is None:
            full = alpha == "full"
            profile = numba_chunked.cost_profile(device, full=full)
            longest = longest_chunk(clamped_steps, B, N, full=full, profile=profile, itemsize=itemsize)
        chunks = cut(clamped_steps, longest, longest_run=0) if impl == "triton" else cut(clamped_steps, longest)
        tables = sum(len(c.free) * B * (c.inner * (N if alpha == "full" else 1) + N) for c in chunks)
        traces = (len(chunks) + 5) * B * matrix + tables + 2 * matrix
        padded = N * (N + stepwise.LONGEST_PADDING)
        by_step = ((-(-T // stepwise.CHUNK) + 4) * B + min(B, stepwise.GROUPS) + 2 * stepwise.CHUNK) * padded
        if impl == "triton":  # whichever of its two algorithms takes more
            traces = max(traces, (-(-T // resident.CHUNK) + 6) * B * N * (N + resident.LINE - 1))
        if impl == "stepwise" or (impl == "auto" and stepwise.is_preferred(clamped_steps, N)):
            traces = by_step if impl == "stepwise" else max(traces, by_step)  # auto: where it cannot run, chunked does
    return itemsize * (4 * learned + traces + vectors)
