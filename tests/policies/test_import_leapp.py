"""A policy that LEAPP exported becomes skills, by what its YAML states."""

import json
import os
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from policies.bundle.manifest import sha256
from policies.bundle.runtime import Network, load_skills
from policies.skill_import import importer, leapp_file, trial
from policies.skill_import.description import Input, read_description
from policies.skill_import.leapp import translate
from policies.skill_import.mapping import make_mapping
from policies.skill_import.original import Quaternion
from policies.skill_import.selection import Selection, SkillMapping
from policies.skill_import.surgery import join
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.interface import DERIVED
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from tests.support import one_line
from tests.support.cli import run_mlsh
from tests.support.leapp import GRAVITY, ORIENTATION, SKILLS, described, document, tensor
from tests.support.leapp_export import (
    DAMPING,
    DEFAULT,
    EXPORTS,
    JOINTS,
    SCALE,
    STIFFNESS,
    TASK,
)

FAMILY = "two_targets"


def translated(folder, *args, robot="go2", **changes):
    file = described(folder, *args, **changes)
    interface = load_robot(robot).interface.with_terms(make_family(FAMILY).terms)
    return translate(read_description(file), file, interface)


def refusal(folder, *args, **changes):
    with pytest.raises(UserError) as refused:
        translated(folder, *args, **changes).description.check("policy.yaml")
    return one_line.checked(refused.value)


def test_the_exports_are_those_of_leapp_itself():
    for export in EXPORTS:
        system = document(export)["system information"]
        assert (system["leapp version"], system["leapp config version"]) == ("0.7.2", "1.3")


@pytest.mark.parametrize("export", EXPORTS)
def test_every_input_and_output_is_what_its_kind_says(tmp_path, export):
    found = translated(tmp_path, export).description
    entries = {
        "robot_root_ang_vel_b": Input(term="angular_velocity"),
        EXPORTS[export][0]: Input(term="projected_gravity"),
        "base_velocity": Input(constant="base_velocity"),
        "robot_joint_pos": Input(term="joint_position"),
        "robot_joint_vel": Input(term="joint_velocity"),
        "last_action_in": Input(previous_action=True),
    }
    names = [each["name"] for each in document(export)["models"][TASK]["inputs"]]
    assert sorted(names) == sorted(entries)
    # Scales and offsets of the observation are in the graph.
    assert found.observation == tuple(entries[name] for name in names)
    assert found.joints == tuple(JOINTS)
    assert found.control_dt == 0.02
    np.testing.assert_allclose(found.default_positions, DEFAULT, atol=1e-7)
    np.testing.assert_allclose(found.action.scale, SCALE, rtol=1e-6)
    assert found.stiffness == (STIFFNESS,) * 12
    assert found.damping == (DAMPING,) * 12


@pytest.mark.parametrize("export", EXPORTS)
def test_on_the_robot_it_commands_what_leapps_file_commands_from_its_own_inputs(
    tmp_path, monkeypatch, export
):
    monkeypatch.setattr(trial, "ENVS", 2)
    monkeypatch.setattr(importer, "RANDOM_ROWS", 200)
    file = described(tmp_path / "policy", export)
    robot, family = load_robot("go2"), make_family(FAMILY)
    made = importer.import_skills(
        [file],
        "go2",
        FAMILY,
        tmp_path / "bundle",
        name="leapp",
        decision_ticks=25,
        decision_lead=1,
        facts={"command": "test", "versions": {}, "commit": None},
    )
    assert max(made.random, made.visited) <= 1e-5
    assert made.doubts == []
    policy = tmp_path / "policy" / f"{TASK}.onnx"
    origin = made.bundle.manifest.imported["ahead"]
    assert origin.policy == sha256(policy.read_bytes())
    assert origin.constants == {"base_velocity": (0.8, 0.0, 0.0)}
    session = onnxruntime.InferenceSession(str(policy), providers=["CPUExecutionProvider"])
    skill = load_skills(made.bundle)[list(SKILLS).index("ahead")]
    env = TaskVectorEnv(robot, family, groups=1, envs=1, seed=0, noise=False)
    (measured,) = [t for t in robot.interface.observation if t.name == "joint_position"]
    ours = list(measured.mujoco.qpos)
    places = [ours.index(name) for name in JOINTS]
    (term,) = env.interface.action
    shown, _ = env.reset()
    last = np.zeros((1, 12), np.float32)
    for _ in range(30):
        state = env.world.true_state()
        w, x, y, z = state["projected_gravity"][0]
        gravity = DERIVED["projected_gravity"].of(state["projected_gravity"])
        given = {
            "robot_root_ang_vel_b": state["angular_velocity"],
            "robot_root_quat_w": np.array([[x, y, z, w]]),
            "robot_projected_gravity_b": gravity,
            "base_velocity": np.array([[0.8, 0.0, 0.0]]),
            "robot_joint_pos": state["joint_position"][:, places],
            "robot_joint_vel": state["joint_velocity"][:, places],
            "last_action_in": last,
        }
        fed = {i.name: given[i.name].astype(np.float32) for i in session.get_inputs()}
        target, last = session.run(["joint_pos", "last_action_out"], fed)
        action = skill(shown)
        command = np.array(term.offset) + np.array(term.scale) * action[0]
        np.testing.assert_allclose(command[places], target[0], atol=1e-5)
        shown, *_ = env.step(action)
    assert np.abs(last).max() > 0.1


