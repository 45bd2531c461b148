"""ONNX files of a few MB that would be gigabytes in memory: `mlsh import-skill` counts before."""

import resource
import time

import numpy as np
import pytest
from onnx import AttributeProto, GraphProto, TensorProto, helper, numpy_helper

from policies.skill_import import onnx_size, reading
from sim.errors import UserError

KB = 1024  # of ru_maxrss


def written(path, nodes=(), weights=()):
    model = helper.make_model(helper.make_graph([], "g", [], [], list(weights)))
    for node in nodes:
        model.graph.node.append(node)
    path.write_bytes(model.SerializeToString())
    return path


def add(number):
    return helper.make_node("Add", [f"x{number}", "x0"], [f"x{number + 1}"])


def test_operators_are_counted_before_they_are_made(tmp_path):
    """300,000 operators are 7 MB here, and 100 MB more when they are loaded."""
    one = helper.make_model(helper.make_graph([add(1)], "g", [], [])).graph
    path = tmp_path / "policy.onnx"
    path.write_bytes(repeated(one.SerializeToString(), 300_000))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(
        UserError, match=r"policy\.onnx: its operators .* more than 100,000 fields; export"
    ):
        reading.load(path)
    assert time.process_time() - began < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * KB


def repeated(graph, count):
    """A model whose graph stands in it again and again: protobuf joins its parts."""
    head = bytes([7 << 3 | 2, len(graph)])
    assert len(graph) < 128
    return (head + graph) * count


def test_what_can_be_loaded_and_is_too_much_is_named(tmp_path):
    path = written(tmp_path / "policy.onnx", [add(i) for i in range(6000)])
    with pytest.raises(UserError, match=r"onnx: 6000 operators, at most 500 are accepted; exp"):
        reading.read_policy(path)


def test_operators_that_no_output_needs_do_not_count(tmp_path):
    """A policy with a second head of more operators than are accepted."""
    nodes = [add(0), *(helper.make_node("Neg", ["x1"], [f"y{i}"]) for i in range(3000))]
    kinds = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in ("x0", "x1", "y7")
    ]
    graph = helper.make_graph(nodes, "g", kinds[:1], kinds[1:])
    path = tmp_path / "policy.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    model, _ = reading.read_policy(path, "x1")
    assert [node.op_type for node in model.graph.node] == ["Add"]


def test_lists_of_numbers_are_counted(tmp_path):
    """Eight bytes in memory for each byte of the file."""
    tensor = TensorProto(name="w", data_type=TensorProto.INT64, dims=[2**23])
    tensor.int64_data.extend(np.zeros(2**23, np.int64))
    with pytest.raises(UserError, match=r"lists of more than 4,194,304 whole numbers"):
        reading.load(written(tmp_path / "policy.onnx", weights=[tensor]))


def test_graphs_in_graphs_are_counted(tmp_path):
    inner = GraphProto(name="g")
    for _ in range(15):
        node = helper.make_node("If", ["x"], ["y"])
        node.attribute.append(AttributeProto(name="a", type=AttributeProto.GRAPH, g=inner))
        inner = helper.make_graph([node], "g", [], [])
    with pytest.raises(UserError, match="more than 20 levels"):
        reading.load(written(tmp_path / "policy.onnx", inner.node))


def test_weights_cost_what_they_weigh(tmp_path):
    weights = [numpy_helper.from_array(np.ones(2**22, np.float32), f"w{i}") for i in range(3)]
    path = written(tmp_path / "policy.onnx", [add(0)], weights)
    model, _ = reading.load(path)
    assert len(model.graph.initializer) == 3
    assert path.stat().st_size > 100 * onnx_size.MAX_FIELDS
