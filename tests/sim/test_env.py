"""The vector environment: noise, and simulations that diverge."""

from dataclasses import replace

import numpy as np
import pytest

from sim.envs.vec_env import TaskVectorEnv
from sim.envs.world import World
from sim.physics.robot_model import Robot, load_robot
from sim.tasks.registry import make_family
from tests.support.robots import odd_robot


def actions(count: int, b: int, a: int, seed: int = 0) -> np.ndarray:
    """(count, B, A) that lead somewhere: a direction per row, and noise."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-0.3, 0.3, (count, b, a))
    return (rng.uniform(-0.7, 0.7, (b, a)) + noise).astype(np.float32)


def test_tasks_must_fit_the_groups():
    robot, family = load_robot("omni"), make_family("moving_bandits")
    with pytest.raises(ValueError, match=r"3 groups need as many tasks, got \[0, 1\]"):
        TaskVectorEnv(robot, family, groups=3, envs=1, tasks=[0, 1])
    with pytest.raises(ValueError, match="redraw needs groups of one"):
        TaskVectorEnv(robot, family, groups=3, envs=2, redraw=True)


# Noise ------------------------------------------------------------------------------------


def noisy(robot: Robot, **deviations: float) -> Robot:
    """The robot with other noise on some of its terms."""
    terms = tuple(
        replace(t, noise=deviations.get(t.name, t.noise)) for t in robot.interface.observation
    )
    return replace(robot, interface=replace(robot.interface, observation=terms))


def test_declared_noise_is_applied_and_nothing_else_changes():
    robot, family = noisy(load_robot("omni"), position=0.2), make_family("moving_bandits")
    loud, quiet = (
        TaskVectorEnv(robot, family, groups=1, envs=500, noise=noise, tasks=[0])
        for noise in (True, False)
    )
    noises = [loud.reset(seed=3)[0] - quiet.reset(seed=3)[0]]
    for action in 0.15 * actions(55, 500, 2):
        (mine, *rest, info), (true, *others, true_info) = loud.step(action), quiet.step(action)
        for one, two in zip(rest, others, strict=True):
            np.testing.assert_array_equal(one, two)
        noises.append(mine - true)
        assert ("final_obs" in info) == ("final_obs" in true_info)
        if "final_obs" in info:  # what the sensors show is not what the task judges
            success, final = info["final_info"]["success"], np.stack(info["final_obs"])
            np.testing.assert_array_equal(success, true_info["final_info"]["success"])
            assert 0.02 < success.mean() < 0.98
            assert (final[:, :2] != np.stack(true_info["final_obs"])[:, :2]).any(axis=1).all()
    noise = np.stack(noises)[:, :, :2]
    assert (np.stack(noises)[:, :, 2:] == 0).all()
    # 56 x 500 x 2 draws of deviation 0.2: mean within 4 x 0.2 / sqrt(56000) = 0.0034
    assert noise.mean() == pytest.approx(0, abs=0.0034)
    assert noise.std() == pytest.approx(0.2, rel=0.02)
    # Independent over time, rows and elements.
    flat = noise.reshape(56, -1)
    assert abs(np.corrcoef(flat[:-1].ravel(), flat[1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03


def test_noise_is_in_the_terms_own_unit_before_scale_and_clip(tmp_path):
    robot, family = noisy(odd_robot(tmp_path), angle=0.1), make_family("moving_bandits")
    env = TaskVectorEnv(robot, family, groups=1, envs=4000, tasks=[0])
    angle = env.reset(seed=0)[0][:, 0]
    # The joint stands at 0; 0.1 rad x scale 2 = 0.2, clipped at 0.5: 2.5 deviations
    assert np.median(np.abs(angle)) == pytest.approx(0.6745 * 0.2, rel=0.05)
    assert np.abs(angle).max() == 0.5
    assert (np.abs(angle) == 0.5).mean() == pytest.approx(0.0124, abs=0.006)


def test_noise_is_reproducible():
    robot, family = noisy(load_robot("omni"), velocity=0.1), make_family("moving_bandits")
    one, two = (TaskVectorEnv(robot, family, groups=2, envs=3, seed=4) for _ in range(2))
    first = one.reset()[0]
    np.testing.assert_array_equal(first, two.reset()[0])
    for action in actions(5, 6, 2):
        np.testing.assert_array_equal(one.step(action)[0], two.step(action)[0])
    assert (one.reset(seed=5)[0][:, 2:4] != first[:, 2:4]).all()


# Simulations that diverge -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"), [("qpos", np.nan), ("qvel", np.inf), ("qpos", 1e12), ("qvel", -1e15)]
)
def test_a_diverged_simulation_ends_and_poisons_nothing(tmp_path, monkeypatch, field, value):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT where it stands
    # A radius that covers everything: each tick pays 1 and would count as a success.
    robot, family = load_robot("omni"), make_family("moving_bandits", {"radius": 100.0})
    env, twin = (TaskVectorEnv(robot, family, groups=2, envs=3, seed=1) for _ in range(2))
    env.reset()
    twin.reset()
    others = np.arange(6) != 4
    for tick, action in enumerate(actions(110, 6, 2)):
        if tick == 20:
            env.world.physics.batch.bind(field)[4, 1] = value
        got, expected = env.step(action), twin.step(action)
        for mine, theirs in zip(got[:4], expected[:4], strict=True):
            np.testing.assert_array_equal(mine[others], theirs[others])
            assert np.isfinite(mine).all()
        _, reward, terminated, truncated, info = got
        if tick < 20:
            assert env.diverged == 0
        if tick == 20:
            assert reward.tolist() == [1, 1, 1, 1, 0, 1]
            assert not terminated.any()
            assert truncated.tolist() == [False] * 4 + [True, False]
            assert env.diverged == 1
            assert np.isfinite(info["final_obs"][4]).all()
            assert info["_final_obs"].tolist() == [False] * 4 + [True, False]
            assert not info["final_info"]["success"].any()
    assert env.diverged == 1
    # What it takes to repeat it is kept; a world that never failed fails from there, too.
    (failure,) = env.world.failures
    assert (failure.simulation, failure.tick) == (4, 20)
    assert World(robot, family, 1).repeat(failure)
    sound = replace(failure, state=np.nan_to_num(twin.world.physics.batch.state[4]))
    assert not World(robot, family, 1).repeat(sound)
    # It ended at 21 and at 71, the twin at 50 and at 100: after 110 both show the third episode.
    np.testing.assert_array_equal(got[0][4, 4:], expected[0][4, 4:])
    assert (env.world.ticks[4], twin.world.ticks[4]) == (110 - 71, 110 - 100)


def test_a_world_ends_an_episode_whose_command_is_not_finite(tmp_path, monkeypatch):
    """sim_node obeys whoever sends; such a command must not stay in force."""
    monkeypatch.chdir(tmp_path)
    world = World(load_robot("omni"), make_family("moving_bandits"), 2)
    rngs = [np.random.default_rng(i) for i in range(2)]
    world.reset(np.arange(2, dtype=np.int32), [0, 0], rngs)
    for _ in range(5):
        world.step_command(np.full((2, 2), 0.5))
    fields, outcome = world.step_command(np.array([[0.5, np.nan], [0.5, 0.5]]))
    assert outcome.diverged.tolist() == [True, False]
    assert outcome.truncated.tolist() == [True, False]
    assert (fields["position"][0] == 0).all()  # at the model's defaults again
    assert (fields["position"][1] > 0).all()
    assert not world.physics.diverged().any()
    world.reset(np.array([0], np.int32), [0], rngs[:1])
    _, outcome = world.step(np.full((2, 2), 0.5, np.float32))
    assert not outcome.diverged.any()