def test_the_command_makes_a_bundle_of_it(tmp_path):
    file = described(tmp_path / "policy", skills={"ahead": SKILLS["ahead"]})
    status, out, err = run_mlsh(
        *("import-skill", file, FAMILY, "--robot", "go2", "-o", tmp_path / "bundle")
    )
    assert (status, err) == (0, "")
    assert "bundle bundle" in out
    assert "from made for a test (Apache-2.0)" in out
    file = described(tmp_path / "policy", change=lambda data: data.pop("pipeline"))
    status, _, err = run_mlsh(
        *("import-skill", file, FAMILY, "--robot", "go2", "-o", tmp_path / "other")
    )
    assert status != 0
    assert err.count("\n") == 1
    assert "leapp.yaml: pipeline: " in err


# Refusals ---------------------------------------------------------------------------------


def set_in(name, **values):
    """A change of a tensor's keys; `...` removes one."""

    def change(data):
        entry = tensor(data, name)
        entry.update(values)
        for key in [key for key, value in entry.items() if value is ...]:
            del entry[key]

    return change


def version(data):
    data["system information"]["leapp config version"] = "2.0"


def two_models(data):
    data["models"]["estimator"] = data["models"][TASK]


def flow(data):
    data["pipeline"]["data_flow"] = {f"{TASK}/joint_pos": [f"{TASK}/robot_joint_pos"]}


def torch_script(data):
    data["models"][TASK]["parameters"]["backend"] = "jit-script"


def other_file(data):
    data["models"][TASK]["parameters"]["sha256sum"] = "0" * 64


def outside(data):
    data["models"][TASK]["parameters"]["model_path"] = f"../{TASK}.onnx"


def no_frequency(data):
    del data["pipeline"]["configs"]


def not_fed_back(data):
    data["pipeline"]["feedback_flow"] = {}


def fed_back_elsewhere(data):
    data["pipeline"]["feedback_flow"] = {f"{TASK}/last_action_out": [f"{TASK}/memory"]}


def another_state(data):
    data["pipeline"]["feedback_flow"][f"{TASK}/joint_pos_kp_gains"] = [f"{TASK}/robot_joint_vel"]


def left_out(data):
    inputs = data["models"][TASK]["inputs"]
    inputs.remove(tensor(data, "robot_joint_vel"))


def one_more(data):
    entry = {**tensor(data, "robot_joint_vel"), "name": "robot_joint_effort"}
    data["models"][TASK]["inputs"].append(entry)


