"""Reads and writes message fields along paths that are resolved once per type.

An array beside an array of names is accessed by name, any other one by index. Only the type of the
message decides whether it has an array of names.
"""

from __future__ import annotations

import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.messages.field_values import caster, number, set_time
from mlsh_ros.messages.message_types import TIMES, FieldType, MessageType, message_type
from sim.errors import UserError, unknown
from sim.interface import Floats, Path, path_text

# What ROS's messages call the names of an array's elements: JointState, MultiDOFJointState and
# JointJog, MultiDOFCommand, DynamicJointState.
NAMES = ("name", "joint_names", "dof_names", "interface_names")
# A point of a trajectory holds values of the joints that the message around it names; the points
# themselves come in order of time.
POINTS = {
    "trajectory_msgs/JointTrajectoryPoint": ("joint_names",),
    "trajectory_msgs/MultiDOFJointTrajectoryPoint": ("multi_dof_joint_names", "joint_names"),
}
MOST = 100_000  # elements of an array: every one up to an index has to be made


@dataclass(frozen=True)
class Hop:
    """A resolved step of a path."""

    field: str
    key: str | int | None = None  # a name, an index, or the field itself
    names: tuple[int, str] | None = None  # of the array: how many messages further up, which field
    type: FieldType | None = None  # None: of a message that does not say of what types it is

    def in_owner(self, chain: Sequence[Any]) -> list[str]:
        """Names of the array's elements, in a chain of messages from the outermost to its own."""
        assert self.names is not None
        return list(getattr(chain[-1 - self.names[0]], self.names[1]))

    def down(self, chain: Sequence[Any]) -> Any:
        """Returns the value at this step."""
        value = getattr(chain[-1], self.field)
        if self.key is None:
            return value
        if isinstance(self.key, int):
            return value[self.key]
        assert self.names is not None
        return value[position(self.in_owner(chain), self.key, len(value), self.names[1])]


def position(names: list[str], name: str, count: int, field: str) -> int:
    """The index of a named element among `count`."""
    if name not in names:
        raise ValueError(f"no {name!r} in {field} {names}")
    # Whose value it is, is sure only then (sensor_msgs/JointState).
    if count != len(names):
        raise ValueError(f"{count} values for {len(names)} names")
    if names.count(name) > 1:
        raise ValueError(f"{name!r} stands {names.count(name)} times in {field} {names}")
    return names.index(name)


# Types ------------------------------------------------------------------------------------------


class Known:
    """An installed message type."""

    def __init__(self, kind: MessageType) -> None:
        self.kind, self.name = kind, kind.name

    def field(self, name: str) -> FieldType:
        """Returns the type of a field; refuses unknown fields."""
        if name not in self.kind.fields:
            raise UserError(f"{self.name} has {unknown('field', name, self.kind.fields)}")
        return self.kind.fields[name]

    def has_names(self, name: str) -> bool:
        """True if a field is an array of texts."""
        kind = self.kind.fields.get(name)
        return kind is not None and kind.array and kind.text

    def down(self, hop: Hop, chain: Sequence[Known]) -> Known:
        """Returns the message type at a step."""
        assert hop.type is not None
        inner = None if "/" not in hop.type.base else message_type(hop.type.base)
        if inner is None:
            raise UserError(
                f"{hop.field} is a {hop.type.base}"
                + (", which is not installed" if "/" in hop.type.base else ", no message")
            )
        return Known(inner)


class Found:
    """A message without type information; its types are derived from its content."""

    def __init__(self, message: Any) -> None:
        self.message = message
        self.name = getattr(message, "__msgtype__", "").replace("/msg/", "/")

    def field(self, name: str) -> FieldType | None:
        """Type of the elements of an array, if there are any."""
        value = getattr(self.message, name, None)
        if isinstance(value, list) and value and hasattr(value[0], "__msgtype__"):
            return FieldType(value[0].__msgtype__.replace("/msg/", "/"), True)
        return None

    def has_names(self, name: str) -> bool:
        """True if the field may be an array of texts."""
        value = getattr(self.message, name, None)
        return value is not None and not isinstance(value, (str, bytes))

    def down(self, hop: Hop, chain: Sequence[Found]) -> Found:
        """Returns the message at a step."""
        return Found(hop.down([each.message for each in chain]))


