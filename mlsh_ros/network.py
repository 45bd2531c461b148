"""What of the environment says how far ROS reaches. Imports nothing of ROS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
# Fast DDS up to 2.14 (Jazzy) reads the first, later ones the second.
PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
LOCAL = Path(__file__).parent / "fastdds_local.xml"


def confined(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to an environment, so that a simulation stays on this computer.

    Nothing that the user has set is changed. On this computer nodes find each other at once; how
    Fast DDS does that over a network is left alone.
    """
    added = {} if RANGE in environment else {RANGE: "LOCALHOST"}
    local = {**environment, **added}[RANGE] == "LOCALHOST"
    if local and not any(name in environment for name in PROFILES):
        added |= dict.fromkeys(PROFILES, str(LOCAL))
    return added
