"""Many robots at once are gymnasium's own vector of single environments."""

import copy
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from sim.envs.gym_env import make_vector
from sim.physics.robot_model import load_robot, robot_names
from sim.tasks.registry import FAMILIES, make_family
from tests.support import touch as touch_family
from tests.support.gymnasium_envs import BANDITS, BOTH, IDS, actions, agree
from tests.support.robots import lacks

# With the robots that a family is not meant for but fits; on legs, they show nothing else.
PAIRS = [
    (name, robot)
    for name, family in IDS.items()
    for robot in robot_names()
    if robot not in ("ant", "go2") or FAMILIES[family].robot == robot
    if not lacks(load_robot(robot).interface, FAMILIES[family])
]
MODES = list(AutoresetMode)
# The modes are the same for all families: each of them for one of each robot.
IN_EVERY_MODE = (
    "moving_bandits",
    "body_bandits",
    "ant_obstacles",
    "mazes",
    "reach_sequence",
    "table_reach",
)
CASES = [
    (name, mode)
    for name, family in IDS.items()
    for mode in MODES
    if mode == AutoresetMode.NEXT_STEP or family in IN_EVERY_MODE
]


@pytest.fixture
def touch():
    """The name of an environment whose family terminates."""
    with touch_family.registered() as name:
        yield name


# gymnasium's own vector is the reference --------------------------------------------------


def both(name: str, num_envs: int, mode: AutoresetMode, **kwargs):
    """Our vector environment, and gymnasium's around single environments."""
    ours = gymnasium.make_vec(name, num_envs=num_envs, autoreset_mode=mode, **kwargs)
    theirs = gymnasium.make_vec(
        name,
        num_envs=num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        **kwargs,
    )
    assert type(theirs.unwrapped).__name__ == "SyncVectorEnv"
    assert ours.metadata == theirs.metadata
    return ours, theirs


def compare(name: str, mode: AutoresetMode, steps: int, **kwargs) -> int:
    """Do in both all that a user may do; returns the number of episodes that ended."""
    ours, theirs = both(name, 3, mode, **kwargs)
    tasks, ended = ours.world.family.tasks, 0

    def reset(**given):
        return agree(*(env.reset(**copy.deepcopy(given)) for env in (ours, theirs)))

    reset(seed=[5, 9, 5])
    for tick, action in enumerate(actions(steps, 3, ours.single_action_space.shape[0])):
        mine, other = ours.step(action), theirs.step(action)
        np.bitwise_and(other[3], ~other[2], out=other[3])  # TimeLimit looks at the time alone
        _, _, terminated, truncated, _ = agree(mine, other)
        done = terminated | truncated
        ended += done.sum()
        if mode == AutoresetMode.DISABLED and done.any():
            reset(options={"reset_mask": done})
        if tick == 10:
            mask = np.array([False, True, True])
            reset(seed=[None, 3, None], options={"reset_mask": mask, "task": tasks[-1]})
        if tick == 20:
            reset(options={"task": tasks[0]})
        if tick == 30:
            reset(seed=[None, 4, 8])
    return ended


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_it_is_gymnasiums_own_vector_of_single_environments(name, mode):
    assert compare(name, mode, 40, max_episode_steps=7) >= 9


@pytest.mark.parametrize(
    ("name", "robot"), [(n, r) for n, r in PAIRS if FAMILIES[IDS[n]].robot != r]
)
def test_so_it_is_with_every_robot(name, robot):
    assert compare(name, AutoresetMode.NEXT_STEP, 12, max_episode_steps=5, robot=robot) >= 3


@pytest.mark.parametrize("mode", MODES)
def test_so_it_is_where_episodes_terminate_and_with_a_fixed_task(touch, mode):
    assert compare(touch, mode, 150) >= 4
    assert compare(BANDITS, mode, 40, max_episode_steps=7, task="goal-1") >= 9


def test_an_episode_of_the_familys_own_length_is_gymnasiums_too():
    ours, theirs = both(BANDITS, 1, AutoresetMode.NEXT_STEP, task="goal-1")
    agree(ours.reset(seed=5), theirs.reset(seed=5))
    action = ours.action_space.sample()
    ends = sum(bool(agree(ours.step(action), theirs.step(action))[3]) for _ in range(120))
    assert ends == 2


