"""A first robot.yaml from an MJCF model: what the model tells is taken, the rest is left open.

No physical quantity is made up: what the model does not tell is `TODO`, which `mlsh check-robot`
refuses by name, with what to fill in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np

from sim.errors import UserError
from sim.todo import TODO

HINGE, SLIDE, FREE, BALL = (
    int(getattr(mujoco.mjtJoint, f"mjJNT_{kind}")) for kind in ("HINGE", "SLIDE", "FREE", "BALL")
)
XYZ, WXYZ = ("x", "y", "z"), ("w", "x", "y", "z")  # a quaternion in MuJoCo's order
ODOMETRY, IMU = "nav_msgs/msg/Odometry", "sensor_msgs/msg/Imu"
JOINTS, TWIST = "sensor_msgs/msg/JointState", "geometry_msgs/msg/TwistStamped"


@dataclass(frozen=True)
class Draft:
    """A term as it will stand in robot.yaml; None is `TODO`."""

    name: str
    unit: str
    frame: str
    source: tuple[str, tuple[str, ...] | str]  # key in `mujoco`, value
    topic: str
    type: str
    fields: tuple[str, ...]
    limit: tuple[float, float] | None = None
    why: str = ""  # of the limit
    safe: tuple[float, ...] | None = None
    safe_why: str = ""
    tracked: str = ""  # the observation term that measures it
    joints: tuple[str, ...] = ()  # that an action term drives
    kind: str = ""  # what an action commands
    derive: str = ""  # what an observation term shows of its quaternion
    observed: bool = True


# Sensors of MuJoCo: unit, message type, topic, fields.
SENSORS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "GYRO": ("rad/s", IMU, "imu", tuple(f"angular_velocity.{a}" for a in XYZ)),
    "ACCELEROMETER": ("m/s^2", IMU, "imu", tuple(f"linear_acceleration.{a}" for a in XYZ)),
    "FRAMEQUAT": ("1", IMU, "imu", tuple(f"orientation.{a}" for a in WXYZ)),
    "FRAMEPOS": ("m", ODOMETRY, "odom", tuple(f"pose.pose.position.{a}" for a in XYZ)),
    "VELOCIMETER": ("m/s", ODOMETRY, "odom", tuple(f"twist.twist.linear.{a}" for a in XYZ)),
}


def draft(name: str, model: mujoco.MjModel, notes: Sequence[str] = ()) -> str:
    """The text of a robot.yaml.

    Args:
        name: of the robot.
        model: compiled from the MJCF.
        notes: to stand at the top.

    Raises:
        UserError: something that a term would name has no name in the model.
    """
    _check_names(model)
    base = _planar_base(model)
    notes = list(notes)
    observation = [*_base_terms(base), *_joint_terms(model, base), *_sensor_terms(model, notes)]
    action = _action_terms(model, base, observation)
    if not observation or not action:
        what = "joint or sensor to observe" if not observation else "actuator to command"
        raise UserError(f"the model has no {what}")
    for j in range(model.njnt):
        if model.jnt_type[j] in (FREE, BALL):
            notes.append(
                f"joint {model.joint(j).name or j} is read through sensors only; velocities in "
                "the robot's own frame: <velocimeter> and <gyro> at a site"
            )
    notes += [
        f"keyframe {model.key(k).name or k}: simulation begins at the default pose, not there"
        for k in range(model.nkey)
    ]
    lines = [
        "# Drafted from model.xml. TODO: measure or decide; `mlsh check-robot` says what it is.",
        *(f"# Note: {note}" for note in notes),
        "schema: 1",
        f"robot: {_text(name)}",
        f"control_dt: {TODO}",
        f"physics_dt: {float(model.opt.timestep)!r}   # the model's timestep",
        "",
        "observation:",
    ]
    for term in observation:
        lines += _observation_lines(term)
    lines += ["", "action:"]
    for term in action:
        lines += _action_lines(term)
    return "\n".join(lines) + "\n"


def _check_names(model: mujoco.MjModel) -> None:
    missing = []
    for kind, count in (("joint", model.njnt), ("actuator", model.nu), ("sensor", model.nsensor)):
        for index in range(count):
            free = kind == "joint" and model.jnt_type[index] in (FREE, BALL)
            if not (free or getattr(model, kind)(index).name):
                body = model.body(model.jnt_bodyid[index]).name if kind == "joint" else ""
                missing.append(f"{kind} {index}" + (f" (of body {body!r})" if body else ""))
    if missing:
        raise UserError(f"without a name in the model, give each one: {', '.join(missing)}")


# Observation ------------------------------------------------------------------------------------


def _planar_base(model: mujoco.MjModel) -> dict[str, str]:
    """Joints `x`, `y` and perhaps `yaw` of a body that slides on the world, or nothing."""
    for body in range(1, model.nbody):
        joints = np.flatnonzero(model.jnt_bodyid == body)
        found = {}
        for j in joints.tolist():
            axis = model.jnt_axis[j].round(6).tolist()
            place = (int(model.jnt_type[j]), axis.index(1.0) if sorted(axis) == [0, 0, 1] else -1)
            if key := {(SLIDE, 0): "x", (SLIDE, 1): "y", (HINGE, 2): "yaw"}.get(place):
                found[key] = model.joint(j).name
        if model.body_parentid[body] == 0 and {"x", "y"} <= set(found):
            return found
    return {}


def _base_terms(base: dict[str, str]) -> list[Draft]:
    if not base:
        return []
    joints = (base["x"], base["y"])
    paths = tuple(f"pose.pose.position.{a}" for a in "xy")
    terms = [Draft("position", "m", "odom", ("qpos", joints), "odom", ODOMETRY, paths)]
    if "yaw" in base:
        # The slides move along the world's axes, a twist along the robot's: no term for them.
        rate = ("qvel", (base["yaw"],))
        path = ("twist.twist.angular.z",)
        return [*terms, Draft("yaw_rate", "rad/s", "base_link", rate, "odom", ODOMETRY, path)]
    paths = tuple(f"twist.twist.linear.{a}" for a in "xy")
    return [
        *terms,
        Draft("velocity", "m/s", "base_link", ("qvel", joints), "odom", ODOMETRY, paths),
    ]


def _joint_terms(model: mujoco.MjModel, base: dict[str, str]) -> list[Draft]:
    terms = []
    for kind, prefix, unit in ((HINGE, "joint", "rad"), (SLIDE, "slide", "m")):
        ids = [
            j
            for j in range(model.njnt)
            if model.jnt_type[j] == kind and model.joint(j).name not in base.values()
        ]
        if not ids:
            continue
        names = tuple(model.joint(j).name for j in ids)
        limit, why = None, ""
        if all(model.jnt_limited[j] for j in ids):
            ranges = model.jnt_range[ids]
            limit = (float(ranges[:, 0].min()), float(ranges[:, 1].max()))
            why = "the model's jnt_range" + (", the widest of them" if len(ids) > 1 else "")
        for what, key, per, bound, reason in (
            ("position", "qpos", "", limit, why),
            ("velocity", "qvel", "/s", None, ""),
        ):
            paths = tuple(f"{what}[{name}]" for name in names)
            terms.append(
                Draft(
                    f"{prefix}_{what}",
                    unit + per,
                    "joint",
                    (key, names),
                    "joint_states",
                    JOINTS,
                    paths,
                    limit=bound,
                    why=reason,
                )
            )
    return terms


def _sensor_terms(model: mujoco.MjModel, notes: list[str]) -> list[Draft]:
    terms = []
    for index in range(model.nsensor):
        sensor = model.sensor(index)
        kind = mujoco.mjtSensor(int(sensor.type[0])).name.removeprefix("mjSENS_")
        if kind in ("JOINTPOS", "JOINTVEL"):
            notes.append(f"sensor {sensor.name} is left out: it shows what qpos or qvel shows")
            continue
        if kind not in SENSORS:
            notes.append(
                f"sensor {sensor.name} ({kind.lower()}) is left out: write a term with the "
                "message that your robot sends"
            )
            continue
        unit, message, topic, paths = SENSORS[kind]
        if (message, kind) == (IMU, "FRAMEQUAT") and sensor.name.endswith("_orientation"):
            message, topic = ODOMETRY, "odom"
            paths = tuple(f"pose.pose.{path}" for path in paths)
        frame = "odom" if kind in ("FRAMEPOS", "FRAMEQUAT") else "base_link"
        terms.append(
            Draft(sensor.name, unit, frame, ("sensor", sensor.name), topic, message, paths)
        )
    return [*terms, *_tilt(model, terms)]


def _tilt(model: mujoco.MjModel, terms: Sequence[Draft]) -> list[Draft]:
    """For a robot that can fall over: how far it leans, to be limited and not to be seen."""
    orientations = [
        term
        for term in terms
        if term.fields[0].endswith("orientation.w")
        and model.sensor_refid[model.sensor(term.source[1]).id] < 0  # in the world
    ]
    if FREE not in model.jnt_type or not orientations:
        return []
    # An IMU is asked first: odometry may be a guess from wheels, always upright.
    whole = min(orientations, key=lambda term: term.type != IMU)
    taken = [term.name for term in terms]
    name = next(n for n in ("tilt", f"{whole.name}_tilt", "tilt_limit") if n not in taken)
    base = replace(whole, name=name, unit="rad", frame="base_link")
    return [replace(base, derive="tilt", observed=False)]


# Action -----------------------------------------------------------------------------------------


def _command_kind(model: mujoco.MjModel, index: int) -> str:
    """position, velocity or effort, as far as the actuator's gain and bias tell."""
    if model.actuator_trntype[index] != int(mujoco.mjtTrn.mjTRN_JOINT):
        return TODO
    gain, bias = model.actuator_gainprm[index][0], model.actuator_biasprm[index][:3]
    if not bias.any():
        return "effort"
    if bias[1] == -gain and not bias[0]:
        return "position"
    return "velocity" if bias[2] == -gain and not bias[:2].any() else TODO


