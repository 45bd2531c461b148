"""Every number that may differ between simulations as one vector; what an episode draws of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats, Interface
from sim.randomization.schema import (
    ZERO,
    Actuator,
    Pair,
    Reality,
    Sensor,
    actuator_names,
    places,
    robot_terms,
)


@dataclass(frozen=True)
class Quantity:
    """Some elements of the vector."""

    size: int
    nominal: float
    combine: Callable[[Floats, Floats], Floats]  # a reality's value, what is drawn around it


def _either(base: Floats, drawn: Floats) -> Floats:
    return np.asarray(np.where(drawn > 0, drawn, base))


def _at_least_one(base: Floats, drawn: Floats) -> Floats:
    return 1 - (1 - base) * (1 - drawn)


def quantities(interface: Interface, bodies: int) -> dict[str, Quantity]:
    """What the vector is made of, in order."""
    terms, motors = robot_terms(interface), len(actuator_names(interface))
    elements = sum(term.size for term in terms)

    def factor(size: int = 1) -> Quantity:
        return Quantity(size, 1.0, np.multiply)

    def amount(size: int = 1) -> Quantity:
        return Quantity(size, 0.0, np.add)

    return {
        "mass_factor": factor(),
        "body_mass_factors": factor(bodies),
        "payload_kg": amount(),
        "friction_factor": factor(),
        "damping_factor": factor(),
        "armature_factor": factor(),
        "gravity_offset": amount(3),
        "gain_factor": factor(motors),
        "command_factor": factor(motors),
        "command_delay": amount(motors),
        "sensor_delay": amount(len(terms)),
        "scale": factor(len(terms)),
        "bias": amount(elements),
        "noise": Quantity(len(terms), 0.0, np.hypot),
        "dropout": Quantity(len(terms), 0.0, _at_least_one),
        "push_velocity": Quantity(1, 0.0, _either),
        "push_every": Quantity(1, 0.0, _either),
        "joint_friction": amount(),  # last: what episodes draw of the others stays what it was
    }


class Differences:
    """How simulations differ from the nominal model, and from each other.

    Args:
        interface: of the robot.
        bodies: names of the model's bodies, in order.
        reality: fixed: what all of them have in common.
        ranges: what each episode draws around it.

    Attributes:
        size: n, elements of a vector of values.
    """

    def __init__(
        self, interface: Interface, bodies: Sequence[str], reality: Reality, ranges: Reality
    ) -> None:
        self._quantities = quantities(interface, len(bodies))
        starts = np.cumsum([0, *(q.size for q in self._quantities.values())]).tolist()
        self.size = starts[-1]
        self._slices = {
            name: slice(start, start + q.size)
            for (name, q), start in zip(self._quantities.items(), starts, strict=False)
        }
        base = _flat(reality, interface, bodies)
        if (base[:, 0] != base[:, 1]).any():
            raise ValueError("a reality is one robot: its numbers are no ranges")
        self._base = base[:, 0]
        self._low, self._high = _flat(ranges, interface, bodies).T
        self._copies, self._copied = self._shared(interface)

    def draw(self, share: Floats) -> Floats:
        """Values (k, n), for shares (k, n) of the way through each range, 0 to 1."""
        drawn = self._low + (self._high - self._low) * share
        drawn[:, self._copies] = drawn[:, self._copied]
        values: Floats = np.empty_like(drawn)
        for name, quantity in self._quantities.items():
            where = self._slices[name]
            values[:, where] = quantity.combine(self._base[where], drawn[:, where])
        return values

    def of(self, values: Floats, name: str) -> Floats:
        """The part (k, size) of values (k, n) that is quantity `name`; a view."""
        return values[:, self._slices[name]]

    def changed(self, name: str) -> NDArray[np.bool_]:
        """(size,) which elements of a quantity may be other than nominal."""
        where, nominal = self._slices[name], self._quantities[name].nominal
        ends = np.stack([self._base[where], self._low[where], self._high[where]])
        return np.asarray((ends != nominal).any(axis=0))

    def differs(self, *names: str) -> bool:
        """Whether anything of these quantities may be other than nominal."""
        return any(self.changed(name).any() for name in names)

    def most(self, name: str) -> Floats:
        """(size,) the largest value that a quantity may have."""
        most: Floats = self.of(self.draw(np.ones((1, self.size))), name)[0]
        return most

    def _shared(self, interface: Interface) -> tuple[list[int], list[int]]:
        """Elements of terms that show what a term before them shows, and those of that term.

        `check_reality` saw to it that their ranges are equal.
        """
        terms = robot_terms(interface)
        first = np.cumsum([0, *(term.size for term in terms)]).tolist()
        source: dict[int, int] = {}
        copies: list[int] = []
        copied: list[int] = []
        for j, term in enumerate(terms):
            shown = set(places(term))
            i = next((i for i, t in enumerate(terms[:j]) if shown & set(places(t))), None)
            if i is None:
                continue
            i = source[j] = source.get(i, i)
            for name in ("sensor_delay", "scale", "noise", "dropout"):
                copies.append(self._slices[name].start + j)
                copied.append(self._slices[name].start + i)
            if places(terms[i]) == places(term):
                bias = self._slices["bias"].start
                copies += range(bias + first[j], bias + first[j] + term.size)
                copied += range(bias + first[i], bias + first[i] + term.size)
        return copies, copied


def _flat(reality: Reality, interface: Interface, bodies: Sequence[str]) -> Floats:
    """(n, 2) lowest and highest value of every element, in the order of `quantities`."""
    physics = reality.physics
    motors = [reality.actuators.get(name, Actuator()) for name in actuator_names(interface)]
    terms = robot_terms(interface)
    sensors = [reality.sensors.get(term.name, Sensor()) for term in terms]
    push = reality.pushes
    parts: list[Iterable[Pair]] = [
        [physics.mass_factor],
        (physics.body_mass_factors.get(name, (1.0, 1.0)) for name in bodies),
        [physics.payload_kg],
        [physics.friction_factor],
        [physics.damping_factor],
        [physics.armature_factor],
        physics.gravity_offset_m_s2,
        (motor.gain_factor for motor in motors),
        (motor.command_factor for motor in motors),
        (motor.delay_s for motor in motors),
        (sensor.delay_s for sensor in sensors),
        (sensor.scale for sensor in sensors),
        (pair for s, term in zip(sensors, terms, strict=True) for pair in _biases(s, term.size)),
        (sensor.noise for sensor in sensors),
        (sensor.dropout for sensor in sensors),
        [push.velocity_m_s if push else ZERO],
        [push.every_s if push else ZERO],
        [physics.joint_friction],
    ]
    return np.array([pair for part in parts for pair in part], np.float64)


def _biases(sensor: Sensor, size: int) -> Iterable[Pair]:
    own = sensor.element_bias or (ZERO,) * size
    return ((sensor.bias[0] + low, sensor.bias[1] + high) for low, high in own)
