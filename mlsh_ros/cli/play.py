"""mlsh play: replay episodes of a bundle in a viewer or as a video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlsh_ros.cli.console import progress_bar, say
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.options import (
    BundleName,
    EpisodeSeed,
    EpisodesPerTask,
    MasterName,
    Overwrite,
    RobotName,
    TaskName,
    number,
)
from sim.errors import counted

if TYPE_CHECKING:
    from mlsh_ros.evaluation.case import EvaluationCase
    from mlsh_ros.evaluation.trajectories import Trajectory


def play(
    bundle: BundleName,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Video file, .mp4 or .gif, or .png for the end of the last episode. Default: a "
            "window opens.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    task: TaskName = None,
    master: MasterName = None,
    robot: RobotName = None,
    episodes: EpisodesPerTask = 1,
    seed: EpisodeSeed = 0,
    speed: Annotated[float, number(0.01, 100, help="Playback speed; 1 is real time.")] = 1.0,
    family_source: FamilyOption = None,
) -> None:
    """Show the episodes that mlsh evaluate scores, in MuJoCo's viewer or as a video.

    In the window: space pauses, the arrow keys change the episode, the mouse moves the camera.
    """
    from mlsh_ros.evaluation.case import resolve_cases
    from policies.bundle.bundle import load_bundle
    from sim.rendering.offscreen import check_film, film
    from sim.rendering.viewer import require_display, show

    if output is None:
        require_display()
    else:
        check_film(output, overwrite=overwrite)
    cases = resolve_cases(load_bundle(bundle), robot=robot, task=task, master=master)
    body, scenes = cases[0].robot, [each.scene for each in take(cases, episodes, seed)]
    rate = speed / body.interface.control_dt
    if output is None:
        say("close the window to end")
        show(body, scenes, period=1 / rate)
        return
    with progress_bar() as progress:
        bar = progress.add_task("pictures", total=None)
        film(
            body,
            scenes,
            output,
            fps=rate,
            overwrite=overwrite,
            on_picture=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    size = output.stat().st_size
    say(f"{output}: {counted(len(scenes), 'episode')}, {size / 1e3:,.0f} kB")


def take(cases: Sequence[EvaluationCase], episodes: int, seed: int) -> list[Trajectory]:
    """Drive the episodes with a progress bar."""
    from mlsh_ros.evaluation.trajectories import drive

    with progress_bar() as progress:
        bar = progress.add_task("episodes", total=episodes * len(cases))
        return drive(
            cases,
            episodes=episodes,
            seed=seed,
            on_episode=lambda _: progress.advance(bar),
        )
