"""Checks an external command against the robot's limits and its safe command."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats, Interface

ROUNDING = 1e-6  # of a value, and of its unit: a message may carry float32


def violation(interface: Interface, command: Floats) -> str:
    """Describes the element of a command (A,) that exceeds its limit; empty if none does."""
    low, high = interface.limits
    outside = (command < low - rounding(low)) | (command > high + rounding(high))
    if not outside.any():
        return ""
    i = int(outside.argmax())
    name = interface.action_names[i]
    return f"command {name} is {command[i]:.6g}, its limit is {low[i]:g} to {high[i]:g}"


def is_safe(interface: Interface, command: Floats) -> bool:
    """True if every known element of a command (A,) is that of the safe command; NaN: unknown."""
    return not moving(interface, command).any()


def moving(interface: Interface, command: Floats) -> NDArray[np.bool_]:
    """(A,) whether an element of a command (A,) is known and not that of the safe command."""
    # NaN is not farther away than anything.
    safe = interface.safe_command
    return np.abs(command - safe) > rounding(safe)


def rounding(values: Floats) -> Floats:
    """The largest difference that float32 makes to values, which may be of any size.

    It is that of the values themselves. One of the limits' size would take motion for rest where
    the limits are so wide that they limit nothing.
    """
    return np.asarray(ROUNDING * np.maximum(np.abs(values), 1.0))
