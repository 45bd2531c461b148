"""Detects commands that stand still or ignore an emergency stop. Does not import ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.control.faults import FaultError
from mlsh_ros.messages.command_limits import is_safe, moving, rounding, violation
from sim.interface import Floats, Interface

PERIOD = 0.1  # s between two looks at the commands, and between two heartbeats
# Commands of each topic that are handled after a pause of this process, before what is known of
# the commands counts again: the first one may have waited from before the pause.
AFTER_PAUSE = 2
# s of braking for which an element that may have been moved since is not commanded, where it is
# measured, but no measurement has come yet.
MEASURING = 0.5
SLOWER = 1.25  # times what the rate limit needs, that braking after an emergency stop may take


class Watchdog:
    """Monitors the commands.

    A command other than the safe one must be followed by another within `patience`; otherwise its
    sender has ended, hangs or is late, and the robot would continue to move. After an emergency
    stop the commands must approach the safe one. After a violation the watchdog is tripped until
    it is reset, and brakes the robot from the last received command. It brakes from the measured
    state where no command is known, where the last one is old, so that the robot may have been
    moved since, and after a pause of its own process.

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
        self._counts = np.zeros(len(self._unknown), np.intp)  # (A,) commands heard of each element
        self.reset()

    def reset(self) -> None:
        """Reset to the state without a known command."""
        self.resets += 1
        self.cause = ""  # why it is tripped
        self._braking = False  # a command of its own has been computed
        self._kept = False  # tripped while nothing moved, and has heard nothing that moves since
        self.command: Floats = self._unknown.copy()  # (A,) last heard, or braking; NaN: unknown
        # (A,) commands to be heard since this process stood still, until one is known again
        self._doubtful = np.zeros(len(self.command), np.intp)
        self._waited = 0  # braking commands for which a measurement has been waited for
        self._since = np.zeros(len(self.command))  # (A,) s, when it was heard or sent
        self._heard = np.zeros(len(self.command))  # (A,) s, from when on another one is awaited
        self._forgiven = False  # that this process was held up, since the newest command
        self._stop: float | None = None  # s, from when on commands must go to the safe one

    def begin(self) -> None:
        """Begin to watch: nothing is known of the commands of before; a trip waits for a reset."""
        cause = self.cause
        self.reset()
        if cause:
            self.keep(cause)

    @property
    def heard(self) -> int:
        """Number of commands, of the topic with the fewest."""
        return int(self._counts.min())

    @property
    def known(self) -> bool:
        """True if it knows the whole command, and does not only keep a trip of before.

        Then it commands nothing, and whatever moves the robot has not reached it.
        """
        return not (self._kept or np.isnan(self.command).any())

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
        late = self._oldest + self.patience
        return late if self._stop is None else min(late, self._rest_by)

    def pause(self, now: float) -> float:
        """Seconds until the next look: to the deadline, and `PERIOD` at most.

        Args:
            now: s, by the clock of the commands; NaN if that is not known yet.
        """
        deadline = self.deadline
        return PERIOD if deadline is None or not now < deadline else min(PERIOD, deadline - now)

    @property
    def _oldest(self) -> float:
        """Time of the oldest element that moves the robot, s; it does not rest."""
        return float(self._heard[moving(self.interface, self.command)].min())

    def hear(
        self, command: Floats, now: float, elements: NDArray[np.intp] | slice = slice(None)
    ) -> None:
        """Handle a message with a part of the commands. Ignored while it brakes.

        Args:
            command: (A,), NaN where it is not known.
            now: s.
            elements: (n,) indices of those of the command that are in the message; the others
                are as they were.
        """
        self._counts[elements] += 1
        wrong, ignores = violation(self.interface, command), ""
        # Braking follows the newest command: its sender may speak until it hears of the trip.
        if not (wrong or self._braking):
            ignores = self._ignores(command, now)
            self.cause = self.cause or ignores
            # Also one that ignores the stop is in force: braking begins there.
            self.command, self._forgiven = command, False
            self._heard[elements] = self._since[elements] = now
            self._doubtful[elements] = np.maximum(self._doubtful[elements] - 1, 0)
        self.cause = self.cause or wrong
        # A safe command needs no braking; it may also be a late one of this node's own.
        self._kept = self._kept and not (wrong or ignores) and self.at_rest

    def emergency_stop(self, now: float) -> None:
        """Require the robot to stop: skill_node brakes, and must begin within `patience`."""
        if self._stop is None:
            self._stop = now + self.patience
            braking = SLOWER * self.interface.time_to_rest(self.command)
            self._rest_by = self._stop + self.patience + braking

    def release(self) -> None:
        """Handle the release of all emergency stops; they hold until the commands are at rest."""
        if self.at_rest:
            self._stop = None

    def refuse(self, cause: str) -> None:
        """Trip at once because of a command that is not permitted."""
        self.cause, self._kept = self.cause or cause, False

    def fail(self, cause: str) -> None:
        """Trip because it cannot watch any more: it brakes what is commanded, if anything is."""
        if not self.cause:
            self.cause, self._kept = cause, self.at_rest

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
        if late > self.patience:
            self._doubtful[:] = AFTER_PAUSE
        if late > self.patience / 2 and not self.at_rest and not self._forgiven:
            self._forgiven = True
            self._heard = np.maximum(self._heard, now - self.patience / 2)
            if self._stop is not None:
                self._rest_by = max(self._rest_by, now + self.patience / 2)
        return self.check(now)

    def check(self, now: float) -> bool:
        """True if the watchdog has to brake, at the latest from this call on."""
        if (deadline := self.deadline) is not None and now >= deadline:
            standing = ", ".join(f"{value:.3g}" for value in self.command)
            if self._stop is not None and now >= self._rest_by:
                self.cause = f"command ({standing}) after an emergency stop"
            else:
                self.cause = f"command ({standing}) stood for {now - self._oldest:.3f} s"
        return bool(self.cause) and not self._kept

    @contextmanager
    def braking(self, now: float) -> Iterator[Floats]:
        """`brake`, for a command that is sent within; where it is too late, none has left."""
        before = self.command
        try:
            yield self.brake(now)
        except FaultError:
            self.command = before
            raise

    def brake(self, now: float) -> Floats:
        """Next command (A,) on the way to the safe one, to be sent every tick.

        The first step is the part of one that has passed since the command before it.

        NaN where neither a command has been heard nor the robot's state is measured: to send
        anything there could make it jump. Likewise, for `MEASURING` s at most, where the robot may
        have been moved since the last command and a measurement is still to come.

        Args:
            now: s, by the clock of the commands.
        """
        # A command that moves the robot is braked before it is as old as this.
        old = now - self._since > 2 * self.patience + PERIOD
        unknown, doubtful = np.isnan(self.command), old | (self._doubtful > 0)
        waits = np.zeros(len(unknown), bool)
        passed = (now - self._since) / self.interface.control_dt
        passed[unknown] = np.nan
        if (unknown | doubtful).any():
            measured = self._measured()
            known = ~np.isnan(measured)
            self.command = np.where(unknown | (doubtful & known), measured, self.command)
            if self._waited * self.interface.control_dt < MEASURING:
                waits = doubtful & ~known & ~unknown & self.interface.is_measured
            self._waited += 1
        braked = self.interface.brake(self.command)
        if not self._braking:  # later ones do not go by the clock, which may stand
            part = self.command + np.maximum(passed, 0.0) * (braked - self.command)
            braked = np.where(passed < 1, part, braked)
        self._braking = True
        self._doubtful = np.where(waits, np.maximum(self._doubtful, 1), 0)
        self._since = np.where(waits, self._since, now)
        self.command = np.where(waits, self.command, braked)
        return np.where(waits, np.nan, self.command)

    def _ignores(self, command: Floats, now: float) -> str:
        """Describes how a command violates an emergency stop; empty if it does not."""
        if self._stop is None or now < self._stop:
            return ""
        safe = self.interface.safe_command
        away, before = np.abs(np.stack([command, self.command]) - safe)
        farther = away > before + rounding(command) + rounding(safe)
        if not farther.any():
            return ""
        i = int(farther.argmax())
        return (
            f"command {self.interface.action_names[i]} goes from {self.command[i]:.4g} to "
            f"{command[i]:.4g} after an emergency stop"
        )
