"""mlsh migrate: rewrite the files of an earlier version with the names of this one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from mlsh_ros.cli.console import say


def migrate(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="Robot folder, sim-parameter file, run folder, or bundle."
        ),
    ],
) -> None:
    """Rewrite files of an earlier version with the names of this one.

    Comments stay. Weights that several skills of a bundle have are stored once. The new files take
    the place of the old ones when they are complete.
    """
    from policies.training.migrate import migrate as rewrite
    from sim.files.output import named

    inside = Path.cwd()
    path = named(path)
    done = rewrite(path)
    if done.files:
        say(f"{done.kind} {path}: rewritten: {', '.join(done.files)}")
        if path.resolve() == inside or path.resolve() in inside.parents:
            say(f"the folder was replaced; enter it again: cd {shlex.quote(str(inside))}")
    else:
        say(f"{done.kind} {path}: has this version's names already")
