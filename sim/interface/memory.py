"""Values of earlier ticks that an observation needs: the last action, earlier observations."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.interface.interface import Interface

Float32 = NDArray[np.float32]


class ObservationMemory:
    """State of the observation within a session or an episode, or within many of them.

    It begins empty, `Interface.observe` reads it, and `remember` adds a tick when its action has
    been chosen. Observing twice therefore changes nothing.

    Args:
        interface: of the robot, with the terms of a task family.
        lead: sizes of the leading axes, the same as those of the observations.

    Attributes:
        action: (..., A) the policy's output of the tick before; zeros on the first tick.
        past: (..., n, P) present elements of earlier observations, the newest first.
        ticks: (...,) that are remembered.
    """

    def __init__(self, interface: Interface, lead: tuple[int, ...] = ()) -> None:
        self.action: Float32 = np.zeros((*lead, interface.action_size), np.float32)
        computed = interface.computed_terms
        shape = (*lead, computed.ticks, computed.present_size)
        self.past: Float32 = np.zeros(shape, np.float32)
        self.ticks: NDArray[np.int64] = np.zeros(lead, np.int64)

    def reset(self, rows: NDArray[Any] | EllipsisType = ...) -> None:
        """Begin a session; with `rows`, in these rows of the first leading axis."""
        self.action[rows] = 0
        self.past[rows] = 0
        self.ticks[rows] = 0

    def forget(self) -> None:
        """Begin in the middle of a session of which nothing is known: everything is NaN."""
        self.action[...] = np.nan
        self.past[...] = np.nan
        self.ticks[...] = self.past.shape[-2]

    def remember(self, observation: Float32, action: NDArray[Any]) -> None:
        """Add a tick.

        Args:
            observation: (..., O) from which the action was chosen.
            action: (..., A) as the policy gave it.
        """
        self.action[...] = action
        if depth := self.past.shape[-2]:
            self.past[..., 1:, :] = self.past[..., : depth - 1, :].copy()
            self.past[..., 0, :] = observation[..., : self.past.shape[-1]]
        self.ticks += 1

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """The memory as arrays."""
        return {
            "memory.action": self.action.copy(),
            "memory.past": self.past.copy(),
            "memory.ticks": self.ticks.copy(),
        }

    def restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Continue from a `snapshot`.

        Raises:
            ValueError: the snapshot has other shapes.
        """
        for name, target in vars(self).items():
            saved = state[f"memory.{name}"]
            if saved.shape != target.shape:
                raise ValueError(f"memory.{name} has shape {saved.shape}, not {target.shape}")
            target[...] = saved
