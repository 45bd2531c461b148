"""The deployment's core: decisions, ticks, messages, sensors, states. No node is started here."""

import itertools
import math
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from mlsh_ros.bringup.params import NODES, Param
from mlsh_ros.control.command_gate import CommandGate
from mlsh_ros.control.controller import Controller
from mlsh_ros.control.emergency_stop import EmergencyStop, Publisher
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.sensor_buffer import Sample, SensorBuffer
from mlsh_ros.control.skill_schedule import SkillSchedule
from mlsh_ros.control.supervisor import State, Status, Supervisor
from mlsh_ros.messages.conversion import (
    MessageError,
    command_writers,
    parse_path,
    topic_readers,
    unstamped,
)
from mlsh_ros.messages.labeled_array import OUTCOME, Layout, request_layout, trace_layout
from policies.bundle.runtime import choose, load_master, load_skills
from sim.errors import UserError
from sim.interface import (
    RosField,
    same_value,
)
from sim.physics.robot_model import load_robot
from tests.support.bundles import remembering_robot
from tests.support.terms import JOINTS, action_term, term

# Hierarchy -----------------------------------------------------------------------------------


def macro_skill(macro):
    """What the master says in these tests: 0 1 2 0 1 2 .."""
    return macro % 3


def drive(schedule, ticks, answers=lambda macro: True):
    """Skills of ticks 0 .. ticks-1, each question answered at once, or never."""
    skills = []
    for tick in range(ticks):
        macro = schedule.decision_due(tick)
        if macro is not None and answers(macro):
            schedule.set_decision(macro, macro_skill(macro))
        skills.append(schedule.skill(tick))
    return skills


TIMINGS = [(n, lead) for n in (1, 2, 3, 5, 10, 50) for lead in (0, 1) if lead < n]


