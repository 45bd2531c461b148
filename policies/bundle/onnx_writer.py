"""Serializes a small network as an ONNX graph, which `policies.bundle.onnx_reader` reads.

`policies.bundle.export` calls it for every skill and master; `policies.bundle.bundle` writes the
files of a bundle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from policies.bundle.onnx_reader import INPUT, OUTPUT, Float32

OPSET = 17
IR_VERSION = 9  # read by ONNX Runtime 1.16 and newer


def write_graph(
    name: str,
    shift: Float32,
    scale: Float32,
    clip: float,
    layers: Sequence[tuple[Float32, Float32]],
    activation: str = "Tanh",
) -> bytes:
    """Write a network with its observation normalization as an ONNX file.

    Args:
        name: of the graph.
        shift: (O,) subtracted from the observation.
        scale: (O,) multiplied to it.
        clip: bound of the normalized observation.
        layers: weights (in, out) and biases (out,).
        activation: ONNX operator between the layers, of `onnx_reader.ACTIVATIONS`.

    Returns:
        The file; the same arguments give the same bytes.
    """
    arrays = {
        "shift": shift,
        "scale": scale,
        "low": np.array(-clip, np.float32),
        "high": np.array(clip, np.float32),
    }
    nodes = [
        # The name, in British spelling, is part of the shipped skills, whose bytes stay the same.
        helper.make_node("Sub", [INPUT, "shift"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "low", "high"], ["x0"]),
    ]
    for i, (weight, bias) in enumerate(layers):
        arrays |= {f"weight{i}": weight, f"bias{i}": bias}
        last = i == len(layers) - 1
        out = OUTPUT if last else f"h{i}"
        nodes.append(helper.make_node("Gemm", [f"x{i}", f"weight{i}", f"bias{i}"], [out]))
        if not last:
            nodes.append(helper.make_node(activation, [out], [f"x{i + 1}"]))
    sizes = len(shift), len(layers[-1][1])
    inputs, outputs = (
        helper.make_tensor_value_info(label, TensorProto.FLOAT, ["n", size])
        for label, size in zip((INPUT, OUTPUT), sizes, strict=True)
    )
    weights = [
        numpy_helper.from_array(np.ascontiguousarray(array, np.float32), label)
        for label, array in arrays.items()
    ]
    graph = helper.make_graph(nodes, name, [inputs], [outputs], weights)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="mlsh_ros"
    )
    model.ir_version = IR_VERSION
    checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
