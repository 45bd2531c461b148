"""Reach and Reach Sequence: what pays, what is seen, and what returns are possible; the arm."""

from dataclasses import replace
from itertools import permutations

import mujoco
import numpy as np
import pytest

from sim.envs.reference_returns import (
    ReferenceReturns,
    compute_reference_returns,
)
from sim.errors import UserError
from sim.interface import PATH_TERMS, path_fields, path_term
from sim.physics.mjcf_addresses import keyframe
from sim.physics.robot_model import load_robot
from sim.robot_setup.step_test import run_step_tests
from sim.robot_setup.validation import find_errors, find_warnings
from sim.seeding import episode_rng
from sim.tasks import two_link_arm
from sim.tasks.reach import Reach
from sim.tasks.reach_sequence import ReachSequence
from sim.tasks.registry import find_task, make_family
from sim.tasks.table_reach import TableReach
from sim.tasks.task_id import TaskId
from tests.support.reach import begun, drive

ARM = load_robot("arm")
DT = ARM.interface.control_dt
GOALS = np.array([[0.5, -0.2], [0.55, 0.0], [0.5, 0.2]])
AWAY = (0.3, 0.3)
EPISODES = 64


# The robot ----------------------------------------------------------------------------------


def test_check_robot_finds_nothing_to_complain_of():
    model = ARM.compile()
    assert find_errors(ARM.model_path.parent) == []
    tested = run_step_tests(ARM.interface, model, 3.0)
    assert find_warnings(ARM.interface, model, tested) == []


@pytest.mark.parametrize("family", [Reach, TableReach])
def test_what_the_reference_returns_know_of_an_arm_is_the_robots_own(family):
    robot, arm = load_robot(family.robot), family.arm
    (action,) = robot.interface.action
    np.testing.assert_array_equal(action.limits, (arm.low, arm.high))
    np.testing.assert_array_equal(action.rate_limits, arm.rate)
    np.testing.assert_array_equal(action.smoothing_times, arm.smoothing)
    for driven in run_step_tests(robot.interface, robot.compile(), 3.0).drives:
        if driven.followed.gain > 0.99:  # one command leads the ur5e onto the table
            assert driven.followed.lag == pytest.approx(arm.lag[driven.element], abs=2e-3)
    data = mujoco.MjData(model := robot.compile())
    if (key := keyframe(model, robot.interface)) is not None:
        mujoco.mj_resetDataKeyframe(model, data, key)
    np.testing.assert_array_equal(data.qpos, arm.home)


def test_the_tool_is_where_the_links_lead():
    world, rng = begun(ARM, Reach(), 0, EPISODES), np.random.default_rng(0)
    for action in rng.uniform(-1, 1, (20, EPISODES, 2)).astype(np.float32):
        fields, _ = world.step(action)
    expected = two_link_arm.tip(fields["joint_position"])
    np.testing.assert_allclose(fields["tool_position"], expected, atol=1e-9)


def test_a_path_is_drawn_of_the_base_or_else_of_the_tool():
    assert path_term(ARM.interface).name == "tool_position"
    assert path_term(load_robot("omni").interface).name == PATH_TERMS[0] == "position"


def test_what_the_policy_does_not_see_hides_no_path_that_it_sees():
    """A report has recorded observations only."""
    interface = ARM.interface
    (tool,) = (term for term in interface.observation if term.name == "tool_position")
    base = replace(tool, name="position", policy_input=False)
    both = replace(interface, observation=(base, *interface.observation))
    assert path_term(both).name == "position"
    assert path_term(both, observed=True).name == "tool_position"
    alone = replace(interface, observation=(base, interface.observation[0]))
    assert path_term(alone, observed=True) is None


def test_the_fields_of_a_path_are_those_that_are_there_the_base_first():
    fields = {"tool_position": 1, "velocity": 2, "position": 3}
    assert list(path_fields(fields).items()) == [("position", 3), ("tool_position", 1)]
    assert path_fields({"velocity": 2}) == {}


# What an episode draws ------------------------------------------------------------------------


@pytest.mark.parametrize("family", [Reach(), ReachSequence(), Reach(shown=4, separation=0.25)])
def test_targets_are_within_reach_apart_and_do_not_tell_the_task(family):
    for number in range(200):
        drawn = [family.reset(t, episode_rng(0, number)) for t in range(len(family.tasks))]
        for other in drawn[1:]:
            np.testing.assert_array_equal(other["goals"], drawn[0]["goals"])
        joints, goals = drawn[0]["joints"], drawn[0]["goals"]
        assert (joints >= two_link_arm.LOWEST).all()
        assert (joints <= two_link_arm.HIGHEST).all()
        np.testing.assert_array_equal(two_link_arm.tip(joints), goals)
        apart = np.linalg.norm(goals[:, None] - goals, axis=-1) + np.eye(family.shown)
        assert apart.min() >= family.separation


def test_the_tasks_are_all_orders_and_the_last_ones_can_be_held_out():
    family = ReachSequence()
    assert family.tasks == tuple(f"order-{a}{b}{c}" for a, b, c in permutations(range(3)))
    assert ReachSequence(held_out=2).tasks == family.tasks[:4]
    found, number = find_task(TaskId.parse("reach_sequence/order-210"), {"held_out": 2})
    assert found.tasks[number] == "order-210"
    assert family.reset(5, episode_rng(0, 0))["order"].tolist() == [2, 1, 0]
    with pytest.raises(UserError, match="held_out 6 must be less than the 6 orders"):
        make_family("reach_sequence", {"held_out": 6})


