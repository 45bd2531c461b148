"""The truth that verdicts are compared with, by interventions: docs/results/verdicts.md.

The rule reads what other masters do with the very same skills, and what the same training does
with more steps. Nothing of it is read by policies/training/verdict.py, except that both take the
scores of the judged masters to say that all tasks are served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.actor_critic import Agent
from policies.mlsh.config import TrainConfig
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.offpolicy_config import OffPolicyConfig
from policies.mlsh.rollout import NO_OVERRIDE, Collector
from policies.offpolicy.replay import first_episodes
from policies.training.adapt import EVALUATION_SEED, OFF_POLICY_EPISODES, adapt, envs_for_episodes
from policies.training.verdict import Verdict
from sim.envs.vec_env import TaskVectorEnv
from sim.tasks.registry import make_family

ENOUGH = 0.7  # normalized score of a task that is served
NOTHING = 0.2  # normalized score below which nothing is done on a task
GAIN = 0.12  # of the normalized score; what masters have to bring beyond skills alone
LONG = 400  # ticks of an episode, above which there are fewer masters and fewer episodes
UPDATES = 10  # of fresh masters
# The fewest skills with which all tasks of a family are served in docs/results; a family that is
# not named here needs one for each task.
FEWEST = {"ring_bandits": 2, "patrol": 2, "ant_mazes": 4}


@dataclass(frozen=True)
class Facts:
    """What the truth of a row is computed from; scores are normalized, each by task."""

    skills: int  # K
    fewest: int  # skills with which the family is served
    own: Mapping[str, float]  # of the masters that are judged
    alone: Mapping[str, Sequence[float]] = field(default_factory=dict)  # (K,) of each skill, held
    fresh: Mapping[str, float] = field(default_factory=dict)  # mean of new masters by `q`
    # The same training with more steps serves all tasks; None: that is not known yet.
    continued: bool | None = False

    @property
    def poor(self) -> list[str]:
        """Tasks that the judged masters do not serve."""
        return [task for task, score in self.own.items() if score < ENOUGH]

    @property
    def decided(self) -> bool:
        """True if no intervention is needed, or all that are needed are there."""
        known = set(self.poor) <= self.fresh.keys() and self.own.keys() <= self.alone.keys()
        return not self.poor or self.skills < self.fewest or known


def truth(facts: Facts) -> Verdict | None:
    """The truth; None as long as an intervention is missing."""
    if not facts.decided:
        return None
    poor = facts.poor
    if not poor:
        return Verdict.SERVED
    if facts.skills < facts.fewest:
        return Verdict.TOO_FEW_SKILLS
    alone = {task: np.array(scores) for task, scores in facts.alone.items()}
    best = {task: float(scores.max()) for task, scores in alone.items()}
    if all(best[task] >= ENOUGH for task in poor):
        return Verdict.MASTERS_UNDECIDED
    if np.mean([facts.fresh[task] - best[task] for task in poor]) >= GAIN:
        return Verdict.NEEDS_SEQUENCE
    reached = {**facts.own, **facts.fresh}
    if facts.continued is None:
        return None
    if facts.continued or max(*best.values(), *reached.values()) < NOTHING:
        return Verdict.NOT_LEARNED
    one = float(np.mean([alone[task] for task in facts.own], axis=0).max())  # skill for all tasks
    several = float(np.mean([max(reached[task], best[task]) for task in facts.own]))
    return Verdict.COLLAPSED if several - one < GAIN else Verdict.NOT_LEARNED


def interventions(
    config: TrainConfig,
    install: Callable[[Agent], None],
    tasks: Sequence[str],
    poor: Sequence[str],
    *,
    explores: bool,
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Scores of each skill alone on all tasks, and of fresh masters on the poor ones.

    Args:
        config: of masters for new tasks over the skills; `offpolicy` is set here.
        install: puts the skills into an agent.
        tasks: names, in the order of the family.
        poor: those on which masters learn.
        explores: whether skills sample their actions when they are scored, as in a training.
    """
    config = replace(config, threads=1, offpolicy=OffPolicyConfig())
    method = replace(config.mlsh, groups=len(tasks), probe="none", duration_jitter=0.0)
    names = make_family(config.family, config.family_parameters).tasks
    numbers = [names.index(task) for task in tasks]
    learner = Mlsh(replace(config, mlsh=method), freeze_skills=True, tasks=numbers)
    install(learner.agent)
    limits = learner.reference_returns
    masters, episodes = (10, 32) if learner.family.ticks <= LONG else (4, 8)
    by_skill = np.array(
        [_returns(learner, 2 * episodes, explores, skill) for skill in range(method.skills)]
    )
    alone = {
        task: [limits[number].normalize(float(value)) for value in by_skill[:, i]]
        for i, (task, number) in enumerate(zip(tasks, numbers, strict=True))
    }
    fresh = {}
    for task in poor:
        found = adapt(
            config,
            install,
            [names.index(task)] * masters,
            updates=UPDATES,
            envs=envs_for_episodes(config, OFF_POLICY_EPISODES),
            episodes=1,
            score_every=UPDATES,
        )
        returns = _returns(found.learner, episodes, explores)
        fresh[task] = limits[names.index(task)].normalize(float(returns.mean()))
    return alone, fresh


def _returns(
    learner: Mlsh, episodes: int, explores: bool, skill: int = NO_OVERRIDE
) -> NDArray[np.float64]:
    """(groups,) mean return of greedy masters, or of one skill that is held."""
    groups = learner.method.groups
    env = TaskVectorEnv(
        learner.robot,
        learner.family,
        groups=groups,
        envs=episodes,
        seed=EVALUATION_SEED,
        threads=learner.config.threads,
        noise=explores,
        tasks=learner.env.tasks,
        sim_params=learner.config.sim_params,
    )
    rollout = Collector(env, learner.agent, learner.method, EVALUATION_SEED).collect(
        0,
        ticks=learner.family.ticks,
        skill_override=np.full(groups * episodes, skill, np.intp),
        greedy_master=True,
        greedy_skills=not explores,
    )
    whole = np.ones(groups * episodes, bool)
    totals = [each.total for each in first_episodes(rollout, slice(0, groups * episodes), whole)]
    return np.reshape(totals, (groups, episodes)).mean(axis=1)
