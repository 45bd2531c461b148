"""The task families as gymnasium environments, alone and many at once."""

import copy
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from sim.envs.gym_env import TaskEnv, environment_id, make_vector
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.physics.robot_model import load_robot, robot_names
from sim.tasks.registry import FAMILIES, make_family
from tests.support import touch as touch_family
from tests.support.graphics import GL

BANDITS = "mlsh/MovingBandits-v0"
IDS = {environment_id(name): name for name in FAMILIES}
# With the robots that a family is not meant for but fits; on legs, they show nothing else.
PAIRS = [
    (name, robot)
    for name, family in IDS.items()
    for robot in robot_names()
    if robot != "ant" or FAMILIES[family].robot == robot
    if {t.name for t in load_robot(robot).interface.observation} >= {*FAMILIES[family].requires}
]
MODES = list(AutoresetMode)
BOTH = pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda *a, **k: gymnasium.make(*a, **k), id="make"),
        pytest.param(lambda *a, **k: gymnasium.make_vec(*a, num_envs=2, **k), id="make_vec"),
    ],
)


@pytest.fixture
def touch():
    """The name of an environment whose family terminates."""
    with touch_family.registered() as name:
        yield name


def actions(count: int, b: int, a: int, seed: int = 0) -> np.ndarray:
    """(count, B, A) that lead somewhere: a direction per row, and noise."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-0.3, 0.3, (count, b, a))
    return (rng.uniform(-0.7, 0.7, (b, a)) + noise).astype(np.float32)


def one_line(error: pytest.ExceptionInfo) -> None:
    assert "\n" not in str(error.value)


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


def agree(ours, theirs) -> tuple:
    """What both return, which is the same to the bit, the infos and their types included."""
    assert data_equivalence(ours, theirs, exact=True), (ours, theirs)
    return ours


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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", IDS)
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


# What is refused --------------------------------------------------------------------------


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


# Registering ------------------------------------------------------------------------------


def test_every_family_is_registered():
    for name in FAMILIES:
        assert gymnasium.spec(environment_id(name)).kwargs == {"family": name}
    env = gymnasium.make("sim.envs.gym_env:mlsh/MovingBandits-v0")
    assert isinstance(env.unwrapped, TaskEnv)
