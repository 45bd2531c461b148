"""Compares new masters over frozen skills with PPO from scratch on equal experience."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policies.training.adapt import envs_for_episodes, from_scratch
from policies.training.finetune import Finetuned
from policies.training.finetune_plot import Curves, adaptation_image, write_curves
from sim.envs.reference_returns import ReferenceReturns
from sim.files.output import make_room, write_file
from sim.tasks.registry import make_family

MASTER_ONLY, FROM_SCRATCH = "master only", "PPO from scratch"


@dataclass(frozen=True)
class LearningComparison:
    """Learning curves on new tasks."""

    curves: dict[str, Curves]  # per task, of each learner
    reference_returns: dict[str, ReferenceReturns]  # per task
    ticks: int  # of an episode
    # Says how often a simulation failed while PPO from scratch was scored; of each task.
    divergences: tuple[str, ...] = ()

    def write(self, csv: Path, plot: Path, *, overwrite: bool = False) -> None:
        """Write all numbers, and a plot.

        Raises:
            UserError: a file that is there must stay, or one could not be written.
        """
        drawn = adaptation_image(self.curves, self.reference_returns, self.ticks)
        make_room(csv, plot, overwrite=overwrite)
        write_curves(self.curves, csv, overwrite=overwrite)
        write_file(plot, drawn, overwrite=overwrite)


def comparison_files(bundle: Path) -> tuple[Path, Path]:
    """The CSV file and the plot of a comparison, beside the bundle that it belongs to."""
    csv, plot = (bundle.with_name(f"{bundle.name}-finetune{each}") for each in (".csv", ".png"))
    return csv, plot


def remarks(result: Finetuned, *, same_unit: bool) -> list[str]:
    """Returns what to say of new masters, a line each.

    Of estimates that the score contradicts, of the updates kept, and of simulations that diverged.

    Args:
        result: the new masters.
        same_unit: whether recorded rewards have the unit of the task's rewards in simulation.
    """
    found = []
    for estimate, curve in zip(result.adapted.estimates, result.adapted.curves, strict=False):
        if same_unit and (text := estimate.contradiction(curve[-1].greedy)):
            found.append(f"warning: {text}")
    if text := result.adapted.divergence:
        found.append(f"warning: {text}")
    for point in result.adapted.kept:
        found.append(
            f"kept: update {point.updates}, greedy return {point.greedy:.4g} on other episodes"
        )
    return found


def compare(
    result: Finetuned, *, updates: int, episodes: int | None, baseline: bool
) -> LearningComparison:
    """Returns the curves of new masters, and those of PPO from scratch on the same tasks.

    Args:
        result: the masters; they were learned with the two arguments that follow.
        updates: of each master.
        episodes: per update, by default 2,000 steps.
        baseline: whether PPO from scratch is learned.
    """
    config = result.config
    family = make_family(config.family, config.family_parameters)
    envs = None if episodes is None else envs_for_episodes(config, episodes)
    curves, reference_returns, divergences = {}, {}, []
    for task, curve in zip(result.tasks, result.adapted.curves, strict=True):
        number = task.index_in(family.tasks)
        of_task = {MASTER_ONLY: curve}
        if baseline:
            alone = from_scratch(config, number, updates=updates, envs=envs)
            of_task[FROM_SCRATCH] = alone.curves[0]
            if text := alone.divergence:
                divergences.append(f"{task}, {FROM_SCRATCH}: {text}")
        curves[str(task)], reference_returns[str(task)] = (
            of_task,
            result.adapted.learner.reference_returns[number],
        )
    return LearningComparison(curves, reference_returns, family.ticks, tuple(divergences))
