"""The emergency stop: a state for every publisher of the topic, and an event.

A `true` is never overwritten by another panel's `false`: it holds until that very panel says
`false`, or is gone and a person resets. Knows no ROS; time is an argument.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from mlsh_ros.control.faults import FaultError

TOPIC = "estop"
KIND = "std_msgs/msg/Bool"
Panel = bytes  # the identifier of a publisher
NOBODY: Panel = b""  # messages from an unknown publisher
# s for which the `false` of a publisher that the ROS graph does not list is kept: the list may be
# older than the message.
KEPT = 1.0


@dataclass(frozen=True)
class Word:
    """Newest message of a panel."""

    pressed: bool
    number: int  # of its message, counted by the publisher; 0: not known
    heard: float  # s


@dataclass(frozen=True)
class Publisher:
    """A publisher of the topic, as the ROS graph lists it."""

    name: str  # of its node, with namespace
    latched: bool  # its last word is delivered to those who join later
    kind: str = KIND  # type of its messages; DDS delivers no others


class EmergencyStop:
    """State of all emergency stop panels.

    Args:
        max_age: s after which the silence of a publisher is a fault, also of one that has never
            sent a message; without any publisher arming is refused. None: silence is accepted.
    """

    def __init__(self, max_age: float | None = None) -> None:
        self.max_age = max_age
        self.requests = 0  # messages that requested a stop
        self._words: dict[Panel, Word] = {}
        self._publishers: Mapping[Panel, Publisher] = {}
        self._since: dict[Panel, float] = {}  # s, when the ROS graph listed it first
        self._lock = threading.Lock()  # one thread receives, others read

    def hear(self, panel: Panel, pressed: bool, now: float, number: int = 0) -> bool:
        """Handle a message; True if it requests a stop, which latches the fault `requested`.

        One message may be received by several subscriptions. A message older than the newest
        changes no state, but a stop request in it still counts: a reliable subscription delivers a
        lost `true` after the `false` behind it, which the best effort one has delivered before.
        """
        with self._lock:
            self.requests += pressed
            kept = self._words.get(panel)
            older = kept is not None and 0 < number < kept.number
            # A `false` from an unknown panel releases the stop only if there is a single panel.
            other = panel == NOBODY and not pressed and len(self._publishers) != 1
            if kept is None or not (older or (other and kept.pressed)):
                self._words[panel] = Word(pressed, number, now)
        return pressed

    def knows(self, panel: Panel) -> bool:
        """True if the ROS graph has listed the panel."""
        return panel in self._publishers

    def publishers(self, found: Mapping[Panel, Publisher], now: float) -> None:
        """Set the present publishers of the topic.

        The `false` of one that is gone is removed, unless its silence is a fault.
        """
        self._since = {panel: self._since.get(panel, now) for panel in found}
        self._publishers = found
        if self.max_age is None:
            self.forget_released(now - KEPT)

    def reset(self) -> bool:
        """Remove panels that are gone, confirmed by a person; True if there were any."""
        return self._forget(lambda _: True)

    def forget_released(self, before: float = math.inf) -> None:
        """Remove panels that are gone, not pressed, and were last heard `before`, s."""
        self._forget(lambda word: not word.pressed and word.heard < before)

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

    def fault(self, now: float, since: float = -math.inf) -> FaultError | None:
        """Returns the reason that the robot must not move, or None.

        Args:
            now: s; all messages that had come by then have been handled.
            since: s, from when on messages have been received without a pause: what was sent
                meanwhile is no silence of the panel.
        """
        with self._lock:
            words = dict(self._words)
        pressed = [panel for panel, word in words.items() if word.pressed]
        if pressed:
            return self.requested(*pressed)
        if deaf := self._not_understood():
            return FaultError("estop_lost", deaf)
        if self.max_age is None:
            return None
        if not words:
            return FaultError("estop_lost", f"topic {TOPIC!r} has no message yet")
        for panel, word in words.items():
            if (age := now - max(word.heard, since)) > self.max_age:
                return FaultError(
                    "estop_lost",
                    f"topic {TOPIC!r} is silent for {age:.2f} s, from {self._who([panel])}; at "
                    f"most {self.max_age:g} s is accepted",
                )
        for panel, listed in self._since.items():
            silent = panel not in words and NOBODY not in words
            if silent and (age := now - max(listed, since)) > self.max_age:
                return FaultError(
                    "estop_lost",
                    f"topic {TOPIC!r} has no message from {self._who([panel])}, known for "
                    f"{age:.2f} s; at most {self.max_age:g} s is accepted",
                )
        return None

    def requested(self, *panels: Panel) -> FaultError:
        """Returns the fault of a stop that these panels request or have requested."""
        return FaultError("estop", f"topic {TOPIC!r} is true, from {self._who(panels)}")

    @property
    def pressed(self) -> bool:
        """True if a panel requests a stop."""
        with self._lock:
            return any(word.pressed for word in self._words.values())

    def unheard(self) -> str:
        """Describes a panel whose state must be known and is not; empty if there is none.

        That of a latched panel must be known, and with `max_age` that of every panel.
        """
        required = self.max_age is not None
        if NOBODY in self._words:
            several = required and len(self._publishers) > 1
            return f"the publishers of {TOPIC!r} cannot be told apart; end all but one" * several
        for panel, publisher in self._publishers.items():
            if (publisher.latched or required) and panel not in self._words:
                latched = ", latched," * publisher.latched
                return f"{publisher.name} publishes {TOPIC!r}{latched} and has sent no message yet"
        return ""

    def _not_understood(self) -> str:
        """Describes a panel whose messages are of another type and not delivered; else empty."""
        for publisher in self._publishers.values():
            if publisher.kind != KIND:
                return (
                    f"{publisher.name} publishes {TOPIC!r} as {publisher.kind}, which nobody "
                    f"hears; {KIND} is expected"
                )
        return ""

    def _who(self, panels: Collection[Panel]) -> str:
        gone = "a publisher that is gone"
        names = {
            self._publishers[panel].name if panel in self._publishers else gone
            for panel in panels
            if panel != NOBODY
        }
        return ", ".join(sorted(names)) or "an unknown publisher"
