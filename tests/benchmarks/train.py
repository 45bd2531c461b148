"""Speed of the training relative to the physics and to Stable-Baselines3.

    python -m tests.benchmarks.train [--repeats 3] [--threads 2] [--no-sb3]

Everything in one run, in turns. Rows: raw `Batch.step` with random commands; our collection; whole
MLSH training; PPO of one policy on everything, in our code; and SB3's PPO over our environment
with the same batch sizes, and with its defaults over gymnasium's own environment (one simulation).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the simulator gets the cores

import numpy as np
from mujoco.batch import Batch

from policies.mlsh.mlsh import Mlsh
from sim.physics.robot_model import load_robot
from tests.benchmarks import one_line_errors
from tests.benchmarks.runners import ENVS, GROUPS, RUNNERS, TICKS, Runner, RunnerMlsh, config

LARGE = ["skill.minibatch=4096", "skill.epochs=5"]
PPO = ["mlsh.skills=1", "mlsh.probe=none", "mlsh.warmup=0", "mlsh.joint=1000000"]
ITERATIONS = 4  # of training in a turn: a group in three learns skills at any time


def raw(robot: str, threads: int, size: int = GROUPS * ENVS) -> float:
    """Control steps per second of the physics alone, of `size` simulations."""
    loaded = load_robot(robot)
    batch = Batch(loaded.compile(lambda spec: None), nsim=size, nthread=threads)
    ctrl, rng = batch.bind("ctrl"), np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (20, *ctrl.shape))
    steps = 3 * TICKS

    def run(n: int) -> None:
        for t in range(n):
            ctrl[:] = actions[t % len(actions)]
            batch.step(nstep=loaded.interface.substeps)

    run(20)
    start = time.perf_counter()
    run(steps)
    return steps * size / (time.perf_counter() - start)


class Ours:
    """A learner that goes on from turn to turn."""

    def __init__(self, learner: Mlsh) -> None:
        self.learner = learner
        # Past the first warm-up, as most of a training is.
        self.steps = learner.method.steps_per_iteration
        self.learner.iterate()

    def collect(self) -> float:
        """Steps per second of rollouts."""
        start = time.perf_counter()
        self.learner.collector.collect(
            self.learner.iteration, ticks=self.learner.method.rollout_ticks
        )
        return self.steps / (time.perf_counter() - start)

    def train(self) -> float:
        """Steps per second of rollouts and updates."""
        start = time.perf_counter()
        for _ in range(ITERATIONS):
            self.learner.iterate()
        return ITERATIONS * self.steps / (time.perf_counter() - start)


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sb3", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of batch sizes that do not divide, by SB3
    with tempfile.TemporaryDirectory() as folder:
        for runner in RUNNERS:
            _table(runner, Path(folder), given)


def _table(runner: Runner, folder: Path, given: argparse.Namespace) -> None:
    robot = runner.write(folder)
    threads = f"threads={given.threads}"
    mlsh = Ours(RunnerMlsh(config(robot, [threads])))
    large = Ours(RunnerMlsh(config(robot, [threads, *LARGE])))
    ppo = Ours(RunnerMlsh(config(robot, [threads, *PPO, *LARGE])))
    turns: dict[str, Callable[[], float]] = {
        "raw MuJoCo": lambda: raw(robot, given.threads),
        "our collection": mlsh.collect,
        "MLSH, default (1024 x 5)": mlsh.train,
        "MLSH, 4096 x 5": large.train,
        "one policy, 4096 x 5": ppo.train,
    }
    if given.sb3:
        from tests.benchmarks.sb3 import default_sb3, sb3_over_ours

        turns["SB3 over ours, 4096 x 5"] = sb3_over_ours(config(robot, [threads, *PPO, *LARGE]))
        turns[f"SB3 defaults, {runner.gym}"] = default_sb3(runner.gym)
    rows = [{name: turn() for name, turn in turns.items()} for _ in range(given.repeats)]
    print(
        f"{runner.name}: control steps per second, medians of {given.repeats}; B = {GROUPS * ENVS}"
    )
    for name in turns:
        speed = np.median([row[name] for row in rows])
        ratio = np.median([row[name] / row["raw MuJoCo"] for row in rows])
        print(f"  {name:28} {speed:10,.0f}  {ratio:6.3f} of raw", flush=True)


if __name__ == "__main__":
    main()
