"""Separates the robot's bodies (moved by its actuators) from the scenery."""

from __future__ import annotations

import mujoco
import numpy as np

FREE, BALL, SLIDE, HINGE = (
    int(getattr(mujoco.mjtJoint, f"mjJNT_{kind}")) for kind in ("FREE", "BALL", "SLIDE", "HINGE")
)
SCALAR = (HINGE, SLIDE)
_JOINT, _IN_PARENT, _TENDON, _SITE, _CRANK, _BODY = (
    int(getattr(mujoco.mjtTrn, f"mjTRN_{kind}"))
    for kind in ("JOINT", "JOINTINPARENT", "TENDON", "SITE", "SLIDERCRANK", "BODY")
)
_WRAP_JOINT, _WRAP_SITE = (
    int(getattr(mujoco.mjtWrap, f"mjWRAP_{kind}")) for kind in ("JOINT", "SITE")
)


def joints_of(model: mujoco.MjModel, actuator: int) -> list[int]:
    """The joints that an actuator drives, itself or through a fixed tendon."""
    kind, target = int(model.actuator_trntype[actuator]), int(model.actuator_trnid[actuator][0])
    if kind in (_JOINT, _IN_PARENT):
        return [target]
    if kind != _TENDON:
        return []
    return [i for wrap, i in _wraps(model, target) if wrap == _WRAP_JOINT]


def _wraps(model: mujoco.MjModel, tendon: int) -> list[tuple[int, int]]:
    start = int(model.tendon_adr[tendon])
    return [
        (int(model.wrap_type[i]), int(model.wrap_objid[i]))
        for i in range(start, start + int(model.tendon_num[tendon]))
    ]


def roots(model: mujoco.MjModel) -> set[int]:
    """The bodies at the root of every tree that an actuator acts on."""
    bodies: set[int] = set()
    for actuator in range(model.nu):
        kind, target = (
            int(model.actuator_trntype[actuator]),
            int(model.actuator_trnid[actuator][0]),
        )
        bodies |= {int(model.jnt_bodyid[j]) for j in joints_of(model, actuator)}
        if kind in (_SITE, _CRANK):
            bodies.add(int(model.site_bodyid[target]))
        elif kind == _BODY:
            bodies.add(target)
        elif kind == _TENDON:
            sites = [i for wrap, i in _wraps(model, target) if wrap == _WRAP_SITE]
            bodies |= {int(model.site_bodyid[site]) for site in sites}
    return {int(model.body_rootid[body]) for body in bodies} - {0}


def is_robot(model: mujoco.MjModel, body: int) -> bool:
    """True if a body belongs to the robot, or is fixed to the world as a robot's base may be."""
    root = int(model.body_rootid[body])
    tree = np.flatnonzero(model.body_rootid == root)
    fixed = root == 0 or not model.body_dofnum[tree].any()
    return fixed or root in roots(model)


def measured_joints(model: mujoco.MjModel) -> list[int]:
    """Returns the hinges and slides that are driven or have a sensor."""
    known = {joint for actuator in range(model.nu) for joint in joints_of(model, actuator)}
    for sensor in range(model.nsensor):
        if model.sensor_type[sensor] in (
            int(mujoco.mjtSensor.mjSENS_JOINTPOS),
            int(mujoco.mjtSensor.mjSENS_JOINTVEL),
        ):
            known.add(int(model.sensor_objid[sensor]))
    return sorted(joint for joint in known if model.jnt_type[joint] in SCALAR)


def free_bases(model: mujoco.MjModel) -> list[int]:
    """The free joints by which the robot itself moves."""
    known = roots(model)
    return [
        joint
        for joint in range(model.njnt)
        if model.jnt_type[joint] == FREE
        and int(model.body_rootid[model.jnt_bodyid[joint]]) in known
    ]


def has_floor(model: mujoco.MjModel) -> bool:
    """True if the model has a fixed geom that can be collided with."""
    fixed = model.body_weldid[model.geom_bodyid] == 0
    return bool(np.any(fixed & ((model.geom_contype | model.geom_conaffinity) != 0)))
