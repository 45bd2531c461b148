"""Stable-Baselines3's PPO as an independent baseline on the same environments.

Needs the extra `bench`; nothing else here does.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from policies.bundle.adaptation import AdaptationPoint
from policies.mlsh.config import TrainConfig
from policies.training.adapt import EVALUATION_SEED, envs_per_update, scored_episodes
from sim.envs.vec_env import TaskVectorEnv
from sim.physics.robot_model import load_robot
from sim.randomization.schema import read_ranges
from sim.tasks.registry import make_family


class OverOurs(VecEnv):  # type: ignore[misc]
    """Adapter of the vector environment to SB3."""

    def __init__(self, env: TaskVectorEnv) -> None:
        self._env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Reset all simulations."""
        return self._env.reset()[0]

    def step_async(self, actions: Any) -> None:
        """Store the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Run one tick."""
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
        """Does nothing."""

    def get_attr(self, attr_name: str, indices: Any = None) -> Any:
        """Returns the attribute for each simulation."""
        return [getattr(self._env, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Does nothing."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Not used."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Always False."""
        return [False] * self.num_envs


def learn(
    config: TrainConfig,
    task: int,
    *,
    updates: int,
    envs: int | None = None,
    episodes: int | None = None,
) -> list[AdaptationPoint]:
    """Train SB3's PPO on one task from scratch, with the same experience as the other learners.

    An update has the rollouts of `envs` simulations, `config.mlsh.rollout_ticks` each. All else is
    as SB3 has it: minibatches of 64, 10 epochs, learning rate 3e-4, two layers of 64.

    Args:
        config: family, robot, sizes and seed; of its PPO settings none is used.
        task: task number of the family.
        updates: of the policy.
        envs: simulations per update; by default those of 2,000 steps.
        episodes: greedy episodes after every update, those that our learners are scored on; by
            default as many.
    """
    torch.set_num_threads(config.threads)
    ticks, envs = config.mlsh.rollout_ticks, envs or envs_per_update(config)
    family = make_family(config.family, config.family_parameters)
    episodes = episodes or scored_episodes(family.ticks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 2,000 samples are no multiple of 64
        env = OverOurs(_environment(config, task, envs, seed=config.seed, learning=True))
        model = PPO("MlpPolicy", env, n_steps=ticks, seed=config.seed, device="cpu")
        curve, seconds = [], 0.0
        for update in range(updates + 1):
            if update:
                start = time.perf_counter()
                model.learn(ticks * envs, reset_num_timesteps=False)
                seconds += time.perf_counter() - start
            score = greedy_score(model, config, task, episodes)
            curve.append(AdaptationPoint(update, update * ticks * envs, seconds, *score))
    return curve


def _environment(
    config: TrainConfig, task: int, envs: int, *, seed: int, learning: bool
) -> TaskVectorEnv:
    """Returns the training environment, with noise and randomization as for other learners."""
    robot = load_robot(config.robot)
    return TaskVectorEnv(
        robot,
        make_family(config.family, config.family_parameters),
        groups=1,
        envs=envs,
        seed=seed,
        threads=config.threads,
        noise=learning,
        tasks=[task],
        sim_params=config.sim_params,
        domain_randomization=read_ranges(robot)
        if config.domain_randomization and learning
        else None,
    )


def greedy_score(model: Any, config: TrainConfig, task: int, episodes: int) -> tuple[float, float]:
    """Mean return and success of the episodes of `policies.training.adapt.greedy_scores`."""
    env = _environment(config, task, episodes, seed=EVALUATION_SEED, learning=False)
    obs, _ = env.reset()
    total, solved, running = np.zeros(episodes), np.zeros(episodes, bool), np.ones(episodes, bool)
    for _ in range(env.world.family.ticks):
        action, _ = model.predict(obs, deterministic=True)
        obs, reward, terminated, truncated, info = env.step(action)
        total += reward * running
        if "final_info" in info:
            solved |= info["final_info"]["success"] & running
        running &= ~(terminated | truncated)
    return float(total.mean()), float(solved.mean())