@pytest.mark.parametrize(("n", "lead"), TIMINGS)
def test_macro_step_k_is_asked_at_kn_minus_lead_and_covers_kn_to_kn_plus_n(n, lead):
    schedule = SkillSchedule(n, lead, skills=3)
    asked = {
        t: schedule.decision_due(t) for t in range(7 * n) if schedule.decision_due(t) is not None
    }
    expected = {0: 0} | {k * n - lead: k for k in range(1, 8) if k * n - lead < 7 * n}
    assert asked == expected
    assert drive(schedule, 7 * n) == [macro_skill(t // n) for t in range(7 * n)]
    assert schedule.late == 0
    assert schedule.switches == 6


def test_needs_names_the_macro_step_until_its_decision_has_come():
    schedule = SkillSchedule(5, 1, skills=3)
    assert schedule.pending_decision(0) == 0
    schedule.set_decision(0, 2)
    assert schedule.pending_decision(0) is None
    assert [schedule.pending_decision(t) for t in range(1, 6)] == [None] * 4 + [1]


@pytest.mark.parametrize(("n", "lead"), TIMINGS)
def test_a_late_decision_keeps_the_skill_and_is_counted_once(n, lead):
    schedule = SkillSchedule(n, lead, skills=3)
    skills = drive(schedule, 4 * n, answers=lambda macro: macro not in (1, 2))
    # Macro steps 1 and 2 go on with the skill of macro step 0; 3 is skill 0 again.
    assert skills == [0] * 4 * n
    assert schedule.late == 2
    assert schedule.switches == 0


def test_an_answer_to_a_macro_step_that_has_begun_changes_nothing():
    schedule = SkillSchedule(4, 1, skills=3)
    drive(schedule, 5, answers=lambda macro: macro == 0)  # tick 4 began macro step 1 undecided
    assert not schedule.set_decision(1, 2)
    assert not schedule.set_decision(0, 0)
    assert [schedule.skill(t) for t in (5, 6, 7)] == [0, 0, 0]
    assert schedule.pending_decision(8) == 2
    assert schedule.skill(8) == 0
    assert schedule.late == 2


def test_the_first_answer_to_a_macro_step_holds():
    schedule = SkillSchedule(4, 0, skills=3)
    assert schedule.set_decision(0, 1)
    assert not schedule.set_decision(0, 1)
    assert schedule.skill(0) == 1


def test_two_answers_to_one_question_that_differ_are_of_two_masters():
    schedule = SkillSchedule(4, 0, skills=3)
    assert schedule.set_decision(0, 1)
    with pytest.raises(
        ValueError, match="decision 0: skill 2 is answered after skill 1: two mast"
    ):
        schedule.set_decision(0, 2)
    assert schedule.skill(0) == 1
    with pytest.raises(ValueError, match="two masters"):  # nor when it has begun
        schedule.set_decision(0, 2)
    schedule.reset()
    assert schedule.set_decision(0, 2)


@pytest.mark.parametrize("skill", [-1, 3, 99])
def test_an_invalid_skill_is_refused_with_the_valid_ones(skill):
    schedule = SkillSchedule(4, 0, skills=3)
    with pytest.raises(ValueError, match=f"decision 7: no skill {skill}. Valid: 0 to 2"):
        schedule.set_decision(7, skill)
    assert schedule.pending_decision(0) == 0


def test_a_new_session_knows_no_decision_of_the_one_before():
    schedule = SkillSchedule(4, 1, skills=3)
    drive(schedule, 9, answers=lambda macro: macro != 1)
    schedule.set_decision(3, 2)
    schedule.reset()
    assert (schedule.late, schedule.switches) == (0, 0)
    assert schedule.pending_decision(0) == 0
    with pytest.raises(ValueError, match="no decision for the first tick"):
        schedule.skill(0)
    assert drive(schedule, 16, answers=lambda macro: macro != 3)[12:] == [2] * 4
    assert schedule.late == 1


def test_a_lead_that_reaches_back_to_the_macro_step_before_is_refused():
    with pytest.raises(UserError, match="decision_lead 1 must be below decision_ticks 1"):
        SkillSchedule(1, 1, skills=2)


# Controller ----------------------------------------------------------------------------------


@pytest.fixture
def controller(bundle):
    manifest = bundle.manifest
    skills = load_skills(bundle)
    return Controller(bundle.interface, skills, manifest.decision_ticks, manifest.decision_lead)


def fields_at(interface, tick):
    rng = np.random.default_rng(tick)
    return {t.name: rng.normal(size=t.size) for t in interface.observation}


def test_controller_is_observe_skill_and_command_by_hand(bundle, controller):
    interface, skills = bundle.interface, load_skills(bundle)
    master = load_master(bundle, "goal-0")
    n, lead = bundle.manifest.decision_ticks, bundle.manifest.decision_lead
    assert (n, lead) == (5, 1)
    previous, skill, decided = np.clip(fields_at(interface, 0)["velocity"], -1, 1), None, {}
    for t in range(23):
        fields = fields_at(interface, t)
        request = controller.observe(fields)
        observation = interface.observe(fields)
        assert (request is not None) == (t == 0 or t % 5 == 4)
        if request is not None:
            assert (request.macro, request.tick) == ((t + 1) // 5, t)
            np.testing.assert_array_equal(request.observation, observation)
            decided[request.macro] = choose(master(observation[None])[0])
            controller.schedule.set_decision(request.macro, decided[request.macro])
        done = controller.act()
        skill = decided[t // 5]
        action = skills[skill](observation[None])[0]
        previous = interface.command(action, previous)
        assert (done.tick, done.skill, done.late) == (t, skill, False)
        np.testing.assert_array_equal(done.observation, observation)
        np.testing.assert_array_equal(done.action, action)
        np.testing.assert_array_equal(done.command, previous)
        assert done.saturated == bool((np.abs(action) > 1).any())  # limits of omni: -1 .. 1
    assert set(decided.values()) == {0, 1}


def skills(value):
    """Two skills of omni that say the same, whatever they see."""
    return [lambda _: np.full((1, 2), value, np.float32)] * 2


def test_a_session_remembers_what_was_sent_whichever_bundle_chose_it(tmp_path):
    interface = load_robot(remembering_robot(tmp_path / "robot")).interface
    last = interface.observation_slices["last"]

    controller, shown = Controller(interface, skills(0.5), 5, 1, fingerprint=7), []
    for t in range(12):
        if t == 6:
            controller.swap(skills(1.0), 8)
        if request := controller.observe(fields_at(interface, t)):
            controller.set_decision(request.macro, 0)
        shown.append(controller.act().observation[last][0])
    assert shown == [0, *[0.25] * 10, 0.5]  # half of it; the new skills begin at tick 10
    controller.reset()  # armed again
    request = controller.observe(fields_at(interface, 0))
    assert request.observation[last].tolist() == [0, 0]


def test_the_old_skills_go_on_until_the_master_of_the_new_ones_answers(bundle):
    """The number of a skill means nothing to another bundle."""
    controller = Controller(bundle.interface, skills(0.1), 5, 1, fingerprint=7)
    asked, actions = [], []
    for t in range(40):
        if t == 7:
            controller.swap(skills(0.2), 8)
        request = controller.observe(fields_at(bundle.interface, t))
        if request is not None:
            asked.append(request.bundle)
            if request.bundle == 7 or t > 20:  # from then on master_node has the other bundle
                controller.set_decision(request.macro, 0)
        actions.append(round(float(controller.act().action[0]), 3))
    assert asked == [7, 7] + [8] * 7
    assert actions == [0.1] * 25 + [0.2] * 15
    assert controller.schedule.late == 3  # counted, so that it does not go on for ever


@pytest.mark.parametrize("lead", [0, 1])
def test_a_first_decision_of_the_old_master_does_not_run_the_new_skills(bundle, lead):
    """The loop observes tick 0 for the first question, and again in the first tick."""
    controller = Controller(bundle.interface, skills(0.1), 5, lead, fingerprint=7)
    fields = fields_at(bundle.interface, 0)
    request = controller.observe(fields)
    assert controller.set_decision(request.macro, 1)
    controller.swap(skills(0.2), 8)  # while the first decision was awaited
    assert controller.observe(fields).bundle == 7
    assert controller.act().action[0] == np.float32(0.1)


def test_another_bundles_skills_take_over_with_the_macro_step_that_its_master_decides(bundle):
    controller = Controller(bundle.interface, skills(0.1), 5, 1, fingerprint=7)
    asked, actions = [], []
    for t in range(20):
        if t == 7:
            controller.swap(skills(0.2), 8)
        request = controller.observe(fields_at(bundle.interface, t))
        if request is not None:
            asked.append((t, request.bundle))
            controller.schedule.set_decision(request.macro, 0)
        actions.append(round(float(controller.act().action[0]), 3))
    # Offered at tick 7, asked for at tick 9 (lead 1), in force from tick 10 on.
    assert asked == [(0, 7), (4, 7), (9, 8), (14, 8), (19, 8)]
    assert actions == [0.1] * 10 + [0.2] * 10
    controller.swap(skills(0.3), 9)
    controller.reset()  # between two sessions: with the first tick of the next one
    assert controller.observe(fields_at(bundle.interface, 0)).bundle == 9
    controller.schedule.set_decision(0, 0)
    assert controller.act().action[0] == np.float32(0.3)


def test_only_a_decision_that_somebody_waits_for_is_taken(bundle, controller):
    """Not one of the future; not twice; not after its macro step began."""
    assert not controller.set_decision(0, 1)  # nothing has been asked yet
    asked = {}
    for t in range(23):
        request = controller.observe(fields_at(bundle.interface, t))
        assert not controller.set_decision(controller.asked + 1, 1)
        assert not controller.set_decision(10**6, 1)
        assert not controller.set_decision(-1, 1)
        if request is not None:
            asked[request.macro] = request.macro % 2
            assert controller.set_decision(request.macro, asked[request.macro])
            assert not controller.set_decision(request.macro, asked[request.macro])
        assert controller.act().skill == asked[t // 5]
        assert not controller.set_decision(t // 5, asked[t // 5])
    with pytest.raises(ValueError, match="no skill 2"):
        controller.set_decision(10**6, 2)


def test_a_tick_says_that_its_decision_was_late(bundle, controller):
    flags = []
    for t in range(11):
        request = controller.observe(fields_at(bundle.interface, t))
        if request is not None and request.macro != 1:
            controller.schedule.set_decision(request.macro, 0)
        flags.append(controller.act().late)
    assert flags == [t == 5 for t in range(11)]


def test_a_value_that_is_not_finite_is_named_and_nothing_is_commanded(bundle, controller):
    fields = fields_at(bundle.interface, 0)
    fields["velocity"][1] = np.nan
    fields["goals"][2] = np.inf
    with pytest.raises(ValueError, match=r"not finite: velocity\.1, goals\.2$"):
        controller.observe(fields)
    with pytest.raises(ValueError, match="finish without begin"):
        controller.act()
    np.testing.assert_array_equal(controller.command, bundle.interface.safe_command)


def test_finish_without_begin_is_refused(bundle, controller):
    with pytest.raises(ValueError, match="finish without begin"):
        controller.act()
    request = controller.observe(fields_at(bundle.interface, 0))
    controller.schedule.set_decision(request.macro, 0)
    controller.act()
    with pytest.raises(ValueError, match="finish without begin"):
        controller.act()


def test_a_session_begins_at_tick_0_from_where_the_robot_is(bundle, controller):
    for speed in (0.0, -0.7):
        fields = fields_at(bundle.interface, 0) | {"velocity": np.array([speed, 0.2])}
        request = controller.observe(fields)
        assert (request.macro, request.tick) == (0, 0)
        np.testing.assert_array_equal(controller.command, fields["velocity"])
        controller.schedule.set_decision(0, 1)
        first = controller.act()
        step = np.abs(first.command - fields["velocity"])
        assert (step <= 0.5 + 1e-12).all()  # 5 m/s per s for 0.1 s
        controller.reset()


def test_no_session_begins_beyond_the_limit_of_a_command(bundle, controller):
    """Within the tolerance of tracking, 0.5, it is noise; beyond, the robot is elsewhere."""
    fields = fields_at(bundle.interface, 0) | {"velocity": np.array([0.0, 1.4])}
    controller.observe(fields)
    np.testing.assert_array_equal(controller.command, [0.0, 1.0])
    controller.reset()
    with pytest.raises(
        FaultError, match=r"start_out_of_limit: velocity\.1 measures 1\.51"
    ) as fault:
        controller.observe(fields | {"velocity": np.array([0.0, 1.51])})
    assert "commands of base_velocity.1 are -1 to 1" in str(fault.value)


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (0.1, 0.3), (0.7, -0.9)])
def test_braking_keeps_the_rate_limit_and_ends_exactly_at_the_safe_command(bundle, offset, scale):
    term = bundle.interface.action[0]
    # 1.9 from one end of the range to the safe value at 0.1 x 1.3 a tick: 15 ticks.
    term = replace(term, offset=offset, scale=scale, safe_command=(0.9, -0.3), rate_limit=1.3)
    interface = replace(bundle.interface, action=(term,))
    start = np.array([-1.0, 1.0])
    supervisor, path = supervisor_in(State.RUNNING), [start]
    gate = CommandGate(interface, supervisor, lambda command, stamp: path.append(command))
    gate.begin(start)
    assert gate.drive(start, 0.0)
    supervisor.go(State.STOPPING)
    while gate.brake(0.0):
        assert len(path) < 20
    path = path[1:]
    np.testing.assert_array_equal(path[-1], interface.safe_command)
    assert np.abs(np.diff(path, axis=0)).max() <= 0.13 + 1e-12
    assert len(path) in (16, 17)


# Conversion ----------------------------------------------------------------------------------


def reader(*fields, kind="some/msg/Thing"):
    (made,) = topic_readers([term("x", "topic", kind, fields)])
    return made


def test_paths_reach_nested_indexed_and_named_elements():
    message = SimpleNamespace(
        a=SimpleNamespace(b=1.0, name=["j2", "j1"], position=[2.0, 3.0]),
        poses=[SimpleNamespace(x=4.0), SimpleNamespace(x=5.0)],
        data=[6, 7],
    )
    paths = "a.b", "poses[1].x", "poses[0].x", "data[1]", "a.position[j1]", "a.position[j2]"
    assert reader(*paths).read(message)["x"].tolist() == [1.0, 5.0, 4.0, 7.0, 3.0, 2.0]


def test_joints_are_found_by_name_in_any_order():
    (joints,) = topic_readers([JOINTS])
    for names in itertools.permutations("abc"):
        message = SimpleNamespace(name=list(names), position=[ord(n) for n in names])
        assert joints.read(message)["joints"].tolist() == [ord("a"), ord("b")]


def test_an_infinite_value_is_what_the_term_says_and_nan_is_refused():
    (reader,) = topic_readers(
        [term("scan", "scan", "sensor_msgs/msg/LaserScan", ["ranges[0]", "ranges[1]"], (0.1, 3.5))]
    )
    message = SimpleNamespace(ranges=[math.inf, -math.inf])  # REP-117: nothing there; too close
    np.testing.assert_array_equal(reader.read(message)["scan"], [3.5, 0.1])
    back = SimpleNamespace(ranges=[0.0, 0.0])
    reader.write(back, {"scan": np.array([3.5, 0.1])})
    assert back.ranges == [math.inf, -math.inf]
    with pytest.raises(MessageError, match="scan: scan is not finite"):
        reader.read(SimpleNamespace(ranges=[1.0, math.nan]))
    (strict,) = topic_readers([term("scan", "scan", "sensor_msgs/msg/LaserScan", ["ranges[0]"])])
    with pytest.raises(MessageError, match="scan: scan is not finite"):
        strict.read(SimpleNamespace(ranges=[math.inf]))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (SimpleNamespace(name=["a", "c"], position=[0, 0]), r"position\[b\]: no 'b' in name"),
        (SimpleNamespace(name=["a", "b"], position=[0]), r"position\[a\]: 1 values for 2 names"),
        (SimpleNamespace(name=["a", "b"], position=[0, 0, 0]), r"position\[a\]: 3 values for 2 "),
        (
            SimpleNamespace(name=["a", "b", "a"], position=[0, 1, 2]),
            r"position\[a\]: 'a' stands 2",
        ),
        (SimpleNamespace(name=[], position=[]), r"position\[a\]: no 'a' in name \[\]"),
        (SimpleNamespace(position=[1, 2]), r"position\[a\]: no array of names stands b"),
        (SimpleNamespace(name=["a", "b"]), r"position\[a\]: .*'position'"),
        (SimpleNamespace(name=["a", "b"], position=[0, "1"]), r"position\[b\]: str is not a"),
        (SimpleNamespace(name=["a", "b"], position=[[], 1]), r"position\[a\]: .*list"),
        (SimpleNamespace(name=["a", "b"], position=[0, np.nan]), r"joints is not finite: .*nan"),
        (SimpleNamespace(name=["a", "b"], position=[-np.inf, 0]), r"joints is not finite: .*inf"),
        (
            SimpleNamespace(name=["a", "b"], position=[0, 1e300]),
            r"joints is not a float32: .*1e\+300",
        ),
    ],
)
def test_a_message_that_does_not_hold_is_refused_with_topic_and_path(message, said):
    (joints,) = topic_readers([JOINTS])
    with pytest.raises(MessageError, match=f"^joint_states: {said}"):
        joints.read(message)


@pytest.mark.parametrize("path", ["", "a..b", "a[", "a[]", "a[1]b", "1a", "a.b[1][2]", "a b"])
def test_a_malformed_path_is_refused_with_the_path(path):
    with pytest.raises(UserError, match="neither `name` nor"):
        parse_path(path)


def test_one_topic_has_one_message_type():
    two = [term("x", "odom", "a/msg/A", ["x"]), term("y", "odom", "a/msg/B", ["y"])]
    with pytest.raises(UserError, match="'odom' is given two message types: a/msg/A, a/msg/B"):
        topic_readers(two)
    two = [action_term("x", "cmd", "a/msg/A", ["x"]), action_term("y", "cmd", "a/msg/B", ["y"])]
    with pytest.raises(UserError, match="'cmd' is given two message types: a/msg/A, a/msg/B"):
        command_writers(two)


def test_unstamped_turns_twist_stamped_into_twist_and_nothing_else():
    stamped = RosField(
        topic="cmd_vel",
        type="geometry_msgs/msg/TwistStamped",
        fields=("twist.linear.x",),
        required_values=(("header.frame_id", "base_link"), ("twist.linear.z", 0.0)),
    )
    plain = unstamped(stamped)
    assert (plain.type, plain.fields) == ("geometry_msgs/msg/Twist", ("linear.x",))
    assert plain.required_values == (("linear.z", 0.0),)
    other = RosField("c", "sensor_msgs/msg/JointState", ("velocity[a]",), ())
    assert unstamped(other) is other


MESSAGES = [
    (
        "nav_msgs/msg/Odometry",
        ["pose.pose.position.x", "pose.pose.orientation.w", "twist.twist.linear.y"],
    ),
    (
        "geometry_msgs/msg/PoseArray",
        ["poses[1].position.x", "poses[0].position.y", "poses[2].orientation.z"],
    ),
    ("geometry_msgs/msg/TwistStamped", ["twist.linear.x", "twist.angular.z"]),
    ("geometry_msgs/msg/Twist", ["linear.x", "angular.z"]),
    ("sensor_msgs/msg/JointState", ["position[a]", "position[b]", "velocity[b]", "velocity[a]"]),
    ("std_msgs/msg/Float64MultiArray", ["data[2]", "data[0]", "data[1]"]),
]


@pytest.mark.parametrize(("kind", "paths"), MESSAGES)
def test_what_is_written_into_a_real_message_is_read_from_it(kind, paths):
    rclpy_serialization = pytest.importorskip("rclpy.serialization")
    from mlsh_ros.nodes.node import message_type

    make = message_type(kind)
    values = np.linspace(-1.7, 2.3, len(paths))
    (topic,) = topic_readers([term("x", "topic", kind, paths)])
    message = make()
    topic.write(message, {"x": values})
    # Over the wire and back: only types that ROS takes survive that.
    wire = rclpy_serialization.serialize_message(message)
    message = rclpy_serialization.deserialize_message(wire, make)
    np.testing.assert_array_equal(topic.read(message)["x"], values)

    (writer,) = command_writers([action_term("x", "topic", kind, paths)])
    message, back = make(), np.zeros(len(paths))
    writer.write(message, values)
    writer.read(message, back)
    np.testing.assert_array_equal(back, values)


def test_two_terms_share_a_topic_and_commands_keep_their_place():
    terms = [
        action_term("x", "base", "m/msg/M", ["a", "b"]),
        action_term("y", "arm", "m/msg/N", ["a"]),
        action_term("z", "base", "m/msg/M", ["c"]),
    ]
    base, arm = command_writers(terms)
    one, other = SimpleNamespace(), SimpleNamespace()
    command = np.array([1.0, 2.0, 3.0, 4.0])
    base.write(one, command)
    arm.write(other, command)
    assert vars(one) == {"a": 1.0, "b": 2.0, "c": 4.0}
    assert vars(other) == {"a": 3.0}
    back = np.zeros(4)
    base.read(one, back)
    assert back.tolist() == [1.0, 2.0, 0.0, 4.0]
    one.c = np.nan
    with pytest.raises(MessageError, match="base: command is not finite"):
        base.read(one, back)


def test_a_command_says_and_keeps_its_constants():
    term = action_term("x", "cmd", "a/msg/A", ["data.speed"])
    ros = replace(term.ros, required_values=(("mode", "velocity"), ("data.gear", 1.0)))
    (writer,) = command_writers([replace(term, ros=ros)])
    message = SimpleNamespace(data=SimpleNamespace())
    writer.write(message, np.array([0.5]))
    assert (message.mode, vars(message.data)) == ("velocity", {"gear": 1.0, "speed": 0.5})
    back = np.zeros(1)
    writer.read(message, back)
    assert back.tolist() == [0.5]
    message.data.gear = 2.0
    with pytest.raises(MessageError, match=r"^cmd: data\.gear is 2\.0, not 1\.0$"):
        writer.read(message, back)
    del message.data.gear
    with pytest.raises(MessageError, match=r"^cmd: data\.gear: .*no attribute 'gear'"):
        writer.read(message, back)


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        (1.0, True),
        (1.00009, True),
        (1.0002, False),
        (-1.0, False),
        (math.nan, False),
        ("1", False),
    ],
)
def test_a_constant_is_compared_within_a_ten_thousandth(value, fits):
    assert same_value(value, 1.0) == fits
    assert same_value(1e-5, 0.0)
    assert not same_value(2e-4, 0.0)


