"""Reach Sequence: the targets of `reach` have to be pressed in an order, and the order is hidden.

Pressing the next target of the order is rewarded with 1; after the last one the order begins anew.
Pressing another target has no reward and no effect. A target counts when the tool has stayed in it
for `hold` ticks: on its way the tool passes over others.

The observation is that of `reach`: where the targets are, and which one is pressed now. That is
enough, without a memory and without a sensor that knows the order. A skill keeps its target
pressed until the master decides again, so that a decision sees which target was pressed last, and
in an order each target has one that follows. After a wrong target the same rule leads back: it
meets the target that is expected within a round. Lights that stay on behind a right target would
tell more, and only of a panel that knows the order
(docs/adr/0050-a-sequence-is-seen-by-its-last-target.md).

Of the six orders of three targets, three go round in one direction and three in the other. Those
of one direction differ in the first target that is rewarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from math import factorial
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.interface import STRICT, Floats
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.parameter_types import Count
from sim.tasks.reach import Reach

NONE = -1.0  # the target pressed last, before the first


@dataclass(frozen=True, config=STRICT)
class ReachSequence(Reach):
    """The task is the order in which the targets are rewarded."""

    name: ClassVar[str] = "reach_sequence"
    recommended: ClassVar[Mapping[str, Any]] = {**Reach.recommended, "mlsh.rollout_ticks": 600}

    ticks: Count = 600  # length of an episode: 12 s at 50 Hz
    hold: Count = 10  # ticks for which the tool has to stay in a target: 0.2 s
    # Number of orders, from the last, that are no tasks, so that training never sees them.
    held_out: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.held_out >= (count := factorial(self.shown)):
            raise ValueError(f"held_out {self.held_out} must be less than the {count} orders")
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """order-012, order-021, order-102 and so on, without those that are held out."""
        names = [f"order-{''.join(map(str, order))}" for order in permutations(range(self.shown))]
        return tuple(names[: len(names) - self.held_out])

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Draw targets as in `reach`, whatever the order."""
        order = list(map(float, self.tasks[task].removeprefix("order-")))
        return {
            **self.targets(rng),
            "order": np.array(order),
            "done": np.float64(0),  # right targets, in all
            "stay": np.zeros(self.shown),  # ticks, in each target
            "last": np.float64(NONE),  # pressed, right or wrong
            "streak": np.float64(0),  # right targets since the last wrong one
            "earned": np.float64(0),
        }

    def advance(self, layout: EpisodeState, fields: Fields, dt: float) -> dict[str, Floats]:
        """Detect that a target has been held long enough, and whether it is the next one."""
        stay = np.where(self.inside(layout, fields), layout["stay"] + 1, 0.0)
        pressed = stay == self.hold
        some, which = pressed.any(axis=1), pressed.argmax(axis=1)
        right = some & (which == self.following(layout))
        wrong = some & ~right & (which != layout["last"])
        return {
            "done": layout["done"] + right,
            "stay": stay,
            "last": np.where(some, which, layout["last"]),
            "streak": np.where(wrong, 0.0, layout["streak"] + right),
            "earned": right.astype(np.float64),
        }

    def following(self, layout: EpisodeState) -> NDArray[np.intp]:
        """(n,) number of the target that is rewarded next."""
        place = layout["done"].astype(np.intp) % self.shown
        return np.asarray(layout["order"][np.arange(len(place)), place].astype(np.intp))

    def target(self, layout: EpisodeState) -> Floats:
        """(n, d) the target that is rewarded next, m."""
        following = self.following(layout)
        return np.asarray(layout["goals"][np.arange(len(following)), following])

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) 1 in the tick in which the next target has been held long enough."""
        return np.asarray(layout["earned"])

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True if a whole round was made since the last wrong target."""
        return np.asarray(layout["streak"] >= self.shown)

    def estimate(self, task: int, dt: float) -> tuple[float, float]:
        """Mean returns of pressing the targets by their numbers, and in the rewarded order."""
        return (
            self.scripted(
                task, dt, lambda layout: (layout["last"].astype(np.intp) + 1) % self.shown
            ),
            self.scripted(task, dt, self.following),
        )
