"""Entry point of `mlsh`; the subcommands are in mlsh_ros/cli/."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import traceback
from types import FrameType
from typing import NoReturn

from mlsh_ros.bringup.import_check import require_one_root

# numpy and torch each bring a BLAS; more than one thread in either takes the simulator's cores.
# Set before numpy is imported for the first time.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

INTERRUPTED, INTERNAL = 130, 70  # exit status; the latter is EX_SOFTWARE of sysexits.h
_interrupts: list[int] = []  # signals of Ctrl-C that have come


def main() -> None:
    """Entry point: invalid input gives one line on stderr and status 1 (2 for usage).

    A fault of ours is one line too, with the file in which its details are, and status 70.
    """
    _keep_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
        signal.signal(signal.SIGINT, _on_interrupt)
    require_one_root()
    try:
        import typer
    except ImportError as error:
        missing = str(error.name)
        sys.exit(f"error: {missing} is not installed; pip install 'mlsh_ros[sim]' brings it")
    from sim.errors import UserError, visible

    # click's ClickException, whether typer brings a click of its own (0.26 and later) or not.
    usage: type[Exception] = typer.BadParameter.__mro__[2]
    try:
        from mlsh_ros.cli.app import command

        status = command()(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        sys.exit(f"error: {error}")
    except usage as error:
        text = " ".join(error.format_message().split())  # type: ignore[attr-defined]
        sys.stderr.write(f"error: {visible(text)}\n")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        extra = {
            "torch": "train",
            "onnx": "train",
            "tensorboard": "train",
            "rclpy": "ros",
            "mcap": "record",
            "rosbags": "record",
        }
        name = str(error.name).partition(".")[0]
        if name in ("sim", "policies", "mlsh_ros"):
            _end_by_our_fault(error)
        sys.exit(
            f"error: {name} is not installed; pip install 'mlsh_ros[{extra.get(name, 'sim')}]' "
            "brings it"
        )
    except OSError as error:
        what = error.filename or "input or output"
        _give_up_output()
        sys.exit(f"error: {visible(f'{what}: {error.strerror or error}')}")
    except Exception as error:  # any unexpected error
        if _interrupts:  # an extension module makes an ImportError of a KeyboardInterrupt
            sys.stderr.write("interrupted\n")
            sys.exit(INTERRUPTED)
        _end_by_our_fault(error)
    sys.exit(status if isinstance(status, int) else 0)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    _interrupts.append(number)
    signal.default_int_handler(number, frame)


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


def _end_by_our_fault(error: Exception) -> NoReturn:
    from sim.errors import visible

    try:
        handle, where = tempfile.mkstemp(prefix="mlsh-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{sys.argv}\n{traceback.format_exc()}")
        details = f"details in {where}"
    except OSError:
        details = "nowhere to write the details"
    said = visible(f"{type(error).__name__}: {error}")[:300]
    sys.stderr.write(f"error: internal error: {said}; {details}; please report it\n")
    sys.exit(INTERNAL)


def _give_up_output() -> None:
    """Drop unwritten output, which the interpreter would otherwise try to write at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
