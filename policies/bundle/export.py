"""Exports trained networks to a bundle and compares both on golden rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from policies.bundle.adaptation import AdaptationPoint
from policies.bundle.bundle import Bundle, check_target, write_bundle
from policies.bundle.golden import Golden, golden_bytes
from policies.bundle.manifest import (
    GOLDEN,
    Family,
    Manifest,
    Master,
    Provenance,
    Score,
    check_name,
    skill_names,
)
from policies.bundle.onnx_reader import ACTIVATIONS
from policies.bundle.onnx_writer import write_graph
from policies.bundle.runtime import TOLERANCE, Network
from policies.bundle.skill_limits import SkillLimits
from policies.bundle.task_compatibility import FAMILY
from policies.mlsh.actor_critic import ActorCriticBatch, Agent
from policies.mlsh.config import TrainConfig, config_to_dict
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.networks import Normalizer
from sim.envs.reference_returns import ReferenceReturns
from sim.errors import UserError
from sim.files.migrations import SCHEMA
from sim.seeding import Stream, generator
from sim.tasks.registry import family_source

GOLDEN_ROWS = 64
RANDOM_ROWS = 10_000
Float32 = NDArray[np.float32]
TORCH: dict[str, type[torch.nn.Module]] = {"tanh": torch.nn.Tanh, "elu": torch.nn.ELU}


@dataclass(frozen=True)
class Parity:
    """The largest difference between torch and ONNX Runtime, over all networks."""

    golden: float
    random: float  # in units of a network's largest output, where that is above 1

    @property
    def worst(self) -> float:
        """The larger of both differences."""
        return float(np.maximum(self.golden, self.random))  # NaN, if one is


def network_bytes(level: ActorCriticBatch, row: int, normalizer: Normalizer, name: str) -> bytes:
    """One policy of a level as an ONNX file."""
    shift, scale = normalizer.shift_and_scale
    operator = ACTIVATIONS[level.policy.activation]
    return write_graph(name, shift, scale, Normalizer.CLIP, level.policy.layers(row), operator)


def torch_module(level: ActorCriticBatch, row: int) -> torch.nn.Sequential:
    """Returns one policy of a level as a torch module, for normalized observations."""
    modules: list[torch.nn.Module] = []
    for weight, bias in level.policy.layers(row):
        linear = torch.nn.Linear(*weight.shape)
        linear.weight.data = torch.from_numpy(weight.T.copy())
        linear.bias.data = torch.from_numpy(bias.copy())
        modules += [linear, TORCH[level.policy.activation]()]
    return torch.nn.Sequential(*modules[:-1])


def torch_outputs(
    level: ActorCriticBatch, row: int, normalizer: Normalizer, obs: Float32
) -> Float32:
    """Outputs of the same policy in torch, (n, outputs)."""
    shift, scale = (torch.from_numpy(x) for x in normalizer.shift_and_scale)
    x = ((torch.from_numpy(obs) - shift) * scale).clamp(-Normalizer.CLIP, Normalizer.CLIP)
    with torch.no_grad():
        result: Float32 = torch_module(level, row)(x).numpy()
    return result


def check_parity(
    graphs: list[tuple[bytes, ActorCriticBatch, int]],
    normalizer: Normalizer,
    golden: Float32,
    seed: int,
) -> Parity:
    """Compare every graph with torch on golden and on random observations.

    Outputs of networks without bounds between their layers (ELU) are large on random observations,
    and rounded to as many digits.

    Raises:
        UserError: they differ by more than the tolerance; nothing may be exported.
    """
    rng = generator(seed, Stream.NOISE, 1)
    shift, scale = normalizer.shift_and_scale
    # Three deviations wide, so that the clip of the normalizer is met as well.
    spread = rng.standard_normal((RANDOM_ROWS, len(shift))) * 3
    random = (shift + spread / scale).astype(np.float32)
    worst = [0.0, 0.0]
    for data, level, row in graphs:
        for i, rows in enumerate((golden, random)):
            expected = torch_outputs(level, row, normalizer, rows)
            error = np.abs(Network(data, "export")(rows) - expected).max()
            unit = max(1.0, float(np.abs(expected).max())) if i else 1.0
            worst[i] = float(np.maximum(worst[i], error / unit))
    parity = Parity(*worst)
    if not parity.worst <= TOLERANCE:
        raise UserError(
            f"export: torch and ONNX Runtime differ by {parity.worst:.2g}, "
            f"at most {TOLERANCE:g} is accepted; nothing was written"
        )
    return parity


def golden_observations(learner: Mlsh) -> Float32:
    """Observations (n, O) from the learner's own rollouts, at random ticks."""
    rollout = learner.collector.collect(learner.iteration, ticks=learner.family.ticks)
    raw = rollout.raw.reshape(-1, rollout.raw.shape[-1])
    rows = generator(learner.config.seed, Stream.NOISE, 2).choice(len(raw), GOLDEN_ROWS)
    golden: Float32 = raw[rows].copy()
    return golden


