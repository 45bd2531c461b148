"""mlsh train: meta-training with a live display."""

from __future__ import annotations

import json
import shlex
import signal
import threading
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TimeRemainingColumn
from rich.table import Table

from mlsh_ros.cli.console import Words, console, interrupted, make_table, say
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.interrupt import INTERRUPTED
from mlsh_ros.cli.options import MAX_SEED, FamilyRobotName, Settings, SimParamsName, whole
from mlsh_ros.evaluation.number_format import amount, percent
from sim.errors import UserError, counted

if TYPE_CHECKING:
    from policies.bundle.adaptation import AdaptationPoint as MasterProgress
    from policies.mlsh.distributed import Ranks
    from policies.training.run import Run
    from policies.training.train import Training
    from sim.envs.reference_returns import ReferenceReturns

# After these a training saves what it has: Ctrl-C, `docker stop` or a batch system, a lost
# terminal.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 30  # iterations in a row with a warning before it is shown: skills begin alike
PIPED_EVERY = 10  # iterations between two lines where no terminal shows the live display


def show_settings(wanted: bool) -> None:
    """Print every setting in the form of `--set`, and exit."""
    if not wanted:
        return
    from policies.mlsh.config import config_to_dict, setting_names
    from policies.mlsh.presets import default_config

    config = default_config("moving_bandits", "omni")
    for name in setting_names(config):
        value: Any = config_to_dict(config)
        for key in name.split("."):
            value = value[key]
        say(f"{name}={json.dumps(value)}")
    say("(of moving_bandits; other families have other defaults: config.yaml of a run has all)")
    raise typer.Exit


def train(
    family: Annotated[
        str | None,
        typer.Argument(
            help="Task family, for example moving_bandits; one of your own as "
            "package.module:Class or FILE.py."
        ),
    ] = None,
    robot: FamilyRobotName = None,
    seed: Annotated[
        int | None,
        whole(
            0,
            MAX_SEED,
            help="Random seed for initialization, tasks, episodes and exploration. Default: 0.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help="Preset: default, or faithful-2017, which reproduces the released code of 2017.",
        ),
    ] = None,
    settings: Settings = None,
    sim_params: SimParamsName = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder. Default: under runs/.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Run folder to continue; the result is that of a run without "
            "the interruption, bit for bit."
        ),
    ] = None,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes",
            help="Resume even if config.yaml or the robot has changed; the bundle records that.",
        ),
    ] = False,
    list_settings: Annotated[
        bool,
        typer.Option(
            "--list-settings",
            callback=show_settings,
            is_eager=True,
            help="List all settings of --set with their defaults.",
        ),
    ] = False,
    family_source: FamilyOption = None,
) -> int:
    """Train skills and masters over many tasks of a family."""
    # Imported when needed, here and in the other commands: torch alone takes a second.
    if find_spec("torch") is None:  # said before a run folder is made
        raise ModuleNotFoundError(name="torch")
    from policies.mlsh.distributed import ranks_of_this_run
    from policies.training.run import open_run
    from policies.training.start_run import start_run

    ranks = ranks_of_this_run()
    if allow_changes and resume is None:
        raise UserError("--allow-changes is for --resume")
    if resume is not None:
        given = {
            "FAMILY": family,
            "--robot": robot,
            "--seed": seed,
            "--preset": recipe,
            "--set": settings,
            "--sim-params": sim_params,
            "--output": output,
        }
        if names := [name for name, value in given.items() if value not in (None, "", [])]:
            raise UserError(
                f"--resume takes all settings from the run; leave out {', '.join(names)}"
            )
        folder = open_run(resume)
    else:
        if family is None:
            raise UserError("which task family? For example: mlsh train moving_bandits")
        folder = start_run(
            family,
            robot=robot,
            seed=seed or 0,
            recipe=recipe or "default",
            settings=settings or (),
            sim_params=sim_params,
            path=output,
            ranks=ranks,
        )
    return _train(folder, ranks, resume=resume is not None, allow_changes=allow_changes)


def _train(folder: Run, ranks: Ranks, *, resume: bool, allow_changes: bool) -> int:
    from policies.training.pruning import describe_pruned
    from policies.training.train import learn_masters
    from policies.training.train import train as run_training
    from policies.training.verdict import evidence_of, explain

    again = shlex.join(["mlsh", "train", "--resume", str(folder.path)])
    stop = threading.Event()
    # What the caller ignores, such as SIGINT in the background or SIGHUP under nohup, stays so.
    # One of several processes may wait for another that is dead: it ends at once.
    numbers = ENDINGS if ranks.size == 1 else ENDINGS[:1]
    heard = [each for each in numbers if signal.getsignal(each) != signal.SIG_IGN]
    previous = {each: signal.signal(each, lambda *_: stop.set()) for each in heard}
    display = Display(folder) if ranks.first else nullcontext()
    show = display.show if isinstance(display, Display) else lambda _: None
    try:
        with display:
            training = run_training(
                folder,
                resume=resume,
                allow_changes=allow_changes,
                should_stop=stop.is_set,
                on_iteration=show,
                ranks=ranks,
            )
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
    if not ranks.first:
        return 0 if training.finished else INTERRUPTED
    if training.set_aside is not None:
        say(f"metrics.csv was damaged; the damaged file is kept as {training.set_aside}")
    if training.other_versions:
        say(
            f"warning: continued with {', '.join(training.other_versions)}: the result may differ "
            "from that of a run without the interruption"
        )
    if not training.finished:
        say(
            f"stopped after {training.learner.steps:,} steps; everything is saved. "
            f"Go on with: {again}",
        )
        return INTERRUPTED
    say(f"trained in {training.seconds:.0f} s; curves: {folder.path}/curves.png")
    kept = f"the training is saved, the masters are not. Go on with: {again}"
    if stop.is_set():  # in the last iteration, or after it
        say(kept)
        return INTERRUPTED
    say("a fresh master for each task, skills frozen:")
    with interrupted(lambda: kept):
        result = learn_masters(folder)
    if left_out := describe_pruned(folder.config, result.pruned):
        say(left_out)
    tasks, limits = result.learner.family.tasks, result.learner.reference_returns
    report(tasks, result.curves, limits)
    learner = training.learner
    evidence = evidence_of(training.rows, learner.family.tasks, limits, learner.method)
    if evidence is not None:
        final = {
            task: limit.normalize(curve[-1].greedy)
            for task, curve, limit in zip(tasks, result.curves, limits, strict=True)
        }
        if warning := explain(replace(evidence, scores=final), learner.method):
            say(f"warning: {warning}")
    say(f"next: {shlex.join(['mlsh', 'export', str(folder.path)])}")
    return 0


