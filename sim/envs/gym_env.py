"""The task families as gymnasium environments.

`import sim.envs.gym_env`, then `gymnasium.make("mlsh/MovingBandits-v0")`; or, in one line,
`gymnasium.make("sim.envs.gym_env:mlsh/MovingBandits-v0")`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import ArrayLike, NDArray

from sim.envs.gymnasium_arguments import (
    HEIGHT,
    NO_LIMIT,
    RENDER_MODES,
    WIDTH,
    read_autoreset_mode,
    read_count,
    read_max_episode_steps,
    read_render_mode,
)
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError, short, unknown
from sim.physics.robot_model import load_robot
from sim.tasks.registry import family_names, make_family
from sim.tasks.task_id import TaskId


class TaskEnv(gym.Env):  # type: ignore[type-arg]
    """One robot on one task of a family; by default the task is drawn anew in every episode.

    Only the task ends an episode. `gymnasium.make` adds the time limit, its `max_episode_steps`,
    which by default is the number of ticks of the family's episodes.

    Args:
        family: name of the task family.
        robot: name or folder of the robot, or None for the one that the family is meant for.
        task: name of the task, or None to draw one per episode.
        parameters: of the family.
        render_mode: `rgb_array`, or None if nothing is rendered.
        width: of a picture, pixels.
        height: of a picture, pixels.

    Raises:
        UserError: no such family, robot, task, parameter or render mode.
    """

    metadata = {"render_modes": [*RENDER_MODES], "render_fps": 20}  # noqa: RUF012  of an instance: its robot's

    def __init__(
        self,
        family: str,
        robot: str | None = None,
        task: str | None = None,
        parameters: dict[str, Any] | None = None,
        render_mode: str | None = None,
        width: int = WIDTH,
        height: int = HEIGHT,
    ) -> None:
        self._env = make_vector(
            family,
            1,
            robot,
            task,
            parameters,
            max_episode_steps=NO_LIMIT,
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode=render_mode,
            width=width,
            height=height,
        )
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": self._env.metadata["render_fps"]}
        self.observation_space = self._env.single_observation_space
        self.action_space = self._env.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a new episode; with a seed the first of a run, else the next of the run.

        Args:
            seed: of the run.
            options: `task`, the name of the task of this episode, and not of those after it.

        Returns:
            Observation (O,), and the info: `task`, its name.

        Raises:
            UserError: no such option, task or seed.
            ClosedEnvironmentError: after `close`.
        """
        if isinstance(options, Mapping):
            for name in options:
                if name != "task":
                    raise unknown("option of reset", name, ["task"])
        observation, info = self._env.reset(seed=seed, options=options)
        super().reset(seed=seed)
        return observation[0], {"task": info["task"][0]}

    def step(
        self, action: ArrayLike
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Run one tick.

        Returns:
            Observation (O,), reward, terminated, truncated, and the info: `success`, whether the
            state counts as solved.

        Raises:
            ValueError: the action is not finite or not (A,).
            ResetNeeded: there is no episode yet, or it has ended.
            ClosedEnvironmentError: after `close`.
        """
        action = np.asarray(action)
        if action.shape != self.action_space.shape:
            raise UserError(f"action has shape {action.shape}, not {self.action_space.shape}")
        observation, reward, terminated, truncated, info = self._env.step(action[None])
        success = {"success": bool(info["success"][0])}
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), success

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """A picture (height, width, 3) of the present state; None without a render mode.

        Raises:
            NoGraphics: OpenGL is missing.
            ResetNeeded: there is no episode yet.
            ClosedEnvironmentError: after `close`.
        """
        pictures = self._env.render()
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        """Release the graphics context; nothing can be done with the environment after that."""
        self._env.close()


def make_vector(
    family: str,
    num_envs: int = 1,
    robot: str | None = None,
    task: str | None = None,
    parameters: dict[str, Any] | None = None,
    threads: int = 1,
    max_episode_steps: int | None = None,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> TaskVectorEnv:
    """Create many robots; row 0 behaves as `TaskEnv` does with the same seed.

    Args:
        family: name of the task family.
        num_envs: B.
        robot: name or folder of the robot, or None for the one that the family is meant for.
        task: name of the task, or None for each robot to draw one per episode.
        parameters: of the family.
        threads: simulation threads.
        max_episode_steps: after which an episode is truncated; -1 for no limit, None for the
            family's ticks.
        autoreset_mode: of gymnasium, or its value, such as "SameStep".
        render_mode: `rgb_array`, or None if nothing is rendered.
        width: of a picture, pixels.
        height: of a picture, pixels.

    Raises:
        UserError: no such family, robot, task, parameter or mode, or a number below 1.
    """
    if parameters and "ticks" in parameters:
        raise UserError(
            "parameters: 'ticks' cannot be given, the length of an episode is max_episode_steps="
            f"{short(parameters['ticks'])}"
        )
    chosen = make_family(family, parameters)
    size = read_count("num_envs", num_envs)
    return TaskVectorEnv(
        load_robot(robot or chosen.robot),
        chosen,
        groups=size,
        envs=1,
        seed=secrets.randbits(62),  # gymnasium: without a seed, different every time
        threads=read_count("threads", threads),
        noise=False,
        tasks=None if task is None else [TaskId(chosen.name, task).index_in(chosen.tasks)] * size,
        redraw=True,
        max_episode_steps=read_max_episode_steps(max_episode_steps),
        autoreset_mode=read_autoreset_mode(autoreset_mode),
        render_mode=read_render_mode(render_mode),
        width=read_count("width", width),
        height=read_count("height", height),
    )


def environment_id(family: str) -> str:
    """Convert moving_bandits to mlsh/MovingBandits-v0."""
    return f"mlsh/{''.join(part.capitalize() for part in family.split('_'))}-v0"


def register_family(name: str) -> str:
    """Register the environment of a task family with gymnasium; returns its id.

    Raises:
        UserError: no such family, or that of an installed package does not load.
    """
    gym.register(
        environment_id(name),
        entry_point="sim.envs.gym_env:TaskEnv",
        vector_entry_point="sim.envs.gym_env:make_vector",
        max_episode_steps=make_family(name).ticks,
        kwargs={"family": name},
    )
    return environment_id(name)


for _name in family_names():
    try:
        register_family(_name)
    except UserError as error:  # of an installed package; the others are of use without it
        gym.logger.warn("%s", error)
