"""Complete trajectories of episodes, for videos, the viewer and plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb

from mlsh_ros.control.controller import Tick
from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import EvaluationCase
from mlsh_ros.evaluation.episode import Episode
from mlsh_ros.evaluation.report.plots import skill_colors
from sim.envs.world import World
from sim.interface import Floats, path_fields
from sim.rendering.scene import EpisodeReplay, Frame
from sim.tasks.base import EpisodeState


@dataclass(frozen=True)
class Trajectory:
    """One episode, T ticks long, with its recorded scene."""

    label: str  # of its task, and of its master if that is not the task's own
    episode: Episode
    scene: EpisodeReplay  # T + 1 frames, or T if the simulation diverged in the end


def drive(
    cases: Sequence[EvaluationCase],
    *,
    episodes: int,
    seed: int,
    on_episode: Callable[[Episode], None] = lambda _: None,
) -> list[Trajectory]:
    """Drive episodes 0 .. episodes-1 of `seed` for every case, as `mlsh evaluate` does."""
    recorder = _Recorder(cases)

    def finish(episode: Episode) -> None:
        recorder.finish(episode)
        on_episode(episode)

    run_offline(cases, episodes=episodes, seed=seed, on_episode=finish, watch=recorder.watch)
    return recorder.takes


class _Recorder:
    """Records the scene; captions need the rewards, which are known after the episode."""

    def __init__(self, cases: Sequence[EvaluationCase]) -> None:
        bundle = cases[0].bundle
        self.takes: list[Trajectory] = []
        # Tasks whose name says which master drives: they have one, and it is their own.
        self._counts = Counter(str(case.task) for case in cases)
        self._manifest, self._dt = bundle.manifest, bundle.interface.control_dt
        self._colors = [to_rgb(each) for each in skill_colors(len(bundle.manifest.skills))]
        self._states: list[tuple[Floats, dict[str, Floats]]] = []
        self._world: World | None = None

    def watch(self, world: World, tick: Tick | None) -> None:
        """Record the world."""
        self._world = world
        fields = path_fields(world.physics.fields())
        seen = {name: rows[0] for name, rows in fields.items()}
        self._states.append((world.physics.pose[0], seen))

    def finish(self, episode: Episode) -> None:
        """Store an episode that has ended."""
        assert self._world is not None
        layout: EpisodeState = {name: row.copy() for name, row in self._world.layout.items()}
        skills = [*episode.skill.tolist(), int(episode.skill[-1])]
        returns = np.concatenate([[0.0], np.cumsum(episode.reward)])
        frames = []
        for t, (qpos, fields) in enumerate(self._states):
            name = self._manifest.skills[skills[t]]
            caption = f"{t * self._dt:.1f} s   {name}   return {returns[t]:.4g}"
            frames.append(Frame(fields, caption, self._colors[skills[t]], qpos))
        own = self._manifest.masters[episode.master].task == episode.task
        own &= self._counts[episode.task] == 1
        label = episode.task if own else f"{episode.task} with master {episode.master}"
        title = f"{label}, episode {episode.number}"
        scene = EpisodeReplay(self._world.family, title, layout, frames)
        self.takes.append(Trajectory(label, episode, scene))
        self._states = []
