"""Few-shot classification: show labelled pictures of some classes, then classify new ones.

Miconi et al. 2018, section 4.3, use 5 characters of Omniglot, one drawing each, and one query. Any pictures in classes
work: `FewShotEpisodes(FewShot(ways=3), read_folder(folder, 31))`.

Axes: T support pictures, B batch, Q queries, W ways (classes of an episode), F frames (pictures of a batch),
C classes, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from torchplastic.data.classes import Classes
from torchplastic.tasks.base import chosen_device, to_device


class FewShotBatch(NamedTuple):
    """A batch of episodes: each picture once, and the frame numbers of each episode's support and queries.

    frames: uint8 `[F, S, S]`, ink is 255.
    support: int64 `[T, B]`, frames in the order of presentation; labels: int64 `[T, B]`, 0 … W - 1.
    query: int64 `[B, Q]`, frames to classify; target: int64 `[B, Q]`, their labels.
    classes: int64 `[B, W]`, the class behind each label.
    """

    frames: Tensor
    support: Tensor
    labels: Tensor
    query: Tensor
    target: Tensor
    classes: Tensor

    def rows(self, rows: slice) -> FewShotBatch:
        """The episodes of this slice of the batch; frames are shared."""
        labels, target, classes = self.labels[:, rows], self.target[rows], self.classes[rows]
        return FewShotBatch(self.frames, self.support[:, rows], labels, self.query[rows], target, classes)

    def to(self, *args: Any, **kwargs: Any) -> FewShotBatch:
        """Every tensor through `Tensor.to(device)`."""
        return FewShotBatch(*(tensor.to(*args, **kwargs) for tensor in self))

    def answer(self, model: Callable[..., Any]) -> Tensor:
        """Logits `[B, Q, W]` of `model(frames, support, labels, query)`."""
        logits: Tensor = model(self.frames, self.support, self.labels, self.query)
        return logits


@dataclass(frozen=True)
class FewShot:
    """Few-shot classification; by default as published: 5 ways, 1 shot, 1 query."""

    side: int = 31
    """Pixels per side."""
    ways: int = 5
    """Classes per episode."""
    shots: int = 1
    """Support pictures per class."""
    queries: int = 1
    """Query pictures per episode; each sees the trace after the support set."""
    rotations: bool = True
    """Rotate each class of an episode by 0, 90, 180 or 270 degrees."""
    jitter: float = 0.0
    """Standard deviation of the random affine distortion of each picture, in units of half its side."""
    order: Literal["shuffled", "rounds"] = "shuffled"
    """Order of the support. shuffled: random; rounds: every class once before any class repeats."""
    within_groups: bool = False
    """Draw all classes of an episode from one group (alphabet)."""
    pool: int = 0
    """Classes per batch, shared by its episodes, so that each picture is embedded once; 0: not shared."""
    pool_pictures: int = 4
    """Pictures per class of the pool."""

    def __post_init__(self) -> None:
        for name, smallest in (("side", 2), ("ways", 2), ("shots", 1), ("queries", 1), ("pool", 0)):
            if getattr(self, name) < smallest:
                raise ValueError(f"task.{name} must be at least {smallest}; got {getattr(self, name)}.")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"task.jitter must lie in 0 … 1, 1 excluded; got {self.jitter:g}.")
        if self.pool and self.pool < self.ways:
            raise ValueError(f"task.pool must be 0 or at least task.ways, {self.ways}; got {self.pool}.")
        if self.pool and self.pool_pictures < self.taken:
            raise ValueError(
                f"task.pool-pictures must be at least {self.taken} (of a class {self.shots} for support, "
                f"{self.taken - self.shots} as queries); got {self.pool_pictures}."
            )
        if self.pool and self.within_groups:
            raise ValueError("task.pool and task.within-groups exclude each other; set one of them.")

    @property
    def steps(self) -> int:
        """T: support pictures before the queries."""
        return self.ways * self.shots

    @property
    def taken(self) -> int:
        """Pictures per class that an episode needs at most, for support and queries."""
        return self.shots + -(-self.queries // self.ways)

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return 1 / self.ways


@dataclass(frozen=True)
class FewShotEpisodes:
    """Episodes of the task on a set of classes.

    ValueError if there are too few classes, or too few pictures of a class.
    """

    options: FewShot
    classes: Classes

    def __post_init__(self) -> None:
        options, classes = self.options, self.classes
        if classes.side != options.side:
            raise ValueError(f"pictures are {classes.side} × {classes.side} pixels; task.side is {options.side}.")
        if len(classes) < max(options.ways, options.pool):
            name, wanted = ("ways", options.ways) if len(classes) < options.ways else ("pool", options.pool)
            raise ValueError(f"task.{name} is {wanted}, but there are {len(classes)} classes; lower it.")
        needed = options.pool_pictures if options.pool else options.taken
        fewest = int(classes.counts.argmin())
        if classes.counts[fewest] < needed:
            raise ValueError(
                f"class {classes.names[fewest]} has {int(classes.counts[fewest])} pictures; {needed} are needed, "
                "different ones for support and for queries."
            )
        if options.within_groups and (classes.groups is None or not len(self._groups[0])):
            why = "unknown" if classes.groups is None else f"all of fewer than {options.ways} classes"
            raise ValueError(f"task.within-groups needs groups (alphabets) to draw from; here they are {why}.")

    @cached_property
    def _groups(self) -> tuple[Tensor, Tensor]:
        """The classes whose group has enough members `[n]`, and the group of every class `[C]`."""
        names = self.classes.groups or ()
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        group = torch.tensor([numbers[name] for name in names])
        return (group.bincount()[group] >= self.options.ways).nonzero().flatten(), group

    @cached_property
    def _copies(self) -> dict[torch.device, Tensor]:
        return {}

    def pictures_on(self, device: torch.device) -> Tensor:
        """The pictures of all classes on a device, kept there for later calls."""
        if device not in self._copies:
            self._copies[device] = self.classes.pictures.to(device)
        return self._copies[device]

    def episodes(
        self,
        batch: int,
        generator: torch.Generator,
        device: torch.device | str | None = None,
        rows: slice = slice(None),
    ) -> FewShotBatch:
        """A batch of episodes; see `Task.episodes`. A query is never one of the support pictures."""
        device = chosen_device(device, generator)
        which, turns, maps, places = self.sample(batch, generator)
        frames = _turned(self.pictures_on(device)[to_device(which, device)], to_device(turns, device))
        if maps is not None:
            frames = _mapped(frames, to_device(maps, device))
        return FewShotBatch(frames, *(to_device(part, device) for part in places)).rows(rows)

    def sample(
        self, batch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor | None, tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """All random numbers of a batch, on the generator's device.

        For each frame its index in `classes.pictures` `[F]`, its quarter turns `[F]` and, with jitter, its affine map
        `[F, 2, 3]`; and all fields of a `FewShotBatch` but the frames.
        """
        task, device, B, W = self.options, generator.device, batch, self.options.ways
        queries = torch.arange(task.queries, device=device)
        target = _order(B, W, generator)[:, queries % W]
        order = self._shown_order(B, generator)
        # candidates [B, W, taken]: the frames of each class of an episode, support first
        if task.pool:
            classes = _few_of(len(self.classes), 1, task.pool, generator)[0]
            pictures = self._pictures(classes, task.pool_pictures, generator)
            turns = self._turns(classes, generator).repeat_interleave(task.pool_pictures)
            which = pictures.flatten()
            chosen = _few_of(task.pool, B, W, generator)
            each = _few_of(task.pool_pictures, B * W, task.taken, generator).unflatten(0, (B, W))
            candidates = chosen.unsqueeze(-1) * task.pool_pictures + each
            classes = classes[chosen]
        else:
            classes = self._few_classes(B, generator)
            candidates = self._pictures(classes, task.taken, generator)
        support = candidates[..., : task.shots].flatten(1).gather(1, order)
        labels = order // task.shots
        rows = torch.arange(B, device=device).unsqueeze(-1)
        query = candidates[rows, target, task.shots + queries // W]
        if not task.pool:
            turns = self._turns(classes, generator)
            which = torch.cat([support.flatten(), query.flatten()])
            turns = torch.cat([turns.gather(1, labels).flatten(), turns.gather(1, target).flatten()])
            places = torch.arange(len(which), device=device)
            support, query = places[: support.numel()].view_as(support), places[support.numel() :].view_as(query)
        maps = _maps(len(which), task.jitter, generator) if task.jitter else None
        return which, turns, maps, (support.t(), labels.t(), query, target, classes)

    def _few_classes(self, batch: int, generator: torch.Generator) -> Tensor:
        """The classes of each episode, `[B, W]`."""
        if not self.options.within_groups:
            return _few_of(len(self.classes), batch, self.options.ways, generator)
        members, group = (tensor.to(generator.device) for tensor in self._groups)
        first = members[torch.randint(len(members), (batch,), generator=generator, device=generator.device)]
        keys = torch.rand(batch, len(group), generator=generator, device=generator.device)
        return (keys + (group == group[first].unsqueeze(-1))).topk(self.options.ways).indices

    def _pictures(self, classes: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """`count` different pictures of each class `[…]`, as indices `[…, count]` into `classes.pictures`."""
        sizes = self.classes.counts.to(generator.device)[classes].unsqueeze(-1)
        most = int(self.classes.counts.max())
        keys = torch.rand(*classes.shape, most, generator=generator, device=generator.device)
        drawn = keys.masked_fill(torch.arange(most, device=generator.device) >= sizes, -1).topk(count).indices
        return self.classes.first.to(generator.device)[classes].unsqueeze(-1) + drawn

    def _turns(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Quarter turns of each class."""
        turns = torch.randint(4, classes.shape, generator=generator, device=generator.device)
        return turns if self.options.rotations else torch.zeros_like(turns)

    def _shown_order(self, batch: int, generator: torch.Generator) -> Tensor:
        """The support picture of each step, `[B, T]` numbers below W x shots; number // shots is its class."""
        ways, shots = self.options.ways, self.options.shots
        if self.options.order == "shuffled":
            return _order(batch, ways * shots, generator)
        rounds = _order(batch * shots, ways, generator).view(batch, shots, ways)
        return (rounds * shots + torch.arange(shots, device=rounds.device).unsqueeze(-1)).flatten(1)


