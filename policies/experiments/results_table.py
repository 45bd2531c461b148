"""Results of a sweep: score of each new task by variant and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policies.experiments.ablations import Variant, grid, variants
from policies.experiments.sweep import SweepJob, plan, suffix, sweep
from policies.mlsh.offpolicy_config import Learner
from policies.training.adapt import OFF_POLICY_EPISODES
from policies.training.run import with_all_tasks
from sim.envs.reference_returns import all_reference_returns
from sim.errors import UserError
from sim.files.bounded import read_bounded
from sim.files.output import check_place, make_room, write_csv, write_file
from sim.physics.robot_model import load_robot
from sim.rendering.figures import to_png, verbatim
from sim.statistics import mean_interval
from sim.tasks.registry import make_family

MOST_BYTES = 2**24  # of a table
HEADER = ("variant", "seed", "task", "updates", "steps", "greedy_return", "normalized")


@dataclass(frozen=True)
class RunResult:
    """Result of one run."""

    job: SweepJob
    tasks: tuple[str, ...]
    steps: NDArray[np.int64]  # (U+1,) of experience on a new task
    returns: NDArray[np.float64]  # (tasks, U+1) greedy
    scores: NDArray[np.float64]  # (tasks, U+1) normalized
    seconds: float  # of meta-training; 0 without

    @property
    def score(self) -> float:
        """Mean over tasks after the last update."""
        return float(self.scores[:, -1].mean())

    @property
    def worst_task(self) -> str:
        """Name of the task with the lowest score."""
        return self.tasks[int(self.scores[:, -1].argmin())]

    @property
    def worst(self) -> float:
        """Score of the worst task after the last update."""
        return float(self.scores[:, -1].min())


@dataclass(frozen=True)
class SweepSummary:
    """A variant over its seeds, after the last update."""

    variant: str
    outcomes: list[RunResult]

    @property
    def mean(self) -> float:
        """Mean over seeds and tasks."""
        return float(np.mean([o.score for o in self.outcomes]))

    def after(self, updates: int) -> float:
        """Mean over seeds and tasks after a number of updates."""
        return float(np.mean([o.scores[:, updates].mean() for o in self.outcomes]))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean over seeds; nan for one."""
        return mean_interval([o.score for o in self.outcomes])

    @property
    def weakest(self) -> RunResult:
        """The seed with the worst task."""
        return min(self.outcomes, key=lambda o: o.worst)

    def reached(self, target_score: float) -> int:
        """Seeds at which every task reaches `target_score`."""
        return sum(o.worst >= target_score for o in self.outcomes)


def read_outcome(job: SweepJob) -> RunResult:
    """Returns the result of a finished run.

    Raises:
        UserError: it is not finished, or of another robot than there is now.
    """
    config = with_all_tasks(job.config)
    family = make_family(config.family, config.family_parameters)
    reference_returns = all_reference_returns(load_robot(job.config.robot), family)  # type: ignore[arg-type]
    if (found := job.curves()) is None:
        raise UserError(f"run {str(job.path)!r} is not finished; sweep again")
    curves = list(found.by_task.values())
    returns = np.array([[p.greedy for p in curve] for curve in curves])
    steps = np.array([p.steps for p in curves[0]])
    scores = np.array(
        [[b.normalize(r) for r in row] for b, row in zip(reference_returns, returns, strict=True)]
    )
    return RunResult(job, family.tasks, steps, returns, scores, job.seconds())


def summarize(jobs: list[SweepJob]) -> list[SweepSummary]:
    """Returns finished runs by variant, in the order of the jobs."""
    outcomes = [read_outcome(job) for job in jobs if job.curves() is not None]
    names = dict.fromkeys(o.job.variant for o in outcomes)
    return [SweepSummary(name, [o for o in outcomes if o.job.variant == name]) for name in names]


def write_table(summaries: list[SweepSummary], path: Path, *, overwrite: bool = False) -> None:
    """Write all numbers, one row per variant, seed, task and update."""
    rows = (
        (
            *(o.job.variant, o.job.config.seed, task, u, steps),
            *(f"{x[i, u]:.4f}" for x in (o.returns, o.scores)),
        )
        for summary in summaries
        for o in summary.outcomes
        for i, task in enumerate(o.tasks)
        for u, steps in enumerate(o.steps)
    )
    write_csv(path, HEADER, rows, overwrite=overwrite)


