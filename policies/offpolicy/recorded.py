"""Learns masters from recorded episodes alone: one fit, and an estimate of its return."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from policies.offpolicy.evaluation import OffPolicyEstimate, estimate_return
from policies.offpolicy.learner import OffPolicyLearner
from policies.offpolicy.replay import Episode
from sim.errors import UserError
from sim.seeding import Stream, generator


@dataclass(frozen=True)
class RecordedUpdate:
    """Result of the fit."""

    estimates: list[OffPolicyEstimate]  # of each master
    agreement: list[float]  # of each master: `ValueIteration.agreement`
    not_finite: str

    def describe(self) -> str:
        """Describes the estimates; a line for each master."""
        lines = [
            f"{estimate.describe()}; {sure:.0%} of the decisions are settled"
            for estimate, sure in zip(self.estimates, self.agreement, strict=True)
        ]
        return "\n".join(lines)


class RecordedLearner:
    """Learns the masters of an off-policy learner from recorded episodes; nothing is simulated.

    Args:
        learner: whose values are fitted; it has no episodes yet.
        episodes: of each task, with observations as robot.yaml scales them, not normalized.

    Raises:
        UserError: there is no episode, or only one skill was ever chosen.
    """

    def __init__(self, learner: OffPolicyLearner, episodes: list[list[Episode]]) -> None:
        self.learner = learner
        self.estimates: list[OffPolicyEstimate] = []
        normalizer = learner.learner.agent.normalizer
        for replay, recorded in zip(learner.replays, episodes, strict=True):
            _check_choices(recorded, learner.skills, learner.learner.method.decision_ticks)
            replay.episodes += [replace(e, obs=normalizer(e.obs)) for e in recorded]

    @property
    def steps_per_update(self) -> int:
        """Recorded ticks per task."""
        return sum(len(each) for e in self.learner.replays[0].episodes for each in e.rewards)

    def iterate(self) -> RecordedUpdate:
        """Fit the values of all recorded decisions, and estimate the return of the masters."""
        agreement = self.learner.fit()
        not_finite = self.learner.not_finite()
        if not not_finite:
            self.estimates = [self._estimate(g) for g in range(len(self.learner.replays))]
        return RecordedUpdate(self.estimates, agreement, not_finite)

    def _estimate(self, group: int) -> OffPolicyEstimate:
        learner = self.learner
        values, episodes = learner.values[group], learner.replays[group].episodes
        return estimate_return(
            episodes,
            lambda obs: values.values(obs).argmax(axis=1),
            values.features,
            learner.skills,
            learner.settings,
            ticks=learner.ticks,
            decision_ticks=learner.learner.method.decision_ticks,
            rng=generator(learner.learner.config.seed, Stream.DECISIONS, group),
        )


def _check_choices(episodes: list[Episode], skills: int, decision_ticks: int) -> None:
    """Refuse episodes from which no decision can be learned; one counts from half of it on.

    Raises:
        UserError: there is none, or all decisions are for one skill.
    """
    half = [np.array([2 * len(r) >= decision_ticks for r in e.rewards], bool) for e in episodes]
    chosen = [e.skill[long] for e, long in zip(episodes, half, strict=True)]
    counts = np.bincount(np.concatenate([np.zeros(0, np.intp), *chosen]), minlength=skills)
    if not counts.sum():
        raise UserError("the recordings hold no episode with a whole decision: nothing to learn")
    if skills > 1 and np.count_nonzero(counts) == 1:
        raise UserError(
            f"all {counts.sum()} recorded decisions selected skill {counts.argmax()}, so that no "
            "other skill can be compared with it; record with greedy:=false and a master that "
            "selects several skills"
        )
