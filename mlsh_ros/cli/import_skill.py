"""mlsh import-skill: skills from policies of other trainers, or of a bundle for other tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlsh_ros.cli.check_bundle import show_bundle
from mlsh_ros.cli.console import bundle_interrupted, say
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.options import Overwrite, SkillLimitsFile, whole
from policies.bundle.manifest import MAX_DECISION_TICKS


def import_skill(
    descriptions: Annotated[
        list[Path],
        typer.Argument(
            help="YAML files; each describes a policy, its inputs and its outputs. Or a bundle, "
            "whose skills are taken for another task family."
        ),
    ],
    family: Annotated[
        str, typer.Argument(help="Task family that masters will be trained on, by name.")
    ],
    robot: Annotated[
        str,
        typer.Option(help="Robot: the name of a shipped one, or the path of a robot folder."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle.")],
    decision_ticks: Annotated[
        int, whole(2, MAX_DECISION_TICKS, help="Ticks between two decisions of a master.")
    ] = 25,
    decision_lead: Annotated[
        int,
        whole(0, 1, help="Ticks by which a decision is made before its macro step begins."),
    ] = 1,
    name: Annotated[
        str, typer.Option(help="Name of the bundle. Default: the name of its folder.")
    ] = "",
    skill_limits: SkillLimitsFile = None,
    overwrite: Overwrite = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a parameter of the task family: family_parameters.NAME=VALUE. "
            "Repeatable.",
        ),
    ] = None,
    family_source: FamilyOption = None,
) -> None:
    """Make a bundle of skills from ONNX policies of other trainers, or from another bundle."""
    from policies.bundle.runtime import TOLERANCE
    from policies.skill_import.importer import import_skills
    from policies.training.run import environment

    with bundle_interrupted(output):
        found = import_skills(
            descriptions,
            robot,
            family,
            output,
            name=name or output.resolve().name,
            decision_ticks=decision_ticks,
            decision_lead=1 if decision_lead else 0,
            facts=environment(),
            settings=settings or (),
            skill_limits=skill_limits,
            overwrite=overwrite,
            say=say,
        )
    for doubt in found.doubts:
        say(f"note: {doubt}")
    say(
        f"parity policy / skill: {found.random:.1e} on 10,000 random observations, "
        f"{found.visited:.1e} on {found.rows:,} of the simulated robot (at most {TOLERANCE:g})"
    )
    say(
        "  parity compares skill and file; it does not check the description: compare the motion "
        "above with what each skill commands"
    )
    show_bundle(found.bundle)
