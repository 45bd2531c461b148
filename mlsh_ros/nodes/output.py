"""Writes a node's log without ever blocking on its reader.

A terminal that is held (Ctrl-S), a pager, or a launcher that is stopped does not read any more. A
thread that writes to it waits, and so would the thread that brakes the robot.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

ROOM = 2**20  # bytes that wait for a slow reader; what is beyond them is lost
STDOUT, STDERR = 1, 2
LAST = 1.0  # s that the last words may take to be read


def detach_output() -> Callable[[], None]:
    """Put a pipe that never blocks between this process and its stdout and stderr.

    A thread empties it. `sys.stderr` is the original one, for the output of a crash. Returns a
    function to be called at the end, which passes on the remaining output.
    """
    targets = {STDOUT: os.dup(STDOUT), STDERR: os.dup(STDERR)}
    if os.path.sameopenfile(STDOUT, STDERR):  # one after the other, as it was said
        targets[STDERR] = targets[STDOUT]
    pipes: dict[int, int] = {}
    threads = []
    for number, target in targets.items():
        if target not in pipes:
            read, pipes[target] = os.pipe()
            with suppress(OSError):  # more than this user may have
                fcntl.fcntl(pipes[target], fcntl.F_SETPIPE_SZ, ROOM)
            os.set_blocking(pipes[target], False)
            threads.append(threading.Thread(target=_pass_on, args=(read, target), daemon=True))
        os.dup2(pipes[target], number)
    for pipe in pipes.values():
        os.close(pipe)
    for thread in threads:
        thread.start()
    sys.stderr = open(os.dup(targets[STDERR]), "w", buffering=1)  # noqa: SIM115 (till the end)

    def end() -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in targets:
            os.dup2(nowhere, number)  # closes the pipe
        for thread in threads:
            thread.join(LAST)

    return end


def _pass_on(read: int, target: int) -> None:
    while data := os.read(read, 2**16):
        with suppress(OSError):  # the reader has ended
            while data:
                data = data[os.write(target, data) :]
