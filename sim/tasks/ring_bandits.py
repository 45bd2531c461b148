"""Ring Bandits: new tasks for the skills of Moving Bandits; the start sector decides.

Three goals lie on a ring, one in each third of it, and one third counts (the task, hidden). The
robot is shown two of the three, in random order, always the one that counts among them. A skill
that drives to the first or the second goal shown is all that is needed, but a master that always
picks the same skill is right only half of the time: it has to look at where the goals lie.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats
from sim.tasks.goals import GoalTask
from sim.tasks.parameter_types import Length

SECTORS = 3
SHOWN = 2


@dataclass(frozen=True, config=STRICT)
class RingBandits(GoalTask):
    """The task is the sector (a third of the ring) whose goal counts."""

    name: ClassVar[str] = "ring_bandits"

    ring: Length = 0.9  # m, distance of the goals from the start

    @property
    def shown(self) -> int:
        """The goal that counts and one other."""
        return SHOWN

    @property
    def tasks(self) -> tuple[str, ...]:
        """sector-0, sector-1, sector-2, counter-clockwise from the x axis."""
        return tuple(f"sector-{i}" for i in range(SECTORS))

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Draw a goal in each sector; the one that counts and one other are visible."""
        # A tenth of each sector is left free, so that no goal lies on a border.
        bearing = (np.arange(SECTORS) + rng.uniform(0.05, 0.95, SECTORS)) * 2 * np.pi / SECTORS
        goals = self.ring * np.stack([np.cos(bearing), np.sin(bearing)], axis=-1)
        other = (task + rng.integers(1, SECTORS)) % SECTORS
        slot = int(rng.integers(SHOWN))
        shown = [task, other] if slot == 0 else [other, task]
        return {"goals": goals[shown], "slot": np.float64(slot)}
