"""Ctrl-C: one line on stderr and exit status 130, whenever it comes."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130  # exit status after Ctrl-C, as of a shell
RETRY = 0.01  # s between two tries to deliver an interrupt that came during an import


class Interrupts:
    """Handles SIGINT: raises KeyboardInterrupt in a command, but not during an import.

    A module that is being imported may lose a KeyboardInterrupt or make another error of it. An
    interrupt that comes then is delivered after the import, to the handler that SIGINT has by
    then; a second one is raised at once.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._waiting = False  # one came during an import
        self._came = False  # one was raised, or came as the command ended
        self._ending = self._reported = self._ended = False

    @property
    def came(self) -> bool:
        """True if an interrupt came that the command has not answered otherwise."""
        return self._came or self._waiting

    def install(self) -> None:
        """Handle SIGINT from now on, unless it is ignored."""
        self._reset()
        if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, self._on_interrupt):
            signal.signal(signal.SIGINT, self._on_interrupt)

    def report(self, kept: str = "") -> None:
        """Print the line, once; a further interrupt ends the process at once.

        Args:
            kept: printable description of the work that is kept.
        """
        self._end()
        if not self._reported:
            sys.stderr.write(f"interrupted; {kept}\n" if kept else "interrupted\n")
            self._reported = True
        self._ended = True

    def end(self) -> bool:
        """Print the line if it is due, as the command has ended. Returns whether one came."""
        self._end()
        if self.came:
            self.report()
        self._ended = True
        return self._reported

    def _end(self) -> None:
        self._ending = True
        if self._waiting:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._ended:
            self.report()
            os._exit(INTERRUPTED)
        if self._ending:
            self._came = True
        elif not self._waiting and _importing(frame):
            self._waiting = True
            signal.signal(signal.SIGALRM, self._on_retry)
            signal.setitimer(signal.ITIMER_REAL, RETRY)
        else:
            self._came = True
            raise KeyboardInterrupt

    def _on_retry(self, number: int, frame: FrameType | None) -> None:
        if self._ending:
            return
        # What ends because of a second one is not interrupted by the first.
        ends = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        if ends or _importing(frame):
            signal.setitimer(signal.ITIMER_REAL, RETRY)
        else:
            self._waiting = False
            signal.raise_signal(signal.SIGINT)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


interrupts = Interrupts()
