"""Converts messages to fields and commands to messages, along the interface's field paths.

`topic_fields.py` resolves the paths. `sim.interface.Interface.observe` makes the observation
vector of the fields, `command` the command of an action. None of them imports ROS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.messages.topic_fields import MessageError as MessageError
from mlsh_ros.messages.topic_fields import Plans
from sim.interface import (
    ActionTerm,
    Floats,
    ObservationTerm,
    Path,
    RosField,
    is_unit,
    parse_path,
)

LARGEST = float(np.finfo(np.float32).max)  # an observation is float32
LINE = 300  # characters


# What a message raises that has its type's name and other fields.
OTHER = (AttributeError, TypeError, ValueError, IndexError, OverflowError, KeyError)


def shorten(text: str) -> str:
    """Truncate a line of external text to a readable length."""
    return text if len(text) <= LINE else f"{text[: LINE - 3]}..."


class TopicReader:
    """Reads every observation term of one topic.

    Args:
        topic: its name.
        terms: that it carries.

    Raises:
        UserError: terms contradict, or the type is installed and does not have what they name.
    """

    def __init__(self, topic: str, terms: Iterable[ObservationTerm]) -> None:
        self.topic = topic
        self.terms: tuple[tuple[ObservationTerm, tuple[Path, ...]], ...] = tuple(
            (term, tuple(map(parse_path, term.ros.fields))) for term in terms
        )
        self._plans = Plans(topic, [term.ros for term, _ in self.terms])
        self.type, self.required_values = self._plans.type, self._plans.required_values
        self.names = self._plans.names

    def read(self, message: Any) -> dict[str, Floats]:
        """Returns per term (size,) in the term's unit.

        Raises:
            MessageError: an element is missing, not finite or out of range, a quaternion has not
                length 1, or the message contradicts the interface or declares a part as missing.
        """
        plan = self._plans.of(message)
        plan.check(message)
        fields = {}
        for (term, _), blocks in zip(self.terms, plan.terms, strict=True):
            values = np.empty(term.size)
            for block in blocks:
                values[block.rows] = plan.read(message, block)
            fields[term.name] = self._checked(term, values)
        return fields

    def _checked(self, term: ObservationTerm, values: Floats) -> Floats:
        if term.inf_values is not None:
            values = np.where(np.isneginf(values), term.inf_values[0], values)
            values = np.where(np.isposinf(values), term.inf_values[1], values)
        if not (np.abs(values) <= LARGEST).all():  # nan too
            what = "not a float32" if np.isfinite(values).all() else "not finite"
            raise MessageError(f"{self.topic}: {term.name} is {what}: {values.tolist()}")
        if term.derive is not None and not is_unit(values):
            raise MessageError(
                f"{self.topic}: {term.name}: quaternion {values.tolist()} has length "
                f"{np.linalg.norm(values):.4g}, not 1"
            )
        return values

    def write(self, message: Any, fields: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `read`, for a simulator that replaces the robot.

        Raises:
            MessageError: a field cannot hold its value.
        """
        plan = self._plans.of(message)
        plan.begin(message)
        for (term, _), blocks in zip(self.terms, plan.terms, strict=True):
            values = fields[term.name]
            if term.inf_values is not None:
                values = np.where(values <= term.inf_values[0], -np.inf, values)
                values = np.where(values >= term.inf_values[1], np.inf, values)
            for block in blocks:
                plan.write(message, block, values[block.rows].tolist())


def stamp_of(message: Any, topic: str) -> int:
    """Time stamp of a message, ns since 1970; 0 if it has none.

    Raises:
        MessageError: the stamp is not a valid time.
    """
    header = getattr(message, "header", None)
    if header is None:
        return 0
    sec, nanosec = header.stamp.sec, header.stamp.nanosec
    if sec < 0 or not 0 <= nanosec < 10**9:
        raise MessageError(f"{topic}: stamp is not a valid time: {sec} s and {nanosec} ns")
    return int(sec) * 10**9 + int(nanosec)


def topic_readers(terms: Iterable[ObservationTerm]) -> list[TopicReader]:
    """One reader per topic, in order of appearance.

    Raises:
        UserError: as TopicReader.
    """
    topics: dict[str, list[ObservationTerm]] = {}
    for term in terms:
        topics.setdefault(term.ros.topic, []).append(term)
    return [TopicReader(topic, group) for topic, group in topics.items()]


class CommandWriter:
    """Writes the elements of a command vector into one topic's message.

    Args:
        topic: its name.
        parts: per action term its first element in the command, the term, and its place in ROS.

    Raises:
        UserError: terms contradict, or the type is installed and does not have what they name, or
            cannot hold their limits and safe commands, or a command would have values that none of
            them gives.
    """

    def __init__(self, topic: str, parts: Sequence[tuple[int, ActionTerm, RosField]]) -> None:
        self.topic, self.frame = topic, parts[0][1].frame
        commands = [
            list(zip(zip(*term.limits, strict=True), term.safe_command, strict=True))
            for _, term, _ in parts
        ]
        self._plans = Plans(topic, [ros for *_, ros in parts], commands)
        self.type, self.required_values = self._plans.type, self._plans.required_values
        self.elements = tuple(  # index in the command, path
            (first + i, parse_path(path))
            for first, _, ros in parts
            for i, path in enumerate(ros.fields)
        )
        self.names = self._plans.names
        self._parts = [first + np.arange(term.size) for first, term, _ in parts]
        self.indices = np.concatenate(self._parts)  # (n,) of the elements in the command

    def write(self, message: Any, command: Floats) -> None:
        """Fill a message from the command vector (A,)."""
        plan = self._plans.of(message)
        plan.begin(message)
        for part, blocks in zip(self._parts, plan.terms, strict=True):
            for block in blocks:
                plan.write(message, block, command[part[block.rows]].tolist())

    def read(self, message: Any, command: Floats) -> None:
        """The inverse of `write`: fill this topic's part of a command vector (A,).

        Raises:
            MessageError: an element is missing or not finite, or the message contradicts the
                interface.
        """
        plan = self._plans.of(message)
        plan.check(message)
        for part, blocks in zip(self._parts, plan.terms, strict=True):
            for block in blocks:
                values = np.asarray(plan.read(message, block))
                if not np.isfinite(values).all():
                    odd = values[~np.isfinite(values)][0]
                    raise MessageError(f"{self.topic}: command is not finite: {odd}")
                command[part[block.rows]] = values


def command_writers(terms: Iterable[ActionTerm], *, stamped: bool = True) -> list[CommandWriter]:
    """One writer per command topic.

    Args:
        terms: the action terms in vector order.
        stamped: False turns a TwistStamped into a Twist, for bases that take no stamp.

    Raises:
        UserError: as CommandWriter.
    """
    topics: dict[str, list[tuple[int, ActionTerm, RosField]]] = {}
    start = 0
    for term in terms:
        ros = term.ros if stamped else unstamped(term.ros)
        topics.setdefault(ros.topic, []).append((start, term, ros))
        start += term.size
    return [CommandWriter(topic, parts) for topic, parts in topics.items()]


def unstamped(ros: RosField) -> RosField:
    """Converts a TwistStamped field to a Twist field; others are unchanged."""
    if ros.type != "geometry_msgs/msg/TwistStamped":
        return ros
    fields = tuple(path.removeprefix("twist.") for path in ros.fields)
    # A Twist has no header to say anything of.
    required_values = {
        path.removeprefix("twist."): value
        for path, value in ros.required_values
        if not path.startswith("header.")
    }
    return RosField(ros.topic, "geometry_msgs/msg/Twist", fields, tuple(required_values.items()))
