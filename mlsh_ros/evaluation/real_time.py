"""Distinguishes a simulation that did not keep real time from a fault of the robot."""

from __future__ import annotations

from mlsh_ros.control.faults import LATE
from sim.errors import UserError


class RealTimeError(UserError):
    """The nodes stopped a simulated robot because the computer did not keep real time."""


def stopped(episode: str, state: str) -> UserError:
    """Returns the error of an episode that skill_node ended with a fault.

    Args:
        episode: and its task.
        state: of skill_node, `fault: NAME: DETAIL`.
    """
    text = f"{episode}: skill_node stopped the robot: {state}"
    _, name, detail = [part.strip() for part in f"{state}::".split(":", 2)]
    # watchdog_node stops a robot for other reasons, too.
    if name in LATE or (name == "watchdog" and " stood for " in detail):
        return RealTimeError(
            f"{text}; this computer did not keep real time: close other programs, or drive in "
            "lockstep"
        )
    return UserError(text)
