"""Reads the YAML of a LEAPP export: tensors with their kinds, feedback, and files.

LEAPP (Lightweight Export Annotations for Policy Pipelines) writes it beside the ONNX file, and
exporters add keys of their own. Keys that do not describe the policy are not read.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from sim.errors import UserError, listed, short, unknown, validated
from sim.files.bounded import read_bounded
from sim.files.strict_json import parse_json
from sim.files.strict_yaml import read_mapping
from sim.interface import Positive, Text
from sim.interface.validators import Size

VERSIONS = ("1.2", "1.3")  # of the file's schema, which LEAPP calls its config version
CONNECTION = "isaaclab_connection"  # key with which Isaac Lab says what a tensor is read from
INITIAL_BYTES = 2**20  # of the file with initial values
HEADER_BYTES = 2**16  # of its header
_KEYS = ConfigDict(extra="ignore", allow_inf_nan=False, str_min_length=1)
_Names = tuple[Text, ...]


@dataclass(frozen=True, config=_KEYS)
class Tensor:
    """An input or an output."""

    name: Text
    dtype: Text
    shape: Annotated[tuple[Size, ...], Field(max_length=6)]  # of one row
    kind: Text | None = None
    # Per axis the names of its elements, or null.
    element_names: tuple[Text | _Names | None, ...] | None = None
    isaaclab_connection: Text | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def names(self, where: str) -> tuple[str, ...]:
        """Names of the elements.

        Raises:
            UserError: the file does not name each.
        """
        axes = [axis for axis in self.element_names or () if axis is not None]
        if not axes:
            raise UserError(
                f"{where}: {self.name!r}: element_names are missing; name its {self.size} elements"
            )
        if len(axes) > 1 or isinstance(axes[0], str):
            raise UserError(
                f"{where}: {self.name!r}: element_names {short(axes)} are of several axes or of "
                "time; one list of names is expected"
            )
        (names,) = axes
        if len(names) != self.size:
            raise UserError(
                f"{where}: {self.name!r}: {len(names)} element_names for {self.size} elements; "
                "name each once"
            )
        if len({*names}) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(
                f"{where}: {self.name!r}: element_names have {twice!r} twice; name each once"
            )
        return tuple(names)


@dataclass(frozen=True, config=_KEYS)
class Parameters:
    """The file of a model."""

    model_path: Text  # relative to the YAML
    sha256sum: Text
    backend: Text  # with which it was exported


@dataclass(frozen=True, config=_KEYS)
class Model:
    """A model of the pipeline."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: Parameters


@dataclass(frozen=True, config=_KEYS)
class Settings:
    """Settings of the pipeline."""

    frequency: Positive | None = None  # Hz


@dataclass(frozen=True, config=_KEYS)
class Pipeline:
    """The connections of models; a place is `model/tensor`."""

    data_flow: dict[Text, _Names] = Field(default_factory=dict)  # source to targets
    feedback_flow: dict[Text, _Names] = Field(default_factory=dict)  # the same, a tick later
    configs: Settings = Field(default_factory=Settings)
    initial_values: Text | None = None  # file with the values that are fed back at first


