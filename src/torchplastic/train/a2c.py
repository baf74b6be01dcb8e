"""Advantage actor-critic on batches of whole episodes: a rollout without gradients, then one pass with them.

A rollout records only its observations and actions. One call of the network over all observations then recomputes the
policy and the values with gradients, so that acting builds no graph.

Axes: T steps (of the longest episode), B episodes, F observed numbers, A actions, N features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from torchplastic.tasks.base import BatchedEnv, to_device
from torchplastic.train.objectives import Score


@runtime_checkable
class SteppedCore(Protocol):
    """A recurrent network that also runs one step at a time, without gradients: `PlasticRNN`."""

    def stepper(self, batch: int) -> Callable[[Tensor], Tensor]:
        """A function from x `[B, F]` to y `[B, N]`: a step per call from the zero state."""


class ActorCritic(nn.Module):
    """`logits, values, state = agent(observed, state)`: a recurrent network, a policy and a value on its features.

    core: any module called as `y, state = core(x, state)` with x `[T, B, F]` and y `[T, B, N]`: `PlasticRNN`, `LSTM`.
    features: N. actions: A.
    """

    def __init__(self, core: nn.Module, features: int, actions: int) -> None:
        super().__init__()
        self.core = core
        self.policy = nn.Linear(features, actions)
        self.value = nn.Linear(features, 1)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.policy.weight.device

    def forward(self, observed: Tensor, state: Any = None) -> tuple[Tensor, Tensor, Any]:
        """Observed `[T, B, F]` -> logits `[T, B, A]`, values `[T, B]`, final state."""
        y, state = self.core(observed, state)
        return self.policy(y), self.value(y).squeeze(-1), state

    def stepper(self, batch: int) -> Callable[[Tensor], Tensor]:
        """A function from observed `[B, F]` to logits `[B, A]`: a step per call from the zero state, without gradients.

        The parameters must not change while it is in use.
        """
        if isinstance(self.core, SteppedCore):
            step, weight, bias = self.core.stepper(batch), self.policy.weight.detach(), self.policy.bias.detach()
            return lambda observed: nn.functional.linear(step(observed), weight, bias)
        memory: Any = None

        @torch.no_grad()
        def act(observed: Tensor) -> Tensor:
            nonlocal memory
            y, memory = self.core(observed.unsqueeze(0), memory)
            return self.policy(y.squeeze(0))

        return act

    def reset_heads(self, generator: torch.Generator | None = None) -> None:
        """Initialise policy and value as torch.nn.Linear does, from the generator."""
        with torch.no_grad():
            for head in (self.policy, self.value):
                bound = 1 / math.sqrt(head.in_features)
                for parameter in head.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)


class Rollout(NamedTuple):
    """Whole episodes, padded to the longest.

    observations `[T, B, F]`, actions int64 `[T, B]`, rewards `[T, B]`, mask bool `[T, B]`, False after the end.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor

    def totals(self) -> Tensor:
        """The sum of each episode's rewards, `[B]`."""
        return (self.rewards * self.mask).sum(0)


#: (network state before a step, after it, reward of the previous step `[B]`) -> network state for the next step
Carry = Callable[[Any, Any, Tensor], Any]


def rollout(
    agent: ActorCritic, env: BatchedEnv, batch: int, generator: torch.Generator, carry: Carry | None = None
) -> Rollout:
    """Play B episodes to their end on the agent's device; the generator samples the actions from the policy.

    carry: changes the network's state after each step, for ablations.
    """
    return play(agent, env, env.reset(batch, generator, agent.device), generator, carry)


@torch.no_grad()
def play(
    agent: ActorCritic,
    env: BatchedEnv,
    start: tuple[Any, Tensor],
    generator: torch.Generator,
    carry: Carry | None = None,
) -> Rollout:
    """Like `rollout`, from episodes that `env.reset` has started."""
    state, obs = start
    reward = torch.zeros(len(obs), device=obs.device)
    done = torch.zeros_like(reward, dtype=torch.bool)
    memory: Any = None

    def carried(obs: Tensor) -> Tensor:
        nonlocal memory
        assert carry is not None
        before = memory
        (logits,), _, memory = agent(obs.unsqueeze(0), before)
        memory = carry(before, memory, reward)
        return logits

    act = agent.stepper(len(obs)) if carry is None else carried
    races = _ExponentialRaces(agent, env, len(obs), generator)
    taken: list[tuple[Tensor, ...]] = []
    while len(taken) < env.steps if env.steps else not done.all():
        action = sample_categorical(act(obs), races(len(taken)))
        state, next_obs, reward, ended = env.step(state, action)
        taken.append((obs, action, reward, ~done))
        obs, done = next_obs, done | ended
    return Rollout(*(torch.stack(parts) for parts in zip(*taken, strict=True)))


