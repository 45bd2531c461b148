"""The robot `arm` for its reference returns: two links in the plane."""

from __future__ import annotations

import numpy as np

from sim.interface import Floats
from sim.tasks.reference_arm import ReferenceArm

LENGTHS = (0.3, 0.25)  # m, of the links
# rad, joints with which the arm stands at a target: its elbow to one side, away from its stops.
LOWEST, HIGHEST = (-0.9, 0.3), (0.9, 1.2)


def tip(joints: Floats) -> Floats:
    """Position (..., 2) of the arm's tip, m, for joint angles (..., 2), rad."""
    upper, lower = joints[..., 0], joints[..., 0] + joints[..., 1]
    x = LENGTHS[0] * np.cos(upper) + LENGTHS[1] * np.cos(lower)
    y = LENGTHS[0] * np.sin(upper) + LENGTHS[1] * np.sin(lower)
    return np.stack([x, y], axis=-1)


def draw(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Random places (count, 2), m, and joint angles (count, 2), rad, with the tip there."""
    joints = rng.uniform(LOWEST, HIGHEST, (count, 2))
    return tip(joints), joints


ARM = ReferenceArm(
    tip=tip,
    draw=draw,
    home=(0.0, 0.0),
    low=(-1.4, -1.4),
    high=(1.4, 1.4),
    rate=2.0,
    lag=(0.205, 0.105),
)
