"""In lockstep the rollout through ROS is the offline rollout, bit for bit."""

import random

import numpy as np
import pytest

from conftest import restless_bundle
from mlsh_ros.backends import jobs, run_offline, run_ros
from sim.registry import make_family

EPISODES = 10  # x 2 tasks x 50 ticks = 1,000 ticks


@pytest.mark.ros
@pytest.mark.parametrize(
    ("lead", "family", "robot"),
    [
        (0, "moving_bandits", "omni"),
        (1, "moving_bandits", "omni"),
        (1, "body_bandits", "rover"),  # a LaserScan, quaternions, goals relative to the robot
    ],
)
def test_rollout_through_ros_equals_offline(tmp_path, lead, family, robot):
    bundle = restless_bundle(tmp_path / "restless", lead, family, robot)
    work = jobs(bundle, None, None)
    episodes = EPISODES * 50 // make_family(family).ticks
    offline = run_offline(bundle, robot, work, episodes=episodes, seed=3)
    domain = random.SystemRandom().randint(1, 100)
    through_ros = run_ros(
        bundle, robot, work, episodes=episodes, seed=3, mode="lockstep", domain=domain
    )
    assert sum(len(e.skill) for e in offline) == 1000
    # Otherwise nothing is said about switching.
    assert sum(e.switches for e in offline) > 25
    assert len(through_ros) == len(offline)
    for a, b in zip(offline, through_ros, strict=True):
        assert (a.task, a.master, a.number, a.success) == (b.task, b.master, b.number, b.success)
        assert b.late == 0
        for name in ("observation", "skill", "action", "command", "reward"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
