"""Bindings: topics, message types and fields of a robot, in place of those of its robot.yaml.

A policy is trained on terms: names, units, order, scales and limits. It does not depend on the
topic, the message type and the fields that carry them, so that a file may replace that part of the
interface without another training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, RootModel, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.errors import UserError, invalid, unknown, validated
from sim.files.migrations import check_number
from sim.files.strict_yaml import read_mapping
from sim.interface.interface import Interface
from sim.interface.message_paths import PathText
from sim.interface.message_quantities import cores, meaning_of
from sim.interface.names import LONGEST, Label, RobotName, Topic
from sim.interface.term_sources import FIELD, TYPE, RequiredValues, RosField
from sim.interface.terms import ActionTerm, ObservationTerm
from sim.interface.validators import STRICT

Term = TypeVar("Term", ObservationTerm, ActionTerm)


@dataclass(frozen=True, config=STRICT)
class Binding:
    """The entries of a term's `ros` that are replaced; null: it stays as it is."""

    topic: Topic | None = None
    type: Annotated[str, Field(pattern=TYPE, max_length=LONGEST)] | None = None
    fields: tuple[PathText, ...] | None = None  # one for each element of the term, in its order
    required_values: RequiredValues | None = None
    names: Annotated[str, Field(pattern=FIELD, max_length=LONGEST)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.type is not None and self.fields is None:
            raise ValueError("another type needs fields: where its values are in that message")
        return self

    def of(self, ros: RosField) -> RosField:
        """Returns `ros` with these entries replaced.

        The required values and the name of the array of names belong to a type of message: those
        of another type are not kept.
        """
        if self.type not in (None, ros.type):
            ros = replace(ros, required_values=(), names=None)
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(ros, **{name: v for name, v in given.items() if v is not None})


@dataclass(frozen=True, config=STRICT)
class Bindings:
    """Bindings of a robot's terms, by the name of the term."""

    robot: RobotName  # whose terms they are
    observation: dict[Label, Binding] = Field(default_factory=dict)
    action: dict[Label, Binding] = Field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which `bindings_from_dict` reads back equal."""
        data: dict[str, Any] = RootModel[Bindings](self).model_dump(mode="json", exclude_none=True)
        return data


_ADAPTER = TypeAdapter(Bindings)


def read_bindings(path: Path) -> Bindings:
    """Read a file of bindings.

    Raises:
        UserError: it is missing, no YAML mapping, of another schema, or invalid.
    """
    data = read_mapping(path)
    check_number(data.pop("schema", None), path)
    return bindings_from_dict(data, str(path))


def bindings_from_dict(data: object, where: str) -> Bindings:
    """Validate plain data.

    Raises:
        UserError: one line that names `where` and the key.
    """
    return validated(_ADAPTER, data, where)


def bind(interface: Interface, bindings: Bindings, where: object) -> Interface:
    """Returns the interface with the bindings in place of its own.

    Args:
        interface: of the robot, or of the robot with the terms of a task family.
        bindings: for the same robot.
        where: what they are called in an error.

    Raises:
        UserError: they are of another robot, name a term that it does not have, or the result
            would not be a valid interface.
    """
    if bindings.robot != interface.robot:
        raise UserError(
            f"{where}: is for robot {bindings.robot!r}, and this is {interface.robot!r}"
        )
    try:
        return replace(
            interface,
            observation=_bound("observation", interface.observation, bindings.observation, where),
            action=_bound("action", interface.action, bindings.action, where),
        )
    except ValidationError as error:
        text = str(invalid(str(where), error))
        raise UserError(text.replace(": top level: ", ": ", 1)) from None  # a term is named


def _check_elements(where: str, term: ObservationTerm | ActionTerm, binding: Binding) -> None:
    """Refuse fields that would give the term's elements another order, or another quantity.

    In simulation it could not be seen: there the simulator writes the fields that the nodes read.
    Names that the term does not have, and elements by number, say nothing.
    """
    fields_of_both = term.ros.fields, binding.fields or ()
    own, given = ([meaning_of(path) for path in side] for side in fields_of_both)
    before, after = (_comparable([each.label for each in side]) for side in (own, given))
    for i, (path, new, old) in enumerate(zip(binding.fields or (), given, own, strict=False)):
        if after[i] and after[i] != before[i] and after[i] in before:
            raise UserError(
                f"{where}: fields: {path} stands for element {i}, which is {term.ros.fields[i]}; "
                f"{new.label!r} is element {before.index(after[i])}. The order of a term cannot "
                "be replaced"
            )
        if new.contradicts(old):
            raise UserError(
                f"{where}: fields: {path} is {new.quantity}, and element {i} is {old.quantity}, "
                f"as {term.ros.fields[i]}. The quantity of a term cannot be replaced"
            )


def _comparable(labels: list[str]) -> list[str]:
    """Labels without what they have in common, such as a driver's prefix of all joints."""
    return cores(labels) if all(labels) and len({*labels}) > 1 else labels


def _bound(
    kind: str, terms: tuple[Term, ...], bindings: Mapping[str, Binding], where: object
) -> tuple[Term, ...]:
    names = [term.name for term in terms]
    for name in bindings:
        if name not in names:
            raise UserError(f"{where}: {unknown(f'{kind} term', name, names)}")
    for term in terms:
        if term.name in bindings and bindings[term.name].fields is not None:
            _check_elements(f"{where}: {kind} term {term.name!r}", term, bindings[term.name])
    return tuple(
        replace(term, ros=bindings[term.name].of(term.ros)) if term.name in bindings else term
        for term in terms
    )
