"""Creates a robot folder from a URDF: MuJoCo reads it, and what it leaves out is added here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np

from sim.errors import UserError, listed
from sim.files.output import replacing_folder
from sim.physics.model_files import documents, load_spec
from sim.robot_setup.import_mjcf import Judge, check_new, drafted, with_sensors
from sim.robot_setup.urdf_base import FLOOR, free_base, has_floating_joint, set_free
from sim.robot_setup.urdf_joints import Driven, Drives, UrdfJoint, driven_joints, moving_joints
from sim.robot_setup.urdf_meshes import copy_meshes

URDF = "robot.urdf"  # the copy beside model.xml
BALANCE = "balanceinertia"


@dataclass(frozen=True)
class UrdfSettings:
    """Choices and quantities that a URDF does not state."""

    drives: Drives = field(default_factory=Drives)
    packages: Mapping[str, Path] = field(default_factory=dict)  # folders of ROS packages by name
    floating: bool = False  # whether the base moves freely


def import_urdf(
    name: str, urdf: Path, folder: Path, settings: UrdfSettings, judge: Judge = lambda _: []
) -> tuple[str, list[str]]:
    """Write a robot folder: model.xml, its meshes, a copy of the URDF and a draft of robot.yaml.

    Args:
        name: of the robot.
        urdf: the file, without xacro.
        folder: a folder that does not exist yet.
        settings: what the URDF does not say.
        judge: returns the errors of the drafted interface, its gaps filled in; must be empty.

    Returns:
        The drafted robot.yaml, and what was chosen or left out, a line for each.

    Raises:
        UserError: the folder exists; the URDF cannot be read, lacks a mesh, or says too little or
            too much with `settings`.
    """
    check_new(name, folder)
    root = _read(urdf)
    try:
        with replacing_folder(folder) as fresh:
            said = _write_model(root, urdf, settings, fresh)
            (fresh / URDF).write_bytes(urdf.read_bytes())
            text = drafted(name, urdf, fresh, list(said), judge)
            (fresh / "robot.yaml").write_text(text, "utf-8")
    except UserError as error:
        raise UserError(f"{urdf}: {error}" if str(urdf) not in str(error) else error) from None
    return text, said


def _read(urdf: Path) -> ElementTree.Element:
    if not urdf.is_file():
        raise UserError(f"{urdf} does not exist; a URDF is expected")
    root = documents(urdf)[urdf]
    if urdf.suffix == ".xacro" or any("xacro}" in each.tag for each in root.iter()):
        stem = urdf.name.removesuffix(".xacro").removesuffix(".urdf")
        plain = f"{stem}.urdf" if urdf.suffix == ".xacro" else f"{stem}_expanded.urdf"
        raise UserError(f"{urdf}: a xacro file; first: xacro {urdf} > {plain}")
    for each in root.iter():
        each.tag = each.tag.rpartition("}")[2]
    if root.tag != "robot":
        other = "; --mjcf takes it" if root.tag == "mujoco" else ""
        raise UserError(f"{urdf}: a URDF begins with <robot>, this with <{root.tag}>{other}")
    for each in root:
        name = each.get("name", "")
        if each.tag in ("link", "joint") and not (name and name.isprintable()):
            raise UserError(f"{urdf}: a {each.tag} is called {name!r}; a name in one line is due")
    return root


def _write_model(
    root: ElementTree.Element, urdf: Path, settings: UrdfSettings, fresh: Path
) -> list[str]:
    """Write model.xml and its meshes; returns what was chosen or left out."""
    joints = moving_joints(root)
    notes: list[str] = []
    driven, source = driven_joints(root, joints, settings.drives, notes)
    said = [*notes, *_joints_said(driven, source, joints)]
    floating = settings.floating or has_floating_joint(root)
    if floating:
        said += free_base(root)
    said += _prepared(root)
    copy_meshes(root, urdf, settings.packages, fresh)
    path = fresh / "model.xml"
    path.write_bytes(ElementTree.tostring(root))
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        _complete(spec, floating)
        whole = _exact(spec.compile(), spec.to_xml())
        section = ElementTree.SubElement(whole, "actuator")
        for each in driven:
            _add_actuator(section, each)
        ElementTree.indent(whole)
        path.write_bytes(ElementTree.tostring(whole, encoding="utf-8") + b"\n")
        model = load_spec(path).compile()
        path.write_bytes(with_sensors(path.read_bytes(), urdf, model))
    except ValueError as error:
        raise UserError(_reason(error, path)) from None
    return [*said, *_doubts(model)]


def _reason(error: ValueError, path: Path) -> str:
    said = " ".join(str(error).split()).removeprefix(f"{path}: ").removeprefix("Error: ")
    if BALANCE in said:
        said += f" (in the URDF: <mujoco><compiler {BALANCE}='true'/></mujoco> within <robot>)"
    elif "mjMINVAL" in said:
        said += " (a link that moves needs <inertial>)"
    return said


# The tree that MuJoCo reads ---------------------------------------------------------------------


def _prepared(root: ElementTree.Element) -> list[str]:
    """Make MuJoCo keep every link and name every shape; returns what is left out.

    Of visual shapes it reads the color, for the collision shapes that follow.
    """
    extension = root.find("mujoco")
    if extension is None:
        extension = ElementTree.SubElement(root, "mujoco")
    for tag, values in {
        "compiler": {"fusestatic": "false", "discardvisual": "true", "strippath": "false"},
        "option": {"integrator": "implicitfast"},
    }.items():
        section = extension.find(tag)
        if section is None:
            section = ElementTree.SubElement(extension, tag)
        section.attrib.update(values if tag == "compiler" else values | section.attrib)
    taken, bare = {FLOOR}, []
    for link in root.findall("link"):
        shapes = link.findall("collision")
        for shape in shapes:
            stem = shape.get("name") or f"{link.get('name')}_collision"
            choices = (stem, *(f"{stem}_{i}" for i in range(2, len(taken) + 3)))
            shape.set("name", next(choice for choice in choices if choice not in taken))
            taken.add(shape.get("name", ""))
        for visual in link.findall("visual"):
            colors = visual.findall("material")
            good = (each for each in colors if each.findall("color") or each.get("name"))
            kept = next(good, None)
            for each in colors:
                if each is not kept:
                    visual.remove(each)
        if not shapes and link.find("visual") is not None:
            bare.append(link.get("name", ""))
    said = ["visual shapes are left out; collision shapes are all there, meshes as convex hulls"]
    return said + ([f"links that are seen but have no collision: {listed(bare)}"] if bare else [])


# What MuJoCo leaves out -------------------------------------------------------------------------


def _complete(spec: mujoco.MjSpec, floating: bool) -> None:
    """Add a free joint, or what a fixed base must not collide with."""
    if spec.compiler.inertiafromgeom != mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE:
        for body in spec.bodies:  # a URDF's link without <inertial> has no mass
            for geom in body.geoms if not body.explicitinertial else ():
                geom.mass = 0.0
    if floating:
        set_free(spec)
    else:
        for one, other in _neighbours_of_base(spec.copy().compile()):
            spec.add_exclude(bodyname1=one, bodyname2=other)


def _add_actuator(section: ElementTree.Element, driven: Driven) -> None:
    joint = driven.joint
    force = (-joint.effort, joint.effort) if joint.effort else ()
    speed = (-joint.velocity, joint.velocity) if joint.velocity else ()
    values: dict[str, Sequence[float]]
    if driven.kind == "position":
        values = {"kp": [driven.stiffness], "kv": [driven.damping], "ctrlrange": joint.range or ()}
    elif driven.kind == "velocity":
        values = {"kv": [driven.damping], "ctrlrange": speed}
    else:
        values = {"ctrlrange": force}
    if driven.kind != "effort":
        values["forcerange"] = force
    tag = "motor" if driven.kind == "effort" else driven.kind
    actuator = ElementTree.SubElement(section, tag, name=joint.name, joint=joint.name)
    for key, numbers in values.items():
        if numbers:
            actuator.set(key, _text(numbers))


def _neighbours_of_base(model: mujoco.MjModel) -> Iterable[tuple[str, str]]:
    """Yields links of a fixed base with those on its joints, which overlap there.

    MuJoCo ignores contacts between neighbours, but not those with what is fixed to the world.
    """
    weld, shaped = model.body_weldid, [b for b in range(1, model.nbody) if model.body_geomnum[b]]
    for fixed in (b for b in shaped if weld[b] == 0):
        for body in (b for b in shaped if weld[b] != 0):
            if weld[model.body_parentid[weld[body]]] == 0:
                yield model.body(fixed).name, model.body(body).name


def _exact(model: mujoco.MjModel, text: str) -> ElementTree.Element:
    """Returns a model's tree with all digits of masses and places; MuJoCo writes six.

    A rounded inertia would be refused where A + B >= C holds with equality.
    """
    root = ElementTree.fromstring(text)
    for body in root.iterfind(".//worldbody//body"):
        i = model.body(body.get("name")).id
        _put(body, pos=model.body_pos[i], quat=model.body_quat[i])
        if (inertial := body.find("inertial")) is not None:
            _put(inertial, pos=model.body_ipos[i], quat=model.body_iquat[i])
            _put(inertial, mass=model.body_mass[i], diaginertia=model.body_inertia[i])
    for joint in root.iterfind(".//worldbody//joint"):
        i = model.joint(joint.get("name")).id
        _put(joint, axis=model.jnt_axis[i], range=model.jnt_range[i])
    return root


def _put(element: ElementTree.Element, **values: np.ndarray) -> None:
    for key, value in values.items():
        if key in element.attrib:
            element.set(key, _text(np.atleast_1d(value)))


def _text(numbers: Iterable[float]) -> str:
    return " ".join(repr(float(x)).removesuffix(".0") for x in numbers)


# What is said -----------------------------------------------------------------------------------


def _joints_said(
    driven: Sequence[Driven], source: str, joints: Mapping[str, UrdfJoint]
) -> Iterable[str]:
    kinds = dict.fromkeys(each.kind for each in driven)
    for kind in kinds:
        names = [each.joint.name for each in driven if each.kind == kind]
        yield f"driven by {kind} commands ({source}): {listed(names)}"
    known = [each.joint.name for each in driven]
    if idle := [n for n, joint in joints.items() if n not in known and not joint.mimics]:
        yield f"joints without actuator: {listed(idle)}"
    if followers := [f"{n} of {joint.mimics}" for n, joint in joints.items() if joint.mimics]:
        yield f"constraints, without actuator, by <mimic>: {listed(followers)}"
    moved = [each.joint for each in driven]
    if fast := [f"{joint.name} {joint.velocity:g}" for joint in moved if joint.velocity]:
        yield f"velocity limits of the URDF (rad/s, m/s), for rate_limit: {listed(fast)}"
    if weak := [joint.name for joint in moved if not joint.effort]:
        yield f"no effort limit is stated: the force is not limited: {listed(weak)}"


def _doubts(model: mujoco.MjModel) -> Iterable[str]:
    """Yields what a person should look at in the model with all joints at 0."""
    beyond = [
        model.joint(j).name
        for j in range(model.njnt)
        if model.jnt_limited[j] and not model.jnt_range[j][0] <= 0 <= model.jnt_range[j][1]
    ]
    if beyond:
        yield f"0 is beyond the range of: {listed(beyond)}; give model.xml a keyframe (start_pose)"
    data = mujoco.MjData(model)
    mujoco.mj_fwdPosition(model, data)
    pairs = set()
    for contact in data.contact:
        one, other = sorted(int(model.geom_bodyid[geom]) for geom in contact.geom)
        if one and contact.dist < 0:
            pairs.add(f"{model.body(one).name} and {model.body(other).name}")
    if pairs:
        yield f"links overlap with all joints at 0; <exclude> may be due: {listed(sorted(pairs))}"
