"""`SkillDescription`: inputs and outputs of a policy of another trainer, from a YAML file.

Metadata that exporters of mjlab and Isaac Lab write into an ONNX file replace keys that the YAML
file does not have; if both state the same thing, they have to agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from policies.bundle.held import Held
from policies.bundle.manifest import Name
from sim.errors import UserError, invalid, short, validated
from sim.files.migrations import check_number
from sim.files.strict_json import parse_json
from sim.files.strict_yaml import read_mapping
from sim.interface import STRICT, Label, Number, Positive, Range, Text
from sim.interface.validators import NonNegatives, NonZeros, Numbers, check_range

POSE = "default_positions"
DECIMALS = 3  # of numbers in metadata, or more if they are written with more
SAME = 1e-6  # relative, of numbers that have to be equal
KINDS = ("position", "velocity")
YAML = (".yaml", ".yml", ".json")
# Key of the description, key of the metadata, whether it is numbers.
METADATA = (
    ("joints", "joint_names", False),
    ("default_positions", "default_joint_pos", True),
    ("stiffness", "joint_stiffness", True),
    ("damping", "joint_damping", True),
)


@dataclass(frozen=True, config=STRICT)
class Input:
    """A part of the policy's input: scale * (value - offset). One of three sources is given."""

    # An observation term of robot.yaml, in its unit. One of joints is in the order of `joints`.
    term: Label | None = None
    constant: Label | None = None  # name of values that every skill states in `skills`
    previous_action: bool = False  # true: the policy's own last output, zeros at the start
    scale: NonZeros = 1.0  # factor: a number, or a list per element
    # Subtracted before scaling: a number, a list per element, or `default_positions`.
    offset: Numbers | Literal["default_positions"] = 0.0

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [self.term is not None, self.constant is not None, self.previous_action]
        if sum(given) != 1:
            raise ValueError("give exactly one of term, constant, previous_action: true")
        return self


@dataclass(frozen=True, config=STRICT)
class InputHistory:
    """Inputs of several ticks, the present one among them."""

    ticks: Annotated[int, Field(strict=True, ge=2, le=1000)]  # number, the present one included
    order: Literal["oldest_first", "newest_first"]  # order of the ticks
    layout: Literal["by_term", "by_tick"]  # as `layout` of History in robot.yaml
    start: Literal["first_values", "zeros"]  # values for ticks before the first


def _kind(value: object) -> object:
    if value not in KINDS:
        raise ValueError(
            f"{short(value)} cannot be commanded by a skill. Valid: {', '.join(KINDS)}; train the "
            "policy with targets of one of these kinds"
        )
    return value


@dataclass(frozen=True, config=STRICT)
class Output:
    """The policy's output: targets, default + scale * output."""

    # Position targets of `joints` around `default_positions`, or velocities around zero.
    kind: Annotated[Literal["position", "velocity"], BeforeValidator(_kind)]
    # Factor of the output: a number, or a list per element; null: that of the ONNX metadata.
    scale: NonZeros | None = None
    clip: Range | None = None  # range of the output before scaling; null: not clipped
    # With the kind `velocity`: action terms of robot.yaml, in the order of the policy.
    terms: tuple[Label, ...] = ()
    output: Text | None = None  # name of the output, if the ONNX file has several

    @model_validator(mode="after")
    def _terms_are_of_velocities(self) -> Self:
        if self.kind == "velocity" and not self.terms:
            raise ValueError("terms: list the action terms of robot.yaml that it commands")
        if self.kind == "position" and self.terms:
            raise ValueError("terms are of kind velocity; name those of positions in `joints`")
        return self

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.clip is not None:
            check_range("action", "clip", self.clip)
        return self


