"""The record of one evaluated episode, the same for all backends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats, Interface


@dataclass(frozen=True)
class Episode:
    """One episode, T ticks long."""

    task: str  # family/task
    master: str
    number: int
    observation: NDArray[np.float32]  # (T, O)
    skill: NDArray[np.int64]  # (T,)
    action: NDArray[np.float32]  # (T, A)
    command: Floats  # (T, A)
    reward: Floats  # (T,) for the state after the tick
    success: bool  # solved at the end
    late: int  # decisions that came too late
    lateness: Floats | None  # (T,) s, start of the tick after its time; None offline
    compute: Floats | None  # (T,) s, sensors to command; None offline
    missed: int | None = None  # ticks left out because the computer was late; None offline
    # Offline: the rule that was broken, as skill_node would say it, and that it diverged.
    fault: str = ""
    diverged: bool = False  # offline: the simulation did, which ended the episode

    @property
    def value(self) -> float:
        """Return: sum of rewards."""
        return float(self.reward.sum())

    @property
    def switches(self) -> int:
        """Number of changes of the active skill."""
        return int((np.diff(self.skill) != 0).sum())

    def usage(self, skills: int) -> Floats:
        """(K,) fraction of ticks in each skill."""
        return np.bincount(self.skill, minlength=skills) / len(self.skill)

    def term(self, interface: Interface, name: str) -> NDArray[np.float32]:
        """(T, size) an observation term, scaled as in the policy's input."""
        return self.observation[:, interface.observation_slices[name]]
