"""Schema of sim parameters: deviations from the nominal model, of one robot or of a range.

Every key is optional; a missing key is nominal. In domain_randomization.yaml of a robot a range
[low, high] may take the place of a number; each episode draws its value from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    TypeAdapter,
)
from pydantic.dataclasses import dataclass

from sim.errors import UserError, short, unknown, validated
from sim.files.lookup import find
from sim.files.migrations import SIM_PARAMS, check_schema
from sim.files.strict_yaml import read_mapping
from sim.interface import LARGEST, STRICT, Interface, ObservationTerm
from sim.randomization.quantities import ANY, TABLE, Bounds, Per, Quantity

if TYPE_CHECKING:
    from sim.physics.robot_model import Robot

FOLDER, RANGES = "sim_params", "domain_randomization.yaml"  # of a robot
Pair = tuple[float, float]


def _pair(value: object) -> Pair:
    """Convert a number to a range of a single value."""
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


def _within(bounds: Bounds) -> AfterValidator:
    low, high = bounds.low, bounds.high

    def check(pair: Pair) -> Pair:
        for value in pair:
            if value < low or value > high or (bounds.above_low and value == low):
                least = f"greater than {low:g}" if bounds.above_low else f"{low:g} or more"
                most = "" if high == math.inf else f", {high:g} at most"
                raise ValueError(f"must be {least}{most}, got {value:g}")
        return pair

    return AfterValidator(check)


def _plain(pair: Pair) -> object:
    return pair[0] if pair[0] == pair[1] else list(pair)


Spread = Annotated[Pair, BeforeValidator(_pair), PlainSerializer(_plain)]


class Section:
    """A section of sim parameters: attributes are keys of the table, a number or a range each."""

    if TYPE_CHECKING:

        def __init__(self, **values: Any) -> None: ...

        def __getattr__(self, key: str) -> Any: ...


def _section(name: str, section: str, doc: str, *, required: bool = False) -> type[Section]:
    """Create the dataclass of a section, with a field for each of its rows in the table."""
    annotations: dict[str, object] = {}
    fields: dict[str, object] = {}
    for row in TABLE:
        if row.section == section:
            kind, default = _type(row)
            annotations[row.key] = kind
            start = ... if required else default
            fields[row.key] = Field(default=start, description=row.effect)
            if row.element_key:
                effect = f"Added to single elements, in addition to {row.key}."
                annotations[row.element_key] = tuple[Spread, ...]
                fields[row.element_key] = Field(default=(), description=effect)
    body = {"__annotations__": annotations, "__module__": __name__, "__doc__": doc}
    made = type(name, (Section,), body | fields)
    dataclass(frozen=True, config=STRICT)(made)
    return made


def _type(row: Quantity) -> tuple[object, object]:
    """Returns type and default of a row."""
    number = Spread if row.bounds == ANY else Annotated[Spread, _within(row.bounds)]
    nominal = row.nominal, row.nominal
    if row.per is Per.BODY:
        return dict[str, number], {}  # type: ignore[valid-type]
    if row.per is Per.AXIS:
        return tuple[number, number, number], (nominal,) * 3  # type: ignore[valid-type]
    return number, nominal


if TYPE_CHECKING:
    Dynamics = Section
    Actuator = Section
    Sensor = Section
    Imu = Section
    Pushes = Section
else:
    Dynamics = _section("Dynamics", "physics", "Bodies, joints and ground.")
    Actuator = _section("Actuator", "actuators", "A motor, by the name of its MuJoCo actuator.")
    Sensor = _section("Sensor", "sensors", "What is shown of an observation term, by its name.")
    Imu = _section("Imu", "imu", "How the IMU is mounted.")
    Pushes = _section("Pushes", "pushes", "Pushes against the base.", required=True)


@dataclass(frozen=True, config=STRICT)
class SimParams:
    """Differences from the nominal model."""

    physics: Dynamics = Dynamics()  # bodies, joints and ground
    actuators: dict[str, Actuator] = field(default_factory=dict)  # by name of the actuator
    sensors: dict[str, Sensor] = field(default_factory=dict)  # by name of the observation term
    imu: Imu = Imu()  # how the IMU is mounted
    pushes: Pushes | None = None  # null: none


_ADAPTER = TypeAdapter(SimParams)


def sim_params_from_dict(data: object, where: str) -> SimParams:
    """Validate plain data; numbers may be ranges.

    Raises:
        UserError: one line that names `where`, the key and what is wrong with it.
    """
    return validated(_ADAPTER, data, where)


def sim_params_to_dict(sim_params: SimParams) -> dict[str, Any]:
    """Returns plain data of all values that are not nominal; inverse of `sim_params_from_dict`."""
    data: dict[str, Any] = _ADAPTER.dump_python(sim_params, mode="json", exclude_defaults=True)
    return data


def read_sim_params(path: Path) -> SimParams:
    """One robot's sim parameters.

    Raises:
        UserError: the file is missing, no YAML mapping, of another schema, or invalid; or
            a number is a range.
    """
    sim_params = _read(path)
    if ranges := list(_ranges(_ADAPTER.dump_python(sim_params))):
        raise UserError(
            f"{path}: {ranges[0]}: one number is expected; a range is for {RANGES} of a robot"
        )
    return sim_params


def read_ranges(robot: Robot) -> SimParams:
    """Returns the ranges in a robot's domain_randomization.yaml.

    Raises:
        UserError: the file is missing or invalid, or it names a part that the robot does not have.
    """
    path = robot.model_path.with_name(RANGES)
    if not path.is_file():
        raise UserError(
            f"robot {robot.name!r} cannot be randomized: {path} does not exist; see "
            "docs/sim-params.md"
        )
    return load_ranges(path, robot)


def load_ranges(path: Path, robot: Robot) -> SimParams:
    """Load ranges from a file.

    Raises:
        UserError: it is missing, invalid, or has a name that the robot does not have.
    """
    sim_params = _read(path)
    check_sim_params(sim_params, robot.interface, str(path))
    return sim_params


def sim_params_names(robot: Robot) -> list[str]:
    """Names of the sim-parameter files that are shipped with the robot."""
    return sorted(p.stem for p in robot.model_path.parent.glob(f"{FOLDER}/*.yaml"))


def load_sim_params(name: str, robot: Robot) -> SimParams:
    """Load a set of sim parameters that is shipped with the robot by name, or a file by path.

    Raises:
        UserError: it is missing, invalid, or has a name that the robot does not have.
    """
    folder = robot.model_path.parent / FOLDER
    shipped = {each: folder / f"{each}.yaml" for each in sim_params_names(robot)}
    path = find("sim parameters", name, shipped, "; or a file")
    sim_params = read_sim_params(path)
    check_sim_params(sim_params, robot.interface, str(path))
    return sim_params


def _read(path: Path) -> SimParams:
    data = read_mapping(path)
    check_schema(data, SIM_PARAMS, path, path)
    del data["schema"]
    return sim_params_from_dict(data, str(path))


def _ranges(data: object, key: str = "") -> Iterator[str]:
    """Yields the keys whose value is a range."""
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


def first_of_shared(terms: Sequence[ObservationTerm]) -> list[int]:
    """(len(terms),) the first term with which each one shares a value of a message, or itself."""
    first: list[int] = []
    for j, term in enumerate(terms):
        shown = set(message_values(term))
        i = next((i for i, t in enumerate(terms[:j]) if shown & set(message_values(t))), j)
        first.append(first[i] if i < j else j)
    return first


def message_values(term: ObservationTerm) -> list[tuple[str, str]]:
    """Returns topic and path of each element of a term in ROS."""
    return [(term.ros.topic, path) for path in term.ros.fields]


def check_sim_params(sim_params: SimParams, interface: Interface, where: str) -> None:
    """Refuse an actuator or a term that the robot does not have, or values that do not fit it.

    Raises:
        UserError: names `where`, the thing and the valid choices.
    """
    actuators = actuator_names(interface)
    for name in sim_params.actuators:
        if name not in actuators:
            raise UserError(f"{where}: actuators: {unknown('actuator', name, actuators)}")
    terms = {term.name: term for term in robot_terms(interface)}
    for name, sensor in sim_params.sensors.items():
        if name not in terms:
            raise UserError(f"{where}: sensors: {unknown('observation term', name, terms)}")
        _check_sensor(sensor, terms[name], f"{where}: sensors: {name}")
    if sim_params.imu != Imu():
        _check_imu(terms.values(), where)
    for one, two in combinations(terms.values(), 2):
        _check_shared(sim_params, one, two, where)


def is_of_imu(term: ObservationTerm) -> bool:
    """True if a term is read from an IMU."""
    return term.ros.type == "sensor_msgs/msg/Imu"


def _check_imu(terms: Iterable[ObservationTerm], where: str) -> None:
    """Refuse to turn the IMU of a robot without one, or of which a vector is not known whole."""
    seen = [term for term in terms if is_of_imu(term)]
    if not seen:
        raise UserError(
            f"{where}: imu: the robot has no term that is read from sensor_msgs/msg/Imu"
        )
    for term in seen:
        last = "".join(path.rpartition(".")[2] for path in term.ros.fields)
        if last not in ("xyz", "wxyz"):
            raise UserError(
                f"{where}: imu: term {term.name!r} has {', '.join(term.ros.fields)}; only the "
                "whole of a vector, x, y, z, or of a quaternion, w, x, y, z, can be turned"
            )


def _check_sensor(sensor: Sensor, term: ObservationTerm, where: str) -> None:
    if sensor.element_bias and len(sensor.element_bias) != term.size:
        raise UserError(
            f"{where}: element_bias has {len(sensor.element_bias)} elements, the term {term.size}"
        )
    late_only = Sensor(delay_s=sensor.delay_s, dropout=sensor.dropout)
    if term.derive is not None and sensor != late_only:
        raise UserError(
            f"{where}: is read from a quaternion, whose length is 1; valid: delay_s, dropout"
        )


def _check_shared(
    sim_params: SimParams, one: ObservationTerm, two: ObservationTerm, where: str
) -> None:
    """Refuse different settings for terms that read the same value of a message."""
    shared = set(message_values(one)) & set(message_values(two))
    if not shared:
        return
    first, second = (sim_params.sensors.get(term.name, Sensor()) for term in (one, two))
    biased = first.bias != (0.0, 0.0) or first.element_bias
    if first != second or (biased and message_values(one) != message_values(two)):
        topic, path = sorted(shared)[0]
        raise UserError(
            f"{where}: sensors: {one.name} and {two.name} both show {topic} {path}; give both the "
            "same"
        )
