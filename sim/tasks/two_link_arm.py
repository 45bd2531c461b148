"""Model of the robot `arm` for its reference returns: two links, and servos with a lag."""

from __future__ import annotations

import numpy as np

from sim.interface import Floats

LENGTHS = (0.3, 0.25)  # m, of the links
FARTHEST = 1.4  # rad, to both sides: `limit` in robot.yaml
RATE = 2.0  # rad/s: `rate_limit` in robot.yaml
LAG = (0.205, 0.105)  # s, by which the joints follow: what `mlsh check-robot arm` measures


def tip(joints: Floats) -> Floats:
    """Position (..., 2) of the arm's tip, m, for joint angles (..., 2), rad."""
    upper, lower = joints[..., 0], joints[..., 0] + joints[..., 1]
    x = LENGTHS[0] * np.cos(upper) + LENGTHS[1] * np.cos(lower)
    y = LENGTHS[0] * np.sin(upper) + LENGTHS[1] * np.sin(lower)
    return np.stack([x, y], axis=-1)


def aim(joints: Floats, goal: Floats) -> Floats:
    """Commands (n, 2) that lead joints (n, 2) to a goal (n, 2), rad, fast and without overshoot.

    They lie as far beyond the goal as the joints are before it, which halves the servos' lag. At
    the rate limit the joints are `RATE * LAG` behind the command; where half of that is left to
    the goal, the command is that far beyond it, and returns as fast as it came.
    """
    return np.clip(2 * goal - joints, -FARTHEST, FARTHEST)


def follow(joints: Floats, command: Floats, aims: Floats, dt: float) -> tuple[Floats, Floats]:
    """Returns joints and command (n, 2) after a tick of `dt` s: rate limit, then lag."""
    command = command + np.clip(aims - command, -RATE * dt, RATE * dt)
    return joints + (command - joints) * (1 - np.exp(-dt / np.array(LAG))), command
