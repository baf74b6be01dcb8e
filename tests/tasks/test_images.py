"""The picture task against the protocol it states; validation pictures are never trained on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchplastic.data.pictures import Pictures
from torchplastic.tasks.base import unclamped
from torchplastic.tasks.images import (
    ImageEpisodes,
    Images,
    _different,
    training_and_validation,
    trivial_answers,
)


def numbered(n, side, first=0):
    """Pictures that tell their number: pixel 0 holds it, the others differ."""
    sums = torch.arange(n * side * side).remainder(601).short().view(n, side, side).clone()
    sums[:, 0, 0] = torch.arange(first, first + n)
    return sums


def draw(task: Images, batch: int = 3, seed: int = 0, n: int = 9):
    return ImageEpisodes(task, numbered(n, task.side)).episodes(batch, torch.Generator().manual_seed(seed))


def test_published_sizes():
    task = Images()
    assert (task.steps, task.neurons, task.hidden_pixels) == (201, 1025, 512)
    assert 2 * task.neurons**2 == 2_101_250
    assert sum(not clamped for clamped in task.clamped_steps()) == 21
    assert Images(gap=3).steps == 210


sizes = st.builds(
    Images,
    side=st.integers(2, 5),
    pictures=st.integers(1, 4),
    shown=st.integers(1, 3),
    gap=st.integers(0, 2),
    cycles=st.integers(1, 3),
    test=st.integers(1, 3),
    degraded=st.sampled_from(["half", "pixels"]),
    scaling=st.sampled_from(["centred", "gray"]),
)


@given(sizes, st.integers(1, 3), st.integers(0, 100))
def test_episode_is_what_the_paper_says(task, batch, seed):
    episode = draw(task, batch, seed)
    pixels, learn, free = task.pixels, task.steps - task.test, episode.clamped_steps
    assert len(free) == task.steps
    for t in range(task.steps):
        assert episode.clamp[t].all() == (free[t] or task.hidden_pixels == 0)
    for b in range(batch):
        pictures = episode.info["pictures"][b]
        assert len({int(number) for number in episode.info["chosen"][b]}) == task.pictures  # all different
        shows = episode.inputs[:learn, b].unflatten(0, (-1, task.shown + task.gap))
        for cycle in shows.unflatten(0, (task.cycles, task.pictures)):
            first = cycle[:, 0, :pixels]
            assert sorted(map(tuple, first.tolist())) == sorted(map(tuple, pictures.tolist()))  # the set, once
            assert (cycle[:, : task.shown, :pixels] == first.unsqueeze(1)).all()
            assert cycle[:, task.shown :, :pixels].eq(0).all()
        kept = episode.clamp[learn:, b, :pixels]
        assert (kept == kept[0]).all()
        hidden = (~kept[0]).view(task.side, task.side)
        if task.degraded == "half":
            rows = hidden.all(1)
            assert torch.equal(rows, hidden.any(1))  # whole rows
            assert rows[0] != rows[-1]  # from the top or from the bottom
            assert (rows[1:] != rows[:-1]).sum() == 1
        else:
            assert hidden.sum() == task.hidden_pixels
        target = pictures[episode.info["which"][b]]
        assert torch.equal(episode.target[b], target)
        assert torch.equal(episode.inputs[-1, b, :pixels], target * kept[0])
    assert episode.inputs[..., -1].eq(1).all()
    assert episode.clamp[..., -1].all()


def test_both_halves_and_every_picture_are_asked_for():
    episode = draw(Images(side=4), 200)
    assert set(episode.info["which"].tolist()) == {0, 1, 2}
    top = episode.info["kept"][:, 0]
    assert 60 < int(top.sum()) < 140
    assert not torch.equal(episode.inputs[0, :, :16], episode.inputs[66, :, :16])  # reshuffled


def test_scalings():
    sums = torch.tensor([[0, 765], [255, 510]], dtype=torch.int16)
    torch.testing.assert_close(Images(side=2, scaling="gray").scaled(sums), torch.tensor([0, 1, 1 / 3, 2 / 3]))
    torch.testing.assert_close(Images(side=2).scaled(sums), torch.tensor([-1, 1, -1 / 3, 1 / 3]))
    assert Images(side=2).scaled(torch.full((2, 2), 300, dtype=torch.int16)).eq(0).all()  # one shade


@pytest.mark.parametrize("seed", range(5))
def test_no_validation_picture_is_ever_trained_on(seed):
    pictures = Pictures(numbered(40, 3), numbered(10, 3, first=100), "numbered")
    training, validation = training_and_validation(Images(side=3), pictures)
    stream = torch.Generator().manual_seed(seed)
    seen = {
        int(number)
        for _ in range(50)
        for number in training.sums[training.episodes(4, stream).info["chosen"].flatten()][:, 0, 0]
    }
    asked = {
        int(number)
        for _ in range(50)
        for number in validation.sums[validation.episodes(4, stream).info["chosen"].flatten()][:, 0, 0]
    }
    assert seen == set(range(40))
    assert asked == set(range(100, 110))


def test_equal_streams_give_equal_episodes():
    one, other = draw(Images(side=4), seed=7), draw(Images(side=4), seed=7)
    assert torch.equal(one.inputs, other.inputs)
    assert not torch.equal(one.inputs, draw(Images(side=4), seed=8).inputs)


@given(st.integers(1, 9), st.integers(0, 50))
def test_numbers_without_repetition(n, seed):
    drawn = _different(n, 64, min(n, 4), torch.Generator().manual_seed(seed))
    for row in drawn.tolist():
        assert len(set(row)) == len(row)
        assert 0 <= min(row) <= max(row) < n


def test_they_are_uniform():
    drawn = _different(4, 24_000, 3, torch.Generator().manual_seed(0))
    orders = drawn @ torch.tensor([16, 4, 1])
    counts = orders.bincount()
    counts = counts[counts > 0]
    assert len(counts) == 24
    assert (counts - 1000).abs().max() < 150  # five standard deviations


def test_without_clamped_steps():
    episode = draw(Images(side=4))
    part = unclamped(episode)
    free = [t for t, clamped in enumerate(episode.clamped_steps) if not clamped]
    assert part.inputs.shape[0] == len(part.clamped_steps) == 21
    assert torch.equal(part.inputs, episode.inputs[free])
    assert not any(part.clamped_steps)


def test_trivial_answers():
    task = Images(side=4, shown=1, cycles=1, pictures=1, test=1)
    episode = draw(task, batch=50)
    mean = torch.full((16,), 0.25)
    answers = trivial_answers(episode, mean, 4)
    for b in range(50):
        kept, target = episode.info["kept"][b], episode.target[b]
        for answer in answers.values():
            assert torch.equal(answer[b][kept], target[kept])
        assert answers["zeros"][b][~kept].eq(0).all()
        assert answers["mean picture"][b][~kept].eq(0.25).all()
        rows, edge = target.view(4, 4), 1 if kept[0] else 2  # the shown row next to the hidden half
        assert torch.equal(answers["nearest row"][b].view(4, 4)[~kept.view(4, 4).all(1)], rows[edge].expand(2, 4))


def test_the_nearest_shown_pixel_of_a_column():
    kept = torch.tensor([[False, True, False, False], [True, False, False, False]]).repeat_interleave(1, 1)
    cue = torch.tensor([[0.0, 0.5, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]])
    episode = draw(Images(side=2), batch=2)._replace(info={"cue": cue, "kept": kept})
    filled = trivial_answers(episode, torch.zeros(4), 2)["nearest row"]
    torch.testing.assert_close(filled, torch.tensor([[0.0, 0.5, 0.0, 0.5], [-1.0, 0.0, -1.0, 0.0]]))


@pytest.mark.parametrize("name", ["side", "pictures", "shown", "cycles", "test", "gap"])
def test_sizes_out_of_range(name):
    with pytest.raises(ValueError, match=f"task.{name} must be at least"):
        Images(**{name: -1})


def test_pictures_that_do_not_fit():
    with pytest.raises(ValueError, match=r"pictures are 3 × 3 pixels; task.side is 32"):
        ImageEpisodes(Images(), numbered(5, 3))
    with pytest.raises(ValueError, match="takes 3 pictures; there are 2"):
        ImageEpisodes(Images(side=3), numbered(2, 3))