def _action_terms(
    model: mujoco.MjModel, base: dict[str, str], observation: Sequence[Draft]
) -> list[Draft]:
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index in range(model.nu):
        kind = _command_kind(model, index)
        joint = model.joint(model.actuator_trnid[index][0]) if kind != TODO else None
        name = "" if joint is None else joint.name
        part = next((key for key, value in base.items() if value == name), "")
        part = {"x": "base", "y": "base", "yaw": "turn"}.get(part, "") if kind != TODO else ""
        bounds = tuple(float(x) for x in model.actuator_ctrlrange[index])
        limit = bounds if model.actuator_ctrllimited[index] else None
        turning = joint is not None and int(joint.type[0]) == HINGE
        groups.setdefault((kind, part, turning, limit), []).append(index)
    terms: list[Draft] = []
    for (kind, part, turning, limit), ids in groups.items():
        terms.append(_action_term(model, kind, part, turning, limit, ids, observation))
    return [_renamed(term, i, terms) for i, term in enumerate(terms)]


def _renamed(term: Draft, index: int, terms: Sequence[Draft]) -> Draft:
    same = [i for i, other in enumerate(terms) if other.name == term.name]
    if len(same) == 1:
        return term
    return Draft(**{**term.__dict__, "name": f"{term.name}_{same.index(index)}"})


