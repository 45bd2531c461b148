"""`Rewards`: reward terms with their weights, as a mapping or a YAML file states them.

    track_velocity: {weight: 1.0, sigma: 0.25}
    action_rate: -0.01

A number alone is the weight of a term without parameters. Weights are per tick; 0 leaves a term
out. Every parameter of a term has to be stated, because none of them has a value for all robots.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.errors import UserError, listed, short, unknown
from sim.files.strict_yaml import read_mapping
from sim.interface import LARGEST
from sim.tasks.rewards.terms import TERMS, RewardTerm

WEIGHT = "weight"


@dataclass(frozen=True)
class WeightedTerm:
    """A term, its weight per tick, and its parameters."""

    term: RewardTerm
    weight: float
    parameters: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Rewards:
    """Terms whose weighted values are added to a family's reward; none with a weight of 0."""

    terms: tuple[WeightedTerm, ...]
    own: tuple[RewardTerm, ...] = ()  # terms of a user's, besides those that ship

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms, in order."""
        return tuple(each.term.name for each in self.terms)

    @property
    def best(self) -> float:
        """The sum in a tick in which a robot does just what it is told; costs are neglected."""
        return sum(max(0.0, each.weight) * each.term.best for each in self.terms)

    def to_dict(self) -> dict[str, dict[str, float]]:
        """A mapping that `rewards_from` reads back equal."""
        return {e.term.name: {WEIGHT: e.weight, **dict(e.parameters)} for e in self.terms}


def rewards_from(data: object, own: Iterable[RewardTerm] = (), where: str = "rewards") -> Rewards:
    """Rewards from a mapping of names to weights, or to mappings with parameters.

    Args:
        data: as in the file's docstring.
        own: terms of one's own that it may name too.
        where: it comes from, as an error begins.

    Raises:
        UserError: no such term or parameter, or no finite number; names the valid ones.
    """
    return _read(data, tuple(own), f"{where}: ")


def read_rewards(path: Path, own: Iterable[RewardTerm] = ()) -> Rewards:
    """Rewards from a YAML file; see `rewards_from`."""
    return rewards_from(read_mapping(path), own, str(path))


def changing(rewards: Rewards, data: object) -> Rewards:
    """Rewards of which a mapping changes some weights and parameters, and adds terms.

    A parameter that is not stated stays what it was.

    Raises:
        UserError: as of `rewards_from`, without the name of what it comes from: a parameter of a
            family is named by who reads it.
    """
    if not isinstance(data, Mapping):
        raise _no_mapping(data, "")
    merged: dict[Any, Any] = dict(rewards.to_dict())
    for name, said in data.items():
        change = said if isinstance(said, Mapping) else {WEIGHT: said}
        merged[name] = {**merged.get(name, {}), **change}
    # A term that is left out has no parameters any more.
    left = {name: said for name, said in merged.items() if said.get(WEIGHT) != 0}
    return _read(left, rewards.own, "")


def _read(data: object, own: tuple[RewardTerm, ...], prefix: str) -> Rewards:
    known = {**TERMS, **{term.name: term for term in own}}
    if not isinstance(data, Mapping):
        raise _no_mapping(data, prefix)
    terms = []
    for name, said in data.items():
        if name not in known:
            raise UserError(f"{prefix}{unknown('reward term', name, known)}")
        weighted = _weighted(known[name], said, f"{prefix}{name}")
        if weighted.weight:
            terms.append(weighted)
    return Rewards(tuple(terms), own)


def _no_mapping(data: object, prefix: str) -> UserError:
    return UserError(f"{prefix}{short(data)} is no mapping of reward terms to weights")


def _weighted(term: RewardTerm, said: object, where: str) -> WeightedTerm:
    given: dict[Any, Any] = dict(said) if isinstance(said, Mapping) else {WEIGHT: said}
    wanted = [WEIGHT, *term.parameters]
    if odd := [key for key in given if key not in wanted]:
        raise UserError(f"{where}: {unknown('parameter', odd[0], wanted)}")
    if missing := [key for key in wanted if key not in given]:
        meaning = term.parameters.get(missing[0], "per tick")
        raise UserError(
            f"{where}: {missing[0]} is missing ({meaning}). It takes: {listed(wanted)}"
        )
    for key, value in given.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or abs(value) > LARGEST:
            raise UserError(f"{where}: {key}: a number is expected, got {short(value)}")
        if key != WEIGHT and value <= 0:
            raise UserError(f"{where}: {key}: a positive number is expected, got {short(value)}")
    parameters = tuple((key, float(given[key])) for key in term.parameters)
    return WeightedTerm(term, float(given[WEIGHT]), parameters)
