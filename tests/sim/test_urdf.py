"""A robot folder from a URDF: the model is that of the URDF, and nothing of it is lost unsaid."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import mujoco
import numpy as np
import pytest
import yaml

from sim.errors import UserError
from sim.physics.model_files import load_spec
from sim.robot_setup.import_urdf import UrdfSettings, import_urdf
from sim.robot_setup.placeholders import TODO
from sim.robot_setup.urdf_joints import Drives
from sim.robot_setup.validation import find_errors
from tests.support.urdf import differences

SERVOS = {"stiffness": {"": 200.0}, "damping": {"": 20.0}}
POSITION = UrdfSettings(Drives(kinds={"": "position"}, gains=SERVOS))
FLOATING = UrdfSettings(POSITION.drives, floating=True)
BOX = "<geometry><box size='.2 .1 .06'/></geometry>"


def inertial(mass: float, inertia: str = "ixx='.01' iyy='.012' izz='.013'", at: str = "") -> str:
    full = inertia if "ixy" in inertia else f"{inertia} ixy='0' ixz='0' iyz='0'"
    return f"<inertial>{at}<mass value='{mass}'/><inertia {full}/></inertial>"


def link(name: str, inside: str = "", *, mass: float = 1.0) -> str:
    return f"<link name='{name}'>{inertial(mass) if mass else ''}{inside}</link>"


def joint(name: str, parent: str, child: str, kind: str = "revolute", inside: str = "") -> str:
    limit = "<limit lower='-1' upper='1.5' effort='30' velocity='2'/>"
    more = limit if kind in ("revolute", "prismatic") and "<limit" not in inside else ""
    return (
        f"<joint name='{name}' type='{kind}'><parent link='{parent}'/><child link='{child}'/>"
        f"{inside}{more}</joint>"
    )


ARM = [
    link("base", f"<collision>{BOX}</collision>", mass=3),
    "<link name='upper'>"
    + inertial(
        1.23456789,
        "ixx='.011' iyy='.012' izz='.013' ixy='.001' ixz='-.002' iyz='.0005'",
        "<origin xyz='.123456789 .02 -.03' rpy='.3 -.2 1.1'/>",
    )
    + "<visual><geometry><mesh filename='package://nowhere/upper.dae'/></geometry></visual>"
    "<collision><origin xyz='.1 0 0' rpy='0 1.5 0'/>"
    "<geometry><cylinder radius='.02' length='.3'/></geometry></collision></link>",
    link("lower"),
    link("tool", mass=0),
    link("left"),
    link("right"),
    joint("shoulder", "base", "upper", inside="<origin xyz='0 0 .1' rpy='.1 .2 .3'/>"),
    joint("elbow", "upper", "lower", inside="<origin xyz='.3 0 0'/><axis xyz='0 1 1'/>"),
    joint("flange", "lower", "tool", "fixed", "<origin xyz='.25 0 .01' rpy='0 0 1.57'/>"),
    joint("finger", "tool", "left", "prismatic", "<origin xyz='0 .05 0'/><axis xyz='0 0 1'/>"),
    joint(
        "other_finger",
        "tool",
        "right",
        "prismatic",
        "<origin xyz='0 -.05 0'/><axis xyz='0 0 1'/>"
        "<mimic joint='finger' multiplier='-.5' offset='.02'/>",
    ),
]


def written(folder: Path, *parts: str, name: str = "robot.urdf") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<robot name='r'>{''.join(parts)}</robot>")
    return path


def made(urdf: Path, settings: UrdfSettings = POSITION) -> tuple[mujoco.MjModel, list[str], dict]:
    """The model of the new folder, what was said, and the draft."""
    folder = urdf.parent / f"made_{len(list(urdf.parent.iterdir()))}"
    text, said = import_urdf("r", urdf, folder, settings)
    return load_spec(folder / "model.xml").compile(), said, yaml.safe_load(text)


def refusal(urdf: Path, settings: UrdfSettings = POSITION) -> str:
    before = sorted(urdf.parent.iterdir())
    with pytest.raises(UserError) as caught:
        import_urdf("r", urdf, urdf.parent / "made", settings)
    assert sorted(urdf.parent.iterdir()) == before  # nothing half-written
    text = str(caught.value)
    assert text.startswith(f"{urdf}: ")
    assert "\n" not in text
    return text


# The model --------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [POSITION, FLOATING], ids=["fixed", "floating"])
@pytest.mark.parametrize("seed", range(3))
def test_masses_inertias_and_frames_are_those_of_the_urdf(tmp_path, settings, seed):
    urdf = written(tmp_path, *ARM)
    found = differences(urdf, made(urdf, settings)[0], seed)
    assert set(found) == {"mass", "frame", "axes", "center", "inertia"}
    assert max(found.values()) < 1e-14


def test_an_inertia_with_equality_is_not_rounded_into_a_refused_one(tmp_path):
    # Rounded to six digits: 0.123456 + 0.0987654 = 0.2222214 < 0.222222.
    exact = inertial(1, "ixx='.1234564' iyy='.0987654' izz='.2222217'")
    urdf = written(
        tmp_path, link("base"), f"<link name='plate'>{exact}</link>", joint("j", "base", "plate")
    )
    model, *_ = made(urdf)
    assert sorted(model.body("plate").inertia) == [0.0987654, 0.1234564, 0.2222217]


def test_limits_and_friction_are_those_of_the_urdf(tmp_path):
    inside = "<dynamics damping='.3' friction='.4'/>"
    inside += "<limit lower='-1.23456789' upper='2' effort='7' velocity='3'/>"
    model, said, _ = made(
        written(tmp_path, link("base"), link("arm"), joint("j", "base", "arm", inside=inside))
    )
    assert model.jnt_range[0].tolist() == [-1.23456789, 2.0]
    assert (model.dof_damping[0], model.dof_frictionloss[0]) == (0.3, 0.4)
    assert model.actuator_ctrlrange[0].tolist() == [-1.23456789, 2.0]
    assert model.actuator_forcerange[0].tolist() == [-7.0, 7.0]
    assert not model.jnt_actfrclimited[0]  # said once, where randomization reaches it
    assert any("for rate_limit: j 3" in line for line in said)


def test_a_bound_that_is_not_given_is_zero_and_a_continuous_joint_has_none(tmp_path):
    one = "<limit lower='-1' effort='1' velocity='1'/>"
    none = "<limit lower='-3' upper='3' effort='1' velocity='1'/>"
    model, *_ = made(
        written(
            tmp_path,
            *map(link, "abc"),
            joint("x", "a", "b", inside=one),
            joint("y", "b", "c", "continuous", none),
        )
    )
    assert model.jnt_range[0].tolist() == [-1.0, 0.0]
    assert model.jnt_limited.tolist() == [1, 0]
    assert model.actuator_ctrllimited.tolist() == [1, 0]


def test_a_mimic_joint_follows(tmp_path):
    model, said, _ = made(written(tmp_path, *ARM))
    assert (model.neq, model.nu) == (1, 3)
    assert [line for line in said if "other_finger" in line] == [
        "constraints, without actuator, by <mimic>: other_finger of finger"
    ]
    data = mujoco.MjData(model)
    for target in (0.4, -0.3):
        data.actuator("finger").ctrl[0] = target
        for _ in range(2000):
            mujoco.mj_step(model, data)
        follower = data.joint("other_finger").qpos[0]
        driver = data.joint("finger").qpos[0]
        assert abs(driver - target) < 0.1
        assert abs(follower - (-0.5 * driver + 0.02)) < 2e-3


def test_what_is_read_twice_gives_the_same_folder(tmp_path):
    mesh = "<collision><geometry><mesh filename='hull.stl'/></geometry></collision>"
    stl(tmp_path / "hull.stl")
    urdf = written(tmp_path, *ARM[1:], link("base", mesh))
    contents = []
    for name in "ab":
        import_urdf("r", urdf, tmp_path / name, FLOATING)
        files = [path for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
        contents.append({f.relative_to(tmp_path / name): f.read_bytes() for f in files})
    assert contents[0] == contents[1]
    assert sorted(map(str, contents[0])) == [
        "meshes/hull.stl",
        "model.xml",
        "robot.urdf",
        "robot.yaml",
    ]
    assert contents[0][Path("robot.urdf")] == urdf.read_bytes()


def test_a_shape_gives_no_mass_and_a_link_that_moves_needs_one(tmp_path):
    shape = f"<collision>{BOX}</collision>"
    still = link("frame", shape, mass=0)
    fixed = joint("f", "arm", "frame", "fixed")
    urdf = written(tmp_path, link("base"), link("arm"), still, joint("j", "base", "arm"), fixed)
    model, *_ = made(urdf)
    assert model.body("frame").mass[0] == 0
    assert model.body_mass.sum() == 2
    urdf = written(tmp_path, link("base"), link("arm", shape, mass=0), joint("j", "base", "arm"))
    text = refusal(urdf)
    assert "'arm'" in text
    assert "a link that moves needs <inertial>" in text


def test_a_fixed_base_does_not_collide_with_what_is_on_its_joints(tmp_path):
    shape = f"<collision>{BOX}</collision>"
    urdf = written(
        tmp_path,
        *(link(name, shape) for name in "abc"),
        joint("x", "a", "b"),
        joint("y", "b", "c"),
    )
    model, said, _ = made(urdf)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    pairs = {tuple(sorted(model.geom(g).name for g in c.geom)) for c in data.contact}
    assert pairs == {("a_collision", "c_collision")}  # no neighbours, all in one place
    assert any("<exclude> may be due: a and c" in line for line in said)


def test_shapes_have_names_and_the_color_of_the_visual_shape(tmp_path):
    color = "<material name='m'><color rgba='1 .5 0 1'/></material>"
    visual = f"<visual>{BOX}{color}{color}<material/></visual>"  # MuJoCo refuses a second material
    shapes = f"<collision name='foot'>{BOX}</collision>" * 2 + f"<collision>{BOX}</collision>"
    model, *_ = made(
        written(tmp_path, link("base", visual + shapes), link("a"), joint("j", "base", "a"))
    )
    assert [model.geom(i).name for i in range(model.ngeom)] == [
        "foot",
        "foot_2",
        "base_collision",
    ]
    assert model.geom("foot").rgba.tolist() == [1, 0.5, 0, 1]


# Actuators --------------------------------------------------------------------------------------

TWO = [*map(link, "abc"), joint("x", "a", "b"), joint("y", "b", "c")]


def control(**kinds: str) -> str:
    joints = "".join(
        f"<joint name='{name}'>"
        + "".join(f"<command_interface name='{kind}'/>" for kind in text.split())
        + "<state_interface name='position'/></joint>"
        for name, text in kinds.items()
    )
    return f"<ros2_control name='c' type='system'>{joints}</ros2_control>"


def transmission(name: str, kind: str) -> str:
    interface = f"<hardwareInterface>{kind}</hardwareInterface>" if kind else ""
    return (
        f"<transmission name='t_{name}'><joint name='{name}'>{interface}</joint>"
        f"<actuator name='m_{name}'>{interface}</actuator></transmission>"
    )


@pytest.mark.parametrize(
    ("more", "joints", "expected", "words"),
    [
        ("", (), {"x": "position", "y": "position"}, "all joints that move"),
        ("", ("y",), {"y": "position"}, "--joints"),
        (control(x="position", y=""), (), {"x": "position"}, "<ros2_control>"),
        (transmission("y", ""), (), {"y": "position"}, "<transmission>"),
        (transmission("x", "") + control(y="effort"), (), {"y": "position"}, "<ros2_control>"),
        (control(x="position", z="position"), (), {"x": "position"}, "names z, which is no"),
    ],
)
def test_each_driven_joint_has_one_actuator(tmp_path, more, joints, expected, words):
    settings = UrdfSettings(Drives(joints, dict.fromkeys(expected, "position"), SERVOS))
    model, said, draft = made(written(tmp_path, *TWO, more), settings)
    driven = [model.joint(model.actuator_trnid[i][0]).name for i in range(model.nu)]
    assert driven == list(expected)
    assert any(words in line for line in said)
    named = [name for term in draft["action"] for name in term["mujoco"]["actuators"]]
    assert named == driven


@pytest.mark.parametrize(
    ("kind", "name", "limit"),
    [
        ("position", "joint_position", [-1, 1.5]),
        ("velocity", "joint_velocity", [-2, 2]),
        ("effort", "joint_effort", [-30, 30]),
    ],
)
@pytest.mark.parametrize("source", ["option", "control", "transmission", "old"])
def test_a_command_is_that_of_the_interface(tmp_path, kind, name, limit, source):
    gains = {"position": SERVOS, "velocity": {"damping": {"": 3.0}}, "effort": {}}[kind]
    stated = {
        "option": "",
        "control": control(x=kind, y=kind),
        "transmission": "".join(
            transmission(n, f"hardware_interface/{kind.title()}JointInterface") for n in "xy"
        ),
        "old": "".join(transmission(n, f"{kind.title()}JointInterface") for n in "xy"),
    }[source]
    kinds = {"": kind} if source == "option" else {}
    model, _, draft = made(written(tmp_path, *TWO, stated), UrdfSettings(Drives((), kinds, gains)))
    (term,) = draft["action"]
    assert (term["name"], term["limit"]) == (name, limit)
    force = model.actuator_forcerange.tolist()
    assert force == ([[0, 0]] * 2 if kind == "effort" else [[-30, 30]] * 2)


def test_a_kind_for_all_joints_is_for_those_without_one(tmp_path):
    parts = [*TWO, control(x="position velocity", y="position")]
    drives = Drives((), {"": "velocity"}, SERVOS)
    model, said, _ = made(written(tmp_path, *parts), UrdfSettings(drives))
    assert [line for line in said if line.startswith("driven by")] == [
        "driven by velocity commands (<ros2_control>): x",
        "driven by position commands (<ros2_control>): y",
    ]
    drives = Drives((), {"": "velocity", "y": "effort"}, {"damping": {"": 1.0}})
    model, *_ = made(written(tmp_path, *parts), UrdfSettings(drives))
    assert model.actuator_biasprm[:, 2].tolist() == [-1, 0]


def test_gains_are_those_that_are_given(tmp_path):
    gains = {"stiffness": {"": 50.0, "y": 70.0}, "damping": {"x": 5.0, "y": 7.0}}
    model, *_ = made(written(tmp_path, *TWO), UrdfSettings(Drives((), {"": "position"}, gains)))
    assert model.actuator_biasprm[:, 1:3].tolist() == [[-50, -5], [-70, -7]]


@pytest.mark.parametrize(
    ("more", "drives", "words"),
    [
        ("", Drives(gains=SERVOS), "joint x: no command is stated; say --command KIND"),
        (
            control(x="position velocity"),
            Drives(gains=SERVOS),
            "joint x: the URDF has the commands position, velocity; say",
        ),
        ("", Drives(("z",), {"": "effort"}), "--joints: 'z' is no joint that moves. Valid: x, y"),
        (
            "",
            Drives((), {"": "position"}, {"damping": {"": 1.0}}),
            "joint x: a servo for position commands needs a stiffness, which a URDF does not",
        ),
        (
            "",
            Drives((), {"": "velocity"}, {"damping": {"x": 1.0}}),
            "joint y: a servo for velocity commands needs a damping",
        ),
        (
            "",
            Drives((), {"": "effort"}, {"stiffness": {"": 5.0}}),
            "--stiffness 5: no joint needs it",
        ),
        (
            "",
            Drives((), {"": "velocity"}, {"damping": {"": 1.0}, "stiffness": {"x": 5.0}}),
            "--stiffness x=5: joint x has velocity commands",
        ),
        ("", Drives((), {"z": "effort"}), "--command z=effort: no driven joint 'z'. Valid: x, y"),
        (
            control(z="effort"),
            Drives(),
            "<ros2_control>: no joint to drive; --joints may be of x, y",
        ),
        (joint("v", "c", "d") + link("d"), Drives(("v", "w")), "'w' is no joint that moves"),
    ],
)
def test_what_is_not_said_of_actuators_is_asked_for(tmp_path, more, drives, words):
    assert words in refusal(written(tmp_path, *TWO, more), UrdfSettings(drives))


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("<limit lower='1' upper='-1'/>", "joint j: limit lower=1 is not below upper=-1"),
        ("<limit effort='1'/>", "joint j: limit lower=0 is not below upper=0"),
        ("<limit lower='low' upper='1'/>", "joint j: limit lower='low' is not a number"),
        ("<mimic joint='k'/>", "joint j mimics 'k', which is no moving joint. Valid: i, j"),
        ("<mimic joint='j'/>", "joint j mimics itself"),
        ("<mimic/>", "joint j: <mimic> without a joint"),
    ],
)
def test_a_joint_that_cannot_be_is_refused(tmp_path, inside, words):
    parts = [*map(link, "abc"), joint("i", "a", "b"), joint("j", "b", "c", inside=inside)]
    assert words in refusal(written(tmp_path, *parts))


def test_joints_without_a_limit_and_circles_of_mimics_are_refused(tmp_path):
    open_ended = joint("x", "a", "b", inside="<limit/>").replace("<limit/>", "")
    text = refusal(written(tmp_path, *map(link, "ab"), open_ended))
    assert "joint x: revolute without <limit>; a joint without end is continuous" in text
    circle = [joint("x", "a", "b", inside="<mimic joint='y'/>")]
    circle += [joint("y", "b", "c", inside="<mimic joint='x'/>")]
    assert "mimics itself: x, y" in refusal(written(tmp_path, *map(link, "abc"), *circle))


# A floating base --------------------------------------------------------------------------------

CORNERS = ([0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1])


def stl(path: Path, size: float = 0.1) -> None:
    """A tetrahedron."""
    points = [[size * x for x in corner] for corner in CORNERS]
    faces = [(0, 2, 1), (0, 1, 3), (1, 2, 3), (2, 0, 3)]
    data = bytes(80) + struct.pack("<I", len(faces))
    for face in faces:
        data += struct.pack("<3f", 0, 0, 0)
        data += b"".join(struct.pack("<3f", *points[i]) for i in face) + bytes(2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "shape",
    [
        "<box size='.2 .1 .3'/>",
        "<sphere radius='.1'/>",
        "<cylinder radius='.1' length='.3'/>",
        "<capsule radius='.1' length='.3'/>",
        "<mesh filename='hull.stl'/>",
    ],
)
def test_a_floating_base_stands_on_a_floor(tmp_path, shape):
    stl(tmp_path / "hull.stl", 0.3)
    place = "<origin xyz='.1 .2 .3' rpy='.4 .9 1.3'/>"
    shape = f"<collision>{place}<geometry>{shape}</geometry></collision>"
    urdf = written(
        tmp_path,
        link("base_link"),
        link("leg", shape),
        joint("hip", "base_link", "leg", inside="<origin xyz='0 .1 -.6' rpy='1 2 3'/>"),
    )
    model, _, draft = made(urdf, FLOATING)
    data = mujoco.MjData(model)
    for step, touches in ((1e-3, False), (-1e-3, True)):  # m, up and down from where it begins
        data.qpos[2] = model.qpos0[2] + step
        mujoco.mj_forward(model, data)
        assert bool(data.ncon) == touches
    assert min(contact.dist for contact in data.contact) == pytest.approx(-1e-3, abs=1e-6)
    assert model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
    assert model.body(model.jnt_bodyid[0]).name == "base_link"
    assert model.joint("hip").id == 1
    names = {term["name"] for term in draft["observation"]}
    assert names >= {"base_link_position", "base_link_orientation", "tilt"}


@pytest.mark.parametrize("kind", ["option", "floating"])
def test_frames_above_a_floating_base_are_left_out(tmp_path, kind):
    parts = [link("base_footprint", mass=0), link("base_link"), link("arm")]
    parts += [joint("j", "base_link", "arm")]
    parts += [joint("up", "base_footprint", "base_link", "fixed" if kind == "option" else kind)]
    urdf = written(tmp_path, *parts)
    model, said, _ = made(urdf, FLOATING if kind == "option" else POSITION)
    assert [model.body(i).name for i in range(model.nbody)] == ["world", "base_link", "arm"]
    assert any("base_footprint is left out" in line for line in said)
    assert max(differences(urdf, model).values()) < 1e-14


@pytest.mark.parametrize("top", ["trunk", "world"])
def test_a_floating_base_is_called_base_link(tmp_path, top):
    parts = [link("trunk"), link("arm"), joint("j", "trunk", "arm")]
    if top == "world":
        parts += [link("world", mass=0), joint("up", "world", "trunk", "fixed")]
    model, said, _ = made(written(tmp_path, *parts), FLOATING)
    assert [model.body(i).name for i in range(model.nbody)] == ["world", "base_link", "arm"]
    assert any("link trunk is called base_link in model.xml" in line for line in said)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([link("a"), link("b"), link("c"), joint("j", "a", "b")], "needs one root link; there"),
        (
            [
                *map(link, ("a", "base_link", "c")),
                joint("j", "a", "base_link", "fixed"),
                joint("k", "base_link", "c"),
            ],
            "a, above base_link, is more than a frame",
        ),
        (
            [link("a", mass=0), link("base_link"), joint("j", "a", "base_link")],
            "base_link is on a, by more than a fixed joint",
        ),
        (
            [
                *map(link, ("top", "base_link")),
                joint("i", "base_link", "top"),
                joint("j", "nobody", "base_link", "fixed"),
            ],
            "needs one root link; there are: none",
        ),
        (
            [
                *(link(name, mass=0) for name in ("top", "a", "base_link")),
                joint("i", "a", "base_link", "fixed"),
                joint("j", "base_link", "a"),
            ],
            "base_link is on 'base_link', which leads to no root link",
        ),
    ],
)
def test_a_base_that_cannot_float_is_refused(tmp_path, parts, words):
    assert words in refusal(written(tmp_path, *parts), FLOATING)


# Files ------------------------------------------------------------------------------------------


UNBALANCED = inertial(1, "ixx='.1' iyy='.1' izz='.3'")


def meshed(name: str, *, more: str = "") -> list[str]:
    shape = f"<collision><geometry><mesh filename='{name}'/></geometry></collision>"
    return [link("a", shape), link("b"), joint("j", "a", "b"), more]


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("ws/robo/meshes/hull.stl", "package://robo/meshes/hull.stl"),
        ("ws/robo/meshes/hull.STL", "package://robo/meshes/hull.STL"),
        ("ws/other/hull.stl", "package://other/hull.stl"),
        ("ws/other/hull.stl", "package:///other/hull.stl"),
        ("installed/share/far/hull.stl", "package://far/hull.stl"),
        ("said/hull.stl", "package://mine/hull.stl"),
        ("ws/robo/urdf/hull.stl", "hull.stl"),
        ("ws/robo/meshes/hull.stl", "../meshes/hull.stl"),
        ("ws/robo/meshes/my hull.stl", "file://{ws}/robo/meshes/my%20hull.stl"),
    ],
)
def test_meshes_are_found(tmp_path, monkeypatch, place, name):
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'none'}:{tmp_path / 'installed'}")
    stl(tmp_path / place)
    urdf = written(tmp_path / "ws/robo/urdf", *meshed(name.format(ws=tmp_path / "ws")))
    model, *_ = made(urdf, UrdfSettings(POSITION.drives, {"mine": tmp_path / "said"}))
    assert model.nmesh == 1
    assert model.nmeshvert == 4


def test_a_folder_that_the_urdf_names_to_mujoco_is_looked_in(tmp_path):
    stl(tmp_path / "parts/hull.stl")
    more = "<mujoco><compiler meshdir='parts'/><option timestep='.004'/></mujoco>"
    model, *_ = made(written(tmp_path, *meshed("package/hull.stl", more=more)))
    assert (model.nmesh, model.opt.timestep) == (1, 0.004)


def test_visual_shapes_are_left_out_whatever_the_urdf_tells_mujoco(tmp_path):
    more = "<mujoco><compiler discardvisual='false' fusestatic='true' strippath='true'/></mujoco>"
    urdf = written(tmp_path, *ARM, more)
    model, *_ = made(urdf)
    assert model.ngeom == 2
    assert max(differences(urdf, model).values()) < 1e-14


def test_two_meshes_of_one_name_stay_two(tmp_path):
    stl(tmp_path / "small/hull.stl", 0.1)
    stl(tmp_path / "large/hull.stl", 0.2)
    shapes = "".join(
        f"<collision><geometry><mesh filename='{name}'/></geometry></collision>"
        for name in ("small/hull.stl", "large/hull.stl", "small/hull.stl")
    )
    urdf = written(tmp_path, link("a", shapes), link("b"), joint("j", "a", "b"))
    model, *_ = made(urdf)
    assert model.nmesh == 2
    assert model.geom_dataid.tolist() == [0, 1, 0]
    sizes = [np.ptp(model.mesh_vert[4 * i : 4 * i + 4], axis=0).max() for i in (0, 1)]
    assert sizes[1] / sizes[0] == pytest.approx(2, rel=1e-5)


def test_a_mesh_in_two_sizes_takes_no_name_of_another(tmp_path):
    stl(tmp_path / "hull.stl", 0.1)
    stl(tmp_path / "hull1.stl", 0.4)  # MuJoCo would call the second size so
    shapes = "".join(
        "<collision><geometry>"
        f"<mesh filename='{name}.stl' scale='{size} 1 1'/></geometry></collision>"
        for name, size in (("hull", 1), ("hull", -1), ("hull1", 1))
    )
    model, *_ = made(written(tmp_path, link("a", shapes), link("b"), joint("j", "a", "b")))
    assert model.nmesh == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("package://far/hull.stl", "--package far=FOLDER says where the package is"),
        ("package://far/hull.stl", "looked for {installed}/share/far/hull.stl"),
        ("hull.stl", "link a: mesh 'hull.stl' does not exist; looked for {here}/hull.stl"),
        ("hull.dae", "MuJoCo does not read 'hull.dae' (link a) of collision shapes; convert"),
        ("http://x.y/hull.stl", "package://, file:// or a path is expected"),
        ("broken.stl", "broken.stl"),
    ],
)
def test_a_mesh_that_cannot_be_taken_is_named(tmp_path, monkeypatch, name, words):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "installed"))
    (tmp_path / "broken.stl").write_text("solid ascii")
    (tmp_path / "hull.dae").write_text("<COLLADA/>")
    text = refusal(written(tmp_path, *meshed(name)))
    assert words.format(installed=tmp_path / "installed", here=tmp_path) in text


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.urdf.xacro", "<robot/>", "xacro {path} > r.urdf"),
        ("r.xacro", "<robot/>", "xacro {path} > r.urdf"),
        (
            "r.urdf",
            "<robot xmlns:xacro='http://ros.org/wiki/xacro'><xacro:arg name='x'/></robot>",
            "xacro {path} > r_expanded.urdf",
        ),
        ("r.xml", "<mujoco/>", "begins with <robot>, this with <mujoco>; --mjcf takes it"),
        ("r.urdf", "<robot", "not XML"),
        ("r.urdf", f"<robot>{joint('', 'a', 'b')}</robot>", "a joint is called ''; a name in"),
        ("r.urdf", f"<robot>{link('a&#9;b')}</robot>", r"a link is called 'a\tb'; a name in one"),
        ("r.urdf", "<robot name='r'/>", "all joints that move: no joint to drive, nor does"),
        (
            "r.urdf",
            f"<robot name='r'>{''.join(TWO)}{link('a')}</robot>",
            "repeated URDF name",
        ),
        (
            "r.urdf",
            f"<robot name='r'>{link('a')}<link name='b'>{UNBALANCED}</link>"
            f"{joint('j', 'a', 'b')}</robot>",
            "in the URDF: <mujoco><compiler balanceinertia='true'/></mujoco> within <robot>",
        ),
    ],
)
def test_what_is_no_urdf_is_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    assert words.format(path=tmp_path / name) in refusal(tmp_path / name)


def test_an_expanded_file_may_still_declare_xacro(tmp_path):
    urdf = written(tmp_path, *TWO)
    urdf.write_text(urdf.read_text().replace("<robot", "<robot xmlns:xacro='http://x/xacro'"))
    assert made(urdf)[0].nu == 2


def test_a_namespace_is_no_part_of_a_tag(tmp_path):
    urdf = written(tmp_path, *TWO)
    urdf.write_text(urdf.read_text().replace("<robot", "<robot xmlns='http://www.ros.org'"))
    assert made(urdf)[0].nu == 2


def test_a_draft_with_its_gaps_filled_in_is_a_robot(tmp_path):
    urdf = written(tmp_path, *ARM)
    text, _ = import_urdf("r", urdf, tmp_path / "mine", POSITION)
    found = find_errors(tmp_path / "mine")
    assert found
    assert all(f": {TODO}; fill in: " in line for line in found)
    text = re.sub(r" limit: TODO", " limit: null", text)
    text = re.sub(r"(tolerance|timeout): TODO", r"\1: 0.5", text)
    text = re.sub(r"safe_command: TODO", "safe_command: [0.0, 0.0]", text, count=1)
    text = re.sub(r"safe_command: TODO", "safe_command: [0.0]", text)
    text = re.sub(r"control_dt: TODO", "control_dt: 0.02", text)
    text = re.sub(r": TODO", ": 0.1", text)
    (tmp_path / "mine/robot.yaml").write_text(text)
    assert find_errors(tmp_path / "mine") == []
