"""Outlines of walls, obstacles and goals seen from above, as polygons."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import mujoco
import numpy as np

from sim.interface import Floats

EDGES = 48  # of a circle
HIDDEN = 3  # MuJoCo shows geoms of the groups below this one
UNSET = (0.5, 0.5, 0.5, 1.0)  # MuJoCo's color of a geom that names none


@dataclass(frozen=True)
class Shape:
    """Outline of a geom seen from above."""

    outline: Floats  # (n, 2) m, convex, counter-clockwise
    color: tuple[float, float, float, float]  # RGBA, 0 to 1
    top: float  # m, how high it reaches
    fixed: bool  # it is a part of the world; otherwise an episode puts it somewhere
    solid: bool  # one bumps into it; otherwise it is only drawn


def footprints(model: mujoco.MjModel, data: mujoco.MjData) -> list[Shape]:
    """Returns all visible fixed geoms except planes, from the lowest to the highest.

    Geoms that a family has sunk below the floor are left out.

    Args:
        model: of the robot and the family's scene.
        data: with frames computed, as by `mj_forward`.
    """
    shapes = []
    for geom in range(model.ngeom):
        body = model.geom_bodyid[geom]
        fixed, placed = model.body_weldid[body] == 0, model.body_mocapid[body] >= 0
        red, green, blue, alpha = _color(model, geom)
        if not (fixed or placed) or model.geom_group[geom] >= HIDDEN or not alpha:
            continue
        points = _points(model, data, geom)
        if len(points) and (top := float(points[:, 2].max())) > 0:
            outline = hull(points[:, :2])
            solid = bool(model.geom_contype[geom] or model.geom_conaffinity[geom])
            shapes.append(Shape(outline, (red, green, blue, alpha), top, not placed, solid))
    return sorted(shapes, key=lambda shape: shape.top)


def hull(points: Floats) -> Floats:
    """Convex hull (m, 2) of points (n, 2), counter-clockwise (Andrew's monotone chain)."""
    order = np.unique(points.round(9), axis=0)
    halves = []
    for chain in (order, order[::-1]):
        half: list[Floats] = []
        for point in chain:
            while len(half) > 1 and _turn(half[-2], half[-1], point) <= 0:
                half.pop()
            half.append(point)
        halves += half[:-1]
    return np.array(halves if halves else order)


def _turn(a: Floats, b: Floats, c: Floats) -> float:
    """Positive if a, b, c turn to the left."""
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def _color(model: mujoco.MjModel, geom: int) -> tuple[float, float, float, float]:
    own, material = model.geom_rgba[geom], model.geom_matid[geom]
    shown = model.mat_rgba[material] if material >= 0 and np.allclose(own, UNSET) else own
    red, green, blue, alpha = (float(part) for part in shown)
    return red, green, blue, alpha


def _points(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> Floats:
    """(n, 3) points in the world whose hull from above is the geom's; empty for a plane."""
    kinds = mujoco.mjtGeom
    kind, size = kinds(int(model.geom_type[geom])), model.geom_size[geom]
    turn = data.geom_xmat[geom].reshape(3, 3)
    angles = np.linspace(0, 2 * np.pi, EDGES, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles), np.zeros(EDGES)], axis=-1)
    offset = np.zeros((0, 3))  # of the points from the geom's middle
    if kind == kinds.mjGEOM_BOX:
        offset = np.array(list(product((-1, 1), repeat=3))) * size @ turn.T
    elif kind == kinds.mjGEOM_CYLINDER:
        rims = [size[0] * circle + [0, 0, side * size[1]] for side in (-1, 1)]
        offset = np.concatenate(rims) @ turn.T
    elif kind in (kinds.mjGEOM_SPHERE, kinds.mjGEOM_CAPSULE):
        half = size[1] * turn[:, 2] if kind == kinds.mjGEOM_CAPSULE else np.zeros(3)
        ball = size[0] * np.array([*circle, (0, 0, 1)])
        offset = np.concatenate([ball - half, ball + half])
    elif kind == kinds.mjGEOM_ELLIPSOID:
        # From above the outline of x' S^-1 x = 1 is the ellipse of S's upper left part.
        spread = turn @ np.diag(size**2) @ turn.T
        outline = circle[:, :2] @ np.linalg.cholesky(spread[:2, :2]).T
        above = [0, 0, np.sqrt(spread[2, 2])]
        offset = np.concatenate([np.pad(outline, ((0, 0), (0, 1))), [above]])
    elif kind == kinds.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        offset = model.mesh_vert[first : first + count] @ turn.T
    return np.asarray(data.geom_xpos[geom] + offset, np.float64)
