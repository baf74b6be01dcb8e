"""Finds and launches the Triton kernels: on a GPU with Triton, or through its interpreter, which tests use."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from torchplastic.rules import HEBB, OJA, Rule

OLDEST = (3, 6)  # Triton that the kernels are tested with
DTYPES = (torch.float32, torch.float64)
INTERPRETED = 4  # programs that count as running at once in the interpreter


@cache
def find_kernels() -> ModuleType | None:
    """The kernels, or None without Triton or with one older than `OLDEST`."""
    try:
        import triton

        if tuple(map(int, triton.__version__.split(".")[:2])) < OLDEST:
            return None
        from torchplastic.ops.plastic_scan.triton_gpu import kernels as triton_kernels
    except ImportError:
        return None
    return triton_kernels


@cache
def interpreted() -> bool:
    """Whether Triton runs kernels on the CPU (TRITON_INTERPRET=1 when they were first imported)."""
    kernels = find_kernels()
    return kernels is not None and type(kernels.tanh).__name__ == "InterpretedFunction"


def supports(rule: Rule, like: Tensor) -> bool:
    """Whether the kernels can take this scan."""
    known = rule is HEBB or rule is OJA
    if not known or like.dtype not in DTYPES or find_kernels() is None:
        return False
    return like.is_cuda or interpreted()


def name_of(rule: Rule) -> str:
    """Hebb or oja, as the kernels call them."""
    return "hebb" if rule is HEBB else "oja"


def multiprocessors(device: torch.device) -> int:
    """How many programs that fill one run at once."""
    if device.type != "cuda":
        return INTERPRETED
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def run_together(
    kernel: Any, programs: int, tensors: tuple[Tensor, ...], sizes: tuple[int, ...], **options: Any
) -> None:
    """Launch programs that wait for each other: the driver refuses what cannot run at once."""
    launch(kernel, (programs,), tensors, (*sizes, 0), launch_cooperative_grid=True, **options)


def launch(
    kernel: Any, grid: tuple[int, ...], tensors: tuple[Tensor, ...], sizes: tuple[int, ...], **options: Any
) -> None:
    """Launch a kernel on the device of its tensors."""
    with torch.cuda.device_of(tensors[0]):
        kernel[grid](*tensors, *sizes, **options)
