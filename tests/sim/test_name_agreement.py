"""ROS and MuJoCo have to mean the same joint, axis and unit; and what lies beside robot.yaml."""

import copy
import shutil

import pytest
import yaml

from sim.errors import UserError
from sim.physics.robot_model import ROBOTS, load_robot, robot_names
from sim.robot_setup.validation import find_errors

JOINTS = "sensor_msgs/msg/JointState"
MODEL = """
<mujoco model="arm">
  <compiler angle="radian"/>
  <option timestep="0.005" integrator="implicitfast"/>
  <worldbody>
    <body name="upper" pos="0 0 .1">
      <joint name="shoulder" axis="0 0 1" range="-1.5 1.5" limited="true" damping=".2"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".03" mass="1"/>
      <site name="imu"/>
      <body name="lower" pos=".3 0 0">
        <joint name="elbow" axis="0 0 1" range="-2 2" limited="true" damping=".2"/>
        <geom type="capsule" fromto="0 0 0 .25 0 0" size=".025" mass=".6"/>
      </body>
    </body>
    <body name="drone" pos="9 9 9"><freejoint name="root"/><geom size=".1"/></body>
  </worldbody>
  <actuator>
    <position name="shoulder_servo" joint="shoulder" kp="20" kv="4" ctrlrange="-1.4 1.4"/>
    <position name="elbow_servo" joint="elbow" kp="20" kv="2" ctrlrange="-1.4 1.4"/>
  </actuator>
  <sensor>
    <jointpos name="shoulder_angle" joint="shoulder"/>
    <jointpos name="elbow_angle" joint="elbow"/>
    <gyro name="gyro" site="imu"/>
    <framequat name="attitude" objtype="site" objname="imu"/>
  </sensor>
</mujoco>
"""


def state(name, unit, mujoco, fields, kind=JOINTS, topic="joint_states"):
    size = len(fields)
    common = {"scale": 1.0, "clip": None, "noise": 0.0, "max_age": 0.1, "limit": None}
    ros = {"topic": topic, "type": kind, "fields": fields, "required_values": {}}
    return {
        **{"name": name, "size": size, "unit": unit, "frame": "joint", "inf_values": None},
        **common,
        **{"mujoco": mujoco, "ros": ros},
    }


ARM = {
    **{"schema": 2, "robot": "arm", "control_dt": 0.02, "physics_dt": 0.005},
    "observation": [
        state(
            "angle",
            "rad",
            {"qpos": ["shoulder", "elbow"]},
            ["position[shoulder]", "position[elbow]"],
        ),
        state(
            "rate",
            "rad/s",
            {"qvel": ["shoulder", "elbow"]},
            ["velocity[shoulder]", "velocity[elbow]"],
        ),
    ],
    "action": [
        {
            **{"name": "angle", "size": 2, "unit": "rad", "frame": "joint", "scale": 1.4},
            **{"offset": 0.0, "limit": [-1.4, 1.4], "smoothing_time": 0.0, "rate_limit": 2.0},
            "tracking": {"term": "angle", "tolerance": 0.6, "timeout": 0.2},
            "safe_command": [0.0, 0.0],
            "mujoco": {"actuators": ["shoulder_servo", "elbow_servo"]},
            "ros": {
                **{"topic": "joint_commands", "type": JOINTS, "required_values": {}},
                "fields": ["position[shoulder]", "position[elbow]"],
            },
        }
    ],
}


@pytest.fixture
def arm(tmp_path):
    """Write the arm, changed at places such as `observation.0.unit`, or with terms added."""

    def make(changes=(), more=(), model=MODEL):
        data = copy.deepcopy(ARM)
        for path, value in dict(changes).items():
            *parents, leaf = [int(k) if k.isdigit() else k for k in path.split(".")]
            place = data
            for key in parents:
                place = place[key]
            place[leaf] = value
        data["observation"] += more
        (tmp_path / "robot.yaml").write_text(yaml.safe_dump(data))
        (tmp_path / "model.xml").write_text(model)
        return tmp_path

    return make


def test_the_arm_and_the_shipped_robots_agree(arm):
    assert find_errors(arm()) == []
    for name in robot_names():
        assert find_errors(ROBOTS / name) == []


