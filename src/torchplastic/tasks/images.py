"""Memorise pictures, then complete one from a part of it (Miconi et al. 2018, section 4.2).

Axes: T time, B batch, P pictures of an episode, n pictures in all, S pixels a side, N neurons (pixels, then the bias).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from torchplastic.data.pictures import WHITE, Pictures
from torchplastic.tasks.base import Episode, chosen_device, to_device


@dataclass(frozen=True)
class Images:
    """Image completion; by default as the released program: T = 3 · 3 · (20 + 2) + 3 = 201 steps, 1,025 neurons."""

    side: int = 32
    """Pixels per side."""
    pictures: int = 3
    """Pictures per episode."""
    shown: int = 20
    """Steps per presentation of a picture."""
    gap: int = 2
    """Steps without input after each presentation."""
    cycles: int = 3
    """Presentations of the whole set, each in a new random order."""
    test: int = 3
    """Steps of the degraded picture at the end; the last one is scored."""
    degraded: Literal["half", "pixels"] = "half"
    """Missing part of the degraded picture: its top or bottom half, or a random half of the pixels."""
    scaling: Literal["centred", "gray"] = "centred"
    """Gray values. centred: minus their mean, divided by the largest magnitude, -1 to 1; gray: 0 to 1."""

    def __post_init__(self) -> None:
        for name, smallest in (("side", 2), ("pictures", 1), ("shown", 1), ("cycles", 1), ("test", 1), ("gap", 0)):
            if getattr(self, name) < smallest:
                raise ValueError(f"task.{name} must be at least {smallest}; got {getattr(self, name)}.")

    @property
    def steps(self) -> int:
        """T."""
        return self.cycles * self.pictures * (self.shown + self.gap) + self.test

    @property
    def pixels(self) -> int:
        """Pixels per picture."""
        return self.side * self.side

    @property
    def neurons(self) -> int:
        """N: pixels, bias."""
        return self.pixels + 1

    @property
    def hidden_pixels(self) -> int:
        """Missing pixels of the degraded picture; for an odd number of rows, those of the larger half."""
        return (self.side + 1) // 2 * self.side if self.degraded == "half" else self.pixels // 2

    def clamped_steps(self) -> tuple[bool, ...]:
        """The steps that clamp every neuron: those that show a whole picture."""
        shows = (*[True] * self.shown, *[False] * self.gap) * (self.pictures * self.cycles)
        return (*shows, *[False] * self.test)

    def scaled(self, sums: Tensor) -> Tensor:
        """Channel sums `[…, S, S]` -> input of the network, float `[…, S S]`."""
        gray = sums.flatten(-2).float()
        if self.scaling == "gray":
            return gray / WHITE
        gray = gray - gray.mean(-1, keepdim=True)
        return gray / gray.abs().amax(-1, keepdim=True).clamp_min(1e-6)  # a uniform picture becomes zero

    def kept(self, batch: int, generator: torch.Generator) -> Tensor:
        """The pixels that the degraded picture keeps, bool `[B, S S]`."""
        if self.degraded == "pixels":
            order = torch.rand(batch, self.pixels, generator=generator, device=generator.device).argsort(-1)
            return order >= self.hidden_pixels
        rows = torch.arange(self.side, device=generator.device).repeat_interleave(self.side)
        top = torch.rand(batch, 1, generator=generator, device=generator.device) < 0.5
        return (rows < self.side // 2) == top


@dataclass(frozen=True)
class ImageEpisodes:
    """Episodes of the task on a set of pictures. ValueError if the set has too few, or of another size."""

    options: Images
    sums: Tensor
    """Channel sums `[n, S, S]`."""

    def __post_init__(self) -> None:
        if self.sums.shape[1:] != (self.options.side, self.options.side):
            raise ValueError(
                f"pictures are {self.sums.shape[1]} × {self.sums.shape[2]} pixels; task.side is {self.options.side}."
            )
        if len(self.sums) < self.options.pictures:
            raise ValueError(f"an episode takes {self.options.pictures} pictures; there are {len(self.sums)}.")

    @property
    def steps(self) -> int:
        """T."""
        return self.options.steps

    @property
    def neurons(self) -> int:
        """N."""
        return self.options.neurons

    @cached_property
    def _copies(self) -> dict[torch.device, Tensor]:
        return {}

    def sums_on(self, device: torch.device) -> Tensor:
        """The channel sums on a device, kept there for later calls."""
        if device not in self._copies:
            self._copies[device] = self.sums.to(device)
        return self._copies[device]

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All random numbers of a batch, on the generator's device.

        The pictures of each episode `[B, P]`, all different; the picture of each presentation `[B, shows]`; the picture
        of the test `[B]`; and the pixels that it keeps, bool `[B, S S]`.
        """
        task, B, P = self.options, batch, self.options.pictures
        chosen = _different(len(self.sums), B, P, generator)
        order = torch.rand(B, task.cycles, P, generator=generator, device=generator.device).argsort(-1).flatten(1)
        which = torch.randint(P, (B,), generator=generator, device=generator.device)
        return chosen, order, which, task.kept(B, generator)

    def episodes(
        self,
        batch: int,
        generator: torch.Generator,
        device: torch.device | str | None = None,
        rows: slice = slice(None),
    ) -> Episode:
        """A batch of episodes; see `Task.episodes`."""
        device = chosen_device(device, generator)
        chosen, order, which, kept = (to_device(part[rows], device) for part in self.sample(batch, generator))
        task, index = self.options, torch.arange(len(which), device=device)
        P, T, B, N, pixels = task.pictures, self.steps, len(which), self.neurons, task.pixels
        pictures = task.scaled(self.sums_on(device)[chosen])
        target = pictures[index, which]

        inputs = torch.zeros(T, B, N, device=device)
        clamp = torch.zeros(T, B, N, dtype=torch.bool, device=device)
        learn = task.cycles * P * (task.shown + task.gap)
        shows = pictures[index.unsqueeze(1), order].transpose(0, 1)  # [shows, B, pixels]
        inputs[:learn].unflatten(0, (-1, task.shown + task.gap))[:, : task.shown, :, :pixels] = shows.unsqueeze(1)
        clamp[:learn].unflatten(0, (-1, task.shown + task.gap))[:, : task.shown, :, :pixels] = True
        inputs[learn:, :, :pixels] = target * kept
        clamp[learn:, :, :pixels] = kept
        inputs[..., -1] = 1
        clamp[..., -1] = True
        info = {"pictures": pictures, "cue": target * kept, "kept": kept, "which": which, "chosen": chosen}
        return Episode(inputs, clamp, task.clamped_steps(), target, info)


