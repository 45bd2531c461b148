"""The task families as gymnasium environments: checkers, spaces, lengths, wrappers."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

import sim
from sim.envs.gym_env import TaskEnv, environment_id
from sim.envs.vec_env import TaskVectorEnv
from sim.physics.robot_model import load_robot
from sim.tasks.registry import FAMILIES, make_family
from tests.support import touch as touch_family
from tests.support.graphics import GL
from tests.support.gymnasium_envs import BANDITS, IDS, actions
from tests.support.own_family import write_family, write_package


@pytest.fixture
def touch():
    """The name of an environment whose family terminates."""
    with touch_family.registered() as name:
        yield name


# Checkers, spaces and specs ---------------------------------------------------------------


@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker_passes(name):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_env(gymnasium.make(name).unwrapped, skip_render_check=not GL)
    for warning in seen:  # an observation has no bounds, and that is how it is
        assert "infinity" in str(warning.message)


@pytest.mark.filterwarnings("ignore:.*infinity")
def test_gymnasiums_checker_passes_where_episodes_terminate(touch):
    check_env(gymnasium.make(touch).unwrapped, skip_render_check=not GL)


@pytest.mark.filterwarnings("error")
def test_sb3s_checker_passes_and_its_vector_takes_it():
    sb3 = pytest.importorskip("stable_baselines3.common.vec_env")
    from stable_baselines3.common.env_checker import check_env

    check_env(gymnasium.make(BANDITS))
    vector = sb3.DummyVecEnv([lambda: gymnasium.make(BANDITS, max_episode_steps=5)] * 2)
    vector.reset()
    for tick in range(12):
        _, _, done, infos = vector.step(np.zeros((2, 2), np.float32))
        assert done.tolist() == [tick % 5 == 4] * 2
        for info in infos:
            assert ("terminal_observation" in info) == (tick % 5 == 4)
            assert isinstance(info["success"], bool)
    vector.close()


@pytest.mark.parametrize("name", IDS)
def test_spaces(name):
    env, vector = gymnasium.make(name), gymnasium.make_vec(name, num_envs=3)
    assert isinstance(vector, TaskVectorEnv)
    assert vector.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert vector.num_envs == 3
    assert vector.single_observation_space == env.observation_space
    assert vector.single_action_space == env.action_space
    o, a = vector.interface.observation_size, vector.interface.action_size
    box = gymnasium.spaces.Box
    assert vector.single_observation_space == box(-np.inf, np.inf, (o,), np.float32)
    assert vector.single_action_space == box(-1, 1, (a,), np.float32)
    assert (vector.observation_space.shape, vector.action_space.shape) == ((3, o), (3, a))
    observation, info = vector.reset(seed=1)
    assert observation in vector.observation_space
    assert sorted(info) == ["_task", "task"]
    assert [make_family(IDS[name]).tasks[t] for t in vector.tasks] == info["task"].tolist()
    observation, *rest, _ = vector.step(vector.action_space.sample())
    assert observation in vector.observation_space
    assert [r.shape for r in rest] == [(3,)] * 3
    assert [r.dtype for r in rest] == [np.float64, bool, bool]


@pytest.mark.parametrize("name", IDS)
def test_the_spec_says_how_long_an_episode_is_and_how_fast_a_film(name):
    family = make_family(IDS[name])
    assert gymnasium.spec(name).max_episode_steps == family.ticks
    for env in (gymnasium.make(name), gymnasium.make_vec(name)):
        assert env.spec.max_episode_steps == family.ticks
        dt = load_robot(family.robot).interface.control_dt
        assert env.metadata["render_fps"] == pytest.approx(1 / dt)
    copied = gymnasium.make_vec(gymnasium.make_vec(name, num_envs=2, max_episode_steps=3).spec)
    assert (copied.num_envs, copied.world.max_episode_steps) == (2, 3)


@pytest.mark.parametrize("steps", [25, 100])  # the family's own: 50
def test_max_episode_steps_is_the_length_of_an_episode(steps):
    env = gymnasium.make(BANDITS, max_episode_steps=steps)
    assert env.spec.max_episode_steps == steps
    wrapped = gymnasium.wrappers.TimeAwareObservation(env)
    assert wrapped.reset(seed=0)[0].shape == (env.observation_space.shape[0] + 1,)
    vector = gymnasium.make_vec(BANDITS, num_envs=2, max_episode_steps=steps)
    env.reset(seed=0)
    vector.reset(seed=0)
    for tick in range(steps):
        assert env.step(np.zeros(2))[2:4] == (False, tick == steps - 1)
        assert vector.step(np.zeros((2, 2)))[3].tolist() == [tick == steps - 1] * 2


def test_an_episode_without_a_limit_goes_on():
    env = gymnasium.make(BANDITS, max_episode_steps=-1)
    vector = gymnasium.make_vec(BANDITS, max_episode_steps=-1)
    env.reset(seed=0)
    vector.reset(seed=0)
    for _ in range(120):
        assert env.step(np.zeros(2))[2:4] == (False, False)
        assert not vector.step(np.zeros((1, 2)))[3].any()


# Wrappers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_gymnasiums_vector_wrappers_understand_it(touch, mode):
    env = gymnasium.make_vec(touch, num_envs=8, autoreset_mode=mode)
    env = DictInfoToList(RecordEpisodeStatistics(env))
    env.reset(seed=0)
    total, count, done = np.zeros(8), np.zeros(8, int), np.zeros(8, bool)
    for action in actions(30, 8, 2):
        _, reward, terminated, truncated, infos = env.step(action)
        ran = ~done if mode == AutoresetMode.NEXT_STEP else np.ones(8, bool)
        total, count, done = total + reward, count + ran, terminated | truncated
        for b, info in enumerate(infos):
            last = info if mode == AutoresetMode.NEXT_STEP else info.get("final_info", {})
            assert ("episode" in info) == bool(done[b])
            assert ("success" in last) == (bool(done[b]) or (last is info and bool(ran[b])))
            if "episode" in info:
                assert last["success"] == terminated[b]
                assert (info["episode"]["r"], info["episode"]["l"]) == (total[b], count[b])
                total[b] = count[b] = 0


def test_wrappers_that_ask_for_the_next_step_mode_take_it():
    env = gymnasium.make_vec(BANDITS, num_envs=3)
    env = gymnasium.wrappers.vector.NormalizeReward(RecordEpisodeStatistics(env))
    env = gymnasium.wrappers.vector.NormalizeObservation(env)
    env.reset(seed=0)
    ended = [env.step(env.action_space.sample())[3] for _ in range(102)]
    assert sum(e.sum() for e in ended) == 6


# Registering ------------------------------------------------------------------------------


def test_every_family_is_registered():
    for name in FAMILIES:
        assert gymnasium.spec(environment_id(name)).kwargs == {"family": name}
    env = gymnasium.make("sim.envs.gym_env:mlsh/MovingBandits-v0")
    assert isinstance(env.unwrapped, TaskEnv)


REGISTER = """
import gymnasium, warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import sim.envs.gym_env
print(*(str(each.message) for each in seen))
print(gymnasium.spec("mlsh/Stay-v0").max_episode_steps, "mlsh/Gone-v0" in gymnasium.registry)
"""


def test_families_of_installed_packages_are_registered_and_bad_ones_are_told(tmp_path):
    point = "mlsh_ros.task_families"
    write_family(write_package(tmp_path, "theirs", {f"{point} stay": "theirs:Stay"}) / "theirs.py")
    write_package(tmp_path, "other", {f"{point} gone": "other:Gone"})
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(sim.__file__).parents[1]}"}
    command = [sys.executable, "-c", REGISTER]
    ran = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert ran.stderr == ""
    warning, registered = ran.stdout.splitlines()
    assert "task family 'gone'" in warning
    assert registered == "20 False"
