"""watchdog_node: brings the robot to rest when skill_node fails to."""

from __future__ import annotations

import math
import secrets
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import numpy as np
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from mlsh_ros.bringup.params import WATCHDOG_NODE
from mlsh_ros.control.clock import PATIENCE, SimulatedClock, steady_time
from mlsh_ros.control.emergency_stop import TOPIC, EmergencyStop
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.heartbeat import heartbeat_layout, interface_number
from mlsh_ros.control.watchdog import PERIOD, Watchdog
from mlsh_ros.messages.conversion import (
    CommandWriter,
    MessageError,
    command_writers,
    shorten,
    stamp_of,
    topic_readers,
)
from mlsh_ros.nodes.clock import make_clock
from mlsh_ros.nodes.commander import Commander
from mlsh_ros.nodes.inputs import Inputs
from mlsh_ros.nodes.node import (
    LATCHED,
    SENSOR,
    CoreNode,
    array_message,
    decoded,
    message_type,
    one_line,
    run,
)
from mlsh_ros.nodes.safety_listener import SafetyListener
from policies.bundle.bound_bundle import load_bound
from sim.interface import Floats

WATCHDOG = "watchdog_node"
WATCHING, STOPPED, TRIPPED, INACTIVE = "watching", "stopped", "tripped", "not active"
# Of PATIENCE: skill_node comes first where time stands still, and brakes by itself.
SECOND = 2.0
LOCKSTEP = 10.0  # s that a command may stand in lockstep, as skill_node waits for the simulator
# s beyond braking that skill_node is given to come to rest when the watchdog is to end
ENDING = 2.0
# s within which a launcher's signal reaches all nodes, and skill_node begins to brake by itself
SIGNALED = 0.3
# s from the news of a trip to the first braking command: skill_node hears it, and sends no more
HAND_OVER = 0.03


