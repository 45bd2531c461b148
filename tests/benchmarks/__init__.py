"""Measurements; each is a module to run, see the Makefile and docs/results.md."""

from collections.abc import Callable
from functools import wraps

from sim.errors import UserError


def one_line_errors(main: Callable[[], None]) -> Callable[[], None]:
    """An entry point that says in one line, with status 1, what of its arguments does not hold."""

    @wraps(main)
    def run() -> None:
        try:
            main()
        except UserError as error:
            raise SystemExit(str(error)) from None

    return run
