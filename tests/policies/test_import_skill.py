"""A policy that was trained elsewhere becomes skills."""

import ast
import json
import re
from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydantic import TypeAdapter

from mlsh_ros.bringup.graphs import SIM
from mlsh_ros.bringup.resolve_arguments import resolve_arguments
from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import resolve_cases
from policies.bundle import golden
from policies.bundle.bundle import check_bundle, load_bundle
from policies.bundle.imported_graph import SHAPES, check_imported
from policies.bundle.manifest import MANIFEST, make_manifest, sha256
from policies.bundle.runtime import TOLERANCE, Network, load_skills
from policies.bundle.work import ELEMENT, MAX_WORK, PIECE
from policies.mlsh.presets import default_config
from policies.skill_import import importer, reading, trial
from policies.skill_import.description import SkillDescription, with_metadata
from policies.skill_import.importer import import_skills
from policies.skill_import.reading import read_policy
from policies.skill_import.selection import Selection, SkillMapping
from policies.skill_import.surgery import join
from policies.training.finetune import finetune, task_config
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.interface.memory import ObservationMemory
from sim.physics.robot_model import load_robot
from sim.tasks.registry import FAMILIES, make_family
from sim.tasks.task_id import TaskId
from tests.support import one_line
from tests.support.bundles import made_up_bounds
from tests.support.cli import run_mlsh
from tests.support.foreign_policy import (
    DESCRIPTION,
    ROBOT,
    description,
    model,
    network,
    robot_folder,
)

FAMILY = "moving_bandits"
ALL_ROWS = importer.RANDOM_ROWS
TREE = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """Of random inputs; `test_every_import_is_compared_on_ten_thousand_inputs` takes them all."""
    monkeypatch.setattr(importer, "RANDOM_ROWS", 1000)
    monkeypatch.setattr(importer, "check_scorable", lambda *_: None)  # arms cannot drive to a goal


def imported(tmp_path, file=None, robot=ROBOT, **changes):
    files = [file or description(tmp_path / "policy", **changes)]
    return import_arms(files, robot_folder(tmp_path / "arms", robot), tmp_path / "bundle")


def import_arms(files, robot, target):
    return import_skills(
        files,
        robot,
        FAMILY,
        target,
        name="arms",
        decision_ticks=5,
        decision_lead=1,
        facts={"command": "test", "versions": {}, "commit": None},
    )


def refusal(tmp_path, made=None, **changes):
    """The line with which an import is refused; nothing is written."""
    with pytest.raises(UserError) as refused:
        imported(tmp_path, description(tmp_path / "policy", made, **changes))
    assert not (tmp_path / "bundle").exists()
    return one_line.checked(refused.value)


# Operators --------------------------------------------------------------------------------

IN, OUT = 6, 2
RNG = np.random.default_rng(0)
W = {
    "w": RNG.normal(size=(IN, OUT)).astype(np.float32),
    "row": RNG.normal(size=IN).astype(np.float32),
    "bias": RNG.normal(size=OUT).astype(np.float32),
    "low": np.float32(-0.3),
    "high": np.float32(0.4),
    "two": np.array([2], np.int64),
    "four": np.array([4], np.int64),
    "zero": np.array([0], np.int64),
    "one": np.array([1], np.int64),
    "one_two": np.array([1, 2], np.int64),
    "pick": np.array([5, 0, -1, 3, 2, 1], np.int64),
    "box": np.array([1, 2, 3], np.int64),
    "flat": np.array([1, IN], np.int64),
    "all": np.array([-1, IN], np.int64),
}


def test_every_import_is_compared_on_ten_thousand_inputs(tmp_path, monkeypatch):
    """In several pieces."""
    assert ALL_ROWS == 10_000
    monkeypatch.setattr(importer, "RANDOM_ROWS", ALL_ROWS)
    assert imported(tmp_path).random < 1e-5


def op(kind, *inputs, out="y", **attributes):
    return helper.make_node(kind, list(inputs), [out], **attributes)


LAYER = op("MatMul", "y", "w", out="actions")
GRAPHS = {
    **{
        kind: [op(kind, "obs"), LAYER]
        for kind in ("Elu", "Relu", "LeakyRelu", "Selu", "Tanh", "Sigmoid", "Softplus", "Identity")
    },
    **{kind: [op(kind, "obs", "row"), LAYER] for kind in ("Add", "Sub", "Mul", "Div")},
    "Clip": [op("Clip", "obs", "low", "high"), LAYER],
    "Gemm": [op("Gemm", "obs", "w", "bias", out="actions", alpha=0.5)],
    "MatMul": [op("MatMul", "obs", "w", out="actions")],
    "Concat": [
        op("Slice", "obs", "zero", "two", "one", out="a"),
        op("Slice", "obs", "two", "flat_end", "one", out="b"),
        op("Concat", "b", "a", axis=1),
        LAYER,
    ],
    "Slice": [
        op("Slice", "obs", "zero", "four", "one", out="a"),
        op("Concat", "a", "a", axis=-1, out="c"),
        op("Slice", "c", "two", "end", "one"),
        LAYER,
    ],
    "Gather": [op("Gather", "obs", "pick", axis=1), LAYER],
    "Reshape": [op("Reshape", "obs", "box", out="b"), op("Reshape", "b", "all"), LAYER],
    "Flatten": [op("Flatten", "obs"), LAYER],
    "Squeeze": [op("Unsqueeze", "obs", "one", out="u"), op("Squeeze", "u", "one"), LAYER],
    "Unsqueeze": [op("Unsqueeze", "obs", "two", out="u"), op("Reshape", "u", "flat"), LAYER],
    "LayerNormalization": [op("LayerNormalization", "obs", "row", axis=-1), LAYER],
    "LpNormalization": [op("LpNormalization", "obs", axis=1, p=2), LAYER],
    "ReduceL2": [
        op("ReduceL2", "obs", "one", keepdims=1, out="length"),
        op("Div", "obs", "length"),
        LAYER,
    ],
    "Split": [
        helper.make_node("Split", ["obs"], ["a", "b"], axis=-1, num_outputs=2),
        helper.make_node("Split", ["a", "one_two"], ["c", "d"], axis=1),
        op("Concat", "d", "b", "c", axis=1),
        LAYER,
    ],
    "Cast": [op("Cast", "obs", to=1), LAYER],
    "Expand": [op("Expand", "obs", "flat"), LAYER],
    "Constant": [
        op("Constant", value=numpy_helper.from_array(W["row"]), out="k"),
        op("Mul", "obs", "k"),
        LAYER,
    ],
}
ENDS = {"flat_end": np.array([IN], np.int64), "end": np.array([8], np.int64)}


def saved(tmp_path, made):
    onnx.save(made, str(tmp_path / "policy.onnx"))
    return tmp_path / "policy.onnx"


def with_only_what_is_used(nodes):
    used = {name for node in nodes for name in node.input}
    return {name: array for name, array in {**W, **ENDS}.items() if name in used}


