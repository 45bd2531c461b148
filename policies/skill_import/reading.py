"""Reads the ONNX file of a policy, with external data, one output and accepted operators."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    shape_inference,
    version_converter,
)

from policies.bundle.imported_graph import MAX_NODES, SHAPES, refused
from policies.bundle.manifest import sha256
from policies.skill_import.onnx_size import check_size
from policies.skill_import.weights import array_of, constant_of, line
from sim.errors import UserError, listed, unknown

OPSET = 18
MAX_BYTES = 64 * 2**20
MOST_LOADED = 10 * MAX_NODES  # also operators of outputs that are not needed
CONSTANT, CAST, EXPAND, SPLIT = "Constant", "Cast", "Expand", "Split"  # of which nothing is left
STANDARD = ("", "ai.onnx")  # two names of the domain of ONNX's own operators


def load(path: Path) -> tuple[ModelProto, str]:
    """Read an ONNX file with its external data.

    Args:
        path: the ONNX file.

    Returns:
        The model, and SHA-256 of the file and, in the order of their names, of its external data.

    Raises:
        UserError: not a readable ONNX file, or larger than what is accepted.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; name it relative to the file that names it")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES} bytes; export a smaller network")
    try:
        data = path.read_bytes()
        check_size(data, str(path))
        model = onnx.load_from_string(data)
        beside = _external_files(model, path)
        onnx.load_external_data_for_model(model, str(path.parent))
    except UserError:
        raise
    except Exception as error:  # protobuf has errors of its own, which are no ValueError
        raise UserError(
            f"{path}: not a readable ONNX file ({line(error)}); export the policy again"
        ) from None
    if model.functions:
        raise UserError(
            f"{path}: model-local functions such as {model.functions[0].name!r} are not accepted; "
            "export the policy without them, or put them in place with onnx.inliner"
        )
    if (count := len(model.graph.node)) > MOST_LOADED:
        raise UserError(
            f"{path}: {count} operators, at most {MAX_NODES} are accepted; export the policy alone"
        )
    return model, sha256(b"".join((data, *(each.read_bytes() for each in beside))))


def read_policy(path: Path, output: str | None = None) -> tuple[ModelProto, str]:
    """Read an ONNX policy of one input; only accepted operators are left in it.

    Args:
        path: the ONNX file.
        output: name of the output that is kept, with what it depends on; None: there is one.

    Returns:
        The model, and its SHA-256, both as `load` gives them.

    Raises:
        UserError: not a readable ONNX file, more than one input, several outputs or none of that
            name, an operator that is not accepted, or weights of another type.
    """
    model, digest = load(path)
    if len(inputs := input_names(model)) != 1:
        raise UserError(
            f"{path}: one input is expected, it has {listed(inputs)}; recurrent policies and "
            "policies with other inputs are not supported; export one with the observation alone"
        )
    _keep(model, output, path)
    return accepted(model, path), digest


def input_names(model: ModelProto) -> list[str]:
    """Names of the inputs that are no weights."""
    weights = {each.name for each in model.graph.initializer}
    return [each.name for each in model.graph.input if each.name not in weights]


def accepted(model: ModelProto, path: Path) -> ModelProto:
    """Refuse operators that are not accepted, convert an older operator set, and replace Split.

    Raises:
        UserError: names the operator, the operator set, or weights that are not accepted.
    """
    _check_operators(model, path, SPLIT)
    for tensor in model.graph.initializer:
        array_of(tensor, str(path))
    for node in model.graph.node:
        if node.op_type == CONSTANT:
            constant_of(node, str(path))
    model = _with_opset(model, path)
    _replace_splits(model, path)
    _check_operators(model, path)
    return model


