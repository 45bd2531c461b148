r"""Stable-Baselines3 on a task: steps and episodes to a score; needs the extra `bench`.

    python -m tests.benchmarks.sb3 ppo moving_bandits/goal-1 --steps 100000
    python -m tests.benchmarks.sb3 sac ring_bandits/sector-1 --steps 20000 --score-every 500
    python -m tests.benchmarks.sb3 ppo ring_bandits --observe-task --steps 500000
    python -m tests.benchmarks.sb3 ppo moving_bandits/goal-1 patrol/tilted --steps 60000 \
        --pretrain moving_bandits --pretrain-steps 300000

A policy from nothing on each task; with `--observe-task` one policy for all tasks of a family,
which observes the task as a one-hot vector; with `--pretrain` a policy that has learned on all
tasks of a family, drawn for each episode and not observed, and goes on learning on each task.
Everything is as SB3 has it, over the gymnasium id of the family: PPO with 2,048 steps per update
of 8 simulations, SAC with one simulation and an update per step. Scores are normalized (0: random
actions, 1: the optimum), over the greedy episodes that all learners of this project are scored on.
A seed ends at the first score of `--target`; of several tasks the worst counts.

`sb3_over_ours` and `default_sb3` are for the training bench.
"""

from __future__ import annotations

import argparse
import io
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO, SAC

from policies.experiments.sb3_baseline import OverOurs, greedy_score
from policies.mlsh.config import TrainConfig
from policies.mlsh.presets import default_config
from policies.training.adapt import scored_episodes
from sim.envs.gym_env import environment_id
from sim.envs.reference_returns import all_reference_returns
from sim.envs.vec_env import TaskVectorEnv
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from sim.tasks.task_id import TaskId
from tests.benchmarks import one_line_errors

SIMULATIONS = {"ppo": 8, "sac": 1}
ROLLOUT = 256  # ticks; 8 simulations make SB3's 2,048 steps per update


class ObservesTask(OverOurs):
    """Adapter of a vector environment to SB3 that puts the task into the observation, one-hot."""

    def __init__(self, env: TaskVectorEnv) -> None:
        super().__init__(env)
        size = env.single_observation_space.shape[0] + len(env.world.family.tasks)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def reset(self) -> Any:
        """Reset all simulations."""
        return self._with_task(super().reset())

    def step_wait(self) -> Any:
        """Run one tick; the last observation of an episode has the task that it had."""
        before = one_hot(self._env)
        obs, reward, done, infos = super().step_wait()
        for i in np.flatnonzero(done):
            last = infos[i]["terminal_observation"]
            infos[i]["terminal_observation"] = np.concatenate([last, before[i]])
        return self._with_task(obs), reward, done, infos

    def _with_task(self, obs: np.ndarray) -> np.ndarray:
        return np.concatenate([obs, one_hot(self._env)], axis=1)


def one_hot(env: TaskVectorEnv) -> np.ndarray:
    """(B, tasks) the task of each simulation, each of which is a group."""
    return np.eye(len(env.world.family.tasks), dtype=np.float32)[env.tasks]


@dataclass(frozen=True)
class OnTask:
    """A policy that was trained with `ObservesTask`, with the same task in every row."""

    model: Any
    one_hot: np.ndarray  # (tasks,) of the task

    def predict(self, obs: np.ndarray, *, deterministic: bool) -> Any:
        """Actions of observations without the task."""
        whole = np.concatenate([obs, np.tile(self.one_hot, (len(obs), 1))], axis=1)
        return self.model.predict(whole, deterministic=deterministic)


