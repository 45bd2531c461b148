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
# which lateness in simulated time is nobody's fault: a busy machine is no reason to stop.
HOLD = 0.2
AHEAD = 0.2  # s of the system's clock that words of simulated time may be behind messages
SLOWEST = 0.02  # simulated s per s of the system's clock; what goes more slowly stands
SPAN = 0.2  # s of the system's clock over which the pace of simulated time is taken
TOO_LONG = 1.5  # times what a pause should take by that pace, after which it is over anyway
FOREVER = 1e6  # s
EXACT = 1e-6  # s; moments of the grid and of /clock are the same but for rounding


class Time(Protocol):
    """What ticks, ages and watchdogs go by. Moments are in seconds.

    `news` is a condition that is notified whenever something has come that may change one's mind.
    """

    def now(self) -> float:
        """The moment; NaN if it is not known yet."""

    def stamping(self) -> float | None:
        """The moment by the clock that stamps messages; None: not to be compared."""

    def receive_time(self, stamp: int) -> float:
        """Of a message that has just come, by which its age is counted.

        Args:
            stamp: ns; 0 if it has none.
        """

    def steady(self) -> float:
        """For what takes computing time, whatever time it is: never stands or jumps."""

    def start_session(self) -> None:
        """A session begins: what time has done before is forgiven."""

    def fault(self) -> FaultError | None:
        """Why nothing may begin to move by this clock now, if so."""

    def reached(self, moment: float) -> bool:
        """Whether it is that late."""

    def is_late(self, since: float) -> bool:
        """Whether lateness since a moment of `steady` is more than a hiccup of the machine."""

    def sleep_until(self, until: float, stop: threading.Event, news: threading.Condition) -> bool:
        """Sleep until a moment; False: told to stop.

        Raises:
            FaultError: that moment will not come.
        """

    def wait(
        self,
        news: threading.Condition,
        until: float | None,
        since: float = -math.inf,
        at_most: float = FOREVER,
    ) -> None:
        """Sleep, with `news` held, until notified or a moment has come; or a little less.

        Args:
            news: held by the caller.
            until: None: as long as it takes.
            since: by `steady`; time that stood before is not held against it.
            at_most: s of the system's clock.

        Raises:
            FaultError: that moment will not come.
        """

    def wait_for(
        self, seconds: float, news: threading.Condition, over: Callable[[], bool] = lambda: False
    ) -> bool:
        """Let time pass, also where nothing is heard of it; True: it is over."""


@dataclass(frozen=True)
class Clock:
    """The system's own time, which a robot follows."""

    now: Callable[[], float] = time.monotonic  # s
    system: Callable[[], float] | None = time.time  # s, that stamps messages; None: not compared
    sleep: Callable[[float], None] = time.sleep

    def stamping(self) -> float | None:
        """The moment by the clock that stamps messages; None: not to be compared."""
        return self.system() if self.system else None

    def receive_time(self, stamp: int) -> float:
        """Now, when it came; stamps are compared for themselves."""
        return self.now()

    def steady(self) -> float:
        """The same as `now`."""
        return self.now()

    def start_session(self) -> None:
        """Nothing to forgive."""

    def fault(self) -> FaultError | None:
        """None: it always goes on."""
        return None

    def reached(self, moment: float) -> bool:
        """Whether it is that late."""
        return self.now() >= moment

    def is_late(self, since: float) -> bool:
        """Always: on a robot a hiccup counts."""
        return True

    def sleep_until(self, until: float, stop: threading.Event, news: threading.Condition) -> bool:
        """Sleep until a moment, as exactly as the system can; False: told to stop."""
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
        news: threading.Condition,
        until: float | None,
        since: float = -math.inf,
        at_most: float = FOREVER,
    ) -> None:
        """Sleep, with `news` held, until notified or a moment has come."""
        news.wait(at_most if until is None else min(at_most, max(0.0, until - self.now())))

    def wait_for(
        self, seconds: float, news: threading.Condition, over: Callable[[], bool] = lambda: False
    ) -> bool:
        """Let time pass; True: it is over."""
        with news:
            return news.wait_for(over, seconds)


