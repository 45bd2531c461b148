"""Which way is up: from MuJoCo and from messages, for the policy and for the safety monitor."""

import copy
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import yaml

from mlsh_ros.control.controller import Controller, Tick
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.safety_monitor import SafetyMonitor, SafetyRules
from mlsh_ros.messages.conversion import MessageError, topic_readers
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.interface import DERIVED, interface_from_dict, interface_to_dict
from sim.interface.orientation import (
    gravity_up,
    is_unit,
    projected_gravity,
    quaternion_of,
    rotation_6d,
    tilt,
)
from sim.physics.batched_physics import BatchedPhysics
from sim.robot_setup.import_mjcf import import_mjcf
from sim.robot_setup.step_test import run_step_tests
from sim.robot_setup.validation import find_errors, find_warnings
from sim.tasks.registry import make_family
from tests.support.floater import (
    IMU,
    MODEL,
    ROBOT,
    WXYZ,
    floater,
    interface,
)

RULES = SafetyRules(max_late_decisions=2, max_missed_ticks=3, max_switches=10, max_clock_jump=0.1)
SKILLS = ("walk", "get-up")


def turned(angle, axis=(1.0, 0.0, 0.0)) -> np.ndarray:
    """The quaternion of a turn by `angle` about `axis`."""
    unit = np.array(axis) / np.linalg.norm(axis)
    return np.array([np.cos(angle / 2), *(np.sin(angle / 2) * unit)])


def rotations(count=200) -> np.ndarray:
    q = np.random.default_rng(0).normal(size=(count, 4))
    return q / np.linalg.norm(q, axis=1, keepdims=True)


# Arithmetic -------------------------------------------------------------------------------


def test_up_is_the_worlds_z_axis_turned_into_the_body():
    for q in rotations():
        expected, back = np.zeros(3), np.zeros(4)
        mujoco.mju_negQuat(back, q)
        mujoco.mju_rotVecQuat(expected, np.array([0.0, 0.0, 1.0]), back)
        np.testing.assert_allclose(gravity_up(q), expected, atol=1e-12)


def test_projected_gravity_points_down_when_upright_and_ahead_in_a_nod():
    np.testing.assert_array_equal(projected_gravity(np.array([1.0, 0, 0, 0])), [0, 0, -1])
    nod = projected_gravity(turned(0.5, (0, 1, 0)))
    np.testing.assert_allclose(nod, [np.sin(0.5), 0, -np.cos(0.5)])
    for q in rotations(20):
        np.testing.assert_array_equal(projected_gravity(q), -gravity_up(q))


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0.6, -0.8, 0)])
@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.3, np.pi / 3, np.pi / 2, 3.0, np.pi])
def test_tilt_is_the_angle_of_the_turn_whatever_the_heading(axis, angle):
    for heading in (0.0, 1.0, -2.5):
        q = np.zeros(4)
        mujoco.mju_mulQuat(q, turned(heading, (0, 0, 1)), turned(angle, axis))
        # Also one of a millionth, of which an arc cosine would show nothing.
        assert tilt(q)[0] == pytest.approx(angle, abs=1e-9)
        assert tilt(-q)[0] == tilt(q)[0]  # the same orientation


def test_a_nod_forward_brings_up_to_the_back():
    np.testing.assert_allclose(gravity_up(turned(0.5, (0, 1, 0))), [-np.sin(0.5), 0, np.cos(0.5)])


@pytest.mark.parametrize(
    "q", [(0, 0, 0, 0), (0.99, 0, 0, 0), (1.01, 0, 0, 0), (np.nan, 0, 0, 1), (np.inf, 0, 0, 0)]
)
def test_what_is_no_rotation_is_nan_and_never_upright(q):
    q = np.array(q, float)
    assert not is_unit(q)
    with np.errstate(invalid="ignore"):
        assert all(np.isnan(each.of(q)).all() for each in DERIVED.values())


