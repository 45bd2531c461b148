"""Resolves a name to a shipped resource or to a path on disk.

Robots (`sim.interface.robot_file`), bundles (`policies.bundle.bundle`) and simulation parameters
(`sim.randomization.schema`) are found by this rule.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sim.errors import UserError, unknown


def find(kind: str, name: str, shipped: Mapping[str, Path], also: str = "") -> Path:
    """Where a thing stands: a shipped one by name, or any by path. Never a guess between two.

    Args:
        kind: of thing, as in an error.
        name: or path.
        shipped: where the shipped ones stand, by name.
        also: what else would be taken, as an error says it.

    Raises:
        UserError: there is none, or one of each.
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
