"""mlsh export: from a run folder to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlsh_ros.cli.check import describe
from mlsh_ros.cli.console import interrupted, say
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.train import report

if TYPE_CHECKING:
    from policies.bundle.adaptation import Progress
    from policies.bundle.bundle import Master


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of mlsh train.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Bundle folder; default RUN/bundle.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle that is there.")
    ] = False,
    name: Annotated[str, typer.Option(help="Name of the bundle; default the task family's.")] = "",
    skill_limits: Annotated[
        Path | None,
        typer.Option(help="YAML: per skill and observation term [lowest, highest]."),
    ] = None,
    family_source: FamilyOption = None,
) -> None:
    """Learn a master for each task, export all networks to ONNX, and check them against torch."""
    from policies.bundle.bundle import check_name, check_target, skill_names
    from policies.bundle.export import export as write
    from policies.bundle.export import master_entry, provenance_of
    from policies.bundle.runtime import TOLERANCE
    from policies.bundle.skill_limits import read_skill_limits
    from policies.training.adapt import scored_episodes
    from policies.training.run import learn_masters, open_run
    from sim.files.arrays import load_arrays
    from sim.physics.robot_model import load_robot
    from sim.tasks.registry import make_family

    folder = open_run(run)
    trained, facts = folder.trained, folder.provenance
    config = trained.config
    facts["command"] = "; ".join([str(facts["command"]), *trained.changes])
    target = output or run / "bundle"
    check_name("bundle", name or config.family)
    check_target(target, overwrite=overwrite)  # now, not after the learning
    limits = {}
    if skill_limits is not None:
        family = make_family(config.family, config.family_parameters)
        interface = load_robot(config.robot).interface.with_terms(family.terms)
        limits = read_skill_limits(skill_limits, skill_names(config.mlsh.skills), interface)
    with interrupted(lambda: "no bundle was written"):
        result = learn_masters(folder)
    learner, tasks = result.learner, result.learner.family.tasks

    def entry(task: str, curve: list[Progress], index: int) -> Master:
        last = curve[-1]
        return master_entry(
            f"{config.family}/{task}",
            curve,
            learner.bounds[index],
            provenance_of(config, facts, last.steps, last.updates),
            scored_episodes(result.learner.family.ticks),
        )

    masters = {
        task: entry(task, curve, i)
        for i, (task, curve) in enumerate(zip(tasks, result.curves, strict=True))
    }
    # What was trained, not what was planned: the run may have been stopped early.
    iterations = int(load_arrays(folder.checkpoint)["iteration"])
    steps = iterations * config.mlsh.steps_per_iteration
    bundle, parity = write(
        config,
        learner,
        masters,
        provenance_of(config, facts, steps, iterations),
        name or config.family,
        target,
        limits,
    )
    report(tasks, result.curves, learner.bounds)
    say(
        f"parity torch / ONNX Runtime: {parity.golden:.1e} on golden rows, {parity.random:.1e} on "
        f"10,000 random observations (at most {TOLERANCE:g})"
    )
    describe(bundle)
