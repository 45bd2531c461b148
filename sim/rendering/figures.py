"""Figures of matplotlib whose texts are names, and so are drawn as they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def verbatim() -> Iterator[None]:
    """Draws every text of a figure as it is; a dollar sign in a name begins no formula.

    A figure is made and drawn in the same block, or in a function that this decorates: a text
    keeps what was in force when it was made, and some are made when the figure is drawn.
    """
    import matplotlib  # here: many commands draw nothing

    with matplotlib.rc_context({"text.parse_math": False}):
        yield


def to_png(figure: Figure, dpi: int = 120) -> bytes:
    """Returns a figure as a PNG file; call it within `verbatim`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
