"""Shortest paths of a robot around walls, for rewards of progress and for reference returns.

Obstacles are boxes, enlarged by the robot's clearance. A shortest path is straight from corner to
corner of them (a visibility graph). The progress of an episode is the difference of two lengths
of the path that is left, so that a robot gains nothing by walking to and fro.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from sim.interface import Floats

Box = tuple[float, float, float, float]  # centre x, y and half sizes x, y, m
SLACK = 1e-6  # m; a path that touches a box is not blocked by it


class Ways:
    """Shortest paths around walls.

    Args:
        walls: boxes.
        body: smallest distance of the robot's center from the walls on its path, m. Where a robot
            is nearer than that, the path begins as near as it is.
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
        # Arguments and result of the last `measure`: the reward of a tick and the controller that
        # continues from there need the same one.
        self._last: tuple[Floats, Floats, tuple[Floats, Floats]] | None = None

    def measure(self, position: Floats, goal: Floats) -> tuple[Floats, Floats]:
        """The shortest path from each place to its goal.

        Args:
            position: (n, 2) m.
            goal: (n, 2) m.

        Returns:
            Its length (n,), m, inf where there is none; and the next point (n, 2) on it: a corner,
            or the goal. Where there is no path it is the goal.
        """
        last = self._last
        if last is None or not (
            np.array_equal(last[0], position) and np.array_equal(last[1], goal)
        ):
            last = position.copy(), goal.copy(), self._measure(position, goal)
            self._last = last
        length, point = last[2]
        return length.copy(), point.copy()

    def _measure(self, position: Floats, goal: Floats) -> tuple[Floats, Floats]:
        goals, which = np.unique(goal, axis=0, return_inverse=True)
        which, n = which.reshape(-1), len(position)
        straight = self._straight(np.r_[position, goals], np.r_[goals, self._corners])
        last = straight[n:, len(goals) :]  # (goals, corners)
        left = (self._between + last[:, None]).min(axis=-1, initial=np.inf)[which]
        direct = straight[np.arange(n), which]
        total = np.c_[direct, straight[:n, len(goals) :] + left]
        shortest = total.min(axis=1)
        # Of points on one straight line all are next points: take the farthest from the robot.
        remains = np.c_[np.zeros(len(goal)), left]
        best = np.where(total <= shortest[:, None] + SLACK, remains, np.inf).argmin(axis=1)
        points = np.r_[np.zeros((1, 2)), self._corners][best]
        return shortest, np.where((best == 0)[:, None], goal, points)

    def _gap(self, points: Floats) -> Floats:
        """(n, walls) from points (n, 2) to the sides of the walls, m; negative inside."""
        return np.asarray((np.abs(points[:, None] - self._middle) - self._half).max(axis=-1))

    def _straight(self, start: Floats, end: Floats) -> Floats:
        """(n, m) straight distance from starts (n, 2) to ends (m, 2), m; inf through a wall."""
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
    """Returns `Ways`, computed once for the same arguments."""
    return Ways(walls, body, np.array(inside))