TORQUES = "target/joint/torques"
MISTAKES = [
    (version, "leapp config version '2.0' is not known. Valid: 1.2, 1.3"),
    (two_models, f"it has 2 ({TASK}, estimator) and 0 connections between models; export the"),
    (flow, f"it has 1 ({TASK}) and 1 connections between models; export the policy as one"),
    (torch_script, "backend 'jit-script' of model"),
    (other_file, "that of the file is "),
    (outside, f"'../{TASK}.onnx' leads out of its folder"),
    (no_frequency, "control_dt is missing, and "),
    (not_fed_back, "output 'last_action_out' is of kind None. Valid: target/joint/position, kp"),
    (fed_back_elsewhere, "that is fed back: 'Velocity-Flat-Go2/memory'."),
    (another_state, "'joint_pos_kp_gains' is fed back as 'robot_joint_vel' and is not the prev"),
    (left_out, "input 'robot_joint_vel' has the shape none, [1, 12] in "),
    (one_more, "input 'robot_joint_effort' has the shape [1, 12], none in "),
    (
        set_in("joint_pos", kind=TORQUES),
        f"output 'joint_pos' is of kind '{TORQUES}'. Valid: target/joint/position, kp, kd",
    ),
    (set_in("joint_pos", kind="kp"), "one output of kind target/joint/position is expected, it"),
    (
        set_in("joint_pos_kd_gains", kind="target/joint/position"),
        "it has joint_pos, joint_pos_kd_gains",
    ),
    (set_in("joint_pos_kd_gains", kind="kp"), "another output is of this kind too"),
    (set_in("joint_pos", element_names=...), "'joint_pos': element_names are missing"),
    (set_in("robot_joint_pos", element_names=...), "'robot_joint_pos': element_names are missing"),
    (
        set_in("robot_joint_pos", element_names=[JOINTS[:11]]),
        "'robot_joint_pos': 11 element_names for 12 elements",
    ),
    (
        set_in("robot_joint_pos", element_names=["__temporal_axis__", JOINTS]),
        "are of several axes or of time; one list of names is expected",
    ),
    (
        set_in("robot_joint_pos", element_names=[[*JOINTS[:11], JOINTS[0]]]),
        "element_names have 'FL_hip_joint' twice",
    ),
    (
        set_in("robot_joint_pos", element_names=[[*JOINTS[:11], "tail"]]),
        "no joint of 'joint_pos' for 'robot_joint_pos': 'tail'.",
    ),
    (
        set_in("joint_pos_kp_gains", element_names=[[*JOINTS[:11], "tail"]]),
        "of kind 'kp' is of other joints than target/joint/position: RR_calf_joint, tail",
    ),
    (
        set_in("robot_root_ang_vel_b", kind="state/wrench"),
        "input 'robot_root_ang_vel_b' is of kind 'state/wrench'. Valid: state/joint/position, ",
    ),
    (
        set_in("robot_root_ang_vel_b", isaaclab_connection="state:robot:root_ang_vel_w"),
        "is read from 'root_ang_vel_w'. Valid: root_ang_vel_b, ",
    ),
    (
        set_in("robot_root_ang_vel_b", isaaclab_connection="state:box:root_ang_vel_b"),
        "of 'robot_root_ang_vel_b' of 'box'; one robot is expected",
    ),
    (
        set_in("robot_root_ang_vel_b", kind="state/body/linear_velocity", isaaclab_connection=...),
        "no observation term of robot 'go2' is a vector in base_link in m/s. Its terms: ",
    ),
    (
        set_in("robot_root_ang_vel_b", kind="state/vector3d", isaaclab_connection=...),
        "does not say which vector it is",
    ),
    (
        set_in("robot_root_ang_vel_b", element_names=[["roll", "pitch", "yaw"]]),
        "element_names are roll, pitch, yaw. Valid: x, y, z",
    ),
    (
        set_in("robot_root_quat_w", element_names=[["qw", "qx", "qy", "qz"]]),
        "kind 'state/body/rotation' is used for more than the direction of gravity",
    ),
    (
        set_in("robot_root_quat_w", kind="state/joint/effort"),
        "input 'robot_root_quat_w' is of kind 'state/joint/effort'. Valid: ",
    ),
    (
        set_in("robot_root_quat_w", element_names=[["a", "b", "c", "d"]]),
        "element_names are a, b, c, d. Valid: qx, qy, qz, qw; ",
    ),
    (set_in("robot_joint_pos", dtype="float64"), "'robot_joint_pos' is 'float64'. Valid: float32"),
    (
        set_in("robot_joint_pos", shape=[4096, 12]),
        "'robot_joint_pos' has the shape [4096, 12]; one row, such as ",
    ),
    (set_in("robot_joint_pos", shape=[1, 13]), "has the shape [1, 13], [1, 12] in "),
]


