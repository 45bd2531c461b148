"""Simulates the robot under its safe command and checks that it stays at rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from sim.interface import Floats, Interface, spread
from sim.physics.mjcf_addresses import actuators, keyframe
from sim.physics.robot_bodies import HINGE, SCALAR, free_bases, has_floor, joints_of
from sim.physics.servo import effect

LEANS = 0.5  # rad, beyond which a base has fallen over
FALLS = 0.5  # m/s downwards, at which it is falling
PART = 0.1  # of a joint's or a command's range by which it may be off
DRIVES = 0.01  # part of the range of a speed's commands at which it still moves
CREEPS = 0.05  # m/s of a base over the ground
ANGLE, LENGTH = 0.2, 0.05  # rad and m, where a range is not known


@dataclass(frozen=True)
class _State:
    qpos: Floats
    qvel: Floats
    xpos: Floats  # (bodies, 3)
    z_axis: Floats  # (bodies, 3) of every body in the world


def unrest(interface: Interface, model: mujoco.MjModel, seconds: float) -> Iterator[str]:
    """Yields a line for every motion of the robot while its safe command is held."""
    data = mujoco.MjData(model)
    if (key := keyframe(model, interface)) is not None:
        mujoco.mj_resetDataKeyframe(model, data, key)
    ids = [index for term in interface.action for index in actuators(model, term)]
    data.ctrl[ids] = interface.safe_command
    mujoco.mj_forward(model, data)
    before = _state(data)
    steps = max(2, round(seconds / model.opt.timestep))
    mujoco.mj_step(model, data, steps // 2)
    mujoco.mj_forward(model, data)
    halfway = _state(data)
    mujoco.mj_step(model, data, steps - steps // 2)
    mujoco.mj_forward(model, data)
    after = _state(data)
    yield from _falls(model, before, after, seconds)
    rest = (steps - steps // 2) * model.opt.timestep
    yield from _creeps(model, halfway, after, rest)
    yield from _leaves(interface, model, before, after, seconds)


def _state(data: mujoco.MjData) -> _State:
    axes = data.xmat.reshape(-1, 3, 3)[:, :, 2].copy()
    return _State(data.qpos.copy(), data.qvel.copy(), data.xpos.copy(), axes)


def _falls(model: mujoco.MjModel, before: _State, after: _State, seconds: float) -> Iterator[str]:
    for joint in free_bases(model):
        body = int(model.jnt_bodyid[joint])
        name = model.body(body).name or str(body)
        sunk = before.xpos[body, 2] - after.xpos[body, 2]
        fall = -after.qvel[model.jnt_dofadr[joint] + 2]
        cosine = float(before.z_axis[body] @ after.z_axis[body])
        leans = float(np.arccos(np.clip(cosine, -1, 1)))
        held = f"after {seconds:g} s of its safe command"
        if fall > FALLS:
            floor = (
                ""
                if has_floor(model)
                else "; there is no floor in model.xml: take the scene's file for new-robot, or "
                "add a plane"
            )
            yield (
                f"it does not stand: {name} is {sunk:.2g} m lower {held} and falls at "
                f"{fall:.2g} m/s{floor}"
            )
        elif leans > LEANS:
            yield f"it does not stand: {name} leans by {leans:.2g} rad {held}"


def _creeps(model: mujoco.MjModel, before: _State, after: _State, seconds: float) -> Iterator[str]:
    """Reports a base that goes over the ground while it should stand."""
    for joint in free_bases(model):
        body = int(model.jnt_bodyid[joint])
        way = after.xpos[body, :2] - before.xpos[body, :2]
        speed = float(np.hypot(*way)) / seconds
        if speed > CREEPS:
            name = model.body(body).name or str(body)
            yield (
                f"it still moves under its safe command: {name} at {speed:.2g} m/s; the robot "
                "counts as stopped then. Usual is a `safe_command` under which it stands"
            )


def _leaves(
    interface: Interface,
    model: mujoco.MjModel,
    before: _State,
    after: _State,
    seconds: float,
) -> Iterator[str]:
    """Reports per action term the joint with the largest deviation from its safe command."""
    for term in interface.action:
        found, moving = [], []
        for i, index in enumerate(actuators(model, term)):
            kind = effect(model, index).kind
            for joint in joints_of(model, index):
                if model.jnt_type[joint] in SCALAR:
                    span = float(term.limits[1][i] - term.limits[0][i])
                    if kind == "velocity":
                        moving.append(_driven(model, joint, term.safe_command[i], span, after))
                    tolerance = None
                    if term.tracking is not None and kind in ("position", "velocity"):
                        tolerance = float(spread(term.tracking.tolerance, term.size)[i])
                    found.append(
                        _off(
                            model,
                            joint,
                            kind,
                            term.safe_command[i],
                            span,
                            tolerance,
                            before,
                            after,
                        )
                    )
        over = [each for each in found if each[0] > 1]
        if over:
            more = f", and {len(over) - 1} more" if len(over) > 1 else ""
            yield (
                f"action {term.name}: it does not stay where `safe_command` holds it: "
                f"{max(over)[1]} within {seconds:g} s{more}"
            )
        elif (fastest := max(moving, default=(0.0, "")))[0] > 1:
            yield (
                f"action {term.name}: it still moves under its `safe_command`: {fastest[1]}, and "
                "that counts as stopped; usual is the command under which it stands, 0 for a speed"
            )


def _driven(
    model: mujoco.MjModel, joint: int, safe: float, span: float, after: _State
) -> tuple[float, str]:
    """Returns the speed of a joint, relative to what counts as rest, and a description of it."""
    unit = "rad/s" if int(model.jnt_type[joint]) == HINGE else "m/s"
    speed = float(after.qvel[int(model.jnt_dofadr[joint])])
    words = f"{model.joint(joint).name} moves at {speed:.2g} {unit}, the command is {safe:g}"
    return abs(speed) / max(DRIVES * span, 1e-6), words


def _off(
    model: mujoco.MjModel,
    joint: int,
    kind: str,
    safe: float,
    span: float,
    tolerance: float | None,
    before: _State,
    after: _State,
) -> tuple[float, str]:
    """Returns the deviation of a joint, relative to its tolerance, and a description of it."""
    turning = int(model.jnt_type[joint]) == HINGE
    name, unit = model.joint(joint).name, "rad" if turning else "m"
    place, speed = int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
    if kind == "position":
        at = after.qpos[place]
        words = f"{name} is at {at:.2g} {unit}, `safe_command` says {safe:.2g}"
        return abs(at - safe) / (tolerance or PART * span), words
    if kind == "velocity":
        at = after.qvel[speed]
        words = f"{name} moves at {at:.2g} {unit}/s, `safe_command` says {safe:.2g}"
        return abs(at - safe) / (tolerance or PART * span), words
    limited = bool(model.jnt_limited[joint])
    may = PART * float(np.ptp(model.jnt_range[joint])) if limited else ANGLE if turning else LENGTH
    moved = after.qpos[place] - before.qpos[place]
    return abs(moved) / may, f"{name} moves by {moved:.2g} {unit}"
