"""The maze: agents that find a hidden reward and return to it (Miconi et al. 2018, section 4.5).

Axes: T steps, B mazes, S cells a side, N neurons.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from torchplastic import LSTM, PlasticRNN, PlasticState, functional
from torchplastic.experiments.base import Components, Experiment
from torchplastic.experiments.build import draw_uniformly, generator, lstm_training_bytes, open_forget_gates, rescale
from torchplastic.experiments.config import Config, Model, Optim, at_least
from torchplastic.experiments.samples import layer_matrices
from torchplastic.tasks.envs import BatchedMaze
from torchplastic.tasks.maze import ACTIONS, AGENT, Maze, MazeState
from torchplastic.train.a2c import A2C, ActorCritic, ActorCriticLearner, Carry, Rollout, play
from torchplastic.train.evaluate import interval

AT_ONCE = 100  # mazes of an evaluation
BASELINE_EPISODES = 500
SAMPLED_EPISODES = 200
DRAWN_STEPS = 120  # of an animation


@dataclass(frozen=True)
class Agent(Model):
    """A recurrent network with a policy head and a value head."""

    kind: Literal["plastic", "rnn", "lstm", "gru"] = "plastic"  # type: ignore[assignment]
    """Plastic network, the same network without plasticity (rnn), an LSTM, or a GRU."""
    rule: Literal["hebb", "oja"] = "oja"
    """Plasticity rule: decaying Hebb, or Oja."""
    learn_eta: bool = True
    """Train eta by gradient descent."""
    neurons: int = 100
    """Recurrent neurons; of an LSTM its cells, of a GRU its units."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("model.neurons", self.neurons, 1)


@dataclass(frozen=True)
class MazeConfig(Config):
    """Settings of the maze."""

    model: Agent = field(default_factory=Agent)
    task: Maze = field(default_factory=Maze)
    a2c: A2C = field(default_factory=A2C)


def agent(config: MazeConfig) -> ActorCritic:
    """The agent of a config, initialised from its seed."""
    model, stream, env = config.model, generator(config.seed, "initialisation"), BatchedMaze(config.task)
    core: LSTM | PlasticRNN | nn.GRU
    if model.kind == "lstm":
        core = LSTM(env.obs_dim, model.neurons)
        core.reset_parameters(stream)
        open_forget_gates(core.core, model.forget_bias)
    elif model.kind == "gru":
        core = nn.GRU(env.obs_dim, model.neurons)
        draw_uniformly(core, model.neurons, stream)
    else:
        core = PlasticRNN(
            env.obs_dim, model.neurons, rule=model.rule, alpha=model.coefficients, eta=model.eta,
            learn_eta=model.learn_eta, impl=model.impl,
        )  # fmt: skip
        core.reset_parameters(stream)
        rescale(core, model)
    made = ActorCritic(core, model.neurons, env.actions)
    made.reset_heads(stream)
    return made


def build(config: MazeConfig) -> Components:
    """The agent, and the learner on its mazes."""
    return Components(ActorCriticLearner(BatchedMaze(config.task), config.a2c), agent(config))


def needed_bytes(config: MazeConfig) -> int:
    """Bytes that training needs."""
    task, model, batch = config.task, config.model, config.batch
    if model.kind in ("lstm", "gru"):
        return lstm_training_bytes(task.steps, batch, task.obs_dim, model.neurons)
    free = (False,) * task.steps
    scan = functional.training_bytes(free, batch, model.neurons, alpha=model.coefficients, impl=model.impl)
    return scan + 4 * task.steps * batch * (task.obs_dim + 4 * model.neurons)


# --- what an agent does


def walks(
    config: MazeConfig, model: ActorCritic, episodes: int, stream: torch.Generator, kind: str = "as it is"
) -> Iterator[tuple[MazeState, Rollout]]:
    """Play episodes in batches -> the initial state and the rollout of each batch.

    kind: "as it is"; "held": the trace is frozen after the step that observes the first reward; "off": it is zero.
    """
    env = BatchedMaze(config.task)
    for start in range(0, episodes, AT_ONCE):
        state, obs = env.reset(min(AT_ONCE, episodes - start), stream, model.device)
        yield state, play(model, env, (state, obs), stream, _carry(kind))


def _carry(kind: str) -> Carry | None:
    if kind == "as it is":
        return None
    found: Tensor | None = None

    def carry(before: PlasticState | None, after: PlasticState, reward: Tensor) -> PlasticState:
        nonlocal found
        assert after.trace is not None
        if kind == "off" or before is None or before.trace is None:
            return after if kind == "held" else after._replace(trace=torch.zeros_like(after.trace))
        seen = reward > 0
        held = torch.zeros_like(seen) if found is None else found
        found = held | seen  # from the next step on
        return after._replace(trace=torch.where(held.view(-1, 1, 1), before.trace, after.trace))

    return carry


def _blind(config: MazeConfig, episodes: int, stream: torch.Generator, *, knows: bool) -> Tensor:
    """Rewards `[episodes]` of a policy that knows the reward's cell, or of a random walk."""
    maze = config.task
    state, total = maze.reset(episodes, stream), torch.zeros(episodes)
    for _ in range(maze.steps):
        random = torch.randint(len(ACTIONS), (episodes,), generator=stream)
        state = maze.step(state, maze.known_goal(state) if knows else random)
        total += state.reward
    return total


def baselines(config: MazeConfig, episodes: int, stream: torch.Generator) -> dict[str, float]:
    """Mean rewards of policies that do not learn."""
    return {
        "perfect knowledge": _blind(config, episodes, stream, knows=True).mean().item(),
        "random walk": _blind(config, episodes, stream, knows=False).mean().item(),
    }


