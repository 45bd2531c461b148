"""From a description and an ONNX file to a bundle of skills, checked against the policy itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
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
from policies.mlsh.config import TrainConfig
from policies.mlsh.presets import default_config
from policies.skill_import.description import SkillDescription, read_description, with_metadata
from policies.skill_import.mapping import SkillMapping, doubts, make_mapping
from policies.skill_import.surgery import join, metadata, read_policy, sizes
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.files.migrations import SCHEMA
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


def import_skills(
    file: Path,
    robot_name: str,
    family: TaskFamily,
    target: Path,
    *,
    name: str,
    decision_ticks: int,
    decision_lead: Literal[0, 1],
    facts: Mapping[str, object],
    overwrite: bool = False,
) -> Imported:
    """Write a bundle whose skills run a policy that was trained elsewhere; it has no master yet.

    Args:
        file: the description.
        robot_name: of the robot that the skills are for, or its folder.
        family: of the tasks that masters will be trained on; its terms are in the observation.
        target: folder of the bundle.
        name: of the bundle.
        decision_ticks: N.
        decision_lead: L.
        facts: of `policies.training.run.environment`, for the provenance.
        overwrite: whether an existing bundle may be replaced.

    Raises:
        UserError: description, policy and robot do not agree, or skill and policy differ.
    """
    check_name("bundle", name)
    robot = load_robot(robot_name)
    check_target(target, overwrite=overwrite)
    description = read_description(file)
    policy = file.parent / description.policy
    model, origin = read_policy(policy)
    description = with_metadata(description, metadata(model, policy), str(file))
    description.check(str(file))
    interface = robot.interface.with_terms(family.terms)
    config = _config(robot_name, family, len(description.skills), decision_ticks, decision_lead)
    files, mappings = {}, {}
    for k, skill in enumerate(description.skills):
        mapping = make_mapping(interface, description, skill, str(file))
        _check_sizes(mapping, sizes(model, policy), str(file))
        data = join(model, mapping, skill)
        _check_file_size(data, len(description.skills), policy)
        check_imported(data, f"skill {skill!r}", mapping.width, interface.action_size)
        files[f"skills/{k}.onnx"], mappings[skill] = data, mapping
    networks = [Network(data, skill) for data, skill in zip(files.values(), mappings, strict=True)]
    own = _policy(policy)
    visited = np.concatenate(
        [
            _visit(robot, family, network, skill, description)
            for network, skill in zip(networks, mappings, strict=True)
        ]
    )
    rng = generator(0, Stream.NOISE, 1)
    random = (3 * rng.standard_normal((RANDOM_ROWS, visited.shape[1]))).astype(np.float32)
    worst = [
        max(
            _difference(own, mapping, network, rows)
            for mapping, network in zip(mappings.values(), networks, strict=True)
        )
        for rows in (random, visited)
    ]
    if not max(worst) <= TOLERANCE:
        raise UserError(
            f"{file}: skill and policy differ by {max(worst):.2g}, at most {TOLERANCE:g} is "
            "accepted; nothing was written"
        )
    golden = visited[rng.choice(len(visited), GOLDEN_ROWS, replace=False)]
    actions = np.stack([network(golden) for network in networks])
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        interface=interface,
        family=Family(family.name, dict(config.family_parameters)),
        decision_ticks=decision_ticks,
        decision_lead=decision_lead,
        skills=tuple(mappings),
        skill_limits={},
        masters={},
        provenance=provenance_of(config, dict(facts), 0, 0),
        files={},
        digest="0" * 64,
        imported={
            skill: Origin(description.license, description.source, origin, constants)
            for skill, constants in description.skills.items()
        },
    )
    contents = {**files, GOLDEN: golden_bytes(Golden(golden, actions, {}, {}))}
    bundle = write_bundle(manifest, contents, target)
    notes = doubts(interface, description, str(file))
    return Imported(bundle, worst[0], worst[1], len(visited), notes)


def _config(
    robot_name: str,
    family: TaskFamily,
    skills: int,
    decision_ticks: int,
    decision_lead: Literal[0, 1],
) -> TrainConfig:
    """Settings with which masters are trained over the skills."""
    config = default_config(family.name, robot_name)
    # Whole episodes; simulations for every skill, although masters choose their own number.
    method = replace(
        config.mlsh,
        skills=skills,
        decision_ticks=decision_ticks,
        decision_lead=decision_lead,
        rollout_ticks=-(-family.ticks // decision_ticks) * decision_ticks,
        envs=max(config.mlsh.envs, 2 * skills),
    )
    default = make_family(family.name)
    names = [each.name for each in fields(family)]  # type: ignore[arg-type]
    changed = {n: getattr(family, n) for n in names if getattr(family, n) != getattr(default, n)}
    return replace(config, mlsh=method, family_parameters=changed)


def _check_sizes(mapping: SkillMapping, policy: tuple[int, int], where: str) -> None:
    for what, own, theirs in (
        ("observation", len(mapping.input.index), policy[0]),
        ("action", len(mapping.output.index), policy[1]),
    ):
        if own != theirs:
            raise UserError(
                f"{where}: the {what} that is described has {own} elements, that of the policy "
                f"has {theirs}"
            )


def _check_file_size(data: bytes, skills: int, policy: Path) -> None:
    """Every skill has all weights of the policy in a file of its own."""
    for size, most, what in (
        (len(data), MAX_FILE_BYTES, "a skill"),
        (len(data) * skills, MAX_BUNDLE_BYTES, f"a bundle of {skills} skills"),
    ):
        if size > most:
            raise UserError(f"{policy}: {what} has {size:,} bytes, at most {most:,} are accepted")


def _policy(path: Path) -> Callable[[Float32], Float32]:
    """The policy as it is, row by row."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (source,), (sink,) = session.get_inputs(), session.get_outputs()

    def run(rows: Float32) -> Float32:
        found = [session.run([sink.name], {source.name: row[None]})[0][0] for row in rows]
        return np.array(found, np.float32)

    return run


