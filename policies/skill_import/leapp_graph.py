"""Finds in a LEAPP graph what it computes: the action, the direction of gravity, gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from policies.bundle.imported_graph import MAX_NODES, check_imported
from policies.bundle.runtime import Network
from policies.skill_import.reading import (
    CONSTANT,
    accepted,
    load,
    needed_for,
)
from policies.skill_import.rewriting import input_names
from policies.skill_import.selection import Selection, SkillMapping
from policies.skill_import.shape_folding import fold_shapes
from policies.skill_import.surgery import join
from policies.skill_import.weights import array_of, constant_of
from sim.errors import UserError, listed
from sim.interface import DERIVED, Floats

Float32 = NDArray[np.float32]
INPUT = "leapp/input"  # of a policy whose inputs have become one
PROBE = 8.0  # of actions, at which their effect on the targets is measured
SAME = 1e-5  # relative to numbers that are larger than 1
ROTATIONS = 50  # with which the direction of gravity is compared
QUATERNIONS: dict[
    tuple[str, ...], tuple[int, int, int, int]
] = {  # by the names of the elements: the places of w, x, y, z
    ("qx", "qy", "qz", "qw"): (3, 0, 1, 2),
    ("x", "y", "z", "w"): (3, 0, 1, 2),
    ("qw", "qx", "qy", "qz"): (0, 1, 2, 3),
    ("w", "x", "y", "z"): (0, 1, 2, 3),
}


@dataclass(frozen=True)
class Part:
    """An input of LEAPP's graph, made of elements of the one input."""

    name: str  # of the tensor
    shape: tuple[int, ...]  # of one row
    index: tuple[int, ...]  # place of each element in the one input


