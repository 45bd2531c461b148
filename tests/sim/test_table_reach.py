"""Table Reach and Table Reach Sequence: `reach` in space, where a touch of the table ends it."""

import numpy as np
import pytest

from sim.envs.reference_returns import compute_reference_returns
from sim.envs.world import World
from sim.errors import UserError
from sim.physics.robot_model import ROBOTS, load_robot
from sim.seeding import episode_rng
from sim.tasks import ur5e_arm
from sim.tasks.reach import Reach
from sim.tasks.registry import make_family
from sim.tasks.table_reach import TOUCH, TableReach
from sim.tasks.table_reach_sequence import TableReachSequence
from tests.support.reach import begun, drive

UR5E = load_robot("ur5e")
DT = UR5E.interface.control_dt
EPISODES = 64
BOTH = pytest.mark.parametrize("family", [TableReach(), TableReachSequence()])


# What an episode draws --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family", [TableReach(), TableReachSequence(), TableReach(shown=4, separation=0.25)]
)
def test_buttons_are_within_reach_apart_and_do_not_tell_the_task(family):
    low, high = UR5E.interface.limits
    for number in range(100):
        drawn = [family.reset(t, episode_rng(0, number)) for t in range(len(family.tasks))]
        for other in drawn[1:]:
            np.testing.assert_array_equal(other["goals"], drawn[0]["goals"])
        joints, goals = drawn[0]["joints"], drawn[0]["goals"]
        assert goals.shape == (family.shown, 3)
        assert (goals[:, 2] == ur5e_arm.HEIGHT).all()
        assert ((joints > low) & (joints < high)).all()
        np.testing.assert_allclose(ur5e_arm.tip(joints), goals, atol=1e-12)
        apart = np.linalg.norm(goals[:, None] - goals, axis=-1) + np.eye(family.shown)
        assert apart.min() >= family.separation


def test_what_is_seen_is_each_place_with_three_coordinates_and_which_button_is_pressed():
    family = TableReach()
    goals, pressed = family.terms
    assert goals.ros.fields == tuple(f"poses[{i}].position.{a}" for i in (0, 1) for a in "xyz")
    assert (goals.size, goals.frame, pressed.size) == (6, "base_link", 2)
    assert TableReachSequence().terms == family.terms  # masters of both fit into one bundle


def test_the_discs_lie_on_the_table_under_the_places():
    family = TableReach()
    layout = {"goals": np.random.default_rng(0).normal(size=(4, 2, 3))}
    for i, place in enumerate(family.place(layout).values()):
        np.testing.assert_array_equal(place, layout["goals"][:, i, :2])


@BOTH
def test_no_episode_begins_on_the_table_or_in_a_button(family):
    world = begun(UR5E, family, 0, 500)
    assert not world.true_state()["pressed"].any()
    fields, outcome = world.step(np.zeros((500, 6), np.float32))
    assert not outcome.terminated.any()
    assert (fields[TOUCH] == 0).all()


def test_the_tasks_are_the_buttons_and_both_orders():
    assert TableReach().tasks == ("target-0", "target-1")
    assert TableReachSequence().tasks == ("order-01", "order-10")
    assert TableReachSequence(held_out=1).tasks == ("order-01",)
    assert len(TableReachSequence(shown=3).tasks) == 6


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"shown": 5}, "shown: input should be less than or equal to 4, got 5"),
        ({"separation": 0.1}, "separation 0.1 must be above twice the radius 0.05"),
        ({"shake": -0.1}, "shake"),
    ],
)
def test_parameters_without_a_sense_are_refused_in_one_line(parameters, words):
    with pytest.raises(UserError) as info:
        make_family("table_reach", parameters)
    assert words in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(("robot", "family"), [("arm", TableReach()), ("ur5e", Reach())])
def test_a_tool_with_another_number_of_coordinates_is_refused(robot, family):
    size = 5 - (have := 2 if robot == "arm" else 3)
    with pytest.raises(UserError) as info:
        World(load_robot(robot), family, 1)
    assert str(info.value) == (
        f"task family {family.name!r} needs {size} elements of the observation term "
        f"'tool_position', of which robot {robot!r} has {have}"
    )


