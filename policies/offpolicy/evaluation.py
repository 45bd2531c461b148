"""Off-policy evaluation: the return of a master, estimated from episodes of another one.

Fitted Q evaluation (Le et al. 2019) over the decisions that are left of an episode, linear in the
features of the learner. Its interval is from refits: each draws whole episodes with replacement
(bootstrap), and weights from the prior where data say nothing. It is the basic one, mirrored at
the estimate: refits have fewer different episodes, so that the prior pulls them all to one side.
Of fewer than FEWEST episodes there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.offpolicy_config import OffPolicyConfig
from policies.offpolicy.features import Features
from policies.offpolicy.replay import Episode, Float32, Floats

REFITS = 200
SURE = (2.5, 97.5)  # percent
# Episodes of which there is an interval. Of n episodes a draw has only the worst one with a
# probability of n^-n: for three this is 3.7 %, so that the percentiles would be the worst and the
# best episode; for one episode, it is always the same.
FEWEST = 4
Ints = NDArray[np.intp]
Choose = Callable[[Float32], Ints]  # observations (n, O) to skills (n,)


@dataclass(frozen=True)
class OffPolicyEstimate:
    """Return of an episode, undiscounted: of the recorded decisions, and of a master."""

    episodes: int  # recorded
    recorded: float  # mean return of the recorded decisions over an episode of the task
    value: float  # estimate for the master
    low: float  # its 95 % interval; nan for fewer than FEWEST episodes
    high: float

    @property
    def better(self) -> bool:
        """True if even the lower bound is above the recorded return; False without an interval."""
        return self.low > self.recorded

    def contradiction(self, simulated: float) -> str:
        """Returns a warning if a return in simulation is outside the interval, else nothing."""
        if np.isnan(self.low) or self.low <= simulated <= self.high:
            return ""
        return (
            f"the simulation gives the master {simulated:.4g}, outside the interval "
            f"{self.low:.4g} to {self.high:.4g} of the recordings: robot and simulation differ, "
            "or the observation does not show all that the reward depends on"
        )

    def describe(self) -> str:
        """Returns the numbers as text, with a warning if they show no improvement."""
        count = "1 episode" if self.episodes == 1 else f"{self.episodes} episodes"
        estimate = (
            f"recorded return {self.recorded:.4g} ({count}); off-policy estimate for the master "
            f"{self.value:.4g}"
        )
        if np.isnan(self.low):
            return f"{estimate}, without an interval, which needs {FEWEST} episodes: record more"
        numbers = f"{estimate}, 95 % interval {self.low:.4g} to {self.high:.4g}"
        if self.better:
            return numbers
        return f"{numbers}, so that the master may be no better than the recorded: record more"


@dataclass(frozen=True)
class _Sample:
    """n recorded decisions as the evaluation needs them."""

    obs: Float32  # (n, O)
    following: Float32  # (n, O)
    skill: Ints  # (n,)
    reward: Floats  # (n,) sum over a whole decision
    ended: NDArray[np.bool_]  # (n,) by a termination
    episode: Ints  # (n,) number


def estimate_return(
    episodes: list[Episode],
    choose: Choose,
    features: Features,
    skills: int,
    config: OffPolicyConfig,
    *,
    ticks: int,
    decision_ticks: int,
    rng: np.random.Generator,
) -> OffPolicyEstimate:
    """Estimate the return of a master from recorded episodes.

    Args:
        episodes: of any master, with normalized observations.
        choose: the master that is evaluated.
        features: of the values.
        skills: K.
        config: prior and noise.
        ticks: of an episode of the task.
        decision_ticks: N.
        rng: of the interval.
    """
    sample = _sample(episodes, decision_ticks)
    start = np.stack([e.obs[0] for e in episodes])
    made = _design(features, config, skills, sample.obs, sample.skill)
    following = _design(features, config, skills, sample.following, choose(sample.following))
    first = _design(features, config, skills, start, choose(start))
    horizon = -(-ticks // decision_ticks)
    part = ticks / decision_ticks - (horizon - 1)  # of the last decision, that the episode has
    mean, unit = float(sample.reward.mean()), _spread(sample)
    rows_of = [np.flatnonzero(sample.episode == i) for i in range(len(episodes))]

    def fit(picked: Ints, prior: Floats, noise: float) -> float:
        rows = np.concatenate([rows_of[i] for i in picked])
        gain = _ridge(made[rows], config.noise)
        shift = noise * rng.standard_normal(len(rows)) - made[rows] @ prior
        weights, to_go = prior, np.zeros(len(rows))
        for left in range(1, horizon + 1):
            paid = sample.reward[rows] * (part if left == 1 else 1.0)
            target, usual = paid + ~sample.ended[rows] * to_go, (left - 1 + part) * mean
            weights = prior + gain @ ((target - usual) / unit + shift)
            to_go = usual + unit * (following[rows] @ weights)
        return float(usual + unit * (first[picked] @ weights).mean())

    count, size = len(episodes), (made.shape[1],)
    refits = [
        fit(
            rng.integers(count, size=count),
            config.spread * rng.standard_normal(size),
            config.noise,
        )
        for _ in range(REFITS if count >= FEWEST else 0)
    ]
    value = fit(np.arange(count), np.zeros(size), 0.0)
    low = high = np.nan
    if refits:
        low, high = 2 * value - np.percentile(refits, SURE)[::-1]
    return OffPolicyEstimate(
        episodes=len(episodes),
        recorded=_recorded_return(episodes, ticks),
        value=value,
        low=float(low),
        high=float(high),
    )


def _sample(episodes: list[Episode], decision_ticks: int) -> _Sample:
    """Returns all decisions; one that the recording's end cut short counts from half of it on."""
    length = np.concatenate([[len(r) for r in e.rewards] for e in episodes])
    total = np.concatenate([[r.sum() for r in e.rewards] for e in episodes])
    last = np.concatenate([np.arange(len(e.skill)) == len(e.skill) - 1 for e in episodes])
    counts = [len(e.skill) for e in episodes]
    ended = last & np.repeat([e.terminated for e in episodes], counts)
    used = ended | (2 * length >= decision_ticks)
    return _Sample(
        obs=np.concatenate([e.obs[:-1] for e in episodes])[used],
        following=np.concatenate([e.obs[1:] for e in episodes])[used],
        skill=np.concatenate([e.skill for e in episodes])[used],
        reward=np.where(ended, total, total * decision_ticks / length)[used],
        ended=ended[used],
        episode=np.repeat(np.arange(len(episodes)), counts)[used],
    )


