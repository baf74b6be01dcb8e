"""Advantage actor-critic: the update of a rollout, estimates in closed form, and other envs than the maze."""

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import torchplastic as tp
from torchplastic.tasks.envs import BatchedGym, BatchedMaze
from torchplastic.tasks.maze import Maze
from torchplastic.train.a2c import A2C, ActorCritic, Rollout, rollout, sample_action


def agent_for(env, core="plastic", features=7, dtype=torch.float64, impl="auto"):
    torch.manual_seed(0)
    made = {
        "plastic": lambda: tp.PlasticRNN(env.obs_dim, features, rule="oja", alpha="full", eta=0.1, impl=impl),
        "shared": lambda: tp.PlasticRNN(env.obs_dim, features, alpha="shared"),
        "none": lambda: tp.PlasticRNN(env.obs_dim, features, alpha="none"),
        "lstm": lambda: tp.LSTM(env.obs_dim, features),
    }[core]()
    agent = ActorCritic(made, features, env.actions).to(dtype)
    with torch.no_grad():
        for name, parameter in agent.named_parameters():
            if name.endswith(("w", "alpha")):
                parameter.normal_(0, 0.3)
    return agent


class Doubled:
    """An environment in float64, some of whose episodes end early."""

    steps = None

    def __init__(self, env, lengths=None):
        self.env, self.lengths = env, lengths
        self.obs_dim, self.actions = env.obs_dim, env.actions

    def reset(self, batch, generator, device=None):
        state, obs = self.env.reset(batch, generator, device)
        return (state, 0), obs.double()

    def step(self, state, action):
        state, steps = state
        state, obs, reward, done = self.env.step(state, action)
        if self.lengths is not None:
            done = done | (torch.tensor(self.lengths) <= steps + 1)
        return (state, steps + 1), obs.double(), reward.double(), done


@pytest.mark.parametrize("gae", [None, 0.8])
@pytest.mark.parametrize("core", ["plastic", "shared", "none", "lstm"])
def test_the_update_is_that_of_the_rollouts_own_graph(core, gae):
    """Two passes, a rollout without gradient and one scan, against the graph of the rollout itself, in float64."""
    env = Doubled(BatchedMaze(Maze(size=5, steps=12)), [12, 5, 9, 12])
    how = A2C(gamma=0.9, vf_coef=0.3, ent_coef=0.02, prob_l2=0.05, gae_lambda=gae)
    agent = agent_for(env, core)

    taken = rollout(agent, env, 4, torch.Generator().manual_seed(1))
    logits, values, _ = agent(taken.observations)
    loss = how.loss(logits, values, taken)
    loss.mean().backward()
    found = {name: parameter.grad.clone() for name, parameter in agent.named_parameters()}

    agent.zero_grad()
    generator = torch.Generator().manual_seed(1)
    state, obs = env.reset(4, generator)
    memory, done = None, torch.zeros(4, dtype=torch.bool)
    steps = []
    while not done.all():
        logits, values, memory = agent(obs.unsqueeze(0), memory)
        action = sample_action(logits[0].detach(), generator)
        made = ~done
        state, next_obs, reward, ended = env.step(state, action)
        steps.append((obs, action, reward, made, logits[0], values[0]))
        obs, done = next_obs, done | ended
    observed, actions, rewards, made, logits, values = (torch.stack(parts) for parts in zip(*steps, strict=True))
    kept = how.loss(logits, values, Rollout(observed, actions, rewards, made))
    kept.mean().backward()

    assert torch.equal(actions, taken.actions)
    torch.testing.assert_close(loss, kept)
    for name, parameter in agent.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-8, atol=1e-12, msg=name)


@given(
    st.integers(1, 6), st.integers(1, 3), st.floats(0, 1), st.one_of(st.none(), st.floats(0, 1)), st.integers(0, 100)
)
def test_estimates_are_their_sums(T, B, discount, gae, seed):
    """Returns and advantages against their definitions, written out as double sums."""
    generator = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(T, B, generator=generator, dtype=torch.float64) for _ in range(2))
    lengths = torch.randint(1, T + 1, (B,), generator=generator)
    made = torch.arange(T).unsqueeze(-1) < lengths
    taken = Rollout(torch.zeros(T, B, 1), torch.zeros(T, B, dtype=torch.int64), rewards, made)
    returns, advantages = A2C(gamma=discount, gae_lambda=gae).estimates(values, taken)
    for b in range(B):
        end = int(lengths[b])
        for t in range(end):
            ahead = sum(discount ** (k - t) * rewards[k, b] for k in range(t, end))
            if gae is None:
                assert returns[t, b] == pytest.approx(float(ahead))
                assert advantages[t, b] == pytest.approx(float(ahead - values[t, b]))
                continue
            surprise = [
                rewards[k, b] + (discount * values[k + 1, b] if k + 1 < end else 0) - values[k, b] for k in range(end)
            ]
            expected = sum((discount * gae) ** (k - t) * surprise[k] for k in range(t, end))
            assert advantages[t, b] == pytest.approx(float(expected))
            assert returns[t, b] == pytest.approx(float(expected + values[t, b]))
        assert not returns[end:, b].any()
        assert not advantages[end:, b].any()


