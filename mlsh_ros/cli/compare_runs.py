"""mlsh compare-runs: several runs in one table, the worst one named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mlsh_ros.cli.console import console, say
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.options import TargetScore
from mlsh_ros.evaluation.number_format import percent
from sim.errors import UserError

if TYPE_CHECKING:
    from policies.training.trained_with import Trained


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    path: Path
    trained: Trained
    steps: int
    seconds: float
    updates: int  # of each fresh master
    reached: dict[str, float]  # per task: greedy return after the last update, of the optimum
    restarts: int | None  # skills started anew; None: metrics.csv does not say

    @property
    def worst(self) -> float:
        """Of its tasks."""
        return min(self.reached.values())


def compare_runs(
    runs: Annotated[list[Path], typer.Argument(help="Finished run folders of mlsh train.")],
    target_score: TargetScore = 0.95,
    family_source: FamilyOption = None,
) -> None:
    """Compare finished runs: time, steps, and what fresh masters reach with the frozen skills."""
    outcomes = sorted((_read(path) for path in runs), key=lambda o: o.trained.config.seed)
    _check_distinct(outcomes)
    tasks = list(dict.fromkeys(task for o in outcomes for task in o.reached))
    table = Table(box=None, padding=(0, 2))
    for head in ("run", "family", "robot"):
        table.add_column(head, overflow="fold")
    for head in ("seed", "steps", "seconds", *tasks, "restarted skills"):
        table.add_column(head, justify="right")
    for o in outcomes:
        config = o.trained.config
        cells = [percent(o.reached[task]) if task in o.reached else "-" for task in tasks]
        restarts = "-" if o.restarts is None else f"{o.restarts}"
        numbers = (f"{config.seed}", f"{o.steps:,}", f"{o.seconds:.0f}", *cells, restarts)
        table.add_row(str(o.path), config.family, config.robot, *numbers)
    console.print(table)
    if unknown := [str(o.path) for o in outcomes if o.restarts is None]:
        say(f"metrics.csv of {', '.join(unknown)} is not whole: restarted skills are not known")
    worst = min(outcomes, key=lambda o: o.worst)
    good = sum(o.worst >= target_score for o in outcomes)
    say(
        f"{good} of {len(outcomes)} runs reach {percent(target_score)} of the optimum on every "
        f"task after {worst.updates} master updates; worst: {worst.path}, seed "
        f"{worst.trained.config.seed}, with {percent(worst.worst)}"
    )


def _check_distinct(outcomes: list[Outcome]) -> None:
    """Each training counts once: with the same seed and settings another one is a copy."""
    seen: dict[object, Path] = {}
    for o in outcomes:
        same = (o.trained.settings_digest, o.trained.robot_digest, o.steps)
        if same in seen:
            raise UserError(
                f"runs {str(seen[same])!r} and {str(o.path)!r} are the same training: the same "
                f"seed, settings, robot and steps; give it once"
            )
        seen[same] = o.path


def _read(path: Path) -> Outcome:
    from policies.training.adaptation_file import Origin, read_adaptation
    from policies.training.run import (
        ADAPTATION_UPDATES,
        iteration_of,
        open_run,
        seconds_of,
        with_all_tasks,
    )
    from sim.envs.reference_returns import all_reference_returns
    from sim.files.arrays import load_arrays
    from sim.physics.robot_model import load_robot
    from sim.tasks.registry import make_family

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
        found = read_adaptation(path / "adaptation.csv", ADAPTATION_UPDATES)
    except UserError as error:
        raise UserError(f"run {str(path)!r} is not finished: {error}; {again}") from None
    if found.origin != Origin.of(trained, iteration):
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
    return Outcome(
        path=path,
        trained=trained,
        steps=iteration * config.mlsh.steps_per_iteration,
        seconds=seconds_of(run, arrays),
        updates=ADAPTATION_UPDATES,
        reached={
            t: limits[t].fraction_of_optimum(curve[-1].greedy)
            for t, curve in found.by_task.items()
        },
        restarts=_restarts(path / "metrics.csv", iteration),
    )


def _restarts(path: Path, iterations: int) -> int | None:
    from policies.training.metrics import read_rows

    try:
        rows = [row for row in read_rows(path) if row["iteration"] <= iterations]
        restarts = [row["reseeded"] >= 0 for row in rows]
    except (UserError, KeyError):
        return None
    # A row that is missing may be the one of a restart.
    whole = [row["iteration"] for row in rows] == list(range(1, iterations + 1))
    return sum(restarts) if whole else None
