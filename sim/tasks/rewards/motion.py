"""The data of reward terms: the state after a tick, and what is remembered of earlier ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats
from sim.interface.orientation import projected_gravity
from sim.tasks.planar import level, to_body
from sim.tasks.rewards.parts import RobotParts

CONTACT = 1.0  # N: a foot with more than that is on the ground (legged_gym, Isaac Lab)
STILL = 0.1  # m/s and rad/s: a slower command is to stand
Bools = NDArray[np.bool_]


def total(values: Floats | Bools) -> Floats:
    """(n,) sums over the last axis of values (n, m), one column after the other.

    numpy's own sums depend on how an array lies in memory, and a simulation would earn another
    reward, in the last digit, alone than beside others.
    """
    sums = np.zeros(len(values))
    for column in np.moveaxis(values, -1, 0):
        sums = sums + column
    return sums


@dataclass(frozen=True)
class FeetMemory:
    """Times for which each of F feet has been in the air and on the ground, s, (n, F) each."""

    air: Floats  # since it was lifted; 0 on the ground
    stance: Floats  # since it landed; 0 in the air
    last_air: Floats  # of its last complete swing
    last_stance: Floats  # of its last complete stance
    landed: Bools  # in this tick

    @classmethod
    def begun(cls, size: int, feet: int) -> FeetMemory:
        """The memory at the beginning of an episode, when feet neither stand nor swing yet."""
        zero = np.zeros((size, feet))
        return cls(zero, zero.copy(), zero.copy(), zero.copy(), np.zeros((size, feet), bool))

    def after(self, contact: Bools, dt: float) -> FeetMemory:
        """The memory a tick of `dt` s later, with the feet that are on the ground, (n, F)."""
        landed = contact & (self.air > 0)
        lifted = ~contact & (self.stance > 0)
        return FeetMemory(
            air=np.where(contact, 0.0, self.air + dt),
            stance=np.where(contact, self.stance + dt, 0.0),
            last_air=np.where(landed, self.air, self.last_air),
            last_stance=np.where(lifted, self.stance, self.last_stance),
            landed=landed,
        )


@dataclass(frozen=True)
class Motion:
    """A tick of n robots, as a reward term reads it.

    Quantities that no used term needs are absent: a term names its needs (`RewardTerm.needs`).
    """

    parts: RobotParts
    signals: dict[str, Floats]  # by need, (n, size)
    command: Floats  # (n, 3) ahead and left, m/s, counter-clockwise, rad/s; empty without one
    action: Floats  # (n, A) executed in this tick, in the units of a policy's output
    previous: Floats  # (n, A) a tick earlier
    earlier: Floats  # (n, A) two ticks earlier
    feet: FeetMemory  # after this tick; without feet of 0 columns
    ground: Callable[[Floats], Floats] | None = None  # heights at places (..., 2), m; None: 0

    @cached_property
    def moves(self) -> Bools:
        """(n,) True where the command is not to stand."""
        return np.asarray(total(self.command**2) > STILL**2)

    @cached_property
    def height(self) -> Floats:
        """(n,) of the base above the ground below it, m."""
        return self._above_ground(self.signals["base_position"])

    @cached_property
    def velocity(self) -> Floats:
        """(n, 3) of the base, m/s: ahead and left on the floor, and up."""
        return level(self.signals["base_orientation"], self.signals["base_velocity"])

    @cached_property
    def rates(self) -> Floats:
        """(n, 3) of the base about its own axes: roll, pitch, yaw, rad/s."""
        return to_body(self.signals["base_orientation"], self.signals["base_rates"])

    @cached_property
    def yaw_rate(self) -> Floats:
        """(n,) about the vertical, rad/s."""
        return self.signals["base_rates"][:, 2]

    @cached_property
    def gravity(self) -> Floats:
        """(n, 3) the direction of gravity in the base's frame."""
        return projected_gravity(self.signals["base_orientation"])

    @cached_property
    def joint_position(self) -> Floats:
        """(n, A) rad or m."""
        return self.signals["joint_position"]

    @cached_property
    def joint_velocity(self) -> Floats:
        """(n, A) rad/s or m/s."""
        return self.signals["joint_velocity"]

    @cached_property
    def torque(self) -> Floats:
        """(n, A) of the actuators on each joint, N m or N."""
        return self.signals["joint_torque"]

    @cached_property
    def foot_height(self) -> Floats:
        """(n, F) of the feet's centers above the ground below them, m."""
        return self._above_ground(self._of_feet("foot_position"))

    @cached_property
    def foot_speed(self) -> Floats:
        """(n, F) of the feet over the floor, m/s."""
        velocity = self._of_feet("foot_velocity")
        return np.hypot(velocity[..., 0], velocity[..., 1])

    @cached_property
    def foot_force(self) -> Floats:
        """(n, F, 3) on the feet in the world, N; its sign is that of MuJoCo."""
        return self._of_feet("foot_force")

    @cached_property
    def foot_load(self) -> Floats:
        """(n, F) length of the force on each foot, N."""
        return length(self.foot_force)

    @cached_property
    def contact(self) -> Bools:
        """(n, F) True for feet on the ground."""
        return np.asarray(self.foot_load > CONTACT)

    @cached_property
    def other_force(self) -> Floats:
        """(n, ...) length of the force on every geom that is no foot, N."""
        return self.signals["other_force"]

    def _above_ground(self, place: Floats) -> Floats:
        if self.ground is None:
            return place[..., 2]
        return np.asarray(place[..., 2] - self.ground(place[..., :2]))

    def _of_feet(self, need: str) -> Floats:
        values = self.signals[need]
        return values.reshape(len(values), -1, 3)


def on_ground(force: Floats) -> Bools:
    """(n, F) True for feet with forces (n, F, 3), N, that are more than a touch."""
    return np.asarray(length(force) > CONTACT)


def length(vectors: Floats) -> Floats:
    """(...) lengths of vectors (..., 3)."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.asarray(np.sqrt(x * x + y * y + z * z))
