"""The rover drives as commanded, stops, stands at walls; what it shows is MuJoCo's truth."""

import math

import mujoco
import numpy as np
import pytest

from mlsh_ros.messages.conversion import command_writers, topic_readers
from sim.physics.batched_physics import BatchedPhysics
from sim.physics.robot_model import load_robot
from sim.tasks.scenery import add_walls

ROBOT = load_robot("rover")
WALL = 0.5  # m ahead


def walled(spec):
    add_walls(spec, [(WALL + 0.02, 0.0, 0.02, 1.0)], 0.3)


def standing(size: int = 1, scene=None) -> BatchedPhysics:
    """At rest: a base that was just put down sinks by the contact's softness."""
    physics = BatchedPhysics(ROBOT.interface, ROBOT.compile(scene), size, 1)
    physics.reset(np.arange(size, dtype=np.int32))
    for _ in range(5):
        physics.step(np.zeros((size, 2)))
    return physics


def run(physics: BatchedPhysics, *command: float, ticks: int) -> dict[str, np.ndarray]:
    """Per term (ticks, size): what it shows while it holds a command (speed, yaw rate)."""
    seen = []
    for _ in range(ticks):
        physics.step(np.tile(command, (physics.size, 1)))
        seen.append({name: value[0] for name, value in physics.fields().items()})
        assert tilt(physics) < 1.0  # degrees
    return {name: np.stack([fields[name] for fields in seen]) for name in seen[0]}


def tilt(physics: BatchedPhysics) -> float:
    """Degrees between the base's axis and the vertical."""
    _, x, y, _ = physics.batch.qpos[0, 3:7]
    return math.degrees(math.acos(1 - 2 * (x * x + y * y)))


def angle(heading: np.ndarray) -> np.ndarray:
    """Rad, continuous, of (n, 2) z and w."""
    return np.unwrap(2 * np.arctan2(heading[:, 0], heading[:, 1]))


# Driving ----------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [0.22, 0.1, -0.22])
def test_it_drives_straight_at_the_commanded_speed(speed):
    physics = standing()
    run(physics, speed, 0.0, ticks=10)
    seen = run(physics, speed, 0.0, ticks=50)
    np.testing.assert_allclose(seen["speed"], speed, rtol=0.02)
    way = seen["position"][-1] - seen["position"][0]
    assert way[0] == pytest.approx(4.9 * speed, rel=0.02)  # 49 ticks of 0.1 s
    assert abs(way[1]) < 0.01 * abs(way[0])
    np.testing.assert_allclose(seen["yaw_rate"], 0, atol=0.01)


@pytest.mark.parametrize("rate", [2.84, 0.5, -1.5])
def test_it_turns_in_place_at_the_commanded_rate(rate):
    physics = standing()
    run(physics, 0.0, rate, ticks=10)
    seen = run(physics, 0.0, rate, ticks=50)
    np.testing.assert_allclose(seen["yaw_rate"], rate, rtol=0.03)
    np.testing.assert_allclose(seen["imu_yaw_rate"], rate, rtol=0.03)
    turned = angle(seen["heading"])
    assert turned[-1] - turned[0] == pytest.approx(4.9 * rate, rel=0.03)  # positive is left
    assert np.linalg.norm(seen["position"] - seen["position"][0], axis=1).max() < 0.02


def test_it_drives_a_circle():
    physics = standing()
    run(physics, 0.2, 1.0, ticks=10)
    seen = run(physics, 0.2, 1.0, ticks=63)  # a whole one
    # v / w = 0.2 m; the diameter both ways, to the left of where it began
    size = seen["position"].max(axis=0) - seen["position"].min(axis=0)
    np.testing.assert_allclose(size, 0.4, rtol=0.04)


def speeding_up(term: str, *command: float) -> np.ndarray:
    """What `term` shows (41,) after every physics step of 5 ms, from rest on."""
    physics, seen = standing(), [0.0]
    for _ in range(40):
        physics.substep(np.array([command]))
        seen.append(float(physics.fields()[term][0, 0]))
    return np.array(seen)


