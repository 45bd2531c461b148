"""Makes a bundle of skills from a description and an ONNX file; compares it with the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policies.bundle.bundle import Bundle, check_target, write_bundle
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
from policies.bundle.runtime import TOLERANCE, Network
from policies.mlsh.config import TrainConfig, touches
from policies.mlsh.presets import default_config
from policies.skill_import.description import (
    Elements,
    LeappDescription,
    read_description,
    with_metadata,
)
from policies.skill_import.leapp import translate
from policies.skill_import.mapping import doubts, entries, make_mapping
from policies.skill_import.original import ForeignPolicy, OneInput, with_length_one
from policies.skill_import.reading import metadata, read_policy, sizes
from policies.skill_import.selection import SkillMapping
from policies.skill_import.surgery import join
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError, listed, short
from sim.files.migrations import SCHEMA
from sim.interface import Interface
from sim.physics.robot_model import Robot, load_robot
from sim.seeding import Stream, generator
from sim.tasks.base import TaskFamily
from sim.tasks.registry import make_family

Float32 = NDArray[np.float32]
GOLDEN_ROWS, RANDOM_ROWS = 64, 10_000
ENVS = 16  # simulations in which each skill is tried
SECONDS = 2.0  # for which it is tried, or as many ticks as give enough golden rows
FALLS = 1.0  # s; a policy that leaves the robot's limits before this everywhere is refused
PIECE = 500  # random rows that run at a time


@dataclass(frozen=True)
class Imported:
    """Result of an import."""

    bundle: Bundle
    random: float  # largest difference between policy and skill on random observations
    visited: float  # and on observations of the simulated robot
    rows: int  # number of those
    doubts: list[str]  # one line each


@dataclass(frozen=True)
class _Skill:
    """A skill that runs a policy."""

    policy: ForeignPolicy
    mapping: SkillMapping
    data: bytes  # its ONNX file
    network: Network


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
    overwrite: bool = False,
) -> Imported:
    """Write a bundle whose skills run policies that were trained elsewhere; it has no master yet.

    Args:
        descriptions: file of each policy's description; the skills are in this order.
        robot_name: of the robot that the skills are for, or its folder.
        family_name: of the tasks that masters will be trained on; the family's terms are in the
            observation.
        target: folder of the bundle.
        name: of the bundle.
        decision_ticks: N.
        decision_lead: L.
        facts: of `policies.training.run.environment`, for the provenance.
        settings: `family_parameters.key=value`, with which masters are trained.
        overwrite: whether an existing bundle may be replaced.

    Raises:
        UserError: description, policy and robot do not agree, a setting is invalid or of something
            else than the family, or skill and policy differ.
    """
    check_name("bundle", name)
    robot = load_robot(robot_name)
    check_target(target, overwrite=overwrite)
    plain = _with_parameters(default_config(family_name, robot_name), settings)
    family = make_family(family_name, plain.family_parameters)
    interface = robot.interface.with_terms(family.terms)
    given = [_read(file, interface) for file in descriptions]
    skills = _skills(given, interface)
    config = _config(plain, family, len(skills), decision_ticks, decision_lead)
    visited = np.concatenate([_visit(robot, family, each, k) for k, each in skills.items()])
    rng = generator(0, Stream.NOISE, 1)
    random = (3 * rng.standard_normal((RANDOM_ROWS, visited.shape[1]))).astype(np.float32)
    # (skills, 2) on both kinds of observations
    differences = np.array(
        [[_difference(each, rows) for rows in (random, visited)] for each in skills.values()]
    )
    if not (worst := differences.max(axis=1)).max() <= TOLERANCE:
        skill, each = list(skills.items())[int(np.argmax(worst))]
        raise UserError(
            f"{each.policy.file}: skill {skill!r} and its policy differ by {worst.max():.2g}, at "
            f"most {TOLERANCE:g} is accepted; nothing was written. Compare observation_clip and "
            "action.clip with the training: without them rounding may have this effect"
        )
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
        skill_limits={},
        masters={},
        provenance=provenance_of(config, dict(facts), 0, 0),
        files={},
        digest="0" * 64,
        imported={skill: _origin(skill, each.policy) for skill, each in skills.items()},
    )
    files = {f"skills/{k}.onnx": each.data for k, each in enumerate(skills.values())}
    contents = {**files, GOLDEN: golden_bytes(Golden(golden, actions, {}, {}))}
    bundle = write_bundle(manifest, contents, target, overwrite=overwrite)
    notes = [
        note for each in given for note in doubts(interface, each.description, str(each.file))
    ]
    on_random, on_visited = (float(each) for each in differences.max(axis=0))
    return Imported(bundle, on_random, on_visited, len(visited), list(dict.fromkeys(notes)))


def _read(file: Path, interface: Interface) -> ForeignPolicy:
    """Read a description and its policy."""
    description = read_description(file)
    if isinstance(description, LeappDescription):
        policy = translate(description, file, interface)
    else:
        path = file.parent / description.policy
        model, digest = read_policy(path, description.action.output)
        description = with_metadata(description, metadata(model, path), str(file))
        original = OneInput(path, description.action.output)
        policy = ForeignPolicy(file, description, path, model, digest, original)
    policy.description.check(str(file))
    return policy


def _skills(given: Sequence[ForeignPolicy], interface: Interface) -> dict[str, _Skill]:
    """All skills of all policies, by name."""
    made: dict[str, _Skill] = {}
    for policy in given:
        for name in policy.description.skills:
            where = str(policy.file)
            if name in made:
                raise UserError(
                    f"{where}: a skill {name!r} is in {made[name].policy.file} too; give one of "
                    "them another name"
                )
            mapping = make_mapping(interface, policy.description, name, where)
            _check_sizes(policy, mapping, entries(interface, policy.description, name, where))
            data = join(policy.model, mapping, name, str(policy.path))
            every = len(data) + sum(len(each.data) for each in made.values())
            _check_file_size(len(data), every, len(made) + 1, policy.path)
            _check_graph(data, f"{policy.path}: skill {name!r}", mapping, interface)
            made[name] = _Skill(policy, mapping, data, Network(data, name))
    return made


def _origin(skill: str, policy: ForeignPolicy) -> Origin:
    described = policy.description
    held = described.skills[skill].items()
    numbers = {name: each for name, each in held if not isinstance(each, Elements)}
    return Origin(described.license, described.source, policy.digest, numbers)


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


def _difference(skill: _Skill, rows: Float32) -> float:
    """Largest difference of actions, relative to those that are larger than 1."""
    mapping, original, worst = skill.mapping, skill.policy.original, 0.0
    for begin in range(0, len(rows), PIECE):
        piece = rows[begin : begin + PIECE]
        piece = with_length_one(piece, mapping.input, original.direction)
        output = original(mapping.input(piece))
        if mapping.output_clip is not None:
            output = np.clip(output, *mapping.output_clip)
        expected = mapping.output(output)
        error = np.abs(skill.network(piece) - expected) / np.maximum(1, np.abs(expected))
        worst = max(worst, float(np.nan_to_num(error, nan=np.inf).max()))
    return worst


def _visit(robot: Robot, family: TaskFamily, skill: _Skill, name: str) -> Float32:
    """(n, O) observations of simulated robots that are driven by one skill.

    Raises:
        UserError: every one of them leaves the limits of the robot at once, or an action is not
            finite.
    """
    env = TaskVectorEnv(robot, family, groups=1, envs=ENVS, seed=0)
    dt = env.interface.control_dt
    shown, seen = env.reset()[0], []
    within = np.ones(ENVS, bool)
    reason, file = "", skill.policy.description.policy
    for tick in range(max(round(SECONDS / dt), -(-GOLDEN_ROWS // ENVS))):
        seen.append(shown)
        action = skill.network(shown)
        if not np.isfinite(action).all():
            raise UserError(
                f"skill {name!r}: after {tick * dt:.3g} s in the simulation the output of {file} "
                "is not finite; compare scale, offset and observation_clip with the training, or "
                "export an earlier checkpoint"
            )
        shown, _, terminated, truncated, _ = env.step(action)
        if tick < FALLS / dt and within.any():
            time = (tick + 1) * dt
            # There the simulation has begun anew; before its time an episode is truncated where
            # the state is no longer finite.
            ended = terminated | (truncated & (tick + 1 < family.ticks))
            if (within & ended).any():
                reason = (
                    f"its episode ends after {time:.2g} s, as where the robot falls or the "
                    "simulation diverges"
                )
            within, reason = _within(env, within & ~ended, reason, time)
    if not within.any():
        raise UserError(
            f"skill {name!r} does not keep the robot within its limits for {FALLS:g} s: "
            f"{reason}. Compare joint order, default_positions, scale, gains and rate of {file}"
        )
    return np.concatenate(seen)


def _within(
    env: TaskVectorEnv, within: NDArray[np.bool_], reason: str, time: float
) -> tuple[NDArray[np.bool_], str]:
    """Rows that have stayed within the limits of the observation, and what happened to another."""
    shown = env.world.measurements(env.world.true_state())
    for term in env.interface.observation:
        if term.limits is None:
            continue
        values, (low, high) = term.values(shown[term.name]), term.limits
        inside = ((values >= low) & (values <= high)).all(axis=-1)
        if (out := np.flatnonzero(within & ~inside)).size:
            reason = f"{term.name} is {_text(values[out[0]])} {term.unit} after {time:.2g} s"
        within = within & inside
    return within, reason


def _text(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
