"""mlsh demo: the shipped bundle drives the simulated robot through the real nodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table

from mlsh_ros.cli.console import console, make_table, say
from mlsh_ros.cli.evaluate import show
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.options import EpisodeSeed, EpisodesPerTask, Overwrite, RobotName, RosDomain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlsh_ros.evaluation.case import EvaluationCase
    from mlsh_ros.evaluation.episode import Episode
    from policies.bundle.bundle import Bundle
    from sim.interface import Floats, Interface
    from sim.tasks.base import EpisodeState

BUNDLE, TASK = "go2_walk", "mazes/maze-7"
FILM_FPS, FRAME = 20, 0.1  # and s between two frames: twice real time


def demo(
    bundle: Annotated[
        str,
        typer.Option(
            help="Bundle: the name of a shipped one, or the path of a folder or zip file."
        ),
    ] = BUNDLE,
    task: Annotated[
        str | None,
        typer.Option(
            help=f"Task, as family/task. Default: {TASK} for {BUNDLE}; for another bundle every "
            "task that has a master."
        ),
    ] = None,
    robot: RobotName = None,
    episodes: EpisodesPerTask = 2,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the report and the video.")
    ] = Path("reports/demo"),
    overwrite: Overwrite = False,
    seed: EpisodeSeed = 0,
    domain: RosDomain = None,
    family_source: FamilyOption = None,
) -> None:
    """Control the simulated robot through real ROS nodes; writes a report and a video.

    The demo runs in real time, or in lockstep if the computer does not keep real time.
    """
    from mlsh_ros.evaluation.backends import run_ros
    from mlsh_ros.evaluation.case import resolve_cases
    from mlsh_ros.evaluation.real_time import RealTimeError
    from mlsh_ros.evaluation.report.report import render
    from mlsh_ros.evaluation.scores import summarize
    from policies.bundle.bundle import load_bundle
    from sim.files.output import check_place, json_text, make_room, write_result

    loaded = load_bundle(bundle)
    task = task or (TASK if bundle == BUNDLE else None)
    cases = resolve_cases(loaded, robot=robot, task=task)
    files = [output / name for name in ("report.json", "report.html", "demo.gif", "demo.png")]
    for file in files:
        check_place(file, overwrite=overwrite)
    say("starting skill, master, sim and watchdog node (real ROS 2, this computer only)")
    start = time.monotonic()

    def drive(mode: str) -> list[Episode]:
        with LiveTable(loaded, episodes) as table:
            return run_ros(
                cases,
                episodes=episodes,
                seed=seed,
                mode=mode,
                domain=domain,
                on_episode=table.finish,
                on_tick=table.tick,
            )

    mode = "realtime"
    try:
        done = drive(mode)
    except RealTimeError as error:
        say(f"{error}")
        mode = "lockstep"
        say(f"driving in {mode} instead: the same nodes, which wait for each other")
        done = drive(mode)
    result = summarize(cases, f"ros-{mode}", seed, done)
    contents = json_text(result.to_dict()), render(result)
    make_room(*files, overwrite=overwrite)  # the film's too
    write_result(dict(zip(files[:2], contents, strict=True)), overwrite=overwrite)
    show(result)
    say(f"report: {files[1]}")
    _film(cases, done, seed, files[2], overwrite)
    say(f"done in {time.monotonic() - start:.0f} s")


def _film(
    cases: Sequence[EvaluationCase],
    episodes: list[Episode],
    seed: int,
    path: Path,
    overwrite: bool,
) -> None:
    from matplotlib.colors import to_rgb

    from mlsh_ros.evaluation.report.plots import skill_colors
    from sim.rendering.offscreen import EpisodeReplay, Frame, NoGraphics, film

    bundle, robot = cases[0].bundle, cases[0].robot
    colors = [to_rgb(each) for each in skill_colors(len(bundle.manifest.skills))]
    case_of = {(str(case.task), case.master): case for case in cases}
    stride = max(1, round(FRAME / bundle.interface.control_dt))  # ticks
    scenes = []
    for episode in episodes:
        case = case_of[episode.task, episode.master]
        frames = []
        for t in range(len(episode.skill))[::-1][::stride][::-1]:  # the last one among them
            skill = int(episode.skill[t])
            fields = _fields(bundle.interface, episode.observation[t])
            name = bundle.manifest.skills[skill]
            frames.append(Frame(fields, f"tick {t}  {name}", colors[skill]))
        layout = _layout(case, seed, episode.number)
        scenes.append(EpisodeReplay(case.family, episode.task, layout, frames))
    try:
        film(robot, scenes, path, fps=FILM_FPS, overwrite=overwrite)
        film(robot, scenes, path.with_suffix(".png"), overwrite=overwrite)
    except NoGraphics as error:
        say(f"no film: {error}")
        return
    say(f"film: {path}, {path.stat().st_size / 1e6:.1f} MB, twice real time")


def _fields(interface: Interface, observation: NDArray[np.float32]) -> dict[str, Floats]:
    """Returns the values of an observation's terms, as far as it shows them whole."""
    from sim.interface.orientation import quaternion_of

    fields = {}
    for term in interface.observation:
        if term.policy_input and term.derive in (None, "rotation_6d"):
            values = observation[interface.observation_slices[term.name]].astype(float)
            shown = term.unscaled(values)
            fields[term.name] = quaternion_of(shown) if term.derive else shown
    return fields


def _layout(case: EvaluationCase, seed: int, episode: int) -> EpisodeState:
    """Returns the layout of an episode: a function of seed and number alone."""
    from sim.seeding import episode_rng
    from sim.tasks.family_calls import FamilyCalls

    return FamilyCalls(case.family).layout(case.number, episode_rng(seed, episode))


class LiveTable:
    """Table with one row per episode; the running one is updated."""

    def __init__(self, bundle: Bundle, episodes: int) -> None:
        self.bundle, self.episodes = bundle, episodes
        self.rows: list[Episode] = []
        self.live = Live(console=console, refresh_per_second=10)
        self.current: tuple[dict[str, float], float] | None = None

    def __enter__(self) -> LiveTable:
        if console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if console.is_terminal:
            self.live.update(self._table())
            self.live.stop()

    def tick(self, trace: dict[str, float], value: float) -> None:
        """Update the row of the running episode."""
        self.current = trace, value
        if console.is_terminal:
            self.live.update(self._table())

    def finish(self, episode: Episode) -> None:
        """Add a finished episode."""
        self.rows.append(episode)
        self.current = None
        if console.is_terminal:
            self.live.update(self._table())
        else:
            say(
                f"{episode.task}, episode {episode.number}: return {episode.value:.0f}, "
                f"{'solved' if episode.success else 'not solved'}, {episode.late} late decisions"
            )

    def _table(self) -> Table:
        table = make_table("task", "episode", "tick", "skill", "return", "late")
        names = self.bundle.manifest.skills
        for e in self.rows:
            used = " ".join(names[k] for k in dict.fromkeys(e.skill.tolist()))
            cells = f"{e.number}", f"{len(e.skill)}", used, f"{e.value:.0f}", f"{e.late}"
            table.add_row(e.task, *cells)
        if self.current is not None:
            trace, value = self.current
            name = names[int(trace["skill"])]
            table.add_row("…", "", f"{trace['tick']:.0f}", name, f"{value:.0f}", "")
        return table
