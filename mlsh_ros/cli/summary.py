"""mlsh summary: several runs in one table, the worst one named."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mlsh_ros.cli.console import console, say
from mlsh_ros.evaluation.number_format import percent
from sim.errors import UserError

if TYPE_CHECKING:
    from policies.training.run import Run


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    run: Run
    seed: int
    steps: int
    seconds: float
    updates: int  # of each fresh master
    reached: dict[str, float]  # per task: greedy return after the last update, of the optimum
    restarts: int  # skills started anew

    @property
    def worst(self) -> float:
        """Of its tasks."""
        return min(self.reached.values())


def summary(
    runs: Annotated[list[Path], typer.Argument(help="Finished run folders of mlsh train.")],
    goal: Annotated[float, typer.Option(help="Fraction of the optimum to reach.")] = 0.95,
) -> None:
    """Compare finished runs: time, steps, and what fresh masters reach with the frozen skills."""
    outcomes = sorted((_read(path) for path in runs), key=lambda o: o.seed)
    tasks = list(dict.fromkeys(task for o in outcomes for task in o.reached))
    table = Table(box=None, padding=(0, 2))
    for head in ("seed", "steps", "seconds", *tasks, "restarted skills"):
        table.add_column(head, justify="right")
    for o in outcomes:
        cells = [percent(o.reached[task]) if task in o.reached else "-" for task in tasks]
        table.add_row(f"{o.seed}", f"{o.steps:,}", f"{o.seconds:.0f}", *cells, f"{o.restarts}")
    console.print(table)
    worst = min(outcomes, key=lambda o: o.worst)
    good = sum(o.worst >= goal for o in outcomes)
    say(
        f"{good} of {len(outcomes)} runs reach {percent(goal)} of the optimum on every task after "
        f"{worst.updates} master updates; worst: seed {worst.seed} with {percent(worst.worst)}"
    )


def _read(path: Path) -> Outcome:
    from policies.training.metrics import read_rows
    from policies.training.run import open_run
    from sim.envs.reference_returns import all_bounds
    from sim.physics.robot_model import load_robot
    from sim.tasks.registry import make_family

    run = open_run(path)
    config = run.config
    family = make_family(config.family, config.family_parameters)
    limits = all_bounds(load_robot(config.robot), family)  # type: ignore[arg-type]
    share = {task: limit.share for task, limit in zip(family.tasks, limits, strict=True)}
    try:
        rows = read_rows(path / "metrics.csv")
        with (path / "adaptation.csv").open(newline="") as stream:
            masters = list(csv.DictReader(stream))
        last = {row["task"]: row for row in masters}  # rows are in the order of updates
        reached = {t: share[t](float(row["greedy_return"])) for t, row in last.items()}
        updates = int(masters[-1]["updates"])
        steps, seconds = int(rows[-1]["steps"]), rows[-1]["seconds"]
    except (OSError, KeyError, IndexError, ValueError):
        raise UserError(
            f"run {str(path)!r} is not finished; mlsh train --resume {quote(str(path))}"
        ) from None
    restarts = sum(row["reseeded"] >= 0 for row in rows)
    return Outcome(run, config.seed, steps, seconds, updates, reached, restarts)
