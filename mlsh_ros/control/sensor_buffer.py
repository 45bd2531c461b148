"""The newest sample of every observation term and its age.

`loop.py` raises the faults `sensors_missing` and `sensors_stale` from its results.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlsh_ros.messages.conversion import TopicReader, shorten, topic_readers
from sim.interface import Floats, Interface


@dataclass(frozen=True)
class Sample:
    """Terms of one message; replaced as a whole, so that readers never see a partial update."""

    fields: dict[str, Floats]  # per term (size,)
    received: float  # s, monotonic
    stamp: int  # ns, from the message's header; 0 if it has none


class SensorBuffer:
    """Newest message of each sensor topic; without a queue or extrapolation.

    Written by the receiving thread, read by the control thread.

    Args:
        interface: names the topics and the largest age of each term.
        ordered: refuse samples that are not newer than the stored one; not in lockstep, where the
            simulator repeats a sample until it is answered, and begins at zero when it restarts.
    """

    def __init__(self, interface: Interface, *, ordered: bool = True) -> None:
        self._ordered = ordered
        self.readers: list[TopicReader] = topic_readers(interface.observation)
        self._max_age = {
            reader.topic: min(
                term.max_age for term in interface.observation if term.ros.topic == reader.topic
            )
            for reader in self.readers
        }
        self._samples: dict[str, Sample] = {}
        self._refused: dict[str, str] = {}  # why the newest message of a topic was not used

    def put(self, topic: str, sample: Sample) -> bool:
        """Store a sample; False, without effect, if it is not newer than the stored one.

        A sample that came twice or was overtaken would pass for fresh otherwise, as would those
        of a driver that repeats its last reading. Without stamps the order of arrival counts; one
        without a stamp among stamped ones is not of the same driver.
        """
        kept = self._samples.get(topic)
        if self._ordered and kept is not None and kept.stamp > 0 and sample.stamp <= kept.stamp:
            return False
        self._samples[topic] = sample
        self._refused.pop(topic, None)
        return True

    def refuse(self, text: str) -> None:
        """Keep the reason that a message was not used, until a later one of its topic is.

        Args:
            text: `TOPIC: REASON`.
        """
        topic, _, reason = text.partition(": ")
        self._refused[topic] = shorten(reason)

    def clear(self) -> None:
        """Remove all samples."""
        self._samples, self._refused = {}, {}

    def missing(self) -> list[str]:
        """Topics without a sample."""
        return [r.topic for r in self.readers if r.topic not in self._samples]

    def unheard(self) -> list[str]:
        """Topics without a sample, with the reason if messages came and were refused."""
        return [f"{t} ({self._why(t) or 'never received'})" for t in self.missing()]

    def _why(self, topic: str) -> str:
        reason = self._refused.get(topic)
        return f"its messages are refused: {reason}" if reason else ""

    def stale(self, now: float, system: float | None = None) -> list[str]:
        """Topics whose newest sample is older than its terms allow, with the age; or missing.

        Args:
            now: monotonic, s.
            system: the clock that stamps messages, s; None leaves stamps alone.
        """
        samples = self._samples.copy()  # other threads add to it
        late = self.unheard()
        for topic, sample in samples.items():
            limit = self._max_age[topic]
            age = now - sample.received
            if age > limit:
                why = "; " * bool(self._why(topic)) + self._why(topic)
                late.append(f"{topic} ({age:.2f} s old, at most {limit:g} s{why})")
            elif system is not None and sample.stamp:
                # A sample may be fresh off the wire, and of a moment long ago or yet to come.
                age = system - sample.stamp / 1e9
                if abs(age) > limit:
                    when = "ago" if age > 0 else "ahead"
                    late.append(f"{topic} (stamped {abs(age):.2f} s {when}, at most {limit:g} s)")
        return late

    def ages(self, now: float) -> dict[str, float]:
        """Age of the newest sample of each received topic, s."""
        return {topic: now - each.received for topic, each in self._samples.copy().items()}

    def complete_stamp(self) -> int | None:
        """The common stamp of the newest samples of all topics, or None."""
        samples = self._samples.copy()
        stamps = {sample.stamp for sample in samples.values()}
        if self.missing() or len(stamps) != 1:
            return None
        return stamps.pop()

    def fields(self) -> dict[str, Floats]:
        """Newest values per term (size,)."""
        return {k: v for sample in self._samples.copy().values() for k, v in sample.fields.items()}
