"""Conditions for arming, starting and continuing to drive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from mlsh_ros.control.clock import Time, steady_time
from mlsh_ros.control.emergency_stop import EmergencyStop
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.sensor_buffer import SensorBuffer
from mlsh_ros.messages.conversion import shorten
from mlsh_ros.messages.topics import RECORDER_STATE, RECORDING
from mlsh_ros.nodes.master_node import RESPONSE_TOPIC
from mlsh_ros.nodes.reporter import Reporter
from mlsh_ros.nodes.safety_listener import SafetyListener
from mlsh_ros.nodes.uniqueness import Receivers, SinglePublishers
from mlsh_ros.nodes.watchdog_link import WatchdogLink
from policies.bundle.bundle import Bundle, load_bundle
from sim.errors import UserError

DISCOVERY = 1.0  # s that a latched emergency stop may take to be heard by a node that was started
FRESH = 0.5  # s that sensors may take to come after the robot was armed
# s, in lockstep: there sim_node sends its sensors once, and again every 0.5 s if no command comes.
SENT_AGAIN = 5.0
SILENCE = 2.0  # s in which recorder_node has to repeat its state, which it does every 0.1 s


class ArmingChecks:
    """Conditions for arming and for starting the robot.

    Each check returns the reason in one line, or an empty text.

    Args:
        node: skill_node, for the ROS graph and its parameters.
        bundle: returns the one in force.
        estop: state of the emergency stop panels.
        watchdog: state of watchdog_node.
        safety: the thread that receives both.
        singles: topics that one node may publish.
        reporter: publishes the traces that a recorder receives.
        sensors: guarded by `new_data`.
        clock: of the ticks.
        new_data: notified when a sensor has come.
        receivers: of the commands.
        lockstep: whether time stands until the answer.
    """

    def __init__(
        self,
        node: Any,
        bundle: Callable[[], Bundle],
        estop: EmergencyStop,
        watchdog: WatchdogLink,
        safety: SafetyListener,
        singles: SinglePublishers,
        reporter: Reporter,
        sensors: SensorBuffer,
        clock: Time,
        new_data: threading.Condition,
        receivers: Receivers,
        *,
        lockstep: bool,
    ) -> None:
        self._node, self._bundle, self._estop, self._watchdog = node, bundle, estop, watchdog
        self._safety, self._singles, self._reporter = safety, singles, reporter
        self._sensors, self._clock, self._new_data, self._lockstep = (
            sensors,
            clock,
            new_data,
            lockstep,
        )
        self._receivers = receivers
        self._recorder = "", 0.0  # what recorder_node says of itself, and when it did, s
        self._recorder_spoke = threading.Condition()

    @property
    def recorder(self) -> str:
        """State that recorder_node published last; set with every message of it."""
        return self._recorder[0]

    @recorder.setter
    def recorder(self, text: str) -> None:
        with self._recorder_spoke:
            self._recorder = text, steady_time()
            self._recorder_spoke.notify_all()

    @property
    def listening_since(self) -> float:
        """Time since which a thread of this process has run without a pause, s."""
        return self._safety.since

    def fault(self, *, braking: bool = False) -> FaultError | None:
        """Returns the reason that the robot must stop: emergency stop or no watchdog; or None."""
        safety = self._safety
        return self.estop_fault() or self._watchdog.fault(
            safety.polled, safety.since, braking=braking
        )

    def estop_fault(self) -> FaultError | None:
        """Returns the present fault of the emergency stop, or None."""
        return self._estop.fault(self._safety.polled, self._safety.since)

    def not_fit(self) -> str:
        """Returns the reason that the robot must not be armed now; empty if there is none."""
        bundle = self._bundle()
        try:
            now = load_bundle(bundle.source).manifest.digest
        except UserError as error:
            return f"the bundle on disk is no longer valid: {error}"
        if now != bundle.manifest.digest:
            return f"the bundle {bundle.source} was changed on disk after it was loaded"
        if assumed := bundle.interface.assumed_start:
            return (
                f"nothing says from which command a session begins: action {assumed[0]!r} has "
                "neither `tracking` nor `initial_command: safe`"
            )
        # One that was pressed before this node was started may not have been heard yet.
        time.sleep(max(0.0, self._safety.began + DISCOVERY - steady_time()))
        if deaf := self._safety.catch_up():
            return deaf
        if tripped := self._watchdog.tripped():
            return tripped
        self._estop.forget_released()
        if fault := self.fault() or self._clock.fault():
            return str(fault)
        return (
            self._watchdog.stopped()
            or self._estop.unheard()
            or self._singles.second(patient=False)
        )

    def not_ready(self) -> str:
        """Returns the reason that an armed robot could not start, or would not be recorded.

        Otherwise it would begin to move at an unexpected later time.
        """
        if why := self._not_recorded():
            return why
        if deaf := self._safety.catch_up():
            return deaf
        if fault := self.fault() or self._clock.fault():
            return str(fault)
        if tripped := self._watchdog.tripped():
            return tripped
        if unreceived := self._receivers.missing():
            return f"{unreceived}; start the driver of the robot"
        if not self._node.publisher_count(RESPONSE_TOPIC):
            return f"no node publishes {RESPONSE_TOPIC!r}; master_node must be running"
        with self._new_data:
            patience = SENT_AGAIN if self._lockstep else FRESH
            self._new_data.wait_for(lambda: not self._silent(), patience)
        late = ", ".join(self._silent())
        return f"sensors without recent messages: {late}" if late else ""

    def _silent(self) -> list[str]:
        """Topics without a recent measurement."""
        if self._lockstep:
            return self._sensors.unheard()
        return self._sensors.stale(self._clock.now(), self._clock.stamping())

    def _not_recorded(self) -> str:
        """Returns the reason that a session that requires a recording would not be recorded."""
        if not self._node.get_parameter("require_recorder").value:
            return ""
        if not self._node.publisher_count(RECORDER_STATE):
            why = "is not there"
        elif self.recorder == RECORDING and not self._recorder_lives():
            why = f"has been silent for {steady_time() - self._recorder[1]:.1f} s"
        elif self.recorder != RECORDING:
            why = f"is {shorten(self.recorder)}" if self.recorder else "has sent no state yet"
        elif not self._reporter.heard:
            why = "does not receive skill_node yet"
        else:
            return ""
        return f"recorder_node {why}; set require_recorder to false to go on without a recording"

    def _recorder_lives(self) -> bool:
        """True once recorder_node repeats its state; DDS keeps the last one of a killed node."""
        asked = steady_time()
        with self._recorder_spoke:
            return self._recorder_spoke.wait_for(lambda: self._recorder[1] > asked, SILENCE)
