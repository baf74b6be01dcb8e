"""The maze as Gymnasium environments: one maze, and many that step together.

Axes: B mazes, F numbers observed.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from torchplastic.tasks.maze import ACTIONS, AGENT, Maze, MazeState

Observation = NDArray[np.float32]
CELL = 16  # pixels


def _generator(random: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(random.integers(2**63)))


def _whole(value: Any, what: str) -> int:
    """A Python int, a number of NumPy, or a tensor of one, as an int. ValueError if it is none."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{what}; got {value!r}.") from None


def _observation_space(maze: Maze) -> spaces.Box:
    """Bounds of an observation: 0 to 1, except for the previous reward."""
    low, high = np.zeros(maze.obs_dim, np.float32), np.ones(maze.obs_dim, np.float32)
    place = maze.slots().index("reward of the move before")
    low[place], high[place] = min(0.0, maze.reward, -maze.bump), max(0.0, maze.reward)
    return spaces.Box(low, high, dtype=np.float32)


def _cells(maze: Maze, options: dict[str, Any] | None) -> dict[str, Any]:
    """The options start and goal, (row, column) each, as cell numbers. ValueError for any other option."""
    given = dict(options or {})
    found: dict[str, Any] = {}
    for name in ("start", "goal"):
        cell = given.pop(name, None)
        if cell is not None:
            row, column = cell
            if not (0 <= row < maze.size and 0 <= column < maze.size):
                raise ValueError(f"{name} must lie in the maze of {maze.size} × {maze.size}; got {tuple(cell)}.")
            found[name] = int(row) * maze.size + int(column)
    if given:
        raise ValueError(f"unknown option {next(iter(given))!r}; reset takes the options start and goal.")
    return found


