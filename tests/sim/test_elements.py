"""What a term may say per element, which measurement a command has, and angles on a circle."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mlsh_ros.control.controller import Tick
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.safety_monitor import SafetyMonitor, SafetyRules
from mlsh_ros.sim2real.sysid.parameters import Unknown, chosen
from policies.bundle.skill_limits import check_skill_limits
from sim.errors import UserError
from sim.interface import (
    Interface,
    ObservationMemory,
    Tracking,
    exceeds,
    fold,
    interface_from_dict,
    interface_to_dict,
)
from sim.physics.robot_model import load_robot
from sim.robot_setup.step_test import run_step_tests
from sim.robot_setup.validation import find_warnings
from tests.support.interfaces import INTERFACES
from tests.support.robots import odd_interface

RULES = SafetyRules(max_late_decisions=3, max_missed_ticks=5, max_switches=10, max_clock_jump=1.0)


def listed(interface: Interface) -> Interface:
    """The same robot, every number or pair written out per element."""

    def many(value, size):
        per_element = isinstance(value, tuple) and (
            len(value) == size and (size != 2 or isinstance(value[0], tuple))
        )
        return value if value is None or per_element else (value,) * size

    observation = tuple(
        replace(
            t,
            scale=many(t.scale, t.count),
            clip=many(t.clip, t.count),
            noise=many(t.noise, t.count),
            limit=many(t.limit, t.count),
        )
        for t in interface.observation
    )
    action = tuple(
        replace(
            t,
            scale=many(t.scale, t.size),
            offset=many(t.offset, t.size),
            limit=many(t.limit, t.size),
            smoothing_time=many(t.smoothing_time, t.size),
            rate_limit=many(t.rate_limit, t.size),
        )
        for t in interface.action
    )
    return replace(interface, observation=observation, action=action)


@pytest.mark.parametrize("name", INTERFACES)
def test_a_list_of_equal_values_is_that_value(name):
    plain = INTERFACES[name]
    each, rng = listed(plain), np.random.default_rng(1)
    assert interface_from_dict(interface_to_dict(each), "x") == each
    fields = {t.name: rng.normal(size=(50, t.size)) * 3 for t in plain.observation}
    memory = ObservationMemory(plain, (50,))
    np.testing.assert_array_equal(
        plain.observe(fields, memory=memory), each.observe(fields, memory=memory)
    )
    action = rng.normal(size=(50, plain.action_size)) * 2
    before = plain.safe_command + rng.normal(size=(50, plain.action_size)) * 0.1
    for call in (
        lambda i: i.command(action, before),
        lambda i: i.brake(before),
        lambda i: i.saturated(action),
        lambda i: i.action_for(before),
    ):
        np.testing.assert_array_equal(call(plain), call(each))


def test_one_number_stays_one_number_in_files_and_in_the_digest():
    interface = odd_interface()
    data = interface_to_dict(interface)
    assert data["action"][1]["scale"] == -0.8
    assert data["observation"][0]["clip"] == [-0.5, 0.5]
    for later in ("wraps", "elements"):
        assert later not in json.dumps(data["observation"][0] | {"mujoco": None})
    tracked = replace(interface.action[0], tracking=Tracking("angle", 0.1, 0.2))
    with_tracking = replace(interface, action=(tracked, *interface.action[1:]))
    assert set(interface_to_dict(with_tracking)["action"][0]["tracking"]) == {
        "term",
        "tolerance",
        "timeout",
    }
    assert listed(interface).digest != interface.digest


def changed(**keys) -> Interface:
    """The odd robot with other values: `drive__scale=..`, `position__clip=..`."""
    data = interface_to_dict(odd_interface())
    for key, value in keys.items():
        name, key = key.split("__")
        (term,) = [t for t in data["observation"] + data["action"] if t["name"] == name]
        term[key] = value
    return interface_from_dict(data, "robot.yaml")


def test_elements_by_hand():
    i = changed(
        position__scale=[2.0, -1.0],
        position__clip=[[-1.0, 1.0], [-9.0, 9.0]],
        drive__scale=[0.5, 2.0],
        drive__offset=[0.0, 0.1],
        drive__limit=[[-0.1, 0.1], [-3.0, 3.0]],
        drive__rate_limit=[100.0, 1.0],
    )
    fields = {t.name: np.zeros(t.size) for t in i.observation} | {"position": np.array([3.0, 4.0])}
    assert i.observe(fields)[1:3].tolist() == [1.0, -4.0]  # 2 * 3 is clipped to 1; -1 * 4
    # drive x: 0.5 * 1 is limited to 0.1, from 0 at once; y: 0.1 + 2 * 1 = 2.1, by 1 * 0.05 a tick
    command = i.command(np.ones(3), np.zeros(3))
    np.testing.assert_allclose(command[1:], [0.1, 0.05])
    assert i.saturated(np.ones(3)).tolist()[1:] == [True, False]
    np.testing.assert_allclose(i.action_for(np.array([0.0, 0.5, 2.1]))[1:], [1.0, 1.0])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position__scale", [1.0]),
        ("position__scale", [1.0, 0.0]),
        ("position__clip", [[-1.0, 1.0]]),
        ("position__clip", [[-1.0, 1.0], [2.0, 1.0]]),
        ("position__noise", [0.1, 0.1, 0.1]),
        ("position__noise", [0.1, -0.1]),
        ("position__limit", [[-1.0, 1.0], [3.0, 3.0]]),
        ("drive__offset", [0.0]),
        ("drive__limit", [[-1.0, 1.0]]),
        ("drive__limit", [[-1.0, 1.0], [0.5, 1.0]]),  # the safe command is 0
        ("drive__rate_limit", [1.0, 0.0]),
        ("drive__smoothing_time", []),
        ("drive__smoothing_time", "fast"),
        ("position__wraps", True),  # in m
    ],
)
def test_a_list_that_does_not_fit_is_refused_and_named(key, value):
    name, key = key.split("__")
    with pytest.raises(UserError, match=rf"(?s){name}.*{key}|\.{key}(\.\d)*: |{key}") as error:
        changed(**{f"{name}__{key}": value})
    assert "<" not in str(error.value)


def test_a_limit_per_element_is_the_guards_and_bounds_that_of_a_skill():
    i = changed(position__limit=[[-1.0, 1.0], [-5.0, 5.0]])
    check_skill_limits({"a": {"position": ((-1.0, 1.0), (-4.0, 5.0))}}, ["a"], i)
    with pytest.raises(UserError, match="beyond the robot's own"):
        check_skill_limits({"a": {"position": (-2.0, 2.0)}}, ["a"], i)
    guard = SafetyMonitor(i, ("a",), {}, RULES)
    fields = {t.name: np.zeros(t.size) for t in i.observation}
    guard.check(tick(i), fields | {"position": np.array([0.9, 4.9])}, 0.0)
    with pytest.raises(FaultError, match=r"position.0 is 1.1 .* may see -1 to 1"):
        guard.check(tick(i), fields | {"position": np.array([1.1, 4.9])}, 0.1)


# Which measurement a command has ----------------------------------------------------------


def tick(interface: Interface, command=None) -> Tick:
    blank = np.zeros(interface.observation_size, np.float32)
    action = np.zeros(interface.action_size, np.float32)
    command = interface.safe_command if command is None else command
    return Tick(0, 0, blank, action, command, False, False, False)


def legs(**drive) -> Interface:
    """The drive is measured by two of the three elements of `shake`, the other way round."""
    return changed(drive__unit="m/s^2", drive__tracking={"term": "shake", "timeout": 0.3, **drive})


def test_a_command_is_tracked_by_elements_of_a_larger_term():
    i = legs(tolerance=[0.5, 0.2], elements=[2, 0])
    assert i.measured == (None, ("shake", 2), ("shake", 0))
    assert interface_from_dict(interface_to_dict(i), "x") == i
    fields = {t.name: np.zeros(t.size) for t in i.observation}
    command = np.array([0.2, 0.6, -0.3])

    def session(shake):
        guard = SafetyMonitor(i, ("a",), {}, RULES)
        for step in range(9):
            guard.check(tick(i, command), fields | {"shake": np.array(shake)}, step * 0.1)

    session([-0.3, 99.0, 0.6])  # element 1 measures nothing here
    session([-0.45, 99.0, 0.15])
    with pytest.raises(FaultError, match=r"drive.1 is commanded -0.3 m/s\^2, shake.0 shows -0.6"):
        session([-0.6, 0.0, 0.6])
    with pytest.raises(
        FaultError, match=r"drive.0 is commanded 0.6 .*shake.2 shows -0.3 .* 0.5 a"
    ):
        session([-0.3, 0.0, -0.3])  # the order of the elements counts


def test_an_element_may_be_measured_by_nothing():
    i = legs(tolerance=0.1, elements=[None, 1])
    assert i.measured == (None, None, ("shake", 1))
    guard = SafetyMonitor(i, ("a",), {}, RULES)
    fields = {t.name: np.zeros(t.size) for t in i.observation}
    for step in range(9):
        guard.check(tick(i, np.array([0.2, 0.7, 0.0])), fields, step * 0.1)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ([0, 3], "no element 3.*Valid: 0 to 2"),
        ([0], "tracking.elements has 1 elements, size is 2"),
        ([0, 0], "tracking.elements '0' is given twice"),
        ([None, None], "name nothing"),
        ([0, -1], "greater than or equal to 0"),
        (None, r"3 elements in m/s\^2, not 2 .* tracking.elements can say"),
    ],
)
def test_elements_that_measure_nothing_are_refused(elements, reason):
    with pytest.raises(UserError, match=reason):
        legs(tolerance=0.1, elements=elements)


# Angles on a circle -----------------------------------------------------------------------


def test_fold_keeps_what_is_on_the_circle_and_turns_the_rest_by_whole_turns():
    inside = np.linspace(-np.pi, np.pi, 1001)[1:]
    np.testing.assert_array_equal(fold(inside), inside)
    assert fold(np.array(-np.pi)) == np.pi
    for turns in (-1000, -3, 1, 2):
        np.testing.assert_allclose(fold(inside[:-1] + turns * 2 * np.pi), inside[:-1], atol=1e-9)
    assert np.isnan(fold(np.array([np.nan]))).all()


def test_a_simulation_that_counts_turns_shows_what_a_driver_that_wraps_shows():
    i = changed(angle__wraps=True, angle__clip=None)
    fields = {t.name: np.zeros(t.size) for t in i.observation}
    turned = i.observe(fields | {"angle": np.array([0.3 + 4 * np.pi])})
    np.testing.assert_allclose(turned, i.observe(fields | {"angle": np.array([0.3])}))


def test_a_limit_across_the_seam_of_a_circle_is_refused():
    changed(angle__wraps=True, angle__limit=[-4.0, 4.0])
    changed(angle__wraps=True, angle__limit=[-3.0, 3.14])
    with pytest.raises(UserError, match=r"limit \(2.0, 4.0\) reaches beyond pi on one side"):
        changed(angle__wraps=True, angle__limit=[2.0, 4.0])


def circle(wraps) -> Interface:
    return changed(
        angle__wraps=wraps,
        arm__unit="rad",
        arm__limit=[-4.0, 4.0],
        arm__tracking={"term": "angle", "tolerance": 0.2, "timeout": 0.3},
        arm__initial_command="safe",
    )


def session(interface: Interface, command: float, angle: float) -> None:
    guard = SafetyMonitor(interface, ("a",), {}, RULES)
    fields = {t.name: np.zeros(t.size) for t in interface.observation}
    for step in range(9):
        told = np.array([command, 0.0, 0.0])
        guard.check(tick(interface, told), fields | {"angle": np.array([angle])}, step * 0.1)


@pytest.mark.parametrize("wraps", [True, [True]])
def test_an_angle_is_tracked_on_the_circle_where_it_wraps(wraps):
    session(circle(wraps), 3.2, -3.1)  # 3.2 - 2 pi is -3.083
    session(circle(wraps), -3.1, 3.2)
    with pytest.raises(FaultError, match=r"arm.0 is commanded 3.2 rad, angle.0 shows 2.9"):
        session(circle(wraps), 3.2, 2.9)


@pytest.mark.parametrize("wraps", [False, None, [False]])
def test_it_is_a_line_where_it_does_not(wraps):
    with pytest.raises(FaultError, match="tracking"):
        session(circle(wraps), 3.2, -3.1)


MEASURED = {"term": "angle", "tolerance": 0.2, "timeout": 0.3}


def test_a_measurement_that_does_not_say_the_turn_begins_no_session():
    wraps = {"angle__wraps": True, "arm__unit": "rad", "arm__tracking": MEASURED}
    with pytest.raises(
        UserError, match=r"not say in which turn element 0 is; its limit \[-4, 4\]"
    ):
        changed(arm__limit=[-4.0, 4.0], **wraps)
    one_turn = changed(arm__limit=[-3.2, 3.0], **wraps)
    arm = one_turn.action_slices["arm"].start
    fields = {t.name: np.zeros(t.size) for t in one_turn.observation}
    for raw, begins in ((2.9, 2.9), (-3.1, -3.1), (3.14, 3.14 - 2 * np.pi)):
        fields["angle"] = np.array([raw])
        assert one_turn.start_beyond_limit(fields) == ""
        assert one_turn.initial_command(fields)[arm] == pytest.approx(begins)
        assert one_turn.measured_command(fields)[arm] == pytest.approx(begins)
    fields["angle"] = np.array([7.0])  # its driver counts turns: it would turn back by one
    assert "angle.0 measures 7: it counts turns" in one_turn.start_beyond_limit(fields)
    safe = changed(arm__limit=[-4.0, 4.0], arm__initial_command="safe", **wraps)
    assert np.isnan(safe.measured_command(fields)[arm])


@pytest.mark.parametrize("initial", [None, "safe", "measured"])
def test_what_is_not_measured_is_not_known_wherever_a_session_begins(initial):
    """watchdog_node brakes from it: the safe command would be a step."""
    part = changed(arm__unit="rad", arm__tracking=MEASURED, arm__initial_command=initial)
    arm = np.arange(part.action_size) == part.action_slices["arm"].start
    fields = {t.name: np.zeros(t.size) for t in part.observation} | {"angle": np.array([0.2])}
    np.testing.assert_array_equal(part.is_measured[arm], [True])
    known = part.is_measured
    assert np.isnan(part.measured_command(fields)).tolist() == (~known).tolist()
    assert part.measured_command(fields)[arm] == pytest.approx(0.2)
    assert np.isnan(part.measured_command({})).all()


# Rounding ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "wrong"),
    [
        ((-0.5236, 2.9671), False),  # the same, of four digits
        ((-0.52, 2.9), False),
        ((-0.53, 2.96), True),
        ((-0.5, 2.98), True),
    ],
)
def test_a_range_exceeds_another_by_more_than_rounding(inner, wrong):
    assert exceeds(inner, (-0.523599, 2.96706)) == wrong


# What check-robot says of it ---------------------------------------------------------------

TURNTABLE = """
<mujoco>
  <compiler angle="radian"/>
  <option timestep="0.01" integrator="implicitfast"/>
  <worldbody>
    <body><joint name="1" axis="0 0 1" damping="1"/><geom size=".1" mass="1"/></body>
    <body pos="0 0 1">
      <joint name="arm[0]" axis="0 0 1" range="-0.523599 2.96706" limited="true" damping="1"/>
      <geom size=".1" mass="1"/>
    </body>
  </worldbody>
  <actuator>
    <position name="turn" joint="1" kp="50" kv="3"/>
    <position name="bend" joint="arm[0]" kp="50" kv="3"/>
  </actuator>
