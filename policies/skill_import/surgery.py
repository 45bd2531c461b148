"""Puts our observation in front of a policy's graph and our action behind it."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    checker,
    helper,
    numpy_helper,
    shape_inference,
    version_converter,
)

from policies.bundle.imported_graph import MAX_NODES, SHAPES, refused
from policies.bundle.manifest import sha256
from policies.bundle.onnx_reader import INPUT, OUTPUT
from policies.bundle.onnx_writer import IR_VERSION
from policies.skill_import.selection import Selection, SkillMapping
from sim.errors import UserError, listed, unknown

OPSET = 18
PREFIX = "policy/"  # of the names in the policy's own graph
MAX_BYTES = 64 * 2**20
CONSTANT, CAST, EXPAND = "Constant", "Cast", "Expand"  # of which nothing is left
STANDARD = ("", "ai.onnx")  # two names of the domain of ONNX's own operators
FLOATS = (TensorProto.FLOAT,)
INTEGERS = (TensorProto.INT64, TensorProto.INT32)


def read_policy(path: Path, output: str | None = None) -> tuple[ModelProto, str]:
    """Read an ONNX policy with its external data; only accepted operators are left in it.

    Args:
        path: the ONNX file.
        output: name of the output that is kept, with what it depends on; None: there is one.

    Returns:
        The model, and SHA-256 of the file and, in the order of their names, of its external data.

    Raises:
        UserError: not a readable ONNX file, more than one input, several outputs or none of that
            name, an operator that is not accepted, or weights of another type.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES} bytes")
    try:
        model = onnx.load(str(path), load_external_data=False)
        beside = _external_files(model, path)
        onnx.load_external_data_for_model(model, str(path.parent))
    except UserError:
        raise
    except Exception as error:  # protobuf has errors of its own, which are no ValueError
        raise UserError(f"{path}: not a readable ONNX file ({_line(error)})") from None
    if model.functions:
        raise UserError(f"{path}: model-local functions are not accepted")
    digest = sha256(b"".join(each.read_bytes() for each in (path, *beside)))
    weights = {each.name for each in model.graph.initializer}
    inputs = [each.name for each in model.graph.input if each.name not in weights]
    if len(inputs) != 1:
        raise UserError(
            f"{path}: one input is expected, it has {listed(inputs)}; recurrent policies and "
            "policies with other inputs are not supported"
        )
    _keep(model, output, path)
    _check_operators(model, path)
    return _with_opset(model, path), digest


def _external_files(model: ModelProto, path: Path) -> list[Path]:
    """Files with weights beside an ONNX file, sorted by name.

    Raises:
        UserError: together they are larger than what is accepted.
    """
    places = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    ]
    names = {place["location"] for place in places if "location" in place}
    files = sorted(path.parent / name for name in names)
    # Tensors may share a part of a file, and each is read on its own.
    size = sum(each.stat().st_size for each in files if each.is_file())
    read = sum(int(place.get("length") or size) for place in places)
    if max(size, read) > MAX_BYTES:
        raise UserError(f"{path}: its external data are larger than {MAX_BYTES} bytes")
    return files


def _keep(model: ModelProto, name: str | None, path: Path) -> None:
    """Remove all outputs but one, and the operators that it does not depend on."""
    graph = model.graph
    names = [each.name for each in graph.output]
    if not names:
        raise UserError(f"{path}: it has no output")
    if name is None and len(names) > 1:
        described = listed(f"{each.name} {_dimensions(each)}" for each in graph.output)
        raise UserError(
            f"{path}: it has several outputs: {described}; name the one that is the action as "
            "`output` of `action`"
        )
    if name is not None and name not in names:
        raise unknown(f"output of {path}:", name, names)
    if not _drop_expansions(model, path) and len(names) == 1:
        return
    kept = next(each for each in graph.output if name in (None, each.name))
    needed: set[str] = {kept.name}
    nodes: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed & {*node.output}:
            needed |= {*node.input} - {""}  # an input that is left out
            nodes.append(node)
    weights = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights - needed]
    _replace(graph.initializer, [each for each in graph.initializer if each.name in needed])
    _replace(graph.input, inputs)
    _replace(graph.output, [kept])
    _replace(graph.node, reversed(nodes))
    _replace(graph.value_info, [])


def _drop_expansions(model: ModelProto, path: Path) -> bool:
    """Make Identity of each Expand to the shape that its input has; returns whether there are any.

    Exporters write what makes the mean and the deviation of a distribution equally large.
    """
    expansions = [node for node in model.graph.node if node.op_type == EXPAND]
    if not expansions:
        return False
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # of several kinds
        raise UserError(f"{path}: the graph is not valid ({_line(error)})") from None
    known = (*inferred.input, *inferred.output, *inferred.value_info)
    shapes = {each.name: _dimensions(each) for each in known if _is_known(each)}
    for node in expansions:
        before, after = (shapes.get(each[0], "") for each in (node.input, node.output))
        if before == after != "":
            node.op_type = "Identity"
            del node.input[1:]
    return True


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


