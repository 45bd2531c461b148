"""Laws over message types: what is written is what is read, whatever a message is made of."""

from __future__ import annotations

import importlib
import subprocess
import sys
from array import array
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mlsh_ros.messages import field_access as places
from mlsh_ros.messages import message_types as messages
from mlsh_ros.messages import topic_fields as plan
from mlsh_ros.messages.command_limits import is_safe, violation
from mlsh_ros.messages.conversion import MessageError, command_writers, topic_readers
from mlsh_ros.messages.message_types import (
    INTEGERS,
    REALS,
    TIMES,
    MessageType,
    has_package,
    message_type,
)
from sim.errors import UserError
from sim.interface import RosField, element_path, parse_path, path_text
from tests.support.terms import action_term, term

# Types as rclpy has them, made of definitions ------------------------------------------------

DEFINITIONS = {
    "control_msgs/msg/InterfaceValue": "string[] interface_names\nfloat64[] values",
    "control_msgs/msg/DynamicJointState": (
        "std_msgs/Header header\nstring[] joint_names\nInterfaceValue[] interface_values"
    ),
    "control_msgs/msg/JointJog": (
        "std_msgs/Header header\nstring[] joint_names\nfloat64[] displacements\n"
        "float64[] velocities\nfloat64 duration"
    ),
    "control_msgs/msg/MultiDOFCommand": (
        "string[] dof_names\nfloat64[] values\nfloat64[] values_dot"
    ),
    "control_msgs/msg/JointTrajectoryControllerState": (
        "std_msgs/Header header\nstring[] joint_names\n"
        "trajectory_msgs/JointTrajectoryPoint reference\n"
        "trajectory_msgs/JointTrajectoryPoint feedback"
    ),
    "own_msgs/msg/MotorCmd": "uint8 mode\nfloat32 q\nfloat32 kp\nuint32[3] reserve",
    "own_msgs/msg/IMUState": "float32[4] quaternion\nfloat32[3] gyroscope\nint8 temperature",
    "own_msgs/msg/LowCmd": "uint8[2] head\nbyte level\nMotorCmd[20] motor_cmd\nuint32 crc",
    "own_msgs/msg/LowState": "IMUState imu_state\nint16[4] foot_force\nbool on\nfloat32[<=3] few",
    "own_msgs/msg/Motors": "string[] motor_names\nfloat64[] turns\nMotorCmd[] motors",
}
STORE = get_typestore(Stores.ROS2_JAZZY)
for name, definition in DEFINITIONS.items():
    STORE.register(get_types_from_msg(definition, name))
TYPES = {
    "bool": "boolean",
    "float32": "float",
    "float64": "double",
    "byte": "octet",
    "char": "uint8",
}
CODES = {
    **{"double": "d", "float": "f", "char": "B"},
    **{"int8": "b", "uint8": "B", "int16": "h", "uint16": "H"},
    **{"int32": "i", "uint32": "I", "int64": "q", "uint64": "Q"},
}


def spelled(description) -> str:
    """A field's type as rclpy spells it."""
    kind, of = description
    if kind == Nodetype.BASE:
        return TYPES.get(of[0], of[0])
    if kind == Nodetype.NAME:
        return of.replace("/msg/", "/")
    inner, size = spelled(of[0]), of[1]
    if kind == Nodetype.ARRAY:
        return f"{inner}[{size}]"
    return f"sequence<{inner}, {size}>" if size else f"sequence<{inner}>"


class Strict:
    """A message that takes what rclpy's take, and nothing else."""

    NAME = ""

    def __init__(self) -> None:
        for field, kind in fields(self.NAME).items():
            object.__setattr__(self, field, blank(kind))

    @classmethod
    def get_fields_and_field_types(cls) -> dict[str, str]:
        return {name: spelled(of) for name, of in STORE.fielddefs[cls.NAME][1]}

    def __setattr__(self, field: str, value: Any) -> None:
        kind = fields(self.NAME)[field]
        assert not kind.array, field
        if kind.base == "boolean":
            assert isinstance(value, bool), value
        elif kind.base == "octet":
            assert isinstance(value, bytes), value
            assert len(value) == 1
        elif kind.base in INTEGERS:
            assert type(value) is int, value
            assert INTEGERS[kind.base][0] <= value <= INTEGERS[kind.base][1]
        elif kind.base in REALS:
            assert isinstance(value, float), value
        else:
            assert isinstance(value, str), value
        object.__setattr__(self, field, value)


