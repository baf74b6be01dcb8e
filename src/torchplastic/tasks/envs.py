"""Batched environments: the maze as tensors, and any Gymnasium environment with discrete actions.

Both follow the protocol `BatchedEnv`. Axes: B episodes, F observed numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchplastic.tasks.base import chosen_device, to_device
from torchplastic.tasks.maze import ACTIONS, Maze, MazeState


@dataclass(frozen=True)
class BatchedMaze:
    """B mazes as tensors, on any device."""

    maze: Maze

    @property
    def obs_dim(self) -> int:
        """F."""
        return self.maze.obs_dim

    @property
    def actions(self) -> int:
        """Four moves."""
        return len(ACTIONS)

    @property
    def steps(self) -> int:
        """T, the same for every episode."""
        return self.maze.steps

    def reset(
        self, batch: int, generator: torch.Generator, device: torch.device | None = None
    ) -> tuple[MazeState, Tensor]:
        """New mazes -> state, observations `[B, F]`, on the device (None: the generator's)."""
        state = self.maze.reset(batch, generator, device=device)
        return state, self.maze.observe(state)

    def step(self, state: MazeState, action: Tensor) -> tuple[MazeState, Tensor, Tensor, Tensor]:
        """Actions `[B]` -> state, observations `[B, F]`, rewards `[B]`, done bool `[B]`."""
        state = self.maze.step(state, action)
        done = torch.full_like(action, state.step >= self.maze.steps, dtype=torch.bool)
        return state, self.maze.observe(state), state.reward, done


@dataclass
class BatchedGym:
    """Gymnasium environments made by `make`, one for each episode of a batch.

    Observations of any flattenable space become float32. An episode ends when it terminates or is truncated. The
    environments run on the CPU, so each step waits for the agent's actions. ValueError if actions are not discrete.
    """

    make: Callable[[], Any]
    environments: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        from gymnasium import spaces

        self.environments.append(self.make())
        action_space = self.environments[0].action_space
        if not isinstance(action_space, spaces.Discrete):
            raise ValueError(f"the actions of {self.environments[0]} are {action_space}; they must be discrete.")
        self._actions, self._first = int(action_space.n), int(action_space.start)
        self._space = self.environments[0].observation_space
        self._obs_dim = int(spaces.flatdim(self._space))

    @property
    def obs_dim(self) -> int:
        """F."""
        return self._obs_dim

    @property
    def actions(self) -> int:
        """A."""
        return self._actions

    @property
    def steps(self) -> None:
        """None: episodes differ in length."""

    def reset(
        self, batch: int, generator: torch.Generator, device: torch.device | None = None
    ) -> tuple[Tensor, Tensor]:
        """Reset B environments with seeds from the generator -> done bool `[B]`, observations `[B, F]`."""
        self.environments += [self.make() for _ in range(batch - len(self.environments))]
        seeds = torch.randint(2**31, (batch,), generator=generator, device=generator.device).tolist()
        obs = [self._flat(env.reset(seed=seed)[0]) for env, seed in zip(self.environments, seeds, strict=False)]
        observations = to_device(torch.from_numpy(np.stack(obs)), chosen_device(device, generator))
        return torch.zeros(batch, dtype=torch.bool), observations

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Actions `[B]` -> done bool `[B]` on the CPU, observations `[B, F]`, rewards `[B]`, done bool `[B]`."""
        done, obs, rewards = (
            state.clone(),
            np.zeros((len(action), self._obs_dim), np.float32),
            torch.zeros(len(action)),
        )
        for row, chosen in enumerate(action.tolist()):
            if done[row]:
                continue
            observation, reward, terminated, truncated, _ = self.environments[row].step(self._first + chosen)
            obs[row], rewards[row], done[row] = self._flat(observation), float(reward), terminated or truncated
        device = action.device
        return done, to_device(torch.from_numpy(obs), device), to_device(rewards, device), to_device(done, device)

    def close(self) -> None:
        """Close all environments."""
        for env in self.environments:
            env.close()

    def _flat(self, observation: Any) -> np.ndarray:
        from gymnasium import spaces

        return np.asarray(spaces.flatten(self._space, observation), np.float32)