def report(
    tasks: tuple[str, ...],
    curves: list[list[MasterProgress]],
    reference_returns: list[ReferenceReturns],
) -> None:
    """Print greedy returns over master updates, and the normalized score of the last."""
    table = make_table("task", right=(*(f"{p.updates}" for p in curves[0]), "normalized"), gap=1)
    for task, curve, limit in zip(tasks, curves, reference_returns, strict=True):
        digits = 1 if abs(limit.optimum) >= 10 else 3
        cells = [f"{p.greedy:.{digits}f}" for p in curve]
        table.add_row(task, *cells, percent(limit.normalize(curve[-1].greedy)))
    console.print(table)
    steps = curves[0][-1].steps // max(1, curves[0][-1].updates)
    say(f"(greedy return after 0, 1, 2 .. updates of {steps:,} environment steps)")


class Display:
    """Progress, phase, returns, usage: a live panel on a terminal, lines in a pipe."""

    def __init__(self, run: Run) -> None:
        config = run.config
        self.path, self.total, self.config = run.path, config.iterations, config
        self.bar = Progress(
            Words("{task.description}"),
            BarColumn(),
            Words("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.bar.add_task(
            f"{config.family} on {config.robot}", total=self.total, note=""
        )
        self.warnings, self.diverged = 0, 0.0
        self.live = Live(self.bar, console=console, refresh_per_second=4)

    def __enter__(self) -> Display:
        say(f"run folder: {self.path}")
        if console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if console.is_terminal:
            self.live.stop()

    def show(self, training: Training) -> None:
        """Display the latest iteration."""
        row = training.rows[-1]
        if row["diverged"] > self.diverged:
            self.diverged = row["diverged"]
            first = str(self.path / "failures" / f"{training.earlier_failures}.npz")
            again = shlex.join(["python", "-m", "policies.training.divergence", first])
            what = counted(int(self.diverged), "simulation")
            say(f"diverged and reset: {what}; repeat one with: {again}")
        note = (
            f"{row['steps'] / 1e6:.2f} M steps, {row['steps_per_second']:,.0f}/s, "
            f"{row['groups_warming_up']:.0f} groups warming up, {row['groups_joint']:.0f} joint"
        )
        number = int(row["iteration"])
        if not console.is_terminal:
            if number % PIPED_EVERY == 0 or number == self.total:
                left = (self.total - number) * row["seconds"] / number
                score = percent(row["score"]) if "score" in row else "-"
                say(f"{number}/{self.total}: {note}, score {score}, {left:.0f} s left")
            return
        self.bar.update(self.task, completed=number, note=note)
        self.live.update(Group(self.bar, self._table(training)))

    def _table(self, training: Training) -> Table:
        from policies.training.verdict import Verdict, evidence_of, explain, judge

        rows = training.rows
        table = make_table("task", "return", "normalized", "usage of skills")
        reference_returns = training.learner.reference_returns
        for index, task in enumerate(training.learner.family.tasks):
            # Not every task has a warmed-up group in every iteration: show its latest.
            known = next((r for r in reversed(rows) if f"return/{task}" in r), None)
            if known is None:
                table.add_row(task, "-", "-", "-")
                continue
            value = known[f"return/{task}"]
            usage = [known[f"usage/{task}/skill-{k}"] for k in range(self.config.mlsh.skills)]
            table.add_row(
                task,
                amount(value),
                percent(reference_returns[index].normalize(value)),
                " ".join(f"{u:4.0%}" for u in usage),
            )
        score = percent(rows[-1]["score"]) if "score" in rows[-1] else "-"
        shared = (
            f"I(skill; task) {rows[-1]['mutual_information']:.2f} bits, "
            f"nearest skills {rows[-1]['skill_distance']:.2f} apart, of 1"
        )
        table.add_row("normalized score", score, "", shared)
        if restarts := sum(r["reset_skill"] >= 0 for r in rows):
            table.add_row(
                "", "", "", f"{restarts} skill(s) were reinitialized: no task needed them"
            )
        tasks, method = training.learner.family.tasks, self.config.mlsh
        evidence = evidence_of(rows, tasks, reference_returns, method)
        # That it is not learned yet is nothing to be said of a training that goes on.
        quiet = (Verdict.SERVED, Verdict.NOT_LEARNED)
        if evidence is not None and judge(evidence) not in quiet:
            self.warnings += 1
            if self.warnings > PATIENCE:
                table.add_row("", "", "", explain(evidence, method))
        else:
            self.warnings = 0
        return table
