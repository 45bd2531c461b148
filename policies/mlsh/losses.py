"""PPO losses and their gradients by hand, as sums over samples.

By hand because at these sizes automatic differentiation spends most of its time on bookkeeping.
tests/policies/test_ppo.py compares them with torch's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.config import PpoConfig
from policies.mlsh.networks import StackedMLP
from policies.mlsh.penalties import Penalty, add_penalties, with_others

Float32 = NDArray[np.float32]
CONSTANT = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Minibatch:
    """Training data of one policy, n samples."""

    obs: Float32  # (n, O)
    action: NDArray[Any]  # (n,) skill, or (n, A)
    log_prob: Float32  # (n,) when it was drawn
    advantage: Float32  # (n,)
    value: Float32  # (n,) when it was drawn
    target: Float32  # (n,) return
    group: NDArray[np.intp]  # (n,) whose task it was
    privileged: Float32 | None = None  # (n, P) that the value function sees beside `obs`
    # Of skills whose loss depends on them (`regularizer.py`).
    following: Float32 | None = None  # (n, O) observation of the episode's next tick
    near: Float32 | None = None  # (n, O) the same observation with noise

    @property
    def value_obs(self) -> Float32:
        """(n, O + P) what the value function sees."""
        return with_privileged(self.obs, self.privileged)

    def __len__(self) -> int:
        return len(self.obs)

    def take(self, index: NDArray[np.intp] | slice) -> Minibatch:
        """Select samples by index, in any order."""
        return Minibatch(**{name: values[index] for name, values in self._given()})

    def joined(self, more: Minibatch) -> Minibatch:
        """These samples and then others, which have the same fields."""
        pairs = zip(self._given(), more._given(), strict=True)
        return Minibatch(**{name: np.concatenate([a, b]) for (name, a), (_, b) in pairs})

    def _given(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """The fields that the samples have."""
        for field in fields(self):
            if (values := getattr(self, field.name)) is not None:
                yield field.name, values


def with_privileged(obs: Float32, privileged: Float32 | None) -> Float32:
    """Observations (..., O) with privileged values (..., P) behind them, if there are any."""
    return obs if privileged is None else np.concatenate([obs, privileged], axis=-1)


@dataclass(frozen=True)
class LossTerms:
    """Sums over the samples of a minibatch."""

    gradient: Float32  # (P,) of the loss
    loss: float
    entropy: float = 0.0
    kl: float = 0.0
    clipped: float = 0.0  # samples whose ratio is outside the clip range


def policy_sums(
    stack: StackedMLP,
    row: int,
    part: Minibatch,
    ppo: PpoConfig,
    entropy_coef: float,
    penalties: Sequence[Penalty] = (),
) -> LossTerms:
    """The clipped surrogate of policy `row`, minus `entropy_coef` times its entropy.

    Args:
        stack: the policies.
        row: which one.
        part: its samples.
        ppo: the clip range.
        entropy_coef: coefficient of the entropy.
        penalties: on the mean actions of skills, which are added.
    """
    saved = stack.activations(row, with_others(part.obs, penalties))
    out = saved[-1][: len(part)]
    if stack.log_stds:
        log_std = stack.log_std(row)
        inverse = np.exp(-log_std)
        z = (part.action - out) * inverse
        log_prob = (-0.5 * z * z).sum(axis=1) - log_std.sum() - log_std.size * CONSTANT
        entropy = float((log_std + 0.5 + CONSTANT).sum()) * len(part)
    else:
        log_probs = out - out.max(axis=1, keepdims=True)
        log_probs -= np.log(np.exp(log_probs).sum(axis=1, keepdims=True))
        probs = np.exp(log_probs)
        rows = np.arange(len(part))
        log_prob = log_probs[rows, part.action]
        each = -(probs * log_probs).sum(axis=1)
        entropy = float(each.sum())
    log_ratio = log_prob - part.log_prob
    ratio = np.exp(log_ratio)
    limited = np.clip(ratio, 1 - ppo.clip, 1 + ppo.clip)
    plain, cut = ratio * part.advantage, limited * part.advantage
    # Where the clip holds, the loss does not depend on the policy any more.
    weight = np.where(plain <= cut, -plain, 0)  # of the gradient of log_prob in that of the loss
    if stack.log_stds:
        d_out = weight[:, None] * z * inverse
        d_log_std = (weight[:, None] * (z * z - 1)).sum(axis=0) - entropy_coef * len(part)
    else:
        d_out = -weight[:, None] * probs
        d_out[rows, part.action] += weight
        if entropy_coef:
            d_out += entropy_coef * probs * (log_probs + each[:, None])
        d_log_std = None
    penalty, d_out = add_penalties(penalties, saved[-1], d_out.astype(np.float32))
    return LossTerms(
        gradient=stack.backward(row, saved, d_out, d_log_std),
        loss=penalty - float(np.minimum(plain, cut).sum()),
        entropy=entropy,
        kl=float((ratio - 1 - log_ratio).sum()),
        clipped=float((np.abs(ratio - 1) > ppo.clip).sum()),
    )


def value_sums(stack: StackedMLP, row: int, part: Minibatch, ppo: PpoConfig) -> LossTerms:
    """Squared error of value function `row`, with its coefficient."""
    saved = stack.activations(row, part.value_obs)
    predicted = saved[-1][:, 0]
    off = predicted - part.target
    error, slope = off * off, 2 * off
    if ppo.value_clip is not None:
        step = predicted - part.value
        near = part.value + np.clip(step, -ppo.value_clip, ppo.value_clip)
        other = (near - part.target) ** 2
        slope = np.where((other > error) & (np.abs(step) > ppo.value_clip), 0, slope)
        error = np.maximum(error, other)
    d_out = (np.float32(ppo.value_coefficient) * slope)[:, None].astype(np.float32)
    return LossTerms(gradient=stack.backward(row, saved, d_out), loss=float(error.sum()))