@pytest.mark.parametrize(("change", "said"), MISTAKES, ids=[said[:40] for _, said in MISTAKES])
def test_what_is_not_supported_or_does_not_fit_is_one_line(tmp_path, change, said):
    assert said in refusal(tmp_path, change=change)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"control_dt": 0.005}, "control_dt is 0.005 s, the frequency in "),
        ({"leapp": "other.yaml"}, "other.yaml does not exist"),
        ({"observation": []}, "no key 'observation'. Valid: leapp, "),
        ({"license": ...}, "license: field required"),
        ({"terms": {"gyro": "angular_velocity"}}, "that `terms` names: 'gyro'."),
        (
            {"terms": {"robot_root_ang_vel_b": "joint_velocity"}},
            "of robot 'go2' that is a vector in base_link in rad/s: 'joint_velocity'. ",
        ),
        (
            {"skills": {"ahead": {"base_velocity": [0.8]}}},
            "has 3 elements: lin_vel_x, lin_vel_y, ang_vel_z; skill 'ahead' states 1",
        ),
        (
            {"skills": {"ahead": {}}},
            "skill 'ahead' states the constants [], the policy takes ['base_velocity']",
        ),
    ],
)
def test_a_mistake_in_what_is_said_beside_it_is_one_line(tmp_path, keys, said):
    assert said in refusal(tmp_path, **keys)


def test_a_robot_without_what_the_policy_takes_is_named(tmp_path):
    said = refusal(tmp_path, GRAVITY, robot="ant")
    assert (
        "no observation term of robot 'ant' is the direction of gravity in base_link. Its terms: "
        in said
    )


def test_of_several_terms_that_fit_the_user_names_one(tmp_path):
    interface = load_robot("go2").interface
    (gyro,) = [t for t in interface.observation if t.name == "angular_velocity"]
    two = replace(interface, observation=(*interface.observation, replace(gyro, name="gyro")))
    file = described(tmp_path)
    with pytest.raises(UserError, match="angular_velocity, gyro of robot 'go2' are a vector"):
        translate(read_description(file), file, two)
    for name in ("gyro", "angular_velocity"):
        file = described(tmp_path, terms={"robot_root_ang_vel_b": name})
        assert (
            Input(term=name)
            in translate(read_description(file), file, two).description.observation
        )


def test_a_term_that_is_named_stands_for_any_input(tmp_path):
    """Of a kind that says nothing, or of a command that the robot sees."""
    change = set_in("robot_root_ang_vel_b", kind="state/sensor/gyro", isaaclab_connection=...)
    terms = {"robot_root_ang_vel_b": "angular_velocity"}
    found = translated(tmp_path, change=change, terms=terms).description
    assert Input(term="angular_velocity") in found.observation
    said = refusal(tmp_path, change=change, terms={"robot_root_ang_vel_b": "joint_position"})
    assert "that is of 3 elements: 'joint_position'." in said


@pytest.mark.parametrize("kind", ["state/joint/position", "state/encoders"])
def test_an_input_that_is_named_keeps_the_order_of_its_elements(tmp_path, kind):
    """Of a kind that says nothing, the joints are found by their names all the same."""
    order = JOINTS[5:] + JOINTS[:5]
    change = set_in("robot_joint_pos", kind=kind, element_names=[order])
    found = translated(tmp_path, change=change, terms={"robot_joint_pos": "joint_position"})
    known = translated(tmp_path / "known", change=set_in("robot_joint_pos", element_names=[order]))
    assert found.description == known.description
    assert columns(found, "robot_joint_pos") == columns(known, "robot_joint_pos")


def test_an_input_whose_elements_the_named_term_does_not_have_is_refused(tmp_path):
    change = set_in(
        "robot_root_ang_vel_b", kind="state/gyro", element_names=[["roll", "pitch", "yaw"]]
    )
    said = refusal(tmp_path, change=change, terms={"robot_root_ang_vel_b": "angular_velocity"})
    assert "roll" in said
    assert "which are not those of observation term 'angular_velocity'" in said


def test_a_vector_in_the_frame_of_a_sensor_is_not_taken_for_one_of_the_body(tmp_path):
    """An IMU may be mounted turned; somebody who names its term knows how."""
    file = described(tmp_path)
    interface = load_robot("go2").interface
    turned = replace(
        interface,
        observation=tuple(
            replace(t, frame="imu_link")
            if t.name in ("angular_velocity", "projected_gravity")
            else t
            for t in interface.observation
        ),
    )
    with pytest.raises(UserError, match=r"is a vector in base_link in rad/s\. Its terms: .* name"):
        translate(read_description(file), file, turned)


def columns(policy, name):
    """Places of an input of LEAPP's file among the inputs that the description has."""
    (part,) = [part for part in policy.original.parts if part.name == name]
    return list(part.index)


