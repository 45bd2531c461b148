"""Signals: what rewards read of the simulation, and no policy sees."""

from dataclasses import dataclass, replace
from typing import ClassVar

import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from sim.envs.vec_env import TaskVectorEnv
from sim.envs.world import World
from sim.errors import UserError
from sim.interface import MujocoState
from sim.physics.robot_model import load_robot
from sim.physics.signals import Signal
from sim.randomization.schema import sim_params_from_dict
from sim.tasks.base import HiddenTask
from tests.support.terms import term

GO2 = load_robot("go2")
(ACTION,) = GO2.interface.action
SAFE = GO2.interface.safe_command
LEGS = ("FR", "FL", "RR", "RL")
WEIGHT = 15.2064 * 9.81  # N
FEET = Signal("feet", "contact_force", "geom", tuple(f"{leg}_foot" for leg in LEGS))
FLOOR = Signal("floor", "contact_force", "geom", ("floor",))
TRUNK = Signal("trunk", "contact_force", "body", ("base_link",))
TORQUE = Signal("torque", "actuator_force", "actuator", ACTION.mujoco.actuators)
JOINT_TORQUE = Signal(
    "joint_torque", "actuator_force", "joint", tuple(f"{n}_joint" for n in TORQUE.names)
)
PLACES = Signal("places", "position", "body", ("base_link", "FR_calf"))
FOOT = Signal("foot", "position", "geom", ("FR_foot",))
IMU = Signal("imu", "position", "site", ("imu_link",))
ATTITUDE = Signal("attitude", "orientation", "body", ("base_link",))
SPEED = Signal("speed", "linear_velocity", "body", ("base_link",))


@dataclass(frozen=True)
class Stand(HiddenTask):
    """A family of one task whose reward is the sum of all signals."""

    name: ClassVar[str] = "stand"
    robot: ClassVar[str] = "go2"
    requires: ClassVar[tuple[str, ...]] = ("position",)
    places: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ("only",)

    signals: tuple[Signal, ...] = ()
    ticks: int = 500

    def reset(self, task, rng):
        return {"begun": np.float64(0)}

    def reward(self, layout, fields):
        nothing = np.zeros(len(layout["begun"]))
        return sum((fields[each.name].sum(axis=1) for each in self.signals), nothing)

    def success(self, layout, fields):
        return self.reward(layout, fields) > 0

    def estimate(self, task, dt):
        return 0.0, 1.0


def begun(family, size=1, robot=GO2, **how):
    world = World(robot, family, size, **how)
    rngs = [np.random.default_rng(i) for i in range(size)]
    world.reset(np.arange(size, dtype=np.int32), [0] * size, rngs)
    return world


def commands(count, size=1, seed=0):
    """(count, size, 12) within the limits, near the crouch."""
    rng = np.random.default_rng(seed)
    return np.clip(SAFE + rng.uniform(-0.5, 0.5, (count, size, 12)), *GO2.interface.limits)


# What they are ----------------------------------------------------------------------------------


def test_contacts_carry_the_weight_and_there_are_none_in_the_air():
    world = begun(Stand((FEET, FLOOR, TRUNK)), 2)
    for _ in range(150):
        fields, outcome = world.step_command(np.tile(SAFE, (2, 1)))
    assert (fields["feet"].shape, fields["floor"].shape) == ((2, 4), (2, 1))
    # At rest all contacts together are the weight: what is tangential adds up to nothing.
    np.testing.assert_allclose(fields["floor"], WEIGHT, rtol=0.01)
    assert (fields["feet"] > 0.1 * WEIGHT).all()
    assert (fields["feet"].sum(axis=1) > 0.99 * WEIGHT).all()
    np.testing.assert_array_equal(fields["trunk"], 0.0)
    total = sum(fields[name].sum(axis=1) for name in ("feet", "floor", "trunk"))
    np.testing.assert_allclose(outcome.reward, total)
    assert world.family.success(world.layout, fields).all()
    world.physics.batch.qpos[1, 2] += 0.5  # it falls by 2 mm in a tick
    fields, _ = world.step_command(np.tile(SAFE, (2, 1)))
    assert (fields["feet"][0] > 0.1 * WEIGHT).all()
    for name in ("feet", "floor", "trunk"):
        np.testing.assert_array_equal(fields[name][1], 0.0)


def test_torques_are_those_of_the_servos_in_the_present_state():
    world = begun(Stand((TORQUE, JOINT_TORQUE)), 3)
    for command in commands(20, 3):
        fields, _ = world.step_command(command)
        torque = 20 * (command - fields["joint_position"]) - 0.5 * fields["joint_velocity"]
        np.testing.assert_allclose(fields["torque"], np.clip(torque, -23.5, 23.5), atol=1e-9)
        np.testing.assert_allclose(fields["joint_torque"], fields["torque"], atol=1e-12)
    assert np.abs(fields["torque"]).max() > 1


