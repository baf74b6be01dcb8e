"""The maze against the protocol it states; the batched form and the Gymnasium form give the same episode."""

import sys
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given
from hypothesis import strategies as st

from torchplastic.tasks.envs import BatchedMaze
from torchplastic.tasks.maze import ACTIONS, MOVES, Maze, MazeState
from torchplastic.tasks.maze_env import MazeEnv, MazeVectorEnv, draw

NAME = "torchplastic/Maze-v0"

mazes = st.builds(
    Maze,
    size=st.sampled_from([5, 7, 9, 11, 13]),
    steps=st.integers(1, 30),
    reward=st.sampled_from([10.0, 1.0]),
    bump=st.sampled_from([0.0, 0.1]),
    view=st.integers(1, 3),
    see_action=st.booleans(),
    see_time=st.booleans(),
    see_bias=st.booleans(),
)


def walk(maze, batch, seed):
    """A random episode -> states before each step and after the last, and the actions."""
    generator = torch.Generator().manual_seed(seed)
    states, actions = [maze.reset(batch, generator)], []
    for _ in range(maze.steps):
        actions.append(torch.randint(len(ACTIONS), (batch,), generator=generator))
        states.append(maze.step(states[-1], actions[-1]))
    return states, actions


def test_the_published_maze():
    maze = Maze()
    assert (maze.size, maze.steps, maze.reward, maze.bump) == (11, 250, 10.0, 0.1)
    text = MazeEnv(render_mode="ansi")
    text.reset(seed=0, options={"goal": (1, 1)})
    assert text.render() == (
        "###########\n#G........#\n#.#.#.#.#.#\n#.........#\n#.#.#.#.#.#\n#....A....#\n"
        "#.#.#.#.#.#\n#.........#\n#.#.#.#.#.#\n#.........#\n###########\n"
    )
    assert Maze(size=9).walls()[4, 4].item() is False  # no pillar at the centre
    assert Maze(see_action=False, see_time=False, see_bias=False).obs_dim == 10


