"""skill_node: owns the control tick and the robot's command."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.duration import Duration
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from mlsh_ros.core.controller import Controller, Request, Tick
from mlsh_ros.core.conversion import (
    CommandWriter,
    MessageError,
    TopicReader,
    command_writers,
)
from mlsh_ros.core.packing import answer_layout, request_layout, trace_layout
from mlsh_ros.core.sensors import Sample, Sensors
from mlsh_ros.core.supervisor import State, Status, Supervisor
from mlsh_ros.nodes.master_node import ANSWER_TOPIC, REQUEST_TOPIC
from mlsh_ros.nodes.node import (
    COMMAND,
    EXCHANGE,
    LATCHED,
    SENSOR,
    TRACE,
    CoreNode,
    array_message,
    message_type,
    run,
)
from mlsh_ros.params import SKILL_NODE
from policies.bundle import load_bundle
from policies.runtime import load_skills
from sim.errors import UserError
from sim.interface import Floats

LOCKSTEP_PATIENCE = 10.0  # s without a sensor or a decision before a lockstep session gives up
RETRY = 0.5  # s between two attempts to start by itself, or two questions to a silent master
BRAKING = 3.0  # s that coming to rest may take; who asked the node to end waits no longer
DELIVERY = 0.2  # s that the last command may take to arrive before the node ends


class FaultError(Exception):
    """A reason to stop the robot and stay stopped: a name and what was seen."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name, self.detail = name, detail


