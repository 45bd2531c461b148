"""The clock that the control loop uses: system time or simulated time. Does not import ROS."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mlsh_ros.control.faults import FaultError

ALERT = 0.02  # s before a moment from which on the thread only sleeps, for the sake of precision
PATIENCE = 1.0  # s of the system's clock that simulated time may stand while something moves
# s of the system's clock for which our simulator holds its time when a command is late, and before
# which lateness in simulated time is not a fault: a busy machine is no reason to stop.
HOLD = 0.2
FASTEST = 20.0  # simulated s per s of the system's clock; our simulator goes no faster
AHEAD = 0.2  # s of the system's clock that words of simulated time may be behind messages
SLOWEST = 0.02  # simulated s per s of the system's clock; what goes more slowly stands
SPAN = 0.2  # s of the system's clock over which the pace of simulated time is taken
TOO_LONG = 1.5  # times what a pause should take by that pace, after which it is over anyway
FOREVER = 1e6  # s
EXACT = 1e-6  # s; moments of the grid and of /clock are the same but for rounding
PRECISE = 1e-3  # s between the readings of two clocks that count as one moment
# `time.monotonic` stands while the computer is suspended, and the robot does not.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_time() -> float:
    """Time of a clock that never stops or jumps, s."""
    return time.clock_gettime(_STEADY)


class Time(Protocol):
    """The clock for ticks, ages and watchdogs. Times are in seconds.

    `new_data` is a condition that is notified whenever new data or a new time has arrived.
    """

    def now(self) -> float:
        """The present time; NaN if it is not known yet."""

    def stamping(self) -> float | None:
        """The time of the clock that stamps messages; None: not to be compared."""

    def receive_time(self, stamp: int) -> float:
        """Time of reception of a new message, from which its age is computed.

        Args:
            stamp: ns; 0 if it has none.
        """

    def steady(self) -> float:
        """A clock that never stops or jumps, for measuring computing time."""

    def start_session(self) -> None:
        """Begin a session: earlier jumps of the time are ignored."""

    def fault(self) -> FaultError | None:
        """Returns the reason that no motion may begin by this clock, or None."""

    def reached(self, moment: float) -> bool:
        """True if the time has been reached."""

    def is_late(self, since: float) -> bool:
        """True if a delay since a time of `steady` is longer than scheduling jitter."""

    def sleep_until(
        self, until: float, stop: threading.Event, new_data: threading.Condition
    ) -> bool:
        """Sleep until a time; False if stopped.

        Raises:
            FaultError: the time will not be reached.
        """

    def wait(
        self,
        new_data: threading.Condition,
        until: float | None,
        since: float = -math.inf,
        at_most: float = FOREVER,
    ) -> None:
        """Sleep, with `new_data` locked, until notified or a time is reached; or a little less.

        Args:
            new_data: locked by the caller.
            until: None: no limit.
            since: by `steady`; simulated time that stopped before it is not a fault.
            at_most: s of the system's clock.

        Raises:
            FaultError: the time will not be reached.
        """

    def wait_for(
        self,
        seconds: float,
        new_data: threading.Condition,
        over: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait, even if the time is not known to advance; True if `over` became True."""