@given(mazes, st.integers(1, 6), st.integers(0, 1000))
def test_every_step_is_what_the_maze_says(maze, batch, seed):
    """One maze after the other, in plain Python."""
    states, actions = walk(maze, batch, seed)
    walls = maze.walls().tolist()
    for b in range(batch):
        row, column = divmod(int(states[0].place[b]), maze.size)
        assert (row, column) == (maze.size // 2, maze.size // 2)
        goal = divmod(int(states[0].goal[b]), maze.size)
        assert not walls[goal[0]][goal[1]]
        assert goal != (row, column)
        for t, action in enumerate(actions):
            down, right = MOVES[int(action[b])]
            expected = 0.0
            if walls[row + down][column + right]:
                expected -= maze.bump
            else:
                row, column = row + down, column + right
            if (row, column) == goal:
                expected += maze.reward
                row, column = divmod(int(states[0].landings[b, t]), maze.size)
                assert (row, column) != goal
                assert not walls[row][column]
            after = states[t + 1]
            assert divmod(int(after.place[b]), maze.size) == (row, column)
            assert after.reward[b].item() == pytest.approx(expected, abs=1e-6)
            assert int(after.goal[b]) == int(states[0].goal[b])
            assert after.step == t + 1


@given(mazes, st.integers(0, 1000))
def test_observations_slot_by_slot(maze, seed):
    states, actions = walk(maze, 2, seed)
    assert len(maze.slots()) == len(set(maze.slots())) == maze.obs_dim
    for t, state in enumerate(states):
        for b, seen in enumerate(maze.observe(state)):
            told = dict(zip(maze.slots(), seen.tolist(), strict=True))
            row, column = divmod(int(state.place[b]), maze.size)
            for down in range(-maze.view, maze.view + 1):
                for right in range(-maze.view, maze.view + 1):
                    inside = 0 <= row + down < maze.size and 0 <= column + right < maze.size
                    wall = not inside or bool(maze.walls()[row + down, column + right])
                    assert told[f"wall at {down:+d}, {right:+d}"] == wall
            assert told["reward of the move before"] == state.reward[b]
            if maze.see_action:
                before = [told[f"the move before was {name}"] for name in ACTIONS]
                assert before == [float(t > 0 and int(actions[t - 1][b]) == a) for a in range(4)]
            if maze.see_time:
                assert told["share of the episode that is over"] == pytest.approx(t / maze.steps)
            if maze.see_bias:
                assert told["one"] == 1


@given(mazes, st.integers(1, 4), st.integers(0, 1000))
def test_batched_and_gymnasium_give_the_same_episode(maze, batch, seed):
    """As many single environments as there are mazes, from the same starts, under the same actions."""
    options = {name: getattr(maze, name) for name in maze.__dataclass_fields__}
    singles = [MazeEnv(**options) for _ in range(batch)]
    seen = [env.reset(seed=seed + b)[0] for b, env in enumerate(singles)]
    state = MazeState.join([env.state for env in singles])
    batched, generator = BatchedMaze(maze), torch.Generator().manual_seed(seed)
    assert np.array_equal(np.stack(seen), maze.observe(state).numpy())
    for t in range(maze.steps):
        action = torch.randint(len(ACTIONS), (batch,), generator=generator)
        state, observed, rewards, done = batched.step(state, action)
        for b, env in enumerate(singles):
            one, reward, terminated, truncated, _ = env.step(np.int64(action[b]))
            assert np.array_equal(one, observed[b].numpy())
            assert reward == rewards[b].item()
            assert not terminated
            assert truncated == bool(done[b]) == (t == maze.steps - 1)


def test_vector_form_is_the_batched_form():
    """The same seed gives the batch that `Maze.begin` gives; the step after the last begins anew."""
    env = gymnasium.make_vec(NAME, num_envs=3, steps=4)
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    first, _ = env.reset(seed=5)
    maze, state = env.unwrapped.maze, env.unwrapped._state
    for t in range(4):
        actions = np.array([t % 4, 1, 3])
        state = maze.step(state, torch.from_numpy(actions))
        seen, rewards, terminated, truncated, _ = env.step(actions)
        assert np.array_equal(seen, maze.observe(state).numpy())
        assert np.array_equal(rewards, state.reward.numpy())
        assert not terminated.any()
        assert (truncated == (t == 3)).all()
    seen, rewards, terminated, truncated, _ = env.step(np.array([0, 0, 0]))
    assert not rewards.any()
    assert not truncated.any()
    assert (seen == first[:1]).all()  # everyone is at the centre, at the start
    again, _ = env.reset(seed=5)
    assert np.array_equal(again, first)
    env.close()


@pytest.mark.filterwarnings("ignore:.*A Box observation space.*:UserWarning")
@pytest.mark.parametrize("options", [{}, {"size": 5, "steps": 20, "see_action": False}])
def test_gymnasiums_own_checker(options):
    for mode in ("rgb_array", "ansi", None):
        env = gymnasium.make(NAME, render_mode=mode, **options)
        check_env(env.unwrapped)
        env.close()


def test_reset_is_seeded_and_takes_options():
    env = gymnasium.make(NAME)
    one = env.reset(seed=3)[1]
    assert env.reset(seed=3)[1] == one
    assert len({env.reset()[1]["goal"] for _ in range(40)}) > 10
    _, info = env.reset(options={"start": (1, 1), "goal": (1, 2)})
    assert info == {"place": (1, 1), "goal": (1, 2)}
    _, reward, _, _, info = env.step(3)
    assert reward == 10
    assert info["place"] != (1, 2)
    for options, words in (
        ({"goal": (0, 0)}, r"goal must be a free cell of the maze; got \(0, 0\)"),
        ({"start": (2, 2)}, "start must be a free cell"),
        ({"goal": (11, 1)}, "must lie in the maze of 11 × 11"),
        ({"goal": (5, 5)}, r"start and goal must differ; both are \(5, 5\)"),
        ({"speed": 2}, "unknown option 'speed'"),
    ):
        with pytest.raises(ValueError, match=words):
            env.reset(options=options)


def test_wrong_use_is_one_line():
    env = MazeEnv(steps=1)
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step(np.int64(0))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="an action is 0, 1, 2 or 3; got 4"):
        env.step(np.int64(4))
    env.step(np.int64(0))
    with pytest.raises(RuntimeError, match="over after 1 steps"):
        env.step(np.int64(0))
    with pytest.raises(TypeError, match="no option 'colour'"):
        MazeEnv(colour=1)
    with pytest.raises(ValueError, match="render_mode must be one of ansi, rgb_array"):
        MazeEnv(render_mode="human")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 8}, "odd and at least 5; got 8"), ({"size": 3}, "got 3"), ({"steps": 0}, "steps"),
        ({"view": 0}, "view"), ({"bump": -1.0}, "bump must be at least 0"),
    ],
)  # fmt: skip
def test_what_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Maze(**options)


def test_pictures():
    maze = Maze(size=5)
    state = maze.reset(1, torch.Generator().manual_seed(0), start=6, goal=8)
    picture = draw(maze, state, cell=10)
    assert picture.shape == (50, 50, 3)
    assert tuple(picture[15, 15]) == (213, 94, 0)
    assert tuple(picture[15, 35]) == (0, 158, 115)
    assert tuple(picture[0, 0]) == (60, 60, 60)
    assert tuple(picture[25, 15]) == (245, 245, 245)


def test_distances_and_the_way_of_one_who_knows():
    maze = Maze()
    distances = maze.distances()
    free = maze.free()
    assert (distances[free][:, free] >= 0).all()
    assert torch.equal(distances, distances.T)
    assert distances[12, 108] == 16  # from corner to corner
    assert (distances[~maze.walls().flatten().logical_not()] == -1).all()
    state = maze.reset(500, torch.Generator().manual_seed(0))
    expected = distances[state.place, state.goal]
    arrived = torch.zeros(500, dtype=torch.bool)
    for t in range(1, 17):
        state = maze.step(state, maze.known_goal(state))
        arrived |= state.reward > 0
        assert torch.equal(arrived, expected <= t) or t > int(expected.min())
        assert arrived[expected <= t].all()