def notes(config: MazeConfig) -> dict[str, Any]:
    """For the summary: rewards of the baselines."""
    return {"baselines": {"reward": baselines(config, BASELINE_EPISODES, generator(config.seed, "validation"))}}


def _intervals(found: Tensor) -> tuple[float, float]:
    """Mean steps to the first reward and between later ones, nan without any; found: bool `[T, B]`."""
    first, later = [], []
    for one in found.T:
        steps = (one.nonzero().flatten() + 1).double()
        first += steps[:1].tolist()
        later += steps.diff().tolist()
    return tuple(float(np.mean(steps)) if steps else float("nan") for steps in (first, later))  # type: ignore[return-value]


def evaluation(config: MazeConfig, model: nn.Module, episodes: int, stream: torch.Generator) -> dict[str, Any]:
    """Mean reward with its 95 % interval, and steps to rewards; the same with the trace frozen, and without it."""
    plastic = isinstance(model.core, PlasticRNN) and config.model.coefficients != "none"
    assert isinstance(model, ActorCritic)
    start, results = stream.get_state(), {}
    for kind in ("as it is", "held", "off") if plastic else ("as it is",):
        taken = [taken for _, taken in walks(config, model, episodes, stream.set_state(start), kind)]
        found = torch.cat([one.rewards > 0 for one in taken], 1).cpu()
        first, later = _intervals(found)
        results[kind] = {
            **interval(torch.cat([one.totals() for one in taken])),
            "steps_to_first": first,
            "steps_between": later,
        }
    levels = baselines(config, episodes, stream.set_state(start))
    whole = results.pop("as it is")
    mean = cast(float, whole["mean"])
    names = {"held": "trace held after the first reward", "off": "no trace"}
    return {
        "split": "new mazes",
        "reward": {**whole, "chance": levels["random walk"], "of_perfect": mean / levels["perfect knowledge"]},
        "variants": {names[kind]: value for kind, value in results.items()},
        "baselines": levels,
    }


def samples(config: MazeConfig, before: nn.Module, after: nn.Module) -> dict[str, np.ndarray]:
    """One path, visits per cell and reward per step before and after training, and w and alpha."""
    maze = config.task
    found: dict[str, np.ndarray] = {}
    assert isinstance(before, ActorCritic)
    assert isinstance(after, ActorCritic)
    for when, model in (("before training", before), ("after training", after)):
        stream = generator(config.seed, "samples")
        ways = list(walks(config, model, SAMPLED_EPISODES, stream))
        places = [_places(maze, state, taken) for state, taken in ways]
        found[f"frames/the way {when}"] = _pictures(maze, ways[0][0], places[0][: DRAWN_STEPS + 1, 0])
        visits = torch.cat([each.flatten() for each in places]).bincount(minlength=maze.size**2).double()
        share = (visits / visits.sum()).view(maze.size, maze.size)
        found[f"heat/{when}"] = share.masked_fill(maze.walls(), torch.nan).numpy()
        found[f"profile/reward per step/{when}"] = torch.cat([taken.rewards for _, taken in ways], 1).mean(1).numpy()
    core = after.core
    return found | (layer_matrices(core) if isinstance(core, PlasticRNN) else {})


def _places(maze: Maze, state: MazeState, taken: Rollout) -> Tensor:
    """The agent's cells over an episode, `[T + 1, B]`."""
    places = [state.place]
    for action in taken.actions:
        state = maze.step(state, action)
        places.append(state.place)
    return torch.stack(places)


def _pictures(maze: Maze, state: MazeState, places: Tensor) -> np.ndarray:
    """The first maze with the agent at each of its cells, uint8 `[frames, S, S, 3]`."""
    frames = np.repeat(maze.plan(int(state.goal[0]))[None], len(places), 0)
    for frame, place in zip(frames, places.tolist(), strict=True):
        frame[divmod(place, maze.size)] = AGENT
    return frames


# --- presets


def published() -> MazeConfig:
    """The published recipe: one maze per update, Adam 1e-4, 100 neurons."""
    return MazeConfig(
        experiment="maze",
        preset="published",
        episodes=1_000_000,
        batch=1,
        log_every=1000,
        optim=Optim(lr=1e-4),
        task=Maze(see_action=False, see_time=False, see_bias=False),
    )


def paper() -> MazeConfig:
    """The published maze, 30 at a time."""
    return MazeConfig(
        experiment="maze",
        preset="paper",
        episodes=1_000_000,
        batch=30,
        log_every=3000,
        optim=Optim(lr=1e-3, clip=4.0),
        a2c=A2C(vf_coef=0.1, prob_l2=0.03),
    )


def quick() -> MazeConfig:
    """The same for 60,000 episodes."""
    return replace(paper(), preset="quick", episodes=60_000, log_every=600)


def smoke() -> MazeConfig:
    """A small maze that is learned within seconds."""
    return replace(
        quick(),
        preset="smoke",
        episodes=9600,
        batch=16,
        log_every=320,
        threads=1,
        model=Agent(neurons=24),
        task=Maze(size=7, steps=50),
        optim=Optim(lr=3e-3, clip=4.0),
    )


EXPERIMENT = Experiment(
    config=MazeConfig,
    presets={"smoke": smoke, "quick": quick, "paper": paper, "published": published},
    build=build,
    needed_bytes=needed_bytes,
    samples=samples,
    evaluate=evaluation,
    notes=notes,
)
