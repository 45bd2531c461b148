"""Mirror maps: what they make of vectors, and that wrong ones are refused by simulation."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from sim.errors import UserError
from sim.interface import interface_from_dict, interface_to_dict
from sim.interface.mirror import Mirror, TermMirror
from sim.physics.mirror_check import check_mirror
from sim.physics.robot_model import ROBOTS, load_robot
from sim.physics.simulation_only import simulation_only
from sim.robot_setup.validation import find_errors
from tests.support.bundles import changed_robot

GO2 = load_robot("go2")
OMNI = load_robot("omni")
# Left and right of the omni: y.
Y = TermMirror(signs=(1, -1))
OMNI_MIRROR = Mirror(
    observation={"position": Y, "velocity": Y}, action={"base_velocity": Y}, tolerance=1e-6
)


def refusal(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(mirror, part, name, **values) -> Mirror:
    terms = dict(getattr(mirror, part))
    terms[name] = replace(terms[name], **values)
    return replace(mirror, **{part: terms})


# Vectors ------------------------------------------------------------------------------------


def test_an_observation_in_the_mirror_has_the_legs_of_the_other_side():
    mirror = GO2.mirror.of_observation(GO2.interface, {}, "x")
    names, slices = GO2.interface.observation_names, GO2.interface.observation_slices
    image = mirror(np.arange(1.0, len(names) + 1))
    source = {name: float(i + 1) for i, name in enumerate(names)}

    def part(term):
        return image[slices[term]].tolist()

    def of(term, *pairs):
        return [sign * source[f"{term}.{i}"] for i, sign in pairs]

    assert part("position") == of("position", (0, 1), (1, -1))
    assert part("angular_velocity") == of("angular_velocity", (0, -1), (1, 1), (2, -1))
    # FR has hip, thigh and calf of FL; the hip turns the other way.
    legs = [(3, -1), (4, 1), (5, 1), (0, -1), (1, 1), (2, 1)]
    legs += [(i + 6, sign) for i, sign in legs]
    for term in ("joint_position", "joint_velocity", "previous_action"):
        assert part(term) == of(term, *legs)
    action = GO2.mirror.of_action(GO2.interface, "x")
    assert action(np.arange(12.0)).tolist() == [s * float(i) for i, s in legs]


@pytest.mark.parametrize("layout", ["by_term", "by_tick"])
def test_a_history_is_mirrored_tick_by_tick(layout):
    data = interface_to_dict(OMNI.interface)
    data["computed"] = [
        {"name": "last", "kind": "previous_action", "scale": 1.0, "clip": None},
        {"name": "wanted", "kind": "constant", "values": [0.25]},
        {
            **{"name": "past", "kind": "history", "terms": ["velocity", "last"], "ticks": 2},
            **{"order": "newest_first", "layout": layout, "start": "zeros"},
        },
    ]
    interface = interface_from_dict(data, "x")
    mirror = OMNI_MIRROR.of_observation(interface, {}, "x")
    # position, velocity, last, wanted, and each pair of the history: the second is negated.
    signs = [1, -1] * 3 + [1] + [1, -1] * 4
    assert mirror.order.tolist() == list(range(15))
    assert mirror.signs.tolist() == signs


def test_a_mirror_is_its_own_inverse():
    mirror = GO2.mirror.of_observation(GO2.interface, {}, "x")
    x = np.random.default_rng(0).standard_normal((5, GO2.interface.observation_size))
    x = x.astype(np.float32)
    assert np.array_equal(mirror(mirror(x)), x)
    assert not np.array_equal(mirror(x), x)


# Simulation ---------------------------------------------------------------------------------


def test_maps_that_hold_are_accepted():
    check_mirror(GO2, GO2.mirror)
    check_mirror(OMNI, OMNI_MIRROR)
    # Of measured inertias, left and right are not the same to the last digit.
    assert "does not hold" in refusal(check_mirror, GO2, replace(GO2.mirror, tolerance=1e-6))


LEGS = (3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8)


@pytest.mark.parametrize(
    ("part", "name", "values", "said"),
    [
        # What is only measured shows at once, in the first element that is wrong.
        ("observation", "projected_gravity", {"signs": None}, "observation projected_gravity.1"),
        ("observation", "angular_velocity", {"signs": (1, -1, 1)}, "angular_velocity.0"),
        ("observation", "orientation", {"signs": (1, -1, 1, 1, 1, 1)}, "orientation.4"),
        ("observation", "joint_velocity", {"order": None, "signs": None}, "joint_velocity.0"),
        ("observation", "joint_velocity", {"signs": (-1, 1, 1) * 2 + (1,) * 6}, "velocity.6"),
        # What is commanded shows when it moves.
        ("action", "joint_position", {"signs": None}, "action joint_position.0 and its mirror"),
        ("action", "joint_position", {"order": None}, "action joint_position.0 and its mirror"),
        (
            *("action", "joint_position"),
            {"order": (*LEGS[:6], 6, *LEGS[7:9], 9, *LEGS[10:])},
            "action joint_position.6 and its mirror image",
        ),
    ],
)
def test_maps_that_do_not_hold_are_refused(part, name, values, said):
    text = refusal(check_mirror, GO2, changed(GO2.mirror, part, name, **values))
    assert text.startswith("robot 'go2': mirror does not hold: ")
    assert said in text


def test_joints_that_are_wrong_everywhere_show_in_how_the_robot_moves():
    # All terms agree with each other, and legs are not moved to the other side.
    mirror = changed(GO2.mirror, "observation", "joint_position", order=None)
    mirror = changed(mirror, "observation", "joint_velocity", order=None)
    mirror = changed(mirror, "action", "joint_position", order=None)
    assert "after a tick without an action" in refusal(check_mirror, GO2, mirror)


def test_a_robot_that_is_not_symmetric_is_refused(tmp_path):
    folder = changed_robot(tmp_path / "robot", "omni")
    model = tmp_path / "robot" / "model.xml"
    model.write_text(
        model.read_text().replace('joint="slide_y" kv="300"', 'joint="slide_y" kv="30"')
    )
    check_mirror(load_robot(folder), OMNI_MIRROR)  # a weak servo is as weak to the left
    text = model.read_text()
    assert 'ctrlrange="-1 1" forcerange="-80 80"/>\n  </actuator>' in text
    model.write_text(
        text.replace('forcerange="-80 80"/>\n  </act', 'forcerange="-80 5"/>\n  </act')
    )
    assert "does not hold" in refusal(check_mirror, load_robot(folder), OMNI_MIRROR)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda m: replace(m, observation={"position": Y}),
            "term 'velocity' is missing; {} leaves",
        ),
        (lambda m: replace(m, action={}), "action term 'base_velocity' is missing"),
        (
            lambda m: replace(m, observation={**m.observation, "velocty": Y}),
            "no observation term 'velocty'. Did you mean 'velocity'?",
        ),
        (lambda m: replace(m, action={**m.action, "arm": Y}), "no action term 'arm'"),
        (
            lambda m: changed(m, "observation", "position", signs=(1,)),
            "observation term 'position' has 2 elements, 1 are given",
        ),
    ],
)
def test_maps_of_something_else_are_refused(change, said):
    assert said in refusal(check_mirror, OMNI, change(OMNI_MIRROR))


def test_a_joint_whose_mirror_image_is_not_known_is_named(tmp_path):
    # Of a term that policies do not observe the map says nothing, unless its joints need it.
    change = "    mujoco: {qpos: [", "    policy_input: false\n    mujoco: {qpos: ["
    robot = load_robot(changed_robot(tmp_path / "robot", "omni", change))
    check_mirror(robot, OMNI_MIRROR)
    text = refusal(check_mirror, robot, replace(OMNI_MIRROR, observation={"velocity": Y}))
    assert "joint 'slide_x' is the position of no observation term with a mirror image" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"order": [1, 2, 0]}, "element 0 has the value of 1, and 1 that of 2"),
        ({"order": [5]}, "element 0 has the value of 5, and 5 that of nothing"),
        ({"signs": [1, 0]}, "signs are 1 or -1"),
        ({"signs": [1, 2]}, "signs.1"),
        ({"order": [1, 0], "signs": [1, -1]}, "elements 0 and 1 are exchanged with different"),
        ({"order": [1, 0], "signs": [1]}, "2 elements in order, 1 in signs"),
        ({"sign": [1]}, "sign"),
    ],
)
def test_terms_that_are_no_mirror_image_are_refused(tmp_path, given, said):
    data = {"observation": {"position": given}, "action": {}, "tolerance": 0.01}
    assert said in refusal(simulation_only, {"mirror": data}, tmp_path)


def test_check_robot_compares_the_map_with_the_simulation(tmp_path):

    robot = tmp_path / "robot"
    shutil.copytree(ROBOTS / "go2", robot)
    assert not find_errors(robot)
    path = robot / "robot.yaml"
    text = path.read_text()
    assert "angular_velocity: {signs: [-1, 1, -1]}" in text
    path.write_text(text.replace("angular_velocity: {signs: [-1, 1, -1]}", "angular_velocity: {}"))
    (error,) = find_errors(robot)
    assert "mirror does not hold: observation angular_velocity.0" in error
