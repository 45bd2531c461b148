"""mlsh compare-runs: several runs in one table, the worst one named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mlsh_ros.cli.console import console, say
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.options import TargetScore
from mlsh_ros.evaluation.number_format import percent


def compare_runs(
    runs: Annotated[list[Path], typer.Argument(help="Finished run folders of mlsh train.")],
    target_score: TargetScore = 0.95,
    family_source: FamilyOption = None,
) -> None:
    """Compare finished runs: time, steps, and scores of fresh masters with the frozen skills."""
    from policies.experiments.run_comparison import compare_runs as compare

    found = compare(runs)
    table = Table(box=None, padding=(0, 2))
    for head in ("run", "family", "robot"):
        table.add_column(head, overflow="fold")
    for head in ("seed", "steps", "seconds", *found.tasks, "restarted skills"):
        table.add_column(head, justify="right")
    for run in found.runs:
        config, scores = run.trained.config, run.scores
        cells = [percent(scores[task]) if task in scores else "-" for task in found.tasks]
        restarts = "-" if run.restarts is None else f"{run.restarts}"
        numbers = (f"{run.seed}", f"{run.steps:,}", f"{run.seconds:.0f}", *cells, restarts)
        table.add_row(str(run.path), config.family, config.robot, *numbers)
    console.print(table)
    if unknown := [str(run.path) for run in found.runs if run.restarts is None]:
        say(
            f"metrics.csv of {', '.join(unknown)} is incomplete: the number of reinitialized "
            "skills is not known"
        )
    worst = found.worst
    say(
        f"{found.reached(target_score)} of {len(found.runs)} runs reach {percent(target_score)}, "
        f"normalized, on every task after {worst.updates} master updates; worst: {worst.path}, "
        f"seed {worst.seed}, with {percent(worst.worst)}"
    )
