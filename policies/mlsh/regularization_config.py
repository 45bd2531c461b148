"""Settings of what the skills' loss has beside PPO's: smoothness and symmetry."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from sim.interface import STRICT, NonNegative, Positive


@dataclass(frozen=True, config=STRICT)
class RegularizationConfig:
    """Smoothness and symmetry of the skills' mean actions, in the units of the networks."""

    # Coefficient of the squared change of the mean action from a tick to the next (CAPS).
    temporal_smoothness: NonNegative = 0.0
    # Coefficient of the squared change of the mean action by noise in the observation (CAPS).
    spatial_smoothness: NonNegative = 0.0
    # Standard deviation of that noise, in standard deviations of each element of the observation.
    spatial_deviation: Positive = 0.05
    # Use of the robot's mirror image, which robot.yaml states as `mirror`. augmentation: skills
    # learn from mirrored steps of symmetric tasks, too; loss: `mirror_loss` alone.
    symmetry: Literal["none", "augmentation", "loss"] = "none"
    # Coefficient of the squared difference of the mean action for a mirrored observation and the
    # mirrored mean action, with symmetry `loss`.
    mirror_loss: NonNegative = 0.5

    @property
    def smooths(self) -> bool:
        """True if the loss depends on the smoothness of the skills."""
        return bool(self.temporal_smoothness or self.spatial_smoothness)
