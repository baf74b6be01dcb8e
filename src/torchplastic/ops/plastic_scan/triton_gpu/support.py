"""Finds and launches the Triton kernels: on a GPU with Triton, or through its interpreter, which tests use."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from torchplastic.ops.plastic_scan.spec import Call, ScanSpec
from torchplastic.rules import HEBB, OJA, key_of

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


def supports(spec: ScanSpec) -> str | None:
    """Whether the kernels can take a scan: None or the reason."""
    if spec.alpha == "none":
        return "this network has no plasticity"
    if spec.rule is not HEBB and spec.rule is not OJA:
        return "it runs hebb and oja, and this is another rule"
    if find_kernels() is None:
        return f"it needs Triton {'.'.join(map(str, OLDEST))} or newer (extra gpu)"
    if spec.dtype not in DTYPES or (spec.device != "cuda" and not interpreted()):
        return f"it runs on a CUDA device in float32 or float64, not in {spec.dtype} on {spec.device}"
    if spec.sets != 1:
        return f"it runs one parameter set, not {spec.sets}"
    return None


def options(call: Call) -> dict[str, Any]:
    """The constants of a kernel that depend on the call."""
    kernels = find_kernels()
    assert kernels is not None
    return {
        "RULE": kernels.RULES["hebb" if call.rule == key_of(HEBB) else "oja"],
        "F": kernels.NONLINEARITIES[call.nonlinearity],
        "CLAMP": call.clamp is not None,
    }


def multiprocessors(device: torch.device | str) -> int:
    """How many programs that fill one run at once."""
    if torch.device(device).type != "cuda":
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
