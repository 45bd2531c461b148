"""Estimates a window's initial simulation state from recorded sensors by Newton's method."""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from sim.interface import Floats, ObservationTerm
from sim.physics.batched_physics import BatchedPhysics

ROUNDS = 12  # of Newton's method; the first ones only turn the robot around
TURN = 0.7  # rad, or m, that a round may move a joint
NUDGE = 1e-6  # for derivatives
RANK = 1e-3  # a direction that moves no sensor by more than this part of the best is not seen
PART = 0.1  # of a direction of length 1: a joint that has a part in it
DONE = 1e-9  # change of the state from which on it has converged
FREE, BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
STAGE_POS, STAGE_VEL = int(mujoco.mjtStage.mjSTAGE_POS), int(mujoco.mjtStage.mjSTAGE_VEL)


def solve(
    physics: BatchedPhysics, terms: list[ObservationTerm], target: Mapping[str, Floats]
) -> None:
    """Newton's method on positions and velocities, with the smallest sufficient change."""
    model, nv = physics.model, physics.model.nv
    qpos, qvel = physics.batch.bind("qpos"), physics.batch.bind("qvel")
    free = [is_quaternion(model, term) for term in terms]
    wanted = [np.asarray(target[term.name]) for term in terms]

    def shown() -> list[Floats]:
        fields = physics.refresh_sensors()
        return [fields[term.name] for term in terms]

    for _ in range(ROUNDS):
        base = qpos.copy(), qvel.copy()
        now = shown()
        error = np.concatenate(
            [_error(want, have, q) for want, have, q in zip(wanted, now, free, strict=True)],
            axis=1,
        )
        jacobian = np.empty((physics.size, error.shape[1], 2 * nv))
        flat = np.concatenate(now, axis=1)
        for i in range(2 * nv):
            step = np.zeros((physics.size, 2 * nv))
            step[:, i] = NUDGE
            _move(model, qpos, qvel, step)
            jacobian[:, :, i] = (np.concatenate(shown(), axis=1) - flat) / NUDGE
            qpos[:], qvel[:] = base
        change = np.einsum("wij,wj->wi", np.linalg.pinv(jacobian, rcond=RANK), error)
        largest = np.abs(change[:, :nv]).max(axis=1, keepdims=True)
        change *= np.minimum(1.0, TURN / np.maximum(largest, 1e-12))
        _move(model, qpos, qvel, change)
        if np.abs(change).max(initial=0.0) < DONE:
            break


def unseen_velocities(physics: BatchedPhysics, terms: list[ObservationTerm]) -> Floats:
    """(n, nv) directions of velocity that these terms do not show, in the present state."""
    nv, qvel = physics.model.nv, physics.batch.bind("qvel")
    base = qvel.copy()

    def shown() -> Floats:
        fields = physics.refresh_sensors()
        return np.concatenate([fields[term.name][0] for term in terms] or [np.zeros(0)])

    now = shown()
    jacobian = np.zeros((len(now), nv))
    for i in range(nv):
        qvel[:, i] += NUDGE
        jacobian[:, i] = (shown() - now) / NUDGE
        qvel[:] = base
    shown()
    _, sizes, directions = np.linalg.svd(jacobian, full_matrices=True)
    return np.asarray(directions[int((sizes > RANK * sizes.max(initial=0.0)).sum()) :])


def joints_of(model: mujoco.MjModel, direction: Floats) -> list[str]:
    """Returns the joints that move with a direction of velocity (nv,)."""
    moving = np.flatnonzero(np.abs(direction) > PART)
    return [model.joint(int(model.dof_jntid[i])).name for i in moving]


def of_state(model: mujoco.MjModel, term: ObservationTerm) -> bool:
    """True if a term is a function of positions and velocities alone."""
    source = term.mujoco
    if source.sensor:
        stage = int(model.sensor(source.sensor).needstage[0])
        return stage in (STAGE_POS, STAGE_VEL)
    return bool(source.qpos or source.qvel)


def is_quaternion(model: mujoco.MjModel, term: ObservationTerm) -> bool:
    """True if elements of a term belong to a quaternion, whose sign has no meaning."""
    if not term.mujoco.sensor:
        return False
    kind = int(model.sensor(term.mujoco.sensor).type[0])
    return kind in (int(mujoco.mjtSensor.mjSENS_FRAMEQUAT), int(mujoco.mjtSensor.mjSENS_BALLQUAT))


def _error(wanted: Floats, shown: Floats, quaternion: bool) -> Floats:
    if quaternion:
        sign = np.sign((wanted * shown).sum(axis=1, keepdims=True))
        wanted = np.where(sign < 0, -wanted, wanted)
    # What was not recorded asks for nothing.
    return np.nan_to_num(wanted - shown)


def _move(model: mujoco.MjModel, qpos: Floats, qvel: Floats, step: Floats) -> None:
    """Add (W, 2 nv): quaternions are rotated by a small rotation, the rest is added."""
    nv = model.nv
    qvel += step[:, nv:]
    for joint in range(model.njnt):
        kind, q, v = (int(a[joint]) for a in (model.jnt_type, model.jnt_qposadr, model.jnt_dofadr))
        if kind == FREE:
            qpos[:, q : q + 3] += step[:, v : v + 3]
            q, v = q + 3, v + 3
        if kind in (FREE, BALL):
            qpos[:, q : q + 4] = _turn(qpos[:, q : q + 4], step[:, v : v + 3])
        else:
            qpos[:, q] += step[:, v]


def _turn(quaternion: Floats, rotation: Floats) -> Floats:
    """(W, 4) w, x, y, z, rotated by rotation vectors (W, 3) in the body's frame."""
    angle = np.linalg.norm(rotation, axis=1, keepdims=True)
    axis = rotation / np.maximum(angle, 1e-300)
    w, v = np.cos(angle / 2), np.sin(angle / 2) * axis
    w0, v0 = quaternion[:, :1], quaternion[:, 1:]
    turned = np.concatenate(
        [w0 * w - (v0 * v).sum(axis=1, keepdims=True), w0 * v + w * v0 + np.cross(v0, v)], axis=1
    )
    return np.asarray(turned / np.linalg.norm(turned, axis=1, keepdims=True))