def _spread(sample: _Sample) -> float:
    """Standard deviation of what the recorded decisions earned until the end, or 1."""
    centered = sample.reward - sample.reward.mean()
    to_go = [
        np.cumsum(centered[sample.episode == i][::-1]) for i in range(sample.episode.max() + 1)
    ]
    spread = float(np.concatenate(to_go).std())
    return spread if spread > 1e-9 * max(1.0, abs(float(sample.reward.mean()))) else 1.0


def _design(
    features: Features, config: OffPolicyConfig, skills: int, obs: Float32, skill: Ints
) -> Floats:
    """(n, (1 + K) F) regressors whose weights have a prior variance of 1."""
    design = _regressors(np.sqrt(config.prior) * features(obs), skill, skills)
    design[:, features.count :] *= np.sqrt(config.advantage)  # the parts of the skills
    return design


def _regressors(features: Floats, skill: Ints, skills: int) -> Floats:
    """(n, (1 + K) F) regressors of decisions: features (n, F) of the state, and of its skill (n,).

    Of the K parts for skills, that of the decision's skill has the features, the others are 0.
    """
    n, size = features.shape
    rows = np.zeros((n, 1 + skills, size))
    rows[:, 0] = features
    rows[np.arange(n), 1 + skill] = features
    return rows.reshape(n, -1)


def _ridge(design: Floats, noise: float) -> Floats:
    """(P, n) matrix from targets to weights, by the smaller of both systems of equations."""
    n, size = design.shape
    if n <= size:
        gram = design @ design.T + noise**2 * np.eye(n)
        return np.asarray(np.linalg.solve(gram, design).T)
    return np.asarray(np.linalg.solve(design.T @ design + noise**2 * np.eye(size), design.T))


def _recorded_return(episodes: list[Episode], ticks: int) -> float:
    """Sum over the ticks of an episode: the mean over the recordings that reached each.

    A recording that was cut short tells nothing of the ticks after it; after a termination they
    pay nothing. Ticks that no recording reached count as the mean of the others.
    """
    paid = np.full((len(episodes), ticks), np.nan)
    for row, episode in zip(paid, episodes, strict=True):
        rewards = np.concatenate(episode.rewards)[:ticks]
        row[: len(rewards)] = rewards
        if episode.terminated:
            row[len(rewards) :] = 0
    reached = ~np.isnan(paid).all(axis=0)
    return float(np.nanmean(paid[:, reached], axis=0).sum() * ticks / reached.sum())
