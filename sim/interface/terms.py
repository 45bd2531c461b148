"""Observation and action terms: named parts of a vector, bound to MuJoCo and to ROS."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from numbers import Integral
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
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

from sim.interface.message_paths import PathText, parse_path
from sim.interface.names import LONGEST, Label, Text, Topic, Unit
from sim.interface.orientation import DERIVED, ORDER
from sim.interface.rays import LASER_SCAN, Rays
from sim.interface.validators import (
    STRICT,
    Flags,
    Floats,
    Index,
    NonNegatives,
    NonZeros,
    Number,
    Numbers,
    Positive,
    Positives,
    Range,
    Ranges,
    Said,
    Size,
    check_each,
    check_range,
    check_ranges,
    check_size,
    check_unique,
    ranges,
    spread,
    spread_range,
)

FIELD = r"^[A-Za-z][A-Za-z0-9_]*$"  # of a message
TYPE = r"^[A-Za-z][A-Za-z0-9_]*/msg/[A-Za-z][A-Za-z0-9_]*$"
SOURCES = ("qpos", "qvel", "sensor", "rays", "task")


@dataclass(frozen=True, config=STRICT)
class MujocoState:
    """Source of an observation term in MuJoCo: exactly one of `SOURCES` is given."""

    qpos: tuple[Text, ...] = ()  # joint positions: one scalar joint per element
    qvel: tuple[Text, ...] = ()  # joint velocities: one scalar joint per element
    sensor: Text | None = None  # name of a MuJoCo sensor
    elements: tuple[Index, ...] = ()  # of the sensor, in order; empty: all
    rays: Rays | None = None  # distances that rays measure
    task: Text | None = None  # a quantity of the task family, not of the robot

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
class RosField:
    """Source of a term in ROS: a message and the path of each element in it.

    A path is `a.b`, `a[3].b` (index) or `a[joint]` (see `message_paths`). If the message has an
    array of names beside `a`, the text in brackets is a name and never an index, because ROS does
    not guarantee the order of joints.
    """

    topic: Topic  # relative topic name
    type: Annotated[str, Field(pattern=TYPE, max_length=LONGEST)]  # such as nav_msgs/msg/Odometry
    fields: tuple[PathText, ...]  # path of each element in the message
    # Required values of other fields, by path: a number, compared with a tolerance, or a text.
    # The simulator writes them; a message with other values is refused.
    required_values: RequiredValues
    # Name of the array of names in a message type that is not one of ROS's own;
    # null: the array that ROS's messages have.
    names: Annotated[str, Field(pattern=FIELD, max_length=LONGEST)] | None = None

    @model_serializer(mode="wrap")
    def _without_later_keys(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return drop_later(plain(self).items())


@dataclass(frozen=True, config=STRICT)
class ObservationTerm:
    """A named part of the observation vector: `scale * value`, clipped to `clip` if it is given.

    A number or a pair may also be a list with one entry per derived element of the term.
    """

    name: Label  # unique among the observation terms
    size: Size  # elements in MuJoCo and in the message
    unit: Unit  # of the values
    frame: Label  # in which the values are expressed
    scale: NonZeros  # the policy's input is scale * value
    clip: Ranges | None  # range of the scaled value; null: not clipped
    noise: NonNegatives  # standard deviation in `unit`, added in training
    max_age: Positive  # s; older values are stale and stop the robot
    limit: Ranges | None  # in `unit`; a value outside stops the robot; null: not checked
    inf_values: Range | None  # numbers for -inf and +inf (REP-117); null: both are refused
    mujoco: MujocoState  # source in the simulation
    ros: RosField  # source on the robot
    # Quantity computed from a quaternion, in the body's frame: two axes of the world (6 elements),
    # the direction against gravity, that of gravity, or the tilt angle; null: the values
    # themselves.
    derive: Literal["rotation_6d", "gravity_up", "projected_gravity", "tilt"] | None = None
    policy_input: bool = True  # false: checked, but not an input of the policy
    # true: an angle that is wrapped to (-pi, pi], whether or not the driver counts turns;
    # null: not stated.
    wraps: Flags | None = None

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        check_size(self.name, "ros.fields", self.ros.fields, self.size)
        for key in ("qpos", "qvel"):
            if names := getattr(self.mujoco, key):
                check_size(self.name, f"mujoco.{key}", names, self.size)
        if elements := self.mujoco.elements:
            check_size(self.name, "mujoco.elements", elements, self.size)
        if self.inf_values is not None:
            check_range(self.name, "inf_values", self.inf_values)
        if self.mujoco.rays is not None:
            self._check_rays(self.mujoco.rays)
        if self.derive is not None:
            self._check_derived(self.derive)
        if self.clip is not None:
            check_ranges(self.name, "clip", self.clip, self.count)
        for key in ("scale", "noise", "wraps"):
            check_each(self.name, key, getattr(self, key), self.count)
        if np.any(self.wraps) and (self.derive is not None or self.unit != "rad"):
            what = f"unit {self.unit!r}" if self.derive is None else f"derive {self.derive!r}"
            raise ValueError(f"term {self.name!r}: wraps is of angles in rad, this has {what}")
        if self.limit is not None:
            self.check_limit("limit", self.limit)
        return self

    def _check_rays(self, rays: Rays) -> None:
        where = f"term {self.name!r}: mujoco.rays"
        if self.inf_values is None:
            raise ValueError(f"{where} needs inf_values: what stands for nothing there")
        low, high = self.inf_values
        if low > rays.range_min or high < rays.range_max:
            # A true range would pass for an infinite one.
            raise ValueError(
                f"{where} has ranges {(rays.range_min, rays.range_max)} beyond inf_values "
                f"{self.inf_values}"
            )
        if self.ros.type == LASER_SCAN:
            said = dict(self.ros.required_values)
            for path, value in rays.required_values(self.size).items():
                if path not in said or not same_value(said[path], value):
                    raise ValueError(
                        f"{where} makes {path} {value:.6g}, ros.required_values says "
                        f"{said.get(path, 'nothing')}"
                    )

    def _check_derived(self, name: str) -> None:
        where, made = f"term {self.name!r}: derive {name!r}", DERIVED[name]
        if self.size != len(ORDER):
            raise ValueError(f"{where} is of a quaternion, 4 elements, size is {self.size}")
        free = _is_free_quaternion(self.mujoco.qpos)
        if not (self.mujoco.sensor or self.mujoco.task or free):
            raise ValueError(
                f"{where} is of a sensor or of elements 3 to 6 of a free joint, and mujoco names "
                "neither"
            )
        if self.mujoco.elements not in ((), (0, 1, 2, 3)):
            raise ValueError(
                f"{where} is of a whole quaternion, mujoco.elements are {self.mujoco.elements}"
            )
        steps = [parse_path(path) for path in self.ros.fields]
        stems, last = {path[:-1] for path in steps}, tuple(path[-1][0] for path in steps)
        # Elements of an array have no letters: robot.yaml defines their order.
        out_of_order = bool({*last} & {*ORDER}) and (last != ORDER or len(stems) > 1)
        if out_of_order or len({*steps}) < len(steps):
            raise ValueError(
                f"{where} needs w, x, y, z of one quaternion, in MuJoCo's order; ros.fields are "
                f"{', '.join(self.ros.fields)}"
            )
        if self.unit != made.unit:
            raise ValueError(f"{where} is in {made.unit}, not in {self.unit}")

    def check_limit(self, key: str, limit: Range | tuple[Range, ...]) -> None:
        """Refuse an empty limit, or one that no value could exceed, such as one in degrees."""
        check_ranges(self.name, key, limit, self.count)
        for wraps, low, high in zip(self.wrapped, *spread_range(limit, self.count), strict=True):
            if wraps and (low < -np.pi) != (high > np.pi):
                raise ValueError(
                    f"term {self.name!r}: {key} {(float(low), float(high))} reaches beyond pi on "
                    "one side, and an angle that wraps is shown within -pi and pi"
                )
        if self.derive is None:
            return
        low, high = DERIVED[self.derive].range
        for one in ranges(limit):
            if one[0] <= low and high <= one[1]:
                raise ValueError(
                    f"term {self.name!r}: {key} {one} is never passed, because {self.derive!r} "
                    f"is {low:.4g} to {high:.4g} {self.unit}"
                )

    @model_serializer(mode="wrap")
    def _without_later_keys(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return drop_later(plain(self).items())

    @property
    def count(self) -> int:
        """Number of elements after the derivation."""
        return self.size if self.derive is None else DERIVED[self.derive].size

    @property
    def width(self) -> int:
        """Elements in the observation."""
        return self.count if self.policy_input else 0

    @property
    def scales(self) -> Floats:
        """(count,) scale of every element."""
        return spread(self.scale, self.count)

    @property
    def noises(self) -> Floats:
        """(count,) noise of every element, in `unit`."""
        return spread(self.noise, self.count)

    @property
    def limits(self) -> tuple[Floats, Floats] | None:
        """(count,) lowest and highest permitted value, in `unit`."""
        return None if self.limit is None else spread_range(self.limit, self.count)

    @cached_property
    def wrapped(self) -> NDArray[np.bool_]:
        """(count,) True where an element is an angle on a circle."""
        return np.full(self.count, self.wraps or False)

    def values(self, field: NDArray[Any]) -> NDArray[Any]:
        """Convert a field (..., size) to the values (..., count) of the term, in its unit."""
        if self.derive is not None:
            return DERIVED[self.derive].of(field)
        return np.where(self.wrapped, fold(field), field) if self.wraps else field


def _is_free_quaternion(names: tuple[str, ...]) -> bool:
    joint = names[0].partition("[")[0] if names else ""
    return names == tuple(f"{joint}[{i}]" for i in range(3, 7))


# Keys that came later. Where they say nothing they are left out, so that digests and files are
# those of before.
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
)


def drop_later(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a dictionary without later keys that are at their default; for `asdict` too."""
    return {key: value for key, value in items if (key, value) not in LATER}


