"""The ant and its families: a sound model, rewards by hand, mazes that can be run through."""

import itertools
from collections import deque

import mujoco
import numpy as np
import pytest

from sim.envs.reference_returns import (
    ReferenceReturns,
    compute_reference_returns,
    enough,
)
from sim.envs.world import World
from sim.errors import UserError
from sim.interface.orientation import rotation_6d
from sim.physics.robot_model import load_robot
from sim.rendering.topdown import footprints
from sim.seeding import episode_rng
from sim.tasks import ant_bandits, ant_mazes, ant_obstacles
from sim.tasks.ant_bandits import AntBandits
from sim.tasks.ant_mazes import CELLS, MAZES, AntMazes
from sim.tasks.ant_movement import DIRECTIONS, AntMovement
from sim.tasks.ant_obstacles import AntObstacles
from sim.tasks.registry import FAMILIES, find_task, make_family
from sim.tasks.running import run
from sim.tasks.task_id import TaskId

ANT = load_robot("ant")
MODEL = ANT.compile()
LEGS = {"front_left": (1, 1), "front_right": (1, -1), "back_left": (-1, 1), "back_right": (-1, -1)}
DT = ANT.interface.control_dt
CALM = {"heading": 0.0, "shake": 0.0}


def begun(family, tasks=(0,), robot=ANT) -> World:
    """One simulation per task."""
    world = World(robot, family, len(tasks))
    rngs = [episode_rng(0, n) for n in range(len(tasks))]
    world.reset(np.arange(len(tasks), dtype=np.int32), tasks, rngs)
    return world


def hold(world, ticks: int):
    """The safe command; fields and outcome of the last tick."""
    for _ in range(ticks):
        result = world.step_command(np.tile(world.interface.safe_command, (world.size, 1)))
    return result


def put(world, *places) -> None:
    """Each robot at x, y and a heading."""
    world.physics.teleport(np.arange(world.size, dtype=np.int32), np.array(places, float))
    if "before" in world.layout:
        world.layout["before"][:] = np.array(places, float)[:, :2]


# The model --------------------------------------------------------------------------------


def test_dimensions_and_masses():
    assert MODEL.body("base_link").subtreemass[0] == pytest.approx(40)
    assert MODEL.geom("torso").size[0] == 0.25
    legs = 0.0
    for name, (x, y) in LEGS.items():
        upper, lower = MODEL.body(f"upper_{name}"), MODEL.body(f"lower_{name}")
        np.testing.assert_allclose(upper.pos, [0.2 * x, 0.2 * y, 0], atol=1e-9)
        # From the hip outwards, in line with it: 0.2 sqrt(2) = 0.283, and twice that.
        np.testing.assert_allclose(lower.pos, [0.283, 0, 0], atol=1e-9)
        for part, length in (("upper", 0.283), ("lower", 0.566)):
            radius, half, _ = MODEL.geom(f"{part}_{name}").size
            assert (radius, 2 * half) == (0.08, pytest.approx(length))
        np.testing.assert_allclose(MODEL.joint(f"hip_{name}").range, np.deg2rad([-30, 30]))
        np.testing.assert_allclose(MODEL.joint(f"ankle_{name}").range, np.deg2rad([30, 70]))
        legs += upper.subtreemass[0]
    assert legs == pytest.approx(10)


def test_it_touches_the_floor_and_never_itself():
    floor = MODEL.geom("floor").id
    solid = [i for i in range(MODEL.ngeom) if MODEL.geom(i).name]
    assert len(solid) == 1 + 1 + 2 * len(LEGS)  # floor, torso, links
    for a, b in itertools.combinations(range(MODEL.ngeom), 2):
        touch = (MODEL.geom_contype[a] & MODEL.geom_conaffinity[b]) | (
            MODEL.geom_contype[b] & MODEL.geom_conaffinity[a]
        )
        assert bool(touch) == ({a, b} <= set(solid) and floor in (a, b))


