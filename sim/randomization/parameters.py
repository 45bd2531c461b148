"""The deviations of a batch as one parameter vector, drawn anew for each episode from ranges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats, Interface
from sim.randomization.quantities import ROWS, VECTOR, Per, Quantity
from sim.randomization.schema import (
    Actuator,
    Pair,
    Section,
    Sensor,
    SimParams,
    actuator_names,
    first_of_shared,
    message_values,
    robot_terms,
    sim_params_from_dict,
)


class ParameterVector:
    """Differences of simulations from the nominal model, as vectors.

    Args:
        interface: of the robot.
        bodies: names of the model's bodies, in order.
        sim_params: fixed: what all of them have in common.
        ranges: what each episode draws around it.

    Attributes:
        size: n, elements of a vector of values.
    """

    def __init__(
        self, interface: Interface, bodies: Sequence[str], sim_params: SimParams, ranges: SimParams
    ) -> None:
        self._actuators, self._terms = actuator_names(interface), robot_terms(interface)
        self._bodies = bodies
        first = np.cumsum([0, *(term.size for term in self._terms)]).tolist()
        self._elements = [slice(a, b) for a, b in pairwise(first)]
        sizes = {
            Per.ROBOT: 1,
            Per.BODY: len(bodies),
            Per.AXIS: 3,
            Per.ACTUATOR: len(self._actuators),
            Per.TERM: len(self._terms),
            Per.ELEMENT: first[-1],
        }
        starts = np.cumsum([0, *(sizes[row.per] for row in VECTOR)]).tolist()
        self.size = starts[-1]
        self._slices = {
            row.name: slice(start, start + sizes[row.per])
            for row, start in zip(VECTOR, starts, strict=False)
        }
        base = self._ends(sim_params)
        if (base[:, 0] != base[:, 1]).any():
            raise ValueError("sim parameters are of one robot: its numbers are no ranges")
        self._base = base[:, 0]
        self._low, self._high = self._ends(ranges).T
        # A time between pushes is no deviation: pushes grow by their velocity.
        self._nominal = np.concatenate(
            [
                np.full(
                    sizes[row.per],
                    np.nan if row.bounds.above_low and row.nominal == 0 else row.nominal,
                )
                for row in VECTOR
            ]
        )
        self._copies, self._copied = self._shared()

    def draw(self, share: Floats, spread: float = 1.0) -> Floats:
        """Values (k, n) at positions (k, n) in each range.

        Args:
            share: 0 to 1, from the lowest end to the highest.
            spread: part of the way from nominal to a drawn value, 0 to 1.
        """
        drawn = self._low + (self._high - self._low) * share
        if spread < 1:
            nearer = self._nominal + spread * (drawn - self._nominal)
            drawn = np.where(np.isnan(self._nominal), drawn, nearer)
        self.share(drawn)
        values: Floats = np.empty_like(drawn)
        for row in VECTOR:
            where = self._slices[row.name]
            values[:, where] = row.combination.apply(self._base[where], drawn[:, where])
        return values

    @property
    def fixed(self) -> Floats:
        """(n,) the values at the lowest end of all ranges: those without ranges."""
        values: Floats = self.draw(np.zeros((1, self.size)))[0]
        return values

    def of(self, values: Floats, name: str) -> Floats:
        """The part (k, size) of values (k, n) that is quantity `name`; a view."""
        return values[:, self._slices[name]]

    @property
    def varying(self) -> NDArray[np.bool_]:
        """(n,) True for elements that are drawn from a range; a copy of another's is none."""
        varies = np.asarray(self._low != self._high)
        varies[self._copies] = False
        return varies

    def changed(self, name: str) -> NDArray[np.bool_]:
        """(size,) True for elements of a quantity that may differ from nominal."""
        where, nominal = self._slices[name], ROWS[name].nominal
        ends = np.stack([self._base[where], self._low[where], self._high[where]])
        return np.asarray((ends != nominal).any(axis=0))

    def differs(self, *names: str) -> bool:
        """True if any element of these quantities may differ from nominal."""
        return any(self.changed(name).any() for name in names)

    @property
    def differing(self) -> frozenset[str]:
        """Quantities of which any element may differ from nominal."""
        return frozenset(row.name for row in VECTOR if self.differs(row.name))

    def differing_in(self, values: Floats) -> frozenset[str]:
        """Quantities of which any element in values (k, n) differs from nominal."""
        return frozenset(
            row.name for row in VECTOR if (self.of(values, row.name) != row.nominal).any()
        )

    def most(self, name: str) -> Floats:
        """(size,) largest possible value of a quantity."""
        most: Floats = self.of(self.draw(np.ones((1, self.size))), name)[0]
        return most

    def share(self, values: Floats) -> None:
        """Copy the settings of the first term to all terms that read the same message value.

        Changes values (k, n) in place. `check_sim_params` ensures that their ranges are equal.
        """
        values[:, self._copies] = values[:, self._copied]

    def _shared(self) -> tuple[list[int], list[int]]:
        """Elements of terms that read the same value as an earlier term, and its elements."""
        copies: list[int] = []
        copied: list[int] = []
        for j, i in enumerate(first_of_shared(self._terms)):
            if i == j:
                continue
            for start in (self._slices[r.name].start for r in VECTOR if r.per is Per.TERM):
                copies.append(start + j)
                copied.append(start + i)
            if message_values(self._terms[i]) == message_values(self._terms[j]):
                for start in (self._slices[r.name].start for r in VECTOR if r.per is Per.ELEMENT):
                    mine, his = self._elements[j], self._elements[i]
                    copies += range(start + mine.start, start + mine.stop)
                    copied += range(start + his.start, start + his.stop)
        return copies, copied

    # From files and to them ---------------------------------------------------------------

    def names(self, row: Quantity) -> list[str]:
        """A name for each element of a quantity, such as drive_x.gain_factor.

        Empty for a term that shares the settings of an earlier one, and for bodies without a name.
        """
        first = first_of_shared(self._terms)
        own = [t.name if first[i] == i else "" for i, t in enumerate(self._terms)]
        if row.per is Per.ROBOT:
            return [row.key]
        if row.per is Per.AXIS:
            return [f"{row.key}.{i}" for i in range(3)]
        if row.per is Per.ELEMENT:
            return [
                f"{name}.{row.element_key}.{i}" if name else ""
                for name, term in zip(own, self._terms, strict=True)
                for i in range(term.size)
            ]
        owners = {Per.BODY: self._bodies, Per.ACTUATOR: self._actuators, Per.TERM: own}[row.per]
        return [f"{owner}.{row.key}" if owner else "" for owner in owners]

    def _ends(self, sim_params: SimParams) -> Floats:
        """(n, 2) lowest and highest value of every element."""
        pairs = [pair for row in VECTOR for pair in self._pairs(row, sim_params)]
        return np.array(pairs, np.float64)

    def _pairs(self, row: Quantity, sim_params: SimParams) -> Iterable[Pair]:
        """Range of each element of a quantity in a set of sim parameters."""
        nominal = row.nominal, row.nominal
        section = getattr(sim_params, row.section)
        if row.per is Per.ROBOT:
            return [nominal if section is None else getattr(section, row.key)]
        if row.per is Per.BODY:
            return [getattr(section, row.key).get(name, nominal) for name in self._bodies]
        if row.per is Per.AXIS:
            return getattr(section, row.key)  # type: ignore[no-any-return]
        if row.per is Per.ACTUATOR:
            return [getattr(section.get(n, Actuator()), row.key) for n in self._actuators]
        sensors = [section.get(term.name, Sensor()) for term in self._terms]
        if row.per is Per.TERM:
            return [getattr(sensor, row.key) for sensor in sensors]
        each = zip(sensors, self._terms, strict=True)
        return [pair for sensor, term in each for pair in _elements(row, sensor, term.size)]

    def sim_params(self, values: Floats) -> SimParams:
        """The sim parameters with values (n,), the inverse of `fixed`."""
        values = values[None].copy()
        self.share(values)
        data: dict[str, Any] = {row.section: {} for row in VECTOR}
        for row in VECTOR:
            part = self.of(values, row.name)[0].tolist()
            if any(value != row.nominal for value in part):
                self._put(data[row.section], row, part)
        if not data["pushes"]:
            del data["pushes"]
        return sim_params_from_dict(data, "values")

    def _put(self, section: dict[str, Any], row: Quantity, part: list[float]) -> None:
        """Write the values of a quantity into plain data of its section."""
        if row.per is Per.ROBOT:
            section[row.key] = part[0]
        elif row.per is Per.AXIS:
            section[row.key] = part
        elif row.per is Per.BODY:
            section[row.key] = _other(self._bodies, part, row.nominal)
        elif row.per is Per.ELEMENT:
            for term, where in zip(self._terms, self._elements, strict=True):
                if any(value != row.nominal for value in part[where]):
                    section.setdefault(term.name, {})[row.element_key] = part[where]
        else:
            names = self._actuators if row.per is Per.ACTUATOR else [t.name for t in self._terms]
            for name, value in _other(names, part, row.nominal).items():
                section.setdefault(name, {})[row.key] = value


def _elements(row: Quantity, sensor: Section, size: int) -> Iterable[Pair]:
    """Returns the value for all elements combined with that of each element."""
    low, high = getattr(sensor, row.key)
    own = getattr(sensor, row.element_key) or ((0.0, 0.0),) * size
    return ((low + a, high + b) for a, b in own)


def _other(names: Sequence[str], values: Sequence[float], nominal: float) -> dict[str, float]:
    """Returns the values that differ from nominal."""
    return {n: v for n, v in zip(names, values, strict=True) if v != nominal}
