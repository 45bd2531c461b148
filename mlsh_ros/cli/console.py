"""The console that all commands print to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn
from rich.table import Table
from rich.text import Text

from mlsh_ros.cli.interrupt import INTERRUPTED, interrupts
from sim.errors import visible


class Screen(Console):
    """Prints text verbatim: names and paths come from files, and a bracket in them is not markup.

    A control character is escaped, so that no file can move the cursor or fake a line. Color is
    set by `style`, never by the text. Where the output cannot be written any more, because its
    reader has ended or a disk is full, the work goes on without it; `failed` says so at the end.
    """

    def __init__(self, width: int | None) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, width=width)
        self.failed: OSError | None = None

    def print(self, *what: Any, **how: Any) -> None:
        """Print, unless printing has failed."""
        try:
            super().print(*what, **how)
        except OSError as error:
            self.quiet, self.failed = True, error

    def on_broken_pipe(self) -> None:
        """Go on without output: its reader has ended."""
        self.quiet, self.failed = True, BrokenPipeError()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def render_str(self, text: str, **how: Any) -> Text:
        """Escape a text, whether printed or in a table."""
        return super().render_str(visible(text), **how)


# In a pipe there is no width to keep to: lines stay whole.
console = Screen(None if sys.stdout.isatty() else 160)


def say(text: str, style: str | None = None) -> None:
    """Print a line without wrapping it."""
    console.print(text, style=style, soft_wrap=True)


def make_table(*left: str, right: Iterable[str] = (), gap: int = 2, **how: Any) -> Table:
    """Returns a table without lines.

    Args:
        left: heads of the first columns.
        right: heads of the columns after them, whose cells are aligned to the right.
        gap: characters beside each column.
        how: of the table itself, see `rich.table.Table`.
    """
    table = Table(box=None, padding=(0, gap), **how)
    for head in left:
        table.add_column(head)
    for head in right:
        table.add_column(head, justify="right")
    return table


@contextmanager
def interrupted(kept: Callable[[], str]) -> Iterator[None]:
    """Ends the command with one line if Ctrl-C is pressed in the block.

    Args:
        kept: describes the work that is kept.
    """
    try:
        yield
    except KeyboardInterrupt:
        interrupts.report(visible(kept()))
        raise typer.Exit(INTERRUPTED) from None


def bundle_interrupted(target: Path) -> AbstractContextManager[None]:
    """Ends the command as `interrupted`, and says whether a bundle was written to `target`."""

    def folder() -> int | None:
        try:
            return target.stat().st_ino  # a bundle is written beside its place, and moved there
        except OSError:
            return None

    before = folder()

    def kept() -> str:
        written = folder() not in (None, before)
        return f"bundle {target} is written" if written else "no bundle was written"

    return interrupted(kept)


class Words(TextColumn):
    """A column of a progress display whose text is shown as on the `Screen`."""

    def __init__(self, text: str) -> None:
        super().__init__(text, markup=False)

    def render(self, task: Task) -> Text:
        """Escape the text: it does not pass through `Screen.render_str`."""
        return Text(visible(self.text_format.format(task=task)), justify=self.justify)


def progress_bar() -> Progress:
    """Returns a progress bar with a counter; it is disabled unless the output is a terminal.

    It prints nothing to a pipe, so that a failing output cannot end the work.
    """
    columns = Words("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
