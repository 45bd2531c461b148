"""Rays: what they measure, and that a LaserScan carries it bit for bit and nothing else passes."""

import math
from dataclasses import replace

import mujoco
import numpy as np
import pytest

from mlsh_ros.messages.conversion import MessageError, topic_readers
from sim.errors import UserError
from sim.interface import (
    LASER_SCAN,
    ActionTerm,
    Interface,
    MujocoActuators,
    MujocoState,
    ObservationTerm,
    Rays,
    RosField,
)
from sim.physics.batched_physics import BatchedPhysics

# A cart on a slide with a turning head; walls at x = 2 and y = -1, a post beside the head.
MODEL = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast"><flag contact="disable"/></option>
  <worldbody>
    <geom type="plane" size="9 9 1" pos="0 0 -1"/>
    <geom type="box" size=".01 9 1" pos="2.01 0 0"/>
    <geom type="box" size="9 .01 1" pos="0 -1.01 0"/>
    <body name="cart">
      <joint name="x" type="slide" axis="1 0 0"/>
      <geom type="sphere" size=".3" pos="-.5 0 0"/>
      <body name="head">
        <joint name="turn" axis="0 0 1"/>
        <geom type="sphere" size=".05"/>
        <site name="lidar"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <velocity name="go" joint="x" kv="50"/><velocity name="spin" joint="turn" kv="5"/>
  </actuator>
