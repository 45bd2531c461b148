"""What exporters of other trainers write becomes skills: outputs, velocities, goals."""

import io
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from policies.bundle.bundle import load_bundle, write_bundle
from policies.bundle.held import Elements
from policies.bundle.imported_graph import check_imported
from policies.bundle.manifest import MANIFEST
from policies.bundle.runtime import Network, load_skills
from policies.bundle.task_compatibility import check_family_fits
from policies.mlsh.presets import default_config
from policies.skill_import import importer
from policies.skill_import.description import read_description
from policies.skill_import.importer import import_skills
from policies.skill_import.mapping import make_mapping
from policies.skill_import.own_bundle import skills_of
from policies.skill_import.reading import read_policy, sizes
from policies.skill_import.selection import Selection, SkillMapping
from policies.skill_import.surgery import join
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from sim.tasks.task_id import TaskId
from tests.support import foreign_policy, one_line
from tests.support.exported_policies import (
    DRIVE,
    INPUTS,
    OUTPUTS,
    drive,
    rsl_rl,
    sb3,
    sb3_squashed,
)

FAMILY = "ring_bandits"


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """Of random inputs, in two pieces; test_import_skill.py compares a policy on all of them."""
    monkeypatch.setattr(importer, "RANDOM_ROWS", 1000)


def imported(tmp_path, made=None, *, more=(), robot="omni", **changes):
    return import_skills(
        [drive(tmp_path / "policy", made, **changes), *more],
        robot,
        FAMILY,
        tmp_path / "bundle",
        name="drive",
        decision_ticks=10,
        decision_lead=1,
        facts={"command": "test", "versions": {}, "commit": None},
    )


def saved(tmp_path, made):
    onnx.save(made, str(tmp_path / "policy.onnx"))
    return tmp_path / "policy.onnx"


def own(path, rows, output="actions"):
    """What the file itself gives for rows of inputs."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.stack([session.run([output], {name: row[None]})[0][0] for row in rows])


def as_it_is(count) -> Selection:
    return Selection(np.arange(count), np.ones(count), np.zeros(count))


def plain(inputs=INPUTS, outputs=OUTPUTS) -> SkillMapping:
    """The observation is the policy's input, the output our action."""
    return SkillMapping(as_it_is(inputs), as_it_is(outputs), None, inputs)


