"""A family in which episodes end early."""

from typing import ClassVar

import numpy as np
from pydantic.dataclasses import dataclass as checked

from policies.mlsh.rollout import Rollout
from sim.interface import STRICT
from sim.tasks.moving_bandits import MovingBandits


@checked(frozen=True, config=STRICT)
class FencedBandits(MovingBandits):
    """Episodes terminate at a fence, elsewhere in each episode."""

    name: ClassVar[str] = "fenced_bandits"

    def reset(self, task, rng):
        fence = {"fence": np.float64(rng.uniform(0.1, 0.8))}
        return super().reset(task, rng) | fence

    def terminated(self, layout, fields):
        return np.abs(fields["position"]).max(axis=-1) > layout["fence"]


def fields(rollout: Rollout) -> dict[str, np.ndarray]:
    return vars(rollout)
