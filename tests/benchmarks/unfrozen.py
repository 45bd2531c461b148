"""A copy of a skill with masters that decide at another interval than the bundle's.

python -m tests.benchmarks.unfrozen rooms rooms/inner-0 --skill 1 --decision-ticks 10

`mlsh finetune --unfreeze` keeps the interval of the bundle, which all of its masters have.
"""

import argparse
import time
from dataclasses import replace

import numpy as np

from policies.bundle.bundle import load_bundle
from policies.training.adapt import adapt, envs_for_episodes
from policies.training.finetune import install_skills, task_config
from policies.training.finetune_settings import with_settings
from policies.training.unfreeze import Unfreeze
from sim.tasks.task_id import TaskId
from tests.benchmarks import one_line_errors


@one_line_errors
def main() -> None:
    """The master alone, and the best update with the copy, on episodes not chosen by."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("task")
    parser.add_argument("--skill", type=int, required=True)
    parser.add_argument("--decision-ticks", type=int, help="by default those of the bundle")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=40, help="per update")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--joint-updates", type=int, default=40)
    parser.add_argument("--kl-limit", type=float, default=1.0)
    given = parser.parse_args()
    begun = time.process_time()
    bundle = load_bundle(given.bundle)
    plain, number = task_config(bundle, TaskId.parse(given.task), seed=given.seed)
    config = with_settings(plain, [], baseline=False, learner="ppo", unfrozen=True)
    ticks = given.decision_ticks or config.mlsh.decision_ticks
    config = replace(config, mlsh=replace(config.mlsh, decision_ticks=ticks), threads=1)
    found = adapt(
        config,
        lambda agent: install_skills(agent, bundle),
        [number],
        updates=given.updates,
        envs=envs_for_episodes(config, given.episodes),
        unfreeze=Unfreeze(given.skill, given.kl_limit, given.joint_updates),
    )
    limits = found.learner.reference_returns[number]
    (curve,), (kept,) = found.curves, found.kept
    alone = curve[given.updates]
    best = int(np.argmax([point.greedy for point in curve]))
    print(
        f"{given.task}, skill {given.skill}, every {ticks} ticks, seed {given.seed}: master alone "
        f"{limits.normalize(alone.greedy):.0%} (success {alone.success:.0%}); with a copy "
        f"{limits.normalize(kept.greedy):.0%} (success {kept.success:.0%}), update {best} of "
        f"{len(curve) - 1}; {time.process_time() - begun:.0f} CPU s",
        flush=True,
    )


if __name__ == "__main__":
    main()
