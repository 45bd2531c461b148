"""Adds masters to a bundle; the skill files stay unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policies.bundle.adaptation import AdaptationPoint
from policies.bundle.bundle import Bundle, check_target, write_bundle
from policies.bundle.derived_skill import (
    name_of_new_skill,
    with_derived_skill,
    with_moved_output,
    with_reachable_outputs,
)
from policies.bundle.export import Parity, check_parity, master_entry, network_bytes, provenance_of
from policies.bundle.golden import Golden, golden_bytes
from policies.bundle.manifest import GOLDEN, Derivation, Master, check_name
from policies.bundle.onnx_reader import ACTIVATIONS, OnnxGraph, read_graph
from policies.bundle.runtime import Network, load_skills
from policies.bundle.task_compatibility import check_fits, resolve_task, robot_of, select_tasks
from policies.mlsh.actor_critic import ActorCriticBatch, Agent, put
from policies.mlsh.config import NetworkConfig, TrainConfig, config_from_dict
from policies.mlsh.networks import Activation
from policies.mlsh.offpolicy_config import Learner
from policies.offpolicy.replay import Episode
from policies.training.adapt import AdaptationResult, adapt, envs_for_episodes, scored_episodes
from policies.training.finetune_settings import with_settings
from policies.training.unfreeze import Unfreeze
from sim.errors import UserError, short
from sim.files.output import lock_beside, locked
from sim.physics.robot_model import load_robot
from sim.randomization.schema import SimParams
from sim.tasks.base import HELD_OUT
from sim.tasks.registry import all_tasks, make_family
from sim.tasks.task_id import TaskId


@dataclass(frozen=True)
class Finetuned:
    """The new bundle and how its new masters were learned."""

    bundle: Bundle
    tasks: list[TaskId]  # of the new masters, in their order
    masters: dict[str, list[AdaptationPoint]]  # their curves
    adapted: AdaptationResult
    parity: Parity
    config: TrainConfig  # that they were learned with


def finetune(
    bundle: Bundle,
    task: TaskId,
    path: Path,
    *,
    name: str | None = None,
    replacing: bool = False,
    overwrite: bool = False,
    updates: int,
    seed: int,
    robot: str | None = None,
    start_from: str | None = None,
    sim_params: SimParams | None = None,
    settings: Sequence[str] = (),
    episodes: int | None = None,
    baseline: bool = False,
    learner: Learner = "ppo",
    recorded: list[list[Episode]] | None = None,
    unfreeze: Unfreeze | None = None,
    facts: dict[str, object],
    on_update: Callable[[list[AdaptationPoint]], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Finetuned:
    """Learn a master for `task` and write the bundle with the new master added.

    Args:
        bundle: whose skills are used, and not touched.
        task: or a family, for a master of each of its tasks; it may be another one
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
        sim_params: that differ from the nominal model, by default those of the bundle's training.
        settings: `section.key=value` over the bundle's configuration.
        episodes: whole ones per update, by default 2,000 steps.
        baseline: whether the same settings are for PPO from scratch as well.
        learner: of the masters: value iteration over all decisions (q), PPO, or none for a
            uniform one, whose logits are all 0.
        recorded: episodes of each task of `select_tasks` that q learns from, in one update, in
            place of its own.
        unfreeze: a skill that is trained with the masters, as a new one of the bundle.
        facts: of `policies.training.run.environment`, for the provenance.
        on_update: called with the latest `AdaptationPoint` of every task.
        say: called with a line after every update, of a learner that says how sure it is.

    Raises:
        UserError: a name is taken, the task does not fit, a setting is the bundle's or has no
            effect, or the bundle cannot be written.
    """
    tasks = select_tasks(bundle, task)
    numbers = [resolve_task(bundle, each)[1] for each in tasks]
    names = _names(bundle, tasks, name, replacing)
    if unfreeze is not None:
        name_of_new_skill(bundle)  # refused before anything is learned
    # Whose masters get another head is another bundle.
    continued = bundle.manifest if unfreeze is None else None
    check_target(path, overwrite=overwrite, continued=continued)
    plain, _ = task_config(bundle, tasks[0], seed=seed, robot=robot, sim_params=sim_params)
    started = start_from is not None
    config = with_settings(
        plain,
        settings,
        baseline=baseline,
        started=started,
        learner=learner,
        unfrozen=unfreeze is not None,
    )
    _check_decisions(bundle, config)
    _check_family(bundle, plain, config)
    start = None
    if start_from is not None:
        graph = read_graph(bundle.master(start_from), f"{bundle.source}/masters/{start_from}.onnx")
        manifest = bundle.manifest
        start = with_reachable_outputs(graph.initializers, manifest.skills, manifest.derived)
        config = replace(config, network=_as_in(graph, config.network))

    def install_masters(agent: Agent) -> None:
        if learner == "uniform":
            agent.masters.policy.numpy[:] = 0
        elif start is not None:
            for row in range(len(tasks)):
                _install_policy(agent.masters, row, start)

    # Locked, so that no other master is written there meanwhile, which this would take away.
    with locked(lock_beside(path), f"bundle {str(path)!r}"):
        check_target(path, overwrite=overwrite, continued=continued)
        adapted = adapt(
            config,
            lambda agent: install_skills(agent, bundle),
            numbers,
            updates=0 if learner == "uniform" else updates,
            envs=None if episodes is None else envs_for_episodes(config, episodes),
            install_masters=install_masters if start or learner == "uniform" else None,
            recorded=recorded,
            unfreeze=unfreeze,
            skill_names=bundle.manifest.skills,
            on_update=on_update,
            say=say,
        )
        made = _Learned(bundle, config, names, tasks, numbers, adapted, unfreeze, facts)
        grown, masters, parity = _exported(made)
        check_target(path, overwrite=overwrite, continued=continued)  # nothing came meanwhile
        whole = add_masters(grown, masters, path)
        if whole.skill_hashes()[: len(bundle.skills)] != bundle.skill_hashes():
            raise UserError(f"{path}: the skill files changed; the bundle must not be used")
        curves = dict(zip(names, adapted.curves, strict=True))
        return Finetuned(whole, tasks, curves, adapted, parity, config)


@dataclass(frozen=True)
class _Learned:
    """Masters that were learned for a bundle, and a copy of a skill."""

    bundle: Bundle  # of the skills
    config: TrainConfig
    names: list[str]  # of the masters
    tasks: list[TaskId]
    numbers: list[int]  # of the tasks
    adapted: AdaptationResult
    unfreeze: Unfreeze | None
    facts: dict[str, object]

    def entries(self) -> list[Master]:
        """The manifest's descriptions of the masters."""
        learner = self.adapted.learner
        scored = scored_episodes(learner.family.ticks)
        limits = [learner.reference_returns[number] for number in self.numbers]
        return [
            master_entry(
                str(task),
                [point],
                limit,
                provenance_of(self.config, self.facts, point.steps, point.updates),
                scored,
            )
            for task, point, limit in zip(self.tasks, self.adapted.final, limits, strict=True)
        ]


