"""From torch to ONNX: the same numbers, the same bytes, and a gate that closes."""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import yaml

from policies.bundle import export as module
from policies.bundle.bundle import load_bundle
from policies.bundle.export import (
    Parity,
    check_parity,
    export,
    master_entry,
    network_bytes,
    provenance_of,
)
from policies.bundle.manifest import MANIFEST
from policies.bundle.onnx_reader import ACTIVATIONS, OPERATORS, read_graph
from policies.bundle.runtime import TOLERANCE, Network, load_master, load_skills
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.networks import Normalizer
from policies.training.adapt import AdaptationPoint
from policies.training.finetune import finetune
from policies.training.run import create_run, environment, open_run
from policies.training.train import learn_masters, train
from sim.errors import UserError
from sim.physics.robot_model import ROBOTS
from sim.tasks.task_id import TaskId
from tests.support.bundles import made_up_bounds, small_config

OBSERVATIONS = np.random.default_rng(0).normal(0, 0.5, (64, 8)).astype(np.float32)


NETWORKS = {
    "as in the paper": {},
    "elu": {"activation": "elu", "hidden": (48, 32)},
    "each of its own": {
        **{"activation": "elu", "skill_hidden": (40, 20, 10), "master_hidden": (12,)},
        **{"master_activation": "tanh", "value_hidden": (24, 24)},
    },
    "linear": {"hidden": (), "activation": "elu"},
}


@pytest.fixture(scope="module")
def learner() -> Mlsh:
    """Trained for a moment, so that the normalizer and all weights are their own."""
    return trained()


def trained(**network) -> Mlsh:
    config = small_config(2)
    result = Mlsh(replace(config, network=replace(config.network, **network)))
    for _ in range(3):
        result.iterate()
    for level in (result.agent.masters, result.agent.skills):
        for row in range(level.count):
            level.policy.initialize(row, np.random.default_rng(row), output_gain=1.0)
    return result


def graphs(learner, change=lambda data: data):
    levels = learner.agent.masters, learner.agent.skills
    return [
        (change(network_bytes(level, row, learner.agent.normalizer, "x")), level, row)
        for level in levels
        for row in range(level.count)
    ]


def exported(learner, path, **changes):
    provenance = provenance_of(learner.config, environment(), 0, 0)
    curve = [AdaptationPoint(0, 0, 0.0, 1.0, 0.0)]
    masters = {
        task: master_entry(f"moving_bandits/{task}", curve, limit, provenance, 1)
        for task, limit in zip(learner.family.tasks, learner.reference_returns, strict=True)
    }
    given = {"masters": masters, "name": "demo"} | changes
    return export(learner.config, learner, given["masters"], provenance, given["name"], path)


# Parity ---------------------------------------------------------------------------------------


def test_torch_and_onnx_runtime_agree(learner):
    parity = check_parity(graphs(learner), learner.agent.normalizer, OBSERVATIONS, seed=0)
    assert 0 < parity.worst <= TOLERANCE == 1e-5


def test_numpy_agrees_with_both(learner):
    agent = learner.agent
    x = agent.normalizer(OBSERVATIONS)
    for data, level, row in graphs(learner):
        ours = level.policy.forward_row(row, x)
        assert np.abs(Network(data, "x")(OBSERVATIONS) - ours).max() <= TOLERANCE


def perturbed(node=None, weight=None):
    def change(data):
        proto = onnx.load_from_string(data)
        if weight is not None:
            for tensor in proto.graph.initializer:
                if tensor.name == weight[0]:
                    array = onnx.numpy_helper.to_array(tensor) + np.float32(weight[1])
                    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        for old, new in node or ():
            for each in proto.graph.node:
                each.op_type = new if each.op_type == old else each.op_type
        return proto.SerializeToString()

    return change


