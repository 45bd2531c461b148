"""Return of masters on new tasks by episodes, over seeds: the tables of docs/results/new_tasks.md.

python -m tests.benchmarks.new_tasks moving_bandits patrol/tilted --seeds 10 --updates 25
"""

import argparse
import time
from dataclasses import replace

import numpy as np

from policies.bundle.bundle import load_bundle
from policies.training.adapt import OFF_POLICY_EPISODES, adapt, envs_for_episodes
from policies.training.finetune import install_skills, task_config, with_settings
from sim.tasks.task_id import TaskId


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--learner", choices=("q", "ppo"), default="q")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--episodes", type=int, default=OFF_POLICY_EPISODES)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    return parser.parse_args()


def main() -> None:
    """A line per task: mean, worst seed, success, and CPU seconds per episode, simulated too."""
    given = arguments()
    bundle = load_bundle(given.bundle)
    for task in given.tasks:
        returns, success, begun = [], [], time.process_time()
        for seed in range(given.seeds):
            plain, number = task_config(bundle, TaskId.parse(task), seed=seed)
            config = replace(
                with_settings(plain, given.settings, baseline=False, learner=given.learner),
                threads=1,
            )
            found = adapt(
                config,
                lambda agent: install_skills(agent, bundle),
                [number],
                updates=given.updates,
                envs=envs_for_episodes(config, given.episodes),
            )
            returns.append([point.greedy for point in found.curves[0]])
            success.append(found.curves[0][-1].success)
        seconds = (time.process_time() - begun) / (given.seeds * given.updates * given.episodes)
        print(f"{task}, {given.learner}, {given.episodes} episodes per update")
        for update, row in enumerate(np.transpose(returns)):
            worst = int(row.argmin())
            print(
                f"{update * given.episodes:5} episodes: mean {row.mean():.2f}, "
                f"worst {row[worst]:.2f} (seed {worst})"
            )
        print(f"success {np.mean(success):.0%}; {seconds:.2f} CPU s per episode, evaluation too")


if __name__ == "__main__":
    main()
