"""The maze: an update of the agent, with and without the graph of its rollout, and how fast mazes step.

Axes: T steps, B mazes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchplastic.bench.measure import tensors_of
from torchplastic.experiments import catalog
from torchplastic.experiments.maze import MazeConfig, agent
from torchplastic.tasks.base import BatchedEnv
from torchplastic.tasks.envs import BatchedGym, BatchedMaze
from torchplastic.tasks.maze import ACTIONS, Maze
from torchplastic.train.a2c import A2C, ActorCritic, Rollout, rollout, sample_action

MOST_SINGLE = 30


def update(actor: ActorCritic, env: BatchedEnv, how: A2C, batch: int, generator: torch.Generator) -> Tensor:
    """The loss of new episodes: a rollout without gradient, then one pass over its observations."""
    played = rollout(actor, env, batch, generator)
    logits, values, _ = actor(played.observations)
    return how.loss(logits, values, played).mean()


def update_with_graph(actor: ActorCritic, env: BatchedEnv, how: A2C, batch: int, generator: torch.Generator) -> Tensor:
    """The same loss, through the graph of the rollout."""
    state, obs = env.reset(batch, generator)
    done = torch.zeros(batch, dtype=torch.bool, device=obs.device)
    memory: Any = None
    steps: list[tuple[Tensor, ...]] = []
    while not done.all():
        (logits,), (values,), memory = actor(obs.unsqueeze(0), memory)
        action = sample_action(logits.detach(), generator)
        state, next_obs, reward, ended = env.step(state, action)
        steps.append((logits, values, obs, action, reward, ~done))
        obs, done = next_obs, done | ended
    logits, values, *played = (torch.stack(parts) for parts in zip(*steps, strict=True))
    return how.loss(logits, values, Rollout(*played)).mean()


@dataclass(frozen=True)
class MazeCase:
    """An update of the paper's agent: rollout, forward, backward, Adam.

    reference: the plain loop, which keeps its graph while the agent acts. two passes: as in `plastic train maze`.
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
        """The preset `paper`, with episodes of `steps_of_episode` steps."""
        config = catalog.settings("maze", "paper")
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

    def floor_bytes(self, impl: str, device: torch.device) -> int | None:
        """Not counted."""
        return None

    def steps(self, device: torch.device) -> tuple[dict[str, Callable[[], None]], list[Tensor]]:
        """The steps by implementation, and the tensors that persist."""
        steps: dict[str, Callable[[], None]] = {}
        persistent: list[Tensor] = []
        base = self.config
        plain = replace(base, model=replace(base.model, impl="reference"))
        for impl, config, loss_of in (("reference", plain, update_with_graph), ("two passes", base, update)):
            actor, env = agent(config).to(device), BatchedMaze(config.task)
            optimizer = torch.optim.Adam(actor.parameters(), lr=1e-4, fused=True)
            generator = torch.Generator(device).manual_seed(0)

            def step(
                actor: ActorCritic = actor,
                env: BatchedMaze = env,
                how: A2C = config.a2c,
                optimizer: torch.optim.Adam = optimizer,
                generator: torch.Generator = generator,
                loss_of: Callable[..., Tensor] = loss_of,
            ) -> None:
                optimizer.zero_grad()
                loss_of(actor, env, how, self.batch, generator).backward()
                optimizer.step()

            step()
            optimizer.zero_grad()
            steps[impl] = step
            persistent += tensors_of(actor, optimizer)
        return steps, persistent


@dataclass(frozen=True)
class EpisodesCase:
    """Complete episodes of mazes with random moves, including their observations.

    reference: at most 30 single Gymnasium environments, one after the other, on the CPU. batched: tensors.
    """

    batch: int
    suite: str = "maze"
    counted: str = "moves"

    def count(self) -> int:
        """Moves of all mazes."""
        return Maze().steps * self.batch

    @property
    def name(self) -> str:
        """The number of mazes."""
        return f"{self.batch} mazes"

    @property
    def label(self) -> str:
        """In words."""
        return f"{self.batch} mazes without an agent, {Maze().steps} moves, {Maze().obs_dim} numbers observed"

    def sizes(self) -> dict[str, int]:
        """N numbers observed, T moves, B mazes."""
        return {"N": Maze().obs_dim, "T": Maze().steps, "B": self.batch}

    def floor_bytes(self, impl: str, device: torch.device) -> int | None:
        """Not counted."""
        return None

    def steps(self, device: torch.device) -> tuple[dict[str, Callable[[], None]], list[Tensor]]:
        """The steps by implementation, and the tensors that persist."""
        from torchplastic.tasks.maze_env import MazeEnv

        singles = BatchedGym(MazeEnv)
        envs: dict[str, tuple[BatchedEnv, torch.device]] = {"batched": (BatchedMaze(Maze()), device)}
        if self.batch <= MOST_SINGLE:
            envs = {"reference": (singles, torch.device("cpu")), **envs}
        steps: dict[str, Callable[[], None]] = {}
        persistent: list[Tensor] = []
        for impl, (env, where) in envs.items():
            generator = torch.Generator(where).manual_seed(0)
            shape = Maze().steps, self.batch
            moves = torch.randint(len(ACTIONS), shape, generator=generator, device=where).unbind()

            def step(
                env: BatchedEnv = env, generator: torch.Generator = generator, moves: tuple[Tensor, ...] = moves
            ) -> None:
                state, _ = env.reset(self.batch, generator)
                for move in moves:
                    state, *_ = env.step(state, move)

            steps[impl] = step
            persistent += moves
        return steps, persistent


CASES = (MazeCase(), EpisodesCase(30), EpisodesCase(300), EpisodesCase(3000))
