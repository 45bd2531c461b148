"""Parts of a robot's model that reward terms read, and their signals.

The base is the body `base_link` on a free joint. Joints are those that the actions drive. Feet are
the geoms of the model's tuple `feet`:

    <custom><tuple name="feet"><element objtype="geom" objname="FR_foot"/> .. </tuple></custom>
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError, listed
from sim.interface import Floats
from sim.interface.validators import spread
from sim.physics.mjcf_addresses import actuators
from sim.physics.robot_bodies import joints_of
from sim.physics.robot_model import Robot
from sim.physics.servo import gains
from sim.physics.signals import Part, Quantity, Signal

BASE, FEET = "base_link", "feet"  # names of a body and of a tuple
PREFIX = "reward."  # of the names of signals: no observation term of a shipped robot has it


@dataclass(frozen=True)
class RobotParts:
    """The parts of a robot's model, found once; none of them has to be there."""

    robot: Robot

    @cached_property
    def model(self) -> mujoco.MjModel:
        """The robot alone, without a scene."""
        return self.robot.compile()

    @cached_property
    def bodies(self) -> list[str]:
        """Names of all bodies."""
        return _names(self.model, "body", range(1, self.model.nbody))

    @cached_property
    def base(self) -> tuple[str, ...]:
        """The body `base_link`, if it is on a free joint."""
        for joint in np.flatnonzero(self.model.jnt_type == int(mujoco.mjtJoint.mjJNT_FREE)):
            if self.model.body(int(self.model.jnt_bodyid[joint])).name == BASE:
                return (BASE,)
        return ()

    @cached_property
    def geoms(self) -> list[str]:
        """Names of the robot's own geoms that can touch something."""
        own = self.model.body_rootid[self.model.geom_bodyid] != 0
        solid = (self.model.geom_contype | self.model.geom_conaffinity) != 0
        return _names(self.model, "geom", np.flatnonzero(own & solid))

    @cached_property
    def feet(self) -> tuple[str, ...]:
        """The geoms of the tuple `feet`."""
        index = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_TUPLE, FEET)
        if index < 0:
            return ()
        start = int(self.model.tuple_adr[index])
        rows = range(start, start + int(self.model.tuple_size[index]))
        geom = int(mujoco.mjtObj.mjOBJ_GEOM)
        ids = [int(self.model.tuple_objid[i]) for i in rows if self.model.tuple_objtype[i] == geom]
        return tuple(_names(self.model, "geom", ids))

    @cached_property
    def others(self) -> tuple[str, ...]:
        """Geoms that can touch something and are no feet."""
        return tuple(name for name in self.geoms if name not in self.feet)

    @cached_property
    def actuators(self) -> list[int]:
        """Numbers of the actuators, in the order of the action."""
        return [i for term in self.robot.interface.action for i in actuators(self.model, term)]

    @cached_property
    def joint_ids(self) -> list[int]:
        """Numbers of the joints that the actuators drive, in the order of the action."""
        driven = [joints_of(self.model, i) for i in self.actuators]
        return [joints[0] for joints in driven if len(joints) == 1]

    @cached_property
    def joints(self) -> tuple[str, ...]:
        """Joints that the actions drive; empty unless each drives one."""
        if len(self.joint_ids) < len(self.actuators):
            return ()
        return tuple(_names(self.model, "joint", self.joint_ids))

    @cached_property
    def range(self) -> Floats:
        """(2, A) lowest and highest position of the joints, rad or m; infinite without a limit."""
        limited = self.model.jnt_limited[self.joint_ids].astype(bool)
        low, high = self.model.jnt_range[self.joint_ids].T
        return np.array([np.where(limited, low, -np.inf), np.where(limited, high, np.inf)])

    @cached_property
    def servos(self) -> tuple[str, ...]:
        """The joints, if all of them have servos of their position."""
        known = [gains(self.model, i) is not None for i in self.actuators]
        return self.joints if all(known) else ()

    @cached_property
    def rest(self) -> Floats:
        """(A,) what the action 0 commands."""
        own = self.robot.interface.action
        return np.concatenate([spread(term.offset, term.size) for term in own])


def _names(
    model: mujoco.MjModel, kind: str, ids: NDArray[np.intp] | list[int] | range
) -> list[str]:
    return [name for i in ids if (name := getattr(model, kind)(int(i)).name)]


Parts = Callable[[RobotParts], tuple[str, ...]]


@dataclass(frozen=True)
class Source:
    """A signal that terms may need."""

    quantity: Quantity
    of: Part
    parts: Parts
    lacks: Callable[[RobotParts], str]  # what is missing, and the choices


def _no_base(parts: RobotParts) -> str:
    return f"has no body {BASE!r} on a free joint. Its bodies: {listed(parts.bodies)}"


def _no_feet(parts: RobotParts) -> str:
    return (
        f"names no feet: a <tuple name={FEET!r}> of geoms in <custom> of model.xml. "
        f"Its geoms: {listed(parts.geoms) or 'none with a name'}"
    )


def _no_joints(parts: RobotParts) -> str:
    known = _names(parts.model, "actuator", range(parts.model.nu))
    return f"has actions that drive not one joint each. Its actuators: {listed(known)}"


def _no_others(parts: RobotParts) -> str:
    return f"has no geom with a name besides its feet: {listed(parts.geoms) or 'none'}"


SOURCES = {
    "base_position": Source("position", "body", lambda p: p.base, _no_base),
    "base_orientation": Source("orientation", "body", lambda p: p.base, _no_base),
    "base_velocity": Source("linear_velocity", "body", lambda p: p.base, _no_base),
    "base_rates": Source("angular_velocity", "body", lambda p: p.base, _no_base),
    "joint_position": Source("position", "joint", lambda p: p.joints, _no_joints),
    "joint_velocity": Source("velocity", "joint", lambda p: p.joints, _no_joints),
    "joint_torque": Source("actuator_force", "joint", lambda p: p.joints, _no_joints),
    "foot_position": Source("position", "geom", lambda p: p.feet, _no_feet),
    "foot_velocity": Source("linear_velocity", "geom", lambda p: p.feet, _no_feet),
    "foot_force": Source("contact_vector", "geom", lambda p: p.feet, _no_feet),
    "other_force": Source("contact_force", "geom", lambda p: p.others, _no_others),
}
# What a term may need besides: the family's command, and servos whose action 0 is a pose.
COMMAND, POSE = "command", "pose"


def signal_for(parts: RobotParts, need: str, where: str) -> Signal:
    """The signal with the name of a need.

    Args:
        parts: of the robot.
        need: a key of `SOURCES`.
        where: the family and the term that need it, as an error begins.

    Raises:
        UserError: the model lacks its parts; names what could be named instead.
    """
    source = SOURCES[need]
    names = source.parts(parts)
    if not names:
        raise UserError(f"{where} needs {need}, and {_who(parts)} {source.lacks(parts)}")
    return Signal(PREFIX + need, source.quantity, source.of, names)


def check_pose(parts: RobotParts, where: str) -> None:
    """Refuse a robot whose action 0 is no pose.

    Raises:
        UserError: not all of its actuators are servos of a joint's position.
    """
    if not parts.servos:
        known = _names(parts.model, "actuator", range(parts.model.nu))
        raise UserError(
            f"{where} needs {POSE}, and {_who(parts)} has actuators that are no servos of a "
            f"joint's position. Its actuators: {listed(known)}"
        )


def _who(parts: RobotParts) -> str:
    return f"robot {parts.robot.name!r}"
