"""Predict the memory of a training step before it runs.

Axes: T time, B batch, N neurons.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from torchplastic.ops.plastic_scan import dispatch
from torchplastic.ops.plastic_scan.spec import ScanSpec
from torchplastic.rules import HEBB


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
    spec = ScanSpec(
        len(clamped_steps), B, N, alpha, HEBB, "tanh", tuple(clamped_steps), device,
        torch.float64 if itemsize == 8 else torch.float32, longest,
    )  # fmt: skip
    named = [backend for backend in dispatch.BACKENDS if backend.impl == impl and alpha != "none"]
    traces = max(backend.training_bytes(spec) for backend in named or [dispatch.choose("training_bytes", spec)])
    learned, vectors = N * N * (2 if alpha == "full" else 1), 8 * spec.T * B * N
    return traces + itemsize * (4 * learned + vectors)