@dataclass(frozen=True)
class Clock:
    """The system's steady time, for a real robot."""

    now: Callable[[], float] = steady_time  # s
    system: Callable[[], float] | None = time.time  # s, that stamps messages; None: not compared
    sleep: Callable[[float], None] = time.sleep

    def stamping(self) -> float | None:
        """The time of the clock that stamps messages; None: not to be compared."""
        return self.system() if self.system else None

    def receive_time(self, stamp: int) -> float:
        """The present time; stamps are checked separately."""
        return self.now()

    def steady(self) -> float:
        """The same as `now`."""
        return self.now()

    def start_session(self) -> None:
        """No effect: this clock does not jump."""

    def fault(self) -> FaultError | None:
        """Always None: this clock does not stop."""
        return None

    def reached(self, moment: float) -> bool:
        """True if the time has been reached."""
        return self.now() >= moment

    def is_late(self, since: float) -> bool:
        """Always True: on a robot every delay counts."""
        return True

    def sleep_until(
        self, until: float, stop: threading.Event, new_data: threading.Condition
    ) -> bool:
        """Sleep until a time, as precisely as the system can; False if stopped."""
        while not stop.is_set():
            left = until - self.now()
            if left <= 0:
                return True
            if left > ALERT:
                stop.wait(left - ALERT)
            else:
                self.sleep(left)
        return False

    def wait(
        self,
        new_data: threading.Condition,
        until: float | None,
        since: float = -math.inf,
        at_most: float = FOREVER,
    ) -> None:
        """Sleep, with `new_data` locked, until notified or a time is reached."""
        new_data.wait(at_most if until is None else min(at_most, max(0.0, until - self.now())))

    def wait_for(
        self,
        seconds: float,
        new_data: threading.Condition,
        over: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait; True if `over` became True."""
        with new_data:
            return new_data.wait_for(over, seconds)


class SimulatedClock:
    """Time received on /clock; it does not advance between two messages.

    A wait for a time fails if no message arrives for `patience` seconds of the system's clock, or
    if the time jumps: goes back, or farther forward than the fastest simulation does.

    Args:
        new_data: notified whenever the time has advanced.
        patience: s of the system's clock.
        steady: the system's clock.
    """

    def __init__(
        self,
        new_data: threading.Condition,
        *,
        patience: float = PATIENCE,
        steady: Callable[[], float] = steady_time,
    ) -> None:
        self._new_data, self._patience, self._steady = new_data, patience, steady
        self._now = math.nan
        self._moved = steady()  # when it last moved, or when one began to listen
        self._jump = ""  # of the time in this session, in words
        self._heard = self._moved  # when it was last set
        self._pace = 1.0  # simulated s per s of the system's clock
        self._since = math.nan, self._moved  # moments from which the pace is taken next
        self._anchor = math.nan, self._moved  # moments since which time has to have gone on

    def set_time(self, moment: float) -> None:
        """Set the time; called by the receiving thread."""
        with self._new_data:
            now, (began, since) = self._steady(), self._anchor
            heard, self._heard = self._heard, now
            if moment == self._now:
                return
            if jump := self._jump_to(moment, now - heard):
                self._jump, self._since = jump, (moment, now)  # it is of no pace
            if not 0 <= moment - began < SLOWEST * (now - since):  # NaN: the first word
                self._moved, self._anchor = now, (moment, now)
            self._now = moment
            self._take_pace(now)
            self._new_data.notify_all()

    def _jump_to(self, moment: float, passed: float) -> str:
        """Describes a jump of the time; empty if there is none, as with the first message.

        Args:
            moment: the new time, s.
            passed: s of the system's clock since the message before.
        """
        if moment < self._now - EXACT:
            return f"went back by {self._now - moment:.3f} s"
        # What was lost while the receiving thread stood still is as much as time has passed.
        if moment - self._now > FASTEST * passed + self._patience:
            return f"went forward by {moment - self._now:.3f} s at once"
        return ""

    def _take_pace(self, now: float) -> None:
        began, since = self._since
        if now - since < SPAN and not math.isnan(began):
            return
        if self._now > began:  # not if it went back
            self._pace = min((self._now - began) / (now - since), FASTEST)
        self._since = self._now, now

    def now(self) -> float:
        """The present time; NaN if none has been received."""
        return self._now

    def stamping(self) -> float | None:
        """Always None: ticks and stamps use the same clock."""
        return None

    def receive_time(self, stamp: int) -> float:
        """The stamp of the message, because /clock may arrive later than messages.

        A stamp farther ahead is from another clock; the message is then dated to the present.
        """
        said = stamp * 1e-9
        ahead = AHEAD * max(self._pace, 1.0)
        return said if stamp and said <= self._now + ahead else self._now

    def steady(self) -> float:
        """The system's clock."""
        return self._steady()

    def start_session(self) -> None:
        """Begin a session: earlier jumps are ignored."""
        self._jump = ""

    def fault(self) -> FaultError | None:
        """Returns the reason that no motion may begin by this clock, or None."""
        if math.isnan(self._now):
            return FaultError("clock_stopped", "nothing has come on /clock yet")
        return self._standing(-math.inf)

    def _standing(self, since: float) -> FaultError | None:
        stood = self._steady() - max(self._moved, since)
        if stood < self._patience:
            return None
        return FaultError(
            "clock_stopped",
            f"simulated time has stood at {self._now:.3f} s for {stood:.1f} s, at most "
            f"{self._patience:g} s is accepted",
        )

    def reached(self, moment: float) -> bool:
        """True if the time has been reached."""
        return self._now >= moment - EXACT

    def is_late(self, since: float) -> bool:
        """True if the delay by the system's clock is too long to be scheduling jitter."""
        return self._steady() - since >= HOLD

    def sleep_until(
        self, until: float, stop: threading.Event, new_data: threading.Condition
    ) -> bool:
        """Sleep until a time; False if stopped. A stop must notify `new_data`, too.

        Raises:
            FaultError: the time stopped or jumped.
        """
        with new_data:
            while not stop.is_set():
                if not self._jump and self.reached(until):
                    return True
                self.wait(new_data, until)
        return False

    def wait(
        self,
        new_data: threading.Condition,
        until: float | None,
        since: float = -math.inf,
        at_most: float = FOREVER,
    ) -> None:
        """Sleep, with `new_data` locked, until notified or a time is reached.

        Raises:
            FaultError: the time stopped or jumped while a time is waited for.
        """
        if until is None:
            new_data.wait(at_most)
            return
        if self._jump:
            raise FaultError("clock_jumped", f"simulated time {self._jump}")
        if fault := self._standing(since):
            raise fault
        new_data.wait(min(at_most, max(self._moved, since) + self._patience - self._steady()))

    def wait_for(
        self,
        seconds: float,
        new_data: threading.Condition,
        over: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait; True if `over` became True.

        Used for braking: if no time arrives, because the simulation stopped or the receiving
        thread is blocked, the wait continues at the last known pace.
        """
        with new_data:
            until = self._now + seconds
            latest = self._steady() + min(TOO_LONG * seconds / self._pace, self._patience)
            while not over():
                left = latest - self._steady()
                if left <= 0 or (not self._jump and self.reached(until)):
                    return False
                new_data.wait(left)
            return True


def read_together(clock: Time) -> tuple[float, float | None]:
    """Reads `now` and `stamping` at one moment.

    A thread that is interrupted between the two would see a jump of the system's clock.
    """
    while True:
        now, stamping = clock.now(), clock.stamping()
        if not clock.now() - now > PRECISE:  # NaN: not known yet
            return now, stamping
