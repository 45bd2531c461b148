"""Resolves a name to a shipped resource or to a path on disk.

Robots (`sim.interface.robot_file`), bundles (`policies.bundle.bundle`) and simulation parameters
(`sim.randomization.schema`) are found by this rule.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sim.errors import UserError, short, unknown


def check_text(kind: str, name: str) -> None:
    """Refuse a path that is no text: run folders and bundles could not say where it is.

    Raises:
        UserError: it has bytes that are not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{kind} {short(name)}: its path is not UTF-8, so that no file can refer to it; "
            "rename it"
        ) from None


def find(kind: str, name: str, shipped: Mapping[str, Path], also: str = "") -> Path:
    """Returns the path of a shipped item by name, or of any other by path; never guesses.

    Args:
        kind: kind of item, for the error message.
        name: name or path.
        shipped: paths of the shipped items, by name.
        also: further valid choices, appended to the error message.

    Raises:
        UserError: no such item, or both a shipped one and a file of that name.
    """
    if name not in shipped:
        if not name or not os.path.exists(name):  # not Path's: it raises where a name is too long
            raise UserError(f"{unknown(kind, name, shipped)}{also}")
        return Path(name)
    own = shipped[name]
    if os.path.exists(name) and not os.path.samefile(name, own):
        raise UserError(
            f"{kind} {name!r} is a shipped one, and {name!r} stands in the current folder too; "
            f"write ./{name} for the latter, {own} for the shipped one"
        )
    return own