class LeappGraph:
    """The graph of an ONNX file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model, self.digest = load(path)
        if len(self.model.graph.node) > MAX_NODES:
            raise UserError(
                f"{path}: {len(self.model.graph.node)} operators, at most {MAX_NODES} are "
                "accepted; export a simpler network"
            )
        fold_shapes(self.model, path)
        self._makers = {name: node for node in self.model.graph.node for name in node.output}
        self._weights = {each.name: each for each in self.model.graph.initializer}

    def shapes(self) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
        """Shapes of the inputs and of the outputs; 0 where a size is not fixed."""
        inputs = {*input_names(self.model)}
        given = [each for each in self.model.graph.input if each.name in inputs]
        found = [
            {
                each.name: tuple(d.dim_value for d in each.type.tensor_type.shape.dim)
                for each in values
            }
            for values in (given, self.model.graph.output)
        ]
        return found[0], found[1]

    def depends_on(self, name: str, given: Sequence[str] = ()) -> list[str]:
        """Inputs that a tensor depends on, where those in `given` are not computed."""
        needed = needed_for(self.model, name, given)[1]
        return [each for each in input_names(self.model) if each in needed and each not in given]

    def constant(self, name: str) -> Floats | None:
        """(n,) values of a tensor that is stored in the graph, or a copy of one; None if not."""
        name = self._source(name)
        maker = self._makers.get(name)
        if name in self._weights:
            return array_of(self._weights[name], str(self.path)).astype(np.float64).ravel()
        if maker is not None and maker.op_type == CONSTANT:
            return constant_of(maker, str(self.path)).astype(np.float64).ravel()
        return None

    def _source(self, name: str) -> str:
        """The tensor that another one is a copy of."""
        while (maker := self._makers.get(name)) is not None and maker.op_type == "Identity":
            name = maker.input[0]
        return name

    def piece(self, parts: Sequence[Part], width: int, output: str, count: int) -> ModelProto:
        """The graph from one input (1, width) to one output (1, count).

        Args:
            parts: tensors that are made of the input; what lies before them is left out.
            width: elements of the input.
            output: name of the tensor that is the output.
            count: its elements.

        Raises:
            UserError: an operator that is not accepted.
        """
        nodes, needed = needed_for(self.model, output, [each.name for each in parts])
        taken = []
        arrays = {}
        for part in parts:
            index, shape = f"leapp/index/{part.name}", f"leapp/shape/{part.name}"
            arrays[index] = np.array(part.index, np.int64)
            flat = len(part.shape) == 2
            picked = part.name if flat else f"leapp/flat/{part.name}"
            taken.append(helper.make_node("Gather", [INPUT, index], [picked], axis=1))
            if not flat:
                arrays[shape] = np.array(part.shape, np.int64)
                taken.append(helper.make_node("Reshape", [picked, shape], [part.name]))
        weights = [each for each in self.model.graph.initializer if each.name in needed]
        weights += [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        rows = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
            for name, size in ((INPUT, width), (output, count))
        ]
        graph = helper.make_graph([*taken, *nodes], "policy", rows[:1], rows[1:], weights)
        made = helper.make_model(graph, opset_imports=self.model.opset_import)
        made.ir_version = self.model.ir_version
        return accepted(made, self.path)

    def _values(self, given: str, rows: Float32, output: str, count: int) -> Float32:
        """(n, count) values of a tensor for rows (n, width) of another.

        Raises:
            UserError: an operator that is not accepted, or another shape.
        """
        width = rows.shape[1]
        piece = self.piece([Part(given, (1, width), tuple(range(width)))], width, output, count)
        as_it_is = [Selection(np.arange(n), np.ones(n), np.zeros(n)) for n in (width, count)]
        where = f"{self.path}: {output!r}"
        data = join(piece, SkillMapping(as_it_is[0], as_it_is[1], None, width), "part", where)
        check_imported(data, where, width, count)
        return Network(data, where)(rows)

    def action(self, fed_back: str, target: str, size: int) -> tuple[Floats, Floats]:
        """Returns (A,) default and scale: target = default + scale * what is fed back.

        Args:
            fed_back: the output that is fed back.
            target: the output with the targets.
            size: A.

        Raises:
            UserError: the targets are something else.
        """
        raw = self._source(fed_back)
        if others := self.depends_on(target, [raw]):
            raise UserError(f"{target!r} depends on {listed(others)} beside {fed_back!r}")
        steps = PROBE * np.eye(size)
        random = 3 * np.random.default_rng(0).standard_normal((16, size))
        rows = np.concatenate([np.zeros((1, size)), steps, -steps, random]).astype(np.float32)
        values = self._values(raw, rows, target, size).astype(np.float64)
        default, (up, down) = values[0], np.split(values[1 : 1 + 2 * size], 2)
        scale = np.diag(up - down) / (2 * PROBE)
        expected = default + scale * rows
        off = np.abs(values - expected) / np.maximum(1, np.abs(expected))
        if not off.max() <= SAME or not scale.all():
            raise UserError(
                f"{target!r} is not default + scale * {fed_back!r} for each element; are targets "
                "clipped?"
            )
        return default, scale

    def gravity(self, rotation: str, names: tuple[str, ...], output: str) -> str | None:
        """Name of the tensor that is the direction of gravity in the body's frame.

        Args:
            rotation: the input that is a quaternion, body to world.
            names: of its elements, of `QUATERNIONS`.
            output: of the graph.

        Returns:
            None: `output` depends on the orientation in another way.
        """
        order = np.array(QUATERNIONS[names])
        wxyz = np.random.default_rng(0).standard_normal((ROTATIONS, 4))
        wxyz /= np.linalg.norm(wxyz, axis=1, keepdims=True)
        rows = np.empty((ROTATIONS, 4), np.float32)
        rows[:, order] = wxyz
        expected = DERIVED["projected_gravity"].of(wxyz)
        for node in needed_for(self.model, output)[0]:
            for name in node.output:
                if self.depends_on(name) != [rotation] or rotation in self.depends_on(
                    output, [name]
                ):
                    continue
                try:
                    values = self._values(rotation, rows, name, 3)
                except UserError:  # of another shape
                    continue
                if np.abs(values - expected).max() <= SAME:
                    return str(name)
        return None
