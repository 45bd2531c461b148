"""Reads weights and constants of an ONNX graph as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from sim.errors import UserError

FLOATS = (TensorProto.FLOAT,)
INTEGERS = (TensorProto.INT64, TensorProto.INT32)


def constant_of(node: NodeProto, where: str) -> NDArray[Any]:
    """The value of an operator `Constant`.

    Args:
        node: the operator.
        where: the ONNX file, for errors.

    Raises:
        UserError: it has none, or one of a type that is not accepted.
    """
    what = f"{where}: operator 'Constant' of {[*node.output]}"
    if len(node.attribute) != 1 or len(node.output) != 1:
        raise UserError(
            f"{what} has {len(node.attribute)} values; export the policy with one in each"
        )
    attribute = node.attribute[0]
    if attribute.name == "value":
        return array_of(attribute.t, where)
    value = helper.get_attribute_value(attribute)
    if attribute.name in ("value_float", "value_floats"):
        return np.array(value, np.float32)
    if attribute.name in ("value_int", "value_ints"):
        return np.array(value, np.int64)
    raise UserError(
        f"{what}: {attribute.name} is not accepted. Valid: value, value_float, value_floats, "
        "value_int, value_ints"
    )


def array_of(tensor: TensorProto, where: str) -> NDArray[Any]:
    """Weights as an array, whole numbers in 64 bits.

    Args:
        tensor: the weights.
        where: the ONNX file, for errors.

    Raises:
        UserError: of a type that is not accepted, or not finite.
    """
    what = f"{where}: weights {tensor.name!r}"
    if tensor.data_type not in FLOATS + INTEGERS:
        kind = type_name(tensor.data_type)
        raise UserError(
            f"{what} are {kind}; FLOAT is accepted: export the policy in 32-bit floats"
        )
    try:
        array: NDArray[Any] = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:  # its data do not fit its dimensions
        raise UserError(
            f"{what} are not readable ({line(error)}); export the policy again"
        ) from None
    if tensor.data_type in INTEGERS:
        return array.astype(np.int64)
    if (bad := array[~np.isfinite(array)]).size:
        raise UserError(
            f"{what} are not finite: {bad[0]} in {bad.size} of {array.size}; the training has "
            "diverged, so export an earlier checkpoint"
        )
    return np.ascontiguousarray(array)


def type_name(kind: int) -> str:
    """The name of a type of ONNX, or its number if it has none."""
    return {value: str(name) for name, value in TensorProto.DataType.items()}.get(kind, str(kind))


def line(error: Exception) -> str:
    """The text of an error of another library as one short line."""
    return " ".join(str(error).split())[:200]
