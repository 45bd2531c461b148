"""Uneven ground for robots that walk: patches of slopes, stairs and bumps as one height field.

    hardest          Each kind has a row of patches along y, level after level, from flat to
up  down  bumps      hardest. A robot begins in the middle of a patch, on a level platform at
+---+---+---+        height 0. Slopes and stairs surround it as square rings: they lead up (or
|   |   |   |        down) for the first half of the way to the edge, and back for the second.
+---+---+---+        All edges are at height 0, so that a robot may walk on to the next patch.
| . | . | . |        . begin
+---+---+---+
    flat
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import mujoco
import numpy as np

from sim.errors import UserError
from sim.interface import Floats

SPACING = 0.05  # m, of the samples of the height field
HALF = 6.0  # m, half the width of a patch
PLATFORM = 0.75  # m, half the width of the level ground in the middle, at the edge and on top
TREAD = 0.31  # m, depth of a stair: a common staircase indoors
BUMP = 0.3  # m, distance between the random heights of bumps
BASE = 0.5  # m, thickness of the ground below its lowest point
FIELD = "task.ground"  # name of the height field, which no robot's model has
SEED = 20_171_026  # of the bumps, which are the same in every simulation


@dataclass(frozen=True)
class Ground:
    """Patches of uneven ground.

    Args:
        slope: gradient of the hardest slopes, m per m; 0: there are none.
        step: height of the highest stairs, m; 0: there are none.
        bumps: largest height or depth of the highest bumps, m; 0: there are none.
        levels: number of levels, the first of which is flat.
    """

    slope: float
    step: float
    bumps: float
    levels: int

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds of ground that there are."""
        sloping = ("slope_up", "slope_down") if self.slope else ()
        stairs = ("stairs_up", "stairs_down") if self.step else ()
        return (*sloping, *stairs, *(("bumps",) if self.bumps else ()))

    def center(self, kind: int, level: int) -> tuple[float, float]:
        """X and y of the middle of a patch, m."""
        column, row = kind - (len(self.kinds) - 1) / 2, level - (self.levels - 1) / 2
        return 2 * HALF * column, 2 * HALF * row

    @cached_property
    def heights(self) -> Floats:
        """(rows, columns) heights of the samples, m; rows along y, columns along x."""
        samples = round(2 * HALF / SPACING)
        line = (np.arange(samples + 1) - samples / 2) * SPACING
        x, y = np.meshgrid(line, line)
        ring = np.maximum(np.abs(x), np.abs(y))
        heights = np.zeros((self.levels * samples + 1, len(self.kinds) * samples + 1))
        for column, kind in enumerate(self.kinds):
            for level in range(self.levels):
                share = level / max(1, self.levels - 1)
                patch = share * self._patch(kind, ring)
                rows = slice(level * samples, (level + 1) * samples + 1)
                heights[rows, column * samples : (column + 1) * samples + 1] = patch
        return heights

    def _patch(self, kind: str, ring: Floats) -> Floats:
        """Heights of a hardest patch at distances `ring` from its middle, m."""
        if kind == "bumps":
            return self._bumps(ring)
        # Way from the platform in the middle to the top, and back to the edge.
        way = np.minimum(ring - PLATFORM, HALF - PLATFORM - ring)
        way = np.clip(way, 0.0, HALF / 2 - PLATFORM - PLATFORM / 2)
        up = 1.0 if kind.endswith("up") else -1.0
        if kind.startswith("stairs"):
            return np.asarray(up * self.step * np.ceil(way / TREAD - 1e-9))
        return np.asarray(up * self.slope * way)

    def _bumps(self, ring: Floats) -> Floats:
        points = round(2 * HALF / BUMP) + 1
        coarse = np.random.default_rng(SEED).uniform(-self.bumps, self.bumps, (points, points))
        place = np.linspace(0, points - 1, len(ring))
        low = np.minimum(place.astype(int), points - 2)
        part = (place - low)[:, None]
        rows = coarse[low] * (1 - part) + coarse[low + 1] * part
        both = rows[:, low] * (1 - part.T) + rows[:, low + 1] * part.T
        fade = np.clip(np.minimum(ring - PLATFORM, HALF - ring) / PLATFORM, 0.0, 1.0)
        return np.asarray(both * fade)

    def height(self, xy: Floats) -> Floats:
        """(...) heights of the ground at places (..., 2), m, as MuJoCo's triangles have it.

        Outside of the patches that of the nearest edge.
        """
        heights = self.heights
        rows, columns = heights.shape
        u = np.clip(xy[..., 0] / SPACING + (columns - 1) / 2, 0, columns - 1)
        v = np.clip(xy[..., 1] / SPACING + (rows - 1) / 2, 0, rows - 1)
        c, r = np.minimum(u.astype(int), columns - 2), np.minimum(v.astype(int), rows - 2)
        u, v = u - c, v - r
        here, right = heights[r, c], heights[r, c + 1]
        above, across = heights[r + 1, c], heights[r + 1, c + 1]
        lower = here + u * (right - here) + v * (above - here)
        upper = across + (1 - u) * (above - across) + (1 - v) * (right - across)
        return np.asarray(np.where(u + v <= 1, lower, upper))

    def add_to(self, spec: mujoco.MjSpec, where: str) -> None:
        """Replace the floor of a robot's scene, a plane, by this ground.

        Args:
            spec: of the robot, changed in place.
            where: the family, as an error begins.

        Raises:
            UserError: there is no plane that the robot stands on.
        """
        plane = int(mujoco.mjtGeom.mjGEOM_PLANE)
        solid = [
            g for g in spec.worldbody.geoms if g.type == plane and (g.contype or g.conaffinity)
        ]
        if not solid:
            raise UserError(
                f"{where}: uneven ground takes the place of a floor, and the model of the robot "
                "has no plane with contacts in its world body"
            )
        floor = solid[0]
        heights = self.heights
        low, high = float(heights.min()), float(heights.max())
        half_x, half_y = (SPACING * (n - 1) / 2 for n in heights.shape[::-1])
        rise = max(high - low, 1e-6)
        spec.add_hfield(
            name=FIELD,
            nrow=heights.shape[0],
            ncol=heights.shape[1],
            size=[half_x, half_y, rise, BASE],
            userdata=((heights - low) / rise).ravel().tolist(),
        )
        spec.worldbody.add_geom(  # without a name: the robot's own floor may be called "ground"
            type=mujoco.mjtGeom.mjGEOM_HFIELD,
            hfieldname=FIELD,
            pos=[0, 0, low],
            friction=floor.friction,
            condim=floor.condim,
            contype=floor.contype,
            conaffinity=floor.conaffinity,
            solref=floor.solref,
            solimp=floor.solimp,
            margin=floor.margin,
            material=floor.material,
            rgba=floor.rgba,
        )
        for each in solid:
            each.contype, each.conaffinity = 0, 0
            each.pos = [each.pos[0], each.pos[1], low - BASE]


@lru_cache(maxsize=8)
def ground_of(slope: float, step: float, bumps: float, levels: int) -> Ground:
    """The ground with these parameters, whose heights are computed once."""
    return Ground(slope, step, bumps, levels)
