"""Buffers come back when their last tensor dies, and only then."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchplastic.functional import empty_cache
from torchplastic.ops import cpu_cache

LIKE = torch.empty(0, dtype=torch.float64)
SHAPE = (200, 200)
NBYTES = 8 * 200 * 200


@pytest.fixture(autouse=True)
def _empty():
    empty_cache()
    yield
    empty_cache()


def test_a_buffer_comes_back_and_is_used_again():
    tensor = cpu_cache.empty(SHAPE, LIKE)
    address = tensor.data_ptr()
    assert cpu_cache.idle_bytes() == 0
    del tensor
    assert cpu_cache.idle_bytes() == NBYTES
    again = cpu_cache.empty((100, 400), LIKE)
    assert again.data_ptr() == address
    assert again.shape == (100, 400)
    assert cpu_cache.idle_bytes() == 0


def test_shape_dtype_and_alignment():
    for dtype in (torch.float32, torch.float64):
        tensor = cpu_cache.empty((3, 150, 200), torch.empty(0, dtype=dtype))
        assert tensor.shape == (3, 150, 200)
        assert tensor.dtype == dtype
        assert tensor.is_contiguous()
        assert tensor.data_ptr() % cpu_cache.ALIGNMENT == 0
        assert cpu_cache.empty_like(tensor).shape == tensor.shape


@pytest.mark.parametrize(
    "holder", [lambda t: t[3], lambda t: t.T, lambda t: t.detach(), lambda t: t.untyped_storage(), lambda t: t.numpy()]
)
def test_whoever_holds_the_memory_keeps_the_buffer(holder):
    tensor = cpu_cache.empty(SHAPE, LIKE)
    held = holder(tensor)
    del tensor
    assert cpu_cache.idle_bytes() == 0
    del held
    assert cpu_cache.idle_bytes() == NBYTES


def test_a_graph_that_saved_the_tensor_keeps_the_buffer():
    tensor = cpu_cache.empty(SHAPE, LIKE).fill_(3)
    leaf = torch.ones(SHAPE, dtype=torch.float64, requires_grad=True)
    product = (leaf * tensor).sum()
    del tensor
    assert cpu_cache.idle_bytes() == 0
    other = cpu_cache.empty(SHAPE, LIKE).fill_(5)
    product.backward()
    assert torch.equal(leaf.grad, torch.full(SHAPE, 3.0, dtype=torch.float64))
    del product, other
    assert cpu_cache.idle_bytes() == 2 * NBYTES


def test_small_tensors_are_left_to_the_allocator():
    tensor = cpu_cache.empty((cpu_cache.SMALLEST // 8 - 1,), LIKE)
    del tensor
    assert cpu_cache.idle_bytes() == 0


@given(st.lists(st.integers(0, 7), max_size=60))
def test_two_live_tensors_never_share_memory(choices):
    """Each choice makes a tensor in that slot, or drops the one there; every live one keeps what was written."""
    live = {}
    for stamp, slot in enumerate(choices):
        if slot in live:
            del live[slot]
        else:
            shape = SHAPE if slot % 2 else (200, 201)
            live[slot] = stamp, cpu_cache.empty(shape, LIKE).fill_(stamp)
        for written, tensor in live.values():
            assert (tensor == written).all()
    spans = sorted((tensor.data_ptr(), tensor.nbytes) for _, tensor in live.values())
    for (address, size), (following, _) in pairwise(spans):
        assert address + size <= following
    del live


def test_empty_cache_frees_what_lies_idle_and_nothing_else():
    kept = cpu_cache.empty(SHAPE, LIKE).fill_(7)
    dropped = cpu_cache.empty(SHAPE, LIKE)
    del dropped
    empty_cache()
    assert cpu_cache.idle_bytes() == 0
    assert (kept == 7).all()
    del kept
    assert cpu_cache.idle_bytes() == NBYTES


def test_no_more_than_the_limit_lies_idle(monkeypatch):
    monkeypatch.setattr(cpu_cache, "_limit", lambda: 3 * NBYTES)
    older = [cpu_cache.empty((200, 201), LIKE) for _ in range(2)]
    newer = [cpu_cache.empty(SHAPE, LIKE) for _ in range(2)]
    older.clear()
    newer.clear()
    assert cpu_cache.idle_bytes() <= 3 * NBYTES
    before = cpu_cache.idle_bytes()
    both = [cpu_cache.empty(SHAPE, LIKE) for _ in range(2)]
    assert cpu_cache.idle_bytes() == before - 2 * NBYTES  # the size used last was kept
    del both