def _external_files(model: ModelProto, path: Path) -> list[Path]:
    """Files with weights beside an ONNX file, sorted by name.

    Raises:
        UserError: together they are larger than what is accepted.
    """
    # As `onnx` loads them: also those of constants in operators.
    places = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in _tensors(model.graph)
        if tensor.data_location == TensorProto.EXTERNAL
    ]
    names = {place["location"] for place in places if "location" in place}
    files = sorted(path.parent / name for name in names)
    # Tensors may share a part of a file, and each is read on its own.
    size = sum(each.stat().st_size for each in files if each.is_file())
    read = sum(int(place.get("length") or size) for place in places)
    if max(size, read) > MAX_BYTES:
        raise UserError(
            f"{path}: its external data are larger than {MAX_BYTES} bytes; export a smaller "
            "network"
        )
    return files


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """All tensors of a graph: weights, those in attributes, and those of graphs in attributes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _keep(model: ModelProto, name: str | None, path: Path) -> None:
    """Remove all outputs but one, and the operators that it does not depend on."""
    graph = model.graph
    names = [each.name for each in graph.output]
    if not names:
        raise UserError(f"{path}: it has no output; export the policy with its action as one")
    if name is None and len(names) > 1:
        described = listed(f"{each.name} {_dimensions(each)}" for each in graph.output)
        raise UserError(
            f"{path}: it has several outputs: {described}; name the one that is the action as "
            "`output` of `action`"
        )
    if name is not None and name not in names:
        raise unknown(f"output of {path}:", name, names)
    if not drop_expansions(model, path) and len(names) == 1:
        return
    kept = next(each for each in graph.output if name in (None, each.name))
    nodes, needed = needed_for(model, kept.name)
    weights = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights - needed]
    _replace(graph.initializer, [each for each in graph.initializer if each.name in needed])
    _replace(graph.input, inputs)
    _replace(graph.output, [kept])
    _replace(graph.node, nodes)
    _replace(graph.value_info, [])


def needed_for(
    model: ModelProto, name: str, given: Collection[str] = ()
) -> tuple[list[NodeProto], set[str]]:
    """Finds what a tensor of a graph is computed from.

    Args:
        model: whose graph it is.
        name: of the tensor.
        given: tensors that are not computed, and what only they depend on is not needed.

    Returns:
        The operators in their order, and the names of all tensors that are needed.
    """
    needed, fixed = {name}, {*given}
    nodes: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if any(each in needed and each not in fixed for each in node.output):
            needed |= {*node.input} - {""}  # an input that is left out
            nodes.append(node)
    return nodes[::-1], needed


def drop_expansions(model: ModelProto, path: Path) -> bool:
    """Make Identity of each Expand to the shape that its input has; returns whether there are any.

    Exporters write what makes the mean and the deviation of a distribution equally large.
    """
    expansions = [node for node in model.graph.node if node.op_type == EXPAND]
    if not expansions:
        return False
    values = _inferred(model, path)
    shapes = {name: _dimensions(each) for name, each in values.items() if _is_known(each)}
    for node in expansions:
        before, after = (shapes.get(each[0], "") for each in (node.input, node.output))
        if before == after != "":
            node.op_type = "Identity"
            del node.input[1:]
    return True


def _inferred(model: ModelProto, path: Path) -> dict[str, ValueInfoProto]:
    """Returns what ONNX infers of all tensors that are no weights, by name."""
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # of several kinds
        raise UserError(
            f"{path}: the graph is not valid ({line(error)}); export the policy again"
        ) from None
    return {each.name: each for each in (*graph.input, *graph.output, *graph.value_info)}


def _replace_splits(model: ModelProto, path: Path) -> None:
    """Make a Slice of each output of a Split whose sizes are known."""
    graph = model.graph
    if all(node.op_type != SPLIT for node in graph.node):
        return
    values = _inferred(model, path)
    dims = {
        name: [d.dim_value for d in each.type.tensor_type.shape.dim]
        for name, each in values.items()
    }
    dims |= {each.name: [*each.dims] for each in graph.initializer}
    weights = {each.name: each for each in graph.initializer}
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
    _replace(graph.node, made)


def _parts(
    node: NodeProto,
    dims: Mapping[str, list[int]],
    weights: Mapping[str, TensorProto],
    where: str,
) -> tuple[int, list[int]] | None:
    """Axis and sizes of a Split; None: they are not known."""
    said = {each.name: each.i for each in node.attribute}
    shape, axis = dims.get(node.input[0], []), said.get("axis", 0)
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


def _replace(messages: Any, kept: Iterable[Any]) -> None:
    copies = [deepcopy(each) for each in kept]
    del messages[:]
    messages.extend(copies)


def _is_known(value: ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    return kind.HasField("shape") and all(d.dim_param or d.dim_value for d in kind.shape.dim)


def _dimensions(value: ValueInfoProto) -> str:
    sizes = (each.dim_param or str(each.dim_value) for each in value.type.tensor_type.shape.dim)
    return f"({', '.join(sizes)})"


def _check_operators(model: ModelProto, path: Path, *more: str) -> None:
    for node in model.graph.node:
        own = node.domain in STANDARD
        kind = node.op_type if own else f"{node.domain}::{node.op_type}"
        if kind not in (*SHAPES, CONSTANT, CAST, *more):
            raise refused(kind, str(path))
    if len(model.graph.node) > MAX_NODES:
        raise UserError(
            f"{path}: {len(model.graph.node)} operators, at most {MAX_NODES} are accepted; export "
            "a simpler network"
        )


def _with_opset(model: ModelProto, path: Path) -> ModelProto:
    standard = [each.version for each in model.opset_import if each.domain in STANDARD]
    version, newest = max(standard, default=0), onnx.defs.onnx_opset_version()
    if version > newest:
        raise UserError(
            f"{path}: opset {version} is not known; export the policy with one of up to {newest}"
        )
    if version >= OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter has no error of its own
        raise UserError(
            f"{path}: opset {version} cannot be converted to {OPSET} ({line(error)}); export the "
            f"policy with opset {OPSET}"
        ) from None


def sizes(model: ModelProto, path: Path) -> tuple[int, int]:
    """Number of inputs and outputs of a policy.

    Raises:
        UserError: they are not one row of a known length.
    """
    (source,) = input_names(model)
    found = []
    for each in (
        next(i for i in model.graph.input if i.name == source),
        model.graph.output[0],
    ):
        dims = [d.dim_value for d in each.type.tensor_type.shape.dim]
        if len(dims) == 2 and dims[0] > 1:
            raise UserError(
                f"{path}: {each.name!r} has {dims[0]} rows; export the policy for one row, or "
                "for any number of rows"
            )
        if len(dims) != 2 or dims[1] < 1:
            raise UserError(
                f"{path}: {each.name!r} has the shape {dims}; export the policy for rows of a "
                "fixed length, such as [1, 45]"
            )
        found.append(int(dims[1]))
    return found[0], found[1]


def metadata(model: ModelProto, path: Path) -> dict[str, str]:
    """Returns the metadata that an exporter wrote beside the graph.

    Raises:
        UserError: a key is there twice.
    """
    found: dict[str, str] = {}
    for each in model.metadata_props:
        if each.key in found:
            raise UserError(f"{path}: its metadata state {each.key!r} twice; leave one of them")
        found[each.key] = each.value
    return found
