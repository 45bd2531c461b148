"""A robot's terms may be elsewhere in ROS, and are still what a policy was trained on."""

import json
from dataclasses import replace

import pytest
import yaml

from policies.bundle.bound_bundle import bound, load_bound
from policies.bundle.bundle import load_bundle, pretrained_names
from policies.bundle.robot_compatibility import check_agrees
from sim.errors import UserError
from sim.interface import interface_to_dict
from sim.interface.bindings import bind, bindings_from_dict, read_bindings
from sim.physics.robot_model import load_robot, robot_names
from sim.tasks.registry import FAMILIES, make_family


def interfaces():
    for name in robot_names():
        yield load_robot(name).interface
    for family in FAMILIES:
        made = make_family(family)
        yield load_robot(made.robot).interface.with_terms(made.terms)


def without_ros(interface):
    data = interface_to_dict(interface)
    for term in (*data["observation"], *data["action"]):
        del term["ros"]
    return data


def moved(interface):
    """Bindings that rename every topic and add a value that is required."""
    terms = {
        kind: {
            term.name: {
                "topic": f"elsewhere/{term.ros.topic}",
                "required_values": {**dict(term.ros.required_values), "header.frame_id": "x"},
            }
            for term in getattr(interface, kind)
        }
        for kind in ("observation", "action")
    }
    return bindings_from_dict({"robot": interface.robot, **terms}, "test")


@pytest.mark.parametrize("interface", interfaces(), ids=lambda each: each.robot)
def test_only_what_is_in_ros_changes(interface):
    other = bind(interface, moved(interface), "test")
    assert without_ros(other) == without_ros(interface)
    for term, before in zip(
        (*other.observation, *other.action),
        (*interface.observation, *interface.action),
        strict=True,
    ):
        assert term.ros.topic == f"elsewhere/{before.ros.topic}"
        assert term.ros.fields == before.ros.fields
        assert dict(term.ros.required_values)["header.frame_id"] == "x"
    assert other.digest != interface.digest
    assert bind(other, moved(interface), "again") == other
    nothing = bindings_from_dict({"robot": interface.robot}, "test")
    assert bind(interface, nothing, "test") == interface
    assert bindings_from_dict(json.loads(json.dumps(moved(interface).to_dict())), "x") == moved(
        interface
    )


@pytest.mark.parametrize("name", pretrained_names())
def test_a_bound_bundle_is_the_same_policy(name):
    bundle = load_bundle(name)
    other = bound(bundle, moved(bundle.interface), "test")
    assert other.manifest.digest == bundle.manifest.digest
    assert other.fingerprint == bundle.fingerprint
    assert other.files == bundle.files
    other.check_replaces(other)
    with pytest.raises(UserError, match="interface"):
        other.check_replaces(bundle)


def written(path, **content):
    path.write_text(yaml.safe_dump({"schema": 2, "robot": "omni", **content}))
    return str(path)


def test_another_type_needs_its_fields_and_keeps_no_values_of_the_old_one(tmp_path):
    file = written(
        tmp_path / "b.yaml",
        observation={
            "velocity": {"type": "geometry_msgs/msg/Twist", "fields": ["linear.x", "linear.y"]}
        },
        action={"base_velocity": {"topic": "base/cmd"}},
    )
    interface = load_bound("moving_bandits", file).interface
    ros = {t.name: t.ros for t in (*interface.observation, *interface.action)}
    assert ros["velocity"].type == "geometry_msgs/msg/Twist"
    assert ros["velocity"].required_values == ()
    assert ros["base_velocity"].topic == "base/cmd"
    assert ros["position"] == load_robot("omni").interface.observation[0].ros
    assert load_bound("moving_bandits", "").manifest == load_bundle("moving_bandits").manifest


