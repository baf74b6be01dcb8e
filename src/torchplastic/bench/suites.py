"""What is measured: the recurrent experiments' own sizes, and how cost grows with each size.

Axes: T time, B batch, N neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from torchplastic import PlasticRNN
from torchplastic.bench.maze import CASES
from torchplastic.bench.omniglot import OmniglotCase
from torchplastic.data.pictures import stand_in
from torchplastic.experiments import registry
from torchplastic.experiments.images import ImagesConfig
from torchplastic.experiments.recall import RecallConfig
from torchplastic.tasks.base import Episode, RecallTask
from torchplastic.tasks.images import ImageEpisodes, unclamped
from torchplastic.tasks.patterns import Patterns

IMPLS = ("reference", "chunked")


@dataclass(frozen=True)
class Case:
    """One network on one task."""

    suite: str
    name: str
    label: str
    task: RecallTask
    batch: int = 1
    learn_eta: bool = False
    part: Callable[[Episode], Episode] = lambda episode: episode
    """Which part of the episode the network runs through."""
    counted: str = "episodes"

    def count(self) -> int:
        """Episodes of a step."""
        return self.batch

    def sizes(self) -> dict[str, int]:
        """N, T and B of what is run."""
        episode = self.part(self.task.episodes(1, torch.Generator().manual_seed(0)))
        return {"N": self.task.neurons, "T": len(episode.clamped_steps), "B": self.batch}

    def steps(self, device: torch.device) -> tuple[dict[str, Callable[[], None]], list[Tensor]]:
        """The training step of each form — forward, backward, Adam — and the tensors that stay between steps."""
        generator = torch.Generator().manual_seed(0)
        episode = self.part(self.task.episodes(self.batch, generator)).to(device)
        steps: dict[str, Callable[[], None]] = {}
        held = [episode.inputs, episode.target, *([] if episode.clamp is None else [episode.clamp])]
        for impl in IMPLS:
            rnn = PlasticRNN(None, self.task.neurons, learn_eta=self.learn_eta, impl=impl, device=device)
            optimizer = torch.optim.Adam(rnn.parameters(), lr=1e-4, fused=True)

            def step(rnn: PlasticRNN = rnn, optimizer: torch.optim.Adam = optimizer) -> None:
                optimizer.zero_grad()
                y, _ = rnn(episode.inputs, clamp=episode.clamp, clamped_steps=episode.clamped_steps)
                (y[-1, :, : episode.target.shape[1]] - episode.target).square().sum().div(self.batch).backward()
                optimizer.step()

            step()  # makes the optimiser's state, which stays
            optimizer.zero_grad()
            steps[impl] = step
            held += [*rnn.parameters(), *rnn.buffers()]
            held += [value for state in optimizer.state.values() for value in state.values()]
        return steps, held


def _patterns() -> list[Case]:
    def case(form: str) -> Case:
        config = registry.settings("patterns", form)
        assert isinstance(config, RecallConfig)
        task = config.task
        label = f"{task.neurons} neurons, {task.steps} steps, {task.input}"
        return Case("patterns", form, label, task, learn_eta=config.model.learn_eta)

    return [case("paper"), case("additive")]


def _images() -> list[Case]:
    """The paper's episode on pictures that need no download, and what is left of it without its clamped steps."""
    config = registry.settings("images", "paper")
    assert isinstance(config, ImagesConfig)
    task = ImageEpisodes(config.task, stand_in(config.task.side).train)
    free = sum(not clamped for clamped in config.task.clamped_steps())

    def case(name: str, steps: str, part: Callable[[Episode], Episode] = lambda episode: episode) -> Case:
        label = f"{task.neurons} neurons, {steps}"
        return Case("images", name, label, task, learn_eta=config.model.learn_eta, part=part)

    return [
        case("paper", f"{task.steps} steps, {free} of them free"),
        case("free steps", f"its {free} free steps alone", unclamped),
    ]


def _scaling(what: str) -> list[Case]:
    """One size grows, the others stay; additive input, so that every step is a free one."""
    base = Patterns(bits=255, patterns=2, shown=6, gap=4, cycles=2, test=10, input="additive")  # 256 neurons, 50 steps
    cases = []
    for size in {"N": (64, 128, 256, 512, 1024), "T": (25, 50, 100, 200, 400), "B": (1, 2, 4, 8, 16)}[what]:
        task, batch = base, 1
        if what == "N":
            task = replace(base, bits=size - 1)
        elif what == "T":
            task = replace(base, patterns=1, cycles=1, shown=size - 14, gap=4, test=10)
        else:
            batch = size
        label = f"{task.neurons} neurons, {task.steps} steps, batch {batch}"
        cases.append(Case(f"scaling {what}", str(size), label, task, batch, learn_eta=True))
    return cases


class Measured(Protocol):
    """What `run_bench` asks of a case."""

    @property
    def suite(self) -> str:
        """Its heading."""

    @property
    def name(self) -> str:
        """Its name within the suite."""

    @property
    def label(self) -> str:
        """What it is, in words."""

    @property
    def counted(self) -> str:
        """What `count` counts: episodes, moves."""

    def count(self) -> int:
        """How many a step makes."""

    def sizes(self) -> dict[str, int]:
        """N, T and B."""

    def steps(self, device: torch.device) -> tuple[dict[str, Callable[[], None]], list[Tensor]]:
        """What is timed, by form, the reference first; and the tensors that stay between steps."""


SUITES: dict[str, Callable[[], Sequence[Measured]]] = {
    "patterns": _patterns,
    "images": _images,
    "omniglot": lambda: [OmniglotCase()],
    "maze": lambda: CASES,
    "scaling-n": lambda: _scaling("N"),
    "scaling-t": lambda: _scaling("T"),
    "scaling-b": lambda: _scaling("B"),
}
