"""The reward terms that ship, each with its unit and the public code or paper that uses it.

A term is a function of a `Motion`. It returns what is measured: a kernel between 0 and 1, which a
positive weight rewards, or a cost of 0 and more, which a negative weight subtracts. Facts about
the sources are of November 2026; the functions are written for this project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sim.interface import Floats
from sim.tasks.rewards.motion import STILL, Motion, total
from sim.tasks.rewards.parts import COMMAND, POSE

LONGEST_STEP = 0.5  # s: swings and stances are compared up to it (Isaac Lab)
TOUCH = 0.1  # N: a part with more than that collides (legged_gym)

BODY = ("base_orientation", "base_velocity")
RATES = ("base_orientation", "base_rates")
FEET_MOVE = ("foot_position", "foot_velocity")
SLIDE = ("foot_velocity", "foot_force")


@dataclass(frozen=True)
class RewardTerm:
    """A quantity of a tick that can be rewarded or penalized.

    A term of one's own is one more: its function gets a `Motion` and the parameters by name.
    """

    name: str
    function: Callable[..., Floats]  # of a Motion and the parameters: (n,)
    unit: str  # of what the function returns
    needs: tuple[str, ...]  # `SOURCES` of parts.py, "command" or "pose"
    source: str  # who uses it, under which name
    parameters: Mapping[str, str] = field(default_factory=dict)  # positive numbers: their meaning
    best: float = 0.0  # of a robot that does just what it is told; for the optimum of a return

    def __hash__(self) -> int:
        """Hash of its name, which is unique among the terms of a reward."""
        return hash(self.name)


def sum_of_squares(values: Floats) -> Floats:
    """(n,) sums of the squares of values (n, m)."""
    return total(values**2)


def kernel(error: Floats, sigma: float) -> Floats:
    """(n,) exp(-|error|^2 / sigma) of errors (n, m): 1 without an error."""
    return np.asarray(np.exp(-sum_of_squares(error) / sigma))


# What is asked for -------------------------------------------------------------------------------


def track_velocity(m: Motion, *, sigma: float) -> Floats:
    """exp(-|error|^2 / sigma) of the velocity on the floor."""
    return kernel(m.velocity[:, :2] - m.command[:, :2], sigma)


def track_yaw_rate(m: Motion, *, sigma: float) -> Floats:
    """exp(-error^2 / sigma) of the rate about the vertical."""
    return kernel(m.yaw_rate[:, None] - m.command[:, 2:], sigma)


def speed_along_command(m: Motion, *, enough: float) -> Floats:
    """Speed along the command as a part of `enough` of it, from -1 to 1; 0 where none is told."""
    told = sum_of_squares(m.command[:, :2])
    along = total(m.velocity[:, :2] * m.command[:, :2])
    moves = told > STILL**2
    part = along / np.where(moves, enough * told, 1.0)
    return np.where(moves, np.clip(part, -1.0, 1.0), 0.0)


def turn_along_command(m: Motion, *, enough: float) -> Floats:
    """Rate of turning along the command as a part of `enough` of it, from -1 to 1; else 0."""
    told = m.command[:, 2]
    turns = np.abs(told) > STILL
    part = m.yaw_rate / np.where(turns, enough * told, 1.0)
    return np.where(turns, np.clip(part, -1.0, 1.0), 0.0)


# Motion of the base ------------------------------------------------------------------------------


def vertical_velocity(m: Motion) -> Floats:
    """Square of the base's velocity upwards or downwards."""
    return np.asarray(m.velocity[:, 2] ** 2)


def roll_pitch_rates(m: Motion) -> Floats:
    """Sum of the squares of the base's rates of roll and pitch."""
    return sum_of_squares(m.rates[:, :2])


def orientation(m: Motion) -> Floats:
    """Squared sine of the angle by which the base leans."""
    return sum_of_squares(m.gravity[:, :2])


def base_height(m: Motion, *, target: float) -> Floats:
    """Square of the distance of the base's height above the ground from a target."""
    return np.asarray((m.height - target) ** 2)


# Actions and joints ------------------------------------------------------------------------------


def action_rate(m: Motion) -> Floats:
    """Sum of the squares of the action's change since the last tick."""
    return sum_of_squares(m.action - m.previous)


def action_acceleration(m: Motion) -> Floats:
    """Sum of the squares of the change of the action's change."""
    return sum_of_squares(m.action - 2 * m.previous + m.earlier)


def torque(m: Motion) -> Floats:
    """Sum of the squares of the torques of the joints."""
    return sum_of_squares(m.torque)


