"""What each skill brings alone, as a first guess of what a decision for it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.offpolicy.replay import Episode

HELD_EPISODES = 2  # of each skill, that the comparison takes
NULL_EPISODES = 2.0  # weight, in episodes, of the assumption that all skills are alike
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SkillPrior:
    """The comparison of skills that each controlled whole episodes.

    The effect of a skill is by how much its reward per decision is above the mean of all skills.
    It counts as much as it is certain: between-skill variance over the sum of that and of the
    variance of a skill's mean (empirical Bayes). A skill that is better without doubt by one per
    cent is preferred by one per cent.
    """

    returns: Floats  # (K,) mean undiscounted return of each skill alone; NaN: it has not run
    effect: Floats  # (K,) reward per decision above the mean of all skills
    confidence: Floats  # (K,) 0 to 1

    @property
    def bonus(self) -> Floats:
        """(K,) expected advantage of a decision for each skill over the mean."""
        return np.asarray(self.effect * self.confidence)

    def describe(self, names: Sequence[str]) -> str:
        """One line for people."""
        ran = np.isfinite(self.returns)
        found = zip(names, self.returns, ran, strict=True)
        alone = ", ".join(f"{n} {r:.4g}" for n, r, known in found if known)
        if not ran.all():
            return f"not every skill has run alone yet ({alone}): all skills start equal"
        if not self.bonus.any():
            return f"no skill alone is known to be better ({alone}): all skills start equal"
        best = int(self.bonus.argmax())
        sure = self.confidence[best]
        return f"{names[best]} alone is the best ({alone}), confidence {sure:.0%}: it is preferred"


def compare_skills(episodes: list[Episode], skills: int) -> SkillPrior:
    """Compare the skills by the episodes that a single skill controlled.

    Args:
        episodes: some in which one skill was held, and others, which do not count. Until each
            skill was held in one, all are alike.
        skills: K.
    """
    held = [e for e in episodes if e.held]
    arm = np.array([e.skill[0] for e in held])
    pay = np.array([e.total / len(e.skill) for e in held])
    total = np.array([e.total for e in held])
    counts = np.bincount(arm, minlength=skills)
    if not counts.all():  # more skills than episodes so far
        returns = np.full(skills, np.nan)
        np.divide(np.bincount(arm, total, skills), counts, out=returns, where=counts > 0)
        return SkillPrior(returns, effect=np.zeros(skills), confidence=np.zeros(skills))
    mean = np.bincount(arm, pay, skills) / counts
    within = ((pay - mean[arm]) ** 2).sum() + NULL_EPISODES * pay.var(ddof=1)
    variance = within / (len(held) - skills + NULL_EPISODES) / counts  # (K,) of each mean
    between = max(0.0, float(mean.var(ddof=1) - variance.mean())) if skills > 1 else 0.0
    known = between > 0
    return SkillPrior(
        returns=np.bincount(arm, total, skills) / counts,
        effect=mean - mean.mean(),
        confidence=between / (between + variance) if known else np.zeros(skills),
    )
