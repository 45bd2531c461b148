"""New masters on gymnasium's Taxi: where the passenger waits and wants to go is hidden.

python -m tests.benchmarks.taxi --seeds 10

The rewards are gymnasium's divided by ten: 2 for the passenger's arrival, -0.1 for a step, -1 for
a wrong attempt. The master sees the cell of the taxi and whether somebody is in it. Its skills are
exact: for each landmark one that drives there and picks up, and one that drives there and sets
down; where there is nothing to do for it, a skill waits. The optimum is that of all action
sequences, from the same starts, by dynamic programming.
"""

from __future__ import annotations

import argparse
from collections import deque
from types import SimpleNamespace

import gymnasium
import numpy as np

from policies.mlsh.offpolicy_config import OffPolicyConfig
from tests.benchmarks.durations import DurationLearner

CELLS, LANDMARKS = 25, 4
ON_BOARD = 4  # gymnasium's number for the place of a passenger who is in the taxi
PICK_UP, SET_DOWN, MOVES = 4, 5, range(4)
SKILLS = 2 * LANDMARKS
STEPS = 200  # gymnasium's limit
UNIT = 10.0


class Taxis:
    """B taxis as the learner's environment; the observation is 25 cells and `on board`.

    Args:
        groups: number of masters.
        envs: taxis of each.
        pairs: of each master the landmarks where the passenger waits and wants to go.
        seed: of the cells at which episodes begin; None: at every cell in turn.
    """

    def __init__(
        self, groups: int, envs: int, pairs: list[tuple[int, int]], seed: int | None
    ) -> None:
        made = gymnasium.make("Taxi-v4").unwrapped
        self.table, self.encode, self.locs = made.P, made.encode, made.locs
        self.num_envs, self.envs, self.group_ids = groups * envs, envs, range(groups)
        self.pairs = [pairs[i // envs] for i in range(self.num_envs)]
        self.interface = SimpleNamespace(observation_size=CELLS + 1)
        self.rng = None if seed is None else np.random.default_rng(seed)

    def reset(self):
        """Every taxi begins anew."""
        starts = np.arange(self.num_envs) % CELLS
        if self.rng is not None:
            starts = self.rng.integers(CELLS, size=self.num_envs)
        self.state = [
            self.encode(int(cell) // 5, int(cell) % 5, *pair)
            for cell, pair in zip(starts, self.pairs, strict=True)
        ]
        self.ticks = 0
        return self.observe(), {}

    def observe(self):
        """(B, 26) float32."""
        state = np.array(self.state)
        seen = np.zeros((len(state), CELLS + 1), np.float32)
        seen[np.arange(len(state)), state // 20] = 1
        seen[:, -1] = state // 4 % 5 == ON_BOARD
        return seen

    def step(self, action):
        """One step of every taxi; one that has arrived goes on, which is not counted."""
        reward, ended = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        for i, (state, a) in enumerate(zip(self.state, action, strict=True)):
            ((_, following, paid, done),) = self.table[state][int(a)]
            self.state[i], reward[i], ended[i] = following, paid / UNIT, done
        self.ticks += 1
        obs, cut = self.observe(), np.full(self.num_envs, self.ticks == STEPS)
        return obs, reward, ended, cut & ~ended, {"final_obs": obs}


def routes(table, encode, locs) -> np.ndarray:
    """(4, 25) move of the shortest way to each landmark; -1 there."""
    way = np.full((LANDMARKS, CELLS), -1)
    for k, (row, column) in enumerate(locs):
        open_, seen = deque([row * 5 + column]), {row * 5 + column}
        while open_:
            goal = open_.popleft()
            for cell in range(CELLS):
                if cell in seen:
                    continue
                state = encode(cell // 5, cell % 5, ON_BOARD, 0)
                for move in MOVES:
                    if table[state][move][0][1] // 20 == goal:
                        way[k, cell] = move
                        seen.add(cell)
                        open_.append(cell)
                        break
    return way


class Skills:
    """The agent of exact skills: number k drives to landmark k % 4; below 4 it picks up there."""

    def __init__(self, taxis: Taxis) -> None:
        self.way = routes(taxis.table, taxis.encode, taxis.locs)
        # Into the border of the map: a step that moves nothing.
        self.wait = [1 if row == 0 else 0 for row, _ in taxis.locs]

    def normalizer(self, obs):
        """Cells are numbers between 0 and 1 already."""
        return obs

    def means(self, obs, skill, _):
        """(B,) gymnasium's action."""
        cell, on_board = obs[:, :CELLS].argmax(axis=1), obs[:, -1] > 0
        goal, picks = skill % LANDMARKS, skill < LANDMARKS
        move = self.way[goal, cell]
        useful = np.where(picks, ~on_board, on_board)
        there = np.where(picks, PICK_UP, SET_DOWN)
        idle = np.array(self.wait)[goal]
        return np.where(move >= 0, move, np.where(useful, there, idle))


def optimum(taxis: Taxis, pair: tuple[int, int]) -> float:
    """Mean over all starts of the best undiscounted return."""
    value = np.zeros(500)
    for _ in range(STEPS):
        value = np.array(
            [
                max(
                    paid / UNIT + (0.0 if done else value[following])
                    for ((_, following, paid, done),) in taxis.table[state].values()
                )
                for state in range(500)
            ]
        )
    return float(np.mean([value[taxis.encode(c // 5, c % 5, *pair)] for c in range(CELLS)]))


def main() -> None:
    """A line per update: mean over the twelve tasks and all seeds, the worst task, the optimum."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--episodes", type=int, default=10, help="per update")
    parser.add_argument("--decision-ticks", type=int, default=2)
    given = parser.parse_args()
    pairs = [(a, b) for a in range(LANDMARKS) for b in range(LANDMARKS) if a != b]
    settings = OffPolicyConfig()
    best = np.array([optimum(Taxis(1, 1, pairs[:1], None), pair) for pair in pairs])
    found = np.zeros((given.seeds, given.updates, len(pairs)))
    for seed in range(given.seeds):
        taxis = Taxis(len(pairs), given.episodes, pairs, seed)
        method = SimpleNamespace(
            skills=SKILLS,
            envs=given.episodes,
            groups=len(pairs),
            decision_ticks=given.decision_ticks,
            decision_lead=0,
        )
        agent, family = Skills(taxis), SimpleNamespace(ticks=STEPS)
        learner = SimpleNamespace(
            env=taxis, method=method, agent=agent, family=family, config=SimpleNamespace(seed=seed)
        )
        masters = DurationLearner(learner, [given.decision_ticks], settings)
        for update in range(given.updates):
            masters.iterate()
            scored = Taxis(len(pairs), CELLS, pairs, None)
            nobody = np.zeros(scored.num_envs, bool)
            runs = masters.run(scored, lambda obs, _, m=masters: m.best(obs), nobody)
            found[seed, update] = (
                np.array([e.total for e in runs]).reshape(len(pairs), -1).mean(axis=1)
            )
    print(f"optimum: mean {best.mean():.2f} of the twelve tasks")
    for update in range(given.updates):
        by_task, by_seed = found[:, update].mean(axis=0), found[:, update].mean(axis=1)
        print(
            f"{(update + 1) * given.episodes:4} episodes: mean {by_task.mean():.2f}, worst task "
            f"{by_task.min():.2f}, worst seed {by_seed.min():.2f}, below the optimum by "
            f"{(best - by_task).mean():.2f}"
        )


if __name__ == "__main__":
    main()
