"""Large CPU buffers that are used again, as PyTorch's own allocator does on a GPU.

A fresh buffer of some megabytes costs a page fault every 4 KiB, more than the product that fills
it. A buffer made here comes back when the storage of its last tensor is freed, whoever holds it.
"""

from __future__ import annotations

import math
import os
import weakref
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SMALLEST = 1 << 18  # bytes; below, malloc keeps the pages itself
ALIGNMENT = 64
_idle: OrderedDict[int, list[np.ndarray]] = OrderedDict()  # by size, the size used longest ago first


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """An uninitialised tensor of that shape, with the dtype and device of `like`."""
    nbytes = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or nbytes < SMALLEST:
        return like.new_empty(shape)
    waiting = _idle.get(nbytes)
    block = waiting.pop() if waiting else _new(nbytes)
    # the tensor's storage keeps this array alive, and nothing else does; it is no view of another tensor to autograd
    lease = block.view(str(like.dtype).removeprefix("torch.")).reshape(shape)
    weakref.finalize(lease, _give_back, block).atexit = False
    return torch.from_numpy(lease)


def empty_like(like: Tensor) -> Tensor:
    """`empty` of the same shape."""
    return empty(like.shape, like)


def empty_cache() -> None:
    """Free the buffers that no tensor uses now."""
    _idle.clear()


def idle_bytes() -> int:
    """Bytes kept for the next call."""
    return sum(size * len(blocks) for size, blocks in _idle.items())


def _new(nbytes: int) -> np.ndarray:
    if not _idle:
        # glibc keeps freed pages up to twice the largest block it has seen freed; an untouched one
        # of 32 MiB costs nothing and lets the small buffers of every step keep their pages too
        torch.empty((1 << 25) - (1 << 16), dtype=torch.uint8)
    block = np.empty(nbytes + ALIGNMENT, np.uint8)
    offset = -block.ctypes.data % ALIGNMENT
    return block[offset : offset + nbytes]


def _give_back(block: np.ndarray) -> None:
    _idle.setdefault(block.nbytes, []).append(block)
    _idle.move_to_end(block.nbytes)
    while idle_bytes() > _limit():
        size, blocks = next(iter(_idle.items()))
        blocks.pop()
        if not blocks:
            del _idle[size]


def _limit() -> int:
    """At most an eighth of the machine's memory lies idle."""
    if not hasattr(os, "sysconf"):
        return 1 << 30
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8
