"""Computes what a graph derives from the shapes of its tensors alone, for one row.

Exporters write a batch of any size into the graph: `x.view(x.shape[0], -1)`, `x.chunk(2, -1)` and
the expansion of a length in `torch.nn.functional.normalize`. A skill is run row by row by its
original, so that these shapes are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from policies.bundle.imported_graph import MAX_AXES, MAX_ELEMENTS
from policies.skill_import.rewriting import dimensions, one_row, replace, shapes_of

MOST = 1024  # elements of a constant that is computed here
ROUNDS = 8  # a shape may depend on a tensor whose own shape has just become known
TYPES: dict[int, type[np.generic]] = {
    TensorProto.INT64: np.int64,
    TensorProto.INT32: np.int32,
    TensorProto.FLOAT: np.float32,
    TensorProto.BOOL: np.bool_,
}
Array = NDArray[Any]


class _UnknownError(Exception):
    """An operator whose result is not known, or too large."""


NOT_COMPUTED = (
    _UnknownError,
    ValueError,
    IndexError,
    TypeError,
    ArithmeticError,
    KeyError,
    AttributeError,
)
BROADCAST = ("Add", "Sub", "Mul", "Div", "Equal", "Where")


def fold_shapes(model: ModelProto, path: Path) -> bool:
    """Make constants of what depends on shapes alone, and products with ones of an Expand.

    Args:
        model: that is changed.
        path: the ONNX file, for errors.

    Returns:
        Whether anything was changed.

    Raises:
        UserError: the shapes of the graph contradict each other.
    """
    kinds = {node.op_type for node in model.graph.node}
    if not kinds & {"Shape", "Expand", "Reshape", "ConstantOfShape"}:
        return False
    made: set[str] = set()  # tensors that were computed here
    changed = False
    for _ in range(ROUNDS):
        values = one_row(model, path)
        if not _Round(model, values, made).fold():
            break
        changed = True
    return changed


class _Round:
    """One pass over the operators."""

    def __init__(
        self, model: ModelProto, values: Mapping[str, ValueInfoProto], made: set[str]
    ) -> None:
        self.model, self.values, self.made = model, values, made
        self.sizes = shapes_of(model, values)
        self.known = {name: array for name, array in _constants(model) if array.size <= MOST}
        self.added: list[TensorProto] = []
        self.names = {*self.sizes, *(name for node in model.graph.node for name in node.output)}

    def fold(self) -> bool:
        """Fold what is known; returns whether anything was changed."""
        nodes, changed = [], False
        for node in self.model.graph.node:
            new = self._folded(node)
            changed = changed or new is not node
            nodes.append(new)
        if changed:
            replace(self.model.graph.node, nodes)
            self.model.graph.initializer.extend(self.added)
        return changed

    def _folded(self, node: NodeProto) -> NodeProto:
        if node.op_type in FOLDED and len(node.output) == 1:
            try:
                with np.errstate(all="raise"):
                    found = self._value(node)
            except NOT_COMPUTED:
                found = None
            if found is not None and found.size <= MOST:
                (name,) = node.output
                self.known[name] = found
                self.made.add(name)
                tensor = numpy_helper.from_array(found, name)
                return helper.make_node("Constant", [], [name], value=tensor)
        if len(node.input) == 2 and len(node.output) == 1:
            if node.op_type == "Expand":
                return self._expansion(node)
            if node.op_type == "Reshape":
                return self._reshape(node)
        return node

    def _value(self, node: NodeProto) -> Array | None:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "Shape":
            sizes = self.sizes.get(node.input[0])
            if sizes is None:
                return None
            return np.array(
                sizes[slice(attributes.get("start", 0), attributes.get("end"))], np.int64
            )
        if not node.input or any(name not in self.known for name in node.input if name):
            return None
        given = [self.known[name] if name else None for name in node.input]
        of_shapes = any(name in self.made for name in node.input)
        if not of_shapes and any(a is not None and a.dtype.kind == "f" for a in given):
            return None  # weights stay as they are
        if node.op_type in BROADCAST:
            _bounded(np.array(np.broadcast_shapes(*(a.shape for a in given if a is not None))))
        found = np.asarray(FOLDED[node.op_type](attributes, *given))
        return found if found.dtype.type in TYPES.values() else None

    def _expansion(self, node: NodeProto) -> NodeProto:
        """Identity where no size changes, or else a product with ones; what is unknown stays."""
        (source, target), (name,) = node.input, node.output
        before, after = (self.values.get(each) for each in (source, name))
        if before is not None and after is not None:
            one, other = (dimensions(each, known=True) for each in (before, after))
            if one == other != "":
                return helper.make_node("Identity", [source], [name])
        sizes, shape = self.sizes.get(source), self.known.get(target)
        kind = before.type.tensor_type.elem_type if before is not None else 0
        if sizes is None or shape is None or shape.dtype.kind != "i" or shape.ndim != 1:
            return node
        wanted = [int(size) for size in shape]
        try:
            whole = np.broadcast_shapes(sizes, tuple(wanted))
        except ValueError:
            return node
        if whole == sizes:
            return helper.make_node("Identity", [source], [name])
        if kind != TensorProto.FLOAT or len(whole) > MAX_AXES or prod(whole) > MAX_ELEMENTS:
            return node
        ones = self._add(f"{name}/ones", np.ones(wanted, np.float32))
        return helper.make_node("Mul", [source, ones], [name])

    def _reshape(self, node: NodeProto) -> NodeProto:
        """[1, -1] is one row of all elements, as a number."""
        sizes, shape = self.sizes.get(node.output[0]), self.known.get(node.input[1])
        if not sizes or shape is None or shape.ndim != 1 or not shape.size or 0 in sizes:
            return node
        if shape[0] != 1 or -1 not in shape:
            return node
        new = NodeProto()
        new.CopyFrom(node)
        new.input[1] = self._add(f"{node.output[0]}/shape", np.array(sizes, np.int64))
        return new

    def _add(self, name: str, array: Array) -> str:
        """Add a tensor of weights; returns its name."""
        while name in self.names:
            name += "_"
        self.names.add(name)
        self.added.append(numpy_helper.from_array(array, name))
        return name


def _constants(model: ModelProto) -> Iterator[tuple[str, Array]]:
    """Small tensors that are stored in a graph."""
    tensors = [(each.name, each) for each in model.graph.initializer]
    for node in model.graph.node:
        if node.op_type != "Constant" or len(node.attribute) != 1 or len(node.output) != 1:
            continue
        (attribute,) = node.attribute
        if attribute.name == "value":
            tensors.append((node.output[0], attribute.t))
        elif attribute.name in ("value_int", "value_ints"):
            value = helper.get_attribute_value(attribute)
            if np.size(value) <= MOST:
                yield node.output[0], np.array(value, np.int64)
    for name, tensor in tensors:
        if tensor.data_type in TYPES and prod(tensor.dims) <= MOST and min(tensor.dims, default=1):
            try:
                yield name, numpy_helper.to_array(tensor)
            except (ValueError, TypeError):  # `accepted` refuses it
                continue


# What is computed -------------------------------------------------------------------------------

Attributes = Mapping[str, Any]


def _axes(attributes: Attributes, given: tuple[Array | None, ...]) -> tuple[int, ...]:
    axes = given[0] if given else attributes.get("axes")
    if axes is None:
        raise _UnknownError
    return tuple(int(axis) for axis in np.ravel(axes))


def _squeeze(attributes: Attributes, array: Array, *axes: Array | None) -> Array:
    return np.squeeze(array, _axes(attributes, axes))


def _unsqueeze(attributes: Attributes, array: Array, *axes: Array | None) -> Array:
    return np.expand_dims(array, _axes(attributes, axes))


def _slice(attributes: Attributes, array: Array, *given: Array | None) -> Array:
    keys = ("starts", "ends", "axes", "steps")
    said: dict[str, Any] = dict(zip(keys, given, strict=False)) if given else {**attributes}
    starts, ends = np.ravel(said["starts"]), np.ravel(said["ends"])
    axes = np.ravel(said["axes"]) if said.get("axes") is not None else np.arange(len(starts))
    steps = np.ravel(said["steps"]) if said.get("steps") is not None else np.ones_like(starts)
    picked = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = array.shape[int(axis)]
        picked[int(axis)] = _range(int(start), int(end), int(step), size)
    return np.asarray(array[tuple(picked)])


def _range(start: int, end: int, step: int, size: int) -> slice:
    """A slice whose end may lie before the first element."""
    begin, stop, _ = slice(start, end, step).indices(size)
    return slice(begin, None if stop < 0 else stop, step)


def _divide(_: Attributes, one: Array, other: Array) -> Array:
    if one.dtype.kind == "f":
        return np.asarray(one / other)
    whole = np.abs(one) // np.abs(other)  # towards zero
    return np.asarray(whole * np.sign(one) * np.sign(other)).astype(one.dtype)


def _cast(attributes: Attributes, array: Array) -> Array:
    return np.asarray(array.astype(TYPES[attributes["to"]]))


def _filled(attributes: Attributes, shape: Array) -> Array:
    value = attributes.get("value")
    with_value = np.float32(0) if value is None else numpy_helper.to_array(value).ravel()[0]
    return np.full(_bounded(shape), with_value)


def _expand(_: Attributes, array: Array, shape: Array) -> Array:
    _bounded(shape)
    wanted = np.broadcast_shapes(array.shape, tuple(int(size) for size in shape))
    if prod(wanted) > MOST:
        raise _UnknownError
    return np.array(np.broadcast_to(array, wanted))


def _reshaped(attributes: Attributes, array: Array, shape: Array) -> Array:
    kept = not attributes.get("allowzero", 0)
    wanted = [array.shape[i] if size == 0 and kept else int(size) for i, size in enumerate(shape)]
    return np.asarray(array.reshape(wanted))


def _bounded(shape: Array) -> list[int]:
    sizes = [int(size) for size in np.ravel(shape)]
    if min(sizes, default=0) < 0 or prod(sizes) > MOST or len(sizes) > MAX_AXES:
        raise _UnknownError
    return sizes


def _shape(attributes: Attributes, array: Array) -> Array:  # of a tensor whose size is known
    raise _UnknownError


FOLDED: dict[str, Callable[..., Any]] = {
    "Shape": _shape,
    "Gather": lambda a, array, index: np.take(array, index, axis=a.get("axis", 0)),
    "Concat": lambda a, *arrays: np.concatenate(arrays, axis=a["axis"]),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Add": lambda _, one, other: one + other,
    "Sub": lambda _, one, other: one - other,
    "Mul": lambda _, one, other: one * other,
    "Div": _divide,
    "Cast": _cast,
    "Identity": lambda _, array: array,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Reshape": _reshaped,
    "Equal": lambda _, one, other: one == other,
    "Where": lambda _, which, one, other: np.where(which, one, other),
    "Floor": lambda _, array: np.floor(array),
}
