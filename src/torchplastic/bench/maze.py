"""The maze: an update of the agent against one that keeps the graph of the rollout, and how fast mazes step.

Axes: T steps, B mazes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchplastic.bench.measure import tensors_of
from torchplastic.experiments import registry
from torchplastic.experiments.maze import MazeConfig, agent
from torchplastic.tasks.maze import ACTIONS, Maze
from torchplastic.tasks.worlds import GymWorld, MazeWorld
from torchplastic.train.a2c import A2C, ActorCritic, Rollout, World, choose, rollout

MOST_SINGLE = 30


def update(actor: ActorCritic, world: World, how: A2C, batch: int, generator: torch.Generator) -> Tensor:
    """The loss of new episodes: a rollout without gradient, then one pass over what was observed."""
    taken = rollout(actor, world, batch, generator)
    logits, values, _ = actor(taken.observed)
    return how.loss(logits, values, taken).mean()


def update_with_graph(actor: ActorCritic, world: World, how: A2C, batch: int, generator: torch.Generator) -> Tensor:
    """The same loss, from the graph of the steps that acted."""
    state, seen = world.begin(batch, generator)
    over = torch.zeros(batch, dtype=torch.bool, device=seen.device)
    memory: Any = None
    steps: list[tuple[Tensor, ...]] = []
    while not over.all():
        (logits,), (values,), memory = actor(seen.unsqueeze(0), memory)
        action = choose(logits.detach(), generator)
        state, seen_next, reward, ended = world.move(state, action)
        steps.append((logits, values, seen, action, reward, ~over))
        seen, over = seen_next, over | ended
    logits, values, *taken = (torch.stack(parts) for parts in zip(*steps, strict=True))
    return how.loss(logits, values, Rollout(*taken)).mean()


@dataclass(frozen=True)
class MazeCase:
    """An update of the paper's agent: rollout, forward, backward, Adam.

    reference: the plain loop, whose graph is kept while the agent acts. two passes: as `plastic train maze` does it.
    """

    batch: int = 30
    steps_of_episode: int = 200
    suite: str = "maze"
    name: str = "update"
    counted: str = "episodes"

    def count(self) -> int:
        """Episodes of an update."""
        return self.batch

    @property
    def config(self) -> MazeConfig:
        """The paper form with episodes of that length."""
        config = registry.settings("maze", "paper")
        assert isinstance(config, MazeConfig)
        return replace(config, task=replace(config.task, steps=self.steps_of_episode))

    @property
    def label(self) -> str:
        """In words."""
        neurons = self.config.model.neurons
        return f"an update, {self.batch} mazes, {neurons} neurons, {self.steps_of_episode} steps"

    def sizes(self) -> dict[str, int]:
        """N neurons, T steps, B mazes."""
        return {"N": self.config.model.neurons, "T": self.steps_of_episode, "B": self.batch}

    def floor_bytes(self, form: str, device: torch.device) -> int | None:
        """Not counted."""
        return None

    def steps(self, device: torch.device) -> tuple[dict[str, Callable[[], None]], list[Tensor]]:
        """The steps by form and the tensors that stay."""
        steps: dict[str, Callable[[], None]] = {}
        held: list[Tensor] = []
        base = self.config
        plain = replace(base, model=replace(base.model, impl="reference"))
        for form, config, loss_of in (("reference", plain, update_with_graph), ("two passes", base, update)):
            actor, world = agent(config).to(device), MazeWorld(config.task)
            optimizer = torch.optim.Adam(actor.parameters(), lr=1e-4, fused=True)
            generator = torch.Generator(device).manual_seed(0)

            def step(
                actor: ActorCritic = actor,
                world: MazeWorld = world,
                how: A2C = config.a2c,
                optimizer: torch.optim.Adam = optimizer,
                generator: torch.Generator = generator,
                loss_of: Callable[..., Tensor] = loss_of,
            ) -> None:
                optimizer.zero_grad()
                loss_of(actor, world, how, self.batch, generator).backward()
                optimizer.step()

            step()
            optimizer.zero_grad()
            steps[form] = step
            held += tensors_of(actor, optimizer)
        return steps, held


@dataclass(frozen=True)
class EpisodesCase:
    """Whole episodes of mazes with random moves, observations made.

    reference: Gymnasium environments, one after the other, on the CPU; up to 30 of them, more take as long each.
    batched: as tensors.
    """

    batch: int
    suite: str = "maze"
    counted: str = "moves"

    def count(self) -> int:
        """Moves of all mazes."""
        return Maze().steps * self.batch

    @property
    def name(self) -> str:
        """By their number."""
        return f"{self.batch} mazes"

    @property
    def label(self) -> str:
        """In words."""
        return f"{self.batch} mazes alone, {Maze().steps} moves, {Maze().observed} numbers observed"

    def sizes(self) -> dict[str, int]:
        """N numbers observed, T moves, B mazes."""
        return {"N": Maze().observed, "T": Maze().steps, "B": self.batch}

    def floor_bytes(self, form: str, device: torch.device) -> int | None:
        """Not counted."""
        return None

    def steps(self, device: torch.device) -> tuple[dict[str, Callable[[], None]], list[Tensor]]:
        """The steps by form."""
        from torchplastic.tasks.maze_env import MazeEnv

        singles = GymWorld(MazeEnv)
        worlds: dict[str, tuple[World, torch.device]] = {"batched": (MazeWorld(Maze()), device)}
        if self.batch <= MOST_SINGLE:
            worlds = {"reference": (singles, torch.device("cpu")), **worlds}
        steps: dict[str, Callable[[], None]] = {}
        held: list[Tensor] = []
        for form, (world, where) in worlds.items():
            generator = torch.Generator(where).manual_seed(0)
            shape = Maze().steps, self.batch
            moves = torch.randint(len(ACTIONS), shape, generator=generator, device=where).unbind()

            def step(
                world: World = world, generator: torch.Generator = generator, moves: tuple[Tensor, ...] = moves
            ) -> None:
                state, _ = world.begin(self.batch, generator)
                for move in moves:
                    state, *_ = world.move(state, move)

            steps[form] = step
            held += moves
        return steps, held


CASES = (MazeCase(), EpisodesCase(30), EpisodesCase(300), EpisodesCase(3000))
