"""Evaluates frozen skills on all tasks of a family over seeds, beside PPO from scratch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from policies.bundle.adaptation import AdaptationPoint
from policies.bundle.bundle import Bundle
from policies.bundle.task_compatibility import check_family_fits, select_tasks
from policies.mlsh.config import TrainConfig
from policies.mlsh.offpolicy_config import Learner
from policies.training.adapt import adapt, describe_divergence, from_scratch
from policies.training.finetune import install_skills, task_config
from policies.training.finetune_settings import with_settings
from sim.envs.reference_returns import ReferenceReturns, all_reference_returns
from sim.files.output import lock_beside, locked, write_csv
from sim.physics.robot_model import load_robot
from sim.tasks.base import TaskFamily
from sim.tasks.registry import make_family
from sim.tasks.task_id import TaskId

SKILLS, SCRATCH = "master only", "PPO from scratch"
HEADER = (
    *("learner", "seed", "task", "updates", "episodes", "steps"),
    *("seconds", "return", "success"),
)


@dataclass(frozen=True)
class Transferred:
    """Result of one learner with one seed."""

    learner: str
    seed: int
    family: TaskFamily
    curves: list[list[AdaptationPoint]]  # (tasks, updates + 1)
    diverged: int = 0  # of the episodes that scored it

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return self.family.tasks

    @property
    def ticks(self) -> int:
        """Length of an episode, ticks."""
        return self.family.ticks

    @property
    def last(self) -> list[AdaptationPoint]:
        """Last point of each task."""
        return [curve[-1] for curve in self.curves]

    @property
    def mean(self) -> float:
        """Return after the last update, mean over tasks."""
        return float(np.mean([p.greedy for p in self.last]))

    @property
    def success(self) -> float:
        """Fraction of successful episodes after the last update, mean over tasks."""
        return float(np.mean([p.success for p in self.last]))

    @property
    def solved(self) -> int:
        """Tasks of which more than half of the episodes succeed."""
        return sum(p.success > 0.5 for p in self.last)


def transfer_config(
    bundle: Bundle,
    family: str,
    *,
    threads: int,
    settings: Sequence[str],
    robot: str | None = None,
    baseline: bool,
    learner: Learner = "ppo",
) -> TrainConfig:
    """Returns the configuration of all learners, apart from the seed.

    Args:
        bundle: whose skills are used.
        family: of the tasks.
        threads: of the simulator.
        settings: `section.key=value` over the bundle's configuration.
        robot: name or folder, by default the bundle's.
        baseline: whether it is for PPO from scratch as well.
        learner: of the masters.

    Raises:
        UserError: the family does not fit the bundle, or a setting is invalid.
    """
    whole = TaskId.parse(family)
    first = select_tasks(bundle, whole)[0]
    plain, _ = task_config(bundle, first, seed=0, robot=robot)
    plain = replace(plain, threads=threads)
    config = with_settings(plain, settings, baseline=baseline, learner=learner)
    chosen = make_family(config.family, config.family_parameters)
    check_family_fits(bundle, load_robot(config.robot), chosen, whole)
    return config


def transfer(
    bundle: Bundle,
    config: TrainConfig,
    seeds: Iterable[int],
    *,
    updates: int,
    envs: int,
    baseline: bool,
    on_update: Callable[[str, int, list[AdaptationPoint]], None] = lambda *_: None,
) -> Iterator[Transferred]:
    """Learn every task of a family anew, seed by seed.

    Args:
        bundle: whose skills are used, and not touched.
        config: of `transfer_config`.
        seeds: each a learner of its own.
        updates: of each master.
        envs: simulations per update and task, see `envs_for_episodes`.
        baseline: also PPO from scratch with the same experience.
        on_update: called with learner, seed and the latest `AdaptationPoint` of every task.
    """
    chosen = make_family(config.family, config.family_parameters)
    numbers = list(range(len(chosen.tasks)))
    for seed in seeds:
        seeded = replace(config, seed=seed)
        learned = adapt(
            seeded,
            lambda agent: install_skills(agent, bundle),
            numbers,
            updates=updates,
            envs=envs,
            on_update=partial(on_update, SKILLS, seed),
        )
        yield Transferred(SKILLS, seed, chosen, learned.curves, learned.diverged)
        if baseline:
            told = partial(on_update, SCRATCH, seed)
            alone = [
                from_scratch(seeded, task, updates=updates, envs=envs, on_update=told)
                for task in numbers
            ]
            curves, diverged = [e.curves[0] for e in alone], sum(e.diverged for e in alone)
            yield Transferred(SCRATCH, seed, chosen, curves, diverged)


def recorded(
    results: Iterable[Transferred], path: Path, *, overwrite: bool = False
) -> Iterator[Transferred]:
    """Yield results; after every one all of them are written to a CSV file.

    Args:
        results: of `transfer`.
        path: of the file.
        overwrite: whether a file that is there before the first result may be replaced.

    Raises:
        UserError: another process writes there, a file that is there must stay, or it cannot be
            written.
    """
    known: list[Transferred] = []
    with locked(lock_beside(path), str(path)):
        for result in results:
            known.append(result)
            write_transfer(known, path, overwrite=overwrite or len(known) > 1)
            yield result


@dataclass(frozen=True)
class TaskTransfer:
    """One task after the last update, over seeds."""

    task: str
    value: float  # mean return
    worst: float  # return of the worst seed
    worst_seed: int
    success: float  # part of the episodes
    solved: int  # seeds of which more than half of the episodes succeed
    reference: ReferenceReturns


@dataclass(frozen=True)
class TransferSummary:
    """A learner over its seeds, after the last update."""

    results: list[Transferred]
    tasks: list[TaskTransfer]

    @property
    def learner(self) -> str:
        """Name of the learner."""
        return self.results[0].learner

    @property
    def last(self) -> AdaptationPoint:
        """Last point of the first task and seed; its updates and steps are those of all."""
        return self.results[0].last[0]

    @property
    def episodes(self) -> int:
        """Number of episodes of experience per task."""
        return self.last.steps // self.results[0].ticks

    @property
    def mean(self) -> float:
        """Mean return over seeds and tasks."""
        return sum(r.mean for r in self.results) / len(self.results)

    @property
    def success(self) -> float:
        """Fraction of successful episodes, over seeds and tasks."""
        return sum(r.success for r in self.results) / len(self.results)

    @property
    def divergence(self) -> str:
        """Says how often a simulation failed while it was scored; empty if none did."""
        return describe_divergence(sum(r.diverged for r in self.results))

    @property
    def seconds(self) -> float:
        """Mean time per task, s, over seeds."""
        return sum(r.last[0].seconds for r in self.results) / len(self.results)

    @property
    def solved(self) -> tuple[int, int]:
        """The fewest and the most tasks that a seed has solved."""
        numbers = [r.solved for r in self.results]
        return min(numbers), max(numbers)


def summarize_transfer(results: Sequence[Transferred], robot: str) -> list[TransferSummary]:
    """Returns every learner's results over its seeds, with the reference returns of the tasks.

    Args:
        results: of `transfer`.
        robot: that it was on, name or folder.
    """
    model = load_robot(robot)
    references = all_reference_returns(model, results[0].family)  # type: ignore[arg-type]
    found = []
    for learner in dict.fromkeys(r.learner for r in results):
        own = [r for r in results if r.learner == learner]
        tasks = [_task_transfer(own, i, each) for i, each in enumerate(references)]
        found.append(TransferSummary(own, tasks))
    return found


def _task_transfer(
    results: list[Transferred], index: int, reference: ReferenceReturns
) -> TaskTransfer:
    ends = [r.last[index] for r in results]
    worst = min(results, key=lambda r: r.last[index].greedy)
    return TaskTransfer(
        task=results[0].tasks[index],
        value=sum(p.greedy for p in ends) / len(ends),
        worst=worst.last[index].greedy,
        worst_seed=worst.seed,
        success=sum(p.success for p in ends) / len(ends),
        solved=sum(p.success > 0.5 for p in ends),
        reference=reference,
    )


def write_transfer(results: list[Transferred], path: Path, *, overwrite: bool = False) -> None:
    """Write all numbers, one row per learner, seed, task and update."""
    rows = (
        (result.learner, result.seed, task, p.updates, p.steps // result.ticks, p.steps, *p.texts)
        for result in results
        for task, curve in zip(result.tasks, result.curves, strict=True)
        for p in curve
    )
    write_csv(path, HEADER, rows, overwrite=overwrite)