def test_heights_poses_and_speeds_are_those_of_the_present_state():
    world = begun(Stand((PLACES, FOOT, IMU, ATTITUDE, SPEED)), 2)
    for command in commands(20, 2):
        fields, _ = world.step_command(command)
        for b in range(2):
            qpos, qvel = world.physics.batch.qpos[b], world.physics.batch.qvel[b]
            np.testing.assert_allclose(fields["places"][b, :3], qpos[:3], atol=1e-12)
            np.testing.assert_allclose(fields["attitude"][b], qpos[3:7], atol=1e-9)
            np.testing.assert_allclose(fields["speed"][b], qvel[:3], atol=1e-9)
            offset = np.zeros(3)
            mujoco.mju_rotVecQuat(offset, np.array([-0.02557, 0, 0.04232]), qpos[3:7])
            np.testing.assert_allclose(fields["imu"][b], qpos[:3] + offset, atol=1e-9)
            # The foot is 0.213 m below the calf's joint, and 2 mm behind it.
            way = np.linalg.norm(fields["foot"][b] - fields["places"][b, 3:])
            assert way == pytest.approx(np.hypot(0.213, 0.002))
    for _ in range(150):
        fields, _ = world.step_command(np.tile(SAFE, (2, 1)))
    np.testing.assert_allclose(fields["foot"][:, 2], 0.022, atol=0.003)  # its radius


# What they change: nothing ----------------------------------------------------------------------

ALL = (FEET, FLOOR, TRUNK, TORQUE, JOINT_TORQUE, PLACES, FOOT, IMU, ATTITUDE, SPEED)


@pytest.mark.parametrize("robot", ["go2", "rover"])  # the rover has sensors and rays of its own
def test_a_robot_moves_and_observes_as_it_does_without_them_bit_for_bit(robot):
    loaded = load_robot(robot)
    own = ALL if robot == "go2" else (Signal("places", "position", "body", ("base_link",)),)
    envs = [
        TaskVectorEnv(loaded, Stand(signals, 15), groups=1, envs=3, seed=1)
        for signals in ((), own)
    ]
    rng = np.random.default_rng(0)
    first, second = (env.reset()[0] for env in envs)
    for _ in range(40):
        np.testing.assert_array_equal(first, second)
        action = rng.uniform(-1, 1, (3, loaded.interface.action_size)).astype(np.float32)
        first, second = (env.step(action)[0] for env in envs)
        for name in ("qpos", "qvel"):
            one, two = (getattr(env.world.physics.batch, name) for env in envs)
            np.testing.assert_array_equal(one, two)


def test_what_a_policy_observes_comes_before_them():
    seen = {}

    class Listening(Stand):
        def advance(self, layout, fields, dt):
            seen["advance"] = set(fields)
            return {}

        def fields(self, layout, robot):
            seen["fields"] = set(robot)
            return {}

        def reward(self, layout, fields):
            seen["reward"] = set(fields)
            return super().reward(layout, fields)

        def terminated(self, layout, fields):
            seen["terminated"] = set(fields)
            return fields["trunk"][:, 0] > 0

    world = begun(Listening((TRUNK, FEET)))
    for command in commands(3):
        fields, outcome = world.step_command(command)
    terms = {term.name for term in GO2.interface.observation}
    assert seen["advance"] == seen["fields"] == terms
    assert seen["reward"] == seen["terminated"] == set(fields) == terms | {"trunk", "feet"}
    assert set(world.true_state()) == terms
    assert not outcome.terminated[0]
    world.physics.batch.qpos[0, 3:7] = 0, 1, 0, 0  # on its back
    world.physics.batch.qpos[0, 2] = 0.06
    assert any(world.step_command(SAFE[None])[1].terminated[0] for _ in range(10))


