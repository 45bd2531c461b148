"""Shapes of the tensors of a graph, and operators that are replaced by others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
    shape_inference,
)

from policies.skill_import.weights import array_of, line
from sim.errors import UserError

SPLIT = "Split"
NORMS = ("LayerNormalization", "LpNormalization", "ReduceL2")
Sizes = tuple[int, ...]


def input_names(model: ModelProto) -> list[str]:
    """Names of the inputs that are no weights."""
    weights = {each.name for each in model.graph.initializer}
    return [each.name for each in model.graph.input if each.name not in weights]


def one_row(model: ModelProto, path: Path) -> dict[str, ValueInfoProto]:
    """Types and shapes of all tensors that are no weights, by name, for one row of each input.

    Shapes that the file states of other tensors than the inputs do not count.

    Raises:
        UserError: the graph is not a valid one.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for each in copy.graph.output:
        each.type.tensor_type.ClearField("shape")
    given = {*input_names(copy)}
    for each in copy.graph.input:
        dims = each.type.tensor_type.shape.dim
        if each.name in given and dims and dims[0].dim_value < 1:
            dims[0].dim_value = 1
    try:
        graph = shape_inference.infer_shapes(copy, data_prop=True).graph
    except Exception as error:  # of several kinds
        raise UserError(
            f"{path}: the policy's graph is not valid ({line(error)}); export the policy again"
        ) from None
    return {each.name: each for each in (*graph.input, *graph.output, *graph.value_info)}


def shapes_of(model: ModelProto, values: Mapping[str, ValueInfoProto]) -> dict[str, Sizes]:
    """Shapes of the tensors all of whose sizes are known, weights among them."""
    found = {}
    for name, each in values.items():
        kind = each.type.tensor_type
        dims = kind.shape.dim
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            found[name] = tuple(d.dim_value for d in dims)
    return found | {each.name: tuple(each.dims) for each in model.graph.initializer}


def dimensions(value: ValueInfoProto, *, known: bool = False) -> str:
    """The shape of a tensor as text, with `?` for a size without a name.

    Args:
        value: the tensor.
        known: empty where a size has neither a number nor a name.
    """
    kind = value.type.tensor_type
    sizes = [each.dim_param or str(each.dim_value or "?") for each in kind.shape.dim]
    if known and (not kind.HasField("shape") or "?" in sizes):
        return ""
    return f"({', '.join(sizes)})"


def replace(messages: Any, kept: Iterable[Any]) -> None:
    """Put other messages into a repeated field; they may be some of its own."""
    copies = [deepcopy(each) for each in kept]
    del messages[:]
    messages.extend(copies)


def replace_splits(model: ModelProto, path: Path) -> None:
    """Make a Slice of each output of a Split whose sizes are known."""
    graph = model.graph
    if all(node.op_type != SPLIT for node in graph.node):
        return
    dims = shapes_of(model, one_row(model, path))
    weights = {each.name: each for each in graph.initializer}
    weights |= {
        node.output[0]: node.attribute[0].t
        for node in graph.node
        if node.op_type == "Constant" and [each.name for each in node.attribute] == ["value"]
    }
    made: list[NodeProto] = []
    for node in graph.node:
        parts = _parts(node, dims, weights, str(path)) if node.op_type == SPLIT else None
        if parts is None:
            made.append(node)
            continue
        axis, sizes = parts
        begin = 0
        for name, size in zip(node.output, sizes, strict=True):
            ends = {"begin": begin, "end": begin + size, "axis": axis}
            labels = [f"{name}/{label}" for label in ends]
            graph.initializer.extend(
                helper.make_tensor(label, TensorProto.INT64, [1], [value])
                for label, value in zip(labels, ends.values(), strict=True)
            )
            made.append(helper.make_node("Slice", [node.input[0], *labels], [name]))
            begin += size
    replace(graph.node, made)


