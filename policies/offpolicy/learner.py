"""The off-policy learner of masters for new tasks (`mlsh finetune --learner q`).

It collects episodes and fits the values of all decisions so far (`value_iteration.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.bundle.manifest import skill_names as default_names
from policies.mlsh.actor_critic import ActorCriticBatch
from policies.mlsh.config import NetworkConfig
from policies.mlsh.config_checks import hidden_elements
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.offpolicy_config import OffPolicyConfig
from policies.mlsh.rollout import NO_OVERRIDE, Collector
from policies.offpolicy.features import Features
from policies.offpolicy.replay import Float32, Floats, Replay, first_episodes
from policies.offpolicy.skill_returns import describe, returns_alone
from policies.offpolicy.value_iteration import ValueIteration
from sim.envs.reference_returns import ReferenceReturns
from sim.seeding import Stream, generator


@dataclass(frozen=True)
class OffPolicyUpdate:
    """Result of one update."""

    agreement: list[float]  # of each master: `ValueIteration.agreement`
    # Of each master: (K,) return of each skill alone; NaN: it has not run. Empty if no episode of
    # the update held one skill.
    alone: list[Floats]
    not_finite: str  # the tasks whose values are no numbers any more; empty if all are
    skills: tuple[str, ...]  # names of the K skills
    tasks: tuple[str, ...]  # of each master
    reference_returns: list[ReferenceReturns]  # of each master's task

    def describe(self) -> str:
        """Describes the returns of single skills, if they are compared, and the agreement."""
        limits = self.reference_returns[: len(self.alone)]
        compared = zip(self.alone, limits, strict=True)
        first = [describe(each, self.skills, limit) for each, limit in compared]
        if len(set(first)) > 1:
            first = [f"{task}: {said}" for task, said in zip(self.tasks, first, strict=True)]
        # What masters have in common is said once.
        first = list(dict.fromkeys(first))
        sure = f"{min(self.agreement):.0%} of the decisions are settled"
        return "; ".join([*first, sure])


class OffPolicyLearner:
    """A master for each task of a learner whose skills are frozen.

    The first episode of each skill holds it from the beginning to the end; then each episode
    follows one sample of the values. After every update the masters of the learner's agent are the
    mean values: what is evaluated and exported.

    Args:
        learner: gives tasks, simulations and skills; its masters are replaced.
        settings: of the learning.
        skill_names: K names for messages; by default those of new skills.
    """

    def __init__(
        self, learner: Mlsh, settings: OffPolicyConfig, skill_names: tuple[str, ...] = ()
    ) -> None:
        config, method = learner.config, learner.method
        self.skill_names = skill_names or default_names(method.skills)
        self.settings = settings
        self.learner, self.envs = learner, method.envs
        self.skills, self.ticks = method.skills, learner.family.ticks
        interface, groups = learner.env.interface, method.groups
        size = interface.observation_size
        masked_inputs = list(hidden_elements(interface, config.network, "hidden_from_masters"))
        gamma = float(np.exp(-1 / (settings.horizon * method.decision_ticks)))
        self.replays = [Replay(gamma) for _ in range(groups)]
        self.values = []
        for g in range(groups):
            rng = generator(config.seed, Stream.INIT, 1, g)
            features = Features(size, settings, masked_inputs, rng)
            self.values.append(ValueIteration(features, self.skills, settings, rng))
        learner.agent.masters = ActorCriticBatch(
            groups,
            size,
            self.skills,
            NetworkConfig(hidden=(self.values[0].features.units,)),
            config.master,
            log_stds=0,
        )
        self._install()
        self.updates = 0

    @property
    def steps_per_update(self) -> int:
        """Environment steps per task."""
        return self.envs * self.ticks

    def iterate(self) -> OffPolicyUpdate:
        """Run whole episodes of every task, and fit the values of all decisions so far."""
        env, agent = self.learner.env, self.learner.agent
        rng = generator(self.learner.config.seed, Stream.DECISIONS, self.updates)
        held = self._held()
        member = rng.integers(1, self.settings.members, env.num_envs)
        collector = Collector(env, agent, self.learner.method, self.learner.config.seed)
        rollout = collector.collect(
            self.updates,
            ticks=self.ticks,
            skill_override=held,
            greedy_master=True,
            greedy_skills=True,
            logits=self._exploring(member, rng),
        )
        for g, replay in enumerate(self.replays):
            mine = slice(g * self.envs, (g + 1) * self.envs)
            replay.episodes += first_episodes(rollout, mine, held[mine] != NO_OVERRIDE)
        compared = self.replays if (held != NO_OVERRIDE).any() else []
        limits = self.learner.reference_returns
        return OffPolicyUpdate(
            agreement=self.fit(),
            alone=[returns_alone(replay.episodes, self.skills) for replay in compared],
            not_finite=self.not_finite(),
            skills=self.skill_names,
            tasks=tuple(self.learner.family.tasks[task] for task in self.learner.env.tasks),
            reference_returns=[limits[task] for task in self.learner.env.tasks],
        )

    def fit(self) -> list[float]:
        """Fit the values of all decisions so far; the agent's masters are their mean.

        Returns:
            Of each master: `ValueIteration.agreement`.
        """
        for replay, values in zip(self.replays, self.values, strict=True):
            values.fit(replay.decisions())
        self.updates += 1
        self._install()
        seen = [np.concatenate([e.obs[:-1] for e in r.episodes]) for r in self.replays]
        return [v.agreement(obs) for v, obs in zip(self.values, seen, strict=True)]

    def _held(self) -> NDArray[np.intp]:
        """(B,) skill that runs for a whole episode in each simulation, or NO_OVERRIDE."""
        number = self.updates * self.envs + np.arange(self.learner.env.num_envs) % self.envs
        return np.where(number < self.skills, number, NO_OVERRIDE)

    def _exploring(
        self, member: NDArray[np.intp], rng: np.random.Generator
    ) -> Callable[[Float32], Float32]:
        """Logits for exploration: each simulation follows one sample of its task's values."""
        part = self.settings.random_part(self.updates * self.envs)

        def logits(obs: Float32) -> Float32:
            rows = [slice(g * self.envs, (g + 1) * self.envs) for g in range(len(self.values))]
            found = [v.values(obs[r], member[r]) for v, r in zip(self.values, rows, strict=True)]
            values = np.concatenate(found)
            random = rng.random(len(values)) < part
            drawn = rng.random(values.shape).astype(np.float32)
            return np.where(random[:, None], drawn, values)

        return logits

    def _install(self) -> None:
        masters = self.learner.agent.masters
        for g, values in enumerate(self.values):
            for (weight, bias), (w, b) in zip(
                masters.policy.layers(g), values.head(), strict=True
            ):
                weight[:], bias[:] = w, b

    def not_finite(self) -> str:
        """Names the tasks whose values are no numbers any more; empty if all are."""
        names = self.learner.family.tasks
        bad = [t for t, v in zip(self.learner.env.tasks, self.values, strict=True) if not v.finite]
        return f"values of {', '.join(names[t] for t in bad)}" if bad else ""
