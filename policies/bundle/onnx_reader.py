"""Reads the small ONNX graphs that `policies.bundle.onnx_writer` writes.

Reading walks the protobuf wire format itself, so that a robot can refuse a bad graph before ONNX
Runtime sees it, without the `onnx` package.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.bundle.work import ELEMENT, check_work
from sim.errors import UserError, short

MAX_FIELDS = 10_000  # of the wire format in one file
MAX_NAME = 200  # bytes
MAX_DIMENSIONS = 8
ACTIVATIONS = {"tanh": "Tanh", "elu": "Elu"}  # operators by what training calls them
OPERATORS = frozenset({"Sub", "Mul", "Clip", "Gemm", *ACTIVATIONS.values()})
INPUT, OUTPUT = "observation", "output"
Float32 = NDArray[np.float32]

# Field numbers of onnx.proto (ModelProto, GraphProto, NodeProto, TensorProto).
GRAPH, _FUNCTIONS = 7, 25
NODE, INITIALIZER, _SPARSE = 1, 5, 15
_NODE_INPUT, _NODE_OUTPUT, _OP_TYPE, _ATTRIBUTE, _DOMAIN = 1, 2, 4, 5, 7
_DIMS, _DATA_TYPE, _NAME, RAW, EXTERNAL, LOCATION = 1, 2, 8, 9, 13, 14
_FLOAT, _INT64 = 1, 7


@dataclass(frozen=True)
class OnnxGraph:
    """Content of an ONNX file."""

    operators: tuple[str, ...]
    initializers: dict[str, Float32]
    # Names of inputs and outputs of each operator.
    edges: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()

    @property
    def layers(self) -> list[tuple[Float32, Float32]]:
        """Weights (in, out) and biases (out,) of every layer of a graph of `onnx_writer`."""
        arrays = self.initializers
        count = sum(name.startswith("bias") for name in arrays)
        return [(arrays[f"weight{i}"], arrays[f"bias{i}"]) for i in range(count)]

    @property
    def activation(self) -> str:
        """The operator between its layers; Tanh for a single layer, which has none."""
        return "Elu" if "Elu" in self.operators else "Tanh"


def read_graph(data: bytes, where: str) -> OnnxGraph:
    """Read a graph; refuses everything that `onnx_writer` does not write.

    Raises:
        UserError: not an ONNX file, other operators, external data, weights that are not finite.
    """
    try:
        graph = _read(data, where)
    except UserError:
        raise
    except (IndexError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: not a readable ONNX file ({str(error)[:100]})") from None
    if other := sorted(set(graph.operators) - OPERATORS):
        raise UserError(f"{where}: operator {other[0]!r}. Valid: {', '.join(sorted(OPERATORS))}")
    if not graph.operators:
        raise UserError(f"{where}: not a readable ONNX file (no operators)")
    _check_chain(graph, where)
    for name, array in graph.initializers.items():
        if not np.isfinite(array).all():
            raise UserError(f"{where}: weights {name!r} are not finite")
    return graph


def _check_chain(graph: OnnxGraph, where: str) -> None:
    """Refuse operators that are not the chain of `onnx_writer`, each with its own weights.

    A network that uses a layer again and again would take as long as it likes.

    Raises:
        UserError: names the first operator that differs.
    """
    layers = graph.operators.count("Gemm")
    kind = graph.activation
    chain = [
        ("Sub", (INPUT, "shift"), ("centred",)),
        ("Mul", ("centred", "scale"), ("scaled",)),
        ("Clip", ("scaled", "low", "high"), ("x0",)),
    ]
    for i in range(layers):
        out = OUTPUT if i == layers - 1 else f"h{i}"
        chain.append(("Gemm", (f"x{i}", f"weight{i}", f"bias{i}"), (out,)))
        if i < layers - 1:
            chain.append((kind, (out,), (f"x{i + 1}",)))
    found = [(each, *edge) for each, edge in zip(graph.operators, graph.edges, strict=True)]
    for i, (one, other) in enumerate(zip_longest(found, chain)):
        if one != other:
            raise UserError(
                f"{where}: operator {i} is {_told(one)}, and {_told(other)} is expected in a "
                "network that was trained here"
            )


def _told(operator: tuple[str, tuple[str, ...], tuple[str, ...]] | None) -> str:
    if operator is None:
        return "none"
    kind, inputs, outputs = operator
    return f"{kind} of {short(list(inputs))} to {short(list(outputs))}"


def graph_parts(wire: Wire, data: bytes, where: str) -> Iterator[tuple[int, bytes | int]]:
    """Yields the fields of the graph in an ONNX file: their numbers and contents.

    Raises:
        UserError: it has functions of its own or sparse weights.
    """
    for number, value in wire.fields(data):
        if number == _FUNCTIONS:
            raise UserError(f"{where}: model-local functions are not accepted")
        if number != GRAPH:
            continue
        for part, body in wire.fields(to_bytes(value)):
            if part == _SPARSE:
                raise UserError(f"{where}: sparse weights are not accepted")
            yield part, body


def _read(data: bytes, where: str) -> OnnxGraph:
    operators: list[str] = []
    edges: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    initializers: dict[str, Float32] = {}
    wire = Wire()
    for part, body in graph_parts(wire, data, where):
        if part == NODE:
            fields = list(wire.fields(to_bytes(body)))
            node = dict(fields)
            domain = name_of(node.get(_DOMAIN, b""))
            name = name_of(node.get(_OP_TYPE, b""))
            operators.append(f"{domain}::{name}" if domain else name)
            inputs, outputs = (
                tuple(name_of(value) for number, value in fields if number == side)
                for side in (_NODE_INPUT, _NODE_OUTPUT)
            )
            edges.append((inputs, outputs))
            if name in OPERATORS and _ATTRIBUTE in node:
                raise UserError(f"{where}: attributes of operator {name!r} are not accepted")
        if part == INITIALIZER:
            name, array = tensor_of(wire, to_bytes(body), where)
            if name in initializers:
                raise UserError(f"{where}: weights {name!r} are in it twice")
            initializers[name] = array.astype(np.float32, copy=False)
    return OnnxGraph(tuple(operators), initializers, tuple(edges))


def tensor_of(
    wire: Wire, data: bytes, where: str, *, integers: bool = False
) -> tuple[str, NDArray[Any]]:
    """Name and values of a tensor of 32-bit floats, or of 64-bit integers where they may be.

    Raises:
        UserError: another type, or values that are not in the file.
    """
    dims: list[int] = []
    name, raw, kind = "", b"", 0
    for number, value in wire.fields(data):
        if number == _DIMS:
            # Packed or not, depending on the writer.
            dims += [value] if isinstance(value, int) else _varints(value)
        elif number == _NAME:
            name = name_of(value)
        elif number == RAW:
            raw = to_bytes(value)
        elif number == _DATA_TYPE:
            kind = int(value) if isinstance(value, int) else 0
        elif number == EXTERNAL or (number == LOCATION and value):
            raise UserError(f"{where}: external data is not accepted")
    if integers and kind == _INT64:
        return name, np.frombuffer(raw, "<i8").reshape(dims)
    if kind != _FLOAT:
        raise UserError(f"{where}: weights {name!r} are not 32-bit floats stored as raw data")
    return name, np.frombuffer(raw, "<f4").reshape(dims)


class Wire:
    """Reads the fields of messages; their number per file is limited to `most`."""

    def __init__(self, most: int = MAX_FIELDS) -> None:
        self._count, self._most = 0, most

    def fields(self, data: bytes) -> Iterator[tuple[int, int | bytes]]:
        """Number and value of each field of a message."""
        for number, value, _, _ in self.places(data):
            yield number, value

    def places(self, data: bytes) -> Iterator[tuple[int, int | bytes, int, int]]:
        """Number and value of each field of a message, and where it begins and ends in it."""
        at = 0
        while at < len(data):
            begin = at
            self._count += 1
            if self._count > self._most:
                raise ValueError(f"more than {self._most} fields")
            key, at = _varint(data, at)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, at = _varint(data, at)
                yield number, value, begin, at
                continue
            if wire == 2:
                length, at = _varint(data, at)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise ValueError(f"wire type {wire}")
            end = at + length
            if end > len(data):
                raise ValueError("truncated")
            yield number, data[at:end], begin, end
            at = end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("number too long")


def _varints(data: bytes) -> list[int]:
    values: list[int] = []
    at = 0
    while at < len(data):
        if len(values) == MAX_DIMENSIONS:
            raise ValueError(f"more than {MAX_DIMENSIONS} dimensions")
        value, at = _varint(data, at)
        values.append(value)
    return values


def to_bytes(value: int | bytes) -> bytes:
    """Returns a field's content that is not a number."""
    if isinstance(value, int):
        raise ValueError("number where bytes are expected")
    return value