def test_it_gains_speed_as_fast_as_its_force_allows():
    speeds = speeding_up("speed", 0.22, 0.0)
    # 2.5 N on 1.22 kg, see below: 2.05 m/s2. In the first 20 ms the base rocks.
    assert (speeds[16] - speeds[4]) / 0.06 == pytest.approx(2.05, rel=0.03)
    assert np.diff(speeds)[4:].max() < 2.05 * 0.005
    assert speeds[20] < 0.22 * 0.95 < speeds[40]


def test_it_begins_to_turn_as_fast_as_its_torque_allows():
    rates = speeding_up("yaw_rate", 0.0, 2.84)
    # About the middle of the axle: the base, .0020 + .826 x .032^2; the scanner, .0001 + .114 x
    # .032^2; the wheels, 2 (1.12e-5 + .0285 x .080^2) and, rolling, 2 (1e-4 + 2.07e-5)(.080 /
    # .033)^2: 0.00487 kg m2. 0.08 N m: 16.4 rad/s2.
    assert (rates[16] - rates[4]) / 0.06 == pytest.approx(16.4, rel=0.03)


def test_it_stops_within_its_braking_distance():
    physics = standing()
    start = run(physics, 0.22, 0.0, ticks=20)["position"][-1, 0]
    seen = run(physics, 0.0, 0.0, ticks=10)
    # 2.5 N on 1 kg and the turning parts, 2 (1e-4 + 2.07e-5) / 0.033^2 = 0.22 kg: 2.05 m/s2.
    # The servo lets go below 2.5 / 60 = 0.042 m/s and fades out with 1.22 / 60 s, 0.8 mm more than
    # (v^2 - 0.042^2) / 2a, 11.2 mm from 0.218 m/s, which it has against its damping: 12.0 mm.
    # Euler's step of 5 ms counts its end: 0.5 mm less. The base rocks, by as much.
    assert seen["position"][-1, 0] - start == pytest.approx(0.0120 - 0.0005, abs=0.0005)
    assert abs(seen["speed"][4:]).max() < 0.01


def test_it_does_not_tip_whatever_is_commanded():
    physics, rng = standing(16), np.random.default_rng(0)
    command = np.zeros((16, 2))
    for tick in range(200):
        if tick % 3 == 0:
            command = rng.choice([-1.0, 0.0, 1.0], (16, 2)) * [0.22, 2.84]
        physics.step(command)  # not even rate limited
        _, x, y, _ = physics.batch.qpos[:, 3:7].T
        assert np.degrees(np.arccos(1 - 2 * (x * x + y * y))).max() < 2.0
    assert not physics.diverged().any()


def test_it_hits_a_wall_and_stands():
    physics = standing(scene=walled)
    seen = run(physics, 0.22, 0.0, ticks=80)
    # The body ends 0.038 m ahead of the axle.
    assert seen["position"][-1, 0] == pytest.approx(WALL - 0.038, abs=0.005)
    # Its wheels may slip, it does not creep along or through the wall.
    late = seen["position"][40:]
    assert np.ptp(late, axis=0).max() < 0.01
    assert np.abs(seen["speed"][40:]).max() < 0.05
    # And it gets away again.
    away = run(physics, -0.22, 0.0, ticks=20)
    assert away["position"][-1, 0] < WALL - 0.3


# What it shows ----------------------------------------------------------------------------