@dataclass(frozen=True, config=STRICT)
class SkillDescription:
    """The keys of the file, beside `schema`."""

    policy: Text  # path of the ONNX file, relative to this one
    license: Text  # license of the policy, such as Apache-2.0
    source: Text  # origin and owner of the policy
    control_dt: Positive  # s, time between two actions of the policy
    # Inputs, in the order of the policy.
    observation: Annotated[tuple[Input, ...], Field(min_length=1)]
    action: Output  # meaning of the output
    # For each skill the value of every constant: numbers, or elements of an observation term.
    skills: Annotated[dict[Name, dict[Label, Held]], Field(min_length=1)]
    joints: tuple[Text, ...] = ()  # names of the joints, in the order of the policy
    default_positions: tuple[Number, ...] = ()  # positions of the joints for an output of 0
    stiffness: NonNegatives | None = None  # gains of the position servos; null: not stated
    damping: NonNegatives | None = None  # gains of the position servos; null: not stated
    history: InputHistory | None = None  # inputs of several ticks; null: of one tick
    observation_clip: Range | None = None  # range of every input; null: not clipped

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.observation_clip is not None:
            check_range("observation", "observation_clip", self.observation_clip)
        return self

    def check(self, where: str) -> None:
        """Refuse joints without a default, and skills that do not state every constant.

        Raises:
            UserError: names what is missing.
        """
        if self.action.kind == "position" and not self.joints:
            raise UserError(
                f"{where}: joints: the names of the policy's joints are missing; list them in its "
                "order"
            )
        if self.action.kind == "velocity" and (self.stiffness, self.damping) != (None, None):
            raise UserError(
                f"{where}: stiffness and damping are those of position servos; leave them out for "
                "the kind velocity"
            )
        if len({*self.joints}) < len(self.joints):
            twice = next(name for name in self.joints if self.joints.count(name) > 1)
            raise UserError(
                f"{where}: joint {twice!r} is given twice in `joints`; name each once, in the "
                "policy's order"
            )
        for key in ("default_positions", "stiffness", "damping"):
            value = getattr(self, key)
            many = value if isinstance(value, tuple) else None
            if many is not None and len(many) != len(self.joints):
                raise UserError(
                    f"{where}: {key} has {len(many)} values for {len(self.joints)} joints; give "
                    "one for each"
                )
        constants = {each.constant for each in self.observation if each.constant}
        sizes: dict[str, int] = {}
        for skill, values in self.skills.items():
            if wrong := sorted(constants ^ set(values)):
                raise UserError(
                    f"{where}: skill {skill!r} states the constants {sorted(values)}, the policy "
                    f"takes {sorted(constants)}; {wrong[0]!r} is in one of them only: give it a "
                    "value in each skill, and an entry in `observation`"
                )
            for name, held in values.items():
                if len(held) != sizes.setdefault(name, len(held)):
                    raise UserError(
                        f"{where}: constant {name!r} of skill {skill!r} has {len(held)} "
                        f"values, {sizes[name]} in another skill; give it as many in each"
                    )


@dataclass(frozen=True, config=STRICT)
class LeappDescription:
    """The keys of a file that names LEAPP's YAML, beside `schema`.

    It has only what LEAPP's YAML does not state.
    """

    leapp: Text  # path of LEAPP's YAML, relative to this file
    license: Text  # license of the policy, such as Apache-2.0
    source: Text  # origin and owner of the policy
    # For each skill the value of every command that is an input: numbers, or elements of an
    # observation term.
    skills: Annotated[dict[Name, dict[Label, Held]], Field(min_length=1)]
    # s, time between two actions of the policy; null: 1 / the frequency in LEAPP's YAML.
    control_dt: Positive | None = None
    # Observation term of robot.yaml for each input that LEAPP's YAML does not determine.
    terms: dict[Text, Label] = Field(default_factory=dict)


_ADAPTER = TypeAdapter(SkillDescription)
_LEAPP = TypeAdapter(LeappDescription)


def read_description(path: Path) -> SkillDescription | LeappDescription:
    """Read a description; `with_metadata` and `SkillDescription.check` come after.

    Raises:
        UserError: the file is missing or invalid; one line.
    """
    try:
        data = read_mapping(path)
    except UserError as error:
        if path.suffix.lower() in YAML or not path.is_file():
            raise
        raise UserError(
            f"{error}; give the YAML file that describes the policy, and name the ONNX file as "
            "`policy` in it"
        ) from None
    check_number(data.pop("schema", None), path)
    if "leapp" in data:
        return validated(_LEAPP, data, path)
    return validated(_ADAPTER, data, path)


