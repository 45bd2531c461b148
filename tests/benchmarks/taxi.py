"""New masters on Taxi: where the passenger waits and wants to go is hidden.

python -m tests.benchmarks.taxi gymnasium --seeds 10
python -m tests.benchmarks.taxi famp --seeds 10

The worlds and their exact skills are those of tests/support/taxi.py; all bounds are computed.
"""

from __future__ import annotations

import argparse
import time
from types import SimpleNamespace

import numpy as np

from policies.mlsh.config import NetworkConfig
from policies.mlsh.networks import Normalizer
from policies.mlsh.offpolicy_config import OffPolicyConfig
from tests.benchmarks import one_line_errors
from tests.benchmarks.durations import DurationLearner
from tests.support.taxi import FAMP_LANDMARKS, PAIRS, STEPS, TaxiTask, famp_task, gymnasium_task

WORLDS = {"gymnasium": (gymnasium_task, "RGYB"), "famp": (famp_task, FAMP_LANDMARKS)}
DECISION_TICKS = 2  # N that the paper on FAMP has for MLSH
DISCOUNT = 0.95  # per step, of the returns that it shows


class Taxis:
    """Taxis as the learner's environment, the same number of each task.

    Args:
        tasks: one for each master.
        envs: taxis of each.
        rng: draws the starts; None: each in turn.
    """

    def __init__(
        self, tasks: list[TaxiTask], envs: int, rng: np.random.Generator | None = None
    ) -> None:
        self.tasks, self.envs, self.rng = tasks, envs, rng
        self.num_envs = len(tasks) * envs
        self.interface = SimpleNamespace(
            observation_size=tasks[0].seen.shape[1], observation_slices={}
        )
        self.task = np.repeat(np.arange(len(tasks)), envs)
        moves = [task.actions for task in tasks]
        self.following = np.stack([m.following for m in moves])
        self.reward = np.stack([m.reward for m in moves])
        self.ended = np.stack([m.ended for m in moves])

    def reset(self):
        """Every taxi begins anew."""
        turn = np.arange(self.envs)
        starts = [t.starts for t in self.tasks]
        which = [
            turn % len(s) if self.rng is None else self.rng.integers(len(s), size=self.envs)
            for s in starts
        ]
        self.state = np.concatenate([s[w] for s, w in zip(starts, which, strict=True)])
        self.ticks = 0
        return self.observe(), {}

    def observe(self):
        """(B, O) float32."""
        first = self.tasks[0]
        return first.seen[first.place[self.state]]

    def step(self, action):
        """One step of every taxi; one that has arrived goes on, which is not counted."""
        at = self.task, self.state, action
        reward, ended, self.state = self.reward[at], self.ended[at], self.following[at]
        self.ticks += 1
        obs, cut = self.observe(), np.full(self.num_envs, self.ticks == STEPS)
        return obs, reward, ended, cut & ~ended, {"final_obs": obs}


class Skills:
    """The agent of the exact skills, with observations normalized over all free places."""

    def __init__(self, task: TaxiTask) -> None:
        self.task = task
        self.normalizer = Normalizer(task.seen.shape[1])
        self.normalizer.update(task.seen[task.free])

    def means(self, _, skill, raw):
        """(B,) action."""
        place = (raw[:, None] == self.task.seen).all(axis=2).argmax(axis=1)
        return self.task.skills[skill, place]


