"""Figures of the gap report."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from mlsh_ros.evaluation.report.inline_svg import INK, PAPER, QUIET, axes_of, styled, to_svg
from mlsh_ros.evaluation.report.plots import PALETTE
from mlsh_ros.sim2real.gap.closed_loop_return import ClosedLoopReturn
from mlsh_ros.sim2real.gap.data_quality import Drift
from mlsh_ros.sim2real.gap.measures import HORIZONS, Measure, Trace

ROBOT, SIM, EXPLAINED = PALETTE[1], PALETTE[0], PALETTE[2]
SHOWN = 6  # lines in a plot


def draw_trace(
    nominal: Trace, explained: Trace | None, *, unit: str, key: str, label: str
) -> Markup:
    """Plot recording and simulation over one window."""
    with styled():
        axes = axes_of((4.2, 2.4), (0.14, 0.17, 0.84, 0.79))
        axes.plot(nominal.time, nominal.simulated, color=SIM, lw=1.6)
        if explained is not None:
            axes.plot(explained.time, explained.simulated, color=EXPLAINED, lw=1.4, ls="--")
        axes.plot(nominal.time, nominal.recorded, ".", color=ROBOT, ms=3, mew=0)
        axes.set(xlabel="s", ylabel=unit)
        return to_svg(axes, key, label)


def draw_horizons(measures: list[Measure], *, key: str, label: str) -> Markup:
    """Plot the prediction error over the time since the start state."""
    with styled():
        axes = axes_of((4.2, 2.4), (0.12, 0.17, 0.62, 0.79))
        ends = {}
        for i, m in enumerate(measures[:SHOWN]):
            values = 100 * np.array(m.horizons) / m.element.scale
            color = PALETTE[i % len(PALETTE)]
            axes.plot(HORIZONS, values, color=color, marker="o", ms=3, lw=1.4)
            last = values[np.isfinite(values)]
            ends[m.element.name] = (float(last[-1]) if len(last) else 0.0, color)
        low, high = axes.get_ylim()
        below = -np.inf
        for name, (end, color) in sorted(ends.items(), key=lambda each: each[1][0]):
            below = max(end, below + 0.085 * (high - low))
            axes.text(2.06, below, name, color=color, va="center")
        axes.set(xlim=(0, 2), ylim=(min(low, 0), high), xlabel="s since it was set")
        axes.set_ylabel("% of the movement")
        return to_svg(axes, key, label)


def draw_range(drifts: list[Drift], *, key: str, label: str) -> Markup:
    """Plot how far each element left the range of training, in units of the range."""
    with styled():
        height = 0.55 + 0.2 * len(drifts)
        axes = axes_of((4.2, height), (0.3, 0.42 / height, 0.66, 1 - 0.5 / height))
        rows = np.arange(len(drifts))
        axes.axvspan(0, 1, color=INK, alpha=0.1, lw=0)
        reach = [1 + (d.farthest or 0.0) for d in drifts]
        axes.hlines(rows, 0, reach, color=INK, lw=1, alpha=QUIET)
        axes.scatter(
            reach,
            rows,
            s=[12 + 60 * (d.outside or 0.0) for d in drifts],
            color=ROBOT,
            zorder=3,
            lw=0,
        )
        axes.set(ylim=(len(drifts) - 0.4, -0.6), xlim=(0, None), xlabel="1: the training's range")
        axes.set_yticks(rows, [d.name for d in drifts])
        axes.tick_params(axis="y", length=0)
        return to_svg(axes, key, label)


def draw_returns(line: ClosedLoopReturn, *, key: str, label: str) -> Markup:
    """Plot the return of every session: robot over simulation from the same start."""
    with styled():
        axes = axes_of((4.2, 3.4), (0.14, 0.13, 0.84, 0.84))
        both = np.concatenate([line.robot, line.simulation])
        low, high = float(both.min()), float(both.max())
        margin = 0.06 * (high - low) or 1.0
        span = (low - margin, high + margin)
        axes.plot(span, span, color=INK, lw=0.9, alpha=QUIET)
        good = line.robot_success
        axes.plot(
            line.simulation[good], line.robot[good], "o", ms=4, mfc=ROBOT, mec=PAPER, mew=0.5
        )
        axes.plot(line.simulation[~good], line.robot[~good], "x", ms=4.5, color=ROBOT, mew=1.2)
        axes.set(xlim=span, ylim=span, xlabel="return in simulation", ylabel="return on the robot")
        return to_svg(axes, key, label)
