"""The cut of time into chunks, and the choice of their length."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchplastic.ops.plastic_scan.chunked import COST_PROFILES
from torchplastic.ops.plastic_scan.cost_model import LENGTHS, longest_chunk, seconds
from torchplastic.ops.plastic_scan.schedule import LONGEST_RUN, RUN, Chunk, cut, runs
from torchplastic.tasks.patterns import Patterns

steps = st.lists(st.booleans(), max_size=40)
longest = st.integers(1, 12)
TOLD = {
    "free": [False] * 106,
    "paper": Patterns().episodes(1, torch.Generator()).clamped_steps,
    "alternating": [True, False] * 20,
}


@given(steps, longest)
def test_every_step_lies_in_one_chunk_in_order(steps, longest):
    covered = [t for chunk in cut(steps, longest) for t in range(chunk.start, chunk.stop)]
    assert covered == list(range(len(steps)))


@given(steps, longest)
def test_a_chunk_has_free_steps_and_clamped_runs(steps, longest):
    for i, chunk in enumerate(cut(steps, longest)):
        start, stop, free = chunk
        assert stop > start
        assert list(free) == [k for k in range(stop - start) if not steps[start + k]]
        assert free[:1] == (0,) if free else i == 0  # only the first chunk may have no free step
        covered = {k for low, high in chunk.clamped_runs() for k in range(low, high)}
        assert covered | set(free) == set(range(stop - start))
        assert covered.isdisjoint(free)
        assert chunk.inner == max(free, default=-1) + 1
        assert chunk.ends_clamped == (stop > start + chunk.inner)
        inside = [high - low for low, high in chunk.clamped_runs() if high < chunk.inner]
        assert len(free) + RUN * len(inside) <= longest
        assert max(inside, default=0) <= LONGEST_RUN


@given(steps, longest)
def test_a_clamped_run_is_never_split(steps, longest):
    for chunk in cut(steps, longest)[:-1]:
        assert not steps[chunk.stop]


@given(st.integers(1, 60), longest)
def test_free_runs_are_cut_evenly_into_as_few_pieces_as_possible(length, longest):
    sizes = [len(chunk.free) for chunk in cut([False] * length, longest)]
    assert len(sizes) == -(-length // longest)
    assert max(sizes) - min(sizes) <= 1


@given(steps, longest)
def test_without_inner_runs_each_clamped_run_ends_a_chunk(steps, longest):
    for chunk in cut(steps, longest, longest_run=0):
        assert list(chunk.free) == list(range(chunk.inner))


@given(steps, longest)
def test_pairs_are_counted_by_free_step(steps, longest):
    for chunk in cut(steps, longest):
        earlier = [sum(not steps[chunk.start + l] for l in range(k)) for k in chunk.free]
        runs_before = [sum(high <= k for _, high in chunk.clamped_runs()) for k in chunk.free]
        assert chunk.pairs() == [i + RUN * n for i, n in zip(earlier, runs_before, strict=True)]


@pytest.mark.parametrize("N", [16, 256, 1001])
@pytest.mark.parametrize("profile", COST_PROFILES)
@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
def test_the_length_follows_what_is_run(told, profile, N):
    told, costs_of = tuple(told), COST_PROFILES[profile]
    found = [longest_chunk(told, B, N, True, costs_of) for B in (1, 2, 4, 16, 64, 1024)]
    assert found == sorted(found, reverse=True)  # a larger batch never makes chunks longer
    costs = {length: seconds(cut(told, length), 4, N, True, costs_of, 4) for length in LENGTHS}
    assert costs[found[2]] == min(costs.values())
    assert longest_chunk(told, 16, N, False, costs_of) >= found[3]  # pairs without products


def test_nothing_to_choose():
    for steps, B in (((), 1), ((True, True), 0)):
        assert longest_chunk(steps, B, 5, True, COST_PROFILES["cpu"]) == LENGTHS[0]


@given(st.lists(st.integers(0, 20), unique=True).map(sorted))
def test_runs_of_neighbours(numbers):
    found = runs(numbers)
    assert [k for low, high in found for k in range(low, high)] == numbers
    assert all(high < low for (_, high), (low, _) in pairwise(found))


def test_by_hand():
    assert cut([], 4) == []
    assert cut([True] * 3, 4) == [Chunk(0, 3, ())]
    assert cut([False] * 13, 8) == [Chunk(0, 7, tuple(range(7))), Chunk(7, 13, tuple(range(6)))]
    steps = [True, False, False, True, True, False]
    assert cut(steps, 4) == [Chunk(0, 1, ()), Chunk(1, 5, (0, 1)), Chunk(5, 6, (0,))]
    assert cut(steps, 5) == [Chunk(0, 1, ()), Chunk(1, 6, (0, 1, 4))]
    too_long = [False, *[True] * (LONGEST_RUN + 1), False]
    assert len(cut(too_long, 12)) == 2
    assert len(cut(too_long[1:-2], 12)) == 1


def test_the_paper_task_shows_two_patterns_in_a_chunk():
    told = Patterns().episodes(1, torch.Generator()).clamped_steps
    assert [len(chunk.free) for chunk in cut(told, 12)] == [0, 6, 6, 6, 6, 6, 6, 6, 7, 6]
