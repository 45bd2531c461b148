"""Taxi as tables, small enough for exact answers by dynamic programming.

A passenger waits at one of four landmarks and wants to be set down at another one. Which two is
the hidden task: what is seen is the cell of the taxi, and whether somebody is in it. There are two
worlds: gymnasium's, and that of the papers MSOL (Igl et al. 2020) and FAMP (Kuric and van Hoof
2023). The skills are exact. Rewards are in the papers' unit, a tenth of gymnasium's: 2 for the
arrival, -0.1 for a step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cache

import gymnasium
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]

STEPS = 200  # of an episode, gymnasium's limit
LANDMARKS = 4
PAIRS = [(a, b) for a in range(LANDMARKS) for b in range(LANDMARKS) if a != b]
UNIT = 10.0  # of gymnasium's rewards
ON_BOARD = 4  # gymnasium's number for the place of a passenger who is in the taxi
PICK_UP, SET_DOWN = 4, 5  # after the four moves; one action, 4, in the papers' world

# FAMP's map, where walls fill whole cells.
LAYOUT = ["R.#..G", "..#...", "......", "......", ".#.#..", "Y#.#B."]
FAMP_LANDMARKS = "RYBG"
SIDE = len(LAYOUT)


@dataclass(frozen=True)
class Moves:
    """What S states and C choices lead to; nothing is random."""

    following: Ints  # (S, C)
    reward: Floats  # (S, C)
    ended: NDArray[np.bool_]  # (S, C)

    def value(self, steps: int, over=np.max) -> Floats:
        """(S,) return of so many choices: the best one, or np.mean for one drawn at random."""
        found = np.zeros(len(self.reward))
        for _ in range(steps):
            found = over(self.reward + ~self.ended * found[self.following], axis=1)
        return found


@dataclass(frozen=True)
class TaxiTask:
    """One hidden task over P places; a place is a cell, numbered again with somebody on board."""

    actions: Moves
    place: Ints  # (S,) of each state
    seen: NDArray[np.float32]  # (P, O) observations
    free: Ints  # places that a taxi can be at
    starts: Ints  # states in which episodes begin, each as likely
    skills: Ints  # (K, P) action of each skill

    def decisions(self, ticks: int) -> Moves:
        """What each skill leads to within so many steps."""
        state = np.repeat(np.arange(len(self.place))[:, None], len(self.skills), axis=1)
        reward, ended = np.zeros(state.shape), np.zeros(state.shape, bool)
        for _ in range(ticks):
            action = self.skills[np.arange(len(self.skills)), self.place[state]]
            reward += ~ended * self.actions.reward[state, action]
            ended_now = self.actions.ended[state, action]
            state = np.where(ended, state, self.actions.following[state, action])
            ended |= ended_now
        return Moves(state, reward, ended)

    def mean_return(self, values: Floats) -> float:
        """Over the states in which episodes begin."""
        return float(values[self.starts].mean())


def gymnasium_task(waits: int, goal: int) -> TaxiTask:
    """Gymnasium's Taxi, from every cell. Eight skills, that pick up or set down at a landmark.

    A skill whose time it is not, because somebody is on board already or nobody is, waits there.
    """
    outcomes, landmarks, encode = _gymnasium_tables()
    states = np.arange(len(outcomes))
    cell, on_board = states // 20, states // 4 % 5 == ON_BOARD
    cells = cell.max() + 1
    rows = [encode(c // 5, c % 5, ON_BOARD, 0) for c in range(cells)]
    beside = outcomes[rows, :PICK_UP, 0].astype(int) // 20
    skills = np.empty((2 * LANDMARKS, 2 * cells), np.intp)
    for k, there in enumerate(2 * landmarks):
        way = ways(beside, there)
        wait = next(a for a in range(PICK_UP) if beside[there, a] == there)  # against a wall
        empty, taken = (PICK_UP, wait) if k < LANDMARKS else (wait, SET_DOWN)
        skills[k] = np.concatenate([np.where(way < 0, a, way) for a in (empty, taken)])
    one_hot = np.tile(np.eye(cells, dtype=np.float32), (2, 1))
    return TaxiTask(
        actions=Moves(
            outcomes[..., 0].astype(np.intp), outcomes[..., 1] / UNIT, outcomes[..., 2] > 0
        ),
        place=cell + cells * on_board,
        seen=np.column_stack([one_hot, np.arange(2 * cells) >= cells]).astype(np.float32),
        free=np.arange(2 * cells),
        starts=np.array([encode(c // 5, c % 5, waits, goal) for c in range(cells)]),
        skills=skills,
    )


@cache
def _gymnasium_tables():
    """(500, 6, 3) following state, reward and end; the four landmarks' cells; `encode`."""
    made = gymnasium.make("Taxi-v4").unwrapped
    outcomes = [[made.P[s][a][0][1:] for a in range(6)] for s in range(len(made.P))]
    return np.array(outcomes, float), [r * 5 + c for r, c in made.locs], made.encode


def famp_task(waits: int, goal: int) -> TaxiTask:
    """One of FAMP's twelve held-out tasks, which begin at the goal. Four skills.

    Each skill drives to a landmark, and there picks up or sets down, which is one action. Where
    that does nothing it costs a step, as each step does.
    """
    free = np.array([c != "#" for row in LAYOUT for c in row])
    landmark = ["".join(LAYOUT).index(name) for name in FAMP_LANDMARKS]
    cells, cell = SIDE**2, np.arange(SIDE**2)
    beside = np.stack([cell] * PICK_UP, axis=1)
    for a, (down, right) in enumerate([(1, 0), (-1, 0), (0, 1), (0, -1)]):
        row, column = cell // SIDE + down, cell % SIDE + right
        inside = (row >= 0) & (row < SIDE) & (column >= 0) & (column < SIDE)
        to = np.where(inside, row * SIDE + column, cell)
        beside[:, a] = np.where(free[to], to, cell)
    following = np.concatenate([beside, beside + cells])
    following = np.column_stack([following, np.arange(2 * cells)])
    following[landmark[waits], PICK_UP] += cells
    reward, ended = np.full(following.shape, -1 / UNIT), np.zeros(following.shape, bool)
    arrival = cells + landmark[goal], PICK_UP
    reward[arrival], ended[arrival] = 2.0, True
    way = np.stack([ways(beside, there) for there in landmark])
    return TaxiTask(
        actions=Moves(following, reward, ended),
        place=np.arange(2 * cells),
        seen=np.eye(2 * cells, dtype=np.float32),
        free=np.flatnonzero(np.tile(free, 2)),
        starts=np.array([landmark[goal]]),
        skills=np.tile(np.where(way < 0, PICK_UP, way), 2),
    )


def ways(beside: Ints, goal: int) -> Ints:
    """(C,) move of a shortest way from each cell to one; -1 there, and where there is none.

    Args:
        beside: (C, 4) cell that each move leads to.
        goal: cell.
    """
    way, reached, open_ = np.full(len(beside), -1), {goal}, deque([goal])
    while open_:
        to = open_.popleft()
        for cell, move in np.argwhere(beside == to):
            if cell not in reached:
                way[cell] = move
                reached.add(cell)
                open_.append(cell)
    return way
