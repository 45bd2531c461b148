"""A robot folder from any MJCF: what the model tells is taken, nothing physical is made up."""

import os
from pathlib import Path

import pytest
import yaml

from sim.errors import UserError
from sim.interface import parse_path
from sim.physics.model_files import load_spec
from sim.physics.robot_model import ROBOTS, load_robot, robot_names
from sim.robot_setup.import_mjcf import import_mjcf
from sim.robot_setup.placeholders import TODO
from sim.robot_setup.validation import find_errors

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
        import_mjcf(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def terms(text: str) -> dict[str, dict]:
    data = yaml.safe_load(text)
    return {f"{k}/{t['name']}": t for k in ("observation", "action") for t in data[k]}


def test_every_part_of_the_model_becomes_a_term(mjcf, tmp_path):
    found = terms(import_mjcf("beast", mjcf, tmp_path / "mine"))
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
            "joint_position_commands",
            "position[knee]",
        ),
        "action/slide_effort": (
            {"actuators": ["push"]},
            "joint_effort_commands",
            "effort[gripper]",
        ),
        "action/command": ({"actuators": ["odd"]}, TODO, TODO),
    }
    seen = {n: (t["mujoco"], t["ros"]["topic"], t["ros"]["fields"][-1]) for n, t in found.items()}
    assert seen == expected
    assert found["observation/attitude"]["ros"]["fields"][0] == "orientation.w"


def test_what_the_model_tells_is_taken_and_the_rest_is_open(mjcf, tmp_path):
    text = import_mjcf("beast", mjcf, tmp_path / "mine")
    data, found = yaml.safe_load(text), terms(text)
    assert (data["control_dt"], data["physics_dt"]) == (TODO, 0.004)
    assert found["observation/joint_position"]["limit"] == [[-1.0, 0.5], [-2.0, 0.25]]
    for name in ("joint_velocity", "slide_position", "rates"):
        term = found[f"observation/{name}"]
        assert [term[key] for key in ("limit", "noise", "max_age")] == [TODO] * 3
    servo, motor = found["action/joint_position"], found["action/slide_effort"]
    assert (servo["limit"], servo["scale"], servo["offset"]) == ([-1.0, 0.5], 0.75, -0.25)
    assert servo["safe_command"] == [0.2, -0.4]  # of the keyframe
    assert servo["tracking"] == {"term": "joint_position", "tolerance": TODO, "timeout": TODO}
    assert (motor["unit"], motor["limit"], motor["scale"], motor["tracking"]) == ("N", *[TODO] * 3)
    assert found["action/command"]["unit"] == TODO
    for name in ("same_as_qpos is left out", "bump (touch) is left out", "joint root", "home"):
        assert name in text


def test_the_folder_holds_all_of_the_robot(mjcf, tmp_path):
    import_mjcf("beast", mjcf, tmp_path / "mine")
    mjcf.rename(mjcf.with_name("gone"))
    (mjcf.parent / "assets").rename(tmp_path / "elsewhere")
    names = {p.relative_to(tmp_path / "mine").as_posix() for p in (tmp_path / "mine").rglob("*")}
    assert names >= {"robot.yaml", "model.xml", "assets/hull.obj", "parts/arm.xml"}
    found = find_errors(tmp_path / "mine")
    assert len(found) > 20
    assert all(f": {TODO}; fill in: " in text for text in found)


def test_a_draft_with_its_gaps_filled_in_is_a_robot(mjcf, tmp_path):
    text = import_mjcf("beast", mjcf, tmp_path / "mine")
    data = yaml.safe_load(text)
    fill = {"noise": 0.0, "max_age": 0.1, "limit": [-9.0, 9.0], "scale": 1.0, "offset": 0.0}
    fill |= {"smoothing_time": 0.0, "rate_limit": 1.0, "tracking": None, "unit": "N"}
    data["control_dt"] = 0.02
    for term in (*data["observation"], *data["action"]):
        term.update({k: v for k, v in fill.items() if term.get(k) == TODO})
        if "safe_command" in term and term["safe_command"] == TODO:
            term["safe_command"] = [0.0] * term["size"]
    data["action"][0]["tracking"] |= {"tolerance": 0.5, "timeout": 0.5}
    next(t for t in data["observation"] if t["name"] == "tilt")["limit"] = [0.0, 0.8]
    data["action"][-1]["ros"] = {
        "topic": "t",
        "type": "std_msgs/msg/Float64",
        "fields": ["data"],
        "required_values": {},
    }
    (tmp_path / "mine/robot.yaml").write_text(yaml.safe_dump(data))
    assert find_errors(tmp_path / "mine") == []