def test_rounding_of_drivers_is_no_fault():
    for kind in (np.float32, np.float16):
        rough = rotations().astype(kind).astype(float)
        assert is_unit(rough).all()
        np.testing.assert_allclose(tilt(rough), tilt(rotations()), atol=5e-3)


@pytest.mark.parametrize("name", DERIVED)
def test_many_at_once_are_each_alone_and_within_what_is_said(name):
    made, many = DERIVED[name], rotations(12).reshape(3, 4, 4)
    values = made.of(many)
    assert values.shape == (3, 4, made.size)
    np.testing.assert_array_equal(values[1, 2], made.of(many[1, 2]))
    low, high = made.range
    assert (low - 1e-12 <= values).all()
    assert (values <= high + 1e-12).all()


# In the interface -------------------------------------------------------------------------


def fields(quaternion) -> dict[str, np.ndarray]:
    w, _, _, z = quaternion
    return {
        "position": np.zeros(2),
        "tilt": np.array(quaternion),
        "up": np.array(quaternion),
        "heading": np.array([z, w]),
        "rates": np.zeros(3),
    }


def test_the_policy_sees_what_is_derived_and_nothing_of_what_is_not_observed():
    made, q = interface(), turned(0.5, (0, 1, 0))
    assert made.observation_size == 2 + 3 + 2 + 3
    assert len(made.observation_names) == made.observation_size
    assert not any(name.startswith("tilt") for name in made.observation_names)
    part = made.observation_slices["up"]
    assert made.observation_names[part] == ("up.0", "up.1", "up.2")
    observation = made.observe(fields(q))
    np.testing.assert_array_equal(observation[part], (2.0 * gravity_up(q)).astype(np.float32))
    hidden = made.observe(fields(q) | {"tilt": turned(3.0)})
    np.testing.assert_array_equal(hidden, observation)
    with pytest.raises(ValueError, match="term 'tilt' is missing"):  # the safety monitor needs it
        made.observe({name: v for name, v in fields(q).items() if name != "tilt"})


def test_keys_that_say_nothing_leave_files_and_digests_as_they_were():
    data = copy.deepcopy(ROBOT)
    for each in data["observation"]:
        each.pop("derive", None)
        each.pop("policy_input", None)
        each["limit"] = None
    without = interface(data)
    for each in data["observation"]:
        each |= {"derive": None, "policy_input": True}
    assert interface(data) == without
    assert interface(data).digest == without.digest
    assert not {"derive", "policy_input"} & set(interface_to_dict(without)["observation"][1])


def test_the_digest_and_the_file_tell_each_new_key():
    made = interface()
    first, second, third, *rest = made.observation
    variants = [
        made,
        replace(made, observation=(first, replace(second, policy_input=True), third, *rest)),
        replace(made, observation=(first, second, replace(third, policy_input=False), *rest)),
        replace(made, observation=(first, second, replace(third, derive=None), *rest)),
    ]
    assert len({each.digest for each in variants}) == len(variants)
    for each in variants:
        again = interface_from_dict(interface_to_dict(each), "again")
        assert again == each
        assert again.digest == each.digest


# From MuJoCo ------------------------------------------------------------------------------


def test_what_mujoco_shows_is_its_own_orientation(tmp_path):
    robot = floater(tmp_path)
    physics = BatchedPhysics(robot.interface, robot.compile(), 2, 1)
    physics.reset(np.arange(2, dtype=np.int32))
    shown = {t.name: t for t in robot.interface.observation}
    worst = [0.0, 0.0]
    for _ in range(40):
        physics.step(np.array([[0.3, 0.1, 0.2], [0.0, 0.0, 0.5]]))
        got = physics.fields()
        for row in range(2):
            matrix = np.zeros(9)
            mujoco.mju_quat2Mat(matrix, physics.batch.qpos[row, 3:7].copy())
            expected = matrix.reshape(3, 3)[2]  # of the world's z axis along each of the body's
            np.testing.assert_allclose(shown["up"].values(got["up"])[row], expected, atol=1e-9)
            lean = shown["tilt"].values(got["tilt"])[row, 0]
            assert lean == pytest.approx(np.arccos(np.clip(expected[2], -1, 1)), abs=1e-6)
            worst[row] = max(worst[row], lean)
    assert worst[0] > np.pi / 2  # it turns over
    assert worst[1] < 1e-6  # it only spins


