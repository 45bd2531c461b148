"""Speed of training the Go2 beside raw physics, rsl_rl's PPO and Stable-Baselines3's.

    python -m tests.benchmarks.go2_speed [--repeats 3] [--threads 2] [--set KEY=VALUE ..]

Everything in one run, in turns: the same 96 simulations of `velocity_commands`, whose command is
shown to one policy where there are no masters. The networks have the same layers, and an update
has the same samples, minibatches and epochs. rsl_rl comes with the extra `trainers`, and SB3 with
`bench`.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the simulator gets the cores

import numpy as np
import torch
from stable_baselines3 import PPO
from tensordict import TensorDict

from policies.experiments.sb3_baseline import OverOurs
from policies.mlsh.config import TrainConfig
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.presets import default_config
from sim.envs.vec_env import TaskVectorEnv
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from tests.benchmarks import one_line_errors
from tests.benchmarks.train import Ours, raw

SHOWN = ["mlsh.skills=1", "mlsh.probe=none", "mlsh.warmup=0", "mlsh.joint=1000000"]
SHOWN += ["mlsh.mutual_information_coef=0", "family_parameters.shown=1"]
ITERATIONS = 4  # updates in a turn


def environment(config: TrainConfig) -> TaskVectorEnv:
    """The simulations of a training, each of which draws its commands."""
    return TaskVectorEnv(
        load_robot(config.robot),
        make_family(config.family, config.family_parameters),
        groups=config.mlsh.groups * config.mlsh.envs,
        envs=1,
        redraw=True,
        threads=config.threads,
    )


class ForRslRl:
    """The vector environment as rsl_rl has it (`rsl_rl.env.VecEnv`)."""

    device = "cpu"
    cfg: dict[str, Any] = {}  # noqa: RUF012 - rsl_rl logs it

    def __init__(self, env: TaskVectorEnv) -> None:
        self._env = env
        self.num_envs, self.num_actions = env.num_envs, env.interface.action_size
        self.max_episode_length = env.world.family.ticks
        self.episode_length_buf = torch.zeros(env.num_envs, dtype=torch.long)
        self._seen = env.reset()[0]

    def get_observations(self) -> TensorDict:
        """The present observation."""
        return TensorDict({"policy": torch.from_numpy(self._seen)}, batch_size=[self.num_envs])

    def step(self, actions: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor, dict]:
        """One tick."""
        seen, reward, terminated, truncated, _ = self._env.step(actions.numpy())
        self._seen = seen.copy()
        done = torch.from_numpy(terminated | truncated)
        self.episode_length_buf = torch.where(done, 0, self.episode_length_buf + 1)
        extras = {"time_outs": torch.from_numpy(truncated)}
        value = torch.from_numpy(reward.astype(np.float32))
        return self.get_observations(), value, done.long(), extras


def rsl_rl(config: TrainConfig) -> Callable[[], float]:
    """Its PPO with its own settings but for sizes."""
    from rsl_rl.runners import OnPolicyRunner

    samples = config.mlsh.rollout_ticks * config.mlsh.groups * config.mlsh.envs
    layers = {"hidden_dims": [*config.network.hidden], "activation": "elu"}
    actor = {"class_name": "rsl_rl.models.MLPModel", "obs_normalization": True, **layers}
    settings = {
        "num_steps_per_env": config.mlsh.rollout_ticks,
        "save_interval": 10**9,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "actor": {
            **actor,
            "distribution_cfg": {"class_name": "GaussianDistribution", "init_std": 1.0},
        },
        "critic": actor,
        "algorithm": {
            "class_name": "rsl_rl.algorithms.PPO",
            "num_learning_epochs": config.skill.epochs,
            "num_mini_batches": max(1, samples // config.skill.minibatch),
        },
    }
    runner = OnPolicyRunner(ForRslRl(environment(config)), settings, log_dir=None, device="cpu")

    def run() -> float:
        start = time.perf_counter()
        with open(os.devnull, "w") as silent, redirect_stdout(silent):
            runner.learn(ITERATIONS)
        return ITERATIONS * samples / (time.perf_counter() - start)

    return run


def sb3(config: TrainConfig) -> Callable[[], float]:
    """Its PPO with its own settings but for sizes."""
    method = config.mlsh
    samples = method.rollout_ticks * method.groups * method.envs
    model = PPO(
        "MlpPolicy",
        OverOurs(environment(config)),
        n_steps=method.rollout_ticks,
        batch_size=config.skill.minibatch,
        n_epochs=config.skill.epochs,
        policy_kwargs={"net_arch": [*config.network.hidden]},
        device="cpu",
    )

    def run() -> float:
        start = time.perf_counter()
        model.learn(ITERATIONS * samples, reset_num_timesteps=False)
        return ITERATIONS * samples / (time.perf_counter() - start)

    return run


def simulated(config: TrainConfig) -> Callable[[], float]:
    """Ticks of the environment with random actions: physics, observations and rewards."""
    env, rng = environment(config), np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (20, env.num_envs, env.interface.action_size)).astype(np.float32)
    env.reset()
    ticks = 3 * config.mlsh.rollout_ticks

    def run() -> float:
        start = time.perf_counter()
        for t in range(ticks):
            env.step(actions[t % len(actions)])
        return ticks * env.num_envs / (time.perf_counter() - start)

    return run


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of batch sizes that do not divide, by SB3
    torch.set_num_threads(given.threads)
    config = default_config("velocity_commands", "go2").with_values(given.set)
    config = replace(config, threads=given.threads)
    shown = config.with_values(SHOWN)
    mlsh, one = Ours(Mlsh(config)), Ours(Mlsh(shown))
    size = config.mlsh.groups * config.mlsh.envs
    turns: dict[str, Callable[[], float]] = {
        "raw MuJoCo": lambda: raw("go2", given.threads, size),
        "environment, random actions": simulated(shown),
        "our collection, 5 skills": mlsh.collect,
        "MLSH, 5 skills, command hidden": mlsh.train,
        "our PPO, command shown": one.train,
        "rsl_rl's PPO, command shown": rsl_rl(shown),
        "SB3's PPO, command shown": sb3(shown),
    }
    rows = [{name: turn() for name, turn in turns.items()} for _ in range(given.repeats)]
    print(f"go2: control steps per second, medians of {given.repeats}; {size} simulations")
    for name in turns:
        speed = np.median([row[name] for row in rows])
        ratio = np.median([row[name] / row["raw MuJoCo"] for row in rows])
        print(f"  {name:32} {speed:10,.0f}  {ratio:6.3f} of raw", flush=True)


if __name__ == "__main__":
    main()
