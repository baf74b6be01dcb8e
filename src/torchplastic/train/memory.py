"""Whether a run fits, asked before it starts."""

from __future__ import annotations

import ctypes
import sys

import psutil
import torch

GIB = 2**30
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT = 2**30  # bytes: smaller blocks stay with the process


class TooLargeError(ValueError):
    """The run needs more memory than there is."""


def available(device: torch.device) -> int:
    """Bytes that a new tensor may take on that device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def require(needed: int, device: torch.device, way_out: str) -> None:
    """TooLargeError where `needed` bytes are not available."""
    free = available(device)
    if needed > free:
        raise TooLargeError(
            f"this run needs about {needed / GIB:.1f} GiB on {device.type} and {free / GIB:.1f} GiB are free. {way_out}"
        )


def keep_freed_memory() -> None:
    """Keep large blocks that are freed, for the next update: the C library would give them back and fault them in anew.

    A setting of the process, so it is the command that makes it. Elsewhere than with glibc nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)