def test_an_episode_begins_at_rest():
    world = begun(AntMovement(**CALM))
    height = world.true_state()["height"][0, 0]
    for _ in range(60):
        fields, _ = hold(world, 1)
        assert np.abs(world.physics.batch.qvel).max() < 2e-3
        assert fields["height"][0, 0] == pytest.approx(height, abs=2e-4)
    np.testing.assert_allclose(fields["position"], 0, atol=1e-4)
    data = world.physics.batch.get_data(0)
    mujoco.mj_forward(world.physics.model, data)
    down = {world.physics.model.geom(i).name for i in data.contact.geom.ravel()}
    assert down == {"floor", *(f"lower_{leg}" for leg in LEGS)}


def test_servos_stand_and_lift_within_their_torque():
    """Knees of 30 degrees lift it as high as the torque allows: not limp, not glued."""
    world = begun(AntMovement(**CALM))
    command = world.interface.safe_command.copy()[None]
    command[:, 4:] = world.interface.limits[1][4:]
    for _ in range(80):
        fields, _ = world.step_command(command)
    data = world.physics.batch.get_data(0)
    mujoco.mj_forward(world.physics.model, data)
    assert fields["height"][0, 0] > 0.52
    assert (np.abs(data.actuator_force) < 149).all()


def test_everything_goes_by_name():
    world = begun(AntMovement(**CALM))
    physics, interface = world.physics, world.interface
    numbers = np.random.default_rng(0).uniform(0.6, 1.0, 16)
    for i, joint in enumerate(f"{kind}_{leg}" for kind in ("hip", "ankle") for leg in LEGS):
        physics.batch.joint(joint).qpos[0] = numbers[i]
        physics.batch.joint(joint).qvel[0] = numbers[8 + i]
        term = next(t for t in interface.action if t.name == joint.split("_")[0])
        element = i % 4
        assert term.ros.fields[element] == f"position[{joint}]"
        actuator = physics.model.actuator(term.mujoco.actuators[element])
        assert physics.model.joint(actuator.trnid[0]).name == joint
        for name, what in ((term.name, "position"), (f"{term.name}_velocity", "velocity")):
            shown = next(t for t in interface.observation if t.name == name)
            assert shown.ros.fields[element] == f"{what}[{joint}]"
    got, at = interface.observe(world.true_state())[0], interface.observation_slices
    np.testing.assert_allclose(got[at["hip"]], numbers[:4], rtol=1e-6)
    np.testing.assert_allclose(got[at["ankle"]], numbers[4:8], rtol=1e-6)
    np.testing.assert_allclose(got[at["hip_velocity"]], 0.1 * numbers[8:12], rtol=1e-6)
    np.testing.assert_allclose(got[at["ankle_velocity"]], 0.1 * numbers[12:], rtol=1e-6)
    assert [t.name for t in interface.observation if t.policy_input] == [
        *("position", "height", "orientation", "velocity", "angular_velocity"),
        *("hip", "ankle", "hip_velocity", "ankle_velocity"),
    ]
    for term in interface.observation:  # sensors would cost a seventh of the speed
        assert term.mujoco.sensor is None


def test_axes_are_the_rows_of_mujocos_rotation_whatever_the_sign():
    q = np.random.default_rng(1).normal(size=(40, 4))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    for row, shown in zip(q, rotation_6d(q), strict=True):
        matrix = np.zeros(9)
        mujoco.mju_quat2Mat(matrix, row)
        np.testing.assert_allclose(shown, matrix.reshape(3, 3)[[0, 2]].ravel(), atol=1e-12)
    np.testing.assert_array_equal(rotation_6d(-q), rotation_6d(q))
    assert np.isnan(rotation_6d(np.zeros(4))).all()
    # Heading left, 90 degrees: the odom frame's x is to the right.
    quarter = np.sqrt([0.5, 0, 0, 0.5])
    np.testing.assert_allclose(rotation_6d(quarter), [0, -1, 0, 0, 0, 1], atol=1e-12)


def test_velocity_is_along_the_worlds_axes_and_turning_along_the_bodys():
    world = begun(AntMovement(**CALM))
    put(world, [0, 0, np.pi / 2])
    world.physics.batch.qpos[0, 2] = 5.0  # in the air
    world.physics.batch.qvel[0, :6] = [1.0, 0.5, 0, 0.3, 0, 0]
    fields, _ = hold(world, 1)
    np.testing.assert_allclose(fields["velocity"][0, :2], [1, 0.5], atol=0.02)
    np.testing.assert_allclose(fields["position"][0], [DT, 0.5 * DT], atol=1e-3)
    # It rolls about its own x, which is the world's y: its y axis, to the world's -x, goes down.
    assert fields["angular_velocity"][0, 0] == pytest.approx(0.3, abs=0.05)
    up = rotation_6d(fields["orientation"][0])[3:]
    assert up[1] == pytest.approx(0.3 * DT, rel=0.2)