def _difference(
    policy: Callable[[Float32], Float32], mapping: SkillMapping, network: Network, rows: Float32
) -> float:
    """Largest difference of actions, relative to those that are larger than 1."""
    worst = 0.0
    for begin in range(0, len(rows), PIECE):
        piece = rows[begin : begin + PIECE]
        output = policy(mapping.input(piece))
        if mapping.output_clip is not None:
            output = np.clip(output, *mapping.output_clip)
        expected = mapping.output(output)
        error = np.abs(network(piece) - expected) / np.maximum(1, np.abs(expected))
        worst = max(worst, float(np.nan_to_num(error, nan=np.inf).max()))
    return worst


def _visit(
    robot: Robot, family: TaskFamily, network: Network, skill: str, description: SkillDescription
) -> Float32:
    """(n, O) observations of simulated robots that are driven by one skill.

    Raises:
        UserError: every one of them leaves the limits of the robot at once, or an action is not
            finite.
    """
    env = TaskVectorEnv(robot, family, groups=1, envs=ENVS, seed=0)
    dt = env.interface.control_dt
    shown, seen = env.reset()[0], []
    within = np.ones(ENVS, bool)
    reason = ""
    for tick in range(max(round(SECONDS / dt), -(-GOLDEN_ROWS // ENVS))):
        seen.append(shown)
        action = network(shown)
        if not np.isfinite(action).all():
            raise UserError(
                f"skill {skill!r}: after {tick * dt:.3g} s in the simulation the output of "
                f"{description.policy} is not finite"
            )
        shown, _, terminated, _, _ = env.step(action)
        if tick < FALLS / dt and within.any():
            time = (tick + 1) * dt
            # The simulation has begun anew where the family ends an episode, as at a fall.
            if (within & terminated).any():
                reason = f"the task ends its episode after {time:.2g} s, as where the robot falls"
            within, reason = _within(env, within & ~terminated, reason, time)
    if not within.any():
        raise UserError(
            f"skill {skill!r} does not keep the robot within its limits for {FALLS:g} s: "
            f"{reason}. Compare joint order, default_positions, scale, gains and rate of "
            f"{description.policy}"
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
