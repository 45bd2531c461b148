"""Measured while a skill drives simulated robots: their motion, and targets that are cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.envs.vec_env import TaskVectorEnv
from sim.interface import Floats, fold
from sim.physics.mjcf_addresses import start_address
from sim.physics.robot_bodies import HINGE, measured_joints

Bools = NDArray[np.bool_]
# Share of the targets of an element; above it there is a note. A good policy that was trained with
# the limits of the robot accelerates and brakes as fast as they allow, half of the time.
CUT = 0.75


class RobotMotion:
    """Mean motion of robots from the beginning of an episode, each until it falls.

    Args:
        env: after its reset.
    """

    def __init__(self, env: TaskVectorEnv) -> None:
        self._physics = env.world.physics
        self._base = start_address(self._physics.model, env.interface)
        self._begin = self._physics.pose  # (B, nq)
        self._last = self._begin.copy()
        self._turn = np.zeros(len(self._begin))  # (B,) rad, counter-clockwise

    def follow(self, running: Bools) -> None:
        """Take over the state of robots (B,) after a tick."""
        pose = self._physics.pose
        if self._base is not None and self._base.quaternion.size:
            turned = fold(self._heading(pose) - self._heading(self._last))
            self._turn += np.where(running, turned, 0.0)
        self._last = np.where(running[:, None], pose, self._last)

    @property
    def text(self) -> str:
        """Distance and turn of the base, or the motion of the joints of a robot without one."""
        moved = self._last - self._begin
        if self._base is None:
            return self._joints(moved)
        x, y = moved[:, self._base.xy].T
        distance = f"they move {np.hypot(x, y).mean():.2f} m"
        if not self._base.quaternion.size:
            return distance
        heading = self._heading(self._begin)
        ahead = float((np.cos(heading) * x + np.sin(heading) * y).mean())
        left = float((np.cos(heading) * y - np.sin(heading) * x).mean())
        return (
            f"{distance} (ahead {ahead:+.2f}, left {left:+.2f}), turn left "
            f"{float(self._turn.mean()):+.2f} rad"
        )

    def _heading(self, pose: Floats) -> Floats:
        """(B,) rad."""
        assert self._base is not None
        w, x, y, z = pose[:, self._base.quaternion].T
        heading: Floats = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        return heading

    def _joints(self, moved: Floats) -> str:
        model = self._physics.model
        joints = measured_joints(model)
        parts = []
        for unit, hinges in (("rad", True), ("m", False)):
            chosen = [j for j in joints if (int(model.jnt_type[j]) == HINGE) == hinges]
            if chosen:
                mean = np.abs(moved[:, model.jnt_qposadr[chosen]]).mean()
                parts.append(f"{mean:.2f} {unit}")
        return f"their joints move {' and '.join(parts) or 'nothing'}"


class Cuts:
    """Targets that the robot does not execute: beyond a limit, or faster than the rate limit.

    Args:
        env: after its reset.
    """

    def __init__(self, env: TaskVectorEnv) -> None:
        self._world, self._interface = env.world, env.interface
        size = self._interface.action_size
        self._by_limit, self._by_rate = np.zeros(size, int), np.zeros(size, int)
        self._either, self._targets = np.zeros(size, int), 0

    def count(self, action: NDArray[np.float32], running: Bools) -> None:
        """Count the targets of actions (B, A) that come next, of running robots (B,)."""
        previous = self._world.command
        command = self._interface.command(action, previous)
        step = self._interface.rate_step
        by_rate = (command == previous - step) | (command == previous + step)
        by_limit = self._interface.saturated(action)
        self._by_limit += by_limit[running].sum(axis=0)
        self._by_rate += by_rate[running].sum(axis=0)
        self._either += (by_limit | by_rate)[running].sum(axis=0)
        self._targets += int(running.sum())

    @property
    def text(self) -> str:
        """The share of all targets."""
        share = self._either.sum() / max(1, self._targets * len(self._either))
        return f"{100 * share:.0f} % of the targets are cut"

    def notes(self, name: str) -> list[str]:
        """One line for skill `name` if nearly all targets of an element are cut; the worst one."""
        shares = self._either / max(1, self._targets)
        worst = int(np.argmax(shares))
        if not shares[worst] > CUT:
            return []
        by_limit, by_rate = (
            100 * n[worst] / self._targets for n in (self._by_limit, self._by_rate)
        )
        return [
            f"skill {name!r}: the robot cuts {100 * shares[worst]:.0f} % of the targets of "
            f"{self._interface.action_names[worst]} (limit: {by_limit:.0f} %, rate_limit: "
            f"{by_rate:.0f} %); compare limit and rate_limit in robot.yaml, and action.scale in "
            "the description, with the training"
        ]