def edited(folder, old: str, new: str):
    """The ant with another model."""
    source = ANT.model_path.parent
    (folder / "robot.yaml").write_text((source / "robot.yaml").read_text())
    text = (source / "model.xml").read_text()
    assert old in text
    (folder / "model.xml").write_text(text.replace(old, new))
    return load_robot(str(folder))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("hip_back_left", "hip_rear_left", r"'hip': mujoco\.qpos: no joint 'hip_back_left'"),
        ('<freejoint name="root"/>', '<freejoint name="base"/>', r"no joint 'root'"),
        ('<freejoint name="root"/>', '<joint name="root" axis="0 0 1"/>', r"root\[0\]"),
    ],
)
def test_a_model_that_does_not_fit_is_named_at_construction(tmp_path, old, new, said):
    robot = edited(tmp_path, old, new)
    with pytest.raises(UserError, match=said):
        World(robot, AntMovement(), 1)


def test_the_base_is_known_by_its_free_joint_whatever_its_name(tmp_path):
    world = begun(
        AntMovement(), robot=edited(tmp_path, '<body name="base_link"', '<body name="b"')
    )
    put(world, [1.0, 2.0, np.pi / 2])
    fields = world.true_state()
    np.testing.assert_array_equal(fields["position"], [[1, 2]])
    np.testing.assert_allclose(fields["orientation"], [np.sqrt([0.5, 0, 0, 0.5])])


def test_blocks_stop_a_robot_whose_model_has_no_contacts(tmp_path):
    bare = edited(tmp_path, "<visual>", '<option><flag contact="disable"/></option><visual>')
    model = bare.compile(AntMazes().scene)
    torso, floor = model.geom("torso"), model.geom("floor")
    (block,) = model.body("block_11").geomadr
    assert torso.conaffinity[0] & model.geom_contype[block]
    assert not torso.conaffinity[0] & floor.contype[0]


# A start ----------------------------------------------------------------------------------


def test_a_start_is_calm_or_shaken_as_much_as_it_says():
    still = begun(AntMovement(**CALM)).true_state()
    shaken = begun(AntMovement(heading=0.3, shake=0.05), [0] * 50).true_state()
    for name in ("hip", "ankle"):
        off = np.abs(shaken[name] - still[name])
        assert 0.045 < off.max() <= 0.05
        assert off.min() < 0.005
    heading = 2 * np.arctan2(shaken["orientation"][:, 3], shaken["orientation"][:, 0])
    assert 0.27 < heading.max() <= 0.3
    assert -0.3 <= heading.min() < -0.27


# Rewards ----------------------------------------------------------------------------------


def test_movement_pays_the_way_ahead_less_what_strays():
    family = AntMovement(directions=4, sideways=0.25)
    rate, at = np.tile([2.0, 0.5], (4, 1)), np.tile([1.0, 3.0], (4, 1))
    layout = {"ahead": np.array([DIRECTIONS[t] for t in family.tasks]), "rate": rate}
    layout["start"] = np.tile([0.0, 1.0, 0.0], (4, 1))
    assert family.tasks == ("right", "up", "down", "left")
    # The way is (1, 2). right: 2 - 0.5 * 2 - 0.25 * 0.5; up: 0.5 - 0.5 * 1 - 0.25 * 2; ...
    expected = [0.875, -0.5, -1.5, -3.125]
    np.testing.assert_allclose(family.reward(layout, {"position": at}), expected)
    far = AntMovement(directions=4, far=1.5)
    assert far.success(layout, {"position": at}).tolist() == [False, True, False, False]


def test_every_direction_is_a_task_that_can_be_asked_for():
    assert AntMovement().tasks == ("right", "up")  # as published
    for number, name in enumerate(DIRECTIONS):
        family, found = find_task(TaskId("ant_movement", name))
        assert (family.tasks[found], found) == (name, number)


