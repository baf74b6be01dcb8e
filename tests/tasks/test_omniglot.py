"""Few-shot episodes against the protocol they state; test classes are never trained on."""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from torchplastic.data.classes import Classes
from torchplastic.tasks.omniglot import FewShot, FewShotEpisodes, nearest_in_pixels

SIDE = 4


def told(counts, first=0, groups=None):
    """Pictures that tell their class (pixel 0, 1), their number (1, 1), and with a corner how they were turned."""
    pictures = torch.zeros(sum(counts), SIDE, SIDE, dtype=torch.uint8)
    each = [(c, d) for c, count in enumerate(counts) for d in range(count)]
    for place, (c, d) in enumerate(each):
        pictures[place, 0, 0] = 255
        pictures[place, 1, 1:3] = pictures[place, 2, 1:3] = first + c + 1
        pictures[place, 0, 1:3] = pictures[place, 3, 1:3] = d + 1
        pictures[place, 1:3, 0] = pictures[place, 1:3, 3] = d + 1
    names = tuple(f"class {first + c}" for c in range(len(counts)))
    return Classes(pictures, torch.tensor(counts), names, groups, "told")


def reading(frame):
    """(class, picture, quarter turns) of a frame."""
    corners = {(0, 0): 0, (SIDE - 1, 0): 1, (SIDE - 1, SIDE - 1): 2, (0, SIDE - 1): 3}
    (turns,) = (turns for (row, column), turns in corners.items() if frame[row, column] == 255)
    return int(frame[1, 1]) - 1, int(frame[0, 1]) - 1, turns


tasks = st.builds(
    FewShot,
    side=st.just(SIDE),
    ways=st.integers(2, 4),
    shots=st.integers(1, 2),
    queries=st.integers(1, 6),
    rotations=st.booleans(),
    order=st.sampled_from(["shuffled", "rounds"]),
    pool=st.sampled_from([0, 5]),
    pool_pictures=st.just(5),
)


@given(tasks, st.lists(st.integers(5, 7), min_size=6, max_size=9), st.integers(1, 5), st.integers(0, 1000))
def test_an_episode_is_what_it_says(task, counts, batch, seed):
    drawn = FewShotEpisodes(task, told(counts)).episodes(batch, torch.Generator().manual_seed(seed))
    assert drawn.support.shape == drawn.labels.shape == (task.ways * task.shots, batch)
    assert drawn.query.shape == drawn.target.shape == (batch, task.queries)
    assert drawn.classes.shape == (batch, task.ways)
    if task.pool:
        assert len(drawn.frames) == task.pool * task.pool_pictures
        assert len({reading(frame)[0] for frame in drawn.frames}) == task.pool
    for b in range(batch):
        classes = drawn.classes[b].tolist()
        assert len(set(classes)) == task.ways
        labels = drawn.labels[:, b].tolist()
        assert sorted(labels) == sorted([*range(task.ways)] * task.shots)
        if task.order == "rounds":
            rounds = [labels[i : i + task.ways] for i in range(0, len(labels), task.ways)]
            assert all(sorted(one) == [*range(task.ways)] for one in rounds)
        support = [reading(drawn.frames[place]) for place in drawn.support[:, b]]
        query = [reading(drawn.frames[place]) for place in drawn.query[b]]
        told_by = [*zip(support, labels, strict=True), *zip(query, drawn.target[b].tolist(), strict=True)]
        assert all(c == classes[label] for (c, _, _), label in told_by)
        pictures = [(c, d) for c, d, _ in [*support, *query]]
        assert len(set(pictures)) == len(pictures)  # no query is in the support set, nothing comes twice
        assert all(d < counts[c] for c, d in pictures)
        turns = {c: {turn for other, _, turn in [*support, *query] if other == c} for c in classes}
        assert all(len(each) <= 1 for each in turns.values())  # a class is turned as a whole
        assert task.rotations or all(each <= {0} for each in turns.values())


@given(st.integers(0, 10_000), st.sampled_from([0, 6]), st.integers(1, 40))
def test_no_class_of_the_other_set_is_ever_drawn(seed, pool, batch):
    """Train and test episodes see their own classes alone, for any seed."""
    task = FewShot(side=SIDE, ways=3, queries=3, pool=pool, pool_pictures=3)
    classes = told([4] * 20)
    test = torch.rand(20, generator=torch.Generator().manual_seed(seed)) < 0.5
    assume(6 <= int(test.sum()) <= 14)
    for chosen in (test, ~test):
        part = classes.part(chosen, "")
        drawn = FewShotEpisodes(task, part).episodes(batch, torch.Generator().manual_seed(seed + 1))
        seen = {reading(frame)[0] for frame in drawn.frames}
        assert seen <= set(chosen.nonzero().flatten().tolist())


def test_everything_is_as_likely():
    task = FewShot(side=SIDE, ways=3, shots=1)
    drawn = FewShotEpisodes(task, told([3] * 6)).episodes(24_000, torch.Generator().manual_seed(0))
    frames = drawn.frames[drawn.support[0]]
    share = 24_000 / 6
    for counted, kinds in (
        (drawn.target[:, 0], 3), (drawn.labels[0], 3), (drawn.classes[:, 0], 6),
        (torch.tensor([reading(frame)[2] for frame in frames[:6000]]), 4),
    ):  # fmt: skip
        expected = len(counted) / kinds
        assert (counted.bincount(minlength=kinds) - expected).abs().max() < 5 * expected**0.5
    position = (drawn.labels == drawn.target[:, 0]).int().argmax(0)
    assert (position.bincount(minlength=3) - 2 * share).abs().max() < 5 * (2 * share) ** 0.5


