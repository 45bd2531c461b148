"""The robot `ur5e` for its reference returns: six joints above a table."""

from __future__ import annotations

import numpy as np

from sim.interface import Floats
from sim.tasks.reference_arm import ReferenceArm

# m, Universal Robots' Denavit-Hartenberg parameters d1, a2, a3, d4, d5 and d6. Its base frame is
# turned by half a turn to base_link, which makes the lengths a2 and a3 positive here.
SHOULDER, UPPER, LOWER, ASIDE, WRIST, TOOL = 0.1625, 0.425, 0.3922, 0.1333, 0.0997, 0.0996
HEIGHT = 0.1  # m above the table: where the tool presses a button, as with a finger of that length
NEAREST, FARTHEST, BEARING = 0.4, 0.65, 0.8  # m and rad around the base: where buttons are


def tip(joints: Floats) -> Floats:
    """Position (..., 3) of the tool in base_link, m, for joint angles (..., 6), rad."""
    pan, lift, elbow, wrist_1, wrist_2, _ = np.moveaxis(joints, -1, 0)
    lower = lift + elbow
    pitch = lower + wrist_1
    ahead = UPPER * np.cos(lift) + LOWER * np.cos(lower)
    ahead = ahead - WRIST * np.sin(pitch) + TOOL * np.sin(wrist_2) * np.cos(pitch)
    up = SHOULDER - UPPER * np.sin(lift) - LOWER * np.sin(lower)
    up = up - WRIST * np.cos(pitch) - TOOL * np.sin(wrist_2) * np.sin(pitch)
    aside = ASIDE + TOOL * np.cos(wrist_2)
    x = ahead * np.cos(pan) - aside * np.sin(pan)
    y = ahead * np.sin(pan) + aside * np.cos(pan)
    return np.stack([x, y, up], axis=-1)


def tool_down(places: Floats) -> Floats:
    """Joint angles (..., 6), rad, with the tool at places (..., 3), m, from above, elbow up."""
    x, y, up = np.moveaxis(places, -1, 0)
    ahead = np.sqrt(x**2 + y**2 - ASIDE**2)
    pan = np.arctan2(y, x) - np.arctan2(ASIDE, ahead)
    ahead, up = ahead - WRIST, up + TOOL - SHOULDER  # of the wrist from the shoulder
    elbow = np.arccos((ahead**2 + up**2 - UPPER**2 - LOWER**2) / (2 * UPPER * LOWER))
    lift = -np.arctan2(up, ahead) - np.arctan2(
        LOWER * np.sin(elbow), UPPER + LOWER * np.cos(elbow)
    )
    down = np.full_like(pan, -np.pi / 2)
    return np.stack([pan, lift, elbow, down - lift - elbow, down, 0 * pan], axis=-1)


def draw(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Random places (count, 3) above the table, m, and joint angles (count, 6), rad, for them."""
    far, bearing = rng.uniform((NEAREST, -BEARING), (FARTHEST, BEARING), (count, 2)).T
    x, y = far * np.cos(bearing), far * np.sin(bearing)
    places = np.stack([x, y, np.full(count, HEIGHT)], axis=-1)
    return places, tool_down(places)


ARM = ReferenceArm(
    tip=tip,
    draw=draw,
    home=(-0.27, -1.5, 1.95, -2.02, -1.57, 0.0),
    low=(-1.52, -2.2, 1.35, -2.87, -2.07, -0.5),
    high=(0.98, -0.8, 2.55, -1.17, -1.07, 0.5),
    rate=1.5,
    lag=(0.035,) * 6,
    smoothing=0.1,
)
