"""Tries a skill on simulated robots before a bundle is written: who falls, who moves, what is cut.

Skill and policy agree for every description, also for a wrong one. What the robot does with it is
the only thing that a wrong sign, scale or order changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.bundle.runtime import Network
from policies.skill_import.trial_measures import Cuts, RobotMotion
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.physics.robot_model import Robot
from sim.tasks.base import TaskFamily

Bools = NDArray[np.bool_]
ENVS = 16  # simulations in which each skill is tried
SECONDS = 2.0  # for which it is tried, or as many ticks as give enough rows
FALLS = 1.0  # s; where half of the robots leave their limits before this, a policy is refused
COMPARE = (
    "the order of joints and of observation, every scale, offset and sign, default_positions, "
    "action.scale, gains and rate"
)


@dataclass(frozen=True)
class Trial:
    """A drive of simulated robots by one skill."""

    observations: NDArray[np.float32]  # (n, O)
    text: str  # one line: falls, motion, cut targets
    notes: list[str]  # one line each


def try_skill(
    robot: Robot, family: TaskFamily, network: Network, name: str, file: str, rows: int
) -> Trial:
    """Drive simulated robots by one skill.

    Args:
        robot: the robot.
        family: the task family, whose terms are in the observation.
        network: the skill.
        name: of the skill.
        file: of the policy, for messages.
        rows: the fewest observations that are needed.

    Raises:
        UserError: half of the robots or more leave their limits at once, or an action is not
            finite.
    """
    dt = robot.interface.control_dt
    ticks = max(round(SECONDS / dt), -(-rows // ENVS))
    # No episode ends by its time, so that each end is one of the robot's.
    env = TaskVectorEnv(
        robot, family, groups=1, envs=ENVS, seed=0, max_episode_steps=max(family.ticks, ticks + 1)
    )
    shown, seen = env.reset()[0], []
    motion, cuts = RobotMotion(env), Cuts(env)
    running, fallen = np.ones(ENVS, bool), np.zeros(ENVS, bool)  # in the first episode
    early, reason = fallen.copy(), ""  # those that fall within the first second
    for tick in range(ticks):
        seen.append(shown)
        action = network(shown)
        if not np.isfinite(action).all():
            raise UserError(
                f"skill {name!r}: after {tick * dt:.3g} s in the simulation the output of {file} "
                "is not finite; compare scale, offset and observation_clip with the training, or "
                "export an earlier checkpoint"
            )
        cuts.count(action, running)
        shown, _, terminated, truncated, _ = env.step(action)
        if not running.any():
            continue
        time = (tick + 1) * dt
        ended = terminated | truncated  # there the simulation has begun anew
        if not reason and (running & ended).any():
            reason = (
                f"an episode ends after {time:.2g} s, as where the robot falls or the simulation "
                "diverges"
            )
        outside, which = _outside(env, running & ~ended, time)
        reason = reason or which
        fallen |= running & (ended | outside)
        running = running & ~(ended | outside)
        motion.follow(running)
        if tick < FALLS / dt:
            early = fallen.copy()
    _check_falls(early, name, file, reason)
    count, duration = int(fallen.sum()), ticks * dt
    notes = cuts.notes(name)
    if count:
        notes.insert(
            0,
            f"{_falls(name, count, duration, reason)}; compare {COMPARE} in the description of "
            f"{file} with the training",
        )
    text = f"{count} of {ENVS} robots fall in {duration:.3g} s; {motion.text}; {cuts.text}"
    return Trial(np.concatenate(seen), text, notes)


def _check_falls(fallen: Bools, name: str, file: str, reason: str) -> None:
    """Refuse a skill with which half of the robots or more have left their limits."""
    if 2 * (count := int(fallen.sum())) >= len(fallen):
        raise UserError(
            f"{_falls(name, count, FALLS, reason)}; compare {COMPARE} in the description of "
            f"{file} with the training"
        )


def _falls(name: str, count: int, time: float, reason: str) -> str:
    return (
        f"skill {name!r}: {count} of {ENVS} simulated robots leave their limits within "
        f"{time:.3g} s ({reason})"
    )


def _outside(env: TaskVectorEnv, running: Bools, time: float) -> tuple[Bools, str]:
    """Returns the running robots that have left an observation's limits, and how one did."""
    shown = env.world.measurements(env.world.true_state())
    every, reason = np.zeros(len(running), bool), ""
    for term in env.interface.observation:
        if term.limits is None:
            continue
        values, (low, high) = term.values(shown[term.name]), term.limits
        outside = running & ~((values >= low) & (values <= high)).all(axis=-1)
        if outside.any() and not reason:
            one = ", ".join(f"{value:.3g}" for value in values[np.flatnonzero(outside)[0]])
            reason = f"{term.name} is {one} {term.unit} after {time:.2g} s"
        every |= outside
    return every, reason
