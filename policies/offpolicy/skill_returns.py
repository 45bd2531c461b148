"""Returns of each skill alone, in the episodes that it controlled from beginning to end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policies.mlsh.skill_metrics import LEARNED
from policies.offpolicy.replay import Episode, Floats
from sim.envs.reference_returns import ReferenceReturns


def returns_alone(episodes: Sequence[Episode], skills: int) -> Floats:
    """(K,) mean undiscounted return of each skill alone; NaN: it has not run.

    Args:
        episodes: some in which one skill was held, and others, which do not count.
        skills: K.
    """
    held = [e for e in episodes if e.held]
    skill = np.array([e.skill[0] for e in held], np.intp)
    counts = np.bincount(skill, minlength=skills)
    total = np.bincount(skill, np.array([e.total for e in held]), skills)
    returns = np.full(skills, np.nan)
    np.divide(total, counts, out=returns, where=counts > 0)
    return returns


def describe(returns: Floats, names: Sequence[str], reference: ReferenceReturns) -> str:
    """One line for people on the returns of skills alone.

    Args:
        returns: (K,) as of `returns_alone`.
        names: K.
        reference: of the task; by its normalized score the best skill does something or nothing.
    """
    ran = np.isfinite(returns)
    found = zip(names, returns, ran, strict=True)
    known = ", ".join(f"{name} {value:.4g}" for name, value, has_run in found if has_run)
    if not ran.all():
        return f"not every skill has run alone yet ({known})"
    best = reference.normalize(float(returns.max()))
    if best < LEARNED:
        return f"no skill alone does anything ({known}; the best has a score of {best:.0%})"
    return f"an episode of each skill alone: {known}"
