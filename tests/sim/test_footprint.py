"""From above: outlines have the areas that geometry gives them; robots and floors have none."""

import mujoco
import numpy as np
import pytest

from sim.physics.robot_model import load_robot
from sim.rendering.scene import SceneRenderer
from sim.rendering.topdown import EDGES, footprints, hull
from sim.tasks.registry import FAMILIES, make_family

# A circle is drawn as a polygon: its area is smaller by this factor, 0.997 for 48 edges.
ROUND = EDGES / (2 * np.pi) * np.sin(2 * np.pi / EDGES)


def area(outline):
    """Gauss's formula; above 0 counter-clockwise."""
    x, y = outline.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def seen(geom):
    xml = f"<mujoco><worldbody>{geom}</worldbody></mujoco>"
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return footprints(model, data)


def test_a_hull_turns_left_and_leaves_out_what_is_inside():
    points = np.array([[0, 0], [2, 0], [1, 0], [2, 1], [1, 0.5], [0, 1], [0.3, 0.3]])
    np.testing.assert_array_equal(hull(points), [[0, 0], [2, 0], [2, 1], [0, 1]])


@pytest.mark.parametrize(
    ("geom", "expected", "middle", "top"),
    [
        # 4 ab, whichever way it is turned about z
        ('type="box" size=".3 .1 .2" pos="1 2 .2" euler="0 0 30"', 0.12, (1, 2), 0.4),
        # on its end: 4 bc
        ('type="box" size=".3 .1 .2" euler="0 90 0"', 0.08, (0, 0), 0.3),
        ('type="cylinder" size=".5 .1"', ROUND * np.pi * 0.25, (0, 0), 0.1),
        # lying along x: 2r * 2h
        ('type="cylinder" size=".5 .1" euler="0 90 0"', 0.2, (0, 0), 0.5),
        ('type="sphere" size=".5" pos="0 1 0"', ROUND * np.pi * 0.25, (0, 1), 0.5),
        # lying: a circle and 2r * 2h
        ('type="capsule" size=".5 1" euler="90 0 0"', ROUND * np.pi * 0.25 + 2, (0, 0), 0.5),
        ('type="ellipsoid" size=".5 .2 .1"', ROUND * np.pi * 0.1, (0, 0), 0.1),
        # on its side: x stays, z lies along y
        ('type="ellipsoid" size=".5 .2 .1" euler="90 0 0"', ROUND * np.pi * 0.05, (0, 0), 0.2),
    ],
)
def test_outlines_have_the_area_that_geometry_gives_them(geom, expected, middle, top):
    (shape,) = seen(f"<geom {geom}/>")
    assert area(shape.outline) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(shape.outline.mean(axis=0), middle, atol=1e-6)
    assert shape.top == pytest.approx(top)
    assert shape.fixed


def test_a_mesh_is_its_hull():
    spec = mujoco.MjSpec()
    corners = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]
    spec.add_mesh(name="corner", uservert=corners)
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname="corner")
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    (shape,) = footprints(model, data)
    assert area(shape.outline) == pytest.approx(0.5, rel=1e-5)  # a right triangle


def test_only_what_stands_and_is_visible_counts():
    assert not seen('<geom type="plane" size="1 1 .1"/>')
    assert not seen('<geom type="box" size="1 1 1" rgba="1 0 0 0"/>')
    assert not seen('<geom type="box" size="1 1 1" group="3"/>')
    assert not seen('<body><freejoint/><body><geom type="box" size="1 1 1"/></body></body>')
    (post,) = seen('<body><geom type="box" size="1 1 1"/></body>')
    (goal,) = seen('<body mocap="true"><geom type="box" size="1 1 1"/></body>')
    (disc,) = seen('<geom size="1" contype="0" conaffinity="0"/>')
    assert (post.fixed, goal.fixed) == (True, False)
    assert (post.solid, disc.solid) == (True, False)


def test_what_is_lower_comes_first():
    low, high = '<geom size=".1"/>', '<geom type="box" size=".1 .1 2"/>'
    for text in (low + high, high + low):
        assert [shape.top for shape in seen(text)] == [0.1, 2.0]


@pytest.mark.parametrize("name", FAMILIES)
def test_families_show_what_they_add_and_nothing_of_the_robot(name):
    family = make_family(name)
    stage = SceneRenderer(load_robot(family.robot), family)
    moving = stage.model.body_weldid[stage.model.geom_bodyid] > 0
    placed = stage.model.body_mocapid[stage.model.geom_bodyid] >= 0
    top = stage.model.geom_pos[:, 2] + stage.model.geom_size[:, 2]
    table = (stage.model.geom_bodyid == 0) & (top <= 0)  # a ground too
    ground = (stage.model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE) | table
    shapes = stage.footprints()
    assert len(shapes) == (placed | ~moving & ~ground).sum()
    for shape in shapes:
        assert area(shape.outline) > 0
    layout = {k: np.asarray(v)[None] for k, v in family.reset(0, np.random.default_rng(0)).items()}
    assert placed.sum() == len(family.place(layout))
