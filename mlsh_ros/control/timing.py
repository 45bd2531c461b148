"""Timing statistics of the ticks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEPT = 1000  # ticks that percentiles look back on


@dataclass(frozen=True)
class TimingSummary:
    """Timing of the newest ticks, in seconds, NaN before the first one."""

    ticks: int  # since the session began
    missed: int
    late_decisions: int
    saturated: int
    lateness: tuple[float, float, float]  # median, 99th percentile, largest
    compute: tuple[float, float, float]


class TickTiming:
    """Counters and the newest KEPT ticks; written by one thread, without locks or allocation."""

    def __init__(self) -> None:
        self._lateness, self._compute = np.full((2, KEPT), np.nan)
        self.clear()

    def clear(self) -> None:
        """Begin a session."""
        self.ticks = self.missed = self.late = self.saturated = 0
        self._lateness[:] = self._compute[:] = np.nan

    def add(
        self, lateness: float, compute: float, *, missed: int, late: bool, saturated: bool
    ) -> None:
        """Add a tick."""
        place = self.ticks % KEPT
        self._lateness[place], self._compute[place] = lateness, compute
        self.ticks += 1
        self.missed += missed
        self.late += late
        self.saturated += saturated

    def summary(self) -> TimingSummary:
        """Summary of the present values."""
        return TimingSummary(
            ticks=self.ticks,
            missed=self.missed,
            late_decisions=self.late,
            saturated=self.saturated,
            lateness=_spread(self._lateness),
            compute=_spread(self._compute),
        )


def _spread(values: np.typing.NDArray[np.float64]) -> tuple[float, float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return (float("nan"),) * 3
    return float(np.median(known)), float(np.percentile(known, 99)), float(known.max())