class SimulatedClock:
    """Time that somebody tells, as on /clock; between two words it stands.

    It may stand for `patience` seconds of the system's clock: who waits longer for a moment is
    told that it will not come. The same if it goes back.

    Args:
        news: notified whenever time has moved.
        patience: s of the system's clock.
        steady: the system's clock.
    """

    def __init__(
        self,
        news: threading.Condition,
        *,
        patience: float = PATIENCE,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._news, self._patience, self._steady = news, patience, steady
        self._now = math.nan
        self._moved = steady()  # when it last moved, or when one began to listen
        self._back: float | None = None  # s by which it went back in this session
        self._pace = 1.0  # simulated s per s of the system's clock
        self._since = math.nan, self._moved  # moments from which the pace is taken next
        self._anchor = math.nan, self._moved  # moments since which time has to have gone on

    def set_time(self, moment: float) -> None:
        """It is that late now; called by the thread that hears."""
        with self._news:
            if moment == self._now:
                return
            if moment < self._now - EXACT:
                self._back = self._now - moment
            now, (began, since) = self._steady(), self._anchor
            if not 0 <= moment - began < SLOWEST * (now - since):  # NaN: the first word
                self._moved, self._anchor = now, (moment, now)
            self._now = moment
            self._take_pace(now)
            self._news.notify_all()

    def _take_pace(self, now: float) -> None:
        began, since = self._since
        if now - since < SPAN and not math.isnan(began):
            return
        if self._now > began:  # not if it went back
            self._pace = (self._now - began) / (now - since)
        self._since = self._now, now

    def now(self) -> float:
        """The moment; NaN if none has been told."""
        return self._now

    def stamping(self) -> float | None:
        """None: `moment` goes by the stamps already."""
        return None

    def receive_time(self, stamp: int) -> float:
        """When it was stamped, by this same time: words of time may come later than messages.

        A stamp farther ahead is of another clock, and the message is of now.
        """
        said = stamp * 1e-9
        ahead = AHEAD * max(self._pace, 1.0)
        return said if stamp and said <= self._now + ahead else self._now

    def steady(self) -> float:
        """The system's clock."""
        return self._steady()

    def start_session(self) -> None:
        """A session begins: it may have gone back before."""
        self._back = None

    def fault(self) -> FaultError | None:
        """Why nothing may begin to move by this clock now, if so."""
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
        """Whether it is that late."""
        return self._now >= moment - EXACT

    def is_late(self, since: float) -> bool:
        """Whether so much of the system's time has passed that the machine is no excuse."""
        return self._steady() - since >= HOLD

    def sleep_until(self, until: float, stop: threading.Event, news: threading.Condition) -> bool:
        """Sleep until a moment; False: told to stop; who tells so notifies `news` too.

        Raises:
            FaultError: time stands still or went back.
        """
        with news:
            while not stop.is_set():
                if self._back is None and self.reached(until):
                    return True
                self.wait(news, until)
        return False

    def wait(
        self,
        news: threading.Condition,
        until: float | None,
        since: float = -math.inf,
        at_most: float = FOREVER,
    ) -> None:
        """Sleep, with `news` held, until notified or a moment has come.

        Raises:
            FaultError: time stands still or went back, and a moment is waited for.
        """
        if until is None:
            news.wait(at_most)
            return
        if self._back is not None:
            raise FaultError("clock_jumped", f"simulated time went back by {self._back:.3f} s")
        if fault := self._standing(since):
            raise fault
        news.wait(min(at_most, max(self._moved, since) + self._patience - self._steady()))

    def wait_for(
        self, seconds: float, news: threading.Condition, over: Callable[[], bool] = lambda: False
    ) -> bool:
        """Let time pass; True: it is over.

        For who is on the way to rest: goes on by the pace that time had when nothing is heard of
        it, be it that it stands, or that the thread that hears waits for this one.
        """
        with news:
            until = self._now + seconds
            latest = self._steady() + min(TOO_LONG * seconds / self._pace, self._patience)
            while not over():
                left = latest - self._steady()
                if left <= 0 or (self._back is None and self.reached(until)):
                    return False
                news.wait(left)
            return True
