"""Formats numbers in tables, reports and plots."""

from __future__ import annotations

SMALL = 5.0  # returns below this get three decimals


def percent(value: float) -> str:
    """0.9731 -> 97.3 %."""
    return f"{100 * value:.1f} %"


def amount(value: float) -> str:
    """A return, with so many digits that tasks of small returns differ: 693.7, -0.281."""
    return f"{value:,.1f}" if abs(value) >= SMALL else f"{value:.3f}"


def milliseconds(seconds: float | None) -> str:
    """0.00123 -> 1.23; None -> -."""
    return "-" if seconds is None else f"{1e3 * seconds:.2f}"
