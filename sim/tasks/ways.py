"""Shortest ways of a robot around walls, for pay by progress and for reference returns.

A string pulled tight around the corners of boxes that are grown by the robot's size. Every place
of the robot has a length of the way that is left, so that what progress pays over an episode is
the difference of two lengths: walking to and fro pays nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from sim.interface import Floats

Box = tuple[float, float, float, float]  # centre x, y and half sizes x, y, m
SLACK = 1e-6  # m; a string that touches a box is not stopped by it


class Ways:
    """Ways around walls.

    Args:
        walls: boxes.
        body: how far from the walls' sides and corners the robot's middle passes them, m. Where a
            robot is nearer than that, the way begins as near as it is.
        inside: (2,) a place that the robot can be at, m. Corners that cannot be reached from
            there, such as those behind the outer walls, are left out.
    """

    def __init__(self, walls: Sequence[Box], body: float, inside: Floats) -> None:
        boxes = np.array(walls, np.float64)
        self._middle, self._half, self._body = boxes[:, :2], boxes[:, 2:], body
        signs = np.array(list(product((-1, 1), repeat=2)))
        corners = (self._middle[:, None] + signs * (self._half + body)[:, None]).reshape(-1, 2)
        corners = corners[(self._gap(corners) > body - SLACK).all(axis=-1)]
        lengths = self._straight(corners, corners)
        for via in range(len(lengths)):  # Floyd and Warshall
            np.minimum(lengths, lengths[:, via, None] + lengths[None, via], out=lengths)
        near = np.isfinite(self._straight(inside[None], corners)[0])
        reached = np.isfinite(lengths[near]).any(axis=0)
        self._corners, self._between = corners[reached], lengths[np.ix_(reached, reached)]

    def measure(self, position: Floats, goal: Floats) -> tuple[Floats, Floats]:
        """The shortest way from each place to each goal.

        Args:
            position: (n, 2) m.
            goal: (n, 2) m.

        Returns:
            Its length (n,), m, inf where there is none; and the next point (n, 2) on it: a corner,
            or the goal. Where there is no way it is the goal.
        """
        goals, which = np.unique(goal, axis=0, return_inverse=True)
        which = which.reshape(-1)
        last = self._straight(goals, self._corners)  # (goals, corners)
        left = (self._between + last[:, None]).min(axis=-1, initial=np.inf)[which]
        direct = self._straight(position, goals)[np.arange(len(which)), which]
        total = np.c_[direct, self._straight(position, self._corners) + left]
        shortest = total.min(axis=1)
        # From a corner on, the next one is as near as the corner itself: the last is meant.
        remains = np.c_[np.zeros(len(goal)), left]
        best = np.where(total <= shortest[:, None] + SLACK, remains, np.inf).argmin(axis=1)
        points = np.r_[np.zeros((1, 2)), self._corners][best]
        return shortest, np.where((best == 0)[:, None], goal, points)

    def _gap(self, points: Floats) -> Floats:
        """(n, walls) from points (n, 2) to the sides of the walls, m; negative inside."""
        return np.asarray((np.abs(points[:, None] - self._middle) - self._half).max(axis=-1))

    def _straight(self, start: Floats, end: Floats) -> Floats:
        """(n, m) m straight from each start (n, 2) to each end (m, 2), inf where a wall is."""
        grown = np.minimum(self._gap(start), self._body)[:, None]
        grown = np.minimum(grown, self._gap(end)) - SLACK
        enter, leave = np.zeros_like(grown), np.ones_like(grown)  # the part of it that is inside
        for axis in (0, 1):
            way = (end[:, axis] - start[:, axis, None])[..., None]
            way = np.where(np.abs(way) < 1e-12, 1e-12, way)
            offset = (self._middle[:, axis] - start[:, axis, None])[:, None] / way
            size = np.maximum(self._half[:, axis] + grown, 0.0) / np.abs(way)
            enter, leave = np.maximum(enter, offset - size), np.minimum(leave, offset + size)
        clear = np.all(enter >= leave, axis=-1)
        return np.where(clear, np.linalg.norm(end - start[:, None], axis=-1), np.inf)


@lru_cache(maxsize=64)
def ways_around(walls: tuple[Box, ...], body: float, inside: tuple[float, float]) -> Ways:
    """The same as `Ways`, computed once for the same arguments."""
    return Ways(walls, body, np.array(inside))
