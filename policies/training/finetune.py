"""More masters for a bundle: the skills are frozen, their files stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policies.bundle.adaptation import Progress
from policies.bundle.bundle import (
    GOLDEN,
    Bundle,
    Golden,
    Master,
    check_name,
    check_target,
    golden_bytes,
    write_bundle,
)
from policies.bundle.export import Parity, check_parity, master_entry, network_bytes, provenance_of
from policies.bundle.onnx_reader import Graph, read_graph
from policies.bundle.runtime import Network
from policies.bundle.task_compatibility import check_fits, robot_of, task_of, tasks_of
from policies.mlsh.actor_critic import Agent, Level, put
from policies.mlsh.config import TrainConfig, config_from_dict
from policies.training.adapt import Adapted, adapt, envs_for_episodes, scored_episodes
from sim.errors import UserError
from sim.files.output import lock_beside, locked
from sim.physics.robot_model import load_robot
from sim.randomization.schema import Reality
from sim.tasks.base import HELD_OUT
from sim.tasks.registry import all_tasks


@dataclass(frozen=True)
class Finetuned:
    """The new bundle and how its new masters were learned."""

    bundle: Bundle
    masters: dict[str, list[Progress]]  # their curves
    adapted: Adapted
    parity: Parity


def finetune(
    bundle: Bundle,
    task: str,
    path: Path,
    *,
    name: str | None = None,
    replacing: bool = False,
    overwrite: bool = False,
    updates: int,
    seed: int,
    robot: str | None = None,
    start_from: str | None = None,
    reality: Reality | None = None,
    settings: Sequence[str] = (),
    episodes: int | None = None,
    facts: dict[str, object],
    on_update: Callable[[list[Progress]], None] = lambda _: None,
) -> Finetuned:
    """Learn a master for `task` and write the bundle that has it as well.

    Args:
        bundle: whose skills are used, and not touched.
        task: family/task, or a family for a master of each of its tasks; it may be another one
            than the skills were trained on, as long as robot and family give the observation
            that the skills take.
        path: the new bundle; may be the old one's folder.
        name: of the new master, by default the task's.
        replacing: masters of the same name, instead of refusing that.
        overwrite: another bundle at `path`, instead of refusing that.
        updates: of each master.
        seed: of everything random.
        robot: name or folder, by default the bundle's.
        start_from: a master of the bundle to start from, by default a fresh one.
        reality: what differs from the nominal model, by default what did in the bundle's training.
        settings: `section.key=value` over the bundle's configuration.
        episodes: whole ones per update, by default 2,000 steps.
        facts: of `policies.training.run.environment`, for the provenance.
        on_update: called with the latest `Progress` of every task.

    Raises:
        UserError: a name is taken, the task does not fit, a setting is not the bundle's, or the
            bundle cannot be written.
    """
    tasks = tasks_of(bundle, task)
    names = _names(bundle, tasks, name, replacing)
    check_target(path, overwrite=overwrite, continued=bundle.manifest)
    config, _ = task_config(bundle, tasks[0], seed=seed, robot=robot, reality=reality)
    config = config.with_values(list(settings))
    _check_decisions(bundle, config)
    numbers = [task_of(bundle, each)[1] for each in tasks]
    start = None
    if start_from is not None:
        start = read_graph(bundle.master(start_from), f"{bundle.source}/masters/{start_from}.onnx")

    def install_masters(agent: Agent) -> None:
        if start is not None:
            for row in range(len(tasks)):
                _install_policy(agent.masters, row, start)

    # Locked, so that no other master is written there meanwhile, which this would take away.
    with locked(lock_beside(path), f"bundle {str(path)!r}"):
        check_target(path, overwrite=overwrite, continued=bundle.manifest)
        adapted = adapt(
            config,
            lambda agent: install_skills(agent, bundle),
            numbers,
            updates=updates,
            envs=None if episodes is None else envs_for_episodes(config, episodes),
            install_masters=None if start is None else install_masters,
            on_update=on_update,
        )
        agent = adapted.learner.agent
        data = [network_bytes(agent.masters, g, agent.normaliser, n) for g, n in enumerate(names)]
        graphs = [(each, agent.masters, g) for g, each in enumerate(data)]
        parity = check_parity(graphs, agent.normaliser, bundle.golden.observation, seed)
        scored = scored_episodes(adapted.learner.family.ticks)
        limits = [adapted.learner.bounds[number] for number in numbers]
        entries = [
            master_entry(
                task,
                curve,
                limit,
                provenance_of(config, facts, curve[-1].steps, curve[-1].updates),
                scored,
            )
            for task, curve, limit in zip(tasks, adapted.curves, limits, strict=True)
        ]
        whole = add_masters(
            bundle, dict(zip(names, zip(entries, data, strict=True), strict=True)), path
        )
        if whole.skill_hashes() != bundle.skill_hashes():
            raise UserError(f"{path}: the skill files changed; the bundle must not be used")
        return Finetuned(whole, dict(zip(names, adapted.curves, strict=True)), adapted, parity)


def _names(bundle: Bundle, tasks: list[str], name: str | None, replacing: bool) -> list[str]:
    if name is not None and len(tasks) > 1:
        raise UserError(
            f"name {name!r}: one name for {len(tasks)} masters, of {tasks[0]} to {tasks[-1]}; "
            f"leave it out, or give one task"
        )
    names = [task.partition("/")[2] for task in tasks] if name is None else [name]
    for each in names:
        check_name("master", each)
        if each in bundle.manifest.masters and not replacing:
            raise UserError(
                f"bundle {bundle.manifest.name!r} has a master {each!r} already; give another "
                f"--name, or --replace it. Taken: {', '.join(bundle.manifest.masters)}"
            )
    return names


def _check_decisions(bundle: Bundle, config: TrainConfig) -> None:
    # One N and one lead for all masters of a bundle: one takes over from another as it drives.
    for key in ("decision_ticks", "decision_lead"):
        given, own = getattr(config.mlsh, key), getattr(bundle.manifest, key)
        if given != own:
            raise UserError(
                f"mlsh.{key} {given}: all masters of bundle {bundle.manifest.name!r} have {own}"
            )


def task_config(
    bundle: Bundle,
    task: str,
    *,
    seed: int,
    robot: str | None = None,
    reality: Reality | None = None,
) -> tuple[TrainConfig, int]:
    """The bundle's own training configuration, turned to another task; and the task's number.

    Raises:
        UserError: no such task; robot and family do not give the skills their observation; or
            the configuration in the bundle is not that of its networks.
    """
    family, number = task_of(bundle, task)
    robot = robot_of(bundle, robot)
    body = load_robot(robot)
    check_fits(bundle, body, task)
    config = config_from_dict(bundle.manifest.provenance.config, f"{bundle.source}: provenance")
    _check_config(bundle, config)
    # A family other than the skills' own comes with its own parameters.
    own = family.name == config.family
    parameters = dict(config.family_parameters) if own else {}
    parameters.pop(HELD_OUT, None)  # a goal that training did not see is what this is for
    parameters |= all_tasks(family.name)
    changed = replace(config, family=family.name, family_parameters=parameters, seed=seed)
    if not own:  # whole episodes, as the skills' own family has been given in its recipe
        n = config.mlsh.decision_ticks
        ticks = -(-family.ticks // n) * n
        changed = replace(changed, mlsh=replace(config.mlsh, rollout_ticks=ticks))
    changed = replace(changed, reality=reality or config.reality)
    return replace(changed, robot=robot), number


def _check_config(bundle: Bundle, config: TrainConfig) -> None:
    manifest, method = bundle.manifest, config.mlsh
    stated = (len(manifest.skills), manifest.decision_ticks, manifest.decision_lead)
    graph = read_graph(bundle.skills[0], manifest.skill_files[0])
    layers = sum(name.startswith("bias") for name in graph.initializers)
    hidden = tuple(graph.initializers[f"bias{i}"].size for i in range(layers - 1))
    if (*stated, hidden) != (
        method.skills,
        method.decision_ticks,
        method.decision_lead,
        config.network.hidden,
    ):
        raise UserError(
            f"{bundle.source}: provenance.config is not of this bundle: its skills, "
            f"decision_ticks, decision_lead and hidden layers are not {(*stated, hidden)}"
        )


def install_skills(agent: Agent, bundle: Bundle) -> None:
    """Put a bundle's skills and observation statistics into an agent."""
    for k, (data, name) in enumerate(zip(bundle.skills, bundle.manifest.skill_files, strict=True)):
        graph = read_graph(data, name)
        _install_policy(agent.skills, k, graph)
        shift, scale = (graph.initializers[x].copy() for x in ("shift", "scale"))
        agent.normaliser.fixed = shift, scale
    agent.learns_statistics = False


def add_masters(bundle: Bundle, masters: dict[str, tuple[Master, bytes]], path: Path) -> Bundle:
    """Write the bundle with these masters too; all other files but golden stay byte-identical."""
    golden = bundle.golden
    logits = {name: Network(data, name)(golden.observation) for name, (_, data) in masters.items()}
    more = Golden(
        observation=golden.observation,
        action=golden.action,
        logits={**golden.logits, **logits},
        skill={**golden.skill, **{name: x.argmax(axis=1) for name, x in logits.items()}},
    )
    files = {f: d for f, d in bundle.files.items() if f in bundle.manifest.files}
    files |= {f"masters/{name}.onnx": data for name, (_, data) in masters.items()}
    files[GOLDEN] = golden_bytes(more)
    entries = {name: entry for name, (entry, _) in masters.items()}
    manifest = replace(bundle.manifest, masters={**bundle.manifest.masters, **entries})
    return write_bundle(manifest, files, path)


def _install_policy(level: Level, row: int, graph: Graph) -> None:
    arrays: dict[str, NDArray[np.generic]] = dict(graph.initializers)
    for i, (weight, bias) in enumerate(level.policy.layers(row)):
        put(arrays, f"weight{i}", weight)
        put(arrays, f"bias{i}", bias)