def identity(inputs=IN, outputs=OUT) -> SkillMapping:
    """From an observation that is the policy's input, reversed."""
    back = np.arange(inputs)[::-1].copy()
    return SkillMapping(
        Selection(back, np.ones(inputs), np.zeros(inputs)),
        Selection(np.array([1, 0]), np.array([2.0, 0.5]), np.array([0.25, 0.0])),
        None,
        inputs,
    )


def test_every_operator_has_a_graph_here():
    assert {*GRAPHS} == {*SHAPES, "Constant", "Cast", "Split", "Expand"}
    page = (TREE / "docs" / "import-a-policy.md").read_text()
    documented = page.partition("\nOperators: ")[2].partition(". All others")[0]
    assert {*GRAPHS} == {*re.findall(r"\b[A-Z]\w+", documented)}


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_skill_gives_what_the_policy_gives(tmp_path, kind):
    nodes = GRAPHS[kind]
    assert kind in {node.op_type for node in nodes}
    path = saved(tmp_path, model(nodes, IN, OUT, with_only_what_is_used(nodes)))
    data = join(read_policy(path)[0], identity(), "skill", "test")
    check_imported(data, "skill", IN, OUT)
    rows = np.random.default_rng(1).normal(size=(50, IN)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"obs": row[None, ::-1]})[0] for row in rows])
    expected = expected[:, ::-1] * [2.0, 0.5] + [0.25, 0.0]
    np.testing.assert_allclose(Network(data, "skill")(rows), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 20])
def test_opsets_of_real_exporters_are_read(tmp_path, opset):
    nodes = [op("Clip", "obs", "low", "high"), LAYER]
    path = saved(tmp_path, model(nodes, IN, OUT, with_only_what_is_used(nodes), opset))
    check_imported(join(read_policy(path)[0], identity(), "skill", "test"), "skill", IN, OUT)


REFUSED = {
    "operator 'GRU': recurrent policies are not supported; give one that takes": [
        op("GRU", "obs", "w", "w"),
        LAYER,
    ],
    "operator 'Softmax'. Valid: Add, Cast, Clip, Concat, Constant, ": [
        op("Softmax", "obs"),
        LAYER,
    ],
    "operator 'If'": [op("If", "obs"), LAYER],
    "operator 'Split'": [
        helper.make_node("Split", ["obs", "sizes"], ["y", "z"], axis=1),
        LAYER,
    ],
}


@pytest.mark.parametrize("said", REFUSED)
def test_other_operators_are_refused_by_name(tmp_path, said):
    nodes = REFUSED[said]
    path = saved(tmp_path, model(nodes, IN, OUT, with_only_what_is_used(nodes)))
    with pytest.raises(UserError) as refused:
        read_policy(path)
    assert said in one_line.checked(refused.value)
    assert str(refused.value).startswith(f"{path}: ")


def with_second_input(node):
    made = network()
    made.graph.input.append(helper.make_tensor_value_info("other", 1, [1, 2]))
    made.graph.output.append(helper.make_tensor_value_info("more", 1, [1, 2]))
    made.graph.node.append(node)
    return made


def test_a_second_input_that_the_action_needs_is_refused(tmp_path):
    made = with_second_input(helper.make_node("Add", ["actions", "other"], ["more"]))
    with pytest.raises(UserError) as refused:
        read_policy(saved(tmp_path, made), "more")
    text = one_line.checked(refused.value)
    assert "one input is expected, 'more' is computed from obs, other; recurrent policies" in text


def test_a_second_input_that_the_action_does_not_need_is_left_out(tmp_path):
    """Such as the time, from which a policy that imitates a motion computes that motion."""
    made = with_second_input(helper.make_node("Tanh", ["other"], ["more"]))
    action = DESCRIPTION["action"] | {"output": "actions"}
    found = imported(tmp_path, description(tmp_path / "policy", made, action=action))
    plain = imported(tmp_path / "plain")
    assert found.bundle.skills == plain.bundle.skills
    assert found.random <= 1e-5


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
def test_recurrence_is_named_before_the_operators_around_it(tmp_path, kind):
    nodes = [op("Transpose", "obs", out="x"), op(kind, "x", "w", "w"), LAYER]
    path = saved(tmp_path, model(nodes, IN, OUT, with_only_what_is_used(nodes)))
    with pytest.raises(UserError, match=f"operator '{kind}': recurrent policies are not"):
        read_policy(path)


def test_an_output_of_another_size_than_the_file_states_is_refused(tmp_path):
    """It states 2 elements, and a matrix of 7 by 5 computes 5."""
    made = model([op("MatMul", "obs", "w", out="actions")], 7, 2, {"w": np.ones((7, 5), "f4")})
    text = refusal(tmp_path, made)
    assert "'actions' is stated to have 2 elements, and the graph computes 5; export" in text


def test_a_size_that_the_file_does_not_state_is_computed(tmp_path):
    made = network()
    for each in (made.graph.input[0], made.graph.output[0]):
        each.type.tensor_type.shape.dim[0].dim_param = "batch"
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "size"
    assert imported(tmp_path, description(tmp_path / "policy", made)).random <= 1e-5
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    text = refusal(tmp_path / "wide", made)
    assert "'obs' has the shape (batch, width); export the policy for rows of a fixed" in text


def test_an_infinite_bound_of_a_clip_is_none(tmp_path):
    nodes = [op("Clip", "obs", "open", "high"), LAYER]
    weights = with_only_what_is_used(nodes) | {"open": np.float32(-np.inf)}
    path = saved(tmp_path, model(nodes, IN, OUT, weights))
    unchanged = [Selection(np.arange(n), np.ones(n), np.zeros(n)) for n in (IN, OUT)]
    data = join(read_policy(path)[0], SkillMapping(*unchanged, None, IN), "skill", "test")
    check_imported(data, "skill", IN, OUT)
    rows = RNG.normal(size=(20, IN)).astype(np.float32)
    expected = np.minimum(rows, W["high"]) @ W["w"]
    np.testing.assert_allclose(Network(data, "skill")(rows), expected, atol=1e-6)


NORMS = {
    "LayerNormalization": op("LayerNormalization", "obs", "row", axis=0),
    "LpNormalization": op("LpNormalization", "obs", axis=0),
    "ReduceL2": op("ReduceL2", "obs", "zero", out="y"),
}


@pytest.mark.parametrize("kind", NORMS)
def test_a_norm_over_several_observations_is_refused(tmp_path, kind):
    nodes = [NORMS[kind], LAYER]
    path = saved(tmp_path, model(nodes, IN, OUT, with_only_what_is_used(nodes)))
    with pytest.raises(UserError) as refused:
        read_policy(path)
    text = one_line.checked(refused.value)
    assert f"operator '{kind}' of 'y' is over axis 0, and axis 0 is the observations" in text