def test_noise_is_of_what_is_shown_not_of_the_quaternion(tmp_path):
    family = make_family("moving_bandits")
    data = copy.deepcopy(ROBOT)
    data["observation"][1]["noise"] = 9.0  # of a term that nobody sees
    robot = floater(tmp_path, data)
    noisy = TaskVectorEnv(robot, family, groups=1, envs=400, seed=0)
    still = TaskVectorEnv(robot, family, groups=1, envs=400, seed=0, noise=False)
    difference = noisy.reset()[0] - still.reset()[0]
    part = noisy.interface.observation_slices["up"]
    assert difference[:, part].std(axis=0) == pytest.approx([0.2] * 3, rel=0.15)  # scaled by 2
    assert not np.delete(difference, np.r_[part], axis=1).any()


# Through ROS ------------------------------------------------------------------------------


def readers():
    return {reader.topic: reader for reader in topic_readers(interface().observation)}


def imu_message(quaternion):
    message = pytest.importorskip("sensor_msgs.msg").Imu()
    readers()["imu"].write(message, fields(quaternion))
    return message


def test_a_message_carries_one_quaternion_for_all_terms_bit_for_bit():
    for q in rotations(50):
        message = imu_message(q)
        assert [getattr(message.orientation, axis) for axis in "wxyz"] == q.tolist()
        back = readers()["imu"].read(message) | {"position": np.zeros(2)}
        np.testing.assert_array_equal(interface().observe(back), interface().observe(fields(q)))
        np.testing.assert_array_equal(back["tilt"], q)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"w": 0.0}, r"tilt: quaternion \[0.0, 0.0, 0.0, 0.0\] has length 0, not 1"),
        ({"w": 0.98}, r"tilt: quaternion \[0.98, 0.0, 0.0, 0.0\] has length 0.98, not 1"),
        ({"x": 1.0}, r"tilt: quaternion .* has length 1.414, not 1"),
        ({"w": np.nan}, r"tilt is not finite: \[nan"),
        ({"orientation_covariance": -1.0}, r"orientation_covariance\[0\] is -1: it has no orient"),
        ({"angular_velocity_covariance": -1.0}, r"angular_.*\[0\] is -1: it has no angular_vel"),
    ],
)
def test_a_driver_that_does_not_know_the_orientation_is_refused_by_name(change, said):
    message = imu_message(turned(0.0))
    for name, value in change.items():
        if name.endswith("covariance"):
            getattr(message, name)[0] = value
        else:
            setattr(message.orientation, name, value)
    with pytest.raises(MessageError, match=f"^imu: {said}"):
        readers()["imu"].read(message)


def test_a_part_that_nobody_reads_may_be_missing():
    message = imu_message(turned(0.0))
    message.linear_acceleration_covariance[0] = -1.0
    message.orientation_covariance[0] = 1e-3
    assert readers()["imu"].read(message)["tilt"].tolist() == [1, 0, 0, 0]


# The safety monitor -----------------------------------------------------------------------


def judged(monitor, quaternion, skill=0):
    command = np.zeros(3)
    observation = np.zeros(monitor.interface.observation_size, np.float32)
    tick = Tick(1, skill, observation, command, command, False, False, False)
    monitor.check(tick, fields(quaternion), 0.0)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, -1, 0), (1, 1, 0)])
