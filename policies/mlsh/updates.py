"""The updates of one iteration: of the masters, and of the skills in the joint phase, by PPO."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from policies.mlsh.actor_critic import Agent
from policies.mlsh.advantage_normalization import normalize_advantages
from policies.mlsh.config import TrainConfig
from policies.mlsh.information_bonus import task_information
from policies.mlsh.iteration import mean_report
from policies.mlsh.local_groups import LocalGroups
from policies.mlsh.ppo import UpdateStats, ppo_update
from policies.mlsh.regularizer import Regularizer
from policies.mlsh.reward_normalization import RewardNormalization
from policies.mlsh.rollout import Bools, Collector, Float32, Rollout
from policies.mlsh.samples import ScaledRewards, master_samples, skill_samples
from policies.mlsh.symmetry import Symmetry
from policies.mlsh.task_schedule import TaskSchedule
from sim.seeding import Stream, generator


class Updates:
    """The updates of masters and skills from a rollout.

    Args:
        config: of the training.
        agent: masters of the groups of this process, and skills.
        groups: of all processes.
        schedule: tasks and phases of all groups.
        scores: by the reference returns of the tasks.
        collector: of the rollouts.
        symmetry: mirror images for the skills; None if they are not used.
    """

    def __init__(
        self,
        config: TrainConfig,
        agent: Agent,
        groups: LocalGroups,
        schedule: TaskSchedule,
        scores: RewardNormalization,
        collector: Collector,
        symmetry: Symmetry | None,
    ) -> None:
        self.config, self.method, self.agent = config, config.mlsh, agent
        self.groups, self.schedule, self.scores = groups, schedule, scores
        self.collector, self.symmetry = collector, symmetry
        raw = RewardNormalization.none(len(scores.span))
        self.units = scores if self.method.scaled_returns else raw
        self._pool = ThreadPoolExecutor(config.threads) if config.threads > 1 else None

    def master_rewards(self, rollout: Rollout) -> ScaledRewards:
        """Rewards in the unit of the masters' value functions: what a decision can earn."""
        ticks = self.method.decision_ticks if self.method.scaled_returns else 1
        return self._scaled(rollout, self.config.master.gamma, ticks)

    def skill_rewards(self, rollout: Rollout) -> ScaledRewards:
        """Rewards in the unit of the skills' value functions: what a tick can earn."""
        return self._scaled(rollout, self.config.skill.gamma, 1)

    def update_masters(
        self, rollout: Rollout, active: Bools, iteration: int, *, bonus: bool
    ) -> UpdateStats:
        """Each active group's master learns from its decisions.

        Args:
            rollout: of the groups of this process.
            active: (G,) of all groups.
            iteration: selects the randomness and how far the bonus has decayed.
            bonus: whether choices that distinguish the tasks are paid for.
        """
        masters, method = self.agent.masters, self.method
        rewards = self.master_rewards(rollout)
        if bonus:
            earned = rewards.reward + self._information(rollout, iteration)
            rewards = replace(rewards, reward=earned)
        samples = master_samples(masters, rollout, rewards, self.groups.local(active), method)
        samples = normalize_advantages(
            samples, method.master_advantage, everyone=self.groups.all_reduce
        )

        def shuffle(row: int, group: int) -> np.random.Generator:
            number = self.groups.group_ids[group]
            return generator(self.config.seed, Stream.SHUFFLE, iteration, number)

        report = ppo_update(masters, samples, shuffle, entropy=self._entropy())
        return mean_report(report, sum(len(s) > 0 for s in samples), self.groups)

    def update_skills(self, rollout: Rollout, joint: Bools, iteration: int) -> UpdateStats:
        """Each skill learns from the ticks on which it was active in groups in the joint phase.

        Args:
            rollout: of the groups of this process.
            joint: (G,) of all groups.
            iteration: selects the randomness.
        """
        all_reduce = self.groups.all_reduce
        samples = skill_samples(
            self.agent.skills,
            rollout,
            self.skill_rewards(rollout),
            self.groups.local(joint),
            self.method,
            with_following=self.config.regularization.temporal_smoothness > 0,
            noise=self._smoothness_noise(rollout, iteration),
        )
        samples = normalize_advantages(samples, "group", own=all_reduce, everyone=all_reduce)

        def shuffle(row: int, group: int) -> np.random.Generator:
            place = self.groups.group_ids[group] * self.method.skills + row
            return generator(self.config.seed, Stream.SHUFFLE_SKILLS, iteration, place)

        return ppo_update(
            self.agent.skills,
            samples,
            shuffle,
            regularizer=self._regularizer(),
            all_reduce=all_reduce,
            pool=self._pool,
        )

    def update_statistics(self, rollout: Rollout) -> None:
        """The means and variances by which observations are normalized."""
        if self.agent.learns_statistics:
            self.agent.normalizer.update(rollout.raw, self.groups.all_reduce)
        if rollout.raw_privileged is not None:
            self.agent.privileged_normalizer.update(rollout.raw_privileged, self.groups.all_reduce)

    def _scaled(self, rollout: Rollout, gamma: float, ticks: int) -> ScaledRewards:
        """Rewards in units of what `ticks` ticks can earn."""
        task = np.repeat(self.groups.local(self.schedule.tasks), self.method.envs)
        reward = self.units.rewards(rollout.reward, task) / np.float32(ticks)
        return ScaledRewards(reward, self.units.terminal(task, gamma, ticks))

    def _entropy(self) -> list[float]:
        """Coefficient of each master's entropy: it decays to zero during the warm-up."""
        left = self.groups.local(self.schedule.warmup_left)
        coefficients: list[float] = (self.config.master.entropy * left).tolist()
        return coefficients

    def _information(self, rollout: Rollout, iteration: int) -> Float32:
        """(T, B) bonus for choices that distinguish a group's task, decaying over the training.

        In units of what a decision can earn.
        """
        method = self.method
        weight = method.mutual_information_coef * (1 - iteration / self.config.iterations)
        if weight <= 0:
            return np.zeros_like(rollout.reward)
        bits = task_information(rollout, self.schedule.tasks, self.groups, method.skills)
        best = 1.0 if method.scaled_returns else method.decision_ticks * self.scores.span.max()
        bonus: Float32 = (weight * best * bits).astype(np.float32)
        return bonus

    def _regularizer(self) -> Regularizer | None:
        """Penalties and mirrored samples of this update; None without any."""
        config, symmetry = self.config.regularization, self.symmetry
        if not config.smooths and symmetry is None:
            return None
        tasks = self.groups.local(self.schedule.tasks)
        symmetric = np.zeros(len(tasks), bool) if symmetry is None else symmetry.tasks[tasks]
        return Regularizer(config, symmetry, self.agent.normalizer, symmetric)

    def _smoothness_noise(self, rollout: Rollout, iteration: int) -> Float32 | None:
        """(T, B, O) noise of observations for the spatial smoothness."""
        config = self.config.regularization
        if not config.spatial_smoothness:
            return None
        ticks, _, size = rollout.raw.shape
        noise = self.collector.by_group(
            Stream.SMOOTHNESS,
            iteration,
            lambda r, envs: r.standard_normal((ticks, envs, size), np.float32),
        )
        return np.asarray(np.float32(config.spatial_deviation) * noise)
