"""Learns a new task: frozen skills, a fresh master, a few updates."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from policies.bundle.adaptation import AdaptationPoint
from policies.mlsh.actor_critic import Agent
from policies.mlsh.config import TrainConfig
from policies.mlsh.config_checks import MAX_SIMULATIONS
from policies.mlsh.curriculum_config import CurriculumConfig
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.rollout import Collector
from policies.offpolicy.evaluation import OffPolicyEstimate
from policies.offpolicy.learner import OffPolicyLearner
from policies.offpolicy.recorded import RecordedLearner
from policies.offpolicy.replay import Episode
from policies.training.unfreeze import Unfreeze, UnfrozenSkill
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.tasks.registry import make_family

EVALUATION_SEED = 1_000_000  # episodes that no training run sees
SCORED_TICKS = 12_800  # 256 episodes of 50
OFF_POLICY_EPISODES = 4  # per update, by default
MAX_UPDATE_STEPS = 2000  # environment steps per master update, if a rollout allows: the paper's D


class MasterUpdate(Protocol):
    """Result of one update of masters."""

    @property
    def not_finite(self) -> str:
        """Names of the quantities that are not finite; empty if all are."""

    def describe(self) -> str:
        """Describes the certainty of the learner for the user; empty if it has no estimate."""


class MasterLearner(Protocol):
    """Learns the masters of an agent, one update after the other."""

    @property
    def steps_per_update(self) -> int:
        """Environment steps per task."""

    def iterate(self) -> MasterUpdate:
        """Collect experience on every task, and learn from it."""


@dataclass(frozen=True)
class AdaptationResult:
    """Result of training masters on tasks, one learning curve per task."""

    learner: Mlsh
    curves: list[list[AdaptationPoint]]  # (tasks, updates + 1)
    # Of each task, the update that is kept, on other episodes than it was chosen by; empty: the
    # last one is.
    kept: tuple[AdaptationPoint, ...] = ()
    kl: float = 0.0  # nats, of the unfrozen skill from the one that it was
    estimates: tuple[OffPolicyEstimate, ...] = ()  # of each task, of masters from recordings
    pruned: tuple[int, ...] = ()  # skills of the training that were left out
    diverged: int = 0  # of the episodes that scored the masters

    @property
    def divergence(self) -> str:
        """Says how often a simulation failed while masters were scored; empty if none did."""
        return describe_divergence(self.diverged)

    @property
    def final(self) -> list[AdaptationPoint]:
        """The masters that were learned, of each task."""
        return list(self.kept) or [curve[-1] for curve in self.curves]


def describe_divergence(count: int) -> str:
    """Says that simulations failed while policies were scored; empty for none."""
    if not count:
        return ""
    text = f"the simulation diverged in {count:,} evaluation episode(s)"
    return f"{text}, which are not solved and end there"


def envs_per_update(config: TrainConfig) -> int:
    """Number of simulations for MAX_UPDATE_STEPS steps per update, at least two per skill."""
    return max(2 * config.mlsh.skills, MAX_UPDATE_STEPS // config.mlsh.rollout_ticks)


def scored_episodes(ticks: int) -> int:
    """Number of greedy episodes that measure a policy: fewer for long episodes."""
    return max(16, min(256, SCORED_TICKS // ticks))


def envs_for_episodes(config: TrainConfig, episodes: int) -> int:
    """Number of simulations that run `episodes` episodes in one update.

    Raises:
        UserError: too few for the probe, or more than the limit.
    """
    ticks = make_family(config.family, config.family_parameters).ticks
    envs = -(-episodes * ticks // config.mlsh.rollout_ticks)
    if envs > MAX_SIMULATIONS:
        raise UserError(
            f"{episodes:,} episodes per update are {envs:,} simulations; at most "
            f"{MAX_SIMULATIONS:,} are accepted"
        )
    if config.offpolicy is None and config.mlsh.probe != "none" and envs < 2 * config.mlsh.skills:
        raise UserError(
            f"{episodes} episodes per update are {envs} simulations of "
            f"{config.mlsh.rollout_ticks} ticks; the probe of {config.mlsh.skills} skills "
            f"needs {2 * config.mlsh.skills}"
        )
    return envs


def adapt(
    config: TrainConfig,
    install_skills: Callable[[Agent], None],
    tasks: list[int],
    *,
    updates: int,
    envs: int | None = None,
    install_masters: Callable[[Agent], None] | None = None,
    episodes: int | None = None,
    recorded: list[list[Episode]] | None = None,
    unfreeze: Unfreeze | None = None,
    score_every: int = 1,
    skill_names: tuple[str, ...] = (),
    on_update: Callable[[list[AdaptationPoint]], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> AdaptationResult:
    """Train a master for each task, all at once, with the skills frozen.

    By value iteration over all decisions if the configuration has `offpolicy`, else with PPO.
    From recorded episodes there is one update, and the simulation only scores the masters.

    Args:
        config: family, robot, method and seed.
        install_skills: puts the skills and their observation statistics into the agent.
        tasks: task numbers of the family.
        updates: of each master.
        envs: simulations per update; by default `envs_per_update`.
        install_masters: puts masters to start from into the agent; by default they are fresh.
        episodes: greedy episodes after every update; by default `scored_episodes`.
        recorded: episodes of each task to learn from, see `RecordedLearner`; by default the
            masters collect their own.
        unfreeze: a skill that is trained, too, in further updates; PPO only.
        score_every: updates between two points of the curve; the last is always scored.
        skill_names: for the lines that are said; by default those of new skills.
        on_update: called with the latest `AdaptationPoint` of every task.
        say: called with a line after every update, if the learner estimates its certainty.

    Raises:
        UserError: it diverged, or nothing can be learned from the recorded episodes.
    """
    envs = envs or envs_per_update(config)
    if config.offpolicy is not None:  # one simulation for each episode
        ticks = make_family(config.family, config.family_parameters).ticks
        envs = max(1, envs * config.mlsh.rollout_ticks // ticks)
    guessed = config.mlsh.probe != "none" and not install_masters and config.offpolicy is None
    method = replace(
        config.mlsh,
        groups=len(tasks),
        envs=envs,
        duration_jitter=0.0,  # as on a robot
        # With frozen skills there is no symmetry to break; a given master needs no first guess.
        probe="absolute" if guessed else "none",
    )
    learner = Mlsh(replace(config, mlsh=method), freeze_skills=True, tasks=tasks)
    install_skills(learner.agent)
    if install_masters is not None:
        install_masters(learner.agent)
    if unfreeze is not None:
        both = UnfrozenSkill(learner, unfreeze, warmup=updates)
        scored = episodes or scored_episodes(learner.family.ticks)

        def keep(points: list[AdaptationPoint]) -> None:
            both.keep_if_best(sum(p.greedy for p in points))
            on_update(points)

        result = _learn(learner, both, updates + unfreeze.updates, episodes, keep, say)
        best = both.restore_best()
        fresh, diverged = score(learner, scored, EVALUATION_SEED + 1)
        kept = [
            replace(curve[best], greedy=value, success=success)
            for curve, (value, success) in zip(result.curves, fresh, strict=True)
        ]
        diverged += result.diverged
        return replace(result, kept=tuple(kept), kl=both.kl, diverged=diverged)
    if config.offpolicy is None:
        return _learn(learner, learner, updates, episodes, on_update, say, score_every)
    masters = OffPolicyLearner(learner, config.offpolicy, skill_names)
    if recorded is None:
        return _learn(learner, masters, updates, episodes, on_update, say, score_every)
    once = RecordedLearner(masters, recorded)
    result = _learn(learner, once, 1, episodes, on_update, say)
    return replace(result, estimates=tuple(once.estimates))


def from_scratch(
    config: TrainConfig,
    task: int,
    *,
    updates: int,
    envs: int | None = None,
    install_skill: Callable[[Agent], None] | None = None,
    episodes: int | None = None,
    on_update: Callable[[list[AdaptationPoint]], None] = lambda _: None,
) -> AdaptationResult:
    """Train plain PPO on one task with the same experience: one skill, no effective master.

    Args:
        config: family, robot, method and seed.
        task: task number of the family.
        updates: of the policy.
        envs: simulations per update; by default `envs_per_update`.
        install_skill: puts a policy to go on from into the agent; by default it is fresh.
        episodes: greedy episodes after every update; by default `scored_episodes`.
        on_update: called with the latest `AdaptationPoint`, in a list of one.
    """
    method = replace(
        config.mlsh,
        skills=1,
        groups=1,
        envs=envs or envs_per_update(config),
        warmup=0,
        joint=updates + 1,  # never another task
        probe="none",
        reset_skill_below=0.0,
    )
    # It pays the whole costs from the first step on, as masters do. Its steps are not those of the
    # training that the exploration is limited by.
    exploration = replace(config.exploration, final_std=None, std_until=0.0)
    config = replace(config, mlsh=method, curriculum=CurriculumConfig(), exploration=exploration)
    learner = Mlsh(config, tasks=[task])
    if install_skill is not None:
        install_skill(learner.agent)
    return _learn(learner, learner, updates, episodes, on_update)


def _learn(
    learner: Mlsh,
    masters: MasterLearner,
    updates: int,
    episodes: int | None,
    on_update: Callable[[list[AdaptationPoint]], None],
    say: Callable[[str], None] = lambda _: None,
    score_every: int = 1,
) -> AdaptationResult:
    episodes = episodes or scored_episodes(learner.family.ticks)
    curves: list[list[AdaptationPoint]] = [[] for _ in range(learner.method.groups)]
    seconds, diverged = 0.0, 0
    for update in range(updates + 1):
        if update:
            start = time.perf_counter()
            done = masters.iterate()
            seconds += time.perf_counter() - start
            if done.not_finite:
                raise UserError(
                    f"update {update} diverged: {done.not_finite} not finite; nothing is written"
                )
            if text := done.describe():
                say(f"update {update}: {text}")
        if update % score_every and update != updates:
            continue
        steps = update * masters.steps_per_update
        scores, failed = score(learner, episodes)
        diverged += failed
        for curve, (value, success) in zip(curves, scores, strict=True):
            curve.append(AdaptationPoint(update, steps, seconds, value, success))
        on_update([curve[-1] for curve in curves])
    return AdaptationResult(learner, curves, diverged=diverged)


def greedy_scores(
    learner: Mlsh, episodes: int, seed: int = EVALUATION_SEED
) -> list[tuple[float, float]]:
    """Mean return and success of each group's master and the skills, without exploration."""
    return score(learner, episodes, seed)[0]


def score(
    learner: Mlsh, episodes: int, seed: int = EVALUATION_SEED
) -> tuple[list[tuple[float, float]], int]:
    """`greedy_scores`, and in how many of these episodes the simulation diverged."""
    env = TaskVectorEnv(
        learner.robot,
        learner.family,
        groups=learner.method.groups,
        envs=episodes,
        seed=seed,
        threads=learner.config.threads,
        noise=False,
        tasks=learner.env.tasks,
        sim_params=learner.config.sim_params,
    )
    collector = Collector(env, learner.agent, learner.method, seed)
    rollout = collector.collect(
        0, ticks=learner.family.ticks, greedy_master=True, greedy_skills=True
    )
    # Only first episodes count: an episode that ended early has started another one.
    first: NDArray[np.bool_] = np.cumsum(rollout.done, axis=0) - rollout.done == 0
    returns = (rollout.reward * first).sum(axis=0, dtype=np.float64)
    success = (rollout.success & first).any(axis=0)
    shape = (learner.method.groups, episodes)
    means = returns.reshape(shape).mean(axis=1), success.reshape(shape).mean(axis=1)
    diverged = int((rollout.diverged & first).sum())
    return list(zip(*(m.tolist() for m in means), strict=True)), diverged