# Packing -------------------------------------------------------------------------------------


def test_packing_round_trip_is_exact_for_float32_and_large_ticks():
    names = tuple(f"x.{i}" for i in range(64))
    layout = request_layout(names)
    rng = np.random.default_rng(0)
    values = (rng.normal(size=64) * 10.0 ** rng.integers(-30, 30, 64)).astype(np.float32)
    tick = 2**53 - 1
    scalars, vectors = layout.unpack(layout.pack(3, 7, tick, 2**48 - 1, vectors=(values,)))
    assert scalars == {"session": 3, "macro": 7, "tick": tick, "bundle": 2**48 - 1}
    np.testing.assert_array_equal(vectors["observation"].astype(np.float32), values)


def test_the_label_names_every_element_in_order():
    layout = trace_layout(("position.0", "position.1"), ("wheel.0",))
    assert layout.label == (
        "session,tick,skill,late,missed,saturated,lateness,compute,"
        "observation.position.0,observation.position.1,action.wheel.0,command.wheel.0"
    )
    assert layout.size == len(layout.label.split(","))


def message(layout, data):
    dim = SimpleNamespace(label=layout.label)
    return SimpleNamespace(layout=SimpleNamespace(dim=[dim]), data=data)


def test_a_message_of_another_length_label_or_with_nan_is_refused():
    layout = Layout(("a", "b"), (("v", ("x", "y")),))
    good = layout.pack(1, 2, vectors=(np.array([3, 4]),))
    assert layout.read(message(layout, good))[0] == {"a": 1, "b": 2}
    for data in (good[:-1], [*good, 0.0], []):
        with pytest.raises(MessageError, match=f"{len(data)} elements, 4 expected"):
            layout.unpack(data)
    for beyond in (np.nan, -np.inf, 1e39):  # a float32 ends at 3.4e38
        good[3] = beyond
        with pytest.raises(MessageError, match=r"not a finite float32: v\.y"):
            layout.unpack(good)
    with pytest.raises(MessageError, match=r"not a whole number up to 2\^53: a$"):
        layout.unpack(layout.pack(1e30, 2, vectors=(np.zeros(2),)))  # no integer of 64 bits
    with pytest.raises(MessageError, match=r"not a whole number up to 2\^53: b"):
        layout.unpack(layout.pack(1, 2.5, vectors=(np.zeros(2),)))
    replace(layout, fractions=("b",)).unpack(layout.pack(1, 2.5, vectors=(np.zeros(2),)))
    other = Layout(("a", "b"), (("v", ("y", "x")),))
    with pytest.raises(MessageError, match=r"its element 2 is 'v\.y', not 'v\.x'"):
        layout.read(message(other, layout.pack(1, 2, vectors=(np.zeros(2),))))
    with pytest.raises(MessageError, match="its element 0 is 'none', not 'a'"):
        layout.read(SimpleNamespace(layout=SimpleNamespace(dim=[]), data=good))
    with pytest.raises(ValueError, match="3 values for 5 names"):
        OUTCOME.pack(1, 2, 3)


