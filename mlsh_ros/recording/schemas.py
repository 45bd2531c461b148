"""ROS message definitions as text for MCAP files; needs no ROS installation.

Those of the common packages come with `rosbags`. Definitions of other packages are read from the
place where ROS installs them: share/PACKAGE/msg/NAME.msg below each entry of AMENT_PREFIX_PATH.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from sim.errors import UserError


class Schemas:
    """Definitions and hashes of `types` and their dependencies.

    Raises:
        UserError: a type is neither a common one nor installed.
    """

    def __init__(self, types: Iterable[str]) -> None:
        self._store = get_typestore(Stores.ROS2_JAZZY)
        found: dict[str, Any] = {}
        for name in types:
            self._find(name, found)
        self._store.register(found)

    def text(self, name: str) -> str:
        """Definition of a type with its dependencies."""
        return self._store.generate_msgdef(name, ros_version=2)[0]

    def digest(self, name: str) -> str:
        """Type hash, RIHS01."""
        return self._store.hash_rihs01(name)

    def _find(self, name: str, found: dict[str, Any]) -> None:
        if name in self._store.fielddefs or name in found:
            return
        found |= get_types_from_msg(_installed(name), name)
        for _, description in found[name][1]:
            while description[0] in (Nodetype.ARRAY, Nodetype.SEQUENCE):
                description = description[1][0]
            if description[0] == Nodetype.NAME:
                self._find(description[1], found)


def _installed(name: str) -> str:
    package, _, message = name.split("/")
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        path = Path(prefix) / "share" / package / "msg" / f"{message}.msg"
        if path.is_file():
            return path.read_text()
    raise UserError(
        f"ROS message {name!r} is not known: no share/{package}/msg/{message}.msg below "
        "AMENT_PREFIX_PATH"
    )
