"""Resolves the MuJoCo names in an interface to addresses in the model's arrays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError, unknown
from sim.interface import ActionTerm, Interface, ObservationTerm, exceeds

Indices = NDArray[np.intp]
SCALAR = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))


@dataclass(frozen=True)
class Start:
    """Columns of qpos with the pose of a robot, and of qvel with its velocity."""

    xy: Indices  # (2,)
    quaternion: Indices  # (4,) w, x, y, z; empty for a robot that keeps its heading
    velocity: Indices  # (2,) of qvel: along x and y of the world


BASE = "base_link"  # REP-105
ROUNDING = 1e-6  # of the numbers of a keyframe, rad or m


def start_address(model: mujoco.MjModel, interface: Interface) -> Start | None:
    """Returns the addresses of a base on a free joint or on the slides of `position`, or None.

    The free joint is that of `base_link`, or the one whose elements `position` reads.
    """
    free = model.jnt_type == mujoco.mjtJoint.mjJNT_FREE
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, BASE)
    if body >= 0 and model.body_jntnum[body] == 1 and free[joint := model.body_jntadr[body]]:
        return _free_start(model, int(joint))
    for term in interface.observation:
        if term.name == "position" and len(term.mujoco.qpos) == 2:
            columns = address(model, term)[1]
            for joint in np.flatnonzero(free):
                start = _free_start(model, int(joint))
                if np.array_equal(columns, start.xy):
                    return start
            slides = "position", term.mujoco.qpos
            speeds = _joints(model, *slides, model.jnt_dofadr, 6)
            return Start(columns, np.zeros(0, np.intp), speeds)
    return None


def _free_start(model: mujoco.MjModel, joint: int) -> Start:
    first, speed = int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
    return Start(first + np.arange(2), first + 3 + np.arange(4), speed + np.arange(2))


def check_addresses(model: mujoco.MjModel, interface: Interface) -> None:
    """Refuse an interface with a name that the model lacks or uses differently.

    Raises:
        UserError: the term, the key, and the name with the valid choices.
    """
    for term in interface.observation:
        if term.mujoco.rays:
            ray_site(model, term)
        elif not term.mujoco.task:
            address(model, term)
    for action in interface.action:
        actuators(model, action)
    _check_start_pose(model, interface)


def keyframe(model: mujoco.MjModel, interface: Interface) -> int | None:
    """The number of the keyframe in which the robot begins; None: the model's default pose."""
    if interface.start_pose is None:
        return None
    return _id(model, "start_pose.keyframe", "key", interface.start_pose.keyframe)


def _check_start_pose(model: mujoco.MjModel, interface: Interface) -> None:
    """Refuse values of a start pose that are not those of its keyframe, within the tolerance."""
    key, pose = keyframe(model, interface), interface.start_pose
    if key is None or pose is None:
        return
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, key)
    mujoco.mj_forward(model, data)
    named = {each.term for each in pose.measured}
    terms = [t for t in interface.observation if t.name in named and not t.mujoco.rays]
    shown = {}
    for term in terms:
        array, columns = address(model, term)
        shown[term.name] = getattr(data, array)[columns]
    seen = replace(pose, measured=tuple(each for each in pose.measured if each.term in shown))
    if text := seen.away(terms, shown):
        raise UserError(f"start_pose: in the keyframe of model.xml {text}")
    _check_within(model, data, interface, pose.keyframe)


def _check_within(
    model: mujoco.MjModel, data: mujoco.MjData, interface: Interface, key: str
) -> None:
    """Refuse a keyframe beyond the range of a joint, or beyond the limit of an observation."""
    for joint in np.flatnonzero(model.jnt_limited):
        value, (low, high) = data.qpos[model.jnt_qposadr[joint]], model.jnt_range[joint]
        if model.jnt_type[joint] in SCALAR and not low - ROUNDING <= value <= high + ROUNDING:
            raise UserError(
                f"start_pose: keyframe {key!r} of model.xml has joint "
                f"{model.joint(joint).name!r} at {value:.4g}; put it into its range, {low:.4g} to "
                f"{high:.4g}"
            )
    for term in interface.observation:
        if term.limits is None or term.mujoco.rays or term.mujoco.task:
            continue
        array, columns = address(model, term)
        values, (low, high) = term.values(getattr(data, array)[columns]), term.limits
        outside = ~((values >= low - ROUNDING) & (values <= high + ROUNDING))
        if outside.any():
            i = int(np.flatnonzero(outside)[0])
            raise UserError(
                f"start_pose: in keyframe {key!r} of model.xml {term.name}.{i} is "
                f"{values[i]:.4g} {term.unit}; put it into its limit, {low[i]:.4g} to "
                f"{high[i]:.4g}"
            )


