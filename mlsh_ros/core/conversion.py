"""Messages to fields and commands to messages, by the paths that the interface names.

Paths (`sim.interface.RosField`): `a.b`, `a[3].b`, or `a[joint]`, which looks `joint` up in the
message's own `name` array. This file touches attributes only and imports no ROS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError
from sim.interface import (
    ActionTerm,
    Floats,
    ObservationTerm,
    RosField,
    is_unit,
    same_constant,
)

_STEP = re.compile(r"([A-Za-z_]\w*)(?:\[([^\]]+)\])?$")
Step = tuple[str, str | None]
Constants = tuple[tuple[tuple[Step, ...], float | str], ...]  # what a message says of itself
LARGEST = float(np.finfo(np.float32).max)  # an observation is float32
LINE = 300  # characters
# Parts that an Imu may lack, which element 0 of their covariance says with -1, by its definition.
IMU, LACKING = "sensor_msgs/msg/Imu", -1.0
PARTS = ("orientation", "angular_velocity", "linear_acceleration")


class MessageError(ValueError):
    """A message does not hold what the interface says; it is not used."""


def shorten(text: str) -> str:
    """A line that holds what strangers have sent, no longer than a person reads."""
    return text if len(text) <= LINE else f"{text[: LINE - 3]}..."


@dataclass(frozen=True)
class TopicReader:
    """Reads every observation term that one topic carries."""

    topic: str
    type: str
    terms: tuple[tuple[ObservationTerm, tuple[tuple[Step, ...], ...]], ...]  # paths of elements
    constants: Constants
    covariances: tuple[tuple[Step, ...], ...]  # where the message says that it lacks a part

    def read(self, message: Any) -> dict[str, Floats]:
        """Per term (size,) in the term's unit.

        Raises:
            MessageError: an element is missing, not finite or beyond what a policy can read, a
                quaternion is none, or the message says of itself something else than the
                interface, or that it lacks a part.
        """
        _check_constants(message, self.constants, self.topic)
        for path in self.covariances:
            if _get(message, path, self.topic) == LACKING:
                part = path[0][0].removesuffix("_covariance")
                raise MessageError(f"{self.topic}: {_text(path)} is -1: it has no {part}")
        fields = {}
        for term, paths in self.terms:
            values = np.array([_get(message, path, self.topic) for path in paths], np.float64)
            if term.infinite is not None:
                values = np.where(np.isneginf(values), term.infinite[0], values)
                values = np.where(np.isposinf(values), term.infinite[1], values)
            if not (np.abs(values) <= LARGEST).all():  # nan too
                what = "no float32" if np.isfinite(values).all() else "not finite"
                raise MessageError(f"{self.topic}: {term.name} is {what}: {values.tolist()}")
            if term.derive is not None and not is_unit(values):
                raise MessageError(
                    f"{self.topic}: {term.name}: quaternion {values.tolist()} has length "
                    f"{np.linalg.norm(values):.4g}, not 1"
                )
            fields[term.name] = values
        return fields

    def write(self, message: Any, fields: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `read`, for a simulator that plays the robot."""
        _name_joints(message, chain(*(paths for _, paths in self.terms), _paths(self.constants)))
        _set_constants(message, self.constants)
        for term, paths in self.terms:
            values = fields[term.name]
            if term.infinite is not None:
                values = np.where(values <= term.infinite[0], -np.inf, values)
                values = np.where(values >= term.infinite[1], np.inf, values)
            for path, value in zip(paths, values.tolist(), strict=True):
                _set(message, path, value)


def stamp_of(message: Any, topic: str) -> int:
    """When a message was made, ns since 1970; 0 if it does not say.

    Raises:
        MessageError: what it says is no time.
    """
    header = getattr(message, "header", None)
    if header is None:
        return 0
    sec, nanosec = header.stamp.sec, header.stamp.nanosec
    if sec < 0 or not 0 <= nanosec < 10**9:
        raise MessageError(f"{topic}: stamp is no time: {sec} s and {nanosec} ns")
    return int(sec) * 10**9 + int(nanosec)