def test_effort_is_of_the_action_in_force():
    quiet, costly = (begun(AntMovement(effort=e, **CALM)) for e in (0.0, 0.1))
    # Cut to 1 by the limit of the joints; reached from 0 by at most 25 rad/s.
    action = np.full((1, 8), 3.0, np.float32)
    squares = 0.0
    for _ in range(3):
        free, paid = (world.step(action)[1].reward[0] for world in (quiet, costly))
        in_force = costly.interface.action_for(costly.command)[0]
        assert in_force.max() < 1.001
        squares = (in_force**2).sum()
        assert free - paid == pytest.approx(0.1 * squares)
    assert squares == pytest.approx(8, rel=0.01)


@pytest.mark.parametrize("name", ["ant_movement", "ant_mazes"])
def test_rewards_add_up_to_the_way(name):
    family = make_family(name, {"effort": 0.0, **CALM} | ({"lateral": 0} if "mov" in name else {}))
    world = begun(family)
    rng, total, start = np.random.default_rng(0), 0.0, world.true_state()["position"][0]
    for _ in range(60):
        fields, outcome = world.step(rng.uniform(-1, 1, (1, 8)).astype(np.float32))
        total += outcome.reward[0]
    end = fields["position"][0]
    assert np.abs(end - start).sum() > 0.02
    if name == "ant_movement":
        way = end[0] - start[0]
    else:
        way = np.abs(start - world.layout["goal"][0]).sum()
        way -= np.abs(end - world.layout["goal"][0]).sum()
    assert total * DT == pytest.approx(way, abs=1e-12)


def test_only_the_published_maze_reward_pays_for_walking_to_and_fro():
    goal, ways = np.array([[8.0, 24.0]]), [7.0, 8.5, 7.0, 8.5, 7.0]
    sums = {}
    for family in (AntMazes(), AntMazes(published=True)):
        layout, total = {"goal": goal, "before": np.array([[ways[0], 0.0]])}, 0.0
        layout["reached"] = np.zeros(1)
        for x in ways[1:]:
            changes = family.advance(layout, {"position": np.array([[x, 0.0]])}, DT)
            layout |= changes
            total += family.reward(layout, {})[0]
        sums[family.published] = total * DT
    # From 7 to 8.5 and back, twice: 1.5 m each time by signs, and nothing in the end.
    assert sums == {False: pytest.approx(0), True: pytest.approx(6.0)}


def test_a_maze_is_solved_by_who_has_been_at_its_goal():
    family = AntMazes()
    layout = {"goal": np.array([[8.0, 24.0]]), "before": np.zeros((1, 2)), "reached": np.zeros(1)}
    solved = []
    for y in (20.9, 21.1, 20.9):  # 3.1 m from it, 2.9 m, and away again
        fields = {"position": np.array([[8.0, y]])}
        layout |= family.advance(layout, fields, DT)
        solved += family.success(layout, fields).tolist()
    assert solved == [False, True, True]


def test_bandits_pay_the_root_of_the_distance_to_a_point_in_the_air():
    family = AntBandits()
    layout = {"goal": np.array([[5.0, 0.0], [0.0, 5.0]])}
    fields = {"position": np.array([[5.0, 0.0], [4.0, 5.0]]), "height": np.array([[0.5], [4.0]])}
    # 0.5 m below the point; and hypot(4, 3) = 5 m away.
    expected = [-np.sqrt(0.5) / 3000, -np.sqrt(5) / 3000]
    np.testing.assert_allclose(family.reward(layout, fields), expected)
    assert family.success(layout, fields).tolist() == [True, False]


def test_leaning_ends_an_episode_if_it_is_to():
    for tilt, ends in ((0.0, False), (1.0, False), (0.8, True)):
        world = begun(AntMovement(tilt=tilt, **CALM))
        world.physics.batch.qpos[0, 2:7] = [3, np.cos(0.45), np.sin(0.45), 0, 0]  # leans by 0.9
        _, outcome = hold(world, 1)
        assert outcome.terminated[0] == ends


# Pose resets ------------------------------------------------------------------------------