def made_out(path: Path, root: Any, names: str | None) -> tuple[Hop, ...]:
    """Resolve a path for a message type.

    Args:
        path: steps.
        root: `Known` or `Found`.
        names: the field with the names, if it is none of `NAMES`.

    Raises:
        UserError: the type does not have the path.
    """
    chain, hops = [root], []
    for place, (name, key) in enumerate(path):
        hop = _hop(name, key, chain, names)
        hops.append(hop)
        if place < len(path) - 1:
            if hop.type is not None and hop.type.array and key is None:
                raise UserError(f"{name} is an array, {name}[..] is an element of it")
            chain.append(chain[-1].down(hop, chain))
    return tuple(hops)


def _hop(name: str, key: str | None, chain: Sequence[Any], names: str | None) -> Hop:
    kind = chain[-1].field(name)
    if key is None:
        return Hop(name, None, None, kind)
    if isinstance(chain[-1], Known) and not kind.array:
        raise UserError(f"{chain[-1].name}.{name} is a {kind}, no array")
    if (beside := _names_beside(name, kind, chain, names)) is not None:
        return Hop(name, key, beside, kind)
    if not (key.isascii() and key.isdecimal()):
        raise UserError(
            f"no array of names stands beside {name} (`names` in robot.yaml says what it is "
            f"called), so {key!r} has to be an index"
        )
    most = MOST if kind is None else kind.size or kind.most or MOST
    if int(key) >= most:
        raise UserError(f"{chain[-1].name}.{name} has {most} elements at most")
    return Hop(name, int(key), None, kind)


def _names_beside(
    name: str, kind: FieldType | None, chain: Sequence[Any], names: str | None
) -> tuple[int, str] | None:
    """Returns the location of the names of an array's elements; None if it has none."""
    if kind is not None and kind.base in POINTS:
        return None
    if (outside := POINTS.get(chain[-1].name)) is not None:
        wanted = outside if names is None else (names,)
        levels = range(1, len(chain))
    else:
        wanted, levels = NAMES if names is None else (names,), range(1)
    for up in levels:
        for each in wanted:
            if chain[-1 - up].has_names(each) and not (up == 0 and each == name):
                return up, each
    return None


# Values -----------------------------------------------------------------------------------------


# Blocks -----------------------------------------------------------------------------------------