def draw(maze: Maze, state: MazeState, row: int = 0, cell: int = CELL) -> NDArray[np.uint8]:
    """A picture of one maze, uint8 `[S cell, S cell, 3]`: the goal is green, the agent an orange square."""
    picture = maze.plan(int(state.goal[row])).repeat(cell, 0).repeat(cell, 1)
    top, left = (part * cell for part in divmod(int(state.place[row]), maze.size))
    edge = max(1, cell // 5)
    picture[top + edge : top + cell - edge, left + edge : left + cell - edge] = AGENT
    return picture


class MazeEnv(gymnasium.Env[Observation, np.int64]):
    """`gymnasium.make("torchplastic/Maze-v0", size=11, steps=250, …)`; options are the fields of `tasks.maze.Maze`.

    Observation: float32 `[F]`; `env.unwrapped.maze.slots()` names the numbers: for each cell in view, row by row, 1 for
    a wall and 0 for none; the previous reward; the previous move, one-hot (all 0 at the start); the elapsed share of
    the episode; 1. Actions: 0 up, 1 down, 2 left, 3 right. An episode never terminates; it is truncated after `steps`
    steps. `reset(seed=…, options={"start": (row, column), "goal": (row, column)})`. `info["goal"]` is the reward's
    cell, which the agent does not observe. render_mode: `ansi` (text) or `rgb_array`; neither needs a display.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            modes = ", ".join(self.metadata["render_modes"])
            raise ValueError(f"render_mode must be one of {modes}, or None; got {render_mode!r}.")
        self.render_mode = render_mode
        self.maze = _maze(options)
        self.observation_space = _observation_space(self.maze)  # type: ignore[assignment]
        self.action_space = spaces.Discrete(len(ACTIONS))
        self._state: MazeState | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode -> observation, info."""
        super().reset(seed=None if seed is None else _whole(seed, "a seed is an int"))
        self._state = self.maze.reset(1, _generator(self.np_random), **_cells(self.maze, options))
        return self._observation(), self._info()

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move -> observation, reward, terminated (never), truncated, info. ValueError for another action."""
        move = _whole(action, "an action is 0, 1, 2 or 3")
        if not 0 <= move < len(ACTIONS):
            raise ValueError(f"an action is 0, 1, 2 or 3; got {move}.")
        state = self.state
        if state.step >= self.maze.steps:
            raise RuntimeError(f"the episode is over after {self.maze.steps} steps; call reset.")
        self._state = self.maze.step(state, torch.tensor([move]))
        done = self._state.step >= self.maze.steps
        return self._observation(), float(self._state.reward[0]), False, done, self._info()

    @property
    def state(self) -> MazeState:
        """The state of the maze. RuntimeError before the first reset."""
        if self._state is None:
            raise RuntimeError("call reset first.")
        return self._state

    def render(self) -> str | NDArray[np.uint8] | None:
        """The maze as text (# wall, . floor, G reward, A agent) or as a picture, by render_mode."""
        if self.render_mode == "rgb_array":
            return draw(self.maze, self.state)
        if self.render_mode != "ansi":
            return None
        size = self.maze.size
        characters = np.where(self.maze.walls().numpy(), "#", ".")
        characters[divmod(int(self.state.goal[0]), size)] = "G"
        characters[divmod(int(self.state.place[0]), size)] = "A"
        return "\n".join("".join(row) for row in characters) + "\n"

    def _observation(self) -> Observation:
        return self.maze.observe(self.state)[0].numpy()

    def _info(self) -> dict[str, Any]:
        place, goal = (divmod(int(cell[0]), self.maze.size) for cell in (self.state.place, self.state.goal))
        return {"place": place, "goal": goal}


class MazeVectorEnv(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """`gymnasium.make_vec("torchplastic/Maze-v0", num_envs=30)`: a vector of mazes, computed as tensors.

    All episodes have the same length and end together. Autoreset mode: next step; the step after the last one of an
    episode starts new episodes, ignores the actions and returns zero rewards.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10, "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1, render_mode: str | None = None, **options: Any) -> None:
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.maze = _maze(options)
        self.single_observation_space = _observation_space(self.maze)
        self.single_action_space = spaces.Discrete(len(ACTIONS))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._state: MazeState | None = None
        self._each: list[np.random.Generator] | None = None
        """A source of random numbers for each maze, if each had a seed of its own"""

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin new episodes.

        seed: one for all mazes together; or one for each, as a sequence: each maze is then the one that MazeEnv makes
        of its seed. ValueError if there are more or fewer than mazes.
        """
        cells = _cells(self.maze, options)
        if isinstance(seed, Sequence | np.ndarray) and np.ndim(np.asarray(seed, object)) == 1:
            if len(seed) != self.num_envs:
                raise ValueError(f"a sequence of seeds has one for each of {self.num_envs} mazes; got {len(seed)}.")
            whole = [None if each is None else _whole(each, "a seed is an int") for each in seed]
            self._each = [gymnasium.utils.seeding.np_random(each)[0] for each in whole]
        elif seed is not None:
            super().reset(seed=_whole(seed, "a seed is an int, or a sequence with one for each maze"))
            self._each = None
        if self._each is None:
            self._state = self.maze.reset(self.num_envs, _generator(self.np_random), **cells)
        else:
            self._state = MazeState.join([self.maze.reset(1, _generator(random), **cells) for random in self._each])
        return self.maze.observe(self._state).numpy(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Move all -> observations, rewards, terminated, truncated, info."""
        if self._state is None:
            raise RuntimeError("call reset first.")
        actions = np.asarray(actions)
        if not (
            actions.shape == (self.num_envs,)
            and actions.dtype.kind in "iu"
            and ((actions >= 0) & (actions < len(ACTIONS))).all()
        ):
            raise ValueError(f"actions are {self.num_envs} numbers from 0 to 3; got {actions!r}.")
        never = np.zeros(self.num_envs, bool)
        if self._state.step >= self.maze.steps:
            observations, info = self.reset()
            return observations, np.zeros(self.num_envs, np.float32), never, never.copy(), info
        self._state = self.maze.step(self._state, torch.from_numpy(np.asarray(actions, np.int64)))
        done = np.full(self.num_envs, self._state.step >= self.maze.steps)
        return self.maze.observe(self._state).numpy(), self._state.reward.numpy(), never, done, {}

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """A picture of each maze."""
        if self.render_mode != "rgb_array" or self._state is None:
            return None
        return tuple(draw(self.maze, self._state, row) for row in range(self.num_envs))


def _maze(options: dict[str, Any]) -> Maze:
    known = [field.name for field in fields(Maze)]
    if unknown := [name for name in options if name not in known]:
        raise TypeError(f"a maze has no option {unknown[0]!r}; it has {', '.join(known)}, and render_mode.")
    return Maze(**options)