def test_a_product_with_a_vector_says_what_it_needs(tmp_path):
    nodes = [op("MatMul", "obs", "v"), op("Unsqueeze", "y", "one", out="u")]
    nodes.append(op("Concat", "u", "u", out="actions", axis=1))
    weights = {"v": np.ones(7, "f4"), "one": np.array([1])}
    text = refusal(tmp_path, model(nodes, 7, 2, weights))
    assert "both need two axes, a vector has one: Unsqueeze it" in text


def test_what_is_no_file_of_a_policy_is_named_as_what_it_is(tmp_path):
    file = description(tmp_path / "policy")
    (tmp_path / "policy" / "empty.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="a folder; name the ONNX file of the policy in it"):
        read_policy(file.parent)
    with pytest.raises(UserError, match="is empty, 0 bytes; export the policy again"):
        read_policy(file.parent / "empty.onnx")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda w: w.astype(np.float64),
            "are DOUBLE; FLOAT is accepted: export the policy in 32-",
        ),
        (lambda w: np.full_like(w, np.nan), "are not finite: nan in 112 of 112; the training has"),
        (lambda w: w / np.float32(0), "are not finite: "),
    ],
)
def test_weights_that_are_no_finite_floats_are_refused(tmp_path, change, said):
    made = network()
    array = numpy_helper.to_array(made.graph.initializer[0])
    with np.errstate(divide="ignore"):
        changed = change(array)
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(changed, "w0"))
    text = refusal(tmp_path, made=made)
    assert text.startswith(f"{tmp_path / 'policy' / 'policy.onnx'}: weights 'w0' are ")
    assert said in text


def test_external_data_becomes_a_part_of_the_skill(tmp_path):
    made = network(hidden=64)
    plain = join(made, identity(7), "skill", "test")
    onnx.save(
        made,
        str(tmp_path / "policy.onnx"),
        save_as_external_data=True,
        size_threshold=0,
        location="policy.data",
    )
    assert (tmp_path / "policy.data").exists()
    assert join(read_policy(tmp_path / "policy.onnx")[0], identity(7), "skill", "test") == plain


def test_external_data_is_a_part_of_the_policys_digest_and_bounded(tmp_path, monkeypatch):
    digests = []
    for seed in (0, 1):
        made, path = network(hidden=64, seed=seed), tmp_path / "policy.onnx"
        (tmp_path / "policy.data").unlink(missing_ok=True)  # it would be appended to
        onnx.save(
            made, str(path), save_as_external_data=True, size_threshold=0, location="policy.data"
        )
        digests.append((sha256(path.read_bytes()), read_policy(path)[1]))
    (file, whole), (same_file, other_whole) = digests
    assert file == same_file
    assert whole != other_whole
    monkeypatch.setattr(reading, "MAX_BYTES", (tmp_path / "policy.data").stat().st_size - 1)
    with pytest.raises(UserError, match="its external data are larger than"):
        read_policy(path)


def test_external_data_of_a_constant_are_bounded_too(tmp_path):
    """`onnx` loads them as those of weights."""
    made = network()
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[2**33])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="far.bin")
    made.graph.node.insert(0, helper.make_node("Constant", [], ["far"], value=tensor))
    (tmp_path / "policy.onnx").write_bytes(made.SerializeToString())
    with (tmp_path / "far.bin").open("wb") as stream:
        stream.truncate(2**35)  # takes no place
    with pytest.raises(UserError, match="its external data are larger than"):
        read_policy(tmp_path / "policy.onnx")


def test_a_policy_of_doubles_is_compared_with_itself(tmp_path):
    made = network()
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    made.graph.node[0].input[0] = "single"
    cast = helper.make_node("Cast", [made.graph.input[0].name], ["single"], to=TensorProto.FLOAT)
    made.graph.node.insert(0, cast)
    found = imported(tmp_path, description(tmp_path / "policy", made))
    assert max(found.random, found.visited) <= TOLERANCE


def test_what_onnx_runtime_refuses_is_one_line(tmp_path, capfd):
    """An operator of somebody's own behind an output that is not needed; a name with an escape."""
    made = network()
    made.graph.node.append(helper.make_node("Odd", ["e"], ["more"], domain="evil"))
    made.opset_import.append(helper.make_opsetid("evil", 1))
    made.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["n", 16]))
    made.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "u\x1b[31m"))
    action = DESCRIPTION["action"] | {"output": made.graph.output[0].name}
    assert "ONNX Runtime refuses it" in refusal(tmp_path, made, action=action)
    assert "\x1b" not in capfd.readouterr().err


def test_the_second_name_of_onnxs_own_domain_is_read(tmp_path):
    made = network()
    plain = join(made, identity(7), "skill", "test")
    made.opset_import[0].domain = "ai.onnx"
    for node in made.graph.node:
        node.domain = "ai.onnx"
    assert join(read_policy(saved(tmp_path, made))[0], identity(7), "skill", "test") == plain


def fixed_rows(made):
    for each in (made.graph.input[0], made.graph.output[0]):
        each.type.tensor_type.shape.dim[0].dim_value = 4096


def unknown_opset(made):
    made.opset_import[0].version = 999


def huge_weights(made):
    for tensor in made.graph.initializer:
        array = np.full_like(numpy_helper.to_array(tensor), 1e38)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def empty_constant(made):
    made.graph.node.insert(0, helper.make_node("Constant", [], ["k"]))
    made.graph.node[1].input[2] = "k"


def reshape_without_shape(made):
    made.graph.node.insert(0, helper.make_node("Reshape", ["obs"], ["k"]))
    made.graph.node[1].input[0] = "k"


def unsorted_nodes(made):
    nodes = list(made.graph.node)[::-1]
    del made.graph.node[:]
    made.graph.node.extend(nodes)


def key_twice(made):
    for value in ("left,right", "right,left"):
        entry = made.metadata_props.add()
        entry.key, entry.value = "joint_names", value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (fixed_rows, "'obs' has 4096 rows; export the policy for one row, or for any number"),
        (unknown_opset, "opset 999 "),
        (huge_weights, "the output of policy.onnx is not finite"),
        (empty_constant, "operator 'Constant'"),
        (reshape_without_shape, "the policy's graph is not valid"),
        (unsorted_nodes, "the policy's graph is not valid: operator 'Gemm' takes 'e', which is"),
        (key_twice, "its metadata state 'joint_names' twice"),
    ],
)
def test_a_file_that_cannot_become_a_skill_is_one_line(tmp_path, change, said):
    made = network()
    change(made)
    assert said in refusal(tmp_path, made)


def test_a_policy_whose_skills_do_not_fit_into_a_bundle_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(importer, "MAX_BUNDLE_BYTES", 2000)
    with pytest.raises(UserError, match=r"a bundle of 2 skills has [\d,]+ bytes, at most 2,000"):
        imported(tmp_path)


def test_a_graph_that_grows_without_bound_is_refused_before_it_runs():
    nodes = [helper.make_node("Concat", ["observation", "observation"], ["x0"], axis=1)]
    nodes += [
        helper.make_node("Concat", [f"x{i}", f"x{i}"], [f"x{i + 1}"], axis=1) for i in range(40)
    ]
    made = model(nodes, IN, OUT, {})
    made.graph.input[0].name, made.graph.output[0].name = "observation", "output"
    with pytest.raises(UserError, match=r"operator Concat .* at most 65536 elements"):
        check_imported(made.SerializeToString(), "skill", IN, OUT)


