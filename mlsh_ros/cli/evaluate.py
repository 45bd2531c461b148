"""mlsh evaluate: scores of a bundle, offline or through the real nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlsh_ros.bringup.params import MODES
from mlsh_ros.cli.console import console, make_table, progress_bar, say
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.options import (
    BundleName,
    EpisodeSeed,
    EpisodesPerTask,
    MasterName,
    Overwrite,
    RobotName,
    RosDomain,
    SimParamsName,
    TaskName,
)
from mlsh_ros.evaluation.number_format import milliseconds, percent
from sim.errors import UserError, unknown

if TYPE_CHECKING:
    from mlsh_ros.evaluation.case import EvaluationCase
    from mlsh_ros.evaluation.episode import Episode
    from mlsh_ros.evaluation.robustness import Axis
    from mlsh_ros.evaluation.scores import Evaluation

BACKENDS = ("sim", "ros")


def evaluate(
    bundle: BundleName,
    backend: Annotated[
        str, typer.Option(help="sim: offline, in this process. ros: through the real nodes.")
    ] = "sim",
    mode: Annotated[
        str | None,
        typer.Option(
            help="Mode of the nodes, with --backend ros: lockstep (default) or realtime."
        ),
    ] = None,
    episodes: EpisodesPerTask = 50,
    task: TaskName = None,
    master: MasterName = None,
    robot: RobotName = None,
    seed: EpisodeSeed = 0,
    sim_params: SimParamsName = "",
    robustness: Annotated[
        list[str] | None,
        typer.Option(
            help="Score the bundle over ranges of simulation parameters, for example "
            "friction=0.3:1.2 delay=0:60ms. Repeatable."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for report.html and report.json.")
    ] = Path("reports"),
    overwrite: Overwrite = False,
    domain: RosDomain = None,
    family_source: FamilyOption = None,
) -> None:
    """Measure return, success, skill usage and timing; writes an HTML report and JSON."""
    from mlsh_ros.evaluation.case import resolve_cases
    from mlsh_ros.evaluation.robustness import parse_axes
    from policies.bundle.bundle import load_bundle
    from sim.files.output import check_place

    backend = _backend(backend, mode, domain)
    axes = parse_axes(robustness or [])
    if robustness and not axes:
        raise UserError(
            "--robustness: no quantity is given; for example --robustness friction=0.3:1.2"
        )
    if axes and backend != "sim":
        raise UserError("--robustness is for backend sim, not ros")
    loaded = load_bundle(bundle)
    cases = resolve_cases(loaded, robot=robot, task=task, master=master, sim_params=sim_params)
    stem, kinds = ("robustness", ("json", "png")) if axes else ("report", ("json", "html"))
    files = [output / f"{stem}.{kind}" for kind in kinds]
    for file in files:
        check_place(file, overwrite=overwrite)
    if axes:
        _map(cases, axes, episodes, seed, files, overwrite)
    else:
        _score(cases, backend, episodes, seed, domain, files, overwrite)


def _backend(backend: str, mode: str | None, domain: int | None) -> str:
    """The backend by its full name: sim, ros-lockstep or ros-realtime."""
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    if mode is not None and mode not in MODES:
        raise unknown("mode", mode, MODES)
    for name, value in (("mode", mode), ("domain", domain)):
        if value is not None and backend == "sim":
            raise UserError(f"--{name} {value} is for backend ros; sim has no nodes")
    return backend if backend == "sim" else f"ros-{mode or 'lockstep'}"


def _score(
    cases: Sequence[EvaluationCase],
    backend: str,
    episodes: int,
    seed: int,
    domain: int | None,
    files: list[Path],
    overwrite: bool,
) -> None:
    from mlsh_ros.evaluation.measured import measured
    from mlsh_ros.evaluation.report.report import render
    from mlsh_ros.evaluation.scores import reference_returns, summarize
    from sim.files.output import json_text, write_result

    # As it is before it drives; a file may be changed meanwhile.
    what = measured(cases[0])
    limits = reference_returns(cases, seed=seed, episodes=episodes)
    done = _drive(cases, backend, episodes, seed, domain)
    result = summarize(cases, backend, seed, done, what=what, limits=limits)
    # First the files: a terminal that is gone must not take hours of driving with it.
    contents = json_text(result.to_dict()), render(result)
    write_result(dict(zip(files, contents, strict=True)), overwrite=overwrite)
    show(result)
    say(f"report: {files[1]}")


def _map(
    cases: Sequence[EvaluationCase],
    axes: list[Axis],
    episodes: int,
    seed: int,
    files: list[Path],
    overwrite: bool,
) -> None:
    from mlsh_ros.evaluation.robustness import map_image, points_of, robustness
    from mlsh_ros.evaluation.scores import stopped_by
    from sim.files.output import json_text, write_result

    with progress_bar() as progress:
        bar = progress.add_task("points", total=points_of(axes))
        found = robustness(
            cases, axes, episodes=episodes, seed=seed, on_point=lambda: progress.advance(bar)
        )
    contents = json_text(found.to_dict()), map_image(found)
    write_result(dict(zip(files, contents, strict=True)), overwrite=overwrite)
    say(f"score without a difference: {percent(found.nominal.score)}")
    if found.nominal.stopped:
        who = stopped_by(found.nominal.diverged)
        say(f"warning: {who} in {found.nominal.stopped:.0%} of these episodes")
    for axis in axes:
        say(found.verdict(axis.name))
    say(f"map: {files[1]} and .json")


def _drive(
    cases: Sequence[EvaluationCase], backend: str, episodes: int, seed: int, domain: int | None
) -> list[Episode]:
    from mlsh_ros.evaluation.backends import run_offline, run_ros

    kind, _, mode = backend.partition("-")
    with progress_bar() as progress:
        bar = progress.add_task(f"{kind}: episodes", total=episodes * len(cases))

        def advance(_: Episode) -> None:
            progress.advance(bar)

        if kind == "sim":
            return run_offline(cases, episodes=episodes, seed=seed, on_episode=advance)
        return run_ros(
            cases, episodes=episodes, seed=seed, mode=mode, domain=domain, on_episode=advance
        )


def show(result: Evaluation) -> None:
    """Print the score table."""
    from policies.bundle.manifest import skill_names

    heads = ["episodes", "return", "optimum", "normalized", "success", "usage", "switches"]
    heads += ["late", "lateness p99", "compute p50", "p99 (ms)"]
    table = make_table("task", "master", right=heads, gap=1)
    for line in result.lines:
        spread = "" if line.return_deviation is None else f" ± {line.return_deviation:.2f}"
        table.add_row(
            line.task,
            line.master,
            f"{line.episodes}",
            f"{line.return_mean:.2f}{spread}",
            f"{line.reference_returns.optimum:.2f}",
            percent(line.normalized),
            percent(line.success),
            " ".join(f"{u:.0%}" for u in line.usage),
            f"{line.switches:.1f}",
            f"{line.late_decisions}",
            milliseconds(line.lateness_p99),
            milliseconds(line.compute_p50),
            milliseconds(line.compute_p99),
        )
    console.print(table)
    names = result.bundle.manifest.skills
    if names != skill_names(len(names)):  # numbers say themselves which column is whose
        say(f"usage: {', '.join(names)}")
    if any(line.normalized > 1 for line in result.lines):
        say(
            "more than 100 %: the return exceeds that of the reference controller, which is not "
            "an upper bound"
        )
    for line in result.lines:
        if line.punctuality:
            say(line.punctuality)
        if line.stops:
            say(f"warning: {line.task}: {line.stops}")
    for change in result.changes:
        say(change)
    for each in result.sharing:
        say(
            f"{each.family}: I(skill; task) {each.mutual_information:.2f} of "
            f"{each.possible:.2f} bits",
        )
        if each.explanation:
            say(f"warning: {each.explanation}")
