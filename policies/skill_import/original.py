"""The policy of another trainer with its unchanged file, as the reference for imported skills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from policies.skill_import.description import SkillDescription
from policies.skill_import.leapp_graph import Part
from policies.skill_import.selection import Selection
from policies.skill_import.weights import line
from sim.errors import UserError
from sim.interface import Floats

Float32 = NDArray[np.float32]


class Original(Protocol):
    """Runs an ONNX file as it is, row by row: the policy's inputs (n, I) to outputs (n, outputs).

    Inputs and outputs are those that the description has.
    """

    def __call__(self, rows: Float32) -> Float32:
        """The outputs (n, outputs) for rows (n, I)."""
        ...

    @property
    def direction(self) -> tuple[int, ...]:
        """Places among the inputs of a vector that has to have length 1; empty: none has."""
        ...


@dataclass(frozen=True)
class PolicyFile:
    """A policy, and what names it."""

    file: Path  # its description, or the bundle that it is of
    path: Path  # the ONNX file
    model: ModelProto  # of one input and one output
    digest: str  # of the ONNX file and its external data
    original: Original


@dataclass(frozen=True)
class ForeignPolicy(PolicyFile):
    """A policy of another trainer with its description."""

    description: SkillDescription


@dataclass(frozen=True)
class OneInput:
    """A file whose output depends on one input; other inputs are zero."""

    path: Path
    output: str | None  # None: there is one
    source: str | None = None  # the input; None: there is one

    direction = ()

    @cached_property
    def _session(self) -> Any:
        return _session(self.path)

    def __call__(self, rows: Float32) -> Float32:
        """The outputs (n, outputs) for rows (n, I)."""
        inputs = {each.name: each for each in self._session.get_inputs()}
        source = self.source or next(iter(inputs))
        sink = self.output or self._session.get_outputs()[0].name
        given = {name: _zeros(each) for name, each in inputs.items() if name != source}
        found = [_run(self, sink, given | {source: row[None]})[0] for row in rows]
        return np.array(found, np.float32)


def _zeros(value: Any) -> NDArray[Any]:
    """Zeros for an input of ONNX Runtime, with one element where its size is not fixed."""
    kinds = {"tensor(double)": "float64", "tensor(float16)": "float16", "tensor(bool)": "bool"}
    kind = kinds.get(value.type, value.type.removeprefix("tensor(").rstrip(")"))
    shape = [size if isinstance(size, int) else 1 for size in value.shape]
    return np.zeros(shape, "float32" if kind in ("float", "string") else kind)


@dataclass(frozen=True)
class Quaternion:
    """An input that is an orientation, in place of the direction of gravity."""

    name: str
    shape: tuple[int, ...]
    order: tuple[int, ...]  # places of w, x, y, z

    def of(self, gravity: Floats) -> Float32:
        """(n, 4) an orientation, of those with this direction of gravity (n, 3), length 1."""
        x, y, z = np.clip(gravity, -1, 1).T
        # The shortest turn from upright; upside down about the x axis.
        w = np.sqrt((1 - z) / 2)
        over = w < 1e-4
        safe = np.where(over, 1, w)
        turned = np.stack(
            [w, np.where(over, 1, -y / (2 * safe)), np.where(over, 0, x / (2 * safe)), 0 * w], -1
        )
        found = np.empty((len(gravity), 4), np.float32)
        found[:, np.array(self.order)] = turned / np.linalg.norm(turned, axis=1, keepdims=True)
        return found


@dataclass(frozen=True)
class LeappOriginal:
    """A file of LEAPP's, whose inputs are parts of ours and whose output is targets."""

    path: Path
    parts: tuple[Part, ...]
    quaternions: Mapping[str, Quaternion]  # by the part that stands for it
    target: str  # the output
    default: Floats  # (A,) target = default + scale * output
    scale: Floats  # (A,)

    @property
    def direction(self) -> tuple[int, ...]:
        """Places of the direction of gravity, if the file takes an orientation in its place."""
        return tuple(i for part in self.parts if part.name in self.quaternions for i in part.index)

    @cached_property
    def _session(self) -> Any:
        return _session(self.path)

    def __call__(self, rows: Float32) -> Float32:
        """The outputs (n, A) of which the file's targets are default + scale * output."""
        columns = {}
        for part in self.parts:
            values, turned = rows[:, part.index], self.quaternions.get(part.name)
            if turned is None:
                columns[part.name] = values.reshape(-1, *part.shape)
            else:
                made = turned.of(values.astype(np.float64))
                columns[turned.name] = made.reshape(-1, *turned.shape)
        found = [
            _run(self, self.target, {name: c[i] for name, c in columns.items()})
            for i in range(len(rows))
        ]
        targets = np.array(found, np.float64).reshape(len(rows), -1)
        return ((targets - self.default) / self.scale).astype(np.float32)


def with_length_one(rows: Float32, selection: Selection, places: tuple[int, ...]) -> Float32:
    """Observations (n, O) in which a vector of the policy's input has length 1.

    Args:
        rows: observations.
        selection: the policy's input.
        places: of the vector in it; empty: nothing changes.
    """
    if not places:
        return rows
    at = np.array(places)
    scale, offset = selection.scale[at], selection.offset[at]
    vector = rows[:, selection.index[at]] * scale + offset
    vector /= np.linalg.norm(vector, axis=1, keepdims=True)
    changed: Float32 = rows.copy()
    changed[:, selection.index[at]] = (vector - offset) / scale
    return changed


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, and said once
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base class for its errors
        raise UserError(
            f"{path}: ONNX Runtime refuses it ({line(error)}); export the policy again"
        ) from None


def _run(original: OneInput | LeappOriginal, output: str, inputs: dict[str, NDArray[Any]]) -> Any:
    """Returns an output of a file, whose inputs are 32-bit or 64-bit floats.

    Raises:
        UserError: ONNX Runtime fails.
    """
    session = original._session
    wide = {each.name for each in session.get_inputs() if each.type == "tensor(double)"}
    given = {name: v.astype(np.float64) if name in wide else v for name, v in inputs.items()}
    try:
        return session.run([output], given)[0]
    except Exception as error:  # onnxruntime has no common base class for its errors
        raise UserError(
            f"{original.path}: ONNX Runtime fails ({line(error)}); export the policy again"
        ) from None
