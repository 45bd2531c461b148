"""Body Bandits: goals as the robot sees them, and what returns are possible for one that turns."""

import numpy as np
import pytest

from sim.envs.reference_returns import compute_reference_returns
from sim.envs.world import World
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.seeding import episode_rng
from sim.tasks.expert_controller import ExpertController
from sim.tasks.planar import to_base
from sim.tasks.registry import make_family

ROVER, FAMILY = load_robot("rover"), make_family("body_bandits")
EPISODES = 24


def heading(angle: float) -> list[float]:
    return [np.sin(angle / 2), np.cos(angle / 2)]


def begun(size: int, task: int = 0) -> World:
    world = World(ROVER, FAMILY, size)
    rngs = [episode_rng(0, n) for n in range(size)]
    world.reset(np.arange(size, dtype=np.int32), [task] * size, rngs)
    return world


def test_goals_relative_to_the_robot_by_hand():
    layout = {"goals": np.array([[[1.0, 0.5], [0.0, 0.0]]] * 3), "slot": np.zeros(3)}
    robot = {
        "position": np.array([[0.0, 0.5], [0.0, 0.5], [1.0, 0.0]]),
        "heading": np.array([heading(0), heading(np.pi / 2), heading(np.pi / 2 + 2 * np.pi)]),
    }
    shown = FAMILY.fields(layout, robot)["goals"]
    # Looking along x the first goal is 1 m ahead. Looking along y it is 1 m to the right, and
    # from (1, 0) 0.5 m ahead; the second lies 0.5 m behind there, and 1 m to the left.
    expected = [[1, 0, 0, -0.5], [0, -1, -0.5, 0], [0.5, 0, 0, 1]]
    np.testing.assert_allclose(shown, expected, atol=1e-12)


def test_the_quaternions_sign_and_length_do_not_matter():
    rng = np.random.default_rng(0)
    vector, z_w = rng.normal(size=(50, 3, 2)), rng.normal(size=(50, 2))
    once = to_base(vector, {"heading": z_w})
    for factor in (-1.0, 0.99):
        np.testing.assert_allclose(to_base(vector, {"heading": factor * z_w}), once, atol=1e-12)
    np.testing.assert_allclose(
        np.linalg.norm(once, axis=-1), np.linalg.norm(vector, axis=-1), atol=1e-12
    )


def test_the_term_is_in_base_link_and_the_robot_begins_with_any_heading():
    (term,) = FAMILY.terms
    assert (term.name, term.frame, term.ros.topic) == ("goals", "base_link", "goals")
    assert term.ros.type == "geometry_msgs/msg/PoseArray"
    z, w = begun(400).true_state()["heading"].T
    angle = 2 * np.arctan2(z, w)  # -2 pi .. 2 pi
    # Uniform over two turns: mean 0 +- 3.63 / 20 = 0.18, as many with w < 0 as with w > 0
    assert abs(angle.mean()) < 4 * 0.18
    assert abs((w > 0).mean() - 0.5) < 0.1


def test_what_is_seen_moves_with_the_robot():
    world = begun(8)
    before = world.true_state()["goals"].reshape(8, 2, 2)
    for _ in range(20):
        world.step_command(np.tile([0.0, 1.0], (8, 1)))
    after = world.true_state()["goals"].reshape(8, 2, 2)
    np.testing.assert_allclose(
        np.linalg.norm(after, axis=-1), np.linalg.norm(before, axis=-1), atol=0.02
    )
    turned = np.arctan2(*before.T[::-1]) - np.arctan2(*after.T[::-1])
    assert np.median(turned % (2 * np.pi)) == pytest.approx(1.9, abs=0.15)  # to the right


def drive(task: int, point) -> np.ndarray:
    world = begun(EPISODES, task)
    driver, fields, total = (
        ExpertController(world.interface),
        world.true_state(),
        np.zeros(EPISODES),
    )
    for _ in range(FAMILY.ticks):
        command = driver.command(fields, point(world.layout, fields))
        fields, outcome = world.step(world.interface.action_for(command).astype(np.float32))
        total += outcome.reward
    return total


def test_the_expert_is_near_what_is_physically_possible():
    for task in range(2):
        goals = FAMILY.target(begun(EPISODES, task).layout)
        mine = drive(task, FAMILY.expert_target)
        # At 0.022 m a tick the rim of the goal is at most so far away, if it need not turn.
        ticks = np.ceil(np.maximum(np.linalg.norm(goals, axis=1) - FAMILY.radius, 0) / 0.022)
        possible = FAMILY.ticks - np.maximum(ticks, 1) + 1
        assert (mine <= possible).all()
        # Turning by at most a quarter, backwards being as good as forwards: pi/2 at a mean of
        # 1.3 rad/s, 1.2 s, and getting up to speed: two ticks.
        assert (possible - mine).max() <= 16
        assert mine.mean() > 0.9 * possible.mean()


@pytest.mark.slow
def test_bounds_are_in_order():
    known = [
        compute_reference_returns(ROVER, FAMILY, task, episodes=EPISODES) for task in range(2)
    ]
    for bound in known:
        assert 0 <= bound.random < 0.1 * bound.optimum
        assert bound.task_blind <= bound.optimum <= FAMILY.ticks
    share = np.mean([b.task_blind for b in known]) / np.mean([b.optimum for b in known])
    assert share == pytest.approx(0.55, abs=0.12)  # right half of the time


def test_a_base_that_only_drives_forth_and_back_cannot_be_steered():
    interface = ROVER.interface
    alone = type(interface)("rail", 0.1, 0.01, interface.observation, (interface.action[0],))
    with pytest.raises(UserError, match=r"robot 'rail' has no wheeled base.*twist\.linear\.x$"):
        ExpertController(alone)
