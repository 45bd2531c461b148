"""reality.yaml: what differs from the nominal model, in one robot or in a range of them.

Every key is optional and means `as nominal` where it is missing. Where a number stands, a range
[low, high] may stand in a robot's randomise.yaml, from which each episode draws its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sim.errors import UserError, invalid, short, unknown
from sim.files.lookup import find
from sim.files.strict_yaml import read_mapping
from sim.interface import LARGEST, STRICT, Interface, ObservationTerm

if TYPE_CHECKING:
    from sim.physics.robot_model import Robot

SCHEMA = 1
FOLDER, RANGES = "realities", "randomise.yaml"  # of a robot
LONGEST = 2.0  # s, of a delay: every physics step of it is kept
Pair = tuple[float, float]


def _pair(value: object) -> Pair:
    """A number is a range of one."""
    pair = value if isinstance(value, (list, tuple)) else (value, value)
    try:
        if len(pair) != 2 or any(isinstance(each, (bool, str)) for each in pair):
            raise ValueError
        low, high = (float(each) for each in pair)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"neither a number nor [low, high], got {short(value)}") from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"not finite, got {short(value)}")
    if low > high:
        raise ValueError(f"the first must be the lower, got {short(value)}")
    if max(-low, high) > LARGEST:
        raise ValueError(f"beyond -{LARGEST:g} .. {LARGEST:g}, got {short(value)}")
    return low, high


def _within(low: float, high: float = math.inf, *, open_: bool = False) -> AfterValidator:
    def check(pair: Pair) -> Pair:
        for value in pair:
            if value < low or value > high or (open_ and value == low):
                least = f"greater than {low:g}" if open_ else f"{low:g} or more"
                most = "" if high == math.inf else f", {high:g} at most"
                raise ValueError(f"must be {least}{most}, got {value:g}")
        return pair

    return AfterValidator(check)


def _plain(pair: Pair) -> object:
    return pair[0] if pair[0] == pair[1] else list(pair)


Spread = Annotated[Pair, BeforeValidator(_pair), PlainSerializer(_plain)]
Positive = Annotated[Spread, _within(0, open_=True)]
NonNegative = Annotated[Spread, _within(0)]
Delay = Annotated[Spread, _within(0, LONGEST)]
Chance = Annotated[Spread, _within(0, 1)]
ONE, ZERO = (1.0, 1.0), (0.0, 0.0)


@dataclass(frozen=True, config=STRICT)
class Dynamics:
    """Bodies, joints and ground."""

    mass_factor: Positive = ONE  # multiplies mass and inertia of every body
    # Multiply mass and inertia of single bodies, by name, in addition to mass_factor.
    body_mass_factors: dict[str, Positive] = field(default_factory=dict)
    payload_kg: NonNegative = ZERO  # mass added in the center of mass of base_link
    friction_factor: Positive = ONE  # multiplies the sliding friction of all contacts
    damping_factor: NonNegative = ONE  # multiplies the damping of all joints
    armature_factor: NonNegative = ONE  # multiplies the armature of all joints
    joint_friction: NonNegative = ZERO  # dry friction added to all joints, N m (hinge) or N
    # Added to gravity, along x, y and z of the world.
    gravity_offset_m_s2: tuple[Spread, Spread, Spread] = (ZERO, ZERO, ZERO)


@dataclass(frozen=True, config=STRICT)
class Actuator:
    """A motor, by the name of its MuJoCo actuator."""

    gain_factor: NonNegative = ONE  # multiplies the force and its limit
    command_factor: Spread = ONE  # multiplies the command; the result is not cut at ctrlrange
    delay_s: Delay = ZERO  # time until a command acts, at most 2 s


@dataclass(frozen=True, config=STRICT)
class Sensor:
    """What is shown of an observation term, by its name. Units are the term's."""

    delay_s: Delay = ZERO  # age of the measurement, at most 2 s
    scale: Spread = ONE  # multiplies the value
    bias: Spread = ZERO  # added to each element; a range is drawn separately for each
    element_bias: tuple[Spread, ...] = ()  # added to single elements, in addition to bias
    noise: NonNegative = ZERO  # standard deviation per tick, in addition to the interface's
    dropout: Chance = ZERO  # probability per tick that the previous value is repeated

    @property
    def changes_values(self) -> bool:
        """Whether anything is done to the numbers themselves."""
        plain = Sensor(delay_s=self.delay_s, dropout=self.dropout)
        return self != plain


@dataclass(frozen=True, config=STRICT)
class Pushes:
    """Blows that change the velocity of the base, each in a direction of its own."""

    velocity_m_s: NonNegative  # change of the base's velocity, in a random direction
    every_s: Positive  # time between two pushes; the first comes after it


@dataclass(frozen=True, config=STRICT)
class Reality:
    """What differs from the nominal model."""

    physics: Dynamics = Dynamics()  # bodies, joints and ground
    actuators: dict[str, Actuator] = field(default_factory=dict)  # by name of the actuator
    sensors: dict[str, Sensor] = field(default_factory=dict)  # by name of the observation term
    pushes: Pushes | None = None  # null: none


_ADAPTER = TypeAdapter(Reality)


def reality_from_dict(data: object, where: str) -> Reality:
    """Validate plain data; numbers may be ranges.

    Raises:
        UserError: one line that names `where`, the key and what is wrong with it.
    """
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        raise invalid(where, error) from None


