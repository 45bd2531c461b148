"""A robot folder from any MJCF: what the model tells is taken, nothing physical is made up."""

from pathlib import Path

import pytest
import yaml

from sim.adopt import adopt
from sim.errors import UserError
from sim.findings import mistakes
from sim.robot import ROBOTS, load_robot, robot_names
from sim.todo import TODO

MESH = """v 0 0 0
v 1 0 0
v 0 1 0
v 0 0 1
f 1 3 2
f 1 2 4
f 2 3 4
f 3 1 4
"""
MAIN = """
<mujoco model="beast">
  <compiler meshdir="assets" angle="radian"/>
  <option timestep="0.004"/>
  <include file="parts/arm.xml"/>
  <asset><mesh name="hull" file="hull.obj" scale=".1 .1 .1"/></asset>
  <worldbody>
    <body name="trunk" pos="0 0 1">
      <freejoint name="root"/>
      <geom type="mesh" mesh="hull" mass="3"/>
      <site name="imu"/>
      <body name="leg" pos=".2 0 0">
        <joint name="hip" range="-1 0.5" limited="true"/>
        <geom size=".05" mass=".2"/>
        <body name="foot" pos=".2 0 0">
          <joint name="knee" range="-2 0.25" limited="true"/>
          <geom size=".04" mass=".1"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="hip_servo" joint="hip" kp="20" kv="1" ctrlrange="-1 .5"/>
    <position name="knee_servo" joint="knee" kp="20" kv="1" ctrlrange="-1 .5"/>
    <motor name="push" joint="gripper"/>
    <motor name="odd" site="imu" gear="0 0 1 0 0 0"/>
  </actuator>
  <sensor>
    <gyro name="rates" site="imu"/>
    <accelerometer name="shake" site="imu"/>
    <framequat name="attitude" objtype="site" objname="imu"/>
    <jointpos name="same_as_qpos" joint="hip"/>
    <touch name="bump" site="imu"/>
  </sensor>
  <keyframe><key name="home" qpos="0 0 1 1 0 0 0 .1 .2 -.4" ctrl=".2 -.4 0 0"/></keyframe>
</mujoco>
"""
ARM = """
<mujoco>
  <worldbody>
    <body name="finger"><joint name="gripper" type="slide"/><geom size=".02" mass=".1"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def mjcf(tmp_path) -> Path:
    folder = tmp_path / "theirs"
    (folder / "assets").mkdir(parents=True)
    (folder / "parts").mkdir()
    (folder / "beast.xml").write_text(MAIN)
    (folder / "parts/arm.xml").write_text(ARM)
    (folder / "assets/hull.obj").write_text(MESH)
    return folder / "beast.xml"


def refusal(*args) -> str:
    with pytest.raises(UserError) as caught:
        adopt(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def terms(text: str) -> dict[str, dict]:
    data = yaml.safe_load(text)
    return {f"{k}/{t['name']}": t for k in ("observation", "action") for t in data[k]}


def test_every_part_of_the_model_becomes_a_term(mjcf, tmp_path):
    found = terms(adopt("beast", mjcf, tmp_path / "mine"))
    expected = {
        # name: mujoco, topic, last message field, unit
        "observation/joint_position": (
            {"qpos": ["hip", "knee"]},
            "joint_states",
            "position[knee]",
        ),
        "observation/joint_velocity": (
            {"qvel": ["hip", "knee"]},
            "joint_states",
            "velocity[knee]",
        ),
        "observation/slide_position": ({"qpos": ["gripper"]}, "joint_states", "position[gripper]"),
        "observation/slide_velocity": ({"qvel": ["gripper"]}, "joint_states", "velocity[gripper]"),
        "observation/rates": ({"sensor": "rates"}, "imu", "angular_velocity.z"),
        "observation/shake": ({"sensor": "shake"}, "imu", "linear_acceleration.z"),
        "observation/attitude": ({"sensor": "attitude"}, "imu", "orientation.z"),
        "observation/tilt": ({"sensor": "attitude"}, "imu", "orientation.z"),
        # The free joint is read through a sensor that was added.
        "observation/trunk_position": (
            {"sensor": "trunk_position"},
            "odom",
            "pose.pose.position.z",
        ),
        "action/joint_position": (
            {"actuators": ["hip_servo", "knee_servo"]},
            "joint_commands",
            "position[knee]",
        ),
        "action/joint_effort": ({"actuators": ["push"]}, "joint_commands", "effort[gripper]"),
        "action/command": ({"actuators": ["odd"]}, TODO, TODO),
    }
    seen = {n: (t["mujoco"], t["ros"]["topic"], t["ros"]["fields"][-1]) for n, t in found.items()}
    assert seen == expected
    assert found["observation/attitude"]["ros"]["fields"][0] == "orientation.w"


def test_what_the_model_tells_is_taken_and_the_rest_is_open(mjcf, tmp_path):
    text = adopt("beast", mjcf, tmp_path / "mine")
    data, found = yaml.safe_load(text), terms(text)
    assert (data["control_dt"], data["physics_dt"]) == (TODO, 0.004)
    assert found["observation/joint_position"]["limit"] == [-2.0, 0.5]
    for name in ("joint_velocity", "slide_position", "rates"):
        term = found[f"observation/{name}"]
        assert [term[key] for key in ("limit", "noise", "max_age")] == [TODO] * 3
    servo, motor = found["action/joint_position"], found["action/joint_effort"]
    assert (servo["limit"], servo["scale"], servo["offset"]) == ([-1.0, 0.5], 0.75, -0.25)
    assert servo["safe"] == [0.2, -0.4]  # of the keyframe
    assert servo["tracking"] == {"term": "joint_position", "tolerance": TODO, "time": TODO}
    assert (motor["unit"], motor["limit"], motor["scale"], motor["tracking"]) == ("N", *[TODO] * 3)
    assert found["action/command"]["unit"] == TODO
    for name in ("same_as_qpos is left out", "bump (touch) is left out", "joint root", "home"):
        assert name in text


def test_the_folder_holds_all_of_the_robot(mjcf, tmp_path):
    adopt("beast", mjcf, tmp_path / "mine")
    mjcf.rename(mjcf.with_name("gone"))
    (mjcf.parent / "assets").rename(tmp_path / "elsewhere")
    names = {p.relative_to(tmp_path / "mine").as_posix() for p in (tmp_path / "mine").rglob("*")}
    assert names >= {"robot.yaml", "model.xml", "assets/hull.obj", "parts/arm.xml"}
    found = mistakes(tmp_path / "mine")
    assert len(found) > 20
    assert all(f": {TODO}; fill in: " in text for text in found)


def test_a_draft_with_its_gaps_filled_in_is_a_robot(mjcf, tmp_path):
    text = adopt("beast", mjcf, tmp_path / "mine")
    data = yaml.safe_load(text)
    fill = {"noise": 0.0, "max_age": 0.1, "limit": [-9.0, 9.0], "scale": 1.0, "offset": 0.0}
    fill |= {"blend": 0.0, "rate_limit": 1.0, "tracking": None, "unit": "N"}
    data["control_dt"] = 0.02
    for term in (*data["observation"], *data["action"]):
        term.update({k: v for k, v in fill.items() if term.get(k) == TODO})
        if "safe" in term and term["safe"] == TODO:
            term["safe"] = [0.0] * term["size"]
    data["action"][0]["tracking"] |= {"tolerance": 0.5, "time": 0.5}
    next(t for t in data["observation"] if t["name"] == "tilt")["limit"] = [0.0, 0.8]
    data["action"][-1]["ros"] = {
        "topic": "t",
        "type": "std_msgs/msg/Float64",
        "fields": ["data"],
        "constants": {},
    }
    (tmp_path / "mine/robot.yaml").write_text(yaml.safe_dump(data))
    assert mistakes(tmp_path / "mine") == []


@pytest.mark.parametrize("name", robot_names())
def test_the_shipped_robots_are_drafted_with_the_terms_they_have(name, tmp_path):
    found = terms(adopt(name, ROBOTS / name / "model.xml", tmp_path / name))
    shipped = load_robot(name).interface
    actuators = {a for t in shipped.action for a in t.mujoco.actuators}
    drafted = {a for n, t in found.items() if n[0] == "a" for a in t["mujoco"]["actuators"]}
    assert actuators <= drafted
    if name == "omni":
        assert found["action/base_velocity"]["ros"]["type"] == "geometry_msgs/msg/TwistStamped"
        assert found["observation/velocity"]["ros"]["type"] == "nav_msgs/msg/Odometry"
        assert found["action/base_velocity"]["tracking"]["term"] == "velocity"


def test_actuators_and_sensors_without_a_name_get_one_in_the_copy(mjcf, tmp_path):
    text = MAIN.replace('<position name="hip_servo"', "<position")
    text = text.replace('<position name="knee_servo"', "<!-- <position joint='x'/> --><position")
    text = text.replace('<gyro name="rates"', '<gyro noise="0"')
    text = text.replace('<accelerometer name="shake"', "<accelerometer")
    mjcf.write_text(text)
    drafted = adopt("beast", mjcf, tmp_path / "mine")
    found = terms(drafted)
    assert found["action/joint_position"]["mujoco"] == {"actuators": ["hip", "knee"]}
    assert found["observation/imu"]["mujoco"] == {"sensor": "imu"}  # the gyro, at site imu
    assert found["observation/imu_accelerometer"]["mujoco"] == {"sensor": "imu_accelerometer"}
    assert "the position of knee has no name in the model; the copy says knee" in drafted
    assert mjcf.read_text() == text


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_nothing_is_overwritten(mjcf, tmp_path, there):
    target = tmp_path / "there"
    if there == "folder":
        target.mkdir()
    elif there == "file":
        target.write_text("years of work")
    else:
        target.symlink_to("nowhere")
    assert "exists; nothing is overwritten" in refusal("beast", mjcf, target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["theirs", "there"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('file="hull.obj"', 'file="../../secret.obj"', "secret.obj' leads out"),
        ('file="hull.obj"', 'file="/etc/hull.obj"', "/etc/hull.obj"),
        ('file="hull.obj"', 'file="more.obj"', "more.obj"),
        ('file="parts/arm.xml"', 'file="../arm.xml"', "arm.xml"),
        ('<joint name="hip"', "<joint", "hip"),
        ("</mujoco>", "", "not XML"),
        ("<worldbody>", "<worldbodies>", "not XML"),
        ("<option", "<nonsense/><option", "nonsense"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_line(mjcf, tmp_path, old, new, words):
    (tmp_path / "secret.obj").write_text(MESH)
    (tmp_path / "arm.xml").write_text(ARM)
    mjcf.write_text(MAIN.replace(old, new, 1))
    text = refusal("beast", mjcf, tmp_path / "mine")
    assert words in text
    assert str(mjcf) in text
    assert not (tmp_path / "mine").exists()
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_file_that_only_mujoco_would_find_outside_is_refused(mjcf, tmp_path):
    """A model that loads where it stands, but reads from outside its folder."""
    (tmp_path / "hull.obj").write_text(MESH)
    mjcf.write_text(MAIN.replace('meshdir="assets"', 'meshdir=".."'))
    assert "leads out of the model's folder" in refusal("beast", mjcf, tmp_path / "mine")


def test_a_urdf_and_a_name_that_is_none(mjcf, tmp_path):
    mjcf.write_text("<robot name='x'/>")
    assert "it begins with <robot>" in refusal("beast", mjcf, tmp_path / "mine")
    assert "robot name '../x'" in refusal("../x", mjcf, tmp_path / "mine")
    assert "does not exist" in refusal("x", tmp_path / "nope.xml", tmp_path / "mine")
