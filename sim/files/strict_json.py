"""Parses untrusted JSON with limits on size and depth; duplicate keys are errors."""

from __future__ import annotations

import json
import math
from typing import Any

from sim.errors import UserError, short

MAX_VALUES = 20_000
MAX_DEPTH = 50
MAX_DIGITS = 18  # of an integer: it fits into 64 bits


def parse_json(text: bytes, where: object) -> Any:
    """Returns the value of a JSON text.

    Raises:
        UserError: it is no JSON or beyond the limits; one line that begins with `where`.
    """
    try:
        # Before anything is made of it. In a text commas and brackets count as well, hence 3.
        if sum(map(text.count, (b",", b"[", b"{"))) > 3 * MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values")
        data = json.loads(
            text.decode(),
            object_pairs_hook=_mapping,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_number,
        )
        _check_amount(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise UserError(f"{where}: not JSON ({reason})") from None
    return data


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in pairs:
        if key in data:
            raise ValueError(f"key {short(key)} is given twice")
        data[key] = value
    return data


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"{short(text, 30)} is longer than {MAX_DIGITS} digits")
    return int(text)


def _number(text: str) -> float:
    if len(text) > 60 or not math.isfinite(value := float(text)):
        raise ValueError(f"{short(text, 30)} is no finite number")
    return value


def _check_amount(data: Any) -> None:
    waiting, count = [(data, 1)], 0
    while waiting:
        each, depth = waiting.pop()
        count += 1
        if count > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if isinstance(each, str):
            each.encode()  # half of a pair of characters cannot be written down again
        elif isinstance(each, dict):
            "".join(each).encode()
            waiting.extend((value, depth + 1) for value in each.values())
        elif isinstance(each, list):
            waiting.extend((value, depth + 1) for value in each)
