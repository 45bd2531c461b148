"""Returns and advantages on both time scales: ticks for skills, decisions for masters (GAE)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Bools = NDArray[np.bool_]


def skill_advantages(
    reward: Float32,
    value: Float32,
    next_value: Float32,
    cut: Bools,
    *,
    gamma: float,
    gae_lambda: float,
) -> Float32:
    """Advantages per tick.

    Args:
        reward: (T, B).
        value: (T, B) of each tick's observation under its active skill.
        next_value: (T, B) what follows the tick is worth: 0 after a termination, the value of the
            final observation after a truncation, else of the next observation.
        cut: (T, B) nothing is carried back over this tick: the episode ended or the skill changed.
        gamma: discount per tick.
        gae_lambda: lambda.

    Returns:
        (T, B); `advantage + value` is the return that the value function learns.
    """
    advantage = np.empty_like(reward)
    carried = np.zeros_like(reward[0])
    delta = reward + np.float32(gamma) * next_value - value
    decay = np.float32(gamma * gae_lambda)
    for t in reversed(range(len(reward))):
        carried = delta[t] + decay * np.where(cut[t], 0, carried)
        advantage[t] = carried
    return advantage


def master_advantages(
    reward: Float32,
    decided: Bools,
    value: Float32,
    done: Bools,
    end_value: Float32,
    last_value: Float32,
    *,
    gamma: float,
    gae_lambda: float,
) -> Float32:
    """Advantages per decision; a decision's reward is the plain sum until the next one.

    Args:
        reward: (T, B).
        decided: (T, B) a decision takes effect at this tick.
        value: (T, B) of the observation that the decision was taken from, where `decided`.
        done: (T, B) an episode ended.
        end_value: (T, B) where `done`: 0 after a termination, else the final observation's value.
        last_value: (B,) of the observation after the last tick.
        gamma: discount per decision (Frans et al. discount per decision, not per tick).
        gae_lambda: lambda.

    Returns:
        (T, B), meaningful where `decided`.
    """
    advantage = np.zeros_like(reward)
    total = np.zeros_like(reward[0])
    ahead_value, ahead_advantage = last_value.copy(), np.zeros_like(reward[0])
    for t in reversed(range(len(reward))):
        ahead_value = np.where(done[t], end_value[t], ahead_value)
        ahead_advantage = np.where(done[t], 0, ahead_advantage)
        total = np.where(done[t], 0, total) + reward[t]
        delta = total + np.float32(gamma) * ahead_value - value[t]
        here = delta + np.float32(gamma * gae_lambda) * ahead_advantage
        advantage[t] = np.where(decided[t], here, 0)
        ahead_value = np.where(decided[t], value[t], ahead_value)
        ahead_advantage = np.where(decided[t], here, ahead_advantage)
        total = np.where(decided[t], 0, total)
    return advantage
