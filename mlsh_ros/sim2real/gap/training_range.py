"""The range of training observations, read from the files of a bundle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from policies.bundle.bundle import Bundle
from policies.bundle.onnx_reader import OnnxGraph, read_graph

# Standard deviations on either side of the mean that training is taken to have seen.
SPREAD = 2.0


def graphs_of(bundle: Bundle) -> list[OnnxGraph]:
    """Returns the graphs of all skills and masters, but for skills that were imported."""
    networks = [name for name in bundle.manifest.files if name.endswith(".onnx")]
    if bundle.manifest.imported:
        networks = [name for name in networks if name not in bundle.manifest.skill_files]
    return [read_graph(bundle.files[name], name) for name in networks]


def known_to(bundle: Bundle, graphs: Sequence[OnnxGraph]) -> NDArray[np.float32]:
    """(n, O) observations known from training: the golden rows, and the spread of its values.

    The networks carry mean and deviation over the whole training, or neither.
    """
    golden = bundle.golden.observation
    shift, scale = (graphs[0].initializers[name] for name in ("shift", "scale"))
    if not shift.any() and (scale == 1).all():
        return golden
    spread = (SPREAD / scale).astype(np.float32)
    return np.concatenate([golden, [shift - spread, shift + spread]])


def read_by(graphs: Sequence[OnnxGraph]) -> NDArray[np.bool_]:
    """(O,) True for elements that affect any of the networks."""
    weights = np.concatenate([graph.initializers["weight0"] for graph in graphs], axis=1)
    return np.asarray(weights.any(axis=1))
