"""Checks that recorded sensor messages explain a recorded observation."""

from __future__ import annotations

from bisect import bisect_left
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.messages.conversion import MessageError, TopicReader, topic_readers
from sim.interface import Floats, Interface

SLACK = 10**9  # ns that a message may have waited longer than another before it was recorded


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
        # Of topics that measure commands: what the messages said, from which a session may begin.
        tracked = {term.tracking.term for term in interface.action if term.tracking is not None}
        self._fields: dict[str, dict[bytes, list[dict[str, Floats]]]] = {
            topic: {}
            for topic, reader in self.topics.items()
            if tracked & {term.name for term, _ in reader.terms}
        }
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
                if topic in self._fields:
                    self._fields[topic].setdefault(part.tobytes(), []).append(each)
            rows.clear()

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

    def starts(self, observation: NDArray[np.float32]) -> list[Floats]:
        """Possible initial commands (A,) of a session with this first observation (O,).

        Several messages may give one observation, which is float32 where they are float64.
        """
        self._observe()
        choices = [
            said.get(observation[self._parts[topic]].tobytes(), [])
            for topic, said in self._fields.items()
        ]
        merged = ({k: v for part in parts for k, v in part.items()} for parts in product(*choices))
        return [self._interface.initial_command(fields) for fields in merged]

    def _young(self, topic: str, moments: list[int], received: int) -> bool:
        oldest = received - round(self._max_age[topic] * 1e9) - SLACK
        place = bisect_left(moments, oldest)
        return place < len(moments) and moments[place] <= received + SLACK
