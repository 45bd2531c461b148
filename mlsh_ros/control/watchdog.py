"""Detects commands that stand still or ignore an emergency stop. Does not import ROS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlsh_ros.messages.command_limits import ROUNDING, is_safe, violation
from sim.interface import Floats, Interface


class Watchdog:
    """Monitors the commands.

    A command other than the safe one must be followed by another within `patience`; otherwise its
    sender has ended, hangs or is late, and the robot would continue to move. After an emergency
    stop the commands must approach the safe one. After a violation the watchdog is tripped until
    it is reset, and brakes the robot from the last received command. It brakes from the measured
    state where no command is known, and after a pause of its own process, during which the robot
    may have come to rest.

    Args:
        interface: with the safe command and the rate limits.
        patience: s.
        measured: (A,) the command that the robot's measured state corresponds to; NaN where it is
            not known.
    """

    def __init__(
        self,
        interface: Interface,
        patience: float,
        measured: Callable[[], Floats] | None = None,
    ) -> None:
        self.interface, self.patience = interface, patience
        self._unknown = np.full(len(interface.safe_command), np.nan)
        self._measured = measured or self._unknown.copy
        self.resets = 0  # how often it has begun anew
        self.heard = 0  # commands
        self.reset()

    def reset(self) -> None:
        """Reset to the state without a known command."""
        self.resets += 1
        self.cause = ""  # why it is tripped
        self._braking = False  # a command of its own has been computed
        self._kept = False  # tripped before it began to watch; it has not heard a command yet
        self._paused = False  # this process stood still after the newest command
        self.command: Floats = self._unknown.copy()  # (A,) last heard, or braking; NaN: unknown
        self._heard = 0.0  # s
        self._forgiven = False  # that this process was held up, since the newest command
        self._stop: float | None = None  # s, from when on commands must go to the safe one

    @property
    def stopped(self) -> bool:
        """True if an emergency stop is active."""
        return self._stop is not None

    @property
    def at_rest(self) -> bool:
        """True if no command is known that moves the robot."""
        return is_safe(self.interface, self.command)

    @property
    def deadline(self) -> float | None:
        """Time by which the next command must arrive; None at rest."""
        if self.cause or self.at_rest:
            return None
        late = self._heard + self.patience
        return late if self._stop is None else min(late, self._rest_by)

    def hear(self, command: Floats, now: float) -> None:
        """Handle a command (A,); NaN where it is not known. Ignored while it brakes."""
        self.heard += 1
        wrong = violation(self.interface, command)
        # Braking follows the newest command: its sender may speak until it hears of the trip.
        if not (wrong or self._braking):
            ignores = self._ignores(command, now)
            self.cause = self.cause or ignores
            if not ignores:
                self.command, self._heard = command, now
                self._forgiven = self._paused = False
        self.cause = self.cause or wrong
        self._kept = False

    def emergency_stop(self, now: float) -> None:
        """Require the robot to stop: skill_node brakes, and must begin within `patience`."""
        if self._stop is None:
            self._stop = now + self.patience
            self._rest_by = self._stop + self.patience + self.interface.time_to_rest(self.command)

    def release(self) -> None:
        """Handle the release of all emergency stops; they hold until the commands are at rest."""
        if self.at_rest:
            self._stop = None

    def refuse(self, cause: str) -> None:
        """Trip at once because of a command that is not permitted."""
        self.cause, self._kept = self.cause or cause, False

    def keep(self, cause: str) -> None:
        """Begin tripped, without braking: what tripped an earlier watchdog waits for a reset."""
        self.cause, self._kept = cause, True

    def look(self, now: float, late: float = 0.0) -> bool:
        """True if the watchdog has to brake, at the latest from this call on.

        Args:
            now: s, by the clock of the commands.
            late: s by which this call is later than scheduled. If this process itself was delayed,
                commands that arrived meanwhile are handled first; only once, because otherwise a
                process with permanent delays would never trip.
        """
        self._paused = self._paused or late > self.patience
        if late > self.patience / 2 and not self.at_rest and not self._forgiven:
            self._forgiven = True
            self._heard = max(self._heard, now - self.patience / 2)
        return self.check(now)

    def check(self, now: float) -> bool:
        """True if the watchdog has to brake, at the latest from this call on."""
        if (deadline := self.deadline) is not None and now >= deadline:
            standing = ", ".join(f"{value:.3g}" for value in self.command)
            if self._stop is not None and now >= self._rest_by:
                self.cause = f"command ({standing}) after an emergency stop"
            else:
                self.cause = f"command ({standing}) stood for {now - self._heard:.3f} s"
        return bool(self.cause) and not self._kept

    def brake(self) -> Floats:
        """Next command (A,) on the way to the safe one, to be sent every tick.

        NaN where neither a command has been heard nor the robot's state is measured: to send
        anything there could make it jump.
        """
        if self._paused or np.isnan(self.command).any():
            measured = self._measured()
            unknown = np.isnan(self.command) | (self._paused & ~np.isnan(measured))
            self.command = np.where(unknown, measured, self.command)
        self._braking, self._paused = True, False
        self.command = self.interface.brake(self.command)
        return self.command

    def _ignores(self, command: Floats, now: float) -> str:
        """Describes how a command violates an emergency stop; empty if it does not."""
        if self._stop is None or now < self._stop:
            return ""
        low, high = self.interface.limits
        away, before = np.abs(np.stack([command, self.command]) - self.interface.safe_command)
        farther = away > before + ROUNDING * (high - low)
        if not farther.any():
            return ""
        i = int(farther.argmax())
        return (
            f"command {self.interface.action_names[i]} goes from {self.command[i]:.4g} to "
            f"{command[i]:.4g} after an emergency stop"
        )
