"""The times of the control ticks, on an absolute grid: missed ticks are left out and counted.

`safety_monitor.py` raises the fault `deadline` after too many missed ticks.
"""

from __future__ import annotations

import math


class TickSchedule:
    """Times start + n * dt: a late tick shifts no other, a missed one is not caught up.

    Args:
        dt: s between two ticks.
        start: s, the moment of tick 0.
    """

    def __init__(self, dt: float, start: float) -> None:
        self.dt, self.start = dt, start
        self._n = 0

    @property
    def due(self) -> float:
        """Time of the current tick, s."""
        # Not a running sum, whose rounding would drift away from the clock.
        return self.start + self._n * self.dt

    def advance(self, now: float) -> int:
        """Advance to the next tick that can still begin in the first half of its period.

        Returns:
            How many had to be left out.
        """
        self._n += 1
        return self.catch_up(now)

    def catch_up(self, now: float) -> int:
        """Skip ticks that are too late at `now`, as after a sleep that took too long.

        Returns:
            How many had to be left out.
        """
        missed = max(0, math.floor((now - self.due) / self.dt + 0.5))
        self._n += missed
        return missed