def test_it_is_gymnasiums_vector_of_processes_too():
    kwargs = {"num_envs": 2, "max_episode_steps": 3}
    theirs = gymnasium.make_vec(BANDITS, vectorization_mode="async", **kwargs)
    try:
        ours = gymnasium.make_vec(BANDITS, **kwargs)
        agree(ours.reset(seed=[1, 2]), theirs.reset(seed=[1, 2]))
        for action in actions(6, 2, 2):
            agree(ours.step(action), theirs.step(action))
    finally:
        theirs.close()


def test_the_last_observation_is_kept_and_is_not_the_first_of_the_next(touch):
    env = gymnasium.make_vec(touch, num_envs=16, autoreset_mode=AutoresetMode.SAME_STEP)
    observation, _ = env.reset(seed=0)
    for action in actions(60, 16, 2):
        before, (observation, _, terminated, truncated, info) = observation, env.step(action)
        done = terminated | truncated
        if not done.any():
            assert not {"final_obs", "final_info", "task"} & set(info)
            continue
        np.testing.assert_array_equal(info["_final_obs"], done)
        assert [each is None for each in info["final_obs"]] == (~done).tolist()
        final = np.stack(info["final_obs"][done])
        # The last position is a tick from where it was; the next episode begins at the origin.
        moved = np.abs(final[:, :2] - before[done, :2])
        assert ((moved > 0) & (moved <= 0.1)).all()
        np.testing.assert_array_equal(observation[done, :4], 0)
        # Goals stay through an episode and are drawn anew for the next.
        np.testing.assert_array_equal(final[:, 4:], before[done, 4:])
        assert (observation[done, 4:] != before[done, 4:]).all()


def test_termination_and_truncation_stay_apart(touch):
    env = make_vector("touch", 64, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    count, reasons = np.zeros(64, int), []
    for action in actions(40, 64, 2):
        _, reward, terminated, truncated, info = env.step(action)
        count += 1
        assert not (terminated & truncated).any()
        # This family terminates exactly where it pays; truncation is the 9th tick without that.
        np.testing.assert_array_equal(terminated, reward == 1)
        np.testing.assert_array_equal(truncated, (count == 9) & ~terminated)
        if "final_info" in info:
            np.testing.assert_array_equal(info["final_info"]["success"], terminated)
        done = terminated | truncated
        reasons += [(count[b], bool(terminated[b])) for b in np.flatnonzero(done)]
        count[done] = 0
    assert (9, False) in reasons
    assert (9, True) in reasons  # solved by the very last tick: terminated
    assert any(ticks < 9 for ticks, _ in reasons)


# Tasks and seeds --------------------------------------------------------------------------


def test_a_task_is_drawn_for_every_episode_unless_one_is_given():
    for task, expected in ((None, {0, 1, 2}), ("sector-1", {1})):
        env = gymnasium.make_vec(
            "mlsh/RingBandits-v0", num_envs=4, task=task, autoreset_mode=AutoresetMode.SAME_STEP
        )
        env.reset(seed=0)
        seen = [set() for _ in range(4)]
        for action in actions(50 * 12, 4, 2):
            for b in range(4):
                seen[b].add(int(env.tasks[b]))
            env.step(action)
        # Twelve draws miss one of three with 3 (2/3)^12 = 2 %; four rows, this seed: none.
        assert seen == [expected] * 4


@pytest.mark.parametrize("name", IDS)
def test_a_task_may_be_chosen_for_an_episode(name):
    family = make_family(IDS[name])
    env, vector = gymnasium.make(name), gymnasium.make_vec(name, num_envs=len(family.tasks))
    for task in family.tasks:
        assert env.reset(seed=0, options={"task": task})[1] == {"task": task}
        assert vector.reset(options={"task": task})[1]["task"].tolist() == [task] * len(
            family.tasks
        )
    _, info = vector.reset(options={"task": list(family.tasks)})
    assert info["task"].tolist() == list(family.tasks)
    assert vector.tasks.tolist() == list(range(len(family.tasks)))


def test_a_chosen_task_is_that_of_one_episode():
    """And the episodes after it are those that they would have been."""
    for task in (None, "sector-0"):
        env, plain = (gymnasium.make("mlsh/RingBandits-v0", task=task) for _ in range(2))
        env.reset(seed=1, options={"task": "sector-2"})
        plain.reset(seed=1)
        agree(env.reset(), plain.reset())


def test_a_task_of_some_environments():
    env = gymnasium.make_vec("mlsh/RingBandits-v0", num_envs=3, task="sector-0")
    _, info = env.reset(options={"task": [None, "sector-2", None]})
    assert info["task"].tolist() == ["sector-0", "sector-2", "sector-0"]


def test_without_a_seed_every_environment_is_another():
    for make in (
        lambda: gymnasium.make(BANDITS).reset()[0],
        lambda: gymnasium.make_vec(BANDITS, num_envs=2).reset()[0],
    ):
        assert (make() != make()).any()


def test_a_single_environment_uses_every_episode_of_the_run():
    """They are those of row 0; a reset in between skips to the next."""
    env = gymnasium.make(BANDITS)
    vector = gymnasium.make_vec(BANDITS, num_envs=3)
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


def test_the_generator_that_gymnasium_keeps_has_the_seed():
    env, vector = gymnasium.make(BANDITS), gymnasium.make_vec(BANDITS, num_envs=2)
    for each in (env, vector):
        each.reset(seed=3)
        assert each.unwrapped.np_random_seed == 3
        draws = each.unwrapped.np_random.random(3)
        np.testing.assert_array_equal(draws, gymnasium.utils.seeding.np_random(3)[0].random(3))


# A part of the environments ---------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_resets_its_rows_and_disturbs_no_other(mode):
    env, plain = (
        gymnasium.make_vec(BANDITS, num_envs=4, autoreset_mode=mode, max_episode_steps=30)
        for _ in range(2)
    )
    before, _ = env.reset(seed=0)
    plain.reset(seed=0)
    mask, options = np.array([True, False, True, False]), {}
    for tick, action in enumerate(actions(25, 4, 2)):
        if tick == 10:
            options["reset_mask"] = mask
            shown, info = env.reset(options=options)
            assert set(options) == {"reset_mask"}  # a wrapper still finds it
            np.testing.assert_array_equal(info["_task"], mask)
            np.testing.assert_array_equal(shown[~mask], before[~mask])
            assert (shown[mask] != before[mask]).any(axis=1).all()
            assert env.world.ticks.tolist() == [0, 10, 0, 10]
        before, *_ = env.step(action)
        np.testing.assert_array_equal(before[~mask], plain.step(action)[0][~mask])


def test_a_seed_with_a_mask_is_that_of_its_rows():
    env, whole = (gymnasium.make_vec(BANDITS, num_envs=3) for _ in range(2))
    env.reset(seed=0)
    mask = np.array([False, True, True])
    shown, _ = env.reset(seed=7, options={"reset_mask": mask})
    np.testing.assert_array_equal(shown[mask], whole.reset(seed=7)[0][mask])
    np.testing.assert_array_equal(shown[0], whole.reset(seed=0)[0][0])


# Copies -----------------------------------------------------------------------------------

COPIES = pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))],
    ids=["deepcopy", "pickle"],
)


