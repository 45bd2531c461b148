"""Field paths into ROS messages, as robot.yaml writes them.

`a.b`, `a[3].b`, `a[joint]`. Brackets contain an index, or a name if the message has names for the
elements of the array: the type of the message decides which of the two, not the text. In quotes a
name may have any characters: `a["left arm/joint[1]"]`, with a backslash before a quote or a
backslash.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from sim.errors import UserError
from sim.interface.names import Text

Step = tuple[str, str | None]  # a field, and what stands in brackets behind it
Path = tuple[Step, ...]

_FIELD = r"[A-Za-z_]\w*"
_KEY = r'"((?:[^"\\]|\\.)+)"|([^"\]][^\]]*)'
_STEP = re.compile(rf"({_FIELD})(?:\[(?:{_KEY})\])?(\.|\Z)", re.ASCII)
_PLAIN = re.compile(r'[^\s"\\\[\]]+( +[^\s"\\\[\]]+)*')  # a key that needs no quotes


def parse_path(text: str) -> Path:
    """Split `poses[1].position.x` into steps.

    Raises:
        UserError: it is malformed.
    """
    steps: list[Step] = []
    at, more = 0, True
    while more:
        match = _STEP.match(text, at)
        if match is None:
            raise UserError(
                f"message path {text!r}: {text[at:]!r} is neither `name` nor `name[index]`, with "
                'quotes where a name holds quotes or brackets: `name["left[1]"]`'
            )
        field, quoted, plain, dot = match.groups()
        steps.append((field, plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)))
        at, more = match.end(), bool(dot)
    return tuple(steps)


def path_text(path: Path) -> str:
    """The inverse of `parse_path`."""
    return ".".join(field if key is None else f"{field}[{_key(key)}]" for field, key in path)


def element_path(field: str, key: str | int) -> str:
    """The path of an array's element, by name or index: `position[shoulder]`.

    The array may lie deeper: `element_path("state.position", "shoulder")`.
    """
    *parents, (last, _) = parse_path(field)
    return path_text((*parents, (last, str(key))))


def _key(key: str) -> str:
    if _PLAIN.fullmatch(key):
        return key
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _one_form(text: str) -> str:
    return path_text(parse_path(text))


PathText = Annotated[Text, AfterValidator(_one_form)]  # in the one form that `path_text` writes