# Sensors -------------------------------------------------------------------------------------


@pytest.fixture
def sensors(bundle):
    made = SensorBuffer(bundle.interface)
    assert [r.topic for r in made.readers] == ["odom", "goals"]
    return made


def sample(received, stamp=0, **fields):
    return Sample({k: np.array(v) for k, v in fields.items()}, received, stamp)


def test_topics_are_missing_until_they_have_spoken(sensors):
    assert sensors.missing() == ["odom", "goals"]
    assert sensors.stale(10.0) == ["odom (never received)", "goals (never received)"]
    sensors.put("goals", sample(10.0, goals=[1, 2]))
    assert sensors.missing() == ["odom"]
    sensors.put("odom", sample(10.0, position=[3, 4]))
    assert sensors.missing() == []
    assert {k: v.tolist() for k, v in sensors.fields().items()} == {
        "goals": [1, 2],
        "position": [3, 4],
    }
    sensors.clear()
    assert sensors.missing() == ["odom", "goals"]


def test_a_topic_whose_messages_are_refused_says_why(sensors):
    """Else `never received` sends a person to look for a network that is fine."""
    sensors.refuse("odom: field pose.pose.position.x is nan: not finite")
    why = "its messages are refused: field pose.pose.position.x is nan: not finite"
    assert sensors.unheard() == [f"odom ({why})", "goals (never received)"]
    assert sensors.stale(10.0) == sensors.unheard()
    for topic in ("odom", "goals"):
        sensors.put(topic, sample(10.0))
    assert sensors.unheard() == []
    assert sensors.stale(11.0)[0] == "odom (1.00 s old, at most 0.3 s)"
    sensors.refuse("odom: field pose.pose.position.x is nan: not finite")
    assert sensors.stale(11.0)[0] == f"odom (1.00 s old, at most 0.3 s; {why})"
    sensors.clear()
    assert sensors.unheard() == ["odom (never received)", "goals (never received)"]


