"""Meta Learning Shared Hierarchies (Frans et al. 2017).

    on every new task:  a fresh master
      W updates:        the master alone learns to use the skills as they are     (warm-up)
      U updates:        master and skills learn together                          (joint phase)

G groups do this at the same time, staggered, each with its own task and master; the skills are
shared by all. `task_schedule.py` assigns tasks to groups, `rollout.py` collects experience,
`updates.py` learns from it, `skill_probe.py` prevents collapse.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.assembly import make_agent, make_env
from policies.mlsh.config import TrainConfig
from policies.mlsh.config_checks import check_sizes
from policies.mlsh.curriculum_config import grown
from policies.mlsh.distributed import ALONE, Ranks
from policies.mlsh.iteration import (
    Iteration,
    group_statistics,
    reward_terms,
    skill_distance,
    state_information,
)
from policies.mlsh.local_groups import LocalGroups
from policies.mlsh.reward_normalization import RewardNormalization
from policies.mlsh.rollout import NO_OVERRIDE, Bools, Collector, Rollout
from policies.mlsh.skill_probe import Probe
from policies.mlsh.symmetry import find_symmetry
from policies.mlsh.task_schedule import NewTask, TaskSchedule
from policies.mlsh.updates import Updates
from sim.envs.reference_returns import ReferenceReturns, all_reference_returns
from sim.physics.robot_model import load_robot
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
        own_tasks = self.groups.local(self.schedule.tasks)
        self.env = make_env(config, self.robot, self.family, self.groups, own_tasks)
        self.agent = make_agent(config, self.env, self.groups)
        self.iteration = 0
        if not freeze_skills:
            self._apply_schedules()
        self.collector = Collector(
            self.env, self.agent, method, config.seed, config.exploration.correlation
        )
        for task, returns in zip(self.family.tasks, self.reference_returns, strict=True):
            returns.check(f"{self.family.name}/{task}")
        # Known beforehand: a spread of returns that are estimates themselves would grow by its
        # own influence.
        self.scores = RewardNormalization.of(self.reference_returns, self.family.ticks)
        self.probe = Probe(method, len(self.family.tasks))
        symmetry = None if freeze_skills else find_symmetry(config, self.robot, self.family)
        self.updates = Updates(
            config, self.agent, self.groups, self.schedule, self.scores, self.collector, symmetry
        )

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
            self._apply_schedules()
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
        updates, bonus = self.updates, not self.freeze_skills
        master = updates.update_masters(rollout, ~probing, self.iteration, bonus=bonus)
        skill = None
        if not self.freeze_skills:
            if joint.any():
                skill = updates.update_skills(rollout, joint, self.iteration)
            updates.update_statistics(rollout)
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

    def _apply_schedules(self) -> None:
        """Set what changes with the steps of a training: costs, difficulty and exploration."""
        config, world = self.config, self.env.world
        progress = self.iteration / config.iterations
        curriculum, initial = config.curriculum, math.exp(config.network.initial_log_std)
        if world.terms is not None:
            world.terms.cost_scale = curriculum.cost_scale_at(progress)
        if world.varied is not None:
            world.varied.spread = grown(progress, curriculum.randomization_until)
        world.difficulty = grown(progress, curriculum.difficulty_until)
        self.agent.limit_std(config.exploration.std_limit_at(progress, initial))

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
