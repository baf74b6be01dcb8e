"""Reuse large CPU buffers, as PyTorch's caching allocator does on a GPU.

A fresh buffer of some megabytes costs a page fault every 4 KiB, more than the product that fills it. The cache owns
the memory; a tensor's storage holds a lease on it. A call reuses memory whose lease has ended. No Python code runs when
a tensor is freed, because Python drops an exception that a signal handler raises there.
"""

from __future__ import annotations

import math
import os
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from torchplastic.limits import memory_limit

SMALLEST = 1 << 18  # bytes; malloc keeps the pages of smaller buffers
ALIGNMENT = 64

Block = tuple[np.ndarray, "weakref.ref[np.ndarray]"]
"""Memory and its last lease."""
Blocks = deque[Block]
"""Blocks of one size, the most recently used first."""

_cache: dict[int, Blocks] = {}
"""Blocks by size in bytes, the least recently used size first. Code removes the blocks of a size while it works on
them, so that no other thread or signal handler hands out the same block, with or without a GIL. If two calls need one
size at once, the cache forgets the blocks of one of them; they are freed with their tensors."""


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
    # only the tensor's storage keeps this array alive; autograd sees no view of another tensor
    lease = block.view(str(like.dtype).removeprefix("torch.")).reshape(shape)
    blocks.appendleft((block, weakref.ref(lease)))
    _cache[nbytes] = blocks
    return torch.from_numpy(lease)


def empty_like(like: Tensor) -> Tensor:
    """`empty` of the same shape."""
    return empty(like.shape, like)


def empty_cache() -> None:
    """Free the CPU buffers that the package keeps for reuse and no tensor uses.

    The cache holds at most an eighth of the memory that this process may use.

    Examples:
        >>> tp.functional.empty_cache()
    """
    _forget(math.inf, _is_idle)


def idle_bytes() -> int:
    """Count the bytes that no tensor uses."""
    return sum(size for size, blocks in list(_cache.items()) for block in tuple(blocks) if _is_idle(block))


def _is_idle(block: Block) -> bool:
    _, lease = block
    return lease() is None


def _new(nbytes: int) -> np.ndarray:
    if not _cache:
        # glibc keeps freed pages up to twice the largest block freed so far; an untouched one of 32 MiB costs nothing
        # and lets the small buffers of every step keep their pages too
        torch.empty((1 << 25) - (1 << 16), dtype=torch.uint8)
    block = np.empty(nbytes + ALIGNMENT, np.uint8)
    offset = -block.ctypes.data % ALIGNMENT
    return block[offset : offset + nbytes]


def _make_room(nbytes: int) -> bool:
    """Make room for `nbytes` more: first idle blocks go, then blocks in use. False if the limit is smaller."""
    limit = _limit()
    owned = sum(size * len(blocks) for size, blocks in list(_cache.items()))
    if nbytes <= limit < owned + nbytes:
        excess = owned + nbytes - limit
        excess -= _forget(excess, _is_idle)
        _forget(excess, lambda block: True)
    return nbytes <= limit


def _forget(wanted: float, which: Callable[[Block], bool]) -> int:
    """Disown `wanted` bytes of the least recently used blocks; return their bytes. A tensor keeps its block."""
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


@cache
def _limit() -> int:
    """The most bytes that the cache owns, idle and in use: an eighth of the memory that this process may use."""
    if not hasattr(os, "sysconf"):
        return 1 << 30
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit()
    return (total if limit is None else min(total, limit.total)) // 8
