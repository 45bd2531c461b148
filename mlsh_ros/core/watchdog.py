"""Whether a moving command stands and nobody renews it. Knows no ROS; time is an argument."""

from __future__ import annotations

from mlsh_ros.core.limits import beyond
from sim.interface import Floats, Interface


class Watchdog:
    """Watches what counts: the commands themselves.

    A command other than the safe one must be followed by another within `patience`; else whoever
    sends them is dead, stuck or late, and the robot would go on moving. From then on it is
    tripped, until it is reset.

    Args:
        interface: says what is safe, and how fast a command may change.
        patience: s.
    """

    def __init__(self, interface: Interface, patience: float) -> None:
        self.interface, self.patience = interface, patience
        self.resets = 0  # how often it has begun anew
        self.reset()

    def reset(self) -> None:
        """Nothing is known to move."""
        self.resets += 1
        self.cause = ""  # why it is tripped
        self.command: Floats = self.interface.safe.copy()  # (A,) last heard, or braking
        self._heard = 0.0  # s

    @property
    def deadline(self) -> float | None:
        """The moment by which another command must have come; None: nothing moves."""
        if self.cause or (self.command == self.interface.safe).all():
            return None
        return self._heard + self.patience

    def hear(self, command: Floats, now: float) -> None:
        """A command (A,) is in force; one beyond its limit trips at once. Ignored when tripped."""
        self.cause = self.cause or beyond(self.interface, command)
        if not self.cause:
            self.command, self._heard = command, now

    def refuse(self, cause: str) -> None:
        """A command that nobody may send: trip at once."""
        self.cause = self.cause or cause

    def check(self, now: float) -> bool:
        """Whether it is tripped, from this moment on at the latest."""
        if (deadline := self.deadline) is not None and now >= deadline:
            standing = ", ".join(f"{value:.3g}" for value in self.command)
            self.cause = f"command ({standing}) stood for {now - self._heard:.3f} s"
        return bool(self.cause)

    def brake(self) -> Floats:
        """The next command (A,) on the way to the safe one, to be sent every tick."""
        self.command = self.interface.brake(self.command)
        return self.command