def fields(name: str):
    return MessageType(name, made(name)).fields


def made(name: str) -> type:
    return type(name.rpartition("/")[2], (Strict,), {"NAME": name})


def full(name: str) -> str:
    return name if "/msg/" in name else name.replace("/", "/msg/")


def blank(kind):
    if not kind.array:
        if "/" in kind.base:
            return made(full(kind.base))()
        return {"boolean": False, "octet": b"\0", "string": "", "float": 0.0, "double": 0.0}.get(
            kind.base, 0
        )
    alone = replace(kind, array=False, size=None, most=None)
    filled = [blank(alone) for _ in range(kind.size or 0)]
    if kind.base in CODES:
        if kind.size is not None:
            return np.array(filled, CODES[kind.base])
        return array(CODES[kind.base], filled)
    return filled


def as_recorded(message: Strict) -> Any:
    """The same message as a recording's reader has it, after serialization."""
    recorded = STORE.types[message.NAME]
    values = {}
    for field, kind in fields(message.NAME).items():
        value = getattr(message, field)
        if "/" in kind.base:
            value = [as_part(each) for each in value] if kind.array else as_part(value)
        elif kind.base == "octet":
            value = [each[0] for each in value] if kind.array else value[0]
        elif kind.base in CODES and kind.array:
            value = np.array(value, CODES[kind.base])
        values[field] = value
    return recorded(**values)


def as_part(message: Strict) -> Any:
    return as_recorded(message)


def over_the_wire(message: Any) -> Any:
    if not isinstance(message, Strict):
        from rclpy.serialization import deserialize_message, serialize_message

        return deserialize_message(serialize_message(message), type(message))
    wire = STORE.serialize_cdr(as_recorded(message), message.NAME)
    return STORE.deserialize_cdr(wire, message.NAME)


@pytest.fixture
def known(monkeypatch):
    """Every type of the common packages, and those above, as if they were installed."""

    def found(name: str) -> MessageType | None:
        whole = full(name)
        if whole not in STORE.fielddefs:
            return None
        return MessageType(whole.replace("/msg/", "/"), made(whole))

    cache: dict[str, Any] = {}
    for module in (places, plan):
        monkeypatch.setattr(module, "message_type", lambda n: cache.setdefault(n, found(n)))


# What is written is read ---------------------------------------------------------------------

PACKAGES = ("std_msgs", "geometry_msgs", "nav_msgs", "sensor_msgs", "diagnostic_msgs")
NAMED = ("2", "arm.j1", 'left "arm"/j[0]')


@dataclass(frozen=True)
class Leaf:
    path: str
    base: str


def leaves(kind: MessageType, depth: int = 0, outside: tuple[str, ...] = ()) -> list[Leaf]:
    """Every number in a message.

    Of its arrays two elements or as many as have names; of a fixed array of numbers all.
    """
    found = []
    named = any(
        field in places.NAMES and of.array and of.text for field, of in kind.fields.items()
    )
    for field, of in kind.fields.items():
        if of.text or (of.array and of.most == 0):
            continue
        keys: tuple[str | None, ...] = (None,)
        if of.array:
            most = of.size or of.most or 2
            keys = NAMED if named and of.size is None else tuple({"0", str(most - 1)})
            keys = tuple(map(str, range(most))) if of.size and of.number else keys
        for key in keys:
            path = field if key is None else element_path(field, key)
            if "/" in of.base and of.base not in TIMES:
                inner = message_type(of.base)
                if inner is None:
                    continue
                found += [Leaf(f"{path}.{leaf.path}", leaf.base) for leaf in leaves(inner)]
            else:
                found.append(Leaf(path, of.base))
    return found