def test_a_robot_without_a_table_is_refused(tmp_path):
    for name in ("robot.yaml", "model.xml"):
        text = (
            (ROBOTS / "ur5e" / name).read_text().replace('geom name="table"', 'geom name="bench"')
        )
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=r"'table_reach': signal 'table_force': no geom 'table'"):
        World(load_robot(str(tmp_path)), TableReach(), 1)


# What it is worth -------------------------------------------------------------------------------


def test_the_reward_falls_with_the_distance_in_space():
    family, goals = TableReach(), np.array([[0.5, 0.2, 0.1], [0.5, -0.2, 0.1]])
    layout = {"goals": np.tile(goals, (3, 1, 1)), "slot": np.array([0.0, 0.0, 1.0])}
    tool = [[0.5, 0.2, 0.1], [0.5, 0.2, 0.3], [0.5, -0.2, 0.14]]
    fields = {"tool_position": np.array(tool), TOUCH: np.zeros((3, 1))}
    # e^0; 0.2 m above: e^-1; 0.04 m above: e^-0.2
    np.testing.assert_allclose(family.reward(layout, fields), np.exp([0, -1, -0.2]))
    assert family.success(layout, fields).tolist() == [True, False, True]
    assert family.fields(layout, fields)["pressed"].tolist() == [[1, 0], [0, 0], [0, 1]]


@BOTH
def test_a_touch_ends_the_episode_unsolved(family):
    """The same state with and without a force on the table."""
    row = {k: np.asarray(v)[None] for k, v in family.reset(0, episode_rng(0, 0)).items()}
    row["streak"] = np.array([2.0])
    fields = {"tool_position": row["goals"][:, 0]}
    for force, ended in ((0.0, False), (0.1, True)):
        touched = {**fields, TOUCH: np.array([[force]])}
        assert family.terminated(row, touched).tolist() == [ended]
        assert family.success(row, touched).tolist() == [not ended]


@BOTH
def test_an_arm_that_is_sent_onto_the_table_touches_it(family):
    world = begun(UR5E, family, 0, 4)
    lowered = UR5E.interface.safe_command + 0.7 * np.eye(6)[1]
    ended = np.zeros(4, bool)
    for tick in range(60):
        action = world.interface.action_for(np.tile(lowered, (4, 1)))
        fields, outcome = world.step(action.astype(np.float32))
        np.testing.assert_array_equal(outcome.terminated, fields[TOUCH][:, 0] > 0)
        ended |= outcome.terminated
        if tick < 10:  # 0.2 s at 1.5 rad/s: 0.3 rad, and the tool is 0.3 m high and 0.5 m away
            assert not ended.any()
    assert ended.all()


# What returns are possible ----------------------------------------------------------------------


@pytest.mark.parametrize("task", [0, 1])
def test_the_estimates_are_what_a_script_does_without_touching_the_table(task):
    for family, choose in (
        (TableReach(), lambda layout: layout["slot"].astype(int)),
        (sequence := TableReachSequence(), sequence.following),
    ):
        _, optimum = family.estimate(task, DT)
        mine, solved = drive(UR5E, family, task, choose, EPISODES)
        assert optimum == pytest.approx(mine, rel=0.03)
        assert solved.all()


def test_what_is_possible():
    first, second = (
        compute_reference_returns(UR5E, TableReach(), task, episodes=EPISODES) for task in (0, 1)
    )
    assert first.task_blind == first.optimum
    assert second.task_blind < 0.3 * second.optimum
    assert max(first.random, second.random) < 0.3 * first.optimum
    forward, backward = (TableReachSequence().estimate(task, DT) for task in (0, 1))
    # Two buttons in turn: who ignores the order loses the first press, and one more at most.
    assert forward[0] == forward[1]
    assert backward[1] - 2 < backward[0] < backward[1]
