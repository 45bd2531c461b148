"""The laws of commands and states, sampled through real nodes by random sequences of events.

All reachable combinations, without ROS: tests/laws/test_supervisor_states.py.
"""

import pytest

pytest.importorskip("rclpy")

from tests.support.random_events import sequence

pytestmark = [pytest.mark.ros, pytest.mark.realtime, pytest.mark.timeout(240)]

SLOW = [pytest.param(seed, 60.0, 3, marks=pytest.mark.slow) for seed in range(1, 6)]


@pytest.mark.parametrize(("seed", "seconds", "kills"), [(0, 15.0, 1), *SLOW])
def test_no_order_of_events_breaks_a_law(bundle, seed, seconds, kills):
    """Lifecycle, services, panels, processes that stand still and that are killed, and their end.

    Every command leaves in a state that permits it and differs from the one before by no more than
    the rate limit, and whatever stops the robot does so in its time.
    """
    made = sequence(bundle, seed, seconds, kills=kills)
    print(made.story)