@pytest.mark.parametrize("separation", [0.1, 0.26])
def test_targets_that_overlap_or_have_no_room_are_refused(separation):
    with pytest.raises(UserError, match=f"separation {separation} must be above twice the radius"):
        make_family("reach", {"separation": separation})


def test_both_families_show_the_same_terms():
    """Masters of both fit into one bundle."""
    assert Reach().terms == ReachSequence().terms


def test_an_episode_begins_anywhere():
    joints = begun(ARM, Reach(), 0, 500).true_state()["joint_position"]
    # Uniform on [-0.8, 0.8]: variance 0.64 / 3
    assert np.abs(joints).max() < 0.8
    np.testing.assert_allclose(joints.var(axis=0), 0.64 / 3, rtol=0.15)


# What it is worth -------------------------------------------------------------------------------


def test_reach_pays_by_distance_to_the_target_that_counts():
    layout = {"goals": np.tile(GOALS, (3, 1, 1)), "slot": np.array([0.0, 0.0, 1.0])}
    fields = {"tool_position": np.array([[0.5, -0.2], [0.5, 0.0], [0.55, 0.04]])}
    family = Reach()
    # e^0; 0.2 m off: e^-1; 0.04 m off: e^-0.2
    np.testing.assert_allclose(family.reward(layout, fields), np.exp([0, -1, -0.2]))
    assert family.success(layout, fields).tolist() == [True, False, True]
    pressed = family.fields(layout, fields)["pressed"]
    # (0.5, 0) is 0.05 m from the second target: its edge is outside.
    assert pressed.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def press(order: str, places, hold: int = 2) -> tuple[list[float], list[bool]]:
    """Rewards and success after each tick of a tool at places: numbers of GOALS, or x and y."""
    family, rewards, solved = ReachSequence(hold=hold), [], []
    task = family.tasks.index(f"order-{order}")
    state = {k: np.asarray(v)[None] for k, v in family.reset(task, episode_rng(0, 0)).items()}
    state["goals"] = GOALS[None]
    for place in places:
        at = GOALS[place] if isinstance(place, int) else np.array(place)
        fields = {"tool_position": at[None]}
        state |= family.advance(state, fields, DT)
        rewards.append(float(family.reward(state, fields)[0]))
        solved.append(bool(family.success(state, fields)[0]))
    return rewards, solved


def test_each_target_of_the_order_pays_once_and_it_begins_again():
    rewards, solved = press("201", [2, 2, 2, 0, 0, 1, 1, 1, 2, 2])
    assert rewards == [0, 1, 0, 0, 1, 0, 1, 0, 0, 1]
    assert solved == [False] * 6 + [True] * 4


def test_passing_over_a_target_does_not_press_it():
    assert press("012", [0, AWAY, 0, 1, 0, 0])[0] == [0, 0, 0, 0, 0, 1]


def test_a_wrong_target_pays_nothing_and_changes_nothing_but_the_success():
    rewards, solved = press("012", [0, 0, 2, 2, 1, 1, 2, 2, 0, 0])
    assert rewards == [0, 1, 0, 0, 0, 1, 0, 1, 0, 1]
    assert solved == [False] * 9 + [True]  # 1, 2, 0: a round since the wrong one


def test_leaving_a_target_and_coming_back_to_it_is_not_wrong():
    rewards, solved = press("012", [0, 0, 1, 1, AWAY, 1, 1, 2, 2])
    assert rewards == [0, 1, 0, 1, 0, 0, 0, 0, 1]
    assert solved[-1]


def test_going_on_in_the_same_round_leads_back_from_any_target():
    """So that a master need not know whether the target it sees pressed was the right one."""
    for order in ("".join(map(str, each)) for each in permutations(range(3))):
        for first in range(3):
            at = order.index(str(first))
            way = [int(order[(at + i) % 3]) for i in range(5)]
            assert sum(press(order, np.repeat(way, 2).tolist())[0]) >= 3


# What returns are possible ----------------------------------------------------------------------


def test_the_optimum_of_reach_is_what_the_arm_can_do():
    family = Reach()
    for task in range(3):
        _, optimum = family.estimate(task, DT)
        mine, _ = drive(ARM, family, task, lambda layout: layout["slot"].astype(int), EPISODES)
        assert optimum == pytest.approx(mine, rel=0.03)


def test_the_optimum_of_an_order_is_what_the_arm_can_do():
    family = ReachSequence()
    for task in (0, 5):
        _, optimum = family.estimate(task, DT)
        mine, _ = drive(ARM, family, task, family.following, EPISODES)
        assert optimum == pytest.approx(mine, rel=0.05)


def returns(family, task: int) -> ReferenceReturns:
    return compute_reference_returns(ARM, family, task, episodes=EPISODES)


def test_what_is_possible():
    first, second = (returns(Reach(), task) for task in (0, 1))
    assert first.task_blind == first.optimum
    assert second.task_blind < 0.8 * second.optimum
    assert max(first.random, second.random) < 0.7 * first.optimum
    forward, backward = (returns(ReachSequence(), task) for task in (0, 1))
    # It is the order of the numbers, unless an episode begins in a target.
    assert forward.task_blind == pytest.approx(forward.optimum, rel=0.01)
    # Against the order, every second target is the next one.
    assert backward.task_blind == pytest.approx(backward.optimum / 2, rel=0.1)
    for found in (forward, backward):
        # A way from target to target takes 0.4 to 1 s, and 0.2 s there.
        assert 12 / 1.2 < found.optimum < 12 / 0.6
        assert found.random < 0.2 * found.optimum
