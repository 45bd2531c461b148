"""Entry point of `mlsh`: errors as one line, exit statuses, Ctrl-C.

`app.py` lists the subcommands, each of which is a file of this folder.
"""

from __future__ import annotations

import io
import os
import sys

from mlsh_ros.bringup.import_check import require_one_root
from mlsh_ros.cli.interrupt import INTERRUPTED, interrupts

# numpy and torch each bring a BLAS; more than one thread in either takes the simulator's cores.
# Set before numpy is imported for the first time.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

INTERNAL = 70  # exit status, EX_SOFTWARE of sysexits.h
EXTRAS = {
    "torch": "train",
    "onnx": "train",
    "tensorboard": "train",
    "rclpy": "ros",
    "mcap": "record",
    "rosbags": "record",
}


def main() -> None:
    """Entry point: invalid input gives one line on stderr and status 1 (2 for usage).

    A fault of ours is one line too, with the file in which its details are, and status 70; after
    Ctrl-C the status is 130.
    """
    interrupts.install()
    try:
        status, line = _run()
    except KeyboardInterrupt:
        interrupts.report()
        status, line = INTERRUPTED, ""
    if interrupts.end():
        status, line = INTERRUPTED, ""
    if line:
        sys.stderr.write(f"error: {line}\n")
    sys.exit(status)


def _run() -> tuple[int, str]:
    """Run the command. Returns its exit status, and its error as one line or an empty text."""
    _keep_streams()
    require_one_root()
    try:
        import typer
    except ImportError as error:
        return 1, f"{error.name} is not installed; pip install 'mlsh_ros[sim]' brings it"
    from sim.errors import UserError, visible

    # click's ClickException, whether typer brings a click of its own (0.26 and later) or not.
    usage: type[Exception] = typer.BadParameter.__mro__[2]
    try:
        from mlsh_ros.cli.app import command

        status = command()(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
        if (failed := output_failure()) is not None:
            return 1, "" if isinstance(failed, BrokenPipeError) else f"output: {failed.strerror}"
    except UserError as error:
        return 1, str(error)
    except usage as error:
        return 2, visible(" ".join(error.format_message().split()))  # type: ignore[attr-defined]
    except typer.Abort:
        raise KeyboardInterrupt from None
    except ModuleNotFoundError as error:
        name = str(error.name).partition(".")[0]
        if name in ("sim", "policies", "mlsh_ros"):
            return INTERNAL, _internal_error(error)
        extra = EXTRAS.get(name, "sim")
        return 1, f"{name} is not installed; pip install 'mlsh_ros[{extra}]' brings it"
    except OSError as error:
        what = error.filename or "input or output"
        _give_up_output()
        return 1, visible(f"{what}: {error.strerror or error}")
    except Exception as error:  # any unexpected error
        return INTERNAL, _internal_error(error)
    return (status if isinstance(status, int) else 0), ""


def output_failure() -> OSError | None:
    """Returns the reason that the command's output could not be written, if it printed any."""
    loaded = sys.modules.get("mlsh_ros.cli.console")
    return None if loaded is None else loaded.console.failed  # type: ignore[no-any-return]


def _keep_streams() -> None:
    """Ensure that stdout and stderr exist and accept every character."""
    while (place := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a stream that was closed: the next file would take its place, and its output
    os.close(place)
    for name in ("stdin", "stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and name != "stdin":
            stream.reconfigure(errors="backslashreplace")


def _internal_error(error: Exception) -> str:
    """Write the traceback to a file. Returns the line that names it."""
    if interrupts.came:  # a consequence of the interrupt, which is reported instead
        return ""
    import tempfile
    import traceback

    from sim.errors import visible

    try:
        handle, where = tempfile.mkstemp(prefix="mlsh-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{sys.argv}\n{traceback.format_exc()}")
        details = f"details in {where}"
    except OSError:
        details = "nowhere to write the details"
    said = visible(f"{type(error).__name__}: {error}")[:300]
    return f"internal error: {said}; {details}; please report it"


def _give_up_output() -> None:
    """Drop unwritten output, which the interpreter would otherwise try to write at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