def _action_term(
    model: mujoco.MjModel,
    kind: str,
    part: str,
    turning: bool,
    limit: tuple[float, float] | None,
    ids: list[int],
    observation: Sequence[Draft],
) -> Draft:
    actuators = tuple(model.actuator(i).name for i in ids)
    joints = tuple(
        model.joint(model.actuator_trnid[i][0]).name if kind != TODO else name
        for i, name in zip(ids, actuators, strict=True)
    )
    length = "rad" if turning else "m"
    force = "N m" if turning else "N"
    unit = {"position": length, "velocity": f"{length}/s", "effort": force}.get(kind, TODO)
    topic, message = "joint_commands", JOINTS
    paths = tuple(f"{kind}[{name}]" for name in joints)
    if kind == TODO:  # neither a servo nor a motor of a joint: what it commands, the model hides
        topic, message, paths = TODO, TODO, (TODO,) * len(ids)
    name, frame = ("command" if kind == TODO else f"joint_{kind}"), "joint"
    if part and kind == "velocity":
        name, frame = ("base_velocity" if part == "base" else "base_yaw_rate"), "base_link"
        topic, message = "cmd_vel", TWIST
        axes = {model.joint(j).name: a for j, a in _base_axes(model)}
        paths = tuple(f"twist.{axes[joint]}" for joint in joints)
    key = {"position": "qpos", "velocity": "qvel"}.get(kind)
    tracked = [t.name for t in observation if (t.source, t.unit) == ((key, joints), unit)]
    safe, why = None, ""
    for k in range(model.nkey):
        if model.key_ctrl[k].any():  # MuJoCo cannot tell zeros that were meant from none given
            safe = tuple(float(model.key_ctrl[k][i]) for i in ids)
            why = f"ctrl of the model's keyframe {model.key(k).name or k}: does it stop the robot?"
            break
    return Draft(
        name,
        unit,
        frame,
        ("actuators", actuators),
        topic,
        message,
        paths,
        limit=limit,
        why="the model's ctrlrange",
        safe=safe,
        safe_why=why,
        tracked=tracked[0] if tracked else "",
        joints=joints,
        kind=kind,
    )


