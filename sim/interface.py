"""What a robot shows and obeys: the only place where fields become a vector and back.

Training, evaluation, sim_node and skill_node all call `Interface.observe` and
`Interface.command`; nothing else in the project builds an observation or a command.
numpy and pydantic only: this file runs on the robot's own computer.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.errors import invalid

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, str_min_length=1)


def _non_zero(value: float) -> float:
    if value == 0:
        raise ValueError("0 would make the term dead; leave it out instead")
    return value


Floats = NDArray[np.float64]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
NonZero = Annotated[float, AfterValidator(_non_zero)]
Range = tuple[float, float]


SOURCES = ("qpos", "qvel", "sensor", "rays", "task")
LASER_SCAN = "sensor_msgs/msg/LaserScan"


@dataclass(frozen=True, config=STRICT)
class Rays:
    """A fan of rays in the xy plane of a site, evenly spaced; the names are LaserScan's.

    Angles are counter-clockwise from the site's x axis (REP-103). There are as many rays as the
    term has elements, the first at `angle_min`, the last at `angle_max`. The site's own body is
    not seen.
    """

    site: str
    angle_min: float  # rad
    angle_max: float  # rad
    range_min: NonNegative  # m; nearer counts as -inf (REP-117)
    range_max: Positive  # m; this far, farther or nothing there counts as +inf

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        _check_range("rays", "range_min .. range_max", (self.range_min, self.range_max))
        return self

    def step(self, count: int) -> float:
        """Rad between neighbours of `count` rays; LaserScan's angle_increment."""
        return (self.angle_max - self.angle_min) / max(count - 1, 1)

    def directions(self, count: int) -> Floats:
        """(count, 3) unit vectors in the site's frame."""
        angle = self.angle_min + self.step(count) * np.arange(count)
        return np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=-1)

    def ranges(self, distance: Floats, infinite: Range) -> Floats:
        """What a scanner says of true distances, m, negative where nothing was hit.

        LaserScan carries float32: rounded here already, a range survives the message unchanged.
        """
        rounded = distance.astype(np.float32).astype(np.float64)
        far = (rounded < 0) | (rounded >= self.range_max)
        near = ~far & (rounded <= self.range_min)
        return np.where(far, infinite[1], np.where(near, infinite[0], rounded))

    def constants(self, count: int) -> dict[str, float]:
        """What a LaserScan has to say of itself so that its ranges are these rays."""
        return {
            "angle_min": self.angle_min,
            "angle_max": self.angle_max,
            "angle_increment": self.step(count),
            "range_min": self.range_min,
            "range_max": self.range_max,
        }


@dataclass(frozen=True, config=STRICT)
class MujocoState:
    """Where an observation term stands in MuJoCo: exactly one of `SOURCES` is given."""

    qpos: tuple[str, ...] = ()  # one scalar joint per element
    qvel: tuple[str, ...] = ()
    sensor: str | None = None
    elements: tuple[Annotated[int, Field(ge=0)], ...] = ()  # of the sensor, in order; empty: all
    rays: Rays | None = None
    task: str | None = None  # a quantity of the task family, not of the robot

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
    _check_unique("constant", [path for path, _ in pairs])
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


# A mapping in files; pairs in memory, because a dict would make the dataclass unhashable. Sorted,
# because a file's order means nothing.
Constants = Annotated[
    tuple[tuple[str, float | str], ...],
    BeforeValidator(_pairs),
    AfterValidator(_by_path),
    PlainSerializer(dict),
]


@dataclass(frozen=True, config=STRICT)
class RosField:
    """Where a term stands in ROS: a message and the path of each element in it.

    A path is `a.b`, `a[3].b` (index) or `a[joint]` (by name: the index of `joint` in the
    message's own `name` array, because ROS does not promise the order of joints).
    """

    topic: str  # relative, so that namespaces work
    type: Annotated[str, Field(pattern=r"^\w+/msg/\w+$")]
    fields: tuple[str, ...]
    # What the message has to say of itself, value by path: a number within a tolerance, or a
    # text. A simulator writes it; a message that says otherwise is refused.
    constants: Constants

    @model_validator(mode="after")
    def _relative(self) -> Self:
        if self.topic.startswith("/"):
            raise ValueError(f"topic {self.topic!r} must be relative, without a leading '/'")
        return self


