"""Compares a robot's mirror map with the simulation.

A mirrored state and a mirrored action have to lead to the mirrored next state. The state of the
joints is mirrored by the terms that read them; a free joint by geometry.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError
from sim.interface import Floats, Interface
from sim.interface.mirror import ElementMirror, Mirror
from sim.physics.batched_physics import BatchedPhysics
from sim.physics.mjcf_addresses import SCALAR
from sim.physics.robot_model import Robot
from sim.seeding import Stream, generator

STATES = 16  # random ones that are compared
ANGLE, SPEED, LEAN = (
    0.15,
    0.5,
    0.2,
)  # deviations of joints (rad, m), speeds (rad/s, m/s), base (rad)
FREE = int(mujoco.mjtJoint.mjJNT_FREE)
# Reflection at the plane of x and z: of a position or velocity, of an angular velocity, and of a
# quaternion, w first.
POLAR, AXIAL, QUATERNION = (1, -1, 1), (-1, 1, -1), (1, -1, 1, -1)


def check_mirror(robot: Robot, mirror: Mirror) -> None:
    """Refuse a mirror map that does not hold.

    Args:
        robot: without a task family.
        mirror: its map.

    Raises:
        UserError: names the first element that differs, or a joint that no term mirrors.
    """
    interface = robot.interface.measured_only
    where = f"robot {robot.name!r}: mirror"
    observation = mirror.of_observation(interface, {}, where)
    action = mirror.of_action(interface, where)
    model = robot.compile()
    state = _StateMirror(model, interface, mirror, where)
    count = max(STATES, interface.action_size)
    physics = BatchedPhysics(interface, model, 2 * count, 1)
    test = _Test(physics, interface, observation, state, mirror.tolerance, where)
    rng = generator(0, Stream.NOISE)
    none = np.zeros((count, interface.action_size), np.float32)
    test.observed(test.random(rng), none, none, "", ticks=0)
    test.observed(test.random(rng), none, none, " after a tick without an action", ticks=1)
    # One element of the action after the other, from the same state at rest.
    single = none.copy()
    single[np.arange(interface.action_size), np.arange(interface.action_size)] = 1
    test.moved(single, action(single), interface.action_names)
    several = rng.normal(0, 1, none.shape).astype(np.float32)
    test.observed(test.random(rng), several, action(several), " after a tick", ticks=1)


class _Test:
    """Pairs of simulations, of which the second half is the mirror image of the first."""

    def __init__(
        self,
        physics: BatchedPhysics,
        interface: Interface,
        mirror: ElementMirror,
        state: _StateMirror,
        tolerance: float,
        where: str,
    ) -> None:
        self._physics, self._interface, self._mirror = physics, interface, mirror
        self._state, self._tolerance, self._where = state, tolerance, where
        self._half = physics.size // 2
        self._qpos, self._qvel = physics.batch.bind("qpos"), physics.batch.bind("qvel")

    def random(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Positions and velocities of half of the simulations, around the start pose."""
        self._physics.reset(np.arange(self._physics.size, dtype=np.int32))
        qpos, qvel = self._qpos[: self._half].copy(), self._qvel[: self._half].copy()
        qpos[:, self._state.scalar] += rng.normal(0, ANGLE, (self._half, len(self._state.scalar)))
        qvel += rng.normal(0, SPEED, qvel.shape)
        for first in self._state.free:
            qpos[:, first : first + 2] += rng.normal(0, 1, (self._half, 2))
            turn = rng.normal(0, LEAN, (self._half, 3))
            for row, by in zip(qpos, turn, strict=True):
                mujoco.mju_quatIntegrate(row[first + 3 : first + 7], by, 1.0)
        return qpos, qvel

    def _run(
        self,
        state: tuple[Floats, Floats] | None,
        action: NDArray[np.float32],
        mirrored: NDArray[np.float32],
        ticks: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Observations (half, O) after some ticks: the mirrored ones, and those in the mirror."""
        self._physics.reset(np.arange(self._physics.size, dtype=np.int32))
        if state is not None:
            self._qpos[: self._half], self._qvel[: self._half] = state
        self._qpos[self._half :] = self._state.positions(self._qpos[: self._half])
        self._qvel[self._half :] = self._state.velocities(self._qvel[: self._half])
        fields = self._physics.refresh_sensors()
        command = self._interface.initial_command(fields)
        for _ in range(ticks):
            command = self._interface.command(np.concatenate([action, mirrored]), command)
            self._physics.step(command)
            fields = self._physics.fields()
        seen = self._interface.observe(fields)
        return self._mirror(seen[: self._half]), seen[self._half :]

    def observed(
        self,
        state: tuple[Floats, Floats],
        action: NDArray[np.float32],
        mirrored: NDArray[np.float32],
        when: str,
        ticks: int,
    ) -> None:
        """Refuse the map if an element of an observation is another one in the mirror."""
        expected, seen = self._run(state, action, mirrored, ticks)
        off = np.abs(seen - expected)
        wrong = np.flatnonzero(~(off.max(axis=0) <= self._tolerance))
        if len(wrong):
            element = int(wrong[0])
            row = int(off[:, element].argmax())
            name = self._interface.observation_names[element]
            raise UserError(
                f"{self._where} does not hold: observation {name} of the mirrored robot is "
                f"{seen[row, element]:.3g}{when}, the map makes it {expected[row, element]:.3g}; "
                f"at most {self._tolerance:g} apart is accepted"
            )

    def moved(
        self,
        action: NDArray[np.float32],
        mirrored: NDArray[np.float32],
        names: tuple[str, ...],
    ) -> None:
        """Refuse the map if an element of an action, row i, moves the mirrored robot otherwise."""
        expected, seen = self._run(None, action, mirrored, ticks=1)
        off = np.abs(seen - expected).max(axis=1)[: len(names)]
        wrong = np.flatnonzero(~(off <= self._tolerance))
        if len(wrong):
            raise UserError(
                f"{self._where} does not hold: action {names[int(wrong[0])]} and its mirror image "
                f"lead to observations that are {off[wrong[0]]:.3g} apart; at most "
                f"{self._tolerance:g} is accepted"
            )


class _StateMirror:
    """Mirror images of a model's positions and velocities.

    Attributes:
        free: first columns of qpos of the free joints.
        scalar: columns of qpos of hinges and slides.
    """

    def __init__(
        self, model: mujoco.MjModel, interface: Interface, mirror: Mirror, where: str
    ) -> None:
        kinds = model.jnt_type.tolist()
        self.free = [int(model.jnt_qposadr[j]) for j, kind in enumerate(kinds) if kind == FREE]
        scalar = [j for j, kind in enumerate(kinds) if kind in SCALAR]
        self.scalar = model.jnt_qposadr[scalar].astype(np.intp)
        self._order, self._factor = np.arange(model.nq), np.ones(model.nq)
        self._shift = np.zeros(model.nq)
        self._speed_order, self._speed_factor = np.arange(model.nv), np.ones(model.nv)
        for j, kind in enumerate(kinds):
            if kind == FREE:
                at, speed = int(model.jnt_qposadr[j]), int(model.jnt_dofadr[j])
                self._factor[at : at + 7] = (*POLAR, *QUATERNION)
                self._speed_factor[speed : speed + 6] = (*POLAR, *AXIAL)
        left = {model.joint(j).name for j in scalar}
        for term in interface.observation:
            names = term.mujoco.qpos
            if term.derive is not None or not set(names) & left:
                continue
            if term.name not in mirror.observation:
                continue
            order, signs = mirror.observation[term.name].elements(term.size, where)
            scales, offsets = term.scales, term.offsets
            for i, name in enumerate(names):
                if name not in left:
                    continue
                j, k = model.joint(name), model.joint(names[order[i]])
                factor = signs[i] * scales[order[i]] / scales[i]
                here, there = int(j.qposadr[0]), int(k.qposadr[0])
                self._order[here], self._factor[here] = there, factor
                self._shift[here] = offsets[i] - factor * offsets[order[i]]
                self._speed_order[int(j.dofadr[0])] = int(k.dofadr[0])
                self._speed_factor[int(j.dofadr[0])] = factor
                left.discard(name)
        if left:
            raise UserError(
                f"{where}: joint {min(left)!r} is the position of no observation term with a "
                "mirror image, so that its own is not known"
            )

    def positions(self, qpos: Floats) -> Floats:
        """Mirror images of positions (n, nq)."""
        return np.asarray(self._shift + self._factor * qpos[:, self._order])

    def velocities(self, qvel: Floats) -> Floats:
        """Mirror images of velocities (n, nv)."""
        return np.asarray(self._speed_factor * qvel[:, self._speed_order])
