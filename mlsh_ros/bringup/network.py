"""Network environment of the nodes; does not import ROS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

RANGE, RMW = "ROS_AUTOMATIC_DISCOVERY_RANGE", "RMW_IMPLEMENTATION"
# Fast DDS up to 2.14 (Jazzy) reads the first, later ones the second.
PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
FAST_DDS = "rmw_fastrtps"
# The process id of the launcher with which nodes are to end.
LAUNCHER = "MLSH_LAUNCHER_PID"
LOCAL = Path(__file__).parent / "fastdds_local.xml"
# For a robot's nodes that other computers listen to; the user sets it.
ROBOT = Path(__file__).parent / "fastdds_robot.xml"
HERE, BY_PROFILE = "LOCALHOST", "SYSTEM_DEFAULT"


def localhost_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment variables that restrict a simulation to this computer.

    A wider range or a profile set by the user is kept. Fast DDS is restricted by a profile of this
    package: with the range LOCALHOST, rmw_fastrtps adds shared memory whatever a profile contains.
    Tools with the range LOCALHOST still discover these nodes.
    """
    if environment.get(RANGE, HERE) != HERE:
        return {}
    others = [name for name in PROFILES if environment.get(name, str(LOCAL)) != str(LOCAL)]
    if others or not environment.get(RMW, FAST_DDS).startswith(FAST_DDS):
        return {RANGE: HERE}
    return {RANGE: BY_PROFILE} | dict.fromkeys(PROFILES, str(LOCAL))


def why_not_localhost(environment: Mapping[str, str], rmw: str) -> str:
    """Returns the reason that nodes would not stay on this computer; else empty.

    Args:
        environment: of the node.
        rmw: the identifier of the ROS middleware that it uses.
    """
    by_profile = environment.get(RANGE) == BY_PROFILE and any(
        environment.get(name) == str(LOCAL) for name in PROFILES
    )
    if not by_profile:
        return ""
    if not rmw.startswith(FAST_DDS):
        return f"{LOCAL.name} confines {FAST_DDS} to this computer, not {rmw}; set {RANGE}={HERE}"
    return "" if LOCAL.is_file() else f"{LOCAL} is missing, which keeps ROS on this computer"