@pytest.mark.parametrize("name", robot_names())
def test_the_shipped_robots_are_drafted_with_the_terms_they_have(name, tmp_path):
    found = terms(import_mjcf(name, ROBOTS / name / "model.xml", tmp_path / name))
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
    drafted = import_mjcf("beast", mjcf, tmp_path / "mine")
    found = terms(drafted)
    assert found["action/joint_position"]["mujoco"] == {"actuators": ["hip", "knee"]}
    assert found["observation/imu"]["mujoco"] == {"sensor": "imu"}  # the gyro, at site imu
    assert found["observation/imu_accelerometer"]["mujoco"] == {"sensor": "imu_accelerometer"}
    assert "the position of knee has no name in the model; the copy says knee" in drafted
    assert mjcf.read_text() == text


# Models of all kinds ----------------------------------------------------------------------------


def body(inside: str, *, name="b", at="0 0 1") -> str:
    return f'<body name="{name}" pos="{at}">{inside}<geom size=".1"/></body>'


def drafted(folder: Path, world: str, rest: str = "", actuators: str = "") -> tuple[str, dict]:
    (folder / "m.xml").write_text(
        f"<mujoco><worldbody>{world}</worldbody>{rest}<actuator>{actuators}</actuator></mujoco>"
    )
    text = import_mjcf("it", folder / "m.xml", folder / "it")
    return text, terms(text)


def hinges(*names: str, limited: bool = True) -> str:
    joint = '<joint name="{}" range="-1 1" limited="{}"/>'
    return "".join(
        body(joint.format(name, str(limited).lower()), name=f"b{i}")
        for i, name in enumerate(names)
    )


@pytest.mark.parametrize(
    ("actuator", "words"),
    [
        ('<position name="a" joint="k" gear="50" kp="3"/>', "0.02 times its control (gear 50)"),
        ('<motor name="a" joint="k" gear="150"/>', "150 times its control (gear 150)"),
        ('<velocity name="a" joint="k" gear="-1" kv="3"/>', "-1 times its control (gear -1)"),
        ('<general name="a" joint="k" gainprm="4"/>', "4 times its control"),
        ('<motor name="a" site="s"/>', "it acts on a site"),
        ('<velocity name="a" tendon="t" kv="3"/>', "it acts on a tendon"),
        ('<motor name="a" jointinparent="k"/>', "it acts on a jointinparent"),
        (
            '<muscle name="a" joint="k" lengthrange="-1 1"/>',
            "neither those of a motor nor of a servo",
        ),
        (
            '<general name="a" joint="k" dyntype="integrator" actrange="-1 1" actlimited="true"/>',
            "neither those of a motor nor of a servo",
        ),
    ],
)
def test_a_control_that_is_not_the_joints_own_quantity_is_left_open(tmp_path, actuator, words):
    tendon = '<tendon><fixed name="t"><joint joint="k" coef="2"/></fixed></tendon>'
    # A second actuator, so that there is something to observe whatever the first one acts on.
    world = body('<joint name="k"/><site name="s"/>')
    sensor = '<sensor><jointpos name="p" joint="k"/></sensor>'
    text, found = drafted(tmp_path, world, tendon + sensor, actuator)
    action = found["action/command"]
    assert (action["unit"], action["ros"]["topic"], action["tracking"]) == (TODO, TODO, TODO)
    assert words in next(line for line in text.splitlines() if "# Note: actuator a: " in line)


@pytest.mark.parametrize(
    ("actuator", "name"),
    [
        ('<position name="a" joint="k" kp="3" timeconst=".1"/>', "joint_position"),
        ('<intvelocity name="a" joint="k" kp="3" actrange="-1 1"/>', "joint_velocity"),
        ('<general name="a" joint="k" gear="2" gainprm=".5"/>', "joint_effort"),
    ],
)
def test_a_control_that_is_the_joints_own_quantity(tmp_path, actuator, name):
    _, found = drafted(tmp_path, body('<joint name="k"/>'), "", actuator)
    assert f"action/{name}" in found


