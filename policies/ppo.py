"""Proximal policy optimisation (Schulman et al. 2017) of a stack of policies at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.agent import Level
from policies.config import PpoConfig

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Samples:
    """What one policy of the stack learns from, n samples."""

    obs: Float32  # (n, O)
    action: NDArray[np.generic]  # (n,) skill, or (n, A)
    log_prob: Float32  # (n,) when it was drawn
    advantage: Float32  # (n,)
    value: Float32  # (n,) when it was drawn
    target: Float32  # (n,) return

    def __len__(self) -> int:
        return len(self.obs)


@dataclass(frozen=True)
class Report:
    """Means over the samples of the last epoch."""

    policy_loss: float
    value_loss: float
    entropy: float
    kl: float
    clipped: float  # fraction of ratios outside the clip range


def ppo_update(level: Level, samples: Sequence[Samples], rng: np.random.Generator) -> Report:
    """Improve each policy of `level` on its own samples; one without samples does not move.

    All policies step together as batched matrix products; padding has weight zero.

    Args:
        level: whose policies and value functions change.
        samples: of each policy of the level, in order.
        rng: orders the minibatches.
    """
    ppo = level.ppo
    batch = _Padded(samples)
    unit = level.unit
    totals, steps = np.zeros(5), 0
    for epoch in range(ppo.epochs):
        last = epoch == ppo.epochs - 1
        for index, weight in _minibatches([len(s) for s in samples], ppo, rng):
            part = batch.take(index)
            policy = level.policy.parameters.clone().requires_grad_()
            value = level.value.parameters.clone().requires_grad_()
            parts = _losses(level, part, policy, value, unit, weight)
            loss = parts.policy - ppo.entropy * parts.entropy + ppo.value_coefficient * parts.value
            loss.sum().backward()  # type: ignore[no-untyped-call]
            active = weight.sum(dim=1) > 0
            assert policy.grad is not None
            assert value.grad is not None
            level.policy_adam.step(_clip(policy.grad, ppo), active)
            level.value_adam.step(_clip(value.grad, ppo), active)
            if last:
                steps += 1
                with torch.no_grad():
                    row = torch.stack(
                        [parts.policy, parts.value, parts.entropy, parts.kl, parts.clipped]
                    )
                    count = active.sum().clamp(min=1)
                    totals += (row[:, active].sum(dim=1) / count).numpy()
    return Report(*(totals / max(1, steps)).tolist())


@dataclass(frozen=True)
class _Losses:
    policy: Tensor  # (S,) each
    value: Tensor
    entropy: Tensor
    kl: Tensor
    clipped: Tensor


def _losses(
    level: Level, part: _Part, policy: Tensor, value: Tensor, unit: float, weight: Tensor
) -> _Losses:
    ppo = level.ppo

    def mean(x: Tensor) -> Tensor:
        return (x * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)

    out = level.policy.forward(policy, part.obs)
    if level.policy.extra:
        log_prob, entropy = _gaussian(out, level.policy.free(policy)[:, None], part.action)
    else:
        log_prob, entropy = _categorical(out, part.action)
    log_ratio = log_prob - part.log_prob
    ratio = log_ratio.exp()
    limited = ratio.clamp(1 - ppo.clip, 1 + ppo.clip)
    gain = torch.minimum(ratio * part.advantage, limited * part.advantage)
    predicted = level.value.forward(value, part.obs)[..., 0]
    error = (predicted - part.target / unit) ** 2
    if ppo.value_clip is not None:
        # As released in 2017: in the units of the return, whatever its size.
        near = part.value + (predicted * unit - part.value).clamp(-ppo.value_clip, ppo.value_clip)
        error = torch.maximum(error, (near / unit - part.target / unit) ** 2)
    with torch.no_grad():
        kl = mean(ratio - 1 - log_ratio)
        clipped = mean(((ratio - 1).abs() > ppo.clip).float())
    return _Losses(-mean(gain), mean(error), mean(entropy), kl, clipped)


def _gaussian(mean: Tensor, log_std: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    z = (action - mean) * (-log_std).exp()
    constant = 0.5 * math.log(2 * math.pi)
    log_prob = (-0.5 * z * z - log_std - constant).sum(dim=-1)
    entropy = (log_std + 0.5 + constant).sum(dim=-1).expand_as(log_prob)
    return log_prob, entropy


def _categorical(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    log_probs = torch.log_softmax(logits, dim=-1)
    chosen = log_probs.gather(-1, action[..., None])[..., 0]
    return chosen, -(log_probs.exp() * log_probs).sum(dim=-1)


def _clip(gradient: Tensor, ppo: PpoConfig) -> Tensor:
    if ppo.max_grad_norm is None:
        return gradient
    norm = gradient.norm(dim=1, keepdim=True)
    clipped: Tensor = gradient * (ppo.max_grad_norm / norm.clamp(min=ppo.max_grad_norm))
    return clipped


@dataclass(frozen=True)
class _Part:
    obs: Tensor  # (S, m, O)
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    value: Tensor
    target: Tensor


class _Padded:
    """Samples of all policies, padded with zeros to the same number."""

    def __init__(self, samples: Sequence[Samples]) -> None:
        longest = max(1, *(len(s) for s in samples))

        def pad(name: str) -> Tensor:
            arrays = [getattr(s, name) for s in samples]
            out = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
            for row, array in zip(out, arrays, strict=True):
                row[: len(array)] = array
            return torch.from_numpy(out)

        self._all = {name: pad(name) for name in _Part.__dataclass_fields__}
        self._rows = torch.arange(len(samples))[:, None]

    def take(self, index: Tensor) -> _Part:
        return _Part(**{name: tensor[self._rows, index] for name, tensor in self._all.items()})


def _minibatches(
    lengths: Sequence[int], ppo: PpoConfig, rng: np.random.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Index (S, m) and weight (S, m) of each minibatch, of which every policy has as many."""
    longest = max(lengths)
    if not longest:
        return []
    if ppo.drop_remainder:
        count = max(1, longest // ppo.minibatch)
        size = [min(length // count, ppo.minibatch) for length in lengths]
    else:
        count = -(-longest // ppo.minibatch)
        size = [-(-length // count) for length in lengths]
    width = max(1, *size)
    index = np.zeros((count, len(lengths), width), np.int64)
    weight = np.zeros((count, len(lengths), width), np.float32)
    for s, (length, each) in enumerate(zip(lengths, size, strict=True)):
        order = rng.permutation(length)
        for m in range(count):
            chunk = order[m * each : (m + 1) * each]
            index[m, s, : len(chunk)] = chunk
            weight[m, s, : len(chunk)] = 1
    return [(torch.from_numpy(i), torch.from_numpy(w)) for i, w in zip(index, weight, strict=True)]