def _check_operators(model: ModelProto, path: Path) -> None:
    for node in model.graph.node:
        own = node.domain in STANDARD
        kind = node.op_type if own else f"{node.domain}::{node.op_type}"
        if kind not in (*SHAPES, CONSTANT, CAST):
            raise refused(kind, str(path))
    if len(model.graph.node) > MAX_NODES:
        raise UserError(f"{path}: more than {MAX_NODES} operators")


def _with_opset(model: ModelProto, path: Path) -> ModelProto:
    standard = [each.version for each in model.opset_import if each.domain in STANDARD]
    version, newest = max(standard, default=0), onnx.defs.onnx_opset_version()
    if version > newest:
        raise UserError(f"{path}: opset {version} is not known; up to {newest} is accepted")
    if version >= OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter has no error of its own
        raise UserError(
            f"{path}: opset {version} cannot be converted to {OPSET} ({_line(error)})"
        ) from None


def sizes(model: ModelProto, path: Path) -> tuple[int, int]:
    """Number of inputs and outputs of a policy.

    Raises:
        UserError: they are not one row of a known length.
    """
    weights = {each.name for each in model.graph.initializer}
    found = []
    for each in (
        next(i for i in model.graph.input if i.name not in weights),
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
                f"{path}: {each.name!r} has the shape {dims}; rows of a known length are expected"
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
            raise UserError(f"{path}: its metadata state {each.key!r} twice")
        found[each.key] = each.value
    return found


def join(model: ModelProto, mapping: SkillMapping, name: str) -> bytes:
    """Returns the ONNX file of a skill: observation (n, O) to action (n, A).

    Args:
        model: of `read_policy`.
        mapping: of the skill.
        name: of the skill.

    Raises:
        UserError: the policy's own graph is not a valid one.
    """
    weights: dict[str, NDArray[Any]] = {}
    nodes = _select(mapping.input, INPUT, f"{PREFIX}{_input_of(model)}", "in", weights)
    nodes += _own(model, weights)
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
            f"skill {name!r}: the policy's graph is not valid ({_line(error)})"
        ) from None
    data: bytes = joined.SerializeToString(deterministic=True)
    return data


def _input_of(model: ModelProto) -> str:
    weights = {each.name for each in model.graph.initializer}
    return str(next(each.name for each in model.graph.input if each.name not in weights))


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


def _own(model: ModelProto, weights: dict[str, NDArray[Any]]) -> list[NodeProto]:
    """The policy's own nodes under names of their own; constants become weights."""
    nodes = []
    for tensor in model.graph.initializer:
        weights[f"{PREFIX}{tensor.name}"] = _array(tensor)
    for node in model.graph.node:
        if node.op_type == CONSTANT:
            weights[f"{PREFIX}{node.output[0]}"] = _constant(node)
            continue
        source = weights.get(f"{PREFIX}{next(iter(node.input), '')}")
        if node.op_type == CAST and source is not None:
            made = source.astype(_cast_type(node, FLOATS + INTEGERS))
            weights[f"{PREFIX}{node.output[0]}"] = made
            continue
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{PREFIX}{node.name}" if node.name else ""
        copy.input[:] = [f"{PREFIX}{each}" if each else "" for each in node.input]
        copy.output[:] = [f"{PREFIX}{each}" for each in node.output]
        if node.op_type == CAST:
            _cast_type(node, FLOATS)
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


def _constant(node: NodeProto) -> NDArray[Any]:
    if len(node.attribute) != 1 or len(node.output) != 1:
        raise UserError(f"operator 'Constant' {node.name!r}: one value is expected")
    attribute = node.attribute[0]
    if attribute.name == "value":
        return _array(attribute.t)
    value = helper.get_attribute_value(attribute)
    if attribute.name in ("value_float", "value_floats"):
        return np.array(value, np.float32)
    if attribute.name in ("value_int", "value_ints"):
        return np.array(value, np.int64)
    raise UserError(f"operator 'Constant' of {node.output[0]!r}: {attribute.name} is not accepted")


def _cast_type(node: NodeProto, accepted: tuple[int, ...]) -> type[np.generic]:
    """Type of weights that a Cast gives.

    Raises:
        UserError: another one than is accepted.
    """
    to = next((each.i for each in node.attribute if each.name == "to"), 0)
    if to not in accepted:
        names = {value: name for name, value in TensorProto.DataType.items()}
        raise UserError(
            f"operator {CAST!r} of {node.output[0]!r} gives {names.get(to, to)}; FLOAT is accepted"
        )
    return np.float32 if to in FLOATS else np.int64


def _array(tensor: TensorProto) -> NDArray[Any]:
    if tensor.data_type in INTEGERS:
        whole: NDArray[Any] = numpy_helper.to_array(tensor).astype(np.int64)
        return whole
    if tensor.data_type not in FLOATS:
        kind = TensorProto.DataType.Name(tensor.data_type)
        raise UserError(f"weights {tensor.name!r} are {kind}; FLOAT is accepted")
    array: NDArray[Any] = numpy_helper.to_array(tensor)
    if not np.isfinite(array).all():
        raise UserError(f"weights {tensor.name!r} are not finite")
    return np.ascontiguousarray(array)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
