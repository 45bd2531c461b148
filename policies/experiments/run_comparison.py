"""Compares finished runs: time, steps, and what fresh masters reach with the frozen skills."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from policies.training import train as training
from policies.training.adaptation_file import CurveOrigin, read_adaptation
from policies.training.metrics import read_rows
from policies.training.run import iteration_of, open_run, seconds_of, with_all_tasks
from policies.training.trained_with import Trained
from sim.envs.reference_returns import all_reference_returns
from sim.errors import UserError
from sim.files.arrays import load_arrays
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from sim.tasks.task_id import TaskId


@dataclass(frozen=True)
class FinishedRun:
    """A run with the scores of fresh masters that use its skills."""

    path: Path
    trained: Trained
    steps: int
    seconds: float
    updates: int  # of each fresh master
    scores: dict[str, float]  # per task: greedy return after the last update, normalized
    restarts: int | None  # skills started anew; None: metrics.csv does not say

    @property
    def seed(self) -> int:
        """Random seed of the training."""
        return self.trained.config.seed

    @property
    def worst(self) -> float:
        """Score of the worst task."""
        return min(self.scores.values())


@dataclass(frozen=True)
class RunComparison:
    """Finished runs in the order of their seeds."""

    runs: list[FinishedRun]

    @property
    def tasks(self) -> list[str]:
        """All tasks of any of the runs."""
        return list(dict.fromkeys(task for run in self.runs for task in run.scores))

    @property
    def worst(self) -> FinishedRun:
        """The run with the worst task."""
        return min(self.runs, key=lambda run: run.worst)

    def reached(self, target_score: float) -> int:
        """Runs in which every task reaches `target_score`."""
        return sum(run.worst >= target_score for run in self.runs)


def compare_runs(paths: Iterable[Path]) -> RunComparison:
    """Read finished runs.

    Raises:
        UserError: one is not a run, not finished or changed, or the same training as another one.
    """
    runs = sorted((_read(path) for path in paths), key=lambda run: run.seed)
    _check_distinct(runs)
    if len({run.trained.config.family for run in runs}) > 1:  # which have tasks of one name
        runs = [_with_families(run) for run in runs]
    return RunComparison(runs)


def _with_families(run: FinishedRun) -> FinishedRun:
    """Returns a run whose tasks are named with their family."""
    family = run.trained.config.family
    return replace(run, scores={str(TaskId(family, t)): s for t, s in run.scores.items()})


def _check_distinct(runs: list[FinishedRun]) -> None:
    """Refuse copies: two runs with the same seed and settings."""
    seen: dict[object, Path] = {}
    for run in runs:
        same = (run.trained.settings_digest, run.trained.robot_digest, run.steps)
        if same in seen:
            raise UserError(
                f"runs {str(seen[same])!r} and {str(run.path)!r} are the same training: the same "
                f"seed, settings, robot and steps; give it once"
            )
        seen[same] = run.path


def _read(path: Path) -> FinishedRun:
    run = open_run(path)
    arrays = load_arrays(run.checkpoint)
    trained = run.still_trained(arrays)
    config, iteration = trained.config, iteration_of(run, arrays)
    again = f"mlsh train --resume {quote(str(path))}"
    if iteration < run.config.iterations:
        raise UserError(
            f"run {str(path)!r} is not finished: {iteration} of {run.config.iterations} "
            f"iterations; {again}"
        )
    try:
        found = read_adaptation(path / "adaptation.csv", training.ADAPTATION_UPDATES)
    except UserError as error:
        raise UserError(f"run {str(path)!r} is not finished: {error}; {again}") from None
    if found.origin != CurveOrigin.of(trained, iteration):
        raise UserError(
            f"run {str(path)!r}: adaptation.csv is of iteration {found.origin.iteration} or of "
            f"other settings, the checkpoint is of iteration {iteration}; {again}"
        )
    everything = with_all_tasks(config)  # a sweep learns those too that training has not seen
    family = make_family(everything.family, everything.family_parameters)
    found_returns = all_reference_returns(load_robot(config.robot), family)  # type: ignore[arg-type]
    limits = dict(zip(family.tasks, found_returns, strict=True))
    seen = make_family(config.family, config.family_parameters).tasks
    if not set(seen) <= set(found.by_task) <= set(limits):
        raise UserError(f"run {str(path)!r}: adaptation.csv has other tasks; {again}")
    return FinishedRun(
        path=path,
        trained=trained,
        steps=iteration * config.mlsh.steps_per_iteration,
        seconds=seconds_of(run, arrays),
        updates=training.ADAPTATION_UPDATES,
        scores={t: limits[t].normalize(curve[-1].greedy) for t, curve in found.by_task.items()},
        restarts=_restarts(path / "metrics.csv", iteration),
    )


def _restarts(path: Path, iterations: int) -> int | None:
    try:
        rows = [row for row in read_rows(path) if row["iteration"] <= iterations]
        restarts = [row["reset_skill"] >= 0 for row in rows]
    except (UserError, KeyError):
        return None
    # A row that is missing may be the one of a restart.
    whole = [row["iteration"] for row in rows] == list(range(1, iterations + 1))
    return sum(restarts) if whole else None
