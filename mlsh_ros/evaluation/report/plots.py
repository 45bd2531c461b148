"""Figures of the evaluation report, as inline SVG.

Lines and text take the color of the page's text, so that one drawing serves light and dark.
Names of tasks and masters stand in the page, not in the drawings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from numpy.typing import NDArray

from mlsh_ros.evaluation.episode import Episode
from mlsh_ros.evaluation.report.inline_svg import INK, PAPER, QUIET, axes_of, styled, to_svg
from policies.bundle.bundle import Bundle
from policies.bundle.task_compatibility import resolve_task
from sim.envs.reference_returns import ReferenceReturns
from sim.errors import UserError
from sim.interface import Floats, Interface, ObservationTerm, path_term
from sim.seeding import episode_rng
from sim.tasks.family_calls import FamilyCalls
from sim.tasks.task_id import TaskId

# Okabe and Ito 2008, https://jfly.uni-koeln.de/color/, without the black and the pale yellow, and
# two that are darker than all of them.
PALETTE = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#4b0092", "#5d3a1a"),
)


@dataclass(frozen=True)
class Route:
    """Path of one episode in the plane."""

    position: Floats  # (T, 2)
    skill: NDArray[np.int64]  # (T,)
    goals: Floats  # (G, 2), G may be 0
    radius: float  # of the goals; 0 where the family has none
    counts: int | None  # which goal counts, if it is known

    @property
    def corners(self) -> Floats:
        """(2, 2) lowest and highest x, y of all drawn points."""
        points = np.concatenate(
            [self.position, self.goals - self.radius, self.goals + self.radius]
        )
        return np.stack([points.min(axis=0), points.max(axis=0)])


def route_of(episode: Episode, bundle: Bundle, seed: int) -> Route:
    """Returns the path of an episode, in the term's unit, and its goals if they are observed."""
    interface = bundle.interface
    place = path_term(interface, observed=True)
    assert place is not None
    position = _term(episode, interface, place.name)[:, :2]
    terms = {term.name: term for term in interface.observation if term.policy_input}
    goals = np.zeros((0, 2))
    if "goals" in terms:
        goals = places_of(terms["goals"], _term(episode, interface, "goals")[0])
    radius, counts = _hidden(episode, bundle, goals, seed)
    return Route(position, episode.skill, goals[:, :2], radius, counts)


def places_of(term: ObservationTerm, row: Floats) -> Floats:
    """(G, 2) or (G, 3) places that a row (size,) of a term shows; none if these are no places."""
    axes = 3 if any(path.endswith(".z") for path in term.ros.fields) else 2
    return row.reshape(-1, axes) if row.size % axes == 0 else np.zeros((0, 2))


def _hidden(
    episode: Episode, bundle: Bundle, goals: Floats, seed: int
) -> tuple[float, int | None]:
    """Radius of the goals (0: none) and the one that counts, by repeating the episode's reset."""
    try:
        family, number = resolve_task(bundle, TaskId.parse(episode.task))
    except UserError:  # a family that this computer does not know
        return 0.0, None
    calls = FamilyCalls(family)
    radius = calls.radius or 0.0
    layout = calls.reset(number, episode_rng(seed, episode.number))
    # Only if the goals are the ones that were seen do we know which one counts.
    known = {"goals", "slot"} <= set(layout) and np.shape(layout["goals"]) == goals.shape
    if known and np.allclose(layout["goals"], goals, atol=1e-3):
        return radius, int(layout["slot"])
    return radius, None


