"""The off-policy learner on Taxi, where every return can be computed."""

import numpy as np
import pytest

from policies.mlsh.offpolicy_config import OffPolicyConfig
from tests.benchmarks.taxi import DECISION_TICKS, TaxiMasters, bounds, normalized
from tests.support.taxi import FAMP_LANDMARKS, PAIRS, STEPS, famp_task, gymnasium_task


def famp(waits: str, goal: str):
    return famp_task(FAMP_LANDMARKS.index(waits), FAMP_LANDMARKS.index(goal))


@pytest.mark.parametrize(
    ("waits", "goal", "way", "optimum"),
    [("G", "B", 6, 0.7), ("R", "Y", 5, 0.9), ("B", "Y", 8, 0.3)],
)
def test_the_optimum_is_the_way_there_and_back(waits, goal, way, optimum):
    """Every step but the last costs 0.1: `way` moves, picking up, and `way` moves back."""
    task = famp(waits, goal)
    assert task.mean_return(task.actions.value(STEPS)) == pytest.approx(2 - 0.1 * (2 * way + 1))
    assert 2 - 0.1 * (2 * way + 1) == pytest.approx(optimum)


def test_the_mean_optimum_of_the_twelve_tasks_is_that_of_the_paper():
    """The ways between the landmarks are 5, 9, 9, 8, 10 and 6, each there and back, twice."""
    mean = 2 - 0.1 * (2 * np.mean([5, 9, 9, 8, 10, 6]) + 1)
    assert bounds([famp_task(*pair) for pair in PAIRS])[1].mean() == pytest.approx(mean)


@pytest.mark.parametrize("make", [gymnasium_task, famp_task])
def test_skills_lose_a_step_at_most(make):
    """A decision is due every second step: after picking up, one may have to be waited for."""
    _, best, skilled = bounds([make(*pair) for pair in PAIRS])
    assert (skilled <= best + 1e-9).all()
    assert (skilled >= best - 0.1 * (DECISION_TICKS - 1) - 1e-9).all()


def test_a_skill_without_a_passenger_to_set_down_waits():
    """It costs what a step costs, -0.1, and not the -1 of a wrong attempt."""
    task = gymnasium_task(0, 1)
    for skill in task.skills[4:]:
        state = task.starts
        for _ in range(STEPS):
            action = skill[task.place[state]]
            assert task.actions.reward[state, action] == pytest.approx(-0.1)
            state = task.actions.following[state, action]
        assert len(set(state)) == 1


def test_masters_of_two_tasks_are_updated_and_scored():
    tasks = [famp_task(*pair) for pair in PAIRS[:2]]
    masters = TaxiMasters(tasks, seed=0, episodes=2, settings=OffPolicyConfig())
    masters.iterate()
    scores = masters.scores()
    assert scores.shape == (3, 2)
    assert np.isfinite(scores).all()


@pytest.mark.slow
def test_masters_learn_the_hidden_task():
    """A hundred episodes of each task; only the arrival pays, 12 to 22 steps after the start."""
    tasks = [famp_task(*pair) for pair in PAIRS]
    masters = TaxiMasters(tasks, seed=0, episodes=10, settings=OffPolicyConfig())
    for _ in range(10):
        masters.iterate()
    returns, _, arrived = masters.scores()
    assert arrived.mean() > 0.9
    assert normalized(returns, tasks).mean() > 0.9
