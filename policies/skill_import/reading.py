"""Reads the ONNX file of a policy, with external data, one output and accepted operators."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, version_converter

from policies.bundle.imported_graph import MAX_NODES, RECURRENT, SHAPES, refused
from policies.bundle.manifest import sha256
from policies.skill_import.onnx_size import check_size
from policies.skill_import.rewriting import (
    SPLIT,
    check_rows,
    dimensions,
    input_names,
    one_row,
    open_clips,
    replace,
    replace_splits,
)
from policies.skill_import.shape_folding import fold_shapes
from policies.skill_import.weights import array_of, constant_of, line
from sim.errors import UserError, listed, unknown

OPSET = 18
MAX_BYTES = 64 * 2**20
MOST_LOADED = 10 * MAX_NODES  # also operators of outputs that are not needed
CONSTANT, CAST = "Constant", "Cast"  # of which nothing is left
# Accepted where the sizes of the tensors are known; nothing is left of them either.
OF_SHAPES = ("ConstantOfShape", "Expand", "Shape", SPLIT)
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
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the ONNX file of the policy in it")
    if not path.is_file():
        raise UserError(f"{path} does not exist; name it relative to the file that names it")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty, 0 bytes; export the policy again")
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
    """Read an ONNX policy whose output has one input; only accepted operators are left in it.

    Args:
        path: the ONNX file.
        output: name of the output that is kept, with what it depends on; None: there is one.

    Returns:
        The model, and its SHA-256, both as `load` gives them.

    Raises:
        UserError: not a readable ONNX file, several outputs or none of that name, an output of
            more than one input, an operator that is not accepted, or weights of another type.
    """
    model, digest = load(path)
    _keep(model, output, path)
    _check_recurrence(model, path)
    if len(inputs := input_names(model)) != 1:
        raise UserError(
            f"{path}: one input is expected, {model.graph.output[0].name!r} is computed from "
            f"{listed(inputs) or 'none'}; recurrent policies and policies with other inputs are "
            "not supported; export one with the observation alone"
        )
    return accepted(model, path), digest


def accepted(model: ModelProto, path: Path) -> ModelProto:
    """Refuse operators that are not accepted, convert an older operator set, and replace Split.

    Raises:
        UserError: names the operator, the operator set, or weights that are not accepted.
    """
    _check_operators(model, path, SPLIT)
    open_clips(model)
    for tensor in model.graph.initializer:
        array_of(tensor, str(path))
    for node in model.graph.node:
        if node.op_type == CONSTANT:
            constant_of(node, str(path))
    model = _with_opset(model, path)
    replace_splits(model, path)
    _check_operators(model, path)
    check_rows(model, path)
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
        described = listed(f"{each.name} {dimensions(each)}" for each in graph.output)
        raise UserError(
            f"{path}: it has several outputs: {described}; name the one that is the action as "
            "`output` of `action`"
        )
    if name is not None and name not in names:
        raise unknown(f"output of {path}:", name, names)
    kept = next(each for each in graph.output if name in (None, each.name))
    replace(graph.output, [kept])
    replace(graph.value_info, [])
    _check_order(model, path)
    _prune(model, kept.name)
    if fold_shapes(model, path):
        _prune(model, kept.name)


def _check_order(model: ModelProto, path: Path) -> None:
    """Refuse an operator that takes what is computed after it."""
    graph = model.graph
    later = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        if early := [name for name in node.input if name in later]:
            raise UserError(
                f"{path}: the policy's graph is not valid: operator {node.op_type!r} takes "
                f"{early[0]!r}, which is computed after it; export the policy again"
            )
        later -= {*node.output}


def _prune(model: ModelProto, output: str) -> None:
    """Remove operators, weights and inputs that an output does not depend on."""
    graph = model.graph
    nodes, needed = needed_for(model, output)
    replace(graph.initializer, [each for each in graph.initializer if each.name in needed])
    replace(graph.input, [each for each in graph.input if each.name in needed])
    replace(graph.node, nodes)


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


def _check_recurrence(model: ModelProto, path: Path) -> None:
    """Refuse a recurrent policy as that, and not by the first operator around its recurrence."""
    for node in model.graph.node:
        if node.op_type in RECURRENT:
            raise refused(node.op_type, str(path))


def _check_operators(model: ModelProto, path: Path, *more: str) -> None:
    _check_recurrence(model, path)
    for node in model.graph.node:
        own = node.domain in STANDARD
        kind = node.op_type if own else f"{node.domain}::{node.op_type}"
        if kind not in (*SHAPES, CONSTANT, CAST, *more):
            if kind in (*OF_SHAPES, SPLIT):
                raise UserError(
                    f"{path}: operator {kind!r} of {node.output[0]!r} depends on sizes that are "
                    "not known, or is larger than what is accepted; export the policy for rows of "
                    "a fixed length, such as [1, 45]"
                )
            raise refused(kind, str(path), (CONSTANT, CAST, *OF_SHAPES))
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
    """Number of inputs and outputs of a policy, as its graph computes them.

    Raises:
        UserError: they are not one row of a known length, or not as many as the file states.
    """
    (source,) = input_names(model)
    given = next(each for each in model.graph.input if each.name == source)
    stated = model.graph.output[0]
    width = _width(given, path)
    computed = one_row(model, path).get(stated.name, stated)
    if not dimensions(computed, known=True):
        return width, _width(stated, path)
    count, said = _width(computed, path), stated.type.tensor_type.shape.dim
    if said and said[-1].dim_value not in (0, count):
        raise UserError(
            f"{path}: {stated.name!r} is stated to have {said[-1].dim_value} elements, and the "
            f"graph computes {count}; export the policy again, and state what it computes"
        )
    return width, count


def _width(value: ValueInfoProto, path: Path) -> int:
    """Elements of the rows of an input or output."""
    dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
    if len(dims) == 2 and dims[0] > 1:
        raise UserError(
            f"{path}: {value.name!r} has {dims[0]} rows; export the policy for one row, or "
            "for any number of rows"
        )
    if len(dims) != 2 or dims[1] < 1:
        raise UserError(
            f"{path}: {value.name!r} has the shape {dimensions(value)}; export the policy for "
            "rows of a fixed length, such as [1, 45]"
        )
    return int(dims[1])


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
