"""Robustness map: a bundle's score as a function of one deviating parameter at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import EvaluationCase
from mlsh_ros.evaluation.measured import Measured, measured
from mlsh_ros.evaluation.scores import reference_returns
from sim.errors import UserError, unknown
from sim.files.output import write_file
from sim.interface import Floats, Interface
from sim.randomization.quantities import TABLE, Per
from sim.randomization.schema import (
    SimParams,
    actuator_names,
    check_sim_params,
    robot_terms,
    sim_params_from_dict,
)
from sim.rendering.figures import to_png, verbatim

SCHEMA = 2
POINTS, PAIR_POINTS = 7, 5  # on an axis alone, and on each of a pair
KEPT = 0.8  # of the nominal score; with less it counts as broken
PLAIN = {"": 1.0}
# Suffixes of a range, by the unit that it is swept in; of others none.
UNITS = {
    "s": {"s": 1.0, "ms": 1e-3, "": 1.0},
    "kg": {"kg": 1.0, "g": 1e-3, "": 1.0},
    "x nominal": {"x": 1.0, "": 1.0},
}
# What may be swept: of all bodies, all actuators, all sensors.
QUANTITIES = {row.sweep: row for row in TABLE if row.sweep}


@dataclass(frozen=True)
class Axis:
    """A quantity that is swept."""

    name: str
    low: float
    high: float

    @property
    def label(self) -> str:
        """Name and unit."""
        return f"{self.name} ({QUANTITIES[self.name].unit})"

    def values(self, count: int) -> Floats:
        """`count` values, evenly spaced from the lowest to the highest."""
        return np.linspace(self.low, self.high, count)


@dataclass(frozen=True)
class Point:
    """A score at given values of one or two quantities."""

    values: dict[str, float]
    score: float  # 0 random, 1 optimum, mean over tasks; of the nominal model's bounds
    success: float  # fraction of episodes
    # Fraction of episodes in which skill_node would have stopped the robot, or the simulation
    # diverged; and of those in which it did.
    stopped: float
    diverged: float = 0.0


@dataclass(frozen=True)
class RobustnessMap:
    """Scores of a bundle over axes and over pairs of them."""

    measured: Measured
    cases: Sequence[EvaluationCase]
    episodes: int  # per task and point
    seed: int
    nominal: Point
    axes: dict[str, tuple[Axis, list[Point]]]
    pairs: dict[tuple[str, str], list[Point]]  # the second one runs fastest

    def verdict(self, name: str) -> str:
        """Describes an axis: where the score is kept, and where episodes would be stopped."""
        return "; ".join(filter(None, (self._kept(name), self._stopped(name))))

    def _stopped(self, name: str) -> str:
        _, points = self.axes[name]
        bad = [(p.stopped, p.values[name]) for p in points if p.stopped]
        if not bad:
            return ""
        (part, value), *more = bad
        who = "skill_node would stop the robot"
        if any(p.diverged for p in points):
            who += ", or the simulation diverges,"
        return ", ".join(
            [
                f"{who} in {part:.0%} of the episodes at {value:.3g}",
                *(f"{part:.0%} at {value:.3g}" for part, value in more),
            ]
        )

    def _kept(self, name: str) -> str:
        axis, points = self.axes[name]
        if self.nominal.score <= 0:
            nominal = f"the nominal score is {self.nominal.score:.2f}"
            return f"{axis.label}: {nominal}, so no part of it is kept"
        bad = [p.values[name] for p in points if p.score < KEPT * self.nominal.score]
        if not bad:
            return f"{axis.label}: keeps {KEPT:.0%} of the nominal score everywhere"
        return f"{axis.label}: below {KEPT:.0%} of the nominal score at " + ", ".join(
            f"{value:.3g}" for value in bad
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with a versioned schema."""
        return {
            "schema": SCHEMA,
            **self.measured.to_dict(),
            "backend": "sim",
            "tasks": [{"task": str(c.task), "master": c.master} for c in self.cases],
            "episodes": self.episodes,
            "seed": self.seed,
            "kept": KEPT,
            "nominal": vars(self.nominal),
            "axes": {
                name: {
                    "unit": QUANTITIES[name].unit,
                    "verdict": self.verdict(name),
                    "points": [vars(p) for p in points],
                }
                for name, (_, points) in self.axes.items()
            },
            "pairs": [
                {"axes": list(names), "points": [vars(p) for p in points]}
                for names, points in self.pairs.items()
            ],
        }


def parse_axes(texts: list[str]) -> list[Axis]:
    """Parse `friction=0.3:1.2` and `delay=0:60ms`, also several in one text.

    Raises:
        UserError: a quantity that cannot be swept, or no range.
    """
    axes = [_axis(part) for text in texts for part in text.split()]
    names = [axis.name for axis in axes]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"sweep: {repeated[0]!r} is given twice")
    return axes


def _axis(text: str) -> Axis:
    name, _, ends = text.partition("=")
    if name not in QUANTITIES:
        raise unknown("quantity to sweep", name, QUANTITIES)
    number = ends.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = ends[len(number) :]
    units = UNITS.get(QUANTITIES[name].unit, PLAIN)
    try:
        low, high = (float(end) for end in number.split(":"))
        scale = units[unit]
    except (ValueError, KeyError):
        valid = " or ".join(unit or "nothing" for unit in units)
        raise UserError(
            f"sweep {text!r}: low:high is expected, such as delay=0:60ms; {name} is in "
            f"{QUANTITIES[name].unit}, and may be followed by {valid}"
        ) from None
    if not low < high or not np.isfinite([low, high]).all():
        raise UserError(f"sweep {text!r}: the first must be the lower")
    return Axis(name, low * scale, high * scale)


