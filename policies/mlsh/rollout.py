"""Collects experience: masters decide every N ticks, skills act on every tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.actor_critic import Agent, put
from policies.mlsh.config import MlshConfig
from sim.envs.vec_env import TaskVectorEnv
from sim.seeding import Stream, generator

Bools = NDArray[np.bool_]
Float32 = NDArray[np.float32]
LOG_2PI = float(np.log(2 * np.pi))
Logits = Callable[[Float32], Float32]
Draw = Callable[[np.random.Generator, int], NDArray[Any]]
NO_OVERRIDE = -1  # in `skill_override`: the master decides


@dataclass(frozen=True)
class Rollout:
    """T ticks of B simulations. Observations are normalized as the policies received them."""

    raw: Float32  # (T, B, O) before normalization
    obs: Float32  # (T+1, B, O)
    action: Float32  # (T, B, A) before the interface's limits
    log_prob: Float32  # (T, B) of the action under the active skill
    skill: NDArray[np.intp]  # (T, B) active
    is_random: Bools  # (T, B) a random decision: this tick is excluded from all updates
    reward: Float32  # (T, B)
    terminated: Bools  # (T, B)
    truncated: Bools  # (T, B)
    success: Bools  # (T, B) episode ended here and was solved
    diverged: Bools  # (T, B) episode ended here because the simulation diverged
    final_at: NDArray[np.intp]  # (M, 2) tick and simulation of each episode end
    final_obs: Float32  # (M, O) the observation there, before the reset
    decided: Bools  # (T, B) a decision takes effect here
    decision_obs: Float32  # (T, B, O) what it was taken from; zero elsewhere
    decision_log_prob: Float32  # (T, B)
    tick: NDArray[np.int64]  # (T, B) of the episode
    # What the skills' value functions see beside the observation, None where that is nothing.
    raw_privileged: Float32 | None = None  # (T, B, P) before normalization
    privileged: Float32 | None = None  # (T+1, B, P)
    final_privileged: Float32 | None = None  # (M, P)

    @property
    def done(self) -> Bools:
        """(T, B) True where an episode ended."""
        return self.terminated | self.truncated

    def counted_ticks(self, limit: int) -> NDArray[np.int64]:
        """(B,) ticks that were run, and those of `limit` that terminated episodes left unused.

        Divided by `limit` it is the number of episodes: after a termination the next one begins,
        and what it earns is no part of the return of the one before.
        """
        unused = np.where(self.terminated, limit - 1 - self.tick, 0).sum(axis=0)
        return np.asarray(len(self.tick) + unused)


@dataclass
class Decision:
    """A master's choice for each simulation, and the data it was computed from."""

    skill: NDArray[np.intp]  # (B,)
    log_prob: Float32  # (B,)
    obs: Float32  # (B, O)
    is_random: Bools  # (B,) drawn, not chosen


