"""What watchdog_node says of itself all the time, and how skill_node judges it. Knows no ROS."""

from __future__ import annotations

from dataclasses import dataclass

from mlsh_ros.control.faults import FaultError
from mlsh_ros.messages.labelled_array import Layout

PERIOD = 0.1  # s between two heartbeats
MAX_AGE = 0.5  # s after which the watchdog counts as lost
UNHEARD = 8  # commands that it may not have heard yet, beside those of MAX_AGE
# active: 1, tripped or not; 0 when it is deactivated. heard: commands since it was started.
HEARTBEAT = Layout(("active", "heard", "patience"), fractions=("patience",))


@dataclass(frozen=True)
class Beat:
    """A heartbeat."""

    active: bool
    heard: int  # commands
    patience: float  # s that a moving command may stand
    received: float  # s


class Heartbeat:
    """Judges the watchdog by its heartbeats: whether it lives, watches, and hears the commands.

    Args:
        max_age: s.
    """

    def __init__(self, max_age: float = MAX_AGE) -> None:
        self.max_age = max_age
        self.newest: Beat | None = None
        self._grown = 0.0  # s, when its count of commands last grew
        self._sent = 0  # commands that had been sent by then

    def hear(self, beat: Beat, sent: int) -> None:
        """A heartbeat has come; `sent` commands have been sent until now."""
        if self.newest is None or beat.heard != self.newest.heard:
            self._grown, self._sent = beat.received, sent
        self.newest = beat

    def fault(self, now: float, sent: int) -> FaultError | None:
        """Why nobody watches, if so.

        Args:
            now: s.
            sent: commands that have been sent until now.
        """
        if self.newest is None:
            return FaultError("watchdog_lost", "no heartbeat of watchdog_node has come")
        if (age := now - self.newest.received) > self.max_age:
            return FaultError(
                "watchdog_lost",
                f"the last heartbeat of watchdog_node came {age:.2f} s ago, at most "
                f"{self.max_age:g} s is accepted",
            )
        if not self.newest.active:
            return FaultError("watchdog_lost", "watchdog_node is not active")
        unheard = sent - self._sent
        if unheard > UNHEARD and now - self._grown > self.max_age:
            return FaultError(
                "watchdog_lost",
                f"watchdog_node has heard none of the last {unheard} commands; it must have the "
                "same namespace, bundle and stamped_cmd_vel as skill_node",
            )
        return None