def repeated(count, kind, *weights):
    """`count` operators behind an observation that is made wide, and what brings it back."""
    nodes = [op("MatMul", "observation", "wide", out="x0")]
    nodes += [op(kind, f"x{i}", *weights, out=f"x{i + 1}") for i in range(count)]
    return [*nodes, op("MatMul", f"x{count}", "narrow", out="output")]


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_an_operator_without_inputs_is_refused(kind):
    nodes = [op(kind, out="x"), op("MatMul", "observation", "w", out="output")]
    made = model(nodes, IN, OUT, W)
    made.graph.input[0].name, made.graph.output[0].name = "observation", "output"
    with pytest.raises(UserError, match=f"^skill: operator {kind} of .*: it has no input$"):
        check_imported(made.SerializeToString(), "skill", IN, OUT)


def test_work_that_grows_with_the_square_of_the_rows_is_counted():
    """Rows by rows, as many as run at a time when a bundle is loaded."""
    nodes = [
        op("Gemm", "observation", "observation", out="square", transB=1),
        *(op("MatMul", "square", f"x{i}", out=f"x{i + 1}") for i in range(200)),
        op("MatMul", "x200", "narrow", out="output"),
    ]
    nodes.insert(0, op("MatMul", "observation", "wide", out="x0"))
    weights = {
        "wide": np.zeros((IN, 2000), np.float32),
        "narrow": np.zeros((2000, OUT), np.float32),
    }
    made = model(nodes, IN, OUT, weights)
    made.graph.input[0].name, made.graph.output[0].name = "observation", "output"
    work = IN * PIECE + 2000 * (IN + OUT) + 200 * 2000 * PIECE
    with pytest.raises(UserError, match=f"^skill: {work:,} multiplications for one obs"):
        check_imported(made.SerializeToString(), "skill", IN, OUT)


@pytest.mark.parametrize(
    ("nodes", "width", "work"),
    [
        # 490 of 2^16 elements: seconds for each observation, in a file of some kB.
        (repeated(490, "Selu"), 2**16, 490 * 2**16 * ELEMENT + 2**16 * (IN + OUT)),
        (repeated(490, "MatMul", "square"), 2000, 490 * 2000**2 + 2000 * (IN + OUT)),
        (repeated(490, "Gemm", "square"), 2000, 490 * 2000**2 + 2000 * (IN + OUT)),
        (repeated(4, "Gemm", "square"), 2000, None),  # as much as is accepted
        (repeated(15, "Selu"), 2**16, None),
    ],
)
def test_a_small_file_that_takes_long_to_run_is_refused_before_it_runs(nodes, width, work):
    weights = {
        "wide": np.zeros((IN, width), np.float32),
        "square": np.zeros((width, width) if width < 2**16 else (1, 1), np.float32),
        "narrow": np.zeros((width, OUT), np.float32),
    }
    made = model(nodes, IN, OUT, weights)
    made.graph.input[0].name, made.graph.output[0].name = "observation", "output"
    data = made.SerializeToString()
    if work is None:
        assert 0.9 * MAX_WORK < check_imported(data, "skill", IN, OUT) <= MAX_WORK
        return
    with pytest.raises(UserError, match=f"^skill: {work:,} multiplications for one obs"):
        check_imported(data, "skill", IN, OUT)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([op("MatMul", "observation", "w", out="x")], "give an output of shape None"),
        ([op("MatMul", "nothing", "w", out="output")], "its input 'nothing' is not computed"),
        ([op("MatMul", "observation", "row", out="output")], "shapes do not fit"),
        ([op("Reshape", "observation", "flat", out="output")], "shapes do not fit"),
        ([op("Softmax", "observation", out="output")], "operator 'Softmax'"),
        ([op("Gather", "observation", "ten", out="output", axis=1)], "index 10 of 6"),
        (
            [
                op("Gather", "observation", "box", out="x", axis=0),
                op("MatMul", "x", "w", out="output"),
            ],
            "index 3 of 3",
        ),
        (
            [
                op("Gather", "observation", "rows", out="x", axis=0),
                op("MatMul", "x", "w", out="output"),
            ],
            "6 inputs in 5 rows give an output of shape (3, 2), not (5, 2)",
        ),
        (
            [
                op("Slice", "observation", "zero", "zero", "one", out="x"),
                op("Reshape", "x", "rest", out="output", allowzero=1),
            ],
            "shapes do not fit",
        ),
    ],
)
def test_a_bundle_with_another_graph_is_refused(nodes, said):
    weights = {
        **W,
        "ten": np.array([10], np.int64),
        "rows": np.array([0, 1, 2], np.int64),
        "rest": np.array([0, -1], np.int64),
    }
    made = model(nodes, IN, OUT, weights)
    made.graph.input[0].name, made.graph.output[0].name = "observation", "output"
    with pytest.raises(UserError) as refused:
        check_imported(made.SerializeToString(), "skill", IN, OUT)
    assert said in str(refused.value)


# A whole policy ---------------------------------------------------------------------------

HISTORIES = [
    None,
    *(
        {"ticks": 4, "order": order, "layout": layout, "start": "first_values"}
        for order in ("oldest_first", "newest_first")
        for layout in ("by_term", "by_tick")
    ),
]


DEFAULT, SCALE = np.array([0.4, -0.3]), np.array([0.2, 0.3])
LEFT_RIGHT = [1, 0]  # the robot has them the other way round


class Reference:
    """The policy itself, with inputs of its own made of the robot's fields (n, size)."""

    def __init__(self, file, history):
        self.history = history
        self.past = deque(maxlen=1 if history is None else history["ticks"])
        self.session = onnxruntime.InferenceSession(str(file.parent / "policy.onnx"))

    def targets(self, fields, last):
        """(n, 2) targets of left and right, after its last output (n, 2)."""
        frame = [
            np.ones((len(last), 1)),
            fields["joint_position"][:, LEFT_RIGHT] - DEFAULT,
            0.05 * fields["joint_velocity"][:, LEFT_RIGHT],
            last,
        ]
        self.past.append(frame)
        while len(self.past) < self.past.maxlen:
            self.past.append(frame)
        frames = [*self.past]
        if self.history and self.history["order"] == "newest_first":
            frames.reverse()
        if self.history and self.history["layout"] == "by_tick":
            parts = [each for one in frames for each in one]
        else:
            parts = [one[i] for i in range(len(frame)) for one in frames]
        rows = np.concatenate(parts, axis=1).astype(np.float32)
        outputs = [self.session.run(None, {"obs": row[None]})[0][0] for row in rows]
        return DEFAULT + SCALE * np.array(outputs)


