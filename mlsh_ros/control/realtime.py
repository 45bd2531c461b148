"""Operating system and Python settings for the thread of the control loop."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

FIFO = getattr(os, "SCHED_FIFO", None)


@contextmanager
def gc_disabled() -> Iterator[None]:
    """Disable garbage collection: a full one takes longer than many control periods."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def set_realtime_priority(priority: int, cpu: int) -> list[str]:
    """Request real-time scheduling for the calling thread, and its own core.

    Args:
        priority: of SCHED_FIFO, 1 to 99; 0 leaves the scheduling alone.
        cpu: number of a core; -1 leaves the affinity alone.

    Returns:
        What was refused, a line each with what to do about it; the thread runs on without.
    """
    refused = []
    if priority:
        try:
            if FIFO is None:
                raise OSError(0, "this system has no SCHED_FIFO")
            os.sched_setscheduler(0, FIFO, os.sched_param(priority))
        except OSError as error:
            refused.append(
                f"realtime_priority {priority}: {error.strerror}; it needs CAP_SYS_NICE, or a "
                "line such as '@realtime - rtprio 99' in /etc/security/limits.conf"
            )
    if cpu >= 0:
        try:
            os.sched_setaffinity(0, {cpu})
        except (OSError, AttributeError) as error:
            known = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
            refused.append(
                f"cpu {cpu}: {getattr(error, 'strerror', None) or error}. Valid: "
                f"{', '.join(map(str, known)) or 'none on this system'}"
            )
    return refused
