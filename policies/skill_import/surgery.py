"""Adds the mapping of the observation and that of the action to the graph of a policy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from policies.bundle.onnx_reader import INPUT, OUTPUT
from policies.bundle.onnx_writer import IR_VERSION
from policies.skill_import.reading import CAST, CONSTANT, OPSET, STANDARD
from policies.skill_import.rewriting import input_names
from policies.skill_import.selection import Selection, SkillMapping
from policies.skill_import.weights import (
    FLOATS,
    INTEGERS,
    array_of,
    constant_of,
    line,
    type_name,
)
from sim.errors import UserError

PREFIX = "policy/"  # of the names in the policy's own graph


def join(model: ModelProto, mapping: SkillMapping, name: str, where: str) -> bytes:
    """Returns the ONNX file of a skill: observation (n, O) to action (n, A).

    Args:
        model: of `read_policy`.
        mapping: of the skill.
        name: of the skill.
        where: the ONNX file, for errors.

    Raises:
        UserError: the policy's own graph is not a valid one.
    """
    weights: dict[str, NDArray[Any]] = {}
    nodes = _select(mapping.input, INPUT, f"{PREFIX}{input_names(model)[0]}", "in", weights)
    nodes += _own(model, weights, where)
    result = f"{PREFIX}{model.graph.output[0].name}"
    if mapping.output_clip is not None:
        nodes.append(_clip(result, "out/clipped", mapping.output_clip, "out/clip", weights))
        result = "out/clipped"
    nodes += _select(mapping.output, result, OUTPUT, "out", weights)
    used = {name for node in nodes for name in node.input}
    count = len(mapping.output.index)
    observation = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", mapping.width])
    action = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", count])
    tensors = [
        numpy_helper.from_array(array, label) for label, array in weights.items() if label in used
    ]
    graph = helper.make_graph(nodes, name, [observation], [action], tensors)
    version = max(OPSET, *(e.version for e in model.opset_import if e.domain in STANDARD))
    joined = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", version)], producer_name="mlsh_ros"
    )
    joined.ir_version = max(IR_VERSION, helper.find_min_ir_version_for(joined.opset_import))
    try:
        checker.check_model(joined, full_check=True)
    except Exception as error:  # the checker has several kinds of errors
        raise UserError(
            f"{where}: skill {name!r}: the policy's graph is not valid ({line(error)}); export "
            "the policy again"
        ) from None
    data: bytes = joined.SerializeToString(deterministic=True)
    return data


def _select(
    selection: Selection, source: str, target: str, label: str, weights: dict[str, NDArray[Any]]
) -> list[NodeProto]:
    """Nodes that compute a selection of the elements of `source`."""
    weights[f"{label}/index"] = selection.index
    weights[f"{label}/scale"] = selection.scale.astype(np.float32)
    weights[f"{label}/offset"] = selection.offset.astype(np.float32)
    last = target if selection.clip is None else f"{label}/shifted"
    nodes = [
        helper.make_node("Gather", [source, f"{label}/index"], [f"{label}/picked"], axis=1),
        helper.make_node("Mul", [f"{label}/picked", f"{label}/scale"], [f"{label}/scaled"]),
        helper.make_node("Add", [f"{label}/scaled", f"{label}/offset"], [last]),
    ]
    if selection.clip is not None:
        nodes.append(_clip(last, target, selection.clip, f"{label}/clip", weights))
    return nodes


def _clip(
    source: str,
    target: str,
    bounds: tuple[float, float],
    label: str,
    weights: dict[str, NDArray[Any]],
) -> NodeProto:
    for end, value in zip(("low", "high"), bounds, strict=True):
        weights[f"{label}/{end}"] = np.array(value, np.float32)
    return helper.make_node("Clip", [source, f"{label}/low", f"{label}/high"], [target])


def _own(model: ModelProto, weights: dict[str, NDArray[Any]], where: str) -> list[NodeProto]:
    """The policy's own nodes under names of their own; constants become weights."""
    nodes = []
    for tensor in model.graph.initializer:
        weights[f"{PREFIX}{tensor.name}"] = array_of(tensor, where)
    for node in model.graph.node:
        if node.op_type == CONSTANT:
            weights[f"{PREFIX}{node.output[0]}"] = constant_of(node, where)
            continue
        source = weights.get(f"{PREFIX}{next(iter(node.input), '')}")
        if node.op_type == CAST and source is not None:
            made = source.astype(_cast_type(node, FLOATS + INTEGERS, where))
            weights[f"{PREFIX}{node.output[0]}"] = made
            continue
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{PREFIX}{node.name}" if node.name else ""
        copy.input[:] = [f"{PREFIX}{each}" if each else "" for each in node.input]
        copy.output[:] = [f"{PREFIX}{each}" for each in node.output]
        if node.op_type == CAST:
            _cast_type(node, FLOATS, where)
            copy.op_type = "Identity"  # what is no weight is a 32-bit float already
            del copy.attribute[:]
        copy.domain, copy.doc_string = "", ""
        copy.ClearField("metadata_props")
        nodes.append(copy)
    for node in nodes:
        if node.op_type == "Reshape":
            _any_rows(node, weights)
    return nodes


def _any_rows(node: NodeProto, weights: dict[str, NDArray[Any]]) -> None:
    """A target shape of one row becomes one of any number of rows."""
    shape = weights.get(node.input[1]) if len(node.input) > 1 else None
    if shape is not None and shape.size and shape[0] == 1 and -1 not in shape:
        weights[f"{node.input[1]}/rows"] = np.array([-1, *shape[1:]], np.int64)
        node.input[1] = f"{node.input[1]}/rows"


def _cast_type(node: NodeProto, accepted: tuple[int, ...], where: str) -> type[np.generic]:
    """Type of weights that a Cast gives.

    Raises:
        UserError: another one than is accepted.
    """
    to = next((each.i for each in node.attribute if each.name == "to"), 0)
    if to not in accepted:
        raise UserError(
            f"{where}: operator {CAST!r} of {node.output[0]!r} gives {type_name(to)}; FLOAT is "
            "accepted: export the policy in 32-bit floats"
        )
    return np.float32 if to in FLOATS else np.int64