def nearest_in_pixels(batch: FewShotBatch) -> Tensor:
    """Labels `[B, Q]` of the support pictures nearest to the queries, by Euclidean distance of pixels."""
    pixels = batch.frames.flatten(1).float() / 255
    distances = torch.cdist(pixels[batch.query], pixels[batch.support.t()])
    return batch.labels.t().gather(1, distances.argmin(-1))


def _order(batch: int, count: int, generator: torch.Generator) -> Tensor:
    """A random permutation of `count` numbers for each example, `[B, count]`."""
    return torch.rand(batch, count, generator=generator, device=generator.device).argsort(-1)


def _few_of(n: int, batch: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` different random numbers below n for each example, `[B, count]`."""
    return torch.rand(batch, n, generator=generator, device=generator.device).topk(count).indices


def _turned(frames: Tensor, turns: Tensor) -> Tensor:
    """Rotate each frame of `[F, S, S]` by its quarter turns `[F]`."""
    for quarters in (1, 2, 3):
        chosen = (turns == quarters).view(-1, 1, 1)
        frames = torch.where(chosen, frames.rot90(quarters, (1, 2)), frames)
    return frames


def _maps(frames: int, spread: float, generator: torch.Generator) -> Tensor:
    """Random affine maps near the identity, `[F, 2, 3]`."""
    device = generator.device
    return torch.eye(2, 3, device=device) + spread * torch.randn(frames, 2, 3, generator=generator, device=device)


def _mapped(frames: Tensor, maps: Tensor) -> Tensor:
    """Apply to each frame of `[F, S, S]` its affine map `[F, 2, 3]`; outside the frame is paper."""
    pictures = frames.unsqueeze(1).float()
    grid = affine_grid(maps, list(pictures.shape), align_corners=False)
    return grid_sample(pictures, grid, align_corners=False).squeeze(1).round_().byte()