def training_and_validation(options: Images, pictures: Pictures) -> tuple[ImageEpisodes, ImageEpisodes]:
    """Episodes of the training pictures, and of the validation pictures."""
    return ImageEpisodes(options, pictures.train), ImageEpisodes(options, pictures.validation)


# --- trivial answers


def trivial_answers(episode: Episode, mean_picture: Tensor, side: int) -> dict[str, Tensor]:
    """Answers `[B, S S]` without memory: the cue, completed by zeros, the mean picture, or the nearest row.

    mean_picture: `[S S]`, of the training pictures. Nearest row: the nearest kept pixel of the same column.
    """
    cue, kept = episode.info["cue"], episode.info["kept"]
    return {
        "zeros": cue,
        "mean picture": torch.where(kept, cue, mean_picture.to(cue.device)),
        "nearest row": _nearest_row(cue, kept, side),
    }


def _nearest_row(cue: Tensor, kept: Tensor, side: int) -> Tensor:
    """Copy the nearest kept pixel of the column into each missing one, upwards first; 0 if there is none."""
    shown = kept.unflatten(-1, (side, side))
    rows = torch.arange(side, device=cue.device)
    distance = (rows.unsqueeze(1) - rows).abs() * 2 + (rows.unsqueeze(1) < rows)  # [row, other]: ties go upwards
    far = torch.where(shown.unsqueeze(-3), distance.unsqueeze(-1), 4 * side)  # [B, row, other, column]
    nearest = far.argmin(-2)
    filled = cue.unflatten(-1, (side, side)).gather(-2, nearest)
    return filled.flatten(-2)


def _different(n: int, batch: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` different random numbers below n for each example, `[B, count]`."""
    numbers = torch.empty(batch, 0, dtype=torch.int64, device=generator.device)
    for taken in range(count):
        rank = torch.randint(n - taken, (batch, 1), generator=generator, device=generator.device)
        for i in range(taken):  # from a rank among the free numbers to the number itself
            rank = rank + (rank >= numbers.sort(-1).values[:, i : i + 1])
        numbers = torch.cat([numbers, rank], 1)
    return numbers
