"""Figures: names are drawn as they are, whatever matplotlib would make of them."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mlsh_ros.evaluation.report.plots import draw_histogram
from mlsh_ros.sim2real.gap.data_quality import Drift
from mlsh_ros.sim2real.gap.measures import Trace
from mlsh_ros.sim2real.gap.plots import draw_horizons, draw_range, draw_trace
from policies.experiments import results_table
from policies.training.finetune_plot import adaptation_image
from policies.training.metrics import plot_curves
from sim.rendering.figures import to_png, verbatim

ROOT = Path(__file__).parents[2]
NAME = r"$\x$ $_$"  # no formula
LIMITS = SimpleNamespace(optimum=1.0, random=0.0, task_blind=0.5)


def measure(name):
    element = SimpleNamespace(name=name, scale=1.0)
    return SimpleNamespace(element=element, horizons=(0.1, 0.2, 0.3, 0.4, 0.5))


def test_names_of_joints_are_drawn_as_they_are():
    drift = Drift(NAME, 0.0, 1.0, 0.5, 2.0)
    trace = Trace(np.arange(3.0), np.arange(3.0), np.arange(3.0))
    for drawn in (
        draw_range([drift], key="k", label="l"),
        draw_horizons([measure(NAME)], key="k", label="l"),
        draw_trace(trace, None, unit=NAME, key="k", label="l"),
    ):
        assert NAME in drawn


def test_names_of_tasks_and_variants_are_drawn_as_they_are(tmp_path):
    outcome = SimpleNamespace(scores=np.zeros((1, 2)), steps=np.arange(2))
    summary = SimpleNamespace(variant=NAME, outcomes=[outcome])
    assert results_table.image([summary], 0.9).startswith(b"\x89PNG")
    point = SimpleNamespace(updates=1, steps=10, seconds=1.0, greedy=0.5)
    for tasks in ([NAME], [NAME, "other"]):
        curves = {task: {NAME: [point]} for task in tasks}
        assert adaptation_image(curves, dict.fromkeys(tasks, LIMITS), 10).startswith(b"\x89PNG")
    plot_curves([], (NAME,), [LIMITS], 2, tmp_path / "curves.png")


def test_a_histogram_has_numbers_at_its_axis():
    values = np.concatenate([np.full(2000, 1.0), np.full(30, 2.0), [3.0]])
    drawn = draw_histogram(values, key="k", label="l")
    assert "$" not in drawn
    assert {"1", "10", "100", "1,000"} <= set(re.findall(r">([\d,]+)</text>", drawn))


def test_a_formula_is_none_within_verbatim():
    from matplotlib.figure import Figure

    with verbatim():
        figure = Figure()
        figure.suptitle(NAME)
        assert to_png(figure).startswith(b"\x89PNG")
    figure = Figure()
    figure.suptitle(NAME)
    with pytest.raises(ValueError, match=r"ParseFatalException|Unknown symbol"):
        to_png(figure)


def test_every_figure_is_drawn_so():
    """A module that makes one either decorates the function, or has a style that says it."""
    makers = [
        path
        for package in ("sim", "policies", "mlsh_ros")
        for path in sorted((ROOT / package).rglob("*.py"))
        if re.search(r"\bFigure\(", path.read_text())
    ]
    assert len(makers) >= 6
    for path in makers:
        source = path.read_text()
        assert "@verbatim()" in source or '"text.parse_math": False' in source, path
