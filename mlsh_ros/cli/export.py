"""mlsh export: from a run folder to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlsh_ros.cli.check_bundle import show_bundle
from mlsh_ros.cli.console import bundle_interrupted, say
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.options import Overwrite, SkillLimitsFile
from mlsh_ros.cli.train import report


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of mlsh train.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the bundle. Default: RUN/bundle."),
    ] = None,
    overwrite: Overwrite = False,
    name: Annotated[
        str, typer.Option(help="Name of the bundle. Default: the name of the task family.")
    ] = "",
    skill_limits: SkillLimitsFile = None,
    family_source: FamilyOption = None,
) -> None:
    """Learn a master for each task, export all networks to ONNX, and check them against torch."""
    from policies.bundle.runtime import TOLERANCE
    from policies.training.export_run import export_run

    target = output or run / "bundle"
    with bundle_interrupted(target):
        result = export_run(
            run,
            target,
            name=name,
            skill_limits=skill_limits,
            overwrite=overwrite,
        )
    learner, parity = result.adapted.learner, result.parity
    if result.left_out:
        say(result.left_out)
    report(learner.family.tasks, result.adapted.curves, learner.reference_returns)
    say(
        f"parity torch / ONNX Runtime: {parity.golden:.1e} on golden rows, {parity.random:.1e} on "
        f"10,000 random observations (at most {TOLERANCE:g})"
    )
    show_bundle(result.bundle)