SWAPPED = {
    "action.0.mujoco.actuators": ["elbow_servo", "shoulder_servo"],
    "observation.0.mujoco.qpos": ["elbow", "shoulder"],
    "observation.1.mujoco.qvel": ["elbow", "shoulder"],
}
PREFIXED = {
    "observation.0.ros.fields": ["position[bot/shoulder_joint]", "position[bot/elbow_joint]"],
    "observation.1.ros.fields": ["velocity[bot/shoulder_joint]", "velocity[bot/elbow_joint]"],
    "action.0.ros.fields": ["position[bot/shoulder_joint]", "position[bot/elbow_joint]"],
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (SWAPPED, ["'angle'", "'rate'", "actuator elbow_servo is of joint 'elbow'"]),
        (
            {"observation.1.ros.fields": ["velocity[elbow]", "velocity[shoulder]"]},
            ["velocity[elbow] is joint 'elbow' of the model, and qvel shoulder is of joint"],
        ),
        (
            {"action.0.ros.fields": ["position[elbow_servo]", "position[shoulder_servo]"]},
            ["action term 'angle': ros.fields: position[elbow_servo] is joint 'elbow'"],
        ),
        (
            {**PREFIXED, "observation.0.mujoco.qpos": ["elbow", "shoulder"]},
            ["position[bot/shoulder_joint] is joint 'shoulder' by its name, and qpos elbow"],
        ),
        (
            {**PREFIXED, "action.0.mujoco.actuators": ["elbow_servo", "shoulder_servo"]},
            ["action term 'angle': ros.fields: position[bot/shoulder_joint]"],
        ),
        (
            {"action.0.tracking.elements": [1, 0]},
            ["shoulder_servo drives joint 'shoulder', and angle.1, which shall measure it"],
        ),
        ({"observation.0.unit": "deg"}, ["tracking.term"]),
        (
            {"observation.0.unit": "deg", "action.0.unit": "deg"},
            ["'angle': unit 'deg': qpos shoulder is in rad", "actuator shoulder_servo is in rad"],
        ),
        ({"observation.1.unit": "m/s"}, ["unit 'm/s': qvel shoulder is in rad/s"]),
        ({"observation.1.unit": "deg/s"}, ["unit 'deg/s': qvel shoulder is in rad/s"]),
        (
            {
                "observation.1.ros.fields": ["position[shoulder]", "position[elbow]"],
                "observation.1.ros.topic": "other",
            },
            ["is in rad by its message, and qvel shoulder is in rad/s"],
        ),
        (
            {"action.0.ros.fields": ["velocity[shoulder]", "velocity[elbow]"]},
            ["is in rad/s by its message, and actuator shoulder_servo is in rad"],
        ),
    ],
)
def test_what_is_not_the_same_on_both_sides_is_a_mistake(arm, changes, words):
    found = find_errors(arm(changes))
    for each in words:
        assert any(each in text for text in found), found


TWIST, IMU = "geometry_msgs/msg/TwistStamped", "sensor_msgs/msg/Imu"


@pytest.mark.parametrize(
    ("unit", "mujoco", "kind", "fields", "words"),
    [
        ("rad", {"sensor": "elbow_angle"}, JOINTS, ["position[shoulder]"], "of joint 'elbow'"),
        (
            "rad/s",
            {"sensor": "gyro", "elements": [2, 0]},
            IMU,
            ["angular_velocity.x", "angular_velocity.z"],
            "angular_velocity.x is x, and sensor gyro [2] is z",
        ),
        (
            "rad/s",
            {"sensor": "gyro", "elements": [0]},
            IMU,
            ["linear_acceleration.x"],
            "is in m/s^2 by its message, and sensor gyro [0] is in rad/s",
        ),
        (
            "1",
            {"sensor": "attitude"},
            IMU,
            [f"orientation.{a}" for a in "xyzw"],
            "quaternion order: MuJoCo w,x,y,z, ROS x,y,z,w",
        ),
        (
            "1",
            {"qpos": [f"root[{i}]" for i in range(3, 7)]},
            IMU,
            [f"orientation.{a}" for a in "xyzw"],
            "orientation.x is x, and qpos root[3] is w",
        ),
        (
            "m/s",
            {"qvel": ["root[1]", "root[0]"]},
            TWIST,
            ["twist.linear.x", "twist.linear.y"],
            "twist.linear.x is x, and qvel root[1] is y",
        ),
        (
            "m/s",
            {"qvel": ["root[2]"]},
            TWIST,
            ["twist.angular.z"],
            "is in rad/s by its message, and qvel root[2] is in m/s",
        ),
        ("rad", {"qvel": ["root[3]"]}, TWIST, ["twist.angular.x"], "qvel root[3] is in rad/s"),
    ],
)
def test_elements_of_sensors_and_free_joints(arm, unit, mujoco, kind, fields, words):
    found = find_errors(arm(more=[state("more", unit, mujoco, fields, kind, "more")]))
    assert any(words in text for text in found), found


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        (PREFIXED, []),
        ({"observation.1.unit": "rad s^-1"}, []),
        # Elements by index, and names that are none of the model's: only whoever drives knows.
        ({}, [state("a", "rad", {"qpos": ["elbow"]}, ["data[0]"], "x_msgs/msg/A", "a")]),
        ({}, [state("a", "rad", {"qpos": ["elbow"]}, ["position[joint_2]"])]),
        ({}, [state("a", "mixed", {"qvel": ["root[0]", "elbow"]}, ["a.x", "a.b"], "x/msg/A")]),
        ({}, [state("a", "rad/s", {"sensor": "gyro"}, ["w[0]", "w[1]", "w[2]"], "x/msg/A", "a")]),
    ],
)
def test_what_may_be_meant_is_no_mistake(arm, changes, more):
    assert find_errors(arm(changes, more)) == []


