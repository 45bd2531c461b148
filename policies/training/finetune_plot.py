"""Plots learning curves of new tasks over updates, episodes and seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from policies.bundle.adaptation import AdaptationPoint
from sim.envs.reference_returns import ReferenceReturns
from sim.files.output import write_csv, write_file
from sim.rendering.figures import to_png, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = dict[str, list[AdaptationPoint]]  # of each learner


def write_curves(curves: dict[str, Curves], path: Path, *, overwrite: bool = False) -> None:
    """Write all curves of all tasks as one CSV.

    Raises:
        UserError: it could not be written, or a file that is there must stay.
    """
    head = ["task", "learner", "updates", "steps", "seconds", "greedy_return", "success"]
    rows = (
        (task, label, p.updates, p.steps, *p.texts)
        for task, of_task in curves.items()
        for label, curve in of_task.items()
        for p in curve
    )
    write_csv(path, head, rows, overwrite=overwrite)


def plot_adaptation(
    curves: dict[str, Curves],
    reference_returns: dict[str, ReferenceReturns],
    ticks: int,
    path: Path,
    *,
    overwrite: bool = False,
) -> None:
    """Plot the greedy return over episodes of `ticks` ticks; of one task over updates as well.

    Raises:
        UserError: it could not be written, or a file that is there must stay.
    """
    write_file(path, adaptation_image(curves, reference_returns, ticks), overwrite=overwrite)


@verbatim()
def adaptation_image(
    curves: dict[str, Curves], reference_returns: dict[str, ReferenceReturns], ticks: int
) -> bytes:
    """Returns the plot of `plot_adaptation` as PNG."""
    from matplotlib.figure import Figure

    scales: dict[str, Callable[[AdaptationPoint], float]] = {
        "updates": lambda p: p.updates,
        "episodes": lambda p: p.steps / ticks,
        "seconds": lambda p: p.seconds,
    }
    one = len(curves) == 1
    panels = [(task, label) for task in curves for label in (scales if one else ["episodes"])]
    columns = 3 if one else min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(
        figsize=(3.67 * columns, 3.6 * rows if one else 2.4 * rows), layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False, sharey="row" if one else False).ravel()
    for axis, (task, label) in zip(axes, panels, strict=False):
        _draw(axis, curves[task], reference_returns[task], label, scales[label])
        if not one:
            axis.set_title(task, fontsize=9)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    axes[0].set_ylabel("greedy return")
    lines, labels = axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, fontsize=8, loc="outside lower center", ncols=len(labels))
    figure.suptitle(f"Learning {next(iter(curves))}" if one else f"Learning {len(curves)} tasks")
    return to_png(figure)


def _draw(
    axis: Axes,
    curves: Curves,
    reference_returns: ReferenceReturns,
    label: str,
    scale: Callable[[AdaptationPoint], float],
) -> None:
    for name, curve in curves.items():
        axis.plot([scale(p) for p in curve], [p.greedy for p in curve], ".-", label=name)
    axis.axhline(reference_returns.optimum, color="0.3", ls=":", lw=1, label="optimum")
    axis.axhline(reference_returns.random, color="0.6", ls="--", lw=1, label="random")
    axis.set_xlabel(label)
    axis.grid(alpha=0.3)
