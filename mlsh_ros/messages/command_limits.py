"""Checks an external command against the robot's limits and its safe command."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats, Interface

ROUNDING = 1e-6  # of the range or its bounds: a message may carry float32


def violation(interface: Interface, command: Floats) -> str:
    """Describes the element of a command (A,) that exceeds its limit; empty if none does."""
    low, high = interface.limits
    slack = _slack(interface)
    outside = (command < low - slack) | (command > high + slack)
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
    return np.abs(command - interface.safe_command) > _slack(interface)


def _slack(interface: Interface) -> Floats:
    """(A,) the largest difference that rounding to float32 makes."""
    low, high = interface.limits
    slack: Floats = ROUNDING * np.max([high - low, np.abs(low), np.abs(high)], axis=0)
    return slack
