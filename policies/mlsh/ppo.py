"""Proximal policy optimization (Schulman et al. 2017) of skills or masters, in minibatches.

The clipped loss and its gradient are in `losses.py`, advantages in `gae.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.actor_critic import ActorCriticBatch
from policies.mlsh.config import PpoConfig
from policies.mlsh.losses import Float32, Minibatch, policy_sums, value_sums
from policies.mlsh.networks import AllReduce, no_reduce
from policies.mlsh.regularizer import Regularizer

# The randomness that orders the samples of a policy (its row) and a group.
Shuffle = Callable[[int, int], np.random.Generator]


# One policy's update: gives the sums that it needs as work to be done, gets the totals.
Array = NDArray[np.float64]
Learner = Generator[list[Callable[[], Array]], list[Array], "UpdateStats | None"]


@dataclass(frozen=True)
class UpdateStats:
    """Means over the samples of the last epoch, and over the updated policies."""

    policy_loss: float
    value_loss: float
    entropy: float
    kl: float
    clipped: float  # fraction of ratios outside the clip range


def ppo_update(
    level: ActorCriticBatch,
    samples: Sequence[Minibatch],
    shuffle: Shuffle,
    *,
    entropy: Sequence[float] | None = None,
    regularizer: Regularizer | None = None,
    all_reduce: AllReduce = no_reduce,
    pool: Executor | None = None,
) -> UpdateStats:
    """Update each policy of `level` on its own samples; a policy without samples is unchanged.

    Every minibatch has of each group the same part: the same in one process and in several, of
    which each has some of the groups.

    Args:
        level: whose policies and value functions change.
        samples: of each policy of the level, in order.
        shuffle: orders the samples.
        entropy: coefficient of each policy's entropy; by default the level's.
        regularizer: of skills, what their loss has beside PPO's.
        all_reduce: sum over the processes that share these policies.
        pool: threads that share the work; what is learned does not depend on them.
    """
    learners = [
        _learn(
            level,
            row,
            mine,
            shuffle,
            level.ppo.entropy if entropy is None else entropy[row],
            regularizer,
        )
        for row, mine in enumerate(samples)
    ]
    reports = [report for report in _together(learners, all_reduce, pool) if report is not None]
    if not reports:
        return UpdateStats(0, 0, 0, 0, 0)
    return UpdateStats(*np.mean([list(vars(r).values()) for r in reports], axis=0).tolist())


def _call(job: Callable[[], Array]) -> Array:
    return job()


def _together(
    learners: Sequence[Learner], all_reduce: AllReduce, pool: Executor | None
) -> list[UpdateStats | None]:
    """Update all policies in lockstep, so that their sums are reduced in one message."""
    reports: list[UpdateStats | None] = [None] * len(learners)
    waiting = {i: next(learner) for i, learner in enumerate(learners)}
    while waiting:
        jobs = [job for work in waiting.values() for job in work]
        mine = [job() for job in jobs] if pool is None else list(pool.map(_call, jobs))
        edges = np.cumsum([len(sums) for sums in mine])[:-1]
        answers = iter(np.split(all_reduce(np.concatenate(mine)), edges))
        for i, work in list(waiting.items()):
            try:
                waiting[i] = learners[i].send([next(answers) for _ in work])
            except StopIteration as end:
                reports[i] = end.value
                del waiting[i]
    return reports


def _learn(
    level: ActorCriticBatch,
    row: int,
    samples: Minibatch,
    shuffle: Shuffle,
    entropy: float,
    regularizer: Regularizer | None,
) -> Learner:
    ppo = level.ppo
    (everyone,) = yield [lambda: np.array([len(samples)], np.float64)]
    if not everyone[0]:
        return None
    count = _minibatches(int(everyone[0]), ppo)
    groups = [np.flatnonzero(samples.group == g) for g in np.unique(samples.group)]
    random = [shuffle(row, int(samples.group[members[0]])) for members in groups]
    stats = np.zeros(6)
    for epoch in range(ppo.epochs):
        orders = [
            members[r.permutation(len(members))] for members, r in zip(groups, random, strict=True)
        ]
        batches = _deal(orders, count, ppo)
        ordered = samples.take(np.concatenate([np.zeros(0, np.intp), *batches]))
        edges = np.cumsum([0, *map(len, batches)]).tolist()
        for begin, end in pairwise(edges):
            part = valued = ordered.take(slice(begin, end))
            if regularizer is not None:
                part = regularizer.extended(part)
                # Of privileged values there is no mirror image.
                valued = part if part.privileged is None else valued
            policy, value = yield [
                partial(_policy_work, level, row, part, entropy, regularizer),
                partial(_value_work, level, row, valued),
            ]
            size, seen = policy[0], value[0]
            level.policy_adam.step(row, _clip((policy[5:] / size).astype(np.float32), ppo))
            level.value_adam.step(row, _clip((value[2:] / seen).astype(np.float32), ppo))
            if epoch == ppo.epochs - 1:
                stats += [size, policy[1], value[1] * (size / seen), *policy[2:5]]
    return UpdateStats(*(stats[1:] / stats[0]).tolist())


def _policy_work(
    level: ActorCriticBatch,
    row: int,
    part: Minibatch,
    entropy: float,
    regularizer: Regularizer | None,
) -> Array:
    """Returns the loss terms of the policy: samples, loss, entropy, kl, clipped; gradient."""
    penalties = [] if regularizer is None else regularizer.penalties(part)
    sums = policy_sums(level.policy, row, part, level.ppo, entropy, penalties)
    terms = [len(part), sums.loss, sums.entropy, sums.kl, sums.clipped]
    return np.concatenate([terms, sums.gradient])


def _value_work(level: ActorCriticBatch, row: int, part: Minibatch) -> Array:
    """Returns the loss terms of the value function: samples, loss; gradient."""
    sums = value_sums(level.value, row, part, level.ppo)
    return np.concatenate([[len(part), sums.loss], sums.gradient])


def _minibatches(samples: int, ppo: PpoConfig) -> int:
    """Number of minibatches per epoch."""
    if ppo.drop_remainder:
        return max(1, samples // ppo.minibatch)
    return -(-samples // ppo.minibatch)


def _deal(
    orders: Sequence[NDArray[np.intp]], count: int, ppo: PpoConfig
) -> list[NDArray[np.intp]]:
    """Distribute the groups' samples over `count` minibatches as evenly as possible."""
    dealt = []
    for m in range(count):
        parts = []
        for order in orders:
            if ppo.drop_remainder:
                each = min(len(order) // count, ppo.minibatch)
                parts.append(order[m * each : (m + 1) * each])
            else:
                parts.append(order[len(order) * m // count : len(order) * (m + 1) // count])
        dealt.append(np.concatenate(parts) if parts else np.zeros(0, np.intp))
    return dealt


def _clip(gradient: Float32, ppo: PpoConfig) -> Float32:
    if ppo.max_grad_norm is None:
        return gradient
    norm = float(np.linalg.norm(gradient))
    clipped: Float32 = gradient * np.float32(ppo.max_grad_norm / max(norm, ppo.max_grad_norm))
    return clipped
