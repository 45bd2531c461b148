"""Stable-Baselines3's PPO for the training bench; needs the extra `bench`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium
import torch
from stable_baselines3 import PPO

from policies.experiments.sb3_baseline import OverOurs
from policies.mlsh.config import TrainConfig
from sim.envs.vec_env import TaskVectorEnv
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from tests.benchmarks.runners import TICKS


def sb3_over_ours(config: TrainConfig) -> Callable[[], float]:
    """Its PPO over our environment, with the batch sizes of `config.skill`."""
    torch.set_num_threads(1)
    method = config.mlsh
    env = OverOurs(
        TaskVectorEnv(
            load_robot(config.robot),
            make_family(config.family, config.family_parameters),
            groups=method.groups,
            envs=method.envs,
            threads=config.threads,
        )
    )
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
