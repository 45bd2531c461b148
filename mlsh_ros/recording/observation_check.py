"""Checks that recorded sensor messages explain a recorded observation."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.messages.conversion import MessageError, TopicReader, topic_readers
from sim.interface import Floats, Interface

SLACK = 10**9  # ns that a message may have waited longer than another before it was recorded
MOST_STARTS = 10_000  # commands from which a session may have begun; they take about 0.5 s


@dataclass(frozen=True)
class _Said:
    """Equal measurements of commands by messages of one topic."""

    fields: dict[str, Floats]
    moments: list[int] = field(default_factory=list)  # ns, in order


class ObservationCheck:
    """Checks recorded observations against the recorded sensors of one robot.

    Every message goes through conversion and `Interface.observe`, as in skill_node. A tick is
    explained if each topic had a message, young enough, that gives its part of the observation; in
    lockstep the messages must also carry one stamp, later than that of the tick before. Elements
    that no sensor measures are checked by `mlsh_ros.recording.replay`.

    Args:
        interface: of the bundle.
        lockstep: stamps identify the messages that belong together.
    """

    def __init__(self, interface: Interface, *, lockstep: bool) -> None:
        self._interface, self.lockstep = interface.measured_only, lockstep
        self.topics: dict[str, TopicReader] = {
            reader.topic: reader for reader in topic_readers(interface.observation)
        }
        self._parts = {topic: self._part(reader) for topic, reader in self.topics.items()}
        self._max_age = {
            topic: min(term.max_age for term, _ in reader.terms)
            for topic, reader in self.topics.items()
        }
        # Per topic: the bytes of its part of the observation, to the moments (ns) of messages
        # that give it: stamps in lockstep, arrival otherwise; in order.
        self._moments: dict[str, dict[bytes, list[int]]] = {topic: {} for topic in self.topics}
        # Of topics that measure commands: what the messages said, from which a session may begin;
        # per part of the observation, and per value of the terms that are tracked.
        tracked = {term.tracking.term for term in interface.action if term.tracking is not None}
        self._said: dict[str, dict[bytes, dict[bytes, _Said]]] = {}
        self._tracked: dict[str, list[str]] = {}
        for topic, reader in self.topics.items():
            if names := [term.name for term, _ in reader.terms if term.name in tracked]:
                self._said[topic], self._tracked[topic] = {}, names
        self._new: dict[str, list[tuple[int, dict[str, Floats]]]] = {t: [] for t in self.topics}
        self.begin()

    def _part(self, reader: TopicReader) -> NDArray[np.intp]:
        indices = np.arange(self._interface.observation_size)
        slices = self._interface.observation_slices
        return np.concatenate([indices[slices[term.name]] for term, _ in reader.terms])

    def add(self, topic: str, message: Any, received: int) -> dict[str, Floats] | MessageError:
        """Add a message; one that skill_node would have refused is left out.

        Returns:
            Its values per term, or the reason for the refusal.
        """
        try:
            fields = self.topics[topic].read(message)
        except MessageError as error:
            return error
        moment = received
        if self.lockstep:
            moment = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self.add_fields(topic, moment, fields)
        return fields

    def add_fields(self, topic: str, moment: int, fields: dict[str, Floats]) -> None:
        """Add the values of a message with its time, ns: its stamp in lockstep, or its arrival."""
        self._new[topic].append((moment, fields))

    def moments(self, observation: NDArray[np.float32]) -> list[int]:
        """Times (ns) at which the sensors gave this observation (O,), in order."""
        self._observe()
        found = [
            set(moments)
            for topic, shown in self._moments.items()
            if (moments := shown.get(observation[self._parts[topic]].tobytes()))
        ]
        return sorted(set.intersection(*found)) if found else []

    def _observe(self) -> None:
        """Compute the observations of all new messages at once, which is much faster."""
        for topic, rows in self._new.items():
            if not rows:
                continue
            blank = {t.name: np.zeros((len(rows), t.size)) for t in self._interface.observation}
            fields = {name: np.array([each[name] for _, each in rows]) for name in rows[0][1]}
            observation = self._interface.observe(blank | fields)[:, self._parts[topic]]
            for (moment, each), part in zip(rows, observation, strict=True):
                self._moments[topic].setdefault(part.tobytes(), []).append(moment)
                if topic in self._said:
                    self._keep(topic, part.tobytes(), moment, each)
            rows.clear()

    def _keep(self, topic: str, part: bytes, moment: int, fields: dict[str, Floats]) -> None:
        shown = {name: fields[name] for name in self._tracked[topic]}
        value = b"".join(np.asarray(each, np.float64).tobytes() for each in shown.values())
        known = self._said[topic].setdefault(part, {})
        known.setdefault(value, _Said(shown)).moments.append(moment)

    def begin(self) -> None:
        """Begin a session."""
        self._last = -1  # stamp of the tick before

    def matches(self, observation: NDArray[np.float32], received: int) -> bool:
        """True if recorded messages give this observation (O,).

        Args:
            observation: as recorded.
            received: ns, when the tick's trace was received.
        """
        self._observe()
        found = {
            topic: moments.get(observation[self._parts[topic]].tobytes(), [])
            for topic, moments in self._moments.items()
        }
        if not self.lockstep:
            return all(self._young(topic, moments, received) for topic, moments in found.items())
        common = set.intersection(*map(set, found.values()))
        later = [stamp for stamp in common if stamp > self._last]
        if later:
            self._last = min(later)
        return bool(later)

    def starts(self, observation: NDArray[np.float32], received: int) -> list[Floats] | None:
        """Possible initial commands (A,) of a session with this first observation (O,).

        Several messages may give one observation, which is float32 where they are float64. Those
        that measure the same count once; they have to be young enough, or in lockstep of one
        stamp.

        Args:
            observation: as recorded.
            received: ns, when the tick's trace was received.

        Returns:
            The commands, none where no message explains the observation; None for more than
            MOST_STARTS.
        """
        self._observe()
        known = [
            list(said.get(observation[self._parts[topic]].tobytes(), {}).values())
            for topic, said in self._said.items()
        ]
        if self.lockstep:
            found = self._of_one_stamp(known)
        else:
            young = [
                [each for each in said if self._young(topic, each.moments, received)]
                for topic, said in zip(self._said, known, strict=True)
            ]
            if math.prod(map(len, young)) > MOST_STARTS:
                return None
            found = list(product(*young))
        if len(found) > MOST_STARTS:
            return None
        merged = ({k: v for said in each for k, v in said.fields.items()} for each in found)
        return [self._interface.initial_command(fields) for fields in merged]

    @staticmethod
    def _of_one_stamp(known: list[list[_Said]]) -> list[tuple[_Said, ...]]:
        """Returns the measurements of each stamp that all topics have; equal ones once."""
        if not known:
            return [()]
        of_stamp = [{stamp: each for each in said for stamp in each.moments} for said in known]
        common = sorted(set.intersection(*map(set, of_stamp)))
        rows = (tuple(said[stamp] for said in of_stamp) for stamp in common)
        return list({tuple(map(id, row)): row for row in rows}.values())

    def _young(self, topic: str, moments: list[int], received: int) -> bool:
        oldest = received - round(self._max_age[topic] * 1e9) - SLACK
        place = bisect_left(moments, oldest)
        return place < len(moments) and moments[place] <= received + SLACK
