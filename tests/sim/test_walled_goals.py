"""Rooms and obstacles for robots that walk: ways around walls, pay along them, best returns."""

import itertools

import mujoco
import numpy as np
import pytest

from policies.mlsh.presets import default_config
from sim.errors import UserError
from sim.physics.mjcf_addresses import keyframe
from sim.physics.robot_model import load_robot
from sim.seeding import episode_rng
from sim.tasks.ant_obstacles import GOAL, LAIR, ROUND, AntObstacles
from sim.tasks.body_rooms import BodyRooms
from sim.tasks.obstacles import Obstacles
from sim.tasks.planar import within
from sim.tasks.registry import make_family
from sim.tasks.rooms import Rooms
from sim.tasks.two_targets import TwoTargets
from sim.tasks.ways import Ways
from tests.support.shortest_way import shortest_ways

DT = 0.02
UPRIGHT, OVER = np.array([[1.0, 0, 0, 0]]), np.array([[0.5**0.5, 0.5**0.5, 0, 0]])
FAMILIES = BodyRooms(), Obstacles()


@pytest.fixture(params=FAMILIES, ids=lambda each: each.name)
def family(request):
    return request.param


def begun(family, task: int, **changes):
    """One episode's layout, with some entries replaced."""
    rows = family.reset(task, episode_rng(0, 0)) | changes
    return {name: np.asarray(row, np.float64)[None] for name, row in rows.items()}


def paid(family, layout, places, orientation=UPRIGHT) -> list[float]:
    """The reward of each tick of a robot that is at these places after them, m."""
    rewards = []
    for place in places:
        fields = {"position": np.array([place]), "orientation": orientation}
        layout = layout | family.advance(layout, fields, DT)
        rewards.append(float(family.reward(layout, fields)[0]))
    return rewards


def free_places(family, count: int, margin: float) -> np.ndarray:
    """Places (n, 2) inside the outer walls, farther than `margin` from every wall, m."""
    low, high = (-2.5, 2.5) if family.name == "body_rooms" else (-0.75, 10.0)
    points = np.random.default_rng(0).uniform(low, high, (count, 2))
    boxes = np.array(family.walls)
    gap = np.abs(points[:, None] - boxes[:, :2]) - boxes[:, 2:]
    free = (gap.max(axis=-1) > margin).all(axis=-1)
    if family.name == "obstacles":  # behind the wall there is no way out
        free &= ~((points[:, 0] > 7.5) & (points[:, 1] < 6.25))
    return points[free]


# Ways -------------------------------------------------------------------------------------


def test_a_way_around_a_box_by_hand():
    """From (-1, 0) around a box of half size 0.5 at the origin to (1, 0.1)."""
    box, start, goal = [(0.0, 0.0, 0.5, 0.5)], np.array([[-1.0, 0.0]]), np.array([[1.0, 0.1]])
    # 0.1 m from the sides: by the corners (-0.6, 0.6) and (0.6, 0.6).
    length, following = Ways(box, 0.1, start[0]).measure(start, goal)
    assert length[0] == pytest.approx(np.hypot(0.4, 0.6) + 1.2 + np.hypot(0.4, 0.5))
    np.testing.assert_allclose(following, [[-0.6, 0.6]])
    # From a corner the next one follows, and from where the goal is seen it is the goal.
    for place, then in (((-0.6, 0.6), (0.6, 0.6)), ((0.6, 0.6), goal[0]), ((0.7, -0.5), goal[0])):
        _, following = Ways(box, 0.1, start[0]).measure(np.array([place]), goal)
        np.testing.assert_allclose(following, [then])
    # Who is nearer than 0.1 m to the box passes it as near as that, and then keeps away.
    length, _ = Ways(box, 0.1, start[0]).measure(np.array([[-0.5, 0.55]]), goal)
    assert length[0] == pytest.approx(np.hypot(1.1, 0.05) + np.hypot(0.4, 0.5))


def test_a_measure_depends_on_its_arguments_alone_whatever_was_measured_before():
    family = FAMILIES[0]
    rng = np.random.default_rng(1)
    places, goals = rng.uniform(-2, 2, (30, 2)), family.destinations[rng.integers(4, size=30)]
    ways, walls = Ways(family.walls, family.body, places[0]), (family.walls, family.body)
    for step in range(4):
        for _ in range(2):  # the second time from memory
            length, following = ways.measure(places, goals)
            expected = Ways(*walls, places[0]).measure(places, goals)
            np.testing.assert_array_equal(length, expected[0])
            np.testing.assert_array_equal(following, expected[1])
            length += 1.0  # the caller's own, as are the arguments
            following += 1.0
        (places if step % 2 else goals)[:] = (places if step % 2 else goals)[::-1].copy()


