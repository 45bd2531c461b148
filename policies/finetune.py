"""One more master for a bundle: the skills are frozen, their files stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policies.adapt import Adapted, Progress, adapt, envs_for_episodes, scored_episodes
from policies.agent import Agent, Level, put
from policies.bundle import (
    GOLDEN,
    Bundle,
    Golden,
    Master,
    Score,
    check_name,
    check_target,
    golden_bytes,
    write_bundle,
)
from policies.config import TrainConfig, config_from_dict
from policies.export import Parity, check_parity, network_bytes, provenance_of
from policies.fits import check_fits, task_of
from policies.onnx_file import Graph, read_graph
from policies.runtime import Network
from sim.errors import UserError
from sim.reality import Reality
from sim.registry import all_tasks
from sim.robot import load_robot
from sim.tasks.task import HELD_OUT


@dataclass(frozen=True)
class Finetuned:
    """The new bundle and how its new master was learned."""

    bundle: Bundle
    master: str
    adapted: Adapted
    parity: Parity


def finetune(
    bundle: Bundle,
    task: str,
    path: Path,
    *,
    name: str,
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
        task: family/task; the family may be another one than the skills were trained on, as long
            as robot and family give the observation that the skills take.
        path: the new bundle; may be the old one's folder.
        name: of the new master.
        updates: of the master.
        seed: of everything random.
        robot: name or folder, by default the bundle's.
        start_from: a master of the bundle to start from, by default a fresh one.
        reality: what differs from the nominal model, by default what did in the bundle's training.
        settings: `section.key=value` over the bundle's configuration.
        episodes: whole ones per update, by default 2,000 steps.
        facts: of `policies.run.environment`, for the provenance.
        on_update: called with the latest `Progress`.

    Raises:
        UserError: the name is taken, the task does not fit, or the bundle cannot be written.
    """
    check_name("master", name)
    check_target(path)
    if name in bundle.manifest.masters:
        raise UserError(
            f"bundle {bundle.manifest.name!r} has a master {name!r} already; give another --name. "
            f"Taken: {', '.join(bundle.manifest.masters)}"
        )
    config, number = task_config(bundle, task, seed=seed, robot=robot, reality=reality)
    config = config.with_values(list(settings))
    start = None
    if start_from is not None:
        start = read_graph(bundle.master(start_from), f"{bundle.source}/masters/{start_from}.onnx")

    def install_master(agent: Agent) -> None:
        if start is not None:
            _install_policy(agent.masters, 0, start)

    adapted = adapt(
        config,
        lambda agent: install_skills(agent, bundle),
        [number],
        updates=updates,
        envs=None if episodes is None else envs_for_episodes(config, episodes),
        install_masters=None if start is None else install_master,
        on_update=on_update,
    )
    agent = adapted.learner.agent
    data = network_bytes(agent.masters, 0, agent.normaliser, name)
    parity = check_parity(
        [(data, agent.masters, 0)], agent.normaliser, bundle.golden.observation, seed
    )
    last = adapted.curves[0][-1]
    scored = scored_episodes(adapted.learner.family.ticks)
    limit = adapted.learner.bounds[number]
    entry = Master(
        task=task,
        score=Score(value=last.greedy, **asdict(limit), episodes=scored),
        provenance=provenance_of(config, facts, last.steps, last.updates),
    )
    whole = add_master(bundle, name, entry, data, path)
    if whole.skill_hashes() != bundle.skill_hashes():
        raise UserError(f"{path}: the skill files changed; the bundle must not be used")
    return Finetuned(whole, name, adapted, parity)


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
    body = load_robot(robot or bundle.interface.robot)
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
    return replace(changed, robot=robot or bundle.interface.robot), number


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


def add_master(bundle: Bundle, name: str, entry: Master, data: bytes, path: Path) -> Bundle:
    """Write the bundle with one more master; every other file stays byte-identical but golden."""
    golden = bundle.golden
    logits = Network(data, name)(golden.observation)
    more = Golden(
        observation=golden.observation,
        action=golden.action,
        logits={**golden.logits, name: logits},
        skill={**golden.skill, name: logits.argmax(axis=1)},
    )
    files = {f: d for f, d in bundle.files.items() if f in bundle.manifest.files}
    files |= {f"masters/{name}.onnx": data, GOLDEN: golden_bytes(more)}
    manifest = replace(bundle.manifest, masters={**bundle.manifest.masters, name: entry})
    return write_bundle(manifest, files, path)


def _install_policy(level: Level, row: int, graph: Graph) -> None:
    arrays: dict[str, NDArray[np.generic]] = dict(graph.initializers)
    for i, (weight, bias) in enumerate(level.policy.layers(row)):
        put(arrays, f"weight{i}", weight)
        put(arrays, f"bias{i}", bias)
