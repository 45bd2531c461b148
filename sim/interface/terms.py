"""Observation and action terms of robot.yaml: named parts of a vector, bound to MuJoCo and to ROS.

The fields of `ObservationTerm` and `ActionTerm` are the keys of a term in robot.yaml; their
comments become docs/reference/robot-yaml.md. `term_sources.py` has the places of a term in MuJoCo
and in ROS, `orientation.DERIVED` the quantities of the key `derive`, `computed.py` terms that no
sensor measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.interface.message_paths import parse_path
from sim.interface.names import Label, Unit
from sim.interface.orientation import DERIVED, ORDER, fold
from sim.interface.rays import LASER_SCAN, Rays
from sim.interface.term_sources import (
    MujocoActuators,
    MujocoState,
    RosField,
    WithLaterKeys,
    same_value,
)
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

TURN = 2 * np.pi + 1e-3  # rad, rounded as a file may be


@dataclass(frozen=True, config=STRICT)
class ObservationTerm(WithLaterKeys):
    """A named part of the observation vector: `scale * (value - offset)`, clipped to `clip`.

    A number or a pair may also be a list with one entry per derived element of the term.
    """

    name: Label  # name, unique among the observation terms
    size: Size  # number of elements in MuJoCo and in the message
    unit: Unit  # unit of the values
    frame: Label  # frame in which the values are expressed
    scale: NonZeros  # the policy's input is scale * (value - offset)
    clip: Ranges | None  # range of the scaled value; null: not clipped
    noise: NonNegatives  # standard deviation in `unit`, added in training
    max_age: Positive  # s, largest age; older values are stale and stop the robot
    limit: Ranges | None  # range in `unit`; a value outside stops the robot; null: not checked
    inf_values: Range | None  # numbers for -inf and +inf (REP-117); null: both are refused
    mujoco: MujocoState  # source in the simulation
    ros: RosField  # source on the robot
    # Quantity computed from a quaternion, in the body's frame: two axes of the world (6 elements),
    # the direction against gravity, the direction of gravity, or the tilt angle; null: the values
    # are used unchanged.
    derive: Literal["rotation_6d", "gravity_up", "projected_gravity", "tilt"] | None = None
    policy_input: bool = True  # false: checked, but not an input of the policy
    # true: an angle that is wrapped to (-pi, pi], whether or not the driver counts turns;
    # null: not stated.
    wraps: Flags | None = None
    # Offset in `unit`, such as the default positions of joints; null: nothing is subtracted.
    offset: Numbers | None = None

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
        for key in ("scale", "noise", "wraps", "offset"):
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
    def offsets(self) -> Floats:
        """(count,) offset of every element, in `unit`."""
        return spread(0.0 if self.offset is None else self.offset, self.count)

    def unscaled(self, shown: Floats) -> Floats:
        """Returns the values (..., count), in `unit`, of elements of an observation.

        Clipping is not undone.
        """
        return np.asarray(shown / self.scales + self.offsets)

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


@dataclass(frozen=True, config=STRICT)
class Tracking(WithLaterKeys):
    """A measurement that must follow the command; if it does not, the robot is stopped."""

    term: str  # name of an observation term in the unit of the action term
    tolerance: Positives  # largest difference, in that unit
    timeout: Positive  # s, time for which the difference may be larger
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


@dataclass(frozen=True, config=STRICT)
class ActionTerm(WithLaterKeys):
    """A named part of the action vector and the command it becomes, in physical units.

    What is a number or a pair may be a list, one per element.
    """

    name: Label  # name, unique among the action terms
    size: Size  # number of elements
    unit: Unit  # unit of the command
    frame: Label  # frame in which the command is expressed
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


def check_tracking(action: ActionTerm, observation: Sequence[ObservationTerm]) -> None:
    """Refuse a `tracking` that names no measurement of the command."""
    if (tracking := action.tracking) is None:
        return
    terms = {t.name: t for t in observation}
    where = f"action {action.name!r}: tracking.term {tracking.term!r}"
    if tracking.term not in terms:
        raise ValueError(f"{where} is no observation term. Valid: {', '.join(terms)}")
    term = terms[tracking.term]
    if term.derive is not None:
        raise ValueError(f"{where} shows {term.derive!r}, which follows no command")
    same = tracking.elements is not None or term.size == action.size
    if not same or term.unit != action.unit:
        raise ValueError(
            f"{where} has {term.size} elements in {term.unit}, "
            f"not {action.size} in {action.unit}"
            + ("" if same else "; tracking.elements can say which of them measure it")
        )
    if (last := max(i for i in action.measured if i is not None)) >= term.size:
        raise ValueError(
            f"{where} has no element {last}, which tracking.elements name. "
            f"Valid: 0 to {term.size - 1}"
        )
    for i, (by, low, high) in enumerate(zip(action.measured, *action.limits, strict=True)):
        wide = by is not None and term.wraps and term.wrapped[by] and high - low > TURN
        if wide and action.initial_command != "safe":
            raise ValueError(
                f"{where} wraps, so that it does not say in which turn element {i} is; its limit "
                f"[{low:g}, {high:g}] may be one turn wide, 2 pi, or a session begins at `safe`"
            )
