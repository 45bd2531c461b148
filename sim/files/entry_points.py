"""Lists the entry points of installed packages without importing them."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points


@cache
def installed(group: str) -> dict[str, list[EntryPoint]]:
    """Returns the entry points of a group in all installed packages, by name."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=group):
        known = found.setdefault(entry.name, [])
        if entry.value not in [each.value for each in known]:  # a package found twice is one
            known.append(entry)
    return found
