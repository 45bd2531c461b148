"""The length of the windows that a recording is divided into."""

from __future__ import annotations

from dataclasses import dataclass

from sim.interface import Interface

LENGTH, BEFORE = 2.0, 1.0  # s that are compared, and before them


@dataclass(frozen=True)
class WindowPlan:
    """Length of windows, in ticks."""

    before: int  # simulated to forget
    length: int  # compared

    @property
    def ticks(self) -> int:
        """Length of a window, in ticks."""
        return self.before + self.length


def plan_for(interface: Interface, length: float = LENGTH, before: float = BEFORE) -> WindowPlan:
    """Returns the plan closest to `length` and `before`, s."""
    tick = interface.control_dt
    return WindowPlan(max(2, round(before / tick)), max(5, round(length / tick)))