def test_a_topic_is_stale_beyond_its_shortest_max_age_and_says_how_old_it_is(bundle):
    position, velocity, goals = bundle.interface.observation
    terms = position, replace(velocity, max_age=0.8), goals
    sensors = SensorBuffer(replace(bundle.interface, observation=terms))
    sensors.put("odom", sample(10.0))  # max_age 0.3 and 0.8
    sensors.put("goals", sample(10.0))  # max_age 1.0
    assert sensors.stale(10.299) == []
    assert sensors.stale(10.5) == ["odom (0.50 s old, at most 0.3 s)"]
    assert sensors.stale(11.5) == [
        "odom (1.50 s old, at most 0.3 s)",
        "goals (1.50 s old, at most 1 s)",
    ]


def test_the_newest_sample_wins_and_an_overtaken_or_repeated_one_does_not(sensors):
    def put(received, stamp, x):
        return sensors.put("odom", sample(received, stamp, position=[x]))

    assert put(1.0, 100, 1)
    assert put(2.0, 200, 2)
    assert not put(3.0, 150, 3)  # overtaken on its way
    assert not put(3.1, 200, 4)  # came twice, or the driver repeats itself
    assert sensors.fields()["position"].tolist() == [2]
    sensors.put("goals", sample(3.1))
    assert sensors.stale(3.1) == ["odom (1.10 s old, at most 0.3 s)"]
    assert put(4.0, 201, 5)
    assert sensors.fields()["position"].tolist() == [5]
    sensors.clear()
    assert put(5.0, 1, 6)  # a clock that was set back, after a new start


