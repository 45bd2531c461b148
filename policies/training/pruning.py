"""Leaves out skills that were never updated, or that no task needs since their last reset.

A robot must not run a network with random weights.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from policies.mlsh.config import TrainConfig
from policies.mlsh.skill_probe import WINDOW, Probe
from sim.files.arrays import Arrays
from sim.tasks.registry import make_family


def untrained_skills(config: TrainConfig, arrays: Arrays) -> tuple[int, ...]:
    """Skills of a checkpoint that were never updated, or have found no use since their last reset.

    Without a probe, only the first are known. Empty if that holds for all of them.

    Args:
        config: of the training.
        arrays: of its checkpoint.

    Raises:
        KeyError: an array is missing.
        ValueError: an array has another shape.
    """
    method, tasks = config.mlsh, make_family(config.family, config.family_parameters).tasks
    probe = Probe(method, len(tasks))
    probe.restore(arrays)
    updated = np.asarray(arrays["skills.policy.steps"]).reshape(method.skills, -1).any(axis=1)
    enough = (probe.resets > 0) | (len(probe.recent) >= WINDOW)
    useless = np.isin(np.arange(method.skills), probe.useless_skills()) & enough
    untrained = useless | ~updated
    return () if untrained.all() else tuple(np.flatnonzero(untrained).tolist())


def prune(
    config: TrainConfig, arrays: Arrays, skills: tuple[int, ...]
) -> tuple[TrainConfig, Arrays]:
    """Returns configuration and checkpoint without some of the skills; the others move up."""
    if not skills:
        return config, arrays
    method = replace(config.mlsh, skills=config.mlsh.skills - len(skills))
    kept = {
        name: np.delete(array, skills, axis=0) if name.startswith("skills.") else array
        for name, array in arrays.items()
    }
    return replace(config, mlsh=method), kept


def describe_pruned(config: TrainConfig, skills: tuple[int, ...]) -> str:
    """One line on the skills that are left out; empty if there are none.

    Args:
        config: of the training.
        skills: that are left out.
    """
    if not skills:
        return ""
    names = ", ".join(f"skill-{k}" for k in skills)
    tasks = len(make_family(config.family, config.family_parameters).tasks)
    return (
        f"{names} of {config.mlsh.skills} left out: earns nothing alone, and no master depends "
        f"on it ({config.mlsh.skills} skills for {tasks} tasks); the others are renumbered"
    )
