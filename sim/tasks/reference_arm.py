"""Model of an arm for the reference returns of `reach`: kinematics, and servos with a lag."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim.interface import Floats


@dataclass(frozen=True)
class ReferenceArm:
    """An arm of J joints whose tool has a place of d coordinates, without masses and contacts."""

    tip: Callable[[Floats], Floats]  # joint angles (..., J), rad, to the tool's place (..., d), m
    # Draws n places (n, d), m, where targets may be, and joint angles (n, J), rad, for them.
    draw: Callable[[np.random.Generator, int], tuple[Floats, Floats]]
    home: tuple[float, ...]  # rad, around which episodes begin
    low: tuple[float, ...]  # rad, lowest commands: `limit` in robot.yaml
    high: tuple[float, ...]  # rad, highest commands
    rate: float  # rad/s: `rate_limit` in robot.yaml
    lag: tuple[float, ...]  # s, by which the joints follow: what `mlsh check-robot` measures
    smoothing: float = 0.0  # s: `smoothing_time` in robot.yaml

    def aim(self, joints: Floats, goal: Floats) -> Floats:
        """Commands (n, J) that lead joints (n, J) to a goal (n, J), rad, without overshoot.

        They lie as far beyond the goal as the joints are before it, which halves the servos' lag.
        At the rate limit the joints are `rate * lag` behind the command; where half of that is
        left to the goal, the command is that far beyond it, and returns as fast as it came.
        """
        return np.clip(2 * goal - joints, self.low, self.high)

    def follow(
        self, joints: Floats, command: Floats, aims: Floats, dt: float
    ) -> tuple[Floats, Floats]:
        """Joints and command (n, J) after a tick of `dt` s: smoothing, rate limit, then lag."""
        share = -np.expm1(-dt / self.smoothing) if self.smoothing else 1.0
        command = command + np.clip(share * (aims - command), -self.rate * dt, self.rate * dt)
        return joints + (command - joints) * (1 - np.exp(-dt / np.array(self.lag))), command
