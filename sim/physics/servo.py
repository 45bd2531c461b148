"""Classifies MuJoCo actuators: position, velocity or effort of a joint, or none of these."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco

from sim.physics.robot_bodies import SCALAR

_FIXED, _NONE = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtBias.mjBIAS_NONE)
_AFFINE = int(mujoco.mjtBias.mjBIAS_AFFINE)
_STATIC = [  # a filter lags behind the control, and ends up at it
    int(getattr(mujoco.mjtDyn, f"mjDYN_{kind}")) for kind in ("NONE", "FILTER", "FILTEREXACT")
]
CLOSE = 1e-5  # relative difference of numbers that are equal but for rounding
_INTEGRATOR = int(mujoco.mjtDyn.mjDYN_INTEGRATOR)


@dataclass(frozen=True)
class Effect:
    """Quantity that an actuator's control commands."""

    kind: str  # position, velocity or effort of one joint, in SI units; "" is something else
    joint: int = -1
    odd: str = ""  # why it is something else


def effect(model: mujoco.MjModel, actuator: int) -> Effect:
    """Returns the quantity that the control of an actuator commands, as derived from its gains."""
    transmission = mujoco.mjtTrn(int(model.actuator_trntype[actuator]))
    if transmission != mujoco.mjtTrn.mjTRN_JOINT:
        kind = transmission.name.removeprefix("mjTRN_").lower()
        return Effect("", odd=f"it acts on a {kind}, not on one joint: its message is open")
    joint = int(model.actuator_trnid[actuator][0])
    if model.jnt_type[joint] not in SCALAR:
        return Effect("", odd="its joint is neither hinge nor slide")
    kind = _kind(model, actuator)
    if not kind:
        return Effect("", odd="its gains are neither those of a motor nor of a servo")
    gear = float(model.actuator_gear[actuator][0])
    gain = float(model.actuator_gainprm[actuator][0])
    factor = gear * gain if kind == "effort" else 1 / gear if gear else 0.0
    if not abs(factor - 1) <= CLOSE / 10:
        return Effect(
            "",
            odd=f"the joint's {kind} is {factor:.4g} times its control (gear {gear:g}); a robot "
            "would be told the control: give the model a factor of 1, or say here what a message "
            "of that number means",
        )
    return Effect(kind, joint)


def gains(model: mujoco.MjModel, actuator: int) -> tuple[float, float] | None:
    """Returns stiffness and damping of a position servo of one joint; None for anything else."""
    if effect(model, actuator).kind != "position":
        return None
    _, position, velocity = model.actuator_biasprm[actuator][:3]
    return -float(position), -float(velocity)


def _kind(model: mujoco.MjModel, actuator: int) -> str:
    gain, bias = model.actuator_gainprm[actuator][0], model.actuator_biasprm[actuator][:3]
    if model.actuator_gaintype[actuator] != _FIXED or gain == 0:
        return ""
    dynamics, form = model.actuator_dyntype[actuator], model.actuator_biastype[actuator]
    if dynamics not in (*_STATIC, _INTEGRATOR) or form not in (_NONE, _AFFINE):
        return ""
    integrates = dynamics == _INTEGRATOR
    if form == _NONE or not bias.any():
        return "" if integrates else "effort"
    if _equal(bias[1], -gain) and not bias[0]:
        return "velocity" if integrates else "position"
    holds_speed = _equal(bias[2], -gain) and not bias[:2].any()
    return "velocity" if holds_speed and not integrates else ""


def _equal(one: float, other: float) -> bool:
    return bool(abs(one - other) <= CLOSE * abs(other))