TOLERANCE = 1e-4  # relative, and absolute near 0: drivers count angles in float32


def same_value(value: float | Integral | str, expected: float | str) -> bool:
    """True if a message's value equals the value required by the interface."""
    if isinstance(value, str) or isinstance(expected, str):
        return value == expected
    if isinstance(value, Integral) and float(expected).is_integer():
        return int(value) == int(expected)  # there is nothing to round
    return math.isclose(value, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def fold(angle: NDArray[Any]) -> NDArray[Any]:
    """Angles, rad, on the circle: within (-pi, pi], where they are already there the same."""
    return np.asarray(angle - 2 * np.pi * np.ceil((angle - np.pi) / (2 * np.pi)))


@dataclass(frozen=True, config=STRICT)
class Tracking:
    """A measurement that must follow the command; if it does not, the robot is stopped."""

    term: str  # an observation term in the action term's unit
    tolerance: Positives  # largest difference, in that unit
    timeout: Positive  # s for which the difference may be larger
    # For each element of the action term the element of `term` that measures it, or null;
    # without this key: the same element of a term of the same size.
    elements: tuple[Index | None, ...] | None = None

    @model_validator(mode="after")
    def _each_measures_one(self) -> Self:
        given = [element for element in self.elements or () if element is not None]
        if self.elements is not None and not given:
            raise ValueError("tracking.elements name nothing; say `tracking: null` instead")
        check_unique("tracking.elements", [str(element) for element in given])
        return self

    @model_serializer(mode="wrap")
    def _without_later_keys(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return drop_later(plain(self).items())


@dataclass(frozen=True, config=STRICT)
class MujocoActuators:
    """The MuJoCo actuators that a command drives, one per element."""

    actuators: tuple[Text, ...]  # name of the MuJoCo actuator of each element


@dataclass(frozen=True, config=STRICT)
class ActionTerm:
    """A named part of the action vector and the command it becomes, in physical units.

    What is a number or a pair may be a list, one per element.
    """

    name: Label  # unique among the action terms
    size: Size  # elements
    unit: Unit  # of the command
    frame: Label  # in which the command is expressed
    scale: NonZeros  # command = offset + scale * action, then limit, low-pass filter, rate_limit
    offset: Numbers  # command for an action of 0
    limit: Ranges  # range of the command, in `unit`
    smoothing_time: NonNegatives  # s, time constant of a low-pass filter of the command; 0: none
    rate_limit: Positives  # largest change of the command, `unit` per second
    tracking: Tracking | None  # measurement that must follow the command; null: none
    safe_command: tuple[Number, ...]  # the command that stops the robot, per element
    mujoco: MujocoActuators  # target in the simulation
    ros: RosField  # target on the robot
    # Command with which a session begins: `measured`, read from the term in `tracking`, or
    # `safe`, the safe command, for robots that are at rest under it in every pose. null: measured
    # if there is `tracking`; without it the key has to be `safe` before the robot can be armed.
    initial_command: Literal["measured", "safe"] | None = None
    # Gains of the position servos that the policies were trained with: N m/rad and N m s/rad of a
    # joint that turns. The model has to have them; null: not stated.
    stiffness: NonNegatives | None = None
    damping: NonNegatives | None = None  # as `stiffness`

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.initial_command == "measured" and None in self.measured:
            raise ValueError(
                f"action {self.name!r}: initial_command 'measured' needs tracking, which names "
                "what measures each element"
            )
        check_size(self.name, "ros.fields", self.ros.fields, self.size)
        check_size(self.name, "mujoco.actuators", self.mujoco.actuators, self.size)
        check_size(self.name, "safe_command", self.safe_command, self.size)
        for key in ("scale", "offset", "smoothing_time", "rate_limit", "stiffness", "damping"):
            check_each(self.name, key, getattr(self, key), self.size)
        check_ranges(self.name, "limit", self.limit, self.size)
        for value, low, high in zip(self.safe_command, *self.limits, strict=True):
            if not low <= value <= high:
                raise ValueError(
                    f"action {self.name!r}: safe_command {value} is outside limit "
                    f"{(float(low), float(high))}"
                )
        if self.tracking is not None:
            check_each(self.name, "tracking.tolerance", self.tracking.tolerance, self.size)
            if self.tracking.elements is not None:
                check_size(self.name, "tracking.elements", self.tracking.elements, self.size)
        return self

    @property
    def limits(self) -> tuple[Floats, Floats]:
        """(size,) lowest and highest command, in `unit`."""
        return spread_range(self.limit, self.size)

    @property
    def rate_limits(self) -> Floats:
        """(size,) `unit` per second."""
        return spread(self.rate_limit, self.size)

    @property
    def smoothing_times(self) -> Floats:
        """(size,) time constants, s."""
        return spread(self.smoothing_time, self.size)

    @property
    def measured(self) -> tuple[int | None, ...]:
        """Per element, the element of `tracking.term` that measures it; None: not measured."""
        if self.tracking is None:
            return (None,) * self.size
        return self.tracking.elements or tuple(range(self.size))

    @model_serializer(mode="wrap")
    def _without_later_keys(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return drop_later(plain(self).items())