def test_joints_of_one_kind_are_one_term_with_a_number_for_each(tmp_path):
    world = hinges("hip", "spare", "knee")
    servo = '<position name="{0}" joint="{0}" kp="9" kv="1" ctrlrange="{1}"/>'
    key = '<keyframe><key name="home" ctrl="-1.8 0.9"/></keyframe>'
    sensor = '<sensor><jointpos name="p" joint="spare"/></sensor>'
    text, found = drafted(
        tmp_path, world, key + sensor, servo.format("knee", "-2 0") + servo.format("hip", "0 1")
    )
    action = found["action/joint_position"]
    assert action["mujoco"]["actuators"] == ["knee", "hip"]
    assert (action["scale"], action["offset"]) == ([1.0, 0.5], [-1.0, 0.5])
    assert (action["limit"], action["safe_command"]) == ([[-2.0, 0.0], [0.0, 1.0]], [-1.8, 0.9])
    # Measured by elements of a term that has more of them, in another order.
    assert found["observation/joint_position"]["mujoco"]["qpos"] == ["hip", "spare", "knee"]
    assert action["tracking"]["term"] == "joint_position"
    assert action["tracking"]["elements"] == [2, 0]
    assert "does it stop the robot?" in text


def test_what_no_robot_measures_is_not_drafted(tmp_path):
    world = body('<joint name="driven"/>' + hinges("spring", "sensed", "roller"), name="trunk")
    rest = '<sensor><jointpos name="p" joint="sensed"/></sensor>'
    text, found = drafted(tmp_path, world, rest, '<motor name="m" joint="driven"/>')
    assert found["observation/joint_position"]["mujoco"]["qpos"] == ["driven", "sensed"]
    assert (
        "neither driven nor measured (no jointpos sensor in the model): joint spring, roller"
        in text
    )


def test_joints_of_a_tendon_are_driven(tmp_path):
    world = hinges("left", "right")
    tendon = (
        '<tendon><fixed name="t"><joint joint="left" coef="1"/><joint joint="right" coef="1"/>'
        "</fixed></tendon>"
    )
    _, found = drafted(tmp_path, world, tendon, '<position name="m" tendon="t" kp="1"/>')
    assert found["observation/joint_position"]["mujoco"]["qpos"] == ["left", "right"]


def test_what_no_actuator_moves_is_scenery(tmp_path):
    """A cube with a free joint is not the robot's base, nor is its sensor odometry."""
    world = body('<freejoint name="cube"/>', name="cube") + hinges("arm")
    rest = '<sensor><framepos name="where" objtype="body" objname="cube"/></sensor>'
    text, found = drafted(tmp_path, world, rest, '<motor name="m" joint="arm"/>')
    assert [n for n in found if n.startswith("observation/")] == [
        "observation/joint_position",
        "observation/joint_velocity",
    ]
    assert "left out, no actuator moves what they belong to: cube" in text
    assert "sensor where is left out: no actuator moves body cube, where it sits" in text
    assert "cube_position" not in (tmp_path / "it/model.xml").read_text()


def test_two_imus_are_two_topics_and_no_message_is_read_twice(tmp_path):
    parts = body('<joint name="k"/><site name="head imu"/>', name="head", at="0 0 .3")
    world = body(f'<freejoint name="root"/><site name="pelvis"/>{parts}', name="trunk")
    rest = """<sensor>
      <gyro name="g1" site="pelvis"/><accelerometer name="a1" site="pelvis"/>
      <gyro name="g2" site="head imu"/><framequat name="q2" objtype="site" objname="head imu"/>
      <gyro name="g3" site="pelvis"/><velocimeter name="v2" site="head imu"/>
    </sensor>"""
    text, found = drafted(tmp_path, world, rest, '<motor name="m" joint="k"/>')
    topics = {n: found[f"observation/{n}"]["ros"]["topic"] for n in ("g1", "a1", "g2", "q2")}
    assert topics == {
        "g1": "pelvis/imu",
        "a1": "pelvis/imu",
        "g2": "head_imu/imu",
        "q2": "head_imu/imu",
    }
    assert found["observation/g2"]["frame"] == "head_imu"
    assert "sensor g3 is left out: its message would be that of g1" in text
    assert "sensor v2 is left out: odometry is of the base, not of head" in text


def test_angles_of_a_keyframe_are_no_torques(tmp_path):
    key = '<keyframe><key name="home" ctrl="0.9 -1.8"/></keyframe>'
    motors = '<motor name="a" joint="hip"/><motor name="b" joint="knee"/>'
    text, found = drafted(tmp_path, hinges("hip", "knee"), key, motors)
    assert found["action/joint_effort"]["safe_command"] == TODO
    assert "ctrl of keyframe home is not taken for safe effort: it may hold angles" in text