@pytest.mark.parametrize("export", EXPORTS)
def test_an_input_may_have_the_joints_in_an_order_of_its_own(tmp_path, export):
    """The file's element i is then the value of another joint."""
    other = JOINTS[5:] + JOINTS[:5]
    same = translated(tmp_path / "same", export)
    changed = translated(
        tmp_path / "other", export, change=set_in("robot_joint_pos", element_names=[other])
    )
    assert changed.description == same.description
    rows = np.random.default_rng(0).normal(size=(20, 45)).astype(np.float32)
    down = list(same.original.direction) or columns(same, "robot_projected_gravity_b")
    rows[:, down] /= np.linalg.norm(rows[:, down], axis=1, keepdims=True)
    at = columns(same, "robot_joint_pos")
    moved = rows.copy()
    moved[:, at] = rows[:, columns(changed, "robot_joint_pos")]
    np.testing.assert_array_equal(changed.original(rows), same.original(moved))
    assert not np.allclose(changed.original(rows), same.original(rows))
    data = join(changed.model, plain(45, 12), "skill", "test")
    np.testing.assert_allclose(Network(data, "skill")(rows), changed.original(rows), atol=1e-5)


def plain(inputs, outputs):
    """The observation is the policy's input, the output our action."""
    as_it_is = [Selection(np.arange(n), np.ones(n), np.zeros(n)) for n in (inputs, outputs)]
    return SkillMapping(as_it_is[0], as_it_is[1], None, inputs)


def safetensors(name, values):
    data = np.asarray(values, np.float32).tobytes()
    entry = {"dtype": "F32", "shape": [1, 12], "data_offsets": [0, len(data)]}
    header = json.dumps({name: entry}).encode()
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    ("initial", "said"),
    [
        (safetensors(f"{TASK}/last_action_in", [0.5] * 12), "on the first tick; it is zero when"),
        (b"\xff" * 8, "not a file of safetensors"),
        (b"", "not a file of safetensors"),
        (b"\x02" + bytes(7) + b"[]", None),
        (b"\x02" + bytes(7) + b"{]", "not JSON"),
        (
            safetensors(f"{TASK}/last_action_in", [0.0]).replace(b"F32", b"F64"),
            "32-bit floats are expected",
        ),
    ],
)
def test_initial_values_are_zeros_or_refused(tmp_path, initial, said):
    if said is None:
        translated(tmp_path, initial=initial)
    else:
        assert said in refusal(tmp_path, initial=initial)


def test_initial_values_in_a_pipe_are_refused(tmp_path):
    pipe = tmp_path / "initial.safetensors"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=r"initial.safetensors: not a file; export both again"):
        leapp_file._safetensors(pipe)


# What the graph computes ------------------------------------------------------------------


def clips_targets(model):
    """A clip of the targets at 0.5 rad behind what is fed back."""
    (last,) = [node for node in model.graph.node if "joint_pos" in node.output]
    last.output[:] = ["free"]
    for name, value in (("low", -0.5), ("high", 0.5)):
        model.graph.initializer.append(helper.make_tensor(name, 1, [], [value]))
    model.graph.node.append(helper.make_node("Clip", ["free", "low", "high"], ["joint_pos"]))


def relative_targets(model):
    """Targets relative to the measured positions."""
    (last,) = [node for node in model.graph.node if "joint_pos" in node.output]
    last.output[:] = ["step"]
    model.graph.node.append(helper.make_node("Add", ["step", "robot_joint_pos"], ["joint_pos"]))


def heading(model):
    """The action depends on an element of the quaternion."""
    (last,) = [node for node in model.graph.node if "last_action_out" in node.output]
    last.output[:] = ["without"]
    model.graph.initializer.append(helper.make_tensor("at", 7, [1], [2]))
    nodes = [
        helper.make_node("Gather", ["robot_root_quat_w", "at"], ["turned"], axis=1),
        helper.make_node("Add", ["without", "turned"], ["last_action_out"]),
    ]
    rest = [node for node in model.graph.node if "without" in node.input]
    for node in rest:
        node.input[:] = ["last_action_out" if n == "without" else n for n in node.input]
    place = list(model.graph.node).index(last) + 1
    for i, node in enumerate(nodes):
        model.graph.node.insert(place + i, node)


