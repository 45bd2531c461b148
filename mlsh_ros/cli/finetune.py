"""mlsh finetune: more masters, skills frozen, beside PPO from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlsh_ros.cli.check_bundle import describe
from mlsh_ros.cli.console import console, interrupted, make_table, say
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.options import (
    MAX_SEED,
    Baseline,
    BundleName,
    LearnerName,
    MasterUpdates,
    Overwrite,
    RobotName,
    Settings,
    whole,
)
from mlsh_ros.evaluation.number_format import percent

if TYPE_CHECKING:
    from policies.training.comparison import Comparison


def finetune(
    bundle: BundleName,
    task: Annotated[
        str,
        typer.Option(
            help="Task, as family/task, or a task family for a master of each of its tasks. It "
            "may be a family that the skills were not trained on."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the new bundle. Default: under runs/."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the new master. Default: the task's name.")
    ] = None,
    overwrite_master: Annotated[
        bool,
        typer.Option(
            "--overwrite-master", help="Overwrite an existing master with the same name."
        ),
    ] = False,
    init_from: Annotated[
        str | None,
        typer.Option(help="Master whose weights are the initial ones. Default: random weights."),
    ] = None,
    learner: LearnerName = "ppo",
    updates: MasterUpdates = 10,
    seed: Annotated[
        int,
        whole(
            0, MAX_SEED, help="Random seed for initialization, tasks, episodes and exploration."
        ),
    ] = 0,
    robot: RobotName = None,
    sim_params: Annotated[
        str,
        typer.Option(
            help="Simulation parameters that deviate from the nominal model: a name shipped with "
            "the robot, or a YAML file. Default: those of the bundle's training."
        ),
    ] = "",
    settings: Settings = None,
    episodes: Annotated[
        int | None,
        whole(
            1,
            help="Number of complete episodes collected per update. Default: 4 with --learner q, "
            "else 2,000 environment steps.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    baseline: Baseline = True,
    family_source: FamilyOption = None,
) -> None:
    """Learn a new task by training the master alone; the skill files stay byte-identical."""
    from policies.bundle.bundle import load_bundle
    from policies.bundle.runtime import TOLERANCE
    from policies.bundle.task_compatibility import robot_of
    from policies.training.adapt import OFF_POLICY_EPISODES
    from policies.training.comparison import compare
    from policies.training.finetune import finetune as learn
    from policies.training.run import environment
    from sim.files.output import check_place
    from sim.physics.robot_model import load_robot
    from sim.randomization.schema import load_sim_params
    from sim.tasks.task_id import TaskId

    loaded, wanted = load_bundle(bundle), TaskId.parse(task)
    label = name or wanted.name or wanted.family
    target = output or Path("runs") / f"{loaded.manifest.name}-{label}"
    files = [target.with_name(f"{target.name}-finetune{each}") for each in (".csv", ".png")]
    for file in files:
        check_place(file, overwrite=overwrite)
    differs = (
        load_sim_params(sim_params, load_robot(robot_of(loaded, robot))) if sim_params else None
    )
    if learner == "q":
        episodes = episodes or OFF_POLICY_EPISODES
    with interrupted(lambda: "no bundle was written"):
        result = learn(
            loaded,
            wanted,
            target,
            name=name,
            replacing=overwrite_master,
            overwrite=overwrite,
            updates=updates,
            seed=seed,
            robot=robot,
            start_from=init_from,
            sim_params=differs,
            settings=settings or [],
            episodes=episodes,
            baseline=baseline,
            learner=learner,  # type: ignore[arg-type]  # the option holds it to the choices
            facts=environment(),
            say=say,
        )
    with interrupted(lambda: f"bundle {target} is written, the comparison is not"):
        found = compare(result, updates=updates, episodes=episodes, baseline=baseline)
    found.write(*files)
    _show(found)
    say(f"curves: {files[1]} and .csv")
    say(
        f"parity torch / ONNX Runtime: {result.parity.worst:.1e} (at most {TOLERANCE:g}); "
        f"{len(loaded.skills)} skill files unchanged"
    )
    describe(result.bundle)


def _show(found: Comparison) -> None:
    for task, curves in found.curves.items():
        if len(found.curves) > 1:
            say(task)
        limit = found.reference_returns[task]
        digits = 1 if abs(limit.optimum) >= 10 else 3
        heads = (head for label in curves for head in (label, "of optimum", "seconds"))
        table = make_table(right=("updates", "steps", "episodes", *heads))
        for row in zip(*curves.values(), strict=True):
            steps = row[0].steps
            cells = [f"{row[0].updates}", f"{steps:,}", f"{steps / found.ticks:.0f}"]
            for p in row:
                share = percent(limit.fraction_of_optimum(p.greedy))
                cells += [f"{p.greedy:.{digits}f}", share, f"{p.seconds:.2f}"]
            table.add_row(*cells)
        console.print(table)
