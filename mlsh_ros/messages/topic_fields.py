"""Extracts the values of one topic; field paths are resolved once per message class.

If the type is installed, all paths are resolved and checked before the first message. Messages of
a recording have no installed type; their paths are resolved with the first message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
ANY: Range = (float("-inf"), float("inf"))


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
        """Write names and required values into a new message."""
        for block in chain(*self.terms, (block for block, _ in self.required_values)):
            block.enroll(message)
        for block, value in self.required_values:
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
        ranges: per term and element the range of the command; None for a sensor.

    Raises:
        UserError: the installed type lacks a path, or terms contradict each other.
    """

    def __init__(
        self,
        topic: str,
        sources: Sequence[RosField],
        ranges: Sequence[Sequence[Range]] | None = None,
    ) -> None:
        self.topic = topic
        self.type = _agreed(topic, "message types", [ros.type for ros in sources])
        names = [ros.names for ros in sources if ros.names is not None]
        self._names = _agreed(topic, "arrays of names", names) if names else None
        self.required_values = _required_values(topic, sources)
        self._paths = [[parse_path(path) for path in ros.fields] for ros in sources]
        self._ranges = ranges
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
        self._check_names(list(chain(*terms)), required_values, values)
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
        ranges = self._ranges or [[ANY] * len(term) for term in terms]
        for hops, bounds in zip(chain(*terms), chain(*ranges), strict=True):
            self._checked(hops, partial(check_number, bounds=bounds))
        for hops, (_, value) in zip(required_values, self.required_values, strict=True):
            self._checked(hops, partial(check_value, value=value))
        if self._ranges is not None:
            self._check_gaps([*chain(*terms), *required_values])

    def _checked(self, hops: tuple[Hop, ...], check: Callable[[Any], None]) -> None:
        kind = hops[-1].type
        assert kind is not None
        try:
            if kind.array and hops[-1].key is None:
                raise UserError(f"it is an array, {text(hops)}[..] is an element of it")
            check(kind)
        except UserError as error:
            raise UserError(f"topic {self.topic}: {text(hops)}: {error}") from None

    def _check_gaps(self, paths: Sequence[tuple[Hop, ...]]) -> None:
        """Refuse a command array with an unassigned element, which would be commanded as 0."""
        given: dict[Any, set[int]] = {}
        for hops in paths:
            for place, hop in enumerate(hops):
                if isinstance(hop.key, int) and hop.type is not None and hop.type.size is None:
                    given.setdefault((hops[:place], hop.field), set()).add(hop.key)
        for (parents, field), indices in given.items():
            if gaps := sorted(set(range(max(indices))) - indices):
                path = text((*parents, Hop(field, gaps[0])))
                raise UserError(
                    f"topic {self.topic}: {path} has no value, and comes before "
                    f"{field}[{max(indices)}]: name it in fields or required_values"
                )

    def _check_names(
        self,
        paths: Sequence[tuple[Hop, ...]],
        required_values: Sequence[tuple[Hop, ...]],
        values: Sequence[float | str],
    ) -> None:
        """Refuse a name that is missing where required values define all names of an array."""
        said: dict[Any, list[str]] = {}
        for hops, value in zip(required_values, values, strict=True):
            if isinstance(hops[-1].key, int) and isinstance(value, str):
                said.setdefault((hops[:-1], hops[-1].field), []).append(value)
        for hops in paths:
            for place, hop in enumerate(hops):
                if hop.names is None:
                    continue
                up, field = hop.names
                listed = said.get((hops[: place - up], field))
                if listed is not None and hop.key not in listed:
                    raise UserError(
                        f"topic {self.topic}: {text(hops)}: {hop.key!r} is not one of the names "
                        f"that required_values gives {field}: {listed}"
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
