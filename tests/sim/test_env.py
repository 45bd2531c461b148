"""The vector environment as gymnasium knows it, noise, and simulations that diverge."""

import copy
import pickle
import warnings
from dataclasses import replace
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from pydantic.dataclasses import dataclass

from sim.envs.gym_env import environment_id, make_vector
from sim.envs.vec_env import TaskVectorEnv
from sim.envs.world import World
from sim.errors import UserError
from sim.interface import STRICT
from sim.physics.robot_model import Robot, load_robot
from sim.tasks.moving_bandits import MovingBandits
from sim.tasks.registry import FAMILIES, make_family
from tests.support.robots import odd_robot


@dataclass(frozen=True, config=STRICT)
class Touch(MovingBandits):
    """Ends when the robot touches the goal that counts; short enough for both ways to happen."""

    name: ClassVar[str] = "touch"

    ticks: int = 9

    def terminated(self, layout, fields):
        return self.success(layout, fields)


@pytest.fixture
def touch(monkeypatch) -> str:
    """The gymnasium name of a family that terminates, known in this test only."""
    monkeypatch.setitem(FAMILIES, "touch", Touch)
    name = environment_id("touch")
    spec = gymnasium.spec(environment_id("moving_bandits"))
    gymnasium.register(
        name,
        entry_point=spec.entry_point,
        vector_entry_point=spec.vector_entry_point,
        kwargs={"family": "touch"},
    )
    yield name
    del gymnasium.registry[name]


IDS = [environment_id(name) for name in FAMILIES]


def actions(count: int, b: int, a: int, seed: int = 0) -> np.ndarray:
    """(count, B, A) that lead somewhere: a direction per row, and noise."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-0.3, 0.3, (count, b, a))
    return (rng.uniform(-0.7, 0.7, (b, a)) + noise).astype(np.float32)


# gymnasium --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker_passes(name):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_env(gymnasium.make(name).unwrapped)
    for warning in seen:  # an observation has no bounds, and that is how it is
        assert "infinity" in str(warning.message)


@pytest.mark.filterwarnings("ignore:.*infinity")
def test_gymnasiums_checker_passes_where_episodes_terminate(touch):
    check_env(gymnasium.make(touch).unwrapped)


@pytest.mark.parametrize("name", IDS)
def test_spaces(name):
    env, vector = gymnasium.make(name), gymnasium.make_vec(name, num_envs=3)
    assert isinstance(vector, TaskVectorEnv)
    assert vector.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
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
    assert info == {}
    observation, *rest, _ = vector.step(vector.action_space.sample())
    assert observation in vector.observation_space
    assert [r.shape for r in rest] == [(3,)] * 3
    assert [r.dtype for r in rest] == [np.float64, bool, bool]


@pytest.mark.parametrize("which", [*IDS, "touch"])
def test_alone_in_gymnasiums_own_vector_or_in_ours_it_is_the_same(which, touch):
    """gymnasium's SyncVectorEnv around the single environment is the reference, bit for bit."""
    name = touch if which == "touch" else which
    short = {} if which == "touch" else {"parameters": {"ticks": 50}}
    ours = gymnasium.make_vec(name, num_envs=1, **short)
    theirs = gymnasium.make_vec(
        name,
        num_envs=1,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **short,
    )
    assert type(theirs.unwrapped).__name__ == "SyncVectorEnv"
    mine, _ = ours.reset(seed=5)
    other, _ = theirs.reset(seed=5)
    np.testing.assert_array_equal(mine, other)
    ends = 0
    for action in actions(230, 1, ours.single_action_space.shape[0]):
        (mine, *rest, info), (other, *others, their_info) = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(mine, other)
        for one, two in zip(rest, others, strict=True):
            np.testing.assert_array_equal(one, two)
        assert ("final_obs" in info) == ("final_obs" in their_info)
        if info:
            ends += 1
            np.testing.assert_array_equal(info["_final_obs"], their_info["_final_obs"])
            np.testing.assert_array_equal(info["final_obs"], np.stack(their_info["final_obs"]))
            assert info["success"] == their_info["final_info"]["success"]
    assert ends >= 4  # in 230 ticks of episodes of at most 50


