"""Checks the graph of an imported skill before ONNX Runtime sees it, without the `onnx` package.

An imported skill is the graph of another exporter, with a selection of the observation before it
and a scaling to the action after it. It consists of operators whose output shapes are computed
here, so that no tensor exceeds the permitted size for any input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from policies.bundle.onnx_reader import (
    INITIALIZER,
    INPUT,
    NODE,
    OUTPUT,
    Wire,
    graph_parts,
    name_of,
    tensor_of,
    to_bytes,
)
from policies.bundle.work import ELEMENT, PIECE, check_work
from sim.errors import UserError, listed, short

MAX_NODES = 500
MAX_ELEMENTS = 2**16  # of a tensor, for one observation
MAX_CONSTANT = 2**22  # of a tensor of weights
MAX_AXES = 6
# Observations for which shapes are computed: two numbers that are no size of a tensor by chance,
# and as many as run at a time on a robot and when a bundle is loaded.
ROWS = (3, 5, 1, PIECE)
Shape = tuple[int, ...]
Array = NDArray[np.generic]

# Field numbers of onnx.proto.
_INPUTS, _OUTPUTS = 11, 12
_NODE_INPUT, _NODE_OUTPUT, _OP_TYPE, _ATTRIBUTE, _DOMAIN = 1, 2, 4, 5, 7
_NAME, _INT, _GRAPHS, _INTS = 1, 3, (6, 11), 8


@dataclass(frozen=True)
class Node:
    """One operator."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: Mapping[str, tuple[int, ...]]  # attributes that are integers