def test_fields_are_mujocos_truth():
    physics = standing(scene=walled)
    seen = run(physics, 0.15, 1.2, ticks=23)
    data = mujoco.MjData(physics.model)
    data.qpos[:], data.qvel[:] = physics.batch.qpos[0], physics.batch.qvel[0]
    mujoco.mj_forward(physics.model, data)
    base = data.body("base_link")
    rotation = base.xmat.reshape(3, 3)
    last = {name: value[-1] for name, value in seen.items()}
    np.testing.assert_array_equal(last["position"], base.xpos[:2])
    w, _, _, z = base.xquat
    np.testing.assert_array_equal(last["heading"], [z, w])  # MuJoCo's order is w, x, y, z
    # A free joint's qvel: linear in the world, angular in the body.
    np.testing.assert_allclose(last["speed"], [(rotation.T @ data.qvel[:3])[0]], atol=1e-12)
    np.testing.assert_allclose(last["yaw_rate"], [data.qvel[5]], atol=1e-12)
    assert last["yaw_rate"] == pytest.approx(1.2, rel=0.03)
    # The wall is straight: along a ray at angle a from x it is (WALL - x) / cos a away.
    rays = next(t for t in ROBOT.interface.observation if t.name == "scan").mujoco.rays
    site = data.site("base_scan")
    heading = 2 * np.arctan2(z, w)
    bearing = heading + rays.angle_min + rays.step(24) * np.arange(24)
    ahead = np.cos(bearing) > 0.5
    expected = (WALL - site.xpos[0]) / np.cos(bearing[ahead])
    np.testing.assert_allclose(last["scan"][ahead], expected, rtol=0.01)  # it tilts a little
    assert (last["scan"][np.cos(bearing) < 0] == 3.5).all()  # nothing there


def test_the_acceleration_is_that_of_the_imus_place():
    physics = standing()
    seen = run(physics, 0.0, 2.0, ticks=20)
    # The IMU is 0.032 m behind the axle: on its circle it accelerates forward, w^2 r = 0.128,
    # and the base rests 0.13 degrees nose down on its springy contacts: 0.022 of gravity.
    np.testing.assert_allclose(seen["acceleration"][-1], [4 * 0.032 - 0.022, 0], atol=0.01)


def messages(fields):
    """Every topic's message with these fields, as sim_node sends it."""
    pytest.importorskip("rclpy")
    from mlsh_ros.nodes.node import message_type

    made = {}
    for reader in topic_readers(ROBOT.interface.observation):
        made[reader.topic] = reader, message_type(reader.type)()
        reader.write(made[reader.topic][1], fields)
    return made


def test_the_observation_through_ros_is_the_one_of_the_simulation():
    physics, kinds = standing(scene=walled), set()
    for command in ((0.22, 0.7), (-0.2, -2.5), (0.22, 0.0), (0.1, 2.84)):
        seen = run(physics, *command, ticks=25)
        for tick in range(25):
            fields = {name: value[tick] for name, value in seen.items()}
            back = {}
            for reader, message in messages(fields).values():
                back |= reader.read(message)
            kinds |= set(np.isinf(messages(fields)["scan"][1].ranges))
            np.testing.assert_array_equal(
                ROBOT.interface.observe(back), ROBOT.interface.observe(fields)
            )
    assert kinds == {True, False}


def test_odometry_is_what_ros_expects_of_a_quarter_turn_to_the_left():
    physics = standing()
    physics.teleport(np.zeros(1, np.int32), np.array([[1.5, -0.5, np.pi / 2]]))
    fields = {name: value[0] for name, value in physics.fields().items()}
    odom = messages(fields)["odom"][1]
    position, orientation = odom.pose.pose.position, odom.pose.pose.orientation
    np.testing.assert_allclose((position.x, position.y), (1.5, -0.5))
    xyzw = [getattr(orientation, axis) for axis in "xyzw"]
    np.testing.assert_allclose(xyzw, [0, 0, math.sqrt(0.5), math.sqrt(0.5)], atol=1e-3)
    assert odom.child_frame_id == "base_footprint"


def test_a_heading_has_two_quaternions():
    physics = standing(2)
    heading = 0.7
    pose = np.array([[0, 0, heading], [0, 0, heading + 2 * np.pi]])
    physics.teleport(np.arange(2, dtype=np.int32), pose)
    shown = physics.fields()["heading"]
    expected = np.array([math.sin(heading / 2), math.cos(heading / 2)])
    np.testing.assert_allclose(shown, [expected, -expected], atol=1e-12)


def test_a_command_is_a_twist():
    pytest.importorskip("rclpy")
    from mlsh_ros.nodes.node import message_type

    (writer,) = command_writers(ROBOT.interface.action)
    message = message_type(writer.type)()
    writer.write(message, np.array([0.2, -1.5]))
    assert (message.twist.linear.x, message.twist.angular.z) == (0.2, -1.5)
    assert (writer.topic, writer.frame) == ("cmd_vel", "base_link")