def go_on(env, count: int) -> list:
    """What an environment shows; it chooses its actions, and is reset where it has to be."""
    shown = []
    for _ in range(count):
        shown.append(env.step(env.action_space.sample()))
        ended = np.logical_or(*shown[-1][2:4])
        if isinstance(ended, np.ndarray):
            disabled = env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
            if disabled and ended.any():
                shown.append(env.reset(options={"reset_mask": ended}))
        elif ended:
            shown.append(env.reset())
    return shown


@COPIES
@pytest.mark.parametrize("mode", [None, *MODES])
def test_copies_and_pickles_go_on_alike(copied, mode):
    if mode is None:
        env = gymnasium.make(BANDITS)
        env.reset(seed=3)
    else:
        env = gymnasium.make_vec(BANDITS, num_envs=2, autoreset_mode=mode)
        env.reset(seed=[3, 8])
    env.action_space.seed(0)
    go_on(env, 30)
    early = copied(env)
    go_on(env, 19)
    go_on(early, 19)
    late = copied(env)  # a tick before the end of the episode
    assert late.spec == env.spec
    assert late.unwrapped.np_random.random() == env.unwrapped.np_random.random()
    agree(go_on(env, 30), go_on(late, 30))
    go_on(early, 30)
    agree(env.reset(), early.reset())


@COPIES
@BOTH
def test_a_copy_of_what_has_not_begun_needs_a_reset_too(make, copied):
    env = copied(make(BANDITS, max_episode_steps=3))
    with pytest.raises(ResetNeeded):
        env.step(env.action_space.sample())
    env.reset(seed=0)
    go_on(env, 8)