def skill_colors(count: int) -> list[str]:
    """Returns K colors; those beyond the palette are its shades, approaching gray."""
    rounds = -(-count // len(PALETTE))
    colors = []
    for k in range(count):
        gray = k // len(PALETTE) / rounds
        red, green, blue = ((1 - gray) * x + gray / 2 for x in to_rgb(PALETTE[k % len(PALETTE)]))
        colors.append(to_hex((red, green, blue)))
    return colors


def square(corners: Floats) -> tuple[Floats, float]:
    """Center (2,) and half side of a square that contains `corners`, with a margin."""
    low, high = corners.reshape(-1, 2).min(axis=0), corners.reshape(-1, 2).max(axis=0)
    return (low + high) / 2, 0.56 * float(max((high - low).max(), 1e-6))


def runs(skill: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Returns (begin, end, skill) of every run of ticks with one skill; `end` is exclusive."""
    edges = [0, *(np.flatnonzero(np.diff(skill)) + 1).tolist(), len(skill)]
    return [(a, b, int(skill[a])) for a, b in pairwise(edges)]


def draw_route(
    route: Route,
    colors: Sequence[str],
    *,
    within: tuple[Floats, float],
    unit: str,
    decision_ticks: int,
    key: str,
    label: str,
) -> Markup:
    """Plot a path in the plane, in the colors of the active skills.

    Args:
        route: the episode.
        colors: of the K skills.
        within: center and half side of the picture.
        unit: of positions, for the scale bar.
        decision_ticks: N.
        key: unique in the page.
        label: for screen readers.
    """
    with styled():
        axes = axes_of((2.1, 2.1), (0.01, 0.01, 0.98, 0.98))
        (x, y), half = within
        axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half), aspect="equal")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, alpha=0.25)
        for i, goal in enumerate(route.goals):
            _draw_goal(axes, goal, route.radius, i == route.counts)
        stretches = runs(route.skill)
        axes.add_collection(
            LineCollection(
                [route.position[a : b + 1] for a, b, _ in stretches],
                colors=[colors[k] for *_, k in stretches],
                linewidths=2.2,
                capstyle="round",
            )
        )
        for tick in range(decision_ticks, len(route.skill), decision_ticks):
            axes.plot(*route.position[tick], "o", ms=2.6, mfc=PAPER, mec=INK, mew=0.6)
        axes.plot(*route.position[0], "o", ms=6, mfc=PAPER, mec=INK, mew=1.3)
        axes.plot(*route.position[-1], "s", ms=4.2, mfc=INK, mec=PAPER, mew=0.7)
        bar = _round_number(half / 2)
        start, low = x - 0.92 * half, y - 0.92 * half
        axes.plot([start, start + bar], [low, low], color=INK, lw=1, alpha=QUIET)
        axes.text(start, low + 0.04 * half, f"{bar:g} {unit}", alpha=QUIET, size=7)
        return to_svg(axes, key, label)


def draw_returns(
    values: Floats,
    solved: NDArray[np.bool_],
    reference_returns: ReferenceReturns,
    *,
    span: tuple[float, float],
    key: str,
    label: str,
) -> Markup:
    """Plot every episode's return (n,) over the quartiles, with the task's reference returns."""
    with styled():
        axes = axes_of((4.2, 2.6), (0.1, 0.05, 0.66, 0.92))
        axes.set(xlim=(-1, 1), ylim=span, xticks=[])
        axes.spines["bottom"].set_visible(False)
        lines = {"random": ":", "task_blind": "--", "optimum": "-"}
        heights = {name: getattr(reference_returns, name) for name in lines}
        for name, y in _apart(heights, 0.065 * (span[1] - span[0])).items():
            axes.axhline(heights[name], color=INK, lw=0.9, ls=lines[name], alpha=QUIET)
            text = f"{name.replace('_', '-')} {heights[name]:.2f}"
            axes.text(1.05, y, text, va="center", clip_on=False)
        low, middle, high = np.percentile(values, [25, 50, 75])
        axes.fill_between([-0.5, 0.5], low, high, color=INK, alpha=0.1, lw=0)
        axes.plot([-0.5, 0.5], [middle, middle], color=INK, lw=1.4)
        # Multiples of the golden ratio spread evenly and are the same in every report.
        spread = (np.arange(len(values)) * 0.6180339887) % 1 * 0.9 - 0.45
        axes.plot(spread[solved], values[solved], "o", ms=2.8, mfc=INK, mew=0, alpha=QUIET)
        axes.plot(spread[~solved], values[~solved], "x", ms=3.6, color=INK, mew=1)
        axes.plot(0, values.mean(), "D", ms=5.5, mfc=INK, mec=PAPER, mew=1)
        return to_svg(axes, key, label)


def draw_timeline(
    episodes: Sequence[Episode],
    colors: Sequence[str],
    *,
    decision_ticks: int,
    key: str,
    label: str,
) -> Markup:
    """Plot the skills over ticks, a row per episode, cut at every decision."""
    ticks = max(len(e.skill) for e in episodes)
    height = 0.5 + 0.17 * len(episodes)
    with styled():
        axes = axes_of((4.2, height), (0.1, 0.4 / height, 0.88, 1 - 0.45 / height))
        for row, episode in enumerate(episodes):
            stretches = runs(episode.skill)
            axes.broken_barh(
                [(a, b - a) for a, b, _ in stretches],
                (row - 0.4, 0.8),
                facecolors=[colors[k] for *_, k in stretches],
            )
        decisions = range(0, ticks + 1, decision_ticks)
        axes.vlines(decisions[1:], -0.5, len(episodes) - 0.5, color=PAPER, lw=1.3)
        axes.set(xlim=(0, ticks), ylim=(len(episodes) - 0.4, -0.6), xlabel="tick")
        axes.set_xticks(decisions[:: max(1, -(-len(decisions) // 8))])
        axes.set_yticks(range(len(episodes)), [str(e.number) for e in episodes])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return to_svg(axes, key, label)


def draw_histogram(values: Floats, *, key: str, label: str) -> Markup:
    """Plot the histogram of values (n,), on a logarithmic scale, with p50 and p99."""
    with styled():
        axes = axes_of((4.2, 2.4), (0.11, 0.16, 0.86, 0.7))
        top = max(float(values.max()), 1e-3)
        bins = np.linspace(min(float(values.min()), 0.0), top, 41).tolist()
        axes.hist(values, bins=bins, color=INK, alpha=0.35, log=True, histtype="stepfilled")
        axes.set(xlim=(bins[0], top), ylim=(0.7, None), xlabel="ms")
        axes.yaxis.set_major_formatter("{x:,g}")  # not as a formula
        axes.yaxis.set_minor_formatter("")
        axes.set_ylabel("ticks", labelpad=1)
        # The two may stand close together, so each has a row of its own for its name.
        for row, percent in enumerate((50, 99)):
            value = float(np.percentile(values, percent))
            axes.axvline(value, color=INK, lw=1, ls="--", alpha=QUIET)
            axes.annotate(
                f"p{percent}",
                (value, 1),
                (0, 3 + 9 * row),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                ha="center",
                annotation_clip=False,
            )
        return to_svg(axes, key, label)


def _term(episode: Episode, interface: Interface, name: str) -> Floats:
    """(T, size) an observation term in its own unit."""
    term = next(term for term in interface.observation if term.name == name)
    return term.unscaled(episode.term(interface, name).astype(np.float64))


def _draw_goal(axes: Axes, goal: Floats, radius: float, counts: bool) -> None:
    if radius > 0:
        turn = np.linspace(0, 2 * np.pi, 49)
        edge = goal + radius * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
        if counts:
            axes.fill(*edge.T, color=INK, alpha=0.16, lw=0)
        axes.plot(*edge.T, color=INK, lw=1 if counts else 0.8, ls="-" if counts else (0, (2, 2)))
    else:
        axes.plot(*goal, "P" if counts else "+", color=INK, ms=7)


def _apart(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Returns the same heights, moved up where two are closer than `gap`."""
    placed: dict[str, float] = {}
    below = -np.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        placed[name] = below = max(height, below + gap)
    return placed


def _round_number(value: float) -> float:
    """Returns the largest of 1, 2, 5 times a power of ten that is not above `value`."""
    power = 10 ** np.floor(np.log10(value))
    return float(max(m * power for m in (1, 2, 5) if m * power <= value * (1 + 1e-9)))