def test_joints_named_by_numbers_are_names(arm):
    model = MODEL.replace('"shoulder"', '"1"').replace('"elbow"', '"2"')
    changes = {
        "observation.0.mujoco.qpos": ["1", "2"],
        "observation.1.mujoco.qvel": ["1", "2"],
        "observation.0.ros.fields": ["position[1]", "position[2]"],
        "observation.1.ros.fields": ["velocity[2]", "velocity[1]"],
        "action.0.ros.fields": ["position[1]", "position[2]"],
    }
    (first, *_) = find_errors(arm(changes, model=model))
    assert "velocity[2] is joint '2' of the model, and qvel 1 is of joint '1'" in first
    changes["observation.1.ros.fields"] = ["velocity[1]", "velocity[2]"]
    assert find_errors(arm(changes, model=model)) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "[pose.pose.position.x, pose.pose.position.y]",
            "[pose.pose.position.y, pose.pose.position.x]",
            "pose.pose.position.y is y, and qpos slide_x is x",
        ),
        ("[drive_x, drive_y]", "[drive_y, drive_x]", "twist.linear.x is x, and actuator drive_y"),
    ],
)
def test_the_axes_of_a_base(tmp_path, old, new, words):
    folder = shutil.copytree(ROBOTS / "omni", tmp_path / "omni")
    text = (folder / "robot.yaml").read_text()
    assert old in text
    (folder / "robot.yaml").write_text(text.replace(old, new))
    assert any(words in each for each in find_errors(folder))


def test_a_base_that_slides_the_other_way(tmp_path):
    folder = shutil.copytree(ROBOTS / "omni", tmp_path / "omni")
    text = (folder / "model.xml").read_text()
    assert 'axis="1 0 0"' in text
    (folder / "model.xml").write_text(text.replace('axis="1 0 0"', 'axis="-1 0 0"'))
    assert any("is x, and qpos slide_x is -x" in each for each in find_errors(folder))


def test_nothing_is_simulated_or_trained_with_swapped_joints(arm):
    with pytest.raises(UserError, match=r"robot\.yaml: observation term 'angle': ros\.fields"):
        load_robot(str(arm(SWAPPED))).compile()


# Files beside robot.yaml ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        (
            "domain_randomization.yaml",
            "actuators: {drive_z: {delay_s: 0.1}}",
            "no actuator 'drive_z'",
        ),
        (
            "domain_randomization.yaml",
            "sensors: {speeed: {scale: 0.9}}",
            "no observation term 'speeed'",
        ),
        ("sim_params/mine.yaml", "sensors: {speeed: {scale: 0.9}}", "no observation term"),
        (
            "sim_params/mine.yaml",
            "physics: {body_mass_factors: {base_lnik: 2.0}}",
            "no body 'base_lnik'",
        ),
        ("sim_params/mine.yaml", "physics: {mass_factor: [1.0, 2.0]}", "one number is expected"),
        ("sim_params/mine.yaml", "physics: {mass: 1.0}", "mass"),
    ],
)
def test_files_beside_robot_yaml_are_checked(tmp_path, file, text, words):
    folder = shutil.copytree(ROBOTS / "omni", tmp_path / "omni")
    (folder / file).write_text(f"schema: 2\n{text}\n")
    (found,) = find_errors(folder)
    assert words in found
    assert str(folder / file) in found


def test_pushes_of_a_robot_that_cannot_be_pushed(arm):
    folder = arm()
    (folder / "domain_randomization.yaml").write_text(
        "schema: 2\npushes: {velocity_m_s: 0.5, every_s: 1.0}\n"
    )
    (found,) = find_errors(folder)
    assert "pushes need a robot that can be moved" in found
    assert "domain_randomization.yaml" in found
