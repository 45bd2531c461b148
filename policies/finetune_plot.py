"""Learning curves of a new task: over updates, episodes and seconds."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from policies.adapt import Progress
from sim.bounds import Bounds
from sim.errors import UserError

Curves = dict[str, list[Progress]]


def write_curves(curves: Curves, path: Path) -> None:
    """All curves as one CSV.

    Raises:
        UserError: it could not be written.
    """
    try:
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["learner", "updates", "steps", "seconds", "greedy_return", "success"])
            for label, curve in curves.items():
                for p in curve:
                    numbers = (f"{x:.4f}" for x in (p.seconds, p.greedy, p.success))
                    writer.writerow([label, p.updates, p.steps, *numbers])
    except OSError as error:
        raise UserError(f"{path}: could not be written ({error.strerror})") from None


def plot_adaptation(curves: Curves, bounds: Bounds, task: str, ticks: int, path: Path) -> None:
    """Greedy return over updates, episodes of `ticks` ticks and seconds, side by side.

    Raises:
        UserError: it could not be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    scales: dict[str, Callable[[Progress], float]] = {
        "updates": lambda p: p.updates,
        "episodes": lambda p: p.steps / ticks,
        "seconds": lambda p: p.seconds,
    }
    for axis, (label, scale) in zip(axes, scales.items(), strict=True):
        for name, curve in curves.items():
            axis.plot([scale(p) for p in curve], [p.greedy for p in curve], ".-", label=name)
        axis.axhline(bounds.optimum, color="0.3", ls=":", lw=1, label="optimum")
        axis.axhline(bounds.random, color="0.6", ls="--", lw=1, label="random")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("greedy return")
    axes[0].legend(fontsize=8, loc="center right")
    figure.suptitle(f"Learning {task}")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise UserError(f"{path}: could not be written ({error.strerror})") from None
