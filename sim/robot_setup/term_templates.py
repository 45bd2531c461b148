"""Terms of a generated robot.yaml, as far as the model determines them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import mujoco
import numpy as np

from sim.interface import Range, element_path
from sim.physics.robot_bodies import FREE, HINGE, SLIDE, is_robot, measured_joints, roots
from sim.physics.servo import effect
from sim.robot_setup.placeholders import TODO
from sim.robot_setup.template_text import JOINTS, Ranges, TermTemplate

XYZ, WXYZ = ("x", "y", "z"), ("w", "x", "y", "z")  # a quaternion in MuJoCo's order
ODOMETRY, IMU = "nav_msgs/msg/Odometry", "sensor_msgs/msg/Imu"
TWIST = "geometry_msgs/msg/TwistStamped"
JOINT_COMMANDS = "joint_commands"  # topic
# Sensors of MuJoCo: unit, message type, topic, fields.
SENSORS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "GYRO": ("rad/s", IMU, "imu", tuple(f"angular_velocity.{a}" for a in XYZ)),
    "ACCELEROMETER": ("m/s^2", IMU, "imu", tuple(f"linear_acceleration.{a}" for a in XYZ)),
    "FRAMEQUAT": ("1", IMU, "imu", tuple(f"orientation.{a}" for a in WXYZ)),
    "FRAMEPOS": ("m", ODOMETRY, "odom", tuple(f"pose.pose.position.{a}" for a in XYZ)),
    "VELOCIMETER": ("m/s", ODOMETRY, "odom", tuple(f"twist.twist.linear.{a}" for a in XYZ)),
}


def base_terms(base: dict[str, str]) -> list[TermTemplate]:
    """Returns the terms of odometry for a base that slides on the world."""
    if not base:
        return []
    joints = (base["x"], base["y"])
    paths = tuple(f"pose.pose.position.{a}" for a in "xy")
    terms = [TermTemplate("position", "m", "odom", ("qpos", joints), "odom", ODOMETRY, paths)]
    if "yaw" in base:
        # The slides move along the world's axes, a twist along the robot's: no term for them.
        rate = ("qvel", (base["yaw"],))
        path = ("twist.twist.angular.z",)
        return [
            *terms,
            TermTemplate("yaw_rate", "rad/s", "base_link", rate, "odom", ODOMETRY, path),
        ]
    paths = tuple(f"twist.twist.linear.{a}" for a in "xy")
    return [
        *terms,
        TermTemplate("velocity", "m/s", "base_link", ("qvel", joints), "odom", ODOMETRY, paths),
    ]


def joint_terms(model: mujoco.MjModel, base: dict[str, str]) -> list[TermTemplate]:
    """Returns positions and velocities of all measured joints but those of the base."""
    terms = []
    for kind, prefix, unit in ((HINGE, "joint", "rad"), (SLIDE, "slide", "m")):
        ids = [
            j
            for j in measured_joints(model)
            if model.jnt_type[j] == kind and model.joint(j).name not in base.values()
        ]
        if not ids:
            continue
        names = tuple(model.joint(j).name for j in ids)
        endless = [j for j in ids if kind == HINGE and not model.jnt_limited[j]]
        position = TermTemplate(
            f"{prefix}_position",
            unit,
            "joint",
            ("qpos", names),
            "joint_states",
            JOINTS,
            _paths("position", names),
            limits=tuple(_joint_range(model, j) for j in ids),
            why="the model's jnt_range",
            turning=model.joint(endless[0]).name if endless else "",
        )
        velocity = TermTemplate(
            f"{prefix}_velocity",
            f"{unit}/s",
            "joint",
            ("qvel", names),
            "joint_states",
            JOINTS,
            _paths("velocity", names),
        )
        terms += [position, velocity]
    return terms


def _joint_range(model: mujoco.MjModel, joint: int) -> Range | None:
    low, high = (float(bound) for bound in model.jnt_range[joint])
    return (low, high) if model.jnt_limited[joint] else None


def _paths(array: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(element_path(array, name) for name in names)


def sensor_terms(model: mujoco.MjModel, notes: list[str]) -> list[TermTemplate]:
    """Returns the terms of all sensors with a known message; adds notes on the others."""
    terms: list[TermTemplate] = []
    several = len({_place(model, i) for i in range(model.nsensor) if _of_imu(model, i)}) > 1
    for index in range(model.nsensor):
        term = _sensor_term(model, index, several)
        if isinstance(term, str):
            notes.append(f"sensor {model.sensor(index).name} {term}")
        elif same := [t for t in terms if (t.topic, t.fields) == (term.topic, term.fields)]:
            notes.append(
                f"sensor {model.sensor(index).name} is left out: its message would be that of "
                f"{same[0].source[1]}; write a term with the topic that your robot has for it"
            )
        else:
            terms.append(replace(term, name=_free_name(term.name, [t.name for t in terms])))
    return [*terms, *_tilt(model, terms)]


def _of_imu(model: mujoco.MjModel, index: int) -> bool:
    kind = mujoco.mjtSensor(int(model.sensor_type[index])).name.removeprefix("mjSENS_")
    return kind in ("GYRO", "ACCELEROMETER") and is_robot(model, _body(model, index))


def _sensor_term(model: mujoco.MjModel, index: int, several: bool) -> TermTemplate | str:
    """Returns the term that reads a sensor, or the reason that there is none."""
    sensor = model.sensor(index)
    kind = mujoco.mjtSensor(int(sensor.type[0])).name.removeprefix("mjSENS_")
    if kind in ("JOINTPOS", "JOINTVEL"):
        return "is left out: it shows what qpos or qvel shows"
    if kind not in SENSORS:
        return f"({kind.lower()}) is left out: write a term with the message that your robot sends"
    body = _body(model, index)
    if not is_robot(model, body):
        return f"is left out: no actuator moves body {model.body(body).name}, where it sits"
    unit, message, topic, paths = SENSORS[kind]
    if model.sensor_refid[index] >= 0:
        return "is left out: it is relative to another frame, write a term with its message"
    if (message, kind) == (IMU, "FRAMEQUAT") and sensor.name.endswith("_orientation"):
        message, topic = ODOMETRY, "odom"
        paths = tuple(f"pose.pose.{path}" for path in paths)
    base = body in roots(model) or model.body_weldid[body] in roots(model)
    if message == ODOMETRY and not base:
        return (
            f"is left out: odometry is of the base, not of {model.body(body).name}; write a term "
            "with the message that your robot sends"
        )
    if message == IMU and several:
        topic = _topic(f"{_place(model, index)}/imu")
    frame = "base_link" if base else _label(_place(model, index))
    frame = "odom" if kind in ("FRAMEPOS", "FRAMEQUAT") else frame
    source = ("sensor", sensor.name)
    return TermTemplate(_label(sensor.name), unit, frame, source, topic, message, paths)


def _body(model: mujoco.MjModel, sensor: int) -> int:
    """Returns the body that a sensor is attached to, 0 for none."""
    kind, index = int(model.sensor_objtype[sensor]), int(model.sensor_objid[sensor])
    of = {
        int(mujoco.mjtObj.mjOBJ_SITE): model.site_bodyid,
        int(mujoco.mjtObj.mjOBJ_GEOM): model.geom_bodyid,
        int(mujoco.mjtObj.mjOBJ_CAMERA): model.cam_bodyid,
    }
    if kind in of:
        return int(of[kind][index])
    on_body = kind in (int(mujoco.mjtObj.mjOBJ_BODY), int(mujoco.mjtObj.mjOBJ_XBODY))
    return index if on_body else 0


def _place(model: mujoco.MjModel, sensor: int) -> str:
    """Returns the name of the site or body of a sensor."""
    kind, index = int(model.sensor_objtype[sensor]), int(model.sensor_objid[sensor])
    named = model.site(index).name if kind == int(mujoco.mjtObj.mjOBJ_SITE) else ""
    return named or model.body(_body(model, sensor)).name or f"site_{index}"


def _tilt(model: mujoco.MjModel, terms: Sequence[TermTemplate]) -> list[TermTemplate]:
    """Returns a term with the tilt of a robot that can fall over; limited but not observed."""
    known = roots(model)
    orientations = [
        term
        for term in terms
        if term.fields[0].endswith("orientation.w")
        and model.jnt_type[model.body_jntadr[root := _root(model, term)]] == FREE
        and root in known
    ]
    if not orientations:
        return []

    # An IMU is asked first: odometry may be a guess from wheels, always upright. And of several
    # the one on the base: a head may nod.
    def rank(term: TermTemplate) -> tuple[bool, bool]:
        body = _body(model, int(model.sensor(term.source[1]).id))
        return (model.body_weldid[body] != _root(model, term), term.type != IMU)

    whole = min(orientations, key=rank)
    name = _free_name("tilt", [term.name for term in terms])
    base = replace(whole, name=name, unit="rad", frame="base_link")
    return [replace(base, derive="tilt", policy_input=False)]


def _root(model: mujoco.MjModel, term: TermTemplate) -> int:
    return int(model.body_rootid[_body(model, int(model.sensor(term.source[1]).id))])


def action_terms(
    model: mujoco.MjModel,
    base: dict[str, str],
    observation: Sequence[TermTemplate],
    notes: list[str],
) -> list[TermTemplate]:
    """Returns a term for each kind of actuator; adds notes on what is odd."""
    groups: dict[tuple[str, str, bool], list[int]] = {}
    for index in range(model.nu):
        does = effect(model, index)
        if does.odd:
            notes.append(f"actuator {model.actuator(index).name}: {does.odd}")
        joint = model.joint(does.joint) if does.kind else None
        part = next((k for k, name in base.items() if joint and name == joint.name), "")
        part = {"x": "base", "y": "base", "yaw": "turn"}.get(part, "")
        turning = joint is not None and int(joint.type[0]) == HINGE
        groups.setdefault((does.kind, part, turning), []).append(index)
    terms: list[TermTemplate] = []
    for (kind, part, turning), ids in groups.items():
        term = _action_term(model, kind, part, turning, ids, observation, base, notes)
        terms.append(replace(term, name=_free_name(term.name, [t.name for t in terms])))
    return _own_topics(terms)


def _own_topics(terms: list[TermTemplate]) -> list[TermTemplate]:
    """Give each kind of joint command its own topic, if there are several.

    The names of a JointState are for all its arrays: one that commands a position of one joint and
    a velocity of another would hold a velocity for the first and a position for the second.
    """

    def array(term: TermTemplate) -> str:
        return term.fields[0].partition("[")[0] if term.topic == JOINT_COMMANDS else ""

    if len({array(term) for term in terms} - {""}) < 2:
        return terms
    own = {kind: f"joint_{kind}_commands" for kind in map(array, terms) if kind}
    return [replace(term, topic=own.get(array(term), term.topic)) for term in terms]


def _action_term(
    model: mujoco.MjModel,
    kind: str,
    part: str,
    turning: bool,
    ids: list[int],
    observation: Sequence[TermTemplate],
    base: dict[str, str],
    notes: list[str],
) -> TermTemplate:
    source = ("actuators", tuple(model.actuator(i).name for i in ids))
    limits, why = _command_limits(model, kind, ids)
    safe, safe_why = _safe(model, kind, ids, limits, notes)
    if not kind:  # neither a servo nor a motor of a joint: what it commands, the model hides
        todo = (TODO,) * len(ids)
        return TermTemplate("command", TODO, "joint", source, TODO, TODO, todo, limits, why)
    joints = tuple(model.joint(effect(model, i).joint).name for i in ids)
    length, force = ("rad", "N m") if turning else ("m", "N")
    unit = {"position": length, "velocity": f"{length}/s", "effort": force}[kind]
    topic, message, paths = JOINT_COMMANDS, JOINTS, _paths(kind, joints)
    name, frame = f"{'joint' if turning else 'slide'}_{kind}", "joint"
    if part and kind == "velocity":
        name, frame = ("base_velocity" if part == "base" else "base_yaw_rate"), "base_link"
        topic, message = "cmd_vel", TWIST
        axes = {"x": "linear.x", "y": "linear.y", "yaw": "angular.z"}
        paths = tuple(f"twist.{axes[key]}" for j in joints for key in base if base[key] == j)
    key = {"position": "qpos", "velocity": "qvel"}.get(kind)
    tracked = ""
    elements: tuple[int, ...] = ()
    for term in observation:
        if (term.source[0], term.unit) == (key, unit) and set(joints) <= set(term.source[1]):
            tracked = term.name
            elements = tuple(term.source[1].index(joint) for joint in joints)
            if elements == tuple(range(len(term.fields))):
                elements = ()  # element by element, as where nothing is said
    return TermTemplate(
        name,
        unit,
        frame,
        source,
        topic,
        message,
        paths,
        limits=limits,
        why=why,
        safe_command=safe,
        safe_why=safe_why,
        tracked=tracked,
        elements=elements,
    )


def _command_limits(model: mujoco.MjModel, kind: str, ids: list[int]) -> tuple[Ranges, str]:
    limits: list[Range | None] = []
    of_joint = False
    for i in ids:
        low, high = (float(bound) for bound in model.actuator_ctrlrange[i])
        limited = bool(model.actuator_ctrllimited[i])
        limits.append((low, high) if limited else None)
        if not limited and kind == "position":
            limits[-1] = _joint_range(model, effect(model, i).joint)
            of_joint |= limits[-1] is not None
    return tuple(limits), "the model's ctrlrange" + (", or jnt_range" if of_joint else "")


def _safe(
    model: mujoco.MjModel, kind: str, ids: list[int], limits: Ranges, notes: list[str]
) -> tuple[tuple[float, ...] | None, str]:
    """Returns the command of the first keyframe that has one, for servos; and its purpose."""
    for k in range(model.nkey):
        if not model.key_ctrl[k].any():  # MuJoCo cannot tell zeros that were meant from none given
            continue
        name = model.key(k).name or k
        values = tuple(float(model.key_ctrl[k][i]) for i in ids)
        if kind not in ("position", "velocity"):
            # Files of vendors have the angles of servos there, whatever their actuators are.
            if any(values):
                notes.append(
                    f"ctrl of keyframe {name} is not taken for safe {kind or 'commands'}: it may "
                    "hold angles"
                )
            return None, ""
        bounds = [(-np.inf, np.inf) if bound is None else bound for bound in limits]
        if any(not low <= x <= high for x, (low, high) in zip(values, bounds, strict=True)):
            notes.append(
                f"ctrl of keyframe {name} is beyond the limits, so that it is not `safe_command`"
            )
            return None, ""
        return values, f"ctrl of the model's keyframe {name}: does it stop the robot?"
    return None, ""


def _label(name: str) -> str:
    """Returns a valid name for a term, which allows fewer characters than MuJoCo."""
    return re.sub(r"[^A-Za-z0-9_./-]", "_", name)[:80].lstrip("./-") or "sensor"


def _topic(name: str) -> str:
    parts = [re.sub(r"\W", "_", part, flags=re.ASCII) for part in name.split("/") if part]
    return "/".join(f"_{part}" if part[0].isdigit() else part for part in parts)


def _free_name(name: str, taken: Sequence[str]) -> str:
    choices = (name, *(f"{name}_{i}" for i in range(2, len(taken) + 3)))
    return next(choice for choice in choices if choice not in taken)
