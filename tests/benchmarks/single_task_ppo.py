r"""PPO of one policy on a single task, as a reference for a skill.

    python -m tests.benchmarks.single_task_ppo ant_bandits right --steps 4500000 \
        --set family_parameters.fall=0.001 --set threads=1

PPO without a master, on as many simulations as all groups of meta-training have together, with the
same length of a rollout; greedy episodes every tenth of the way.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from policies.mlsh.config import TrainConfig
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.presets import default_config
from policies.training.adapt import greedy_scores, scored_episodes
from sim.tasks.registry import make_family
from sim.tasks.task_id import TaskId
from tests.benchmarks import one_line_errors


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family")
    parser.add_argument("task")
    parser.add_argument("--steps", type=int, default=4_500_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    config = default_config(given.family, make_family(given.family).robot, given.seed)
    learn(config.with_values(given.set), given.task, given.steps)


def learn(config: TrainConfig, task: str, steps: int) -> None:
    """Print the greedy return on a task of `config.family` while one policy learns it.

    Raises:
        UserError: no such task.
    """
    family = make_family(config.family, config.family_parameters)
    number = TaskId(family.name, task).index_in(family.tasks)
    method = replace(
        config.mlsh,
        skills=1,
        groups=1,
        envs=config.mlsh.groups * config.mlsh.envs,
        warmup=0,
        joint=steps,  # never another task
        probe="none",
        reset_skill_below=0.0,
        mutual_information_coef=0.0,
        random_skill_fraction=0.0,
    )
    learner = Mlsh(replace(config, mlsh=method), tasks=[number])
    iterations = max(1, round(steps / method.steps_per_iteration))
    print(f"{'steps':>12}  {'return':>8}  {'success':>8}  {'seconds':>8}")
    seconds = 0.0
    for iteration in range(iterations + 1):
        if iteration:
            start = time.perf_counter()
            learner.iterate()
            seconds += time.perf_counter() - start
        if iteration % -(-iterations // 10) == 0 or iteration == iterations:
            value, success = greedy_scores(learner, scored_episodes(family.ticks))[0]
            done = iteration * method.steps_per_iteration
            print(f"{done:>12,}  {value:8.3f}  {success:8.1%}  {seconds:8.0f}", flush=True)


if __name__ == "__main__":
    main()
