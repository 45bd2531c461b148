"""Scores of a bundle over episodes of any backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlsh_ros.evaluation.case import EvaluationCase
from mlsh_ros.evaluation.episode import Episode
from mlsh_ros.evaluation.measured import Measured, measured
from mlsh_ros.evaluation.number_format import parameters
from policies.bundle.bundle import Bundle
from policies.bundle.runtime import load_skills
from policies.bundle.task_compatibility import changed_parameters
from policies.mlsh.config import MlshConfig, config_from_dict
from policies.mlsh.skill_metrics import (
    binary_entropy,
    min_skill_distance,
    mutual_information,
)
from policies.training.verdict import Evidence, Verdict, bits, explain, judge
from sim.envs.reference_returns import ReferenceReturns, compute_reference_returns
from sim.errors import UserError
from sim.tasks.task_id import TaskId

SCHEMA = 2


@dataclass(frozen=True)
class TaskScore:
    """One task's scores."""

    task: str  # as family/task
    master: str  # its name in the bundle
    episodes: int  # number of episodes that were driven
    return_mean: float  # mean return of an episode
    return_deviation: float | None  # standard deviation of the return; None of a single episode
    return_worst: float  # return of the worst episode
    reference_returns: ReferenceReturns  # mean returns of other policies in the very same episodes
    success: float  # fraction of the episodes that were solved
    usage: tuple[float, ...]  # (K,) fraction of the ticks in which each skill ran
    switches: float  # changes of the skill per episode
    late_decisions: int  # decisions that came late, in all episodes
    lateness_p99: float | None  # s, 99th percentile of how late a tick began; None offline
    compute_p50: float | None  # s, median computing time of a tick
    compute_p99: float | None  # s, 99th percentile of that
    ticks: int  # number of ticks in all episodes
    missed_ticks: int | None  # ticks left out in all episodes; None offline
    faults: tuple[str, ...] = ()  # why each of the episodes with a fault has one, offline
    diverged: int = 0  # number of episodes in which the simulation diverged, offline

    @property
    def normalized(self) -> float:
        """Normalized score: 0 for a random policy, 1 for the optimum."""
        return self.reference_returns.normalize(self.return_mean)

    @property
    def stops(self) -> str:
        """Says which part of the episodes has a fault, and the first one; empty without."""
        if not self.faults:
            return ""
        share = f"{len(self.faults)} of {self.episodes} episodes"
        return f"{stopped_by(self.diverged)} in {share}, the first: {self.faults[0]}"

    @property
    def punctuality(self) -> str:
        """One sentence on the ticks that were left out; empty where no clock can be missed."""
        if self.missed_ticks is None:
            return ""
        due = self.ticks + self.missed_ticks
        return f"{self.task}: {self.missed_ticks:,} of {due:,} ticks were missed"


@dataclass(frozen=True)
class SkillSharing:
    """Mutual information between the skills and the tasks of a family."""

    family: str  # name of the task family
    tasks: int  # number of its tasks that were evaluated
    mutual_information: float  # I(skill; task), bits
    possible: float  # bits that it could be at most
    verdict: Verdict  # whether all tasks are served, and if not, why
    explanation: str  # why, and what to try; empty if all tasks are served


