"""`UserError`, the only error type that is shown to the user, and the wording of its messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sim.key_names import key_names

Checked = TypeVar("Checked")
# What pydantic calls by the types of Python, for people who write YAML and JSON.
EXPECTED = {
    **dict.fromkeys(("tuple_type", "list_type"), "a list is expected"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "dataclass_type", "dataclass_exact_type"),
        "a mapping of keys to values is expected",
    ),
}
LONGEST = 1000  # characters of an error, however long what a stranger wrote is

# How a value that may be a list per element was read (sim.interface.validators); no key of a
# file.
ALL, EACH = "<all>", "<each>"


class UserError(ValueError):
    """An invalid input: one line that names the thing, the value and the valid choices.

    Command-line tools and nodes print it without a traceback and end with a non-zero status.
    """

    def __init__(self, text: object) -> None:
        line = visible(str(text))
        if len(line) > LONGEST:
            line = f"{line[: LONGEST - 300]} .. {line[-296:]}"
        super().__init__(line)


def visible(text: str) -> str:
    """Returns a text as one line, with all unprintable characters escaped.

    Text from a file or a message must not be able to imitate the program's own output.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def short(value: object, most: int = 80) -> str:
    """Returns the `repr` of a value for an error message, truncated if it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]} .."


SHORT_TEXT = 64  # characters


def listed(texts: Iterable[str], separator: str = ", ", most: int = 250) -> str:
    """Join as many texts as fit into `most` characters, at least one, and count the rest.

    A single short text more is listed too: it says more than its number.
    """
    known = list(texts)
    ends = list(accumulate(len(text) + len(separator) for text in known))
    fit = max(1, sum(end <= most for end in ends))
    fit += len(known) - fit == 1 and ends[-1] <= most + SHORT_TEXT
    left = len(known) - fit
    return separator.join([*known[:fit], *([f"and {left} more"] if left > 0 else [])])


def counted(number: int, noun: str, plural: str = "") -> str:
    """Returns a number with what it counts: `1 episode`, `2 episodes`.

    Args:
        number: of the things.
        noun: for one of them.
        plural: for several; by default the noun with an s.
    """
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def unknown(
    kind: str, name: object, choices: Iterable[object], renamed: Mapping[str, str] | None = None
) -> UserError:
    """The error for a name that is not one of `choices`.

    Args:
        kind: of thing that the name is for.
        name: what was given.
        choices: the valid names.
        renamed: names of former versions, and the names that replace them.
    """
    given, known = str(name)[:60], [str(choice)[:60] for choice in choices]
    near = difflib.get_close_matches(given, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if (new := (renamed or {}).get(str(name))) in known:
        hint = f" It is now called {new!r}."
    return UserError(f"no {kind} {short(given)}.{hint} Valid: {listed(known, most=200) or 'none'}")


def invalid(
    where: object, error: ValidationError, adapter: TypeAdapter[Any] | None = None
) -> UserError:
    """Format a pydantic report as one line: location, key, problem, value.

    Args:
        where: name of the file or of what else was read.
        error: the report.
        adapter: that made it, for the valid keys where one is not known.
    """
    return UserError(f"{where}: {listed((text for text, _ in problems(error, adapter)), '; ')}")


def validated(adapter: TypeAdapter[Checked], data: object, where: object) -> Checked:
    """Returns plain data as what the adapter makes of it.

    Raises:
        UserError: one line that names `where`, the key and what is wrong with it.
    """
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        raise invalid(where, error, adapter) from None


def problems(
    error: ValidationError, adapter: TypeAdapter[Any] | None = None
) -> list[tuple[str, object]]:
    """Format a pydantic report, one entry per problem: the key and the problem; the value.

    Args:
        error: the report.
        adapter: that made it, for the valid keys where one is not known.
    """
    parts = []
    found = error.errors(include_url=False)
    outside = {each["loc"][:n] for each in found for n in range(len(each["loc"]))}
    for item in found:
        kind, value, loc = item["type"], item["input"], item["loc"]
        if kind == "too_short" and value and loc in outside:
            continue  # it is long enough, but pydantic counts only what is valid in it
        if kind == "unexpected_keyword_argument" and adapter is not None:
            *outer, key = loc
            place = _place(outer)
            text = str(unknown("key", key, key_names(adapter, outer)))
        elif _is_empty(item):
            needed = _entries(item["ctx"]) if kind == "too_short" else "a value is expected"
            place, text = "", f"{_place(loc) or 'top level'} is empty; {needed}"
        else:
            place, text = _place(loc) or "top level", item["msg"].removeprefix("Value error, ")
            if kind != "value_error":  # pydantic's own wording
                text = text[0].lower() + text[1:]
            if kind in ("too_short", "too_long"):
                text = _entries(item["ctx"])
            text = EXPECTED.get(kind, text)
            if kind not in ("missing", "value_error"):
                text += f", got {short(value)}"
        parts.append((": ".join(filter(None, (place, text)))[:300], value))
    return parts


def _place(loc: Iterable[int | str]) -> str:
    return ".".join(str(part)[:60] for part in loc if part not in (ALL, EACH))


def _is_empty(item: Any) -> bool:
    """True if a report says that nothing was given where something is needed."""
    kind, value = item["type"], item["input"]
    if kind in ("too_short", "string_too_short"):
        return bool(item["ctx"]["min_length"] == 1)
    return value is None and kind.endswith(("_type", "_parsing"))


def _entries(context: Mapping[str, object]) -> str:
    """The number of entries that a list or mapping has to have."""
    end = "min" if "min_length" in context else "max"
    count = context[f"{end}_length"]
    entries = "1 entry is" if count == 1 else f"{count} entries are"
    return f"at {'least' if end == 'min' else 'most'} {entries} expected"