def commands(action):
    """(n, 2) targets of right and left: what robot.yaml makes of an action, without limits."""
    return [-0.3, 0.4] + np.array([0.5, 0.25]) * action


def with_history(tmp_path, history):
    """The skill `fast` of an imported policy, its bundle and the policy itself."""
    ticks = 1 if history is None else history["ticks"]
    file = description(tmp_path / "policy", network(7 * ticks), history=history)
    found = imported(tmp_path, file)
    assert max(found.random, found.visited) <= 1e-5
    changed = [f"after a change of the skill all {ticks} ticks of the history have the constants"]
    assert [note[: len(changed[0])] for note in found.doubts] == (changed if history else [])
    skills = found.bundle.manifest.skills
    fast = load_skills(found.bundle)[skills.index("fast")]
    return fast, found.bundle, Reference(file, history)


@pytest.mark.parametrize("history", HISTORIES, ids=str)
def test_on_the_robot_it_gives_what_the_policy_gives_from_the_robots_fields(tmp_path, history):
    fast, _, policy = with_history(tmp_path, history)
    robot = load_robot(str(tmp_path / "arms"))
    env = TaskVectorEnv(robot, make_family(FAMILY), groups=1, envs=1, seed=0)
    shown, _ = env.reset()
    last = np.zeros((1, 2))
    for _ in range(30):
        targets = policy.targets(env.world.true_state(), last)
        last = (targets - DEFAULT) / SCALE
        action = fast(shown)
        np.testing.assert_allclose(commands(action), targets[:, LEFT_RIGHT], atol=1e-5)
        shown, *_ = env.step(action)
    assert np.abs(last).max() > 0.1


@pytest.mark.parametrize("source", ["random", "visited"])
@pytest.mark.parametrize("history", HISTORIES[:2], ids=str)
def test_it_does_so_for_ten_thousand_recorded_fields(tmp_path, history, source):
    """Those of 100 sessions; actions have noise, so that no two are the same for long."""
    fast, bundle, policy = with_history(tmp_path, history)
    interface, rng, rows = bundle.interface, np.random.default_rng(0), 100
    robot = load_robot(str(tmp_path / "arms"))
    env = TaskVectorEnv(robot, make_family(FAMILY, {"ticks": 200}), groups=1, envs=rows, seed=0)
    env.reset()
    memory = ObservationMemory(interface, (rows,))
    last, worst, seen = np.zeros((rows, 2)), 0.0, set()
    for _ in range(105):
        if source == "visited":
            fields = env.world.measurements(env.world.true_state())
        else:
            terms = interface.observation
            fields = {t.name: 3 * rng.standard_normal((rows, t.size)) for t in terms}
        seen |= {row.tobytes() for row in fields["joint_position"]}
        observation = interface.observe(fields, memory=memory)
        targets = policy.targets(fields, last)[:, LEFT_RIGHT]
        error = np.abs(commands(fast(observation)) - targets) / np.maximum(1, np.abs(targets))
        worst = max(worst, error.max())
        action = fast(observation) + 0.3 * rng.standard_normal((rows, 2)).astype(np.float32)
        last = (commands(action)[:, LEFT_RIGHT] - DEFAULT) / SCALE
        memory.remember(observation, action)
        env.step(action)
    assert len(seen) >= 10_000
    assert worst <= 1e-5


def test_the_bundle_says_where_its_skills_come_from(tmp_path):
    bundle = imported(tmp_path).bundle
    policy = sha256((tmp_path / "policy" / "policy.onnx").read_bytes())
    for name, command in (("slow", 0.5), ("fast", 1.0)):
        origin = bundle.manifest.imported[name]
        assert (origin.license, origin.source) == ("MIT", "made for a test")
        assert (origin.policy, origin.constants) == (policy, {"command": (command,)})
    again = load_bundle(tmp_path / "bundle")
    assert again.manifest == bundle.manifest
    given = {"bundle": str(tmp_path / "bundle"), "robot": str(tmp_path / "arms")}
    with pytest.raises(UserError, match=r"'arms' \(.*\) has no master yet.*mlsh finetune"):
        resolve_arguments(SIM, SIM.resolve(given), given)


def test_a_skill_of_another_graph_is_not_loaded(tmp_path):
    bundle = imported(tmp_path).bundle
    made = onnx.load_from_string(bundle.skills[0])
    made.graph.node[-1].op_type = "Pow"
    files = {name: data for name, data in bundle.files.items() if name != MANIFEST}
    files["skills/0.onnx"] = made.SerializeToString()
    files[MANIFEST] = json.dumps(make_manifest(bundle.manifest, files).to_dict()).encode()
    with pytest.raises(UserError, match="operator 'Pow'"):
        check_bundle(files, tmp_path / "other")


def test_shipped_bundles_have_no_such_key():
    bundle = load_bundle(FAMILY)
    assert "imported" not in bundle.manifest.to_dict()
    with pytest.raises(ValueError, match="masters: at least one"):
        replace(bundle.manifest, masters={})


# Disagreements ----------------------------------------------------------------------------

TERMS = [
    {"constant": "command"},
    {"term": "joint_position", "offset": "default_positions"},
    {"term": "joint_velocity", "scale": 0.05},
    {"previous_action": True},
]
MISTAKES = [
    ({"joints": ["left", "knee"]}, "skills.yaml drives: 'knee'. Valid: right, left"),
    ({"joints": ["left", "left"]}, "joint 'left' is given twice in `joints`; name each once, in"),
    ({"observation_clip": [100.0, -100.0]}, "observation_clip (100.0, -100.0) is empty"),
    (
        {"action": {"kind": "position", "scale": 0.2, "clip": [5.0, 5.0]}},
        "clip (5.0, 5.0) is empty",
    ),
    (
        {"observation": [TERMS[0], {"term": "joint_velocity", "offset": "default_positions"}]},
        "offset default_positions is of the positions of the joints, term 'joint_velocity' is in",
    ),
    (
        {
            "joints": ["left"],
            "default_positions": [0.4],
            "damping": 0.4,
            "action": {"kind": "position", "scale": 0.2},
        },
        "the policy does not drive joint 'right' of robot 'arms'",
    ),
    (
        {"observation": TERMS[:3]},
        "(command 1, joint_position 2, joint_velocity 2) has 5 elements, that of ",
    ),
    ({"observation": TERMS[:3]}, "policy.onnx has 7; give `observation` the entries of the train"),
    (
        {"observation": [*TERMS, TERMS[2]]},
        "joint_velocity 2, previous_action 2, joint_velocity 2) has 9 elements, that of ",
    ),
    (
        {"history": {**HISTORIES[1], "ticks": 2}},
        "previous_action 2, each in 2 ticks) has 14 elements, that of ",
    ),
    ({"stiffness": 20.0}, "stiffness of joint 'left' was 20 in training, it is 8 in robot.yaml"),
    (
        {"control_dt": 0.005},
        "the policy decides every 0.005 s, robot 'arms' every 0.02 s; a policy runs at the",
    ),
    (
        {"control_dt": 0.005},
        "set control_dt in robot.yaml to 0.005, or give a policy trained with",
    ),
    ({"default_positions": [0.4]}, "default_positions has 1 values for 2 joints"),
    ({"default_positions": [0.5, -0.3]}, "set the action's offset in robot.yaml"),
    ({"action": {"kind": "torque", "scale": 1.0}}, "action.kind: 'torque' cannot be comm"),
    (
        {"action": {"kind": "torque", "scale": 1.0}},
        "Valid: position, velocity; train the policy with targets of one of these kinds",
    ),
    ({"observation": "joints"}, "observation: a list is expected, got 'joints'"),
    ({"observation": []}, "observation is empty; at least 1 entry is expected"),
    ({"skills": {}}, "skills is empty; at least 1 entry is expected"),
    ({"history": 5}, "history: a mapping of keys to values is expected, got 5"),
    (
        {"skills": {"slow": {}}},
        "skill 'slow' states the constants [], the policy takes ['command']",
    ),
    (
        {"observation": [TERMS[0], {"term": "speed"}]},
        "skills.yaml: observation.1: 'speed'. Valid: position, joint_velocity, joint_position",
    ),
    ({"observation": [{"term": "position", "constant": "x"}]}, "give exactly one of term, const"),
    ({"policy": "other.onnx"}, "other.onnx does not exist"),
    ({"schema": 3}, "schema 3 is not known. Valid: 2"),
    ({"schema": None}, "schema is missing; the first line has to be schema: 2"),
    (
        {"history": {"ticks": 9, "order": "oldest_first", "layout": "by_tick", "start": "zeros"}},
        "history.start is 'zeros', that of history 'past' in robot.yaml is 'first_values'",
    ),
    (
        {
            "history": {
                "ticks": 9,
                "order": "oldest_first",
                "layout": "by_tick",
                "start": "first_values",
            }
        },
        "the policy takes 'joint_position' of 8 ticks ago, and no history of robot 'arms' has it",
    ),
]


