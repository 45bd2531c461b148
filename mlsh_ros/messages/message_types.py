"""Introspects installed ROS message types; imports nothing else.

A type's name comes out of a file that a stranger may have written. Whether its package is one of
ROS messages is seen from its files, before anything in it runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Ranges of the integers of ROS messages; a boolean is one of two.
INTEGERS = {
    **{f"int{n}": (-(2 ** (n - 1)), 2 ** (n - 1) - 1) for n in (8, 16, 32, 64)},
    **{f"uint{n}": (0, 2**n - 1) for n in (8, 16, 32, 64)},
    "octet": (0, 255),
    "char": (0, 255),
    "boolean": (0, 1),
}
REALS = ("float", "double", "long double")
TEXTS = ("string", "wstring")
# A number of seconds, though they are messages.
TIMES = ("builtin_interfaces/Time", "builtin_interfaces/Duration")
_ARRAY = re.compile(r"sequence<(?P<of>.+?)(?:, (?P<most>\d+))?>|(?P<kind>.+)\[(?P<size>\d+)\]")


@dataclass(frozen=True)
class FieldType:
    """What a message's field holds."""

    base: str  # double, int32, string, geometry_msgs/Pose ..; of an array, its elements
    array: bool = False
    size: int | None = None  # of an array that is always so long
    most: int | None = None  # of one that is never longer

    @property
    def number(self) -> bool:
        """Whether it, or an element, is one number."""
        return self.base in INTEGERS or self.base in REALS or self.base in TIMES

    @property
    def text(self) -> bool:
        """Whether it, or an element, is a text."""
        return self.base in TEXTS

    def __str__(self) -> str:
        length = "" if self.size is None else self.size
        return f"{self.base}[{length}]" if self.array else self.base


@dataclass(frozen=True)
class MessageType:
    """An installed message type."""

    name: str  # geometry_msgs/Pose
    make: Any  # its class

    @cached_property
    def fields(self) -> Mapping[str, FieldType]:
        """By name."""
        return {
            name: _parsed(text) for name, text in self.make.get_fields_and_field_types().items()
        }


def _parsed(text: str) -> FieldType:
    text = re.sub(r"string<\d+>", "string", text)  # how long a text may be is of no concern
    match = _ARRAY.fullmatch(text)
    if match is None:
        return FieldType(text)
    return FieldType(
        match["of"] or match["kind"],
        array=True,
        size=int(match["size"]) if match["size"] else None,
        most=int(match["most"]) if match["most"] else None,
    )


@cache
def message_type(name: str) -> MessageType | None:
    """`nav_msgs/msg/Odometry` or `nav_msgs/Odometry`; None if it is not installed."""
    package, *_, message = name.split("/")
    if not _is_of_messages(package, message):
        return None
    try:
        return MessageType(
            f"{package}/{message}", getattr(import_module(f"{package}.msg"), message)
        )
    except (ImportError, AttributeError):
        return None


def has_package(name: str) -> bool:
    """Whether a type's package is installed, and one of ROS messages."""
    return _is_of_messages(name.partition("/")[0])


def _is_of_messages(package: str, message: str = "") -> bool:
    """Whether ROS's generator has written a package, and a message in it; nothing is run."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return False
    for folder in map(Path, (spec and spec.submodule_search_locations) or ()):
        listed = folder / "msg" / "__init__.py"
        generated = any(folder.glob(f"{package}_s__rosidl_typesupport_*"))
        if generated and listed.is_file():
            line = rf"^from {package}\.msg\._\w+ import {message or '[A-Z]'}"
            line += r"\b" if message else ""
            return bool(re.search(line, listed.read_text("utf-8", "replace"), re.MULTILINE))
    return False
