"""What may be identified, and a reality made of what was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.errors import UserError, unknown
from sim.interface import Floats, Interface, ObservationTerm
from sim.randomization.parameters import Differences
from sim.randomization.schema import (
    LONGEST,
    Actuator,
    Dynamics,
    Pair,
    Reality,
    Sensor,
    actuator_names,
    places,
    robot_terms,
)

WIDER = 2.0  # bounds are the ranges, so many times as wide: a robot may be outside of them
SMALLEST = 0.02  # of a factor: nothing weighs or pulls nothing
NOMINAL = Reality()
# Of what cannot be told apart, the first of these stays as it is: a robot is easily weighed, its
# motors' force is not easily measured.
FIRST_KEPT = (
    "payload_kg",
    "mass_factor",
    "body_mass_factors",
    "armature_factor",
    "gravity_offset",
    "joint_friction",
    "damping_factor",
    "friction_factor",
    "bias",
    "sensor_delay",
    "scale",
    "command_factor",
    "gain_factor",
    "command_delay",
)
DELAYS = ("command_delay", "sensor_delay")
POSITIVE = ("mass_factor", "body_mass_factors", "friction_factor", "gain_factor")
NON_NEGATIVE = ("payload_kg", "damping_factor", "armature_factor", "joint_friction")
# From the quantity's name to the key's, where they differ.
KEYS = {"command_delay": "delay_s", "sensor_delay": "delay_s"}


@dataclass(frozen=True)
class Unknown:
    """One number that a recording may tell."""

    name: str  # such as drive_x.gain_factor
    quantity: str  # of sim.randomization.parameters.quantities
    element: int  # of the quantity
    known: float  # what it is taken for, if the recording does not tell
    width: float  # of its range
    low: float  # bounds
    high: float


def unknowns(
    interface: Interface, bodies: Sequence[str], known: Reality, ranges: Reality
) -> list[Unknown]:
    """All that has a range, but for what changes at random: noise, dropouts and pushes.

    Of terms that show the same, the first stands for the others.
    """
    size = Differences(interface, bodies, NOMINAL, ranges)
    ends = size.draw(np.array([np.zeros(size.size), np.ones(size.size)]))
    base = values_of(interface, bodies, known)
    names = _names(interface, bodies)
    found = []
    for quantity in FIRST_KEPT:
        low, high = size.of(ends, quantity)
        start = size.of(base[None], quantity)[0]
        for i, name in enumerate(names[quantity]):
            if high[i] > low[i] and name:
                half = (high[i] - low[i]) / 2
                middle = (high[i] + low[i]) / 2
                bounds = _bounds(quantity, middle - WIDER * half, middle + WIDER * half)
                bounds = min(bounds[0], start[i]), max(bounds[1], start[i])
                found.append(Unknown(name, quantity, i, float(start[i]), 2 * half, *bounds))
    return found


def _bounds(quantity: str, low: float, high: float) -> tuple[float, float]:
    if quantity in POSITIVE:
        return max(low, SMALLEST), high
    if quantity in NON_NEGATIVE:
        return max(low, 0.0), high
    if quantity in DELAYS:
        return max(low, 0.0), min(high, LONGEST)
    return low, high


def _names(interface: Interface, bodies: Sequence[str]) -> dict[str, list[str]]:
    """Per quantity a name for each element; empty where it is another one's twin."""
    motors, terms = actuator_names(interface), robot_terms(interface)
    twins = [twin_of(terms, i) for i in range(len(terms))]
    own = [t.name if twins[i] == i else "" for i, t in enumerate(terms)]

    def each(owners: Sequence[str], key: str) -> list[str]:
        return [f"{owner}.{key}" if owner else "" for owner in owners]

    bias = [
        f"{name}.element_bias.{i}" if name else ""
        for name, term in zip(own, terms, strict=True)
        for i in range(term.size)
    ]
    plain = (
        *("payload_kg", "mass_factor", "armature_factor", "damping_factor", "friction_factor"),
        "joint_friction",
    )
    return {
        **{key: [key] for key in plain},
        "body_mass_factors": each(bodies, "body_mass_factors"),
        "gravity_offset": [f"gravity_offset_m_s2.{i}" for i in range(3)],
        "bias": bias,
        "sensor_delay": each(own, "delay_s"),
        "scale": each(own, "scale"),
        "command_factor": each(motors, "command_factor"),
        "gain_factor": each(motors, "gain_factor"),
        "command_delay": each(motors, "delay_s"),
    }