@dataclass(frozen=True)
class Learner:
    """SB3 with one seed on a task, or on all tasks of a family."""

    algorithm: str
    task: TaskId
    seed: int
    observes_task: bool

    def numbers(self) -> list[int]:
        """Numbers of the tasks that it is scored on."""
        tasks = make_family(self.task.family).tasks
        return list(range(len(tasks))) if self.task.name is None else [self.task.index_in(tasks)]

    def environment(self) -> OverOurs:
        """Simulations by the gymnasium id of the family."""
        env: Any = gymnasium.make_vec(
            environment_id(self.task.family),
            num_envs=SIMULATIONS[self.algorithm],
            task=self.task.name,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        env.reset(seed=self.seed)
        return ObservesTask(env) if self.observes_task else OverOurs(env)

    def fresh(self) -> Any:
        """A model that has learned nothing."""
        env = self.environment()
        if self.algorithm == "sac":
            return SAC("MlpPolicy", env, seed=self.seed, device="cpu")
        return PPO("MlpPolicy", env, n_steps=ROLLOUT, seed=self.seed, device="cpu")

    def scores(self, model: Any) -> list[float]:
        """Normalized score of each task."""
        family = make_family(self.task.family)
        config = replace(default_config(family.name, family.robot, self.seed), threads=1)
        limits = all_reference_returns(load_robot(family.robot), family)  # type: ignore[arg-type]
        one_hot = np.eye(len(family.tasks), dtype=np.float32)
        found = []
        for number in self.numbers():
            policy = OnTask(model, one_hot[number]) if self.observes_task else model
            value, _ = greedy_score(policy, config, number, scored_episodes(family.ticks))
            found.append(limits[number].normalize(value))
        return found


def learn(learner: Learner, model: Any, steps: int, every: int, target: float) -> int | None:
    """Train and print scores; returns the steps to the first score of `target`, or None.

    Args:
        learner: says on what.
        model: of SB3, changed.
        steps: at most.
        every: steps from score to score.
        target: normalized score of the worst task.
    """
    ticks, begun, done = make_family(learner.task.family).ticks, model.num_timesteps, 0
    while True:
        scores = learner.scores(model)
        each = ", ".join(f"{score:.1%}" for score in scores)
        print(f"{done:>10,} steps {done // ticks:>7,} episodes  {each}", flush=True)
        if min(scores) >= target:
            return done
        if done >= steps:
            return None
        model.learn(every, reset_num_timesteps=False)
        done = model.num_timesteps - begun


def pretrained(family: str, seed: int, steps: int) -> bytes:
    """PPO on all tasks of a family, drawn for each episode and not observed."""
    model = Learner("ppo", TaskId(family), seed, observes_task=False).fresh()
    model.learn(steps)
    with io.BytesIO() as file:
        model.save(file)
        return file.getvalue()


def measure(given: argparse.Namespace) -> None:
    """Print all scores, and of each task the steps and episodes of each seed to the target."""
    tasks, summary = [TaskId.parse(text) for text in given.tasks], []
    for task in tasks:
        Learner(given.algorithm, task, 0, given.observe_task).numbers()  # says what does not hold
    if given.pretrain:
        make_family(given.pretrain)
    for seed in given.seeds:
        kept = pretrained(given.pretrain, seed, given.pretrain_steps) if given.pretrain else None
        for task in tasks:
            learner = Learner(given.algorithm, task, seed, given.observe_task)
            start = time.process_time()
            print(f"{given.algorithm} {task}, seed {seed}")
            if kept is None:
                model = learner.fresh()
            else:
                model = PPO.load(io.BytesIO(kept), env=learner.environment(), device="cpu")
            needed = learn(learner, model, given.steps, given.score_every, given.target)
            spent = time.process_time() - start
            ticks = make_family(task.family).ticks
            word = "not within the steps"
            if needed is not None:
                word = f"{needed:,} steps, {needed // ticks:,} episodes"
            summary.append(f"{task}, seed {seed}: {given.target:.0%} {word}; {spent:.0f} CPU s")
    print("\n".join(summary))


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("algorithm", choices=SIMULATIONS)
    parser.add_argument("tasks", nargs="+", help="FAMILY/TASK, or FAMILY with --observe-task")
    parser.add_argument(
        "--observe-task", action="store_true", help="the task is in the observation"
    )
    parser.add_argument("--pretrain", metavar="FAMILY", help="PPO alone")
    parser.add_argument("--pretrain-steps", type=int, default=300_000)
    parser.add_argument("--steps", type=int, default=100_000, help="at most, on each task")
    parser.add_argument("--score-every", type=int, default=2048, help="steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--target", type=float, default=0.9)
    given = parser.parse_args()
    if given.pretrain and (given.observe_task or given.algorithm != "ppo"):
        parser.error("--pretrain is for ppo without --observe-task")
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # minibatches that do not divide the data
        measure(given)


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
        n_steps=method.rollout_ticks,
        batch_size=config.skill.minibatch,
        n_epochs=config.skill.epochs,
        device="cpu",
    )
    return _speed(model, 2 * method.rollout_ticks * env.num_envs)


def default_sb3(name: str) -> Callable[[], float]:
    """Its PPO as it comes, over gymnasium's own environment."""
    return _speed(PPO("MlpPolicy", gymnasium.make(name), device="cpu"), 4096)


def _speed(model: Any, steps: int) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        model.learn(steps, reset_num_timesteps=False)
        return steps / (time.perf_counter() - start)

    return run


if __name__ == "__main__":
    main()
