"""Return of a script over a bundle's skills that knows the order: `reach_sequence` at its best.

python -m tests.benchmarks.scripted_order policies/pretrained/arm_reach
"""

import argparse

import numpy as np

from policies.bundle.bundle import load_bundle
from policies.bundle.runtime import load_skills
from sim.envs.world import World
from sim.errors import UserError
from sim.interface import Floats
from sim.physics.robot_model import load_robot
from sim.seeding import episode_rng
from sim.tasks.base import TaskFamily
from sim.tasks.reach import Reach
from sim.tasks.reach_sequence import ReachSequence
from tests.benchmarks import one_line_errors


class Skills:
    """Those of a bundle, and which of them goes to which target."""

    def __init__(self, path: str) -> None:
        self.bundle = load_bundle(path)
        self.networks = load_skills(self.bundle)
        family = Reach()
        alone = [
            [
                self.drive(family, task, 32, lambda world, k=k: np.full(world.size, k))[0].mean()
                for k in range(len(self.networks))
            ]
            for task in range(len(family.tasks))
        ]
        self.of_target = np.argmax(alone, axis=1)  # (targets,)

    def drive(self, family: TaskFamily, task: int, episodes: int, choose) -> tuple[Floats, Floats]:
        """(episodes,) returns and successes of skills that `choose` names for every decision."""
        world = World(load_robot(family.robot), family, episodes)
        rngs = [episode_rng(0, n) for n in range(episodes)]
        world.reset(np.arange(episodes, dtype=np.int32), [task] * episodes, rngs)
        fields, total, skill = world.true_state(), np.zeros(episodes), np.zeros(episodes, int)
        for tick in range(family.ticks):
            if tick % self.bundle.manifest.decision_ticks == 0:
                skill = choose(world)
            observation = world.interface.observe(fields).astype(np.float32)
            action = np.choose(skill[:, None], [net(observation) for net in self.networks])
            fields, outcome = world.step(action)
            total += outcome.reward
        return total, family.success(world.layout, fields)


@one_line_errors
def main() -> None:
    """A line per order: the optimum, the script, skills at random, and one skill alone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("--episodes", type=int, default=64)
    given = parser.parse_args()
    if given.episodes < 1:
        raise UserError(f"--episodes {given.episodes}: 1 or more are needed")
    skills, family = Skills(given.bundle), ReachSequence()
    rng = np.random.default_rng(0)
    count, dt = len(skills.networks), skills.bundle.interface.control_dt
    print(f"skill of each target: {skills.of_target.tolist()}")
    for task, name in enumerate(family.tasks):
        _, optimum = family.estimate(task, dt)
        known, solved = skills.drive(
            family,
            task,
            given.episodes,
            lambda world: skills.of_target[family.following(world.layout)],
        )
        blind, _ = skills.drive(
            family, task, given.episodes, lambda world: rng.integers(count, size=world.size)
        )
        alone = [
            skills.drive(family, task, given.episodes, lambda world, k=k: np.full(world.size, k))
            for k in range(count)
        ]
        best = max(each.mean() for each, _ in alone)
        print(
            f"{name}: optimum {optimum:.2f}, script {known.mean():.2f} ({solved.mean():.0%} "
            f"solved), at random {blind.mean():.2f}, best skill alone {best:.2f}"
        )


if __name__ == "__main__":
    main()
