"""Memorise bit patterns, then complete one from a part of it (Miconi et al. 2018).

Axes: T time, B batch, P patterns, N neurons (bits, then extra, then the bias in the last column).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from torchplastic.tasks.base import Episode, chosen_device, to_device


@dataclass(frozen=True)
class Patterns:
    """Pattern completion; by default the paper's 1000-bit task: T = 5 · 3 · (10 + 3) + 10 = 205 steps, 1001 neurons."""

    bits: int = 1000
    """Bits per pattern, each -1 or 1."""
    patterns: int = 5
    """Patterns per episode."""
    shown: int = 10
    """Steps per presentation of a pattern."""
    gap: int = 3
    """Steps without input after each presentation."""
    cycles: int = 3
    """Presentations of the whole set, each in a new random order."""
    test: int = 10
    """Steps of the degraded pattern at the end; the last one is scored."""
    hidden: float = 0.5
    """Share of missing bits in the degraded pattern."""
    input: Literal["clamped", "additive"] = "clamped"
    """clamped: a bit replaces the output of its neuron; additive: it is added inside the nonlinearity."""
    gain: float = 20.0
    """Factor of an additive input."""
    balanced: bool = False
    """Exactly half of the bits of every pattern are 1."""
    extra: int = 0
    """Additional neurons without input, for the baselines."""

    def __post_init__(self) -> None:
        for name in ("bits", "patterns", "shown", "cycles", "test"):
            if getattr(self, name) < 1:
                raise ValueError(f"task.{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("gap", "extra"):
            if getattr(self, name) < 0:
                raise ValueError(f"task.{name} must not be negative; got {getattr(self, name)}.")
        if not 0 < self.hidden < 1 or not 1 <= round(self.hidden * self.bits) < self.bits:
            raise ValueError(
                f"task.hidden must hide at least one of the {self.bits} bits and leave one; got {self.hidden}."
            )
        if self.balanced and self.bits % 2:
            raise ValueError(f"task.balanced needs an even number of bits; got task.bits {self.bits}.")
        if not self.gain > 0:
            raise ValueError(f"task.gain must be above 0; got {self.gain}.")

    @property
    def steps(self) -> int:
        """T."""
        return self.cycles * self.patterns * (self.shown + self.gap) + self.test

    @property
    def neurons(self) -> int:
        """N: bits, extra neurons, bias."""
        return self.bits + self.extra + 1

    @property
    def hidden_bits(self) -> int:
        """Missing bits of the degraded pattern."""
        return round(self.hidden * self.bits)

    @property
    def chance(self) -> float:
        """Expected share of wrong bits of a network that copies the visible bits and guesses the missing ones."""
        return 0.5 * self.hidden_bits / self.bits

    def clamped_steps(self) -> tuple[bool, ...]:
        """The steps that clamp every neuron: those that show a whole pattern, if there are no extra neurons."""
        whole = self.input == "clamped" and self.extra == 0
        shows = (*[whole] * self.shown, *[False] * self.gap) * (self.patterns * self.cycles)
        return (*shows, *[False] * self.test)

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All random numbers of a batch, on the generator's device.

        The ones of every pattern, bool `[B, P, bits]`; the pattern of each presentation `[B, shows]`; the pattern of
        the test `[B]`; and the bits that it keeps, bool `[B, bits]`.
        """

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=generator.device)

        def integers(below: int, *shape: int) -> Tensor:
            return torch.randint(below, shape, generator=generator, device=generator.device)

        B, P, bits = batch, self.patterns, self.bits
        ones = uniform(B, P, bits).argsort(-1) < bits // 2 if self.balanced else integers(2, B, P, bits).bool()
        order = uniform(B, self.cycles, P).argsort(-1).flatten(1)
        which = integers(P, B)
        kept = uniform(B, bits).argsort(-1) >= self.hidden_bits  # exactly that many bits are hidden
        return ones, order, which, kept

    def episodes(
        self,
        batch: int,
        generator: torch.Generator,
        device: torch.device | str | None = None,
        rows: slice = slice(None),
    ) -> Episode:
        """A batch of episodes; see `Task.episodes`."""
        device = chosen_device(device, generator)
        ones, order, which, kept = (to_device(part[rows], device) for part in self.sample(batch, generator))
        T, B, N, P, bits = self.steps, len(which), self.neurons, self.patterns, self.bits
        patterns, index = ones.float() * 2 - 1, torch.arange(B, device=device)
        target = patterns[index, which]

        shows = patterns[index.unsqueeze(1), order].transpose(0, 1)  # [shows, B, bits]
        inputs = torch.zeros(T, B, N, device=device)
        present = torch.zeros(T, B, N, dtype=torch.bool, device=device)
        learn = self.cycles * P * (self.shown + self.gap)
        inputs[:learn].unflatten(0, (-1, self.shown + self.gap))[:, : self.shown, :, :bits] = shows.unsqueeze(1)
        present[:learn].unflatten(0, (-1, self.shown + self.gap))[:, : self.shown, :, :bits] = True
        inputs[learn:, :, :bits] = target * kept
        present[learn:, :, :bits] = kept
        inputs[..., -1] = 1
        present[..., -1] = True
        info = {"patterns": patterns, "cue": target * kept, "which": which}
        if self.input == "additive":
            return Episode(inputs.mul_(self.gain), None, self.clamped_steps(), target, info)
        return Episode(inputs, present, self.clamped_steps(), target, info)


def wrong_bits(answer: Tensor, target: Tensor) -> Tensor:
    """Share of bits of the wrong sign, `[B, bits]` -> `[B]`; an answer of exactly 0 is wrong."""
    return (answer * target <= 0).float().mean(-1)