def master_entry(
    task: str,
    curve: list[AdaptationPoint],
    reference_returns: ReferenceReturns,
    provenance: Provenance,
    episodes: int,
) -> Master:
    """The manifest's description of a master."""
    score = Score(value=curve[-1].greedy, **asdict(reference_returns), episodes=episodes)
    return Master(task=task, score=score, provenance=provenance)


def export(
    config: TrainConfig,
    learner: Mlsh,
    masters: dict[str, Master],
    provenance: Provenance,
    name: str,
    path: Path,
    skill_limits: SkillLimits | None = None,
    *,
    overwrite: bool = True,
) -> tuple[Bundle, Parity]:
    """Write a bundle from a learner whose group g is the g-th of `masters`.

    Args:
        config: configuration of the learner.
        learner: its rollouts give the golden rows.
        masters: manifest entry of each, by name.
        provenance: of the skills.
        name: of the bundle.
        path: the folder.
        skill_limits: permitted measurements while a skill is active, by name of the skill.
        overwrite: whether an existing bundle may be replaced.

    Raises:
        UserError: parity fails, a name is invalid, or the bundle cannot be written.
    """
    for kind, each in (("bundle", name), *(("master", label) for label in masters)):
        check_name(kind, each)
    check_target(path, overwrite=overwrite)
    agent: Agent = learner.agent
    observation = golden_observations(learner)
    names = skill_names(agent.skills.count)
    skill_files = {
        f"skills/{k}.onnx": network_bytes(agent.skills, k, agent.normalizer, skill)
        for k, skill in enumerate(names)
    }
    master_files = {
        f"masters/{label}.onnx": network_bytes(agent.masters, g, agent.normalizer, label)
        for g, label in enumerate(masters)
    }
    graphs = [(data, agent.skills, k) for k, data in enumerate(skill_files.values())]
    graphs += [(data, agent.masters, g) for g, data in enumerate(master_files.values())]
    parity = check_parity(graphs, agent.normalizer, observation, config.seed)
    files = {**skill_files, **master_files}
    files[GOLDEN] = golden_bytes(make_golden(observation, skill_files, master_files))
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        interface=learner.env.interface,
        family=Family(config.family, dict(config.family_parameters)),
        decision_ticks=config.mlsh.decision_ticks,
        decision_lead=config.mlsh.decision_lead,
        skills=names,
        skill_limits=skill_limits or {},
        masters=masters,
        provenance=provenance,
        files={},
        digest="0" * 64,
    )
    return write_bundle(manifest, files, path, overwrite=overwrite), parity


def make_golden(
    observation: Float32, skill_files: dict[str, bytes], master_files: dict[str, bytes]
) -> Golden:
    """Golden rows from the exported graphs themselves; parity ties them to torch."""
    logits = {
        Path(name).stem: Network(data, name)(observation) for name, data in master_files.items()
    }
    return Golden(
        observation=observation,
        action=np.stack([Network(data, name)(observation) for name, data in skill_files.items()]),
        logits=logits,
        skill={label: value.argmax(axis=1) for label, value in logits.items()},
    )


def provenance_of(
    config: TrainConfig, facts: dict[str, object], steps: int, updates: int
) -> Provenance:
    """Provenance from a configuration and the facts of `policies.training.run.environment`."""
    source = family_source(config.family)
    return Provenance(
        command=str(facts["command"]),
        seed=config.seed,
        steps=steps,
        updates=updates,
        config=config_to_dict(config),
        versions={
            **{str(k): str(v) for k, v in dict(facts["versions"]).items()},  # type: ignore[call-overload]
            **({} if source is None else {f"{FAMILY}{config.family}": source.digest}),
        },
        commit=None if facts["commit"] is None else str(facts["commit"]),
    )
