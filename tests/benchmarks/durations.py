"""New masters that choose how long a skill runs, beside masters with a fixed N.

python -m tests.benchmarks.durations moving_bandits patrol/tilted --durations 1 --durations 0.5 1 2

A choice is a skill and one of the durations, in multiples of the bundle's N; the values of all
choices are learned as by `--learner q`, with the same discount per tick. One duration is a fixed
N. Every set of durations is one table of the same tasks, masters and seeds.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from policies.bundle.bundle import load_bundle
from policies.mlsh.config import TrainConfig
from policies.mlsh.config_checks import hidden_elements
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.offpolicy_config import OffPolicyConfig
from policies.offpolicy.features import Features
from policies.offpolicy.replay import Episode, Replay
from policies.offpolicy.value_iteration import ValueIteration
from policies.training.adapt import EVALUATION_SEED, OFF_POLICY_EPISODES, scored_episodes
from policies.training.finetune import install_skills, task_config
from policies.training.finetune_settings import with_settings
from sim.envs.vec_env import TaskVectorEnv
from sim.seeding import Stream, generator
from sim.tasks.task_id import TaskId
from tests.benchmarks import one_line_errors

Ints = NDArray[np.intp]


class DurationLearner:
    """Values of K x D choices for each of the masters, all on one task.

    Choice c is skill c % K for the duration c // K.

    Args:
        learner: of frozen skills; gives the simulations and the networks.
        lengths: (D,) ticks.
        settings: of the values.
    """

    def __init__(self, learner: Mlsh, lengths: list[int], settings: OffPolicyConfig) -> None:
        self.learner, self.lengths, self.settings = learner, np.array(lengths), settings
        method, interface = learner.method, learner.env.interface
        self.skills, self.envs, self.ticks = method.skills, method.envs, learner.family.ticks
        self.choices = self.skills * len(lengths)
        gamma = float(np.exp(-1 / (settings.horizon * method.decision_ticks)))
        self.replays = [Replay(gamma) for _ in range(method.groups)]
        self.values = []
        network = learner.config.network
        masked_inputs = list(hidden_elements(interface, network, "hidden_from_masters"))
        for g in range(method.groups):
            rng = generator(learner.config.seed, Stream.INIT, 1, g)
            features = Features(interface.observation_size, settings, masked_inputs, rng)
            self.values.append(ValueIteration(features, self.choices, settings, rng))
        self.updates = 0

    def iterate(self) -> None:
        """Run one episode in every simulation, and fit the values of all choices so far."""
        env = self.learner.env
        rng = generator(self.learner.config.seed, Stream.DECISIONS, self.updates)
        member = rng.integers(1, self.settings.members, env.num_envs)
        number = self.updates * self.envs + np.arange(env.num_envs) % self.envs
        holds = number < self.skills
        part = self.settings.random_part(self.updates * self.envs)
        # A held skill is chosen anew after every duration in turn, so that each has been seen.
        held = np.where(holds, number, -1)

        def choose(obs: NDArray[np.float32], decision: int) -> Ints:
            found = self._values(obs, member)
            random = rng.random(len(found)) < part
            chosen = np.where(
                random, rng.integers(self.choices, size=len(found)), found.argmax(axis=1)
            )
            kept = held + self.skills * (decision % len(self.lengths))
            return np.where(holds, kept, chosen)

        episodes = self.run(env, choose, holds)
        for g, (replay, values) in enumerate(zip(self.replays, self.values, strict=True)):
            replay.episodes += episodes[g * self.envs : (g + 1) * self.envs]
            values.fit(replay.decisions())
        self.updates += 1

    def _values(self, obs: NDArray[np.float32], member: Ints | int) -> NDArray[np.float32]:
        rows = np.split(obs, len(self.values))
        members = np.split(np.broadcast_to(member, len(obs)), len(self.values))
        return np.concatenate(
            [v.values(o, m) for v, o, m in zip(self.values, rows, members, strict=True)]
        )

    def best(self, obs: NDArray[np.float32]) -> Ints:
        """(B,) best choices by the mean values, for observations (B, O)."""
        return self._values(obs, 0).argmax(axis=1)

    def run(self, env: TaskVectorEnv, choose, held) -> list[Episode]:
        """One episode in each simulation; `choose` gives choices (B,) for observations (B, O)."""
        agent, lead, b = self.learner.agent, self.learner.method.decision_lead, env.num_envs
        raw, _ = env.reset()
        seen: list[list[NDArray[np.float32]]] = [[] for _ in range(b)]
        chosen: list[list[int]] = [[] for _ in range(b)]
        rewards: list[list[list[float]]] = [[] for _ in range(b)]
        terminated, alive = np.zeros(b, bool), np.ones(b, bool)
        left, running = np.zeros(b, np.intp), np.zeros(b, np.intp)
        decision, wanted, wanted_obs = 0, np.zeros(b, np.intp), np.zeros_like(raw)
        for t in range(self.ticks):
            obs = agent.normalizer(raw)
            due = left == 0
            asked = due if lead == 0 or t == 0 else np.zeros(b, bool)
            if asked.any():
                wanted = np.where(asked, choose(obs, decision), wanted)
                wanted_obs = np.where(asked[:, None], obs, wanted_obs)
                decision += 1
            running = np.where(due, wanted, running)
            left = np.where(due, self.lengths[running // self.skills], left)
            for i in np.flatnonzero(due & alive):
                seen[i].append(wanted_obs[i].copy())
                chosen[i].append(int(running[i]))
                rewards[i].append([])
            action = agent.means(obs, running % self.skills, raw)
            left -= 1
            soon = left == 0
            if lead == 1 and soon.any():
                wanted = np.where(soon, choose(obs, decision), wanted)
                wanted_obs = np.where(soon[:, None], obs, wanted_obs)
                decision += 1
            raw, reward, ends, cut, info = env.step(action)
            for i in np.flatnonzero(alive):
                rewards[i][-1].append(float(reward[i]))
            for i in np.flatnonzero((ends | cut) & alive):
                seen[i].append(agent.normalizer(info["final_obs"][i][None])[0])
                terminated[i], alive[i] = ends[i], False
            if not alive.any():
                break
        return [
            Episode(
                obs=np.stack(seen[i]),
                skill=np.array(chosen[i]),
                rewards=[np.array(each) for each in rewards[i]],
                terminated=bool(terminated[i]),
                held=bool(held[i]),
            )
            for i in range(b)
        ]

    def scores(self, episodes: int) -> NDArray[np.float64]:
        """(masters,) mean return of the mean values, without exploration."""
        learner = self.learner
        env = TaskVectorEnv(
            learner.robot,
            learner.family,
            groups=learner.method.groups,
            envs=episodes,
            seed=EVALUATION_SEED,
            threads=learner.config.threads,
            noise=False,
            tasks=learner.env.tasks,
            sim_params=learner.config.sim_params,
        )
        found = self.run(env, lambda obs, _: self.best(obs), np.zeros(env.num_envs, bool))
        return np.array([e.total for e in found]).reshape(-1, episodes).mean(axis=1)


def learn(config: TrainConfig, bundle, number: int, durations: list[float], given) -> None:
    """Print the returns of one set of durations."""
    n = config.mlsh.decision_ticks
    lengths = [round(n * d) for d in durations]
    settings = with_settings(config, given.settings, baseline=False, learner="q").offpolicy
    assert settings is not None
    method = replace(
        config.mlsh,
        groups=given.masters,
        envs=given.episodes,
        duration_jitter=0.0,
        probe="none",
    )
    config = replace(config, mlsh=method, offpolicy=settings, threads=1)
    learner = Mlsh(config, freeze_skills=True, tasks=[number] * given.masters)
    install_skills(learner.agent, bundle)
    masters = DurationLearner(learner, lengths, settings)
    scored = given.scored or scored_episodes(learner.family.ticks)
    print(f"durations {lengths} ticks (N is {n})", flush=True)
    for update in range(1, given.updates + 1):
        masters.iterate()
        if update % given.score_every == 0 or update == given.updates:
            row = masters.scores(scored)
            worst = int(row.argmin())
            print(
                f"{update * given.episodes:5} episodes: mean {row.mean():.2f}, "
                f"worst {row[worst]:.2f} (master {worst})",
                flush=True,
            )
    if given.arrivals:
        print(f"arrivals while learning: {arrivals([each.episodes for each in masters.replays])}")


def arrivals(episodes: list[list[Episode]]) -> str:
    """Of each master, the first of its episodes with a return above 0, and how many have one."""
    paid = [[e.total > 0 for e in each] for each in episodes]
    return ", ".join(
        f"{sum(each)} (first in episode {each.index(True) + 1})" if any(each) else "none"
        for each in paid
    )


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle")
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--durations", type=float, nargs="+", action="append", required=True)
    parser.add_argument("--masters", type=int, default=10, help="of each task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=25)
    parser.add_argument("--episodes", type=int, default=OFF_POLICY_EPISODES, help="per update")
    parser.add_argument("--scored", type=int, help="greedy episodes of each score")
    parser.add_argument("--score-every", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--arrivals", action="store_true", help="count episodes that are paid")
    given = parser.parse_args()
    bundle = load_bundle(given.bundle)
    for task in given.tasks:
        config, number = task_config(bundle, TaskId.parse(task), seed=given.seed)
        print(task)
        for durations in given.durations:
            learn(config, bundle, number, durations, given)


if __name__ == "__main__":
    main()