@pytest.mark.parametrize(
    "change",
    [
        perturbed(weight=("bias2", 2e-5)),
        perturbed(weight=("shift", 1e-2)),
        perturbed(weight=("scale", 1e-2)),
        perturbed(weight=("high", -1e-1)),  # shows only where the normalizer clips
        perturbed(node=[("Tanh", "Sigmoid")]),
        perturbed(node=[("Sub", "Add")]),
    ],
    ids=["bias", "shift", "scale", "clip", "activation", "sign"],
)
def test_a_wrong_graph_does_not_pass_the_gate(learner, tmp_path, monkeypatch, change):
    with pytest.raises(UserError, match="nothing was written"):
        check_parity(graphs(learner, change), learner.agent.normalizer, OBSERVATIONS, seed=0)
    monkeypatch.setattr(module, "network_bytes", lambda *args: change(network_bytes(*args)))
    with pytest.raises(UserError, match="torch and ONNX Runtime differ by"):
        exported(learner, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_two_networks_exchanged_do_not_pass_the_gate(learner):
    (one, level, row), (other, _, second), *_ = graphs(learner)
    with pytest.raises(UserError, match="differ"):
        check_parity(
            [(other, level, row), (one, level, second)],
            learner.agent.normalizer,
            OBSERVATIONS,
            seed=0,
        )


def test_nan_does_not_pass_the_gate(learner):
    with pytest.raises(UserError, match="differ by nan"):
        check_parity(
            graphs(learner, perturbed(weight=("bias2", np.nan))),
            learner.agent.normalizer,
            OBSERVATIONS,
            seed=0,
        )


@pytest.mark.parametrize("differences", [(np.nan, 0.0), (0.0, np.nan), (np.nan, np.nan)])
def test_a_difference_that_is_no_number_is_the_worst(differences):
    assert np.isnan(Parity(*differences).worst)


# Graphs ---------------------------------------------------------------------------------------


def test_graph_holds_the_normalizer_and_the_weights(learner):
    agent = learner.agent
    graph = read_graph(network_bytes(agent.skills, 1, agent.normalizer, "x"), "x")
    shift, scale = agent.normalizer.shift_and_scale
    assert np.array_equal(graph.initializers["shift"], shift)
    assert np.array_equal(graph.initializers["scale"], scale)
    assert graph.initializers["high"] == -graph.initializers["low"] == Normalizer.CLIP
    for i, (weight, bias) in enumerate(agent.skills.policy.layers(1)):
        assert np.array_equal(graph.initializers[f"weight{i}"], weight)
        assert np.array_equal(graph.initializers[f"bias{i}"], bias)
    assert set(graph.operators) == OPERATORS - {"Elu"}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_every_kind_are_exported_as_they_are(tmp_path, name):
    learner = trained(**NETWORKS[name])
    bundle, parity = exported(learner, tmp_path / "bundle")
    assert parity.worst <= TOLERANCE
    network = learner.config.network
    for file, own in (("skills/0", network.of_skills), ("masters/goal-1", network.of_masters)):
        graph = read_graph(bundle.files[f"{file}.onnx"], file)
        assert tuple(bias.size for _, bias in graph.layers[:-1]) == own.hidden
        kinds = [o for o in graph.operators if o in ACTIVATIONS.values()]
        assert kinds == [ACTIVATIONS[own.activation]] * len(own.hidden)
    whole = load_bundle(str(tmp_path / "bundle"))  # what is read back reproduces its golden rows
    assert len(load_skills(whole)) == 2
    # And it is trained further: its skills and masters are read as networks again.
    more = finetune(
        *(whole, TaskId.parse("moving_bandits/goal-0"), tmp_path / "more"),
        **{"name": "new", "updates": 0, "seed": 0, "start_from": "goal-1", "learner": "ppo"},
        facts=environment(),
    ).bundle
    assert more.skill_hashes() == whole.skill_hashes()
    rows = whole.golden.observation
    old, new = (load_master(each, m)(rows) for each, m in ((whole, "goal-1"), (more, "new")))
    assert np.abs(old - new).max() <= TOLERANCE


def test_large_outputs_are_rounded_as_their_size_is():
    # Weights of twice their first size: a rounding of such outputs is above 1e-5.
    learner = trained(activation="elu", hidden=(128, 128, 128))
    for level in (learner.agent.masters, learner.agent.skills):
        level.policy.numpy *= 2
    x = (5 * np.random.default_rng(1).standard_normal((500, 8))).astype(np.float32)
    assert np.abs(learner.agent.skills.policy.forward_row(0, x)).max() > 20
    parity = check_parity(graphs(learner), learner.agent.normalizer, OBSERVATIONS, seed=0)
    assert parity.worst <= TOLERANCE


def test_an_elu_with_another_slope_is_refused():
    learner = trained(activation="elu")
    data = network_bytes(learner.agent.skills, 0, learner.agent.normalizer, "x")
    proto = onnx.load_from_string(data)
    for node in proto.graph.node:
        if node.op_type == "Elu":
            node.attribute.append(onnx.helper.make_attribute("alpha", 2.0))
    with pytest.raises(UserError, match="x: attributes of operator 'Elu' are not accepted"):
        read_graph(proto.SerializeToString(), "x")


@pytest.mark.parametrize("batch", [1, 2, 1000])
def test_graph_takes_any_number_of_rows(learner, batch):
    agent = learner.agent
    network = Network(network_bytes(agent.skills, 0, agent.normalizer, "x"), "x")
    assert network(np.zeros((batch, 8), np.float32)).shape == (batch, 2)


# Bundles --------------------------------------------------------------------------------------


def files(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_same_run_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("policies.training.train.ADAPTATION_UPDATES", 1)
    monkeypatch.setattr("policies.training.adapt.MAX_UPDATE_STEPS", 400)
    train(create_run(replace(small_config(), steps=800), tmp_path / "run"))
    run = open_run(tmp_path / "run")
    for target in ("one", "two"):
        result = learn_masters(run)
        facts = provenance_of(run.config, run.provenance, 800, 2)
        masters = {
            task: master_entry(f"moving_bandits/{task}", curve, limit, facts, 256)
            for task, curve, limit in zip(
                result.learner.family.tasks,
                result.curves,
                result.learner.reference_returns,
                strict=True,
            )
        }
        export(run.config, result.learner, masters, facts, "demo", tmp_path / target)
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert len(one) == 6
    assert one == two


def test_manifest_tells_the_method(learner, tmp_path):
    bundle, parity = exported(learner, tmp_path / "bundle")
    manifest = bundle.manifest
    assert (manifest.decision_ticks, manifest.decision_lead) == (10, 1)
    assert manifest.skills == ("skill-0", "skill-1")
    assert list(manifest.masters) == ["goal-0", "goal-1"]
    assert manifest.interface == learner.env.interface
    assert manifest.provenance.config["mlsh"]["decision_ticks"] == 10
    assert manifest.provenance.versions["torch"]
    assert parity.worst <= TOLERANCE
    score = manifest.masters["goal-0"].score
    # 0 for a random policy, 1 for the optimum.
    assert score.normalized == (1.0 - score.random) / (score.optimum - score.random)


def test_golden_rows_are_observations_of_the_robot(learner, tmp_path):
    bundle, _ = exported(learner, tmp_path / "bundle")
    golden = bundle.golden
    assert golden.observation.shape == (64, 8)
    assert len(np.unique(golden.observation, axis=0)) > 50
    assert np.abs(golden.observation[:, 4:]).max() <= 1  # goals lie within a metre
    for g, name in enumerate(bundle.manifest.masters):
        ours = learner.agent.masters.policy.forward_row(
            g, learner.agent.normalizer(golden.observation)
        )
        assert np.abs(golden.logits[name] - ours).max() <= TOLERANCE
        assert np.array_equal(golden.skill[name], golden.logits[name].argmax(axis=1))


@pytest.mark.parametrize("name", ["a b", "../x", "", "-x", "x\n", "ü"])
def test_names_that_a_file_cannot_have(learner, tmp_path, name):
    with pytest.raises(UserError, match="bundle name"):
        exported(learner, tmp_path / "bundle", name=name)
    with pytest.raises(UserError, match="master name"):
        exported(learner, tmp_path / "bundle", masters={name: None})
    assert not list(tmp_path.iterdir())


def test_a_term_that_nobody_observes_changes_no_byte_of_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr("policies.mlsh.mlsh.all_reference_returns", made_up_bounds)
    data = yaml.safe_load((ROBOTS / "omni" / "robot.yaml").read_text())
    position, velocity = data["observation"]
    velocity["noise"] = 0.05  # drawn as it would be without the term before it
    hidden = {**velocity, "name": "hidden", "noise": 0.3, "policy_input": False}
    bundles = []
    for name, terms in (("plain", []), ("more", [hidden])):
        robot = shutil.copytree(ROBOTS / "omni", tmp_path / name)
        data["observation"] = [*terms, position, velocity]
        (robot / "robot.yaml").write_text(yaml.safe_dump(data))
        learner = Mlsh(small_config(3, robot=str(robot)))
        learner.iterate()
        bundles.append(exported(learner, tmp_path / f"{name}-bundle")[0])
    names = [[term.name for term in each.interface.observation] for each in bundles]
    assert names[1] == ["hidden", *names[0]]
    plain, more = ({n: d for n, d in b.files.items() if n != MANIFEST} for b in bundles)
    assert plain == more
