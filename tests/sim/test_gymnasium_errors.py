"""What environments of gymnasium refuse: one line, and nothing has changed."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode

from sim.envs.gym_env import TaskEnv, make_vector
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from tests.support import touch as touch_family
from tests.support.graphics import GL
from tests.support.gymnasium_envs import BANDITS, BOTH, actions, agree, one_line


@pytest.fixture
def touch():
    """The name of an environment whose family terminates."""
    with touch_family.registered() as name:
        yield name


@BOTH
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"task": "goal-2"},
            r"no task 'moving_bandits/goal-2'\. Did you mean 'moving_bandits/goal-\d'\? "
            "Valid: moving_bandits/goal-0",
        ),
        ({"robot": "omnibus"}, r"no robot 'omnibus'\. Did you mean 'omni'\? Valid: .*omni"),
        ({"family": "bandits"}, r"no task family 'bandits'.*Valid: moving_bandits, ring_bandits"),
        ({"parameters": {"radius": -1.0}}, r"'moving_bandits': radius: .*got -1\.0"),
        ({"parameters": {"ticks": 20}}, r"'ticks' cannot be given, .* max_episode_steps=20"),
        ({"width": 0}, "width: a positive integer is expected, got 0"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(make, arguments, message):
    with pytest.raises(UserError, match=message) as info:
        make(BANDITS, **arguments)
    one_line(info)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"autoreset_mode": "Same"},
            r"no autoreset_mode 'Same'\. .*Valid: NextStep, SameStep, Disabled",
        ),
        ({"max_episode_steps": 0}, "max_episode_steps: a positive integer is expected, got 0"),
        ({"num_envs": 0}, "num_envs: a positive integer is expected, got 0"),
        ({"threads": -1}, "threads: a positive integer is expected, got -1"),
        ({"render_mode": "human"}, r"no render_mode 'human'\. Valid: rgb_array, None"),
        ({"render_mode": "rgb_array_list"}, "no render_mode 'rgb_array_list'.*'rgb_array'"),
    ],
)
def test_what_a_vector_does_not_take_is_refused_in_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as info:
        gymnasium.make_vec(BANDITS, **arguments)
    one_line(info)


def test_a_render_mode_that_there_is_not_is_said():
    gymnasium.make(BANDITS, render_mode=None)
    with pytest.raises(UserError, match=r"no render_mode 'ansi'\. Valid: rgb_array, None"):
        TaskEnv("moving_bandits", render_mode="ansi")


MASK = "option 'reset_mask' has to be a numpy array of bool of shape"


@BOTH
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"task": "goal-7"}}, "no task 'moving_bandits/goal-7'.*goal-0, moving_ban"),
        ({"options": {"task": 1}}, "option 'task' has to be a name or a list of .*, got 1"),
        ({"options": {"goal": 1}}, "no option of reset 'goal'.*Valid: task"),
        ({"options": ["task"]}, r"options has to be a dictionary or None, got \['task'\]"),
        ({"seed": -1}, r"seed has to be an integer from 0 to 2\*\*64 - 1, got -1"),
        ({"seed": 2**64}, r"seed has to be an integer from 0 to 2\*\*64 - 1, got 1844"),
        ({"seed": 0.5}, "seed has to be an integer or a list of .*, got 0.5"),
        ({"seed": "0"}, "seed has to be an integer or a list of .*, got '0'"),
    ],
)
def test_a_reset_that_is_refused_changes_nothing(make, arguments, message):
    env, twin = (make(BANDITS).unwrapped for _ in range(2))
    env.reset(seed=1)
    twin.reset(seed=1)
    with pytest.raises(UserError, match=message) as info:
        env.reset(**arguments)
    one_line(info)
    action = np.zeros(env.action_space.shape)
    agree(env.step(action), twin.step(action))
    agree(env.reset(), twin.reset())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": [1, 2]}, r"seed has to be .* a list of 3, .* got \[1, 2\]"),
        ({"seed": [1, 2, -3]}, "seed has to be an integer from 0 .* got -3"),
        ({"seed": [1, 2, "x"]}, "seed has to be an integer from 0 .* got 'x'"),
        ({"options": {"task": ["goal-0"]}}, r"'task' has to be .* 3, .* got \['goal-0'\]"),
        ({"options": {"task": ["goal-0", None, 5]}}, "no task 'moving_bandits/5'"),
        ({"options": {"reset_mask": [True] * 3}}, rf"{MASK} \(3,\), got \[True, True, True\]"),
        ({"options": {"reset_mask": np.ones(2, bool)}}, rf"{MASK} .* got bool of shape \(2,\)"),
        ({"options": {"reset_mask": np.ones(3)}}, rf"{MASK} .* got float64 of shape \(3,\)"),
        ({"options": {"reset_mask": np.zeros(3, bool)}}, "reset_mask' is False for every"),
    ],
)
def test_a_reset_of_many_that_is_refused_changes_nothing(arguments, message):
    env, twin = (gymnasium.make_vec(BANDITS, num_envs=3) for _ in range(2))
    env.reset(seed=1)
    twin.reset(seed=1)
    with pytest.raises(UserError, match=message) as info:
        env.reset(**arguments)
    one_line(info)
    agree(env.step(np.zeros((3, 2))), twin.step(np.zeros((3, 2))))
    agree(env.reset(), twin.reset())


def test_groups_have_one_task_and_one_run():
    env = TaskVectorEnv(load_robot("omni"), make_family("moving_bandits"), groups=2, envs=2)
    for arguments in ({"seed": [1, 2, 3, 4]}, {"options": {"task": "goal-0"}}):
        with pytest.raises(ValueError, match="needs groups of one simulation"):
            env.reset(**arguments)


def test_a_single_environment_has_no_mask():
    env = gymnasium.make(BANDITS)
    with pytest.raises(UserError, match=r"no option of reset 'reset_mask'\. Valid: task"):
        env.reset(options={"reset_mask": np.ones(1, bool)})


@pytest.mark.parametrize("shape", [(2,), (1, 2), (4, 1), (4, 3)])
def test_actions_for_others_are_refused(shape):
    env = make_vector("moving_bandits", 4)
    env.reset(seed=0)
    before = env.snapshot()
    with pytest.raises(ValueError, match="action has shape"):
        env.step(np.zeros(shape, np.float32))
    for name, value in env.snapshot().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("action", [0.0, [0.0], [0.0] * 3, [[0.0, 0.0]], None])
def test_an_action_of_another_shape_is_refused(action):
    env = gymnasium.make(BANDITS).unwrapped
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"action has shape \(.*\), not \(2,\)"):
        env.step(action)
    env.step([0.0, 0.0])


@BOTH
def test_an_action_that_is_not_finite_is_refused(make):
    env = make(BANDITS).unwrapped
    env.reset(seed=0)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="action is not finite") as info:
            env.step(np.full(env.action_space.shape, value))
        one_line(info)
    env.step(np.zeros(env.action_space.shape))


@BOTH
def test_step_and_render_need_a_reset(make):
    env = make(BANDITS).unwrapped
    with pytest.raises(ResetNeeded, match="step before reset"):
        env.step(env.action_space.sample())
    with pytest.raises(ResetNeeded, match="render before reset"):
        env.render()
    env.reset(options={})
    env.step(env.action_space.sample())


def test_a_part_is_reset_only_after_all_have_been():
    env = gymnasium.make_vec(BANDITS, num_envs=2)
    with pytest.raises(ResetNeeded, match="reset_mask before reset"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset(options={"reset_mask": np.array([True, True])})


def test_an_episode_that_has_ended_is_not_stepped(touch):
    env = gymnasium.make(touch).unwrapped
    vector = gymnasium.make_vec(touch, num_envs=16, autoreset_mode=AutoresetMode.DISABLED)
    vector.reset(seed=0)
    for action in actions(9, 16, 2):
        _, _, terminated, truncated, info = vector.step(action)
        if (done := terminated | truncated).any():
            break
    assert terminated.any()
    assert not done.all()
    np.testing.assert_array_equal(info["success"], terminated)
    ended = ", ".join(map(str, np.flatnonzero(done)))
    with pytest.raises(ResetNeeded, match=f"episode of environment {ended} has ended"):
        vector.step(action)
    vector.reset(options={"reset_mask": done})
    vector.step(action)
    terminated, seed = False, 0
    while not terminated:  # without a limit of time, and some directions lead nowhere
        if seed % 9 == 0:
            env.reset(seed=seed)
            direction = actions(1, 1, 2, seed)[0, 0]
        terminated, seed = env.step(direction)[2], seed + 1
    with pytest.raises(ResetNeeded, match="episode of environment 0 has ended"):
        env.step(np.zeros(2))


@BOTH
def test_an_environment_is_closed_once_and_for_all(make):
    env = make(BANDITS, render_mode="rgb_array")
    env.reset(seed=0)
    if GL:
        env.render()
    env.close()
    env.close()
    env = env.unwrapped
    for act in (env.reset, env.render, lambda: env.step(env.action_space.sample())):
        with pytest.raises(ClosedEnvironmentError, match="after close: make another") as info:
            act()
        one_line(info)
