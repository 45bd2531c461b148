"""Reconstructs an episode's task state from a recording."""

from __future__ import annotations

import numpy as np

from sim.interface import Floats
from sim.tasks.base import TaskFamily
from sim.tasks.body_bandits import BodyBandits
from sim.tasks.moving_bandits import MovingBandits
from sim.tasks.planar import axis_of
from sim.tasks.ring_bandits import SECTORS, RingBandits
from sim.tasks.rooms import Rooms


def layout_of(
    family: TaskFamily, task: int, fields: dict[str, Floats]
) -> dict[str, Floats] | None:
    """Returns the layout (n, ...) at n times, from the sensors; None if it cannot be derived.

    For other families the layout cannot be derived from the sensors of one moment: the reward of
    `patrol`, for example, depends on the goal that was visited last.

    Args:
        family: of the task.
        task: its number; the recording names it by its master.
        fields: per term (n, size).
    """
    count = len(next(iter(fields.values())))
    if type(family) is Rooms:
        return {"goal": np.tile(family.spot(task), (count, 1))}
    if type(family) not in (MovingBandits, BodyBandits, RingBandits) or "goals" not in fields:
        return None
    goals = fields["goals"].reshape(count, -1, 2)
    if isinstance(family, BodyBandits):
        if not {"position", "heading"} <= set(fields):
            return None
        cos, sin = (part[:, None] for part in axis_of(fields["heading"]))
        x, y = goals[..., 0], goals[..., 1]
        turned = np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
        return {"goals": fields["position"][:, None] + turned, "slot": np.full(count, float(task))}
    if isinstance(family, RingBandits):
        bearing = np.arctan2(goals[..., 1], goals[..., 0]) % (2 * np.pi)
        sector = (bearing * SECTORS / (2 * np.pi)).astype(int)
        return {"goals": goals, "slot": (sector == task).argmax(axis=1).astype(float)}
    return {"goals": goals, "slot": np.full(count, float(task))}
