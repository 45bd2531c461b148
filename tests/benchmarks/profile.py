"""Where the time of a training goes.

    python -m tests.benchmarks.profile [--family moving_bandits] [--iterations 10] [--threads 2]

Families `half_cheetah` and `ant` are those of the training bench. A part's time is its own:
what it calls and is a part too is not in it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the simulator gets the cores

from policies.mlsh.actor_critic import Agent
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.networks import Normalizer
from policies.mlsh.presets import default_config
from policies.mlsh.rollout import Collector
from policies.mlsh.updates import Updates
from sim.envs.vec_env import TaskVectorEnv
from sim.envs.world import World
from sim.interface import Interface
from sim.physics.batched_physics import BatchedPhysics
from sim.tasks.registry import make_family
from tests.benchmarks import one_line_errors
from tests.benchmarks.runners import RUNNERS, RunnerMlsh, config

PARTS: dict[str, tuple[type, str]] = {
    "physics": (BatchedPhysics, "step"),
    "fields, rewards, ends": (World, "step"),
    "observations": (TaskVectorEnv, "step"),
    "resets": (TaskVectorEnv, "_begin"),
    "normalizing": (Normalizer, "__call__"),
    "skills act": (Agent, "means"),
    "masters decide": (Agent, "logits"),
    "rest of collecting": (Collector, "collect"),
    "masters learn": (Updates, "update_masters"),
    "skills learn": (Updates, "update_skills"),
    "commands": (Interface, "command"),
    "rest": (Mlsh, "iterate"),
}


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Seconds of each part while it is open."""
    seconds: dict[str, float] = defaultdict(float)
    inside = [0.0]  # of the parts that the running ones have called

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            inside.append(0.0)
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                whole = time.perf_counter() - start
                seconds[name] += whole - inside.pop()
                inside[-1] += whole

        return wrapper

    with ExitStack() as stack:
        for name, (owner, method) in PARTS.items():
            stack.enter_context(patch.object(owner, method, timed(name, getattr(owner, method))))
        yield seconds


def learner(family: str, threads: int, folder: Path) -> Mlsh:
    """The default recipe."""
    for runner in RUNNERS:
        if runner.name == family:
            return RunnerMlsh(config(runner.write(folder), [f"threads={threads}"]))
    settings = default_config(family, make_family(family).robot)
    return Mlsh(settings.with_values([f"threads={threads}"]))


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", default="moving_bandits")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        training = learner(given.family, given.threads, Path(folder))
        for _ in range(2):
            training.iterate()
        with measured() as seconds:
            start = time.perf_counter()
            for _ in range(given.iterations):
                training.iterate()
            whole = time.perf_counter() - start
    steps = given.iterations * training.method.steps_per_iteration
    print(f"{given.family}: {steps / whole:,.0f} steps/s, {given.threads} threads")
    for name, part in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"  {name:24} {part / whole:6.1%}  {1e9 * part / steps:8,.0f} ns per step")


if __name__ == "__main__":
    main()
