"""Headings and frames in the plane. A heading is a quaternion's (z, w), as in Odometry.

A robot that leans has an `orientation`, the whole quaternion, w first. Its heading is the
direction of its x axis on the floor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats

if TYPE_CHECKING:  # base.py refers to the reward terms, which use this file
    from sim.tasks.base import Fields


def to_base(vector: Floats, fields: Fields) -> Floats:
    """Vectors (n, ..., 2) of the odom frame in base_link, turned about the vertical alone.

    Without a heading or an orientation they are the same.
    """
    if "heading" in fields:
        cos, sin = axis_of(fields["heading"])
    elif "orientation" in fields:
        cos, sin = ahead_of(fields["orientation"])
    else:
        return vector
    lead = (len(cos), *[1] * (vector.ndim - 2))
    cos, sin = cos.reshape(lead), sin.reshape(lead)
    x, y = vector[..., 0], vector[..., 1]
    return np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)


def within(
    position: Floats, goal: Floats | tuple[float, float], radius: float
) -> NDArray[np.bool_]:
    """(...) True where positions (..., d) are nearer than `radius` to a goal (..., d), m."""
    return np.asarray(((position - goal) ** 2).sum(axis=-1) < radius**2)


def axis_of(heading: Floats) -> tuple[Floats, Floats]:
    """Cosine and sine (n,) of headings (n, 2) given as z, w; the quaternion's sign is free."""
    z, w = heading[:, 0], heading[:, 1]
    norm = z * z + w * w  # below 1 for a base that tilts
    return (w * w - z * z) / norm, 2 * w * z / norm


def ahead_of(orientation: Floats) -> tuple[Floats, Floats]:
    """Cosine and sine (n,) of the headings of quaternions (n, 4), w first."""
    w, x, y, z = orientation.T
    cos, sin = w * w + x * x - y * y - z * z, 2 * (x * y + w * z)
    length = np.maximum(np.hypot(cos, sin), 1e-9)  # 0 for a robot whose x axis is upright
    return cos / length, sin / length


def bearing_to(offset: Floats) -> Floats:
    """(n,) rad, counter-clockwise from ahead, of offsets (n, 2) in base_link."""
    return np.arctan2(offset[:, 1], offset[:, 0])


def level(orientation: Floats, vector: Floats) -> Floats:
    """Vectors (n, 3) of the world, turned about the vertical so that x is ahead.

    Args:
        orientation: of the bodies, quaternions (n, 4), w first.
        vector: in the world.
    """
    cos, sin = ahead_of(orientation)
    x, y, z = vector.T
    return np.stack([cos * x + sin * y, cos * y - sin * x, z], axis=-1)


def to_body(orientation: Floats, vector: Floats) -> Floats:
    """Vectors (n, 3) of the world in the frames of bodies with quaternions (n, 4), w first."""
    w, axis = orientation[:, :1], -orientation[:, 1:]
    twice = 2 * np.cross(axis, vector)
    return np.asarray(vector + w * twice + np.cross(axis, twice))
