"""mlsh finetune: more masters, skills frozen, beside PPO from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mlsh_ros.cli.check import describe
from mlsh_ros.cli.console import MAX_SEED, MAX_UPDATES, console, interrupted, say, whole
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.evaluation.number_format import percent

if TYPE_CHECKING:
    from policies.bundle.adaptation import Progress
    from sim.envs.reference_returns import Bounds


def finetune(
    bundle: Annotated[
        str, typer.Argument(help="A shipped bundle by name, or a folder or zip file.")
    ],
    task: Annotated[
        str,
        typer.Option(
            help="family/task, also of a family the skills never saw; or a family: all its tasks."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New bundle folder.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the new master; default: the task's.")
    ] = None,
    replacing: Annotated[
        bool, typer.Option("--replace", help="A master that has the name already.")
    ] = False,
    start_from: Annotated[
        str | None, typer.Option("--from", help="Start from this master instead of a fresh one.")
    ] = None,
    updates: Annotated[int, whole(1, MAX_UPDATES, help="Of the master.")] = 10,
    seed: Annotated[int, whole(0, MAX_SEED, help="Of everything random.")] = 0,
    robot: Annotated[
        str | None, typer.Option(help="Name or folder; default: the bundle's.")
    ] = None,
    reality: Annotated[
        str,
        typer.Option(help="What differs from the model: by name, or a file. Default: as trained."),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting, as in train. Repeatable."),
    ] = None,
    episodes: Annotated[
        int | None,
        whole(1, help="Whole ones per update; default: 2,000 environment steps."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
    baseline: Annotated[
        bool, typer.Option(help="Also learn the task from scratch with the same experience.")
    ] = True,
    family_source: FamilyOption = None,
) -> None:
    """Learn a new task by training the master alone; the skill files stay byte-identical."""
    from policies.bundle.bundle import load_bundle
    from policies.bundle.runtime import TOLERANCE
    from policies.bundle.task_compatibility import robot_of, tasks_of
    from policies.training.adapt import envs_for_episodes, from_scratch
    from policies.training.finetune import finetune as learn
    from policies.training.finetune_plot import plot_adaptation, write_curves
    from policies.training.run import environment
    from sim.files.output import check_place
    from sim.physics.robot_model import load_robot
    from sim.randomization.schema import load_reality
    from sim.tasks.registry import make_family

    loaded = load_bundle(bundle)
    label = name or task.partition("/")[2] or task
    target = output or Path("runs") / f"{loaded.manifest.name}-{label}"
    curves_at = [target.with_name(f"{target.name}-finetune{each}") for each in (".csv", ".png")]
    for place in curves_at:
        check_place(place, overwrite=overwrite)
    body = load_robot(robot_of(loaded, robot))
    differs = load_reality(reality, body) if reality else None
    with interrupted(lambda: "no bundle was written"):
        result = learn(
            loaded,
            task,
            target,
            name=name,
            replacing=replacing,
            overwrite=overwrite,
            updates=updates,
            seed=seed,
            robot=robot,
            start_from=start_from,
            reality=differs,
            settings=settings or [],
            episodes=episodes,
            baseline=baseline,
            facts=environment(),
        )
    tasks = tasks_of(loaded, task)
    curves = {
        each: {"master only": curve}
        for each, curve in zip(tasks, result.adapted.curves, strict=True)
    }
    config = result.config
    family = make_family(config.family, config.family_parameters)  # what was learned on
    limits = {}
    envs = None if episodes is None else envs_for_episodes(config, episodes)
    for each in tasks:
        number = family.tasks.index(each.partition("/")[2])
        if baseline:
            with interrupted(lambda: f"bundle {target} is written, the comparison is not"):
                alone = from_scratch(config, number, updates=updates, envs=envs)
            curves[each]["PPO from scratch"] = alone.curves[0]
        limits[each] = result.adapted.learner.bounds[number]
    write_curves(curves, curves_at[0])
    plot_adaptation(curves, limits, family.ticks, curves_at[1])
    for each in tasks:
        if len(tasks) > 1:
            say(each)
        _show(curves[each], limits[each], family.ticks)
    say(f"curves: {curves_at[1]} and .csv")
    say(
        f"parity torch / ONNX Runtime: {result.parity.worst:.1e} (at most {TOLERANCE:g}); "
        f"{len(loaded.skills)} skill files unchanged"
    )
    describe(result.bundle)


def _show(curves: dict[str, list[Progress]], limit: Bounds, ticks: int) -> None:
    digits = 1 if abs(limit.optimum) >= 10 else 3
    table = Table(box=None, padding=(0, 2))
    for head in ("updates", "steps", "episodes"):
        table.add_column(head, justify="right")
    for label in curves:
        table.add_column(label, justify="right")
        table.add_column("of optimum", justify="right")
        table.add_column("seconds", justify="right")
    for row in zip(*curves.values(), strict=True):
        cells = [f"{row[0].updates}", f"{row[0].steps:,}", f"{row[0].steps / ticks:.0f}"]
        for p in row:
            share = percent(limit.share(p.greedy))
            cells += [f"{p.greedy:.{digits}f}", share, f"{p.seconds:.2f}"]
        table.add_row(*cells)
    console.print(table)
