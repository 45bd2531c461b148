"""Meta Learning Shared Hierarchies (Frans et al. 2017).

    on every new task:  a fresh master
      W updates:        the master alone learns to use the skills as they are     (warm-up)
      U updates:        master and skills learn together                          (joint phase)

G groups do this at the same time, staggered, each with its own task and master; the skills are
shared by all. Over many tasks the skills become those that masters can make the most of.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.actor_critic import Agent, put
from policies.mlsh.config import NetworkConfig, TrainConfig
from policies.mlsh.distributed import Ranks, T
from policies.mlsh.gae import master_advantages, skill_advantages
from policies.mlsh.losses import Samples
from policies.mlsh.networks import Total, alone
from policies.mlsh.ppo import Report, ppo_update
from policies.mlsh.rollout import NOBODY, Collector, Rollout
from policies.mlsh.skill_metrics import distance
from policies.mlsh.skill_probe import Probe
from sim.envs.reference_returns import Bounds, all_bounds
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError, unknown
from sim.interface import Interface
from sim.physics.robot_model import load_robot
from sim.randomization.schema import read_ranges
from sim.seeding import Stream, generator
from sim.tasks.registry import make_family

# Observations (n, O) and the row of the level to ask (n,), to values (n,).
Values = Callable[[NDArray[np.float32], NDArray[np.intp]], NDArray[np.float32]]


ALONE = Ranks()


@dataclass(frozen=True)
class Iteration:
    """What one iteration did."""

    number: int
    steps: int  # environment steps so far
    age: NDArray[np.int64]  # (G,) updates of each group on its task, before this one
    task: NDArray[np.intp]  # (G,)
    returns: NDArray[np.float64]  # (G,) mean return per `family.ticks` ticks
    success: NDArray[np.float64]  # (G,) fraction of episodes
    usage: NDArray[np.float64]  # (G, K) fraction of the ticks that a master decided about
    probing: NDArray[np.bool_]  # (G,)
    distance: float  # between the nearest two skills, 0 to 1 (policies.mlsh.skill_metrics)
    master: Report
    skill: Report | None
    reseeded: int | None  # the skill that was started anew
    diverged: int  # simulations that failed since training began or was resumed

    @property
    def not_finite(self) -> str:
        """The losses that are no numbers any more, by name; empty if all are."""
        levels = {"master": self.master, "skill": self.skill}
        return ", ".join(
            f"{level}/{name}"
            for level, report in levels.items()
            for name, value in (vars(report) if report else {}).items()
            if not math.isfinite(value)
        )


# A thread costs memory and a start; the rest is what a rollout is held in.
MAX_THREADS, MAX_SKILLS, MAX_LAYERS, MAX_UNITS = 1024, 1000, 16, 16_384
MAX_SIMULATIONS, MAX_ROLLOUT = 100_000, 100_000_000


class Mlsh:
    """The learner: call `iterate` until satisfied.

    Args:
        config: everything the run depends on.
        adapt_only: freeze the skills and never change the tasks: masters learn, nothing else.
        tasks: (G,) fixed task of each group, only with `adapt_only`.
        ranks: the processes that share the groups. What concerns all groups is worked out by
            each of them alike; its rollouts and masters are of its own groups only.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        adapt_only: bool = False,
        tasks: list[int] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        check_sizes(config)
        self.config, self.method = config, config.mlsh
        self.adapt_only, self.ranks = adapt_only, ranks
        self.robot = load_robot(config.robot)
        self.family = make_family(config.family, config.family_parameters)
        method = self.method
        self.numbers = mine = ranks.share(method.groups)
        self.mine = slice(mine.start, None, mine.step)
        self.tasks = np.array(self._first_tasks() if tasks is None else tasks, np.intp)  # (G,)
        self.env = TaskVectorEnv(
            self.robot,
            self.family,
            groups=len(mine),
            envs=method.envs,
            seed=config.seed,
            threads=config.threads,
            tasks=self.tasks[self.mine],
            numbers=mine,
            reality=config.reality,
            randomise=read_ranges(self.robot) if config.randomise else None,
        )
        interface = self.env.interface
        self.agent = Agent(
            observation_size=interface.observation_size,
            action_size=interface.action_size,
            skills=method.skills,
            groups=len(mine),
            network=config.network,
            master=config.master,
            skill=config.skill,
            seed=config.seed,
            numbers=mine,
            blind=_columns(interface, config.network, "hidden_from_skills"),
            blind_masters=_columns(interface, config.network, "hidden_from_masters"),
        )
        # What a tick and a decision can earn. Known beforehand: a spread of returns that are
        # estimates themselves would grow by its own influence.
        best = max(max(abs(b.random), abs(b.optimum)) for b in self.bounds) or 1.0
        tick = best / self.family.ticks
        self.stake = tick * method.decision_ticks
        if method.scaled_returns:
            self.agent.skills.unit, self.agent.masters.unit = tick, self.stake
        self.collector = Collector(self.env, self.agent, method, config.seed)
        floor = float(np.mean([b.random for b in self.bounds]))
        span = float(np.mean([b.optimum for b in self.bounds])) - floor
        self.probe = Probe(method, floor, span)
        self.pool = ThreadPoolExecutor(config.threads) if config.threads > 1 else None
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
            forced=self._forced(probing[self.mine]),
            greedy_skills=self.adapt_only,  # frozen skills act as they do on a robot
            stray=not self.adapt_only,
        )
        reseeded = self._learn_from_probe(rollout, probing)
        master = self._update_masters(rollout, ~probing)
        joint = (self.age >= self.method.warmup) & (not self.adapt_only)
        skill = self._update_skills(rollout, joint) if joint.any() else None
        if self.agent.learns_statistics and not self.adapt_only:
            self.agent.normaliser.update(rollout.raw, self.ranks.total)
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
            self.tasks[g] = self._draw_task(np.delete(self.tasks, g), rng)
            if g in self.numbers:
                self.collector.begin_group(self.numbers.index(g), int(self.tasks[g]))
                self._fresh_master(g)
            self.masters_made += 1
            self.age[g], self.fresh[g] = 0, True

    def _fresh_master(self, group: int) -> None:
        which = group if self.method.same_init else self.masters_made
        rng = generator(self.config.seed, Stream.INIT, 1, which)
        own = self.numbers.index(group)
        self.agent.masters.fresh(own, rng, adam=self.method.fresh_adam)

    # Probe --------------------------------------------------------------------------------

    def _forced(self, probing: NDArray[np.bool_]) -> NDArray[np.intp] | None:
        if not probing.any():
            return None
        forced = np.where(probing[:, None], self.probe.plan(), NOBODY)
        return forced.ravel()

    def _learn_from_probe(self, rollout: Rollout, probing: NDArray[np.bool_]) -> int | None:
        if not probing.any():
            return None
        totals = rollout.reward.sum(axis=0, dtype=np.float64).reshape(self.env.groups, -1)
        totals = self._gather(totals) * (self.family.ticks / self.method.rollout_ticks)
        for g in np.flatnonzero(probing).tolist():
            first_guess = self.probe.bias(totals[g])  # per episode
            if g in self.numbers:
                _, bias = self.agent.masters.policy.layers(self.numbers.index(g))[-1]
                bias[:] = first_guess
        skill = None if self.adapt_only else self.probe.dispensable()
        if skill is not None:
            rng = generator(self.config.seed, Stream.INIT, 2, self.iteration)
            self.agent.skills.fresh(skill, rng)
            self.probe.clear()
        return skill

    # Updates ------------------------------------------------------------------------------

    def _update_masters(self, rollout: Rollout, active: NDArray[np.bool_]) -> Report:
        level, ppo = self.agent.masters, self.config.master
        group = np.repeat(np.arange(self.env.groups), self.method.envs)
        value = np.zeros_like(rollout.reward)
        t, b = np.nonzero(rollout.decided)
        value[t, b] = level.values(rollout.decision_obs[t, b], group[b])
        asked = np.broadcast_to(group, rollout.reward.shape)
        end = self._end_values(rollout, level.values, asked)
        last = level.values(rollout.obs[-1], group) * self.method.bootstrap_truncated
        advantage = master_advantages(
            rollout.reward + self._information(rollout),
            rollout.decided,
            value,
            rollout.done,
            end,
            last.astype(np.float32),
            gamma=ppo.gamma,
            gae_lambda=ppo.gae_lambda,
        )
        samples = []
        chosen = ~rollout.astray[t, b]
        for g in range(self.env.groups):
            mine = (group[b] == g) & active[self.mine][g] & chosen
            at = t[mine], b[mine]
            samples.append(
                Samples(
                    obs=rollout.decision_obs[at],
                    action=rollout.skill[at],
                    log_prob=rollout.decision_log_prob[at],
                    advantage=advantage[at],
                    value=value[at],
                    target=advantage[at] + value[at],
                    group=group[b[mine]],
                )
            )
        samples = normalise_advantages(
            samples, self.method.master_advantage, everyone=self.ranks.total
        )
        report = ppo_update(level, samples, self._shuffle_masters, entropy=self._entropy())
        return self._mean(report, sum(len(s) > 0 for s in samples))

    def _update_skills(self, rollout: Rollout, joint: NDArray[np.bool_]) -> Report:
        level, ppo, method = self.agent.skills, self.config.skill, self.method
        columns = np.flatnonzero(np.repeat(joint[self.mine], method.envs))
        reward, skill = rollout.reward[:, columns], rollout.skill[:, columns]
        obs, done = rollout.obs[:, columns], rollout.done[:, columns]
        chosen = ~rollout.astray[:, columns]
        group = np.broadcast_to(columns // method.envs, reward.shape)

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
        total = self.ranks.total
        samples = []
        for k in range(method.skills):
            mine = (skill == k) & chosen
            samples.append(
                Samples(
                    obs=obs[:-1][mine],
                    action=rollout.action[:, columns][mine],
                    log_prob=rollout.log_prob[:, columns][mine],
                    advantage=advantage[mine],
                    value=value[mine],
                    target=target[mine],
                    group=group[mine],
                )
            )
        samples = normalise_advantages(samples, "group", own=total, everyone=total)
        return ppo_update(level, samples, self._shuffle_skills, total=total, pool=self.pool)

    def _information(self, rollout: Rollout) -> NDArray[np.float32]:
        """(T, B) bonus for choices that tell a group's task from the others, less and less.

        A choice of skill z is worth log p(z | task) - log p(z), whose mean is I(z; task), in units
        of what a decision can earn.
        """
        bonus = np.zeros_like(rollout.reward)
        weight = self.method.information * (1 - self.iteration / self.config.iterations)
        if weight <= 0 or self.adapt_only:
            return bonus
        chosen = rollout.decided & ~rollout.astray
        one_hot = chosen[..., None] & (rollout.skill[..., None] == np.arange(self.method.skills))
        count = one_hot.sum(axis=0).reshape(self.env.groups, -1, self.method.skills).sum(axis=1)
        chance = self._gather((count + 1) / (count + 1).sum(axis=1, keepdims=True))  # (G, K)
        same = self.tasks[:, None] == self.tasks
        by_task = same @ chance / same.sum(axis=1, keepdims=True)  # (G, K) of each group's task
        apart = np.log(by_task / chance.mean(axis=0))[self.mine]
        each = np.repeat(apart, self.method.envs, axis=0)  # (B, K)
        values = np.take_along_axis(
            np.broadcast_to(each, one_hot.shape), rollout.skill[..., None], axis=-1
        )[..., 0]
        bonus[chosen] = weight * self.stake * values[chosen]
        return bonus

    def _entropy(self) -> list[float]:
        """Coefficient of each master's entropy: it falls to zero while the master warms up."""
        left = 1 - self.age[self.mine] / max(1, self.method.warmup)
        coefficients: list[float] = (self.config.master.entropy * left.clip(min=0)).tolist()
        return coefficients

    def _mean(self, report: Report, policies: int) -> Report:
        """Of the reports of all processes, each of so many policies."""
        sums = self.ranks.total(policies * np.array([1, *vars(report).values()]))
        return Report(*(sums[1:] / max(1, sums[0])).tolist())

    def _shuffle_masters(self, row: int, group: int) -> np.random.Generator:
        return generator(self.config.seed, Stream.SHUFFLE, self.iteration, self.numbers[group])

    def _shuffle_skills(self, row: int, group: int) -> np.random.Generator:
        place = self.numbers[group] * self.method.skills + row
        return generator(self.config.seed, Stream.SHUFFLE_SKILLS, self.iteration, place)

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
        groups, k = self.env.groups, self.method.skills
        episodes = self.method.envs * self.method.rollout_ticks / self.family.ticks
        by_group = rollout.reward.sum(axis=0, dtype=np.float64).reshape(groups, -1).sum(axis=1)
        ended = rollout.done.sum(axis=0).reshape(groups, -1).sum(axis=1)
        solved = rollout.success.sum(axis=0).reshape(groups, -1).sum(axis=1)
        chosen = ~rollout.astray[..., None] & (rollout.skill[..., None] == np.arange(k))
        count = chosen.sum(axis=0).reshape(groups, -1, k).sum(axis=1)
        usage = count / np.maximum(1, count.sum(axis=1, keepdims=True))
        gather = self._gather
        return Iteration(
            number=self.iteration,
            steps=self.steps,
            age=age,
            task=self.tasks.copy(),
            returns=gather(by_group / episodes),
            success=gather(solved / np.maximum(ended, 1)),
            usage=gather(usage),
            probing=probing,
            distance=self._distance(rollout),
            master=master,
            skill=skill,
            reseeded=reseeded,
            diverged=int(self.ranks.total(np.array([self.env.diverged], np.float64))[0]),
        )

    def _distance(self, rollout: Rollout) -> float:
        """Of the skills' mean actions, where they were used; see `usage.distance`."""
        seen = rollout.obs[:-1].reshape(-1, rollout.obs.shape[-1])
        level = self.agent.skills.policy
        return distance([partial(level.forward_row, k) for k in range(self.method.skills)], seen)

    # State --------------------------------------------------------------------------------

    def _gather(self, mine: NDArray[T]) -> NDArray[T]:
        """Rows of every group, or of its simulations, from the rows of this process."""
        return self.ranks.gather(mine, self.env.groups)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything needed to go on bit for bit, as arrays; the same for any number of ranks."""
        own = {**self.agent.state(), **self.collector.state()}
        return {
            **{name: self._gather(a) if _shared(name, a) else a for name, a in own.items()},
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
        own = {
            name: self.ranks.own(a, self.env.groups) if _shared(name, a) else a
            for name, a in arrays.items()
        }
        self.agent.restore(own)
        self.collector.restore(own)
        self.probe.restore(arrays)
        self.iteration = int(arrays["iteration"])
        self.masters_made = int(arrays["masters_made"])
        put(arrays, "age", self.age)
        put(arrays, "fresh", self.fresh)
        put(arrays, "env.tasks", self.tasks)


def check_names(config: TrainConfig) -> None:
    """Refuse what the configuration names and its robot and family do not have.

    Raises:
        UserError: names it, and what there is.
    """
    check_sizes(config)
    family = make_family(config.family, config.family_parameters)
    if config.mlsh.decision_ticks > family.ticks:
        raise UserError(
            f"mlsh.decision_ticks {config.mlsh.decision_ticks}: an episode of {config.family} has "
            f"{family.ticks} ticks, so that its master would decide once and never again; at most "
            f"{family.ticks}"
        )
    interface = load_robot(config.robot).interface.with_terms(family.terms)
    for setting in ("hidden_from_skills", "hidden_from_masters"):
        _columns(interface, config.network, setting)


def check_sizes(config: TrainConfig) -> None:
    """Refuse what no computer holds, before anything is allocated for it.

    Raises:
        UserError: names the setting, what it comes to, and the most that is accepted.
    """
    method = config.mlsh
    simulations = method.groups * method.envs
    for what, value, most in (
        ("threads", config.threads, MAX_THREADS),
        ("mlsh.skills", method.skills, MAX_SKILLS),
        ("mlsh.groups x mlsh.envs, simulations,", simulations, MAX_SIMULATIONS),
        (
            "mlsh.groups x mlsh.envs x mlsh.rollout_ticks, steps of a rollout,",
            simulations * method.rollout_ticks,
            MAX_ROLLOUT,
        ),
        ("network.hidden, units of a layer,", max(config.network.hidden, default=0), MAX_UNITS),
        ("network.hidden, layers,", len(config.network.hidden), MAX_LAYERS),
    ):
        if value > most:
            raise UserError(f"{what} {value:,}: at most {most:,} are accepted")


def _columns(interface: Interface, network: NetworkConfig, setting: str) -> list[int]:
    """Elements of the observation that belong to the terms that a setting names."""
    places, terms = interface.observation_slices, getattr(network, setting)
    if missing := [name for name in terms if name not in places]:
        raise unknown(setting, missing[0], places)
    return [i for name in terms for i in range(*places[name].indices(sys.maxsize))]


def _shared(name: str, array: NDArray[np.generic]) -> bool:
    """Whether an array of the state has a row for each group or simulation."""
    parts = ("masters.policy", "masters.value", "collector.", "env.")
    return bool(array.ndim) and name.startswith(parts)


def normalise_advantages(
    samples: list[Samples], how: str, *, own: Total = alone, everyone: Total = alone
) -> list[Samples]:
    """Advantages of comparable size for each policy.

    group: zero mean and unit deviation for each. global: over all together. centred: zero mean
    for each, divided by the deviation over all, so that a group whose returns are only noise does
    not turn the noise into full-size updates.

    Args:
        samples: of each policy.
        how: as above.
        own: adds up over the processes that share each of the policies.
        everyone: adds up over all processes.
    """
    rows = _moments(own, [s.advantage for s in samples])
    if how == "global":
        rows = _moments(everyone, [np.concatenate([s.advantage for s in samples])])
        rows = rows * len(samples)
    elif how == "centred":
        centred = [s.advantage - mean for s, (mean, _) in zip(samples, rows, strict=True)]
        ((_, deviation),) = _moments(everyone, [np.concatenate(centred)])
        rows = [(mean, deviation) for mean, _ in rows]
    return [
        replace(s, advantage=((s.advantage - mean) / (deviation + 1e-8)).astype(np.float32))
        for s, (mean, deviation) in zip(samples, rows, strict=True)
    ]


def _moments(total: Total, rows: list[NDArray[Any]]) -> list[tuple[float, float]]:
    """Mean and standard deviation of each row over all processes; zeros where it is empty."""
    exact = [row.astype(np.float64) for row in rows]
    first = total(np.array([[len(row), row.sum()] for row in exact]))
    size = np.maximum(1, first[:, 0])
    mean = first[:, 1] / size
    off = [((row - m) ** 2).sum() for row, m in zip(exact, mean, strict=True)]
    deviation = np.sqrt(total(np.array(off)) / size)
    return list(zip(mean.tolist(), deviation.tolist(), strict=True))
