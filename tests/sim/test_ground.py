"""Uneven ground: its shape, what MuJoCo makes of it, and heights above it in rewards."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import ClassVar

import mujoco
import numpy as np
import pytest

from policies.mlsh.mlsh import Mlsh
from policies.mlsh.presets import default_config
from policies.training.run import create_run
from sim.envs.world import World
from sim.errors import UserError
from sim.interface import Floats
from sim.physics.robot_model import load_robot
from sim.tasks.base import HiddenTask
from sim.tasks.ground import HALF, PLATFORM, Ground
from sim.tasks.registry import make_family
from sim.tasks.velocity_commands import VelocityCommands
from tests.support.checkpoints import assert_goes_on_bit_for_bit

GO2 = load_robot("go2")
ROUGH = VelocityCommands(slope=0.3, step=0.08, bumps=0.05, levels=4)
GROUND = Ground(0.3, 0.08, 0.05, 4)


def patches():
    return [(kind, level) for kind in range(len(GROUND.kinds)) for level in range(GROUND.levels)]


@pytest.fixture(scope="module")
def world():
    return World(GO2, ROUGH, 8)


@pytest.mark.parametrize(("kind", "level"), patches())
def test_a_patch_begins_level_and_ends_at_height_0(kind, level):
    x, y = GROUND.center(kind, level)
    near = np.linspace(-PLATFORM + 0.01, PLATFORM - 0.01, 20)
    platform = np.stack(np.meshgrid(near + x, near + y), axis=-1)
    np.testing.assert_allclose(GROUND.height(platform), 0, atol=1e-12)
    side = np.linspace(-HALF, HALF, 50)
    for edge in (-HALF, HALF):
        for places in ((x + side, np.full(50, y + edge)), (np.full(50, x + edge), y + side)):
            np.testing.assert_allclose(GROUND.height(np.stack(places, axis=-1)), 0, atol=1e-12)


@pytest.mark.parametrize("kind", range(5))
def test_levels_grow_evenly_from_flat_to_the_hardest(kind):
    across = np.linspace(-HALF, HALF, 300)
    most = []
    for level in range(GROUND.levels):
        x, y = GROUND.center(kind, level)
        line = np.stack([across + x, np.full(300, y + 0.1)], axis=-1)
        most.append(np.abs(GROUND.height(line)).max())
    assert most == pytest.approx(np.array([0, 1, 2, 3]) / 3 * most[-1], abs=1e-9)
    assert most[-1] > 0.03
    name = GROUND.kinds[kind]
    x, y = GROUND.center(kind, 3)
    heights = GROUND.height(np.stack([across + x, np.full(300, y)], axis=-1))
    if name.endswith("up"):
        assert heights.min() == 0
    if name.endswith("down"):
        assert heights.max() == 0
    if name.startswith("stairs"):  # 8 cm each: every level stretch is at a multiple of them
        level = np.abs(np.diff(heights)) < 1e-9
        stairs = heights[1:][level] / 0.08
        np.testing.assert_allclose(stairs, np.round(stairs), atol=1e-6)
        assert {round(h / 0.08) for h in np.abs(heights[1:][level])} >= {0, 1, 2, 3}
    if name.startswith("slope"):
        rise = np.abs(np.diff(heights) / np.diff(across))
        assert rise.max() == pytest.approx(0.3)


def test_heights_are_where_mujoco_has_its_surface(world):
    model = world.physics.model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    rng, hit = np.random.default_rng(0), np.zeros(1, np.int32)
    places = rng.uniform(-20, 20, (500, 2))
    down, mask = np.array([0.0, 0, -1]), np.array([1, 0, 0, 0, 0, 0], np.uint8)
    seen = []
    for place in places:
        far = mujoco.mj_ray(model, data, np.array([*place, 5.0]), down, mask, 1, -1, hit)
        assert model.geom_type[hit[0]] == mujoco.mjtGeom.mjGEOM_HFIELD
        seen.append(5.0 - far)
    np.testing.assert_allclose(GROUND.height(places), seen, atol=0.005)


def test_a_ball_rests_on_the_ground_and_not_on_the_floor_it_replaces():
    spec = mujoco.MjSpec.from_string(
        "<mujoco><worldbody><geom type='plane' size='9 9 1' friction='.7 .1 .1'/>"
        "</worldbody></mujoco>"
    )
    GROUND.add_to(spec, "family")
    down = GROUND.kinds.index("slope_down")
    x, y = GROUND.center(down, 3)
    place = np.array([x + 2.0, y])  # 1.25 m down the slope of 0.3
    body = spec.worldbody.add_body(pos=[*place, 0.5])
    body.add_freejoint()
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.05, 0.05, 0.05])
    model = spec.compile()
    data = mujoco.MjData(model)
    while data.time < 2:
        mujoco.mj_step(model, data)
    assert data.geom_xpos[-1, 2] - GROUND.height(data.geom_xpos[-1, :2]) == pytest.approx(
        0.05, abs=0.01
    )
    assert data.geom_xpos[-1, 2] < -0.25
    (ground,) = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_HFIELD)
    assert model.geom_friction[ground, 0] == 0.7


@pytest.mark.parametrize("name", ["ground", "floor", "terrain", ""])
def test_the_floor_may_have_any_name(name):
    named = f"name='{name}'" if name else ""
    spec = mujoco.MjSpec.from_string(
        f"<mujoco><worldbody><geom {named} type='plane' size='9 9 1'/></worldbody></mujoco>"
    )
    GROUND.add_to(spec, "family")
    assert spec.compile().nhfield == 1


def test_robots_begin_on_patches_and_heights_are_above_the_ground(world):
    rngs = [np.random.default_rng(n) for n in range(8)]
    world.reset(np.arange(8, dtype=np.int32), [0] * 8, rngs)
    centers = {GROUND.center(kind, level) for kind, level in patches()}
    begun = {tuple(row) for row in world.layout["start"][:, :2].tolist()}
    assert begun <= centers
    assert len(begun) > 3
    world.physics._qpos[:, 0] += 2.0  # off the platform
    world.physics._qpos[:, 2] = 0.4 + GROUND.height(world.physics._qpos[:, :2])
    fields = {**world.true_state(), **world.physics.signals()}
    heights = []

    def term(motion):
        heights.append((motion.height, motion.foot_height))
        return np.zeros(8)

    world.terms._terms = (replace(world.terms._terms[0], term=_stub(term), parameters=()),)
    world.terms.totals = np.zeros((8, 1))
    world.terms.evaluate(fields, np.zeros((8, 3)), np.zeros((8, 12)), 0.02)
    body, feet = heights[0]
    np.testing.assert_allclose(body, 0.4, atol=1e-9)
    place = fields["reward.foot_position"].reshape(8, 4, 3)
    np.testing.assert_allclose(feet, place[..., 2] - GROUND.height(place[..., :2]))
    assert np.abs(place[..., 2] - feet).max() > 0.1


def _stub(function):
    from sim.tasks.rewards import RewardTerm

    return RewardTerm("height", function, "m", (), "this test")


@pytest.mark.parametrize(
    ("difficulty", "levels"), [(0.0, {0}), (0.5, {0, 1, 2}), (1, {0, 1, 2, 3})]
)
def test_the_difficulty_limits_the_levels(difficulty, levels):
    seen = set()
    for n in range(200):
        y = ROUGH.reset(0, np.random.default_rng(n), difficulty)["start"][1]
        seen.add(round(y / (2 * HALF) + 1.5))
    assert seen == levels


@pytest.mark.parametrize(("difficulty", "speed"), [(0.0, 0.4), (0.5, 0.6), (1.0, 0.8)])
def test_commands_grow_from_the_slowest(difficulty, speed):
    slow = VelocityCommands(slowest=0.5)
    given = slow.reset(0, np.random.default_rng(0), difficulty)["given"]
    np.testing.assert_allclose(given, [speed, 0, 0])


def test_flat_ground_draws_what_it_did_before():
    flat, rng = VelocityCommands(), np.random.default_rng(3)
    start = flat.reset(0, np.random.default_rng(3))["start"]
    assert start.tolist() == [0.0, 0.0, rng.uniform(-np.pi, np.pi)]
    model = World(GO2, flat, 1).physics.model
    assert not model.nhfield


def test_levels_grow_over_a_training_and_go_on_from_a_checkpoint():
    small = ("mlsh.groups=2", "mlsh.envs=2", "mlsh.rollout_ticks=20", "mlsh.probe=none")
    small = (*small, "mlsh.decision_ticks=10")
    ground = ("family_parameters.slope=0.3", "family_parameters.levels=4")
    config = default_config("velocity_commands", "go2").with_values(
        [*small, *ground, "threads=1", "curriculum.difficulty_until=0.5", "steps=480"]
    )
    learner = Mlsh(config)
    assert (learner.env.world.layout["start"][:, 1] == -1.5 * 2 * HALF).all()  # flat
    found = []
    for _ in range(4):
        learner.iterate()
        found.append(learner.env.world.difficulty)
    assert found == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert_goes_on_bit_for_bit(learner)
    frozen = Mlsh(config, freeze_skills=True, tasks=[0, 1])
    frozen.iterate()
    assert frozen.env.world.difficulty == 1


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"slope": 1.5}, "slope"),
        ({"step": -0.1}, "step"),
        ({"bumps": 1}, "bumps"),
        ({"levels": 1, "slope": 0.1}, "levels"),
    ],
)
def test_ground_that_cannot_be_is_refused(parameters, said):
    with pytest.raises(UserError, match=said):
        make_family("velocity_commands", parameters)


def test_a_model_without_a_floor_is_refused():
    spec = mujoco.MjSpec.from_string("<mujoco><worldbody/></mujoco>")
    with pytest.raises(UserError, match=r"^family: uneven ground takes the place of a floor"):
        GROUND.add_to(spec, "family")


@pytest.mark.parametrize(
    ("family", "robot", "more", "said"),
    [
        ("velocity_commands", "go2", (), "are not easy or hard"),
        ("moving_bandits", "omni", (), "are not easy or hard"),
    ],
)
def test_a_difficulty_without_effect_is_refused(family, robot, more, said, tmp_path):
    config = default_config(family, robot).with_values(["curriculum.difficulty_until=0.5", *more])
    with pytest.raises(UserError, match=f"^curriculum.difficulty_until 0.5: .*{re.escape(said)}"):
        create_run(config, tmp_path / "run")


@dataclass(frozen=True)
class Hilly(HiddenTask):
    """A user's family whose ground is wrong."""

    name: ClassVar[str] = "hilly"

    def ground(self, xy: Floats) -> Floats:
        return np.zeros(3)


def test_the_ground_of_a_users_family_is_checked():
    from sim.tasks.family_calls import FamilyCalls

    ground = FamilyCalls(Hilly()).ground
    assert ground is not None
    with pytest.raises(UserError, match=r"^task family 'hilly': ground: the shape is \(3,\), not"):
        ground(np.zeros((2, 4, 2)))
