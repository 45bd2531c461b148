"""A controller that drives a wheeled base to the target that a task family states.

Its return is the optimum of a normalized score (`sim.envs.reference_returns`).
"""

from __future__ import annotations

import numpy as np

from sim.errors import UserError
from sim.interface import Floats, Interface, parse_path, path_text
from sim.tasks.base import Fields
from sim.tasks.planar import bearing_to, to_base

APPROACH_GAIN = 4.0  # 1/s; full speed until close by, then brake
TURN_GAIN = 3.0  # 1/s
TURN_SHARE = 0.8  # of the largest deceleration, so that a turn ends where it should
CLOSE = 0.03  # m; nearer than that the bearing is noise


class ExpertController:
    """Steers a holonomic or a differential base to a point, as fast as its limits allow.

    Which of the two a base is follows from its action terms: `linear.x` and `linear.y` of a
    Twist, or `linear.x` and `angular.z`. Everything else keeps its safe command.

    Raises:
        UserError: the robot's commands contain neither pair.
    """

    def __init__(self, interface: Interface) -> None:
        self._safe = interface.safe_command
        paths = [path for term in interface.action for path in term.ros.fields]
        rates = np.concatenate([term.rate_limits for term in interface.action])
        places = {path_text(parse_path(path)[-2:]): i for i, path in enumerate(paths)}
        self._x, self._y = places.get("linear.x"), places.get("linear.y")
        self._yaw = places.get("angular.z")
        if self._x is None or (self._y is None and self._yaw is None):
            raise UserError(
                f"robot {interface.robot!r} has no wheeled base: linear.x with linear.y or "
                f"angular.z is needed among its commands, it has {', '.join(paths)}"
            )
        self._brake = TURN_SHARE * rates[self._yaw] if self._yaw is not None else 0.0

    def command(self, fields: Fields, point: Floats) -> Floats:
        """Returns the command (n, A) towards `point` (n, 2) in the frame of `position`, m."""
        offset = to_base(point - fields["position"], fields)
        command = np.tile(self._safe, (len(offset), 1))
        if self._y is not None:
            command[:, self._x] = APPROACH_GAIN * offset[:, 0]
            command[:, self._y] = APPROACH_GAIN * offset[:, 1]
            return command
        bearing, distance = bearing_to(offset), np.linalg.norm(offset, axis=1)
        back = np.abs(bearing) > np.pi / 2  # what lies behind is reached backwards
        bearing = np.where(back, bearing - np.copysign(np.pi, bearing), bearing)
        ahead = np.cos(bearing) ** 3  # no circles around the point: first turn, then go
        command[:, self._x] = np.where(back, -1, 1) * APPROACH_GAIN * distance * ahead
        rate = np.minimum(TURN_GAIN * np.abs(bearing), np.sqrt(2 * self._brake * np.abs(bearing)))
        command[:, self._yaw] = np.where(distance > CLOSE, np.copysign(rate, bearing), 0.0)
        return command
