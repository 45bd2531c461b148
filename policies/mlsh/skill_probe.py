"""Probes each skill alone on a new task and resets skills that no task needs.

Left alone, both skills may learn to go to the same goal: then no master can choose between them,
no gradient tells them apart, and the collapse is stable. docs/results.md measures the remedies.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.actor_critic import put
from policies.mlsh.config import MlshConfig

WINDOW = 10  # probes that the decision to start a skill anew looks back on
LEARNED = 0.2  # normalized return below which nothing has been learned yet


class Probe:
    """Runs each skill alone in part of a new task's first rollout; the returns set the master.

    `preference` c_k of skill k is its mean return minus the mean over skills. In relative mode the
    running mean m_k of recent tasks' preferences is subtracted: on tasks where all skills do
    equally badly, the master then starts with the skill that the other tasks do not prefer, and
    that is what breaks the symmetry.

    Args:
        config: of the method.
        floor: return of a random policy, mean over tasks.
        span: optimum minus floor.
    """

    def __init__(self, config: MlshConfig, floor: float, span: float) -> None:
        self.config, self.floor, self.span = config, floor, span
        self.usual = np.zeros(config.skills)  # m_k
        # Mean return of each skill in recent probes, since something was learned.
        self.recent: deque[NDArray[np.float64]] = deque(maxlen=WINDOW)

    def plan(self) -> NDArray[np.intp]:
        """(E,) the skill that each simulation of a group runs."""
        return np.arange(self.config.envs) % self.config.skills

    def bias(self, returns: NDArray[np.float64]) -> NDArray[np.float32]:
        """(K,) output bias of the fresh master, from the return (E,) of each simulation."""
        k = self.config.skills
        by_skill = [returns[self.plan() == i] for i in range(k)]
        mean = np.array([r.mean() for r in by_skill])
        error = float(np.sqrt(np.mean([r.var(ddof=1) / len(r) for r in by_skill])))
        most = self.config.probe_logit_clip
        preference = mean - mean.mean()
        expected = self.usual if self.config.probe == "centered" else np.zeros(k)
        bias: NDArray[np.float32] = np.clip(
            (preference - expected) / max(error, 1e-6), -most, most
        ).astype(np.float32)
        self.usual += self.config.probe_ema * (preference - self.usual)
        if self.recent or (mean.max() - self.floor) / self.span > LEARNED:
            self.recent.append(mean)
        return bias

    def redundant_skill(self) -> int | None:
        """The skill without which no recent task would have scored less, or None.

        A task misses skill k by what it is better than the best other skill. Two skills that do
        the same are both dispensable; so is one that never learned anything.
        """
        if (
            len(self.recent) < WINDOW
            or self.config.skills < 2
            or not self.config.reset_skill_below
        ):
            return None
        returns = np.array(self.recent)  # (WINDOW, K)
        best = [np.delete(returns, k, axis=1).max(axis=1) for k in range(returns.shape[1])]
        missed = (returns - np.stack(best, axis=1)).max(axis=0)  # (K,)
        least = int(missed.argmin())
        return least if missed[least] < self.config.reset_skill_below * returns.max() else None

    def clear(self) -> None:
        """Clear all statistics, after a skill was reset."""
        self.usual[:] = 0
        self.recent.clear()

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Statistics, as arrays."""
        recent = np.array(self.recent, np.float64).reshape(-1, self.config.skills)
        return {"probe.usual": self.usual.copy(), "probe.recent": recent}

    def restore(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Restore from arrays of `state`."""
        put(arrays, "probe.usual", self.usual)
        self.recent = deque(arrays["probe.recent"].astype(np.float64), maxlen=WINDOW)
