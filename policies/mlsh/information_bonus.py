"""Bonus for masters: the mutual information of their decisions and the group's task."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.local_groups import LocalGroups
from policies.mlsh.rollout import Rollout


def task_information(
    rollout: Rollout, tasks: NDArray[np.intp], groups: LocalGroups, skills: int
) -> NDArray[np.float64]:
    """(T, B) log p(z | task) - log p(z) of each chosen skill z; its mean is I(z; task).

    Args:
        rollout: of the groups of this process.
        tasks: (G,) of all groups.
        groups: of all processes.
        skills: K.

    Returns:
        Zero where no master decided. Probabilities are those of the choices in this rollout,
        each skill counted once more, so that none is zero.
    """
    chosen = rollout.decided & ~rollout.is_random
    one_hot = chosen[..., None] & (rollout.skill[..., None] == np.arange(skills))
    count = groups.by_group(one_hot.sum(axis=0)).sum(axis=1)
    chance = groups.all_gather((count + 1) / (count + 1).sum(axis=1, keepdims=True))  # (G, K)
    same = tasks[:, None] == tasks
    by_task = same @ chance / same.sum(axis=1, keepdims=True)  # (G, K) of each group's task
    apart = groups.local(np.log(by_task / chance.mean(axis=0)))
    each = np.repeat(apart, rollout.skill.shape[1] // len(groups), axis=0)  # (B, K)
    values = np.take_along_axis(
        np.broadcast_to(each, one_hot.shape), rollout.skill[..., None], axis=-1
    )[..., 0]
    return np.where(chosen, values, 0.0)
