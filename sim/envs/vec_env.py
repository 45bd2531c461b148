"""G groups of E simulations as one gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import ArrayLike, NDArray

from sim.envs.copied_env import KEPT, recreated
from sim.envs.episode_info import final_info, labeled
from sim.envs.episode_streams import EpisodeStreams
from sim.envs.gymnasium_arguments import (
    HEIGHT,
    RENDER_MODES,
    WIDTH,
    Seeds,
    read_options,
    read_seeds,
)
from sim.envs.observation_noise import ObservationNoise
from sim.envs.world import StepResult, World
from sim.errors import listed
from sim.interface import Floats, ObservationMemory
from sim.physics.robot_model import Robot
from sim.randomization.schema import SimParams
from sim.seeding import Stream, generator
from sim.tasks.base import TaskFamily

if TYPE_CHECKING:  # Pillow is imported only where something is rendered
    from sim.envs.world_renderer import WorldRenderer

Bools = NDArray[np.bool_]
Step = tuple[NDArray[np.float32], Floats, Bools, Bools, dict[str, Any]]


class TaskVectorEnv(VectorEnv):  # type: ignore[type-arg]
    """B = G * E robots; the E simulations of a group share a task.

    Episode n of simulation b is a pure function of (seed, b, n) and of the task, so a run can be
    repeated or resumed bit for bit, with any number of threads.

    What `info` contains, and in which step an episode begins after another one, is that of
    gymnasium's `SyncVectorEnv` in each of its three autoreset modes. In every mode `info["task"]`
    has the names of the tasks of the episodes that begin, and `info["success"]` whether the state
    counts as solved. In the mode SAME_STEP `info["final_obs"]` and `info["final_info"]` are those
    before the reset. A key that begins with `_` has the rows for which the one without it holds.

    Args:
        robot: the robot.
        family: the task family.
        groups: G.
        envs: E, simulations per group.
        seed: of everything random here.
        threads: simulation threads.
        noise: whether observations carry the noise that the interface declares. It is drawn for
            a whole group, so it depends on E and on the number of steps taken.
        tasks: (G,) task numbers; by default drawn for each group here and at `reset(seed=...)`.
        redraw: the task of a group is decided for every episode, by `tasks` if they are given,
            else it is drawn; needs E = 1.
        group_ids: (G,) numbers of the groups, where these are some of many; by default from 0 on.
        sim_params: what differs from the nominal model, fixed.
        domain_randomization: what each episode draws around that, as ranges.
        max_episode_steps: ticks after which an episode is truncated; by default the family's.
        autoreset_mode: when an episode begins after another one: in the step that ends it
            (SAME_STEP), in the next, which ignores its action and rewards nothing (NEXT_STEP), or
            at a `reset` (DISABLED).
        privileged: names of values that only value functions see (`sim.envs.privileged`).
        render_mode: `rgb_array`, or None if nothing is rendered.
        width: of a picture, pixels.
        height: of a picture, pixels.

    Attributes:
        tasks: (G,) task numbers; a change takes effect when an episode begins.
        diverged: how often a simulation's state was no longer finite. It ends that episode as
            truncated and disturbs no other.
        has_diverged: (B,) where it was in the last step.
        privileged: (B, P) privileged values of the states whose observation was returned last.
            Those before a reset are in `info["final_info"]["privileged"]`.

    Raises:
        ValueError: `tasks` has another length than G, or E > 1 with `redraw`.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": [*RENDER_MODES]}  # noqa: RUF012

    def __init__(
        self,
        robot: Robot,
        family: TaskFamily,
        *,
        groups: int,
        envs: int,
        seed: int = 0,
        threads: int = 1,
        noise: bool = True,
        tasks: ArrayLike | None = None,
        redraw: bool = False,
        group_ids: Sequence[int] | None = None,
        sim_params: SimParams | None = None,
        domain_randomization: SimParams | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        privileged: Sequence[str] = (),
        render_mode: str | None = None,
        width: int = WIDTH,
        height: int = HEIGHT,
    ) -> None:
        # To make another one of a copy or a pickle.
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        self.world = World(
            robot,
            family,
            groups * envs,
            threads,
            sim_params,
            domain_randomization,
            max_episode_steps,
            privileged,
        )
        self.interface = self.world.interface
        self.groups, self.envs, self.num_envs = groups, envs, groups * envs
        self.group_ids = tuple(range(groups) if group_ids is None else group_ids)
        rows = [g * envs + e for g in self.group_ids for e in range(envs)]
        self._streams = EpisodeStreams(seed, rows)
        self._fixed_tasks: NDArray[np.intp] | None = None
        if tasks is not None:
            self._fixed_tasks = np.array(tasks, np.intp)
            if self._fixed_tasks.shape != (groups,):
                raise ValueError(f"{groups} groups need as many tasks, got {tasks!r}")
        if redraw and envs > 1:
            raise ValueError("redraw needs groups of one simulation")
        self._redraw, self._mode = redraw, autoreset_mode
        self.render_mode, self._picture_size = render_mode, (width, height)
        self._renderer: WorldRenderer | None = None
        self.metadata = {
            **self.metadata,
            "autoreset_mode": autoreset_mode,
            "render_fps": 1 / self.interface.control_dt,
        }
        self.tasks = self._draw_tasks()
        self.diverged, self.has_diverged = 0, np.zeros(self.num_envs, bool)
        self._ended = np.zeros(self.num_envs, bool)  # the next has not begun
        self._steps = 0
        self._memory = ObservationMemory(self.interface, (self.num_envs,))
        self._remembers = self.interface.computed_terms.needs_memory
        self._last = np.zeros((self.num_envs, self.interface.observation_size), np.float32)
        self._noise = ObservationNoise(self.interface, self.group_ids, envs) if noise else None
        self.privileged = np.zeros((self.num_envs, self.world.privileged.size), np.float32)
        size, bound = self.interface.observation_size, np.float32(np.inf)
        self.single_observation_space = gym.spaces.Box(-bound, bound, (size,), np.float32)
        size = self.interface.action_size
        self.single_action_space = gym.spaces.Box(-1, 1, (size,), np.float32)
        batch = gym.vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, self.num_envs)
        self.action_space = batch(self.single_action_space, self.num_envs)

    # gymnasium's methods ------------------------------------------------------------------

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode in every simulation, or in those of a mask.

        Args:
            seed: begins the run anew. From a list each simulation has a run of its own: that of
                simulation 0 with this seed. Without one, the next episode of the run begins.
            options: `task`, the name of a task or a list of B, each of them or None: of the
                episodes that begin here, and not of those after them. `reset_mask`, (B,) bool:
                where an episode begins.

        Returns:
            Observation (B, O), and the info of the episodes that begin.

        Raises:
            UserError: no such option, task, mask or seed.
            ResetNeeded: a part is reset before all have been.
            ClosedEnvironmentError: after `close`.
        """
        self._require_open("reset")
        begin = read_options(options, self.world.family, self.num_envs)
        seeds = read_seeds(seed, self.num_envs)
        if self.envs > 1 and (begin.tasks or isinstance(seeds, list)):
            raise ValueError("a task or seed for each simulation needs groups of one simulation")
        if len(begin.ids) < self.num_envs and not self._streams.episodes.all():
            raise gym.error.ResetNeeded("reset_mask before reset: there is no episode yet")
        super().reset(seed=seeds[0] if isinstance(seeds, list) else seeds)
        self._reseed(seeds, begin.ids)
        self._begin(begin.ids, redraw=self._redraw, chosen=begin.tasks)
        began = np.isin(np.arange(self.num_envs), begin.ids)
        self._look(began)
        return self._observe(self.world.true_state()), self._task_info(began)

    def step(self, actions: NDArray[np.float32]) -> Step:
        """One tick of every simulation.

        Returns:
            Observation (B, O) after any reset, reward (B,), terminated (B,), truncated (B,) and
            never both, and info.

        Raises:
            ValueError: the actions are not finite or not (B, A).
            ResetNeeded: there is no episode yet, or one has ended and autoreset is disabled.
            ClosedEnvironmentError: after `close`.
        """
        self._require_episodes("step")
        if self._mode == AutoresetMode.DISABLED and self._ended.any():
            ended = listed(map(str, np.flatnonzero(self._ended)))
            raise gym.error.ResetNeeded(
                f"the episode of environment {ended} has ended: reset first"
            )
        fields, outcome = self.world.step(np.asarray(actions))
        if self._remembers:
            self._memory.remember(self._last, actions)
        self._steps += 1
        begun = self._ended.copy()
        if begun.any():
            fields, outcome = self._begin_in_next_step(begun, fields, outcome)
        observation = self._observe(fields)
        self._look(slice(None), None if begun.any() else fields)
        self.has_diverged = outcome.diverged
        self.diverged += int(outcome.diverged.sum())
        success = self.world.success(fields)
        self._ended = outcome.terminated | outcome.truncated
        info: dict[str, Any] = {}
        if self._mode == AutoresetMode.SAME_STEP and self._ended.any():
            begun = self._ended.copy()
            info = final_info(observation, success, begun, self.privileged)
            self._begin(np.flatnonzero(begun).astype(np.int32), redraw=self._redraw)
            observation[begun] = self._observe(self.world.true_state())[begun]
            self._look(begun)
        info |= labeled("success", success & ~begun, ~begun) | self._task_info(begun)
        return observation, outcome.reward, outcome.terminated, outcome.truncated, info

    def _begin_in_next_step(
        self, ended: Bools, fields: dict[str, Floats], outcome: StepResult
    ) -> tuple[dict[str, Floats], StepResult]:
        """Begin the episodes of simulations whose last one ended in the step before."""
        self._begin(np.flatnonzero(ended).astype(np.int32), redraw=self._redraw)
        fresh = self.world.true_state()
        # Signals keep the values of the last tick: reward and success are not evaluated for the
        # first state of an episode.
        for name, new in fresh.items():
            fields[name] = np.where(ended[:, None], new, fields[name])
        kept = {name: np.where(ended, 0, value) for name, value in vars(outcome).items()}
        kept |= {n: v.astype(bool) for n, v in kept.items() if n != "reward"}
        return fields, StepResult(**kept)

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """A picture (height, width, 3) of each simulation; None without a render mode.

        Raises:
            NoGraphics: OpenGL is missing.
            ResetNeeded: there is no episode yet.
            ClosedEnvironmentError: after `close`.
        """
        self._require_episodes("render")
        if self.render_mode is None:
            gym.logger.warn("render without a render mode draws nothing: render_mode='rgb_array'")
            return None
        if self._renderer is None:
            from sim.envs.world_renderer import WorldRenderer

            self._renderer = WorldRenderer(self._arguments["robot"], self._picture_size)
        return self._renderer.draw(self.world)

    def close_extras(self, **kwargs: Any) -> None:
        """Release the graphics context."""
        renderer, self._renderer = self._renderer, None
        if renderer is not None:
            renderer.close()

    def _require_open(self, what: str) -> None:
        if self.closed:
            raise gym.error.ClosedEnvironmentError(f"{what} after close: make another environment")

    def _require_episodes(self, what: str) -> None:
        self._require_open(what)
        if not self._streams.episodes.all():
            raise gym.error.ResetNeeded(f"{what} before reset: there is no episode yet")

    # Groups and snapshots -----------------------------------------------------------------

    def begin_group(self, group: int, task: int) -> NDArray[np.float32]:
        """Give a group another task; its episodes begin anew.

        Returns:
            The observations (B, O); those of the other groups are what they were.
        """
        self.tasks[group] = task
        ids = np.arange(group * self.envs, (group + 1) * self.envs, dtype=np.int32)
        self._begin(ids, redraw=False)
        self._look(slice(int(ids[0]), int(ids[-1]) + 1))
        return self._observe(self.world.true_state())

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """The whole state as arrays, the seed included."""
        return {
            **self.world.snapshot(),
            **self._streams.snapshot(),
            "tasks": self.tasks.copy(),
            "steps": np.array(self._steps),
            **({} if self._mode == AutoresetMode.SAME_STEP else {"ended": self._ended.copy()}),
            **(self._memory.snapshot() if self._remembers else {}),
            **({"privileged": self.privileged.copy()} if self.privileged.size else {}),
        }

    def restore(self, state: dict[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """Continue from a `snapshot`, bit for bit; returns the current observation (B, O).

        Raises:
            ValueError: the snapshot is of another model or number of simulations.
        """
        self.world.restore(state)
        self._streams.restore(state)
        self.tasks, self._steps = state["tasks"].astype(np.intp), int(state["steps"])
        if self._mode != AutoresetMode.SAME_STEP:
            self._ended = state["ended"].astype(bool)
        if self._remembers:
            self._memory.restore(state)
        if self.privileged.size:
            self.privileged[:] = state["privileged"]
        return self._observe(self.world.true_state())

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles continue from the state of this environment."""
        kept = {name: vars(self)[name] for name in KEPT if name in vars(self)}
        return recreated, (type(self), self._arguments, self.snapshot()), kept

    # Episodes -----------------------------------------------------------------------------

    @property
    def seed(self) -> int:
        """Returns the seed of the run."""
        return self._streams.seed

    def _draw_tasks(self) -> NDArray[np.intp]:
        if self._fixed_tasks is not None:
            return np.array(self._fixed_tasks, np.intp)
        rng = generator(self.seed, Stream.TASKS)
        return rng.integers(len(self.world.family.tasks), size=self.groups)

    def _reseed(self, seeds: Seeds, ids: NDArray[np.int32]) -> None:
        """Begin the run of a seed anew, or in some simulations the runs of their seeds."""
        if not isinstance(seeds, int) or len(ids) < self.num_envs:
            self._streams.begin_runs(seeds, ids)
            return
        self._streams.begin_run(seeds)
        self._steps, self.tasks = 0, self._draw_tasks()

    def _begin(
        self, ids: NDArray[np.int32], *, redraw: bool, chosen: Mapping[int, int] | None = None
    ) -> None:
        """Begin the next episode of simulations `ids`, with tasks `chosen` by simulation."""
        if redraw:
            for b in ids:
                self.tasks[b] = self._next_task(b)
        for b, task in (chosen or {}).items():
            self.tasks[b // self.envs] = task
        rngs = [self._streams.rng(Stream.EPISODE, b) for b in ids]
        self.world.reset(ids, self.tasks[ids // self.envs].tolist(), rngs)
        self._memory.reset(ids)
        self._streams.episodes[ids] += 1
        self._ended[ids] = False

    def _next_task(self, b: int) -> int:
        if self._fixed_tasks is not None:
            return int(self._fixed_tasks[b])
        return int(self._streams.rng(Stream.TASKS, b).integers(len(self.world.family.tasks)))

    def _task_info(self, begun: Bools) -> dict[str, Any]:
        """The names of the tasks of the episodes that begin in rows `begun` (B,)."""
        names = np.full(self.num_envs, None, object)
        for b in np.flatnonzero(begun):
            names[b] = self.world.family.tasks[self.tasks[b // self.envs]]
        return labeled("task", names, begun)

    def _observe(self, fields: dict[str, Floats]) -> NDArray[np.float32]:
        noise = None if self._noise is None else self._noise.draw(self.seed, self._steps)
        observation = self.interface.observe(
            self.world.measurements(fields), noise=noise, memory=self._memory
        )
        if self._remembers:
            self._last[:] = observation
        return observation

    def _look(self, rows: Bools | slice, fields: dict[str, Floats] | None = None) -> None:
        """Read the privileged values of some rows, from the present state without `fields`."""
        if self.privileged.size:
            self.privileged[rows] = self.world.privileged_values(fields)[rows]
