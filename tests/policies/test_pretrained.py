"""What ships: no network sees what means nothing to its task, whatever it would show elsewhere."""

import numpy as np
import pytest

from policies.bundle.bundle import load_bundle, pretrained_names
from policies.bundle.runtime import load_master, load_skills
from policies.mlsh.presets import default_config
from sim.envs.world import World
from sim.interface import Interface
from sim.physics.robot_model import load_robot
from sim.seeding import episode_rng
from sim.tasks.body_bandits import BodyBandits
from sim.tasks.registry import FAMILIES, make_family
from sim.tasks.scenery import add_walls

EPISODES = 24


def collides(model) -> int:
    """How many geoms can be bumped into."""
    return int(((model.geom_contype != 0) | (model.geom_conaffinity != 0)).sum())


def meaningless(interface: Interface, name: str) -> set[str]:
    """Observation terms of the robot that a family's tasks have nothing to do with.

    Where nothing stands around, all that a scanner shows is its longest range; and where every
    goal is seen from the robot, too, nothing depends on where its odometry began.
    """
    family, robot = make_family(name), load_robot(interface.robot)
    relative = family.terms and all(term.frame == "base_link" for term in family.terms)
    empty = collides(robot.compile(family.scene)) == collides(robot.compile())
    terms = [
        term for term in interface.observation if term.mujoco.task is None and term.policy_input
    ]
    odometry = {term.name for term in terms if relative and empty and term.frame == "odom"}
    return odometry | {term.name for term in terms if empty and term.mujoco.rays}


def test_what_means_nothing_is_known():
    rover, omni, ant = (load_robot(name).interface for name in ("rover", "omni", "ant"))
    assert meaningless(rover, "body_bandits") == {"position", "heading", "scan"}
    # Goals at places of the odometry's frame, and directions of it; walls are there to be scanned.
    assert meaningless(rover, "rooms") == set()
    assert meaningless(omni, "moving_bandits") == meaningless(ant, "ant_movement") == set()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_recipe_hides_what_means_nothing(name):
    robot = load_robot(FAMILIES[name].robot)
    network = default_config(name, robot.name).network
    hidden = meaningless(robot.interface, name)
    assert hidden <= set(network.hidden_from_skills)
    assert hidden <= set(network.hidden_from_masters)


@pytest.mark.parametrize("name", pretrained_names())
def test_networks_that_ship_do_not_see_what_means_nothing(name):
    bundle = load_bundle(name)
    masters = bundle.manifest.masters
    networks = [(net, bundle.manifest.family.name) for net in load_skills(bundle)]
    networks += [(load_master(bundle, m), masters[m].task.split("/")[0]) for m in masters]
    known = bundle.golden.observation
    hidden = {family: meaningless(bundle.interface, family) for _, family in networks}
    for network, family in networks:
        elsewhere = known.copy()
        for term in hidden[family]:
            columns = bundle.interface.observation_slices[term]
            elsewhere[:, columns] += np.random.default_rng(0).normal(0, 5, known[:, columns].shape)
        np.testing.assert_array_equal(network(elsewhere), network(known))


# The rover's goals, with its odometry begun elsewhere, and in a room -----------------------------


class InARoom(BodyBandits):
    """Walls around where it drives, 1.2 m from where it begins."""

    def scene(self, spec):
        super().scene(spec)
        sides = [(side, 0, 0.02, 1.2) for side in (-1.2, 1.2)]
        add_walls(spec, [*sides, *((y, x, b, a) for x, y, a, b in sides)], 0.3)


def returns(task: int, family: BodyBandits, origin: float = 0.0) -> np.ndarray:
    """(EPISODES,) of the shipped bundle whose odometry says so many m more along x and y."""
    bundle = load_bundle("body_bandits")
    skills, master = load_skills(bundle), load_master(bundle, f"goal-{task}")
    world = World(load_robot("rover"), family, EPISODES)
    rngs = [episode_rng(0, n) for n in range(EPISODES)]
    world.reset(np.arange(EPISODES, dtype=np.int32), [task] * EPISODES, rngs)
    fields, total = world.true_state(), np.zeros(EPISODES)
    for tick in range(family.ticks):
        seen = {**fields, "position": fields["position"] + origin}
        observation = world.interface.observe(seen).astype(np.float32)
        if tick % bundle.manifest.decision_ticks == 0:
            skill = master(observation).argmax(axis=1)
        action = np.choose(skill[:, None], [net(observation) for net in skills])
        fields, outcome = world.step(action)
        total += outcome.reward
    return total


@pytest.mark.slow
@pytest.mark.parametrize("task", [0, 1])
def test_it_does_not_matter_where_odometry_began_or_whether_walls_are_near(task):
    at_the_origin = returns(task, BodyBandits())
    assert at_the_origin.mean() > 70
    for origin in (1.0, 2.0, 5.0):
        np.testing.assert_array_equal(returns(task, BodyBandits(), origin), at_the_origin)
    np.testing.assert_allclose(returns(task, InARoom()).mean(), at_the_origin.mean(), rtol=0.02)
