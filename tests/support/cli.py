"""The command `mlsh` in the process of a test, which has imported everything already."""

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest

from mlsh_ros.cli import main as cli


def run_mlsh(*arguments: object, cwd: Path | None = None) -> tuple[int, str, str]:
    """Exit status and what is printed to stdout and to stderr, run in a folder if one is given."""
    out, err, before = io.StringIO(), io.StringIO(), os.getcwd()
    words = ["mlsh", *map(str, arguments)]
    os.chdir(cwd or before)
    try:
        with (
            mock.patch.object(sys, "argv", words),
            redirect_stdout(out),
            redirect_stderr(err),
            pytest.raises(SystemExit) as caught,
        ):
            cli.main()
    finally:
        os.chdir(before)
    return int(caught.value.code or 0), out.getvalue(), err.getvalue()
