"""Trains a copy of one skill together with new masters, within a bound of KL divergence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.advantage_normalization import normalize_advantages
from policies.mlsh.iteration import Iteration
from policies.mlsh.losses import Minibatch
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.ppo import Shuffle, ppo_update
from policies.mlsh.rollout import Rollout
from policies.mlsh.samples import master_samples, skill_samples
from sim.errors import UserError
from sim.seeding import Stream, generator

Float32 = NDArray[np.float32]
LOG_STD = -0.7  # of the skill's exploration; the divergence is in units of this deviation
QUIET = -20.0  # of the frozen skills
VALUE_UPDATES = 2  # that only the value function of the skill learns from: it begins at random
MASTER_RATE = 0.2  # of the masters' learning rate: they have learned, the skill follows them
HALVINGS = 12  # of the interval in which the nearest permitted parameters are searched


@dataclass(frozen=True)
class Unfreeze:
    """A skill that is trained together with masters."""

    skill: int  # its number
    kl_limit: float  # nats, mean divergence from the skill that it was
    updates: int  # of skill and masters, after those of the masters alone


@dataclass(frozen=True)
class UnfrozenUpdate:
    """Result of one update of the masters and the skill."""

    kl: float  # nats, from the skill that it was
    share: float  # of the ticks on which it was active
    not_finite: str

    def describe(self) -> str:
        """Describes the distance from the old skill, and the use of the new one."""
        return f"KL divergence {self.kl:.2g} from the old skill, used on {self.share:.0%} of ticks"


@dataclass(frozen=True)
class _Kept:
    """Masters and skill after an update."""

    update: int
    score: float
    kl: float
    masters: Float32  # parameters of all masters
    skill: Float32  # parameters of the skill


class UnfrozenSkill:
    """Learner of masters, and after `warmup` updates of one skill, too, by PPO.

    After each update the mean KL divergence of the skill's actions from those of the skill that it
    was, on the observations on which it was just used, is at most the limit: parameters beyond
    are moved back on the straight line to the old ones.

    Args:
        learner: with frozen skills, of which one changes.
        unfreeze: which, and how far.
        warmup: updates of the masters alone.
    """

    def __init__(self, learner: Mlsh, unfreeze: Unfreeze, warmup: int) -> None:
        self.learner, self.warmup = learner, warmup
        self.skill, self.kl_limit = unfreeze.skill, unfreeze.kl_limit
        self.kl = 0.0
        self.kept: _Kept | None = None
        self._level = learner.agent.skills
        for k in range(self._level.count):
            self._level.policy.log_std(k)[:] = LOG_STD if k == self.skill else QUIET
        self._old: Float32 = self._level.policy.numpy[self.skill].copy()

    def keep_if_best(self, score: float) -> None:
        """Remember masters and skill, if the skill has moved and no update scored higher."""
        if self.kl > 0 and (self.kept is None or score > self.kept.score):
            agent = self.learner.agent
            masters, skill = agent.masters.policy.numpy, agent.skills.policy.numpy[self.skill]
            number = self.learner.iteration
            self.kept = _Kept(number, score, self.kl, masters.copy(), skill.copy())

    def restore_best(self) -> int:
        """Put the best masters and skill back; returns the number of their update."""
        if self.kept is None:
            return self.learner.iteration
        agent, kept = self.learner.agent, self.kept
        agent.masters.policy.numpy[:] = kept.masters
        agent.skills.policy.numpy[self.skill] = kept.skill
        self.kl = kept.kl
        return kept.update

    @property
    def steps_per_update(self) -> int:
        """Environment steps per task."""
        return self.learner.steps_per_update

    def iterate(self) -> Iteration | UnfrozenUpdate:
        """Collect experience on every task; masters learn, and after the warm-up the skill.

        Raises:
            UserError: the masters do not use the skill when its training begins.
        """
        learner = self.learner
        if learner.iteration < self.warmup:
            return learner.iterate()
        begins = learner.iteration == self.warmup
        if begins:
            learner.agent.masters.policy_adam.learning_rate *= MASTER_RATE
        everyone = np.ones(learner.method.groups, bool)
        rollout = learner.collector.collect(learner.iteration, ticks=learner.method.rollout_ticks)
        used = np.bincount(rollout.skill.ravel(), minlength=self._level.count)
        if begins and not used[self.skill]:
            shares = ", ".join(f"skill {k} {n / used.sum():.0%}" for k, n in enumerate(used))
            raise UserError(
                f"skill {self.skill} is not used on this task, so that a copy of it cannot learn: "
                f"{shares} of ticks; unfreeze one that is used"
            )
        self._update_masters(rollout, everyone)
        rewards = learner.updates.skill_rewards(rollout)
        samples = skill_samples(self._level, rollout, rewards, everyone, learner.method)
        mine = [s if k == self.skill else s.take(slice(0)) for k, s in enumerate(samples)]
        self._update_skill(mine)
        learner.iteration += 1
        share = float(used[self.skill] / used.sum())
        return UnfrozenUpdate(self.kl, share, self._not_finite())

    def _update_masters(self, rollout: Rollout, everyone: NDArray[np.bool_]) -> None:
        learner = self.learner
        masters, method = learner.agent.masters, learner.method
        rewards = learner.updates.master_rewards(rollout)
        samples = master_samples(masters, rollout, rewards, everyone, method)
        samples = normalize_advantages(samples, method.master_advantage)
        # As at the end of the warm-up: the bonus has fallen to zero.
        none = [0.0] * masters.count
        ppo_update(masters, samples, self._shuffle(Stream.SHUFFLE), entropy=none)

    def _update_skill(self, samples: list[Minibatch]) -> None:
        policy, row = self._level.policy.numpy, self.skill
        before = policy[row].copy()
        samples = normalize_advantages(samples, "group")
        ppo_update(self._level, samples, self._shuffle(Stream.SHUFFLE_SKILLS))
        if self.learner.iteration < self.warmup + VALUE_UPDATES:
            policy[row] = before
            self._level.policy_adam.reset(row)
        elif len(samples[row]):
            self._move_back(samples[row].obs)

    def _move_back(self, obs: Float32) -> None:
        """Limit the divergence of the skill on these observations (n, O)."""
        policy = self._level.policy
        learned = policy.numpy[self.skill].copy()  # before another one is tried there
        old_action = self._actions(self._old, obs)

        def divergence(part: float) -> float:
            way = self._old + np.float32(part) * (learned - self._old)
            off = (self._actions(way, obs) - old_action) / np.exp(LOG_STD)
            return float((off**2).sum(axis=1).mean() / 2)

        part, beyond = (1.0, 1.0) if divergence(1.0) <= self.kl_limit else (0.0, 1.0)
        for _ in range(HALVINGS if part < 1 else 0):
            middle = (part + beyond) / 2
            if divergence(middle) <= self.kl_limit:
                part = middle
            else:
                beyond = middle
        self.kl = divergence(part)
        policy.numpy[self.skill] = self._old + np.float32(part) * (learned - self._old)

    def _actions(self, parameters: Float32, obs: Float32) -> Float32:
        self._level.policy.numpy[self.skill] = parameters
        return self._level.policy.forward_row(self.skill, obs)

    def _shuffle(self, stream: Stream) -> Shuffle:
        seed, iteration = self.learner.config.seed, self.learner.iteration
        return lambda row, group: generator(seed, stream, iteration, row + group)

    def _not_finite(self) -> str:
        agent = self.learner.agent
        found = {
            f"parameters of skill {self.skill}": agent.skills.policy.numpy[self.skill],
            "parameters of the masters": agent.masters.policy.numpy,
        }
        return ", ".join(name for name, values in found.items() if not np.isfinite(values).all())
