"""Families for robots that walk: goals as the robot sees them, pay, and reference returns."""

import numpy as np
import pytest

from sim.envs.world import World
from sim.physics.robot_model import load_robot
from sim.seeding import episode_rng
from sim.tasks.ant_mazes import AntMazes
from sim.tasks.body_patrol import BodyPatrol
from sim.tasks.mazes import Mazes
from sim.tasks.planar import to_base
from sim.tasks.registry import make_family
from sim.tasks.two_targets import TwoTargets
from tests.benchmarks.new_tasks import next_goal_first

DT = 0.02
UPRIGHT = np.array([[1.0, 0.0, 0.0, 0.0]])


def product(p, q):
    """Hamilton product of quaternions, w first."""
    a, b, c, d = p
    return np.array([[a, -b, -c, -d], [b, a, -d, c], [c, d, a, -b], [d, -c, b, a]]) @ q


def about(axis: int, angle: float):
    turn = np.zeros(4)
    turn[0], turn[1 + axis] = np.cos(angle / 2), np.sin(angle / 2)
    return turn


def layout_of(family, task: int, **changes):
    """One episode's layout, with some entries replaced."""
    rows = family.reset(task, episode_rng(0, 0)) | changes
    return {name: np.asarray(row, np.float64)[None] for name, row in rows.items()}


def at(x: float, y: float):
    return {"position": np.array([[x, y]]), "orientation": UPRIGHT}


def test_an_orientation_gives_the_heading_of_a_robot_that_leans():
    ahead = np.array([[1.0, 0.0]])
    for yaw in (0.0, 0.7, -2.9):
        level = to_base(ahead, {"heading": np.array([[np.sin(yaw / 2), np.cos(yaw / 2)]])})
        for lean in (about(1, 0.4), about(0, -0.5)):  # pitch and roll after the turn
            quaternion = product(about(2, yaw), lean)
            for sign in (1, -1):
                fields = {"orientation": sign * quaternion[None]}
                np.testing.assert_allclose(to_base(ahead, fields), level, atol=1e-12)
    np.testing.assert_allclose(level, [[np.cos(2.9), np.sin(2.9)]])


@pytest.mark.parametrize("family", [TwoTargets(), Mazes()], ids=lambda each: each.name)
def test_what_is_seen_is_relative_to_the_robot(family):
    world = World(load_robot("go2"), family, 1)
    world.reset(np.zeros(1, np.int32), [0], [episode_rng(0, 3)])
    places = world.layout["goals"][0] if family.name == "two_targets" else None
    if places is None:
        places = np.stack([world.layout["start"][0, :2], world.layout["goal"][0]])
    x, y, heading = world.layout["start"][0]
    offset = places - (x, y)
    bearing = np.arctan2(offset[:, 1], offset[:, 0]) - heading
    seen = world.true_state()["goals"].reshape(2, 2)
    length = np.linalg.norm(offset, axis=1)[:, None]
    expected = length * np.stack([np.cos(bearing), np.sin(bearing)], axis=-1)
    np.testing.assert_allclose(seen, expected, atol=1e-9)


def test_the_three_families_show_the_same_term():
    """Masters of all of them fit into one bundle."""
    first, *others = (each.terms for each in (TwoTargets(), BodyPatrol(), Mazes()))
    assert all(other == first for other in others)
    assert first[0].frame == "base_link"


def test_two_targets_pay_for_coming_nearer_and_for_being_there():
    family = TwoTargets()
    goals = np.array([[0.0, 9.0], [1.0, 0.0]])
    layout = layout_of(family, 1, goals=goals, distance=1.0)
    paid = []
    for x in (0.008, 0.0, 0.016, 0.61, 0.61):  # half of full speed; back; full speed; inside
        layout |= family.advance(layout, at(x, 0.0), DT)
        paid.append(float(family.reward(layout, at(x, 0.0))[0]))
    assert paid == [pytest.approx(each) for each in (0.5, -0.5, 1.0, 1.0, 1.0)]


def test_an_arrival_makes_the_other_goal_count_without_a_jump_of_the_pay():
    family = BodyPatrol(approach=0.1)
    goals = np.array([[1.0, 0.0], [-1.0, 0.0]])
    layout = layout_of(family, 0, goals=goals, distance=1.0)
    paid = []
    for x in (0.592, 0.608, 0.592, 0.576):
        layout |= family.advance(layout, at(x, 0.0), DT)
        paid.append(float(family.reward(layout, at(x, 0.0))[0]))
    # 0.592 m in a tick is 37 times full speed; then it arrives, and on its way back it is paid
    # for coming nearer to the other goal.
    assert paid == [pytest.approx(each) for each in (3.7, 1.1, 0.1, 0.1)]


