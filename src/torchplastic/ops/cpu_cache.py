"""Large CPU buffers that are used again, as PyTorch's own allocator does on a GPU.

A fresh buffer of some megabytes costs a page fault every 4 KiB, more than the product that fills it. The cache owns
the memory, a tensor's storage holds a lease on it. A call that wants a buffer looks for memory whose lease is gone:
no Python code runs when a tensor is freed, because Python drops an exception that a signal handler raises there.
"""

from __future__ import annotations

import math
import os
import weakref
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

SMALLEST = 1 << 18  # bytes; below, malloc keeps the pages itself
ALIGNMENT = 64

Block = tuple[np.ndarray, "weakref.ref[np.ndarray]"]
"""Memory, and its last lease."""
Blocks = deque[Block]
"""Of one size, the block used last first."""

_cache: dict[int, Blocks] = {}
"""By size in bytes, the size used longest ago first. Code that works on the blocks of a size takes them out meanwhile,
so that no other thread and no signal handler hands out the same block, with a GIL or without. Where two want one size
at once, the blocks of one are forgotten: they are freed with their tensors."""


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """An uninitialised tensor of that shape, with the dtype and device of `like`."""
    nbytes = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or nbytes < SMALLEST:
        return like.new_empty(shape)
    blocks = _cache.pop(nbytes, Blocks())
    for _ in range(len(blocks)):
        if _is_idle(blocks[0]):
            block, _ = blocks.popleft()
            break
        blocks.rotate(-1)
    else:
        if blocks:
            _cache[nbytes] = blocks
        if not _make_room(nbytes):
            return like.new_empty(shape)
        blocks, block = _cache.pop(nbytes, Blocks()), _new(nbytes)
    # the tensor's storage keeps this array alive, and nothing else does; it is no view of another tensor to autograd
    lease = block.view(str(like.dtype).removeprefix("torch.")).reshape(shape)
    blocks.appendleft((block, weakref.ref(lease)))
    _cache[nbytes] = blocks
    return torch.from_numpy(lease)


def empty_like(like: Tensor) -> Tensor:
    """`empty` of the same shape."""
    return empty(like.shape, like)


def empty_cache() -> None:
    """Free the buffers that no tensor uses now."""
    _forget(math.inf, _is_idle)


def idle_bytes() -> int:
    """Bytes kept for the next call."""
    return sum(size for size, blocks in list(_cache.items()) for block in tuple(blocks) if _is_idle(block))


def _is_idle(block: Block) -> bool:
    _, lease = block
    return lease() is None


def _new(nbytes: int) -> np.ndarray:
    if not _cache:
        # glibc keeps freed pages up to twice the largest block it has seen freed; an untouched one
        # of 32 MiB costs nothing and lets the small buffers of every step keep their pages too
        torch.empty((1 << 25) - (1 << 16), dtype=torch.uint8)
    block = np.empty(nbytes + ALIGNMENT, np.uint8)
    offset = -block.ctypes.data % ALIGNMENT
    return block[offset : offset + nbytes]


def _make_room(nbytes: int) -> bool:
    """Make room for `nbytes` more -> whether the cache may own as many. Idle blocks go first, then those in use."""
    limit = _limit()
    owned = sum(size * len(blocks) for size, blocks in list(_cache.items()))
    if nbytes <= limit < owned + nbytes:
        excess = owned + nbytes - limit
        excess -= _forget(excess, _is_idle)
        _forget(excess, lambda block: True)
    return nbytes <= limit


def _forget(wanted: float, which: Callable[[Block], bool]) -> int:
    """Disown blocks of `wanted` bytes, those used longest ago first -> their bytes. A tensor that uses one keeps it."""
    forgotten = 0
    for size in list(_cache):
        kept = Blocks()
        for block in reversed(_cache.pop(size, Blocks())):
            if forgotten < wanted and which(block):
                forgotten += size
            else:
                kept.appendleft(block)
        if kept:
            _cache[size] = kept
    return forgotten


def _limit() -> int:
    """The bytes that the cache owns at most, idle and in use: an eighth of the machine's memory."""
    if not hasattr(os, "sysconf"):
        return 1 << 30
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8
