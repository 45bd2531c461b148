"""Predicts residuals after a change of a sensor's matrix or bias, from second moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.replay.residuals import Comparison, Element, centered
from sim.interface import Floats


@dataclass(frozen=True)
class Moments:
    """Second moments of recorded (y) and simulated (x) values of one term."""

    yy: Floats  # (count,)
    xx: Floats  # (count, count)
    yx: Floats  # (count, count) of y's element with x's
    mean: Floats  # (count,) of y - x; 0 where an offset is not to be seen

    def left(self, matrix: Floats) -> Floats:
        """(count,) mean squares of y - matrix @ x."""
        cross = (matrix * self.yx).sum(axis=1)
        return np.asarray(
            np.maximum(self.yy - 2 * cross + ((matrix @ self.xx) * matrix).sum(axis=1), 0.0)
        )

    def unbiased(self) -> Floats:
        """(count,) mean squares of y - x minus its mean."""
        return np.maximum(self.left(np.eye(len(self.yy))) - self.mean**2, 0.0)

    def gain(self, index: int) -> float:
        """The factor on one element with the smallest remaining difference."""
        return float(self.yx[index, index] / max(self.xx[index, index], 1e-300))

    def common_gain(self, elements: list[Element]) -> float:
        """The factor on all elements with the smallest remaining difference."""
        weight = np.array([1 / element.floor**2 if element.moves else 0.0 for element in elements])
        return float(
            (weight * np.diag(self.yx)).sum() / max((weight * np.diag(self.xx)).sum(), 1e-300)
        )

    def rotation(self) -> float:
        """Rotation of x, rad, with the smallest remaining difference; for two elements."""
        return float(np.arctan2(self.yx[1, 0] - self.yx[0, 1], self.yx[0, 0] + self.yx[1, 1]))


def moments_of(comparison: Comparison, elements: list[Element]) -> Moments:
    """Returns the moments; persistent elements are centered in their windows."""
    window = comparison.samples.window
    remembers = np.array([element.remembers for element in elements])
    y = np.where(remembers, centered(comparison.recorded, window), comparison.recorded)
    x = np.where(remembers, centered(comparison.simulated, window), comparison.simulated)
    count = max(len(y), 1)
    return Moments((y**2).mean(axis=0), x.T @ x / count, y.T @ x / count, (y - x).mean(axis=0))


def turned(angle: float) -> Floats:
    """(2, 2) rotation matrix, counter-clockwise."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def arranged(order: NDArray[np.int64]) -> Floats:
    """(n, n) permutation that moves element order[i] to position i."""
    return np.asarray(np.eye(len(order))[order])