def _base_axes(model: mujoco.MjModel) -> list[tuple[int, str]]:
    base = _planar_base(model)
    axes = {"x": "linear.x", "y": "linear.y", "yaw": "angular.z"}
    return [(int(model.joint(name).id), axes[key]) for key, name in base.items()]


# Text -------------------------------------------------------------------------------------------

PLAIN = re.compile(r"[A-Za-z_][\w./^]*( [A-Za-z]\w*)?")
WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")


def _text(value: str) -> str:
    plain = PLAIN.fullmatch(value) and value.lower() not in WORDS
    return value if plain else json.dumps(value)


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(_text(value) for value in values)}]"


def _numbers(values: Sequence[float] | None, why: str) -> str:
    if values is None:
        return TODO
    return f"[{', '.join(repr(value) for value in values)}]" + (f"   # {why}" if why else "")


def _ros_lines(term: Draft) -> list[str]:
    return [
        "    ros:",
        f"      topic: {_text(term.topic)}",
        f"      type: {term.type}",
        f"      fields: {_list(term.fields)}",
        "      constants: {}   # what the message has to say of itself, by path; see a laser scan",
    ]


def _observation_lines(term: Draft) -> list[str]:
    key, value = term.source
    shown = _text(value) if isinstance(value, str) else _list(value)
    derived = []
    if term.derive:
        derived.append(f"    derive: {term.derive}   # of its z axis to the world's")
    if not term.observed:
        derived.append("    observed: false   # the guard checks it, the policy does not see it")
    return [
        f"  - name: {_text(term.name)}",
        f"    size: {len(term.fields)}",
        f"    unit: {_text(term.unit)}",
        f"    frame: {term.frame}",
        "    scale: 1.0   # the numbers as they are; training normalises them",
        "    clip: null",
        f"    noise: {TODO}" if term.observed else "    noise: 0.0   # not observed",
        f"    max_age: {TODO}",
        f"    limit: {_numbers(term.limit, term.why)}",
        "    infinite: null   # infinite values are refused",
        *derived,
        f"    mujoco: {{{key}: {shown}}}",
        *_ros_lines(term),
    ]


def _action_lines(term: Draft) -> list[str]:
    scale = offset = TODO
    if term.limit is not None:
        low, high = term.limit
        scale = f"{(high - low) / 2!r}   # actions of -1 .. 1 span the ctrlrange"
        offset = f"{(high + low) / 2!r}"
    tracking = f"{{term: {term.tracked}, tolerance: {TODO}, time: {TODO}}}"
    actuators = term.source[1]
    lines = [
        f"  - name: {_text(term.name)}",
        f"    size: {len(term.fields)}",
        f"    unit: {_text(term.unit)}",
        f"    frame: {term.frame}",
        f"    scale: {scale}",
        f"    offset: {offset}",
        f"    limit: {_numbers(term.limit, term.why if term.limit else '')}",
        f"    blend: {TODO}",
        f"    rate_limit: {TODO}",
        f"    tracking: {tracking if term.tracked else TODO}",
        f"    safe: {_numbers(term.safe, term.safe_why)}",
        f"    mujoco: {{actuators: {_list(actuators)}}}",
    ]
    if term.type == JOINTS:
        lines.append(
            "    # A forward_command_controller: std_msgs/msg/Float64MultiArray, fields data[0] .."
        )
    return lines + _ros_lines(term)
