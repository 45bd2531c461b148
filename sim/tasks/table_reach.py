"""Table Reach: `reach` for an arm in space, whose buttons are on a table that it must not touch.

A button is pressed while the tool is within its radius around the place above it, so that pressing
it takes no contact. A touch of the table, by any part of the arm, ends the episode, which is not
solved then. Touches are looked for at the end of every tick; no robot has to measure them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from sim.interface import STRICT
from sim.physics.signals import Signal
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.parameter_types import Angle, Count
from sim.tasks.reach import MOST, Reach
from sim.tasks.reference_arm import ReferenceArm
from sim.tasks.ur5e_arm import ARM

TOUCH = "table_force"


@dataclass(frozen=True, config=STRICT)
class TableReach(Reach):
    """The task is the button that counts.

    Any robot can have it whose `tool_position` has three coordinates and whose model has a geom
    `table`. The places of the buttons and the reference returns are made for the robot `ur5e`.
    """

    name: ClassVar[str] = "table_reach"
    robot: ClassVar[str] = "ur5e"
    term_sizes: ClassVar[Mapping[str, int]] = {"tool_position": 3}
    arm: ClassVar[ReferenceArm] = ARM
    signals: ClassVar[tuple[Signal, ...]] = (Signal(TOUCH, "contact_force", "geom", ("table",)),)
    recommended: ClassVar[Mapping[str, Any]] = {
        **Reach.recommended,
        "mlsh.skills": 2,
        "mlsh.decision_ticks": 75,
        "mlsh.rollout_ticks": 150,
        # Without these a skill at its button moves joints to and fro, as fast as they may.
        "regularization.temporal_smoothness": 0.1,
        "regularization.spatial_smoothness": 0.1,
    }

    ticks: Count = 150  # length of an episode: 3 s at 50 Hz
    shown: Annotated[int, Field(gt=0, le=MOST)] = 2  # number of buttons
    shake: Angle = 0.2  # rad, largest deviation of every joint at the start

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True where the task is solved as in `reach` and nothing touches the table."""
        return super().success(layout, fields) & ~self.terminated(layout, fields)

    def terminated(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True where a part of the arm touches the table."""
        return np.asarray((fields[TOUCH] > 0).any(axis=1))
