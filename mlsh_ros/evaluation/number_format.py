"""Formats numbers in tables, reports and plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SMALL = 5.0  # returns below this get three decimals


def percent(value: float) -> str:
    """Formats 0.9731 as 97.3 %."""
    return f"{100 * value:.1f} %"


def amount(value: float) -> str:
    """Formats a return with enough digits for tasks of small returns: 693.7, -0.281."""
    return f"{value:,.1f}" if abs(value) >= SMALL else f"{value:.3f}"


def milliseconds(seconds: float | None) -> str:
    """Formats 0.00123 as 1.23; None as -."""
    return "-" if seconds is None else f"{1e3 * seconds:.2f}"


def parameters(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Formats parameters of any kind, each with its name: `radius 0.5`, `rewards.alive 2`."""
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += parameters(value, f"{prefix}{name}.") or [f"{prefix}{name} none"]
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append(f"{prefix}{name} {value:g}")
        else:
            found.append(f"{prefix}{name} {value}")
    return found