def reality_to_dict(reality: Reality) -> dict[str, Any]:
    """Plain data of what is not as nominal; `reality_from_dict` reads it back equal."""
    data: dict[str, Any] = _ADAPTER.dump_python(reality, mode="json", exclude_defaults=True)
    return data


def read_reality(path: Path) -> Reality:
    """One robot's reality.

    Raises:
        UserError: the file is missing, no YAML mapping, of another schema, or does not hold; or
            a number is a range.
    """
    reality = _read(path)
    if ranges := list(_ranges(_ADAPTER.dump_python(reality))):
        raise UserError(
            f"{path}: {ranges[0]}: one number is expected; a range is for {RANGES} of a robot"
        )
    return reality


def read_ranges(robot: Robot) -> Reality:
    """What a robot's randomise.yaml gives ranges of.

    Raises:
        UserError: it has none, it does not hold, or it names what the robot does not have.
    """
    path = robot.model_path.with_name(RANGES)
    if not path.is_file():
        raise UserError(
            f"robot {robot.name!r} cannot be randomised: {path} does not exist; see "
            "docs/reality.md"
        )
    return load_ranges(path, robot)


def load_ranges(path: Path, robot: Robot) -> Reality:
    """Ranges of a file.

    Raises:
        UserError: it is missing, does not hold, or names what the robot does not have.
    """
    reality = _read(path)
    check_reality(reality, robot.interface, str(path))
    return reality


def reality_names(robot: Robot) -> list[str]:
    """The realities that come with a robot."""
    return sorted(p.stem for p in robot.model_path.parent.glob(f"{FOLDER}/*.yaml"))


def load_reality(name: str, robot: Robot) -> Reality:
    """A reality that comes with the robot by name, or a file by path.

    Raises:
        UserError: there is none, it does not hold, or it names what the robot does not have.
    """
    folder = robot.model_path.parent / FOLDER
    shipped = {each: folder / f"{each}.yaml" for each in reality_names(robot)}
    path = find("reality", name, shipped, "; or a file")
    reality = read_reality(path)
    check_reality(reality, robot.interface, str(path))
    return reality


def _read(path: Path) -> Reality:
    data = read_mapping(path)
    schema = data.pop("schema", None)
    if schema != SCHEMA:
        raise UserError(f"{path}: schema {short(schema)} is not known. Valid: {SCHEMA}")
    return reality_from_dict(data, str(path))


def _ranges(data: object, key: str = "") -> Iterator[str]:
    """The keys where a range stands."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from _ranges(value, f"{key}.{name}" if key else str(name))
    elif isinstance(data, tuple):
        for i, value in enumerate(data):
            yield from _ranges(value, f"{key}.{i}")
    elif isinstance(data, list):
        yield key


# What a robot has ----------------------------------------------------------------------------


def robot_terms(interface: Interface) -> list[ObservationTerm]:
    """The terms that are the robot's own, not a task family's."""
    return [term for term in interface.observation if not term.mujoco.task]


def actuator_names(interface: Interface) -> list[str]:
    """The actuators that commands drive, in the order of a command's elements."""
    return [name for term in interface.action for name in term.mujoco.actuators]


def places(term: ObservationTerm) -> list[tuple[str, str]]:
    """Where each element of a term stands in ROS."""
    return [(term.ros.topic, path) for path in term.ros.fields]


def check_reality(reality: Reality, interface: Interface, where: str) -> None:
    """Refuse what names an actuator or a term that the robot does not have, or does not fit it.

    Raises:
        UserError: names `where`, the thing and the valid choices.
    """
    actuators = actuator_names(interface)
    for name in reality.actuators:
        if name not in actuators:
            raise UserError(f"{where}: actuators: {unknown('actuator', name, actuators)}")
    terms = {term.name: term for term in robot_terms(interface)}
    for name, sensor in reality.sensors.items():
        if name not in terms:
            raise UserError(f"{where}: sensors: {unknown('observation term', name, terms)}")
        _check_sensor(sensor, terms[name], f"{where}: sensors: {name}")
    for one, two in combinations(terms.values(), 2):
        _check_shared(reality, one, two, where)


def _check_sensor(sensor: Sensor, term: ObservationTerm, where: str) -> None:
    if sensor.element_bias and len(sensor.element_bias) != term.size:
        raise UserError(
            f"{where}: element_bias has {len(sensor.element_bias)} elements, the term {term.size}"
        )
    if term.derive is not None and sensor.changes_values:
        raise UserError(
            f"{where}: is read from a quaternion, whose length is 1; valid: delay_s, dropout"
        )


def _check_shared(
    reality: Reality, one: ObservationTerm, two: ObservationTerm, where: str
) -> None:
    """One message has one value in a place, whichever term reads it."""
    shared = set(places(one)) & set(places(two))
    if not shared:
        return
    first, second = (reality.sensors.get(term.name, Sensor()) for term in (one, two))
    biased = first.bias != ZERO or first.element_bias
    if first != second or (biased and places(one) != places(two)):
        topic, path = sorted(shared)[0]
        raise UserError(
            f"{where}: sensors: {one.name} and {two.name} both show {topic} {path}; give both the "
            "same"
        )