def test_everywhere_is_as_likely():
    maze = Maze(size=7, steps=1)
    state = maze.reset(30_000, torch.Generator().manual_seed(0))
    free = maze.free()
    expected = 30_000 / (len(free) - 1)
    counts = state.goal.bincount(minlength=49)[free[free != maze.centre]]
    assert ((counts - expected).abs() < 5 * expected**0.5).all()
    assert not (state.landings[:, 0] == state.goal).any()
    landed = state.landings[:, 0].bincount(minlength=49)[free]
    assert ((landed - 30_000 / len(free)).abs() < 6 * expected**0.5).all()


def test_a_known_goal_gives_the_published_perfect_score():
    """Computed from the layout: with perfect knowledge of the goal about 403 an episode, a random walk about 0."""
    maze = Maze()
    generator = torch.Generator().manual_seed(0)
    for knows, low, high in ((True, 390, 415), (False, -15, 15)):
        state, total = maze.reset(400, generator), torch.zeros(400)
        for _ in range(maze.steps):
            blind = torch.randint(4, (400,), generator=generator)
            state = maze.step(state, maze.known_goal(state) if knows else blind)
            total += state.reward
        assert low < total.mean() < high


def test_some_of_the_mazes():
    maze = Maze(steps=3)
    state = maze.reset(4, torch.Generator().manual_seed(0))
    parts = [state.rows(slice(0, 1)), state.rows(slice(1, 4))]
    whole = MazeState.join(parts)
    assert all(torch.equal(a, b) for a, b in zip(whole[:-1], state[:-1], strict=True))
    assert replace(maze, steps=3) == maze


def test_the_batched_form_imports_without_gymnasium(run_process):
    code = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'gymnasium' else find(name, *more)\n"
        "import torch; from torchplastic.tasks.maze import Maze\n"
        "print(Maze().reset(2, torch.Generator()).place.tolist())"
    )
    assert run_process([sys.executable, "-c", code]).out.strip() == "[60, 60]"


def test_numbers_are_single_whatever_the_default():
    maze = Maze()
    torch.set_default_dtype(torch.float64)
    try:
        state = maze.step(maze.reset(2, torch.Generator().manual_seed(0)), torch.tensor([0, 1]))
        assert state.reward.dtype == maze.observe(state).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_move_that_does_not_exist_is_refused():
    maze = Maze()
    with pytest.raises(IndexError):
        maze.step(maze.reset(2, torch.Generator().manual_seed(0)), torch.tensor([0, 4]))


def test_actions_and_seeds_of_numpy_and_torch():
    """Faults of use: a tensor of 1 was refused as no action, a seed of NumPy as a list of seeds."""
    for one in (1, np.int64(1), np.uint8(1), np.array(1), torch.tensor(1), torch.tensor([1])[0]):
        env = MazeEnv()
        first, _ = env.reset(seed=np.int64(3))
        assert np.array_equal(first, MazeEnv().reset(seed=3)[0])
        env.step(one)
    for wrong in (4, -1, 1.0, "1", np.array([1, 2]), None, torch.tensor(1.0)):
        with pytest.raises(ValueError, match="an action is 0, 1, 2 or 3; got"):
            env.step(wrong)
    for wrong in (1.5, "1"):
        with pytest.raises(ValueError, match="a seed is an int; got"):
            env.reset(seed=wrong)
    vector = MazeVectorEnv(2)
    assert np.array_equal(vector.reset(seed=np.int64(3))[0], MazeVectorEnv(2).reset(seed=3)[0])
    for actions in ([1, 2], (1, 2), np.array([1, 2], np.int32), torch.tensor([1, 2])):
        vector.step(actions)
    for wrong in ([1, 4], [1], [1.0, 2.0], 1, np.array([[1, 2]])):
        with pytest.raises(ValueError, match="actions are 2 numbers from 0 to 3"):
            vector.step(wrong)


@pytest.mark.parametrize("seeds", [[5, 6, 7], (5, 6, 7), np.array([5, 6, 7])])
def test_a_seed_for_each_maze_makes_the_mazes_of_these_seeds(seeds):
    vector = MazeVectorEnv(3, size=5, steps=4)
    singles = [MazeEnv(size=5, steps=4) for _ in seeds]
    for episode in range(3):  # later episodes too
        each = [5, 6, 7] if episode == 0 else [None] * 3
        observed, _ = vector.reset(seed=seeds if episode == 0 else None)
        expected = [env.reset(seed=seed)[0] for env, seed in zip(singles, each, strict=True)]
        assert np.array_equal(observed, np.stack(expected))
        for action in range(4):
            observed, reward, *_rest = vector.step([action] * 3)
            for row, env in enumerate(singles):
                one = env.step(action)
                assert np.array_equal(observed[row], one[0])
                assert reward[row] == np.float32(one[1])
    vector.reset(seed=9)
    assert np.array_equal(vector.reset(seed=9)[0], MazeVectorEnv(3, size=5, steps=4).reset(seed=9)[0])
    with pytest.raises(ValueError, match="one for each of 3 mazes; got 2"):
        vector.reset(seed=[1, 2])
    vector.reset(seed=[1, None, 2])
