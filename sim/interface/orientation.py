"""Quantities that a term can derive from a quaternion: axes, up vector, gravity, tilt; and angles.

MuJoCo and messages carry the whole quaternion, so that several terms can read the same one and a
simulator can write it. A quaternion whose length is not 1 is no orientation: all results are NaN
then, and a message with it is refused. A new quantity is an entry of `DERIVED`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.interface.validators import Floats, Range

ORDER = ("w", "x", "y", "z")  # MuJoCo's; ROS has x, y, z, w
SLACK = 0.005  # that a length may be away from 1, because drivers round; tf2 accepts as much


def is_unit(quaternion: Floats) -> NDArray[np.bool_]:
    """(...,) True where quaternions (..., 4) have length 1."""
    return np.asarray(np.abs(np.linalg.norm(quaternion, axis=-1) - 1) <= SLACK)


def gravity_up(quaternion: Floats) -> Floats:
    """(..., 3) the world's z axis in the body's frame, for quaternions (..., 4), body to world."""
    w, x, y, z = np.moveaxis(quaternion, -1, 0)
    axis = np.stack(
        [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z], axis=-1
    )
    return np.where(is_unit(quaternion)[..., None], axis, np.nan)


def projected_gravity(quaternion: Floats) -> Floats:
    """(..., 3) the direction of gravity in the body's frame: (0, 0, -1) when upright."""
    return -gravity_up(quaternion)


def rotation_6d(quaternion: Floats) -> Floats:
    """(..., 6) the world's x axis and its z axis in the body's frame, for quaternions (..., 4).

    The whole orientation, heading included, without a jump and without a sign to choose.
    """
    w, x, y, z = np.moveaxis(quaternion, -1, 0)
    ahead = np.stack(
        [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)], axis=-1
    )
    ahead = np.where(is_unit(quaternion)[..., None], ahead, np.nan)
    return np.concatenate([ahead, gravity_up(quaternion)], axis=-1)


def quaternion_of(rotation: Floats) -> Floats:
    """(4,) the orientation, w first, that `rotation_6d` (6,) shows."""
    ahead, up = rotation[:3], rotation[3:]
    left = np.cross(up, ahead)
    # Rows are the world's axes in the body's frame. The largest of w, x, y and z divides.
    m = np.stack([ahead, left, up])
    w, x, y, z = np.array([1 + m[0, 0] + m[1, 1] + m[2, 2], *(1 + 2 * np.diag(m) - np.trace(m))])
    parts = [
        [w, m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], x, m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
        [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], y, m[1, 2] + m[2, 1]],
        [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], z],
    ]
    found = np.array(parts[int(np.argmax([w, x, y, z]))])
    return np.asarray(found / np.linalg.norm(found))


def tilt(quaternion: Floats) -> Floats:
    """(..., 1) angle between the body's z axis and the world's, rad, 0 to pi."""
    x, y, z = np.moveaxis(gravity_up(quaternion), -1, 0)
    return np.asarray(np.arctan2(np.hypot(x, y), z)[..., None])


@dataclass(frozen=True)
class DerivedQuantity:
    """A quantity derived from a quaternion."""

    of: Callable[[Floats], Floats]  # (..., 4) to (..., size)
    size: int
    unit: str
    range: Range


DERIVED = {
    "rotation_6d": DerivedQuantity(rotation_6d, 6, "1", (-1.0, 1.0)),
    "gravity_up": DerivedQuantity(gravity_up, 3, "1", (-1.0, 1.0)),
    "projected_gravity": DerivedQuantity(projected_gravity, 3, "1", (-1.0, 1.0)),
    "tilt": DerivedQuantity(tilt, 1, "rad", (0.0, np.pi)),
}


def fold(angle: NDArray[Any]) -> NDArray[Any]:
    """Angles on the circle, rad, within (-pi, pi]; those within it already stay the same."""
    return np.asarray(angle - 2 * np.pi * np.ceil((angle - np.pi) / (2 * np.pi)))
