"""A task's state from the sensors of a moment."""

import numpy as np
import pytest

from mlsh_ros.sim2real.data.episode_layout import layout_of
from sim.envs.world import World
from sim.physics.robot_model import load_robot
from sim.seeding import episode_rng
from sim.tasks.registry import FAMILIES, make_family

KNOWN = {"moving_bandits", "body_bandits", "ring_bandits", "rooms"}


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_that_of_the_episode_or_none(name):
    family = make_family(name)
    world = World(load_robot(family.robot), family, 4)
    rngs = [episode_rng(0, n) for n in range(4)]
    world.reset(np.arange(4, dtype=np.int32), [0] * 4, rngs)
    fields = world.true_state()
    found = layout_of(family, 0, fields)
    assert (found is not None) == (name in KNOWN)
    if found is not None:
        for key, values in found.items():
            np.testing.assert_allclose(values, world.layout[key], atol=1e-9, err_msg=key)
        whole = family.reward(world.layout, fields)
        np.testing.assert_allclose(family.reward(found, fields), whole)