@dataclass(frozen=True)
class ImportedGraph:
    """Content of an ONNX file."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


def check_imported(data: bytes, where: str, inputs: int, outputs: int) -> int:
    """Refuse a graph that does not convert an observation (n, O) to an action (n, A).

    Args:
        data: the ONNX file.
        where: for errors.
        inputs: O.
        outputs: A.

    Returns:
        Multiplications for one observation, as `policies.bundle.work` counts them.

    Raises:
        UserError: not an ONNX file, an operator or a size that is not accepted, weights that are
            not finite, other shapes, or more work than is accepted.
    """
    graph = _graph(data, where)
    if (graph.inputs, graph.outputs) != ([INPUT], [OUTPUT]):
        names = [*graph.inputs, *graph.outputs]
        raise UserError(f"{where}: inputs and outputs {short(names)}, not {[INPUT, OUTPUT]}")
    if not graph.nodes or len(graph.nodes) > MAX_NODES:
        raise UserError(f"{where}: {len(graph.nodes)} operators, 1 to {MAX_NODES} are accepted")
    for name, array in graph.constants.items():
        if not np.isfinite(array).all():  # type: ignore[type-var]
            raise UserError(f"{where}: weights {name!r} are not finite")
    work = 0
    for rows in ROWS:
        total = 0
        shapes: dict[str, Shape] = {name: a.shape for name, a in graph.constants.items()}
        shapes[INPUT] = (rows, inputs)
        for node in graph.nodes:
            _add_shape(node, shapes, graph.constants, rows, where)
            total += _work(node, shapes)
        if shapes.get(OUTPUT) != (rows, outputs):
            got = shapes.get(OUTPUT)
            raise UserError(
                f"{where}: {inputs} inputs in {rows} rows give an output of shape {got}, not "
                f"{(rows, outputs)}"
            )
        work = max(work, -(-total // rows))
    check_work(work, where)
    return work


def _work(node: Node, shapes: dict[str, Shape]) -> int:
    """Multiplications of an operator whose shapes are known."""
    taken, made = (prod(shapes.get(name, ())) for name in (node.inputs[0], node.outputs[0]))
    if node.kind not in ("Gemm", "MatMul"):
        return ELEMENT * max(taken, made)
    transposed = node.kind == "Gemm" and any(node.integers.get("transA", ()))
    inner = shapes[node.inputs[0]][0 if transposed else 1]
    return made * max(inner, 1)


def _add_shape(
    node: Node, shapes: dict[str, Shape], constants: dict[str, Array], rows: int, where: str
) -> None:
    if node.kind not in SHAPES:
        raise refused(node.kind, where)
    what = f"{where}: operator {node.kind} of {short(node.outputs[:1])}"
    if len(node.outputs) != 1 or node.outputs[0] in shapes:
        raise UserError(f"{what}: one output with a name of its own is expected")
    if not node.inputs:
        raise UserError(f"{what}: it has no input")
    if missing := [name for name in node.inputs if name and name not in shapes]:
        raise UserError(f"{what}: its input {missing[0]!r} is not computed before it")
    try:
        shape = SHAPES[node.kind](_Call(node, [shapes.get(n, ()) for n in node.inputs], constants))
    except (ValueError, IndexError, TypeError, KeyError, ArithmeticError) as error:
        raise UserError(f"{what}: shapes do not fit ({str(error)[:100]})") from None
    if len(shape) > MAX_AXES or prod(shape) > rows * MAX_ELEMENTS:
        raise UserError(
            f"{what}: a tensor of shape {shape} for {rows} observations, at most {MAX_ELEMENTS} "
            "elements for each are accepted"
        )
    shapes[node.outputs[0]] = shape


def refused(kind: str, where: str, more: Iterable[str] = ()) -> UserError:
    """The error for an operator that is not accepted, where `more` are accepted as well."""
    if kind in RECURRENT:
        return UserError(
            f"{where}: operator {kind!r}: recurrent policies are not supported; give one that "
            "takes a history of its inputs instead"
        )
    return UserError(
        f"{where}: operator {kind!r}. Valid: {listed(sorted({*SHAPES, *more}), most=600)}"
    )


# Shapes -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    node: Node
    shapes: list[Shape]
    constants: Mapping[str, Array]

    def integer(self, name: str, default: int) -> int:
        (value,) = self.node.integers.get(name, (default,))
        return value

    def indices(self, place: int, default: list[int] | None = None) -> list[int]:
        """Integers of a constant input."""
        if place >= len(self.node.inputs) or not (name := self.node.inputs[place]):
            if default is None:
                raise ValueError(f"input {place} is missing")
            return default
        if name not in self.constants:
            raise ValueError(f"{name!r} has to be a constant")
        values = self.constants[name]
        if values.dtype != np.int64 or values.size > MAX_ELEMENTS:
            raise ValueError(f"{name!r} has to be a list of integers")
        return [int(value) for value in values.ravel()]  # type: ignore[call-overload]


def _axis(axis: int, count: int) -> int:
    if not -count <= axis < count:
        raise ValueError(f"axis {axis} of {count}")
    return axis % count


def _same(call: _Call) -> Shape:
    return call.shapes[0]


def _broadcast(call: _Call) -> Shape:
    return np.broadcast_shapes(*call.shapes)


def _gemm(call: _Call) -> Shape:
    (a, b), (c, d) = call.shapes[:2]
    if call.integer("transA", 0):
        a, b = b, a
    if call.integer("transB", 0):
        c, d = d, c
    if b != c:
        raise ValueError(f"{(a, b)} by {(c, d)}")
    if len(call.shapes) > 2 and np.broadcast_shapes(call.shapes[2], (a, d)) != (a, d):
        raise ValueError(f"a bias of {call.shapes[2]} for {(a, d)}")
    return a, d


def _matmul(call: _Call) -> Shape:
    left, right = call.shapes
    if len(left) != 2 or len(right) != 2:
        raise ValueError(f"{left} by {right}; both need two axes, a vector has one: Unsqueeze it")
    if left[1] != right[0]:
        raise ValueError(f"{left} by {right}")
    return left[0], right[1]


def _concat(call: _Call) -> Shape:
    first = call.shapes[0]
    axis = _axis(call.node.integers["axis"][0], len(first))
    rest = {(s[:axis], s[axis + 1 :]) for s in call.shapes}
    if len(rest) > 1:
        raise ValueError(f"{call.shapes} along axis {axis}")
    return *first[:axis], sum(s[axis] for s in call.shapes), *first[axis + 1 :]


def _slice(call: _Call) -> Shape:
    shape = list(call.shapes[0])
    starts, ends = call.indices(1), call.indices(2)
    axes, steps = call.indices(3, [*range(len(starts))]), call.indices(4, [1] * len(starts))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = _axis(axis, len(shape))
        shape[at] = len(range(*slice(start, end, step).indices(shape[at])))
    return tuple(shape)


def _gather(call: _Call) -> Shape:
    shape = call.shapes[0]
    axis = _axis(call.integer("axis", 0), len(shape))
    if bad := [i for i in call.indices(1) if not -shape[axis] <= i < shape[axis]]:
        raise ValueError(f"index {bad[0]} of {shape[axis]}")
    return *shape[:axis], *call.shapes[1], *shape[axis + 1 :]


def _reshape(call: _Call) -> Shape:
    shape, wanted = call.shapes[0], call.indices(1)
    if call.integer("allowzero", 0) == 0:
        wanted = [shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    if wanted.count(-1) == 1:
        known = prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = prod(shape) // known
    if prod(shape) != prod(wanted) or min(wanted, default=0) < 0:
        raise ValueError(f"{shape} to {tuple(wanted)}")
    return tuple(wanted)


def _flatten(call: _Call) -> Shape:
    shape, axis = call.shapes[0], call.integer("axis", 1)
    axis = axis if axis == len(call.shapes[0]) else _axis(axis, len(shape))
    return prod(shape[:axis]), prod(shape[axis:])


def _squeeze(call: _Call) -> Shape:
    shape = call.shapes[0]
    axes = {_axis(a, len(shape)) for a in call.indices(1)}
    if any(shape[a] != 1 for a in axes):
        raise ValueError(f"axes {sorted(axes)} of {shape}")
    return tuple(size for a, size in enumerate(shape) if a not in axes)


def _unsqueeze(call: _Call) -> Shape:
    axes = call.indices(1)
    count = len(call.shapes[0]) + len(axes)
    places = {_axis(a, count) for a in axes}
    if len(places) < len(axes) or count > MAX_AXES:
        raise ValueError(f"axes {axes} of {call.shapes[0]}")
    sizes = iter(call.shapes[0])
    return tuple(1 if a in places else next(sizes) for a in range(count))


def _norm(call: _Call) -> Shape:
    shape = call.shapes[0]
    axes = {_axis(a, len(shape)) for a in call.indices(1)}
    if not call.integer("keepdims", 1):
        return tuple(size for a, size in enumerate(shape) if a not in axes)
    return tuple(1 if a in axes else size for a, size in enumerate(shape))


def _layer_norm(call: _Call) -> Shape:
    shape = call.shapes[0]
    _axis(call.integer("axis", -1), len(shape))
    if any(np.broadcast_shapes(other, shape) != shape for other in call.shapes[1:]):
        raise ValueError(f"{call.shapes}")
    return shape


SHAPES: dict[str, Callable[[_Call], Shape]] = {
    **dict.fromkeys(("Elu", "Relu", "LeakyRelu", "Selu", "Tanh", "Sigmoid", "Softplus"), _same),
    **dict.fromkeys(("Identity", "LpNormalization"), _same),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Clip"), _broadcast),
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Concat": _concat,
    "Slice": _slice,
    "Gather": _gather,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "LayerNormalization": _layer_norm,
    "ReduceL2": _norm,
}
RECURRENT = ("GRU", "LSTM", "RNN")


# The file ---------------------------------------------------------------------------------------


def _graph(data: bytes, where: str) -> ImportedGraph:
    try:
        return _read(data, where)
    except UserError:
        raise
    except (IndexError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: not a readable ONNX file ({str(error)[:100]})") from None


def _read(data: bytes, where: str) -> ImportedGraph:
    wire, graph = Wire(), ImportedGraph()
    for part, body in graph_parts(wire, data, where):
        if part == NODE:
            graph.nodes.append(_node(wire, to_bytes(body), where))
        elif part == INITIALIZER:
            name, array = tensor_of(wire, to_bytes(body), where, integers=True)
            if name in graph.constants:
                raise UserError(f"{where}: weights {name!r} are in it twice")
            if array.size > MAX_CONSTANT or array.ndim > MAX_AXES:
                raise UserError(f"{where}: weights {name!r} have the shape {array.shape}")
            graph.constants[name] = array
        elif part in (_INPUTS, _OUTPUTS):
            names = graph.inputs if part == _INPUTS else graph.outputs
            names += [name_of(v) for n, v in wire.fields(to_bytes(body)) if n == _NAME]
    return graph


def _node(wire: Wire, data: bytes, where: str) -> Node:
    inputs: list[str] = []
    outputs: list[str] = []
    integers: dict[str, tuple[int, ...]] = {}
    kind = domain = ""
    for number, value in wire.fields(data):
        if number == _NODE_INPUT:
            inputs.append(name_of(value))
        elif number == _NODE_OUTPUT:
            outputs.append(name_of(value))
        elif number == _OP_TYPE:
            kind = name_of(value)
        elif number == _DOMAIN:
            domain = name_of(value)
        elif number == _ATTRIBUTE:
            name, numbers = _attribute(wire, to_bytes(value), where)
            integers[name] = numbers
    return Node(f"{domain}::{kind}" if domain else kind, tuple(inputs), tuple(outputs), integers)


def _attribute(wire: Wire, data: bytes, where: str) -> tuple[str, tuple[int, ...]]:
    name, numbers = "", []
    for number, value in wire.fields(data):
        if number == _NAME:
            name = name_of(value)
        elif number in _GRAPHS:
            raise UserError(f"{where}: graphs inside of operators are not accepted")
        elif number in (_INT, _INTS) and isinstance(value, int):
            numbers.append(value - 2**64 if value >= 2**63 else value)
    return name, tuple(numbers)
