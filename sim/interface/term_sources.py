"""Sources of a term: its place in the simulation (`mujoco`) and in ROS messages (`ros`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.interface.message_paths import PathText
from sim.interface.names import LONGEST, Text, Topic
from sim.interface.rays import Rays
from sim.interface.validators import STRICT, Index, Said, check_unique

FIELD = r"^[A-Za-z][A-Za-z0-9_]*$"  # of a message
TYPE = r"^[A-Za-z][A-Za-z0-9_]*/msg/[A-Za-z][A-Za-z0-9_]*$"
SOURCES = ("qpos", "qvel", "sensor", "rays", "task")


# Keys that were added later. At their default they are left out, so that digests and files do not
# change.
LATER: tuple[tuple[str, Any], ...] = (
    ("derive", None),
    ("policy_input", True),
    ("wraps", None),
    ("elements", None),
    ("names", None),
    ("initial_command", None),
    ("computed", ()),
    ("computed", []),  # of a file
    ("start_pose", None),
    ("stiffness", None),
    ("damping", None),
    ("offset", None),  # of an observation term
)


def drop_later(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a dictionary without later keys that are at their default; for `asdict` too."""
    return {key: value for key, value in items if (key, value) not in LATER}


@dataclass(frozen=True, config=STRICT)
class WithLaterKeys:
    """Base of what is written without later keys that are at their default."""

    @model_serializer(mode="wrap")
    def _without_later_keys(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return drop_later(plain(self).items())


@dataclass(frozen=True, config=STRICT)
class MujocoState:
    """Source of an observation term in MuJoCo: exactly one of `SOURCES` is given."""

    qpos: tuple[Text, ...] = ()  # joint positions: one scalar joint per element
    qvel: tuple[Text, ...] = ()  # joint velocities: one scalar joint per element
    sensor: Text | None = None  # name of a MuJoCo sensor
    elements: tuple[Index, ...] = ()  # indices of elements of the sensor, in order; empty: all
    rays: Rays | None = None  # distances that rays measure
    task: Text | None = None  # name of a quantity of the task family

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in SOURCES if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(SOURCES)}; got {given or 'none'}")
        if self.elements and self.sensor is None:
            raise ValueError(f"elements {self.elements} are of a sensor; {given[0]} has none")
        return self


def _pairs(value: object) -> object:
    return tuple(value.items()) if isinstance(value, Mapping) else value


def _by_path(pairs: tuple[tuple[str, float | str], ...]) -> tuple[tuple[str, float | str], ...]:
    check_unique("required value", [path for path, _ in pairs])
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


# A mapping in files; pairs in memory, because a dict would make the dataclass unhashable. Sorted,
# because a file's order means nothing.
RequiredValues = Annotated[
    tuple[tuple[PathText, Said], ...],
    BeforeValidator(_pairs),
    AfterValidator(_by_path),
    PlainSerializer(dict),
]


@dataclass(frozen=True, config=STRICT)
class RosField(WithLaterKeys):
    """Source of a term in ROS: a message and the path of each element in it.

    A path is `a.b`, `a[3].b` (index) or `a[joint]` (see `message_paths`). If the message has an
    array of names beside `a`, the text in brackets is a name and never an index, because ROS does
    not guarantee the order of joints.
    """

    topic: Topic  # relative topic name
    # Message type, such as nav_msgs/msg/Odometry.
    type: Annotated[str, Field(pattern=TYPE, max_length=LONGEST)]
    fields: tuple[PathText, ...]  # path of each element in the message
    # Required values of other fields, by path: a number, compared with a tolerance, or a text.
    # The simulator writes them; a message with other values is refused.
    required_values: RequiredValues
    # Name of the array of names in a message type that is not one of ROS's own;
    # null: the array that ROS's messages have.
    names: Annotated[str, Field(pattern=FIELD, max_length=LONGEST)] | None = None


TOLERANCE = 1e-4  # relative, and absolute near 0: drivers count angles in float32


def same_value(value: float | Integral | str, expected: float | str) -> bool:
    """True if a message's value equals the value required by the interface."""
    if isinstance(value, str) or isinstance(expected, str):
        return value == expected
    if isinstance(value, Integral) and float(expected).is_integer():
        return int(value) == int(expected)  # there is nothing to round
    return math.isclose(value, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


@dataclass(frozen=True, config=STRICT)
class MujocoActuators:
    """The MuJoCo actuators that a command drives, one per element."""

    actuators: tuple[Text, ...]  # name of the MuJoCo actuator of each element