def test_a_limit_on_tilt_is_a_tilt_limit(axis):
    monitor = SafetyMonitor(interface(), SKILLS, {}, RULES)
    judged(monitor, turned(0.999, axis))
    judged(monitor, turned(3.0, (0, 0, 1)))  # a heading is no tilt
    with pytest.raises(
        FaultError, match=r"^limit: tilt.0 is 1.001 rad, skill 'walk' may see 0 to"
    ):
        judged(monitor, turned(1.001, axis))


def test_a_skill_may_have_to_stand_more_upright_than_another():
    monitor = SafetyMonitor(interface(), SKILLS, {"walk": {"tilt": (0.0, 0.5)}}, RULES)
    judged(monitor, turned(0.7), skill=1)
    with pytest.raises(FaultError, match=r"tilt.0 is 0.7 rad, skill 'walk' may see 0 to 0.5"):
        judged(monitor, turned(0.7), skill=0)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (np.nan, 0, 0, 1)])
def test_what_is_no_orientation_is_beyond_every_limit(quaternion):
    with pytest.raises(FaultError, match=r"^limit: tilt.0 is nan rad"):
        judged(SafetyMonitor(interface(), SKILLS, {}, RULES), quaternion)
    skill = [lambda _: np.zeros((1, 3), np.float32)]
    with pytest.raises(ValueError, match=r"not finite: up\.0, up\.1, up\.2"):
        Controller(interface(), skill, 2, 1).observe(fields(quaternion))


def test_a_robot_that_falls_is_stopped_in_the_tick_that_shows_it(tmp_path):
    robot = floater(tmp_path)
    physics = BatchedPhysics(robot.interface, robot.compile(), 1, 1)
    physics.reset(np.zeros(1, np.int32))
    monitor, last = SafetyMonitor(robot.interface, SKILLS, {}, RULES), 0.0
    for _ in range(100):
        physics.step(np.array([[0.2, 0.3, 0.1]]))
        shown = {name: value[0] for name, value in physics.fields().items()}
        lean = 2 * np.arcsin(np.hypot(*physics.batch.qpos[0, 4:6]))  # of the free joint
        back = {"position": shown["position"]}
        back |= readers()["imu"].read(imu_message(shown["tilt"]))
        if lean > 1.0:
            with pytest.raises(FaultError, match=r"^limit: tilt\.0 is 1\."):
                judged(monitor, back["tilt"])
            break
        judged(monitor, back["tilt"])
        last = lean
    assert 0.5 < last < 1.0 < lean


# What robot.yaml may not say --------------------------------------------------------------


def edited(change, index=1) -> dict:
    data = copy.deepcopy(ROBOT)
    for path, value in change.items():
        *parents, leaf = path.split(".")
        place = data["observation"][index]
        for key in parents:
            place = place[key]
        place[leaf] = value
    return data


MISTAKES = [
    ({"size": 3, "ros.fields": WXYZ[:3]}, "derive 'tilt' is of a quaternion, 4 elements, size is"),
    ({"mujoco.sensor": "gyro"}, "which sensor 'gyro' is not. Valid: attitude"),
    ({"mujoco.sensor": "relative"}, "which sensor 'relative' is not. Valid: attitude"),
    ({"mujoco.elements": [1, 2, 3, 0]}, "mujoco.elements are (1, 2, 3, 0)"),
    ({"mujoco": {"qpos": ["a", "b", "c", "d"]}}, "is of a sensor or of elements 3 to 6 of a free"),
    ({"ros.fields": [*WXYZ[1:], WXYZ[0]]}, "ros.fields are orientation.x, orientation.y"),
    ({"ros.fields": [*WXYZ[:3], "other.z"]}, "needs w, x, y, z of one quaternion"),
    ({"unit": "deg"}, "derive 'tilt' is in rad, not in deg"),
    ({"limit": [0.0, 60.0]}, "limit (0.0, 60.0) is never passed, because 'tilt' is 0 to 3.142"),
    ({"limit": [1.0, 0.0]}, "limit (1.0, 0.0) is empty"),
    (
        {"derive": "lean"},
        "derive: input should be 'rotation_6d', 'gravity_up', 'projected_gravity' or 'tilt', got "
        "'lean'",
    ),
    ({"policy_input": "perhaps"}, "policy_input: input should be a valid boolean"),
]


