"""Result and statistics of one training iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from policies.mlsh import skill_metrics
from policies.mlsh.actor_critic import ActorCriticBatch
from policies.mlsh.local_groups import LocalGroups
from policies.mlsh.networks import StackedMLP
from policies.mlsh.ppo import UpdateStats
from policies.mlsh.rollout import Rollout
from sim.tasks.rewards.reward_sum import RewardSum

Floats64 = NDArray[np.float64]


@dataclass(frozen=True)
class Iteration:
    """Statistics of one iteration."""

    number: int
    steps: int  # environment steps so far
    age: NDArray[np.int64]  # (G,) updates of each group on its task, before this one
    task: NDArray[np.intp]  # (G,)
    returns: NDArray[np.float64]  # (G,) mean return of an episode
    success: NDArray[np.float64]  # (G,) fraction of the episodes that ended; NaN: none did
    usage: NDArray[np.float64]  # (G, K) fraction of the ticks that a master decided about
    # (G, K) bits that a master's choice of a skill has on the state (`skill_metrics`)
    state_information: NDArray[np.float64]
    alone: NDArray[np.float64]  # (G, K) normalized return of each skill alone; NaN: not probed
    probing: NDArray[np.bool_]  # (G,)
    distance: float  # between the nearest two skills, 0 to 1 (policies.mlsh.skill_metrics)
    master: UpdateStats
    skill: UpdateStats | None
    reset_skill: int | None  # the skill that was started anew
    diverged: int  # simulations that failed since training began or was resumed
    # (G,) what each reward term of the family brought per tick, by name
    reward_terms: dict[str, Floats64] = field(default_factory=dict)

    @property
    def not_finite(self) -> str:
        """Names of the losses that are not finite."""
        levels = {"master": self.master, "skill": self.skill}
        return ", ".join(
            f"{level}/{name}"
            for level, report in levels.items()
            for name, value in (vars(report) if report else {}).items()
            if not math.isfinite(value)
        )

    def describe(self) -> str:
        """Always empty: PPO has no estimate of its uncertainty."""
        return ""


def group_statistics(
    rollout: Rollout, groups: LocalGroups, skills: int, limit: int
) -> dict[str, Floats64]:
    """`returns`, `success` and `usage` of an `Iteration`.

    Args:
        rollout: of the groups of this process.
        groups: of all processes.
        skills: K.
        limit: ticks after which an episode is truncated.
    """
    by_group = groups.by_group(rollout.reward.sum(axis=0, dtype=np.float64)).sum(axis=1)
    episodes = groups.by_group(rollout.counted_ticks(limit)).sum(axis=1) / limit
    ended = groups.by_group(rollout.done.sum(axis=0)).sum(axis=1)
    solved = groups.by_group(rollout.success.sum(axis=0)).sum(axis=1)
    chosen = ~rollout.is_random[..., None] & (rollout.skill[..., None] == np.arange(skills))
    count = groups.by_group(chosen.sum(axis=0)).sum(axis=1)
    usage = count / np.maximum(1, count.sum(axis=1, keepdims=True))
    return {
        "returns": groups.all_gather(by_group / episodes),
        "success": groups.all_gather(np.where(ended, solved / np.maximum(ended, 1), np.nan)),
        "usage": groups.all_gather(usage),
    }


def reward_terms(terms: RewardSum | None, groups: LocalGroups) -> dict[str, Floats64]:
    """(G,) what each reward term brought per tick since the last call, by name.

    Args:
        terms: of the simulations of this process; None for a family without reward terms.
        groups: of all processes.
    """
    if terms is None:
        return {}
    means = groups.all_gather(groups.by_group(terms.take_means()).mean(axis=1))
    return dict(zip(terms.names, means.T, strict=True))


def state_information(
    rollout: Rollout, masters: ActorCriticBatch, groups: LocalGroups
) -> Floats64:
    """(G, K) bits that each master's choice of a skill has on the state.

    Args:
        rollout: of the groups of this process.
        masters: those that decided in it.
        groups: of all processes.
    """
    t, b = np.nonzero(rollout.decided)
    group = b // (rollout.reward.shape[1] // len(groups))
    rows = []
    for row in range(len(groups)):
        mine = group == row
        logits = masters.policy.forward_row(row, rollout.decision_obs[t[mine], b[mine]])
        odds = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
        rows.append(skill_metrics.state_information(odds / odds.sum(axis=1, keepdims=True)))
    return groups.all_gather(np.array(rows))


def skill_distance(rollout: Rollout, policy: StackedMLP) -> float:
    """Distance between the skills' mean actions on visited states; see `skill_metrics`."""
    seen = rollout.obs[:-1].reshape(-1, rollout.obs.shape[-1])
    return skill_metrics.min_skill_distance(
        [partial(policy.forward_row, k) for k in range(policy.count)], seen
    )


def mean_report(report: UpdateStats, policies: int, groups: LocalGroups) -> UpdateStats:
    """Mean over the reports of all processes, each of several policies."""
    sums = groups.all_reduce(policies * np.array([1, *vars(report).values()]))
    return UpdateStats(*(sums[1:] / max(1, sums[0])).tolist())
