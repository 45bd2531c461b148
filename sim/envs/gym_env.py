"""The task families as gymnasium environments.

`import sim.envs.gym_env`, then `gymnasium.make("mlsh/MovingBandits-v0")`; or, in one line,
`gymnasium.make("sim.envs.gym_env:mlsh/MovingBandits-v0")`.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from sim.envs.vec_env import TaskVectorEnv
from sim.errors import unknown
from sim.physics.robot_model import load_robot
from sim.tasks.registry import family_names, make_family
from sim.tasks.task_id import TaskId


class TaskEnv(gym.Env):  # type: ignore[type-arg]
    """One robot on one task of a family; by default the task is drawn anew in every episode.

    Args:
        family: name of the task family.
        robot: name or folder of the robot, or None for the one that the family is meant for.
        task: name of the task, or None to draw one per episode.
        parameters: of the family.

    Raises:
        UserError: no such family, robot, task or parameter.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  `mlsh play` makes films

    def __init__(
        self,
        family: str,
        robot: str | None = None,
        task: str | None = None,
        parameters: dict[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None:
            raise unknown("render_mode", render_mode, ["None"])
        self.render_mode = None
        self._env = make_vector(family, 1, robot, task, parameters)
        # What the vector environment shows when it has begun the next episode by itself.
        self._next: NDArray[np.float32] | None = None
        self.observation_space = self._env.single_observation_space
        self.action_space = self._env.single_action_space
        self._spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]
        """As registered, and after how many steps an episode is truncated."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        ticks = self._env.world.family.ticks
        self._spec = None if spec is None else replace(spec, max_episode_steps=ticks)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a new episode; with a seed the first of a run, else the next of the run."""
        super().reset(seed=seed)
        if options:
            self._env.reset(options=options)  # says what there is
        observation, self._next = self._next, None
        if seed is not None or observation is None:
            observation, _ = self._env.reset(seed=seed)
        return observation[0], {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Run one tick; at the end of an episode info contains `success`."""
        observation, reward, terminated, truncated, info = self._env.step(np.asarray(action)[None])
        extra = {}
        if info:
            self._next, observation = observation, info["final_obs"]
            extra["success"] = bool(info["success"][0])
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), extra


def make_vector(
    family: str,
    num_envs: int = 1,
    robot: str | None = None,
    task: str | None = None,
    parameters: dict[str, Any] | None = None,
    threads: int = 1,
    autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
) -> TaskVectorEnv:
    """Create many robots; row 0 behaves as `TaskEnv` does with the same seed.

    Args:
        family: name of the task family.
        num_envs: B.
        robot: name or folder of the robot, or None for the one that the family is meant for.
        task: name of the task, or None for each robot to draw one per episode.
        parameters: of the family.
        threads: simulation threads.
        autoreset_mode: SAME_STEP, or NEXT_STEP, which some wrappers of gymnasium ask for.

    Raises:
        UserError: no such family, robot, task or parameter.
    """
    chosen = make_family(family, parameters)
    return TaskVectorEnv(
        load_robot(robot or chosen.robot),
        chosen,
        groups=num_envs,
        envs=1,
        seed=secrets.randbits(62),  # gymnasium: without a seed, different every time
        threads=threads,
        noise=False,
        tasks=None
        if task is None
        else [TaskId(chosen.name, task).index_in(chosen.tasks)] * num_envs,
        redraw=task is None,
        next_step=AutoresetMode(autoreset_mode) == AutoresetMode.NEXT_STEP,
    )


def environment_id(family: str) -> str:
    """Convert moving_bandits to mlsh/MovingBandits-v0."""
    return f"mlsh/{''.join(part.capitalize() for part in family.split('_'))}-v0"


for _name in family_names():
    gym.register(
        environment_id(_name),
        entry_point="sim.envs.gym_env:TaskEnv",
        vector_entry_point="sim.envs.gym_env:make_vector",
        kwargs={"family": _name},
    )