@dataclass
class Block:
    """Elements of a term in one array of a message, or a single element."""

    rows: slice  # in the term
    parents: tuple[Hop, ...]
    hops: tuple[Hop, ...]  # one per row: the last steps
    # Names and how many values they had, with the places that follow.
    _known: tuple[list[str], int, NDArray[np.intp]] = field(
        default=([], -1, np.zeros(0, np.intp)), repr=False
    )

    def __post_init__(self) -> None:
        first = self.hops[0]
        self._field, self._names = first.field, first.names
        self._keys = [hop.key for hop in self.hops]
        self.by_name = any(hop.names is not None for hop in self.path)
        named = self._names is not None or self._keys[0] is None
        self._indices = np.array([0 if named else key for key in self._keys], np.intp)
        self._cast = caster(first.type)
        self._is_time = first.type is not None and first.type.base in TIMES
        base = "double" if first.type is None else first.type.base
        self._blank = self._cast(0.0) if base not in ("string", "wstring") else ""
        if first.type is not None and "/" in first.type.base:
            inner = message_type(first.type.base)
            self._blank = None if inner is None else inner.make

    def read(self, message: Any) -> list[float] | Floats:
        """Returns the numbers, one per row."""
        chain = self._chain(message)
        value = getattr(chain[-1], self._field)
        if self._keys[0] is None:
            return [number(value)]
        places = self._places(chain, len(value))
        if isinstance(value, (np.ndarray, array.array)):
            return np.asarray(value, np.float64)[places]
        return [number(value[place]) for place in places.tolist()]

    def culprit(self, message: Any) -> tuple[str, str]:
        """Returns the first path that cannot be read, and the reason."""
        for hop in self.hops:
            try:
                number(hop.down(self._chain(message)))
            except Exception as error:
                return text((*self.parents, hop)), str(error)
        return text(self.path), "it cannot be read"

    @property
    def path(self) -> tuple[Hop, ...]:
        """Path of the first row."""
        return (*self.parents, self.hops[0])

    def raw(self, message: Any) -> Any:
        """Returns the unconverted value of a block with one row."""
        return self.hops[0].down(self._chain(message))

    def enroll(self, message: Any) -> None:
        """Add all names before the first value, so that the arrays have the same length."""
        chain = self._made(message)
        if self._names is None:
            return
        owner = chain[-1 - self._names[0]]
        listed = getattr(owner, self._names[1])
        if self._known[0] and self._known[0] == listed:
            return  # as in the tick before
        for key in self._keys:
            if key not in listed:
                listed.append(key)

    def write(self, message: Any, values: Iterable[Any]) -> None:
        """The inverse of `read`."""
        chain = self._made(message)
        owner = chain[-1]
        if self._keys[0] is None:
            for value in values:
                self._set_field(owner, value)
            return
        target = getattr(owner, self._field)
        if self._names is None:
            _grow(target, int(self._indices.max()), self._blank)
        else:
            _grow(
                target, len(getattr(chain[-1 - self._names[0]], self._names[1])) - 1, self._blank
            )
        places = self._places(chain, len(target)).tolist()
        for place, value in zip(places, values, strict=True):
            if self._is_time:
                set_time(target[place], value)
            else:
                target[place] = self._cast(value)

    def _set_field(self, owner: Any, value: Any) -> None:
        if self._is_time:
            set_time(getattr(owner, self._field), value)
        else:
            setattr(owner, self._field, self._cast(value))

    def _chain(self, message: Any) -> list[Any]:
        chain = [message]
        for hop in self.parents:
            chain.append(hop.down(chain))
        return chain

    def _made(self, message: Any) -> list[Any]:
        """Returns the chain of messages; missing elements are created."""
        chain = [message]
        for hop in self.parents:
            if hop.key is not None:
                listed = getattr(chain[-1], hop.field)
                last = hop.key
                if isinstance(last, str):
                    assert hop.names is not None
                    names = getattr(chain[-1 - hop.names[0]], hop.names[1])
                    if last not in names:
                        names.append(last)
                    last = len(names) - 1
                inner = message_type(hop.type.base) if hop.type is not None else None
                _grow(listed, last, None if inner is None else inner.make)
            chain.append(hop.down(chain))
        return chain

    def _places(self, chain: Sequence[Any], count: int) -> NDArray[np.intp]:
        if self._names is None:
            return self._indices
        names = self.hops[0].in_owner(chain)
        known = self._known  # one tuple: other threads may read at the same time
        if known[0] != names or known[1] != count:
            places = [position(names, str(key), count, self._names[1]) for key in self._keys]
            self._known = known = names, count, np.array(places, np.intp)
        return known[2]


def _grow(target: Any, last: int, blank: Any) -> None:
    while len(target) <= last:
        target.append(blank() if isinstance(blank, type) else blank)


def blocks(paths: Sequence[tuple[Hop, ...]]) -> list[Block]:
    """Group neighboring elements of a term in one array, to read them together."""

    def together(pair: tuple[int, tuple[Hop, ...]]) -> Any:
        row, path = pair
        last = path[-1]
        alone = row if last.key is None else -1
        return path[:-1], last.field, last.names, alone

    found = []
    for _, group in groupby(enumerate(paths), together):
        pairs = list(group)
        parents = pairs[0][1][:-1]
        rows = slice(pairs[0][0], pairs[-1][0] + 1)
        found.append(Block(rows, parents, tuple(p[-1] for _, p in pairs)))
    return found


def text(hops: Iterable[Hop]) -> str:
    """Formats a path as in robot.yaml."""
    return path_text(tuple((hop.field, None if hop.key is None else str(hop.key)) for hop in hops))
