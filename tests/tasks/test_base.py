"""Episodes on a device: drawn on the host, built where they are used, the same ones everywhere."""

import zlib

import pytest
import torch

from torchplastic.data.classes import Classes
from torchplastic.tasks.base import Episode
from torchplastic.tasks.images import ImageEpisodes, Images
from torchplastic.tasks.maze import Maze
from torchplastic.tasks.omniglot import FewShot, FewShotEpisodes
from torchplastic.tasks.patterns import Patterns


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def patterns(**more):
    return Patterns(bits=20, patterns=3, shown=2, gap=1, cycles=2, test=2, **more)


def images(**more):
    sums = torch.arange(30 * 25).remainder(601).short().view(30, 5, 5)
    return ImageEpisodes(Images(side=5, shown=2, cycles=2, scaling="gray", **more), sums)


def characters(**more):
    pictures = torch.arange(60 * 81).mul(7).remainder(251).byte().view(60, 9, 9)
    classes = Classes(pictures, torch.full((10,), 6), tuple("abcdefghij"), tuple("aaaaabbbbb"))
    return FewShotEpisodes(FewShot(side=9, ways=4, queries=3, **more), classes)


TASKS = {
    "patterns": lambda: patterns(),
    "balanced patterns": lambda: patterns(balanced=True),
    "images": lambda: images(),
    "images without pixels": lambda: images(degraded="pixels"),
    "characters": lambda: characters(),
    "characters of a group": lambda: characters(within_groups=True),
    "shared characters": lambda: characters(pool=6),
    "moved characters": lambda: characters(pool=6, jitter=0.1),
}

#: checksums of episodes as they were when everything was drawn and made in one place
RECORDED = {
    "patterns": "62c5850c",
    "balanced patterns": "ce33ac75",
    "images": "c2a817aa",
    "images without pixels": "fbe0b369",
    "characters": "e9310c35",
    "characters of a group": "ee92eb8c",
    "shared characters": "7f0a3c6f",
}


def tensors(episodes):
    """All tensors of a batch."""
    parts = [*episodes]
    parts += [*episodes.info.values()] if isinstance(episodes, Episode) else []
    return [part for part in parts if isinstance(part, torch.Tensor)]


def checksum(parts):
    found = 0
    for part in parts:
        found = zlib.crc32(part.contiguous().numpy().data, found)
    return f"{found:08x}"


@pytest.mark.parametrize("name", RECORDED)
def test_a_seed_gives_the_episodes_that_it_always_gave(name):
    task, generator = TASKS[name](), seeded(3)
    assert checksum([part for _ in range(2) for part in tensors(task.episodes(4, generator))]) == RECORDED[name]


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_drawn_with_the_others(name):
    """What a process makes of a batch is a part of the whole, and leaves the generator where the whole leaves it."""
    one, other = seeded(1), seeded(1)
    whole = TASKS[name]().episodes(6, one)
    part = TASKS[name]().episodes(6, other, "cpu", slice(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(tensors(whole.rows(slice(2, 4))), tensors(part), strict=True))
    assert torch.equal(one.get_state(), other.get_state())


@pytest.mark.parametrize("name", TASKS)
def test_a_device_draws_nothing(name):
    """The generator on the host ends up in the same place, and every tensor is on the device."""
    here, there = seeded(1), seeded(1)
    made = TASKS[name]().episodes(4, here)
    other = TASKS[name]().episodes(4, there, "meta")
    assert torch.equal(here.get_state(), there.get_state())
    assert {part.device.type for part in tensors(other)} == {"meta"}
    for part, twin in zip(tensors(made), tensors(other), strict=True):
        assert (part.shape, part.dtype) == (twin.shape, twin.dtype)


def test_mazes_are_drawn_on_the_host():
    here, there = seeded(1), seeded(1)
    made, other = Maze(steps=4).reset(3, here), Maze(steps=4).reset(3, there, device="meta")
    assert torch.equal(here.get_state(), there.get_state())
    assert {part.device.type for part in other.tensors()} == {"meta"}
    assert [part.shape for part in made.tensors()] == [part.shape for part in other.tensors()]


def test_pictures_are_sent_once():
    task = images()
    task.episodes(2, seeded(0), "meta")
    kept = task.sums_on(torch.device("meta"))
    task.episodes(2, seeded(0), "meta")
    assert task.sums_on(torch.device("meta")) is kept
    assert task.sums_on(torch.device("cpu")) is task.sums


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is available here")
@pytest.mark.parametrize("name", TASKS)
def test_a_gpu_has_the_same_episodes(name):
    """Pixels of moved pictures to a level of gray: they are interpolated."""
    here, there = seeded(1), seeded(1)
    for part, twin in zip(
        tensors(TASKS[name]().episodes(4, here)), tensors(TASKS[name]().episodes(4, there, "cuda")), strict=True
    ):
        torch.testing.assert_close(part.float(), twin.cpu().float(), rtol=0, atol=1.0 if "moved" in name else 1e-6)