def test_a_pose_reset_keeps_the_place_and_nothing_else():
    action = np.random.default_rng(0).uniform(-1, 1, (1, 8)).astype(np.float32)
    free, held = (begun(AntMovement(ticks=40, pose_reset=n)) for n in (0, 20))
    start = begun(AntMovement(**CALM)).physics.batch.qpos[0]
    for tick in range(1, 41):
        one, two = free.step(action)[0], held.step(action)[0]
        qpos, qvel = held.physics.batch.qpos[0], held.physics.batch.qvel[0]
        if tick == 20:
            np.testing.assert_array_equal(one["position"], two["position"])
            np.testing.assert_array_equal(qpos[2:], start[2:])
            assert not qvel.any()
        elif tick < 20:
            np.testing.assert_array_equal(free.physics.batch.qpos[0], qpos)
    assert np.abs(qpos[2:] - start[2:]).max() > 1e-3  # the end of an episode is as it is


def test_no_family_resets_poses_by_itself():
    mine = [make_family(name) for name, cls in FAMILIES.items() if cls.robot == "ant"]
    assert len(mine) == 4
    assert {family.pose_reset for family in mine} == {0}


# Mazes ------------------------------------------------------------------------------------

GRID = 0.5  # m
BODY = 0.6  # m, from the middle of the ant to its knees


def boxes(world, row: int) -> np.ndarray:
    """(n, 4) center and half sizes of everything in a simulation that stands on the floor."""
    data = world.physics.batch.get_data(row)
    mujoco.mj_forward(world.physics.model, data)
    model = world.physics.model
    found = [
        [*data.geom_xpos[i, :2], *model.geom_size[i, :2]]
        for i in range(model.ngeom)
        if model.geom_type[i] == mujoco.mjtGeom.mjGEOM_BOX
        and model.geom_contype[i]
        and data.geom_xpos[i, 2] + model.geom_size[i, 2] > 0
    ]
    return np.array(found)


def steps_from(start, walls: np.ndarray, low, high) -> dict[tuple[float, float], int]:
    """Breadth first: grid points that the ant can get to, with the steps along the axes."""
    axes_ = [np.arange(a, b + GRID / 2, GRID) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes_, indexing="ij"), axis=-1)
    gap = np.abs(points[:, :, None] - walls[:, :2]) - walls[:, 2:]
    free = ~(gap < BODY).all(axis=-1).any(axis=-1)
    first = tuple(round((s - a) / GRID) for s, a in zip(start, low, strict=True))
    seen, queue = {first: 0}, deque([first])
    while queue:
        i, j = queue.popleft()
        for there in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            inside = 0 <= there[0] < free.shape[0] and 0 <= there[1] < free.shape[1]
            if inside and there not in seen and free[there]:
                seen[there] = seen[(i, j)] + 1
                queue.append(there)
    return {tuple(points[cell]): count for cell, count in seen.items()}


@pytest.fixture(scope="module")
def mazes() -> World:
    return begun(AntMazes(), range(len(MAZES)))


@pytest.mark.parametrize("task", range(len(MAZES)))
def test_a_maze_can_be_run_through_without_a_step_away_from_the_goal(mazes, task):
    goal, cells = np.array(MAZES[task][0]), MAZES[task][1]
    walls = boxes(mazes, task)
    assert len(walls) == 4 + len(CELLS) - len(cells)
    reached = steps_from(ant_mazes.START, walls, (0, -24), (48, 24))
    near = {xy: n for xy, n in reached.items() if np.linalg.norm(xy - goal) < AntMazes().radius}
    xy, count = min(near.items(), key=lambda item: np.abs(item[0] - goal).sum())
    assert count * GRID == pytest.approx(np.abs(np.array(xy) - ant_mazes.START).sum())
    # It gets everywhere in the free cells, and in no other; a closed one would shut it off.
    assert {cell_of(xy) for xy in reached} == set(cells)
    for cell in cells[1:]:
        shut = np.vstack([walls, [*CELLS[cell], 7.6, 7.6]])
        less = steps_from(ant_mazes.START, shut, (0, -24), (48, 24))
        assert not any(np.linalg.norm(xy - goal) < AntMazes().radius for xy in less)


def cell_of(xy) -> str:
    return min(CELLS, key=lambda cell: np.abs(np.array(CELLS[cell]) - xy).max())


