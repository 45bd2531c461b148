"""The console that all commands print to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from sim.errors import visible

INTERRUPTED = 130  # exit status after Ctrl-C, as of a shell


class Screen(Console):
    """Shows text as it is: names and paths come from files, and a bracket in them is a bracket.

    A control character is written out, so that no file can move the cursor or fake a line. Colour
    is a matter of `style`, never of the text.
    """

    def __init__(self, width: int | None) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, width=width)

    def render_str(self, text: str, **how: Any) -> Text:
        """A text on its way to the screen, whether printed or in a table."""
        return super().render_str(visible(text), **how)


# In a pipe there is no width to keep to: lines stay whole.
console = Screen(None if sys.stdout.isatty() else 160)


def say(text: str, style: str | None = None) -> None:
    """Print a line. It stays whole, also where a terminal is narrower."""
    console.print(text, style=style, soft_wrap=True)


@contextmanager
def interrupted(kept: Callable[[], str]) -> Iterator[None]:
    """Ends the command in one line where Ctrl-C is pressed in the block.

    Args:
        kept: says what there is of the work.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted; {visible(kept())}\n")
        raise typer.Exit(INTERRUPTED) from None


def progress_bar() -> Progress:
    """A bar that counts: what, how far, how many of how many; and nothing where nobody looks.

    In a pipe not even an empty line: an output that fails must not end work that goes on.
    """
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
