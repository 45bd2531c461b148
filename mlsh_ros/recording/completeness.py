"""Finds messages missing from a recording by their sequence numbers, while it is made.

recorder_node reports them. In a finished recording `mlsh_ros.sim2real.gap.data_quality` counts
lost messages, and `mlsh_ros.recording.replay` missing ticks.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mlsh_ros.control.supervisor import State
from mlsh_ros.messages.labeled_array import (
    OUTCOME,
    Layout,
    applied_layout,
    request_layout,
    response_layout,
    trace_layout,
)
from mlsh_ros.messages.topics import APPLIED_COMMAND, REQUEST, RESPONSE, STATE, TRACE
from mlsh_ros.messages.topics import OUTCOME as OUTCOME_TOPIC
from mlsh_ros.recording.session_rules import is_driven, newest_tick
from policies.bundle.manifest import Manifest

HEADER = 4  # bytes of CDR in front of a message
LITTLE = 1  # in its second byte: little endian
SHOWN = 3  # ranges named of a longer list
LISTED = 10  # findings named of a longer list


@dataclass
class _Session:
    """Numbers of the recorded messages of a session."""

    whole: bool  # it began while messages were recorded
    ticks: set[int] = field(default_factory=set)
    decided: set[int] = field(default_factory=set)  # macro steps with a decision, by their ticks
    requests: dict[int, int] = field(default_factory=dict)  # macro step: tick
    responses: dict[int, int] = field(default_factory=dict)

    @property
    def driven(self) -> bool:
        """True if skill_node had it."""
        return is_driven(self.ticks, self.requests)


class Completeness:
    """Counts recorded messages and reports missing ones.

    Args:
        manifest: of the bundle.
        stamped: sensor topics with simulation time stamps: in lockstep, none otherwise.
    """

    def __init__(self, manifest: Manifest, stamped: Sequence[str] = ()) -> None:
        interface = manifest.interface
        self._layouts: Mapping[str, Layout] = {
            TRACE: trace_layout(interface.observation_names, interface.action_names),
            REQUEST: request_layout(interface.observation_names),
            RESPONSE: response_layout(manifest.skills),
            OUTCOME_TOPIC: OUTCOME,
            APPLIED_COMMAND: applied_layout(interface.action_names),
        }
        self._decision_ticks, self._lead = manifest.decision_ticks, manifest.decision_lead
        self._sessions: dict[int, _Session] = {}  # in the order of their first messages
        self._stated = False  # a state of skill_node has been recorded
        self._started = False  # and a later one in which it began to drive
        self._outcomes: list[tuple[int, int]] = []  # episode, tick
        self._applied: list[int] = []  # numbers of the commands that a simulator applied
        self._moments: dict[str, set[tuple[int, int]]] = {topic: set() for topic in stamped}

    def hear(self, topic: str, data: bytes) -> None:
        """Count a recorded message given as CDR; a malformed one is ignored."""
        try:
            if topic in self._layouts:
                self._count(topic, _numbers(data, self._layouts[topic]))
            elif topic in self._moments:
                order = "<" if data[1] == LITTLE else ">"
                stamp: tuple[int, int] = struct.unpack_from(f"{order}iI", data, HEADER)
                self._moments[topic].add(stamp)
            elif topic == STATE:  # after the header: how long the text is, and the text
                running = data[HEADER + 4 :].startswith(State.RUNNING.value.encode())
                # The first is latched, and may be of a session that began before.
                self._started |= self._stated and running
                self._stated = True
        except (struct.error, IndexError, ValueError, OverflowError):
            return

    def _count(self, topic: str, numbers: Mapping[str, float]) -> None:
        if topic == OUTCOME_TOPIC:
            self._outcomes.append((int(numbers["episode"]), int(numbers["tick"])))
            return
        if topic == APPLIED_COMMAND:
            self._applied.append(int(numbers["number"]))
            return
        number, tick = int(numbers["session"]), int(numbers["tick"])
        session = self._sessions.get(number)
        if session is None:
            before = any(each.driven for each in self._sessions.values())
            session = _Session(whole=before or self._started)
        if topic == TRACE:
            session.ticks.add(tick)
            macro, within = divmod(tick, self._decision_ticks)
            if not (within or numbers["late"]):
                session.decided.add(macro)
        else:
            asked = session.requests if topic == REQUEST else session.responses
            asked[int(numbers["macro"])] = tick
            session.whole |= tick == 0
        self._sessions[number] = session  # at last: another thread may ask what is lacking

    def lacking(self) -> list[str]:
        """Describes missing messages whose existence follows from other messages."""
        found = []
        for number, session in list(self._sessions.items()):  # others may come meanwhile
            if session.driven:
                found += [f"{text} of session {number}" for text in self._lost(session)]
        count = 0
        for (one, a), (other, b) in pairwise(list(self._outcomes)):
            count += b - a - 1 if one == other and b > a else b  # an episode begins with tick 0
        if count:
            found.append(f"{OUTCOME_TOPIC}: {count} ticks")
        if count := sum(max(b - a - 1, 0) for a, b in pairwise(list(self._applied))):
            found.append(f"{APPLIED_COMMAND}: {count} commands")
        found += self._silent()
        more = [f"{len(found) - LISTED} more"] if len(found) > LISTED else []
        return [*found[:LISTED], *more]

    def _lost(self, session: _Session) -> list[str]:
        """Describes what is missing of a session."""
        ticks, requests = sorted(session.ticks), sorted(session.requests)
        responses = sorted(session.responses)
        asked = sorted([*session.requests.values(), *session.responses.values()])
        newest = [*ticks[-1:], *asked[-1:]]
        first = 0 if session.whole else (ticks or asked)[0]
        lost = {f"{TRACE}: ticks": _holes(ticks, first, newest_tick(ticks, asked))}
        # And whoever has made a tick has asked for every macro step up to it.
        due = [(tick + self._lead) // self._decision_ticks for tick in (*ticks[:1], *newest)]
        begun = 0 if session.whole else min([*requests, *responses, *(d + 1 for d in due[:1])])
        lost[f"{REQUEST}: macro steps"] = _holes(requests, begun, max([*due, *requests]))
        wanted = sorted(m for m in session.decided - {*responses} if m >= begun)
        lost[f"{RESPONSE}: macro steps"] = [(m, m) for m in wanted]
        return [f"{what} {_ranges(holes)}" for what, holes in lost.items() if holes]

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


def _holes(known: Collection[int], first: int, last: int) -> list[tuple[int, int]]:
    """Returns the ranges from `first` to `last` that are not known; `known` in order."""
    inside = [number for number in known if first <= number <= last]
    return [(a + 1, b - 1) for a, b in pairwise([first - 1, *inside, last + 1]) if b > a + 1]


def _ranges(holes: Sequence[tuple[int, int]]) -> str:
    shown = [str(a) if a == b else f"{a} to {b}" for a, b in holes[:SHOWN]]
    return ", ".join(shown) + (", .." if len(holes) > SHOWN else "")
