"""Notifies a condition from a thread of its own. Does not import ROS."""

from __future__ import annotations

import threading


class Waker:
    """Notifies a condition for callers that must not wait for its lock.

    The thread is there from the beginning: where the system has no more threads, a fault that
    needed one could wake no other thread.

    Args:
        condition: that is notified.
    """

    def __init__(self, condition: threading.Condition) -> None:
        self._condition, self._due = condition, threading.Event()
        threading.Thread(target=self._run, name="waker", daemon=True).start()

    def wake(self) -> None:
        """Notify soon; returns at once."""
        self._due.set()

    def _run(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            with self._condition:
                self._condition.notify_all()
