"""Where time is cut."""

from hypothesis import given
from hypothesis import strategies as st

from torchplastic.ops.plastic_scan.chunks import Chunk, cut

steps = st.lists(st.booleans(), max_size=40)
longest = st.integers(1, 12)


@given(steps, longest)
def test_every_step_lies_in_one_chunk_in_order(steps, longest):
    covered = [t for chunk in cut(steps, longest) for t in range(chunk.start, chunk.stop)]
    assert covered == list(range(len(steps)))


@given(steps, longest)
def test_a_chunk_is_some_free_steps_and_then_a_clamped_run(steps, longest):
    for start, free, stop in cut(steps, longest):
        assert 0 <= free <= longest
        assert stop > start
        assert not any(steps[start : start + free])
        assert all(steps[start + free : stop])
        assert Chunk(start, free, stop).ends_clamped == (stop > start + free)


@given(steps, longest)
def test_a_clamped_run_is_never_split(steps, longest):
    for _, _, stop in cut(steps, longest)[:-1]:
        assert not steps[stop]


@given(st.integers(1, 60), longest)
def test_free_runs_are_cut_evenly_into_as_few_pieces_as_possible(length, longest):
    sizes = [chunk.free for chunk in cut([False] * length, longest)]
    assert len(sizes) == -(-length // longest)
    assert max(sizes) - min(sizes) <= 1


def test_by_hand():
    assert cut([], 4) == []
    assert cut([True] * 3, 4) == [Chunk(0, 0, 3)]
    assert cut([False] * 13, 8) == [Chunk(0, 7, 7), Chunk(7, 6, 13)]
    assert cut([True, False, False, True, True, False], 4) == [Chunk(0, 0, 1), Chunk(1, 2, 5), Chunk(5, 1, 6)]