def installed() -> list[str]:
    """Types with a number in them."""
    return [
        f"{package}/msg/{name}"
        for package in PACKAGES
        if has_package(package)
        for name in dir(importlib.import_module(f"{package}.msg"))
        if name[0].isupper() and leaves(message_type(f"{package}/{name}"))
    ]


def values_for(leaf: Leaf, rng: np.random.Generator) -> float:
    if leaf.base in INTEGERS:
        low, high = (max(min(v, 2**53), -(2**53)) for v in INTEGERS[leaf.base])
        return float(rng.choice([low, high, rng.integers(low, high, endpoint=True)]))
    if leaf.base in TIMES:
        return float(rng.integers(0, 2**20)) + 0.25
    return float(np.float32(rng.normal() * 10.0 ** rng.integers(-3, 4)))


@pytest.mark.parametrize("kind", installed())
def test_every_number_of_every_installed_message_is_read_as_it_was_written(kind):
    found = message_type(kind)
    numbers = leaves(found)
    rng = np.random.default_rng(len(kind))
    values = np.array([values_for(leaf, rng) for leaf in numbers])
    (reader,) = topic_readers([term("x", "topic", kind, [leaf.path for leaf in numbers])])
    message = found.make()
    reader.write(message, {"x": values})
    np.testing.assert_array_equal(reader.read(over_the_wire(message))["x"], values)
    reader.write(message, {"x": values[::-1] * 0})  # a message that is used again
    assert not reader.read(over_the_wire(message))["x"].any()


@pytest.mark.parametrize("kind", installed())
def test_every_number_of_every_installed_message_can_be_commanded(kind):
    found = message_type(kind)
    fit = leaves(found)
    action = replace(action_term("x", "t", kind, [leaf.path for leaf in fit]), limit=(0.0, 1.0))
    (writer,) = command_writers([action])
    message = found.make()
    for start in (0, 1):
        command = np.arange(start, start + len(fit)) % 2.0
        writer.write(message, command)
        back = np.full(len(fit), np.nan)
        writer.read(over_the_wire(message), back)
        np.testing.assert_array_equal(back, command)


# Names ---------------------------------------------------------------------------------------

JOINT_STATE = "sensor_msgs/msg/JointState"
ALPHABET = [*"ab19._-/ []\"'\\:,", "é", "腕", "0", "\N{GREEK SMALL LETTER ALPHA}"]


def any_names(rng: np.random.Generator, count: int) -> list[str]:
    """Different names, of digits, dots, spaces, brackets, quotes and letters of any script."""
    names: set[str] = set()
    while len(names) < count:
        names.add("".join(rng.choice(ALPHABET, rng.integers(1, 8))))
    return sorted(names, key=lambda _: rng.random())


@pytest.mark.parametrize("seed", range(100))
def test_joints_of_any_name_in_any_order_keep_their_values(seed):
    rng = np.random.default_rng(seed)
    names = any_names(rng, int(rng.integers(1, 7)))
    paths = [element_path("position", name) for name in names]
    assert [parse_path(path) for path in paths] == [(("position", name),) for name in names]
    (reader,) = topic_readers([term("x", "joint_states", JOINT_STATE, paths)])
    values = np.arange(1.0, len(names) + 1)
    order = rng.permutation(len(names)).tolist()
    kind = message_type(JOINT_STATE)
    make = SimpleNamespace if kind is None else kind.make
    said = make(name=[names[i] for i in order], position=[values[i] for i in order])
    np.testing.assert_array_equal(reader.read(said)["x"], values)
    stranger = "x" * 13
    more = make(name=[stranger, *said.name], position=[99.0, *said.position])
    np.testing.assert_array_equal(reader.read(more)["x"], values)
    for wrong in (
        make(name=[*said.name, names[0]], position=[*said.position, 0.0]),  # twice
        make(name=[stranger, *said.name[1:]], position=said.position),  # missing
        make(name=said.name, position=[*said.position, 0.0]),  # one too many
    ):
        with pytest.raises(MessageError, match="joint_states: position"):
            reader.read(wrong)
    (writer,) = command_writers([action_term("x", "c", JOINT_STATE, paths)])
    told = make() if kind else SimpleNamespace(name=[], position=[])
    writer.write(told, values / 10)
    assert list(told.name) == names
    assert list(told.position) == (values / 10).tolist()


