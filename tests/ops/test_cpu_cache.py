"""Buffers come back when their last tensor dies, and only then."""

import sys
from concurrent.futures import ThreadPoolExecutor
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
def test_memory_that_is_held_keeps_its_buffer(holder):
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


def test_no_more_than_the_limit_is_owned_and_the_size_used_last_stays(monkeypatch):
    monkeypatch.setattr(cpu_cache, "_limit", lambda: 3 * NBYTES)
    older = [cpu_cache.empty((100, 200), LIKE) for _ in range(2)]
    older.clear()
    newer = [cpu_cache.empty(SHAPE, LIKE) for _ in range(3)]
    assert cpu_cache.idle_bytes() == 0
    newer.clear()
    assert cpu_cache.idle_bytes() == 3 * NBYTES


def test_what_is_held_does_not_keep_the_cache_from_new_buffers(monkeypatch):
    """More than the limit is in use: the cache forgets its oldest buffers, which their tensors keep alive."""
    monkeypatch.setattr(cpu_cache, "_limit", lambda: 3 * NBYTES)
    held = [cpu_cache.empty(SHAPE, LIKE).fill_(i) for i in range(5)]
    for i, tensor in enumerate(held):
        assert (tensor == i).all()
    last = tensor.data_ptr()
    del tensor
    held.clear()
    assert cpu_cache.idle_bytes() == 3 * NBYTES
    assert cpu_cache.empty(SHAPE, LIKE).data_ptr() == last


def test_a_buffer_beyond_the_limit_is_not_kept(monkeypatch):
    monkeypatch.setattr(cpu_cache, "_limit", lambda: 3 * NBYTES)
    small = cpu_cache.empty(SHAPE, LIKE)
    large = cpu_cache.empty((4, *SHAPE), LIKE)
    assert large.shape == (4, *SHAPE)
    del small, large
    assert cpu_cache.idle_bytes() == NBYTES


def test_a_call_within_a_call_takes_another_buffer(monkeypatch):
    """A signal handler may run a layer in the middle of a call."""
    for _ in range(2):  # with an empty cache, then with an idle buffer
        inside = []
        is_idle, new = cpu_cache._is_idle, cpu_cache._new

        def interrupted(found, inside=inside):
            def function(argument):
                if not inside:
                    inside.append(None)
                    inside[0] = cpu_cache.empty(SHAPE, LIKE).fill_(1)
                return found(argument)

            return function

        with monkeypatch.context() as patch:
            patch.setattr(cpu_cache, "_is_idle", interrupted(is_idle))
            patch.setattr(cpu_cache, "_new", interrupted(new))
            outside = cpu_cache.empty(SHAPE, LIKE).fill_(2)
        assert (inside[0] == 1).all()
        assert (outside == 2).all()
        del outside


def test_threads_never_share_a_buffer():
    def work(stamp):
        for _ in range(300):
            first = cpu_cache.empty(SHAPE, LIKE)
            first[0] = stamp
            second = cpu_cache.empty(SHAPE, LIKE)
            second[0] = -stamp
            assert (first[0] == stamp).all()
            assert (second[0] == -stamp).all()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(1, 5)))
    finally:
        sys.setswitchinterval(interval)