@pytest.mark.parametrize(("change", "said"), MISTAKES, ids=[said[:40] for _, said in MISTAKES])
def test_a_disagreement_is_one_line_and_nothing_is_written(tmp_path, change, said):
    assert said in refusal(tmp_path, **change)


WITHOUT = {
    # Their last value is what to change.
    "{}: the {} has {} elements, that of {} has {}; {}",
    "{}: the policy commands positions, action {} of {} is in {}{}",
    "{}: no observation term of {} is {}. Its terms: {}; {}",
    "{} of kind {} does not say which vector it is ({} is missing); {}",
    # They stand in brackets in another line.
    "{} has {} elements",
    "{} depends on {} beside {}",
    "{} is not default + scale * {} for each element; are targets clipped?",
}


def test_every_refusal_of_the_import_says_what_to_change():
    """The text of every `UserError` in its code, with {} for values."""
    found = []
    for file in sorted((TREE / "policies" / "skill_import").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError":
                (text,) = node.args
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                words = [getattr(part, "value", "") for part in parts]
                found.append("".join(w if isinstance(w, str) else "{}" for w in words))
    assert len(found) > 60
    assert {text for text in found if not one_line.REMEDY.search(text)} == WITHOUT


def test_a_driver_that_names_joints_otherwise_is_read_by_the_models_names(tmp_path):
    """Never by place: the policy has left before right, the robot right before left."""
    before, commands = ROBOT.split("action:")
    driver = before.replace("[right]", "[motor_0]").replace("[left]", "[motor_1]")
    assert driver != before
    found = imported(tmp_path, robot=f"{driver}action:{commands}")
    assert found.bundle.skills == imported(tmp_path / "plain").bundle.skills


def test_joints_that_nobody_can_order_are_refused(tmp_path):
    """The robot's own names are in no list of the policy's joints, on neither side."""
    robot, model_of = tmp_path / "arms", robot_folder(tmp_path / "arms")
    text = ROBOT.replace("[right]", "[a]").replace("[left]", "[b]")
    text = text.replace("[right, left]", "[r, l]")
    xml = (robot / "model.xml").read_text()
    for name, short in (("left", "l"), ("right", "r")):
        xml = xml.replace(f'joint name="{name}"', f'joint name="{short}"')
        xml = xml.replace(f'joint="{name}"', f'joint="{short}"')
    (robot / "model.xml").write_text(xml)
    (robot / "robot.yaml").write_text(text)
    file = description(tmp_path / "policy", joints=["b", "a"])
    found = import_arms([file], model_of, tmp_path / "bundle")
    assert found.bundle.skills == imported(tmp_path / "plain").bundle.skills
    observed, commands = text.split("action:")
    odd = observed.replace("[a]", "[c]").replace("[b]", "[d]")
    (robot / "robot.yaml").write_text(f"{odd}action:{commands}")
    with pytest.raises(UserError, match="term 'joint_position' does not measure joint 'b'"):
        import_arms([file], model_of, tmp_path / "other")


def two_commands(right_gains):
    """The robot with a command of each joint of its own; the left one states no gains."""
    before, rest = ROBOT.split("action:")
    text = ""
    for name, scale, offset, gains in (
        ("right", 0.5, -0.3, right_gains),
        ("left", 0.25, 0.4, ""),
    ):
        text += f"""
  - {{name: {name}, size: 1, unit: rad, frame: joint, scale: {scale}, offset: {offset},
     limit: [-1.5, 1.5], smoothing_time: 0.0, rate_limit: 20.0, safe_command: [{offset}],
     tracking: {{term: joint_position, tolerance: 2.0, timeout: 1.0,
                elements: [{int(name == "left")}]}}, {gains}
     mujoco: {{actuators: [{name}_servo]}},
     ros: {{topic: {name}_command, type: sensor_msgs/msg/JointState,
           fields: ["position[{name}]"], required_values: {{}}}}}}"""
    return f"{before}action:{text}\ncomputed:{rest.split('computed:')[1]}"


def test_gains_are_compared_where_another_command_states_none(tmp_path):
    """80 in training and 8 in robot.yaml; the term before or after it says nothing."""
    robot = two_commands("stiffness: 8.0, damping: 0.4,")
    found = imported(tmp_path, robot=robot)
    assert [
        note for note in found.doubts if "does not state the stiffness of action 'left'" in note
    ]
    other = tmp_path / "other"
    with pytest.raises(UserError, match="stiffness of joint 'right' was 80 in training, it is 8"):
        imported(other, description(other / "policy", stiffness=[8.0, 80.0]), robot)


def test_joints_in_several_terms_are_in_the_order_of_the_description(tmp_path):
    """The skill gets from two terms of one joint what it gets from one term of both."""
    before, rest = ROBOT.split("  - {name: joint_position")
    terms = "".join(
        f"""  - {{name: {name}_position, size: 1, unit: rad, frame: joint, scale: 1.0, clip: null,
     noise: 0.0, max_age: 0.1, limit: [-1.9, 1.9], inf_values: null, mujoco: {{qpos: [{name}]}},
     ros: {{topic: joint_states, type: sensor_msgs/msg/JointState,
           fields: ["position[{name}]"], required_values: {{}}}}}}
"""
        for name in ("right", "left")
    )
    robot = f"{before}{terms}action:{rest.split('action:')[1]}"
    robot = robot.replace(
        "tracking: {term: joint_position, tolerance: 2.0, timeout: 1.0}",
        "tracking: null, initial_command: safe",
    )
    robot = robot.replace("[joint_position, last,", "[right_position, left_position, last,")
    offset = {"offset": "default_positions"}
    parts = [{"term": "left_position"} | offset, {"term": "right_position"} | offset]
    found = imported(tmp_path, robot=robot, observation=[TERMS[0], *parts, *TERMS[2:]])
    whole = imported(tmp_path / "whole")
    shown = {"left_position": [0.7], "right_position": [-0.2], "joint_position": [-0.2, 0.7]}
    actions = []
    for each in (found, whole):
        interface = each.bundle.manifest.interface
        row = np.zeros((1, interface.observation_size), np.float32)
        for term in interface.observation:
            if term.name in shown:
                values = (np.array(shown[term.name]) - term.offsets) * term.scales
                row[0, interface.observation_slices[term.name]] = values
        actions.append(load_skills(each.bundle)[0](row))
    np.testing.assert_allclose(*actions, atol=1e-6)


def test_of_two_histories_the_one_that_fits_is_taken(tmp_path):
    """`past` begins with the first values, as the policy does not, and has 3 ticks of its 4."""
    robot = f"""{ROBOT}  - {{name: past2, kind: history, order: newest_first, layout: by_term,
     ticks: 3, terms: [joint_position, last, joint_velocity], start: zeros}}
"""
    history = {"ticks": 4, "order": "oldest_first", "layout": "by_tick", "start": "zeros"}
    file = description(tmp_path / "policy", network(28), history=history)
    assert imported(tmp_path, file, robot).random <= 1e-5
    with pytest.raises(UserError, match="that of history 'past' in robot"):
        imported(tmp_path / "one", file)


def test_a_change_of_the_skill_is_not_in_a_history_of_constants(tmp_path):
    file = description(tmp_path / "policy", network(7 * 4), history=HISTORIES[1])
    note = "after a change of the skill all 4 ticks of the history have the constants of the new"
    assert [each for each in imported(tmp_path, file).doubts if note in each]


def test_what_is_no_yaml_is_named_as_such(tmp_path):
    """The ONNX file where its description belongs."""
    file = description(tmp_path / "policy", network(hidden=20_000))
    with pytest.raises(UserError) as refused:
        imported(tmp_path, file.parent / "policy.onnx")
    text = one_line.checked(refused.value)
    assert "larger than 262144 bytes" in text
    assert "; give the YAML file that describes the policy, and name the ONNX file as" in text


def test_what_cannot_be_compared_is_a_note(tmp_path):
    found = imported(
        tmp_path,
        stiffness=...,
        action={"kind": "position", "scale": [0.2, 0.3], "clip": [-9.0, 9.0]},
    )
    assert found.doubts == [
        "the description does not state the stiffness of the training; that of action 'arms' in "
        "robot.yaml is 8.0",
        "the previous action that the policy sees is the one after action.clip",
    ]


def test_a_policy_after_which_the_simulation_diverges_is_refused(tmp_path, monkeypatch):
    """There it begins anew at once, and its episode is truncated before its time."""

    class Diverging(TaskVectorEnv):
        def step(self, action):
            shown, reward, terminated, _, info = super().step(action)
            return shown, reward, terminated, np.ones(self.num_envs, bool), info

    monkeypatch.setattr(trial, "TaskVectorEnv", Diverging)
    with pytest.raises(UserError, match=r"an episode ends after 0.02 s, as where the robot falls"):
        imported(tmp_path)


def test_a_robot_without_the_policys_previous_action_is_refused(tmp_path):
    with pytest.raises(UserError, match="add a term of kind previous_action"):
        imported(tmp_path, robot=ROBOT.partition("computed:")[0])


def test_a_policy_that_leaves_the_limits_at_once_is_refused(tmp_path):
    robot = ROBOT.replace("limit: [-1.9, 1.9]", "limit: [-0.001, 0.001]")
    with pytest.raises(
        UserError, match=r"16 of 16 simulated robots leave their limits within 1 s \(joint_"
    ):
        imported(tmp_path, robot=robot)


# Metadata ---------------------------------------------------------------------------------

METADATA = {
    "joint_names": "left,right",
    "default_joint_pos": "0.400,-0.300",
    "joint_stiffness": "[8.0, 8.0]",
    "joint_damping": "0.4,0.4",
    "action_scale": "0.200,0.300",
    "observation_names": "command,joint_pos,joint_vel,actions",
}


def noted(**changes):
    made = network()
    for key, value in {**METADATA, **changes}.items():
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    return made


def test_metadata_of_exporters_stands_for_keys_that_are_missing(tmp_path):
    missing = dict.fromkeys(("joints", "default_positions", "stiffness", "damping"), ...)
    file = description(tmp_path / "policy", noted(), **missing)
    found = imported(tmp_path, file)
    assert found.bundle.skills == imported(tmp_path / "plain").bundle.skills


@pytest.mark.parametrize(
    ("text", "scale"),
    [("0.200,0.300", [0.2, 0.3]), ("[0.2, 0.3]", [0.2, 0.3]), ("0.25", 0.25), ("[0.25]", 0.25)],
)
def test_the_scale_of_the_action_is_that_of_the_metadata_where_it_is_left_out(
    tmp_path, text, scale
):
    """It is the description that states the same: one number for all, or one for each joint."""
    plain = imported(tmp_path / "plain", action={"kind": "position", "scale": scale})
    file = description(tmp_path / "policy", noted(action_scale=text), action={"kind": "position"})
    assert imported(tmp_path, file).bundle.skills == plain.bundle.skills


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "0.2,0.3,0.4",
            "skills.yaml: action.scale has 3 values for 2 elements; give one for all,",
        ),
        ("0.2,0.3,0.4", "(left out, it is the policy's metadata action_scale)"),
        (
            "a quarter",
            "skills.yaml: the policy's metadata action_scale is 'a quarter', no numbers",
        ),
        (
            "0.2,,0.3",
            "metadata action_scale is '0.2,,0.3', no numbers; correct it in the ONNX file",
        ),
        ("0.2,nan", "metadata action_scale is '0.2,nan', no numbers"),
        ("[[0.2], [0.3]]", "metadata action_scale is '[[0.2], [0.3]]', no numbers"),
        ('{"left": 0.2}', "metadata action_scale is '{\"left\": 0.2}', no numbers"),
        ("0.2,0", "skills.yaml: the policy's metadata: scale.1: "),
        (
            "",
            "skills.yaml: action.scale, the factor of the output, is missing, and the policy has",
        ),
    ],
)
def test_a_scale_in_the_metadata_that_is_none_is_refused(tmp_path, text, said):
    made = noted(action_scale=text)
    assert said in refusal(tmp_path, made, action={"kind": "position"})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("joint_names", "right,left", "joints is ('left', 'right'), the policy's metadata joint_"),
        (
            "joint_stiffness",
            "20.0,20.0",
            "stiffness is 8.0, the policy's metadata joint_stiff",
        ),
        ("action_scale", "0.2,0.2", "action.scale is (0.2, 0.3), the policy's metadata action_"),
        ("default_joint_pos", "none", "metadata default_joint_pos is 'none', no numbers"),
        ("joint_names", "[]", "the policy's metadata joint_names is an empty list"),
        ("action_scale", "[]", "the policy's metadata action_scale is '[]', no numbers"),
        ("joint_damping", "0.4006,0.4", "damping is (0.4, 0.4), the policy's metadata joint_"),
        ("joint_stiffness", "8.003", "stiffness is 8.0, the policy's metadata joint_stiff"),
        ("joint_stiffness", "0_8.0", "metadata joint_stiffness is '0_8.0', no numbers"),
        ("joint_damping", "0.401,0.401", "damping is (0.4, 0.4), the policy's metadata joint_"),
        (
            "observation_names",
            "a,b",
            "observation has 4 entries, the metadata of the policy na",
        ),
    ],
)
def test_metadata_that_says_something_else_is_refused(tmp_path, key, value, said):
    assert said in refusal(tmp_path, noted(**{key: value}))