def twin_of(terms: Sequence[ObservationTerm], index: int) -> int:
    """The first term that shows something of what this one shows; itself if there is none."""
    shown = set(places(terms[index]))
    return next(i for i in range(index + 1) if shown & set(places(terms[i])))


def chosen(found: Sequence[Unknown], only: Sequence[str], keep: Sequence[str]) -> list[Unknown]:
    """Those that shall be identified; a key such as gain_factor stands for all that end so.

    Raises:
        UserError: a name that nothing has, or nothing is left.
    """
    for name in (*only, *keep):
        if not _named(found, name):
            raise unknown("parameter", name, [each.name for each in found])
    wanted = {each for name in only for each in _named(found, name)} if only else {*found}
    kept = {each for name in keep for each in _named(found, name)}
    left = [each for each in found if each in wanted - kept]
    if not left:
        raise UserError("no parameter is left to identify")
    return left


def _named(found: Sequence[Unknown], name: str) -> list[Unknown]:
    """What has this name or is of what has it; if nothing is, all that end so.

    A motor called 1 is not every second element of something else.
    """
    own = [each for each in found if each.name == name or each.name.startswith(f"{name}.")]
    return own or [each for each in found if each.name.endswith(f".{name}")]


# Values and realities ---------------------------------------------------------------------------


def values_of(interface: Interface, bodies: Sequence[str], reality: Reality) -> Floats:
    """(n,) the vector of `Differences` that a reality stands for."""
    size = Differences(interface, bodies, reality, NOMINAL)
    values: Floats = size.draw(np.zeros((1, size.size)))[0]
    return values


def reality_of(
    interface: Interface, bodies: Sequence[str], values: Floats, known: Reality
) -> Reality:
    """The reality with these values; dropouts and pushes are the known ones."""
    size = Differences(interface, bodies, NOMINAL, NOMINAL)

    def of(name: str) -> list[float]:
        return [_round(v) for v in size.of(values[None], name)[0].tolist()]

    def one(name: str) -> tuple[float, float]:
        return _pair(of(name)[0])

    physics = Dynamics(
        mass_factor=one("mass_factor"),
        body_mass_factors={
            body: _pair(v)
            for body, v in zip(bodies, of("body_mass_factors"), strict=True)
            if v != 1
        },
        payload_kg=one("payload_kg"),
        friction_factor=one("friction_factor"),
        damping_factor=one("damping_factor"),
        armature_factor=one("armature_factor"),
        joint_friction=one("joint_friction"),
        gravity_offset_m_s2=_three(of("gravity_offset")),
    )
    motors = {
        name: Actuator(_pair(gain), _pair(command), _pair(delay))
        for name, gain, command, delay in zip(
            actuator_names(interface),
            of("gain_factor"),
            of("command_factor"),
            of("command_delay"),
            strict=True,
        )
    }
    return Reality(
        physics=physics,
        actuators={k: v for k, v in motors.items() if v != Actuator()},
        sensors=dict(_sensors(interface, of, known)),
        pushes=known.pushes,
    )


def _sensors(interface: Interface, of: object, known: Reality) -> Iterator[tuple[str, Sensor]]:
    assert callable(of)
    terms = robot_terms(interface)
    delay, scale, noise, bias = (of(n) for n in ("sensor_delay", "scale", "noise", "bias"))
    first = np.cumsum([0, *(term.size for term in terms)]).tolist()
    made: list[Sensor] = []
    for i, term in enumerate(terms):
        own = bias[first[i] : first[i] + term.size]
        dropout = known.sensors.get(term.name, Sensor()).dropout
        sensor = Sensor(
            delay_s=_pair(delay[i]),
            scale=_pair(scale[i]),
            element_bias=tuple(_pair(v) for v in own) if any(own) else (),
            noise=_pair(noise[i]),
            dropout=dropout,
        )
        if (twin := twin_of(terms, i)) != i:
            sensor = replace(made[twin], element_bias=sensor.element_bias)
        made.append(sensor)
        if sensor != Sensor():
            yield term.name, sensor


def _pair(value: float) -> tuple[float, float]:
    return value, value


def _three(values: list[float]) -> tuple[Pair, Pair, Pair]:
    x, y, z = values
    return _pair(x), _pair(y), _pair(z)


def _round(value: float) -> float:
    """Six digits: a file that one can read."""
    return float(f"{value:.6g}")
