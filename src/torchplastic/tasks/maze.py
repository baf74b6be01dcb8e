"""A maze with a hidden reward: find it, then return to it again and again (Miconi et al. 2018, section 4.5).

The cells form a square with a wall around it and a pillar wherever row and column are both even. One free cell holds a
reward that is invisible and fixed for the episode. An agent that reaches it collects it and moves to a random free
cell. All functions are pure functions of tensors, batched over mazes, on any device.

Importing this module registers the Gymnasium environment `torchplastic/Maze-v0`, where gymnasium is installed.

Axes: B mazes, T steps of an episode, S cells a side, F numbers observed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchplastic.tasks.base import chosen_device, to_device

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right
ACTIONS = ("up", "down", "left", "right")
WALL, FLOOR, GOAL, AGENT = (60, 60, 60), (245, 245, 245), (0, 158, 115), (213, 94, 0)  # colours of pictures


class MazeState(NamedTuple):
    """The state of B mazes. Cells are numbers, row x S + column.

    place, goal, start: int64 `[B]`, the cell of the agent, of the reward, and the agent's first cell.
    landings: int64 `[B, T]`, the cell to which an agent moves that finds the reward at that step.
    action: int64 `[B]`, the previous move, -1 at the start; reward: float32 `[B]`, its reward.
    step: steps so far, the same in all mazes.
    """

    place: Tensor
    goal: Tensor
    start: Tensor
    landings: Tensor
    action: Tensor
    reward: Tensor
    step: int

    def rows(self, rows: slice) -> MazeState:
        """Some of the mazes."""
        return _state((part[rows] for part in self.tensors()), self.step)

    @staticmethod
    def join(states: list[MazeState]) -> MazeState:
        """Several mazes side by side, all at the same step."""
        return _state(map(torch.cat, zip(*(state.tensors() for state in states), strict=True)), states[0].step)

    def tensors(self) -> tuple[Tensor, ...]:
        """All but the step."""
        return self.place, self.goal, self.start, self.landings, self.action, self.reward


def _state(parts: Iterable[Tensor], step: int) -> MazeState:
    place, goal, start, landings, action, reward = parts
    return MazeState(place, goal, start, landings, action, reward, step)


@dataclass(frozen=True)
class Maze:
    """The maze; by default the published one, with three more observations (see-action, see-time, see-bias)."""

    size: int = 11
    """Cells per side, including the outer wall; odd."""
    steps: int = 250
    """Steps per episode."""
    reward: float = 10.0
    """Reward for reaching the goal cell."""
    bump: float = 0.1
    """Cost of walking into a wall."""
    view: int = 1
    """View radius in cells: 1 shows the 3 x 3 cells around the agent."""
    see_action: bool = True
    """Observe the previous move."""
    see_time: bool = True
    """Observe the elapsed share of the episode."""
    see_bias: bool = True
    """Observe a constant 1."""

    def __post_init__(self) -> None:
        if self.size < 5 or self.size % 2 == 0:
            raise ValueError(f"task.size must be odd and at least 5; got {self.size}.")
        for name in ("steps", "view"):
            if getattr(self, name) < 1:
                raise ValueError(f"task.{name} must be at least 1; got {getattr(self, name)}.")
        if self.bump < 0:
            raise ValueError(f"task.bump must be at least 0, it is a cost; got {self.bump:g}.")

    @property
    def centre(self) -> int:
        """The cell in the middle, where agents start."""
        return self.size // 2 * (self.size + 1)

    @property
    def obs_dim(self) -> int:
        """F."""
        window = (2 * self.view + 1) ** 2
        return window + 1 + len(MOVES) * self.see_action + self.see_time + self.see_bias

    def slots(self) -> tuple[str, ...]:
        """F names, one for each number of an observation."""
        reach = range(-self.view, self.view + 1)
        names = [f"wall at {row:+d}, {column:+d}" for row in reach for column in reach]
        names += ["reward of the move before"]
        names += [f"the move before was {name}" for name in ACTIONS] if self.see_action else []
        names += ["share of the episode that is over"] if self.see_time else []
        return (*names, *(["one"] if self.see_bias else []))

    def walls(self, device: torch.device | str = "cpu") -> Tensor:
        """bool `[S, S]`."""
        return _walls(self.size).to(device)

    def free(self, device: torch.device | str = "cpu") -> Tensor:
        """The cells without wall, int64."""
        return self.walls(device).flatten().logical_not().nonzero().flatten()

    def plan(self, goal: int) -> np.ndarray:
        """The maze without the agent, one pixel per cell, uint8 `[S, S, 3]`."""
        pixels = np.where(self.walls().numpy()[..., None], WALL, FLOOR).astype(np.uint8)
        pixels[divmod(goal, self.size)] = GOAL
        return pixels

    def reset(
        self,
        batch: int,
        generator: torch.Generator,
        start: int | None = None,
        goal: int | None = None,
        device: torch.device | str | None = None,
    ) -> MazeState:
        """B new episodes. Agents start at the centre, rewards lie on any other free cell.

        start, goal: use these cells instead. device: of the mazes (None: the generator's); random numbers are drawn on
        the generator's device. ValueError if start or goal is a wall, or if they are equal.
        """
        device = chosen_device(device, generator)
        for name, cell in (("start", start), ("goal", goal)):
            if cell is not None and (not 0 <= cell < self.size**2 or bool(self.walls().flatten()[cell])):
                raise ValueError(f"{name} must be a free cell of the maze; got {divmod(cell, self.size)}.")
        start = self.centre if start is None else start
        if start == goal:
            raise ValueError(f"start and goal must differ; both are {divmod(start, self.size)}.")
        free, starts = self.free(generator.device), torch.full((batch,), start, device=generator.device)
        drawn = _other_cells(free, starts, (batch,), generator)
        goals = drawn if goal is None else torch.full_like(starts, goal)
        landings = _other_cells(free, goals.unsqueeze(-1), (batch, self.steps), generator)
        starts, goals, landings = (to_device(cells, device) for cells in (starts, goals, landings))
        reward = torch.zeros(batch, dtype=torch.float32, device=device)
        return MazeState(starts, goals, starts, landings, torch.full_like(starts, -1), reward, 0)

    def step(self, state: MazeState, action: Tensor) -> MazeState:
        """One step of every maze: actions int64 `[B]` in the order of `ACTIONS`."""
        reached = _reached(self.size, action.device)[state.place, action]
        bumped, found = reached == state.place, reached == state.goal
        reward = (self.reward * found - self.bump * bumped).float()
        place = torch.where(found, state.landings[:, state.step], reached)
        return MazeState(place, state.goal, state.start, state.landings, action, reward, state.step + 1)

    def observe(self, state: MazeState) -> Tensor:
        """The observations, float32 `[B, F]`; `slots` names their numbers."""
        device = state.place.device
        parts = [_windows(self.size, self.view, device)[state.place], state.reward.unsqueeze(-1)]
        if self.see_action:
            parts.append(_choices(device)[state.action])
        if self.see_time:
            parts.append(state.reward.new_full((len(state.reward), 1), state.step / self.steps))
        if self.see_bias:
            parts.append(state.reward.new_ones(len(state.reward), 1))
        return torch.cat(parts, -1)

    def distances(self) -> Tensor:
        """Fewest moves between any two cells, int64 `[S S, S S]`; -1 from and to walls."""
        return _distances(self.size)

    def known_goal(self, state: MazeState) -> Tensor:
        """A shortest-path move to the goal, the first of `ACTIONS` if several are, int64 `[B]`."""
        distances = self.distances().to(state.place.device)
        reached = state.place.unsqueeze(-1) + _offsets(self.size).to(state.place.device)
        far = distances[reached, state.goal.unsqueeze(-1)]
        return far.masked_fill(far < 0, self.size**2).argmin(-1)


@lru_cache
def _walls(size: int) -> Tensor:
    index = torch.arange(size)
    edge = (index == 0) | (index == size - 1)
    even = index % 2 == 0
    walls = edge.unsqueeze(-1) | edge | (even.unsqueeze(-1) & even)
    walls[size // 2, size // 2] = False
    return walls


@lru_cache
def _offsets(size: int) -> Tensor:
    return torch.tensor([row * size + column for row, column in MOVES])


@lru_cache
def _reached(size: int, device: torch.device) -> Tensor:
    """The cell after each move, int64 `[S S, 4]`; a move into a wall stays in place."""
    cells = torch.arange(size * size).unsqueeze(-1)
    wanted = (cells + _offsets(size)).clamp(0, size * size - 1)
    return torch.where(_walls(size).flatten()[wanted], cells, wanted).to(device)


@lru_cache
def _choices(device: torch.device) -> Tensor:
    """One-hot moves, float32 `[5, 4]`; the last row, that of -1, is zero."""
    return torch.eye(len(MOVES) + 1, len(MOVES), dtype=torch.float32, device=device)


@lru_cache
def _windows(size: int, view: int, device: torch.device) -> Tensor:
    """Walls around each cell, float32 `[S S, (2 view + 1)^2]`; outside the maze everything is wall."""
    padded = torch.nn.functional.pad(_walls(size).float(), [view] * 4, value=1)
    span = 2 * view + 1
    return padded.unfold(0, span, 1).unfold(1, span, 1).reshape(size * size, span * span).to(device)


@lru_cache
def _distances(size: int) -> Tensor:
    free = ~_walls(size).flatten()
    offsets = _offsets(size)
    found = torch.full((size * size, size * size), -1)
    frontier = torch.eye(size * size, dtype=torch.bool) & free
    steps = 0
    while frontier.any():
        found[frontier] = steps
        reached = torch.zeros_like(frontier)
        for offset in offsets.tolist():
            reached |= frontier.roll(offset, 1)
        frontier = reached & free & (found < 0)
        steps += 1
    return found


def _other_cells(free: Tensor, taken: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random free cells other than the taken one."""
    drawn = torch.randint(len(free) - 1, shape, generator=generator, device=generator.device)
    place = torch.searchsorted(free, taken)
    return free[drawn + (drawn >= place)]


if find_spec("gymnasium"):
    import gymnasium

    gymnasium.register(
        "torchplastic/Maze-v0",
        entry_point="torchplastic.tasks.maze_env:MazeEnv",
        vector_entry_point="torchplastic.tasks.maze_env:MazeVectorEnv",
    )
