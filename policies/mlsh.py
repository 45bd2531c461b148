"""Meta Learning Shared Hierarchies (Frans et al. 2017).

    on every new task:  a fresh master
      W updates:        the master alone learns to use the skills as they are     (warm-up)
      U updates:        master and skills learn together                          (joint phase)

G groups do this at the same time, staggered, each with its own task and master; the skills are
shared by all. Over many tasks the skills become those that masters can make the most of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from policies.advantage import master_advantages, skill_advantages
from policies.agent import Agent, put
from policies.collapse import Probe
from policies.config import TrainConfig
from policies.ppo import Report, Samples, ppo_update
from policies.rollout import NOBODY, Collector, Rollout
from sim.bounds import Bounds, all_bounds
from sim.registry import make_family
from sim.robot import load_robot
from sim.seeding import Stream, generator
from sim.vec_env import TaskVectorEnv

# Observations (n, O) and the row of the level to ask (n,), to values (n,).
Values = Callable[[NDArray[np.float32], NDArray[np.intp]], NDArray[np.float32]]


@dataclass(frozen=True)
class Iteration:
    """What one iteration did."""

    number: int
    steps: int  # environment steps so far
    age: NDArray[np.int64]  # (G,) updates of each group on its task, before this one
    task: NDArray[np.intp]  # (G,)
    returns: NDArray[np.float64]  # (G,) mean return per `family.ticks` ticks
    success: NDArray[np.float64]  # (G,) fraction of episodes
    usage: NDArray[np.float64]  # (G, K) fraction of ticks
    probing: NDArray[np.bool_]  # (G,)
    master: Report
    skill: Report | None
    reseeded: int | None  # the skill that was started anew


class Mlsh:
    """The learner: call `iterate` until satisfied.

    Args:
        config: everything the run depends on.
        adapt_only: freeze the skills and never change the tasks: masters learn, nothing else.
        tasks: (G,) fixed task of each group, only with `adapt_only`.
    """

    def __init__(
        self, config: TrainConfig, *, adapt_only: bool = False, tasks: list[int] | None = None
    ) -> None:
        torch.set_num_threads(1)  # the simulator gets the cores
        self.config, self.method = config, config.mlsh
        self.adapt_only = adapt_only
        self.robot = load_robot(config.robot)
        self.family = make_family(config.family, config.family_parameters)
        method = self.method
        if tasks is None:
            tasks = self._first_tasks()
        self.env = TaskVectorEnv(
            self.robot,
            self.family,
            groups=method.groups,
            envs=method.envs,
            seed=config.seed,
            threads=config.threads,
            tasks=tasks,
        )
        interface = self.env.interface
        self.agent = Agent(
            observation_size=interface.observation_size,
            action_size=interface.action_size,
            skills=method.skills,
            groups=method.groups,
            network=config.network,
            master=config.master,
            skill=config.skill,
            seed=config.seed,
        )
        self.agent.masters.scaled = self.agent.skills.scaled = method.scaled_returns
        self.collector = Collector(self.env, self.agent, method, config.seed)
        floor = float(np.mean([b.random for b in self.bounds]))
        span = float(np.mean([b.optimum for b in self.bounds])) - floor
        self.probe = Probe(method, floor, span)
        self.iteration = 0
        self.masters_made = method.groups
        self.fresh = np.ones(method.groups, bool)  # master has not been updated on its task yet
        # Staggered, so that the skills always learn from groups on several tasks.
        period = method.warmup + method.joint
        stagger = np.arange(method.groups) * period // method.groups
        self.age = np.zeros(method.groups, np.int64) if adapt_only else stagger

    @cached_property
    def bounds(self) -> list[Bounds]:
        """Of every task of the family."""
        # A family is a frozen dataclass, which its Protocol cannot say.
        return all_bounds(self.robot, self.family)  # type: ignore[arg-type]

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return self.iteration * self.method.steps_per_iteration

    def iterate(self) -> Iteration:
        """One rollout of every group and the updates it allows."""
        if not self.adapt_only:
            self._change_tasks()
        probing = self.fresh & (self.method.probe != "none")
        rollout = self.collector.collect(
            self.iteration,
            ticks=self.method.rollout_ticks,
            forced=self._forced(probing),
            greedy_skills=self.adapt_only,  # frozen skills act as they do on a robot
        )
        reseeded = self._learn_from_probe(rollout, probing)
        master = self._update_masters(rollout, ~probing)
        joint = (self.age >= self.method.warmup) & (not self.adapt_only)
        skill = self._update_skills(rollout, joint) if joint.any() else None
        if self.agent.learns_statistics and not self.adapt_only:
            self.agent.normaliser.update(rollout.raw)
        age = self.age.copy()
        self.age += 1
        self.fresh[:] = False
        self.iteration += 1
        return self._describe(rollout, age, probing, master, skill, reseeded)

    # Tasks --------------------------------------------------------------------------------

    def _first_tasks(self) -> list[int]:
        tasks: list[int] = []
        for g in range(self.method.groups):
            rng = generator(self.config.seed, Stream.TASKS, 0, g)
            tasks.append(self._draw_task(np.array(tasks, np.intp), rng))
        return tasks

    def _draw_task(self, others: NDArray[np.intp], rng: np.random.Generator) -> int:
        """A task at random; when balanced, one of those that the fewest other groups have."""
        count = np.bincount(others, minlength=len(self.family.tasks))
        if self.method.balanced_tasks:
            return int(rng.choice(np.flatnonzero(count == count.min())))
        return int(rng.integers(len(count)))

    def _change_tasks(self) -> None:
        finished = np.flatnonzero(self.age >= self.method.warmup + self.method.joint)
        for g in finished.tolist():
            rng = generator(self.config.seed, Stream.TASKS, self.iteration + 1, g)
            self.collector.begin_group(g, self._draw_task(np.delete(self.env.tasks, g), rng))
            self._fresh_master(g)
            self.age[g], self.fresh[g] = 0, True

    def _fresh_master(self, group: int) -> None:
        which = group if self.method.same_init else self.masters_made
        rng = generator(self.config.seed, Stream.INIT, 1, which)
        self.agent.masters.fresh(group, rng, adam=self.method.fresh_adam)
        self.masters_made += 1

    # Probe --------------------------------------------------------------------------------

    def _forced(self, probing: NDArray[np.bool_]) -> NDArray[np.intp] | None:
        if not probing.any():
            return None
        forced = np.where(probing[:, None], self.probe.plan(), NOBODY)
        return forced.ravel()

    def _learn_from_probe(self, rollout: Rollout, probing: NDArray[np.bool_]) -> int | None:
        totals = rollout.reward.sum(axis=0, dtype=np.float64).reshape(self.method.groups, -1)
        totals *= self.family.ticks / self.method.rollout_ticks  # per episode
        for g in np.flatnonzero(probing).tolist():
            _, bias = self.agent.masters.policy.layers(g)[-1]
            bias[:] = self.probe.bias(totals[g])
        skill = None if self.adapt_only or not probing.any() else self.probe.dispensable()
        if skill is not None:
            rng = generator(self.config.seed, Stream.INIT, 2, self.iteration)
            self.agent.skills.fresh(skill, rng)
            self.probe.clear()
        return skill

    # Updates ------------------------------------------------------------------------------

    def _update_masters(self, rollout: Rollout, active: NDArray[np.bool_]) -> Report:
        level, ppo = self.agent.masters, self.config.master
        group = np.repeat(np.arange(self.method.groups), self.method.envs)
        value = np.zeros_like(rollout.reward)
        t, b = np.nonzero(rollout.decided)
        value[t, b] = level.values(rollout.decision_obs[t, b], group[b])
        asked = np.broadcast_to(group, rollout.reward.shape)
        end = self._end_values(rollout, level.values, asked)
        last = level.values(rollout.obs[-1], group) * self.method.bootstrap_truncated
        advantage = master_advantages(
            rollout.reward,
            rollout.decided,
            value,
            rollout.done,
            end,
            last.astype(np.float32),
            gamma=ppo.gamma,
            gae_lambda=ppo.gae_lambda,
        )
        samples, targets = [], []
        for g in range(self.method.groups):
            mine = (group[b] == g) & active[g]
            at = t[mine], b[mine]
            target = advantage[at] + value[at]
            targets.append(target)
            samples.append(
                Samples(
                    obs=rollout.decision_obs[at],
                    action=rollout.skill[at],
                    log_prob=rollout.decision_log_prob[at],
                    advantage=advantage[at],
                    value=value[at],
                    target=target,
                )
            )
        if active.any():
            level.returns.update(np.concatenate(targets)[:, None])
        samples = normalise_advantages(samples, self.method.master_advantage)
        rng = generator(self.config.seed, Stream.SHUFFLE, self.iteration, 0)
        return ppo_update(level, samples, rng)

    def _update_skills(self, rollout: Rollout, joint: NDArray[np.bool_]) -> Report:
        level, ppo, method = self.agent.skills, self.config.skill, self.method
        columns = np.flatnonzero(np.repeat(joint, method.envs))
        reward, skill = rollout.reward[:, columns], rollout.skill[:, columns]
        obs, done = rollout.obs[:, columns], rollout.done[:, columns]

        def values(o: NDArray[np.float32], z: NDArray[np.intp]) -> NDArray[np.float32]:
            return level.values(o.reshape(-1, o.shape[-1]), z.ravel()).reshape(z.shape)

        value = values(obs[:-1], skill)
        following = np.concatenate([skill[1:], skill[-1:]])
        same = method.skill_bootstrap == "same"
        next_value = values(obs[1:], skill if same else following)
        end = self._end_values(rollout, level.values, rollout.skill)
        next_value = np.where(done, end[:, columns], next_value)
        if not method.bootstrap_truncated:
            next_value[-1] = 0
        cut = done | (following != skill) if same else done
        advantage = skill_advantages(
            reward, value, next_value, cut, gamma=ppo.gamma, gae_lambda=ppo.gae_lambda
        )
        target = advantage + value
        level.returns.update(target.reshape(-1, 1))
        samples = []
        for k in range(method.skills):
            mine = skill == k
            samples.append(
                Samples(
                    obs=obs[:-1][mine],
                    action=rollout.action[:, columns][mine],
                    log_prob=rollout.log_prob[:, columns][mine],
                    advantage=advantage[mine],
                    value=value[mine],
                    target=target[mine],
                )
            )
        rng = generator(self.config.seed, Stream.SHUFFLE, self.iteration, 1)
        return ppo_update(level, normalise_advantages(samples, "group"), rng)

    def _end_values(
        self, rollout: Rollout, values: Values, asked: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """(T, B) what follows the end of an episode: the final observation's value if truncated.

        Args:
            rollout: where episodes ended.
            values: of the level.
            asked: (T, B) the value function that is asked.

        Returns:
            Zero after a termination and where no episode ended.
        """
        end = np.zeros_like(rollout.reward)
        t, b = rollout.final_at.T
        keep = rollout.truncated[t, b] & self.method.bootstrap_truncated
        end[t, b] = np.where(keep, values(rollout.final_obs, asked[t, b]), 0)
        return end

    # Report -------------------------------------------------------------------------------

    def _describe(
        self,
        rollout: Rollout,
        age: NDArray[np.int64],
        probing: NDArray[np.bool_],
        master: Report,
        skill: Report | None,
        reseeded: int | None,
    ) -> Iteration:
        groups, k = self.method.groups, self.method.skills
        episodes = self.method.envs * self.method.rollout_ticks / self.family.ticks
        by_group = rollout.reward.sum(axis=0, dtype=np.float64).reshape(groups, -1).sum(axis=1)
        ended = rollout.done.sum(axis=0).reshape(groups, -1).sum(axis=1)
        solved = rollout.success.sum(axis=0).reshape(groups, -1).sum(axis=1)
        one_hot = rollout.skill[..., None] == np.arange(k)
        usage = one_hot.mean(axis=0).reshape(groups, -1, k).mean(axis=1)
        return Iteration(
            number=self.iteration,
            steps=self.steps,
            age=age,
            task=self.env.tasks.copy(),
            returns=by_group / episodes,
            success=solved / np.maximum(ended, 1),
            usage=usage,
            probing=probing,
            master=master,
            skill=skill,
            reseeded=reseeded,
        )

    # State --------------------------------------------------------------------------------

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything needed to go on bit for bit, as arrays."""
        return {
            **self.agent.state(),
            **self.collector.state(),
            **self.probe.state(),
            "iteration": np.array(self.iteration),
            "masters_made": np.array(self.masters_made),
            "age": self.age.copy(),
            "fresh": self.fresh.copy(),
        }

    def restore(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Read back what `state` wrote.

        Raises:
            KeyError: an array is missing.
            ValueError: an array has another shape: the state is of another configuration.
        """
        self.agent.restore(arrays)
        self.collector.restore(arrays)
        self.probe.restore(arrays)
        self.iteration = int(arrays["iteration"])
        self.masters_made = int(arrays["masters_made"])
        put(arrays, "age", self.age)
        put(arrays, "fresh", self.fresh)


def normalise_advantages(samples: list[Samples], how: str) -> list[Samples]:
    """Advantages of comparable size for each policy.

    group: zero mean and unit deviation for each. global: over all together. centred: zero mean
    for each, divided by the deviation over all, so that a group whose returns are only noise does
    not turn the noise into full-size updates.
    """
    full = [s.advantage for s in samples if len(s)]
    if not full:
        return samples
    everything = np.concatenate(full)
    centred = np.concatenate([a - a.mean() for a in full])
    out = []
    for s in samples:
        if not len(s):
            out.append(s)
            continue
        if how == "group":
            mean, deviation = s.advantage.mean(), s.advantage.std()
        elif how == "global":
            mean, deviation = everything.mean(), everything.std()
        else:
            mean, deviation = s.advantage.mean(), centred.std()
        out.append(
            replace(s, advantage=((s.advantage - mean) / (deviation + 1e-8)).astype(np.float32))
        )
    return out