def test_joints_named_by_numbers_are_names():
    paths = ["position[1]", "position[2]", "position[3]"]
    (reader,) = topic_readers([term("x", "joint_states", JOINT_STATE, paths)])

    def state(names, position):
        return SimpleNamespace(name=names, position=position)

    for names in (["1", "2", "3", "gripper"], ["3", "2", "1", "jaw"], ["2", "3", "1"]):
        values = {"1": 0.1, "2": 0.2, "3": 0.3}
        message = state(names, [values.get(name, 0.9) for name in names])
        assert reader.read(message)["x"].tolist() == [0.1, 0.2, 0.3]
    with pytest.raises(MessageError, match=r"position\[1\]: no '1' in name \['a', 'b', 'c'\]"):
        reader.read(state(["a", "b", "c"], [0.1, 0.2, 0.3]))
    (writer,) = command_writers([action_term("x", "c", JOINT_STATE, paths)])
    told = state([], [])
    writer.write(told, np.array([0.1, 0.2, 0.3]))
    assert (told.name, told.position) == (["1", "2", "3"], [0.1, 0.2, 0.3])


@pytest.mark.parametrize("seed", range(100))
def test_a_path_survives_being_written(seed):
    one, other = any_names(np.random.default_rng(seed), 2)
    path = (("a", one), ("b", None), ("c", other))
    assert parse_path(path_text(path)) == path
    assert path_text(parse_path(path_text(path))) == path_text(path)
    ros = RosField("t", "a/msg/A", (f"a.{path_text(path)}",), ())
    assert ros.fields == (f"a.{path_text(path)}",)


# Messages of controllers and of robots' own ---------------------------------------------------