class TaxiMasters:
    """One master for each task, with random numbers of its own, and their scores.

    Args:
        tasks: G of one world.
        seed: of starts, values and decisions.
        episodes: per update.
        settings: of the learner.
    """

    def __init__(
        self, tasks: list[TaxiTask], seed: int, episodes: int, settings: OffPolicyConfig
    ) -> None:
        method = SimpleNamespace(
            skills=len(tasks[0].skills),
            envs=episodes,
            groups=len(tasks),
            decision_ticks=DECISION_TICKS,
            decision_lead=0,
        )
        learner = SimpleNamespace(
            env=Taxis(tasks, episodes, np.random.default_rng(seed)),
            method=method,
            agent=Skills(tasks[0]),
            family=SimpleNamespace(ticks=STEPS),
            config=SimpleNamespace(seed=seed, network=NetworkConfig()),
        )
        self.values = DurationLearner(learner, [DECISION_TICKS], settings)
        self.scored = Taxis(tasks, len(tasks[0].starts))

    def iterate(self) -> None:
        """One update."""
        self.values.iterate()

    def scores(self) -> np.ndarray:
        """(3, G) of an episode from every start: return, discounted return, share of arrivals."""
        nobody = np.zeros(self.scored.num_envs, bool)
        runs = self.values.run(self.scored, lambda obs, _: self.values.best(obs), nobody)
        paid = [np.concatenate(e.rewards) for e in runs]
        found = [
            (p.sum(), p @ DISCOUNT ** np.arange(len(p)), e.terminated)
            for p, e in zip(paid, runs, strict=True)
        ]
        return np.array(found, float).T.reshape(3, len(self.scored.tasks), -1).mean(axis=2)


def normalized(returns: np.ndarray, tasks: list[TaxiTask]) -> np.ndarray:
    """Scores (..., G): 0 for skills drawn at random, 1 for the best sequence of actions."""
    random, best = bounds(tasks)[:2]
    return (returns - random) / (best - random)


def bounds(tasks: list[TaxiTask]) -> np.ndarray:
    """(3, G) returns: skills drawn at random, the best actions, the best choice of skills."""
    made = [task.decisions(DECISION_TICKS) for task in tasks]
    choices = STEPS // DECISION_TICKS
    rows = [
        [t.mean_return(m.value(choices, np.mean)) for t, m in zip(tasks, made, strict=True)],
        [t.mean_return(t.actions.value(STEPS)) for t in tasks],
        [t.mean_return(m.value(choices)) for t, m in zip(tasks, made, strict=True)],
    ]
    return np.array(rows)


@one_line_errors
def main() -> None:
    """Bounds, then a line per update: means over tasks and seeds, and the worst seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("world", choices=tuple(WORLDS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--episodes", type=int, default=10, help="per update")
    given = parser.parse_args()
    begun = time.process_time()
    make, names = WORLDS[given.world]
    tasks = [make(*pair) for pair in PAIRS]
    random, best, skilled = bounds(tasks).mean(axis=1)
    print(f"random skills {random:.2f}, optimum {best:.2f}, with these skills {skilled:.2f}")
    found = np.empty((given.updates, 3, given.seeds, len(tasks)))
    for i in range(given.seeds):
        seed = given.first_seed + i
        masters = TaxiMasters(tasks, seed, given.episodes, OffPolicyConfig())
        for update in range(given.updates):
            masters.iterate()
            found[update, :, i] = masters.scores()
        score = normalized(found[:, 0, i], tasks).mean(axis=1)
        print(f"seed {seed}, normalized:", " ".join(f"{s:.1%}" for s in score), flush=True)
    for update, (returns, discounted, arrived) in enumerate(found, start=1):
        score = normalized(returns, tasks).mean(axis=1)
        worst = int(score.argmin())
        print(
            f"{update * given.episodes:4} episodes: return {returns.mean():.2f}, discounted "
            f"{discounted.mean():.2f}, normalized {score.mean():.1%}; worst seed "
            f"{given.first_seed + worst}: {returns[worst].mean():.2f}, {score[worst]:.1%}; "
            f"arrived {arrived.mean():.1%}"
        )
    for (waits, goal), row in zip(PAIRS, found.mean(axis=2)[:, 0].T, strict=True):
        print(f"task {names[waits]} to {names[goal]}:", " ".join(f"{r:.2f}" for r in row))
    print(f"{time.process_time() - begun:.0f} CPU s")


if __name__ == "__main__":
    main()
