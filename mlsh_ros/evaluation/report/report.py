"""The evaluation report as one HTML file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlsh_ros.evaluation.episode import Episode
from mlsh_ros.evaluation.report.page import MILLI, Panel, percent, render_page
from mlsh_ros.evaluation.report.plots import (
    draw_histogram,
    draw_returns,
    draw_route,
    draw_timeline,
    route_of,
    skill_colors,
    square,
)
from mlsh_ros.evaluation.report.verdict import verdict
from mlsh_ros.evaluation.scores import Evaluation, TaskScore
from policies.bundle.manifest import Master
from sim.files.output import write_file
from sim.interface import Floats, path_term

TEMPLATE = Path(__file__).with_name("evaluation.html")
ROUTES = 6  # episodes drawn per task
ROWS = 16  # episodes in a timeline


@dataclass(frozen=True)
class Paths:
    """Episodes of a task in the plane, from the worst to the best."""

    line: TaskScore
    panels: list[Panel]
    goal_known: bool  # the goal that counts is drawn in one of them


def write_report(evaluation: Evaluation, path: Path, *, overwrite: bool = False) -> None:
    """Write the report; the same evaluation gives the same bytes.

    Raises:
        UserError: it could not be written, or a file that is there must stay.
    """
    # File names may hold lone surrogates, which UTF-8 cannot say.
    data = render(evaluation).encode("utf-8", "replace")
    write_file(path, data, overwrite=overwrite)


def render(evaluation: Evaluation) -> str:
    """Returns the report as HTML."""
    manifest, lines = evaluation.bundle.manifest, evaluation.lines
    timing, timing_words = _timing(evaluation)
    return render_page(
        TEMPLATE,
        name=manifest.name,
        facts=_facts(evaluation),
        verdict=verdict(evaluation),
        lines=lines,
        timed=any(line.lateness_p99 is not None for line in lines),
        skills=list(zip(manifest.skills, skill_colors(len(manifest.skills)), strict=True)),
        decision_ticks=manifest.decision_ticks,
        control_dt=manifest.interface.control_dt,
        paths=_paths(evaluation),
        returns=_returns(evaluation),
        timelines=_timelines(evaluation),
        sharing=_sharing(evaluation),
        distance=evaluation.distance,
        timing=timing,
        timing_words=timing_words,
        **_provenance(evaluation),
    )


def _facts(evaluation: Evaluation) -> dict[str, Any]:
    facts = {
        **evaluation.measured.facts,
        "backend": evaluation.backend,
        "episodes": len(evaluation.episodes),
        "seed": evaluation.seed,
        "digest": evaluation.bundle.manifest.digest[:12],
    }
    if evaluation.changes:
        facts["parameters"] = "; ".join(evaluation.changes)
    return facts


def _paths(evaluation: Evaluation) -> list[Paths] | None:
    """Some episodes of every task; None if the robot observes no position in the plane."""
    place = path_term(evaluation.bundle.interface, observed=True)
    if place is None:
        return None
    return [_task_paths(evaluation, i, place.unit) for i in range(len(evaluation.lines))]


def _task_paths(evaluation: Evaluation, task: int, unit: str) -> Paths:
    line, manifest = evaluation.lines[task], evaluation.bundle.manifest
    ranked = sorted(_episodes(evaluation, line), key=lambda e: (e.value, e.number))
    picks = np.linspace(0, len(ranked) - 1, min(ROUTES, len(ranked))).round().astype(int)
    chosen = [ranked[pick] for pick in picks]
    routes = [route_of(e, evaluation.bundle, evaluation.seed) for e in chosen]
    within = square(np.concatenate([route.corners for route in routes]))
    panels = []
    for i, (episode, route) in enumerate(zip(chosen, routes, strict=True)):
        title = f"episode {episode.number}, return {episode.value:.2f}"
        drawing = draw_route(
            route,
            skill_colors(len(manifest.skills)),
            within=within,
            unit=unit,
            decision_ticks=manifest.decision_ticks,
            key=f"where-{task}-{i}",
            label=f"Path of {line.task}, {title}",
        )
        panels.append(Panel(title, drawing))
    return Paths(line, panels, any(route.counts is not None for route in routes))


def _returns(evaluation: Evaluation) -> list[Panel]:
    lines = evaluation.lines
    levels = [level for line in lines for level in vars(line.reference_returns).values()]
    levels += [e.value for e in evaluation.episodes]
    low, high = min(levels, default=0.0), max(levels, default=1.0)
    margin = 0.06 * (high - low) or 1.0
    panels = []
    for i, line in enumerate(lines):
        mine = _episodes(evaluation, line)
        drawing = draw_returns(
            np.array([e.value for e in mine]),
            np.array([e.success for e in mine]),
            line.reference_returns,
            span=(low - margin, high + margin),
            key=f"returns-{i}",
            label=(
                f"Returns of {line.task}: mean {line.return_mean:.2f}, "
                f"worst {line.return_worst:.2f}"
            ),
        )
        panels.append(Panel(line.task, drawing, f"master {line.master}"))
    return panels


def _timelines(evaluation: Evaluation) -> list[Panel]:
    manifest = evaluation.bundle.manifest
    panels = []
    for i, line in enumerate(evaluation.lines):
        mine = sorted(_episodes(evaluation, line), key=lambda e: e.number)[:ROWS]
        drawing = draw_timeline(
            mine,
            skill_colors(len(manifest.skills)),
            decision_ticks=manifest.decision_ticks,
            key=f"who-{i}",
            label=f"Active skill per tick of {line.task}, {len(mine)} episodes",
        )
        panels.append(Panel(line.task, drawing, f"master {line.master}"))
    return panels


def _sharing(evaluation: Evaluation) -> list[tuple[str, ...]]:
    return [
        (
            each.family,
            f"{each.tasks}",
            f"{each.mutual_information:.2f} of {each.possible:.2f} bits",
            each.explanation or each.verdict.value,
        )
        for each in evaluation.sharing
    ]


def _timing(evaluation: Evaluation) -> tuple[list[Panel], list[str]]:
    """Plots and texts of lateness and compute time; empty without a clock."""
    measured = {
        "started late by": _milliseconds(e.lateness for e in evaluation.episodes),
        "sensors to command": _milliseconds(e.compute for e in evaluation.episodes),
    }
    panels, words = [], []
    if len(measured["started late by"]):
        for i, (name, values) in enumerate(measured.items()):
            if len(values):
                p50, p99 = np.percentile(values, [50, 99])
                words.append(
                    f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, worst {values.max():.2f} ms"
                )
                drawing = draw_histogram(values, key=f"time-{i}", label=words[-1])
                panels.append(Panel(name, drawing))
    return panels, words


def _provenance(evaluation: Evaluation) -> dict[str, Any]:
    """Origin of the bundle."""
    manifest = evaluation.bundle.manifest
    origin = manifest.provenance
    return {
        "command": origin.command,
        "origin": {
            "seed": origin.seed,
            "environment steps": f"{origin.steps:,}",
            "updates": f"{origin.updates:,}",
            "commit": origin.commit or "unknown",
            "trained on": manifest.family.name,
            "versions": ", ".join(f"{k} {v}" for k, v in sorted(origin.versions.items())),
            "bundle digest": manifest.digest,
        },
        "skill_digests": [
            (name, manifest.files.get(file, "unknown")[:16])
            for name, file in zip(manifest.skills, manifest.skill_files, strict=True)
        ],
        "masters": [_master(*each) for each in sorted(manifest.masters.items())],
    }


def _master(name: str, master: Master) -> tuple[str, ...]:
    score, origin = master.score, master.provenance
    return name, master.task, percent(score.normalized), f"{origin.steps:,}", str(origin.seed)


def _episodes(evaluation: Evaluation, line: TaskScore) -> list[Episode]:
    return [e for e in evaluation.episodes if (e.task, e.master) == (line.task, line.master)]


def _milliseconds(parts: Iterable[Floats | None]) -> Floats:
    """(n,) values of all measured ticks, ms."""
    present = [part for part in parts if part is not None]
    return MILLI * np.concatenate([np.zeros(0), *present])
