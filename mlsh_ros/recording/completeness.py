"""Finds messages missing from a recording by their sequence numbers, while it is made.

recorder_node reports them. In a finished recording `mlsh_ros.sim2real.gap.data_quality` counts
lost messages, and `mlsh_ros.recording.replay` missing ticks.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise

from mlsh_ros.messages.labeled_array import (
    OUTCOME,
    Layout,
    request_layout,
    response_layout,
    trace_layout,
)
from mlsh_ros.messages.topics import OUTCOME as OUTCOME_TOPIC
from mlsh_ros.messages.topics import REQUEST, RESPONSE, TRACE
from sim.interface import Interface

HEADER = 4  # bytes of CDR in front of a message
LITTLE = 1  # in its second byte: little endian
SHOWN = 3  # ranges named of a longer list


class Completeness:
    """Counts received messages and reports missing ones.

    Args:
        interface: of the bundle.
        skills: of the bundle.
        stamped: sensor topics with simulation time stamps: in lockstep, none otherwise.
    """

    def __init__(
        self, interface: Interface, skills: Sequence[str], stamped: Sequence[str] = ()
    ) -> None:
        self._layouts: Mapping[str, Layout] = {
            TRACE: trace_layout(interface.observation_names, interface.action_names),
            REQUEST: request_layout(interface.observation_names),
            RESPONSE: response_layout(tuple(skills)),
            OUTCOME_TOPIC: OUTCOME,
        }
        self._ticks: dict[int, list[int]] = {}  # per session
        self._asked: dict[int, int] = {}  # per session, the last tick with a request
        self._outcomes: list[tuple[int, int]] = []  # episode, tick
        self._moments: dict[str, set[tuple[int, int]]] = {topic: set() for topic in stamped}

    def hear(self, topic: str, data: bytes) -> None:
        """Count a message given as CDR; a malformed one is ignored."""
        try:
            if topic in self._layouts:
                self._count(topic, _numbers(data, self._layouts[topic]))
            elif topic in self._moments:
                order = "<" if data[1] == LITTLE else ">"
                stamp: tuple[int, int] = struct.unpack_from(f"{order}iI", data, HEADER)
                self._moments[topic].add(stamp)
        except (struct.error, IndexError, ValueError, OverflowError):
            return

    def _count(self, topic: str, numbers: Mapping[str, float]) -> None:
        if topic == OUTCOME_TOPIC:
            self._outcomes.append((int(numbers["episode"]), int(numbers["tick"])))
            return
        session, tick = int(numbers["session"]), int(numbers["tick"])
        if topic == TRACE:
            self._ticks.setdefault(session, []).append(tick)
        else:
            self._asked[session] = max(tick, self._asked.get(session, -1))

    def lacking(self) -> list[str]:
        """Describes missing messages whose existence follows from other messages."""
        found = []
        for session, ticks in list(self._ticks.items()):  # others may come meanwhile
            # Who asks at a tick has made all those before it.
            known = [*ticks, max(self._asked.get(session, -1), ticks[-1] + 1)]
            holes = [(a + 1, b - 1) for a, b in pairwise(known) if b > a + 1]
            if holes:
                found.append(f"{TRACE}: ticks {_ranges(holes)} of session {session}")
        holes = [
            (a + 1, b - 1)
            for (one, a), (other, b) in pairwise(self._outcomes)
            if one == other and b > a + 1
        ]
        if holes:
            count = sum(b - a + 1 for a, b in holes)
            found.append(f"{OUTCOME_TOPIC}: {count} ticks")
        return [*found, *self._silent()]

    def _silent(self) -> list[str]:
        """Describes missing sensor messages: in lockstep each topic has one per time stamp.

        The first and last ones may lie before or after the recording.
        """
        every = sorted(set().union(*self._moments.values()))[1:-2]
        found = []
        for topic, moments in self._moments.items():
            if count := sum(each not in moments for each in every):
                found.append(f"{topic}: {count} of {len(every)} messages")
        return found


def _numbers(data: bytes, layout: Layout) -> dict[str, float]:
    """Returns the scalars of a Float64MultiArray, whose numbers are its last bytes."""
    order = "<" if data[1] == LITTLE else ">"
    names = layout.scalars
    start = len(data) - 8 * layout.size
    # In front of them is how many there are, and perhaps four bytes up to a multiple of eight.
    if start < HEADER + 8 or layout.size not in struct.unpack_from(f"{order}2I", data, start - 8):
        raise ValueError
    return dict(zip(names, struct.unpack_from(f"{order}{len(names)}d", data, start), strict=True))


def _ranges(holes: Sequence[tuple[int, int]]) -> str:
    shown = [str(a) if a == b else f"{a} to {b}" for a, b in holes[:SHOWN]]
    return ", ".join(shown) + (", .." if len(holes) > SHOWN else "")