def test_the_last_observation_is_kept_and_is_not_the_first_of_the_next(touch):
    env = gymnasium.make_vec(touch, num_envs=16)
    observation, _ = env.reset(seed=0)
    for action in actions(60, 16, 2):
        before, (observation, _, terminated, truncated, info) = observation, env.step(action)
        done = terminated | truncated
        if not done.any():
            assert info == {}
            continue
        np.testing.assert_array_equal(info["_final_obs"], done)
        final = info["final_obs"]
        # The last position is a tick from where it was; the next episode begins at the origin.
        moved = np.abs(final[done, :2] - before[done, :2])
        assert ((moved > 0) & (moved <= 0.1)).all()
        np.testing.assert_array_equal(observation[done, :4], 0)
        np.testing.assert_array_equal(observation[~done], final[~done])
        # Goals stay through an episode and are drawn anew for the next.
        np.testing.assert_array_equal(final[done, 4:], before[done, 4:])
        assert (observation[done, 4:] != before[done, 4:]).all()
        assert not np.shares_memory(final, observation)


def test_termination_and_truncation_stay_apart(touch):
    env = make_vector("touch", 64)
    env.reset(seed=0)
    count, reasons = np.zeros(64, int), []
    for action in actions(40, 64, 2):
        _, reward, terminated, truncated, info = env.step(action)
        count += 1
        assert not (terminated & truncated).any()
        # This family terminates exactly where it pays; truncation is the 9th tick without that.
        np.testing.assert_array_equal(terminated, reward == 1)
        np.testing.assert_array_equal(truncated, (count == 9) & ~terminated)
        if info:
            np.testing.assert_array_equal(info["success"], terminated)
        done = terminated | truncated
        reasons += [(count[b], bool(terminated[b])) for b in np.flatnonzero(done)]
        count[done] = 0
    assert (9, False) in reasons
    assert (9, True) in reasons  # solved by the very last tick: terminated
    assert any(ticks < 9 for ticks, _ in reasons)


def test_gymnasiums_vector_wrappers_understand_it(touch):
    env = DictInfoToList(RecordEpisodeStatistics(gymnasium.make_vec(touch, num_envs=8)))
    env.reset(seed=0)
    total, count = np.zeros(8), np.zeros(8, int)
    for action in actions(30, 8, 2):
        _, reward, terminated, truncated, infos = env.step(action)
        total, count = total + reward, count + 1
        for b, info in enumerate(infos):
            assert ("success" in info) == ("episode" in info) == bool(terminated[b] | truncated[b])
            if "episode" in info:
                assert (info["episode"]["r"], info["episode"]["l"]) == (total[b], count[b])
                total[b] = count[b] = 0


def test_a_task_is_drawn_for_every_episode_unless_one_is_given():
    for task, expected in ((None, {0, 1, 2}), ("sector-1", {1})):
        env = gymnasium.make_vec("mlsh/RingBandits-v0", num_envs=4, task=task)
        env.reset(seed=0)
        seen = [set() for _ in range(4)]
        for action in actions(50 * 12, 4, 2):
            for b in range(4):
                seen[b].add(int(env.tasks[b]))
            env.step(action)
        # Twelve draws miss one of three with 3 (2/3)^12 = 2 %; four rows, this seed: none.
        assert seen == [expected] * 4


def test_without_a_seed_every_environment_is_another():
    for make in (
        lambda: gymnasium.make(IDS[0]).reset()[0],
        lambda: gymnasium.make_vec(IDS[0], num_envs=2).reset()[0],
    ):
        assert (make() != make()).any()


def test_a_single_environment_uses_every_episode_of_the_run():
    """They are those of row 0; a reset in between skips to the next."""
    env = gymnasium.make(IDS[0]).unwrapped
    vector = gymnasium.make_vec(IDS[0], num_envs=3)
    first, _ = vector.reset(seed=9)
    second, _ = vector.reset()
    third, _ = vector.reset()
    np.testing.assert_array_equal(env.reset(seed=9)[0], first[0])
    for _ in range(50):
        _, _, _, truncated, info = env.step(np.zeros(2, np.float32))
    assert truncated
    assert info == {"success": False}
    np.testing.assert_array_equal(env.reset()[0], second[0])
    env.step(np.zeros(2, np.float32))
    np.testing.assert_array_equal(env.reset()[0], third[0])
    for _ in range(50):
        env.step(np.zeros(2, np.float32))
    np.testing.assert_array_equal(env.reset(seed=9)[0], first[0])  # also where one has ended


@pytest.mark.parametrize("make", [gymnasium.make, lambda *a, **k: gymnasium.make_vec(*a, **k)])
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
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(make, arguments, message):
    with pytest.raises(UserError, match=message) as info:
        make("mlsh/MovingBandits-v0", **arguments)
    assert "\n" not in str(info.value)