def test_a_sample_without_a_stamp_among_stamped_ones_is_not_taken(sensors):
    assert sensors.put("odom", sample(1.0, 0, position=[1]))
    assert sensors.put("odom", sample(2.0, 100, position=[2]))
    assert not sensors.put("odom", sample(3.0, 0, position=[3]))
    assert sensors.fields()["position"].tolist() == [2]


def test_without_stamps_the_order_of_arrival_counts(sensors):
    assert sensors.put("odom", sample(1.0, 0, position=[1]))
    assert sensors.put("odom", sample(2.0, 0, position=[2]))
    assert sensors.fields()["position"].tolist() == [2]


def test_in_lockstep_the_simulator_may_repeat_itself_and_begin_anew(bundle):
    sensors = SensorBuffer(bundle.interface, ordered=False)
    for stamp in (100, 100, 0, 50):
        assert sensors.put("odom", sample(1.0, stamp, position=[stamp]))
    assert sensors.fields()["position"].tolist() == [50]


def test_complete_stamp_needs_one_moment_of_all_topics(sensors):
    assert sensors.complete_stamp() is None
    sensors.put("odom", sample(1.0, 100))
    assert sensors.complete_stamp() is None
    sensors.put("goals", sample(1.0, 200))
    assert sensors.complete_stamp() is None
    sensors.put("odom", sample(1.0, 200))
    assert sensors.complete_stamp() == 200


# Supervisor ----------------------------------------------------------------------------------

D, R, RUN, S, F = State.DISARMED, State.READY, State.RUNNING, State.STOPPING, State.FAULT
ALLOWED = {(D, R), (R, RUN), (R, D), (RUN, S), (S, R), (S, D)}
WAY = {D: [], R: [R], RUN: [R, RUN], S: [R, RUN, S]}


def supervisor_in(state, on_change=lambda _: None):
    made = Supervisor(on_change)
    made.activate()
    if state is F:
        made.fault("cause", "detail")
    for step in WAY.get(state, []):
        assert made.go(step)
    assert made.state is state
    return made


