"""Sorts a rollout into minibatches: decisions by master, ticks by skill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.actor_critic import ActorCriticBatch
from policies.mlsh.config import MlshConfig
from policies.mlsh.gae import master_advantages, skill_advantages
from policies.mlsh.losses import Minibatch, with_privileged
from policies.mlsh.rollout import Bools, Float32, Rollout

# Observations (n, O) and the row of the level to ask (n,), to values (n,).
Values = Callable[[Float32, NDArray[np.intp]], Float32]


@dataclass(frozen=True)
class ScaledRewards:
    """Rewards of the B simulations of a rollout, in the unit of the value functions of a level."""

    reward: Float32  # (T, B)
    terminal: Float32  # (B,) value of a terminated episode


def master_samples(
    level: ActorCriticBatch,
    rollout: Rollout,
    rewards: ScaledRewards,
    active: Bools,
    method: MlshConfig,
) -> list[Minibatch]:
    """The decisions of each group's master.

    Args:
        level: of the masters.
        rollout: T ticks of the simulations of these groups.
        rewards: by these simulations, in the unit of the value functions.
        active: (groups,) whether the master learns at all.
        method: how values follow the end of an episode and of the rollout.

    Returns:
        Samples for each group, none where it is not active.
    """
    group = np.repeat(np.arange(len(active)), method.envs)
    value = np.zeros_like(rollout.reward)
    t, b = np.nonzero(rollout.decided)
    value[t, b] = level.values(rollout.decision_obs[t, b], group[b])
    asked = np.broadcast_to(group, rollout.reward.shape)
    last = level.values(rollout.obs[-1], group) * method.bootstrap_truncated
    advantage = master_advantages(
        rewards.reward,
        rollout.decided,
        value,
        rollout.done,
        _end_values(rollout, rollout.final_obs, rewards, level.values, asked, method),
        last.astype(np.float32),
        gamma=level.ppo.gamma,
        gae_lambda=level.ppo.gae_lambda,
    )
    samples = []
    chosen = ~rollout.is_random[t, b]
    for g in range(len(active)):
        mine = (group[b] == g) & active[g] & chosen
        at = t[mine], b[mine]
        samples.append(
            Minibatch(
                obs=rollout.decision_obs[at],
                action=rollout.skill[at],
                log_prob=rollout.decision_log_prob[at],
                advantage=advantage[at],
                value=value[at],
                target=advantage[at] + value[at],
                group=group[b[mine]],
            )
        )
    return samples


def skill_samples(
    level: ActorCriticBatch,
    rollout: Rollout,
    rewards: ScaledRewards,
    joint: Bools,
    method: MlshConfig,
    *,
    with_following: bool = False,
    noise: Float32 | None = None,
) -> list[Minibatch]:
    """The ticks on which each skill was active, of the groups that train the skills.

    Args:
        level: of the skills.
        rollout: T ticks of the simulations of these groups.
        rewards: by these simulations, in the unit of the value functions.
        joint: (groups,) whether a group is in its joint phase.
        method: what a skill's return is when another one takes over.
        with_following: whether the samples have the observation of the next tick; that of the
            last one of an episode is its own.
        noise: (T, B, O) that makes another observation of each; None: they have none.

    Returns:
        Samples for each skill.
    """
    columns = np.flatnonzero(np.repeat(joint, method.envs))
    reward, skill = rewards.reward[:, columns], rollout.skill[:, columns]
    obs, done = rollout.obs[:, columns], rollout.done[:, columns]
    privileged = None if rollout.privileged is None else rollout.privileged[:, columns]
    seen = with_privileged(obs, privileged)
    chosen = ~rollout.is_random[:, columns]
    group = np.broadcast_to(columns // method.envs, reward.shape)

    def values(o: Float32, z: NDArray[np.intp]) -> Float32:
        return level.values(o.reshape(-1, o.shape[-1]), z.ravel()).reshape(z.shape)

    value = values(seen[:-1], skill)
    following = np.concatenate([skill[1:], skill[-1:]])
    same = method.skill_bootstrap == "same"
    next_value = values(seen[1:], skill if same else following)
    final = with_privileged(rollout.final_obs, rollout.final_privileged)
    end = _end_values(rollout, final, rewards, level.values, rollout.skill, method)
    next_value = np.where(done, end[:, columns], next_value)
    if not method.bootstrap_truncated:
        next_value[-1] = 0
    cut = done | (following != skill) if same else done
    advantage = skill_advantages(
        reward, value, next_value, cut, gamma=level.ppo.gamma, gae_lambda=level.ppo.gae_lambda
    )
    target = advantage + value
    later = np.where(done[..., None], obs[:-1], obs[1:]) if with_following else None
    near = None if noise is None else obs[:-1] + noise[:, columns]
    samples = []
    for k in range(level.count):
        mine = (skill == k) & chosen
        samples.append(
            Minibatch(
                obs=obs[:-1][mine],
                action=rollout.action[:, columns][mine],
                log_prob=rollout.log_prob[:, columns][mine],
                advantage=advantage[mine],
                value=value[mine],
                target=target[mine],
                group=group[mine],
                privileged=None if privileged is None else privileged[:-1][mine],
                following=None if later is None else later[mine],
                near=None if near is None else near[mine],
            )
        )
    return samples


def _end_values(
    rollout: Rollout,
    final: Float32,
    rewards: ScaledRewards,
    values: Values,
    asked: NDArray[np.intp],
    method: MlshConfig,
) -> Float32:
    """(T, B) value after the end of an episode: that of the final observation if truncated.

    Args:
        rollout: where episodes ended.
        final: (M, ...) what the value functions see there.
        rewards: what a termination is worth.
        values: value functions of the level.
        asked: (T, B) index of the value function.
        method: switches this value on or off.

    Returns:
        Zero where no episode ended.
    """
    end = np.zeros_like(rollout.reward)
    t, b = rollout.final_at.T
    keep = rollout.truncated[t, b] & method.bootstrap_truncated
    end[t, b] = np.where(keep, values(final, asked[t, b]), 0)
    end[t, b] = np.where(rollout.terminated[t, b], rewards.terminal[b], end[t, b])
    return end