@dataclass(frozen=True)
class Evaluation:
    """A bundle's evaluation."""

    bundle: Bundle
    measured: Measured
    backend: str  # what drove the episodes: sim, ros-lockstep or ros-realtime
    seed: int  # random seed of the episodes
    lines: list[TaskScore]
    episodes: list[Episode]
    distance: float | None = None  # between the nearest two skills, 0 to 1

    @property
    def sharing(self) -> list[SkillSharing]:
        """Skill sharing of every family with more than one evaluated task."""
        families: dict[str, list[TaskScore]] = {}
        for line in self.lines:
            families.setdefault(TaskId.parse(line.task).family, []).append(line)
        return [
            _sharing(family, mine, self.bundle, self.distance)
            for family, mine in families.items()
            if len({line.task for line in mine}) > 1
        ]

    @property
    def changed(self) -> dict[str, dict[str, Any]]:
        """Per family, the bundle's parameters that are not the defaults."""
        tasks = [TaskId.parse(line.task) for line in self.lines]
        found = {}
        for task in {task.family: task for task in tasks}.values():
            with suppress(UserError):  # a family that this computer does not know
                found[task.family] = changed_parameters(self.bundle, task)
        return {name: values for name, values in found.items() if values}

    @property
    def changes(self) -> list[str]:
        """Describes `changed`, a line for each family."""
        return [
            f"{name} as the bundle was trained: {', '.join(parameters(new))}"
            for name, new in self.changed.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with a versioned schema."""
        return {
            "schema": SCHEMA,
            **self.measured.to_dict(),
            "backend": self.backend,
            "seed": self.seed,
            "family_parameters": self.changed,
            "tasks": [{**asdict(line), "normalized": line.normalized} for line in self.lines],
            "sharing": [vars(each) for each in self.sharing],
            "skill_distance": self.distance,
        }


def stopped_by(diverged: float) -> str:
    """Returns what stops episodes with a fault, as the begin of a sentence.

    Args:
        diverged: 0 if no simulation did.
    """
    robot = "skill_node would have stopped the robot"
    return f"{robot}, or the simulation diverged," if diverged else robot


def summarize(
    cases: Sequence[EvaluationCase],
    backend: str,
    seed: int,
    episodes: list[Episode],
    *,
    what: Measured | None = None,
    limits: Mapping[TaskId, ReferenceReturns] | None = None,
) -> Evaluation:
    """Compute the scores per case.

    Reference returns are simulated on the same episodes, with the nominal model.

    Args:
        cases: that were driven, of one bundle and robot.
        backend: that drove them.
        seed: of the episodes.
        episodes: that were driven.
        what: identity of the measurement; by default that of the present robot.
        limits: `reference_returns` of the tasks, if they are known.

    Raises:
        UserError: there is no episode to score, or the optimum is no better than random.
    """
    if not episodes:
        raise UserError("nothing was driven: no episode, so there is no score")
    lines = []
    for case in cases:
        mine = [e for e in episodes if (e.task, e.master) == (str(case.task), case.master)]
        if not mine:
            continue
        if limits is not None:
            limit = limits[case.task]
        else:
            most = 1 + max(e.number for e in mine)
            limit = reference_returns([case], seed=seed, episodes=most)[case.task]
        lines.append(_line(case, mine, limit))
    bundle, apart = cases[0].bundle, None
    if bundle.files:
        seen = np.concatenate([e.observation for e in episodes])
        apart = min_skill_distance(load_skills(bundle), seen)
    return Evaluation(bundle, what or measured(cases[0]), backend, seed, lines, episodes, apart)


def _line(case: EvaluationCase, episodes: list[Episode], limit: ReferenceReturns) -> TaskScore:
    values = np.array([e.value for e in episodes])
    usage = np.mean([e.usage(len(case.bundle.manifest.skills)) for e in episodes], axis=0)
    counted = [e.missed for e in episodes if e.missed is not None]
    return TaskScore(
        task=str(case.task),
        master=case.master,
        episodes=len(episodes),
        return_mean=float(values.mean()),
        return_deviation=float(values.std()) if len(values) > 1 else None,
        return_worst=float(values.min()),
        reference_returns=limit,
        success=float(np.mean([e.success for e in episodes])),
        usage=tuple(usage.tolist()),
        switches=float(np.mean([e.switches for e in episodes])),
        late_decisions=sum(e.late for e in episodes),
        lateness_p99=_quantile([e.lateness for e in episodes], 99),
        compute_p50=_quantile([e.compute for e in episodes], 50),
        compute_p99=_quantile([e.compute for e in episodes], 99),
        ticks=sum(len(e.skill) for e in episodes),
        missed_ticks=sum(counted) if counted else None,
        faults=tuple(f"episode {e.number}, {e.fault}" for e in episodes if e.fault),
        diverged=sum(e.diverged for e in episodes),
    )


def reference_returns(
    cases: Sequence[EvaluationCase], *, seed: int, episodes: int
) -> dict[TaskId, ReferenceReturns]:
    """Reference returns of every task, episodes 0 .. episodes-1 of `seed`, nominal model.

    Raises:
        UserError: on one of them the optimum is no better than a random policy.
    """
    found = {}
    for case in {case.task: case for case in cases}.values():
        limit = compute_reference_returns(
            case.robot, case.family, case.number, seed=seed, episodes=episodes
        )
        if not limit.tell_apart:
            raise UserError(
                f"robot {case.robot.name!r} cannot be scored on {case.task}: a random policy "
                f"returns {limit.random:.6g} and the optimum {limit.optimum:.6g}; the robot "
                "hardly moves, or everything that it does has the same return"
            )
        found[case.task] = limit
    return found


def best_of_each_task(lines: Iterable[TaskScore]) -> list[TaskScore]:
    """Returns for each task the score of the master that serves it best."""
    best: dict[str, TaskScore] = {}
    for line in lines:
        if line.task not in best or line.normalized > best[line.task].normalized:
            best[line.task] = line
    return list(best.values())


def _sharing(
    family: str, every: list[TaskScore], bundle: Bundle, distance: float | None
) -> SkillSharing:
    lines = best_of_each_task(every)
    used = np.array([line.usage for line in lines])
    skills, tasks = used.shape[1], len({line.task for line in lines})
    evidence = Evidence(
        scores={line.task: line.normalized for line in lines if line.reference_returns.tell_apart},
        skills=skills,
        information=mutual_information(used),
        # Masters are greedy: what is not the same in all states depends on the state.
        by_state=float(binary_entropy(used).max(axis=1).mean()),
        distance=distance,
        trained_elsewhere=family != bundle.manifest.family.name or bool(bundle.manifest.imported),
        imported=bool(bundle.manifest.imported),
    )
    return SkillSharing(
        family=family,
        tasks=tasks,
        mutual_information=evidence.information,
        possible=bits(skills, tasks),
        verdict=judge(evidence),
        explanation=explain(evidence, _method(bundle)),
    )


def _method(bundle: Bundle) -> MlshConfig | None:
    """Training settings of the skills, if this version supports them."""
    try:
        return config_from_dict(bundle.manifest.provenance.config, "provenance").mlsh
    except UserError:
        return None


def _quantile(parts: list[Any], percent: float) -> float | None:
    present = [part for part in parts if part is not None]
    return float(np.percentile(np.concatenate(present), percent)) if present else None