class Collector:
    """Runs an agent in an environment; stores the state that persists between rollouts.

    The rule of docs/reading-guide.md, "when the master decides": macro step k of an episode covers
    ticks kN .. (k+1)N-1; its skill is chosen from the observation of tick kN - L, and at the
    beginning of an episode from the first observation.
    """

    def __init__(
        self,
        env: TaskVectorEnv,
        agent: Agent,
        config: MlshConfig,
        seed: int,
        correlation: float = 0.0,
    ) -> None:
        self.env, self.agent, self.config, self.seed = env, agent, config, seed
        self.correlation = np.float32(correlation)  # of the skills' noise, from tick to tick
        size, length = env.num_envs, env.interface.observation_size
        self.raw, _ = env.reset()
        self.skill = np.zeros(size, np.intp)
        self.is_random = np.zeros(size, bool)
        self.left = np.zeros(size, np.int64)  # ticks until the next decision takes effect
        self.pending = Decision(
            np.zeros(size, np.intp),
            np.zeros(size, np.float32),
            np.zeros((size, length), np.float32),
            np.zeros(size, bool),
        )

    def begin_group(self, group: int, task: int) -> None:
        """Give a group another task; its episodes begin anew."""
        mine = slice(group * self.env.envs, (group + 1) * self.env.envs)
        self.raw[mine] = self.env.begin_group(group, task)[mine]

    def collect(
        self,
        iteration: int,
        *,
        ticks: int,
        skill_override: NDArray[np.intp] | None = None,
        greedy_master: bool = False,
        greedy_skills: bool = False,
        random_skills: bool = False,
        logits: Logits | None = None,
    ) -> Rollout:
        """Run `ticks` ticks.

        Args:
            iteration: selects the randomness of this rollout.
            ticks: T.
            skill_override: (B,) a skill that overrides the master, or NO_OVERRIDE.
            greedy_master: the most probable skill instead of a sample.
            greedy_skills: the mean action instead of a sample, as on a robot.
            random_skills: some decisions are drawn at random
                (`MlshConfig.random_skill_fraction`).
            logits: (B, K) for normalized observations (B, O); by default the agent's masters'.
        """
        env, agent, config = self.env, self.agent, self.config
        b, o = self.raw.shape
        a, lead = env.interface.action_size, config.decision_lead
        raw = np.empty((ticks, b, o), np.float32)
        obs = np.empty((ticks + 1, b, o), np.float32)
        action = np.empty((ticks, b, a), np.float32)
        skill = np.empty((ticks, b), np.intp)
        reward = np.empty((ticks, b), np.float32)
        terminated, truncated, success, diverged, decided, is_random = np.zeros(
            (6, ticks, b), bool
        )
        decision_obs = np.zeros((ticks, b, o), np.float32)
        decision_log_prob = np.zeros((ticks, b), np.float32)
        episode_tick = np.empty((ticks, b), np.int64)
        final_at: list[NDArray[np.intp]] = []
        final_obs: list[Float32] = []
        privileged = np.empty((ticks + 1, *env.privileged.shape), np.float32)
        final_privileged = [np.zeros((0, privileged.shape[-1]), np.float32)]
        noise = self.by_group(
            Stream.ACTIONS, iteration, lambda r, e: r.standard_normal((ticks, e, a), np.float32)
        )
        noise *= np.float32(not greedy_skills)
        correlate(noise, self.correlation)
        std = np.exp(agent.log_std())
        chooser = MasterSampler(
            self,
            iteration,
            ticks,
            skill_override,
            greedy_master,
            random_skills,
            logits or agent.logits,
        )

        for t in range(ticks):
            raw[t] = self.raw
            obs[t] = agent.normalizer(self.raw)
            privileged[t] = env.privileged
            tick = episode_tick[t] = env.world.ticks.copy()  # (B,) of each simulation's episode
            due = (tick == 0) | (self.left == 0)
            if due.any():
                self.left = np.where(due, chooser.duration[t], self.left)
                now = due if lead == 0 else tick == 0
                if now.any():
                    self._take(now, chooser.decide(obs[t], t, first=True))
                self.skill = np.where(due, self.pending.skill, self.skill)
                self.is_random = np.where(due, self.pending.is_random, self.is_random)
                decided[t] = due
                decision_obs[t, due] = self.pending.obs[due]
                decision_log_prob[t] = self.pending.log_prob
            skill[t], is_random[t] = self.skill, self.is_random
            noise[t, self.is_random] = 0  # as on a robot, and into whatever corner that leads
            mean = agent.means(obs[t], self.skill, self.raw)
            action[t] = mean + std[self.skill] * noise[t]
            self.left -= 1
            soon = self.left == 0
            if lead == 1 and soon.any():
                self._take(soon, chooser.decide(obs[t], t, first=False))
            self.raw, reward[t], terminated[t], truncated[t], info = env.step(action[t])
            diverged[t] = env.has_diverged
            if "final_obs" in info:
                ended = info["_final_obs"]
                ids = np.flatnonzero(ended)
                final_at.append(np.stack([np.full(len(ids), t), ids], axis=1))
                final_obs.append(agent.normalizer(np.stack(info["final_obs"][ended])))
                success[t] = info["final_info"]["success"]
                if privileged.size:
                    final_privileged.append(info["final_info"]["privileged"][ended])
        privileged[ticks] = env.privileged
        obs[ticks] = agent.normalizer(self.raw)
        chooser.finish(obs[ticks])
        log_prob = (
            -0.5 * (noise**2).sum(axis=-1)
            - agent.log_std().sum(axis=-1)[skill]
            - 0.5 * a * np.float32(LOG_2PI)
        )
        return Rollout(
            raw=raw,
            obs=obs,
            action=action,
            log_prob=log_prob.astype(np.float32),
            skill=skill,
            is_random=is_random,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            success=success,
            diverged=diverged,
            final_at=np.concatenate(final_at) if final_at else np.zeros((0, 2), np.intp),
            final_obs=np.concatenate(final_obs) if final_obs else np.zeros((0, o), np.float32),
            decided=decided,
            decision_obs=decision_obs,
            decision_log_prob=decision_log_prob,
            tick=episode_tick,
            **self._privileged(privileged, np.concatenate(final_privileged)),
        )

    def _privileged(self, raw: Float32, final: Float32) -> dict[str, Float32]:
        """The privileged part of a rollout, normalized as the observations are."""
        if not raw.size:
            return {}
        normalize = self.agent.privileged_normalizer
        return {
            "raw_privileged": raw[:-1],
            "privileged": normalize(raw),
            "final_privileged": normalize(final),
        }

    def _take(self, where: Bools, decision: Decision) -> None:
        self.pending.skill = np.where(where, decision.skill, self.pending.skill)
        self.pending.log_prob = np.where(where, decision.log_prob, self.pending.log_prob)
        self.pending.obs = np.where(where[:, None], decision.obs, self.pending.obs)
        self.pending.is_random = np.where(where, decision.is_random, self.pending.is_random)

    def by_group(self, stream: Stream, iteration: int, draw: Draw) -> NDArray[Any]:
        """(T, B, ...) drawn for each group separately, so it does not depend on the processes."""
        rngs = [generator(self.seed, stream, iteration, g) for g in self.env.group_ids]
        return np.concatenate([draw(rng, self.env.envs) for rng in rngs], axis=1)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """State of the environment and of a pending decision."""
        own = {
            "collector.skill": self.skill.copy(),
            "collector.is_random": self.is_random.copy(),
            "collector.left": self.left.copy(),
            "collector.pending.skill": self.pending.skill.copy(),
            "collector.pending.log_prob": self.pending.log_prob.copy(),
            "collector.pending.obs": self.pending.obs.copy(),
            "collector.pending.is_random": self.pending.is_random.copy(),
        }
        return own | {f"env.{key}": value for key, value in self.env.snapshot().items()}

    def restore(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Restore from arrays of `state`.

        Raises:
            KeyError: an array is missing.
            ValueError: an array has another shape.
        """
        put(arrays, "collector.skill", self.skill)
        put(arrays, "collector.is_random", self.is_random)
        put(arrays, "collector.left", self.left)
        put(arrays, "collector.pending.skill", self.pending.skill)
        put(arrays, "collector.pending.log_prob", self.pending.log_prob)
        put(arrays, "collector.pending.obs", self.pending.obs)
        put(arrays, "collector.pending.is_random", self.pending.is_random)
        prefix = "env."
        self.raw = self.env.restore(
            {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        )


def correlate(noise: Float32, correlation: np.float32) -> None:
    """Correlate white noise (T, ..) of deviation 1 from tick to tick, in place.

    Its deviation stays 1. The probability of an action is that of its own noise: PPO takes the
    actions of a rollout as independent of each other.
    """
    if not correlation:
        return
    fresh = np.sqrt(1 - correlation**2)
    for t in range(1, len(noise)):
        noise[t] = correlation * noise[t - 1] + fresh * noise[t]


class MasterSampler:
    """Draws skills from the master's logits in one rollout.

    Args:
        collector: provides the masters.
        iteration: selects the randomness.
        ticks: T.
        skill_override: (B,) a skill that overrides the master, or NO_OVERRIDE.
        greedy: the most probable skill instead of a sample.
        random_skills: whether some decisions are drawn uniformly from all skills; these act
            without noise, and their steps are excluded from all updates.
    """

    def __init__(
        self,
        collector: Collector,
        iteration: int,
        ticks: int,
        skill_override: NDArray[np.intp] | None,
        greedy: bool,
        random_skills: bool,
        logits: Logits,
    ) -> None:
        self.collector, self.greedy = collector, greedy
        self.agent, self.config = collector.agent, collector.config
        self.skill_override, self.logits = skill_override, logits
        n, skills = self.config.decision_ticks, self.agent.skills.count
        spread = round(self.config.duration_jitter * n)

        def draw(rng: np.random.Generator, envs: int) -> NDArray[np.float64]:
            return rng.random((ticks, envs, 4))

        # For each tick: the choice, whether it is random and which skill it is then, and how long
        # it will last.
        self.uniform, chance, random_skill, duration = np.moveaxis(
            collector.by_group(Stream.DECISIONS, iteration, draw), -1, 0
        )
        self.epsilon = chance < self.config.master_epsilon
        self.is_random = chance >= 1 - self.config.random_skill_fraction * random_skills
        self.random_skill = (random_skill * skills).astype(np.intp)
        self.duration = n - spread + (duration * (2 * spread + 1)).astype(np.int64)

    def decide(self, obs: Float32, t: int, *, first: bool) -> Decision:
        """Returns a decision for every simulation.

        Args:
            obs: (B, O) normalized.
            t: tick of the rollout.
            first: whether it takes effect at once; used by the stale first decision only.
        """
        logits = self.logits(obs)
        logits = logits - logits.max(axis=1, keepdims=True)
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        if self.greedy:
            skill = logits.argmax(axis=1)
        else:
            below = np.exp(log_probs).cumsum(axis=1) < self.uniform[t][:, None]
            skill = np.minimum(below.sum(axis=1), logits.shape[1] - 1)
            if self.config.master_epsilon:
                # As released in 2017: recorded as if the master had chosen it.
                skill = np.where(self.epsilon[t], self.random_skill[t], skill)
            if self.config.stale_first_decision and first and t == 0:
                skill = self.collector.pending.skill
        is_random = self.is_random[t].copy()
        skill = np.where(is_random, self.random_skill[t], skill)
        if self.skill_override is not None:
            skill = np.where(self.skill_override == NO_OVERRIDE, skill, self.skill_override)
            is_random &= self.skill_override == NO_OVERRIDE
        return Decision(skill, log_probs[np.arange(len(skill)), skill], obs.copy(), is_random)

    def finish(self, obs: Float32) -> None:
        """As released in 2017: make the next rollout's first choice before the update."""
        if self.config.stale_first_decision:
            self.collector.pending.skill = self.decide(obs, 0, first=False).skill