@pytest.mark.parametrize("scale", [1.0, 0.125])
def test_a_scaled_maze_is_the_same_maze_and_has_room_for_a_robot(scale):
    robot = ANT if scale == 1.0 else load_robot("go2")
    family = AntMazes(scale=scale, speed=0.8, **CALM)
    world = begun(family, (0, 5, 8), robot)
    model, places = world.physics.model, family.place(world.layout)
    published = {cell: np.array([8 + 16 * int(cell[1]), 16 - 16 * int(cell[0])]) for cell in CELLS}
    for row, task in enumerate((0, 5, 8)):
        goal, free = MAZES[task]
        np.testing.assert_allclose(family.target(world.layout)[row], scale * np.array(goal))
        for cell, xy in published.items():
            block = places[f"block_{cell}"][row]
            np.testing.assert_allclose(block[:2], scale * xy)
            assert (block[2] < 0) == (cell in free)
            size = model.geom_size[model.body(f"block_{cell}").geomadr[0]]
            np.testing.assert_allclose(size, (7.6 * scale, 7.6 * scale, 1.0))
    fields, _ = hold(world, 25)
    # It stands where it was put: no wall pushes it away.
    np.testing.assert_allclose(
        fields["position"], np.tile([max(2 * scale, 0.5), 0], (3, 1)), atol=0.03
    )
    # Along x and y to the goal of maze 8, at 0.8 m/s or as far as time goes.
    meters = 32 * scale - max(2 * scale, 0.5) + 16 * scale
    assert family.estimate(8, 0.02)[1] == pytest.approx(min(meters / 0.02, 0.8 * 1000))


def test_the_mazes_are_the_published_ones():
    goals = [(8, 24), (8, -24), (24, 24), (24, -24), (48, 0)]
    goals += [(40, 24), (40, -24), (32, 16), (32, -16)]
    assert [goal for goal, _ in MAZES[:9]] == goals
    # As the released code has them: which of the nine blocks are moved away, by rows.
    published = ("100100000", "000100100", "010110000", "000110010", "000111000")
    published += ("001111000", "000111001", "110100000", "000100110")
    for (_, cells), moved in zip(MAZES, published, strict=False):
        assert set(cells) == {c for c, flag in zip(CELLS, moved, strict=True) if flag == "1"}
    # Half of them are the others' mirror images; the test mazes too.
    turned = {(g[0], -g[1], frozenset(mirrored(c))) for g, c in MAZES}
    assert turned == {(*g, frozenset(c)) for g, c in MAZES}
    assert AntMazes(held_out=4).tasks == AntMazes().tasks[:9]


def mirrored(cells) -> list[str]:
    return [f"{2 - int(row)}{column}" for row, column in cells]


def test_a_block_stops_the_ant_where_it_stands_and_only_there():
    """In mazes 0 and 4 of one batch the ant is put into the side of cell 11: closed, open."""
    world = begun(AntMazes(**CALM), [0, 4])
    put(world, [16.2, 0, 0], [16.2, 0, 0])  # the block begins at 16.4, the torso reaches 16.45
    fields, _ = hold(world, 20)
    assert fields["position"][0, 0] < 16.15
    assert fields["position"][1, 0] == pytest.approx(16.2, abs=0.02)


def test_from_above_one_sees_the_blocks_that_are_there(mazes):
    data = mazes.physics.batch.get_data(0)
    mujoco.mj_forward(mazes.physics.model, data)
    shapes = footprints(mazes.physics.model, data)
    middles = {tuple(s.outline.mean(axis=0).round(6)) for s in shapes if np.ptp(s.outline) > 15}
    assert {CELLS[cell] for cell in CELLS if cell not in MAZES[0][1]} <= middles
    assert not {CELLS[cell] for cell in MAZES[0][1]} & middles
    assert len(shapes) == 4 + 7 + 1  # walls, blocks, the goal's disc


# Obstacles --------------------------------------------------------------------------------