@pytest.mark.parametrize(
    "names",
    [
        [str(i) for i in range(1, 7)],
        ["arm.j1", "left arm/joint[1]", "a]b", 'say "it"', "back\\slash", "on", "null", "1e5"],
        ["ärm", "-", "a: b", "#x", "{y}", "'q'", "~", "*z"],
    ],
)
def test_whatever_joints_are_called_the_draft_is_read_as_it_was_meant(tmp_path, names):
    from xml.sax.saxutils import quoteattr

    world = "".join(
        f'<body name="b{i}"><joint name={quoteattr(n)}/><geom size=".1"/></body>'
        for i, n in enumerate(names)
    )
    servos = "".join(f"<position joint={quoteattr(n)} kp='1' kv='1'/>" for n in names)
    _, found = drafted(tmp_path, world, "", servos)
    action = found["action/joint_position"]
    assert action["mujoco"]["actuators"] == names
    assert [parse_path(path) for path in action["ros"]["fields"]] == [
        (("position", name),) for name in names
    ]
    assert all(f": {TODO}; fill in: " in text for text in find_errors(tmp_path / "it"))


def test_a_draft_that_its_reader_would_refuse_is_not_written(tmp_path):
    """Two motors of one joint: one field of one message."""
    (tmp_path / "m.xml").write_text(
        f"<mujoco><worldbody>{hinges('k')}</worldbody><actuator>"
        '<motor name="a" joint="k"/><motor name="b" joint="k"/></actuator></mujoco>'
    )
    text = refusal("it", tmp_path / "m.xml", tmp_path / "it")
    assert "'joint_commands effort[k]' is given twice" in text
    assert [p.name for p in tmp_path.iterdir()] == ["m.xml"]
    (tmp_path / "m.xml").write_text(
        f"<mujoco><worldbody>{hinges('k')}</worldbody>"
        '<actuator><motor name="a" joint="k"/></actuator></mujoco>'
    )
    with pytest.raises(UserError, match="the draft would be refused: one; two"):
        import_mjcf("it", tmp_path / "m.xml", tmp_path / "it", lambda _: ["one", "two"])
    assert [p.name for p in tmp_path.iterdir()] == ["m.xml"]


# Files, as MuJoCo finds them --------------------------------------------------------------------

NESTED = {
    "m.xml": """<mujoco><compiler meshdir="top"/>
      <asset><model name="arm" file="arms/arm.xml"/>
        <mesh name="t" file="t.obj" scale=".1 .1 .1"/></asset>
      <worldbody><body name="b"><geom type="mesh" mesh="t"/>
        <attach model="arm" body="link" prefix="l/"/></body></worldbody></mujoco>""",
    "arms/arm.xml": """<mujoco><compiler meshdir="m"/>
      <asset><mesh name="link" file="link.obj" scale=".1 .1 .1"/></asset>
      <worldbody><body name="link"><joint name="j"/><geom type="mesh" mesh="link"/></body>
      </worldbody><actuator><position joint="j" kp="1"/></actuator></mujoco>""",
    "top/t.obj": MESH,
    "arms/m/link.obj": MESH,
}
INCLUDED = {
    "m.xml": """<mujoco><compiler strippath="true" meshdir="meshes"/>
      <include file="parts/robot.xml"/><worldbody><light/></worldbody>
      <actuator><include file="parts/motors.xml"/></actuator></mujoco>
      <!-- </mujoco> -->""",
    "parts/robot.xml": """<mujocoinclude><include file="parts/deep.xml"/>
      <asset><mesh name="x" file="/their/home/x.obj" scale=".1 .1 .1"/></asset>
      <contact><exclude body1="trunk" body2="leg"/></contact>
      <worldbody><body name="trunk"><freejoint/><geom type="mesh" mesh="x"/>
        <body name="leg"><joint name="j"/><geom size=".1"/></body></body></worldbody>
      </mujocoinclude>""",
    "parts/deep.xml": "<mujocoinclude><sensor><gyro site='s'/></sensor></mujocoinclude>",
    "parts/motors.xml": "<mujocoinclude><motor joint='j'/></mujocoinclude>",
    "meshes/x.obj": MESH,
}
INCLUDED["parts/robot.xml"] = INCLUDED["parts/robot.xml"].replace(
    "<freejoint/>", "<freejoint/><site name='s'/>"
)


@pytest.mark.parametrize(
    ("files", "joint", "actuator"), [(NESTED, "l/j", "l/j"), (INCLUDED, "j", "j")]
)
def test_what_mujoco_loads_is_copied_and_named(tmp_path, files, joint, actuator):
    for name, text in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(text)
    found = terms(import_mjcf("it", tmp_path / "in/m.xml", tmp_path / "it"))
    (tmp_path / "in").rename(tmp_path / "gone")
    assert found["observation/joint_position"]["mujoco"]["qpos"] == [joint]
    ((action),) = [t for n, t in found.items() if n.startswith("action/")]
    assert action["mujoco"]["actuators"] == [actuator]
    model = load_spec(tmp_path / "it/model.xml").compile()
    assert model.actuator(0).name == actuator
    assert model.nmesh == sum(name.endswith(".obj") for name in files)