def test_steps_after_the_end_count_for_nothing():
    env = Doubled(BatchedMaze(Maze(size=5, steps=8)), [3, 8])
    agent = agent_for(env)
    taken = rollout(agent, env, 2, torch.Generator().manual_seed(0))
    assert taken.mask.sum(0).tolist() == [3, 8]
    disturbed = taken._replace(
        rewards=torch.where(taken.mask, taken.rewards, 1e6),
        observations=torch.where(taken.mask.unsqueeze(-1), taken.observations, 7.0),
    )
    losses = [A2C().loss(*agent(one.observations)[:2], one) for one in (taken, disturbed)]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(taken.totals(), disturbed.totals())


def test_the_loss_in_closed_form():
    """One episode of one step: every term by hand."""
    logits = torch.tensor([[[0.0, 1.0]]], dtype=torch.float64, requires_grad=True)
    values = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    taken = Rollout(torch.zeros(1, 1, 1), torch.tensor([[1]]), torch.tensor([[2.0]]).double(), torch.ones(1, 1).bool())
    p = torch.tensor([0.0, 1.0], dtype=torch.float64).softmax(0)
    expected = -p[1].log() * 1.5 + 0.3 * 1.5**2 + 0.2 * (p * p.log()).sum() + 0.1 * p.square().sum()
    loss = A2C(vf_coef=0.3, ent_coef=0.2, prob_l2=0.1).loss(logits, values, taken)
    torch.testing.assert_close(loss, expected.unsqueeze(0))
    loss.sum().backward()
    assert values.grad.item() == pytest.approx(-2 * 0.3 * 1.5)  # through the squared error alone


def test_actions_come_with_their_probabilities():
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5]).expand(40_000, 4)
    counts = sample_action(logits, torch.Generator().manual_seed(0)).bincount(minlength=4)
    expected = 40_000 * logits[0].softmax(0)
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()
    sure = torch.tensor([[-1e9, 0.0, -1e9]]).expand(100, 3)
    assert (sample_action(sure, torch.Generator()) == 1).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gamma": 1.5}, "gamma must lie in 0 … 1"),
        ({"gae_lambda": -1.0}, "gae_lambda"),
        ({"vf_coef": -1.0}, "a2c.vf_coef must be"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        A2C(**options)


class Recall(gymnasium.Env):
    """A sign is obs once; two steps later the action that it named is worth 1, any other nothing."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.sign, self.steps = int(self.np_random.integers(2)), 0
        return np.array([2 * self.sign - 1, 0], np.float32), {}

    def step(self, action):
        self.steps += 1
        done = self.steps == 3
        return np.array([0, done], np.float32), float(done and action == self.sign), done, False, {}


def learn(env, updates, **rates):
    """Mean totals of each update's episodes; what is learned depends on rounding, so the implementation is fixed."""
    agent, generator = agent_for(env, "plastic", 16, torch.float32, "reference"), torch.Generator().manual_seed(0)
    adam, how, totals = torch.optim.Adam(agent.parameters(), lr=1e-2), A2C(prob_l2=0.0, **rates), []
    for _ in range(updates):
        taken = rollout(agent, env, 16, generator)
        totals.append(taken.totals().mean().item())
        loss = how.loss(*agent(taken.observations)[:2], taken).mean()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(agent.parameters(), 1.0)
        adam.step()
    env.close()
    return totals


@pytest.mark.thorough
def test_it_learns_to_balance_a_pole():
    totals = learn(
        BatchedGym(lambda: gymnasium.make("CartPole-v1", max_episode_steps=100)), 130, gamma=0.95, vf_coef=0.01
    )
    assert sum(totals[-10:]) > 2 * sum(totals[:10])


def test_it_learns_where_the_state_is_not_seen():
    totals = learn(BatchedGym(Recall), 80, gamma=0.9, vf_coef=0.3)
    assert sum(totals[:5]) / 5 < 0.75
    assert sum(totals[-10:]) / 10 > 0.95


def test_a_world_with_other_actions_is_refused():
    with pytest.raises(ValueError, match="must be discrete"):
        BatchedGym(lambda: gymnasium.make("Pendulum-v1"))


def test_rare_actions_keep_their_share_in_half_precision():
    """An action of 0.001 is drawn as often where autocast makes its logit short."""
    logits = torch.tensor([[0.0, -100.0, -100.0, -6.9068]]).expand(400_000, 4)
    share = (sample_action(logits.bfloat16(), torch.Generator().manual_seed(0)) == 3).float().mean().item()
    assert share == pytest.approx(0.001, rel=0.15)


@pytest.mark.parametrize("core", ["plastic", "lstm"])
def test_an_agent_that_acts_makes_no_graph(core):
    env = BatchedMaze(Maze(size=5, steps=12))
    act = agent_for(env, core, dtype=torch.float32).stepper(3)
    _, obs = env.reset(3, torch.Generator().manual_seed(0))
    assert not act(obs).requires_grad