def topic_readers(terms: Iterable[ObservationTerm]) -> list[TopicReader]:
    """One reader per topic, in order of appearance.

    Raises:
        UserError: a malformed path, or one topic with two message types.
    """
    topics: dict[str, list[ObservationTerm]] = {}
    for term in terms:
        topics.setdefault(term.ros.topic, []).append(term)
    readers = []
    for topic, group in topics.items():
        kind = _one_type(topic, [term.ros.type for term in group])
        paths = tuple((t, tuple(parse_path(p) for p in t.ros.fields)) for t in group)
        constants = _constants(topic, [t.ros for t in group])
        readers.append(TopicReader(topic, kind, paths, constants, _covariances(kind, paths)))
    return readers


def _one_type(topic: str, types: list[str]) -> str:
    if len(different := sorted(set(types))) > 1:
        raise UserError(f"topic {topic!r} is given two message types: {', '.join(different)}")
    return types[0]


def _constants(topic: str, sources: Iterable[RosField]) -> Constants:
    """What all terms of a topic say of its message, parsed.

    Raises:
        UserError: two of them say different things, or a malformed path.
    """
    merged: dict[str, float | str] = {}
    for path, value in (pair for ros in sources for pair in ros.constants):
        if merged.setdefault(path, value) != value:
            raise UserError(f"topic {topic!r} is given {path} {merged[path]!r} and {value!r}")
    return tuple((parse_path(path), value) for path, value in merged.items())


def _paths(constants: Constants) -> Iterable[tuple[Step, ...]]:
    return (path for path, _ in constants)


def _covariances(
    kind: str, terms: Iterable[tuple[ObservationTerm, tuple[tuple[Step, ...], ...]]]
) -> tuple[tuple[Step, ...], ...]:
    if kind != IMU:
        return ()
    used = {path[0][0] for _, paths in terms for path in paths}
    return tuple(((f"{part}_covariance", "0"),) for part in PARTS if part in used)


def _set_constants(message: Any, constants: Constants) -> None:
    for path, value in constants:
        _set(message, path, value)


def _check_constants(message: Any, constants: Constants, topic: str) -> None:
    for path, expected in constants:
        value = _find(message, path, topic)
        if not same_constant(value, expected):
            raise MessageError(f"{topic}: {_text(path)} is {value!r}, not {expected!r}")


@dataclass(frozen=True)
class CommandWriter:
    """Writes the elements of a command vector into one topic's message."""

    topic: str
    type: str
    frame: str
    elements: tuple[tuple[int, tuple[Step, ...]], ...]  # index in the command, path
    constants: Constants

    def write(self, message: Any, command: Floats) -> None:
        """Fill a message from the command vector (A,)."""
        _name_joints(message, chain((p for _, p in self.elements), _paths(self.constants)))
        _set_constants(message, self.constants)
        for index, path in self.elements:
            _set(message, path, float(command[index]))

    def read(self, message: Any, command: Floats) -> None:
        """The inverse of `write`: fill this topic's part of a command vector (A,).

        Raises:
            MessageError: an element is missing or not finite, or the message says of itself
                something else than the interface.
        """
        _check_constants(message, self.constants, self.topic)
        for index, path in self.elements:
            value = _get(message, path, self.topic)
            if not np.isfinite(value):
                raise MessageError(f"{self.topic}: command is not finite: {value}")
            command[index] = value


def command_writers(terms: Iterable[ActionTerm], *, stamped: bool = True) -> list[CommandWriter]:
    """One writer per command topic.

    Args:
        terms: the action terms in vector order.
        stamped: False turns a TwistStamped into a Twist, for bases that take no stamp.

    Raises:
        UserError: a malformed path, or one topic with two message types.
    """
    topics: dict[str, list[tuple[int, RosField, str]]] = {}
    start = 0
    for term in terms:
        ros = term.ros if stamped else unstamped(term.ros)
        topics.setdefault(ros.topic, []).append((start, ros, term.frame))
        start += term.size
    writers = []
    for topic, group in topics.items():
        kind = _one_type(topic, [ros.type for _, ros, _ in group])
        elements = tuple(
            (first + i, parse_path(path))
            for first, ros, _ in group
            for i, path in enumerate(ros.fields)
        )
        constants = _constants(topic, [ros for _, ros, _ in group])
        writers.append(CommandWriter(topic, kind, group[0][2], elements, constants))
    return writers