class WatchdogNode(CoreNode):
    """Wiring: commands and emergency stop -> Watchdog -> braking commands.

    A process of its own, so that whatever stops skill_node does not stop it. Commands are the
    heartbeat of skill_node; its own heartbeat comes from the thread that watches.
    """

    def __init__(self) -> None:
        super().__init__(WATCHDOG, WATCHDOG_NODE)
        self._commander: Commander | None = None
        self._thread: threading.Thread | None = None
        self._new_data = threading.Condition()
        self._closing = False
        self._told = ""  # what ~/state says
        self._instance = secrets.randbits(52)
        self.watchdog: Any = None  # Watchdog
        self.estop = EmergencyStop()  # what panels say outlives cleanup and configure

    def configure(self) -> None:
        """Load the interface and connect."""
        interface = load_bound(str(self.values["bundle"]), str(self.values["bindings"])).interface
        self.interface = interface
        lockstep = self.values["mode"] == "lockstep"
        patience = (
            LOCKSTEP if lockstep else float(self.values["timeout_ticks"]) * interface.control_dt
        )
        before, self.watchdog = self.watchdog, Watchdog(interface, patience, self._measured)
        if before is not None and before.cause:  # a person resets it, not the lifecycle
            self.watchdog.keep(before.cause)
        self._told = ""
        inputs = self.made(Inputs(self), Inputs.destroy)
        self.time = make_clock(
            self, self._new_data, inputs, lockstep=lockstep, patience=SECOND * PATIENCE
        )
        self._state = self.made(
            self.create_publisher(String, "~/state", LATCHED), self.destroy_publisher
        )
        self._beats = self.made(
            self.create_publisher(Float64MultiArray, "~/heartbeat", SENSOR), self.destroy_publisher
        )
        self._layout = heartbeat_layout(interface)
        self._beat = array_message(self._layout)
        simulated = isinstance(self.time, SimulatedClock)
        self._about = self._instance, interface_number(interface), simulated
        writers = command_writers(
            interface.action, stamped=bool(self.values["enable_stamped_cmd_vel"])
        )
        self._commander = self.made(
            Commander(self, writers, lifecycle=False), self._forget_commander
        )
        self._heard = {w.topic: self.time.steady() for w in writers}  # s, of the newest command
        # Best effort: matches every publisher, waits for no lost message, delays no publisher.
        for writer in writers:
            use = partial(self._on_command, writer)
            kind = message_type(writer.type)
            inputs.listen(kind, writer.topic, use, SENSOR, self._refuse_command)
        self._safety = SafetyListener(
            self,
            self.estop,
            on_estop=self._on_estop,
            on_look=self._on_look,
            on_failure=self._fail,
            refuse=self.warn_refused,
        )
        self._listen_to_measurements(self._safety)
        self.made(self._safety, SafetyListener.destroy)
        self._safety.start()
        self.made(self.create_service(Trigger, "~/reset", self._on_reset), self.destroy_service)

    def _listen_to_measurements(self, safety: SafetyListener) -> None:
        """Subscribe to the measurements of the commands, which are read when it brakes."""
        measured = {t.tracking.term for t in self.interface.action if t.tracking is not None}
        terms = [term for term in self.interface.observation if term.name in measured]
        self._max_age = min((term.max_age for term in terms), default=0.0)
        kinds = [(reader, message_type(reader.type)) for reader in topic_readers(terms)]
        self._sources = [
            (reader, kind, safety.newest(kind, reader.topic, SENSOR)) for reader, kind in kinds
        ]

    def _measured(self) -> Floats:
        """(A,) the command that the robot's measured state corresponds to; NaN: not known."""
        fields: dict[str, Floats] = {}
        for reader, kind, newest in self._sources:
            data, received = newest()
            # Of a robot whose sensors have fallen silent nothing is known.
            if data is not None and abs(time.time() - received) <= self._max_age:
                with suppress(MessageError):
                    fields |= reader.read(decoded(data, kind, reader.topic))
        return self.interface.measured_command(fields)

    def activate(self) -> None:
        """Start watching."""
        with self._new_data:
            self.watchdog.begin()
            if self.estop.pressed:
                self.watchdog.emergency_stop(self.time.now())
            self._closing = False
            self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
            self._thread.start()
            self._tell_standing()
        self._log_trip()

    def deactivate(self) -> None:
        """Bring a moving robot to rest, then stop watching."""
        if self._thread is None:
            return
        with self._new_data:
            self._end_by = steady_time() + ENDING + self.interface.braking_time[0]
            self._closing = True
            self._tell_standing()
            self._new_data.notify_all()
        self._thread.join()
        self._thread = None
        self._say_beat()

    def end(self) -> bool:
        """The process ends, mostly with all others of its launcher: skill_node brakes first."""
        deadline = steady_time() + SIGNALED
        while self._thread is not None and steady_time() < deadline:
            time.sleep(PERIOD)
        return super().end()

    def _forget_commander(self, commander: Commander) -> None:
        commander.destroy()
        self._commander = None

    # What comes in ------------------------------------------------------------------------

    def _on_command(self, writer: CommandWriter, message: Any) -> None:
        with self._new_data:
            if self._thread is None:  # whoever commands the robot meanwhile is not watched
                return
            command = self.watchdog.command.copy()
            writer.read(message, command)
            if self.watchdog.at_rest:  # until now
                self.time.start_session()
            self.watchdog.hear(
                command,
                self.time.receive_time(stamp_of(message, writer.topic)),
                writer.indices,
            )
            self._heard[writer.topic] = self.time.steady()
            self._new_data.notify_all()

    def _on_estop(self, _: FaultError) -> None:
        with self._new_data:
            self.watchdog.emergency_stop(self.time.now())
            self._tell_standing()
            self._new_data.notify_all()

    def _on_look(self) -> None:
        """Handle the present publishers, after a check of the ROS graph."""
        with self._new_data:
            if self.watchdog.stopped and not self.estop.pressed:
                self.watchdog.release()
                self._tell_standing()

    def _tell_standing(self) -> None:
        """Publish the present state; skill_node does not arm while it is a stop."""
        if self._thread is None or self._closing:
            return self._tell(INACTIVE)  # skill_node stops the robot
        if self.watchdog.cause:
            self._tell(f"{TRIPPED}: {self.watchdog.cause}")
        elif self.estop.pressed and (fault := self.estop.fault(0.0)):
            self._tell(f"{STOPPED}: {fault.detail}")
        elif self.watchdog.stopped and not self.watchdog.at_rest:
            self._tell(f"{STOPPED}: topic {TOPIC!r} was true, and the commands are not at rest")
        else:
            self._tell(WATCHING)

    def _fail(self, text: str) -> None:
        """Trip because this node cannot watch any more."""
        with self._new_data:
            if self.watchdog.cause:  # the first one stays
                return
            self.watchdog.fail(shorten(text))
            self._tell_standing()
            resting = self.watchdog.at_rest
            self._new_data.notify_all()
        if resting:  # else `_brake` logs it, after its first command
            self._log_trip()

    def _refuse_command(self, text: str) -> None:
        """Trip because of an unreadable command, to which the robot's reaction is undefined."""
        with self._new_data:
            if self._thread is None:
                return self.warn_refused(text)
            self.watchdog.refuse(shorten(text))
            self._new_data.notify_all()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._new_data:  # all of it: it may trip at any moment
            if refusal := self._not_to_reset():
                response.message = f"cannot reset: {refusal}"
                return response
            forgotten = self.estop.reset()
            response.success = bool(self.watchdog.cause) or forgotten
            if self.watchdog.cause:
                self.watchdog.reset()
            if self.estop.pressed:  # by a panel that is there: no reset takes that away
                self.watchdog.emergency_stop(self.time.now())
            else:  # nobody says stop any more, which is seen at the next look otherwise
                self.watchdog.release()
            self._told = ""  # said again: somebody else may have published another state since
            self._tell_standing()
            response.message = ("" if response.success else "nothing to reset: ") + self._told
            self._new_data.notify_all()
        return response

    def _not_to_reset(self) -> str:
        """Returns the reason that a reset is refused; empty if it is not."""
        if self._thread is None or self._closing:
            return f"{WATCHDOG} is not active; activate it"
        if self.watchdog.cause and not self.watchdog.at_rest:
            return f"{WATCHDOG} still brakes the robot"
        return self._safety.stuck()

    # The thread that watches --------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                while self._watch():
                    self._brake()
                return
            except Exception as error:  # whatever it is, braking goes on
                if self._closing and steady_time() > self._end_by + ENDING:
                    return
                with suppress(Exception):  # of the log
                    self._fail(text := one_line(error))
                    self.get_logger().error(f"{text}; {self._told}", throttle_duration_sec=1.0)
                time.sleep(self.interface.control_dt)

    def _watch(self) -> bool:
        """Wait until a command is overdue; False: the node may end, the robot is at rest."""
        late = 0.0
        with self._new_data:
            while not (self._closing and self.watchdog.at_rest):
                if self._expired(late):
                    return True
                self._say_beat()
                due = self.time.steady() + self.watchdog.pause(self.time.now())
                try:
                    newest = max(self._heard.values())
                    self.time.wait(self._new_data, self.watchdog.deadline, newest, at_most=PERIOD)
                except FaultError as fault:  # a moving command in a time that stands still
                    self.watchdog.refuse(str(fault))
                late = self.time.steady() - due
        return False

    def _expired(self, late: float) -> bool:
        """True if the command is overdue, and not because the machine was busy."""
        if stuck := self._safety.stuck():
            self._fail(stuck)
        if self._closing and steady_time() > self._end_by:
            self.watchdog.refuse("a command moves the robot although watchdog_node is to end")
        now = self.time.now() if self.time.is_late(min(self._heard.values())) else -math.inf
        return bool(self.watchdog.look(now, late))

    def _brake(self) -> None:
        """Send the commands to the safe one, then the safe one, until reset."""
        with self._new_data:
            turn = self.watchdog.resets
            self._tell_standing()
        # Two senders at a time would make the robot jump.
        self._wait(HAND_OVER, turn)
        self._send()
        self._log_trip()
        while self._wait_a_tick(turn):
            self._send()

    def _wait_a_tick(self, turn: int) -> bool:
        """Wait a tick; False: at rest and ending, or reset (and perhaps tripped again)."""
        self._say_beat()
        if self._closing and self.watchdog.at_rest:
            return False
        return not self._wait(self.interface.control_dt, turn)

    def _wait(self, seconds: float, turn: int) -> bool:
        """Wait; True if it was reset meanwhile, and perhaps tripped again."""
        return self.time.wait_for(
            seconds,
            self._new_data,
            lambda: not self.watchdog.cause or self.watchdog.resets != turn,
        )

    def _send(self) -> None:
        assert self._commander is not None
        with self._new_data:
            if not self.watchdog.cause:
                return
            by = steady_time() + 2 * PERIOD  # later, skill_node may have taken over
            with self.watchdog.braking(self.time.now()) as command:
                self._commander.send(command, self.get_clock().now().nanoseconds, by)
        if np.isnan(command).any():
            self.get_logger().warning(
                "nothing is known of the robot's command and state; only what is known is braked",
                throttle_duration_sec=1.0,
            )

    def _say_beat(self) -> None:
        watchdog = self.watchdog
        self._beat.data = self._layout.pack(
            *self._about,
            not self._closing,
            bool(watchdog.cause),
            watchdog.heard,
            watchdog.known,
            watchdog.patience,
            vectors=(watchdog.command if watchdog.known else self.interface.safe_command,),
        )
        self._beats.publish(self._beat)
        with self._new_data:
            if not self._told:
                self._tell_standing()

    def _tell(self, text: str) -> None:
        if text == self._told:
            return
        self._told = ""
        try:
            self._state.publish(String(data=text))
        except Exception as error:  # braking goes on, and it is said with the next heartbeat
            self.get_logger().error(f"state: {one_line(error)}", throttle_duration_sec=1.0)
        else:
            self._told = text

    def _log_trip(self) -> None:
        """Log the state if it is a trip; a line of the log may take a tenth of a second."""
        if self._told.startswith(TRIPPED):
            self.get_logger().error(self._told)


def main() -> NoReturn:
    """Entry point."""
    run(WatchdogNode)


if __name__ == "__main__":
    main()
