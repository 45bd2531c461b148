"""mlsh plot: plot the paths that a bundle drives, seen from above."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlsh_ros.cli.console import say
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.options import (
    BundleName,
    EpisodeSeed,
    EpisodesPerTask,
    MasterName,
    Overwrite,
    RobotName,
    TaskName,
)
from mlsh_ros.cli.play import take
from sim.errors import counted


def plot(
    bundle: BundleName,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Image file: .png, .svg or .pdf.")
    ] = Path("trajectories.png"),
    overwrite: Overwrite = False,
    task: TaskName = None,
    master: MasterName = None,
    robot: RobotName = None,
    episodes: EpisodesPerTask = 8,
    seed: EpisodeSeed = 0,
    family_source: FamilyOption = None,
) -> None:
    """Draw trajectories from above, a panel per task, in the colors of the active skills."""
    from mlsh_ros.evaluation.case import resolve_cases
    from mlsh_ros.evaluation.trajectory_plot import (
        check_plot,
        draw_birdseye,
        require_position,
        write_birdseye,
    )
    from policies.bundle.bundle import load_bundle

    check_plot(output, overwrite=overwrite)
    loaded = load_bundle(bundle)
    cases = resolve_cases(loaded, robot=robot, task=task, master=master)
    body, manifest = cases[0].robot, loaded.manifest
    require_position(body)
    takes = take(cases, episodes, seed)
    each = f"{episodes} episodes" if episodes > 1 else "one episode"
    title = f"bundle {manifest.name} on {body.name}, {each} per task, seed {seed}"
    figure = draw_birdseye(body, takes, skills=manifest.skills, title=title)
    write_birdseye(figure, output, overwrite=overwrite)
    say(f"{output}: {counted(len(takes), 'episode')}")