@dataclass(frozen=True, config=STRICT)
class ObservationTerm:
    """A named part of the observation vector: `scale * value`, clipped where `clip` says so."""

    name: str
    size: Annotated[int, Field(gt=0)]
    unit: str
    frame: str
    scale: NonZero
    clip: Range | None  # of the scaled value
    noise: NonNegative  # standard deviation in `unit`, added in training
    max_age: Positive  # s, older values are stale
    limit: Range | None  # in `unit`; a robot that shows anything beyond it is stopped
    infinite: Range | None  # what stands for -inf and +inf (REP-117); null: both are refused
    mujoco: MujocoState
    ros: RosField

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        _check_size(self.name, "ros.fields", self.ros.fields, self.size)
        for key in ("qpos", "qvel"):
            if names := getattr(self.mujoco, key):
                _check_size(self.name, f"mujoco.{key}", names, self.size)
        if elements := self.mujoco.elements:
            _check_size(self.name, "mujoco.elements", elements, self.size)
        for key in ("clip", "limit", "infinite"):
            if (bounds := getattr(self, key)) is not None:
                _check_range(self.name, key, bounds)
        if self.mujoco.rays is not None:
            self._check_rays(self.mujoco.rays)
        return self

    def _check_rays(self, rays: Rays) -> None:
        where = f"term {self.name!r}: mujoco.rays"
        if self.infinite is None:
            raise ValueError(f"{where} needs infinite: what stands for nothing there")
        low, high = self.infinite
        if low > rays.range_min or high < rays.range_max:
            # A true range would pass for an infinite one.
            raise ValueError(
                f"{where} has ranges {(rays.range_min, rays.range_max)} beyond infinite "
                f"{self.infinite}"
            )
        if self.ros.type == LASER_SCAN:
            said = dict(self.ros.constants)
            for path, value in rays.constants(self.size).items():
                if path not in said or not same_constant(said[path], value):
                    raise ValueError(
                        f"{where} makes {path} {value:.6g}, ros.constants says "
                        f"{said.get(path, 'nothing')}"
                    )


TOLERANCE = 1e-4  # relative, and absolute near 0: drivers count angles in float32


