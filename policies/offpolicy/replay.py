"""The replay memory of the off-policy learner: all decisions of a task so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.rollout import Rollout

Float32 = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Episode:
    """An episode as a sequence of H decisions, each with the ticks that followed it."""

    obs: Float32  # (H + 1, O) that each decision was made from, and at the end; normalized
    skill: NDArray[np.intp]  # (H,) chosen
    rewards: list[Floats]  # H arrays, of the ticks of each decision
    terminated: bool  # by the task; else by time, or because a simulation diverged
    held: bool  # one skill was held from the beginning to the end

    @property
    def total(self) -> float:
        """Undiscounted return of the episode."""
        return float(sum(each.sum() for each in self.rewards))


def first_episodes(rollout: Rollout, simulations: slice, held: NDArray[np.bool_]) -> list[Episode]:
    """The first episode of each of these simulations; the rollout began with it.

    A simulation whose episode ended early has begun another one, which is left out: every update
    has the configured number of episodes.

    Args:
        rollout: of whole episodes.
        simulations: n of them.
        held: (n,) whether one skill was held there.
    """
    found = []
    columns = range(*simulations.indices(rollout.reward.shape[1]))
    for b, alone in zip(columns, held, strict=True):
        end = int(np.flatnonzero(rollout.done[:, b])[0])
        at = np.flatnonzero(rollout.decided[: end + 1, b])
        last = (rollout.final_at == (end, b)).all(axis=1)
        found.append(
            Episode(
                obs=np.concatenate([rollout.decision_obs[at, b], rollout.final_obs[last]]),
                skill=rollout.skill[at, b].copy(),
                rewards=np.split(rollout.reward[: end + 1, b].astype(np.float64), at[1:]),
                terminated=bool(rollout.terminated[end, b]),
                held=bool(alone),
            )
        )
    return found


@dataclass(frozen=True)
class Decisions:
    """All decisions of a replay in units of its own: n of them, the rewards without their mean.

    As long as nothing ends an episode, the mean reward of a tick does not depend on the decisions:
    it is subtracted from the rewards, and `constant` is the value of getting it for ever. Returns
    are in units of their spread. Rewards that are scaled or shifted give the same decisions.
    """

    obs: Float32  # (n, O)
    following: Float32  # (n, O) that the next decision was made from, or at the end
    skill: NDArray[np.intp]  # (n,)
    reward: Floats  # (n,) discounted over the ticks of the decision
    discount: Floats  # (n,) of what follows; 0 after a termination, which is worth -constant
    constant: float
    unit: float  # of a return

    @property
    def limit(self) -> float:
        """Upper bound of all values: the reward of the best decision, repeated for ever."""
        worth = abs(self.reward).max() / (1 - self.discount.max())
        return float(max(worth, abs(self.constant)))


@dataclass
class Replay:
    """The episodes of one task.

    Args:
        gamma: discount per tick.
    """

    gamma: float
    episodes: list[Episode] = field(default_factory=list)

    def decisions(self) -> Decisions:
        """All decisions of the replay."""
        ticks = np.concatenate([each for e in self.episodes for each in e.rewards])
        mean = float(ticks.mean())
        rewards, discounts, returns, ends = [], [], [], []
        for episode in self.episodes:
            lengths = np.array([len(each) for each in episode.rewards])
            paid = np.array([self._discounted(each - mean) for each in episode.rewards])
            discount = self.gamma**lengths
            to_go = np.zeros(len(paid) + 1)
            for t in range(len(paid) - 1, -1, -1):
                to_go[t] = paid[t] + discount[t] * to_go[t + 1]
            rewards.append(paid)
            discounts.append(discount)
            returns.append(to_go[:-1])
            ends.append(np.arange(len(paid)) == len(paid) - 1)
            ends[-1] &= episode.terminated
        spread = float(np.concatenate(returns).std())
        # Where every decision pays the same there is no unit, and nothing to choose.
        unit = spread if spread > 1e-9 * max(1.0, abs(mean)) else 1.0
        terminal = np.concatenate(ends)
        constant = mean / (1 - self.gamma) / unit
        discount = np.concatenate(discounts)
        return Decisions(
            obs=np.concatenate([e.obs[:-1] for e in self.episodes]),
            following=np.concatenate([e.obs[1:] for e in self.episodes]),
            skill=np.concatenate([e.skill for e in self.episodes]),
            reward=np.concatenate(rewards) / unit - terminal * discount * constant,
            discount=discount * ~terminal,
            constant=constant,
            unit=unit,
        )

    def _discounted(self, rewards: Floats) -> float:
        return float(rewards @ self.gamma ** np.arange(len(rewards)))
