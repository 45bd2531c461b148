"""Detects collapsed skills and suggests settings, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from policies.mlsh.config import MlshConfig

if TYPE_CHECKING:  # neither torch nor MuJoCo is needed for words
    from policies.training.metrics import Row
    from sim.envs.reference_returns import ReferenceReturns

LAST = 0.2  # of the iterations are looked at
POOR = 0.7  # of the optimum; below it a task is not served
SHARED = 0.5  # of the information that masters could need; below it they all choose alike
ALIKE = 0.1  # of the largest distance (policies.mlsh.skill_metrics); below it two skills are one


def collapse_warning(
    rows: list[Row],
    tasks: tuple[str, ...],
    reference_returns: list[ReferenceReturns],
    method: MlshConfig,
) -> str:
    """One line that names the tasks, the skills and remedies; empty without a collapse.

    Skills are collapsed if the masters' choices do not distinguish the tasks while the return on a
    task is low.
    """
    if not rows:
        return ""
    recent = rows[-max(1, round(LAST * len(rows))) :]
    share = {
        task: limit.fraction_of_optimum(float(np.mean(values)))
        for task, limit in zip(tasks, reference_returns, strict=True)
        if (values := [row[f"return/{task}"] for row in recent if f"return/{task}" in row])
    }
    information = float(np.mean([row["mutual_information"] for row in recent]))
    distance = float(np.mean([row["skill_distance"] for row in recent]))
    alike = f"; two skills act alike ({distance:.2f} apart, of 1)" if distance < ALIKE else ""
    return collapse(share, information, method.skills, alike, method)


def collapse(
    share: Mapping[str, float],
    information: float,
    skills: int,
    alike: str = "",
    method: MlshConfig | None = None,
) -> str:
    """Returns the line of `collapse_warning`; empty without a collapse.

    Args:
        share: of its optimum that each task reaches.
        information: I(skill; task), bits.
        skills: K.
        alike: what else speaks for it.
        method: what it was trained with, for what to try; None if that is not known.
    """
    possible = bits(skills, len(share))
    poor = {task: part for task, part in share.items() if part < POOR}
    if not poor or possible == 0 or information >= SHARED * possible:
        return ""
    worst = ", ".join(
        f"{task} at {100 * part:.0f} % of its optimum" for task, part in poor.items()
    )
    remedy = "" if method is None else f". Try {', '.join(_remedies(method))}"
    return (
        f"the skills have collapsed: masters choose alike on all tasks ({information:.2f} of "
        f"{possible:.2f} bits){alike}, {worst}{remedy}"
    )


def bits(skills: int, tasks: int) -> float:
    """Upper bound of the mutual information between K skills and the tasks, bits."""
    return float(np.log2(max(1, min(skills, tasks))))


def _remedies(method: MlshConfig) -> list[str]:
    """Suggests settings that differ from the recipe first, then larger values."""
    off = {
        "mlsh.probe=centered": method.probe != "centered",
        "mlsh.reset_skill_below=0.12": method.reset_skill_below == 0,
        "mlsh.mutual_information_coef=0.5": method.mutual_information_coef == 0,
        "mlsh.balanced_tasks=true": not method.balanced_tasks,
        "mlsh.master_advantage=centered": method.master_advantage != "centered",
        f"mlsh.groups={2 * method.groups}": True,
    }
    return [f"--set {setting}" for setting, useful in off.items() if useful] + ["another --seed"]
