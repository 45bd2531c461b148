"""Table Reach Sequence: the buttons of `table_reach` have to be pressed in a hidden order.

Reward and success are those of `reach_sequence`, the buttons and the end of an episode those of
`table_reach`. With two buttons, the default, the order says which one is rewarded first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from sim.interface import STRICT
from sim.tasks.parameter_types import Count
from sim.tasks.reach_sequence import ReachSequence
from sim.tasks.table_reach import TableReach


@dataclass(frozen=True, config=STRICT)
class TableReachSequence(TableReach, ReachSequence):
    """The task is the order in which the buttons are rewarded."""

    name: ClassVar[str] = "table_reach_sequence"
    recommended: ClassVar[Mapping[str, Any]] = {
        **TableReach.recommended,
        "mlsh.rollout_ticks": 750,
    }

    ticks: Count = 750  # length of an episode: 15 s at 50 Hz