def test_the_observation_of_a_patrol_does_not_determine_which_goal_is_next():
    """Between the goals, with its front to the first: it may come from the second, or have left
    the first backwards. It sees the same, and is paid for another direction."""
    family, goals = BodyPatrol(), np.array([[1.0, 0.0], [-1.0, 0.0]])
    shown, paid = [], []
    for way in ((-1.0, 0.0), (1.0, 0.0)):  # in the second, in the first, then the middle
        layout = layout_of(family, 0, goals=goals, distance=1.0)
        for x in way:
            layout |= family.advance(layout, at(x, 0.0), DT)
        shown.append(family.fields(layout, at(0.0, 0.0))["goals"])
        layout |= family.advance(layout, at(0.016, 0.0), DT)  # full speed to the first goal
        paid.append(float(family.reward(layout, at(0.016, 0.0))[0]))
    np.testing.assert_array_equal(*shown)
    assert paid == [pytest.approx(0.05), pytest.approx(-0.05)]


def test_a_benchmark_shows_the_goal_to_go_to_as_the_first():
    family, goals = BodyPatrol(), np.array([[1.0, 0.5], [-1.0, 0.0]])
    layout = layout_of(family, 0, goals=goals)
    shows = next_goal_first(BodyPatrol.fields)
    for x, y, first in ((0.0, 0.0, 0), (1.0, 0.5, 1), (-1.0, 0.0, 0)):
        layout |= family.advance(layout, at(x, y), DT)
        shown = shows(family, layout, at(0.0, 0.0))["goals"].reshape(2, 2)
        np.testing.assert_allclose(shown, goals if first == 0 else goals[::-1])
        np.testing.assert_allclose(shown[0], family.target(layout)[0])


def test_a_fall_ends_an_episode():
    for family in (TwoTargets(), BodyPatrol(), Mazes()):
        for lean, ends in ((0.9, False), (1.1, True)):
            fields = {"position": np.zeros((1, 2)), "orientation": about(0, lean)[None]}
            assert family.terminated(layout_of(family, 0), fields).tolist() == [ends]


def test_reference_returns_are_those_of_a_point_that_turns_and_goes_straight():
    family = TwoTargets()
    blind, optimum = family.estimate(0, DT)
    assert blind == optimum
    # Every tick pays 1 but those of the turn, pi / 2 rad on average, outside of the target: it
    # lies around the start in pi 0.4^2 / 16 of the episodes. A turn's deviation is 45 ticks.
    outside = 1 - np.pi * 0.4**2 / 16
    assert optimum == pytest.approx(600 - outside * np.pi / 2 / DT, abs=4 * 45 / 16)
    assert abs(family.estimate(1, DT)[0]) < 0.1 * optimum  # the other target is anywhere
    slow = TwoTargets(turning=0.5).estimate(0, DT)[1]
    assert 600 - slow == pytest.approx(2 * (600 - optimum), rel=0.02)


def test_a_patrol_of_a_point_arrives_as_often_as_its_speed_allows():
    family = BodyPatrol(approach=0.0)
    blind, optimum = family.estimate(0, DT)
    assert 0.9 < blind < 1.1
    # The first goal takes a quarter turn and 0.8 m, 2.6 s, on average; each other one half a turn
    # and the way from rim to rim of goals that are 1.9 m apart, 4.5 s.
    assert optimum == pytest.approx(1 + 27.4 / 4.5, rel=0.1)
    assert family.estimate(1, DT)[1] == pytest.approx(1.1 * optimum, rel=0.03)


def test_mazes_are_those_of_the_ant_at_another_scale():
    mine, theirs = Mazes(), AntMazes(scale=0.125, speed=0.8, ticks=1500, radius=0.6)
    assert mine.tasks == theirs.tasks
    for task in range(len(mine.tasks)):
        assert mine.estimate(task, DT) == theirs.estimate(task, DT)
        one, two = (each.reset(task, episode_rng(0, task)) for each in (mine, theirs))
        for name, value in one.items():
            np.testing.assert_array_equal(value, two[name])


def test_a_robot_that_has_fallen_has_not_reached_its_target():
    family = make_family("two_targets")
    layout = {k: np.asarray(v)[None] for k, v in family.reset(0, episode_rng(0, 0)).items()}
    place = family.target(layout)
    upright, over = np.array([[1.0, 0, 0, 0]]), np.array([[0.5**0.5, 0.5**0.5, 0, 0]])
    assert family.success(layout, {"position": place, "orientation": upright}).all()
    assert not family.success(layout, {"position": place, "orientation": over}).any()
