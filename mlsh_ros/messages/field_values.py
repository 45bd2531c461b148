"""Conversion between the values of message fields and numbers."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor
from typing import Any

import numpy as np

from mlsh_ros.messages.message_types import INTEGERS, FieldType, message_type
from sim.errors import UserError
from sim.interface import Range

NANO = 10**9
Setter = Callable[[Any], Any]


def number(value: Any) -> float:
    """Converts a field to a number: times become seconds, an octet its value."""
    if type(value) is float:
        return value
    if isinstance(value, bytes) and len(value) == 1:
        return float(value[0])
    if isinstance(value, (str, bytes)):  # float() would read digits out of it
        raise TypeError(f"{type(value).__name__} is not a number")
    if hasattr(value, "nanosec"):
        return float(value.sec + value.nanosec / NANO)
    return float(value)


def caster(kind: FieldType | None) -> Setter:
    """Returns a function that converts a number or a text to a field's type."""
    if kind is None or kind.base not in INTEGERS:
        return lambda value: value
    low, high = INTEGERS[kind.base]
    lasts: dict[str, Setter] = {"boolean": bool, "octet": lambda whole: bytes([whole])}
    last = lasts.get(kind.base, int)

    def whole(value: float) -> Any:
        rounded = round(value)
        if not low <= rounded <= high:
            raise ValueError(f"{value:g} is beyond {kind.base}, {low} to {high}")
        return last(rounded)

    return whole


def check_value(kind: FieldType, value: float | str) -> None:
    """Refuse a constant that a field cannot represent.

    Raises:
        UserError: it is of another kind, no whole number, or beyond what the field can hold.
    """
    if kind.text != isinstance(value, str) or not (kind.text or kind.number):
        raise UserError(f"{value!r} is not of type {kind.base}")
    if isinstance(value, str) or kind.base not in INTEGERS:
        return
    low, high = INTEGERS[kind.base]
    if not (float(value).is_integer() and low <= value <= high):
        raise UserError(
            f"{value:g} is not of type {kind.base}, a whole number from {low} to {high}"
        )


def check_number(kind: FieldType, bounds: Range, safe: float) -> None:
    """Refuse a field that is not a number, or an integer that rounds a command beyond its limits.

    Args:
        kind: type of the field.
        bounds: limits of the command; infinite for a sensor.
        safe: its safe value. Rounded, the command would never be at rest.

    Raises:
        UserError: so.
    """
    if not kind.number:
        inner = message_type(kind.base) if "/" in kind.base else None
        parts = f": it has {', '.join(inner.fields)}" if inner else ""
        raise UserError(f"it is a {kind.base}, not a number{parts}")
    low, high = bounds
    if kind.base not in INTEGERS or not np.isfinite(bounds).all():
        return
    least, most = INTEGERS[kind.base]
    if not (least <= round(low) and round(high) <= most):
        raise UserError(
            f"it is a {kind.base}, {least} to {most}: limit {low:g} to {high:g} exceeds it"
        )
    first, last = ceil(low), floor(high)
    if first >= last:
        what = f"only {first}" if first == last else "nothing"
        raise UserError(
            f"it is a {kind.base}, which can represent {what} of limit {low:g} to {high:g}"
        )
    if (low, high) != (first, last):
        raise UserError(
            f"it is a {kind.base}, a whole number: limit {low:g} to {high:g} would be rounded; "
            f"valid: whole numbers, such as {first} to {last}"
        )
    if not float(safe).is_integer():
        raise UserError(
            f"it is a {kind.base}, a whole number: safe_command {safe:g} would be sent as "
            f"{round(safe)}, which is not at rest; valid: {first} to {last}"
        )


def set_time(target: Any, seconds: float) -> None:
    """Set a time or duration."""
    target.sec, target.nanosec = divmod(round(seconds * NANO), NANO)
