"""The grid's exact answers: known numbers, and what the learner's advantages are held against."""

import numpy as np
import pytest

from policies.mlsh.gae import master_advantages, skill_advantages
from tests.support import fourrooms as grid


def test_the_layout():
    assert grid.S == 104
    assert grid.CELLS[grid.START] == (7, 9)
    # Its hallways are the four squares whose free neighbors are two, on opposite sides.
    hallways = [
        cell
        for cell in grid.CELLS
        for around in [grid.neighbors(cell)]
        if len(around) == 2
        and np.abs(np.subtract(*(grid.CELLS[s] for s in around))).tolist() in ([2, 0], [0, 2])
    ]
    assert hallways == [(3, 6), (6, 2), (7, 9), (10, 6)]
    np.testing.assert_allclose(grid.transitions().sum(axis=2), 1)


def test_optima_that_are_known():
    """Of openai/mlsh's Fourrooms: goals beside a wall pay more, for who bumps never slips."""
    best = np.array([grid.optimum(goal)[0][grid.START] for goal in range(grid.S)])
    np.testing.assert_allclose(best[list(grid.GOALS)], [97.2, 37.3, 37.9, 94.5], atol=0.05)
    assert best[list(grid.GOALS)].mean() == pytest.approx(66.7, abs=0.05)
    assert len(grid.MANY_GOALS) == 21
    assert best[list(grid.MANY_GOALS)].mean() == pytest.approx(74.3, abs=0.05)
    assert np.delete(best, grid.START).mean() == pytest.approx(68.6, abs=0.05)
    random = np.mean([grid.at_random(goal)[grid.START] for goal in grid.GOALS])
    assert random == pytest.approx(1.9, abs=0.05)


def test_the_best_moves_bring_the_optimum():
    """Walked by the rules, not by the matrices."""
    goal, rng = 80, np.random.default_rng(0)
    value, moves = grid.optimum(goal)
    state, total = np.full(300, grid.START), np.zeros(300)
    for best in moves:
        state = grid.step(state, best[state], rng)
        total += state == goal
    error = total.std() / np.sqrt(len(total))  # about 0.3 of 37.3
    assert total.mean() == pytest.approx(value[grid.START], abs=3 * error)


# The learner's advantages -----------------------------------------------------------------
# Four skills, each of which leans to one move; a master that chooses among them blindly. Episodes
# are cut by time alone, so that what they are worth goes on, as exact values say.

GOAL, N, DECISIONS, WALKERS = 80, 5, 8, 8000
GAMMA, LAMBDA = 0.9, 0.7
EPISODE = 4 * N  # ticks


def draw(chance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An index for each row of chances."""
    below = chance.cumsum(axis=1) < rng.random((len(chance), 1))
    return np.minimum(below.sum(axis=1), chance.shape[1] - 1)


def discounted(pay: np.ndarray, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each of K choices is worth (K, S), and choosing evenly (S,): pay (K, S), (K, S, S)."""
    value = np.linalg.solve(np.eye(grid.S) - GAMMA * chance.mean(axis=0), pay.mean(axis=0))
    return pay + GAMMA * chance @ value, value


@pytest.fixture(scope="module")
def walked() -> tuple[np.ndarray, ...]:
    """Each skill's moves (K, 4); squares before and after each tick, skills, moves (T, B)."""
    rng, chance = np.random.default_rng(1), grid.transitions()
    lean = 0.1 + 0.6 * np.eye(4)  # (K, 4) moves of each skill
    ticks = N * DECISIONS
    begin, after, skill, move = np.zeros((4, ticks, WALKERS), np.intp)
    state = rng.integers(grid.S, size=WALKERS)
    for t in range(ticks):
        if t % EPISODE == 0 and t:
            state = rng.integers(grid.S, size=WALKERS)
        skill[t] = rng.integers(4, size=WALKERS) if t % N == 0 else skill[t - 1]
        begin[t], move[t] = state, draw(lean[skill[t]], rng)
        after[t] = state = draw(chance[move[t], state], rng)
    return lean, begin, after, skill, move


def unbiased(estimate: np.ndarray, exact: np.ndarray, choice: np.ndarray) -> None:
    """Over the samples of each choice the mean error is none, and the advantage is something."""
    for k in range(4):
        error = (estimate - exact)[choice == k]
        assert abs(error.mean()) < 3.5 * error.std() / np.sqrt(len(error))
    assert np.corrcoef(estimate, exact)[0, 1] > 0.05


@pytest.mark.parametrize("known", [True, False], ids=["exact-values", "no-values"])
def test_master_advantages_are_those_of_dynamic_programming(walked, known):
    lean, begin, after, skill, _ = walked
    tick = np.einsum("km,mst->kst", lean, grid.transitions())
    ahead = [np.linalg.matrix_power(tick, i) for i in range(N + 1)]
    pay = sum(p @ tick[..., GOAL, None] for p in ahead[:N])[..., 0]  # (K, S) of N ticks
    worth, value = discounted(pay, ahead[N])
    done, decided = np.zeros((2, *begin.shape), bool)
    done[EPISODE - 1 :: EPISODE], decided[::N] = True, True
    critic = value if known else np.zeros(grid.S)
    # Without values only whole returns tell what a choice is worth: lambda 1.
    advantage = master_advantages(
        (after == GOAL).astype(np.float32),
        decided,
        critic[begin].astype(np.float32),
        done,
        value[after].astype(np.float32),
        value[after[-1]].astype(np.float32),
        gamma=GAMMA,
        gae_lambda=LAMBDA if known else 1.0,
    )
    z, s = skill[decided], begin[decided]
    unbiased(advantage[decided] + critic[s] - value[s], (worth - value)[z, s], z)


def test_skill_advantages_are_those_of_dynamic_programming(walked):
    """Of one skill at a time, each with values of its own."""
    lean, begin, after, skill, move = walked
    chance = grid.transitions()
    pay = chance[..., GOAL]  # (4, S)
    values = np.zeros((4, grid.S))
    exact = np.zeros((4, 4, grid.S))  # (K, move, S)
    for k in range(4):
        mine = np.einsum("m,mst->st", lean[k], chance)
        values[k] = np.linalg.solve(np.eye(grid.S) - GAMMA * mine, lean[k] @ pay)
        exact[k] = pay + GAMMA * chance @ values[k] - values[k]
    cut = np.zeros(begin.shape, bool)
    cut[N - 1 :: N] = True  # the skill changes there, or the episode ends
    advantage = skill_advantages(
        (after == GOAL).astype(np.float32),
        values[skill, begin].astype(np.float32),
        values[skill, after].astype(np.float32),
        cut,
        gamma=GAMMA,
        gae_lambda=LAMBDA,
    )
    unbiased(advantage.ravel(), exact[skill, move, begin].ravel(), move.ravel())
