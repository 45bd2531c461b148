"""The shortest way of a round robot between walls: a string pulled tight around their corners.

It knows the walls as boxes and nothing of doors or rooms.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

Box = tuple[float, float, float, float]  # center x, y and half sizes x, y, m
ARC = 4  # points around a quarter of a corner; a body's way around it is 1.3 % too long
RING = 32  # points of a goal's rim
SLACK = 1e-7  # m


def clear(a: np.ndarray, b: np.ndarray, walls: Sequence[Box], body: float) -> np.ndarray:
    """Whether a disc of radius `body` gets straight from a (..., 2) to b (..., 2)."""
    way = b - a
    length = np.maximum((way**2).sum(axis=-1), 1e-18)
    free = np.ones(way.shape[:-1], bool)
    for x, y, half_x, half_y in walls:
        # A box grown by the body is two longer boxes and a disc at each corner.
        for grow in ((body, 0.0), (0.0, body)):
            size = np.add((half_x, half_y), grow) - SLACK
            sides = np.subtract((x, y), size), np.add((x, y), size)
            with np.errstate(divide="ignore", invalid="ignore"):
                ends = np.stack([(side - a) / way for side in sides])
            along = np.abs(way) < 1e-12  # parallel to an axis: always between its sides, or never
            between = np.abs(a - (x, y)) < size
            enter = np.where(along, np.where(between, -np.inf, np.inf), ends.min(axis=0))
            leave = np.where(along, np.where(between, np.inf, -np.inf), ends.max(axis=0))
            free &= np.maximum(enter.max(axis=-1), 0) >= np.minimum(leave.min(axis=-1), 1)
        for sign in product((-1, 1), repeat=2):
            corner = np.add((x, y), np.multiply(sign, (half_x, half_y)))
            share = np.clip(((corner - a) * way).sum(axis=-1) / length, 0, 1)
            nearest = a + share[..., None] * way - corner
            free &= (nearest**2).sum(axis=-1) >= max(0.0, body - SLACK) ** 2
    return free


def shortest_ways(
    starts: np.ndarray,
    goal: np.ndarray,
    radius: float,
    walls: Sequence[Box],
    body: float,
    norm: float = 2,
) -> np.ndarray:
    """Length (n,), m, of the shortest way from each start (n, 2) to within `radius` of a goal.

    Args:
        starts: where the middle of the robot begins.
        goal: (2,).
        radius: m.
        walls: what cannot be passed.
        body: radius of the robot, m.
        norm: what a straight piece counts: 2 its length, inf the longer of its parts along x and
            y. In any norm a taut string is a shortest way, as a straight piece is.
    """
    angle = (np.arange(ARC) + 0.5) * np.pi / 2 / ARC
    # The body's center passes a corner on a polygon around the arc, so that it never cuts it.
    around = (
        (body + SLACK) / np.cos(np.pi / 4 / ARC) * np.stack([np.cos(angle), np.sin(angle)], -1)
    )
    bends = np.concatenate(
        [
            np.add((x, y), np.multiply(sign, np.add((half_x, half_y), around)))
            for x, y, half_x, half_y in walls
            for sign in product((-1, 1), repeat=2)
        ]
    )
    turn = 2 * np.pi * np.arange(RING) / RING
    rim = np.concatenate([goal[None], goal + radius * np.stack([np.cos(turn), np.sin(turn)], -1)])
    nodes = np.concatenate([rim, bends])
    nodes = nodes[clear(nodes, nodes, walls, body)]  # not in a wall themselves
    there = np.linalg.norm(nodes - goal, axis=-1) <= radius + SLACK
    left = np.where(there, 0.0, np.inf)
    pieces = _lengths(nodes, nodes, walls, body, norm)
    while True:  # dynamic programming: no way has more bends than there are rounds
        better = np.minimum(left, (pieces + left).min(axis=1))
        if np.array_equal(better, left):
            break
        left = better
    ways = (_lengths(starts, nodes, walls, body, norm) + left).min(axis=1)
    return np.where(np.linalg.norm(starts - goal, axis=-1) < radius, 0.0, ways)


def _lengths(
    a: np.ndarray, b: np.ndarray, walls: Sequence[Box], body: float, norm: float
) -> np.ndarray:
    """(n, m) from each a (n, 2) to each b (m, 2), inf where a wall is between."""
    a = a[:, None]
    return np.where(clear(a, b, walls, body), np.linalg.norm(b - a, ord=norm, axis=-1), np.inf)
