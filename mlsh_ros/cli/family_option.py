"""The option `--family` of all commands that load a task family of the user's own."""

from __future__ import annotations

from typing import Annotated, Optional

import typer


def use(sources: list[str] | None) -> list[str] | None:
    """Import the families given by the user."""
    if sources:
        from sim.tasks.registry import use_family

        for source in sources:
            use_family(source)
    return sources


FamilyOption = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads it on Python 3.10
    typer.Option(
        "--family",
        callback=use,
        help="Task family of your own that the bundle or the run was trained on: "
        "pkg.module:Class or FILE.py, which is imported. Repeatable.",
    ),
]
