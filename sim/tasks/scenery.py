"""Adds goal discs and walls to a robot's MuJoCo scene."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco

Color = tuple[float, float, float, float]  # RGBA, 0 to 1

WALL = 1 << 8  # the contact bit of walls in a model that has no contacts of its own
WALL_COLOR: Color = (0.62, 0.66, 0.71, 1.0)
GOAL_COLOR: Color = (0.20, 0.60, 0.35, 0.55)
# m, of walls that no robot climbs over; pictures from above show what is behind them.
WALL_HEIGHT, ANT_WALL_HEIGHT = 0.8, 2.0  # published for the ant: 5 m


def add_disc(spec: mujoco.MjSpec, name: str, radius: float, color: Color) -> None:
    """Add a flat disc on the floor, placed by its mocap body; it is rendered without contacts."""
    body = spec.worldbody.add_body(name=name, mocap=True, pos=[0, 0, 0.002])
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[radius, 0.002, 0],
        rgba=color,
        contype=0,
        conaffinity=0,
    )


def add_block(
    spec: mujoco.MjSpec, name: str, half: tuple[float, float, float], color: Color, bit: int
) -> None:
    """Add a box with contacts that a family can move: a mocap body.

    Args:
        spec: of the robot, changed in place.
        name: of the body.
        half: half sizes, m.
        color: of the box.
        bit: what `add_walls` has returned.
    """
    body = spec.worldbody.add_body(name=name, mocap=True, pos=[0, 0, half[2]])
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=list(half),
        rgba=color,
        contype=bit,
        conaffinity=0 if bit == WALL else bit,
    )


def add_walls(
    spec: mujoco.MjSpec, boxes: Sequence[tuple[float, float, float, float]], height: float
) -> int:
    """Add walls that the robot cannot pass, even if its model has contacts switched off.

    Such a model gets contacts with the walls and no others
    (docs/adr/0011-task-families-add-walls.md).

    Args:
        spec: of the robot, changed in place.
        boxes: center x, y and half sizes x, y of each, m.
        height: m.

    Returns:
        The contact bit of the walls.
    """
    bit = 1
    if spec.option.disableflags & int(mujoco.mjtDisableBit.mjDSBL_CONTACT):
        spec.option.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
        bit = WALL
        for geom in spec.geoms:
            solid = bool(geom.contype or geom.conaffinity)
            geom.contype, geom.conaffinity = 0, WALL if solid else 0
    for i, (x, y, half_x, half_y) in enumerate(boxes):
        spec.worldbody.add_geom(
            name=f"wall_{i}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[x, y, height / 2],
            size=[half_x, half_y, height / 2],
            rgba=WALL_COLOR,
            contype=bit,
            conaffinity=0 if bit == WALL else bit,
        )
    return bit
