"""Whether a run fits, asked before it starts."""

from __future__ import annotations

import psutil
import torch

GIB = 2**30
PROCESS = 2 * GIB  # what a process may take on a GPU, and of the main memory, before its run: context and libraries


class TooLargeError(ValueError):
    """The run needs more memory than there is."""


def available(device: torch.device) -> int:
    """Bytes that a new tensor may take on that device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def side_by_side(needed: int, device: torch.device) -> int:
    """How many processes, each with a run of `needed` bytes, fit on a GPU at the same time."""
    return min(available(device) // (needed + PROCESS), available(torch.device("cpu")) // PROCESS)


def require(needed: int, device: torch.device, hint: str) -> None:
    """TooLargeError where `needed` bytes are not available."""
    free = available(device)
    if needed > free:
        raise TooLargeError(
            f"this run needs about {needed / GIB:.1f} GiB on {device.type} and {free / GIB:.1f} GiB are free. {hint}"
        )
