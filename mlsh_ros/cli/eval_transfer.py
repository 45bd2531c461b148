"""mlsh eval-transfer: frozen skills on all tasks of a family, beside PPO from scratch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlsh_ros.cli.console import console, interrupted, make_table, say
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.options import (
    Baseline,
    BundleName,
    LearnerName,
    MasterUpdates,
    Overwrite,
    RobotName,
    Settings,
    whole,
)
from mlsh_ros.evaluation.number_format import amount, percent
from sim.errors import counted

if TYPE_CHECKING:
    from policies.bundle.adaptation import AdaptationPoint
    from policies.experiments.transfer import Transferred, TransferSummary

MAX_SEEDS = 10_000


def eval_transfer(
    bundle: BundleName,
    family: Annotated[
        str,
        typer.Argument(
            help="Task family; it may be one that the skills were not trained on, or one of your "
            "own as package.module:Class or FILE.py."
        ),
    ],
    seeds: Annotated[int, whole(1, MAX_SEEDS, help="Number of random seeds: 0, 1, 2 ..")] = 10,
    episodes: Annotated[
        int, whole(1, help="Number of complete episodes collected per update and task.")
    ] = 8,
    learner: LearnerName = "q",
    updates: MasterUpdates = 6,
    settings: Settings = None,
    robot: RobotName = None,
    baseline: Baseline = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV file with every number.")
    ] = None,
    overwrite: Overwrite = False,
    family_source: FamilyOption = None,
) -> None:
    """Learn all tasks of a family with a bundle's frozen skills, over seeds."""
    from policies.bundle.bundle import load_bundle
    from policies.experiments.transfer import (
        recorded,
        summarize_transfer,
        transfer,
        transfer_config,
    )
    from policies.training.adapt import envs_for_episodes
    from sim.files.output import check_place
    from sim.tasks.registry import use_family

    family = use_family(family)
    loaded = load_bundle(bundle)
    target = output or Path("runs") / f"{loaded.manifest.name}-{family}.csv"
    check_place(target, overwrite=overwrite)
    config = transfer_config(
        loaded,
        family,
        threads=os.cpu_count() or 1,
        settings=settings or [],
        robot=robot,
        baseline=baseline,
        learner=learner,  # type: ignore[arg-type]
    )
    learned = transfer(
        loaded,
        config,
        range(seeds),
        updates=updates,
        envs=envs_for_episodes(config, episodes),
        baseline=baseline,
        on_update=_say,
    )
    results: list[Transferred] = []

    def kept() -> str:
        return (
            f"{target} has {counted(len(results), 'result')}" if results else "nothing was written"
        )

    with interrupted(kept):
        for result in recorded(learned, target, overwrite=overwrite):
            results.append(result)
    for summary in summarize_transfer(results, config.robot):
        _show(summary)
    say(f"every number: {target}")


def _say(learner: str, seed: int, latest: list[AdaptationPoint]) -> None:
    mean = sum(p.greedy for p in latest) / len(latest)
    success = sum(p.success for p in latest) / len(latest)
    say(
        f"{learner}, seed {seed}, {latest[0].updates} updates: return {amount(mean)}, "
        f"success {percent(success)}"
    )


def _show(summary: TransferSummary) -> None:
    last, seeds = summary.last, len(summary.results)
    heads = ("return", "worst seed", "success", "seeds with > 50 %", "random", "optimum")
    title = f"{summary.learner}, {last.updates} updates"
    table = make_table("task", right=heads, title=title)
    for each in summary.tasks:
        table.add_row(
            each.task,
            amount(each.value),
            f"{amount(each.worst)} ({each.worst_seed})",
            percent(each.success),
            f"{each.solved} of {seeds}",
            amount(each.reference.random),
            amount(each.reference.optimum),
        )
    console.print(table)
    fewest, most = summary.solved
    say(
        f"mean return {amount(summary.mean)}, success {percent(summary.success)}; of "
        f"{counted(len(summary.tasks), 'task')} {fewest} to {most} are solved; "
        f"{counted(summary.episodes, 'episode')}, {last.steps:,} steps per task, "
        f"{summary.seconds:.0f} s"
    )
    if summary.divergence:
        say(f"warning: {summary.learner}: {summary.divergence}")
