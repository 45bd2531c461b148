"""Summarizes an evaluation in sentences."""

from __future__ import annotations

import math

from mlsh_ros.evaluation.report.page import PERCENT, percent
from mlsh_ros.evaluation.scores import Evaluation, best_of_each_task, stopped_by
from sim.errors import counted
from sim.tasks.task_id import TaskId

SOLVED = 0.9  # normalized score from which a task is called solved


def verdict(evaluation: Evaluation) -> str:
    """Returns the result in plain words."""
    lines = evaluation.lines
    if not lines:
        return "No episode was driven."
    found = [line.normalized for line in best_of_each_task(lines)]
    worst = min(line.reference_returns.normalize(line.return_worst) for line in lines)
    text = f"{_solved(found)}; the worst episode reached {percent(worst)}."
    for family in sorted({TaskId.parse(line.task).family for line in lines}):
        mine = [line for line in lines if TaskId.parse(line.task).family == family]
        # On a single task a controller that ignores the task may well be the optimum.
        gain = sum(line.return_mean - line.reference_returns.task_blind for line in mine)
        if len({line.task for line in mine}) > 1 and gain <= 0:
            text += f" Over {family} it is no better than a controller that ignores the task."
    for each in evaluation.sharing:
        if each.explanation:
            text += f" On {each.family} {each.explanation}."
    if faults := [fault for line in lines for fault in line.faults]:
        count = counted(len(faults), "episode")
        who = stopped_by(sum(line.diverged for line in lines))
        text += f" {who} in {count} ({faults[0]})."
    return f"{text} {_lateness(evaluation)}"


def _solved(found: list[float]) -> str:
    low, high, count = percent(min(found)), percent(max(found)), len(found)
    share = low if low == high else f"{low.removesuffix(PERCENT)} to {high}"
    solved = sum(score >= SOLVED for score in found)
    if solved == count:
        who = {1: "The task is", 2: "Both tasks are"}.get(count, f"All {count} tasks are")
        return f"{who} solved at {share} of the optimum"
    if count == 1:
        return f"The task reaches {share} of the optimum"
    who = f"{solved or 'None'} of {count} tasks {'reach' if solved > 1 else 'reaches'}"
    return f"{who} {percent(SOLVED)} of the optimum, the scores are {share}"


def _lateness(evaluation: Evaluation) -> str:
    ticks = evaluation.bundle.manifest.decision_ticks
    decisions = sum(math.ceil(len(e.skill) / ticks) for e in evaluation.episodes)
    late = sum(line.late_decisions for line in evaluation.lines)
    timed = [line for line in evaluation.lines if line.missed_ticks is not None]
    missed = sum(line.missed_ticks or 0 for line in timed)
    if missed:
        ticks = missed + sum(line.ticks for line in timed)
        left = f" {missed:,} of {ticks:,} ticks were missed."
    else:
        left = " No tick was missed." if timed else ""
    if late:
        return f"{late} of {decisions} decisions came late.{left}"
    if all(e.lateness is None for e in evaluation.episodes):
        return "Offline, no decision can be late."
    return f"No decision came late.{left}"
