"""Patrol: the laws of its arrivals, and its reference returns."""

import numpy as np
import pytest

from sim.envs.reference_returns import compute_reference_returns
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.seeding import episode_rng
from sim.tasks.patrol import NOWHERE, Patrol
from sim.tasks.registry import make_family

GOALS = np.array([[-0.5, 0.0], [0.5, 0.0]])
FAR = (0.0, 0.9)


def drive(task: int, path) -> tuple[list[float], list[bool]]:
    """Rewards and success after each position of a path between GOALS."""
    family, rewards, solved = Patrol(), [], []
    state = {k: np.asarray(v)[None] for k, v in family.reset(task, episode_rng(0, 0)).items()}
    state["goals"] = GOALS[None]
    for position in path:
        fields = {"position": np.array([position])}
        state |= family.advance(state, fields, 0.1)
        rewards.append(float(family.reward(state, fields)[0]))
        solved.append(bool(family.success(state, fields)[0]))
    return rewards, solved


@pytest.mark.parametrize(("task", "second"), [(0, 1.0), (1, 1.2)])
def test_each_arrival_at_the_other_goal_pays_once(task, second):
    left, right = GOALS
    rewards, solved = drive(task, [FAR, left, left, FAR, left, right, right, left])
    assert rewards == [0, 1, 0, 0, 0, second, 0, 1]
    assert solved == [False] * 5 + [True] * 3


def test_the_first_arrival_may_be_at_either_goal():
    assert drive(1, [GOALS[1], GOALS[0]])[0] == [1.2, 1.0]


def test_goals_are_apart_and_do_not_tell_the_task():
    family = Patrol()
    for number in range(500):
        even, tilted = (family.reset(task, episode_rng(0, number)) for task in (0, 1))
        assert np.array_equal(even["goals"], tilted["goals"])
        assert abs(even["goals"]).max() <= family.half_width
        assert np.linalg.norm(even["goals"][0] - even["goals"][1]) >= family.separation
        assert even["last"] == NOWHERE


def test_the_expert_heads_for_the_goal_that_was_not_visited_last():
    family = Patrol()
    state = {"goals": np.tile(GOALS, (3, 1, 1)), "last": np.array([NOWHERE, 0.0, 1.0])}
    assert np.array_equal(family.target(state), GOALS[[0, 1, 0]])


def test_goals_that_could_be_visited_at_once_are_refused():
    for value in (0.5, 1.1):
        with pytest.raises(UserError, match=f"separation {value} must be above twice the radius"):
            make_family("patrol", {"separation": value})


def test_what_is_possible():
    found = [
        compute_reference_returns(load_robot("omni"), Patrol(), task, episodes=128)
        for task in (0, 1)
    ]
    even, tilted = found
    assert even.random < 1.0 < even.task_blind < 1.2  # one goal is reached once
    assert 16.5 < even.optimum < 18.0 < tilted.optimum < 20.0
    assert tilted.optimum == pytest.approx(1.1 * even.optimum, rel=0.02)