def _parts(
    node: NodeProto, dims: Mapping[str, Sizes], weights: Mapping[str, TensorProto], where: str
) -> tuple[int, list[int]] | None:
    """Axis and sizes of a Split; None: they are not known."""
    said = {each.name: each.i for each in node.attribute}
    shape, axis = dims.get(node.input[0], ()), said.get("axis", 0)
    if not -len(shape) <= axis < len(shape) or (whole := shape[axis]) < 1:
        return None
    count = len(node.output)
    if len(node.input) > 1 and node.input[1]:
        given = weights.get(node.input[1])
        sizes = [] if given is None else array_of(given, where).astype(np.int64).ravel().tolist()
    else:
        size = -(-whole // count)
        sizes = [*[size] * (count - 1), whole - size * (count - 1)]
    if len(sizes) != count or min(sizes) < 0 or sum(sizes) != whole:
        return None
    return axis, sizes


def open_clips(model: ModelProto) -> None:
    """An infinite bound of a Clip is none."""
    tensors = {each.name: each for each in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    opened: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "Clip":
            continue
        for place, end in ((1, -np.inf), (2, np.inf)):
            name = node.input[place] if place < len(node.input) else ""
            if name and _scalar(tensors.get(name), makers.get(name)) == end:
                node.input[place] = ""
                opened.add(name)
        bounds = {"min": -np.inf, "max": np.inf}  # of old operator sets
        replace(node.attribute, [a for a in node.attribute if a.f != bounds.get(a.name, np.nan)])
    opened -= {name for node in model.graph.node for name in node.input}
    opened -= {each.name for each in model.graph.output}
    graph = model.graph
    replace(graph.initializer, [each for each in graph.initializer if each.name not in opened])
    replace(graph.input, [each for each in graph.input if each.name not in opened])
    replace(graph.node, [node for node in graph.node if opened.isdisjoint(node.output)])


def _scalar(tensor: TensorProto | None, maker: NodeProto | None) -> float | None:
    """The number in a tensor of one element; None: it is no such tensor."""
    if maker is not None and len(maker.attribute) == 1:
        (attribute,) = maker.attribute
        if attribute.name == "value_float":
            return float(attribute.f)
        tensor = attribute.t if attribute.name == "value" else None
    if tensor is None or list(tensor.dims) not in ([], [1]):
        return None
    try:
        array: NDArray[Any] = numpy_helper.to_array(tensor)
    except (ValueError, TypeError):  # its data do not fit its dimensions
        return None
    return float(array.ravel()[0]) if array.dtype.kind == "f" and array.size == 1 else None


def check_rows(model: ModelProto, path: Path) -> None:
    """Refuse a norm over axis 0, which would make the action depend on other observations.

    Raises:
        UserError: names the operator.
    """
    if all(node.op_type not in NORMS for node in model.graph.node):
        return
    sizes = shapes_of(model, one_row(model, path))
    constants = {each.name: each for each in model.graph.initializer}
    varies = {*input_names(model)}
    for node in model.graph.node:
        if node.op_type == "Constant" and [each.name for each in node.attribute] == ["value"]:
            constants[node.output[0]] = node.attribute[0].t
        if varies.isdisjoint(node.input):
            continue
        varies |= {*node.output}
        shape = sizes.get(node.input[0])
        if node.op_type in NORMS and node.input[0] in varies and shape is not None:
            axes = [*_norm_axes(node, constants, str(path))]
            if not axes or any(axis % max(len(shape), 1) == 0 for axis in axes):
                over = "all axes" if not axes else "axis 0"
                raise UserError(
                    f"{path}: operator {node.op_type!r} of {node.output[0]!r} is over {over}, and "
                    "axis 0 is the observations, of which a robot has one; export the policy with "
                    "a norm over axis -1"
                )


def _norm_axes(node: NodeProto, constants: Mapping[str, TensorProto], where: str) -> Iterator[int]:
    said = {each.name: [*each.ints] or [each.i] for each in node.attribute}
    if node.op_type != "ReduceL2":
        yield said.get("axis", [-1])[0]
    elif len(node.input) > 1 and node.input[1]:
        given = constants.get(node.input[1])
        yield from [-1] if given is None else array_of(given, where).ravel().tolist()
    else:
        yield from said.get("axes", ())