def address(model: mujoco.MjModel, term: ObservationTerm) -> tuple[str, Indices]:
    """The MjData array that a term reads ("qpos", "qvel" or "sensordata"), and its columns."""
    where, source = f"observation term {term.name!r}: mujoco", term.mujoco
    if source.qpos:
        return "qpos", _joints(model, f"{where}.qpos", source.qpos, model.jnt_qposadr, 7)
    if source.qvel:
        return "qvel", _joints(model, f"{where}.qvel", source.qvel, model.jnt_dofadr, 6)
    index = _id(model, f"{where}.sensor", "sensor", source.sensor)
    if term.derive and not _is_orientation(model, index):
        choices = [model.sensor(i).name for i in range(model.nsensor) if _is_orientation(model, i)]
        raise UserError(
            f"{where}.sensor: {term.derive!r} needs the orientation in the world, which sensor "
            f"{source.sensor!r} is not. Valid: {', '.join(choices) or 'none, add a framequat'}"
        )
    size = int(model.sensor_dim[index])
    elements = source.elements or tuple(range(size))
    if max(elements) >= size:
        raise UserError(
            f"{where}.elements: sensor {source.sensor!r} has no element {max(elements)}. "
            f"Valid: 0 to {size - 1}"
        )
    if len(elements) != term.size:
        raise UserError(
            f"{where}.sensor: sensor {source.sensor!r} has {size} elements, size is {term.size}"
        )
    return "sensordata", model.sensor_adr[index] + np.array(elements)


def _is_orientation(model: mujoco.MjModel, sensor: int) -> bool:
    kind, reference = model.sensor_type[sensor], model.sensor_refid[sensor]
    return bool(kind == mujoco.mjtSensor.mjSENS_FRAMEQUAT and reference < 0)


def ray_site(model: mujoco.MjModel, term: ObservationTerm) -> int:
    """The site from which a term's rays are cast."""
    assert term.mujoco.rays is not None
    where = f"observation term {term.name!r}: mujoco.rays.site"
    return _id(model, where, "site", term.mujoco.rays.site)


def actuators(model: mujoco.MjModel, term: ActionTerm) -> list[int]:
    """The columns of ctrl that a term drives."""
    where = f"action term {term.name!r}: mujoco.actuators"
    ids = [_id(model, where, "actuator", name) for name in term.mujoco.actuators]
    for name, index, *limit in zip(term.mujoco.actuators, ids, *term.limits, strict=True):
        low, high = (float(bound) for bound in model.actuator_ctrlrange[index])
        own = (float(limit[0]), float(limit[1]))
        if model.actuator_ctrllimited[index] and exceeds(own, (low, high)):
            # MuJoCo would cut the command in silence, the robot would not.
            raise UserError(
                f"{where}: limit {own} is beyond the ctrlrange {(low, high)} of {name!r}"
            )
    return ids


def _joints(
    model: mujoco.MjModel,
    where: str,
    names: Sequence[str],
    addresses: NDArray[np.int32],
    free_size: int,
) -> Indices:
    """Returns the addresses of scalar joints by name, and of elements of a free joint."""
    free = model.jnt_type == mujoco.mjtJoint.mjJNT_FREE
    columns = []
    for name in names:
        joint, element = _joint_and_element(model, where, name)
        index = _id(model, where, "joint", joint)
        if element is not None and free[index]:
            if element >= free_size:
                raise UserError(
                    f"{where}: {name!r}: joint {joint!r} has elements 0 to {free_size - 1}"
                )
            columns.append(addresses[index] + element)
        elif element is not None or model.jnt_type[index] not in SCALAR:
            raise UserError(
                f"{where}: joint {name!r} is neither hinge nor slide; use a sensor, or name an "
                "element of a free joint as joint[i]"
            )
        else:
            columns.append(addresses[index])
    return np.array(columns, np.intp)


def _joint_and_element(model: mujoco.MjModel, where: str, name: str) -> tuple[str, int | None]:
    """Split `root[0]` into the joint `root` and its element, unless a joint has that full name."""
    match = re.fullmatch(r"(.+)\[(\d+)\]", name)
    kind = mujoco.mjtObj.mjOBJ_JOINT
    whole = mujoco.mj_name2id(model, kind, name) >= 0
    if match is None or (whole and mujoco.mj_name2id(model, kind, match[1]) < 0):
        return name, None
    if whole:
        raise UserError(
            f"{where}: {name!r} is a joint and could be an element of joint {match[1]!r} too; "
            "rename one of them"
        )
    return match[1], int(match[2])


def _id(model: mujoco.MjModel, where: str, kind: str, name: str | None) -> int:
    index = mujoco.mj_name2id(model, getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}"), name)
    if index < 0:
        count = {
            "joint": model.njnt,
            "sensor": model.nsensor,
            "actuator": model.nu,
            "site": model.nsite,
            "key": model.nkey,
        }[kind]
        choices = (getattr(model, kind)(i).name for i in range(count))
        raise UserError(f"{where}: {unknown(kind, name, choices)}")
    return int(index)
