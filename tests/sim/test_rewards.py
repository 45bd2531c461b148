"""Reward terms: what each one measures, their weights as data, and what is refused."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from sim.envs.vec_env import TaskVectorEnv
from sim.envs.world import World
from sim.errors import UserError
from sim.files.strict_yaml import read_mapping
from sim.physics.robot_model import load_robot
from sim.tasks import rewards as package
from sim.tasks.base import HiddenTask
from sim.tasks.rewards import TERMS, Motion, Rewards, RewardTerm, changing, rewards_from
from sim.tasks.rewards.motion import FeetMemory
from sim.tasks.rewards.parts import COMMAND, POSE, SOURCES, RobotParts

GO2 = load_robot("go2")
WALKING = Path(package.__file__).with_name("walking.yaml")
UP = np.array([[1.0, 0, 0, 0]])
TURNED = np.array([[np.sqrt(0.5), 0, 0, np.sqrt(0.5)]])  # heading along y
ROLLED = np.array([[np.cos(0.1), np.sin(0.1), 0, 0]])  # by 0.2 rad


def motion(
    command=(0, 0, 0), action=(0, 0), previous=(0, 0), earlier=(0, 0), feet=None, **signals
):
    """A tick of one robot with two joints."""
    parts = SimpleNamespace(
        range=np.array([[-1.0, -np.inf], [1.0, np.inf]]), rest=np.array([0.5, 0])
    )
    one = {name: np.atleast_2d(np.asarray(value, float)) for name, value in signals.items()}
    rows = (np.array([each], float) for each in (command, action, previous, earlier))
    return Motion(parts, one, *rows, feet or FeetMemory.begun(1, 2))


def swung(last_air, landed, last_stance=(0, 0)):
    """Feet of which some have just landed."""
    zero = np.zeros((1, 2))
    times = np.array([last_air], float), np.array([last_stance], float)
    return FeetMemory(zero, zero, *times, np.array([landed], bool))


# A robot that moves along y of the world at 0.5 m/s, up at 0.2, with its heading along y.
TURNING = {"base_rates": (0, 0, 0.6)}
AHEAD = {"base_orientation": TURNED, "base_velocity": (0, 0.5, 0.2)}
TOUCHING = (0, 0, 90, 0, 0, 0)  # N: the first of two feet stands
CASES = [
    # exp(-0.3^2 / 0.25) where 0.8 m/s ahead are told, and exp(-0) where it is 0.5.
    ("track_velocity", {"sigma": 0.25}, {"command": (0.8, 0, 0), **AHEAD}, np.exp(-0.36)),
    ("track_velocity", {"sigma": 0.25}, {"command": (0.5, 0, 9), **AHEAD}, 1.0),
    # 0.5 of 0.8 m/s ahead; the whole of 0.25; back, or aside: the speed across counts nothing.
    ("speed_along_command", {"enough": 1}, {"command": (0.8, 0, 0), **AHEAD}, 0.625),
    ("speed_along_command", {"enough": 0.8}, {"command": (0.8, 0, 0), **AHEAD}, 0.78125),
    ("speed_along_command", {"enough": 0.5}, {"command": (0.25, 0, 0), **AHEAD}, 1.0),
    ("speed_along_command", {"enough": 1}, {"command": (-0.8, 0, 0), **AHEAD}, -0.625),
    ("speed_along_command", {"enough": 0.5}, {"command": (-0.25, 0, 0), **AHEAD}, -1.0),
    ("speed_along_command", {"enough": 0.5}, {"command": (0, 0.3, 0), **AHEAD}, 0.0),
    ("speed_along_command", {"enough": 0.5}, {"command": (0, 0, 1), **AHEAD}, 0.0),
    # 0.6 rad/s counter-clockwise of 0.8; of 0.5; clockwise.
    (
        "turn_along_command",
        {"enough": 1},
        {"command": (0, 0, 0.8), **TURNING},
        0.75,
    ),
    (
        "turn_along_command",
        {"enough": 0.9},
        {"command": (0, 0, 0.8), **TURNING},
        5 / 6,
    ),
    (
        "turn_along_command",
        {"enough": 0.7},
        {"command": (0, 0, 0.5), **TURNING},
        1.0,
    ),
    (
        "turn_along_command",
        {"enough": 1},
        {"command": (0, 0, -0.8), **TURNING},
        -0.75,
    ),
    (
        "turn_along_command",
        {"enough": 0.7},
        {"command": (0.8, 0, 0), **TURNING},
        0.0,
    ),
    # 0.5 ahead, 0.3 to the left are told: the error is to the left.
    ("track_velocity", {"sigma": 0.5}, {"command": (0.5, 0.3, 0), **AHEAD}, np.exp(-0.18)),
    (
        "track_yaw_rate",
        {"sigma": 0.5},
        {"command": (9, 9, 1), "base_rates": (3, 4, 0.5)},
        np.exp(-0.5),
    ),
    ("vertical_velocity", {}, AHEAD, 0.04),
    # The world's x is its right: a rate about x is one of pitch.
    ("roll_pitch_rates", {}, {"base_orientation": TURNED, "base_rates": (0.3, 0, 5)}, 0.09),
    ("orientation", {}, {"base_orientation": UP}, 0.0),
    ("orientation", {}, {"base_orientation": ROLLED}, np.sin(0.2) ** 2),
    ("base_height", {"target": 0.3}, {"base_position": (7, 8, 0.2)}, 0.01),
    ("action_rate", {}, {"action": (1, 2), "previous": (0, 4), "earlier": (9, 9)}, 5.0),
    # 1 - 0 + 0 and 2 - 8 + 9
    ("action_acceleration", {}, {"action": (1, 2), "previous": (0, 4), "earlier": (0, 9)}, 10.0),
    ("torque", {}, {"joint_torque": (3, -4)}, 25.0),
    ("power", {}, {"joint_torque": (3, -4), "joint_velocity": (-2, 1)}, 10.0),
    # 90 % of -1 .. 1 is -0.9 .. 0.9; the other joint has no limits.
    ("joint_limits", {"share": 0.9}, {"joint_position": (0.95, 50)}, 0.05),
    ("joint_limits", {"share": 0.9}, {"joint_position": (-1.1, 50)}, 0.2),
    ("pose", {}, {"joint_position": (0.2, 0.4)}, 0.25),
    ("stand_still", {}, {"joint_position": (0.2, 0.4), "command": (0, 0, 0.01)}, 0.7),
    ("stand_still", {}, {"joint_position": (0.2, 0.4), "command": (0, 0, 0.5)}, 0.0),
    # 0.02^2 * 0.5 + 0.05^2 * 0; the speed upwards does not count.
    (
        "feet_clearance",
        {"height": 0.08},
        {"foot_position": (0, 0, 0.1, 0, 0, 0.03), "foot_velocity": (0.3, 0.4, 9, 0, 0, 9)},
        0.0002,
    ),
    (
        "feet_air_time",
        {"target": 0.1},
        {"command": (1, 0, 0), "feet": swung((0.3, 9), (1, 0))},
        0.2,
    ),
    (
        "feet_air_time",
        {"target": 0.1},
        {"command": (0, 0, 0), "feet": swung((0.3, 9), (1, 0))},
        0.0,
    ),
    ("feet_slip", {}, {"foot_force": TOUCHING, "foot_velocity": (0.3, 0.4, 9, 5, 5, 5)}, 0.25),
    ("feet_stumble", {"ratio": 5}, {"foot_force": (30, 40, 9, 0, 0, 9)}, 1.0),
    ("feet_stumble", {"ratio": 5}, {"foot_force": (30, 40, -11, 0, 0, 9)}, 0.0),
    ("feet_contact_force", {"limit": 100}, {"foot_force": (0, 90, 120, 0, 0, 90)}, 50.0),
    # Variances of (0.2, 0.4) and of (0.5, 0.3): 0.7 counts as 0.5.
    ("gait_symmetry", {}, {"feet": swung((0.2, 0.4), (0, 0), (0.7, 0.3))}, 0.02),
    ("collision", {}, {"other_force": (0, 50, 0.05, 1)}, 2.0),
]


@pytest.mark.parametrize(("name", "parameters", "tick", "value"), CASES)
def test_a_term_measures_what_its_arithmetic_says(name, parameters, tick, value):
    got = TERMS[name].function(motion(**tick), **parameters)
    np.testing.assert_allclose(got, [value], atol=1e-12)
    read = {key for key in tick if key in SOURCES}
    assert read <= set(TERMS[name].needs)


def test_every_term_has_a_case_and_says_unit_source_and_needs():
    tested = {TERMS[case[0]].function for case in CASES}
    assert tested == {term.function for term in TERMS.values()}
    for name, term in TERMS.items():
        assert (term.name, bool(term.unit), bool(term.source)) == (name, True, True)
        assert term.function.__doc__
        assert set(term.needs) <= {COMMAND, POSE, *SOURCES}
        assert term.best in (0.0, 1.0)


def test_steps_of_feet_are_measured_in_time():
    contact = np.array([[0, 1], [0, 1], [1, 0], [1, 0], [0, 1]], bool)
    feet, seen = FeetMemory.begun(1, 2), []
    for row in contact:
        feet = feet.after(row[None], 0.02)
        seen.append(np.concatenate([feet.air, feet.stance, feet.last_air, feet.last_stance])[:, 0])
    # The first foot: in the air for two ticks, on the ground for two, and up again.
    np.testing.assert_allclose(
        seen,
        [
            [0.02, 0, 0, 0],
            [0.04, 0, 0, 0],
            [0, 0.02, 0.04, 0],
            [0, 0.04, 0.04, 0],
            [0.02, 0, 0.04, 0.04],
        ],
    )
    np.testing.assert_array_equal(feet.landed, [[False, True]])


# Weights as data --------------------------------------------------------------------------------


def test_the_weights_that_ship_are_read_as_they_are_written():
    rewards, data = package.read_rewards(WALKING), read_mapping(WALKING)
    assert rewards.names == tuple(data)
    assert rewards_from(rewards.to_dict()) == rewards
    assert rewards.best == 5.75
    penalties = [
        e.weight for e in rewards.terms if not e.term.best and e.term.name != "feet_air_time"
    ]
    assert max(penalties) < 0


def test_a_mapping_changes_what_it_names():
    rewards = rewards_from({"track_velocity": {"weight": 1, "sigma": 0.25}, "torque": -0.1})
    changed = changing(rewards, {"torque": 0, "pose": -2, "track_velocity": {"sigma": 0.5}})
    assert changed.to_dict() == {
        "track_velocity": {"weight": 1.0, "sigma": 0.5},
        "pose": {"weight": -2.0},
    }
    assert changing(rewards, {}) == rewards
    assert changing(rewards, {"track_velocity": 3}).terms[0].parameters == (("sigma", 0.25),)
    # Without its weight nothing is left of a term, not even its parameters.
    assert changing(rewards, {"track_velocity": 0}).names == ("torque",)
    assert changing(rewards, {"base_height": 0}) == rewards


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            {"torqe": -1},
            "rewards: no reward term 'torqe'. Did you mean 'torque'? Valid: track_vel",
        ),
        ({"torque": {"weight": -1, "limit": 2}}, "torque: no parameter 'limit'. Valid: weight"),
        (
            {"base_height": -1},
            "base_height: target is missing (m, of the base above the floor). It takes: weight, t",
        ),
        ({"torque": {}}, "torque: weight is missing (per tick). It takes: weight"),
        ({"torque": float("nan")}, "torque: weight: a number is expected, got nan"),
        ({"torque": True}, "torque: weight: a number is expected, got True"),
        ({"torque": "much"}, "torque: weight: a number is expected, got 'much'"),
        ({"torque": 1e300}, "torque: weight: a number is expected, got 1e+300"),
        (
            {"track_velocity": {"weight": 1, "sigma": 0}},
            "track_velocity: sigma: a positive number is expected, got 0",
        ),
        (["torque"], "rewards: ['torque'] is no mapping of reward terms to weights"),
    ],
)
def test_what_is_no_reward_is_refused_in_one_line(data, said):
    with pytest.raises(UserError) as caught:
        rewards_from(data)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# In a simulation --------------------------------------------------------------------------------

QUIET = rewards_from({"torque": -0.001, "feet_slip": -1, "action_rate": -0.01})


@dataclass(frozen=True)
class Walk(HiddenTask):
    """A family of one task whose reward is 1 and its terms."""

    name: ClassVar[str] = "walk"
    robot: ClassVar[str] = "go2"
    requires: ClassVar[tuple[str, ...]] = ("position",)
    places: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ("only",)

    rewards: Rewards = QUIET
    ticks: int = 500

    def reset(self, task, rng):
        return {"begun": np.float64(0)}

    def reward(self, layout, fields):
        return np.ones(len(layout["begun"]))

    def success(self, layout, fields):
        return np.zeros(len(layout["begun"]), bool)

    def estimate(self, task, dt):
        return 0.0, 1.0


def begun(family, size=2, robot=GO2):
    world = World(robot, family, size)
    rngs = [np.random.default_rng(i) for i in range(size)]
    world.reset(np.arange(size, dtype=np.int32), [0] * size, rngs)
    return world


def actions(count, size=2, seed=0):
    return np.random.default_rng(seed).normal(0, 0.5, (count, size, 12)).astype(np.float32)


def test_a_reward_is_the_family_s_own_and_its_terms():
    world = begun(Walk())
    total, last = np.zeros((2, 3)), world.interface.action_for(world.command)
    for action in actions(40):
        fields, outcome = world.step(action)
        executed = world.interface.action_for(world.command)
        torque = np.clip(
            20 * (world.command - fields["joint_position"]) - 0.5 * fields["joint_velocity"],
            -23.5,
            23.5,
        )
        rate = ((executed - last) ** 2).sum(axis=1)
        costs = -0.001 * (torque**2).sum(axis=1) - 0.01 * rate
        last, means = executed, world.terms.take_means()
        np.testing.assert_allclose(means[:, 0] + means[:, 2], costs, atol=1e-9)
        np.testing.assert_allclose(outcome.reward, 1 + means.sum(axis=1), atol=1e-12)
        total += means
    assert (total < 0).all()  # each of the three has cost something
    assert world.terms.names == ("torque", "feet_slip", "action_rate")


def test_means_are_per_tick_since_they_were_taken():
    world = begun(Walk(rewards_from({"action_rate": -1})))
    world.step(np.zeros((2, 12), np.float32))
    world.terms.take_means()
    for _ in range(4):  # it is where it is told to be: nothing changes any more
        world.step(np.zeros((2, 12), np.float32))
    world.step(np.full((2, 12), 0.1, np.float32))
    np.testing.assert_allclose(world.terms.take_means(), -12 * 0.01 / 5, rtol=1e-6)


def test_an_episode_begins_without_a_change_of_action_and_without_steps():
    terms = {"action_rate": -1, "action_acceleration": -1, "gait_symmetry": -1}
    world = begun(Walk(rewards_from(terms)))
    for action in actions(60):
        world.step(action)
    world.reset(np.array([1], np.int32), [0], [np.random.default_rng(9)])
    world.terms.take_means()
    begin = world.interface.action_for(world.command)[1]
    still = np.stack([actions(1)[0, 0], begin]).astype(np.float32)
    world.step(still)
    means = world.terms.take_means()
    np.testing.assert_allclose(means[1], 0, atol=1e-12)
    assert (means[0] < 0).all()


def test_a_snapshot_continues_with_the_same_rewards():
    whole = package.read_rewards(WALKING)
    told = [each.term.name for each in whole.terms if COMMAND in each.term.needs]
    world = begun(Walk(changing(whole, dict.fromkeys(told, 0))))
    for action in actions(30):
        world.step(action)
    kept, rewards = world.snapshot(), []
    for _ in range(2):
        rewards.append([world.step(each)[1].reward.tolist() for each in actions(20, seed=2)])
        world.restore(kept)
    assert rewards[0] == rewards[1]
    lost = {name: array for name, array in kept.items() if name != "rewards.previous"}
    with pytest.raises(ValueError, match=r"other reward terms: rewards\.previous"):
        world.restore(lost)


def test_a_term_of_one_s_own():
    own = RewardTerm("crouch", lambda m, *, at: m.height * at, "m", ("base_position",), "mine",
                     {"at": "1"})  # fmt: skip
    rewards = rewards_from({"crouch": {"weight": -2, "at": 3}}, own=[own])
    world = begun(Walk(rewards))
    _, outcome = world.step(np.zeros((2, 12), np.float32))
    np.testing.assert_allclose(outcome.reward, 1 - 6 * world.physics.batch.qpos[:, 2])
    assert changing(rewards, {"torque": -1}).names == ("crouch", "torque")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda m: np.where(m.height > 0, np.nan, 0), "nan in simulation 0 is not finite"),
        (lambda m: 1.0, r"the shape is (), not (2,)"),
        (lambda m: m.signals["base_position"], r"the shape is (2, 3), not (2,)"),
    ],
)
def test_a_term_that_is_no_number_is_named(function, said):
    odd = RewardTerm("odd", function, "1", ("base_position",), "mine")
    world = begun(Walk(rewards_from({"odd": 1}, own=[odd])))
    with pytest.raises(UserError) as caught:
        world.step(np.zeros((2, 12), np.float32))
    assert str(caught.value) == f"task family 'walk': reward term 'odd': {said}"


@pytest.mark.parametrize(
    ("robot", "rewards", "said"),
    [
        (
            "ant",
            {"feet_slip": -1},
            "reward term 'feet_slip' needs foot_velocity, and robot 'ant' names no feet: a <tuple "
            "name='feet'> of geoms in <custom> of model.xml. Its geoms: torso, upper_front_left",
        ),
        (
            "omni",
            {"orientation": -1},
            "reward term 'orientation' needs base_orientation, and robot 'omni' has no body "
            "'base_link' on a free joint. Its bodies: ",
        ),
        (
            "omni",
            {"pose": -1},
            "reward term 'pose' needs pose, and robot 'omni' has actuators that are no servos of "
            "a joint's position. Its actuators: ",
        ),
        (
            "go2",
            {"track_yaw_rate": {"weight": 1, "sigma": 1}},
            "reward term 'track_yaw_rate' needs the method `command`",
        ),
    ],
)
def test_what_a_robot_or_family_lacks_is_named_in_one_line(robot, rewards, said):
    with pytest.raises(UserError) as caught:
        World(load_robot(robot), Walk(rewards_from(rewards)), 1)
    assert str(caught.value).startswith(f"task family 'walk': {said}")
    assert "\n" not in str(caught.value)


def test_a_command_of_another_shape_is_named():
    class Told(Walk):
        def command(self, layout):
            return np.zeros((len(layout["begun"]), 2))

    rewards = rewards_from({"track_yaw_rate": {"weight": 1, "sigma": 1}})
    with pytest.raises(UserError, match=re.escape("command: the shape is (2, 2), not (2, 3)")):
        begun(Told(rewards)).step(np.zeros((2, 12), np.float32))


def test_the_parts_of_the_go2():
    parts = RobotParts(GO2)
    assert parts.base == ("base_link",)
    assert parts.feet == ("FR_foot", "FL_foot", "RR_foot", "RL_foot")
    assert parts.joints == parts.servos
    assert parts.joints[:2] == ("FR_hip_joint", "FR_thigh_joint")
    np.testing.assert_allclose(parts.range[:, 1], [-1.5708, 3.4907])
    np.testing.assert_allclose(parts.rest[:3], [0, 0.8, -1.5])
    assert {"trunk", "FR_calf"} < set(parts.others)
    assert not set(parts.others) & {*parts.feet, "floor"}


def test_terms_do_not_change_how_a_robot_moves():
    envs = [
        TaskVectorEnv(GO2, Walk(rewards), groups=1, envs=2, seed=1)
        for rewards in (Rewards(()), replace(QUIET))
    ]
    first, second = (env.reset()[0] for env in envs)
    for action in actions(40):
        np.testing.assert_array_equal(first, second)
        first, second = (env.step(action)[0] for env in envs)
