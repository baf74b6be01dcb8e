"""Memorise bit patterns shown once or a few times, complete one of them from a part (Miconi et al. 2018).

Axes: T time, B batch, P patterns, N neurons (bits, then extra, then the bias in the last column).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from torchplastic.tasks.base import Episode, chosen_device, sent


@dataclass(frozen=True)
class Patterns:
    """The task; the defaults are the paper's 1000-bit memory: T = 5 · 3 · (10 + 3) + 10 = 205 steps, 1001 neurons."""

    bits: int = 1000
    """Bits of a pattern, each -1 or 1."""
    patterns: int = 5
    """Patterns of an episode."""
    shown: int = 10
    """Steps for which a pattern is shown."""
    gap: int = 3
    """Steps without input after each."""
    cycles: int = 3
    """How often the whole set is shown, reshuffled each time."""
    test: int = 10
    """Steps for which the degraded pattern is shown at the end; the last one is scored."""
    hidden: float = 0.5
    """Share of the bits that the degraded pattern lacks."""
    input: Literal["clamped", "additive"] = "clamped"
    """Clamped: what is shown replaces the output of its neuron. Additive: it is added inside the nonlinearity."""
    gain: float = 20.0
    """What an additive input is multiplied by."""
    balanced: bool = False
    """Whether exactly half of the bits of every pattern are 1."""
    extra: int = 0
    """Neurons without any input unit, for the baselines."""

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
        """Bits that the degraded pattern lacks."""
        return round(self.hidden * self.bits)

    @property
    def chance(self) -> float:
        """Expected share of wrong bits of a network that keeps what it is shown and guesses the rest."""
        return 0.5 * self.hidden_bits / self.bits

    def clamped_steps(self) -> tuple[bool, ...]:
        """Which steps are clamped for every neuron: those that show a whole pattern, without extra neurons."""
        whole = self.input == "clamped" and self.extra == 0
        shows = (*[whole] * self.shown, *[False] * self.gap) * (self.patterns * self.cycles)
        return (*shows, *[False] * self.test)

    def drawn(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is random, on the generator's device.

        The ones of every pattern, bool `[B, P, bits]`; the pattern of each show `[B, shows]`; which is asked `[B]`; and
        which bits the degraded one keeps, bool `[B, bits]`.
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
        """A batch of episodes from the generator, these rows of them, on the device (None: the generator's)."""
        device = chosen_device(device, generator)
        ones, order, which, kept = (sent(part[rows], device) for part in self.drawn(batch, generator))
        T, B, N, P, bits = self.steps, len(which), self.neurons, self.patterns, self.bits
        patterns, places = ones.float() * 2 - 1, torch.arange(B, device=device)
        target = patterns[places, which]

        shows = patterns[places.unsqueeze(1), order].transpose(0, 1)  # [shows, B, bits]
        inputs = torch.zeros(T, B, N, device=device)
        present = torch.zeros(T, B, N, dtype=torch.bool, device=device)
        learn = self.cycles * P * (self.shown + self.gap)
        inputs[:learn].unflatten(0, (-1, self.shown + self.gap))[:, : self.shown, :, :bits] = shows.unsqueeze(1)
        present[:learn].unflatten(0, (-1, self.shown + self.gap))[:, : self.shown, :, :bits] = True
        inputs[learn:, :, :bits] = target * kept
        present[learn:, :, :bits] = kept
        inputs[..., -1] = 1
        present[..., -1] = True
        shown = {"patterns": patterns, "cue": target * kept, "which": which}
        if self.input == "additive":
            return Episode(inputs.mul_(self.gain), None, self.clamped_steps(), target, shown)
        return Episode(inputs, present, self.clamped_steps(), target, shown)


def wrong_bits(answer: Tensor, target: Tensor) -> Tensor:
    """Share of bits of the wrong sign, `[B, bits]` -> `[B]`; an answer of exactly 0 is wrong."""
    return (answer * target <= 0).float().mean(-1)
