"""Skills of a bundle of this project, taken into a bundle for another task family."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from policies.bundle.bundle import Bundle
from policies.bundle.manifest import Origin, sha256
from policies.bundle.robot_compatibility import difference
from policies.bundle.runtime import Network, load_skills
from policies.skill_import.comparison import Skill
from policies.skill_import.original import PolicyFile
from policies.skill_import.reading import accepted
from policies.skill_import.selection import Selection, SkillMapping
from policies.skill_import.surgery import join
from sim.errors import UserError, short
from sim.interface import ActionTerm, Interface, ObservationTerm

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class OwnSkill:
    """A skill as its bundle has it, the reference for the one that is made of it."""

    network: Network

    direction = ()

    def __call__(self, rows: Float32) -> Float32:
        """The actions (n, A) for observations (n, O) of the bundle."""
        return self.network(rows)


def skills_of(bundle: Bundle, interface: Interface) -> Iterator[tuple[str, Skill]]:
    """Yields the skills of a bundle, with their names, for another interface of the same robot.

    A skill sees the elements that it was trained with, wherever they are in the other observation,
    and none of the others.

    Raises:
        UserError: the other interface lacks a term of the bundle's, or has another one; it has
            other actions.
    """
    mapping, networks = _mapping(bundle, interface), load_skills(bundle)
    for k, name in enumerate(bundle.manifest.skills):
        path = bundle.source / bundle.manifest.skill_files[k]
        model = accepted(onnx.load_from_string(bundle.skills[k]), path)
        data = join(model, mapping, name, str(path))
        digest = sha256(bundle.skills[k])
        policy = PolicyFile(bundle.source, path, model, digest, OwnSkill(networks[k]))
        origin = _origin(bundle, name, digest)
        yield name, Skill(policy, mapping, data, Network(data, name), origin)


def _origin(bundle: Bundle, skill: str, digest: str) -> Origin:
    """Origin of a skill: what the bundle says of it, or the training of the bundle."""
    manifest = bundle.manifest
    if (known := manifest.imported.get(skill)) is not None:
        return known
    derived = manifest.derived.get(skill)
    trained = manifest.provenance if derived is None else derived.provenance
    parent = "" if derived is None else f", from {derived.skill}"
    return Origin(
        license="that of the bundle",
        source=f"bundle {manifest.name}, {manifest.digest[:12]}{parent}: {trained.command}",
        policy=digest,
        constants={},
    )


def _mapping(bundle: Bundle, interface: Interface) -> SkillMapping:
    """The elements of the bundle's observation among those of the other interface."""
    own = bundle.interface
    _check_terms(bundle, interface)
    places = {name: i for i, name in enumerate(interface.observation_names)}
    index = np.array([places[name] for name in own.observation_names], np.int64)
    return SkillMapping(
        input=_plain(index),
        output=_plain(np.arange(interface.action_size)),
        output_clip=None,
        width=len(interface.observation_names),
    )


def _plain(index: NDArray[np.int64]) -> Selection:
    return Selection(index, np.ones(len(index)), np.zeros(len(index)))


def _check_terms(bundle: Bundle, interface: Interface) -> None:
    offered, own = _terms(interface), _terms(bundle.interface)
    for (kind, name), term in own.items():
        there = offered.get((kind, name))
        if there is None:
            raise UserError(
                f"{bundle.source}: its skills need {kind} term {name!r}, which robot "
                f"{interface.robot!r} does not have with this task family; give the robot that "
                "they were trained for, or train skills for this one. It has: "
                f"{', '.join(other for what, other in offered if what == kind)}"
            )
        if there != term:
            key, wanted, given = difference(term, there) or ("", term, there)
            raise UserError(
                f"{bundle.source}: {kind} term {name}{key} is {short(wanted, 100)} for its "
                f"skills, and {short(given, 100)} for robot {interface.robot!r} with this family; "
                "give the robot that they were trained for"
            )
    for key in ("control_dt", "action_names", "computed"):
        wanted, given = getattr(bundle.interface, key), getattr(interface, key)
        if wanted != given:
            raise UserError(
                f"{bundle.source}: {key} is {short(wanted, 100)} for its skills, and "
                f"{short(given, 100)} for robot {interface.robot!r}; give the robot that they "
                "were trained for"
            )


def _terms(interface: Interface) -> dict[tuple[str, str], ObservationTerm | ActionTerm]:
    """Terms by kind and name: an observation and an action may have the same name."""
    seen = {("observation", term.name): term for term in interface.observation}
    return seen | {("action", term.name): term for term in interface.action}


def is_bundle(given: Path) -> bool:
    """True if what was given names a bundle; false: the file of a description."""
    named = not given.suffix and not given.is_file()  # as shipped ones are, or no such one
    return named or given.is_dir() or given.suffix.lower() == ".zip"