def same_constant(value: float | str, expected: float | str) -> bool:
    """Whether a message's value is the one that the interface names."""
    if isinstance(value, str) or isinstance(expected, str):
        return value == expected
    return math.isclose(value, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


@dataclass(frozen=True, config=STRICT)
class Tracking:
    """A measurement that has to follow the command; where it does not, something is broken."""

    term: str  # an observation term of the action term's size and unit
    tolerance: Positive  # in that unit
    time: Positive  # s that the difference may last


@dataclass(frozen=True, config=STRICT)
class MujocoActuators:
    """The MuJoCo actuators that a command drives, one per element."""

    actuators: tuple[str, ...]


@dataclass(frozen=True, config=STRICT)
class ActionTerm:
    """A named part of the action vector and the command it becomes, in physical units."""

    name: str
    size: Annotated[int, Field(gt=0)]
    unit: str
    frame: str
    scale: NonZero  # command = offset + scale * action, then limit, blend, rate_limit
    offset: float
    limit: Range  # in `unit`
    blend: NonNegative  # s, time constant with which the command follows; 0: at once
    rate_limit: Positive  # `unit` per second
    tracking: Tracking | None
    safe: tuple[float, ...]  # the command that stops the robot, per element
    mujoco: MujocoActuators
    ros: RosField

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        _check_size(self.name, "ros.fields", self.ros.fields, self.size)
        _check_size(self.name, "mujoco.actuators", self.mujoco.actuators, self.size)
        _check_size(self.name, "safe", self.safe, self.size)
        _check_range(self.name, "limit", self.limit)
        low, high = self.limit
        if bad := [value for value in self.safe if not low <= value <= high]:
            raise ValueError(
                f"action {self.name!r}: safe value {bad[0]} is outside limit {self.limit}"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class Interface:
    """A robot's whole contract, in vector order. It travels inside every bundle."""

    robot: str
    control_dt: Positive  # s per tick
    physics_dt: Positive  # s per physics step
    observation: Annotated[tuple[ObservationTerm, ...], Field(min_length=1)]
    action: Annotated[tuple[ActionTerm, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ratio = self.control_dt / self.physics_dt
        if abs(ratio - round(ratio)) > 1e-9 or ratio < 1:
            raise ValueError(
                f"control_dt {self.control_dt} is not a multiple of physics_dt {self.physics_dt}"
            )
        _check_unique("observation term", [t.name for t in self.observation])
        for action in self.action:
            if action.tracking is not None:
                self._check_tracking(action, action.tracking)
        _check_unique("action term", [t.name for t in self.action])
        # The later of two writers would win in silence.
        _check_unique("actuator", [name for t in self.action for name in t.mujoco.actuators])
        _check_unique(
            "ROS field", [f"{t.ros.topic} {f}" for t in self.action for f in t.ros.fields]
        )
        return self

    def _check_tracking(self, action: ActionTerm, tracking: Tracking) -> None:
        terms = {t.name: t for t in self.observation}
        where = f"action {action.name!r}: tracking.term {tracking.term!r}"
        if tracking.term not in terms:
            raise ValueError(f"{where} is no observation term. Valid: {', '.join(terms)}")
        term = terms[tracking.term]
        if (term.size, term.unit) != (action.size, action.unit):
            raise ValueError(
                f"{where} has {term.size} elements in {term.unit}, "
                f"not {action.size} in {action.unit}"
            )

    # Sizes and layout ---------------------------------------------------------------------

    @cached_property
    def observation_size(self) -> int:
        """O, elements of an observation."""
        return sum(term.size for term in self.observation)

    @cached_property
    def action_size(self) -> int:
        """A, elements of an action."""
        return sum(term.size for term in self.action)

    @cached_property
    def substeps(self) -> int:
        """Physics steps per tick."""
        return round(self.control_dt / self.physics_dt)

    @cached_property
    def observation_slices(self) -> dict[str, slice]:
        """Where each observation term lies in the vector."""
        return _slices(self.observation)

    @cached_property
    def action_slices(self) -> dict[str, slice]:
        """Where each action term lies in the vector."""
        return _slices(self.action)

    @cached_property
    def observation_names(self) -> tuple[str, ...]:
        """A label for every element of the observation, `term.0` and so on."""
        return tuple(f"{t.name}.{i}" for t in self.observation for i in range(t.size))

    @cached_property
    def action_names(self) -> tuple[str, ...]:
        """A label for every element of the action."""
        return tuple(f"{t.name}.{i}" for t in self.action for i in range(t.size))

    def with_terms(self, extra: Sequence[ObservationTerm]) -> Interface:
        """This robot with a task family's own observation terms appended.

        Raises:
            UserError: the robot has a term of the same name.
        """
        try:
            return replace(self, observation=(*self.observation, *extra))
        except ValidationError as error:
            raise invalid(f"robot {self.robot!r} with a task family's terms", error) from None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that must agree between training and robot."""
        text = json.dumps(asdict(self), sort_keys=True)  # type: ignore[call-overload]
        return hashlib.sha256(text.encode()).hexdigest()

    # The two functions --------------------------------------------------------------------

    def observe(
        self, fields: Mapping[str, NDArray[Any]], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Fields to observation.

        Args:
            fields: per term name an array (..., size) in the term's unit and frame; the leading
                axes are the same for all. Names that are no terms are ignored.
            out: written to if given, (..., O).

        Returns:
            The observation (..., O), float32.

        Raises:
            ValueError: a term is missing or has another shape; `out` is untouched then.
        """
        if missing := [term.name for term in self.observation if term.name not in fields]:
            raise ValueError(f"observation term {missing[0]!r} is missing; got {sorted(fields)}")
        lead = np.shape(fields[self.observation[0].name] if out is None else out)[:-1]
        for term in self.observation:
            if (shape := np.shape(fields[term.name])) != (*lead, term.size):
                raise ValueError(
                    f"observation term {term.name!r} has shape {shape}, not {(*lead, term.size)}"
                )
        if out is None:
            out = np.empty((*lead, self.observation_size), np.float32)
        for term in self.observation:
            scaled = fields[term.name] * term.scale
            if term.clip is not None:
                scaled = np.clip(scaled, *term.clip)
            out[..., self.observation_slices[term.name]] = scaled
        return out

    def command(self, action: NDArray[Any], previous: Floats) -> Floats:
        """Action to command in physical units: scale and offset, limit, blend, rate limit.

        Args:
            action: the policy's output (..., A).
            previous: the command of the tick before, (..., A).

        Returns:
            The command (..., A), float64.

        Raises:
            ValueError: the action is not finite, nothing may be commanded from it; or it has
                another shape than the command before.
        """
        if np.shape(action) != np.shape(previous):
            raise ValueError(f"action has shape {np.shape(action)}, not {np.shape(previous)}")
        if not np.isfinite(action).all():
            raise ValueError(f"action is not finite: {np.asarray(action).tolist()}")
        target = np.clip(self._offset + self._scale * action.astype(np.float64), *self.limits)
        target = previous + self._share * (target - previous) if self._blends else target
        return np.clip(target, previous - self._rate, previous + self._rate)

    def brake(self, previous: Floats) -> Floats:
        """One tick nearer to the safe command (..., A), as fast as the rate limit allows."""
        return np.clip(self.safe, previous - self._rate, previous + self._rate)

    def saturated(self, action: NDArray[Any]) -> NDArray[np.bool_]:
        """Elements (..., A) of an action that are cut by a limit (not: by the rate limit)."""
        target = self._offset + self._scale * action.astype(np.float64)
        return (target < self.limits[0]) | (target > self.limits[1])

    def action_for(self, command: Floats) -> Floats:
        """The action whose target is `command`: the inverse of scale and offset."""
        return (command - self._offset) / self._scale

    @cached_property
    def safe(self) -> Floats:
        """(A,) the command that stops the robot."""
        return np.concatenate([np.asarray(term.safe, np.float64) for term in self.action])

    @cached_property
    def limits(self) -> tuple[Floats, Floats]:
        """(A,) lowest and highest command."""
        return self._spread(lambda t: t.limit[0]), self._spread(lambda t: t.limit[1])

    @cached_property
    def _scale(self) -> Floats:
        return self._spread(lambda t: t.scale)

    @cached_property
    def _offset(self) -> Floats:
        return self._spread(lambda t: t.offset)

    @cached_property
    def _share(self) -> Floats:
        """(A,) part of the way to its target that a command goes in a tick."""
        tick = self.control_dt
        return self._spread(lambda t: -np.expm1(-tick / t.blend) if t.blend else 1.0)

    @cached_property
    def _blends(self) -> bool:
        return any(term.blend for term in self.action)

    @cached_property
    def _rate(self) -> Floats:
        return self._spread(lambda t: t.rate_limit * self.control_dt)

    def _spread(self, value: Any) -> Floats:
        return np.concatenate(
            [np.full(term.size, value(term), np.float64) for term in self.action]
        )


_ADAPTER = TypeAdapter(Interface)


def interface_from_dict(data: object, where: str) -> Interface:
    """Validate plain data (from YAML or JSON) into an `Interface`.

    Raises:
        UserError: one line that names `where`, the key and what is wrong with it.
    """
    try:
        # JSON mode turns lists into tuples; `default`, because YAML has dates and sets too.
        return _ADAPTER.validate_json(json.dumps(data, default=str), strict=False)
    except ValidationError as error:
        raise invalid(where, error) from None


def interface_to_dict(interface: Interface) -> dict[str, Any]:
    """The interface as plain data; `interface_from_dict` reads it back equal."""
    data: dict[str, Any] = RootModel[Interface](interface).model_dump(mode="json")
    return data


def _slices(terms: Sequence[ObservationTerm] | Sequence[ActionTerm]) -> dict[str, slice]:
    slices, start = {}, 0
    for term in terms:
        slices[term.name] = slice(start, start + term.size)
        start += term.size
    return slices


def _check_size(term: str, key: str, names: Sequence[object], size: int) -> None:
    if len(names) != size:
        raise ValueError(f"term {term!r}: {key} has {len(names)} elements, size is {size}")


def _check_unique(kind: str, names: Sequence[str]) -> None:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{kind} {repeated[0]!r} is given twice")


def _check_range(term: str, key: str, bounds: Range) -> None:
    if not bounds[0] < bounds[1]:
        raise ValueError(f"term {term!r}: {key} {bounds} is empty, the first must be the lower")
