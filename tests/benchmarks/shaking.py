"""How much the commands of skills change from tick to tick near a goal.

    python -m tests.benchmarks.shaking moving_bandits rooms body_bandits [--episodes 32]

Bundles of families with a goal. For each task the skill with the best return alone is shown, with
the noise of the robot's sensors. Near the goal is within its radius, at its next tick too. Changes
are lengths of the difference of two commands, each element in its own unit (m/s, rad/s).
"""

from __future__ import annotations

import argparse

import numpy as np

from policies.bundle.bundle import Bundle, load_bundle
from policies.bundle.runtime import load_skills
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.interface import Floats
from sim.physics.robot_model import load_robot
from sim.tasks.family_calls import FamilyCalls
from sim.tasks.planar import within
from sim.tasks.registry import make_family
from tests.benchmarks import one_line_errors


def drive(bundle: Bundle, skill: int, task: int, episodes: int) -> tuple[Floats, Floats]:
    """Episodes of one skill: returns (episodes,), and changes (n,) of the command near the goal.

    Raises:
        UserError: the family has no goal.
    """
    own = bundle.manifest.family
    family, robot = make_family(own.name, own.parameters), load_robot(bundle.interface.robot)
    calls, policy = FamilyCalls(family), load_skills(bundle)[skill]
    env = TaskVectorEnv(robot, family, groups=1, envs=episodes, tasks=[task])
    seen, _ = env.reset()
    returns, changes = np.zeros(episodes), []
    near = np.zeros(episodes, bool)
    before = env.world.command.copy()
    for _ in range(family.ticks - 1):  # the last one begins another episode
        target, radius = calls.target(env.world.layout), calls.radius
        if target is None or radius is None:
            raise UserError(f"{own.name}: a family with a goal and its radius is expected")
        here = within(env.world.true_state()["position"], target, radius)
        seen, reward, *_ = env.step(policy(seen))
        returns += reward
        command = env.world.command.copy()
        changes.append(np.linalg.norm(command - before, axis=1)[here & near])
        before, near = command, here
    return returns, np.concatenate(changes)


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--episodes", type=int, default=32)
    given = parser.parse_args()
    print("| bundle | task | skill | return | change near the goal: mean | 95 % below | largest |")
    print("|---|---|---|---|---|---|---|")
    for name in given.bundles:
        bundle = load_bundle(name)
        own = bundle.manifest.family
        for task, called in enumerate(make_family(own.name, own.parameters).tasks):
            count = len(bundle.manifest.skills)
            driven = [drive(bundle, k, task, given.episodes) for k in range(count)]
            best = int(np.argmax([returns.mean() for returns, _ in driven]))
            returns, changes = driven[best]
            found = "no tick near it"
            if len(changes):
                low, high = np.quantile(changes, 0.95), changes.max()
                found = f"{changes.mean():.3f} | {low:.3f} | {high:.3f}"
            skill = bundle.manifest.skills[best]
            print(
                f"| `{name}` | {called} | {skill} | {returns.mean():.1f} | {found} |", flush=True
            )


if __name__ == "__main__":
    main()