def with_metadata(
    description: SkillDescription, metadata: Mapping[str, str], where: str
) -> SkillDescription:
    """Fill in what a description leaves out from the metadata of the ONNX file.

    `observation_names` cannot stand for `observation`: a name says neither the unit of an input
    nor its scale, offset, frame or history, and names are the exporter's own, so that only their
    number is compared. Numbers in metadata are taken as they are written, with three decimals or
    more; those of the description agree with them if they are the same when rounded alike.

    Args:
        description: of the policy.
        metadata: of the ONNX file, as text.
        where: the description, for errors.

    Raises:
        UserError: description and metadata state different values.
    """
    found: dict[str, Any] = {}
    for key, name, numbers in METADATA:
        if (text := metadata.get(name, "").strip()) == "":
            continue
        said = _values(text, name, where) if numbers else tuple(_parts(text))
        if not said:
            raise UserError(
                f"{where}: the policy's metadata {name} is an empty list; remove it from the ONNX "
                f"file, and state {key} here"
            )
        own = getattr(description, key)
        if own is None or own == ():
            found[key] = said
        else:
            _agree(own, said, _parts(text), f"{where}: {key}", name)
    scales: float | tuple[float, ...] | None = None
    if text := metadata.get("action_scale", "").strip():
        said = _values(text, "action_scale", where)
        if (scale := description.action.scale) is None:
            scales = said[0] if len(said) == 1 else said
        else:
            _agree(scale, said, _parts(text), f"{where}: action.scale", "action_scale")
    if (text := metadata.get("observation_names", "").strip()) and (
        len(names := _parts(text)) != len(description.observation)
    ):
        raise UserError(
            f"{where}: observation has {len(description.observation)} entries, the metadata of "
            f"the policy names {len(names)}: {', '.join(names)}; give one entry for each"
        )
    try:
        if scales is not None:
            found["action"] = replace(description.action, scale=scales)
        return replace(description, **found)
    except ValidationError as error:
        raise invalid(f"{where}: the policy's metadata", error) from None


def _parts(text: str) -> list[str]:
    """Texts of a list, whether it was written as JSON or with commas."""
    try:
        data = parse_json(text.encode(), "a list")
    except UserError:
        return [part.strip() for part in text.split(",")]
    return [str(part) for part in data] if isinstance(data, list) else [text]


def _values(text: str, name: str, where: str) -> tuple[float, ...]:
    try:
        values = tuple(_number(part) for part in _parts(text))
    except ValueError:
        values = (float("nan"),)
    if not values or not np.isfinite(values).all():
        raise UserError(
            f"{where}: the policy's metadata {name} is {short(text)}, no numbers; correct it in "
            "the ONNX file, or remove it there"
        )
    return values


def _number(text: str) -> float:
    if "_" in text:
        raise ValueError  # 1_0 is a number to Python alone
    return float(text)


def _half_a_digit(text: str) -> float:
    """Half of the last decimal with which a number was written, of the third or a later one."""
    exponent = Decimal(text.strip()).as_tuple().exponent
    decimals = max(DECIMALS, -exponent) if isinstance(exponent, int) else DECIMALS
    return 0.5 * 10.0**-decimals


def _agree(own: Any, said: Any, written: Sequence[str], where: str, name: str) -> None:
    if isinstance(said[0], str):
        same = tuple(own) == said
    else:
        mine, other = np.atleast_1d(own), np.atleast_1d(said)
        fits = 1 in (mine.size, other.size) or mine.size == other.size
        bound = np.array([_half_a_digit(text) for text in written])
        same = fits and bool(
            (np.abs(mine - other) <= bound + SAME * np.maximum(np.abs(other), bound)).all()
        )
    if not same:
        raise UserError(
            f"{where} is {short(own)}, the policy's metadata {name} is {short(said)}; correct the "
            "description, or give the policy that it describes"
        )
