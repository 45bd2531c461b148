"""Measurements; each is a module to run, see the Makefile and docs/results.md."""

import shlex
import subprocess
from collections.abc import Callable, Sequence
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


def output_of(command: Sequence[str]) -> str:
    """Run a command; returns what it wrote to standard output.

    Raises:
        UserError: it failed; with its status and the last line of its error.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise UserError(f"{shlex.join(command)}: ended with status {done.returncode}: {said}")
    return done.stdout
