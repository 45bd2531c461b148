"""The heartbeat of watchdog_node and its evaluation in skill_node. Does not import ROS."""

from __future__ import annotations

from dataclasses import dataclass

from mlsh_ros.control.command_gate import WatchdogReport
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.watchdog import PERIOD
from mlsh_ros.messages.labeled_array import Layout
from sim.interface import Floats, Interface

MAX_AGE = 0.5  # s after which the watchdog counts as lost
UNHEARD = 8  # commands that it may not have heard yet, beside those of MAX_AGE


def heartbeat_layout(interface: Interface) -> Layout:
    """Layout of watchdog_node's heartbeat; see `Beat`."""
    # known: 1 if `command` is known. interface: see `interface_number`.
    scalars = ("instance", "interface", "simulated", "active", "tripped", "heard", "known")
    return Layout(
        (*scalars, "patience"), (("command", interface.action_names),), fractions=("patience",)
    )


def interface_number(interface: Interface) -> int:
    """First 48 bits of an interface's digest, which a float64 represents exactly."""
    return int(interface.digest[:12], 16)


@dataclass(frozen=True)
class Beat:
    """A heartbeat."""

    instance: int  # a number that no other process of watchdog_node has
    interface: int  # whose commands it watches, see `interface_number`
    simulated: bool  # whether it goes by simulated time
    active: bool  # tripped or not; not when it is deactivated
    tripped: bool
    heard: int  # commands since it was started, of the topic with the fewest
    patience: float  # s that a moving command may stand
    command: Floats | None  # (A,) last heard, or by which it brakes; None: not known
    received: float  # s


class Heartbeat:
    """Monitors the watchdog by its heartbeats: alive, active, and receiving the commands.

    Args:
        interface: that skill_node drives, see `interface_number`.
        simulated: whether skill_node goes by simulated time.
        max_age: s.
    """

    def __init__(self, interface: int, *, simulated: bool, max_age: float = MAX_AGE) -> None:
        self.interface, self.simulated, self.max_age = interface, simulated, max_age
        self.newest: Beat | None = None
        self._since: dict[int, tuple[float, float]] = {}  # per instance: first and last beat, s
        self._followed: Beat | None = None  # the newest of the one that watches a session
        self._began = 0  # commands that had been sent when the session began
        self._heard_before = 0  # commands that it had heard before the first one of the session
        self._braked = False  # it has tripped in this session, and known a command then
        self._grown = 0.0  # s, when its count of commands last grew
        self._sent = 0  # commands that had been sent by then

    def hear(self, beat: Beat, sent: int) -> None:
        """Handle a heartbeat; `sent` commands have been sent so far."""
        if self.newest is None or beat.heard != self.newest.heard:
            self._grown, self._sent = beat.received, sent
        self.newest = beat
        if self._followed is not None and beat.instance == self._followed.instance:
            self._followed = beat
            self._braked |= beat.tripped and beat.command is not None
            if sent == self._began:
                self._heard_before = beat.heard
        first, _ = self._since.get(beat.instance, (beat.received, 0.0))
        self._since[beat.instance] = first, beat.received
        old = beat.received - self.max_age
        self._since = {each: span for each, span in self._since.items() if span[1] > old}

    def follow(self, sent: int = 0) -> Beat | None:
        """Begin a session, watched by the newest sender; returns its heartbeat.

        Args:
            sent: commands that have been sent so far.
        """
        self._followed, self._began, self._braked = self.newest, sent, False
        if self.newest is not None:
            self._grown, self._sent = self.newest.received, sent
            self._heard_before = self.newest.heard
        return self.newest

    def watch(self, now: float, since: float, sent: float) -> WatchdogReport | None:
        """Returns the state of the session's watchdog_node; None without one.

        Args:
            now: s.
            since: s, from when on skill_node has received without a pause.
            sent: s, when the newest command was sent.
        """
        if (beat := self._followed) is None:
            return None
        # Where it does not know the whole command, it cannot brake it. While it is not tripped,
        # what it knows is of an earlier session or another sender, unless it has heard a command
        # of this session, or has tripped in it and been reset, which is possible at rest only.
        heard = beat.heard > self._heard_before or self._braked
        able = beat.command is not None if beat.tripped else heard
        lives = beat.active and now - max(beat.received, since) <= self.max_age
        return WatchdogReport(lives and able, able and beat.received > sent + PERIOD, beat.command)

    @property
    def _several(self) -> bool:
        """True if several instances send; a restarted one does not overlap its predecessor."""
        spans = self._since.values()
        return len(spans) > 1 and min(last for _, last in spans) >= max(
            begun for begun, _ in spans
        )

    def fault(
        self, now: float, since: float, sent: int, *, braking: bool = False
    ) -> FaultError | None:
        """Returns the reason that there is no working watchdog, or None.

        Args:
            now: s; all heartbeats that had come by then have been handled.
            since: s, from when on skill_node has received without a pause.
            sent: commands that have been sent until now.
            braking: the robot is being brought to rest. A watchdog_node that is deactivated goes
                on watching until it is at rest.
        """
        if self.newest is None:
            return FaultError("watchdog_lost", "no heartbeat of watchdog_node has come")
        if (age := now - max(self.newest.received, since)) > self.max_age:
            return FaultError(
                "watchdog_lost",
                f"the last heartbeat of watchdog_node came {age:.2f} s ago, at most "
                f"{self.max_age:g} s is accepted",
            )
        if not self.newest.active and not braking:
            return FaultError("watchdog_lost", "watchdog_node is not active")
        if self.newest.tripped and not braking:
            return FaultError("watchdog", "watchdog_node is tripped; reset it first")
        if self._several:
            return FaultError(
                "watchdog_lost", "two processes watchdog_node send heartbeats; end one"
            )
        if self.newest.interface != self.interface:
            return FaultError(
                "watchdog_lost",
                "watchdog_node watches another interface than skill_node drives; both must have "
                "the same bundle",
            )
        if self.newest.simulated != self.simulated:
            clock = "simulated time" if self.newest.simulated else "the system's time"
            return FaultError(
                "watchdog_lost",
                f"watchdog_node goes by {clock}, skill_node does not; both must have the same "
                "use_sim_time",
            )
        unheard = sent - self._sent
        if unheard > UNHEARD and now - max(self._grown, since) > self.max_age:
            return FaultError(
                "watchdog_lost",
                f"watchdog_node has not received the last {unheard} commands on every topic; it "
                "must have the same namespace, remappings, bundle and enable_stamped_cmd_vel as "
                "skill_node",
            )
        return None