def unstamped(ros: RosField) -> RosField:
    """A TwistStamped field as a Twist field; anything else as it is."""
    if ros.type != "geometry_msgs/msg/TwistStamped":
        return ros
    fields = tuple(path.removeprefix("twist.") for path in ros.fields)
    # A Twist has no header to say anything of.
    constants = {
        path.removeprefix("twist."): value
        for path, value in ros.constants
        if not path.startswith("header.")
    }
    return RosField(ros.topic, "geometry_msgs/msg/Twist", fields, tuple(constants.items()))


def parse_path(path: str) -> tuple[Step, ...]:
    """`poses[1].position.x` to steps (name, index or None).

    Raises:
        UserError: the path is malformed.
    """
    steps = []
    for part in path.split("."):
        match = _STEP.match(part)
        if match is None:
            raise UserError(f"message path {path!r}: {part!r} is neither `name` nor `name[index]`")
        steps.append((match[1], match[2]))
    return tuple(steps)


def _find(message: Any, path: tuple[Step, ...], topic: str) -> Any:
    value = message
    try:
        for name, index in path:
            owner, value = value, getattr(value, name)
            if index is not None:
                value = value[_position(owner, index, value)]
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise MessageError(f"{topic}: {_text(path)}: {error}") from None
    return value


def _get(message: Any, path: tuple[Step, ...], topic: str) -> float:
    value = _find(message, path, topic)
    try:
        if isinstance(value, (str, bytes)):  # float() would read digits out of it
            raise TypeError(f"{type(value).__name__} is not a number")
        return float(value)
    except (TypeError, ValueError) as error:
        raise MessageError(f"{topic}: {_text(path)}: {error}") from None


def _set(message: Any, path: tuple[Step, ...], value: float | str) -> None:
    *parents, (last, last_index) = path
    owner = _owner(message, parents)
    if last_index is None:
        setattr(owner, last, value)
    elif last_index.isdigit():
        _grow(getattr(owner, last), int(last_index), float)
        getattr(owner, last)[int(last_index)] = value
    else:
        names = list(owner.name)
        _grow(getattr(owner, last), len(names) - 1, float)
        getattr(owner, last)[names.index(last_index)] = value


def _owner(message: Any, parents: Iterable[Step]) -> Any:
    for name, index in parents:
        child = getattr(message, name)
        message = child if index is None else _element(message, name, int(index))
    return message


def _name_joints(message: Any, paths: Iterable[tuple[Step, ...]]) -> None:
    """Every joint before the first value: `name` and the arrays that go with it are as long."""
    for *parents, (_, index) in paths:
        if index is not None and not index.isdigit():
            owner = _owner(message, parents)
            if index not in owner.name:
                owner.name.append(index)


def _element(owner: Any, name: str, index: int) -> Any:
    """Element `index` of an array of messages, made if it is not there yet."""
    array = getattr(owner, name)
    kind = owner.get_fields_and_field_types()[name]  # sequence<geometry_msgs/Pose>
    package, _, message = re.sub(r"^sequence<(.*?)(, \d+)?>$", r"\1", kind).partition("/")
    _grow(array, index, partial(_make, package, message))
    return array[index]


def _make(package: str, message: str) -> Any:
    from importlib import import_module

    return getattr(import_module(f"{package}.msg"), message)()


def _grow(array: Any, index: int, make: Callable[[], Any]) -> None:
    while len(array) <= index:
        array.append(make())


def _position(owner: Any, index: str, array: Any) -> int:
    if index.isdigit():
        return int(index)
    names = list(owner.name)
    if index not in names:
        raise ValueError(f"no {index!r} in name {names}")
    # Whose value it is, is sure only then (sensor_msgs/JointState).
    if len(array) != len(names):
        raise ValueError(f"{len(array)} values for {len(names)} names")
    if names.count(index) > 1:
        raise ValueError(f"{index!r} stands {names.count(index)} times in name {names}")
    return names.index(index)


def _text(path: tuple[Step, ...]) -> str:
    return ".".join(name if index is None else f"{name}[{index}]" for name, index in path)
