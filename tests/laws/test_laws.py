"""Laws for every robot on every task family: determinism, independence, one observation."""

import mujoco
import numpy as np
import pytest

from sim.envs.vec_env import TaskVectorEnv
from sim.envs.world import World
from sim.errors import UserError
from sim.interface.memory import ObservationMemory
from sim.physics.mjcf_addresses import actuators, keyframe
from sim.physics.robot_model import Robot, load_robot, robot_names
from sim.seeding import Stream, episode_rng, generator
from sim.tasks.registry import FAMILIES, make_family
from sim.tasks.rewards import Rewards
from sim.tasks.rewards.parts import RobotParts
from tests.support.infos import arrays_of
from tests.support.robots import lacks, odd_interface, odd_robot

G, E, TICKS = 3, 2, 64  # longer than an episode
B = G * E


@pytest.fixture(scope="module")
def robots(tmp_path_factory) -> dict[str, Robot]:
    """The shipped ones, and one with sensors, noise, clips and offsets."""
    odd = odd_robot(tmp_path_factory.mktemp("robots") / "odd")
    return {"odd": odd, **{name: load_robot(name) for name in robot_names()}}


FEET = {"foot_position", "foot_velocity", "foot_force"}  # what only a robot with feet has
INTERFACES = {"odd": odd_interface(), **{r: load_robot(r).interface for r in robot_names()}}
# Each family with the robot that it is meant for, and with the odd one where that has what it
# needs; walls also with the robot that scans them.
PAIRS = [
    (r, f)
    for r in INTERFACES
    for f in FAMILIES
    if not lacks(INTERFACES[r], FAMILIES[f])
    and (r in ("odd", FAMILIES[f].robot) or (r, f) == ("rover", "rooms"))
]


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request) -> tuple[str, str]:
    return request.param


@pytest.fixture
def robot(pair, robots) -> Robot:
    return robots[pair[0]]


@pytest.fixture
def family(pair):
    return make_family(pair[1], {"ticks": 50})


@pytest.fixture(scope="module")
def plays():
    """By pair, what a run shows; one that another test may have made."""
    return {}


@pytest.fixture
def played(pair, robot, family, plays) -> list[np.ndarray]:
    if pair not in plays:
        plays[pair] = play(environment(robot, family))
    return plays[pair]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("which", INTERFACES)
def test_a_robot_without_what_a_family_needs_is_refused_by_name(robots, which, name):
    family, robot = make_family(name), robots[which]
    cls = FAMILIES[name]
    assert not lacks(INTERFACES[family.robot], cls)  # it fits the one that it is meant for
    missing = lacks(robot.interface, cls)
    feet = [
        e.term for e in getattr(family, "rewards", Rewards(())).terms if FEET & {*e.term.needs}
    ]
    if not missing and feet and not RobotParts(robot).feet:
        with pytest.raises(UserError, match=f"reward term '{feet[0].name}' .* names no feet"):
            World(robot, family, 1)
        return
    if not missing:
        World(robot, family, 1)
        return
    with pytest.raises(UserError) as info:
        World(robot, family, 1)
    sizes = {term.name: term.size for term in robot.interface.observation}
    has = f"has {sizes[missing[0]]}" if missing[0] in sizes else f"It has: {', '.join(sizes)}"
    for word in (repr(name), repr(missing[0]), repr(robot.name), has):
        assert word in str(info.value)


def environment(robot, family, **changes) -> TaskVectorEnv:
    return TaskVectorEnv(robot, family, **{"groups": G, "envs": E, "seed": 0, **changes})


def actions(env, count: int = TICKS) -> np.ndarray:
    """(count, B, A) that keep a direction, so that the robot gets somewhere."""
    rng = np.random.default_rng(0)
    shape = (env.num_envs, env.interface.action_size)
    return (rng.normal(0, 0.6, shape) + rng.normal(0, 0.3, (count, *shape))).astype(np.float32)


def play(env, count: int = TICKS) -> list[np.ndarray]:
    """Everything that a run shows, from the reset on."""
    observation, _ = env.reset()
    shown = [observation.copy()]
    for action in actions(env, count):
        *arrays, info = env.step(action)
        shown += [np.copy(a) for a in arrays] + arrays_of(info)
    return shown


