"""Gains of servos that robot.yaml states are those of the model."""

from dataclasses import replace

import pytest

from policies.bundle.bundle import load_bundle
from policies.bundle.robot_compatibility import difference
from sim.errors import UserError
from sim.interface import interface_from_dict, interface_to_dict
from sim.physics.robot_model import Robot
from tests.support.robots import odd_robot


def stated(tmp_path, index=0, **gains) -> Robot:
    """The odd robot: an arm with kp 5 and kv 1, and a drive of velocity servos."""
    robot = odd_robot(tmp_path)
    action = list(robot.interface.action)
    action[index] = replace(action[index], **gains)
    return replace(robot, interface=replace(robot.interface, action=tuple(action)))


def test_gains_that_are_the_models_are_accepted(tmp_path):
    stated(tmp_path, stiffness=5.0, damping=1.0).compile()
    stated(tmp_path, stiffness=(5.0001,)).compile()


MISTAKES = [
    ({"stiffness": 20.0}, "'arm': stiffness 20 of actuator 'bend' is 5 in the model"),
    ({"damping": (0.5,)}, "'arm': damping 0.5 of actuator 'bend' is 1 in the model"),
    (
        {"index": 1, "stiffness": 5.0},
        "'drive': stiffness 5 of actuator 'go_x': in the model it is no position servo",
    ),
]


@pytest.mark.parametrize(("change", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_other_gains_are_refused(tmp_path, change, said):
    with pytest.raises(UserError, match=r"robot\.yaml: action term") as refused:
        stated(tmp_path, **change).compile()
    assert said in str(refused.value)


def test_a_list_has_one_gain_per_element(tmp_path):
    with pytest.raises(ValueError, match="term 'arm': stiffness has 2 elements, size is 1"):
        stated(tmp_path, stiffness=(5.0, 5.0))


def test_gains_are_part_of_what_has_to_agree(tmp_path):
    plain = odd_robot(tmp_path).interface
    made = stated(tmp_path, stiffness=5.0).interface
    assert interface_from_dict(interface_to_dict(made), "x") == made
    assert made.digest != plain.digest
    assert difference(made.action[0], plain.action[0]) == (".stiffness", 5.0, None)
    assert "stiffness" not in interface_to_dict(plain)["action"][0]
    assert load_bundle("moving_bandits").interface.action[0].stiffness is None