@pytest.mark.parametrize(
    ("own", "text", "same"),
    [
        (0.2004, "0.200", True),  # rounds to it
        (0.2006, "0.200", False),
        (0.0005, "0.0001", False),  # has a fourth decimal, which differs
        (0.00012, "0.0001", True),
        (1234.5678, "1234.568", True),
        (1235.0, "1234.568", False),
    ],
)
def test_a_number_agrees_with_what_rounds_to_it(own, text, same):
    action = {"kind": "position", "scale": own}
    given = {k: v for k, v in DESCRIPTION.items() if k != "schema"} | {"action": action}
    read = TypeAdapter(SkillDescription).validate_python(given)
    if same:
        assert with_metadata(read, {"action_scale": text}, "test").action.scale == own
    else:
        with pytest.raises(UserError, match="the policy's metadata action_scale is"):
            with_metadata(read, {"action_scale": text}, "test")


# Parameters of the task family ------------------------------------------------------------


def import_command(tmp_path, *settings):
    robot = robot_folder(tmp_path / "arms")
    words = ("import-skill", description(tmp_path / "policy"), FAMILY, "--robot", robot)
    sets = [word for setting in settings for word in ("--set", setting)]
    return run_mlsh(*words, "-o", tmp_path / "bundle", *sets)


def test_masters_learn_with_the_parameters_that_the_import_has_set(tmp_path):
    settings = ("family_parameters.ticks=40", "family_parameters.half_width=2.0")
    code, _, err = import_command(tmp_path, *settings)
    assert (code, err) == (0, "")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest.family.parameters == {"ticks": 40, "half_width": 2.0}
    robot = str(tmp_path / "arms")
    config, _ = task_config(bundle, TaskId.parse(f"{FAMILY}/goal-0"), seed=0, robot=robot)
    assert config.family_parameters == {"ticks": 40, "half_width": 2.0}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "mlsh.envs=3",
            "setting 'mlsh.envs=3': nothing is trained here; family_parameters.NAME=VALUE is",
        ),
        ("family=rooms", "setting 'family=rooms': nothing is trained here"),
        ("family_parameters.ticks", "key=value is expected"),
        ("family_parameters.ticks=many", "family_parameters.ticks: a number is expected, got"),
        ("family_parameters.ticks=-3", "task family 'moving_bandits': ticks: "),
        (
            "family_parameters.tick=40",
            "task family 'moving_bandits': no key 'tick'. Did you mean 'ticks'? Valid: ",
        ),
    ],
)
def test_what_is_no_parameter_of_the_family_is_refused(tmp_path, setting, said):
    code, out, err = import_command(tmp_path, setting)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert said in one_line.checked(UserError(err.rstrip("\n")))
    assert not (tmp_path / "bundle").exists()