def sample_action(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Sample actions `[B]` from the logits `[B, A]`."""
    return sample_categorical(logits, to_device(_times(logits.shape, logits.dtype, generator), logits.device))


def sample_categorical(logits: Tensor, times: Tensor) -> Tensor:
    """Sample `[B]` from the softmax of the logits by an exponential race; times `[B, A]` are exponential variates."""
    p = logits.softmax(-1, dtype=_at_least_single(logits.dtype))
    return (p / times).argmax(-1)


def _at_least_single(dtype: torch.dtype) -> torch.dtype:
    """float32, or the dtype if it is wider; under autocast logits may be narrower."""
    return torch.promote_types(dtype, torch.float32)


def _times(shape: torch.Size, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    times = torch.empty(shape, dtype=_at_least_single(dtype), device=generator.device)
    return times.exponential_(generator=generator)


class _ExponentialRaces:
    """Exponential variates `[B, A]` for each step, drawn on the generator's device and moved to the agent's.

    If the number of steps is known, all are drawn and moved at once; the values are the same.
    """

    def __init__(self, agent: ActorCritic, env: BatchedEnv, batch: int, generator: torch.Generator) -> None:
        self.shape, self.dtype = torch.Size((batch, env.actions)), agent.policy.weight.dtype
        self.generator, self.device = generator, agent.device
        drawn = [_times(self.shape, self.dtype, generator) for _ in range(env.steps or 0)]
        self.all = to_device(torch.stack(drawn), self.device) if drawn else None

    def __call__(self, step: int) -> Tensor:
        if self.all is not None:
            return self.all[step]
        return to_device(_times(self.shape, self.dtype, self.generator), self.device)


@dataclass(frozen=True)
class A2C:
    """The loss of advantage actor-critic (Mnih et al. 2016; Miconi et al. 2018)."""

    gamma: float = 0.9
    """Discount factor per step."""
    vf_coef: float = 0.03
    """Coefficient of the value loss (squared error)."""
    ent_coef: float = 0.0
    """Coefficient of the entropy bonus."""
    prob_l2: float = 0.1
    """Coefficient of the penalty on squared action probabilities."""
    gae_lambda: float | None = None
    """Generalised advantage estimation lambda (Schulman et al. 2016); None: return minus value."""

    def __post_init__(self) -> None:
        for name in ("gamma", "gae_lambda"):
            given = getattr(self, name)
            if given is not None and not 0 <= given <= 1:
                raise ValueError(f"a2c.{name} must lie in 0 … 1; got {given:g}.")
        for name in ("vf_coef", "ent_coef", "prob_l2"):
            if getattr(self, name) < 0:
                raise ValueError(f"a2c.{name} must be at least 0; got {getattr(self, name):g}.")

    def loss(self, logits: Tensor, values: Tensor, taken: Rollout) -> Tensor:
        """The loss of each episode `[B]`: the sum over its steps, divided by the mean episode length.

        logits `[T, B, A]`, values `[T, B]`; no gradient flows through advantages and returns.
        """
        returns, advantages = self.estimates(values.detach(), taken)
        logp = logits.log_softmax(-1)
        p = logp.exp()
        chosen = logp.gather(-1, taken.actions.unsqueeze(-1)).squeeze(-1)
        step = (
            -chosen * advantages
            + self.vf_coef * (returns - values).square()
            + self.ent_coef * (p * logp).sum(-1)
            + self.prob_l2 * p.square().sum(-1)
        )
        return torch.where(taken.mask, step, 0).sum(0) / (taken.mask.sum() / taken.mask.shape[1])

    def estimates(self, values: Tensor, taken: Rollout) -> tuple[Tensor, Tensor]:
        """Returns and advantages, `[T, B]` each; 0 after the end of an episode."""
        values = values * taken.mask
        returns = _discounted(taken.rewards * taken.mask, self.gamma)
        if self.gae_lambda is None:
            return returns, (returns - values) * taken.mask
        ahead = torch.cat([values[1:], torch.zeros_like(values[:1])])
        td_error = (taken.rewards + self.gamma * ahead - values) * taken.mask
        advantages = _discounted(td_error, self.gamma * self.gae_lambda)
        return advantages + values, advantages


def _discounted(rows: Tensor, discount: float) -> Tensor:
    """`out[t] = rows[t] + discount * out[t + 1]`."""
    out = list(rows.unbind())
    for t in reversed(range(len(out) - 1)):
        out[t] = torch.add(out[t], out[t + 1], alpha=discount)
    return torch.stack(out)


@dataclass(frozen=True)
class ActorCriticLearner:
    """The `Learner` of an environment: rollouts and their actor-critic loss."""

    env: BatchedEnv
    how: A2C
    measure: ClassVar[str] = "reward"

    def draw(self, model: nn.Module, batch: int, generator: torch.Generator, fabric: Fabric) -> Rollout:
        """A rollout of new episodes. Each of several processes plays its share with its own seed."""
        shares = torch.randint(2**62, (fabric.world_size,), generator=generator).tolist()
        own = torch.Generator(generator.device).manual_seed(shares[fabric.global_rank])
        assert isinstance(model, ActorCritic)
        with fabric.autocast():
            return rollout(model, self.env, batch // fabric.world_size, own)

    def score(self, model: nn.Module, drawn: Rollout) -> Score:
        """Loss and reward of the episodes, `[B]` each."""
        logits, values, _ = model(drawn.observations)
        return Score(self.how.loss(logits.float(), values.float(), drawn), drawn.totals())
