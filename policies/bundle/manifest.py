"""manifest.json of a bundle: what the bundle is, for which robot, and the digest of every file."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, RootModel, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass as checked
from typing_extensions import Self

from policies.bundle.held import Held
from policies.bundle.skill_limits import check_skill_limits
from sim.errors import UserError, short, validated
from sim.files.migrations import check_schema
from sim.files.strict_json import parse_json
from sim.interface import STRICT, Interface, Label, Number, Ranges, Setting
from sim.interface.names import ROBOT
from sim.tasks.task_id import TaskId

MANIFEST, GOLDEN = "manifest.json", "golden.npz"
MAX_FILES = 1000
MAX_DECISION_TICKS = 100_000
MAX_COUNT = 10**15  # of anything that is counted
NAME = ROBOT  # skills, masters, tasks and families are named as robots are
LONGEST_NAME = 100
Name = Annotated[str, Field(pattern=f"^{NAME}$", max_length=LONGEST_NAME)]
Task = Annotated[str, Field(pattern=f"^{NAME}/{NAME}$", max_length=200)]
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@checked(frozen=True, config=STRICT)
class Score:
    """Score of a trained master, greedy, over `episodes` episodes."""

    value: Number  # mean return
    random: Number  # reference returns of the task
    task_blind: Number
    optimum: Number
    episodes: Annotated[Count, Field(ge=1)]

    @model_validator(mode="after")
    def _has_a_scale(self) -> Self:
        if not self.random < self.optimum:
            raise ValueError(f"optimum {self.optimum} is not above random {self.random}")
        return self

    @property
    def normalized(self) -> float:
        """Normalized score: 0 for a random policy, 1 for the optimum."""
        return (self.value - self.random) / (self.optimum - self.random)


@checked(frozen=True, config=STRICT)
class Provenance:
    """Origin of the weights: the data needed to reproduce them."""

    command: str
    seed: Annotated[int, Field(strict=True, ge=-MAX_COUNT, le=MAX_COUNT)]
    steps: Count  # environment steps
    updates: Count
    config: dict[str, Any]
    versions: dict[str, str]
    commit: str | None


@checked(frozen=True, config=STRICT)
class Master:
    """One master of a bundle."""

    task: Task  # family/task
    score: Score
    provenance: Provenance

    @property
    def task_id(self) -> TaskId:
        """Identifier of the master's task."""
        return TaskId.parse(self.task)


@checked(frozen=True, config=STRICT)
class Family:
    """The task family that the skills were trained on."""

    name: Name
    parameters: dict[Label, Setting]


@checked(frozen=True, config=STRICT)
class Origin:
    """Origin of an imported skill."""

    license: str  # under which the policy may be used
    source: str  # where it comes from, and whose it is
    policy: Sha256  # of the ONNX file that was imported
    # Inputs of the policy that this skill holds: at numbers, or elements of an observation term.
    constants: dict[Label, Held]


@checked(frozen=True, config=STRICT)
class Derivation:
    """Origin of a skill that was trained from another one of the bundle."""

    skill: Name  # that its training began with
    kl: Number  # nats, mean divergence of their actions where it was used in training
    kl_limit: Number  # that the training kept
    provenance: Provenance