WRONG = [
    ({"robot": "ant"}, "is for robot 'ant', and this is 'omni'"),
    (
        {"observation": {"speed": {"topic": "x"}}},
        "no observation term 'speed'. Valid: position, velocity, goals",
    ),
    (
        {"action": {"velocity": {"topic": "x"}}},
        "no action term 'velocity'. Did you mean 'base_velocity'?",
    ),
    (
        {"observation": {"position": {"unit": "mm"}}},
        "observation.position: no key 'unit'. Valid: topic, type, ",
    ),
    (
        {"observation": {"position": {"scale": 2}}},
        "observation.position: no key 'scale'. Valid: topic, type, ",
    ),
    ({"observation": {"position": {"type": "nav_msgs/msg/Path"}}}, "another type needs fields"),
    ({"observation": {"position": {"fields": ["x"]}}}, "ros.fields"),
    ({"observation": {"position": {"topic": "a b"}}}, "observation.position.topic"),
    ({"observation": {"velocity": {"topic": "cmd_vel"}}}, "on which the command goes out"),
    ({"schema": 3}, "schema 3 is not known. Valid: 2"),
    ({"schema": True}, "schema True is not known. Valid: 2"),
    ({"terms": {}}, "terms"),
]


@pytest.mark.parametrize(("content", "said"), WRONG)
def test_what_does_not_hold_is_one_line_that_names_the_file(tmp_path, content, said):
    file = written(tmp_path / "b.yaml", **content)
    with pytest.raises(UserError) as raised:
        load_bound("moving_bandits", file)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(file)
    assert said in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml"):
        read_bindings(tmp_path / "none.yaml")


def test_a_bound_bundle_is_compared_with_the_robot_where_the_robot_is_bound_too(tmp_path):
    file = written(
        tmp_path / "b.yaml",
        observation={"position": {"topic": "x"}, "goals": {"topic": "targets"}},
    )
    check_agrees(load_bound("moving_bandits", file), "omni", file)
    with pytest.raises(UserError, match=r"position\.ros\.topic is 'x' in the bundle"):
        check_agrees(load_bound("moving_bandits", file), "omni")
    bundle = load_bundle("moving_bandits")
    changed = replace(bundle.manifest.interface, control_dt=0.2)
    other = replace(bundle, manifest=replace(bundle.manifest, interface=changed))
    with pytest.raises(UserError, match="control_dt"):
        check_agrees(bound(other, read_bindings(tmp_path / "b.yaml"), file), "omni", file)


PERMUTED = [
    ("go2", "observation", "joint_position", lambda f: [*f[3:6], *f[:3], *f[6:]], "order"),
    ("go2", "action", "joint_position", lambda f: f[::-1], "order"),
    (
        *("go2", "observation", "joint_position"),
        *(lambda f: [e.replace("[", "[go2/").replace("_joint", "") for e in f[::-1]], "order"),
    ),
    (
        *("go2", "observation", "joint_velocity"),
        *(lambda f: [each.replace("velocity", "position") for each in f], "quantity"),
    ),
    ("go2", "observation", "angular_velocity", lambda f: f[::-1], "order"),
    (
        *("go2", "observation", "angular_velocity"),
        *(lambda f: [e.replace("angular_velocity", "linear_acceleration") for e in f], "quantity"),
    ),
    ("omni", "observation", "velocity", lambda f: f[::-1], "order"),
    (
        "omni",
        "observation",
        "velocity",
        lambda f: [f[0], f[1].replace("linear", "angular")],
        "quan",
    ),
]


@pytest.mark.parametrize(("robot", "kind", "name", "change", "what"), PERMUTED)
def test_neither_order_nor_quantity_can_be_replaced(robot, kind, name, change, what):
    """In simulation nothing would show it: sim_node writes the fields that skill_node reads."""
    interface = load_robot(robot).interface
    term = next(t for t in getattr(interface, kind) if t.name == name)
    fields = change(list(term.ros.fields))
    assert fields != list(term.ros.fields)
    bindings = bindings_from_dict({"robot": robot, kind: {name: {"fields": fields}}}, "file")
    with pytest.raises(UserError, match=f"^file: {kind} term '{name}': fields: .* The {what}"):
        bind(interface, bindings, "file")


def test_other_names_and_places_can_be_bound():
    interface = load_robot("go2").interface
    term = next(t for t in interface.observation if t.name == "joint_position")
    for fields in (
        [each.replace("position[", "position[go2/") for each in term.ros.fields],
        [f"position[{i}]" for i in reversed(range(term.size))],  # a driver's own order, by number
    ):
        given = {"robot": "go2", "observation": {"joint_position": {"fields": fields}}}
        bound_to = bind(interface, bindings_from_dict(given, "file"), "file")
        assert (
            list(next(t for t in bound_to.observation if t.name == term.name).ros.fields) == fields
        )
