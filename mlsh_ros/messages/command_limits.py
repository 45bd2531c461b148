"""Checks an external command against the robot's limits and its safe command."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats, Interface

ROUNDING = 1e-6  # more than float32, which a message may carry, changes a value by


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
    """A millionth of the values, or of 1 where that is more.

    A part of the range of the limits would take motion for rest where they are so wide that they
    limit nothing.
    """
    return np.asarray(ROUNDING * np.maximum(np.abs(values), 1.0))
