"""From which commands a recorded session may have begun, and how long it takes to find them."""

import time
from itertools import product

import numpy as np
import pytest

from mlsh_ros.recording.observation_check import MOST_STARTS, SLACK, ObservationCheck
from sim.interface.interface import interface_from_dict

JOINTS = "arm", "gripper"  # each measured by a topic of its own
PERIOD = 10**7  # ns, 100 Hz
NOTHING = np.zeros(2, np.float32)  # the observation
TINY = 1e-60  # rad; a float32 is 0 there, where a float64 tells values apart


def observed(name):
    ros = {
        "topic": f"{name}/joint_states",
        "type": "sensor_msgs/msg/JointState",
        "fields": [f"position[{name}]"],
        "required_values": {},
    }
    return {
        **{"name": name, "size": 1, "unit": "rad", "frame": "joint", "scale": 1, "clip": None},
        **{"noise": 0, "max_age": 0.1, "limit": None, "inf_values": None},
        **{"mujoco": {"qpos": [name]}, "ros": ros},
    }


def commanded(name):
    ros = {
        "topic": f"cmd_{name}",
        "type": "std_msgs/msg/Float64",
        "fields": ["data"],
        "required_values": {},
    }
    return {
        **{"name": f"{name}_command", "size": 1, "unit": "rad", "frame": "joint", "scale": 1},
        **{"offset": 0, "limit": [-2, 2], "smoothing_time": 0, "rate_limit": 1},
        **{"tracking": {"term": name, "tolerance": 0.1, "timeout": 1}, "safe_command": [0]},
        **{"mujoco": {"actuators": [name]}, "ros": ros},
    }


@pytest.fixture(scope="module")
def interface():
    data = {
        **{"robot": "x", "control_dt": 0.02, "physics_dt": 0.02},
        "observation": [observed(name) for name in JOINTS],
        "action": [commanded(name) for name in JOINTS],
    }
    return interface_from_dict(data, "x")


def recorded(interface, said, *, lockstep=False):
    """The check of a recording in which each joint measured these values, one a period."""
    check = ObservationCheck(interface, lockstep=lockstep)
    for name, values in zip(JOINTS, said, strict=True):
        for number, value in enumerate(values):
            topic = f"{name}/joint_states"
            check.add_fields(topic, number * PERIOD, {name: np.array([value])})
    return check


def found(check, received=0):
    start = time.process_time()
    starts = check.starts(NOTHING, received)
    assert time.process_time() - start < 1.0
    return None if starts is None else {tuple(each) for each in starts}


def test_what_was_measured_thousands_of_times_is_one_start(interface):
    equal = np.zeros(6000)
    check = recorded(interface, [equal, equal])
    assert found(check) == {(0.0, 0.0)}
    assert len(check.starts(NOTHING, 0)) == 1


def test_values_that_differ_count_where_a_tick_can_have_seen_them(interface):
    """A minute at 100 Hz. A tick can have seen messages up to 1.1 s before it, by the age of 0.1 s
    and the slack of 1 s, and up to 1 s after it: 110, the one at it, and 100."""
    number = np.arange(6000)
    check = recorded(interface, [number * TINY, np.zeros(6000)])
    middle = 3000 * PERIOD
    assert found(check, middle) == {(each * TINY, 0.0) for each in range(2890, 3101)}
    assert (SLACK, PERIOD) == (100 * PERIOD, 10**7)
    assert found(check, 10**15) == set()


def test_beyond_a_bound_nothing_is_judged(interface):
    side = int(MOST_STARTS**0.5)
    few, more = np.arange(side) * TINY, np.arange(side + 1) * TINY
    assert found(recorded(interface, [few, few])) == set(product(few, few))
    assert found(recorded(interface, [few, more])) is None
    number = np.arange(6000) * TINY
    assert found(recorded(interface, [number, number]), 3000 * PERIOD) is None


def test_in_lockstep_one_stamp_says_what_was_measured(interface):
    number = np.arange(6000) * TINY
    check = recorded(interface, [number, number[::-1]], lockstep=True)
    assert found(check) == set(zip(number, number[::-1], strict=True))
    equal = recorded(interface, [np.zeros(6000), np.zeros(6000)], lockstep=True)
    assert len(equal.starts(NOTHING, 0)) == 1
    long = np.arange(MOST_STARTS + 1) * TINY
    assert found(recorded(interface, [long, long], lockstep=True)) is None
