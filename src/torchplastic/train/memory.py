"""Check before a run starts that it fits into memory."""

from __future__ import annotations

import psutil
import torch

from torchplastic.limits import memory_limit

GIB = 2**30
PROCESS = 2 * GIB  # of a process before its run, on a GPU and in main memory: context and libraries


class TooLargeError(ValueError):
    """The run needs more memory than is available."""


def available(device: torch.device) -> int:
    """Free bytes on a device: those that this process may still use."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free: int = psutil.virtual_memory().available
    limit = memory_limit()
    return free if limit is None else min(free, limit.left)


def side_by_side(needed: int, device: torch.device) -> int:
    """The number of processes that fit on a GPU at a time, each with a run of `needed` bytes."""
    return min(available(device) // (needed + PROCESS), available(torch.device("cpu")) // PROCESS)


def require(needed: int, device: torch.device, hint: str) -> None:
    """Raise TooLargeError if `needed` bytes are not available; hint: what the user can do."""
    free = available(device)
    if needed > free:
        raise TooLargeError(
            f"this run needs about {needed / GIB:.1f} GiB on {device.type} and {free / GIB:.1f} GiB are free. {hint}"
        )
