"""Proximal policy optimisation (Schulman et al. 2017) of the policies of a level."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from policies.agent import Level
from policies.config import PpoConfig
from policies.losses import Float32, Samples, policy_sums, value_sums
from policies.networks import Total, alone

# The randomness that orders the samples of a policy (its row) and a group.
Shuffle = Callable[[int, int], np.random.Generator]


# One policy's update: gives its sums, gets the totals.
Array = NDArray[np.float64]
Learner = Generator[Array, Array, "Report | None"]


@dataclass(frozen=True)
class Report:
    """Means over the samples of the last epoch, and over the policies that learned."""

    policy_loss: float
    value_loss: float
    entropy: float
    kl: float
    clipped: float  # fraction of ratios outside the clip range


def ppo_update(
    level: Level,
    samples: Sequence[Samples],
    shuffle: Shuffle,
    *,
    entropy: Sequence[float] | None = None,
    total: Total = alone,
) -> Report:
    """Improve each policy of `level` on its own samples; one without samples does not move.

    Every minibatch has of each group the same part: the same in one process and in several, of
    which each has some of the groups.

    Args:
        level: whose policies and value functions change.
        samples: of each policy of the level, in order.
        shuffle: orders the samples.
        entropy: coefficient of each policy's entropy; by default the level's.
        total: over the processes that share these policies.
    """
    learners = [
        _learn(level, row, mine, shuffle, level.ppo.entropy if entropy is None else entropy[row])
        for row, mine in enumerate(samples)
    ]
    reports = [report for report in _together(learners, total) if report is not None]
    if not reports:
        return Report(0, 0, 0, 0, 0)
    return Report(*np.mean([list(vars(r).values()) for r in reports], axis=0).tolist())


def _together(learners: Sequence[Learner], total: Total) -> list[Report | None]:
    """Let all policies learn in step, so that what they have to add up makes one message."""
    reports: list[Report | None] = [None] * len(learners)
    waiting = {i: next(learner) for i, learner in enumerate(learners)}
    while waiting:
        everything = total(np.concatenate(list(waiting.values())))
        for i, mine in list(waiting.items()):
            answer, everything = np.split(everything, [len(mine)])
            try:
                waiting[i] = learners[i].send(answer)
            except StopIteration as end:
                reports[i] = end.value
                del waiting[i]
    return reports


def _learn(level: Level, row: int, samples: Samples, shuffle: Shuffle, entropy: float) -> Learner:
    ppo = level.ppo
    everyone = yield np.array([len(samples)], np.float64)
    if not everyone[0]:
        return None
    count = _minibatches(int(everyone[0]), ppo)
    groups = [np.flatnonzero(samples.group == g) for g in np.unique(samples.group)]
    random = [shuffle(row, int(samples.group[members[0]])) for members in groups]
    told = np.zeros(6)
    for epoch in range(ppo.epochs):
        orders = [
            members[r.permutation(len(members))] for members, r in zip(groups, random, strict=True)
        ]
        batches = _deal(orders, count, ppo)
        ordered = samples.take(np.concatenate([np.zeros(0, np.intp), *batches]))
        edges = np.cumsum([0, *map(len, batches)]).tolist()
        for begin, end in pairwise(edges):
            part = ordered.take(slice(begin, end))
            sums = yield _sums(level, row, part, entropy)
            size, told_now = sums[0], sums[1:6]
            policy, value = np.split(sums[6:] / size, [level.policy.numpy.shape[1]])
            level.policy_adam.step(row, _clip(policy.astype(np.float32), ppo))
            level.value_adam.step(row, _clip(value.astype(np.float32), ppo))
            if epoch == ppo.epochs - 1:
                told += [size, *told_now]
    return Report(*(told[1:] / told[0]).tolist())


def _sums(level: Level, row: int, part: Samples, entropy: float) -> NDArray[np.float64]:
    """Samples; loss, value's loss, entropy, kl, clipped; gradient, value's gradient."""
    policy = policy_sums(level.policy, row, part, level.ppo, entropy)
    value = value_sums(level.value, row, part, level.ppo, level.unit)
    told = [len(part), policy.loss, value.loss, policy.entropy, policy.kl, policy.clipped]
    return np.concatenate([told, policy.gradient, value.gradient])


def _minibatches(samples: int, ppo: PpoConfig) -> int:
    """How many make an epoch."""
    if ppo.drop_remainder:
        return max(1, samples // ppo.minibatch)
    return -(-samples // ppo.minibatch)


def _deal(
    orders: Sequence[NDArray[np.intp]], count: int, ppo: PpoConfig
) -> list[NDArray[np.intp]]:
    """The groups' samples dealt to `count` minibatches, as evenly as it goes."""
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
