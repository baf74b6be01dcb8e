"""The pattern task against the protocol it states."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchplastic.tasks.patterns import Patterns, wrong_bits


def draw(task: Patterns, batch: int = 3, seed: int = 0):
    return task.episodes(batch, torch.Generator().manual_seed(seed))


def test_paper_sizes():
    task = Patterns()
    assert (task.steps, task.neurons) == (205, 1001)
    assert Patterns(shown=6, gap=4, cycles=2, test=6).steps == 106
    assert Patterns(bits=50, patterns=2, shown=3, gap=1, cycles=3, test=3).steps == 27
    assert Patterns(bits=50, patterns=2, shown=3, gap=1, cycles=1, test=3).steps == 11


sizes = st.builds(
    Patterns,
    bits=st.integers(2, 12).map(lambda n: 2 * n),
    patterns=st.integers(1, 4),
    shown=st.integers(1, 3),
    gap=st.integers(0, 2),
    cycles=st.integers(1, 3),
    test=st.integers(1, 3),
    balanced=st.booleans(),
    extra=st.integers(0, 2),
)


@given(sizes, st.integers(1, 3), st.integers(0, 100))
def test_episode_is_what_the_paper_says(task, batch, seed):
    episode = draw(task, batch, seed)
    bits, learn = task.bits, task.steps - task.test
    patterns = episode.info["patterns"]
    assert patterns.abs().eq(1).all()
    if task.balanced:
        assert patterns.sum(-1).eq(0).all()
    for b in range(batch):
        shows = episode.inputs[:learn, b].unflatten(0, (-1, task.shown + task.gap))
        clamp = episode.clamp[:learn, b].unflatten(0, (-1, task.shown + task.gap))
        for cycle in shows.unflatten(0, (task.cycles, task.patterns)):
            first = cycle[:, 0, :bits]
            assert sorted(map(tuple, first.tolist())) == sorted(map(tuple, patterns[b].tolist()))  # the set, once
            assert (cycle[:, : task.shown, :bits] == first.unsqueeze(1)).all()
            assert cycle[:, task.shown :, :bits].eq(0).all()
        assert clamp[:, : task.shown, :bits].all()
        assert not clamp[:, task.shown :, :bits].any()
        kept = episode.clamp[learn:, b, :bits]
        assert (kept == kept[0]).all()
        assert (~kept[0]).sum() == task.hidden_bits
        target = patterns[b, episode.info["which"][b]]
        assert torch.equal(episode.target[b], target)
        assert torch.equal(episode.inputs[-1, b, :bits], target * kept[0])
    assert episode.inputs[..., -1].eq(1).all()
    assert episode.clamp[..., -1].all()
    if task.extra:
        assert episode.inputs[..., bits:-1].eq(0).all()
        assert not episode.clamp[..., bits:-1].any()
    whole = episode.clamp.all(-1).all(-1).tolist()
    assert all(real or not told for told, real in zip(episode.clamped_steps, whole, strict=True))
    assert sum(episode.clamped_steps) == (0 if task.extra else task.cycles * task.patterns * task.shown)


def test_the_set_is_reshuffled_each_time():
    task = Patterns(bits=20, patterns=5, shown=1, gap=0, cycles=6)
    episode = draw(task, 1)
    cycles = episode.inputs[:30, 0, :20].unflatten(0, (6, 5))
    assert any(not torch.equal(cycles[0], other) for other in cycles[1:])


def test_additive_is_the_same_without_clamp_times_the_gain():
    clamped = Patterns(bits=10, patterns=2, shown=2, gap=1, cycles=2, test=2)
    from dataclasses import replace

    added = draw(replace(clamped, input="additive", gain=20.0))
    assert added.clamp is None
    assert not any(added.clamped_steps)
    assert torch.equal(added.inputs, draw(clamped).inputs * 20)
    assert added.inputs[..., -1].eq(20).all()


def test_the_generator_alone_decides():
    a, b, c = draw(Patterns(bits=10), seed=1), draw(Patterns(bits=10), seed=1), draw(Patterns(bits=10), seed=2)
    assert torch.equal(a.inputs, b.inputs)
    assert not torch.equal(a.inputs, c.inputs)


def test_rows_are_single_episodes():
    episode = draw(Patterns(bits=10), 4)
    part = episode.rows(slice(1, 3))
    assert torch.equal(part.inputs, episode.inputs[:, 1:3])
    assert torch.equal(part.clamp, episode.clamp[:, 1:3])
    assert torch.equal(part.target, episode.target[1:3])
    assert torch.equal(part.info["cue"], episode.info["cue"][1:3])


def test_wrong_bits_counts_signs_and_zero_is_wrong():
    target = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    answer = torch.tensor([[0.2, 0.9, 0.0, -3.0]])
    assert wrong_bits(answer, target).tolist() == [0.5]


@pytest.mark.parametrize(
    ("field", "value"),
    [("bits", 0), ("patterns", 0), ("shown", 0), ("gap", -1), ("cycles", 0), ("test", 0), ("extra", -1), ("gain", 0.0)],
)
def test_sizes_out_of_range(field, value):
    with pytest.raises(ValueError, match=f"task.{field}"):
        Patterns(**{field: value})


def test_hidden_and_balanced_are_checked():
    with pytest.raises(ValueError, match="hidden"):
        Patterns(bits=10, hidden=0.01)
    with pytest.raises(ValueError, match="even number"):
        Patterns(bits=11, balanced=True)