def test_ways_are_as_long_as_those_of_a_round_robot(family):
    """By another program. A corner that is not cut makes them longer: 0.15 m for a right angle."""
    places = free_places(family, 150, family.body + 1e-3)
    assert len(places) > 40
    for goal in family.destinations:
        length, _ = family.ways.measure(places, np.tile(goal, (len(places), 1)))
        string = shortest_ways(places, goal, 1e-3, family.walls, family.body)
        assert (length >= string).all()
        assert (length <= string + 0.3).all()


def test_from_wherever_a_robot_can_be_there_is_a_way(family):
    """Also where it leans against a wall, and a step makes it no longer than the step is long."""
    places = free_places(family, 300, 0.01)
    goals = np.tile(family.destinations[0], (len(places), 1))
    length, _ = family.ways.measure(places, goals)
    assert np.isfinite(length).all()
    assert (length >= np.linalg.norm(goals - places, axis=1) - 1e-9).all()
    away = free_places(family, 300, family.body + 0.01)
    goals = np.tile(family.destinations[0], (len(away), 1))
    length, _ = family.ways.measure(away, goals)
    step = 0.01 * np.array([np.cos(2.0), np.sin(2.0)])
    assert np.abs(family.ways.measure(away + step, goals)[0] - length).max() <= 0.01 + 1e-6


def test_a_wall_is_no_way_through():
    rooms = BodyRooms()
    # On both sides of the wall between the rooms 0 and 1, at the outer wall: to the door, whose
    # post is at y = 1.75, and back. The wall is 0.1 m thick.
    here, there = np.array([[0.4, 2.4]]), np.array([[-0.4, 2.4]])
    length, following = rooms.ways.measure(here, there)
    assert length[0] == pytest.approx(2 * (2.4 - (1.75 - 0.35)) + 0.8)
    np.testing.assert_allclose(following, [[0.4, 1.4]])
    course = Obstacles()
    seen, behind = np.array([[7.0, 3.0]]), np.array([[8.5, 3.0]])
    assert np.isinf(course.ways.measure(seen, behind)[0]).all()  # walled in


@pytest.mark.parametrize(
    ("family", "start", "stop"),
    [(BodyRooms(), (-0.6, 2.1), -0.05), (Obstacles(), (6.9, 3.0), 7.425)],
    ids=lambda each: getattr(each, "name", ""),
)
def test_a_wall_stops_what_slides_against_it(family, start, stop):
    """A robot that is thrown along x at 4 m/s; the wall's side is at `stop`."""
    robot = load_robot("go2")
    ends = []
    for scene in (family.scene, lambda spec: None):
        model = robot.compile(scene)
        data = mujoco.MjData(model)
        mujoco.mj_resetDataKeyframe(model, data, keyframe(model, robot.interface))
        data.qpos[:2], data.qvel[0] = start, 4.0
        data.ctrl[:] = robot.interface.safe_command
        mujoco.mj_step(model, data, 100)  # 0.5 s
        ends.append(data.qpos[0])
    assert ends[0] < stop - 0.1 < stop + 0.1 < ends[1]


# Tasks ------------------------------------------------------------------------------------


def test_rooms_are_those_on_wheels_at_another_scale():
    mine, theirs = BodyRooms(), Rooms()
    assert mine.tasks == theirs.tasks
    np.testing.assert_allclose(mine.walls, 2.5 * np.array(theirs.walls))
    for task in range(len(mine.tasks)):
        np.testing.assert_allclose(mine.spot(task), 2.5 * theirs.spot(task))
    one, two = (each.reset(5, episode_rng(0, 1))["start"][:2] for each in (mine, theirs))
    np.testing.assert_allclose(one, 2.5 * two)
    # And the ones on wheels have the scale as well.
    places = free_places(mine, 100, 0.01) / 2.5
    goals = np.tile(theirs.spot(2), (len(places), 1))
    double = Rooms(scale=2.0).waypoint(2 * places, 2 * goals)
    np.testing.assert_allclose(double, 2 * theirs.waypoint(places, goals), atol=1e-12)


