"""mlsh evaluate: scores of a bundle, offline or through the real nodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mlsh_ros.bringup.params import MODES
from mlsh_ros.cli.console import MAX_SEED, console, progress_bar, say, whole
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.evaluation.number_format import milliseconds, percent
from sim.errors import UserError, unknown

if TYPE_CHECKING:
    from mlsh_ros.evaluation.backends import Job
    from mlsh_ros.evaluation.episode import Episode
    from mlsh_ros.evaluation.robustness import Axis
    from mlsh_ros.evaluation.scores import Evaluation
    from policies.bundle.bundle import Bundle

BACKENDS = ("sim", "ros")


def evaluate(
    bundle: Annotated[
        str, typer.Argument(help="A shipped bundle by name, or a folder or zip file.")
    ],
    backend: Annotated[
        str, typer.Option(help="sim: in this process. ros: the real nodes.")
    ] = "sim",
    mode: Annotated[
        str | None,
        typer.Option(help="With ros: lockstep, which is the default, or realtime."),
    ] = None,
    episodes: Annotated[int, whole(1, help="Per task.")] = 50,
    task: Annotated[
        str | None, typer.Option(help="family/task; default: every master's own.")
    ] = None,
    master: Annotated[str | None, typer.Option(help="Default: the task's own.")] = None,
    robot: Annotated[
        str | None, typer.Option(help="Name or folder; default: the bundle's.")
    ] = None,
    seed: Annotated[int, whole(0, MAX_SEED, help="Of the episodes.")] = 0,
    reality: Annotated[
        str, typer.Option(help="What differs from the model: by name, or a file.")
    ] = "",
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="Map the score over what differs, e.g. friction=0.3:1.2 delay=0:60ms. Repeatable."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for report.html and report.json.")
    ] = Path("reports"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
    domain: Annotated[int | None, typer.Option(help="ROS domain, with ros.")] = None,
    family_source: FamilyOption = None,
) -> None:
    """Measure return, success, skill usage and timing; writes an HTML report and JSON."""
    from mlsh_ros.evaluation.backends import check_work, jobs
    from mlsh_ros.evaluation.measured import measured
    from mlsh_ros.evaluation.report.report import write_report
    from mlsh_ros.evaluation.robustness import parse_axes
    from mlsh_ros.evaluation.scores import reference_returns, summarise
    from policies.bundle.bundle import load_bundle
    from policies.bundle.task_compatibility import robot_of
    from sim.files.output import check_place

    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    if mode is not None and mode not in MODES:
        raise unknown("mode", mode, MODES)
    for name, value in (("mode", mode), ("domain", domain)):
        if value is not None and backend == "sim":
            raise UserError(f"--{name} {value} is for backend ros; sim has no nodes")
    mode = mode or "lockstep"
    loaded = load_bundle(bundle)
    work = jobs(loaded, task, master)
    body = robot_of(loaded, robot)
    axes = parse_axes(sweep or [])
    if axes and backend != "sim":
        raise UserError(f"--sweep is for backend sim, not {backend}")
    stem, kinds = ("robustness", ("json", "png")) if axes else ("report", ("json", "html"))
    files = [output / f"{stem}.{kind}" for kind in kinds]
    for file in files:
        check_place(file, overwrite=overwrite)
    if axes:
        _map(loaded, body, work, axes, episodes, seed, reality, files, overwrite)
        return
    check_work(loaded, body, work)
    # As it is before it drives; a file may be changed meanwhile.
    what = measured(loaded, body, reality)
    tasks = [job.task for job in work]
    limits = reference_returns(loaded, body, tasks, seed=seed, episodes=episodes)
    done = _run(loaded, body, work, backend, mode, episodes, seed, domain, reality)
    label = backend if backend == "sim" else f"ros-{mode}"
    result = summarise(loaded, body, label, seed, done, what=what, limits=limits)
    # First the files: a terminal that is gone must not take hours of driving with it.
    result.write_json(files[0], overwrite=overwrite)
    write_report(result, files[1], overwrite=overwrite)
    show(result)
    say(f"report: {files[1]}")


def _map(
    bundle: Bundle,
    robot: str,
    work: list[Job],
    axes: list[Axis],
    episodes: int,
    seed: int,
    reality: str,
    files: list[Path],
    overwrite: bool,
) -> None:
    from mlsh_ros.evaluation.robustness import plot_map, points_of, robustness

    with progress_bar() as progress:
        bar = progress.add_task("points", total=points_of(axes))
        found = robustness(
            bundle,
            robot,
            work,
            axes,
            episodes=episodes,
            seed=seed,
            reality=reality,
            on_point=lambda: progress.advance(bar),
        )
    found.write_json(files[0], overwrite=overwrite)
    plot_map(found, files[1], overwrite=overwrite)
    say(f"score without a difference: {percent(found.nominal.score)}")
    for axis in axes:
        say(found.verdict(axis.name))
    say(f"map: {files[1]} and .json")


def _run(
    bundle: Bundle,
    robot: str,
    work: list[Job],
    backend: str,
    mode: str,
    episodes: int,
    seed: int,
    domain: int | None,
    reality: str,
) -> list[Episode]:
    from mlsh_ros.evaluation.backends import run_offline, run_ros
    from sim.physics.robot_model import load_robot
    from sim.randomization.schema import load_reality

    differs = load_reality(reality, load_robot(robot)) if reality else None
    with progress_bar() as progress:
        bar = progress.add_task(f"{backend}: episodes", total=episodes * len(work))

        def advance(_: Episode) -> None:
            progress.advance(bar)

        if backend == "sim":
            return run_offline(
                bundle,
                robot,
                work,
                episodes=episodes,
                seed=seed,
                reality=differs,
                on_episode=advance,
            )
        return run_ros(
            bundle,
            robot,
            work,
            episodes=episodes,
            seed=seed,
            mode=mode,
            domain=domain,
            reality=reality,
            on_episode=advance,
        )


def show(result: Evaluation) -> None:
    """Print the score table."""
    table = Table(box=None, padding=(0, 1))
    heads = ["task", "master", "episodes", "return", "optimum", "normalised", "success"]
    heads += ["usage", "switches", "late", "lateness p99", "compute p50", "p99 (ms)"]
    for head in heads:
        table.add_column(head, justify="left" if head in ("task", "master") else "right")
    for line in result.lines:
        table.add_row(
            line.task,
            line.master,
            f"{line.episodes}",
            f"{line.value:.2f} ± {line.deviation:.2f}",
            f"{line.bounds.optimum:.2f}",
            percent(line.normalised),
            percent(line.success),
            " ".join(f"{u:.0%}" for u in line.usage),
            f"{line.switches:.1f}",
            f"{line.late}",
            milliseconds(line.lateness_p99),
            milliseconds(line.compute_p50),
            milliseconds(line.compute_p99),
        )
    console.print(table)
    if any(line.normalised > 1 for line in result.lines):
        say(
            "more than 100 %: better than the controller that is called the optimum, which is no "
            "bound"
        )
    for line in result.lines:
        if line.faults:
            say(
                f"warning: {line.task}: skill_node would have stopped the robot in "
                f"{len(line.faults)} of {line.episodes} episodes, the first: {line.faults[0]}"
            )
    for change in result.changes:
        say(change)
    for each in result.sharing:
        say(
            f"{each.family}: I(skill; task) {each.information:.2f} of {each.possible:.2f} bits",
        )
        if each.collapsed:
            say(f"warning: {each.collapsed}")