def test_tasks_must_fit_the_groups():
    robot, family = load_robot("omni"), make_family("moving_bandits")
    with pytest.raises(ValueError, match=r"3 groups need as many tasks, got \[0, 1\]"):
        TaskVectorEnv(robot, family, groups=3, envs=1, tasks=[0, 1])
    with pytest.raises(ValueError, match="redraw needs groups of one"):
        TaskVectorEnv(robot, family, groups=3, envs=2, redraw=True)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (4, 1), (4, 3)])
def test_actions_for_others_are_refused(shape):
    env = make_vector("moving_bandits", 4)
    env.reset(seed=0)
    before = env.snapshot()
    with pytest.raises(ValueError, match="action has shape"):
        env.step(np.zeros(shape, np.float32))
    for name, value in env.snapshot().items():
        np.testing.assert_array_equal(value, before[name])


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
        assert bool(info) == bool(true_info)
        if info:  # what the sensors show is not what the task judges
            np.testing.assert_array_equal(info["success"], true_info["success"])
            assert 0.02 < info["success"].mean() < 0.98
            assert (info["final_obs"][:, :2] != true_info["final_obs"][:, :2]).any(axis=1).all()
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
            assert np.isfinite(info["final_obs"]).all()
            assert info["_final_obs"].tolist() == [False] * 4 + [True, False]
            assert not info["success"].any()
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


# What gymnasium's users try ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda: gymnasium.make(IDS[0]), lambda: gymnasium.make_vec(IDS[0], num_envs=2)]
)
def test_step_needs_reset_and_reset_has_no_options(make):
    env = make().unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded, match="step before reset"):
        env.step(env.action_space.sample())
    with pytest.raises(UserError, match=r"takes no options, got .*task=NAME"):
        env.reset(options={"task": "goal-1"})
    env.reset(options={})
    env.step(env.action_space.sample())


def test_the_spec_says_how_long_an_episode_is():
    for ticks in (25, 100):
        env = gymnasium.make("mlsh/MovingBandits-v0", parameters={"ticks": ticks})
        assert env.spec.max_episode_steps == ticks
        wrapped = gymnasium.wrappers.TimeAwareObservation(env)
        assert wrapped.reset(seed=0)[0].shape == (env.observation_space.shape[0] + 1,)


def test_a_render_mode_that_there_is_not_is_said():
    gymnasium.make(IDS[0], render_mode=None)
    with pytest.raises(UserError, match=r"no render_mode 'rgb_array'\. Valid: None"):
        gymnasium.make(IDS[0], render_mode="rgb_array")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
@pytest.mark.parametrize(
    "make", [lambda: gymnasium.make(IDS[0]), lambda: gymnasium.make_vec(IDS[0], num_envs=2)]
)
def test_copies_and_pickles_go_on_alike(make, copied):
    env = make().unwrapped
    action = env.action_space.sample() * 0 + 0.5
    env.reset(seed=3)
    for _ in range(30):
        env.step(action)
    other = copied(env)
    for _ in range(40):  # past the end of the episode
        one, two = env.step(action), other.step(action)
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])
    copied(make().unwrapped).reset()


def test_the_next_step_mode_is_gymnasiums_own():
    how = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    ours = gymnasium.make_vec(IDS[0], num_envs=1, task="goal-1", **how)
    theirs = gymnasium.make_vec(
        IDS[0], num_envs=1, task="goal-1", vectorization_mode="sync", vector_kwargs=how
    )
    assert ours.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    np.testing.assert_array_equal(ours.reset(seed=5)[0], theirs.reset(seed=5)[0])
    action = ours.action_space.sample()
    for _ in range(120):  # two ends of an episode
        for one, two in zip(ours.step(action)[:4], theirs.step(action)[:4], strict=True):
            np.testing.assert_array_equal(one, two)


def test_wrappers_that_ask_for_the_next_step_mode_take_it():
    env = gymnasium.make_vec(IDS[0], num_envs=3, autoreset_mode=AutoresetMode.NEXT_STEP)
    env = gymnasium.wrappers.vector.NormalizeReward(RecordEpisodeStatistics(env))
    env = gymnasium.wrappers.vector.NormalizeObservation(env)
    env.reset(seed=0)
    ended = [env.step(env.action_space.sample())[3] for _ in range(102)]
    assert sum(e.sum() for e in ended) == 6