@checked(frozen=True, config=STRICT)
class Manifest:
    """The bundle's description, as in manifest.json."""

    schema: Literal[2]
    name: Name
    interface: Interface
    family: Family
    decision_ticks: Annotated[int, Field(strict=True, ge=1, le=MAX_DECISION_TICKS)]  # N
    decision_lead: Literal[0, 1]  # L
    # K; skill k is skills/k.onnx
    skills: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_FILES)]
    # Per skill and observation term, narrower than the interface's: who walks must stand upright.
    skill_limits: dict[Name, dict[Label, Ranges]]
    masters: dict[Name, Master]  # at least one, unless all skills are imported
    provenance: Provenance
    files: dict[str, Sha256]
    digest: Sha256  # of the manifest without this entry
    imported: dict[Name, Origin] = field(default_factory=dict)  # skills trained elsewhere
    derived: dict[Name, Derivation] = field(default_factory=dict)  # skills trained from others

    @model_validator(mode="after")
    def _imported_or_with_a_master(self) -> Self:
        if self.imported and {*self.imported} != {*self.skills}:
            raise ValueError(f"imported: {', '.join(self.imported)} are not the skills")
        if not self.masters and not self.imported:
            raise ValueError("masters: at least one is expected")
        return self

    @model_validator(mode="after")
    def _limits_name_what_there_is(self) -> Self:
        if len(set(self.skills)) < len(self.skills):
            raise ValueError(f"skills: a name is given twice: {', '.join(self.skills)}")
        check_skill_limits(self.skill_limits, self.skills, self.interface)
        return self

    @model_validator(mode="after")
    def _derived_from_what_there_is(self) -> Self:
        for name, derivation in self.derived.items():
            order = [each for each in self.skills if each in (derivation.skill, name)]
            if order != [derivation.skill, name]:
                raise ValueError(f"derived: {name} does not follow a skill {derivation.skill}")
            if self.skill_limits.get(name) != self.skill_limits.get(derivation.skill):
                raise ValueError(
                    f"skill_limits: those of {name} are not those of {derivation.skill}, which it "
                    "was trained from"
                )
        return self

    @property
    def skill_files(self) -> tuple[str, ...]:
        """Names of the skills' files, in order."""
        return tuple(f"skills/{k}.onnx" for k in range(len(self.skills)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, floats in full precision."""
        data: dict[str, Any] = RootModel[Manifest](self).model_dump(mode="json")
        for key in ("imported", "derived"):  # later keys, which other bundles do not have
            if not data[key]:
                del data[key]
        return data


def skill_names(count: int) -> tuple[str, ...]:
    """Names of the skills of a new bundle."""
    return tuple(f"skill-{k}" for k in range(count))


def make_manifest(manifest: Manifest, files: dict[str, bytes]) -> Manifest:
    """The manifest with the hashes of `files` and its own digest filled in."""
    listed = replace(manifest, files={name: sha256(data) for name, data in sorted(files.items())})
    return replace(listed, digest=digest_of(listed.to_dict()))


def check_name(kind: str, name: str) -> None:
    """Refuse a name that a manifest cannot have.

    Raises:
        UserError: it is made of something other than letters, digits, - and _, or too long.
    """
    if len(name) > LONGEST_NAME:
        raise UserError(
            f"{kind} name {short(name)} has {len(name)} characters, at most {LONGEST_NAME} are "
            "accepted"
        )
    if not re.fullmatch(NAME, name):
        raise UserError(f"{kind} name {name!r}: letters, digits, - and _ are accepted")


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def digest_of(data: dict[str, Any]) -> str:
    """SHA-256 of a manifest as plain data, without its own entry."""
    rest = {key: value for key, value in data.items() if key != "digest"}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())


def parse_manifest(data: bytes, where: Path) -> Manifest:
    """Returns a checked manifest; `where` is its path, for errors."""
    raw = parse_json(data, where)
    check_schema(raw if isinstance(raw, dict) else {}, MANIFEST, where, where.parent)
    manifest = validated(TypeAdapter(Manifest), raw, where)
    if digest_of(raw) != manifest.digest:
        raise UserError(f"{where}: was changed after it was written (its digest does not match)")
    return manifest


def check_training(manifest: Manifest, where: str) -> None:
    """Check the recorded configurations for N, L and the task, which golden rows lack."""
    method = {
        "skills": len(manifest.skills),
        "decision_ticks": manifest.decision_ticks,
        "decision_lead": manifest.decision_lead,
    }
    own: dict[str, Any] = {
        "family": manifest.family.name,
        "family_parameters": manifest.family.parameters,
    }
    # A master may have been trained before a skill was derived.
    known = range(len(manifest.skills) - len(manifest.derived), len(manifest.skills))
    stated = [("provenance", manifest.provenance, own)]
    for name, master in manifest.masters.items():
        family: dict[str, Any] = {"family": master.task_id.family}
        stated.append((f"masters.{name}.provenance", master.provenance, family))
    for key, provenance, top in stated:
        config = provenance.config
        for part, values in ((config, top), (config.get("mlsh"), method)):
            for name, value in values.items():
                recorded = part.get(name, value) if isinstance(part, dict) else value
                if recorded != value and not (name == "skills" and recorded in known):
                    raise UserError(
                        f"{where}: says {name} {short(value)}, but {key} was trained with "
                        f"{short(recorded)}"
                    )