def _exported(made: _Learned) -> tuple[Bundle, dict[str, tuple[Master, bytes]], Parity]:
    """The bundle with the new skill, if there is one, and the masters' entries and ONNX files.

    Raises:
        UserError: torch and ONNX Runtime differ.
    """
    bundle, unfreeze, entries = made.bundle, made.unfreeze, made.entries()
    agent, names = made.adapted.learner.agent, made.names
    data = [network_bytes(agent.masters, g, agent.normalizer, n) for g, n in enumerate(names)]
    graphs = [(each, agent.masters, g) for g, each in enumerate(data)]
    new_skill, skill = "", b""
    if unfreeze is not None:
        new_skill = name_of_new_skill(bundle)
        skill = network_bytes(agent.skills, unfreeze.skill, agent.normalizer, new_skill)
        graphs.append((skill, agent.skills, unfreeze.skill))
    parity = check_parity(graphs, agent.normalizer, bundle.golden.observation, made.config.seed)
    grown = bundle
    if unfreeze is not None:
        derivation = Derivation(
            skill=bundle.manifest.skills[unfreeze.skill],
            kl=made.adapted.kl,
            kl_limit=unfreeze.kl_limit,
            provenance=entries[0].provenance,
        )
        grown = with_derived_skill(bundle, new_skill, skill, derivation)
        # It was learned in the place of the old one.
        data = [with_moved_output(d, n, unfreeze.skill) for n, d in zip(names, data, strict=True)]
    return grown, dict(zip(names, zip(entries, data, strict=True), strict=True)), parity


def _as_in(graph: OnnxGraph, network: NetworkConfig) -> NetworkConfig:
    """The settings with the masters' network of a graph."""
    sizes = tuple(bias.size for _, bias in graph.layers[:-1])
    kinds: dict[str, Activation] = {"Tanh": "tanh", "Elu": "elu"}
    return replace(network, master_hidden=sizes, master_activation=kinds[graph.activation])


def _names(bundle: Bundle, tasks: list[TaskId], name: str | None, replacing: bool) -> list[str]:
    if name is not None and len(tasks) > 1:
        raise UserError(
            f"name {name!r}: one name for {len(tasks)} masters, of {tasks[0]} to {tasks[-1]}; "
            f"leave it out, or give one task"
        )
    names = [str(task.name) for task in tasks] if name is None else [name]
    for each in names:
        check_name("master", each)
        if each in bundle.manifest.masters and not replacing:
            raise UserError(
                f"bundle {bundle.label} has a master {each!r} already; give another "
                f"--name, or --overwrite-master. Taken: {', '.join(bundle.manifest.masters)}"
            )
    return names


