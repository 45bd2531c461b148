"""Plots trajectories from above: one panel per task, colored by skill."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon
from numpy.typing import NDArray

from mlsh_ros.evaluation.number_format import amount
from mlsh_ros.evaluation.report.plots import runs, skill_colors
from mlsh_ros.evaluation.trajectories import Trajectory
from sim.errors import UserError
from sim.files.output import check_format, replacing
from sim.interface import Floats, path_term
from sim.physics.robot_model import Robot
from sim.rendering.scene import GRAYS, SceneRenderer
from sim.rendering.topdown import Shape

SUFFIXES = (".png", ".svg", ".pdf")
INK, PAPER, MUTED = "#1c2633", "#ffffff", "#5b6879"
SIDE = 2.7  # inches, of a square panel
FOLD = 1.7  # width of the figure by its height, about
EMPTY = 0.5  # a panel that stays empty is as bad as a figure that is so much off, as a logarithm
SLIM = 5.0  # a panel's longer side by its shorter one, at most
MARGIN = 0.04  # of a panel around what it shows
# Keywords of Line2D, so that the legend shows the marks of the panels.
START: dict[str, Any] = {"marker": "o", "ms": 5.5, "mfc": PAPER, "mec": INK, "mew": 1.2}
SWITCH: dict[str, Any] = {"marker": "o", "ms": 2.6, "mfc": PAPER, "mec": INK, "mew": 0.6}
END: dict[str, Any] = {"marker": "s", "ms": 3.4, "mfc": INK, "mec": PAPER, "mew": 0.6}
RING: dict[str, Any] = {"marker": "o", "ms": 8, "mfc": "none", "mec": INK, "mew": 0.9}
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#c3cad3",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.hashsalt": "mlsh_ros",
    "text.parse_math": False,  # names of tasks are names
}


def check_plot(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a path that `write_birdseye` cannot write, before any simulation runs.

    Raises:
        UserError: another suffix, no such folder, or a file that must stay.
    """
    check_format(path, "plot", SUFFIXES, overwrite=overwrite)


def write_birdseye(figure: Figure, path: Path, *, overwrite: bool = False) -> None:
    """Write the figure as PNG, SVG or PDF.

    Raises:
        UserError: it could not be written.
    """
    with replacing(path, overwrite=overwrite) as fresh, matplotlib.rc_context(STYLE):
        figure.savefig(fresh, dpi=130, bbox_inches="tight", pad_inches=0.12)


def require_position(robot: Robot) -> None:
    """Refuse a robot without a position.

    Raises:
        UserError: it has no term `position` or `tool_position` of x and y.
    """
    terms = [term.name for term in robot.interface.observation]
    if path_term(robot.interface) is None:
        raise UserError(
            f"robot {robot.name!r} has no observation term 'position' or 'tool_position' with x "
            f"and y, so there is no path to draw. It has: {', '.join(terms)}"
        )


def draw_birdseye(
    robot: Robot, takes: Sequence[Trajectory], *, skills: Sequence[str], title: str
) -> Figure:
    """Draw one panel per task and master, with all its episodes.

    Args:
        robot: drove; it has a `position`, see `require_position`.
        takes: at least one; those of a task and master stand together.
        skills: names of the K skills.
        title: of the figure.
    """
    panels = [list(group) for _, group in groupby(takes, key=lambda take: take.label)]
    place = path_term(robot.interface)
    assert place is not None
    unit = place.unit
    with matplotlib.rc_context(STYLE):
        shapes = [_shapes(robot, panel) for panel in panels]
        boxes = _boxes(panels, shapes)
        alike = all(np.array_equal(box, boxes[0]) for box in boxes)
        figure = Figure()
        axes = _grid(figure, boxes)
        for axis, panel, around, box in zip(axes, panels, shapes, boxes, strict=True):
            _draw(axis, panel, around, skill_colors(len(skills)))
            (left, low), (right, high) = box
            axis.set(xlim=(left, right), ylim=(low, high), aspect="equal")
            axis.set_title(_title(panel), size=8.5)
            axis.set(xlabel=f"x ({unit})", ylabel=f"y ({unit})")
            if alike:  # else each has a scale of its own
                axis.label_outer()
        figure.suptitle(title, size=10)
        _legend(figure, skills, takes)
    return figure


# A panel --------------------------------------------------------------------------------------


def _draw(
    axes: Axes, panel: Sequence[Trajectory], shapes: Sequence[Shape], colors: list[str]
) -> None:
    for shape in shapes:
        axes.add_patch(_patch(shape))
    for take in panel:
        if take.scene.target is not None:
            x, y = take.scene.target
            ring = Circle((x, y), take.scene.radius, fill=False, ec=INK, lw=0.9)
            ring.set(zorder=2.5, gid="target")  # above the walls
            axes.add_patch(ring)
    for take in panel:
        _draw_route(axes, take.scene.path, take.episode.skill, colors)


