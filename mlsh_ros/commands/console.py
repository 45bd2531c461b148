"""Where sub-commands print, and how numbers look."""

from __future__ import annotations

import sys

from rich.console import Console

SMALL = 5.0  # returns below this get three decimals
# In a pipe there is no width to keep to: lines stay whole.
MAX_SEED = 2**31 - 1  # what a ROS parameter of ours may hold
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def percent(value: float) -> str:
    """0.9731 -> 97.3 %."""
    return f"{100 * value:.1f} %"


def amount(value: float) -> str:
    """A return, with so many digits that tasks of small returns differ: 693.7, -0.281."""
    return f"{value:,.1f}" if abs(value) >= SMALL else f"{value:.3f}"


def milliseconds(seconds: float | None) -> str:
    """0.00123 -> 1.23; None -> -."""
    return "-" if seconds is None else f"{1e3 * seconds:.2f}"