def test_the_corner_is_reached_past_monster_and_walls_along_the_axes_alone():
    family = AntObstacles()
    walls = boxes(begun(family), 0)
    # Room from -3 to 40; a wall at x = 30 up to y = 25, and from there to the right.
    published = [[28, -3, 35, 0.3], [28, 40, 35, 0.3], [-3, 28, 0.3, 35], [40, 28, 0.3, 35]]
    published += [[35, 25, 5, 0.3], [30, 10, 0.3, 15]]
    np.testing.assert_allclose(walls, published)
    lair = np.array([[*ant_obstacles.LAIR, 15 - BODY, 15 - BODY]])  # the square around its round
    reached = steps_from((0, 0), np.vstack([walls, lair]), (-3, -3), (40, 40))
    paid = [n for xy, n in reached.items() if family.success({}, {"position": np.array([xy])})[0]]
    # 76 - 2 sqrt(2) = 73.17 m, in steps of 0.5 m
    assert min(paid) * GRID == pytest.approx(76 - 2 * np.sqrt(2), abs=2 * GRID)
    assert not any(x > 31 and y < 24 for x, y in reached)  # behind the wall
    edge = AntObstacles(published=True)
    for x, expected in ((38.0, False), (38.7, False), (38.9, True)):
        assert edge.success({}, {"position": np.array([[x, x]])})[0] == expected


def test_the_monster_comes_when_one_enters_its_round():
    world = begun(AntObstacles(**CALM))
    put(world, [14.9, 20.0, 0])
    for tick in range(1, 12):  # 1 m per tick along x; the ant stays at the same height
        _, outcome = hold(world, 1)
        np.testing.assert_allclose(world.layout["monster"][0, 0], tick)
        assert not outcome.terminated[0]
    _, outcome = hold(world, 1)  # 12: 2.9 m away, nearer than 3.2
    assert outcome.terminated[0]
    put(world, [15.1, 20.0, 0])
    hold(world, 3)
    assert world.layout["monster"][0, 0] == 12.0  # out of its round it stands still
    safe = begun(AntObstacles(monster=False, **CALM))
    put(safe, [0, 20, 0])
    assert not hold(safe, 1)[1].terminated[0]


def test_a_snapshot_amid_the_chase_goes_on_bit_for_bit():
    world = begun(AntObstacles(pose_reset=4, **CALM))
    put(world, [10.0, 15.0, 0])
    hold(world, 3)
    state = world.snapshot()
    first = [hold(world, 1)[0]["position"].copy() for _ in range(4)]
    monster = world.layout["monster"].copy()
    other = begun(AntObstacles(pose_reset=4))
    other.restore(state)
    for expected in first:
        np.testing.assert_array_equal(hold(other, 1)[0]["position"], expected)
    np.testing.assert_array_equal(other.layout["monster"], monster)


# What returns are possible ----------------------------------------------------------------


def test_bounds_of_bandits_by_the_published_numbers():
    """At the published tick of 0.05 s, where the target is 0.09 m off and 0.51 m above."""
    target = np.array([5.09, -0.09])
    for ticks, speeds in (
        (1000, {0: -0.754, 0.5: -0.294, 1: -0.266, 2: -0.252}),
        (300, {0: -0.226, 0.5: -0.128, 1: -0.100, 2: -0.085}),
    ):
        for speed, expected in speeds.items():
            path = run([(0, 0), tuple(target)], speed, 0.05, ticks)
            flat = np.linalg.norm(path - target, axis=1)
            assert ant_bandits.paid(flat, 0.51).sum() == pytest.approx(expected, abs=1e-3)
    collapsed, optimum = AntBandits(speed=1.0).estimate(1, 0.05)
    assert AntBandits(speed=1.0).estimate(0, 0.05) == (optimum, optimum)
    assert collapsed < -0.75 < optimum == pytest.approx(-0.266, abs=5e-3)


def test_bounds_of_movement_by_hand():
    family = AntMovement(speed=1.5, directions=4, lateral=0.0, sideways=0.2, ticks=100)
    # 100 ticks at 1.5 m/s; who runs right strays by 1.5 m/s if up or down is asked for.
    expected = [(150, 150), (-30, 150), (-30, 150), (-150, 150)]
    np.testing.assert_allclose([family.estimate(t, DT) for t in range(4)], expected)
    # 3 ticks of 0.5 s at 2 m/s: 1, 2 and 3 m beside the line, half a point each.
    assert AntMovement(speed=2.0, ticks=3).estimate(1, 0.5) == (pytest.approx(-3.0), 6.0)


