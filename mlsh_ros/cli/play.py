"""mlsh play: watch a bundle drive, in a window or as a film."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlsh_ros.cli.console import MAX_SEED, number, progress_bar, say, whole
from mlsh_ros.cli.family_option import FamilyOption

if TYPE_CHECKING:
    from mlsh_ros.evaluation.backends import Job
    from mlsh_ros.evaluation.trajectories import Take
    from policies.bundle.bundle import Bundle
    from sim.physics.robot_model import Robot


def play(
    bundle: Annotated[
        str, typer.Argument(help="A shipped bundle by name, or a folder or zip file.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="FILE.mp4 or .gif: a film. FILE.png: the end of the last episode. "
            "Without it a window opens.",
        ),
    ] = None,
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
    episodes: Annotated[int, whole(1, help="Per task.")] = 1,
    seed: Annotated[int, whole(0, MAX_SEED, help="Of the episodes.")] = 0,
    speed: Annotated[float, number(0.01, 100, help="1 is real time.")] = 1.0,
    family_source: FamilyOption = None,
) -> None:
    """Watch the episodes that mlsh evaluate scores, in MuJoCo's viewer or as a film.

    In the window: space pauses, the arrow keys change the episode, the mouse moves the camera.
    """
    from mlsh_ros.evaluation.backends import jobs
    from policies.bundle.bundle import load_bundle
    from policies.bundle.task_compatibility import robot_of
    from sim.physics.robot_model import load_robot
    from sim.rendering.offscreen import check_film, film
    from sim.rendering.viewer import require_display, show

    if output is None:
        require_display()
    else:
        check_film(output, overwrite=overwrite)
    loaded = load_bundle(bundle)
    body = load_robot(robot_of(loaded, robot))
    takes = take(loaded, body, jobs(loaded, task, master), episodes, seed)
    scenes = [each.scene for each in takes]
    rate = speed / loaded.interface.control_dt
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
    say(f"{output}: {len(scenes)} episodes, {size / 1e3:,.0f} kB")


def take(bundle: Bundle, robot: Robot, work: list[Job], episodes: int, seed: int) -> list[Take]:
    """Drive with a progress bar."""
    from mlsh_ros.evaluation.trajectories import drive

    with progress_bar() as progress:
        bar = progress.add_task("episodes", total=episodes * len(work))
        return drive(
            bundle,
            robot,
            work,
            episodes=episodes,
            seed=seed,
            on_episode=lambda _: progress.advance(bar),
        )
