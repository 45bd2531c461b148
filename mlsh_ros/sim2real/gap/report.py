"""The gap report as one HTML file."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlsh_ros.evaluation.report.page import Panel, render_page
from mlsh_ros.sim2real.gap.closed_loop_return import ClosedLoopReturn
from mlsh_ros.sim2real.gap.data_quality import Drift
from mlsh_ros.sim2real.gap.gap import Gap
from mlsh_ros.sim2real.gap.measures import HORIZONS, SINCE, Measure
from mlsh_ros.sim2real.gap.plots import (
    EXPLAINED,
    ROBOT,
    SIM,
    draw_horizons,
    draw_range,
    draw_returns,
    draw_trace,
)
from sim.statistics import mean_interval

TEMPLATE = Path(__file__).with_name("gap.html")
RANGES = 12  # elements in the drawing of the ranges
Mean = tuple[float, float, float]  # and its 95 % interval; nan for one session


@dataclass(frozen=True)
class Cost:
    """Returns on one task."""

    task: str
    sessions: int
    robot: Mean
    simulation: Mean
    difference: Mean
    robot_success: float  # share of the sessions
    simulation_success: float
    panel: Panel


def render(gap: Gap) -> str:
    """Returns the report as HTML; the same gap gives the same text."""
    return render_page(
        TEMPLATE,
        name=gap.name,
        facts=_facts(gap),
        gap=gap,
        legend=_legend(gap),
        traces=_traces(gap),
        costs=[_cost(i, line) for i, line in enumerate(gap.closed_loop_returns)],
        since=_since(),
        horizons=_horizons(gap),
        last_horizon=HORIZONS[-1],
        ranges=_ranges(gap),
        drifts=_worst_first(gap),
        replay=gap.to_dict()["replay"],
    )


def _facts(gap: Gap) -> dict[str, Any]:
    return {
        "robot": gap.robot.name,
        "simulated in": gap.sim_params or "the nominal model",
        "recordings": len(gap.recordings),
        "compared": f"{gap.seconds:.0f} s in {gap.windows} windows",
        "ticks": gap.timing.ticks,
        "digest": gap.digest[:12] if gap.digest else "no bundle",
    }


def _legend(gap: Gap) -> list[tuple[str, str]]:
    lines = [("robot", ROBOT), ("simulation", SIM)]
    return lines + ([("simulation with the causes", EXPLAINED)] if gap.causes else [])


def _traces(gap: Gap) -> list[Panel]:
    """Section with recording and simulation over time."""
    units = {m.element.name: m.element.unit for m in gap.measures}
    panels = []
    for i, (name, (nominal, explained)) in enumerate(gap.traces.items()):
        drawing = draw_trace(
            nominal,
            explained if gap.causes else None,
            unit=units[name],
            key=f"looks-{i}",
            label=f"{name}, recorded and simulated over one window",
        )
        panels.append(Panel(name, drawing))
    return panels


def _cost(number: int, line: ClosedLoopReturn) -> Cost:
    label = f"Returns of {line.task} on robot and in simulation"
    drawing = draw_returns(line, key=f"cost-{number}", label=label)
    return Cost(
        task=line.task,
        sessions=len(line.robot),
        robot=(float(line.robot.mean()), *mean_interval(line.robot)),
        simulation=(float(line.simulation.mean()), *mean_interval(line.simulation)),
        difference=line.difference,
        robot_success=float(line.robot_success.mean()),
        simulation_success=float(line.simulation_success.mean()),
        panel=Panel(f"{line.task} (master {line.master})", drawing),
    )


def _since() -> list[str]:
    """Names of the classes of ticks since a switch."""
    spans = [f"{a}" if b - a == 1 else f"{a}-{b - 1}" for a, b in itertools.pairwise(SINCE)]
    return [f"{span} ticks" for span in [*spans, f"{SINCE[-1]}+"]]


def _horizons(gap: Gap) -> list[Panel]:
    """Section with the prediction error over time; empty without motion."""
    moving = sorted((m for m in gap.measures if m.element.moves), key=_far)
    if not moving:
        return []
    drawing = draw_horizons(moving, key="horizon", label="Prediction error over time")
    return [Panel("error after a time", drawing)]


def _far(m: Measure) -> float:
    last = m.horizons[-1] / m.element.scale
    return 0.0 if math.isnan(last) else -last


def _worst_first(gap: Gap) -> list[Drift]:
    """Elements by how far they left the range of training; at the end those never observed."""
    drifts = gap.out_of_distribution
    known = [d for d in drifts if d.outside is not None]
    known.sort(key=lambda d: (-(d.outside or 0.0), -(d.farthest or 0.0)))
    return known + [d for d in drifts if d.outside is None]


def _ranges(gap: Gap) -> list[Panel]:
    """Section with observations beyond the range of training; empty without training data."""
    worst = [d for d in _worst_first(gap) if d.outside is not None][:RANGES]
    if not worst:
        return []
    drawing = draw_range(worst, key="inside", label="Reach of each term beyond the training")
    return [Panel("farthest from the training", drawing)]