def feeds_a_copy_back(model):
    """What the targets are computed from has another name than what is fed back."""
    (last,) = [node for node in model.graph.node if "last_action_out" in node.output]
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["raw" if name == "last_action_out" else name for name in names]
    assert list(last.output) == ["raw"]
    model.graph.node.append(helper.make_node("Identity", ["raw"], ["last_action_out"]))


def no_gains(model):
    for each in model.graph.initializer:
        if "_gains" in each.name:
            each.CopyFrom(helper.make_tensor(each.name, 1, [1, 12], [0.0] * 12))


def variable_gain(model):
    for node in [node for node in model.graph.node if "joint_pos_kp_gains" in node.output]:
        model.graph.node.remove(node)
    for each in [w for w in model.graph.initializer if w.name == "joint_pos_kp_gains"]:
        model.graph.initializer.remove(each)
    node = helper.make_node("Relu", ["robot_joint_vel"], ["joint_pos_kp_gains"])
    model.graph.node.append(node)


@pytest.mark.parametrize(
    ("redraw", "said"),
    [
        (clips_targets, "'joint_pos' is not default + scale * 'last_action_out' for each element"),
        (relative_targets, "'joint_pos' depends on robot_joint_pos beside 'last_action_out'"),
        (heading, "kind 'state/body/rotation' is used for more than the direction of gravity"),
        (variable_gain, "of kind 'kp' is not stored in the graph as a constant"),
    ],
)
def test_a_graph_that_computes_something_else_is_refused(tmp_path, redraw, said):
    assert said in refusal(tmp_path, ORIENTATION, redraw=redraw)


def test_a_copy_of_the_action_may_be_fed_back(tmp_path):
    found = translated(tmp_path, redraw=feeds_a_copy_back).description
    assert found == translated(tmp_path).description


def numbered_gains(model):
    for each in model.graph.initializer:
        if "kp_gains" in each.name:
            each.CopyFrom(helper.make_tensor(each.name, 1, [1, 12], [float(n) for n in range(12)]))


def test_gains_are_those_of_the_joints_that_they_are_named_for(tmp_path):
    change = set_in("joint_pos_kp_gains", element_names=[JOINTS[::-1]])
    found = translated(tmp_path, change=change, redraw=numbered_gains).description
    assert found.stiffness == tuple(float(n) for n in range(12))[::-1]
    interface = load_robot("go2").interface
    with pytest.raises(
        UserError, match=r"stiffness of joint 'FL_hip_joint' was 11 in training, it is 20"
    ):
        make_mapping(interface, found, "ahead", "policy.yaml")


def test_gains_of_zero_are_not_stated(tmp_path):
    found = translated(tmp_path, redraw=no_gains).description
    assert (found.stiffness, found.damping) == (None, None)


def test_without_feedback_the_targets_themselves_are_the_output(tmp_path):
    """The last action is a command of the user here, so that nothing is fed back."""

    def change(data):
        data["pipeline"]["feedback_flow"] = {}
        tensor(data, "last_action_in")["kind"] = "command/joint/position"
        outputs = data["models"][TASK]["outputs"]
        outputs.remove(tensor(data, "last_action_out"))

    def redraw(model):
        (output,) = [each for each in model.graph.output if each.name == "last_action_out"]
        model.graph.output.remove(output)

    skills = {"ahead": {"base_velocity": [0.8, 0, 0], "last_action_in": [0.0] * 12}}
    found = translated(tmp_path, change=change, redraw=redraw, skills=skills).description
    assert found.default_positions == (0.0,) * 12
    assert found.action.scale == (1.0,) * 12
    assert Input(constant="last_action_in") in found.observation


def test_an_orientation_shows_the_direction_of_gravity_that_it_stands_for():
    rng = np.random.default_rng(0)
    gravity = rng.normal(size=(200, 3))
    gravity /= np.linalg.norm(gravity, axis=1, keepdims=True)
    gravity = np.concatenate([gravity, [[0, 0, -1], [0, 0, 1], [1, 0, 0], [0, 3e-5, 1]]])
    made = Quaternion("q", (1, 4), (3, 0, 1, 2)).of(gravity)
    found = DERIVED["projected_gravity"].of(made[:, [3, 0, 1, 2]].astype(np.float64))
    np.testing.assert_allclose(found, gravity, atol=1e-4)
    np.testing.assert_allclose(found[:-1], gravity[:-1], atol=1e-6)
