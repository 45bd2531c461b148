"""Exports a run folder to a bundle: one master per task, all networks as ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policies.bundle.bundle import Bundle, check_target
from policies.bundle.export import Parity, export, master_entry, provenance_of
from policies.bundle.manifest import check_name, skill_names
from policies.bundle.skill_limits import SkillLimits, read_skill_limits
from policies.mlsh.config import TrainConfig
from policies.training.adapt import AdaptationResult, scored_episodes
from policies.training.pruning import describe_pruned, prune
from policies.training.run import iteration_of, open_run
from policies.training.train import learn_masters, pruned_skills
from sim.errors import UserError
from sim.files.arrays import load_arrays
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from sim.tasks.task_id import TaskId


@dataclass(frozen=True)
class ExportedRun:
    """The bundle of a run, and how its masters were learned."""

    bundle: Bundle
    adapted: AdaptationResult
    parity: Parity
    left_out: str  # what there is to say about skills that are not in it, else empty


def export_run(
    run: Path,
    target: Path,
    *,
    name: str = "",
    skill_limits: Path | None = None,
    overwrite: bool = False,
) -> ExportedRun:
    """Learn a master for each task of a run and write the bundle.

    Args:
        run: the folder of a training.
        target: the bundle's folder.
        name: of the bundle, by default the task family's.
        skill_limits: a YAML file as `read_skill_limits` reads it, with the training's skills.
        overwrite: a bundle that is there.

    Raises:
        UserError: the run or the file is invalid, the parity gate fails, or the bundle cannot
            be written. All but the last two are checked before anything is learned.
    """
    folder = open_run(run)
    trained, facts = folder.trained, folder.provenance
    arrays = load_arrays(folder.checkpoint)
    iterations = iteration_of(folder, arrays)
    pruned = pruned_skills(folder, trained.config, arrays)
    changes = filter(None, [*trained.changes, describe_pruned(trained.config, pruned)])
    facts["command"] = "; ".join([str(facts["command"]), *changes])
    config, _ = prune(trained.config, arrays, pruned)
    name = name or config.family
    check_name("bundle", name)
    check_target(target, overwrite=overwrite)
    limits = {} if skill_limits is None else _read_limits(skill_limits, trained.config, pruned)
    adapted = learn_masters(folder)
    learner = adapted.learner
    episodes = scored_episodes(learner.family.ticks)
    masters = {
        task: master_entry(
            str(TaskId(config.family, task)),
            curve,
            reference_returns,
            provenance_of(config, facts, curve[-1].steps, curve[-1].updates),
            episodes,
        )
        for task, curve, reference_returns in zip(
            learner.family.tasks, adapted.curves, learner.reference_returns, strict=True
        )
    }
    # What was trained, not what was planned: the run may have been stopped early.
    steps = iterations * config.mlsh.steps_per_iteration
    provenance = provenance_of(config, facts, steps, iterations)
    bundle, parity = export(
        config, learner, masters, provenance, name, target, limits, overwrite=overwrite
    )
    return ExportedRun(bundle, adapted, parity, describe_pruned(trained.config, pruned))


def _read_limits(file: Path, trained: TrainConfig, pruned: tuple[int, ...]) -> SkillLimits:
    """Limits by the names that skills have in the bundle; the file has those of the training."""
    family = make_family(trained.family, trained.family_parameters)
    interface = load_robot(trained.robot).interface.with_terms(family.terms)
    names = skill_names(trained.mlsh.skills)
    limits = read_skill_limits(file, names, interface)
    if missing := [name for k, name in enumerate(names) if k in pruned and name in limits]:
        raise UserError(f"{file}: {missing[0]!r} has limits, and is left out of the bundle")
    kept = [name for k, name in enumerate(names) if k not in pruned]
    return {
        new: limits[old]
        for new, old in zip(skill_names(len(kept)), kept, strict=True)
        if old in limits
    }