def _has_table(path: Path, figure: Path, planned: Sequence[SweepJob]) -> bool:
    """True if an earlier sweep has left its table and figure, which are written anew.

    Raises:
        UserError: the table has runs that the sweep to come does not have, or one of the files is
            not of a sweep.
    """
    check_place(path, overwrite=True)
    check_place(figure, overwrite=True)
    if not path.is_file():
        if figure.is_file():
            raise UserError(
                f"{figure} exists, and no table {path.name} of a sweep beside it; give another "
                "--output, or move it"
            )
        return False
    lines = read_bounded(path, MOST_BYTES).decode(errors="replace").splitlines()
    if lines[:1] != [",".join(HEADER)]:
        raise UserError(f"{path} is no table of a sweep; give another --output")
    there = {tuple(line.split(",")[:2]) for line in lines[1:]}
    here = {(job.variant, str(job.config.seed)) for job in planned}
    if missing := sorted(there - here):
        raise UserError(
            f"{path} has results of {missing[0][0]!r} with seed {missing[0][1]}, which this sweep "
            "does not have; give another --output, or the same variants and seeds"
        )
    return True


def plot(
    summaries: list[SweepSummary], target_score: float, path: Path, *, overwrite: bool = False
) -> None:
    """Plot the adaptation, mean over tasks: each seed thin, their mean thick."""
    write_file(path, image(summaries, target_score), overwrite=overwrite)


@verbatim()
def image(summaries: list[SweepSummary], target_score: float) -> bytes:
    """Returns the plot of `plot` as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axis = figure.subplots()
    for i, summary in enumerate(summaries):
        curves = np.stack([o.scores.mean(axis=0) for o in summary.outcomes])
        x = summary.outcomes[0].steps
        axis.plot(x, curves.T, f"C{i % 10}", lw=0.5, alpha=0.4)
        style = "-" if i < 10 else "--"
        axis.plot(x, curves.mean(axis=0), f"C{i % 10}{style}", lw=2, label=summary.variant)
    axis.axhline(target_score, color="0.4", ls=":", lw=1)
    axis.set_ylim(min(0.0, axis.get_ylim()[0]), 1.05)
    axis.set_xlabel("environment steps on the new task")
    axis.set_ylabel("normalized score, greedy")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return to_png(figure)


@dataclass(frozen=True)
class SweepResults:
    """Results of a sweep and the paths of its files."""

    summaries: list[SweepSummary]
    variants: dict[str, Variant]  # those that have a summary
    failed: int  # runs
    table: Path  # CSV with every number
    figure: Path


def run_sweep(
    family: str,
    robot: str | None,
    *,
    names: Sequence[str],
    settings: Sequence[str],
    seeds: int,
    folder: Path,
    processes: int,
    episodes: int | None = None,
    learner: Learner = "ppo",
    target_score: float,
    on_run: Callable[[int, int, SweepJob, str], None] = lambda *_: None,
) -> SweepResults:
    """Train variants with several seeds, learn every task anew, and write table and plot.

    Args:
        family: of the tasks.
        robot: name or folder; None: that of the family.
        names: of variants or of sets of them.
        settings: of all variants; a,b,c makes a grid.
        seeds: so many, from 0.
        folder: of all runs; what is done there is not repeated.
        processes: that run at the same time.
        episodes: per update on a new task; None: 2,000 steps, or the default of the learner q.
        learner: of masters for new tasks; policies from nothing are PPO's, with its experience.
        target_score: normalized score that the plot marks.
        on_run: called with how many runs are done, how many there are, the run, and the reason if
            it failed.

    Raises:
        UserError: a name or setting is not valid, the folder has other runs, or no run has a
            result.
    """
    robot = robot or make_family(family).robot
    load_robot(robot)
    chosen = grid(variants(list(names)), list(settings))
    if learner == "q":
        episodes = episodes or OFF_POLICY_EPISODES
    planned = plan(family, robot, chosen, list(range(seeds)), folder, episodes, learner)
    stem = folder / f"sweep{suffix(learner, episodes)}"
    table, figure = stem.with_suffix(".csv"), stem.with_suffix(".png")
    again = _has_table(table, figure, planned)
    failed = 0
    for count, (job, reason) in enumerate(sweep(planned, processes), 1):
        failed += bool(reason)
        on_run(count, len(planned), job, reason)
    summaries = summarize(planned)
    if not summaries:
        raise UserError(f"no run of {folder} has a result")
    drawn = image(summaries, target_score)
    make_room(table, figure, overwrite=again)
    write_table(summaries, table, overwrite=again)
    write_file(figure, drawn, overwrite=again)
    shown = {s.variant: chosen[s.variant] for s in summaries}
    return SweepResults(summaries, shown, failed, table, figure)
