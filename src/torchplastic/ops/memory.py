"""Predict the memory of a training step before it runs.

Axes: T time, B batch, N neurons.
"""

from __future__ import annotations

from collections.abc import Sequence

from torchplastic.ops.plastic_scan.numba_cpu import chunked as numba_chunked
from torchplastic.ops.plastic_scan.triton_gpu import persistent as resident
from torchplastic.ops.plastic_scan.numba_cpu import recurrent as stepwise
from torchplastic.ops.plastic_scan.schedule import cut, longest_chunk

STEP_MATRICES = 4  # N² tensors that autograd stores per step of the plain loop: alpha H, w + alpha H, eta u v, H


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
    """Predict the memory of a training step of a recurrent layer, in bytes.

    Counts the parameters, their gradients, the state of Adam, and what backpropagation through T steps stores.

    Args:
        clamped_steps: T bools, as in `plastic_scan`: whether a step is clamped for every neuron of every sequence.
        B: number of sequences in a batch.
        N: number of neurons.
        alpha: "full", "neuron", "shared" or "none", as in `PlasticRNN`.
        impl: implementation, as in `plastic_scan`.
        longest: chunk_size, as in `plastic_scan`.
        device: "cpu" or "cuda".
        itemsize: bytes per number, 4 in float32 and 8 in float64.

    Returns:
        Bytes.

    Examples:
        >>> steps = [False] * 200
        >>> tp.functional.training_bytes(steps, B=16, N=100) < tp.functional.training_bytes(
        ...     steps, B=16, N=100, impl="reference"
        ... )
        True
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
        if impl == "triton":  # the larger of its two algorithms
            traces = max(traces, (-(-T // resident.CHUNK) + 6) * B * N * (N + resident.LINE - 1))
        if impl == "stepwise" or (impl == "auto" and stepwise.is_preferred(clamped_steps, N)):
            traces = by_step if impl == "stepwise" else max(traces, by_step)  # auto falls back to chunked
    return itemsize * (4 * learned + traces + vectors)
