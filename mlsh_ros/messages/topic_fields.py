"""Extracts the values of one topic; field paths are resolved once per message class.

If the type is installed, all paths are resolved and checked before the first message. Messages of
a recording have no installed type; their paths are resolved with the first message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from numbers import Integral
from typing import Any

from mlsh_ros.messages.field_access import Block, Found, Hop, Known, blocks, made_out, text
from mlsh_ros.messages.field_values import check_number, check_value, number
from mlsh_ros.messages.message_types import MessageType, message_type
from sim.errors import UserError
from sim.interface import Path, Range, RosField, parse_path, path_text, same_value

FAULTS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
# Parts that an Imu may lack, which element 0 of their covariance says with -1, by its definition.
IMU, LACKING = "sensor_msgs/msg/Imu", -1.0
PARTS = ("orientation", "angular_velocity", "linear_acceleration")
ANY: tuple[Range, float] = (float("-inf"), float("inf")), 0.0  # of a sensor


class MessageError(ValueError):
    """A message that contradicts the interface; it is not used."""


@dataclass(frozen=True)
class Plan:
    """Location of all elements in messages of one class."""

    topic: str
    terms: list[list[Block]]  # their rows are those of the term
    required_values: list[tuple[Block, float | str]]
    lacking: list[Block]  # covariances, where the message says that it lacks a part

    def read(self, message: Any, block: Block) -> Any:
        """Returns the numbers of a block.

        Raises:
            MessageError: one of them is missing, or is no number.
        """
        try:
            return block.read(message)
        except FAULTS:
            raise self._error(block, message) from None

    def check(self, message: Any) -> None:
        """Refuse a message whose required values differ from the interface.

        Raises:
            MessageError: a required value differs, or the message declares a part as missing.
        """
        for block, expected in self.required_values:
            try:
                value = block.raw(message)
                exact = isinstance(value, (str, Integral))
                same = same_value(value if exact else number(value), expected)
            except FAULTS:
                raise self._error(block, message) from None
            if not same:
                path = text(block.path)
                raise MessageError(f"{self.topic}: {path} is {value!r}, not {expected!r}")
        for block in self.lacking:
            if self.read(message, block)[0] == LACKING:
                part = block.hops[0].field.removesuffix("_covariance")
                raise MessageError(f"{self.topic}: {text(block.path)} is -1: it has no {part}")

    def begin(self, message: Any) -> None:
        """Write names and required values into a new message.

        What is looked up by name comes last: required names say where it is.
        """
        for block, value in self.required_values:
            if not block.by_name:
                self.write(message, block, [value])
        for block in chain(*self.terms, (block for block, _ in self.required_values)):
            block.enroll(message)
        for block, value in self.required_values:
            if block.by_name:
                self.write(message, block, [value])

    def write(self, message: Any, block: Block, values: Iterable[Any]) -> None:
        """The inverse of `read`.

        Raises:
            MessageError: a field cannot hold its value.
        """
        try:
            block.write(message, values)
        except (ArithmeticError, ValueError) as error:
            raise MessageError(f"{self.topic}: {text(block.path)}: {error}") from None

    def _error(self, block: Block, message: Any) -> MessageError:
        path, why = block.culprit(message)
        return MessageError(f"{self.topic}: {path}: {why}")


class Plans:
    """The plan of a topic for every class of message.

    Args:
        topic: its name.
        sources: ROS fields of its terms.
        commands: per term and element the limits of the command and its safe value; None for a
            sensor.

    Raises:
        UserError: the installed type lacks a path, or terms contradict each other.
    """

    def __init__(
        self,
        topic: str,
        sources: Sequence[RosField],
        commands: Sequence[Sequence[tuple[Range, float]]] | None = None,
    ) -> None:
        self.topic = topic
        self.type = _agreed(topic, "message types", [ros.type for ros in sources])
        names = [ros.names for ros in sources if ros.names is not None]
        self._names = _agreed(topic, "arrays of names", names) if names else None
        self.required_values = _required_values(topic, sources)
        self._paths = [[parse_path(path) for path in ros.fields] for ros in sources]
        self._commands = commands
        self._plans: dict[type, Plan] = {}
        if (kind := message_type(self.type)) is not None:
            self._plans[kind.make] = self._plan(Known(kind))

    @property
    def names(self) -> list[str]:
        """Names by which elements are looked up, if the type is installed."""
        found = [
            str(hop.key)
            for plan in self._plans.values()
            for block in chain(*plan.terms)
            for hop in (*block.parents, *block.hops)
            if hop.names is not None
        ]
        return list(dict.fromkeys(found))

    def of(self, message: Any) -> Plan:
        """Returns the plan for messages of this class.

        Raises:
            MessageError: the class lacks a path.
        """
        kind = type(message)
        if kind in self._plans:
            return self._plans[kind]
        known = hasattr(kind, "get_fields_and_field_types")
        name = self.type.replace("/msg/", "/")
        try:
            plan = self._plan(Known(MessageType(name, kind)) if known else Found(message))
        except UserError as error:
            raise MessageError(str(error).removeprefix("topic ")) from None
        if known or hasattr(kind, "__msgtype__"):
            self._plans[kind] = plan
        return plan

    def _plan(self, root: Known | Found) -> Plan:
        terms = [[self._made_out(path, root) for path in paths] for paths in self._paths]
        required_values = [self._made_out(path, root) for path, _ in self.required_values]
        if isinstance(root, Known):
            self._check_types(terms, required_values)
        used = {path[0][0] for paths in self._paths for path in paths}
        lacking = [
            self._made_out(((f"{part}_covariance", "0"),), root)
            for part in PARTS
            if self.type == IMU and part in used
        ]
        values = [value for _, value in self.required_values]
        self._check_names([*chain(*terms), *required_values], required_values)
        if isinstance(root, Known) and self._commands is not None:
            self._check_gaps(list(chain(*terms)), required_values)
        return Plan(
            topic=self.topic,
            terms=[blocks(term) for term in terms],
            required_values=[
                (blocks([hops])[0], value)
                for hops, value in zip(required_values, values, strict=True)
            ],
            lacking=[blocks([hops])[0] for hops in lacking],
        )

    def _made_out(self, path: Path, root: Known | Found) -> tuple[Hop, ...]:
        try:
            return made_out(path, root, self._names)
        except FAULTS as error:
            raise UserError(f"topic {self.topic}: {path_text(path)}: {error}") from None

    def _check_types(
        self,
        terms: Sequence[Sequence[tuple[Hop, ...]]],
        required_values: Sequence[tuple[Hop, ...]],
    ) -> None:
        commands = self._commands or [[ANY] * len(term) for term in terms]
        for hops, (bounds, safe) in zip(chain(*terms), chain(*commands), strict=True):
            self._checked(hops, partial(check_number, bounds=bounds, safe=safe))
        for hops, (_, value) in zip(required_values, self.required_values, strict=True):
            self._checked(hops, partial(check_value, value=value))

    def _checked(self, hops: tuple[Hop, ...], check: Callable[[Any], None]) -> None:
        kind = hops[-1].type
        assert kind is not None
        try:
            if kind.array and hops[-1].key is None:
                raise UserError(f"it is an array, {text(hops)}[..] is an element of it")
            check(kind)
        except UserError as error:
            raise UserError(f"topic {self.topic}: {text(hops)}: {error}") from None

    def _check_gaps(
        self, terms: Sequence[tuple[Hop, ...]], required_values: Sequence[tuple[Hop, ...]]
    ) -> None:
        """Refuse a command array with an unassigned element, which would be commanded as 0.

        An array of named values needs one for each name that the message will have. The
        elements of a fixed array of messages have the defaults of their type.
        """
        given: dict[Any, dict[str | int, str]] = {}  # array: key, first path with it
        names: dict[Any, dict[str | int, str]] = {}  # array of names: name, what needs it
        last: dict[Any, Hop] = {}
        for hops in (*terms, *required_values):
            for place, hop in enumerate(hops):
                if hop.key is None:
                    continue
                array = hops[:place], hop.field
                last[array] = hop
                given.setdefault(array, {}).setdefault(hop.key, text(hops))
                if hop.names is not None:
                    listed = hops[: place - hop.names[0]], hop.names[1]
                    names.setdefault(listed, {}).setdefault(hop.key, text(hops))
        for listed, said in self._said(required_values).items():
            names.setdefault(listed, {}).update(said)
        commanded = {(hops[:-1], hops[-1].field) for hops in terms}
        for array, keys in given.items():
            (parents, field), hop = array, last[array]
            assert hop.type is not None
            wanted: Mapping[str | int, str] = {}
            if hop.names is not None:
                wanted = names[parents[: len(parents) - hop.names[0]], hop.names[1]]
            elif hop.type.size is None:
                wanted = dict.fromkeys(range(max(int(key) for key in keys)), "")
            elif hop.type.number and array in commanded:
                wanted = dict.fromkeys(range(hop.type.size), "")
            if gaps := [key for key in wanted if key not in keys]:
                path, beside = text((*parents, Hop(field, gaps[0]))), next(iter(keys.values()))
                name = wanted[gaps[0]]
                because = f", because {name} has that name" if name else ""
                other = ", or give each kind of command a topic of its own" if name else ""
                raise UserError(
                    f"topic {self.topic}: {path} has no value and would be sent as 0 beside "
                    f"{beside}{because}: name it in fields or required_values{other}"
                )

    def _said(self, required_values: Sequence[tuple[Hop, ...]]) -> dict[Any, dict[str | int, str]]:
        """Returns per array of texts those that required values say, and the path that does."""
        said: dict[Any, dict[str | int, str]] = {}
        for hops, (_, value) in zip(required_values, self.required_values, strict=True):
            if isinstance(hops[-1].key, int) and isinstance(value, str):
                said.setdefault((hops[:-1], hops[-1].field), {}).setdefault(value, text(hops))
        return said

    def _check_names(
        self, paths: Sequence[tuple[Hop, ...]], required_values: Sequence[tuple[Hop, ...]]
    ) -> None:
        """Refuse a name that is missing where required values define all names of an array."""
        said = self._said(required_values)
        for hops in paths:
            for place, hop in enumerate(hops):
                if hop.names is None:
                    continue
                up, field = hop.names
                listed = said.get((hops[: place - up], field))
                if listed is not None and hop.key not in listed:
                    raise UserError(
                        f"topic {self.topic}: {text(hops)}: {hop.key!r} is not one of the names "
                        f"that required_values gives {field}: {[*listed]}"
                    )


def _agreed(topic: str, what: str, said: Sequence[str]) -> str:
    if len(different := sorted(set(said))) > 1:
        raise UserError(f"topic {topic!r} is given two {what}: {', '.join(different)}")
    return said[0]


def _required_values(
    topic: str, sources: Iterable[RosField]
) -> tuple[tuple[Path, float | str], ...]:
    """Returns the required values of all terms of a topic.

    Raises:
        UserError: two of them contradict each other.
    """
    merged: dict[str, float | str] = {}
    for path, value in (pair for ros in sources for pair in ros.required_values):
        if merged.setdefault(path, value) != value:
            raise UserError(f"topic {topic!r} is given {path} {merged[path]!r} and {value!r}")
    return tuple((parse_path(path), value) for path, value in merged.items())