COMMANDS = {
    "trajectory": (
        "trajectory_msgs/msg/JointTrajectory",
        ["points[0].positions[2]", "points[0].positions[1]", "points[0].velocities[1]"],
        {"points[0].time_from_start": 0.05, "points[0].velocities[2]": 0.7},
        lambda m: (m.joint_names, m.points[0].positions.tolist(), m.points[0].velocities.tolist()),
        (["2", "1"], [0.1, 0.2], [0.7, 0.3]),
    ),
    "time in parts": (
        "trajectory_msgs/msg/JointTrajectory",
        ["points[0].positions[a]"],
        {"points[0].time_from_start.nanosec": 50_000_000, "joint_names[0]": "a"},
        lambda m: (m.joint_names, m.points[0].time_from_start.nanosec),
        (["a"], 50_000_000),
    ),
    "joint jog": (
        "control_msgs/msg/JointJog",
        ["velocities[2]", "velocities[1]"],
        {"duration": 0.1},
        lambda m: (m.joint_names, list(m.velocities), m.duration),
        (["2", "1"], [0.1, 0.2], 0.1),
    ),
    "dofs": (
        "control_msgs/msg/MultiDOFCommand",
        ["values[x]", "values_dot[x]", "values[y]"],
        {"values_dot[y]": 0.5},
        lambda m: (m.dof_names, list(m.values), list(m.values_dot)),
        (["x", "y"], [0.1, 0.3], [0.2, 0.5]),
    ),
    "interfaces": (
        "control_msgs/msg/DynamicJointState",
        [
            "interface_values[b].values[position]",
            "interface_values[a].values[velocity]",
            "interface_values[a].values[position]",
        ],
        {},
        lambda m: (m.joint_names, [v.interface_names for v in m.interface_values]),
        (["b", "a"], [["position"], ["velocity", "position"]]),
    ),
    "motors": (
        "own_msgs/msg/LowCmd",
        ["motor_cmd[3].q", "motor_cmd[11].q"],
        {"motor_cmd[3].mode": 1, "motor_cmd[3].kp": 40.0, "head[0]": 254, "level": 3},
        lambda m: (m.motor_cmd[3].mode, m.motor_cmd[3].kp, m.head.tolist(), m.level),
        (1, 40.0, [254, 0], b"\3"),
    ),
    "names of one's own": (
        "own_msgs/msg/Motors",
        ["turns[1]", "turns[0]", "motors[0].q"],
        {"motors[1].q": 0.5},
        lambda m: (m.motor_names, m.turns.tolist(), [x.q for x in m.motors]),
        (["1", "0"], [0.1, 0.2], [0.5, 0.3]),
    ),
    "integers": (
        "std_msgs/msg/UInt16MultiArray",
        ["data[0]", "data[1]"],
        {"layout.dim[0].size": 2, "layout.dim[0].label": "x"},
        lambda m: (m.data.tolist(), m.layout.dim[0].size),
        ([0, 0], 2),
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_is_what_the_type_wants_and_comes_back(known, case):
    kind, paths, required_values, shown, expected = COMMANDS[case]
    action = action_term("x", "topic", kind, paths)
    names = "motor_names" if "Motors" in kind else None
    ros = replace(action.ros, required_values=tuple(required_values.items()), names=names)
    limit = (0.0, 9.0) if case == "integers" else (-1.0, 1.0)
    action = replace(action, ros=ros, limit=limit)
    (writer,) = command_writers([action])
    message = made(kind)()
    command = np.round(np.arange(1, len(paths) + 1) / 10, 12)
    for _ in range(2):  # the same message in every tick
        writer.write(message, command)
    got = shown(message)
    assert got == expected
    back = np.zeros(len(paths))
    writer.read(over_the_wire(message), back)
    want = np.round(command) if case == "integers" else command
    np.testing.assert_allclose(back, want, rtol=1e-7)
    back[:] = 0
    writer.read(message, back)
    np.testing.assert_allclose(back, want, rtol=1e-7)


def test_a_measured_trajectory_is_read_by_name(known):
    kind = "control_msgs/msg/JointTrajectoryControllerState"
    (reader,) = topic_readers([term("x", "s", kind, ["feedback.positions[2]"])])
    message = made(kind)()
    message.joint_names.extend(["2", "0"])
    message.feedback.positions.extend([0.25, 0.5])
    assert reader.read(message)["x"].tolist() == [0.25]
    assert reader.read(over_the_wire(message))["x"].tolist() == [0.25]


def test_a_quaternion_may_be_an_array(known):
    paths = [f"imu_state.quaternion[{i}]" for i in range(4)]
    kind = "own_msgs/msg/LowState"
    observation = replace(term("tilt", "low", kind, paths), derive="tilt", unit="rad")
    (reader,) = topic_readers([observation])
    message = made(kind)()
    half = np.deg2rad(15)
    reader.write(message, {"tilt": np.array([np.cos(half), np.sin(half), 0, 0])})
    shown = observation.values(reader.read(over_the_wire(message))["tilt"])
    np.testing.assert_allclose(shown, np.deg2rad(30), atol=1e-6)
    with pytest.raises(ValueError, match="needs w, x, y, z of one quaternion"):
        replace(term("tilt", "low", kind, paths[:3] + paths[:1]), derive="tilt", unit="rad")


REFUSED = [
    (JOINT_STATE, ["positions[a]"], {}, "has no field 'positions'. Did you mean 'position'?"),
    (JOINT_STATE, ["position"], {}, r"position: it is an array, position\[..\] is an element"),
    (
        JOINT_STATE,
        ["header.stamp[0]"],
        {},
        "std_msgs/Header.stamp is a builtin_interfaces/Time, no",
    ),
    (JOINT_STATE, ["header.frame_id"], {}, "header.frame_id: it is a string, not a number"),
    (
        "nav_msgs/msg/Odometry",
        ["pose.pose"],
        {},
        "is a geometry_msgs/Pose, not a number: it has pos",
    ),
    ("nav_msgs/msg/Odometry", ["pose.covariance[36]"], {}, "covariance has 36 elements"),
    ("std_msgs/msg/Float64", ["data.x"], {}, "data is a double, no message"),
    ("std_msgs/msg/Float64MultiArray", ["data[a]"], {}, "no array of names stands beside data"),
    (
        "std_msgs/msg/Float64MultiArray",
        ["data[0]", "data[2]"],
        {},
        r"data\[1\] has no value",
    ),
    (
        "std_msgs/msg/UInt8",
        ["data"],
        {},
        r"data: it is a uint8, 0 to 255: limit -1 to 1 exceeds it",
    ),
    ("std_msgs/msg/Bool", ["data"], {}, r"it is a boolean, 0 to 1: limit -1 to 1 exceeds it"),
    ("own_msgs/msg/LowCmd", ["crc"], {}, "it is a uint32"),
    ("own_msgs/msg/LowCmd", ["motor_cmd[20].q"], {}, "motor_cmd has 20 elements"),
    ("std_msgs/msg/Float64MultiArray", ["data[999999999]"], {}, "has 100000 elements at most"),
    (
        "own_msgs/msg/LowCmd",
        ["motor_cmd[0].q"],
        {"crc": 0.5},
        "crc: 0.5 is not of type uint32, a whole num",
    ),
    ("own_msgs/msg/LowCmd", ["motor_cmd[0].q"], {"level": 256}, "level: 256 is not of type octet"),
    ("own_msgs/msg/LowCmd", ["motor_cmd[0].q"], {"level": "a"}, "level: 'a' is not of type octet"),
    (
        JOINT_STATE,
        ["effort[a]"],
        {"header.frame_id": 1.0},
        "header.frame_id: 1.0 is not of type string",
    ),
    ("own_msgs/msg/Motors", ["turns[a]"], {}, r"no array of names .*\(`names` in robot.yaml"),
    (
        "trajectory_msgs/msg/JointTrajectory",
        ["points[0].positions[0]"],
        {"joint_names[0]": "shoulder"},
        r"'0' is not one of the names that required_values gives joint_names: \['shoulder'\]",
    ),
    (
        "trajectory_msgs/msg/JointTrajectory",
        ["points[a].positions[a]"],
        {},
        "'a' has to be an index",
    ),
]


@pytest.mark.parametrize(("kind", "paths", "required_values", "reason"), REFUSED)
def test_what_a_type_does_not_have_is_refused_before_the_first_message(
    known, kind, paths, required_values, reason
):
    action = action_term("x", "topic", kind, paths)
    with pytest.raises(UserError, match=rf"(?s)^topic topic: .*{reason}"):
        command_writers(
            [
                replace(
                    action, ros=replace(action.ros, required_values=tuple(required_values.items()))
                )
            ]
        )


def test_a_range_of_whole_numbers_that_says_one_thing_only_is_refused(known):
    action = replace(action_term("x", "t", "std_msgs/msg/Int32", ["data"]), limit=(-0.3, 0.3))
    with pytest.raises(UserError, match=r"it is a .*, which can represent only 0 of limit"):
        command_writers([action])


AB, FOUR = ["a", "b", "c"], ["0", "1", "2", "3"]
ARRAYS: dict[str, tuple[str, list[tuple[str, list[str]]]]] = {  # array of names; arrays, keys
    JOINT_STATE: ("name", [("position", AB), ("velocity", AB), ("effort", AB)]),
    "control_msgs/msg/MultiDOFCommand": ("dof_names", [("values", AB), ("values_dot", AB)]),
    "trajectory_msgs/msg/JointTrajectory": (
        "joint_names",
        [("points[0].positions", AB), ("points[0].velocities", AB)],
    ),
    "control_msgs/msg/DynamicJointState": (
        "joint_names",
        [("interface_values[a].values", AB), ("interface_values[b].values", AB)],
    ),
    "std_msgs/msg/Float64MultiArray": ("", [("data", FOUR)]),
    "own_msgs/msg/LowState": ("", [("foot_force", FOUR), ("few", FOUR[:3])]),
    "own_msgs/msg/IMUState": ("", [("quaternion", FOUR)]),
}


def arrays_in(message: Strict):
    """Every array of numbers in a message."""
    for field, kind in fields(message.NAME).items():
        value = getattr(message, field)
        if "/" in kind.base:
            for each in value if kind.array else [value]:
                yield from arrays_in(each)
        elif kind.array and kind.base in CODES:
            yield list(value)


def some_elements(rng: np.random.Generator, kind: str) -> dict[str, bool]:
    """Paths of elements; of each array none, all or some; true for those that a term writes."""
    chosen = {}
    for array_, keys in ARRAYS[kind][1]:
        share, commanded = rng.choice([0.0, 0.5, 0.9, 1.0, 1.0]), rng.choice([0.0, 0.7, 1.0])
        for key in rng.permutation(keys):
            if rng.random() < share:
                chosen[element_path(array_, str(key))] = bool(rng.random() < commanded)
    return chosen


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_command_has_no_number_that_nobody_gave(known, monkeypatch, kind):
    """Law: what is accepted is written without a zero; what is refused would have one, or fails.

    All given values are 1 or more. An array that nobody writes is empty, or zeros where its size
    is fixed, and a required value alone leaves a fixed array as its type has it.
    """
    rng, outcomes = np.random.default_rng(57), []
    for _ in range(150):
        elements = some_elements(rng, kind)
        required = {path: 1.0 for path, commanded in elements.items() if not commanded}
        paths = [path for path, commanded in elements.items() if commanded]
        if not paths:
            continue
        named = ARRAYS[kind][0]
        if named and rng.random() < 0.3:
            steps = [step for path in elements for step in parse_path(path)]
            outer = "interface_values" if "Dynamic" in kind else None
            listed = sorted({k for f, k in steps if k in AB and outer in (None, f)})
            listed += ["gripper"] * int(rng.integers(2)) if outer is None else []
            required |= {f"{named}[{i}]": name for i, name in enumerate(listed)}
        cut = int(rng.integers(len(paths)))
        terms = [
            replace(
                action_term(name, "topic", kind, part),
                limit=(0.0, 20.0),
                ros=RosField("topic", kind, tuple(part), tuple(required.items())),
            )
            for name, part in (("x", paths[:cut]), ("y", paths[cut:]))
            if part
        ]
        refusal = ""
        try:
            command_writers(terms)
        except UserError as error:
            refusal = str(error)
        assert "\n" not in refusal
        message = made(kind)()
        with monkeypatch.context() as unchecked:
            unchecked.setattr(plan.Plans, "_check_gaps", lambda *_: None, raising=False)
            try:
                (writer,) = command_writers(terms)
                writer.write(message, np.arange(1.0, len(paths) + 1))
                writer.read(over_the_wire(message), np.zeros(len(paths)))
                whole = all(all(each) for each in arrays_in(message) if any(each))
            except (UserError, MessageError):
                whole = False
        if kind == "own_msgs/msg/LowState" and not any("foot" in path for path in paths):
            whole = not refusal  # of required values only
        assert (not refusal) == whole, (paths, required, refusal, [*arrays_in(message)])
        outcomes.append(whole)
    assert sum(outcomes) > 10
    assert sum(outcomes) < len(outcomes) - 10 or "Dynamic" in kind  # whose names are of one array


@pytest.mark.parametrize("kind", ["Int32", "Int8", "UInt8", "Bool", "Float32", "Float64"])
def test_a_command_within_its_limits_is_so_when_it_is_sent_and_rest_stays_rest(known, kind):
    """Law: what watchdog_node hears of a command that is within its limits is within them too.

    And it hears the safe command as rest, or skill_node's stop would end in its trip.
    """
    rng, accepted, refused = np.random.default_rng(58), 0, 0
    for _ in range(150):
        numbers = [0.0, 0.5, 1.0] if kind == "Bool" else np.arange(-12, 13) / rng.choice([1, 4])
        low, safe, high = np.sort(rng.choice(numbers, 3)).tolist()
        if low == high:
            continue
        action = action_term("x", "t", f"std_msgs/msg/{kind}", ["data"])
        action = replace(action, limit=(low, high), safe_command=(safe,))
        try:
            (writer,) = command_writers([action])
        except UserError:
            refused += 1
            continue
        accepted += 1
        contract = SimpleNamespace(
            limits=(np.array([low]), np.array([high])),
            safe_command=np.array([safe]),
            action_names=["x.0"],
        )
        for command in [safe, low, high, *rng.uniform(low, high, 20)]:
            message, heard = made(f"std_msgs/msg/{kind}")(), np.full(1, np.nan)
            writer.write(message, np.array([command]))
            writer.read(over_the_wire(message), heard)
            assert violation(contract, heard) == "", (low, safe, high)
            assert is_safe(contract, heard) or command != safe, (low, safe, high)
    assert accepted > 5, "nothing is left to command"
    assert not (refused and kind.startswith("Float"))


@pytest.mark.parametrize(
    ("limit", "safe", "reason"),
    [
        (
            (-2.0, 2.0),
            0.4,
            "safe_command 0.4 would be sent as 0, which is not at rest; valid: -2 to 2",
        ),
        ((0.0, 2.6), 0.0, "limit 0 to 2.6 would be rounded; valid: whole numbers, such as 0 to 2"),
        ((0.25, 0.75), 0.5, "which can represent nothing of limit 0.25 to 0.75"),
    ],
)
def test_an_integer_names_the_number_that_it_would_round(known, limit, safe, reason):
    action = action_term("x", "t", "std_msgs/msg/Int32", ["data"])
    with pytest.raises(UserError, match=rf"^topic t: data: it is a int32, .*{reason}$"):
        command_writers([replace(action, limit=limit, safe_command=(safe,))])


def test_a_value_that_a_field_cannot_hold_is_named(known):
    (reader,) = topic_readers([term("x", "t", "std_msgs/msg/UInt8", ["data"])])
    message = made("std_msgs/msg/UInt8")()
    for value in (256.0, -1.0, np.nan):
        with pytest.raises(MessageError, match="t: data: "):
            reader.write(message, {"x": np.array([value])})


def test_names_of_ones_own_that_are_not_there_are_refused(known):
    action = action_term("x", "topic", JOINT_STATE, ["position[a]"])
    with pytest.raises(UserError, match="no array of names stands beside position"):
        command_writers([replace(action, ros=replace(action.ros, names="joints"))])


# Nothing else is imported ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["this/msg/Zen", "antigravity/msg/A", "os/msg/A", "numpy/msg/A", "sim/msg/A", "no_such/msg/A"],
)
def test_a_package_that_is_not_of_messages_is_never_imported(kind):
    package = kind.partition("/")[0]
    code = (
        "import sys\nfrom mlsh_ros.messages.message_types import has_package, message_type\n"
        "before = set(sys.modules)\n"
        f"assert message_type({kind!r}) is None and not has_package({kind!r})\n"
        "new = set(sys.modules) - before\n"
        f"assert not [n for n in new if n.partition('.')[0] == {package!r}]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_a_package_with_a_module_msg_is_not_enough(tmp_path, monkeypatch):
    (tmp_path / "trap" / "msg").mkdir(parents=True)
    (tmp_path / "trap" / "__init__.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "trap" / "msg" / "__init__.py").write_text("class A: pass")
    monkeypatch.syspath_prepend(tmp_path)
    assert messages.message_type("trap/msg/A") is None


def test_a_message_that_its_package_does_not_have_is_none():
    assert has_package("std_msgs/msg/Bool")
    assert message_type("std_msgs/msg/Bool") is not None
    for name in ("Bol", "__builtins__", "sys"):
        assert message_type(f"std_msgs/msg/{name}") is None


def test_a_constant_of_whole_numbers_is_exact(known):
    action = action_term("x", "t", "own_msgs/msg/LowCmd", ["motor_cmd[0].q"])
    ros = replace(action.ros, required_values=(("crc", 1_000_000.0),))
    (writer,) = command_writers([replace(action, ros=ros)])
    message = made("own_msgs/msg/LowCmd")()
    writer.write(message, np.array([0.5]))
    back = np.zeros(1)
    writer.read(over_the_wire(message), back)
    message.crc += 1  # less than a ten thousandth
    for said in (message, over_the_wire(message)):
        with pytest.raises(MessageError, match=r"t: crc is \D*1000001\)?, not 1000000.0"):
            writer.read(said, back)