def power(m: Motion) -> Floats:
    """Sum of the mechanical powers of the joints, braking counted like driving."""
    return total(np.abs(m.torque * m.joint_velocity))


def joint_limits(m: Motion, *, share: float) -> Floats:
    """Sum of the angles by which joints are outside a share of their range, about its middle."""
    low, high = m.parts.range
    spare = (1 - share) / 2 * (high - low)
    spare = np.where(np.isfinite(spare), spare, 0.0)
    under, over = low + spare - m.joint_position, m.joint_position - (high - spare)
    return total(np.maximum(np.maximum(under, over), 0.0))


def pose(m: Motion) -> Floats:
    """Sum of the squares of the joints' distances from the pose that the action 0 commands."""
    return sum_of_squares(m.joint_position - m.parts.rest)


def stand_still(m: Motion) -> Floats:
    """Sum of the joints' distances from that pose, where the command is to stand."""
    away = total(np.abs(m.joint_position - m.parts.rest))
    return np.where(m.moves, 0.0, away)


# Feet --------------------------------------------------------------------------------------------


def feet_clearance(m: Motion, *, height: float) -> Floats:
    """Sum over the feet of the squared distance from a height, times the speed over the floor."""
    return total((m.foot_height - height) ** 2 * m.foot_speed)


def feet_air_time(m: Motion, *, target: float) -> Floats:
    """Sum of the times in the air beyond a target of the feet that land, unless told to stand."""
    beyond = total(np.where(m.feet.landed, m.feet.last_air - target, 0.0))
    return np.where(m.moves, beyond, 0.0)


def feet_slip(m: Motion) -> Floats:
    """Sum of the squared speeds of the feet that are on the ground."""
    return total(np.where(m.contact, m.foot_speed**2, 0.0))


def feet_stumble(m: Motion, *, ratio: float) -> Floats:
    """1 where a foot is pushed sideways harder than `ratio` times upwards, else 0."""
    across = np.hypot(m.foot_force[..., 0], m.foot_force[..., 1])
    hit = m.contact & (across > ratio * np.abs(m.foot_force[..., 2]))
    return np.asarray(hit.any(axis=1), np.float64)


def feet_contact_force(m: Motion, *, limit: float) -> Floats:
    """Sum of the forces on the feet beyond a limit."""
    return total(np.maximum(m.foot_load - limit, 0.0))


def gait_symmetry(m: Motion) -> Floats:
    """Variance over the feet of the last time in the air, plus that of the last on the ground."""
    air, stance = (np.minimum(t, LONGEST_STEP) for t in (m.feet.last_air, m.feet.last_stance))
    return np.asarray(_variance(air) + _variance(stance))


def collision(m: Motion) -> Floats:
    """Number of parts other than feet that touch something."""
    return total(m.other_force > TOUCH)


def _variance(values: Floats) -> Floats:
    """(n,) variances over the second axis of values (n, m)."""
    count = values.shape[1]
    return np.asarray(sum_of_squares(values - (total(values) / count)[:, None]) / count)


