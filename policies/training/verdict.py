"""The verdict of `mlsh train`: why tasks are not served, and which settings to change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.config import MlshConfig
from policies.mlsh.skill_metrics import BY_STATE, LEARNED

if TYPE_CHECKING:  # neither torch nor MuJoCo is needed for words
    from policies.training.metrics import Row
    from sim.envs.reference_returns import ReferenceReturns

LAST = 0.2  # of the iterations are looked at
POOR = 0.7  # normalized score below which a task is not served
SHARED = 0.5  # of the information that masters could need; from there on tasks have own skills
# Of the largest distance (policies.mlsh.skill_metrics), below which two skills are one; and of the
# information that masters could need, below which they choose alike on all tasks.
ALIKE = 0.1
MISSED = 0.12  # of the best score: a skill whose absence costs less is not needed


# To try where the skills were imported.
OF_IMPORTED = [
    "more episodes (mlsh finetune --updates 40)",
    "another mlsh import-skill --decision-ticks",
]


class Verdict(str, Enum):
    """Result of a training or of an evaluation."""

    SERVED = "all tasks are served"
    NOT_LEARNED = "not learned yet"
    COLLAPSED = "the skills have collapsed"
    TOO_FEW_SKILLS = "fewer skills than tasks"
    MASTERS_UNDECIDED = "the skills are fine, masters do not choose them"
    NEEDS_SEQUENCE = "no skill alone is enough"


@dataclass(frozen=True)
class Evidence:
    """Measurements that a verdict is computed from; scores are normalized."""

    scores: Mapping[str, float]  # of each task's master
    skills: int  # K
    information: float  # I(skill; task), bits
    by_state: float  # I(skill; state | task), bits, of the skill with the most
    distance: float | None = None  # of the nearest two skills, 0 to 1; None: not known
    # (K,) score of each skill alone, by task; empty: not known.
    alone: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    trained_elsewhere: bool = False  # the skills were learned on other tasks, and are as they are
    imported: bool = False  # the skills are of another trainer, and no setting of ours is theirs

    @property
    def poor(self) -> dict[str, float]:
        """Tasks that are not served, with their scores."""
        return {task: score for task, score in self.scores.items() if score < POOR}

    @property
    def best(self) -> float:
        """Best score on any task, of a master or of a skill alone."""
        return max([*self.scores.values(), *(float(each.max()) for each in self.alone.values())])

    @property
    def told_apart(self) -> bool:
        """True if masters' choices differ from task to task."""
        return self.information >= SHARED * bits(self.skills, len(self.scores))

    @property
    def chosen_alike(self) -> bool:
        """True if masters choose alike on all tasks."""
        return self.information < ALIKE * bits(self.skills, len(self.scores))

    @property
    def specialists(self) -> bool:
        """True if as many skills as can be are needed on a task, for the whole of an episode."""
        if not self.alone:
            return self.told_apart
        if self.skills == 1:
            return True
        alone = np.array(list(self.alone.values()))  # (tasks, K)
        others = [np.delete(alone, k, axis=1).max(axis=1) for k in range(self.skills)]
        missed = (alone - np.stack(others, axis=1)).max(axis=0)
        needed = missed >= MISSED * max(float(alone.max()), 0.0)
        return bool(alone.max() > 0 and needed.sum() >= min(self.skills, len(alone)))

    @property
    def left_out(self) -> bool:
        """True if neither its master nor a skill alone does anything on any task not served."""
        nothing = [score < LEARNED for score in self.poor.values()]
        known = [self.alone[task] for task in self.poor if task in self.alone]
        return all(nothing) and all(float(each.max()) < LEARNED for each in known)

    @property
    def composed(self) -> bool:
        """True if masters earn more than the best skill alone, by `MISSED` of the best score."""
        # A task may have been probed, and have no master yet that has learned for long enough.
        both = self.alone.keys() & self.scores.keys()
        more = [self.scores[task] - float(self.alone[task].max()) for task in sorted(both)]
        return bool(more) and float(np.mean(more)) >= MISSED * max(self.best, 0.0) > 0


def judge(evidence: Evidence) -> Verdict:
    """Returns the one verdict that the measurements support."""
    poor, alone = evidence.poor, evidence.alone
    alike = evidence.distance is not None and evidence.distance < ALIKE
    several = min(evidence.skills, len(evidence.scores)) > 1
    if not poor:
        return Verdict.SERVED
    if evidence.best < LEARNED:
        elsewhere = evidence.trained_elsewhere and not alike
        return Verdict.NEEDS_SEQUENCE if elsewhere else Verdict.NOT_LEARNED
    if all(task in alone and alone[task].max() >= POOR for task in poor):
        return Verdict.MASTERS_UNDECIDED
    if evidence.specialists and evidence.best >= POOR:
        # Skills that do something on the other tasks too may still come to serve them.
        few = evidence.skills < len(evidence.scores) and evidence.left_out
        return Verdict.TOO_FEW_SKILLS if few else Verdict.NOT_LEARNED
    if alike and several and not evidence.specialists:
        return Verdict.COLLAPSED
    if evidence.by_state >= BY_STATE or evidence.composed:
        return Verdict.NEEDS_SEQUENCE
    undivided = several and evidence.chosen_alike and not evidence.specialists
    return Verdict.COLLAPSED if undivided and evidence.best >= POOR else Verdict.NOT_LEARNED