@pytest.mark.parametrize(("here", "there"), list(itertools.product(State, State)))
def test_only_the_transitions_of_the_table_are_made(here, there):
    seen = []
    supervisor = supervisor_in(here, seen.append)
    before = supervisor.status
    seen.clear()
    assert supervisor.go(there) == ((here, there) in ALLOWED)
    if (here, there) in ALLOWED:
        assert seen == [supervisor.status] == [Status(there)]
    else:
        assert seen == []
        assert supervisor.status == before


@pytest.mark.parametrize("here", [s for s in State if s is not F])
def test_a_fault_latches_its_first_cause_and_clears_to_disarmed_only(here):
    seen = []
    supervisor = supervisor_in(here, seen.append)
    seen.clear()
    supervisor.fault("first", "the cause")
    supervisor.fault("second", "a consequence")
    assert seen == [supervisor.status] == [Status(F, "first", "the cause")]
    assert [s for s in State if supervisor.go(s)] == []
    assert supervisor.reset()
    assert not supervisor.reset()
    assert supervisor.status == Status(D)


def test_many_threads_make_a_legal_history_with_one_first_fault():
    for _ in range(20):
        history = []
        supervisor = Supervisor(history.append)
        supervisor.activate()
        start = threading.Barrier(8)

        def work(number, supervisor=supervisor, start=start):
            rng = np.random.default_rng(number)
            start.wait()
            for i in range(100):
                if i == 60:
                    supervisor.fault(f"fault-{number}", "")
                supervisor.go(list(State)[rng.integers(4)])
                if rng.random() < 0.05:
                    supervisor.reset()

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        steps = list(itertools.pairwise([Status(D), *history]))
        legal = ALLOWED | {(F, D)}
        assert all(b.state is F or (a.state, b.state) in legal for a, b in steps)
        assert not any(a.state is F and b.state is F for a, b in steps)
        assert history[-1] == supervisor.status


def test_changes_are_told_in_the_order_in_which_they_happened():
    told = []

    def slow(status):
        if status.state is RUN:
            time.sleep(0.05)  # the teller of RUNNING is slow; the fault must not overtake it
        told.append(status.state)

    supervisor = supervisor_in(R, slow)
    told.clear()
    thread = threading.Thread(target=supervisor.go, args=(RUN,))
    thread.start()
    time.sleep(0.01)
    supervisor.fault("x", "")
    thread.join()
    assert told == [RUN, F]


# A stop request is an event: heard once, it stops the robot, whatever else is said --------------

PANEL = b"a" * 16


def armed_node(stop, *states):
    """What skill_node does with the requests of `stop`, without its node."""
    skill_node = pytest.importorskip("mlsh_ros.nodes.skill_node").SkillNode
    supervisor = Supervisor()
    supervisor.activate()
    for state in states:
        assert supervisor.go(state)
    checks = SimpleNamespace(fault=lambda braking=False: stop.fault(time.monotonic()))
    node = SimpleNamespace(supervisor=supervisor, _checks=checks)
    node.watch = lambda: skill_node._watch(node)
    node.on_estop = lambda fault: skill_node._on_estop(node, fault)
    return node


@pytest.mark.parametrize("where", ["look", "wait"])
def test_a_listener_that_stood_still_does_not_take_what_came_meanwhile_for_old(where, monkeypatch):
    """A panel says `false` ten times a second; the process stands still for 0.94 s."""
    module = pytest.importorskip("mlsh_ros.nodes.safety_listener")
    now, queue, said = [100.0], [], [100.0]

    def pass_time(seconds):
        now[0] += seconds
        while said[0] + 0.1 <= now[0]:
            said[0] += 0.1
            queue.append((PANEL, False, 0))

    class Closing:
        polls = 0

        def wait(self, seconds):
            self.polls += 1
            pass_time(0.94 if where == "wait" and self.polls == 70 else seconds)
            return self.polls == 200

    looks, faults = [], []
    stop = EmergencyStop(0.5)

    def look():
        looks.append(now[0])
        stop.publishers({PANEL: Publisher("/panel", latched=False)}, now[0])
        pass_time(0.94 if where == "look" and len(looks) == 4 else 0.0)

    class Listener(module.SafetyListener):
        def __init__(self):
            self._closing, self._panels, self._others = Closing(), ["best effort"], []
            self._estop, self._on_estop = stop, pytest.fail
            self._take_word = lambda _: queue.pop(0) if queue else None
            self._look, self._on_failure = look, pytest.fail
            self.alive = self.polled = self._since = now[0]
            self._silent = now[0], now[0]

        def _on_poll(self):
            faults.append(stop.fault(self.polled, self.since))

    monkeypatch.setattr(module, "steady_time", lambda: now[0])
    queue.append((PANEL, False, 0))
    listener = Listener()
    listener._run()
    assert len(faults) == 199
    assert not any(faults)
    # The panel falls silent; its last word is at most 0.1 s old.
    said[0] = math.inf
    listener._closing = Closing()
    listener._run()
    after = next(n for n, fault in enumerate(faults[199:]) if fault) * module.POLL
    assert 0.38 <= after <= 0.52