def test_the_course_is_that_of_the_ant_with_a_block_around_the_monsters_round():
    family, ant = Obstacles(scale=1.0, body=1.0, radius=2.0), AntObstacles()
    model = load_robot("go2").compile(family.scene)
    walls = [model.geom(i) for i in range(model.ngeom) if model.geom(i).name.startswith("wall_")]
    x, y, half_x, half_y = walls[-1].pos[0], walls[-1].pos[1], *walls[-1].size[:2]
    edge = np.linspace(0, 2 * np.pi, 50)
    rim = np.array(LAIR) + 0.999 * ROUND * np.stack([np.cos(edge), np.sin(edge)], axis=-1)
    inside = rim[rim[:, 0] > -3.0]  # of the left wall
    assert (np.abs(inside - (x, y)) < (half_x, half_y)).all()
    places = np.random.default_rng(0).uniform(30, 40, (50, 2))
    fields = {"position": places, "orientation": np.tile(UPRIGHT, (50, 1))}
    layout = begun(family, 0)
    layout = {name: np.repeat(value, 50, axis=0) for name, value in layout.items()}
    np.testing.assert_array_equal(family.success(layout, fields), ant.success({}, fields))
    assert within(places, GOAL, 2.0).any()


def test_what_is_seen_tells_no_room():
    rooms = BodyRooms()
    for task in range(8):
        layout = begun(rooms, task)
        np.testing.assert_array_equal(layout["start"], begun(rooms, 0)["start"])
        np.testing.assert_array_equal(layout["goals"], begun(rooms, 0)["goals"])
        np.testing.assert_array_equal(layout["goals"][0, 1], [0, 0])
    assert rooms.terms == Obstacles().terms == TwoTargets().terms


@pytest.mark.parametrize("name", ["mazes", "body_rooms", "obstacles"])
def test_skills_see_nothing_of_the_pose_and_masters_nothing_else(name):
    config, robot = default_config(name, "go2"), load_robot("go2")
    terms = {term.name for term in robot.interface.with_terms(make_family(name).terms).observation}
    policy = {"angular_velocity", "projected_gravity", "joint_position", "joint_velocity"}
    hidden = {*config.network.hidden_from_skills}
    assert terms - hidden - {"tilt", "previous_action"} == policy
    assert terms - {*config.network.hidden_from_masters} - {"tilt"} == {"position", "orientation"}


def test_a_start_without_a_way_is_refused():
    family = make_family("body_rooms")
    beyond = np.array([2 * family.width, 0.0])
    drawn = family.reset(0, np.random.default_rng(0))
    layout = {name: np.asarray(value)[None] for name, value in drawn.items()}
    held = family.left(layout, beyond[None])
    assert held == layout["distance"]  # in an episode: what was left before
    goal = {name: value for name, value in drawn.items() if name not in ("start", "distance")}
    with pytest.raises(UserError, match="a start has no way to its goal"):
        family.started({"start": np.array([*beyond, 0.0]), **goal})


def test_a_robot_that_is_too_wide_is_refused_by_name():
    for name, changes, size in (
        ("body_rooms", {"scale": 1.5}, "body 0.35 m .* scale 1.5"),  # doors of 0.6 m
        ("body_rooms", {"body": 0.51}, "body 0.51 m .* scale 2.5"),
        ("obstacles", {"body": 1.0}, "body 1.0 m .* scale 0.25"),  # 1.925 m below the block
    ):
        with pytest.raises(UserError, match=f"{name!r}: .*{size}"):
            make_family(name, changes)
    make_family("body_rooms", {"body": 0.49})
    make_family("obstacles", {"body": 0.95})


# Pay --------------------------------------------------------------------------------------


def test_coming_nearer_pays_along_the_way_and_there_and_back_nothing():
    """Away from the goal to the door, and on: straight lines would have it the other way."""
    rooms = BodyRooms()
    # From room 1, at the outer wall, to corner-0 in room 0: down to the post of the door first.
    step = 0.8 * DT
    down = [(-0.4, 2.2 - step * i) for i in range(1, 11)]
    layout = begun(rooms, 0, start=[-0.4, 2.2, 0.0], distance=0.0)
    layout["distance"] = rooms.left(layout, np.array([[-0.4, 2.2]]))
    assert paid(rooms, layout, down) == pytest.approx([1.0] * 10)
    assert paid(rooms, layout, [(-0.4 + step / 2, 2.2)])[0] == pytest.approx(0, abs=0.2)
    there_and_back = down + down[-2::-1] + [(-0.4, 2.2)]
    assert sum(paid(rooms, layout, there_and_back)) == pytest.approx(0, abs=1e-9)