def name_of(value: int | bytes) -> str:
    """Returns a field's content as a name of bounded length."""
    data = to_bytes(value)
    if len(data) > MAX_NAME:
        raise ValueError(f"a name of {len(data)} bytes")
    return data.decode()


def check_network(data: bytes, where: str, inputs: int, outputs: int) -> tuple[float, int]:
    """Refuse a graph whose weights have inconsistent shapes.

    Returns:
        Its observation clip, and multiplications for one observation as `policies.bundle.work`
        counts them.
    """
    graph = read_graph(data, where)
    layers = sum(name.startswith("weight") for name in graph.initializers)
    try:
        shift, scale = graph.initializers["shift"], graph.initializers["scale"]
        low, high = graph.initializers["low"], graph.initializers["high"]
        weights = [graph.initializers[f"weight{i}"] for i in range(layers)]
        biases = [graph.initializers[f"bias{i}"] for i in range(layers)]
    except KeyError as error:
        raise UserError(f"{where}: weights {error} are missing") from None
    size, largest = inputs, float(high.max(initial=0))
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if weight.ndim != 2 or weight.shape[0] != size or bias.shape != weight.shape[1:]:
            raise UserError(
                f"{where}: layer {i} has weights {weight.shape} and biases {bias.shape} "
                f"for {size} inputs"
            )
        size = weight.shape[1]
        # However the sum is ordered, no part of it is larger.
        reach = largest * np.abs(weight, dtype=np.float64).sum(axis=0) + np.abs(bias)
        if (worst := float(reach.max(initial=0))) > float(np.finfo(np.float32).max):
            raise UserError(
                f"{where}: layer {i} can reach {worst:.2g}, which is not a float32: its output "
                "would not be finite"
            )
        # Of an Elu at most what it is of, and -1.
        largest = 1.0 if graph.operators.count("Tanh") >= layers - 1 else max(1.0, worst)
    if shift.shape != (inputs,) or scale.shape != (inputs,) or size != outputs:
        raise UserError(
            f"{where}: {shift.size} inputs and {size} outputs, not {inputs} and {outputs}"
        )
    if more := len(graph.initializers) - 4 - 2 * layers:
        raise UserError(f"{where}: {more} weights belong to no layer")
    if low.size != 1 or high.size != 1 or not low.item() == -high.item() < 0:
        raise UserError(f"{where}: observations are clipped to {low} .. {high}, not to -c .. c")
    work = sum(
        weight.size + ELEMENT * bias.size for weight, bias in zip(weights, biases, strict=True)
    )
    check_work(work, where)
    return float(high.item()), work