# Everywhere the same ----------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [4, 1])  # physics steps, as sim_node in lockstep and real time
def test_a_node_that_steps_the_physics_itself_has_the_same_rewards(at_once):
    offline, node = begun(Stand(ALL)), begun(Stand(ALL))
    for command in commands(30, seed=1):
        fields, expected = offline.step_command(command)
        node.command = command
        for _ in range(4 // at_once):
            node.step_physics(command, at_once)
        got, outcome = node.evaluate_step()
        np.testing.assert_array_equal(outcome.reward, expected.reward)
        for name in fields:
            np.testing.assert_array_equal(got[name], fields[name])


def test_sensors_that_are_wrong_or_late_do_not_change_them():
    data = {"sensors": {"joint_position": {"bias": 0.05, "delay_s": 0.01, "noise": 0.1}}}
    nominal, wrong = (
        begun(Stand(ALL), 2, sim_params=params)
        for params in (None, sim_params_from_dict(data, "wrong"))
    )
    for command in commands(20, 2):
        fields, _ = nominal.step_command(command)
        others, _ = wrong.step_command(command)
        for signal in ALL:
            np.testing.assert_array_equal(others[signal.name], fields[signal.name])
    shown = wrong.measurements(others)["joint_position"]
    assert np.abs(shown - others["joint_position"]).max() > 0.05


@pytest.mark.parametrize("mode", [*AutoresetMode])
def test_episodes_end_and_begin_with_them_in_every_mode(mode):
    env = TaskVectorEnv(GO2, Stand((FLOOR,), 4), groups=1, envs=2, autoreset_mode=mode)
    env.reset(seed=0)
    rewards = []
    for _ in range(10):
        _, reward, _, truncated, info = env.step(np.zeros((2, 12), np.float32))
        rewards.append(reward)
        if truncated.all() and mode == AutoresetMode.SAME_STEP:
            assert info["final_info"]["success"].all()
        elif truncated.all():
            assert info["success"].all()
        if truncated.all() and mode == AutoresetMode.DISABLED:
            env.reset()
    begins = [0, 0, 0, 0, 1, 0, 0, 0, 0, 1] if mode == AutoresetMode.NEXT_STEP else [0] * 10
    np.testing.assert_array_equal(np.array(rewards) == 0, np.array(begins)[:, None] * [True, True])


def test_a_snapshot_continues_with_the_same_rewards():
    world = begun(Stand(ALL))
    for command in commands(5):
        world.step_command(command)
    kept = world.snapshot()
    rewards = []
    for _ in range(2):
        rewards.append([world.step_command(each)[1].reward[0] for each in commands(5, seed=2)])
        world.restore(kept)
    assert rewards[0] == rewards[1]


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (
            Signal("feet", "contact_force", "geom", ("FR_foot", "FL_fot")),
            r"task family 'stand': signal 'feet': no geom 'FL_fot'\. Did you mean 'FL_foot'\? "
            r"Valid: floor, ",
        ),
        (Signal("hand", "position", "site", ("tool",)), r"no site 'tool'\. Valid: base_link, imu"),
        (Signal("arm", "orientation", "body", ("arm",)), r"no body 'arm'\. .*Valid: world, base_"),
        (Signal("pull", "actuator_force", "actuator", ("FR",)), r"no actuator 'FR'\. .*FR_hip"),
        (Signal("pull", "actuator_force", "joint", ("root",)), r"no joint 'root'\. .*Valid: F"),
        (Signal("tilt", "position", "body", ("base_link",)), r"'tilt' has the name of an obs"),
        (Signal("previous_action", "position", "body", ("base_link",)), r"'previous_action' has"),
    ],
)
def test_what_the_model_lacks_or_a_policy_sees_is_refused_by_name(signal, message):
    with pytest.raises(UserError, match=message):
        World(GO2, Stand((signal,)), 1)


def test_names_are_given_once():
    with pytest.raises(UserError, match="task family 'stand': signal 'feet' is given twice"):
        World(GO2, Stand((FEET, FEET)), 1)


def test_a_model_without_contacts_has_no_contact_forces():
    signal = Signal("bump", "contact_force", "geom", ("chassis",))
    with pytest.raises(UserError, match="signal 'bump': the model has its contacts switched off"):
        World(load_robot("omni"), Stand((signal,)), 1)


def test_an_observation_term_cannot_read_one():
    class Peeping(Stand):
        @property
        def terms(self):
            return (
                replace(
                    term(
                        "load",
                        "load",
                        "geometry_msgs/msg/Vector3Stamped",
                        ("vector.x", "vector.y", "vector.z"),
                    ),
                    unit="N",
                    mujoco=MujocoState(sensor="signal.floor.floor"),
                ),
            )

    with pytest.raises(UserError, match="observation term 'load' reads signal 'floor'; a policy"):
        World(GO2, Peeping((FLOOR,)), 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("x", "contact_force", "joint", ("a",)), "force of 'joint'. Valid: geom, body"),
        (("x", "actuator_force", "body", ("a",)), "force of 'body'. Valid: actuator, joint"),
        (("x", "height", "body", ("a",)), "quantity|Input should be 'contact_force'"),
        (("x", "position", "body", ("a", "b", "a")), "signal 'x': names has one body twice"),
        (("x", "position", "body", ()), "at least 1"),
        (("a b", "position", "body", ("a",)), "'a b' is not a name"),
    ],
)
def test_a_signal_that_is_none_is_refused_when_it_is_made(given, message):
    with pytest.raises(ValueError, match=message):
        Signal(*given)
