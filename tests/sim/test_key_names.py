"""Errors of a file name the key that is meant, and what is empty, however deep it stands."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Discriminator, Field, Tag, TypeAdapter
from pydantic.dataclasses import dataclass

from sim.errors import UserError, validated
from sim.interface.validators import STRICT
from sim.key_names import key_names


@dataclass(frozen=True, config=STRICT)
class Servo:
    kind: Literal["servo"]
    stiffness: float = 1.0


@dataclass(frozen=True, config=STRICT)
class Motor:
    kind: Literal["motor"]
    torque: float = 1.0


@dataclass(frozen=True, config=STRICT)
class Robot:
    name: str
    masses: Annotated[dict[str, float], Field(min_length=1)] = Field(default_factory=dict)
    pair: Annotated[tuple[float, ...], Field(min_length=2)] = (0.0, 0.0)
    tagged: Annotated[
        Annotated[Servo, Tag("servo")] | Annotated[Motor, Tag("motor")],
        Discriminator(lambda value: value["kind"]),
    ] = Servo("servo")
    listed: list[Servo] = Field(default_factory=list)
    named: dict[str, Servo | None] = Field(default_factory=dict)
    inner: Robot | None = None


ADAPTER = TypeAdapter(Robot)
KEYS = ("name", "masses", "pair", "tagged", "listed", "named", "inner")


@pytest.mark.parametrize(
    ("place", "keys"),
    [
        ((), KEYS),
        (("listed", 3), ("kind", "stiffness")),
        (("named", "left"), ("kind", "stiffness")),
        (("named", "left", "Servo"), ("kind", "stiffness")),  # the label of an alternative
        (("tagged",), ("kind", "stiffness", "torque")),
        (("inner", "inner"), KEYS),  # it refers to itself
        (("name",), ()),
        (("masses",), ()),  # any key is valid
    ],
)
def test_the_valid_keys_of_a_place(place, keys):
    assert key_names(ADAPTER, place) == keys


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"nam": "go2"}, "no key 'nam'. Did you mean 'name'? Valid: name, masses, pair, "),
        ({"listed": [{"kind": "servo", "stifness": 2}]}, "listed.0: no key 'stifness'. Did you "),
        ({"inner": {"name": "b", "inner": {"name": "c", "x": 1}}}, "inner.inner: no key 'x'. "),
        ({"masses": {}}, "masses is empty"),
        ({"masses": None}, "masses is empty"),
        ({"masses": {"a": None}}, "masses.a is empty"),
        ({"name": None}, "name is empty"),
        ({"name": ""}, "name is empty"),
        ({"pair": []}, "pair: at least 2 entries are expected, got"),  # one is not enough
        ({"pair": [1]}, "pair: at least 2 entries are expected, got"),
    ],
)
def test_what_is_wrong_is_named(data, said):
    with pytest.raises(UserError) as raised:
        validated(ADAPTER, {"name": "a", **data}, "robot.yaml")
    assert str(raised.value).startswith(f"robot.yaml: {said}")