def test_a_pause_of_the_process_excuses_the_safety_thread_and_nothing_else_does(monkeypatch):
    module = pytest.importorskip("mlsh_ros.nodes.safety_listener")
    now = [5.1]
    monkeypatch.setattr(module, "steady_time", lambda: now[0])
    listener = module.SafetyListener.__new__(module.SafetyListener)
    listener.alive, listener._since, listener._silent = 5.0, 1.0, (0.0, 0.0)
    assert (listener.stuck(), listener.since) == ("", 1.0)
    for now[0] in (65.0, 65.4):  # the process stood still for 60 s, and the thread may look soon
        assert (listener.stuck(), listener.since) == ("", now[0])
    now[0] = 65.6  # but it does not
    assert listener.stuck() == "the emergency stop topic was not read for 60.60 s"
    assert listener.since == 1.0
    listener.alive, now[0] = 65.65, 65.7
    assert (listener.stuck(), listener.since) == ("", 1.0)


def test_a_service_waits_until_what_came_before_it_is_heard(monkeypatch):
    module = pytest.importorskip("mlsh_ros.nodes.safety_listener")
    now = [5.0]
    listener = module.SafetyListener.__new__(module.SafetyListener)
    listener.alive, listener.polled = 4.0, 3.99

    def sleep(seconds):
        now[0] += seconds
        if now[0] >= back:
            listener.alive = listener.polled = now[0]

    monkeypatch.setattr(module, "steady_time", lambda: now[0])
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=sleep))
    back = 5.3
    assert listener.catch_up() == ""
    assert now[0] == pytest.approx(5.3, abs=module.POLL)
    now[0], back = now[0] + 0.001, math.inf
    assert listener.catch_up() == "the emergency stop topic was not read for 0.51 s"


def test_a_true_that_is_repaired_after_the_false_behind_it_stops_the_robot():
    """Message 7 is lost: best effort delivers 8 at once, reliable delivers 7 and 8 later."""
    stop = EmergencyStop()
    stop.publishers({PANEL: Publisher("/panel", latched=False)}, time.monotonic())
    node = armed_node(stop, State.READY, State.RUNNING)
    queues = {"best effort": [(PANEL, False, 8)], "reliable": [], "latched": []}
    listener = SimpleNamespace(
        _panels=list(queues),
        _others=[],
        _estop=stop,
        _take_word=lambda name: queues[name].pop(0) if queues[name] else None,
        _on_estop=node.on_estop,
    )
    poll = pytest.importorskip("mlsh_ros.nodes.safety_listener").SafetyListener._poll
    poll(listener, time.monotonic())
    node.watch()
    assert node.supervisor.state is State.RUNNING
    queues["reliable"] = [(PANEL, True, 7), (PANEL, False, 8)]
    poll(listener, time.monotonic())
    node.watch()
    told = Status(State.FAULT, "estop", "topic 'estop' is true, from /panel")
    assert node.supervisor.status == told


@pytest.mark.parametrize("last_moment", [False, True])
def test_a_pulse_while_arming_is_checked_refuses_arming(monkeypatch, last_moment):
    """Also one that comes between the last check and the change of the state."""
    module = pytest.importorskip("mlsh_ros.nodes.session_services")
    monkeypatch.setattr(module, "side_node", lambda *_: mock.MagicMock())
    stop = EmergencyStop()
    node = armed_node(stop)

    def pulse():
        for pressed in (True, False):
            if stop.hear(PANEL, pressed, 0.0):
                node.on_estop(stop.requested(PANEL))
        return ""

    service = module.SessionServices(
        mock.MagicMock(),
        node.supervisor,
        None,
        SimpleNamespace(not_fit=(lambda: "") if last_moment else pulse),
        stop,
        forget_sensors=pulse if last_moment else lambda: None,
        prepare=None,
        sensors_missing=None,
    )
    assert service._arm() == "topic 'estop' was true during the checks"
    assert node.supervisor.state is State.DISARMED


def test_a_request_after_the_last_question_finds_the_changed_state():
    """No request falls between the question whether there was one and the change to READY."""
    stop = EmergencyStop()
    node = armed_node(stop)
    request = threading.Thread(target=node.on_estop, args=[stop.requested(PANEL)])

    def permitted():
        request.start()
        request.join(0.2)  # it waits for the change
        return True

    node.supervisor.go(State.READY, permitted)
    request.join()
    assert node.supervisor.state is State.FAULT


# Parameters ----------------------------------------------------------------------------------

EVERY = [(node, param) for node, params in NODES.items() for param in params]


@pytest.mark.parametrize(("node", "param"), EVERY, ids=[f"{n}.{p.name}" for n, p in EVERY])
def test_every_default_is_valid_described_and_told_apart(node, param):
    assert param.check(param.default) == ""
    assert param.description.endswith(".")
    assert [p.name for p in NODES[node]].count(param.name) == 1
    assert (param.low is None) == (param.high is None)  # ROS ranges have two ends
    if isinstance(param.default, (int, float)) and not isinstance(param.default, bool):
        assert param.low is not None
        assert param.check(param.low) == param.check(param.high) == ""
        assert param.check(param.low - 1).startswith(f"{param.name}: {param.low - 1} is below ")
        assert param.check(param.high + 1).startswith(f"{param.name}: {param.high + 1} is above ")
    for choice in param.choices:
        assert param.check(choice) == ""


def test_check_names_parameter_value_and_limit():
    seconds = Param("seconds", 1.0, "Seconds.", low=0.5, high=2)
    assert seconds.check(0.25) == "seconds: 0.25 is below 0.5"
    assert seconds.check(2.5) == "seconds: 2.5 is above 2"
    assert seconds.check(float("nan")) == "seconds: nan is not finite"
    assert seconds.check(float("inf")) == "seconds: inf is not finite"
    mode = Param("mode", "a", "Mode.", choices=("a", "b"))
    assert mode.check("c") == "mode: 'c' is not one of a, b"
    assert Param("flag", True, "Flag.").check(False) == ""
