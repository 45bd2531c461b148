"""A fan of range-finder rays, cast by MuJoCo and carried by a LaserScan message."""

from __future__ import annotations

import numpy as np
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.interface.names import Text
from sim.interface.validators import (
    STRICT,
    Floats,
    NonNegative,
    Number,
    Positive,
    Range,
    check_range,
)

LASER_SCAN = "sensor_msgs/msg/LaserScan"


@dataclass(frozen=True, config=STRICT)
class Rays:
    """A fan of rays in the xy plane of a site, evenly spaced; the names are LaserScan's.

    Angles are counter-clockwise from the site's x axis (REP-103). There are as many rays as the
    term has elements, the first at `angle_min`, the last at `angle_max`. The site's own body is
    not seen.
    """

    site: Text  # name of the MuJoCo site that is the origin of the rays
    angle_min: Number  # rad, angle of the first ray
    angle_max: Number  # rad, angle of the last ray
    range_min: NonNegative  # m, smallest range; a nearer obstacle is -inf (REP-117)
    range_max: Positive  # m, largest range; an obstacle there or farther, or none, is +inf

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        check_range("rays", "range_min .. range_max", (self.range_min, self.range_max))
        return self

    def step(self, count: int) -> float:
        """Rad between neighbors of `count` rays; LaserScan's angle_increment."""
        return (self.angle_max - self.angle_min) / max(count - 1, 1)

    def directions(self, count: int) -> Floats:
        """(count, 3) unit vectors in the site's frame."""
        angle = self.angle_min + self.step(count) * np.arange(count)
        return np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=-1)

    def ranges(self, distance: Floats, inf_values: Range) -> Floats:
        """Convert true distances, m, negative without a hit, to the ranges that a scanner reports.

        LaserScan carries float32: rounded here already, a range survives the message unchanged.
        """
        rounded = distance.astype(np.float32).astype(np.float64)
        far = (rounded < 0) | (rounded >= self.range_max)
        near = ~far & (rounded <= self.range_min)
        return np.where(far, inf_values[1], np.where(near, inf_values[0], rounded))

    def required_values(self, count: int) -> dict[str, float]:
        """Header values of a LaserScan whose ranges are these rays."""
        return {
            "angle_min": self.angle_min,
            "angle_max": self.angle_max,
            "angle_increment": self.step(count),
            "range_min": self.range_min,
            "range_max": self.range_max,
        }
