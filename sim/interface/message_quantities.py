"""Meaning of the fields of ROS messages by their names: positions, velocities, efforts, axes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sim.interface.message_paths import Path, parse_path

AXES = "xyzw"
# What a vector of ROS's messages is in, by the name of its field.
VECTORS = {
    **dict.fromkeys(("position", "translation", "point"), "m"),
    **dict.fromkeys(("orientation", "rotation"), "1"),
    **{"linear": "m/s", "angular": "rad/s", "angular_velocity": "rad/s"},
    **{"linear_acceleration": "m/s^2", "force": "N", "torque": "N m"},
}
# What an array beside names is of, by the name of its field.
ARRAYS = {
    "position": "position",
    "positions": "position",
    "displacements": "position",
    "velocity": "velocity",
    "velocities": "velocity",
    "accelerations": "acceleration",
    "effort": "effort",
    "efforts": "effort",
}


@dataclass(frozen=True)
class FieldMeaning:
    """Meaning of the path of an element; texts are empty where it says nothing."""

    label: str  # name in brackets, such as a joint, or an axis
    quantity: str  # position, velocity, acceleration or effort; or the unit of a vector

    def contradicts(self, other: FieldMeaning) -> bool:
        """True if the quantities are known and differ; an array and a vector are not compared."""
        mine, theirs = self.quantity, other.quantity
        same_kind = (mine in ARRAYS.values()) == (theirs in ARRAYS.values())
        return bool(mine and theirs and same_kind and mine != theirs)


def meaning_of(text: str) -> FieldMeaning:
    """Returns the meaning of `position[left_wheel]` or `twist.linear.x`; numbers say nothing."""
    path = parse_path(text)
    names = [key for _, key in path if key is not None and not key.isdecimal()]
    last, key = path[-1]
    if key is not None:
        return FieldMeaning(names[-1] if names else "", ARRAYS.get(last, ""))
    if len(path) < 2 or last not in [*AXES]:
        return FieldMeaning(" ".join(names), ARRAYS.get(last, ""))
    return FieldMeaning(" ".join([*names, last]), vector_unit(path))


def vector_unit(path: Path, *, accelerates: bool = False) -> str:
    """Returns the unit of the vector whose element is at the end of a path; empty if unknown.

    Args:
        path: of at least two steps.
        accelerates: whether the message is of accelerations, which its fields may not say.
    """
    parent = path[-2][0]
    accelerates = accelerates or any("accel" in name for name, _ in path[:-1])
    return "" if accelerates and parent in ("linear", "angular") else VECTORS.get(parent, "")


def cores(names: Sequence[str]) -> list[str]:
    """Returns names without their common prefix and suffix."""
    plain = [re.sub(r"[\W_]", "", name).casefold() for name in names]
    front = _alike(plain)
    rest = [name[front:] for name in plain]
    behind = _alike([name[::-1] for name in rest])
    return [name[: len(name) - behind] for name in rest]


def _alike(names: Sequence[str]) -> int:
    """Returns the length of the common prefix of all names."""
    together = list(zip(*names, strict=False))
    return next((i for i, each in enumerate(together) if len({*each}) > 1), len(together))
