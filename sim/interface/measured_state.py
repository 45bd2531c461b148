"""The command that the measured state of a robot corresponds to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.interface.orientation import fold
from sim.interface.terms import TURN
from sim.interface.validators import Floats

if TYPE_CHECKING:
    from sim.interface.interface import Interface

HALF_TURN = np.pi + 1e-3  # rad, of a measurement that wraps, rounded as a message may be
Fields = Mapping[str, NDArray[Any]]


def measurement(interface: Interface, i: int, by: tuple[str, int], fields: Fields) -> Any:
    """Measurement (...) of action element `i`; a wrapped angle is unwrapped into its range.

    Args:
        interface: of the robot.
        i: the element of the action.
        by: term that measures it, and element of that.
        fields: per observation term (..., size).
    """
    name, element = by
    if name not in fields:
        return np.nan
    value = np.asarray(fields[name][..., element], np.float64)
    if not _wraps(interface, by):
        return value
    middle = (interface.limits[0][i] + interface.limits[1][i]) / 2
    return middle + fold(value - middle)


def measured_command(interface: Interface, fields: Fields) -> Floats:
    """See `Interface.measured_command`."""
    shape = next((np.shape(value)[:-1] for value in fields.values()), ())
    command = np.full((*shape, interface.action_size), np.nan)
    low, high = interface.limits
    for i, by in enumerate(interface.measured):
        # Of what wraps the turn is not known where the limit is wider than one.
        if by is not None and not (_wraps(interface, by) and high[i] - low[i] > TURN):
            command[..., i] = measurement(interface, i, by, fields)
    return np.clip(command, low, high)


def beyond_limit(
    interface: Interface,
    starts: Mapping[int, tuple[str, int]],
    tolerance: Floats,
    fields: Fields,
) -> str:
    """Describes the first element measured beyond its limit, and what to do; else empty.

    Args:
        interface: of the robot.
        starts: what measures each action element that begins there.
        tolerance: (A,) by which it may be beyond.
        fields: per observation term (size,).
    """
    low, high = interface.limits
    for i, (name, element) in starts.items():
        raw = float(fields[name][element]) if name in fields else np.nan
        action = interface.action_names[i]
        if _wraps(interface, (name, element)) and abs(raw) > HALF_TURN:
            return (
                f"{name}.{element} measures {raw:.4g}: it counts turns, although robot.yaml says "
                f"`wraps: true`, and {action} would turn back; bring it within half a turn of 0"
            )
        value = float(measurement(interface, i, (name, element), fields))
        if max(low[i] - value, value - high[i]) > tolerance[i]:
            return (
                f"{name}.{element} measures {value:.4g}, commands of {action} are {low[i]:g} to "
                f"{high[i]:g}; bring the robot there"
            )
    return ""


def _wraps(interface: Interface, by: tuple[str, int]) -> bool:
    term = next(term for term in interface.observation if term.name == by[0])
    return bool(term.wraps) and bool(term.wrapped[by[1]])
