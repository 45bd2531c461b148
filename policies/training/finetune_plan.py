"""The plan of `mlsh finetune` by its options: which learner, for how long, beside what."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from policies.mlsh.offpolicy_config import Learner
from policies.training.adapt import OFF_POLICY_EPISODES
from sim.errors import UserError

SIMULATED = ("updates", "episodes", "init_from", "baseline")  # of learning in simulation
UNFREEZING = ("kl", "joint_updates")


@dataclass(frozen=True)
class FinetunePlan:
    """The learning of the masters of a command."""

    learner: Learner
    updates: int
    episodes: int | None  # whole ones per update; None: 2,000 steps
    baseline: bool  # whether PPO learns the task from scratch as well


def plan_of(
    given: Collection[str],
    *,
    learner: Learner | None,
    updates: int,
    episodes: int | None,
    baseline: bool,
    starts_from_master: bool,
    unfreezes: bool,
    reads_topic: bool,
) -> FinetunePlan:
    """The plan of a command; refuses options that have no effect.

    Args:
        given: names of the options that are on the command line, such as `from_recording`.
        learner: of the masters; None: q, or PPO for what q cannot do.
        updates: of each master.
        episodes: whole ones per update; None: the learner's default.
        baseline: whether PPO from scratch is wanted beside it.
        starts_from_master: whether the masters begin as another one.
        unfreezes: whether a copy of a skill learns as well.
        reads_topic: whether the rewards are those of a recorded topic.

    Raises:
        UserError: names the option.
    """
    # What begins with a master, or trains a skill as well, is PPO's.
    chosen = learner or ("ppo" if starts_from_master or unfreezes else "q")
    recorded = "from_recording" in given
    if reads_topic and not recorded:
        raise UserError("--reward-topic: has no effect without --from-recording")
    if recorded and learner not in (None, "q"):
        raise UserError(f"--learner {learner}: --from-recording needs q, which is its default")
    simulated = not recorded and chosen != "uniform"
    if not simulated:
        cause = "--from-recording" if recorded else "--learner uniform"
        for name in SIMULATED:
            if name in given:
                raise UserError(
                    f"{_option(name)}: has no effect with {cause}, which simulates no learning"
                )
    if unfreezes and (chosen != "ppo" or recorded):
        cause = "--from-recording" if chosen == "ppo" else f"--learner {chosen}"
        raise UserError(f"--unfreeze: needs --learner ppo in simulation, not {cause}")
    for name in UNFREEZING:
        if not unfreezes and name in given:
            raise UserError(f"{_option(name)}: has no effect without --unfreeze")
    if chosen == "q" and episodes is None:
        episodes = OFF_POLICY_EPISODES
    if simulated:
        return FinetunePlan(chosen, updates, episodes, baseline)
    return FinetunePlan(chosen, 1 if recorded else 0, episodes, False)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
