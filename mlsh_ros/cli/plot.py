"""mlsh plot: where a bundle drives, from above."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlsh_ros.cli.console import MAX_SEED, say, whole
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.play import take


def plot(
    bundle: Annotated[
        str, typer.Argument(help="A shipped bundle by name, or a folder or zip file.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="FILE.png, .svg or .pdf.")] = Path(
        "trajectories.png"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file that is there.")
    ] = False,
    task: Annotated[
        str | None, typer.Option(help="family/task; default: every master's own.")
    ] = None,
    master: Annotated[str | None, typer.Option(help="Default: the task's own.")] = None,
    robot: Annotated[
        str | None, typer.Option(help="Name or folder; default: the bundle's.")
    ] = None,
    episodes: Annotated[int, whole(1, help="Per task.")] = 8,
    seed: Annotated[int, whole(0, MAX_SEED, help="Of the episodes.")] = 0,
    family_source: FamilyOption = None,
) -> None:
    """Draw trajectories from above, a panel per task, in the colours of the active skills."""
    from mlsh_ros.evaluation.backends import jobs
    from mlsh_ros.evaluation.trajectory_plot import (
        check_plot,
        draw_birdseye,
        require_position,
        write_birdseye,
    )
    from policies.bundle.bundle import load_bundle
    from policies.bundle.task_compatibility import robot_of
    from sim.physics.robot_model import load_robot

    check_plot(output, overwrite=overwrite)
    loaded = load_bundle(bundle)
    body = load_robot(robot_of(loaded, robot))
    require_position(body)
    takes = take(loaded, body, jobs(loaded, task, master), episodes, seed)
    name, skills = loaded.manifest.name, loaded.manifest.skills
    each = f"{episodes} episodes" if episodes > 1 else "one episode"
    title = f"bundle {name} on {body.name}, {each} per task, seed {seed}"
    figure = draw_birdseye(body, takes, skills=skills, title=title)
    write_birdseye(figure, output, overwrite=overwrite)
    say(f"{output}: {len(takes)} episodes")
