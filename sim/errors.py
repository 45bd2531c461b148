"""The one error type whose text is meant for the user, and how it is worded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError


class UserError(ValueError):
    """A fault of input: one line that names the thing, the value and the valid choices.

    Command-line tools and nodes print it without a traceback and end with a non-zero status.
    """


def unknown(kind: str, name: object, choices: Iterable[object]) -> UserError:
    """The error for a name that is not one of `choices`."""
    known = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"no {kind} {str(name)!r}.{hint} Valid: {', '.join(known) or 'none'}")


def invalid(where: object, error: ValidationError) -> UserError:
    """A pydantic report as one line: where, which key, what is wrong, the value."""
    return UserError(f"{where}: " + "; ".join(text for text, _ in problems(error)))


def problems(error: ValidationError) -> list[tuple[str, object]]:
    """A pydantic report, one entry per problem: which key and what is wrong; the value."""
    parts = []
    for item in error.errors(include_url=False, include_context=False):
        if item["type"] == "too_short" and item["input"]:
            continue  # it is long enough, but pydantic counts only what is valid in it
        key = ".".join(str(part) for part in item["loc"]) or "top level"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] != "value_error":  # pydantic's own wording
            message = message[0].lower() + message[1:]
        value = "" if item["type"] in ("missing", "value_error") else f", got {item['input']!r}"
        parts.append((f"{key}: {message}{value}"[:300], item["input"]))
    return parts
