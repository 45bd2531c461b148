"""The paper's Fourrooms on its grid, small enough for exact answers by dynamic programming.

As the released code has it: 13 x 13 squares, of which 104 are free, numbered row by row; an
episode begins in the hallway on the right. Who moves against a wall stays. Who moves onto a free
square slips with a chance of 1/3 to one of the free squares around that, each as likely.
"""

import numpy as np

LAYOUT = """\
wwwwwwwwwwwww
w     w     w
w     w     w
w           w
w     w     w
w     w     w
ww wwww     w
w     www www
w     w     w
w     w     w
w           w
w     w     w
wwwwwwwwwwwww""".splitlines()
CELLS = [(i, j) for i, row in enumerate(LAYOUT) for j, c in enumerate(row) if c == " "]
NUMBER = {cell: s for s, cell in enumerate(CELLS)}
S = len(CELLS)
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right, as (row, column)
SLIP = 1 / 3
START = 62
TICKS = 100
GOALS = (68, 80, 90, 103)
# The released code has this longer list in a comment: the lower right room and its left hallway.
MANY_GOALS = (*range(68, 73), *range(78, 83), *range(88, 94), *range(99, 104))


def neighbors(cell: tuple[int, int]) -> list[int]:
    """Free squares around a free square."""
    around = [(cell[0] + di, cell[1] + dj) for di, dj in MOVES]
    return [NUMBER[c] for c in around if c in NUMBER]


def transitions() -> np.ndarray:
    """(4, S, S) chance of each next square, by move and square."""
    chance = np.zeros((len(MOVES), S, S))
    for move, (di, dj) in enumerate(MOVES):
        for s, (i, j) in enumerate(CELLS):
            there = (i + di, j + dj)
            if there not in NUMBER:
                chance[move, s, s] = 1.0
                continue
            chance[move, s, NUMBER[there]] += 1 - SLIP
            for other in neighbors(there):
                chance[move, s, other] += SLIP / len(neighbors(there))
    return chance


def optimum(goal: int, ticks: int = TICKS) -> tuple[np.ndarray, np.ndarray]:
    """Best possible return (S,) of `ticks` ticks, and the best moves (ticks, S) that bring it.

    A tick pays 1 where it ends in the goal, which ends nothing.
    """
    chance, pay = transitions(), np.eye(S)[goal]
    value, moves = np.zeros(S), np.zeros((ticks, S), np.intp)
    for t in reversed(range(ticks)):
        outlook = chance @ (pay + value)  # (4, S)
        moves[t], value = outlook.argmax(axis=0), outlook.max(axis=0)
    return value, moves


def at_random(goal: int, ticks: int = TICKS) -> np.ndarray:
    """Return (S,) of moves drawn uniformly."""
    chance, pay = transitions().mean(axis=0), np.eye(S)[goal]
    value = np.zeros(S)
    for _ in range(ticks):
        value = chance @ (pay + value)
    return value


def step(state: np.ndarray, move: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One tick of n walkers by the rules, without the matrices above."""
    out = state.copy()
    for n, (s, m) in enumerate(zip(state.tolist(), move.tolist(), strict=True)):
        there = CELLS[s][0] + MOVES[m][0], CELLS[s][1] + MOVES[m][1]
        if there in NUMBER:
            out[n] = NUMBER[there]
            if rng.random() < SLIP:
                out[n] = rng.choice(neighbors(there))
    return out