def test_bounds_of_mazes_by_the_published_numbers():
    fast = [AntMazes(speed=9.0).estimate(t, DT)[1] for t in range(len(MAZES))]
    # 40 per metre along x and y: 30, 46 or 62 m.
    assert fast == pytest.approx([1200] * 2 + [1840] * 3 + [2480] * 2 + [1840] * 2 + [2480] * 4)
    assert np.mean(fast[:9]) == pytest.approx(1840)
    slow = [AntMazes(speed=1.5).estimate(t, DT)[1] for t in range(len(MAZES))]
    assert slow == pytest.approx([1200] * 2 + [1500] * 11)  # 1000 v
    # Right to the wall at 16.4 m, less 0.25: 8.15 m beyond the goal's line instead of 6 before it.
    assert AntMazes().estimate(0, DT)[0] == pytest.approx((6 - 8.15) * 40)


def test_bounds_of_obstacles_by_the_published_numbers():
    def of(speed, **more):
        return AntObstacles(speed=speed, **more).estimate(0, DT)[1]

    # 2000 - 40 metres / v; to the very corner of the box at (39, 39), 78 m, it would be 3120 / v.
    for speed, to_corner in ((1.73, 197), (2.0, 440), (2.5, 752), (3.0, 960)):
        assert 2000 - 3120 / speed == pytest.approx(to_corner, abs=0.6)
        assert of(speed, published=True) == pytest.approx(2000 - 40 * 77.6 / speed)
        assert of(speed, published=True) == pytest.approx(to_corner, abs=10)
    assert of(2.0) == pytest.approx(2000 - 20 * (76 - 2 * np.sqrt(2)))
    assert of(1.0) == 0


def test_a_score_is_of_the_way_from_random():
    # 23 is half of the way from 2 to 44; of the optimum alone it would be 52 %.
    assert ReferenceReturns(random=2.0, task_blind=23.0, optimum=44.0).normalize(23.0) == 0.5
    # Half of -0.3 is not twice as good as -0.3: from -0.75 it is two thirds of the way to -0.3.
    cost = ReferenceReturns(random=-0.75, task_blind=-0.8, optimum=-0.3)
    assert cost.normalize(-0.45) == pytest.approx(2 / 3)
    assert cost.normalize(-0.75) == 0
    # 51,200 ticks of 600, of 2000 at least 32 episodes; of 200 where controllers are simulated.
    assert enough(AntMovement()) == 85
    assert enough(AntObstacles()) == 32
    assert enough(make_family("rooms")) == 256


def test_the_random_bound_is_simulated_and_the_others_are_not():
    family = AntMovement(ticks=20, speed=3.0, lateral=0.0)
    bound = compute_reference_returns(ANT, family, 1, episodes=4)
    assert (bound.task_blind, bound.optimum) == pytest.approx((0.0, 60.0))
    # Uniform actions: 0.1 * 8 / 3 per tick is their effort.
    assert -15 < bound.random < 0
    assert bound.random != compute_reference_returns(ANT, family, 1, episodes=4, seed=1).random


def test_a_room_ends_the_run_at_its_wall_and_falling_costs():
    family = AntMovement(ticks=400, speed=4.0, lateral=0.0, effort=0.0, room=21.5, fall=2.0)
    # 10 s at 4 m/s are 40 m, the width between starts: on average half of it, 20 m, is free.
    assert family.estimate(0, 0.025)[1] == pytest.approx(20.0 / 0.025)
    # 5 s are 20 m: 20 - 20^2 / (2 x 40) = 15 m.
    half = AntMovement(ticks=200, speed=4.0, lateral=0.0, room=21.5)
    assert half.estimate(0, 0.025)[1] == pytest.approx(15.0 / 0.025)
    starts = [family.reset(0, np.random.default_rng(i))["start"] for i in range(200)]
    assert 19 < np.abs(starts)[:, :2].max() <= 20.0
    assert ANT.compile(family.scene).ngeom == ANT.compile(AntMovement().scene).ngeom + 4
    still = {"ahead": np.array([[1.0, 0.0]] * 2), "rate": np.zeros((2, 2))}
    upright, turned = [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]
    fields = {"position": np.zeros((2, 2)), "orientation": np.array([upright, turned])}
    assert family.reward(still, fields).tolist() == [0.0, -2.0]
