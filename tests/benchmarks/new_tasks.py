"""Return of new masters by episodes: the tables of docs/results/new_tasks.md.

python -m tests.benchmarks.new_tasks moving_bandits patrol/tilted --masters 10 --updates 25
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from policies.bundle.adaptation import AdaptationPoint
from policies.bundle.bundle import load_bundle
from policies.mlsh.rollout import NO_OVERRIDE
from policies.offpolicy.learner import OffPolicyLearner
from policies.training.adapt import OFF_POLICY_EPISODES, adapt, envs_for_episodes
from policies.training.finetune import install_skills, task_config
from policies.training.finetune_settings import with_settings
from sim.envs.reference_returns import all_reference_returns
from sim.errors import UserError
from sim.interface import Floats
from sim.physics.robot_model import load_robot
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.body_patrol import BodyPatrol
from sim.tasks.patrol import Patrol
from sim.tasks.registry import make_family
from sim.tasks.task_id import TaskId
from tests.benchmarks import one_line_errors


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--learner", choices=("q", "ppo"), default="q")
    parser.add_argument("--masters", type=int, default=10, help="of each task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--episodes", type=int, default=OFF_POLICY_EPISODES)
    parser.add_argument("--scored", type=int, help="greedy episodes of each score")
    parser.add_argument("--score-every", type=int, default=1, help="updates from score to score")
    parser.add_argument("--target", type=float, default=0.9, help="normalized score")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument(
        "--no-held-episodes",
        action="store_true",
        help="learner q: no episode holds one skill from its beginning to its end",
    )
    parser.add_argument(
        "--next-goal-first",
        action="store_true",
        help="patrol, body_patrol: goals are observed in the order in which they are visited, "
        "which no robot knows",
    )
    given = parser.parse_args()
    if given.no_held_episodes and given.learner != "q":
        raise UserError(f"--no-held-episodes: learner {given.learner!r} holds none. Valid: q")
    families = {TaskId.parse(task).family for task in given.tasks}
    if given.next_goal_first and (others := sorted(families - {*PATROLS})):
        raise UserError(
            f"--next-goal-first: task family {others[0]!r} has no next goal. Valid: "
            f"{', '.join(PATROLS)}"
        )
    return given


def holds_none(learner: OffPolicyLearner) -> NDArray[np.intp]:
    """(B,) no skill is held in any simulation, in place of `OffPolicyLearner._held`."""
    return np.full(learner.learner.env.num_envs, NO_OVERRIDE)


PATROLS: dict[str, type[Patrol]] = {each.name: each for each in (Patrol, BodyPatrol)}
Shows = Callable[[Patrol, EpisodeState, Fields], dict[str, Floats]]


def next_goal_first(shows: Shows) -> Shows:
    """The method `fields` of a patrol, with the goal to go to next as the first of the two."""

    def fields(self: Patrol, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        goals = layout["goals"]
        second = (layout["last"] == 0)[:, None, None]  # that one is next
        return shows(self, {**layout, "goals": np.where(second, goals[:, ::-1], goals)}, robot)

    return fields


def first(reached: np.ndarray, curve: list[AdaptationPoint], episodes: int) -> str:
    """Episodes of each master at the first True of its row (updates + 1,)."""
    each = [
        str(curve[int(row.argmax())].updates * episodes) if row.any() else "never"
        for row in reached
    ]
    return ", ".join(each)


@one_line_errors
def main() -> None:
    """Per task: mean, worst master, episodes to the target, success, CPU seconds per episode.

    All masters of a task learn at once, each from its own episodes and with its own randomness.
    """
    given = arguments()
    if given.no_held_episodes:
        setattr(OffPolicyLearner, "_held", holds_none)  # noqa: B010
    if given.next_goal_first:
        for patrol in PATROLS.values():
            setattr(patrol, "fields", next_goal_first(patrol.fields))  # noqa: B010
    bundle = load_bundle(given.bundle)
    for task in given.tasks:
        begun = time.process_time()
        plain, number = task_config(bundle, TaskId.parse(task), seed=given.seed)
        config = replace(
            with_settings(plain, given.settings, baseline=False, learner=given.learner), threads=1
        )
        found = adapt(
            config,
            lambda agent: install_skills(agent, bundle),
            [number] * given.masters,
            updates=given.updates,
            envs=envs_for_episodes(config, given.episodes),
            episodes=given.scored,
            score_every=given.score_every,
        )
        returns = np.array([[point.greedy for point in curve] for curve in found.curves])
        success = np.array([curve[-1].success for curve in found.curves])
        spent = (time.process_time() - begun) / (given.masters * given.updates * given.episodes)
        print(f"{task}, {given.learner}, {given.episodes} episodes per update")
        for point, row in zip(found.curves[0], returns.T, strict=True):
            worst = int(row.argmin())
            print(
                f"{point.updates * given.episodes:5} episodes: mean {row.mean():.2f}, "
                f"worst {row[worst]:.2f} (master {worst})"
            )
        family = make_family(config.family, config.family_parameters)
        limits = all_reference_returns(load_robot(config.robot), family)[number]
        scores = (returns - limits.random) / (limits.optimum - limits.random)
        print(
            f"{given.target:.0%} (optimum {limits.optimum:.2f}) first after "
            f"{first(scores >= given.target, found.curves[0], given.episodes)} episodes"
        )
        each = ", ".join(f"{one:.0%}" for one in success)
        print(f"success {success.mean():.0%} ({each}); {spent:.2f} CPU s per episode, scoring too")


if __name__ == "__main__":
    main()
