"""Meta Learning Shared Hierarchies (Frans et al. 2017).

    on every new task:  a fresh master
      W updates:        the master alone learns to use the skills as they are     (warm-up)
      U updates:        master and skills learn together                          (joint phase)

G groups do this at the same time, staggered, each with its own task and master; the skills are
shared by all. `task_schedule.py` assigns tasks to groups, `rollout.py` collects experience,
`ppo.py` updates, `skill_probe.py` prevents collapse.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.actor_critic import Agent
from policies.mlsh.advantage_normalization import normalize_advantages
from policies.mlsh.config import TrainConfig
from policies.mlsh.config_checks import check_sizes, hidden_elements
from policies.mlsh.distributed import ALONE, Ranks
from policies.mlsh.information_bonus import task_information
from policies.mlsh.iteration import (
    Iteration,
    group_statistics,
    mean_report,
    reward_terms,
    skill_distance,
    state_information,
)
from policies.mlsh.local_groups import LocalGroups
from policies.mlsh.ppo import UpdateStats, ppo_update
from policies.mlsh.regularizer import Regularizer
from policies.mlsh.reward_normalization import RewardNormalization
from policies.mlsh.rollout import NO_OVERRIDE, Bools, Collector, Float32, Rollout
from policies.mlsh.samples import ScaledRewards, master_samples, skill_samples
from policies.mlsh.skill_probe import Probe
from policies.mlsh.symmetry import find_symmetry
from policies.mlsh.task_schedule import NewTask, TaskSchedule
from sim.envs.reference_returns import ReferenceReturns, all_reference_returns
from sim.envs.vec_env import TaskVectorEnv
from sim.physics.robot_model import load_robot
from sim.randomization.schema import read_ranges
from sim.seeding import Stream, generator
from sim.tasks.registry import make_family


class Mlsh:
    """The learner: call `iterate` until satisfied.

    Args:
        config: everything the run depends on.
        freeze_skills: freeze the skills and never change the tasks: masters learn, nothing else.
        tasks: (G,) fixed task of each group, only with `freeze_skills`.
        ranks: the processes that share the groups. The schedule and the skills are the same in
            each of them; its rollouts and masters are of its own groups only.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        freeze_skills: bool = False,
        tasks: list[int] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        check_sizes(config)
        self.config, self.method, self.freeze_skills = config, config.mlsh, freeze_skills
        self.robot = load_robot(config.robot)
        self.family = make_family(config.family, config.family_parameters)
        method = self.method
        self.groups = LocalGroups(method.groups, ranks)
        self.schedule = TaskSchedule(
            method, len(self.family.tasks), config.seed, tasks=tasks, staggered=not freeze_skills
        )
        self.env = TaskVectorEnv(
            self.robot,
            self.family,
            groups=len(self.groups),
            envs=method.envs,
            seed=config.seed,
            threads=config.threads,
            tasks=self.groups.local(self.schedule.tasks),
            group_ids=self.groups.group_ids,
            sim_params=config.sim_params,
            domain_randomization=read_ranges(self.robot) if config.domain_randomization else None,
            privileged=config.network.privileged,
        )
        interface, network = self.env.interface, config.network
        self.agent = Agent(
            observation_size=interface.observation_size,
            action_size=interface.action_size,
            skills=method.skills,
            groups=len(self.groups),
            network=network,
            master=config.master,
            skill=config.skill,
            seed=config.seed,
            group_ids=self.groups.group_ids,
            masked_inputs=hidden_elements(interface, network, "hidden_from_skills"),
            masked_master_inputs=hidden_elements(interface, network, "hidden_from_masters"),
            privileged=self.env.privileged.shape[1],
        )
        self.collector = Collector(self.env, self.agent, method, config.seed)
        for task, returns in zip(self.family.tasks, self.reference_returns, strict=True):
            returns.check(f"{self.family.name}/{task}")
        # Known beforehand: a spread of returns that are estimates themselves would grow by its
        # own influence.
        self.scores = RewardNormalization.of(self.reference_returns, self.family.ticks)
        self.units = (
            self.scores
            if method.scaled_returns
            else RewardNormalization.none(len(self.family.tasks))
        )
        self.probe = Probe(method, len(self.family.tasks))
        self.symmetry = None if freeze_skills else find_symmetry(config, self.robot, self.family)
        self.pool = ThreadPoolExecutor(config.threads) if config.threads > 1 else None
        self.iteration = 0

    @cached_property
    def reference_returns(self) -> list[ReferenceReturns]:
        """Reference returns of every task of the family."""
        # A family is a frozen dataclass, which its Protocol cannot say.
        return all_reference_returns(self.robot, self.family)  # type: ignore[arg-type]

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return self.iteration * self.method.steps_per_iteration

    @property
    def steps_per_update(self) -> int:
        """Environment steps that a master's update takes."""
        return self.method.steps_per_update

    def iterate(self) -> Iteration:
        """One rollout of every group and the updates it allows."""
        if not self.freeze_skills:
            self._change_tasks()
        age, probing, joint = self.schedule.age.copy(), self.schedule.probing, self.schedule.joint
        rollout = self.collector.collect(
            self.iteration,
            ticks=self.method.rollout_ticks,
            skill_override=self._probed_skills(probing),
            greedy_skills=self.freeze_skills,  # frozen skills act as they do on a robot
            random_skills=not self.freeze_skills,
        )
        by_state = np.zeros((self.method.groups, self.method.skills))
        if not self.freeze_skills:  # frozen skills are not judged
            by_state = state_information(rollout, self.agent.masters, self.groups)
        alone = self._learn_from_probe(rollout, probing)
        reset_skill = self._reset_redundant_skill() if probing.any() else None
        if not self.freeze_skills:
            # What a master is like when it has learned for as long as it may.
            self.probe.by_state.extend(by_state[joint & (age == self.schedule.period - 1)])
        master = self._update_masters(rollout, ~probing)
        learns = joint.any() and not self.freeze_skills
        skill = self._update_skills(rollout, joint) if learns else None
        if self.agent.learns_statistics and not self.freeze_skills:
            self.agent.normalizer.update(rollout.raw, self.groups.all_reduce)
        if rollout.raw_privileged is not None and not self.freeze_skills:
            self.agent.privileged_normalizer.update(rollout.raw_privileged, self.groups.all_reduce)
        self.schedule.advance()
        self.iteration += 1
        diverged = self.groups.all_reduce(np.array([self.env.diverged], np.float64))
        return Iteration(
            number=self.iteration,
            steps=self.steps,
            age=age,
            task=self.schedule.tasks.copy(),
            probing=probing,
            distance=skill_distance(rollout, self.agent.skills.policy),
            master=master,
            skill=skill,
            reset_skill=reset_skill,
            state_information=by_state,
            alone=alone,
            diverged=int(diverged[0]),
            reward_terms=reward_terms(self.env.world.terms, self.groups),
            **group_statistics(rollout, self.groups, self.method.skills, self.family.ticks),
        )

    def _change_tasks(self) -> None:
        """A fresh master for every group that gets another task."""
        for new in self.schedule.change(self.iteration):
            row = self.groups.row(new.group)
            if row is not None:
                self.collector.begin_group(row, new.task)
                self._fresh_master(row, new)

    def _fresh_master(self, row: int, new: NewTask) -> None:
        which = new.group if self.method.same_init else new.master
        rng = generator(self.config.seed, Stream.INIT, 1, which)
        self.agent.masters.reset(row, rng, adam=self.method.fresh_adam)

    # Probe --------------------------------------------------------------------------------

    def _probed_skills(self, probing: Bools) -> NDArray[np.intp] | None:
        """(B,) the skill that each simulation of a probing group runs; None if no group probes."""
        if not probing.any():
            return None
        return np.where(
            self.groups.local(probing)[:, None], self.probe.plan(), NO_OVERRIDE
        ).ravel()

    def _learn_from_probe(self, rollout: Rollout, probing: Bools) -> NDArray[np.float64]:
        """Initialize fresh masters; returns the scores (G, K) of the skills alone, or NaN."""
        alone = np.full((self.method.groups, self.method.skills), np.nan)
        if not probing.any():
            return alone
        totals = self.groups.by_group(rollout.reward.sum(axis=0, dtype=np.float64))
        ticks = self.groups.by_group(rollout.counted_ticks(self.family.ticks))
        totals = self.groups.all_gather(totals) * (
            self.family.ticks / self.groups.all_gather(ticks)
        )
        for g in np.flatnonzero(probing).tolist():
            task = int(self.schedule.tasks[g])
            returns = self.scores.returns(totals[g], task)  # per episode
            first_guess, alone[g] = self.probe.bias(returns, task), self.probe.alone(returns)
            row = self.groups.row(g)
            if row is not None:
                _, bias = self.agent.masters.policy.layers(row)[-1]
                bias[:] = first_guess
        return alone

    def _reset_redundant_skill(self) -> int | None:
        """Reset a skill that no task needs; returns its number, if there is one."""
        if self.freeze_skills:
            return None
        skill = self.probe.redundant_skill(self.iteration / self.config.iterations)
        if skill is not None:
            rng = generator(self.config.seed, Stream.INIT, 2, self.iteration)
            self.agent.skills.reset(skill, rng)
            self.probe.reset(skill)
        return skill

    # Updates ------------------------------------------------------------------------------

    def _update_masters(self, rollout: Rollout, active: Bools) -> UpdateStats:
        local, method, all_reduce = self.groups.local, self.method, self.groups.all_reduce
        rewards = self.scaled_rewards(rollout, self.config.master.gamma, self.decision_unit)
        rewards = replace(rewards, reward=rewards.reward + self._information(rollout))
        samples = master_samples(self.agent.masters, rollout, rewards, local(active), method)
        samples = normalize_advantages(samples, method.master_advantage, everyone=all_reduce)
        report = ppo_update(
            self.agent.masters, samples, self._shuffle_masters, entropy=self._entropy()
        )
        return mean_report(report, sum(len(s) > 0 for s in samples), self.groups)

    def _update_skills(self, rollout: Rollout, joint: Bools) -> UpdateStats:
        all_reduce = self.groups.all_reduce
        rewards = self.scaled_rewards(rollout, self.config.skill.gamma, 1)
        samples = skill_samples(
            self.agent.skills,
            rollout,
            rewards,
            self.groups.local(joint),
            self.method,
            with_following=self.config.regularization.temporal_smoothness > 0,
            noise=self._smoothness_noise(rollout),
        )
        samples = normalize_advantages(samples, "group", own=all_reduce, everyone=all_reduce)
        return ppo_update(
            self.agent.skills,
            samples,
            self._shuffle_skills,
            regularizer=self._regularizer(),
            all_reduce=all_reduce,
            pool=self.pool,
        )

    def _regularizer(self) -> Regularizer | None:
        """Penalties and mirrored samples of this update; None without any."""
        config, symmetry = self.config.regularization, self.symmetry
        if not config.smooths and symmetry is None:
            return None
        tasks = self.groups.local(self.schedule.tasks)
        symmetric = np.zeros(len(tasks), bool) if symmetry is None else symmetry.tasks[tasks]
        return Regularizer(config, symmetry, self.agent.normalizer, symmetric)

    def _smoothness_noise(self, rollout: Rollout) -> Float32 | None:
        """(T, B, O) noise of observations for the spatial smoothness."""
        config = self.config.regularization
        if not config.spatial_smoothness:
            return None
        ticks, _, size = rollout.raw.shape
        noise = self.collector.by_group(
            Stream.SMOOTHNESS,
            self.iteration,
            lambda r, envs: r.standard_normal((ticks, envs, size), np.float32),
        )
        return np.asarray(np.float32(config.spatial_deviation) * noise)

    @property
    def decision_unit(self) -> int:
        """Ticks whose normalized rewards are one unit of a master's value function."""
        return self.method.decision_ticks if self.method.scaled_returns else 1

    def scaled_rewards(self, rollout: Rollout, gamma: float, ticks: int) -> ScaledRewards:
        """Rewards of a level in the unit of its value functions, that of `ticks` ticks."""
        task = np.repeat(self.groups.local(self.schedule.tasks), self.method.envs)
        reward = self.units.rewards(rollout.reward, task) / np.float32(ticks)
        return ScaledRewards(reward, self.units.terminal(task, gamma, ticks))

    def _information(self, rollout: Rollout) -> Float32:
        """(T, B) bonus for choices that distinguish a group's task, decaying over the training.

        In units of what a decision can earn.
        """
        weight = self.method.mutual_information_coef * (
            1 - self.iteration / self.config.iterations
        )
        if weight <= 0 or self.freeze_skills:
            return np.zeros_like(rollout.reward)
        bits = task_information(rollout, self.schedule.tasks, self.groups, self.method.skills)
        method = self.method
        best = 1.0 if method.scaled_returns else method.decision_ticks * self.scores.span.max()
        bonus: Float32 = (weight * best * bits).astype(np.float32)
        return bonus

    def _entropy(self) -> list[float]:
        """Coefficient of each master's entropy: it decays to zero during the warm-up."""
        left = self.groups.local(self.schedule.warmup_left)
        coefficients: list[float] = (self.config.master.entropy * left).tolist()
        return coefficients

    def _shuffle_masters(self, row: int, group: int) -> np.random.Generator:
        number = self.groups.group_ids[group]
        return generator(self.config.seed, Stream.SHUFFLE, self.iteration, number)

    def _shuffle_skills(self, row: int, group: int) -> np.random.Generator:
        place = self.groups.group_ids[group] * self.method.skills + row
        return generator(self.config.seed, Stream.SHUFFLE_SKILLS, self.iteration, place)

    # State --------------------------------------------------------------------------------

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The complete state as arrays, to continue bit for bit; independent of the ranks."""
        return {
            **self.groups.gather_state({**self.agent.state(), **self.collector.state()}),
            **self.probe.state(),
            "iteration": np.array(self.iteration),
            **self.schedule.state(),
        }

    def restore(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Restore from arrays of `state`.

        Raises:
            KeyError: an array is missing.
            ValueError: an array has another shape: the state is of another configuration.
        """
        own = self.groups.local_state(arrays)
        self.agent.restore(own)
        self.collector.restore(own)
        self.probe.restore(arrays)
        self.iteration = int(arrays["iteration"])
        self.schedule.restore(arrays)
