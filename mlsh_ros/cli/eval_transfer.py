"""mlsh eval-transfer: frozen skills on all tasks of a family, beside PPO from scratch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mlsh_ros.cli.console import console, interrupted, say
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

if TYPE_CHECKING:
    from policies.bundle.adaptation import AdaptationPoint
    from policies.experiments.transfer import Transferred
    from sim.envs.reference_returns import ReferenceReturns

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
    learner: LearnerName = "ppo",
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
    from policies.bundle.task_compatibility import robot_of
    from policies.experiments.transfer import transfer as run
    from policies.experiments.transfer import transfer_config, write_transfer
    from policies.training.adapt import envs_for_episodes
    from sim.envs.reference_returns import all_reference_returns
    from sim.files.output import check_place, lock_beside, locked
    from sim.physics.robot_model import load_robot
    from sim.tasks.registry import use_family

    family = use_family(family)
    loaded = load_bundle(bundle)
    target = output or Path("runs") / f"{loaded.manifest.name}-{family}.csv"
    check_place(target, overwrite=overwrite)
    settings, threads = settings or [], os.cpu_count() or 1
    config = transfer_config(  # says so before a folder is made
        loaded,
        family,
        threads=threads,
        settings=settings,
        robot=robot,
        baseline=baseline,
        learner=learner,  # type: ignore[arg-type]  # the option holds it to the choices
    )
    envs_for_episodes(config, episodes)
    results: list[Transferred] = []

    def kept() -> str:
        return f"{target} has {len(results)} results" if results else "nothing was written"

    with interrupted(kept), locked(lock_beside(target), str(target)):
        for result in run(
            loaded,
            family,
            list(range(seeds)),
            updates=updates,
            episodes=episodes,
            threads=threads,
            settings=settings,
            robot=robot,
            baseline=baseline,
            learner=learner,  # type: ignore[arg-type]
            on_update=_say,
        ):
            results.append(result)
            write_transfer(results, target)
    limits = all_reference_returns(load_robot(robot_of(loaded, robot)), results[0].family)  # type: ignore[arg-type]
    for learner in dict.fromkeys(r.learner for r in results):
        _show([r for r in results if r.learner == learner], limits)
    say(f"every number: {target}")


def _say(learner: str, seed: int, latest: list[AdaptationPoint]) -> None:
    mean = sum(p.greedy for p in latest) / len(latest)
    success = sum(p.success for p in latest) / len(latest)
    say(
        f"{learner}, seed {seed}, {latest[0].updates} updates: return {amount(mean)}, "
        f"success {percent(success)}"
    )


def _show(results: list[Transferred], limits: list[ReferenceReturns]) -> None:
    last = results[0].last[0]
    table = Table(box=None, padding=(0, 2), title=f"{results[0].learner}, {last.updates} updates")
    table.add_column("task")
    heads = ("return", "worst seed", "success", "seeds with > 50 %", "random", "optimum")
    for head in heads:
        table.add_column(head, justify="right")
    for i, (task, limit) in enumerate(zip(results[0].tasks, limits, strict=True)):
        ends = [r.last[i] for r in results]
        worst = min(results, key=lambda r, i=i: r.last[i].greedy)  # type: ignore[misc]
        table.add_row(
            task,
            amount(sum(p.greedy for p in ends) / len(ends)),
            f"{amount(worst.last[i].greedy)} ({worst.seed})",
            percent(sum(p.success for p in ends) / len(ends)),
            f"{sum(p.success > 0.5 for p in ends)} of {len(ends)}",
            amount(limit.random),
            amount(limit.optimum),
        )
    console.print(table)
    mean = sum(r.mean for r in results) / len(results)
    success = sum(r.success for r in results) / len(results)
    solved = [r.solved for r in results]
    seconds = sum(r.last[0].seconds for r in results) / len(results)
    say(
        f"mean return {amount(mean)}, success {percent(success)}; of {len(limits)} task(s) "
        f"{min(solved)} to {max(solved)} are solved; {last.steps // results[0].ticks} episodes, "
        f"{last.steps:,} steps per task, {seconds:.0f} s"
    )
