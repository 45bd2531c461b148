"""mlsh finetune: more masters, skills frozen, beside PPO from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlsh_ros.cli.check_bundle import show_bundle
from mlsh_ros.cli.console import bundle_interrupted, console, interrupted, make_table, say
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.options import (
    MAX_SEED,
    MAX_UPDATES,
    AnyLearnerName,
    Baseline,
    BundleName,
    MasterUpdates,
    Overwrite,
    RobotName,
    Settings,
    number,
    whole,
)
from mlsh_ros.evaluation.number_format import percent
from sim.errors import counted

if TYPE_CHECKING:
    from policies.bundle.bundle import Bundle
    from policies.offpolicy.replay import Episode
    from policies.training.comparison import LearningComparison
    from sim.tasks.task_id import TaskId


def finetune(
    context: typer.Context,
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
        typer.Option(
            "--output",
            "-o",
            help="Folder of the new bundle; if it is the folder of the given one, the masters are "
            "added to that. Default: under runs/.",
        ),
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
        typer.Option(help="Master to take the initial weights from. Default: random weights."),
    ] = None,
    learner: AnyLearnerName = None,
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
            help="Number of complete episodes collected per update. Default: 4; with --learner "
            "ppo, 2,000 environment steps.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    baseline: Baseline = True,
    from_recording: Annotated[
        list[Path] | None,
        typer.Option(
            help="Recording of recorder_node to learn from, in place of simulated episodes: an "
            "MCAP file or its folder. Repeatable. The simulation only scores the master. Implies "
            "--learner q and --no-baseline.",
        ),
    ] = None,
    reward_topic: Annotated[
        str | None,
        typer.Option(
            help="Topic of the recordings whose values are added up as rewards: one of type "
            "std_msgs/Float32 or Float64, or sim_node/outcome (in lockstep only this one). "
            "Default: the reward of the task, computed from the recorded sensors."
        ),
    ] = None,
    unfreeze: Annotated[
        str | None,
        typer.Option(
            help="Skill of which a copy is trained together with the master, after the master has "
            "learned alone. The copy is a new skill with the limits of the original, whose file "
            "stays byte-identical."
        ),
    ] = None,
    kl: Annotated[
        float,
        number(
            1e-4,
            100,
            help="Largest mean KL divergence of the actions of the copy from those of the "
            "unfrozen skill, in nats.",
        ),
    ] = 1.0,
    joint_updates: Annotated[
        int, whole(3, MAX_UPDATES, help="Number of updates of the copy together with the master.")
    ] = 30,
    family_source: FamilyOption = None,
) -> None:
    """Learn a new task by training the master alone; the skill files stay byte-identical."""
    from policies.bundle.bundle import load_bundle
    from policies.bundle.derived_skill import skill_to_unfreeze
    from policies.bundle.runtime import TOLERANCE
    from policies.bundle.task_compatibility import robot_of
    from policies.training.comparison import compare, comparison_files, remarks
    from policies.training.finetune import finetune as learn
    from policies.training.finetune_plan import plan_of
    from policies.training.run import environment
    from policies.training.unfreeze import Unfreeze
    from sim.files.output import check_place, named
    from sim.physics.robot_model import load_robot
    from sim.randomization.schema import load_sim_params
    from sim.tasks.task_id import TaskId

    recordings = from_recording or []
    plan = plan_of(
        [each for each in context.params if _is_given(context, each)],
        learner=learner,  # type: ignore[arg-type]  # the option holds it to the choices
        updates=updates,
        episodes=episodes,
        baseline=baseline,
        starts_from_master=init_from is not None,
        unfreezes=unfreeze is not None,
        reads_topic=reward_topic is not None,
    )
    loaded, wanted = load_bundle(bundle), TaskId.parse(task)
    unfrozen = None
    if unfreeze is not None:
        unfrozen = Unfreeze(skill_to_unfreeze(loaded, unfreeze), kl, joint_updates)
    label = name or wanted.name or wanted.family
    target = named(output or Path("runs") / f"{loaded.manifest.name}-{label}")
    files = comparison_files(target)
    for file in files:
        check_place(file, overwrite=overwrite)
    differs = (
        load_sim_params(sim_params, load_robot(robot_of(loaded, robot))) if sim_params else None
    )
    recorded = None
    if recordings:
        recorded = _read_recordings(recordings, loaded, wanted, reward_topic)
    in_place = _is_at(loaded, target)
    with bundle_interrupted(target):
        result = learn(
            loaded,
            wanted,
            target,
            name=name,
            replacing=overwrite_master,
            overwrite=overwrite,
            updates=plan.updates,
            seed=seed,
            robot=robot,
            start_from=init_from,
            sim_params=differs,
            settings=settings or [],
            episodes=plan.episodes,
            baseline=plan.baseline,
            learner=plan.learner,
            recorded=recorded,
            unfreeze=unfrozen,
            facts=environment(),
            say=say,
        )
    with interrupted(lambda: f"bundle {target} is written, the comparison is not"):
        found = compare(
            result,
            updates=plan.updates + (0 if unfrozen is None else joint_updates),
            episodes=plan.episodes,
            baseline=plan.baseline,
        )
    found.write(*files, overwrite=overwrite)
    if in_place:
        say(_added(target, loaded, list(result.masters)))
    _show(found)
    # Numbers of a topic may have another unit than the task's rewards in simulation.
    for line in remarks(result, same_unit=reward_topic is None):
        say(line)
    for text in found.divergences:
        say(f"warning: {text}")
    say(f"curves: {files[1]} and .csv")
    say(
        f"parity torch / ONNX Runtime: {result.parity.worst:.1e} (at most {TOLERANCE:g}); "
        f"{len(loaded.skills)} skill files unchanged"
    )
    show_bundle(result.bundle)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _is_at(bundle: Bundle, target: Path) -> bool:
    try:
        return target.samefile(bundle.source)
    except OSError:
        return False


def _added(target: Path, before: Bundle, names: list[str]) -> str:
    """One line on the masters of a bundle that was changed where it stands."""
    there = [name for name in names if name in before.manifest.masters]
    kinds = {"replaced": there, "added": [name for name in names if name not in there]}
    said = (
        f"{'master' if len(each) == 1 else 'masters'} {', '.join(map(repr, each))} {what}"
        for what, each in kinds.items()
        if each
    )
    return f"{target}: {'; '.join(said)}"


def _read_recordings(
    paths: list[Path], bundle: Bundle, task: TaskId, reward_topic: str | None
) -> list[list[Episode]]:
    from mlsh_ros.sim2real.data.recorded_episodes import read_episodes
    from policies.bundle.task_compatibility import select_tasks

    tasks = select_tasks(bundle, task)
    recorded = read_episodes(paths, bundle, tasks, reward_topic, note=lambda text: say(text))
    decisions = sum(len(each.skill) for each in recorded[0])
    counts = counted(len(recorded[0]), "episode"), counted(decisions, "decision")
    say(f"recorded: {', '.join(counts)}")
    return recorded


def _show(found: LearningComparison) -> None:
    for task, curves in found.curves.items():
        if len(found.curves) > 1:
            say(task)
        limit = found.reference_returns[task]
        digits = 1 if abs(limit.optimum) >= 10 else 3
        heads = (head for label in curves for head in (label, "normalized", "seconds"))
        table = make_table(right=("updates", "steps", "episodes", *heads))
        for row in zip(*curves.values(), strict=True):
            steps = row[0].steps
            cells = [f"{row[0].updates}", f"{steps:,}", f"{steps / found.ticks:.0f}"]
            for p in row:
                share = percent(limit.normalize(p.greedy))
                cells += [f"{p.greedy:.{digits}f}", share, f"{p.seconds:.2f}"]
            table.add_row(*cells)
        console.print(table)