def test_a_round_through_all_rooms_pays_nothing():
    """Progress is a difference of lengths, wherever the shorter way changes its side."""
    rooms = BodyRooms(radius=0.1)  # the round touches no goal
    corners = np.array([[1.25, 1.25], [-1.25, 1.25], [-1.25, -1.25], [1.25, -1.25], [1.25, 1.25]])
    ring = np.concatenate([np.linspace(a, b, 80) for a, b in itertools.pairwise(corners)])
    for task in (0, 6):
        layout = begun(rooms, task)
        layout["distance"] = rooms.left(layout, ring[:1])
        pay = paid(rooms, layout, ring)
        assert sum(pay) == pytest.approx(0, abs=1e-9)
        assert np.abs(pay).sum() > 100


def test_who_has_fallen_is_paid_nothing_more(family):
    goal = family.destinations[0]
    layout = begun(family, 0)
    layout["distance"] = family.left(layout, goal[None])
    assert paid(family, layout, [goal] * 3) == [1.0] * 3
    assert paid(family, layout, [goal] * 3, OVER) == [0.0] * 3
    for orientation, ends in ((UPRIGHT, False), (OVER, True)):
        fields = {"position": goal[None], "orientation": orientation}
        assert family.terminated(layout, fields).tolist() == [ends]
        assert family.success(layout, fields).tolist() == [not ends]


def test_behind_the_outer_wall_nothing_is_paid(family):
    layout = begun(family, 0)
    assert paid(family, layout, [(30.0, 30.0), (29.0, 29.0)]) == [0.0, 0.0]


# Reference returns ------------------------------------------------------------------------


@pytest.fixture
def few_draws(monkeypatch):
    for cls in (BodyRooms, Obstacles):
        monkeypatch.setattr(cls, "draws", 8)


@pytest.mark.parametrize(("cls", "task"), [(BodyRooms, 2), (Obstacles, 0)])
def test_a_point_that_turns_at_once_is_paid_every_tick(few_draws, cls, task):
    """It follows the shortest way, on which every tick at full speed pays 1, as at the goal.

    At each of at most seven corners a part of a tick is lost. From the other side of the house it
    is 7 m at most, and 15 m through the course.
    """
    ticks = {BodyRooms: 750, Obstacles: 1400}[cls]
    family = cls(turning=1e3, ticks=ticks)
    assert family.ticks - 7 <= family.estimate(task, DT)[1] <= family.ticks
    # It does not depend on the speed while there is enough time.
    slow = cls(turning=1e3, speed=0.55, ticks=ticks)
    assert slow.ticks - 7 <= slow.estimate(task, DT)[1] <= slow.ticks


def test_the_point_turns_at_the_corners_of_the_course(few_draws):
    # By (4.1, 0.9) and (7.075, 6.6), each 0.35 m beside a corner, to (9.5, 9.5): rad of each turn.
    legs = np.diff([(0, 0), (4.1, 0.9), (7.075, 6.6), (9.5, 9.5)], axis=0)
    bearing = np.arctan2(legs[:, 1], legs[:, 0])
    turns = np.abs(np.diff(bearing, prepend=0.0)).sum() / 1.0  # s; at the start 0.1 on average
    blind, optimum = Obstacles().estimate(0, DT)
    assert optimum == pytest.approx(2000 - turns / DT, abs=5)
    assert blind == 0.0  # towards the first place that is seen, which is the start


def test_who_goes_to_another_room_is_paid_little(few_draws):
    rooms = BodyRooms()
    blind, optimum = rooms.estimate(2, DT)
    # A turn at the start of a quarter, pi / 2 s, and on the way two or three corners.
    assert 0.75 * 750 < optimum < 750 - np.pi / 2 / DT
    assert blind < 0.1 * optimum
    assert rooms.estimate(0, DT)[0] == rooms.estimate(0, DT)[1]


def test_everything_is_of_the_robots_size(few_draws):
    """Twice the size at twice the speed is the same task."""
    small = BodyRooms(), Obstacles()
    large = (
        BodyRooms(scale=5.0, body=0.7, radius=1.2, speed=1.6),
        Obstacles(scale=0.5, body=0.7, radius=1.2, speed=1.6),
    )
    for one, two in zip(small, large, strict=True):
        assert two.estimate(0, DT) == pytest.approx(one.estimate(0, DT), abs=1e-6)
        rows = [each.reset(0, episode_rng(0, 2)) for each in (one, two)]
        np.testing.assert_allclose(rows[1]["start"][:2], 2 * rows[0]["start"][:2])
        assert rows[1]["distance"] == pytest.approx(2 * rows[0]["distance"])