ROWS = np.random.default_rng(1).normal(size=(50, INPUTS)).astype(np.float32)
GRAPHS = {
    "stable-baselines3 PPO": sb3(),
    "stable-baselines3 SAC": sb3_squashed(),
    "rsl_rl": rsl_rl(),
    "rsl_rl with a deviation of its own": rsl_rl(own_deviation=True),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_action_of_a_trainers_export_is_kept_as_it_is(tmp_path, name):
    path = saved(tmp_path, GRAPHS[name])
    model, _ = read_policy(path, "actions")
    assert sizes(model, path) == (INPUTS, OUTPUTS)
    data = join(model, plain(), "skill", "test")
    check_imported(data, "skill", INPUTS, OUTPUTS)
    expected = own(path, ROWS)
    np.testing.assert_allclose(Network(data, "skill")(ROWS), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_what_the_action_does_not_need_is_left_out(tmp_path):
    model, _ = read_policy(saved(tmp_path, sb3()), "actions")
    assert {node.op_type for node in model.graph.node} == {
        *("Cast", "Flatten", "Gemm", "Tanh", "Identity", "Constant", "Reshape")
    }
    assert not [w.name for w in model.graph.initializer if w.name.startswith(("value", "log_std"))]


def test_of_several_outputs_one_has_to_be_named(tmp_path):
    path = saved(tmp_path, sb3())
    with pytest.raises(UserError) as refused:
        read_policy(path)
    assert (
        "several outputs: actions (1, 2), values (1, 1), log_prob (1); name the one that is the "
        "action as `output` of `action`" in str(refused.value)
    )
    with pytest.raises(UserError, match=r"no output of .*: 'action'. Did you mean 'actions'\?"):
        read_policy(path, "action")


def test_an_expansion_that_changes_a_size_is_a_product_with_ones(tmp_path):
    weights = {"two": np.array([2], np.int64), "one": np.array([1], np.int64)}
    weights |= {"zero": np.array([0], np.int64), "size": np.array([1, INPUTS], np.int64)}
    nodes = [
        helper.make_node("Slice", ["obs", "zero", "one", "one"], ["first"]),
        helper.make_node("Expand", ["first", "size"], ["actions"]),
    ]
    made = foreign_policy.model(nodes, INPUTS, INPUTS, weights)
    assert {node.op_type for node in same(tmp_path, made).graph.node} == {"Slice", "Mul"}


def test_an_expansion_that_is_too_large_is_refused(tmp_path):
    """65,536 elements are accepted; it would have 70,000."""
    weights = {
        "size": np.array([70_000 // INPUTS, 1, INPUTS], np.int64),
        "zero": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("Expand", ["obs", "size"], ["many"]),
        helper.make_node("Gather", ["many", "zero"], ["one"], axis=0),
        helper.make_node("Squeeze", ["one", "zero"], ["actions"]),
    ]
    with pytest.raises(UserError) as refused:
        read_policy(saved(tmp_path, foreign_policy.model(nodes, INPUTS, INPUTS, weights)))
    assert "operator 'Expand' of 'many' depends on sizes that are not known, or is" in str(
        refused.value
    )


def same(tmp_path, made):
    """Read a policy, and compare its skill with ONNX Runtime on the file; returns the graph."""
    path = saved(tmp_path, made)
    model, _ = read_policy(path, made.graph.output[0].name)
    width, count = sizes(model, path)
    data = join(
        model, SkillMapping(as_it_is(width), as_it_is(count), None, width), "skill", "test"
    )
    check_imported(data, "skill", width, count)
    rows = np.random.default_rng(2).normal(size=(200, width)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    expected = np.concatenate([session.run(None, {name: row[None]})[0] for row in rows])
    np.testing.assert_allclose(Network(data, "skill")(rows), expected, atol=1e-6)
    return model


FORMS = {
    "a vector of length 1": lambda net, x: net(torch.nn.functional.normalize(x, dim=-1)),
    "two halves": lambda net, x: torch.sub(*net(x).chunk(2, -1)),
    "unequal parts": lambda net, x: torch.cat(net(x).split([3, 1], -1)[::-1], -1),
    "a view of the batch": lambda net, x: net(x.view(x.shape[0], -1)),
    "ticks as an axis": lambda net, x: net(x.reshape(x.shape[0], 2, -1).flatten(1)),
    "one row": lambda net, x: net(x.reshape(1, -1)),
    "an expanded column": lambda net, x: net(x[:, :1].expand(-1, x.shape[1])),
    "a column as large as another": lambda net, x: net(x[:, :1].expand_as(x)),
    "the last elements": lambda net, x: net(x)[:, -2:],
}


class Form(torch.nn.Module):
    def __init__(self, form):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.form = torch.nn.Linear(6, 4), form

    def forward(self, x):
        return self.form(self.net, x)


@pytest.mark.parametrize("batch", ["one row", "any number of rows"])
@pytest.mark.parametrize("name", FORMS)
def test_what_depends_on_shapes_alone_is_computed(tmp_path, name, batch):
    """As torch exports it; the skill is the policy to 1e-6 on 200 random rows."""
    buffer = io.BytesIO()
    axes = {} if batch == "one row" else {"obs": {0: "batch"}, "actions": {0: "batch"}}
    torch.onnx.export(
        Form(FORMS[name]).eval(),
        (torch.zeros(1, 6),),
        buffer,
        input_names=["obs"],
        output_names=["actions"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    model = same(tmp_path, onnx.load_from_string(buffer.getvalue()))
    assert not {"Shape", "Expand", "ConstantOfShape"} & {n.op_type for n in model.graph.node}


def test_constants_that_would_be_large_are_not_computed(tmp_path):
    """2^40 zeros are never made: the graph is refused at once."""
    weights = {"huge": np.array([2**20, 2**20], np.int64), "zero": np.array([0], np.int64)}
    nodes = [
        helper.make_node("ConstantOfShape", ["huge"], ["zeros"]),
        helper.make_node("Gather", ["zeros", "zero"], ["row"], axis=0),
        helper.make_node("Add", ["obs", "row"], ["actions"]),
    ]
    with pytest.raises(UserError, match="operator 'ConstantOfShape' of 'zeros' depends on sizes"):
        read_policy(saved(tmp_path, foreign_policy.model(nodes, INPUTS, INPUTS, weights)))


def test_three_shapes_do_not_make_a_cube(tmp_path):
    """Where of 1,000 by 1,000 by 1,000 elements, 8 GB, is not computed."""
    sizes = {"a": (1000, 1, 1), "b": (1, 1000, 1), "c": (1, 1, 1000)}
    weights = {name: np.ones(shape, np.int64) for name, shape in sizes.items()}
    nodes = [
        helper.make_node("Equal", ["a", "a"], ["which"]),
        helper.make_node("Where", ["which", "b", "c"], ["cube"]),
        helper.make_node("ConstantOfShape", ["cube"], ["zeros"]),
        helper.make_node("Add", ["obs", "zeros"], ["actions"]),
    ]
    made = foreign_policy.model(nodes, INPUTS, INPUTS, weights)
    tracemalloc.start()
    with pytest.raises(UserError, match="operator 'Where'"):
        read_policy(saved(tmp_path, made))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100e6


def broken(kind, attribute, *inputs):
    """An operator with an attribute of another type than it has."""
    node = helper.make_node(kind, ["obs", *inputs], ["actions"])
    node.attribute.add(name=attribute)  # of no type
    return node


@pytest.mark.parametrize(
    "node",
    [
        broken("LayerNormalization", "axis", "w"),
        broken("ReduceL2", "axes"),
        broken("Shape", "start"),
        helper.make_node("Expand", ["obs", "w"], ["actions", "more"]),
        helper.make_node("ConstantOfShape", ["one"], ["actions"], value=3),
    ],
    ids=lambda node: node.op_type,
)
def test_an_operator_of_another_form_is_one_line(tmp_path, node):
    weights = {"w": np.ones(INPUTS, np.float32), "one": np.array([1], np.int64)}
    nodes = [helper.make_node("Reshape", ["obs", "one"], ["x"]), node]
    made = foreign_policy.model(nodes, INPUTS, INPUTS, weights)
    with pytest.raises(UserError) as refused:
        same(tmp_path, made)
    one_line.checked(refused.value)


def test_an_operator_of_the_action_itself_is_still_refused(tmp_path):
    with pytest.raises(UserError, match="operator 'Exp'"):
        read_policy(saved(tmp_path, sb3()), "log_prob")


# The trainers themselves ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_a_policy_of_stable_baselines3_acts_as_its_trainer_has_it_act(tmp_path, name):
    torch, trainers = pytest.importorskip("torch"), pytest.importorskip("stable_baselines3")
    env = gymnasium.make("sim.envs.gym_env:mlsh/MovingBandits-v0")
    model = getattr(trainers, name)("MlpPolicy", env, seed=0, device="cpu")

    class Exported(torch.nn.Module):
        """As the documentation of Stable-Baselines3 has it."""

        def __init__(self):
            super().__init__()
            self.policy = model.policy if name == "PPO" else model.policy.actor

        def forward(self, observation):
            return self.policy(observation, deterministic=True)

    path = tmp_path / "policy.onnx"
    options = {"opset_version": 17, "input_names": ["input"], "dynamo": False}
    torch.onnx.export(Exported(), torch.zeros(1, 8), str(path), **options)
    action = onnx.load(path).graph.output[0].name
    data = join(read_policy(path, action)[0], plain(8), "skill", "test")
    check_imported(data, "skill", 8, 2)
    rows = np.random.default_rng(4).normal(size=(50, 8)).astype(np.float32)
    expected = np.stack([model.predict(row, deterministic=True)[0] for row in rows])
    np.testing.assert_allclose(Network(data, "skill")(rows).clip(-1, 1), expected, atol=1e-5)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["GaussianDistribution", "HeteroscedasticGaussianDistribution"])
def test_a_policy_of_rsl_rl_acts_as_its_trainer_has_it_act(tmp_path, kind):
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("rsl_rl")
    from rsl_rl.models import MLPModel
    from rsl_rl.runners import OnPolicyRunner
    from tensordict import TensorDict

    seen = TensorDict({"policy": torch.tensor(ROWS)}, batch_size=[len(ROWS)])
    settings = {"hidden_dims": [8, 8], "obs_normalization": True}
    settings["distribution_cfg"] = {"class_name": kind}
    model = MLPModel(seen, {"actor": ["policy"]}, "actor", OUTPUTS, **settings)
    model.update_normalization(seen)
    runner = SimpleNamespace(alg=SimpleNamespace(get_policy=lambda: model))
    OnPolicyRunner.export_policy_to_onnx(runner, str(tmp_path), "policy.onnx")
    data = join(read_policy(tmp_path / "policy.onnx")[0], plain(), "skill", "test")
    check_imported(data, "skill", INPUTS, OUTPUTS)
    with torch.no_grad():
        expected = model(seen).numpy()
    np.testing.assert_allclose(Network(data, "skill")(ROWS), expected, atol=1e-5)
    assert np.abs(expected).max() > 1e-3


# Casts ------------------------------------------------------------------------------------


def cast(to, source="obs"):
    """A graph that adds a cast of its input, or of an integer weight, to its input."""
    weights = {"whole": np.arange(INPUTS)[None]}
    nodes = [
        helper.make_node("Cast", [source], ["cast"], to=to),
        helper.make_node("Add", ["obs", "cast"], ["actions"]),
    ]
    return foreign_policy.model(nodes, INPUTS, INPUTS, weights if source == "whole" else {})


@pytest.mark.parametrize("source", ["obs", "whole"])
def test_a_cast_to_32_bit_floats_changes_nothing(tmp_path, source):
    path = saved(tmp_path, cast(TensorProto.FLOAT, source))
    data = join(read_policy(path)[0], plain(outputs=INPUTS), "skill", "test")
    check_imported(data, "skill", INPUTS, INPUTS)
    np.testing.assert_allclose(Network(data, "skill")(ROWS), own(path, ROWS))


def test_another_cast_is_refused(tmp_path):
    model, _ = read_policy(saved(tmp_path, cast(TensorProto.DOUBLE)))
    with pytest.raises(UserError, match="operator 'Cast' of 'cast' gives DOUBLE; FLOAT is accep"):
        join(model, plain(outputs=INPUTS), "skill", "test")


# Velocities and goals ---------------------------------------------------------------------


def test_each_skill_gives_the_policy_the_goal_that_it_names(tmp_path):
    found = imported(tmp_path)
    assert max(found.random, found.visited) <= 1e-5
    assert found.doubts == []
    rows = np.random.default_rng(2).normal(size=(50, 8)).astype(np.float32)  # see `Interface`
    for skill, goal in zip(load_skills(found.bundle), ([4, 5], [6, 7]), strict=True):
        given = rows[:, [0, 1, 2, 3, *goal]]
        expected = own(tmp_path / "policy" / "policy.onnx", given).clip(-1, 1)
        np.testing.assert_allclose(skill(rows), expected, atol=1e-5)
    origins = load_bundle(tmp_path / "bundle").manifest.imported
    assert {name: origin.constants for name, origin in origins.items()} == {
        "first": {"target": Elements("goals", (0, 1))},
        "second": {"target": Elements("goals", (2, 3))},
    }


def test_a_goal_has_the_unit_of_its_term_and_its_own_scale_and_offset(tmp_path):
    entry = {"constant": "target", "scale": [2.0, 4.0], "offset": [0.5, -0.5]}
    observation = [*DRIVE["observation"][:2], entry]
    file = drive(tmp_path, observation=observation)
    interface = load_robot("omni").interface.with_terms(make_family(FAMILY).terms)
    mapping = make_mapping(interface, read_description(file), "second", "drive.yaml")
    row = np.arange(8, dtype=np.float32)
    # 2 (6 - 0.5) and 4 (7 + 0.5), elements 2 and 3 of the goals
    np.testing.assert_allclose(mapping.input(row), [0, 1, 2, 3, 11, 30])


def test_velocities_are_in_the_order_of_the_terms_and_in_their_units(tmp_path):
    interface = load_robot("rover").interface.with_terms(make_family("body_bandits").terms)
    action = {"kind": "velocity", "terms": ["yaw_rate", "speed"], "scale": [1.42, 0.11]}
    observation = [{"term": "speed"}, {"constant": "target"}]
    file = drive(tmp_path, action=action, observation=observation)
    mapping = make_mapping(interface, read_description(file), "first", "drive.yaml")
    # The rover's action is speed / 0.22 m/s and yaw rate / 2.84 rad/s, in this order.
    given = np.array([1.0, -1.0], np.float32)
    np.testing.assert_allclose(mapping.output(given), [-0.5, 0.5])


def test_skills_of_several_policies_are_in_one_bundle(tmp_path):
    other = drive(
        tmp_path / "other",
        rsl_rl(),
        source="another trainer",
        action={"kind": "velocity", "terms": ["base_velocity"], "scale": 1.0},
        skills={"home": {"target": [0.0, 0.0]}},
    )
    found = imported(tmp_path, more=[other])
    assert max(found.random, found.visited) <= 1e-5
    assert found.rows == 3 * 16 * 20  # skills, simulations, ticks of 0.1 s in 2 s
    manifest = found.bundle.manifest
    assert manifest.skills == ("first", "second", "home")
    origin = manifest.imported["home"]
    assert (origin.source, origin.constants) == ("another trainer", {"target": (0.0, 0.0)})
    assert origin.policy != manifest.imported["first"].policy
    rows = np.random.default_rng(3).normal(size=(50, 8)).astype(np.float32)
    given = np.concatenate([rows[:, :4], np.zeros((50, 2), np.float32)], axis=1)
    np.testing.assert_allclose(
        load_skills(found.bundle)[2](rows), own(other.with_name("policy.onnx"), given), atol=1e-5
    )


def test_there_may_be_more_skills_than_a_family_has_simulations_for(tmp_path, monkeypatch):
    monkeypatch.setattr(importer, "RANDOM_ROWS", 100)
    skills = {f"to-{i}": {"target": [i / 10, 0.0]} for i in range(17)}
    config = default_config(FAMILY, "omni")
    assert config.mlsh.envs < 2 * len(skills)  # of which the probe of PPO needs two for each
    assert len(imported(tmp_path, skills=skills).bundle.skills) == len(skills)


def test_skills_of_two_policies_need_different_names(tmp_path):
    with pytest.raises(UserError, match=r"drive\.yaml: a skill 'first' is in .* too; give one"):
        imported(tmp_path, more=[drive(tmp_path / "other")])
    assert not (tmp_path / "bundle").exists()


def test_joints_are_matched_by_name_where_velocities_are_commanded(tmp_path):
    interface = load_robot(foreign_policy.robot_folder(tmp_path / "arms")).interface
    (term,) = interface.action
    tracking = replace(term.tracking, term="joint_velocity")
    wheels = replace(term, unit="rad/s", stiffness=None, damping=None, tracking=tracking)
    interface = replace(interface, action=(wheels,), computed=())
    changes = {
        "control_dt": 0.02,
        "observation": [{"term": "joint_velocity"}],
        "action": {"kind": "velocity", "terms": ["arms"], "scale": 1.0},
        "skills": {"go": {}},
    }
    file = drive(tmp_path / "without", **changes)
    with pytest.raises(UserError, match="is of joints, and the description has no `joints`"):
        make_mapping(interface, read_description(file), "go", "drive.yaml")
    file = drive(tmp_path / "with", joints=["left", "right"], **changes)
    mapping = make_mapping(interface, read_description(file), "go", "drive.yaml")
    row = np.zeros(6, np.float32)
    row[2:4] = 0.1, 0.2  # of the right and the left one, in tenths of rad/s
    np.testing.assert_allclose(mapping.input(row), [2.0, 1.0], rtol=1e-6)


def action(**changes):
    return {"action": {**DRIVE["action"], **changes}}


def first(target):
    return {"skills": {"first": {"target": target}, "second": DRIVE["skills"]["second"]}}


MISTAKES = [
    (action(terms=["speed"]), "drive.yaml commands: 'speed'. Valid: base_velocity"),
    (action(terms=["base_velocity"] * 2), "action.terms: 'base_velocity' is given twice"),
    (action(terms=[]), "action: terms: list the action terms of robot.yaml that it commands"),
    (
        action(kind="position"),
        "action: terms are of kind velocity; name those of positions in `joints`",
    ),
    (action(scale=[1.0, 1.0, 1.0]), "action.scale has 3 values for 2 elements"),
    (action(output="mean"), "policy.onnx: 'mean'. Valid: actions, values, log_prob"),
    ({"stiffness": 20.0}, "stiffness and damping are those of position servos; leave them out"),
    (
        {
            "joints": ["x", "y"],
            "default_positions": [0.0, 0.0],
            "action": {"kind": "position", "scale": 1.0, "output": "actions"},
        },
        "action 'base_velocity' of robot 'omni' is in m/s, for which `kind` is velocity",
    ),
    (first({"term": "goals", "elements": [3, 4]}), "'target' is element 4 of term 'goals', whose"),
    (
        first({"term": "goal", "elements": [0, 1]}),
        "observation.2: 'goal'. Did you mean 'goals'?",
    ),
    (first({"term": "goals", "elements": [0]}), "'second' has 2 values, 1 in another skill"),
    (first({"term": "goals"}), "skills.first.target.elements: field required"),
    (first([0.5]), "'second' has 2 values, 1 in another skill"),
    (first([0.5, "north"]), "skills.first.target.1: a number is expected, got 'north'"),
]


@pytest.mark.parametrize(("change", "said"), MISTAKES, ids=[said[:40] for _, said in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, change, said):
    with pytest.raises(UserError) as refused:
        imported(tmp_path, **change)
    assert said in one_line.checked(refused.value)
    assert not (tmp_path / "bundle").exists()


def test_a_robot_with_another_action_has_to_be_commanded_whole(tmp_path):
    with pytest.raises(UserError, match="does not command action 'yaw_rate' of robot 'rover'"):
        imported(tmp_path, robot="rover", **action(terms=["speed"]))


def test_positions_are_no_velocities(tmp_path):
    robot = foreign_policy.robot_folder(tmp_path / "arms")
    change = {"control_dt": 0.02, **action(terms=["arms"])}
    with pytest.raises(
        UserError, match="commands velocities, action 'arms' of robot 'arms' is in"
    ):
        imported(tmp_path, robot=robot, **change)


# Skills of a bundle of this project --------------------------------------------------------------


def taken(bundle, family, target, robot="omni"):
    return import_skills(
        [bundle],
        robot,
        family,
        target,
        name="taken",
        decision_ticks=10,
        decision_lead=1,
        facts={"command": "test", "versions": {}, "commit": None},
    ).bundle


@pytest.mark.parametrize("name", ["rooms", "moving_bandits"])
def test_skills_of_a_bundle_do_in_another_family_what_they_did(tmp_path, name):
    """`rooms` shows the robot alone, `ring_bandits` a goal behind it, as `moving_bandits` two."""
    old = load_bundle(name)
    family = "ring_bandits" if name == "rooms" else "moving_bandits"
    new = taken(Path(name), family, tmp_path / "bundle")
    assert new.manifest.skills == old.manifest.skills
    assert new.manifest.family.name == family
    rows = np.random.default_rng(0).normal(size=(100, len(new.interface.observation_names)))
    names = new.interface.observation_names
    places = [names.index(each) for each in old.interface.observation_names]
    assert (len(places) < len(names)) == (name == "rooms")
    rows = rows.astype(np.float32)
    for one, other in zip(load_skills(old), load_skills(new), strict=True):
        np.testing.assert_allclose(other(rows), one(rows[:, places]), atol=1e-6)
    (origin, *_) = new.manifest.imported.values()
    assert name in origin.source
    assert origin.policy == old.skill_hashes()[0]
    assert not new.manifest.masters


@pytest.mark.parametrize(
    ("kind", "name"),
    [("observation", "joint_position"), ("action", "joint_position"), ("observation", "tilt")],
)
def test_a_term_that_differs_is_named_whichever_else_has_its_name(kind, name):
    """A Go2 observes joint positions and commands them."""
    bundle = load_bundle("go2_walk")
    terms = getattr(bundle.interface, kind)
    key = "scale" if kind == "observation" else "rate_limit"
    changed = [replace(t, **{key: 0.1}) if t.name == name else t for t in terms]
    other = replace(bundle.interface, **{kind: tuple(changed)})
    with pytest.raises(UserError, match=rf"{kind} term {name}\.{key}.* for its skills, and"):
        list(skills_of(bundle, other))


def test_limits_of_single_skills_are_taken_with_them(tmp_path):
    old = load_bundle("rooms")
    limits = {old.manifest.skills[1]: {"velocity": (-0.4, 0.4)}}
    files = {name: data for name, data in old.files.items() if name != MANIFEST}
    manifest = replace(old.manifest, skill_limits=limits)
    limited = write_bundle(manifest, files, tmp_path / "limited")
    new = taken(limited.source, "ring_bandits", tmp_path / "bundle")
    assert new.manifest.skill_limits == limits


def test_skills_that_were_imported_keep_their_origin(tmp_path):
    first = imported(tmp_path).bundle
    again = taken(first.source, "moving_bandits", tmp_path / "again")
    assert again.manifest.imported == first.manifest.imported


def test_what_the_skills_of_a_bundle_need_and_the_family_does_not_show_is_named(tmp_path):
    with pytest.raises(UserError, match=r"need observation term 'goals', which robot 'omni' does"):
        taken(Path("moving_bandits"), "rooms", tmp_path / "bundle")
    with pytest.raises(UserError, match=r"observation term 'position'.* It has: .*joint_position"):
        taken(Path("rooms"), "reach", tmp_path / "bundle", robot="arm")
    with pytest.raises(UserError, match=r"no bundle 'rums'.*Valid: .*rooms"):
        taken(Path("rums"), "ring_bandits", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_that_is_given_twice_is_named_once(tmp_path):
    with pytest.raises(UserError, match=r"rooms: it is given twice; give each once$"):
        import_skills(
            [Path("rooms"), Path("rooms")],
            "omni",
            "ring_bandits",
            tmp_path / "bundle",
            name="taken",
            decision_ticks=10,
            decision_lead=1,
            facts={"command": "test", "versions": {}, "commit": None},
        )


def test_a_task_that_shows_more_than_a_bundle_observes_says_how_to_take_its_skills():
    bundle, robot = load_bundle("rooms"), load_robot("omni")
    family = make_family("ring_bandits")
    said = r"shows goals, .*mlsh import-skill \S+ ring_bandits --robot omni -o FOLDER"
    with pytest.raises(UserError, match=said):
        check_family_fits(bundle, robot, family, TaskId("ring_bandits", None))
