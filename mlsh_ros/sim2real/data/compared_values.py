"""The values of a term that are compared: a heading is compared as an angle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats, Interface, ObservationTerm


def angular(term: ObservationTerm) -> bool:
    """True if a term is a heading: z and w of a quaternion, which are compared as an angle."""
    ends = tuple(path.rpartition("orientation.")[2] for path in term.ros.fields)
    return term.derive is None and ends == ("z", "w")


def count_of(term: ObservationTerm) -> int:
    """Number of compared values of a term."""
    return 1 if angular(term) else term.count


def to_compared(term: ObservationTerm, shown: Floats) -> Floats:
    """Converts measurements (..., count) to the compared values (..., count_of); unit or rad."""
    if not angular(term):
        return shown
    return 2 * np.arctan2(shown[..., :1], shown[..., 1:])


def unfolded(term: ObservationTerm, field: Floats) -> Floats:
    """Converts a field (..., size) to measurements (..., count); angles stay unwrapped."""
    return field if term.derive is None else term.values(field)


def from_compared(term: ObservationTerm, viewed: Floats) -> Floats:
    """The inverse of `to_compared`."""
    if not angular(term):
        return viewed
    return np.concatenate([np.sin(viewed / 2), np.cos(viewed / 2)], axis=-1)


def unscaled(
    term: ObservationTerm, interface: Interface, observation: NDArray[np.float32]
) -> Floats:
    """(..., count) measurements, in their unit, of observations; clipping is not undone."""
    shown = observation[..., interface.observation_slices[term.name]].astype(np.float64)
    return term.unscaled(shown)
