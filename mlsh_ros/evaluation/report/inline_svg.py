"""Inline SVG figures from matplotlib in the two colors of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, PAPER = "#010203", "#fefdfc"  # drawn with, then replaced by the page's own two colors
QUIET = 0.55  # opacity of what is not data
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mlsh_ros",
    "font.size": 8,
    "text.parse_math": False,  # names are names
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@contextmanager
def styled() -> Iterator[None]:
    """Plot style of the reports, based on matplotlib's defaults instead of a matplotlibrc."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def axes_of(size: tuple[float, float], place: tuple[float, float, float, float]) -> Axes:
    """Returns axes at `place` (left, bottom, width, height; fractions) of a figure, inches."""
    return Figure(size).add_axes(place)


def to_svg(axes: Axes, key: str, label: str) -> Markup:
    """Returns the figure for inline use: no prologue, no metadata, unique ids, page colors."""
    buffer = io.StringIO()
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    _, found, body = text.partition("<svg ")
    attributes, _, body = body.partition(">")
    box = re.search(r'viewBox="[^"]*"', attributes)
    assert found
    assert box is not None
    body = body.replace("xlink:href", "href")
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", body)
    body = body.replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    name = escape(label)
    opening = f'<svg {box[0]} role="img" aria-label="{name}"><title>{name}</title>'
    return Markup(opening + body.strip())