def _check_decisions(bundle: Bundle, config: TrainConfig) -> None:
    # One N and one lead for all masters of a bundle: one takes over from another as it drives.
    for key in ("decision_ticks", "decision_lead"):
        given, own = getattr(config.mlsh, key), getattr(bundle.manifest, key)
        if given != own:
            raise UserError(f"mlsh.{key} {given}: all masters of bundle {bundle.label} have {own}")


def task_config(
    bundle: Bundle,
    task: TaskId,
    *,
    seed: int,
    robot: str | None = None,
    sim_params: SimParams | None = None,
) -> tuple[TrainConfig, int]:
    """Returns the bundle's training configuration for another task; and the task's number.

    Raises:
        UserError: no such task; robot and family do not give the skills their observation; or
            the configuration in the bundle is not that of its networks.
    """
    family, number = resolve_task(bundle, task)
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
    # All skills, with those that were derived from others.
    count = len(bundle.skills)
    method = replace(config.mlsh, skills=count, envs=max(config.mlsh.envs, 2 * count))
    # Skills that stay as they are have no value functions and no mirror images, which another
    # robot or family may not have.
    network = replace(config.network, privileged=())
    regularization = replace(config.regularization, symmetry="none")
    config = replace(config, mlsh=method, network=network, regularization=regularization)
    changed = replace(config, family=family.name, family_parameters=parameters, seed=seed)
    if not own:  # whole episodes, as the skills' own family has been given in its recipe
        n = config.mlsh.decision_ticks
        ticks = -(-family.ticks // n) * n
        changed = replace(changed, mlsh=replace(config.mlsh, rollout_ticks=ticks))
    changed = replace(changed, sim_params=sim_params or config.sim_params)
    return replace(changed, robot=robot), number


def _check_family(bundle: Bundle, plain: TrainConfig, config: TrainConfig) -> None:
    # A master's entry names its task only; its parameters are taken from the bundle.
    own, given = (make_family(c.family, c.family_parameters) for c in (plain, config))
    for field in fields(own):  # type: ignore[arg-type]
        mine, theirs = getattr(own, field.name), getattr(given, field.name)
        if mine != theirs:
            raise UserError(
                f"family_parameters.{field.name} {short(theirs)}: all masters of bundle "
                f"{bundle.label} on {own.name} have {short(mine)}"
            )


def _check_config(bundle: Bundle, config: TrainConfig) -> None:
    manifest, method = bundle.manifest, config.mlsh
    if manifest.imported:  # loading the bundle compares the rest
        return
    trained = len(manifest.skills) - len(manifest.derived)
    stated = (trained, manifest.decision_ticks, manifest.decision_lead)
    graph = read_graph(bundle.skills[0], manifest.skill_files[0])
    hidden = tuple(bias.size for _, bias in graph.layers[:-1])
    network = config.network.of_skills
    # A single layer has no function behind it.
    said = ACTIVATIONS[network.activation] if hidden else graph.activation
    if (*stated, hidden, graph.activation) != (
        method.skills,
        method.decision_ticks,
        method.decision_lead,
        network.hidden,
        said,
    ):
        raise UserError(
            f"{bundle.source}: provenance.config is not of this bundle: its skills, "
            f"decision_ticks, decision_lead, hidden layers and activation are not "
            f"{(*stated, hidden, graph.activation)}"
        )


def install_skills(agent: Agent, bundle: Bundle) -> None:
    """Put a bundle's skills and observation statistics into an agent.

    Imported skills are run as they are, and masters over them see observations as robot.yaml
    scales them, because there are no statistics of a training.
    """
    agent.learns_statistics = False
    if bundle.manifest.imported:
        agent.imported_skills = load_skills(bundle)
        return
    for k, (data, name) in enumerate(zip(bundle.skills, bundle.manifest.skill_files, strict=True)):
        graph = read_graph(data, name)
        _install_policy(agent.skills, k, graph.initializers)
        shift, scale = (graph.initializers[x].copy() for x in ("shift", "scale"))
        agent.normalizer.fixed = shift, scale


def add_masters(bundle: Bundle, masters: dict[str, tuple[Master, bytes]], path: Path) -> Bundle:
    """Write the bundle with these masters added; all files except golden stay byte-identical."""
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


def _install_policy(
    level: ActorCriticBatch, row: int, given: Mapping[str, NDArray[np.float32]]
) -> None:
    arrays: dict[str, NDArray[np.generic]] = dict(given)
    for i, (weight, bias) in enumerate(level.policy.layers(row)):
        put(arrays, f"weight{i}", weight)
        put(arrays, f"bias{i}", bias)