class SkillNode(CoreNode):
    """Wiring: sensors -> controller -> command, every `control_dt`, while RUNNING."""

    def __init__(self) -> None:
        self.supervisor = Supervisor(self._on_status)
        self._state_publisher: Any = None
        super().__init__("skill_node", SKILL_NODE)
        self._start_timeout = float(self.values["start_timeout"])
        self._commands: list[tuple[Any, Any, CommandWriter]] = []  # publisher, message type
        self._thread: threading.Thread | None = None
        self._turn = threading.RLock()  # one session begins or ends at a time
        self._session = 0  # counts starts, so that an answer to an earlier one is not taken
        self._news = threading.Condition()  # a sensor sample or a decision has come
        self._stop = threading.Event()
        self._timer: Any = None
        self._answered: tuple[int, list[tuple[Any, Any]]] | None = None  # stamp, messages sent
        self._last_stamp = -1  # ns, of the sensors that the last lockstep tick answered

    # Lifecycle ----------------------------------------------------------------------------

    def configure(self) -> None:
        """Load the bundle and connect."""
        bundle = load_bundle(str(self.values["bundle"]))
        manifest = bundle.manifest
        self.interface = manifest.interface
        self.controller = Controller(
            self.interface,
            load_skills(bundle),
            manifest.decision_ticks,
            manifest.decision_lead,
        )
        self.lockstep = self.values["mode"] == "lockstep"
        stamped = bool(self.values["stamped_cmd_vel"])
        writers = command_writers(self.interface.action, stamped=stamped)
        types = [message_type(writer.type) for writer in writers]
        self.sensors = Sensors(self.interface, ordered=not self.lockstep)
        sources = [(message_type(r.type), r) for r in self.sensors.readers]
        if self.lockstep and not all(hasattr(each(), "header") for each in types):
            raise UserError("mode 'lockstep' needs stamped commands; set stamped_cmd_vel to true")
        self._commands = [
            (self.create_lifecycle_publisher(each, writer.topic, COMMAND), each, writer)
            for each, writer in zip(types, writers, strict=True)
        ]
        # In lockstep a lost message would stop the world.
        quality = EXCHANGE if self.lockstep else SENSOR
        self._subscriptions_made = [
            self.create_subscription(each, r.topic, partial(self._on_sensor, r), quality)
            for each, r in sources
        ]
        self._request_layout = request_layout(self.interface.observation_names)
        self._answer_layout = answer_layout(manifest.skills)
        self._trace_layout = trace_layout(
            self.interface.observation_names, self.interface.action_names
        )
        self._request = array_message(self._request_layout)
        self._trace = array_message(self._trace_layout)
        self._request_publisher = self.create_lifecycle_publisher(
            Float64MultiArray, REQUEST_TOPIC, EXCHANGE
        )
        self._trace_publisher = self.create_lifecycle_publisher(
            Float64MultiArray, "~/trace", TRACE
        )
        self._subscriptions_made.append(
            self.create_subscription(Float64MultiArray, ANSWER_TOPIC, self._on_answer, EXCHANGE)
        )
        if self._state_publisher is None:
            self._state_publisher = self.create_publisher(String, "~/state", LATCHED)
        self._services_made = [
            self.create_service(Trigger, f"~/{name}", getattr(self, f"_on_{name}"))
            for name in ("start", "stop", "reset")
        ]
        self._on_status(self.supervisor.status)
        self.get_logger().info(
            f"bundle {manifest.name!r} for robot {self.interface.robot!r}: "
            f"{len(manifest.skills)} skills, a decision every {manifest.decision_ticks} ticks "
            f"of {self.interface.control_dt:g} s"
        )

    def activate(self) -> None:
        """Become ready; the robot does not move before `start`."""
        self.supervisor.go(State.READY)
        if self.values["start_by_itself"]:
            self._timer = self.create_timer(RETRY, self._start_by_itself)

    def deactivate(self) -> None:
        """Bring the robot to its safe command and disarm."""
        self._forget_timer()
        with self._turn:
            self._end_session()
            self.supervisor.go(State.DISARMED)
        for publisher, _, _ in self._commands:
            publisher.wait_for_all_acked(Duration(seconds=DELIVERY))

    def cleanup(self) -> None:
        """Disconnect."""
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        for service in self._services_made:
            self.destroy_service(service)
        for publisher, _, _ in self._commands:
            self.destroy_publisher(publisher)
        self._commands = []
        self.destroy_publisher(self._request_publisher)
        self.destroy_publisher(self._trace_publisher)

    # Services -----------------------------------------------------------------------------

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        started = self._begin_session()
        response.success = started
        response.message = "" if started else f"cannot start: {_describe(self.supervisor.status)}"
        return response

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._forget_timer()  # otherwise it would soon begin again
        self._end_session()
        response.success = True
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._end_session()
        response.success = self.supervisor.state is State.FAULT
        if response.success:
            self.supervisor.go(State.DISARMED)
            self.supervisor.go(State.READY)
        else:
            response.message = f"nothing to reset: {_describe(self.supervisor.status)}"
        return response

    def _start_by_itself(self) -> None:
        ready = self.supervisor.state is State.READY and not self.sensors.missing()
        if ready and self.count_publishers(ANSWER_TOPIC):
            self._begin_session()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None

    # Messages in --------------------------------------------------------------------------

    def _on_sensor(self, reader: TopicReader, message: Any) -> None:
        try:
            fields = reader.read(message)
        except MessageError as error:
            # Not used: the term grows stale, and that stops the robot.
            self.get_logger().warning(f"refused: {error}", throttle_duration_sec=1.0)
            return
        header = getattr(message, "header", None)
        stamp = 0 if header is None else header.stamp.sec * 10**9 + header.stamp.nanosec
        with self._news:
            if not self.sensors.put(reader.topic, Sample(fields, time.monotonic(), stamp)):
                self.get_logger().warning(
                    f"refused: {reader.topic}: its stamp is no later than the one before",
                    throttle_duration_sec=1.0,
                )
            self._news.notify_all()
            if self._answered is not None and self._answered[0] == stamp:
                # The simulator asks again: our answer was lost.
                for publisher, command in self._answered[1]:
                    publisher.publish(command)

    def _on_answer(self, message: Float64MultiArray) -> None:
        try:
            scalars, _ = self._answer_layout.read(message)
        except MessageError as error:
            self.get_logger().warning(f"{ANSWER_TOPIC}: {error}", throttle_duration_sec=1.0)
            return
        with self._news:
            if int(scalars["session"]) != self._session or self._over():
                return
            try:
                self.controller.hierarchy.answer(int(scalars["macro"]), int(scalars["skill"]))
            except ValueError as error:
                self.supervisor.fault("invalid_decision", str(error))
            self._news.notify_all()

    def _on_status(self, status: Status) -> None:
        if self._state_publisher is None:
            return
        self._state_publisher.publish(String(data=_describe(status)))
        if status.state is State.FAULT:
            self.get_logger().error(_describe(status))
        else:
            self.get_logger().info(_describe(status))

    # A session ----------------------------------------------------------------------------

    def _begin_session(self) -> bool:
        with self._turn:
            if not self.supervisor.go(State.RUNNING):
                return False
            if self._thread is not None:
                self._thread.join()
            with self._news:
                self._session += 1
                self.controller.reset()
                if not self.lockstep:
                    # What was seen before `start` may be of a robot that has been moved since.
                    self.sensors.clear()
            self._stop.clear()
            self._thread = threading.Thread(target=self._drive, name="tick", daemon=True)
            self._thread.start()
            return True

    def _end_session(self) -> None:
        with self._turn:
            self._stop.set()
            with self._news:
                self._news.notify_all()
            if self._thread is not None:
                self._thread.join()
                self._thread = None

    def _over(self) -> bool:
        """Whether the session has been told to end, or a fault has ended it."""
        return self._stop.is_set() or self.supervisor.state is not State.RUNNING

    def _drive(self) -> None:
        try:
            self._drive_lockstep() if self.lockstep else self._drive_realtime()
        except FaultError as fault:
            self.supervisor.fault(fault.name, fault.detail)
        except ValueError as error:  # the core's word for a value that must not be used
            self.supervisor.fault("invalid_value", str(error))
        except Exception as error:  # whatever it is, the robot must not keep its command
            self.supervisor.fault("internal", f"{type(error).__name__}: {error}")
        finally:
            try:
                self.supervisor.go(State.STOPPING)
            finally:
                self._make_safe()
            self.supervisor.go(State.READY)

    def _drive_realtime(self) -> None:
        dt = self.interface.control_dt
        if not self._await(lambda: not self.sensors.missing(), self._start_timeout):
            silent = ", ".join(self.sensors.missing())
            raise FaultError(
                "sensors_missing", f"nothing from {silent} within {self._start_timeout:g} s"
            )
        if self._over():
            return
        self._decide(self.controller.begin(self._fresh_fields()), self._start_timeout)
        late_in_a_row, missed = 0, 0
        due = time.monotonic()
        while not self._over():
            time.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            first = self.controller.tick == 0
            request = self.controller.begin(self._fresh_fields())
            if not first:
                self._ask(request)
            with self._news:
                # Only with decision_lead 0: the tick itself waits, but not for ever.
                patience = now + dt / 2
                while self._undecided() and request is not None and time.monotonic() < patience:
                    self._news.wait(patience - time.monotonic())
                tick = self.controller.finish()
            self._publish(tick.command, self.get_clock().now().to_msg())
            done = time.monotonic()
            self._tell(tick, missed, now - due, done - now)
            if tick.tick % self.controller.hierarchy.decision_ticks == 0:
                late_in_a_row = late_in_a_row + 1 if tick.late else 0
            if late_in_a_row > int(self.values["late_decisions"]):
                raise FaultError(
                    "master_silent", f"{late_in_a_row} decisions in a row did not come"
                )
            due += dt
            behind = time.monotonic() - due
            # Skip and count: a burst of old ticks would help nobody.
            missed = int(behind / dt) + 1 if behind > 0 else 0
            if missed:
                self.get_logger().warning(f"{missed} ticks missed", throttle_duration_sec=1.0)
            due += missed * dt

    def _drive_lockstep(self) -> None:
        while True:
            with self._news:
                if not self._await(self._has_news, LOCKSTEP_PATIENCE):
                    raise FaultError("sensors_stale", "the simulator sends nothing more")
                if self._over():
                    return
                last = self._last_stamp = self.sensors.complete_stamp() or 0
                self._decide(self.controller.begin(self.sensors.fields()), LOCKSTEP_PATIENCE)
                if self._over():
                    return
                tick = self.controller.finish()
                stamp = self.get_clock().now().to_msg()
                stamp.sec, stamp.nanosec = divmod(last, 10**9)
                # Told before it acts: whoever sees the outcome will soon see the tick.
                self._tell(tick, 0, 0.0, 0.0)
                self._answered = (last, self._publish(tick.command, stamp))

    def _has_news(self) -> bool:
        """Whether all sensors show one moment that no session has answered yet."""
        return self.sensors.complete_stamp() not in (None, self._last_stamp)

    def _undecided(self) -> bool:
        return self.controller.hierarchy.needs(self.controller.tick) is not None

    def _await(self, happened: Callable[[], bool], timeout: float) -> bool:
        """Wait until it happened or the session is over; False: it took too long."""
        with self._news:
            return self._news.wait_for(lambda: happened() or self._over(), timeout)

    def _decide(self, request: Request | None, timeout: float) -> None:
        """Ask the master and wait for the decision of this tick, if it needs one.

        Asks again and again: a question is lost on a master that has not been discovered yet.
        """
        deadline = time.monotonic() + timeout
        self._ask(request)
        while not self._await(lambda: not self._undecided(), RETRY):
            if time.monotonic() > deadline:
                raise FaultError(
                    "master_silent",
                    f"no decision for tick {self.controller.tick} within {timeout:g} s",
                )
            self._ask(request)

    def _fresh_fields(self) -> dict[str, Floats]:
        if stale := self.sensors.stale(time.monotonic()):
            raise FaultError("sensors_stale", ", ".join(stale))
        return self.sensors.fields()

    # Messages out -------------------------------------------------------------------------

    def _ask(self, request: Request | None) -> None:
        if request is None:
            return
        self._request.data = self._request_layout.pack(
            self._session, request.macro, request.tick, vectors=(request.observation,)
        )
        self._request_publisher.publish(self._request)

    def _publish(self, command: Floats, stamp: Any) -> list[tuple[Any, Any]]:
        """Send a command (A,), to every topic even if one fails; returns what was sent where."""
        sent: list[tuple[Any, Any]] = []
        failed: Exception | None = None
        for publisher, make, writer in self._commands:
            try:
                message = make()
                if hasattr(message, "header"):
                    message.header.stamp = stamp
                    message.header.frame_id = writer.frame
                writer.write(message, command)
                publisher.publish(message)
                sent.append((publisher, message))
            except Exception as error:
                failed = error
        if failed is not None:
            raise failed
        return sent

    def _tell(self, tick: Tick, missed: int, lateness: float, compute: float) -> None:
        self._trace.data = self._trace_layout.pack(
            self._session,
            tick.tick,
            tick.skill,
            tick.late,
            missed,
            tick.saturated,
            lateness,
            compute,
            vectors=(tick.observation, tick.action, tick.command),
        )
        self._trace_publisher.publish(self._trace)

    def _make_safe(self) -> None:
        """Bring the command to the safe one as fast as the interface's rate limit allows."""
        with self._news:
            self._answered = None  # the simulator may ask again: no moving command for it
        deadline = time.monotonic() + BRAKING
        try:
            while not self.lockstep and time.monotonic() < deadline and self.controller.brake():
                self._publish(self.controller.command, self.get_clock().now().to_msg())
                time.sleep(self.interface.control_dt)
        finally:
            self._publish(self.interface.safe, self.get_clock().now().to_msg())


def _describe(status: Status) -> str:
    parts = (status.state.value, status.fault, status.detail)
    return ": ".join(part for part in parts if part)


def main() -> None:
    """Entry point."""
    sys.exit(run(SkillNode))


if __name__ == "__main__":
    main()
