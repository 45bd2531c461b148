"""The base of a robot from a URDF that is not fixed to the world."""

from __future__ import annotations

from xml.etree import ElementTree

import mujoco
import numpy as np

from sim.errors import UserError, listed
from sim.physics.mjcf_addresses import BASE

JOINT, FLOOR = "floating_base", "floor"  # names in the model


def free_base(root: ElementTree.Element) -> list[str]:
    """Make the link that is to move freely the root of the tree, under the name `base_link`.

    Frames above it, such as `base_footprint`, are left out: a free joint is at the root.

    Returns:
        What was changed, a line for each.

    Raises:
        UserError: there are several roots, or what is above the base is more than a frame.
    """
    links = {link.get("name", ""): link for link in root.findall("link")}
    above = {_end(joint, "child"): joint for joint in root.findall("joint")}
    tops = [name for name in links if name not in above]
    if len(tops) != 1:
        raise UserError(
            f"a floating base needs one root link; there are: {listed(tops or ['none'])}"
        )
    base = BASE if BASE in links else tops[0]
    if base == "world":
        below = [child for child, joint in above.items() if _end(joint, "parent") == base]
        if len(below) != 1:
            raise UserError(f"a floating base needs one link on 'world': {listed(below)}")
        (base,) = below
    said, at = [], base
    while at in above:
        joint, at = above[at], _end(above[at], "parent")
        if at not in links or at == base:
            raise UserError(f"--floating-base: {base} is on {at!r}, which leads to no root link")
        siblings = [each for each in above.values() if _end(each, "parent") == at]
        if joint.get("type") not in ("fixed", "floating") or len(siblings) > 1:
            raise UserError(f"--floating-base: {base} is on {at}, by more than a fixed joint")
        if any(links[at].find(part) is not None for part in ("inertial", "collision")):
            raise UserError(f"--floating-base: {at}, above {base}, is more than a frame")
        root.remove(joint)
        root.remove(links[at])
        said.append(f"link {at} is left out: {base} floats, and {at} is a frame above it")
    if base != BASE:
        said.append(f"link {base} is called {BASE} in model.xml: the name of a floating base")
        links[base].set("name", BASE)
        for joint in root.findall("joint"):
            if _end(joint, "parent") == base:
                joint.find("parent").set("link", BASE)  # type: ignore[union-attr]
    return said


def has_floating_joint(root: ElementTree.Element) -> bool:
    """True if the URDF itself has a joint of type floating."""
    return any(joint.get("type") == "floating" for joint in root.findall("joint"))


def _end(joint: ElementTree.Element, which: str) -> str:
    element = joint.find(which)
    return "" if element is None else element.get("link", "")


def set_free(spec: mujoco.MjSpec) -> None:
    """Put `base_link` on a free joint and the robot, all joints at 0, on a floor."""
    model = spec.copy().compile()
    base = spec.body(BASE)
    base.add_freejoint(name=JOINT)
    low = _lowest(model)
    base.pos = [0.0, 0.0, 0.0 if low is None else -low]
    base.quat = [1.0, 0.0, 0.0, 0.0]
    spec.worldbody.add_geom(
        name=FLOOR, type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05], rgba=[0.8, 0.8, 0.8, 1]
    )


def _lowest(model: mujoco.MjModel) -> float | None:
    """The lowest point of all shapes with all joints at 0, m; None without shapes."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return min((_bottom(model, data, geom) for geom in range(model.ngeom)), default=None)


def _bottom(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> float:
    kind, size = mujoco.mjtGeom(int(model.geom_type[geom])), model.geom_size[geom]
    up = data.geom_xmat[geom].reshape(3, 3)[2]  # the world's z in the geom's frame
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = int(model.geom_dataid[geom])
        first = int(model.mesh_vertadr[mesh])
        points = model.mesh_vert[first : first + int(model.mesh_vertnum[mesh])]
        reach = -float((points @ up).min())
    elif kind == mujoco.mjtGeom.mjGEOM_BOX:
        reach = float(np.abs(up) @ size)
    elif kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        reach = float(size[0])
    elif kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        reach = float(size[0] + abs(up[2]) * size[1])
    else:  # a cylinder, the last of URDF's shapes
        reach = float(size[0] * np.hypot(up[0], up[1]) + abs(up[2]) * size[1])
    return float(data.geom_xpos[geom][2]) - reach
