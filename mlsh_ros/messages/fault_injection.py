"""Simulated faults: parameter `fault` of sim_node corrupts its first sensor topic."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlsh_ros.messages.conversion import TopicReader

INJECTIONS = (
    "none",
    "silent",  # the topic says nothing
    "nan",  # its values are no numbers
    "frozen",  # its driver repeats the same stamp for ever
    "old",  # it is stamped two seconds ago
    "ahead",  # it is stamped in two seconds
    "beyond",  # its values are far beyond what the robot can do
    "stuck",  # the robot ignores commands; its sensors are right
)
OFFSET = 2 * 10**9  # ns
FAR = 1e3  # in the term's unit


def inject_fault(what: str, message: Any, reader: TopicReader, now: int) -> bool:
    """Corrupt a message before it is published.

    Args:
        what: one of INJECTIONS.
        message: of the robot's first sensor topic.
        reader: of that topic.
        now: ns, its stamp.

    Returns:
        Whether it is to be sent at all.
    """
    if what == "silent":
        return False
    value = {"nan": np.nan, "beyond": FAR}.get(what)
    if value is not None:
        reader.write(message, {term.name: np.full(term.size, value) for term, _ in reader.terms})
    stamp = {"frozen": 1, "old": now - OFFSET, "ahead": now + OFFSET}.get(what)
    if stamp is not None:
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    return True
