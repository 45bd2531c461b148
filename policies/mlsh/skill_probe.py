"""Probes each skill alone on a new task and resets skills that no task needs.

Without it both skills may learn to go to the same goal (collapse). No master can then choose
between them and no gradient separates them. docs/results/moving_bandits.md measures the remedies.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.actor_critic import put
from policies.mlsh.config import MlshConfig
from policies.mlsh.skill_metrics import BY_STATE, LEARNED

WINDOW = 10  # probes, and masters, that the decision to start a skill anew looks back on
UNTIL = 0.8  # of the iterations: a skill that is reset later would not be learned any more
MOST_RESETS = 3  # of a skill: what has found no use by then is not needed


class Probe:
    """Runs each skill alone in part of a new task's first rollout; the returns set the master.

    `preference` c_k of skill k is its mean return minus the mean over skills. In relative mode the
    running mean m_k of recent tasks' preferences is subtracted: on tasks where all skills do
    equally badly, the master then starts with the skill that the other tasks do not prefer, and
    that is what breaks the symmetry.

    Returns are normalized: 0 for random actions, 1 for the optimum of the task.

    Args:
        config: of the method.
        tasks: number of the family's tasks; nothing is decided before each has been probed.
    """

    def __init__(self, config: MlshConfig, tasks: int = 1) -> None:
        self.config, self.tasks = config, tasks
        self.usual = np.zeros(config.skills)  # m_k
        # Mean return of each skill in recent probes, since something was learned.
        self.recent: deque[NDArray[np.float64]] = deque(maxlen=max(WINDOW, 2 * tasks))
        self.probed: deque[int] = deque(maxlen=self.recent.maxlen)  # the tasks of these
        # Bits that recent masters' choices of each skill had on the state, once they had learned.
        self.by_state: deque[NDArray[np.float64]] = deque(maxlen=WINDOW)
        self.resets = np.zeros(config.skills, np.int64)  # of each skill

    def plan(self) -> NDArray[np.intp]:
        """(E,) the skill that each simulation of a group runs."""
        return np.arange(self.config.envs) % self.config.skills

    def alone(self, returns: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K,) mean return of each skill, from the return (E,) of each simulation."""
        return np.array([returns[self.plan() == k].mean() for k in range(self.config.skills)])

    def bias(self, returns: NDArray[np.float64], task: int = 0) -> NDArray[np.float32]:
        """(K,) output bias of a task's fresh master, from the return (E,) of each simulation."""
        k = self.config.skills
        by_skill = [returns[self.plan() == i] for i in range(k)]
        mean = self.alone(returns)
        error = float(np.sqrt(np.mean([r.var(ddof=1) / len(r) for r in by_skill])))
        most = self.config.probe_logit_clip
        preference = mean - mean.mean()
        expected = self.usual if self.config.probe == "centered" else np.zeros(k)
        bias: NDArray[np.float32] = np.clip(
            (preference - expected) / max(error, 1e-6), -most, most
        ).astype(np.float32)
        self.usual += self.config.probe_ema * (preference - self.usual)
        if self.recent or mean.max() > LEARNED:
            self.recent.append(mean)
            self.probed.append(task)
        return bias

    @property
    def covers_all_tasks(self) -> bool:
        """True if the recent probes were on all tasks."""
        return len(set(self.probed)) == self.tasks

    def redundant_skill(self, progress: float) -> int | None:
        """The skill without which no recent task would have scored less, or None.

        The loss of a task without skill k is the difference between its return and that of the
        best other skill. Two skills that do the same are both redundant; so is one that never
        learned anything. A skill that a recent master uses in some states only is needed,
        whatever its return alone.

        Args:
            progress: fraction of the training that is done.
        """
        if (
            len(self.recent) < WINDOW
            or not self.covers_all_tasks
            or self.config.skills < 2
            or not self.config.reset_skill_below
            or progress >= UNTIL
        ):
            return None
        returns = np.array(self.recent)  # (WINDOW, K)
        best = [np.delete(returns, k, axis=1).max(axis=1) for k in range(returns.shape[1])]
        missed = (returns - np.stack(best, axis=1)).max(axis=0)  # (K,)
        missed[self.depends_on_state()] = np.inf
        least = int(missed.argmin())
        needed = missed[least] >= self.config.reset_skill_below * returns.max()
        return None if needed or self.resets[least] >= MOST_RESETS else least

    def depends_on_state(self) -> NDArray[np.bool_]:
        """(K,) True for a skill that recent masters use in some states and not in others."""
        if not self.by_state:
            return np.zeros(self.config.skills, bool)
        return np.asarray(np.mean(self.by_state, axis=0) > BY_STATE)

    def useless_skills(self) -> list[int]:
        """Skills that earned nothing alone in any recent probe, and that no master uses by state.

        Empty if that holds for all of them, or if not all tasks were probed.
        """
        if not self.covers_all_tasks:
            return []
        useless = (np.max(self.recent, axis=0) < LEARNED) & ~self.depends_on_state()
        return [] if useless.all() else np.flatnonzero(useless).tolist()

    def reset(self, skill: int) -> None:
        """Clear all statistics, because a skill is reset."""
        self.usual[:] = 0
        self.recent.clear()
        self.probed.clear()
        self.by_state.clear()
        self.resets[skill] += 1

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Statistics, as arrays."""
        return {
            "probe.usual": self.usual.copy(),
            "probe.recent": self._rows(self.recent),
            "probe.probed": np.array(self.probed, np.int64),
            "probe.by_state": self._rows(self.by_state),
            "probe.resets": self.resets.copy(),
        }

    def restore(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Restore from arrays of `state`."""
        put(arrays, "probe.usual", self.usual)
        if "probe.probed" not in arrays:  # an earlier version's
            self.usual[:] = 0
            return
        put(arrays, "probe.resets", self.resets)
        self.recent.clear()
        self.recent.extend(arrays["probe.recent"].astype(np.float64))
        self.probed.clear()
        self.probed.extend(arrays["probe.probed"].tolist())
        self.by_state = deque(arrays["probe.by_state"].astype(np.float64), maxlen=WINDOW)

    def _rows(self, rows: deque[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.array(rows, np.float64).reshape(-1, self.config.skills)
