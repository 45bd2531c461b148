"""Checks that sim, policies and mlsh_ros are imported from one folder.

`sim` and `policies` are names that other projects use too: a folder of that name on PYTHONPATH, or
where a node is started, would be imported instead. This module imports none of the three packages.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGES = ("sim", "policies")  # what must stand beside mlsh_ros
ROOT = Path(__file__).resolve().parents[2]


def shadowed() -> str:
    """Describes a package that is not imported from the folder of mlsh_ros; empty if none."""
    for name in PACKAGES:
        place = _place(name)
        if place is None:
            return f"package {name!r} is not installed beside mlsh_ros in {ROOT}"
        if place.parent != ROOT:
            return (
                f"package {name!r} comes from {place}, which shadows {ROOT / name}; take "
                f"{place.parent} off PYTHONPATH, or start from another folder"
            )
    return ""


def require_one_root() -> None:
    """End the process with one line on stderr and status 1 if a package is shadowed.

    Called where a process first meets the three packages: by mlsh_ros.cli.main, by mlsh_ros.nodes
    and, for launch files, by mlsh_ros.bringup.node_graph.
    """
    if fault := shadowed():
        sys.exit(f"error: {fault}")


def _place(name: str) -> Path | None:
    """Returns the folder from which a package is, or would be, imported."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin or name).resolve()  # a single file sim.py
