"""G groups of E simulations as one gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import ArrayLike, NDArray

from sim.envs.world import StepResult, World
from sim.errors import UserError, short
from sim.interface import Floats, ObservationMemory
from sim.physics.robot_model import Robot
from sim.randomization.schema import SimParams
from sim.seeding import Stream, generator
from sim.tasks.base import TaskFamily

Step = tuple[NDArray[np.float32], Floats, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


class TaskVectorEnv(VectorEnv):  # type: ignore[type-arg]
    """B = G * E robots; the E simulations of a group share a task.

    Episode n of simulation b is a pure function of (seed, b, n) and of the task, so a run can be
    repeated or resumed bit for bit, with any number of threads. Simulations are reset in the step
    that ends their episode; `info["final_obs"]` then holds the observation before the reset in
    the rows marked by `info["_final_obs"]`.

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
        redraw: a group draws another task for every episode; needs E = 1.
        numbers: (G,) numbers of the groups, where these are some of many; by default from 0 on.
        sim_params: what differs from the nominal model, fixed.
        randomize: what each episode draws around that, as ranges.
        next_step: a simulation is reset in the step after the one that ends its episode, which
            ignores its action and rewards nothing, as gymnasium's own vector environments do.

    Attributes:
        tasks: (G,) task numbers; a change takes effect when an episode begins.
        diverged: how often a simulation's state was no longer finite. It ends that episode as
            truncated and disturbs no other.

    Raises:
        ValueError: `tasks` has another length than G, or E > 1 with `redraw`.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012

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
        numbers: Sequence[int] | None = None,
        sim_params: SimParams | None = None,
        domain_randomization: SimParams | None = None,
        next_step: bool = False,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "robot": robot,
            "family": family,
            "groups": groups,
            "envs": envs,
            "seed": seed,
            "threads": threads,
            "noise": noise,
            "tasks": tasks,
            "redraw": redraw,
            "numbers": numbers,
            "sim_params": sim_params,
            "domain_randomization": domain_randomization,
            "next_step": next_step,
        }
        self.world = World(robot, family, groups * envs, threads, sim_params, domain_randomization)
        self.interface = self.world.interface
        self.groups, self.envs, self.num_envs = groups, envs, groups * envs
        self.numbers = tuple(range(groups) if numbers is None else numbers)
        self.seed = seed
        self._fixed_tasks: NDArray[np.intp] | None = None
        if tasks is not None:
            self._fixed_tasks = np.array(tasks, np.intp)
            if self._fixed_tasks.shape != (groups,):
                raise ValueError(f"{groups} groups need as many tasks, got {tasks!r}")
        if redraw and (envs > 1 or tasks is not None):
            raise ValueError("redraw needs groups of one simulation, and no fixed tasks")
        self._redraw, self._next_step = redraw, next_step
        if next_step:
            self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.tasks = self._draw_tasks()
        self.diverged = 0
        self._episodes = np.zeros(self.num_envs, np.int64)
        self._ended = np.zeros(self.num_envs, bool)  # to be reset in the next step
        self._steps = 0
        self._memory = ObservationMemory(self.interface, (self.num_envs,))
        self._remembers = self.interface.computed_terms.needs_memory
        self._last = np.zeros((self.num_envs, self.interface.observation_size), np.float32)
        self._noise = [
            t for t in self.interface.observation if noise and t.noises.any() and t.policy_input
        ]
        size, bound = self.interface.observation_size, np.float32(np.inf)
        self.single_observation_space = gym.spaces.Box(-bound, bound, (size,), np.float32)
        size = self.interface.action_size
        self.single_action_space = gym.spaces.Box(-1, 1, (size,), np.float32)
        batch = gym.vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, self.num_envs)
        self.action_space = batch(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a new episode in every simulation; with a seed, begin the run anew.

        Returns:
            Observation (B, O) and an empty info.

        Raises:
            UserError: options are given; there are none.
        """
        if options:
            raise UserError(
                f"reset takes no options, got {short(options)}; a task is chosen when the "
                "environment is made: task=NAME"
            )
        super().reset(seed=seed)
        if seed is not None:
            self.seed, self._steps = seed, 0
            self._episodes[:] = 0
            self.tasks = self._draw_tasks()
        self._begin(np.arange(self.num_envs, dtype=np.int32), redraw=self._redraw)
        self._ended[:] = False
        return self._observe(self.world.true_state()), {}

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], Floats, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One tick of every simulation.

        Returns:
            Observation (B, O) after any reset, reward (B,), terminated (B,), truncated (B,) and
            never both, info. Info is empty unless episodes ended; then it has `final_obs` (B, O)
            before the reset and `success` (B,), and `_final_obs`, `_success` (B,) with the rows
            that they hold for.

        Raises:
            ValueError: the actions are not finite or not (B, A).
            ResetNeeded: there is no episode yet.
        """
        if not self._episodes.all():
            raise gym.error.ResetNeeded("step before reset: there is no episode yet")
        fields, outcome = self.world.step(np.asarray(actions))
        if self._remembers:
            self._memory.remember(self._last, actions)
        self._steps += 1
        if self._ended.any():
            return self._after_ends(fields, outcome)
        return self._shown(fields, outcome)

    def _after_ends(self, fields: dict[str, Floats], outcome: StepResult) -> Step:
        """Run a step in which the simulations whose episodes had ended are reset."""
        ended = self._ended.copy()
        self._begin(np.flatnonzero(ended).astype(np.int32), redraw=self._redraw)
        fresh = self.world.true_state()
        fields = {name: np.where(ended[:, None], fresh[name], fields[name]) for name in fields}
        kept = {name: np.where(ended, 0, value) for name, value in vars(outcome).items()}
        kept |= {n: v.astype(bool) for n, v in kept.items() if n != "reward"}
        return self._shown(fields, StepResult(**kept))

    def _shown(self, fields: dict[str, Floats], outcome: StepResult) -> Step:
        observation = self._observe(fields)
        info: dict[str, Any] = {}
        self.diverged += int(outcome.diverged.sum())
        done = outcome.terminated | outcome.truncated
        self._ended = done & self._next_step
        if done.any():
            success = self.world.family.success(self.world.layout, fields)
            info = {"success": success & done & ~outcome.diverged, "_success": done}
        if done.any() and not self._next_step:
            info = {"final_obs": observation.copy(), "_final_obs": done, **info}
            self._begin(np.flatnonzero(done).astype(np.int32), redraw=self._redraw)
            observation[done] = self._observe(self.world.true_state())[done]
        return observation, outcome.reward, outcome.terminated, outcome.truncated, info

    def begin_group(self, group: int, task: int) -> NDArray[np.float32]:
        """Give a group another task; its episodes begin anew.

        Returns:
            The observations (B, O); those of the other groups are what they were.
        """
        self.tasks[group] = task
        ids = np.arange(group * self.envs, (group + 1) * self.envs, dtype=np.int32)
        self._begin(ids, redraw=False)
        return self._observe(self.world.true_state())

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """The whole state as arrays, the seed included."""
        return {
            **self.world.snapshot(),
            "episodes": self._episodes.copy(),
            "tasks": self.tasks.copy(),
            "steps": np.array(self._steps),
            "seed": np.array(self.seed, np.uint64),
            **({"ended": self._ended.copy()} if self._next_step else {}),
            **(self._memory.snapshot() if self._remembers else {}),
        }

    def restore(self, state: dict[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """Continue from a `snapshot`, bit for bit; returns the current observation (B, O).

        Raises:
            ValueError: the snapshot is of another model or number of simulations.
        """
        self.world.restore(state)
        self._episodes[:] = state["episodes"]
        self.tasks = state["tasks"].astype(np.intp)
        self._steps, self.seed = int(state["steps"]), int(state["seed"])
        if self._next_step:
            self._ended[:] = state["ended"]
        if self._remembers:
            self._memory.restore(state)
        return self._observe(self.world.true_state())

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles continue from the state of this environment."""
        return _again, (type(self), self._arguments, self.snapshot())

    def _draw_tasks(self) -> NDArray[np.intp]:
        if self._fixed_tasks is not None:
            return np.array(self._fixed_tasks, np.intp)
        rng = generator(self.seed, Stream.TASKS)
        return rng.integers(len(self.world.family.tasks), size=self.groups)

    def _begin(self, ids: NDArray[np.int32], *, redraw: bool) -> None:
        if redraw:
            for b in ids:
                rng = generator(self.seed, Stream.TASKS, b, self._episodes[b])
                self.tasks[b] = rng.integers(len(self.world.family.tasks))
        number = np.repeat(self.numbers, self.envs) * self.envs
        number += np.arange(self.num_envs) % self.envs  # of each simulation among all
        rngs = [generator(self.seed, Stream.EPISODE, number[b], self._episodes[b]) for b in ids]
        self.world.reset(ids, self.tasks[ids // self.envs].tolist(), rngs)
        self._memory.reset(ids)
        self._episodes[ids] += 1

    def _observe(self, fields: dict[str, Floats]) -> NDArray[np.float32]:
        observation = self.interface.observe(
            self.world.measurements(fields), noise=self._draw_noise(), memory=self._memory
        )
        if self._remembers:
            self._last[:] = observation
        return observation

    def _draw_noise(self) -> dict[str, Floats]:
        """Noise per term (B, count), the same whenever it is asked for in one step."""
        if not self._noise:
            return {}
        rngs = [generator(self.seed, Stream.NOISE, self._steps, g) for g in self.numbers]
        # Apart from the fields: the task is evaluated on true values, not on measurements.
        return {
            term.name: term.noises
            * np.concatenate([r.standard_normal((self.envs, term.count)) for r in rngs])
            for term in self._noise
        }


def _again(
    kind: type[TaskVectorEnv], arguments: dict[str, Any], state: dict[str, NDArray[np.generic]]
) -> TaskVectorEnv:
    """Recreate the environment of a copy or a pickle."""
    env = kind(**arguments)
    if state["episodes"].any():
        env.restore(state)
    return env
