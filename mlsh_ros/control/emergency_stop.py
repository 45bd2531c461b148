"""The emergency stop: a state for every publisher of the topic, and an event.

A `true` is never overwritten by another panel's `false`: it holds until that very panel says
`false`, or is gone and a person resets. Knows no ROS; time is an argument.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from mlsh_ros.control.faults import FaultError

TOPIC = "estop"
Panel = bytes  # the identifier of a publisher
NOBODY: Panel = b""  # words whose publisher cannot be told


@dataclass(frozen=True)
class Word:
    """What a panel said last."""

    pressed: bool
    number: int  # of its message, counted by the publisher; 0: not known
    heard: float  # s


@dataclass(frozen=True)
class Publisher:
    """A publisher of the topic, as the ROS graph lists it."""

    name: str  # of its node, with namespace
    latched: bool  # its last word is delivered to those who join later


class EmergencyStop:
    """What all panels say.

    Args:
        max_age: s after which the silence of a panel that has spoken is a fault, and without any
            panel nothing may be armed; None: silence is no news.
    """

    def __init__(self, max_age: float | None = None) -> None:
        self.max_age = max_age
        self._words: dict[Panel, Word] = {}
        self._publishers: Mapping[Panel, Publisher] = {}
        self._lock = threading.Lock()  # one thread hears, others ask

    def hear(self, panel: Panel, pressed: bool, now: float, number: int = 0) -> bool:
        """A message has come; True: it says stop, which is an event that latches a fault.

        One message may come by several subscriptions; an older one than the newest changes
        nothing but is an event all the same.
        """
        with self._lock:
            kept = self._words.get(panel)
            older = kept is not None and 0 < number < kept.number
            # Where nobody knows whose `false` it is, it releases only if there is one panel.
            other = panel == NOBODY and not pressed and len(self._publishers) != 1
            if kept is None or not (older or (other and kept.pressed)):
                self._words[panel] = Word(pressed, number, now)
        return pressed

    def knows(self, panel: Panel) -> bool:
        """Whether the ROS graph has listed it."""
        return panel in self._publishers

    def publishers(self, found: Mapping[Panel, Publisher]) -> None:
        """Who publishes the topic now."""
        self._publishers = found

    def reset(self) -> bool:
        """A person has looked: forget what panels said that are gone; whether there was any."""
        return self._forget(lambda _: True)

    def forget_released(self) -> None:
        """Panels that are gone and do not say stop are no news to who is about to arm."""
        self._forget(lambda word: not word.pressed)

    def _forget(self, chosen: Callable[[Word], bool]) -> bool:
        with self._lock:
            gone = [
                panel
                for panel, word in self._words.items()
                if chosen(word) and not self._is_there(panel)
            ]
            for panel in gone:
                del self._words[panel]
        return bool(gone)

    def _is_there(self, panel: Panel) -> bool:
        return bool(self._publishers) if panel == NOBODY else panel in self._publishers

    def fault(self, now: float) -> FaultError | None:
        """Why the robot must not move now, if so."""
        with self._lock:
            words = dict(self._words)
        pressed = [panel for panel, word in words.items() if word.pressed]
        if pressed:
            return FaultError("estop", f"topic {TOPIC!r} says true, from {self._who(pressed)}")
        if self.max_age is None:
            return None
        if not words:
            return FaultError("estop_lost", f"topic {TOPIC!r} has not been heard")
        for panel, word in words.items():
            if (age := now - word.heard) > self.max_age:
                return FaultError(
                    "estop_lost",
                    f"topic {TOPIC!r} is silent for {age:.2f} s, from {self._who([panel])}; at "
                    f"most {self.max_age:g} s is accepted",
                )
        return None

    @property
    def pressed(self) -> bool:
        """Whether a panel says stop."""
        with self._lock:
            return any(word.pressed for word in self._words.values())

    def unheard(self) -> str:
        """A latched panel whose state is not known yet; empty if there is none."""
        if NOBODY in self._words:
            return ""
        for panel, publisher in self._publishers.items():
            if publisher.latched and panel not in self._words:
                return f"{publisher.name} publishes {TOPIC!r}, latched, and has said nothing yet"
        return ""

    def _who(self, panels: Collection[Panel]) -> str:
        gone = "a publisher that is gone"
        names = {
            self._publishers[panel].name if panel in self._publishers else gone
            for panel in panels
            if panel != NOBODY
        }
        return ", ".join(sorted(names)) or "an unknown publisher"