def explain(evidence: Evidence, method: MlshConfig | None = None) -> str:
    """One sentence with the verdict, the tasks and what to do; empty if all tasks are served.

    Args:
        evidence: of the training or evaluation.
        method: what the skills were trained with, for what to try; None if that is not known.
    """
    verdict = judge(evidence)
    if verdict is Verdict.SERVED:
        return ""
    tasks = ", ".join(f"{task} at {100 * score:.0f} %" for task, score in evidence.poor.items())
    measured = {
        Verdict.COLLAPSED: "; ".join(_collapsed(evidence)),
        Verdict.TOO_FEW_SKILLS: f"{evidence.skills} for {len(evidence.scores)}",
        Verdict.MASTERS_UNDECIDED: "alone, one of them serves each task",
        Verdict.NEEDS_SEQUENCE: "masters have to change skills within an episode",
    }
    told = f" ({measured[verdict]})" if verdict in measured else ""
    advice = OF_IMPORTED if evidence.imported else _advice(verdict, evidence, method)
    return f"{verdict.value}{told}: {tasks}" + (f". Try {', '.join(advice)}" if advice else "")


def _collapsed(evidence: Evidence) -> Iterator[str]:
    """Describes what is alike: the choices of the masters, two skills, or both."""
    if evidence.chosen_alike:
        possible = bits(evidence.skills, len(evidence.scores))
        known = f"{evidence.information:.2f} of {possible:.2f} bits"
        yield f"masters choose alike on all tasks, {known}"
    if evidence.distance is not None and evidence.distance < ALIKE:
        yield f"two skills are {evidence.distance:.2f} apart"


def _advice(verdict: Verdict, evidence: Evidence, method: MlshConfig | None) -> list[str]:
    if method is None:
        return []
    several = len(evidence.scores)
    more = [f"--set mlsh.skills={several}"] if evidence.skills < several else []
    return {
        Verdict.SERVED: [],
        Verdict.NOT_LEARNED: ["a larger --set steps", "another --seed", *more],
        Verdict.COLLAPSED: _against_collapse(method),
        Verdict.TOO_FEW_SKILLS: more,
        Verdict.MASTERS_UNDECIDED: [f"--set mlsh.joint={2 * method.joint}", "mlsh finetune"],
        Verdict.NEEDS_SEQUENCE: [
            "mlsh finetune",
            "a larger --set steps",
            "another --set mlsh.decision_ticks",
        ],
    }[verdict]


def _against_collapse(method: MlshConfig) -> list[str]:
    """Suggests settings that differ from the recipe first, then larger values."""
    off = {
        "mlsh.probe=centered": method.probe != "centered",
        "mlsh.reset_skill_below=0.12": method.reset_skill_below == 0,
        "mlsh.mutual_information_coef=0.5": method.mutual_information_coef == 0,
        "mlsh.balanced_tasks=true": not method.balanced_tasks,
        "mlsh.master_advantage=centered": method.master_advantage != "centered",
        f"mlsh.groups={2 * method.groups}": True,
    }
    return [f"--set {setting}" for setting, useful in off.items() if useful] + ["another --seed"]


def evidence_of(
    rows: list[Row],
    tasks: tuple[str, ...],
    reference_returns: list[ReferenceReturns],
    method: MlshConfig,
) -> Evidence | None:
    """Evidence of the latest part of a training; None before any task has a score."""
    recent = rows[-max(1, round(LAST * len(rows))) :]
    scores = {
        task: limit.normalize(value)
        for task, limit in zip(tasks, reference_returns, strict=True)
        if (value := _mean(recent, f"return/{task}")) is not None
    }
    if not scores:
        return None
    alone = {
        task: np.array([_mean(recent, f"alone/{task}/skill-{k}") for k in range(method.skills)])
        for task in tasks
        if _mean(recent, f"alone/{task}/skill-0") is not None
    }
    return Evidence(
        scores=scores,
        skills=method.skills,
        information=_mean(recent, "mutual_information") or 0.0,
        by_state=_mean(recent, "state_information") or 0.0,
        distance=_mean(recent, "skill_distance"),
        alone=alone,
    )


def _mean(rows: list[Row], key: str) -> float | None:
    values = [row[key] for row in rows if key in row]
    return float(np.mean(values)) if values else None


def bits(skills: int, tasks: int) -> float:
    """Upper bound of the mutual information between K skills and the tasks, bits."""
    return float(np.log2(max(1, min(skills, tasks))))