</mujoco>
"""
COUNT = 4
FAN = Rays("lidar", 0.0, 1.5 * np.pi, range_min=0.22, range_max=3.5)
INFINITE = (0.2, 3.6)


def scan_term(rays: Rays = FAN, count: int = COUNT) -> ObservationTerm:
    return ObservationTerm(
        name="scan",
        size=count,
        unit="m",
        frame="head",
        scale=1.0,
        clip=None,
        noise=0.0,
        max_age=0.5,
        limit=None,
        inf_values=INFINITE,
        mujoco=MujocoState(rays=rays),
        ros=RosField(
            "scan",
            LASER_SCAN,
            tuple(f"ranges[{i}]" for i in range(count)),
            tuple(rays.required_values(count).items()),
        ),
    )


def physics(size: int = 1, **changes) -> BatchedPhysics:
    term = scan_term(**changes)
    drive = ActionTerm(
        name="drive",
        size=2,
        unit="mixed",
        frame="cart",
        scale=1.0,
        offset=0.0,
        limit=(-5.0, 5.0),
        smoothing_time=0.0,
        rate_limit=100.0,
        tracking=None,
        safe_command=(0.0, 0.0),
        mujoco=MujocoActuators(("go", "spin")),
        ros=RosField("cmd_vel", "geometry_msgs/msg/Twist", ("linear.x", "angular.z"), ()),
    )
    interface = Interface("cart", 0.1, 0.01, (term,), (drive,))
    return BatchedPhysics(interface, mujoco.MjModel.from_xml_string(MODEL), size, 1)


def stand(made: BatchedPhysics, x: float, turn: float) -> np.ndarray:
    """(COUNT,) what is seen from there."""
    ids = np.zeros(1, np.int32)
    made.reset(ids)
    made.batch.qpos[0] = x, turn
    made.batch.forward(ids)
    made._measure(ids)
    return made.fields()["scan"][0]


def f32(*values: float) -> list[float]:
    return np.array(values, np.float32).astype(float).tolist()


def test_rays_by_hand():
    # Ahead the wall at 2, to the left nothing, behind the cart's own ball at 0.5 - 0.3, which is
    # nearer than range_min, to the right the wall at 1. The head itself is not seen.
    assert stand(physics(), 0.0, 0.0).tolist() == [2.0, INFINITE[1], INFINITE[0], 1.0]
    # From x = 0.7 the wall ahead is at 1.3 and the ball moves along.
    assert stand(physics(), 0.7, 0.0).tolist() == [*f32(1.3), INFINITE[1], INFINITE[0], 1.0]


def test_rays_turn_with_the_site_counter_clockwise():
    # A quarter turn to the left: ahead of the head nothing, left the ball, behind the wall at 1.
    got = stand(physics(), 0.0, np.pi / 2)
    np.testing.assert_allclose(got, [INFINITE[1], INFINITE[0], 1.0, 2.0], atol=1e-6)
    # 60 degrees to the right: the wall at 1 is 1 / cos 30 away.
    assert stand(physics(), 0.0, -np.pi / 3)[0] == pytest.approx(1 / np.cos(np.pi / 6))


def test_ranges_end_where_the_scanner_ends():
    rays = replace(FAN, range_max=2.0)  # not nearer than range_max: as if nothing were there
    assert stand(physics(rays=rays), 0.0, 0.0)[0] == INFINITE[1]
    rays = replace(FAN, range_min=1.0)
    assert stand(physics(rays=rays), 0.0, 0.0)[3] == INFINITE[0]
    limit = 0.1  # not a float32: the rounded range decides, as a driver would see it
    for rays in (FAN, replace(FAN, range_min=limit)):
        for distance in np.nextafter(limit, 1), limit, float(np.float32(limit)):
            (got,) = rays.ranges(np.array([distance]), (limit, 3.6))
            assert got == limit or float(np.float32(got)) == float(got) > limit


def test_every_simulation_sees_its_own_world():
    made, alone = physics(3), physics()
    made.reset(np.arange(3, dtype=np.int32))
    alone.reset(np.zeros(1, np.int32))
    for _ in range(10):
        made.step(np.array([[0.0, 0.0], [0.5, 2.0], [-0.3, 1.0]]))
        alone.step(np.array([[0.5, 2.0]]))
        rows = made.fields()["scan"]
        np.testing.assert_array_equal(rows[1], alone.fields()["scan"][0])
    assert (rows[1:] != rows[0]).any(axis=1).all()
    before = made.fields()["scan"]
    made.reset(np.array([1], np.int32))
    after = made.fields()["scan"]
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(after[1], after[0])  # 0 stood still


def test_a_scan_is_of_the_state_it_comes_with():
    """Not of the physics step before."""
    made = physics()
    made.reset(np.zeros(1, np.int32))
    for _ in range(10):
        made.step(np.array([[1.0, 0.0]]))
        assert made.fields()["scan"][0, 0] == np.float32(2 - made.batch.qpos[0, 0])


def test_a_snapshot_brings_the_scan_back():
    made = physics()
    made.reset(np.zeros(1, np.int32))
    made.step(np.array([[1.0, 3.0]]))
    state, seen = made.snapshot(), made.fields()["scan"]
    made.step(np.array([[1.0, 3.0]]))
    assert (made.fields()["scan"] != seen).any()
    made.restore(state)
    np.testing.assert_array_equal(made.fields()["scan"], seen)


# Through ROS ------------------------------------------------------------------------------


def message(fields=None):
    kind = pytest.importorskip("sensor_msgs.msg").LaserScan
    made = kind()
    (reader,) = topic_readers([scan_term()])
    reader.write(made, {"scan": np.array([1.0, 2.0, 0.5, 3.0]) if fields is None else fields})
    return reader, made


def test_an_observation_survives_the_message_bit_for_bit():
    serialization = pytest.importorskip("rclpy.serialization")
    made, rng = physics(), np.random.default_rng(0)
    kinds = set()
    for _ in range(200):
        seen = stand(made, rng.uniform(-3, 1.9), rng.uniform(-4, 4))
        reader, scan = message(seen)
        wire = serialization.serialize_message(scan)
        scan = serialization.deserialize_message(wire, type(scan))
        back = reader.read(scan)["scan"]
        np.testing.assert_array_equal(back, seen)
        np.testing.assert_array_equal(
            made.interface.observe({"scan": back}), made.interface.observe({"scan": seen})
        )
        kinds |= {math.copysign(1, r) if math.isinf(r) else 0 for r in scan.ranges}
    assert kinds == {-1, 0, 1}  # too close, somewhere, nothing there


def test_the_message_is_a_whole_laser_scan():
    _, scan = message()
    assert (scan.angle_min, scan.angle_max) == (0.0, np.float32(1.5 * np.pi))
    assert scan.angle_increment == np.float32(np.pi / 2)
    assert (scan.range_min, scan.range_max) == (np.float32(0.22), 3.5)
    # What every consumer computes: as many ranges as there are angles.
    angles = round((scan.angle_max - scan.angle_min) / scan.angle_increment) + 1
    assert len(scan.ranges) == angles == COUNT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("angle_min", 0.01),
        ("angle_max", 6.28),
        ("angle_increment", -np.pi / 2),  # clockwise
        ("range_min", 0.1),
        ("range_max", 12.0),
    ],
)
def test_another_scanner_is_refused_and_named(field, value):
    reader, scan = message()
    expected = dict(scan_term().ros.required_values)[field]
    setattr(scan, field, float(value))
    with pytest.raises(MessageError) as info:
        reader.read(scan)
    text = str(info.value)
    assert text.startswith(f"scan: {field} is ")
    assert f"{value:.5g}"[:4] in text
    assert f"not {expected!r}" in text


def test_a_constant_may_be_a_text_and_is_exact():
    odometry = pytest.importorskip("nav_msgs.msg").Odometry
    ros = RosField(
        "odom",
        "nav_msgs/msg/Odometry",
        ("twist.twist.linear.x",),
        (("child_frame_id", "base_link"),),
    )
    term = replace(scan_term(count=1), inf_values=None, mujoco=MujocoState(task="v"), ros=ros)
    (reader,) = topic_readers([term])
    made = odometry()
    with pytest.raises(MessageError, match=r"odom: child_frame_id is '', not 'base_link'"):
        reader.read(made)
    reader.write(made, {"scan": np.array([0.3])})
    assert made.child_frame_id == "base_link"
    assert reader.read(made)["scan"].tolist() == [0.3]


def test_a_required_value_is_given_once():
    with pytest.raises(ValueError, match=r"required value 'a' is given twice"):
        RosField("topic", "some/msg/Thing", (), (("a", 1.0), ("b", 2.0), ("a", 1.0)))


def test_two_terms_of_a_topic_may_not_contradict_each_other():
    one, two = scan_term(), replace(scan_term(), name="other")
    required_values = (*two.ros.required_values, ("scan_time", 0.1))
    topic_readers([one, replace(two, ros=replace(two.ros, required_values=required_values))])
    other = replace(
        one.ros, type="sensor_msgs/msg/LaserScan", required_values=(("range_max", 9.0),)
    )
    two = replace(two, mujoco=MujocoState(task="x"), ros=other)
    with pytest.raises(UserError, match=r"topic 'scan' is given range_max 3\.5 and 9\.0"):
        topic_readers([one, two])
