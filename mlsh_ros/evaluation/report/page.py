"""Renders self-contained HTML pages from templates.

A report is a template beside its Python file. It extends `base.html`, which holds the style and
the one script, and takes plain data: everything but drawings is escaped.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
MILLI = 1e3
PERCENT = "\u00a0%"  # does not break from its number
NOT_KNOWN = -1e9  # sorted before everything that is known


@dataclass(frozen=True)
class Panel:
    """A drawing with its title."""

    title: str
    drawing: Markup  # inline SVG
    detail: str = ""  # of the title, in small letters


def render_page(template: Path, *, name: str, facts: Mapping[str, Any], **data: Any) -> str:
    """The page as HTML; the same data give the same text.

    Args:
        template: the report's own; it extends `base.html`.
        name: title of the page.
        facts: shown below the name.
        data: variables of the template.
    """
    script = (HERE / "sort.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, milli=_milli, sort_value=_sort_value)
    environment.tests["nan"] = math.isnan
    return environment.get_template(template.name).render(
        name=name,
        facts=facts,
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        **data,
    )


def percent(share: float | None, digits: int = 0) -> str:
    """Formats a fraction in percent; n/a if it is not a number."""
    if share is None or math.isnan(share):
        return "n/a"
    # Adding 0 makes -0 a 0.
    return f"{round(100 * float(share), digits) + 0.0:.{digits}f}{PERCENT}"


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else MILLI * seconds


def _sort_value(value: float | None) -> float:
    return NOT_KNOWN if value is None or math.isnan(value) else value
