"""Checks that the ROS and the MuJoCo side of a term agree on joints, axes and units.

A policy learns with the MuJoCo side and moves the robot with the ROS side. If the two name
different joints, every number is valid and the robot moves the wrong joint: that is an error.
Names that the model does not have, and elements that are selected by index, cannot be compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from sim.interface import (
    ActionTerm,
    Interface,
    ObservationTerm,
    Path,
    RosField,
    parse_path,
    spread,
)
from sim.interface.message_quantities import ARRAYS, cores, vector_unit
from sim.physics.mjcf_addresses import actuators, address
from sim.physics.robot_bodies import BALL, FREE, HINGE, SCALAR, SLIDE, joints_of
from sim.physics.servo import effect, gains

WXYZ, XYZ = "wxyz", "xyz"
ROUNDED = 1e-3  # of gains, relative and absolute
_LENGTH, _ANGLE = {"position": "m"}, {"position": "rad"}
for _units, _force in ((_LENGTH, "N"), (_ANGLE, "N m")):
    _of = _units["position"]
    _units |= {"velocity": f"{_of}/s", "acceleration": f"{_of}/s^2", "effort": _force}
JOINT_UNITS = {SLIDE: _LENGTH, HINGE: _ANGLE}
# Of MuJoCo's sensors; those of joints and actuators depend on the joint.
SENSOR_UNITS = {
    **dict.fromkeys(("FRAMEPOS", "SUBTREECOM", "RANGEFINDER", "GEOMDIST"), "m"),
    **dict.fromkeys(("VELOCIMETER", "FRAMELINVEL", "SUBTREELINVEL"), "m/s"),
    **dict.fromkeys(("GYRO", "FRAMEANGVEL", "BALLANGVEL"), "rad/s"),
    **dict.fromkeys(("ACCELEROMETER", "FRAMELINACC"), "m/s^2"),
    **dict.fromkeys(("FRAMEQUAT", "BALLQUAT", "FRAMEXAXIS", "FRAMEYAXIS", "FRAMEZAXIS"), "1"),
    **{"FRAMEANGACC": "rad/s^2", "FORCE": "N", "TORQUE": "N m", "TOUCH": "N"},
}
JOINT_SENSORS = {
    **{"JOINTPOS": "position", "JOINTVEL": "velocity", "JOINTACTFRC": "effort"},
    **{"JOINTLIMITPOS": "position", "JOINTLIMITVEL": "velocity", "JOINTLIMITFRC": "effort"},
}
ACTUATOR_SENSORS = ("ACTUATORPOS", "ACTUATORVEL", "ACTUATORFRC")
LETTERLESS = ("USER", "PLUGIN", "CONTACT", "RANGEFINDER")  # elements that are no x, y, z
# Messages whose arrays stand beside names: there a number in brackets is a name too.
NAMED = ("JointState", "MultiDOFJointState", "JointJog", "DynamicJointState", "JointTrajectory")
ALIASES = {"rads-1": "rad/s", "ms-1": "m/s", "ms-2": "m/s2", "m/s/s": "m/s2", "rads-2": "rad/s2"}
KNOWN = {
    *(unit for units in JOINT_UNITS.values() for unit in units.values()),
    *("1", "deg", "deg/s", "°", "°/s", "degree", "degrees", "mm", "cm", "mm/s", "rpm"),
}


@dataclass(frozen=True)
class ModelSource:
    """Meaning of one element of a term in the model; empty fields are unknown."""

    label: str  # as robot.yaml names it
    unit: str = ""
    joints: tuple[int, ...] = ()
    letter: str = ""  # x, y, z or w of a vector or quaternion; with a minus where it is opposite


@dataclass(frozen=True)
class Side:
    """An element of a term in the model and in ROS."""

    where: str
    source: ModelSource
    topic: str
    path: Path
    field: str  # the path as robot.yaml has it
    keys: tuple[str, ...]  # names in brackets


def disagreements(model: mujoco.MjModel, interface: Interface) -> list[str]:
    """Returns every contradiction between model and ROS; the names in `interface` are valid."""
    terms = [t for t in interface.observation if t.mujoco.task is None]
    measured = {term.name: sources(model, term) for term in terms}
    commanded = {term.name: controls(model, term) for term in interface.action}
    sides: list[Side] = []
    found: list[str] = []
    for kind, group, known in (
        ("observation", terms, measured),
        ("action", interface.action, commanded),
    ):
        for term in group:
            where = f"{kind} term {term.name!r}"
            mine = _sides(where, known[term.name], term.ros)
            sides += mine
            found += _wrong_unit(where, term, known[term.name])
            found += [text for side in mine for text in _wrong_side(model, side, term.ros)]
    if not found:
        found = list(_out_of_order(model, sides))
    for action in interface.action:
        found += _measured_elsewhere(model, action, commanded[action.name], measured)
        found += _other_gains(model, action)
    return list(dict.fromkeys(found))


def _other_gains(model: mujoco.MjModel, action: ActionTerm) -> Iterator[str]:
    """Reports servos whose gains are not those that robot.yaml states."""
    for place, key in enumerate(("stiffness", "damping")):
        if (stated := getattr(action, key)) is None:
            continue
        for name, value in zip(action.mujoco.actuators, spread(stated, action.size), strict=True):
            where = f"action term {action.name!r}: {key} {value:g} of actuator {name!r}"
            if (own := gains(model, int(model.actuator(name).id))) is None:
                yield f"{where}: in the model it is no position servo of one joint"
            elif not abs(own[place] - value) <= ROUNDED * (1 + abs(value)):
                yield f"{where} is {own[place]:g} in the model"


# The model's side -------------------------------------------------------------------------------


def sources(model: mujoco.MjModel, term: ObservationTerm) -> list[ModelSource]:
    """Returns the source of each element of an observation term."""
    if term.mujoco.rays is not None:
        return [ModelSource(f"rays of {term.mujoco.rays.site}", "m")] * term.size
    array, columns = address(model, term)
    if array == "sensordata":
        assert term.mujoco.sensor is not None
        sensor = int(model.sensor(term.mujoco.sensor).id)
        first = int(model.sensor_adr[sensor])
        return [_of_sensor(model, sensor, int(column) - first) for column in columns]
    names = term.mujoco.qpos or term.mujoco.qvel
    at = model.jnt_qposadr if array == "qpos" else model.jnt_dofadr
    found = []
    for name, column in zip(names, columns, strict=True):
        joint = int(np.flatnonzero(at <= column).max())
        found.append(_of_joint(model, f"{array} {name}", joint, array, int(column - at[joint])))
    return found


def _of_joint(
    model: mujoco.MjModel, label: str, joint: int, array: str, element: int
) -> ModelSource:
    kind = int(model.jnt_type[joint])
    quantity = "position" if array == "qpos" else "velocity"
    if kind in SCALAR:
        letter = _axis(model, joint)
        return ModelSource(label, JOINT_UNITS[kind][quantity], (joint,), letter)
    linear = element < 3
    if array == "qpos":
        letter = XYZ[element] if linear else WXYZ[element - 3]
        return ModelSource(label, "m" if linear else "1", (joint,), letter)
    return ModelSource(label, "m/s" if linear else "rad/s", (joint,), XYZ[element % 3])


def _axis(model: mujoco.MjModel, joint: int) -> str:
    """Returns the world axis that a joint of a base moves along or about; else an empty text."""
    body = int(model.jnt_bodyid[joint])
    if model.body_parentid[body]:
        return ""
    axis = model.jnt_axis[joint].round(6).tolist()
    upright = np.allclose(model.body_quat[body], [1, 0, 0, 0])
    if not upright or sorted(map(abs, axis)) != [0, 0, 1]:
        return ""
    place = int(np.abs(axis).argmax())
    return ("-" if axis[place] < 0 else "") + XYZ[place]


def _of_sensor(model: mujoco.MjModel, sensor: int, element: int) -> ModelSource:
    kind = mujoco.mjtSensor(int(model.sensor_type[sensor])).name.removeprefix("mjSENS_")
    label, of = f"sensor {model.sensor(sensor).name}", int(model.sensor_objid[sensor])
    if kind in JOINT_SENSORS:
        unit = JOINT_UNITS[int(model.jnt_type[of])][JOINT_SENSORS[kind]]
        return ModelSource(label, unit, (of,))
    if kind in ACTUATOR_SENSORS:
        return ModelSource(label, "", tuple(joints_of(model, of)))
    letters = {3: XYZ, 4: WXYZ}.get(int(model.sensor_dim[sensor]), "")
    letter = letters[element] if letters and kind not in LETTERLESS else ""
    joints = (of,) if kind in ("BALLQUAT", "BALLANGVEL") else ()
    return ModelSource(f"{label} [{element}]", SENSOR_UNITS.get(kind, ""), joints, letter)


def controls(model: mujoco.MjModel, term: ActionTerm) -> list[ModelSource]:
    """Returns the source of each element of an action term."""
    found = []
    for name, index in zip(term.mujoco.actuators, actuators(model, term), strict=True):
        does, label = effect(model, index), f"actuator {name}"
        if does.kind:
            unit = JOINT_UNITS[int(model.jnt_type[does.joint])][does.kind]
            found.append(ModelSource(label, unit, (does.joint,), _axis(model, does.joint)))
        else:
            found.append(ModelSource(label, "", tuple(joints_of(model, index))))
    return found


# Both sides -------------------------------------------------------------------------------------


def _sides(where: str, known: Sequence[ModelSource], ros: RosField) -> list[Side]:
    found = []
    for source, field in zip(known, ros.fields, strict=True):
        path = parse_path(field)
        named = ros.names is not None or ros.type.rpartition("/")[2] in NAMED
        keys = tuple(
            key
            for name, key in path
            if key is not None and (not key.isdecimal() or (named and name != "points"))
        )
        found.append(Side(where, source, ros.topic, path, field, keys))
    return found


def _wrong_unit(
    where: str, term: ObservationTerm | ActionTerm, known: Sequence[ModelSource]
) -> Iterator[str]:
    if isinstance(term, ObservationTerm) and term.derive is not None:
        return  # the interface has judged it
    units = {source.unit for source in known}
    if "" in units or {_plain(unit) for unit in units} == {_plain(term.unit)}:
        return
    if len(units) > 1 and _plain(term.unit) not in map(_plain, KNOWN):
        return  # a word of one's own for a mixture
    source = next(s for s in known if _plain(s.unit) != _plain(term.unit))
    yield f"{where}: unit {term.unit!r}: {source.label} is in {source.unit}, and so is ROS's field"


def _plain(unit: str) -> str:
    """Returns the canonical spelling of a unit."""
    text = re.sub(r"[ ·*^]", "", unit).replace("²", "2")
    return ALIASES.get(text, text)


def _wrong_side(model: mujoco.MjModel, side: Side, ros: RosField) -> Iterator[str]:
    source, what = side.source, f"{side.where}: ros.fields: {side.field}"
    for key in side.keys:
        joints = _named(model, key)
        if joints and source.joints and not {*joints} & {*source.joints}:
            yield (
                f"{what} is joint {_names(model, joints)} of the model, and {source.label} is "
                f"of joint {_names(model, source.joints)}: names and order have to be the same "
                "on both sides"
            )
            return
    letter = side.path[-1][0] if side.path[-1][1] is None else ""
    if source.letter and len(letter) == 1 and letter in WXYZ and letter != source.letter:
        order = "; quaternion order: MuJoCo w,x,y,z, ROS x,y,z,w" if "w" in _letters(side) else ""
        yield (
            f"{what} is {letter}, and {source.label} is {source.letter}: list ros.fields in the "
            f"order of MuJoCo's elements{order}"
        )
        return
    unit = _unit(side.path, ros.type, source)
    if unit and source.unit and unit != source.unit:
        yield f"{what} is in {unit} by its message, and {source.label} is in {source.unit}"


def _letters(side: Side) -> set[str]:
    quaternion = side.source.unit == "1" and len(side.path) > 1
    return {*WXYZ} if quaternion else {side.path[-1][0], side.source.letter}


def _unit(path: Path, kind: str, source: ModelSource) -> str:
    """Returns the unit that ROS defines for a field; empty where it is a matter of convention."""
    (last, key), package = path[-1], kind.partition("/")[0]
    if key is not None:
        word = key if last == "values" else last
        if kind.rpartition("/")[2] not in NAMED or word not in ARRAYS or not source.unit:
            return ""
        units = next((u for u in (_LENGTH, _ANGLE) if source.unit in u.values()), {})
        return units.get(ARRAYS[word], "")
    ours = ("geometry_msgs", "nav_msgs", "sensor_msgs")
    if package not in ours or len(path) < 2 or last not in WXYZ:
        return ""
    return vector_unit(path, accelerates="Accel" in kind)


def _named(model: mujoco.MjModel, name: str) -> tuple[int, ...]:
    """Returns the joints that a name in a message can mean: a joint, or else an actuator."""
    joint = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
    if joint >= 0:
        return (int(joint),)
    actuator = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_ACTUATOR, name)
    return tuple(joints_of(model, int(actuator))) if actuator >= 0 else ()


def _names(model: mujoco.MjModel, joints: Sequence[int]) -> str:
    return " and ".join(repr(model.joint(joint).name) for joint in joints)


def _out_of_order(model: mujoco.MjModel, sides: Sequence[Side]) -> Iterator[str]:
    """Reports arrays with the model's names, prefixed or suffixed, in another order."""
    arrays: dict[tuple[str, str, str], list[Side]] = {}
    for side in sides:
        if side.keys and len(side.source.joints) == 1 and not _is_free(model, side):
            array = ".".join(name for name, _ in side.path)
            arrays.setdefault((side.where.split()[0], side.topic, array), []).append(side)
    for group in arrays.values():
        told = cores([side.keys[0] for side in group])
        own = cores([model.joint(side.source.joints[0]).name for side in group])
        if told == own or sorted(told) != sorted(own) or len({*own}) < len(own):
            continue
        side = next(s for s, a, b in zip(group, told, own, strict=True) if a != b)
        meant = model.joint(group[own.index(told[group.index(side)])].source.joints[0]).name
        yield (
            f"{side.where}: ros.fields: {side.field} is joint {meant!r} by its name, and "
            f"{side.source.label} is of joint {_names(model, side.source.joints)}: names and "
            "order have to be the same on both sides"
        )


def _is_free(model: mujoco.MjModel, side: Side) -> bool:
    return int(model.jnt_type[side.source.joints[0]]) in (FREE, BALL)


def _measured_elsewhere(
    model: mujoco.MjModel,
    action: ActionTerm,
    commanded: Sequence[ModelSource],
    measured: dict[str, list[ModelSource]],
) -> Iterator[str]:
    """Reports commands that are compared with the measurement of another joint."""
    if action.tracking is None or action.tracking.term not in measured:
        return
    for source, element in zip(commanded, action.measured, strict=True):
        if element is None:
            continue
        other = measured[action.tracking.term][element]
        if source.joints and other.joints and not {*source.joints} & {*other.joints}:
            yield (
                f"action term {action.name!r}: tracking: {source.label} drives joint "
                f"{_names(model, source.joints)}, and {action.tracking.term}.{element}, which "
                f"shall measure it, is {other.label} of joint {_names(model, other.joints)}; "
                "tracking.elements say which element measures which"
            )