def robustness(
    cases: Sequence[EvaluationCase],
    axes: list[Axis],
    *,
    episodes: int,
    seed: int,
    on_point: Callable[[], None] = lambda: None,
) -> RobustnessMap:
    """Score a bundle over each axis and over each pair; other parameters are those of the cases.

    Args:
        cases: of one bundle and robot; scores are means over them, and their simulation
            parameters are those around which it is swept.
        axes: the swept quantities.
        episodes: per point and case, the same everywhere.
        seed: of the episodes.
        on_point: called after each point.

    Raises:
        UserError: an axis has an impossible value, or does not apply to the robot.
    """
    interface, what = cases[0].robot.interface, measured(cases[0])
    for axis in axes:  # before anything is simulated
        for end in axis.values(2):
            sim_params_at(interface, {axis.name: float(end)})
    limits = reference_returns(cases, seed=seed, episodes=episodes)
    limit_of = {str(task): limit for task, limit in limits.items()}

    def score(values: dict[str, float]) -> Point:
        around = sim_params_at(interface, values)
        done = run_offline(cases, episodes=episodes, seed=seed, around=around)
        on_point()
        scores = [limit_of[e.task].normalize(e.value) for e in done]
        # Where the reward is a cost, an episode that is cut off costs less than a whole one.
        scores = [min(s, 0.0) if e.diverged else s for s, e in zip(scores, done, strict=True)]
        success = float(np.mean([e.success for e in done]))
        stopped = float(np.mean([bool(e.fault) for e in done]))
        diverged = float(np.mean([e.diverged for e in done]))
        return Point(values, float(np.mean(scores)), success, stopped, diverged)

    return RobustnessMap(
        measured=what,
        cases=cases,
        episodes=episodes,
        seed=seed,
        nominal=score({}),
        axes={a.name: (a, [score({a.name: float(v)}) for v in a.values(POINTS)]) for a in axes},
        pairs={
            (a.name, b.name): [
                score({a.name: float(v), b.name: float(w)})
                for v in a.values(PAIR_POINTS)
                for w in b.values(PAIR_POINTS)
            ]
            for a, b in combinations(axes, 2)
        },
    )


def points_of(axes: list[Axis]) -> int:
    """Number of points that `robustness` scores."""
    pairs = len(list(combinations(axes, 2)))
    return 1 + POINTS * len(axes) + PAIR_POINTS**2 * pairs


def sim_params_at(interface: Interface, values: dict[str, float]) -> SimParams:
    """Returns the parameters at which the quantities have these values.

    Raises:
        UserError: one cannot have its value.
    """
    merged: dict[str, dict[str, Any]] = {}
    owners = {
        Per.ACTUATOR: actuator_names(interface),
        Per.TERM: [term.name for term in robot_terms(interface)],
    }
    for name, value in values.items():
        row = QUANTITIES[name]
        section = merged.setdefault(row.section, {})
        if row.per is Per.ROBOT:
            section[row.key] = value
        for owner in owners.get(row.per, []):
            section.setdefault(owner, {})[row.key] = value
    sim_params = sim_params_from_dict(merged, f"sweep of {', '.join(values)}")
    check_sim_params(sim_params, interface, "sweep")
    return sim_params


def plot_map(found: RobustnessMap, path: Path, *, overwrite: bool = False) -> None:
    """Plot a line for each axis and a field for each pair.

    Raises:
        UserError: it could not be written.
    """
    write_file(path, map_image(found), overwrite=overwrite)


@verbatim()
def map_image(found: RobustnessMap) -> bytes:
    """Returns the plot of `plot_map` as PNG."""
    from matplotlib.figure import Figure

    columns = 3
    count = len(found.axes) + len(found.pairs)
    rows = -(-count // columns)
    figure = Figure(figsize=(4 * min(columns, count), 3.2 * rows), layout="constrained")
    grid = figure.subplots(rows, min(columns, count), squeeze=False)
    places = list(grid.flat)
    highest = max(p.score for _, points in found.axes.values() for p in [found.nominal, *points])
    top = max(1.0, highest) + 0.05
    for place, (name, (axis, points)) in zip(places, found.axes.items(), strict=False):
        where = [p.values[name] for p in points]
        place.plot(where, [p.score for p in points], ".-", label="score")
        if any(p.stopped for p in points):
            place.plot(where, [p.stopped for p in points], "x:", c="tab:red", label="stopped")
            place.legend()
        place.axhline(found.nominal.score, color="0.3", ls=":", lw=1)
        place.axhline(KEPT * found.nominal.score, color="tab:red", ls="--", lw=1)
        place.set(xlabel=axis.label, ylabel="score", ylim=(min(0, place.get_ylim()[0]), top))
        place.grid(alpha=0.3)
    for place, ((a, b), points) in zip(
        places[len(found.axes) :], found.pairs.items(), strict=False
    ):
        first, second = found.axes[a][0], found.axes[b][0]
        field = np.reshape([p.score for p in points], (PAIR_POINTS, PAIR_POINTS))
        image = place.pcolormesh(
            second.values(PAIR_POINTS), first.values(PAIR_POINTS), field, vmin=0, vmax=1
        )
        place.set(xlabel=second.label, ylabel=first.label)
        figure.colorbar(image, ax=place, label="score")
    for place in places[count:]:
        place.remove()
    what = found.measured
    around = f", around {what.sim_params}" if what.sim_params else ""
    tasks = ", ".join(dict.fromkeys(str(case.task) for case in found.cases))
    figure.suptitle(
        f"{what.bundle} on {what.robot} (model {what.model_digest[:12]}), "
        f"{tasks}: score over what differs from the model{around}",
        wrap=True,
    )
    return to_png(figure)
