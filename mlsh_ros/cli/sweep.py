"""mlsh sweep: variants x seeds over the cores, one table and one plot."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlsh_ros.cli.console import console, interrupted, make_table, say
from mlsh_ros.cli.options import (
    FamilyName,
    FamilyRobotName,
    LearnerName,
    TargetScore,
    whole,
)
from mlsh_ros.evaluation.number_format import percent

if TYPE_CHECKING:
    from policies.experiments.ablations import Variant
    from policies.experiments.results_table import SweepSummary

MAX_RUNS = 10_000  # as of policies.experiments.sweep, which needs torch
MAX_JOBS = 256


def show_variants(wanted: bool) -> None:
    """Print every variant and set, and exit."""
    if not wanted:
        return
    from policies.experiments.ablations import SETS, VARIANTS

    for name, members in SETS.items():
        say(f"{name}: {', '.join(members)}")
    _explain(VARIANTS)
    raise typer.Exit


def sweep(
    family: FamilyName,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="Variant by name, or the groups baselines and ablations; --list describes all. "
            "Repeatable. Default: mlsh."
        ),
    ] = None,
    list_variants: Annotated[
        bool,
        typer.Option(
            "--list",
            callback=show_variants,
            is_eager=True,
            help="Describe each variant, and exit.",
        ),
    ] = False,
    seeds: Annotated[int, whole(1, MAX_RUNS, help="Number of random seeds: 0, 1, 2 ..")] = 10,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting of all variants, as in mlsh train; KEY=A,B,C makes a grid. "
            "Repeatable.",
        ),
    ] = None,
    robot: FamilyRobotName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of all runs; an interrupted sweep continues there."
        ),
    ] = None,
    jobs: Annotated[
        int | None, whole(1, MAX_JOBS, help="Number of parallel runs. Default: one per core.")
    ] = None,
    episodes: Annotated[
        int | None,
        whole(
            1,
            help="Number of episodes per update on a new task. Default: 4; with --learner ppo, "
            "2,000 environment steps.",
        ),
    ] = None,
    learner: LearnerName = "q",
    target_score: TargetScore = 0.95,
) -> int:
    """Train variants with several seeds and compare the scores of masters learned anew."""
    from policies.experiments.results_table import run_sweep
    from sim.tasks.registry import use_family

    family = use_family(family)
    folder = output or Path("runs") / f"sweep-{family}"
    again = f"what is done under {folder} is kept, and the same command goes on from there"
    with interrupted(lambda: again):
        found = run_sweep(
            family,
            robot,
            names=variant or ["mlsh"],
            settings=settings or [],
            seeds=seeds,
            folder=folder,
            processes=jobs or os.cpu_count() or 1,
            episodes=episodes,
            learner=learner,  # type: ignore[arg-type]  # the option holds it to the choices
            target_score=target_score,
            on_run=lambda done, total, job, reason: say(
                f"{done}/{total} {job.path}: {reason or 'done'}"
            ),
        )
    _show(found.summaries, target_score)
    _explain(found.variants)
    say(f"every number: {found.table}; learning curves: {found.figure}")
    return 1 if found.failed else 0


def _show(summaries: list[SweepSummary], target_score: float) -> None:
    heads = ["seeds", f">= {percent(target_score)}", "1 update", "mean", "95 % of the mean"]
    heads += ["worst seed", "its worst task", "seconds"]
    table = make_table("variant", right=heads)
    for s in summaries:
        low, high = s.interval
        within = "-" if math.isnan(low) else f"{percent(low)} .. {percent(high)}"
        weakest, count = s.weakest, len(s.outcomes)
        seconds = sum(o.seconds for o in s.outcomes) / count
        table.add_row(
            s.variant,
            f"{count}",
            f"{s.reached(target_score)}",
            percent(s.after(1)),
            percent(s.mean),
            within,
            f"{weakest.job.config.seed}",
            f"{weakest.worst_task} {percent(weakest.worst)}",
            f"{seconds:.0f}",
        )
    updates = len(summaries[0].outcomes[0].steps) - 1
    console.print(table)
    say(
        f"normalized score, greedy, after {updates} updates of "
        f"{summaries[0].outcomes[0].steps[1]:,} steps on each task (and after one); "
        f"{percent(target_score)}: seeds of which every task reaches it"
    )


def _explain(variants: Mapping[str, Variant]) -> None:
    """Print a description of each variant."""
    table = make_table(show_header=False)
    for name, variant in variants.items():
        table.add_row(name, variant.why)
    console.print(table)