def test_the_same_generator_gives_the_same_episodes():
    task = FewShotEpisodes(FewShot(side=SIDE, ways=3, pool=5, pool_pictures=3), told([4] * 8))
    one, other = (task.episodes(7, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one.frames, task.episodes(7, torch.Generator().manual_seed(4)).frames)


def test_jitter_moves_ink_and_keeps_it():
    """Two drawings of a blob: their middles scatter as the maps say, the ink stays about as much."""
    blob = torch.zeros(40, 31, 31, dtype=torch.uint8)
    blob[:, 13:18, 13:18] = 255
    classes = Classes(blob, torch.full((10,), 4), tuple("abcdefghij"))
    task = FewShot(ways=5, jitter=0.05, rotations=False)
    frames = FewShotEpisodes(task, classes).episodes(400, torch.Generator().manual_seed(0)).frames.double() / 255
    assert frames.dtype == torch.float64
    assert frames.sum((1, 2)).mean() == pytest.approx(25, rel=0.05)
    row = (frames * torch.arange(31).unsqueeze(-1)).sum((1, 2)) / frames.sum((1, 2))
    assert row.mean() == pytest.approx(15, abs=0.1)
    assert row.std() == pytest.approx(0.05 * 31 / 2, rel=0.1)
    still = FewShotEpisodes(replace(task, jitter=0.0), classes).episodes(3, torch.Generator().manual_seed(0)).frames
    assert torch.equal(still, blob[: len(still)])


def test_rows_are_some_of_the_episodes():
    batch = FewShotEpisodes(FewShot(side=SIDE, ways=3), told([4] * 8)).episodes(6, torch.Generator().manual_seed(0))
    part = batch.rows(slice(2, 4))
    assert torch.equal(part.support, batch.support[:, 2:4])
    assert torch.equal(part.target, batch.target[2:4])
    assert torch.equal(part.frames[part.query], batch.frames[batch.query[2:4]])


@given(st.integers(0, 1000))
def test_within_groups(seed):
    groups = ("a", "b", "a", "b", "c", "a", "b")  # c is too small
    task = FewShotEpisodes(FewShot(side=SIDE, ways=3, within_groups=True), told([3] * 7, groups=groups))
    for classes in task.episodes(8, torch.Generator().manual_seed(seed)).classes.tolist():
        assert len(set(classes)) == 3
        assert {groups[c] for c in classes} in ({"a"}, {"b"})


def test_nearest_in_pixels():
    """Where each picture of a class is nearly the other, it is always right; where classes look the same, by chance."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randint(0, 256, (8, 1, SIDE, SIDE), generator=generator)
    noisy = (kinds + torch.randint(-3, 4, (8, 4, SIDE, SIDE), generator=generator)).clamp(0, 255)
    task = FewShot(side=SIDE, rotations=False, queries=5)

    def right(pictures):
        classes = Classes(pictures.flatten(0, 1).byte(), torch.full((8,), 4), tuple("abcdefgh"))
        batch = FewShotEpisodes(task, classes).episodes(2000, generator)
        return (nearest_in_pixels(batch) == batch.target).double().mean().item()

    assert right(noisy) == 1
    assert right(torch.randint(0, 256, noisy.shape, generator=generator)) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(
    ("task", "counts", "words"),
    [
        ({"ways": 9}, [3] * 8, r"task\.ways is 9, but there are 8 classes"),
        ({"pool": 12}, [9] * 8, r"task\.pool is 12, but there are 8 classes"),
        ({}, [3] * 7 + [1], r"class class 7 has 1 pictures; 2 are needed, different ones for support and for queries"),
        ({"shots": 3}, [3] * 8, "has 3 pictures; 4 are needed"),
        ({"side": 5}, [3] * 8, r"pictures are 4 × 4 pixels; task\.side is 5"),
        ({"within_groups": True}, [3] * 8, r"needs groups \(alphabets\) to draw from; here they are unknown"),
        ({"jitter": 1.0}, [3] * 8, r"task\.jitter must lie in 0 … 1, 1 excluded; got 1"),
        ({"ways": 1}, [3] * 8, r"task\.ways must be at least 2; got 1"),
        ({"pool": 4}, [3] * 8, r"task\.pool must be 0 or at least task\.ways, 5; got 4"),
        (
            {"pool": 6, "queries": 20},
            [9] * 8,
            r"pool-pictures must be at least 5 \(of a class 1 for support, 4 as queries\); got 4",
        ),
        ({"pool": 6, "within_groups": True}, [9] * 8, "exclude each other"),
    ],
)
def test_what_is_refused(task, counts, words):
    with pytest.raises(ValueError, match=words):
        FewShotEpisodes(FewShot(**{"side": SIDE, **task}), told(counts))


def test_groups_that_are_too_small():
    classes = replace(told([3] * 8), groups=tuple("aabbccdd"))
    with pytest.raises(ValueError, match="all of fewer than 5 classes"):
        FewShotEpisodes(FewShot(side=SIDE, within_groups=True), classes)


def test_published_sizes():
    task = FewShot()
    assert (task.ways, task.shots, task.queries, task.steps, task.side, task.chance) == (5, 1, 1, 5, 31, 0.2)
    assert FewShot(ways=20, shots=5, queries=40).taken == 7
