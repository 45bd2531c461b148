"""Makes a bundle of skills from descriptions with ONNX files, or bundles; compares them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policies.bundle.bundle import Bundle, check_target, load_bundle, write_bundle
from policies.bundle.bundle_files import MAX_BUNDLE_BYTES, MAX_FILE_BYTES
from policies.bundle.export import provenance_of
from policies.bundle.golden import Golden, golden_bytes
from policies.bundle.imported_graph import check_imported
from policies.bundle.manifest import (
    GOLDEN,
    Family,
    Manifest,
    Origin,
    check_name,
)
from policies.bundle.runtime import Network
from policies.bundle.skill_limits import read_skill_limits
from policies.mlsh.config import TrainConfig, touches
from policies.mlsh.presets import default_config
from policies.skill_import.comparison import Skill, compare, unmoved
from policies.skill_import.description import (
    LeappDescription,
    read_description,
    with_metadata,
)
from policies.skill_import.leapp import translate
from policies.skill_import.mapping import doubts, entries, make_mapping
from policies.skill_import.original import ForeignPolicy, OneInput
from policies.skill_import.own_bundle import is_bundle, skills_of
from policies.skill_import.reading import metadata, read_policy, sizes
from policies.skill_import.rewriting import input_names
from policies.skill_import.selection import SkillMapping
from policies.skill_import.surgery import join
from policies.skill_import.trial import try_skill
from sim.envs.reference_returns import check_scorable
from sim.errors import UserError, listed, short
from sim.files.migrations import SCHEMA
from sim.interface import Interface
from sim.physics.robot_model import load_robot
from sim.seeding import Stream, generator
from sim.tasks.base import TaskFamily
from sim.tasks.registry import make_family

Float32 = NDArray[np.float32]
GOLDEN_ROWS, RANDOM_ROWS = 64, 10_000


@dataclass(frozen=True)
class Imported:
    """Result of an import."""

    bundle: Bundle
    random: float  # largest difference between policy and skill on random observations
    visited: float  # and on observations of the simulated robot
    rows: int  # number of those for each skill
    doubts: list[str]  # one line each


def import_skills(
    descriptions: Sequence[Path],
    robot_name: str,
    family_name: str,
    target: Path,
    *,
    name: str,
    decision_ticks: int,
    decision_lead: Literal[0, 1],
    facts: Mapping[str, object],
    settings: Sequence[str] = (),
    skill_limits: Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Imported:
    """Write a bundle whose skills run policies that were trained elsewhere; it has no master yet.

    Args:
        descriptions: file of each policy's description, or a bundle of this project by name or
            path, all of whose skills are taken; the skills are in this order.
        robot_name: of the robot that the skills are for, or its folder.
        family_name: of the tasks that masters will be trained on; the family's terms are in the
            observation.
        target: folder of the bundle.
        name: of the bundle.
        decision_ticks: N.
        decision_lead: L.
        facts: of `policies.training.run.environment`, for the provenance.
        settings: `family_parameters.key=value`, with which masters are trained.
        skill_limits: a YAML file as `read_skill_limits` reads it, with the names of the skills.
        overwrite: whether an existing bundle may be replaced.
        say: is called with each line of progress.

    Raises:
        UserError: description, policy and robot do not agree; no master could be scored on the
            family with this robot; a setting or a limit is invalid, or a setting is of something
            else than the family; half of the simulated robots fall; skill and policy differ.
    """
    check_name("bundle", name)
    robot = load_robot(robot_name)
    check_target(target, overwrite=overwrite)
    plain = _with_parameters(default_config(family_name, robot_name), settings)
    family = make_family(family_name, plain.family_parameters)
    interface = robot.interface.with_terms(family.terms)
    bundles = {file: load_bundle(str(file)) for file in descriptions if is_bundle(file)}
    given = {file: _read(file, interface) for file in descriptions if file not in bundles}
    skills = _together(
        skills_of(bundles[file], interface) if file in bundles else _skills(given[file], interface)
        for file in descriptions
    )
    check_scorable(robot.interface, family)
    config = _config(plain, family, len(skills), decision_ticks, decision_lead)
    kept = [each.manifest.skill_limits for each in bundles.values()]
    limits = {skill: limit for each in kept for skill, limit in each.items()}
    limits |= read_skill_limits(skill_limits, [*skills], interface) if skill_limits else {}
    tried = []
    for skill, each in skills.items():
        file = each.policy.path.name
        tried.append(try_skill(robot, family, each.network, skill, file, GOLDEN_ROWS))
        say(f"{skill}: {tried[-1].text}")
    visits = [trial.observations for trial in tried]
    visited = np.concatenate(visits)
    rng = generator(0, Stream.NOISE, 1)
    random = (3 * rng.standard_normal((RANDOM_ROWS, visited.shape[1]))).astype(np.float32)
    found = compare(skills, random, visits, rng, say)
    golden = visited[rng.choice(len(visited), GOLDEN_ROWS, replace=False)]
    actions = np.stack([each.network(golden) for each in skills.values()])
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        interface=interface,
        family=Family(family.name, dict(config.family_parameters)),
        decision_ticks=decision_ticks,
        decision_lead=decision_lead,
        skills=tuple(skills),
        skill_limits=limits,
        masters={},
        provenance=provenance_of(config, dict(facts), 0, 0),
        files={},
        digest="0" * 64,
        imported={skill: each.origin for skill, each in skills.items()},
    )
    files = {f"skills/{k}.onnx": each.data for k, each in enumerate(skills.values())}
    contents = {**files, GOLDEN: golden_bytes(Golden(golden, actions, {}, {}))}
    bundle = write_bundle(manifest, contents, target, overwrite=overwrite)
    notes = [
        note
        for each in given.values()
        for note in doubts(interface, each.description, str(each.file))
    ]
    notes += [note for trial in tried for note in trial.notes]
    notes += [note for skill, each in skills.items() for note in unmoved(skill, each, random)]
    return Imported(bundle, found.random, found.visited, found.rows, list(dict.fromkeys(notes)))


def _read(file: Path, interface: Interface) -> ForeignPolicy:
    """Read a description and its policy."""
    description = read_description(file)
    if isinstance(description, LeappDescription):
        policy = translate(description, file, interface)
    else:
        path = file.parent / description.policy
        model, digest = read_policy(path, description.action.output)
        description = with_metadata(description, metadata(model, path), str(file))
        original = OneInput(path, description.action.output, input_names(model)[0])
        policy = ForeignPolicy(file, path, model, digest, original, description)
    policy.description.check(str(file))
    return policy


def _together(given: Iterable[Iterable[tuple[str, Skill]]]) -> dict[str, Skill]:
    """All skills of all policies, by name; made one by one, until they are too large."""
    made: dict[str, Skill] = {}
    for skills in given:
        for name, skill in skills:
            if name in made:
                file, other = skill.policy.file, made[name].policy.file
                if file == other:
                    raise UserError(f"{file}: it is given twice; give each once")
                raise UserError(
                    f"{file}: a skill {name!r} is in {other} too; give one of them another name, "
                    "in a description: those of a bundle are fixed"
                )
            made[name] = skill
            every = sum(len(each.data) for each in made.values())
            _check_file_size(len(skill.data), every, len(made), skill.policy.path)
    return made


def _skills(policy: ForeignPolicy, interface: Interface) -> Iterator[tuple[str, Skill]]:
    """The skills of a policy with their names."""
    for name in policy.description.skills:
        where = str(policy.file)
        mapping = make_mapping(interface, policy.description, name, where)
        _check_sizes(policy, mapping, entries(interface, policy.description, name, where))
        data = join(policy.model, mapping, name, str(policy.path))
        _check_graph(data, f"{policy.path}: skill {name!r}", mapping, interface)
        yield name, Skill(policy, mapping, data, Network(data, name), _origin(name, policy))


def _origin(skill: str, policy: ForeignPolicy) -> Origin:
    described = policy.description
    held = dict(described.skills[skill])
    return Origin(described.license, described.source, policy.digest, held)


def _with_parameters(config: TrainConfig, settings: Sequence[str]) -> TrainConfig:
    """A configuration with parameters of the family, and no other setting, changed."""
    for setting in settings:
        if not touches(setting, "family_parameters"):
            raise UserError(
                f"setting {short(setting)}: nothing is trained here; family_parameters.NAME=VALUE "
                "is accepted, and settings of masters by mlsh finetune"
            )
    return config.with_values([*settings])


def _config(
    config: TrainConfig,
    family: TaskFamily,
    skills: int,
    decision_ticks: int,
    decision_lead: Literal[0, 1],
) -> TrainConfig:
    """Settings with which masters are trained over the skills."""
    # Whole episodes; simulations for every skill, although masters choose their own number.
    method = replace(
        config.mlsh,
        skills=skills,
        decision_ticks=decision_ticks,
        decision_lead=decision_lead,
        rollout_ticks=-(-family.ticks // decision_ticks) * decision_ticks,
        envs=max(config.mlsh.envs, 2 * skills),
    )
    return replace(config, mlsh=method)


def _check_sizes(policy: ForeignPolicy, mapping: SkillMapping, described: Sequence[str]) -> None:
    """Refuse another number of inputs or outputs than the ONNX file has.

    Args:
        policy: with its description.
        mapping: of a skill.
        described: each entry of `observation` with its number of elements.

    Raises:
        UserError: names both numbers, the entries, and what to compare.
    """
    action, history = policy.description.action, policy.description.history
    ticks = "" if history is None else f", each in {history.ticks} ticks"
    driven = "`joints`" if action.kind == "position" else "`action.terms`"
    given, wanted = sizes(policy.model, policy.path)
    for what, own, theirs, change in (
        (
            f"observation that is described ({listed(described)}{ticks})",
            len(mapping.input.index),
            given,
            "give `observation` the entries of the training, in its order",
        ),
        (
            f"action that is described ({listed(action.terms or policy.description.joints)})",
            len(mapping.output.index),
            wanted,
            f"name under {driven} what the policy moves, or its action as `action.output`",
        ),
    ):
        if own != theirs:
            raise UserError(
                f"{policy.file}: the {what} has {own} elements, that of {policy.path} has "
                f"{theirs}; {change}"
            )


def _check_graph(data: bytes, where: str, mapping: SkillMapping, interface: Interface) -> None:
    """Refuse a graph that a loader of the bundle would refuse."""
    try:
        check_imported(data, where, mapping.width, interface.action_size)
    except UserError as error:
        raise UserError(
            f"{error}; export the policy for any number of rows, with shapes that are constants"
        ) from None


def _check_file_size(one: int, every: int, skills: int, policy: Path) -> None:
    """Sizes are in bytes, of skills with their weights in them, as a loader has them."""
    for size, most, what in (
        (one, MAX_FILE_BYTES, "a skill"),
        (every, MAX_BUNDLE_BYTES, f"a bundle of {skills} skills"),
    ):
        if size > most:
            raise UserError(
                f"{policy}: {what} has {size:,} bytes, at most {most:,} are accepted; give a "
                "smaller network or fewer skills"
            )