@dataclass(frozen=True, config=_KEYS)
class LeappFile:
    """The YAML of an export with one model."""

    path: Path
    model_name: str
    model: Model
    pipeline: Pipeline

    @property
    def model_path(self) -> Path:
        """The ONNX file.

        Raises:
            UserError: it would be outside of the folder.
        """
        return self._beside(self.model.parameters.model_path)

    def _beside(self, name: str) -> Path:
        path = Path(name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(
                f"{self.path}: {short(name)} leads out of its folder; put the file beside the YAML"
            )
        return self.path.parent / path

    def feedback(self) -> dict[str, str]:
        """Per input that is fed back the output that it is.

        Raises:
            UserError: it names something else than inputs and outputs of the model.
        """
        found: dict[str, str] = {}
        for source, targets in self.pipeline.feedback_flow.items():
            output = self._tensor(source, self.model.outputs, "output")
            for target in targets:
                found[self._tensor(target, self.model.inputs, "input")] = output
        return found

    def _tensor(self, place: str, known: tuple[Tensor, ...], what: str) -> str:
        places = {f"{self.model_name}/{each.name}": each.name for each in known}
        if place not in places:
            raise unknown(f"{what} of {self.path} that is fed back:", place, places)
        return places[place]

    def initial_values(self) -> dict[str, NDArray[np.float32]]:
        """Per input that is fed back its values on the first tick; empty: no file has any.

        Raises:
            UserError: the file is missing or is none.
        """
        if self.pipeline.initial_values is None:
            return {}
        path = self._beside(self.pipeline.initial_values)
        prefix = f"{self.model_name}/"
        return {k.removeprefix(prefix): values for k, values in _safetensors(path).items()}


_MODELS: TypeAdapter[dict[str, Model]] = TypeAdapter(dict[Text, Model])
_PIPELINE: TypeAdapter[Pipeline] = TypeAdapter(Pipeline)


def read_leapp(path: Path) -> LeappFile:
    """Read LEAPP's YAML of an export with one ONNX model.

    Raises:
        UserError: the file is missing or invalid; or it has several models, or one that is
            no ONNX file.
    """
    data = read_mapping(path)
    system: Any = data.get("system information")
    version = system.get("leapp config version") if isinstance(system, dict) else None
    if str(version) not in VERSIONS:
        raise UserError(
            f"{path}: leapp config version {short(version)} is not known. Valid: "
            f"{', '.join(VERSIONS)}"
        )
    models = validated(_MODELS, data.get("models"), f"{path}: models")
    pipeline = validated(_PIPELINE, data.get("pipeline"), f"{path}: pipeline")
    if len(models) != 1 or pipeline.data_flow:
        raise UserError(
            f"{path}: one model is expected, it has {len(models)} ({listed(models)}) and "
            f"{len(pipeline.data_flow)} connections between models; export the policy as one model"
        )
    ((name, model),) = models.items()
    backend = model.parameters.backend
    if not backend.startswith("onnx"):
        raise UserError(
            f"{path}: backend {backend!r} of model {name!r} is not ONNX. Valid: onnx-dynamo, "
            "onnx-torchscript"
        )
    for tensor in (*model.inputs, *model.outputs):
        if tensor.dtype != "float32":
            raise UserError(f"{path}: {tensor.name!r} is {short(tensor.dtype)}. Valid: float32")
        if len(tensor.shape) < 2 or tensor.shape[0] != 1:
            raise UserError(
                f"{path}: {tensor.name!r} has the shape {[*tensor.shape]}; one row, such as "
                f"[1, {tensor.size}], is expected"
            )
    return LeappFile(path, name, model, pipeline)


def _safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Arrays of a file of safetensors: the length of a JSON header, the header, the values."""
    try:
        data = read_bounded(path, INITIAL_BYTES)
    except UserError as error:
        raise UserError(f"{error}; export both again") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable ({error}); export both again") from None
    length = int.from_bytes(data[:8], "little")
    if not 0 < length <= min(HEADER_BYTES, len(data) - 8):
        raise UserError(
            f"{path}: not a file of safetensors of at most {INITIAL_BYTES} bytes; export both "
            "again"
        )
    header, values = parse_json(data[8 : 8 + length], path), data[8 + length :]
    found = {}
    for name, entry in header.items() if isinstance(header, dict) else ():
        if name == "__metadata__":
            continue
        try:
            begin, end = entry["data_offsets"]
            if entry["dtype"] != "F32" or not 0 <= begin <= end <= len(values):
                raise ValueError
            found[name] = np.frombuffer(values[begin:end], np.float32)
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{path}: {short(name)} is {short(entry)}; 32-bit floats are expected"
            ) from None
    return found
