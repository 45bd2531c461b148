"""Parameters that can be identified, and the simulation parameters made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.errors import UserError, unknown
from sim.interface import Floats, Interface
from sim.randomization.parameters import ParameterVector
from sim.randomization.quantities import ROWS, TABLE, Quantity
from sim.randomization.schema import SimParams

WIDER = 2.0  # bounds are the ranges, so many times as wide: a robot may be outside of them
NOMINAL = SimParams()
DELAYS = ("command_delay", "sensor_delay")


def _order(row: Quantity) -> int:
    return row.identification.kept if row.identification else len(TABLE) + 1


# Identifiable quantities. Of indistinguishable ones, the first of these stays nominal.
FIRST_KEPT = tuple(row.name for row in sorted(TABLE, key=_order) if row.identification)


@dataclass(frozen=True)
class Unknown:
    """One number that may be identified from a recording."""

    name: str  # such as drive_x.gain_factor
    quantity: str  # of sim.randomization.quantities
    element: int  # of the quantity
    known: float  # its value if it cannot be identified
    width: float  # of its range
    low: float  # bounds
    high: float


def unknowns(
    interface: Interface, bodies: Sequence[str], known: SimParams, ranges: SimParams
) -> list[Unknown]:
    """Returns all parameters with a range, except random ones: noise, dropouts and pushes.

    Of terms that read the same value, the first represents the others.
    """
    both = ParameterVector(interface, bodies, NOMINAL, ranges)
    ends = both.draw(np.array([np.zeros(both.size), np.ones(both.size)]))
    base = values_of(interface, bodies, known)
    found = []
    for quantity in FIRST_KEPT:
        row = ROWS[quantity]
        low, high = both.of(ends, quantity)
        start = both.of(base[None], quantity)[0]
        for i, name in enumerate(both.names(row)):
            if high[i] > low[i] and name:
                half = (high[i] - low[i]) / 2
                middle = (high[i] + low[i]) / 2
                bounds = _bounds(row, middle - WIDER * half, middle + WIDER * half)
                bounds = min(bounds[0], start[i]), max(bounds[1], start[i])
                found.append(Unknown(name, quantity, i, float(start[i]), 2 * half, *bounds))
    return found


def _bounds(row: Quantity, low: float, high: float) -> tuple[float, float]:
    least = row.identification.least if row.identification else row.bounds.low
    return max(low, row.bounds.low, least), min(high, row.bounds.high)


def chosen(
    found: Sequence[Unknown], parameters: Sequence[str], fix: Sequence[str]
) -> list[Unknown]:
    """Returns the parameters to identify; a key such as gain_factor selects all that end so.

    Raises:
        UserError: an unknown name, or no parameter is left.
    """
    for name in (*parameters, *fix):
        if not _named(found, name):
            raise unknown("parameter", name, [each.name for each in found])
    wanted = (
        {each for name in parameters for each in _named(found, name)} if parameters else {*found}
    )
    fixed = {each for name in fix for each in _named(found, name)}
    left = [each for each in found if each in wanted - fixed]
    if not left:
        raise UserError("no parameter is left to identify")
    return left


def _named(found: Sequence[Unknown], name: str) -> list[Unknown]:
    """Returns the parameters with this name or below it; without any, all that end so.

    A motor called 1 must not select every second element of another parameter.
    """
    own = [each for each in found if each.name == name or each.name.startswith(f"{name}.")]
    return own or [each for each in found if each.name.endswith(f".{name}")]


# Values and sim parameters ---------------------------------------------------------------------


def values_of(interface: Interface, bodies: Sequence[str], sim_params: SimParams) -> Floats:
    """(n,) the vector of `ParameterVector` for a set of sim parameters."""
    return ParameterVector(interface, bodies, sim_params, NOMINAL).fixed


def sim_params_of(
    interface: Interface, bodies: Sequence[str], values: Floats, known: SimParams
) -> SimParams:
    """Returns sim parameters with these values, in six digits, and known dropouts and pushes."""
    size = ParameterVector(interface, bodies, known, NOMINAL)
    values = values.copy()
    for name in ("dropout", "push_velocity", "push_every"):
        size.of(values[None], name)[:] = size.of(size.fixed[None], name)
    return size.sim_params(np.array([float(f"{value:.6g}") for value in values]))
