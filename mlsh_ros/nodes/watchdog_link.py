"""The state and heartbeats of watchdog_node, as skill_node receives them."""

from __future__ import annotations

import time
from collections.abc import Callable

from std_msgs.msg import Float64MultiArray, String

from mlsh_ros.control.clock import steady_time
from mlsh_ros.control.command_gate import CommandGate, WatchdogReport
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.heartbeat import Beat, Heartbeat, heartbeat_layout, interface_number
from mlsh_ros.messages.topics import WATCHDOG_BEAT, WATCHDOG_STATE
from mlsh_ros.nodes.node import LATCHED, SENSOR
from mlsh_ros.nodes.safety_listener import SafetyListener
from mlsh_ros.nodes.watchdog_node import STOPPED, TRIPPED, WATCHDOG
from sim.interface import Interface

SOON = 0.5  # s after which watchdog_node knows of a release, and its heartbeats of its state


class WatchdogLink:
    """Receives the messages of watchdog_node.

    Args:
        interface: that skill_node drives.
        gate: for its count of commands.
        simulated: whether skill_node goes by simulated time.
        required: whether a session needs a watchdog_node.
        paused: whether commands may pause for as long as they like, as in lockstep.
        on_trip: called with the state of a watchdog_node that has tripped.
    """

    def __init__(
        self,
        interface: Interface,
        gate: CommandGate,
        *,
        simulated: bool,
        required: bool,
        paused: bool,
        on_trip: Callable[[str], None],
    ) -> None:
        self._gate, self._required, self._paused = gate, required, paused
        self._on_trip = on_trip
        self._layout = heartbeat_layout(interface)
        self.heartbeat = Heartbeat(interface_number(interface), simulated=simulated)
        self.state = ""
        self._told = 0.0  # s, when it came

    def listen(self, safety: SafetyListener, refuse: Callable[[str], None]) -> None:
        """Receive in the thread of the emergency stop; call before that one starts."""
        safety.listen(String, WATCHDOG_STATE, self._on_state, LATCHED, refuse)
        safety.listen(Float64MultiArray, WATCHDOG_BEAT, self._on_heartbeat, SENSOR, refuse)

    def follow(self) -> float | None:
        """Begin a session; returns the s after which watchdog_node brakes, if there is one."""
        beat = self.heartbeat.follow(self._gate.count) if self._required else None
        return beat.patience if beat and not self._paused else None

    def watch(self, listening_since: float, sent: float) -> WatchdogReport | None:
        """Returns the state of the session's watchdog_node, see `Heartbeat.watch`."""
        return self.heartbeat.watch(steady_time(), listening_since, sent)

    def fault(self, now: float, since: float, *, braking: bool) -> FaultError | None:
        """Returns why a required watchdog is missing, or None; see `Heartbeat.fault`."""
        if not self._required:
            return None
        sent = 0 if self._paused else self._gate.count
        return self.heartbeat.fault(now, since, sent, braking=braking)

    def tripped(self) -> str:
        """Returns the reason that a tripped watchdog_node prevents arming; empty if it has not."""
        beat = self.heartbeat.newest
        return self._state("it first") if self._told_trip or (beat and beat.tripped) else ""

    def stopped(self) -> str:
        """Returns the reason that a stopped watchdog_node prevents arming; empty if none is."""
        if self.state.startswith(STOPPED):
            time.sleep(SOON)  # it receives a release a moment later
        return self._state("it too") if self.state.startswith(STOPPED) else ""

    @property
    def _told_trip(self) -> bool:
        """True if its state is a trip, unless its heartbeats have said otherwise for a while.

        The text may be of another sender, such as a recording that is played.
        """
        beat = self.heartbeat.newest
        denied = beat is not None and not beat.tripped and beat.received > self._told + SOON
        return self.state.startswith(TRIPPED) and not denied

    def _state(self, what: str) -> str:
        beat = self.heartbeat.newest
        tripped = beat is not None and beat.tripped and not self._told_trip
        return f"{WATCHDOG} is {TRIPPED if tripped else self.state}; reset {what}"

    def _on_state(self, message: String) -> None:
        self.state, self._told = message.data, steady_time()
        if self._told_trip:
            self._on_trip(message.data)

    def _on_heartbeat(self, message: Float64MultiArray) -> None:
        scalars, vectors = self._layout.read(message, WATCHDOG_BEAT)
        beat = Beat(
            instance=int(scalars["instance"]),
            interface=int(scalars["interface"]),
            simulated=bool(scalars["simulated"]),
            active=bool(scalars["active"]),
            tripped=bool(scalars["tripped"]),
            heard=int(scalars["heard"]),
            patience=scalars["patience"],
            command=vectors["command"] if scalars["known"] else None,
            received=steady_time(),
        )
        before = self.heartbeat.newest
        self.heartbeat.hear(beat, self._gate.count)
        if beat.tripped and not (before is not None and before.tripped):
            self._on_trip(self.state if self._told_trip else TRIPPED)