</mujoco>
"""
TURNING = """
schema: 2
robot: turntable
control_dt: 0.05
physics_dt: 0.01
observation:
  - {name: angle, size: 2, unit: rad, frame: joint, scale: 1.0, clip: null, noise: 0.0,
     max_age: 0.1, limit: null, inf_values: null, wraps: [true, false],
     mujoco: {qpos: ["1", "arm[0]"]},
     ros: {topic: joint_states, type: sensor_msgs/msg/JointState,
           fields: ["position[1]", 'position["arm[0]"]'], required_values: {}}}
action:
  - {name: angle, size: 2, unit: rad, frame: joint, scale: 1.0, offset: 0.0,
     limit: [[-5.0, 5.0], [-0.5236, 2.9671]],
     smoothing_time: 0.0, rate_limit: [3.0, 2.0],
     tracking: {term: angle, tolerance: 0.5, timeout: 0.5},
     safe_command: [0.0, 0.0], initial_command: safe, mujoco: {actuators: [turn, bend]},
     ros: {topic: joint_commands, type: sensor_msgs/msg/JointState,
           fields: ["position[1]", 'position["arm[0]"]'], required_values: {}}}
"""


@pytest.fixture
def turntable(tmp_path):
    def make(text=TURNING, model=TURNTABLE):
        (tmp_path / "model.xml").write_text(model)
        (tmp_path / "robot.yaml").write_text(text)
        robot = load_robot(str(tmp_path))
        trial = run_step_tests(robot.interface, robot.compile(), 3.0)
        return trial, find_warnings(robot.interface, robot.compile(), trial)

    return make


def test_a_joint_that_turns_without_end_follows_beyond_pi(turntable):
    trial, found = turntable()
    assert found == []  # nor is a limit rounded to four digits beyond its joint's range
    first = trial.drives[0]
    assert (first.target, first.ramp) == (-5.0, pytest.approx(5 / 3))
    for drive in trial.drives:
        assert drive.followed.gain == pytest.approx(1, abs=0.02)
        assert drive.followed.error < 0.5
    assert trial.drives[0].shown.low["angle"][0] > -np.pi


def test_a_joint_that_could_wrap_is_asked_about(turntable):
    _, found = turntable(TURNING.replace("wraps: [true, false],", ""))
    assert len(found) == 1
    assert "term angle: joint 1 turns without end: say `wraps: true`" in found[0]


def test_an_angle_that_is_not_said_to_wrap_is_tracked_on_a_line(turntable):
    trial, found = turntable(TURNING.replace("[true, false]", "false"))
    assert found == []
    assert trial.drives[0].shown.low["angle"][0] < -4.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "degrees"), [("[-0.6, 2.9671]", False), ("[-30.0, 170.0]", True)]
)
def test_a_limit_beyond_its_joints_range_is_explained_by_degrees_only_if_it_could_be(
    turntable, limit, degrees
):
    _, found = turntable(TURNING.replace("[-0.5236, 2.9671]", limit))
    (text,) = [text for text in found if "is beyond the range -0.523599 .. 2.96706" in text]
    assert ("MJCF angles are degrees" in text) == degrees


def test_a_measurement_of_another_joint_is_refused(turntable):
    swapped = TURNING.replace("timeout: 0.5}", "timeout: 0.5, elements: [1, 0]}")
    with pytest.raises(UserError, match=r"drives joint '1', and angle\.1, which shall measure it"):
        turntable(swapped)


def test_the_limit_of_an_element_is_its_own(turntable):
    text = TURNING.replace("limit: null", "limit: [[-4.0, 4.0], [-0.6, 1.0]]")
    _, found = turntable(text)
    (said,) = [each for each in found if "reached in normal driving" in each]
    assert "its limit [-4, 4], [-0.6, 1] is reached in normal driving: it shows 2.97" in said


def test_a_name_of_digits_without_quotes_is_explained(turntable):
    with pytest.raises(
        UserError, match=r'qpos.0: 1 is a number; a name of digits needs quotes: "1'
    ):
        turntable(TURNING.replace('{qpos: ["1",', "{qpos: [1,"))


def test_a_joint_whose_name_looks_like_an_element_is_that_joint(turntable):
    trial, _ = turntable()
    assert trial.drives[-1].element == 1
    both = TURNTABLE.replace(
        "<worldbody>",
        '<worldbody><body pos="0 0 3"><freejoint name="arm"/><geom size=".1" mass="1"/></body>',
    )
    with pytest.raises(UserError, match=r"'arm\[0\]' is a joint and could be an element of joint"):
        turntable(model=both)
    with pytest.raises(UserError, match=r"'arm\[9\]': joint 'arm' has elements 0 to 6"):
        turntable(TURNING.replace('"arm[0]"]}', '"arm[9]"]}'), both.replace("arm[0]", "arm_0"))


def test_a_motor_called_1_is_not_every_second_element_of_something_else():
    names = ["1.gain_factor", "1.delay_s", "2.gain_factor", "angle.element_bias.1"]
    found = [Unknown(name, "x", i, 1.0, 0.1, 0.9, 1.1) for i, name in enumerate(names)]

    def left(parameters=(), fix=()):
        return [each.name for each in chosen(found, parameters, fix)]

    assert left(["1"]) == names[:2]
    assert left(fix=["1"]) == names[2:]
    assert left(["gain_factor"]) == [names[0], names[2]]
    assert left(["1", "element_bias.1"], ["1.delay_s"]) == [names[0], names[3]]
    with pytest.raises(UserError, match="no parameter '3'"):
        left(["3"])


# The offset of an observation -------------------------------------------------------------------


def test_an_offset_is_subtracted_before_scale_and_clip_and_added_again():
    plain = odd_interface()
    angle, position, *rest = plain.observation
    terms = (replace(angle, offset=0.2), replace(position, offset=(1.0, -2.0)), *rest)
    moved = replace(plain, observation=terms)
    fields = {t.name: np.zeros(t.size) for t in plain.observation}
    fields |= {"angle": np.array([0.3]), "position": np.array([1.5, -2.0])}
    # 2 * (0.3 - 0.2), within -0.5 and 0.5; position - offset
    np.testing.assert_allclose(moved.observe(fields)[:3], [0.2, 0.5, 0.0], rtol=1e-6)
    shown = moved.observe(fields)[moved.observation_slices["position"]].astype(float)
    np.testing.assert_allclose(terms[1].unscaled(shown), [1.5, -2.0])
    assert interface_from_dict(interface_to_dict(moved), "x") == moved
    assert moved.digest != plain.digest
    assert "offset" not in interface_to_dict(plain)["observation"][0]
    none = replace(plain, observation=(replace(angle, offset=None), position, *rest))
    assert none.digest == plain.digest
    with pytest.raises(ValueError, match="term 'position': offset has 3 elements, size is 2"):
        replace(position, offset=(0.0, 0.0, 0.0))