def same(one, two) -> bool:
    return len(one) == len(two) and all(map(np.array_equal, one, two))


# Determinism ------------------------------------------------------------------------------


def test_same_seed_same_bits(robot, family, played):
    assert same(play(environment(robot, family)), played)


def test_a_seed_begins_the_run_anew(robot, family):
    env, fresh = environment(robot, family), environment(robot, family, seed=7)
    play(env)
    env.reset(seed=7)
    fresh.reset()
    for action in actions(env):
        assert same(env.step(action)[:4], fresh.step(action)[:4])


def test_another_seed_other_bits(robot, family):
    one, two = (environment(robot, family, seed=seed).reset()[0] for seed in (0, 1))
    assert (one != two).any(axis=1).all()
    assert len(np.unique(np.concatenate([one, two]), axis=0)) == 2 * B


def test_no_two_episodes_are_alike(robot, family):
    env = environment(robot, family, noise=False)
    seen = [env.reset()[0] for _ in range(20)]
    assert len(np.unique(np.concatenate(seen), axis=0)) == 20 * B


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_matter(robot, family, played, threads):
    many = environment(robot, family, threads=threads)
    assert many.world.physics.batch.nthread == threads
    assert same(played, play(many))


def test_a_row_is_that_simulation_alone(robot, family):
    """Episode n of row b is (seed, b, n) and the task, whoever else is in the batch."""
    env = environment(robot, family, noise=False)
    observation, _ = env.reset()
    episode = 0
    alone = [World(robot, family, 1) for _ in range(B)]
    memories = [ObservationMemory(env.interface, (1,)) for _ in range(B)]
    for action in [None, *actions(env)]:
        if action is not None:
            observation, reward, terminated, truncated, _ = env.step(action)
        for b, (world, memory) in enumerate(zip(alone, memories, strict=True)):
            if action is not None:
                memory.remember(observation[b : b + 1], action[b : b + 1])
                _, outcome = world.step(action[b : b + 1])
                assert outcome.reward[0] == reward[b]
                assert outcome.terminated[0] == terminated[b]
                assert outcome.truncated[0] == truncated[b]
            if action is None or truncated[b]:
                rng = generator(0, Stream.EPISODE, b, episode)
                world.reset(np.zeros(1, np.int32), [env.tasks[b // E]], [rng])
                memory.reset()
            shown = world.interface.observe(world.true_state(), memory=memory)
            np.testing.assert_array_equal(shown[0], observation[b])
        episode += action is None or bool(truncated.any())
    assert episode == 2


def test_the_evaluation_episodes_are_those_of_row_zero(robot, family):
    """So that a rollout through ROS and one in the vector environment can be compared."""
    env = environment(robot, family, noise=False, seed=5)
    for number in range(3):
        observation, _ = env.reset()
        world = World(robot, family, 1)
        world.reset(np.zeros(1, np.int32), [env.tasks[0]], [episode_rng(5, number)])
        memory = ObservationMemory(world.interface, (1,))
        shown = world.interface.observe(world.true_state(), memory=memory)
        np.testing.assert_array_equal(shown[0], observation[0])


# Independence -----------------------------------------------------------------------------


def test_beginning_one_group_disturbs_no_other(robot, family):
    """Also not the noise, which is drawn for the batch."""
    env, undisturbed = environment(robot, family), environment(robot, family)
    before, _ = env.reset()
    undisturbed.reset()
    others = np.arange(B) // E != 1
    for tick, action in enumerate(actions(env)):
        if tick in (10, 30):
            after = env.begin_group(1, tick % len(family.tasks))
            np.testing.assert_array_equal(after[others], before[others])
            assert (after[~others] != before[~others]).any(axis=1).all()
            assert (env.world.ticks[~others] == 0).all()
            np.testing.assert_array_equal(env.world.command[~others], starts(env.world)[~others])
            assert env.tasks[1] == tick % len(family.tasks)
        before, *got = env.step(action)
        expected, *rest = undisturbed.step(action)
        for mine, theirs in zip([before, *got[:3]], [expected, *rest[:3]], strict=True):
            np.testing.assert_array_equal(mine[others], theirs[others])


def test_a_snapshot_goes_on_bit_for_bit(robot, family):
    env = environment(robot, family, seed=3)
    observation, _ = env.reset()
    moments = (0, 1, 23, 50, 57)
    plan = actions(env, 2 * family.ticks + 5)
    shown, taken = [], {}
    for tick, action in enumerate(plan):
        if tick in moments:
            state = env.snapshot()
            taken[tick] = observation, state, {n: value.copy() for n, value in state.items()}
        observation, *arrays, info = env.step(action)
        shown.append([np.copy(a) for a in (observation, *arrays)] + arrays_of(info))
    for tick, (observation, state, frozen) in taken.items():
        # Into another environment that has lived, with another seed and other tasks.
        other = environment(robot, family, seed=4)
        play(other, 9)
        np.testing.assert_array_equal(other.restore(state), observation, f"tick {tick}")
        onwards = slice(tick, tick - tick % family.ticks + family.ticks + 5)  # into the next one
        for action, expected in zip(plan[onwards], shown[onwards], strict=True):
            *arrays, info = other.step(action)
            assert same([*arrays, *arrays_of(info)], expected), tick
        # And back in the first one; the snapshot is a copy, whatever was done since.
        for group in range(G):
            env.begin_group(group, (env.tasks[group] + 1) % len(family.tasks))
        for name, value in state.items():
            np.testing.assert_array_equal(value, frozen[name])
        np.testing.assert_array_equal(env.restore(state), observation)
        task = 1 % len(family.tasks)
        np.testing.assert_array_equal(env.begin_group(0, task), other_begin(other, state, task))


def other_begin(env, state, task):
    env.restore(state)
    return env.begin_group(0, task)


def test_what_is_handed_out_is_a_copy(robot, family):
    env = environment(robot, family, noise=False)
    env.reset()
    plan = actions(env)
    kept = [env.step(action) for action in plan[:3]]
    shown = [[np.copy(a) for a in step[:4]] for step in kept]
    fields, command = env.world.physics.fields(), env.world.command
    numbers = [np.copy(a) for a in (*fields.values(), command)]
    for action in plan[3:55]:
        env.step(action)
    for step, copies in zip(kept, shown, strict=True):
        assert same(step[:4], copies)
    assert same([*fields.values(), command], numbers)


def starts(world):
    """(B, A) commands from which episodes begin: where the robots are measured to be."""
    return world.interface.initial_command(world.measurements(world.true_state()))


def test_an_episode_begins_from_where_the_robot_is(robot, family):
    """By the arithmetic: what tracks a command measures it, within the command's limits."""
    world = World(robot, family, 3)
    tasks = [i % len(family.tasks) for i in range(3)]
    world.reset(np.arange(3, dtype=np.int32), tasks, [episode_rng(0, i) for i in range(3)])
    fields, start = world.true_state(), 0
    low, high = world.interface.limits
    for term in world.interface.action:
        here = slice(start, start + term.size)
        expected = np.tile(term.safe_command, (3, 1))
        if term.tracking is not None:
            expected = fields[term.tracking.term][:, list(term.measured)]
        expected = np.clip(expected, low[here], high[here])
        np.testing.assert_array_equal(world.command[:, here], expected)
        start += term.size


def test_a_reset_does_not_write_into_the_callers_command(robot, family):
    world = World(robot, family, 1)
    ids, rng = np.zeros(1, np.int32), episode_rng(0, 0)
    world.reset(ids, [0], [rng])
    command = np.array([world.interface.limits[1]])
    world.step_command(command)
    world.reset(ids, [0], [rng])
    np.testing.assert_array_equal(command[0], world.interface.limits[1])
    np.testing.assert_array_equal(world.command, starts(world))


# One observation, one command -------------------------------------------------------------


def test_an_observation_is_observe_of_the_fields(robot, family):
    env = environment(robot, family, noise=False)
    observation, _ = env.reset()
    memory = ObservationMemory(env.interface, (B,))
    for action in actions(env, TICKS):
        shown = env.interface.observe(env.world.true_state(), memory=memory)
        np.testing.assert_array_equal(observation, shown)
        memory.remember(observation, action)
        observation, _, terminated, truncated, _ = env.step(action)
        memory.reset(terminated | truncated)
    names = [t.name for t in env.interface.observation]
    assert names == [t.name for t in (*robot.interface.observation, *family.terms)]


def test_a_command_is_command_of_the_action(robot, family):
    env = environment(robot, family)
    env.reset()
    expected = starts(env.world)
    for action in actions(env, 49):
        expected = env.interface.command(action, expected)
        env.step(action)
        np.testing.assert_array_equal(env.world.command, expected)
        columns = [
            env.world.physics.model.actuator(name).id
            for term in robot.interface.action
            for name in term.mujoco.actuators
        ]
        np.testing.assert_array_equal(env.world.physics.batch.ctrl[:, columns], expected)


def test_the_task_shows_in_no_term_of_the_robot(robot, family):
    """The skills see no task id: otherwise the master would have nothing to choose."""
    size, own = 16, [t.name for t in robot.interface.observation]
    shown = []
    for task in range(len(family.tasks)):
        world = World(robot, family, size)
        rngs = [episode_rng(0, n) for n in range(size)]
        world.reset(np.arange(size, dtype=np.int32), [task] * size, rngs)
        for _ in range(5):
            world.step_command(np.tile(world.interface.limits[1], (size, 1)))
        shown.append(world.true_state())
    for fields in shown[1:]:
        for name in own:
            np.testing.assert_array_equal(fields[name], shown[0][name])


@pytest.mark.parametrize(
    ("which", "name"),
    [(r, f) for r, f in PAIRS if f in ("moving_bandits", "body_bandits", "rooms", "body_rooms")],
)
def test_the_observation_does_not_tell_the_task(robots, which, name):
    robot, family = robots[which], make_family(name)
    first, second = (environment(robot, family, tasks=[task] * G).reset()[0] for task in range(2))
    np.testing.assert_array_equal(first, second)


# Dynamics ---------------------------------------------------------------------------------


def responses(robot: Robot, divide: int) -> dict[tuple[int, float], tuple[np.ndarray, bool]]:
    """What a command to one limit does to what its actuator holds, after each tick of a second.

    Args:
        robot: at rest under its safe command.
        divide: the physics step, for a simulation that is so many times finer.

    Returns:
        By element of the command and its new value: (n,) what is gained, and whether it is a
        velocity.
    """
    interface, model = robot.interface, robot.compile()
    model.opt.timestep = interface.physics_dt / divide
    motors = [index for term in interface.action for index in actuators(model, term)]
    rest, safe = mujoco.MjData(model), interface.safe_command
    if (key := keyframe(model, interface)) is not None:
        mujoco.mj_resetDataKeyframe(model, rest, key)
    steps, ticks = interface.substeps * divide, round(1 / interface.control_dt)
    rest.ctrl[motors] = safe
    mujoco.mj_step(model, rest, steps * ticks)
    found = {}
    for element, target in ((i, x) for ends in interface.limits for i, x in enumerate(ends)):
        data, motor = mujoco.MjData(model), motors[element]
        mujoco.mj_copyData(data, model, rest)
        speed = not model.actuator_biasprm[motor, 1]  # of no position
        held = data.actuator_velocity if speed else data.actuator_length
        start = held[motor]
        data.ctrl[motor] = target
        seen = []
        for _ in range(ticks):
            mujoco.mj_step(model, data, steps)
            mujoco.mj_forward(model, data)
            seen.append(held[motor] - start)
        found[element, float(target)] = np.array(seen), bool(speed)
    return found


@pytest.mark.parametrize("name", robot_names())
def test_a_finer_simulation_moves_alike(name):
    """An integrator that drops a part of the dynamics is another robot at every step."""
    robot = load_robot(name)
    coarse, fine = (responses(robot, divide) for divide in (1, 10))
    assert len(coarse) == len(fine) == 2 * robot.interface.action_size
    for (element, target), (known, speed) in coarse.items():
        finer, _ = fine[element, target]
        off = np.abs(known - finer) / abs(finer[-1])
        assert off.mean() < 0.02, (element, target)
        # Where a foot hits the floor, a step sooner or later shows for a few ticks.
        assert not speed or off.max() < 0.02, (element, target)