# Masters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", ["ppo", "q"])
def test_a_master_is_trained_over_imported_skills_and_runs_them_offline(
    tmp_path, monkeypatch, learner
):
    monkeypatch.setattr("policies.mlsh.mlsh.all_reference_returns", made_up_bounds)
    monkeypatch.setattr("policies.training.adapt.SCORED_TICKS", 16 * 50)
    bundle = imported(tmp_path).bundle
    done = finetune(
        bundle,
        TaskId.parse("moving_bandits/goal-0"),
        tmp_path / "more",
        updates=1,
        seed=0,
        robot=str(tmp_path / "arms"),
        episodes=8,
        learner=learner,
        facts={"command": "test", "versions": {}, "commit": None},
    )
    assert done.bundle.skill_hashes() == bundle.skill_hashes()
    assert list(done.bundle.manifest.masters) == ["goal-0"]
    assert done.bundle.manifest.imported == bundle.manifest.imported
    with pytest.raises(UserError, match=r"'arms' \(.*\) has skills and no master.*finetune"):
        resolve_cases(load_bundle(tmp_path / "bundle"), robot=str(tmp_path / "arms"))
    cases = resolve_cases(load_bundle(tmp_path / "more"), robot=str(tmp_path / "arms"))
    (episode,) = run_offline(cases, episodes=1, seed=0)
    skills = load_skills(bundle)
    for observation, skill, action in zip(
        episode.observation, episode.skill, episode.action, strict=True
    ):
        np.testing.assert_array_equal(skills[skill](observation[None])[0], action)


def test_metadata_that_no_description_may_state_is_refused(tmp_path):
    file = description(tmp_path / "policy", noted(joint_stiffness="-8.0,8.0"), stiffness=...)
    with pytest.raises(UserError, match="the policy's metadata: stiffness"):
        imported(tmp_path, file)


def test_golden_rows_that_nobody_needs_are_refused(tmp_path):
    bundle = imported(tmp_path).bundle
    rows = np.zeros((golden.MAX_ROWS + 1, bundle.manifest.interface.observation_size), np.float32)
    actions = np.zeros((2, len(rows), 2), np.float32)
    data = golden.golden_bytes(golden.Golden(rows, actions, {}, {}))
    with pytest.raises(UserError, match="1,001 rows, at most 1,000 are accepted"):
        golden.read_golden(data, bundle.manifest, "golden.npz")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("decision_ticks", [2, 7, 40, 49])
def test_masters_can_be_trained_for_any_family_number_of_skills_and_decision_time(
    name, decision_ticks
):
    family = make_family(name)
    plain = default_config(name, family.robot)
    config = importer._config(plain, family, 25, decision_ticks, 1)
    assert config.mlsh.rollout_ticks >= family.ticks
    assert config.mlsh.envs >= 50
