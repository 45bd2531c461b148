"""Where sub-commands print, and the options that several share."""

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
from sim.files.strict_yaml import whole_number

MAX_SEED = 2**31 - 1  # what a ROS parameter of ours may hold
MAX_UPDATES = 1_000_000  # of a master: every one leaves a row
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


def whole(low: int, high: int | None = None, *names: str, help: str) -> Any:
    """An option that is a whole number from `low` to `high`; 1e6 is one."""

    def parse(value: str | int) -> int:
        try:
            number = value if isinstance(value, int) else whole_number(value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        if number < low or (high is not None and number > high):
            most = "" if high is None else f" and at most {high}"
            raise typer.BadParameter(f"{number} is not at least {low}{most}")
        return number

    metavar = f"INTEGER>={low}" if high is None else f"INTEGER {low}..{high}"
    return typer.Option(*names, parser=parse, metavar=metavar, help=help)


def number(low: float, high: float, *, help: str) -> Any:
    """An option that is a number from `low` to `high`; nan is none."""

    def parse(value: str | float) -> float:
        try:
            found = float(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not a number") from None
        if not low <= found <= high:
            raise typer.BadParameter(f"{found:g} is not at least {low:g} and at most {high:g}")
        return found

    return typer.Option(parser=parse, metavar=f"NUMBER {low:g}..{high:g}", help=help)


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