def _draw_route(axes: Axes, path: Floats, skill: NDArray[np.int64], colors: Sequence[str]) -> None:
    stretches = runs(skill)
    lines = LineCollection(
        [path[begin : end + 1] for begin, end, _ in stretches],
        colors=[colors[k] for *_, k in stretches],
        linewidths=1.5,
        capstyle="round",
        zorder=3,
        gid="route",
    )
    axes.add_collection(lines)
    switches = path[[begin for begin, *_ in stretches[1:]]]
    axes.plot(*switches.T, ls="", zorder=4, gid="switch", **SWITCH)
    axes.plot(*path[-1], zorder=5, gid="end", **END)
    axes.plot(*path[0], zorder=6, gid="start", **START)


def _patch(shape: Shape) -> Polygon:
    gray = np.dot(shape.color[:3], GRAYS)  # colors are those of skills
    alpha = shape.color[3] * (1.0 if shape.fixed or shape.solid else 0.25)
    return Polygon(
        shape.outline,
        closed=True,
        facecolor=(gray, gray, gray, alpha),
        linewidth=0,
        zorder=1 + np.arctan(shape.top) / np.pi,
        gid="fixed" if shape.fixed else "placed",
    )


def _shapes(robot: Robot, panel: Sequence[Trajectory]) -> list[Shape]:
    """Returns the scenery in any of the episodes, without repetitions."""
    stage = SceneRenderer(robot, panel[0].scene.family)
    found: dict[bytes, Shape] = {}
    for take in panel:
        stage.pose(take.scene.frames[0], take.scene.layout)
        for shape in stage.footprints():
            found[shape.outline.round(6).tobytes() + repr(shape.color).encode()] = shape
    return list(found.values())


def _title(panel: Sequence[Trajectory]) -> str:
    value = float(np.mean([take.episode.value for take in panel]))
    solved = sum(take.episode.success for take in panel)
    return f"{panel[0].label}\nreturn {amount(value)}, {solved} of {len(panel)} solved"


def _family(panel: Sequence[Trajectory]) -> str:
    return panel[0].scene.family.name


# The figure -----------------------------------------------------------------------------------


def _boxes(
    panels: Sequence[Sequence[Trajectory]], shapes: Sequence[Sequence[Shape]]
) -> list[Floats]:
    """(2, 2) lowest and highest x, y of every panel; the same in a family."""
    boxes: dict[str, Floats] = {}
    for panel, around in zip(panels, shapes, strict=True):
        points = np.concatenate(
            [take.scene.path for take in panel] + [shape.outline for shape in around]
        )
        box = np.stack([points.min(axis=0), points.max(axis=0)])
        known = boxes.get(_family(panel), box)
        boxes[_family(panel)] = np.stack(
            [np.minimum(box[0], known[0]), np.maximum(box[1], known[1])]
        )
    return [_roomy(boxes[_family(panel)]) for panel in panels]


def _roomy(box: Floats) -> Floats:
    """Returns the box with a margin, and a minimum width relative to its height."""
    size = np.maximum(box[1] - box[0], 1e-6)
    size = np.maximum(size, size.max() / SLIM) + 2 * MARGIN * size.max()
    middle = box.mean(axis=0)
    return np.stack([middle - size / 2, middle + size / 2])


def _grid(figure: Figure, boxes: Sequence[Floats]) -> list[Axes]:
    """Arranges panels in rows, so that the figure is neither flat nor tall."""
    sizes = np.array([box[1] - box[0] for box in boxes])
    wide, high = (SIDE * np.sqrt(r) for r in _ratios(sizes.max(axis=0)))
    count = len(boxes)

    def misfit(columns: int) -> float:
        rows = -(-count // columns)
        empty = rows * columns - count
        return float(abs(np.log(columns * wide / (rows * high) / FOLD)) + EMPTY * empty)

    columns = min(range(1, count + 1), key=misfit)
    rows = -(-count // columns)
    # Room for titles and labels; the layout gives the rest to the panels.
    figure.set_size_inches(max(columns * wide + 0.7, 4.5), rows * (high + 0.4) + 1.1)
    figure.set_layout_engine("compressed")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.remove()
    return list(grid[:count])


def _ratios(size: Floats) -> tuple[float, float]:
    return float(size[0] / size[1]), float(size[1] / size[0])


def _legend(figure: Figure, skills: Sequence[str], takes: Sequence[Trajectory]) -> None:
    used = sorted({int(k) for take in takes for k in np.unique(take.episode.skill)})
    colors = skill_colors(len(skills))
    entries: list[Artist] = [Line2D([], [], color=colors[k], lw=2, label=skills[k]) for k in used]
    marks = {"start": START, "end": END}
    if any(take.episode.switches for take in takes):
        marks["switch of skill"] = SWITCH
    if any(take.scene.target is not None for take in takes):
        marks["the goal that counts"] = RING
    entries += [Line2D([], [], ls="", label=name, **mark) for name, mark in marks.items()]
    columns = min(len(entries), max(3, int(figure.get_figwidth() / 1.0)))
    figure.legend(handles=entries, loc="outside lower center", ncols=columns, frameon=False)
