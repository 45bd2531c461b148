"""Graphs as exporters of other trainers write them, and a description of one for the omni."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

INPUTS, OUTPUTS, HIDDEN = 6, 2, 8

DRIVE = {
    "schema": 2,
    "policy": "policy.onnx",
    "license": "MIT",
    "source": "made for a test",
    "control_dt": 0.1,
    "observation": [{"term": "position"}, {"term": "velocity"}, {"constant": "target"}],
    "action": {
        "kind": "velocity",
        "terms": ["base_velocity"],
        "scale": 1.0,
        "clip": [-1.0, 1.0],
        "output": "actions",
    },
    "skills": {
        "first": {"target": {"term": "goals", "elements": [0, 1]}},
        "second": {"target": {"term": "goals", "elements": [2, 3]}},
    },
}


def drive(folder: Path, made: onnx.ModelProto | None = None, **changes) -> Path:
    """A description and its policy in a folder: drive to a place, from position and velocity."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(made or sb3(), str(folder / "policy.onnx"))
    data = {key: value for key, value in (DRIVE | changes).items() if value is not ...}
    (folder / "drive.yaml").write_text(yaml.safe_dump(data))
    return folder / "drive.yaml"


def _made(nodes, inputs, outputs, weights, opset, name) -> onnx.ModelProto:
    rows = [
        helper.make_tensor_value_info(label, TensorProto.FLOAT, shape)
        for label, shape in {**inputs, **outputs}.items()
    ]
    tensors = [numpy_helper.from_array(np.asarray(w), label) for label, w in weights.items()]
    graph = helper.make_graph(nodes, name, rows[: len(inputs)], rows[len(inputs) :], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    return made


def _layer(weights, rng, label, inputs, outputs) -> list[str]:
    """Names of a layer's weights, which it adds."""
    weights[f"{label}.weight"] = (rng.normal(size=(outputs, inputs)) / 2).astype(np.float32)
    weights[f"{label}.bias"] = (rng.normal(size=outputs) / 10).astype(np.float32)
    return [f"{label}.weight", f"{label}.bias"]


def _broadcast(mean: str, deviation: str, out: str) -> list[onnx.NodeProto]:
    """What makes a mean as large as the mean and its deviation together, which it is."""
    node = helper.make_node
    return [
        node("Shape", [mean], ["/Shape"]),
        node("ConstantOfShape", ["/Shape"], ["/zeros"]),
        node("Add", ["/zeros", mean], ["/Add"]),
        node("Add", ["/Add", deviation], ["/Add_1"]),
        node("Shape", ["/Add_1"], ["/Shape_1"]),
        node("Expand", [mean, "/Shape_1"], [out]),
    ]


def sb3_squashed(seed: int = 0) -> onnx.ModelProto:
    """The actor of SAC of Stable-Baselines3: one output, the deviation computed beside it."""
    rng, weights, node = np.random.default_rng(seed), {}, helper.make_node
    nodes = [
        node("Cast", ["input"], ["/Cast"], to=TensorProto.FLOAT),
        node("Gemm", ["/Cast", *_layer(weights, rng, "latent", INPUTS, HIDDEN)], ["/a"], transB=1),
        node("Relu", ["/a"], ["/b"]),
        node("Gemm", ["/b", *_layer(weights, rng, "mu", HIDDEN, OUTPUTS)], ["/mu"], transB=1),
        node("Gemm", ["/b", *_layer(weights, rng, "std", HIDDEN, OUTPUTS)], ["/log"], transB=1),
        node("Exp", ["/log"], ["/std"]),
        *_broadcast("/mu", "/std", "/loc"),
        node("Tanh", ["/loc"], ["actions"]),
    ]
    outputs = {"actions": [1, OUTPUTS]}
    return _made(nodes, {"input": [1, INPUTS]}, outputs, weights, 17, "main_graph")


def sb3(seed: int = 0) -> onnx.ModelProto:
    """PPO of Stable-Baselines3 as its documentation exports it: action, value, log-probability."""
    rng, weights = np.random.default_rng(seed), {}
    node = helper.make_node
    nodes = [
        node("Cast", ["input"], ["/Cast"], to=TensorProto.FLOAT),
        node("Flatten", ["/Cast"], ["/Flatten"], axis=1),
    ]
    for net in ("policy_net", "value_net"):
        last = "/Flatten"
        for i, size in ((0, INPUTS), (2, HIDDEN)):
            names = _layer(weights, rng, f"{net}.{i}", size, HIDDEN)
            nodes.append(node("Gemm", [last, *names], [f"/{net}.{i}"], transB=1))
            nodes.append(node("Tanh", [f"/{net}.{i}"], [last := f"/{net}.{i + 1}"]))
    heads = (("value", "/value_net.3", 1, "values"), ("action", "/policy_net.3", OUTPUTS, "/mean"))
    for label, last, size, name in heads:
        nodes.append(
            node("Gemm", [last, *_layer(weights, rng, label, HIDDEN, size)], [name], transB=1)
        )
    weights |= {"log_std": np.zeros(OUTPUTS, np.float32), "axes": np.array([1], np.int64)}
    shape = numpy_helper.from_array(np.array([-1, OUTPUTS], np.int64))
    nodes += [
        node("Exp", ["log_std"], ["/std"]),
        *_broadcast("/mean", "/std", "/loc"),
        node("Sub", ["/loc", "/loc"], ["/off"]),
        node("Pow", ["/off", "/off"], ["/square"]),
        node("Div", ["/square", "/std"], ["/scaled"]),
        node("Neg", ["/scaled"], ["/each"]),
        node("ReduceSum", ["/each", "axes"], ["log_prob"], keepdims=0),
        node("Constant", [], ["/shape"], value=shape),
        node("Reshape", ["/loc", "/shape"], ["actions"]),
    ]
    outputs = {"actions": [1, OUTPUTS], "values": [1, 1], "log_prob": [1]}
    return _made(nodes, {"input": [1, INPUTS]}, outputs, weights, 17, "main_graph")


def rsl_rl(seed: int = 0, *, own_deviation: bool = False) -> onnx.ModelProto:
    """An actor of rsl_rl as its exporter writes it: normalization, layers with ELU, the mean.

    Args:
        seed: of the weights.
        own_deviation: the network has the standard deviation as a second row of outputs.
    """
    rng, node = np.random.default_rng(seed), helper.make_node
    weights = {
        "obs_normalizer._mean": rng.normal(size=(1, INPUTS)).astype(np.float32),
        "obs_normalizer._std": rng.uniform(0.5, 2.0, (1, INPUTS)).astype(np.float32),
        "scalar": np.float32(0.01),
    }
    nodes = [
        node("Sub", ["obs", "obs_normalizer._mean"], ["sub"]),
        node("Add", ["obs_normalizer._std", "scalar"], ["add"]),
        node("Div", ["sub", "add"], ["div"]),
    ]
    last, rows = "div", 2 if own_deviation else 1
    for i, (size, more) in enumerate(pairwise((INPUTS, HIDDEN, HIDDEN, rows * OUTPUTS))):
        names = _layer(weights, rng, f"mlp.{2 * i}", size, more)
        name = "actions" if i == 2 and rows == 1 else f"linear_{i}"
        nodes.append(node("Gemm", [last, *names], [name], transB=1, alpha=1.0, beta=1.0))
        last = name
        if i < 2:
            nodes.append(node("Elu", [name], [last := f"elu_{i}"], alpha=1.0))
    if own_deviation:
        weights["shape"] = np.array([1, 2, OUTPUTS], np.int64)
        weights["first"] = np.int64(0)
        nodes += [
            node("Reshape", [last, "shape"], ["unflatten"], allowzero=1),
            node("Gather", ["unflatten", "first"], ["actions"], axis=1),
        ]
    outputs = {"actions": [1, OUTPUTS]}
    return _made(nodes, {"obs": [1, INPUTS]}, outputs, weights, 18, "main_graph")