@pytest.mark.parametrize("files", [NESTED, INCLUDED])
def test_a_model_may_be_named_from_anywhere(tmp_path, monkeypatch, files):
    for name, text in files.items():
        (tmp_path / "a/in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a/in" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    import_mjcf("it", Path("a/in/m.xml"), Path("b/it"))
    monkeypatch.chdir(tmp_path / "a/in")
    import_mjcf("it", Path("m.xml"), Path("../it"))
    for folder in ("b/it", "a/it"):
        load_spec(tmp_path / folder / "model.xml").compile()


NAMING = """<mujoco><compiler {dirs}/><asset>{asset}</asset>{more}<worldbody><body><joint/>
<geom size="1"/></body></worldbody></mujoco>"""
WAITED_FOR = {
    "mesh": (NAMING.format(dirs="", asset="<mesh file='a.stl'/>", more=""), "a.stl"),
    "mesh of a folder": (
        NAMING.format(dirs="meshdir='meshes'", asset="<mesh file='of/a.stl'/>", more=""),
        "meshes/of/a.stl",
    ),
    "path stripped": (
        NAMING.format(
            dirs="strippath='true' meshdir='meshes'", asset="<mesh file='../b/a.stl'/>", more=""
        ),
        "meshes/a.stl",
    ),
    "texture of a cube": (
        NAMING.format(
            dirs="texturedir='t'", asset="<texture type='cube' fileright='r.png'/>", more=""
        ),
        "t/r.png",
    ),
    "height field": (
        NAMING.format(dirs="", asset="<hfield name='h' file='h.png' size='1 1 1 1'/>", more=""),
        "h.png",
    ),
    "include": (NAMING.format(dirs="", asset="", more="<include file='more.xml'/>"), "more.xml"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("what", WAITED_FOR)
def test_a_pipe_in_a_model_is_not_waited_for(tmp_path, what):
    """Nor is a device read, which has no end."""
    text, name = WAITED_FOR[what]
    (tmp_path / "m.xml").write_text(text)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=r"m\.xml: '\S+' is not a file, but a pipe, a device or"):
        load_spec(tmp_path / "m.xml")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match="is not a file, but a pipe, a device or a socket"):
        load_spec(tmp_path / "m.xml")


@pytest.mark.timeout(30)
def test_a_model_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "m.xml")
    with pytest.raises(UserError, match=r"m\.xml: not a file$"):
        load_spec(tmp_path / "m.xml")


@pytest.mark.parametrize(
    "tag",
    [
        "<asset><model name='s' file='m.xml'/></asset>",
        "<include file='m.xml'/>",
        "<include file='n.xml'/>",
    ],
)
def test_a_model_that_holds_itself_ends_in_a_line(tmp_path, tag):
    (tmp_path / "m.xml").write_text(
        f"<mujoco>{tag}<worldbody><body name='b'><geom size='.1'/></body></worldbody></mujoco>"
    )
    (tmp_path / "n.xml").write_text(
        "<mujoco><asset><model name='s' file='m.xml'/></asset></mujoco>"
    )
    assert "includes itself" in refusal("it", tmp_path / "m.xml", tmp_path / "it")


def test_a_name_with_a_line_end_is_no_part_of_the_draft(mjcf, tmp_path):
    plain = import_mjcf("beast", mjcf, tmp_path / "plain")
    mjcf.write_text(MAIN.replace('"home"', '"home&#10;robot: other"'))
    text = import_mjcf("beast", mjcf, tmp_path / "odd")
    assert yaml.safe_load(text) == yaml.safe_load(plain)
    assert "home\\nrobot: other" in text


def test_the_folder_is_as_open_as_the_user_s_others(mjcf, tmp_path):
    before = os.umask(0o077)
    try:
        import_mjcf("beast", mjcf, tmp_path / "mine")
    finally:
        os.umask(before)
    found = [tmp_path / "mine", *(tmp_path / "mine").rglob("*")]
    assert [each for each in found if each.stat().st_mode & 0o077] == []


def test_what_a_killed_command_left_is_swept(mjcf, tmp_path):
    (tmp_path / ".mine.0123456789abcdef.partial").mkdir()
    import_mjcf("beast", mjcf, tmp_path / "mine")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "theirs"]


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
