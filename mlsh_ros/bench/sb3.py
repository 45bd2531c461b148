"""Stable-Baselines3's PPO for the training bench; needs the extra `bench`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from mlsh_ros.bench.runners import TICKS
from policies.config import TrainConfig
from sim.registry import make_family
from sim.robot import load_robot
from sim.vec_env import TaskVectorEnv


class OverOurs(VecEnv):  # type: ignore[misc]
    """Our vector environment as SB3 wants it."""

    def __init__(self, config: TrainConfig) -> None:
        method = config.mlsh
        self._env = TaskVectorEnv(
            load_robot(config.robot),
            make_family(config.family, config.family_parameters),
            groups=method.groups,
            envs=method.envs,
            threads=config.threads,
        )
        spaces = self._env.single_observation_space, self._env.single_action_space
        super().__init__(self._env.num_envs, *spaces)

    def reset(self) -> Any:
        """All."""
        return self._env.reset()[0]

    def step_async(self, actions: Any) -> None:
        """Kept until they are waited for."""
        self._actions = actions

    def step_wait(self) -> Any:
        """One tick."""
        obs, reward, terminated, truncated, info = self._env.step(self._actions)
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            infos[i] = {
                "terminal_observation": info["final_obs"][i],
                "TimeLimit.truncated": bool(truncated[i]),
            }
        return obs, reward.astype(np.float32), done, infos

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> Any:
        """Of each simulation."""
        return [getattr(self._env, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not used."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Not used."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No."""
        return [False] * self.num_envs


def sb3_over_ours(config: TrainConfig) -> Callable[[], float]:
    """Its PPO over our environment, with the batch sizes of `config.skill`."""
    torch.set_num_threads(1)
    env = OverOurs(config)
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=TICKS,
        batch_size=config.skill.minibatch,
        n_epochs=config.skill.epochs,
        device="cpu",
    )
    return _speed(model, 2 * TICKS * env.num_envs)


def default_sb3(name: str) -> Callable[[], float]:
    """Its PPO as it comes, over gymnasium's own environment."""
    return _speed(PPO("MlpPolicy", gymnasium.make(name), device="cpu"), 4096)


def _speed(model: Any, steps: int) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        model.learn(steps, reset_num_timesteps=False)
        return steps / (time.perf_counter() - start)

    return run
