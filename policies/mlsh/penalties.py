"""Smoothness and symmetry of a policy's mean actions, as penalties with gradients by hand.

Each penalty compares the mean action for an observation with that for another one: of the next
tick, with noise, or in the mirror. Mysore et al. 2021 (CAPS) have the first two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.interface.mirror import ElementMirror

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Penalty:
    """`coefficient` times the squared distance of two mean actions, summed over samples.

    With a mirror: of the one action from the mirror image of the other.
    """

    coefficient: float
    other: Float32  # (n, O) observations that are compared with those of the samples
    counts: NDArray[np.bool_] | None = None  # (n,) samples for which it holds; None: all
    mirror: ElementMirror | None = None  # of actions

    def of(self, action: Float32, other: Float32) -> tuple[float, Float32, Float32]:
        """The penalty for mean actions (n, A), and its gradients by both."""
        off = other - (action if self.mirror is None else self.mirror(action))
        if self.counts is not None:
            off = off * self.counts[:, None]
        slope = np.float32(2 * self.coefficient) * off
        # A mirror is its own inverse, and so its own transpose.
        back = slope if self.mirror is None else self.mirror(slope)
        return self.coefficient * float((off * off).sum()), -back, slope


def with_others(obs: Float32, penalties: Sequence[Penalty]) -> Float32:
    """(m, O) observations of the samples and then those of each penalty, for one pass."""
    return obs if not penalties else np.concatenate([obs, *(p.other for p in penalties)])


def add_penalties(
    penalties: Sequence[Penalty], out: Float32, slope: Float32
) -> tuple[float, Float32]:
    """The sum of all penalties, and the gradient by the outputs for `with_others`.

    Args:
        penalties: each of n samples.
        out: (m, A) mean actions for `with_others`.
        slope: (n, A) gradient of the rest of the loss by the first n of them.
    """
    if not penalties:
        return 0.0, slope
    n, total = len(slope), 0.0
    whole = np.zeros_like(out)
    whole[:n] = slope
    for i, penalty in enumerate(penalties, start=1):
        part = slice(i * n, (i + 1) * n)
        value, by_action, by_other = penalty.of(out[:n], out[part])
        total += value
        whole[:n] += by_action
        whole[part] += by_other
    return total, whole
