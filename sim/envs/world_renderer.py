"""Pictures of the present state of simulations."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from sim.envs.world import World
from sim.interface import path_fields
from sim.physics.robot_model import Robot
from sim.rendering.offscreen import EpisodeReplay, Frame, OffscreenRenderer

COLOR = (0.0, 0.0, 0.0)  # of a trail, which a single frame does not have


class WorldRenderer:
    """Draws every simulation of a world as it is now.

    Args:
        robot: the robot.
        size: width and height of a picture in pixels.
    """

    def __init__(self, robot: Robot, size: tuple[int, int]) -> None:
        self._exits = ExitStack()
        self._renderer = OffscreenRenderer(robot, size, self._exits)

    def draw(self, world: World) -> tuple[NDArray[np.uint8], ...]:
        """Pictures (height, width, 3), one of each simulation.

        Raises:
            NoGraphics: OpenGL is missing.
        """
        fields, pose = path_fields(world.physics.fields()), world.physics.pose
        pictures = []
        for b in range(world.size):
            seen = {name: rows[b] for name, rows in fields.items()}
            layout = {name: rows[b : b + 1].copy() for name, rows in world.layout.items()}
            scene = EpisodeReplay(world.family, "", layout, [Frame(seen, "", COLOR, pose[b])])
            pictures.append(np.array(self._renderer.draw(scene, 0)))
        return tuple(pictures)

    def close(self) -> None:
        """Release the graphics contexts."""
        self._exits.close()
