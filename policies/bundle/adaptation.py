"""The learning curve of a master, stored in its bundle."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdaptationPoint:
    """A policy after some updates on its task."""

    updates: int
    steps: int  # environment steps of experience on this task
    seconds: float  # of learning, without the evaluations
    greedy: float  # mean return of greedy episodes, which are not experience
    success: float  # fraction of them

    @property
    def texts(self) -> tuple[str, str, str]:
        """Seconds, return and success as written to a CSV file."""
        return f"{self.seconds:.4f}", f"{self.greedy:.4f}", f"{self.success:.4f}"