@pytest.mark.parametrize(("change", "said"), MISTAKES, ids=[str(c) for c, _ in MISTAKES])
def test_every_mistake_is_refused_and_explained(tmp_path, change, said):
    data = edited(change)
    with pytest.raises(UserError) as info:
        floater(tmp_path, data).compile()
    assert said in str(info.value)
    assert "\n" not in str(info.value)
    (found,) = find_errors(tmp_path)
    assert said in found


def test_what_is_read_may_be_named_in_whole():
    assert interface(edited({"mujoco.elements": [0, 1, 2, 3]})).observation_size == 10


def test_a_policy_has_to_see_something_and_a_tilt_follows_no_command():
    data = copy.deepcopy(ROBOT)
    for each in data["observation"]:
        each["policy_input"] = False
    with pytest.raises(UserError, match="no observation term has policy_input"):
        interface(data)
    data = copy.deepcopy(ROBOT)
    data["action"][0]["tracking"] = {"term": "tilt", "tolerance": 1.0, "timeout": 1.0}
    with pytest.raises(UserError, match="'tilt' shows 'tilt', which follows no command"):
        interface(data)


def test_check_robot_doubts_a_limit_that_is_passed_and_a_term_that_does_nothing(tmp_path):
    def doubted(data):
        robot = floater(tmp_path, data)
        model = robot.compile()
        trial = run_step_tests(robot.interface, model, 1.0)
        assert trial.held.high["tilt"].tolist() == [0.0]  # upright, in rad
        return find_warnings(robot.interface, model, trial)

    found = doubted(ROBOT)
    assert any("term tilt: its limit [0, 1] is reached in normal driving" in t for t in found)
    found = doubted(edited({"limit": None}))
    assert any("term tilt: no policy input, not limited, not tracked" in text for text in found)


# A draft ----------------------------------------------------------------------------------


def drafted(tmp_path, model):
    (tmp_path / "theirs.xml").write_text(model)
    text = import_mjcf("mine", tmp_path / "theirs.xml", tmp_path / "mine")
    return {t["name"]: t for t in yaml.safe_load(text)["observation"]}


def test_a_draft_proposes_a_tilt_limit_for_what_can_fall_over(tmp_path):
    made = drafted(tmp_path, MODEL)
    proposed = made["tilt"]
    assert (proposed["derive"], proposed["policy_input"]) == ("tilt", False)
    assert proposed["limit"] == "TODO"
    assert proposed["ros"] == {**IMU, "fields": WXYZ}
    assert (proposed["unit"], proposed["mujoco"]) == ("rad", {"sensor": "attitude"})
    told = find_errors(tmp_path / "mine")
    assert any("limit: TODO; fill in: [lowest, highest] in the term's unit" in t for t in told)


def test_without_an_imu_odometry_has_to_do_and_what_stands_firm_needs_none(tmp_path):
    bare = "\n".join(line for line in MODEL.splitlines() if "framequat" not in line)
    assert drafted(tmp_path, bare)["tilt"]["ros"]["topic"] == "odom"
    firm = MODEL.replace('<freejoint name="root"/>', '<joint name="root" axis="0 0 1"/>')
    (tmp_path / "mine").rename(tmp_path / "before")
    assert "tilt" not in drafted(tmp_path, firm)


def test_an_orientation_is_found_from_what_shows_it():
    rng = np.random.default_rng(0)
    turns = [*np.eye(4), *rng.normal(size=(200, 4))]  # no turn, half turns, and any
    for turn in turns:
        whole = turn / np.linalg.norm(turn)
        found = quaternion_of(rotation_6d(whole))
        np.testing.assert_allclose(found * np.sign(found @ whole), whole, atol=1e-12)