_LISTED = (
    RewardTerm(
        "track_velocity",
        track_velocity,
        "1",
        (COMMAND, *BODY),
        "legged_gym tracking_lin_vel, Isaac Lab track_lin_vel_xy_exp, Playground tracking_lin_vel",
        {"sigma": "m^2/s^2; the kernel is 1/e at an error of its root"},
        best=1.0,
    ),
    RewardTerm(
        "track_yaw_rate",
        track_yaw_rate,
        "1",
        (COMMAND, "base_rates"),
        "legged_gym tracking_ang_vel, Isaac Lab track_ang_vel_z_exp, Playground tracking_ang_vel",
        {"sigma": "rad^2/s^2; the kernel is 1/e at an error of its root"},
        best=1.0,
    ),
    RewardTerm(
        "track_velocity_fine",
        track_velocity,
        "1",
        (COMMAND, *BODY),
        "the same once more: a wide kernel leads there from afar, a narrow one to the exact value",
        {"sigma": "m^2/s^2; the kernel is 1/e at an error of its root"},
        best=1.0,
    ),
    RewardTerm(
        "track_yaw_rate_fine",
        track_yaw_rate,
        "1",
        (COMMAND, "base_rates"),
        "the same once more, as for the velocity",
        {"sigma": "rad^2/s^2; the kernel is 1/e at an error of its root"},
        best=1.0,
    ),
    RewardTerm(
        "speed_along_command",
        speed_along_command,
        "1",
        (COMMAND, *BODY),
        "Cheng et al. 2023 (Extreme Parkour) tracking_goal_vel, towards a goal",
        {"enough": "part of the command that is paid in full; more is not paid for"},
        best=1.0,
    ),
    RewardTerm(
        "turn_along_command",
        turn_along_command,
        "1",
        (COMMAND, "base_rates"),
        "the same for turning",
        {"enough": "part of the command that is paid in full; more is not paid for"},
        best=1.0,
    ),
    RewardTerm(
        "vertical_velocity",
        vertical_velocity,
        "m^2/s^2",
        BODY,
        "legged_gym lin_vel_z, Isaac Lab lin_vel_z_l2, Playground lin_vel_z",
    ),
    RewardTerm(
        "roll_pitch_rates",
        roll_pitch_rates,
        "rad^2/s^2",
        RATES,
        "legged_gym ang_vel_xy, Isaac Lab ang_vel_xy_l2; Playground ang_vel_xy, in the world",
    ),
    RewardTerm(
        "orientation",
        orientation,
        "1",
        ("base_orientation",),
        "legged_gym orientation, Isaac Lab flat_orientation_l2, Playground orientation",
    ),
    RewardTerm(
        "base_height",
        base_height,
        "m^2",
        ("base_position",),
        "legged_gym base_height, Isaac Lab base_height_l2",
        {"target": "m, of the base above the floor"},
    ),
    RewardTerm(
        "action_rate",
        action_rate,
        "1",
        (),
        "legged_gym action_rate, Isaac Lab action_rate_l2, Playground action_rate",
    ),
    RewardTerm(
        "action_acceleration",
        action_acceleration,
        "1",
        (),
        "Margolis and Agrawal 2022 (Walk These Ways) action_smoothness_2, mjlab action_acc_l2",
    ),
    RewardTerm(
        "torque",
        torque,
        "N^2 m^2",
        ("joint_torque",),
        "legged_gym torques, Isaac Lab joint_torques_l2",
    ),
    RewardTerm("power", power, "W", ("joint_torque", "joint_velocity"), "Playground energy"),
    RewardTerm(
        "joint_limits",
        joint_limits,
        "rad",
        ("joint_position",),
        "legged_gym dof_pos_limits, Isaac Lab joint_pos_limits, Playground dof_pos_limits",
        {"share": "of each joint's range, about its middle, that is free; 0 to 1"},
    ),
    RewardTerm(
        "pose",
        pose,
        "rad^2",
        (POSE, "joint_position"),
        "Isaac Lab joint_deviation_l1 and Playground pose have other norms",
    ),
    RewardTerm(
        "stand_still",
        stand_still,
        "rad",
        (COMMAND, POSE, "joint_position"),
        "legged_gym stand_still, Playground stand_still",
    ),
    RewardTerm(
        "feet_clearance",
        feet_clearance,
        "m^3/s",
        FEET_MOVE,
        "Ji et al. 2022 (Concurrent Training); Playground feet_clearance has other powers",
        {"height": "m, of the feet's centers above the floor while they swing"},
    ),
    RewardTerm(
        "feet_air_time",
        feet_air_time,
        "s",
        (COMMAND, "foot_force"),
        "legged_gym feet_air_time (target 0.5 s), Playground feet_air_time (0.1 s)",
        {"target": "s, of a step in the air; shorter ones cost, longer ones pay"},
    ),
    RewardTerm(
        "feet_slip",
        feet_slip,
        "m^2/s^2",
        SLIDE,
        "Playground feet_slip; Isaac Lab feet_slide is the sum of the speeds",
    ),
    RewardTerm(
        "feet_stumble",
        feet_stumble,
        "1",
        ("foot_force",),
        "legged_gym stumble (ratio 5)",
        {"ratio": "of the force across to the force upwards; above the friction of the ground"},
    ),
    RewardTerm(
        "feet_contact_force",
        feet_contact_force,
        "N",
        ("foot_force",),
        "legged_gym feet_contact_forces (limit 100 N by default)",
        {"limit": "N"},
    ),
    RewardTerm(
        "gait_symmetry",
        gait_symmetry,
        "s^2",
        ("foot_force",),
        "Isaac Lab air_time_variance_penalty (Spot)",
    ),
    RewardTerm(
        "collision",
        collision,
        "1",
        ("other_force",),
        "legged_gym collision, Isaac Lab undesired_contacts",
    ),
)
TERMS: dict[str, RewardTerm] = {term.name: term for term in _LISTED}
