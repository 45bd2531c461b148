"""skill_node: owns the control tick and the robot's command."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.duration import Duration
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import Trigger

from mlsh_ros.core.controller import Controller, Request
from mlsh_ros.core.conversion import (
    MessageError,
    TopicReader,
    command_writers,
    shorten,
    stamp_of,
)
from mlsh_ros.core.diagnosis import diagnose
from mlsh_ros.core.faults import FaultError
from mlsh_ros.core.guard import Guard, Rules
from mlsh_ros.core.loop import Done, Loop
from mlsh_ros.core.packing import answer_layout, request_layout
from mlsh_ros.core.realtime import no_collection, prefer_this_thread
from mlsh_ros.core.sensors import Sample, Sensors
from mlsh_ros.core.supervisor import State, Status, Supervisor
from mlsh_ros.core.timing import Timing
from mlsh_ros.core.topics import RECORDER_STATE, RECORDING, WATCHDOG_STATE
from mlsh_ros.nodes.clock import make_clock, steady
from mlsh_ros.nodes.commander import Commander
from mlsh_ros.nodes.master_node import ANSWER_TOPIC, REQUEST_TOPIC
from mlsh_ros.nodes.node import (
    EXCHANGE,
    LATCHED,
    SENSOR,
    CoreNode,
    array_message,
    message_type,
    run,
)
from mlsh_ros.nodes.reporter import DIAGNOSTICS_PERIOD, Reporter
from mlsh_ros.nodes.watchdog_node import TRIPPED, WATCHDOG
from mlsh_ros.params import SKILL_NODE
from policies.agrees import check_agrees
from policies.bundle import Bundle, load_bundle
from policies.runtime import load_skills
from sim.errors import UserError
from sim.interface import Floats

LOCKSTEP_PATIENCE = 10.0  # s without a sensor or a decision before a lockstep session gives up
AUTOSTART = 0.5  # s between two attempts to start by itself
WATCH = 0.05  # s between two looks at the emergency stop
GRAPH = 10  # of those looks between two at who else publishes commands
BRAKING = 3.0  # s that coming to rest may take; who asked the node to end waits no longer
DELIVERY = 0.2  # s that the last command may take to arrive before the node ends


class SkillNode(CoreNode):
    """Wiring: sensors -> controller -> command, every `control_dt`, while RUNNING."""

    def __init__(self) -> None:
        self.supervisor = Supervisor(self._on_status)
        self._state_publisher: Any = None
        self._stop = threading.Event()  # ends a session
        self._news = threading.Condition()  # a sensor sample or a decision has come
        super().__init__("skill_node", SKILL_NODE)
        self._commander: Commander | None = None
        self._thread: threading.Thread | None = None
        self._turn = threading.RLock()  # one session begins or ends at a time
        self._session = 0  # counts starts, so that an answer to an earlier one is not taken
        self._timers: list[Any] = []
        self._autostart: Any = None  # timer
        self._answered: int | None = None  # ns, stamp of the sensors that a command answered
        self._last_stamp = -1  # ns, of the sensors that the last lockstep tick answered
        self._estop: tuple[bool, float] | None = None  # what it says, when, s monotonic
        self._looks = 0
        self.timing = Timing()
        self.add_on_set_parameters_callback(self._on_parameters)

    # Lifecycle ----------------------------------------------------------------------------

    def configure(self) -> None:
        """Load the bundle and connect."""
        # The parameter may have changed since the node began.
        self.bundle = bundle = load_bundle(str(self.get_parameter("bundle").value))
        if robot := str(self.values["robot"]):
            check_agrees(bundle, robot)
        manifest = bundle.manifest
        self.interface = manifest.interface
        self.lockstep = self.values["mode"] == "lockstep"
        self.controller = Controller(
            self.interface,
            load_skills(bundle),
            manifest.decision_ticks,
            manifest.decision_lead,
            bundle.fingerprint,
        )
        self.sensors = Sensors(self.interface, ordered=not self.lockstep)
        self.time, self._subscriptions_made = make_clock(
            self,
            self._news,
            lockstep=self.lockstep,
            compare=bool(self.values["check_clock"]),
        )
        self.loop = self._make_loop(bundle)
        writers = command_writers(
            self.interface.action, stamped=bool(self.values["stamped_cmd_vel"])
        )
        commander = Commander(self, writers, lifecycle=True)
        if self.lockstep and not commander.stamped:
            raise UserError("mode 'lockstep' needs stamped commands; set stamped_cmd_vel to true")
        self._commander = commander
        # In lockstep a lost message would stop the world.
        quality = EXCHANGE if self.lockstep else SENSOR
        self._reporter = Reporter(self, self.interface)
        refuse = self._reporter.refused
        self._subscriptions_made += [
            self.listen(
                message_type(r.type), r.topic, partial(self._on_sensor, r), quality, refuse
            )
            for r in self.sensors.readers
        ]
        self._request_layout = request_layout(self.interface.observation_names)
        self._answer_layout = answer_layout(manifest.skills)
        self._request = array_message(self._request_layout)
        self._request_publisher = self.create_lifecycle_publisher(
            Float64MultiArray, REQUEST_TOPIC, EXCHANGE
        )
        self._watchdog = self._recorder = ""
        self._subscriptions_made += [
            self.listen(Float64MultiArray, ANSWER_TOPIC, self._on_answer, EXCHANGE, refuse),
            self.listen(Bool, "estop", self._on_estop, SENSOR, refuse),
            self.listen(String, WATCHDOG_STATE, self._on_watchdog, LATCHED, refuse),
            self.listen(String, RECORDER_STATE, self._on_recorder, LATCHED, refuse),
        ]
        if self._state_publisher is None:
            self._state_publisher = self.create_publisher(String, "~/state", LATCHED)
        self._services_made = [
            self.create_service(Trigger, f"~/{name}", partial(self._serve, name, action))
            for name, action in (
                ("arm", self._arm),
                ("disarm", self._disarm),
                ("start", self._start),
                ("stop", self._end),
                ("reset", self._reset),
            )
        ]
        self._on_status(self.supervisor.status)
        self.get_logger().info(
            f"bundle {manifest.name!r} for robot {self.interface.robot!r}: "
            f"{len(manifest.skills)} skills, a decision every {manifest.decision_ticks} ticks "
            f"of {self.interface.control_dt:g} s"
        )

    def _make_loop(self, bundle: Bundle) -> Loop:
        values = self.values
        rules = Rules(
            late_decisions=int(values["late_decisions"]),
            missed_ticks=int(values["missed_ticks"]),
            max_switches=int(values["max_switches"]),
            clock_jump=float(values["clock_jump"]),
        )
        manifest = bundle.manifest
        guard = Guard(manifest.interface, manifest.skills, manifest.skill_limits, rules)
        return Loop(
            self.controller,
            self.sensors,
            guard,
            self,
            self._news,
            self._stop,
            start_timeout=float(values["start_timeout"]),
            clock=self.time,
        )

    def activate(self) -> None:
        """Listen and report; nothing moves before `arm` and `start`."""
        self._reporter.begin()
        self._timers = [
            self.create_timer(WATCH, self._watch, clock=steady()),
            self.create_timer(DIAGNOSTICS_PERIOD, self._diagnose, clock=steady()),
        ]
        if self.values["start_by_itself"]:
            self._autostart = self.create_timer(AUTOSTART, self._start_by_itself, clock=steady())

    def deactivate(self) -> None:
        """Bring the robot to its safe command and disarm."""
        self._forget_autostart()
        for timer in self._timers:
            self.destroy_timer(timer)
        self._timers = []
        with self._turn:
            self._end_session()
            self.supervisor.go(State.DISARMED)
        if self._commander is not None:
            self._commander.wait_for_delivery(Duration(seconds=DELIVERY))
            self._reporter.end()

    def cleanup(self) -> None:
        """Disconnect."""
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        for service in self._services_made:
            self.destroy_service(service)
        if self._commander is not None:
            self._commander.destroy()
            self._commander = None
        self.destroy_publisher(self._request_publisher)
        self._reporter.destroy()

    # Services -----------------------------------------------------------------------------

    def _serve(
        self,
        name: str,
        action: Callable[[], str],
        _: Trigger.Request,
        response: Trigger.Response,
    ) -> Trigger.Response:
        self._forget_autostart()  # someone else decides now
        refusal = action()
        response.success = not refusal
        response.message = f"cannot {name}: {refusal}" if refusal else self.supervisor.state.value
        return response

    def _arm(self) -> str:
        """DISARMED to READY; returns why not, if not."""
        if self.supervisor.state is not State.DISARMED:
            return self._here()
        if refusal := self._unfit():
            return refusal
        return "" if self.supervisor.go(State.READY) else self._here()

    def _disarm(self) -> str:
        self._end_session()
        ready = self.supervisor.state in (State.READY, State.STOPPING)
        return "" if ready and self.supervisor.go(State.DISARMED) else self._here()

    def _start(self) -> str:
        """READY to RUNNING; returns why not, if not."""
        with self._turn:
            if self.supervisor.state is not State.READY:
                return self._here()
            if refusal := self._unrecorded():
                return refusal
            if self._thread is not None:
                self._thread.join()
            self._stop.clear()  # before RUNNING: a fault from now on sets it again
            if not self.supervisor.go(State.RUNNING):
                return self._here()
            with self._news:
                self._session += 1
                self.controller.reset()
                self.timing.clear()
                if not self.lockstep:
                    # What was seen before `start` may be of a robot that has been moved since.
                    self.sensors.clear()
            self._thread = threading.Thread(target=self._drive, name="tick", daemon=True)
            self._thread.start()
            return ""

    def _end(self) -> str:
        self._end_session()
        return ""

    def _reset(self) -> str:
        """FAULT to DISARMED; returns why not, if not."""
        self._end_session()
        if self.supervisor.state is not State.FAULT:
            return self._here()
        self.supervisor.go(State.DISARMED)
        return ""

    def _here(self) -> str:
        status = self.supervisor.status
        hint = {State.DISARMED: "; arm first", State.FAULT: "; reset first"}
        return f"it is {_describe(status)}{hint.get(status.state, '')}"

    def _start_by_itself(self) -> None:
        if self.supervisor.state is State.DISARMED:
            self._arm()
        ready = self.supervisor.state is State.READY and not self.sensors.missing()
        if ready and self.count_publishers(ANSWER_TOPIC) and not self._start():
            self._forget_autostart()

    def _forget_autostart(self) -> None:
        if self._autostart is not None:
            self.destroy_timer(self._autostart)
            self._autostart = None

    def _on_parameters(self, changes: list[Any]) -> SetParametersResult:
        for change in changes:
            if change.name == "bundle" and self._commander is not None:
                try:
                    self._take(load_bundle(str(change.value)))
                except UserError as error:
                    return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take(self, bundle: Bundle) -> None:
        """Replace the bundle at the next macro step; everything is read and checked before."""
        bundle.check_replaces(self.bundle)
        self.controller.swap(load_skills(bundle), bundle.fingerprint)
        self.bundle = bundle
        self.get_logger().info(f"bundle {bundle.source} from the next macro step on")

    # What else may stop the robot -----------------------------------------------------------

    def _unfit(self) -> str:
        """Why the robot must not be armed now; empty if it may."""
        try:
            now = load_bundle(self.bundle.source).manifest.digest
        except UserError as error:
            return f"the bundle on disk does not hold any more: {error}"
        if now != self.bundle.manifest.digest:
            return f"the bundle {self.bundle.source} was changed on disk after it was loaded"
        if self._watchdog.startswith(TRIPPED):
            return f"{WATCHDOG} is {self._watchdog}; reset it first"
        if fault := self._estop_says() or self.time.fault():
            return str(fault)
        return self._others()

    def _others(self) -> str:
        """Who else publishes commands; empty if nobody does."""
        if self._commander is None:
            return ""
        return self._commander.others((WATCHDOG,))

    def _estop_says(self) -> FaultError | None:
        """The fault of the emergency stop, if there is one now."""
        said, limit = self._estop, float(self.values["estop_max_age"])
        if said is not None and said[0]:
            return FaultError("estop", "topic 'estop' says true")
        if not self.values["estop"]:
            return None
        if said is None:
            return FaultError("estop_lost", "topic 'estop' has not been heard")
        age = time.monotonic() - said[1]
        if age > limit:
            return FaultError("estop_lost", f"topic 'estop' is silent for {age:.2f} s")
        return None

    def _watch(self) -> None:
        if self.supervisor.state not in (State.READY, State.RUNNING, State.STOPPING):
            return
        if fault := self._estop_says():
            self.supervisor.fault(fault.name, fault.detail)
        self._looks += 1
        if self._looks % GRAPH == 0 and (others := self._others()):
            self.supervisor.fault("second_publisher", others)

    def _on_estop(self, message: Bool) -> None:
        self._estop = bool(message.data), time.monotonic()
        if message.data:
            self._watch()

    def _on_watchdog(self, message: String) -> None:
        self._watchdog = message.data
        if message.data.startswith(TRIPPED) and self.supervisor.state is not State.DISARMED:
            self.supervisor.fault("watchdog", message.data)

    def _on_recorder(self, message: String) -> None:
        self._recorder = message.data

    def _unrecorded(self) -> str:
        """Why a session that is to be recorded would not be; empty if it would."""
        if not self.get_parameter("await_recorder").value:
            return ""
        if not self.count_publishers(RECORDER_STATE):
            why = "is not there"
        elif self._recorder != RECORDING:
            why = f"is {shorten(self._recorder)}" if self._recorder else "has said nothing yet"
        elif not self._reporter.heard:
            why = "does not hear skill_node yet"
        else:
            return ""
        return f"recorder_node {why}; set await_recorder to false to go on without a recording"

    # Messages in --------------------------------------------------------------------------

    def _on_sensor(self, reader: TopicReader, message: Any) -> None:
        # What is refused is not used: the term grows stale, and that stops the robot.
        fields, stamp = reader.read(message), stamp_of(message, reader.topic)
        with self._news:
            sample = Sample(fields, self.time.moment(stamp), stamp)
            if not self.sensors.put(reader.topic, sample):
                self._reporter.refused(
                    f"{reader.topic}: its stamp is no later than the one before"
                )
            self._news.notify_all()
            if self._answered == stamp and self._commander is not None:
                # The simulator asks again: our answer was lost.
                self._commander.send_again()

    def _on_answer(self, message: Float64MultiArray) -> None:
        try:
            scalars, _ = self._answer_layout.read(message)
        except MessageError as error:
            raise MessageError(f"{ANSWER_TOPIC}: {error}") from None
        macro, skill = int(scalars["macro"]), int(scalars["skill"])
        with self._news:
            if int(scalars["session"]) != self._session or self._over():
                self._reporter.unused += 1
                return
            try:
                self._reporter.unused += not self.controller.answer(macro, skill)
            except ValueError as error:
                self.supervisor.fault("invalid_decision", str(error))
            self._news.notify_all()

    def _on_status(self, status: Status) -> None:
        if status.state is State.FAULT:
            self._stop.set()
            # Not in this thread: the one that ticks may hold the lock and wait for the supervisor.
            threading.Thread(target=self._wake, daemon=True).start()
        if self._state_publisher is None:
            return
        self._state_publisher.publish(String(data=_describe(status)))
        if status.state is State.FAULT:
            self.get_logger().error(_describe(status))
        else:
            self.get_logger().info(_describe(status))

    def _wake(self) -> None:
        with self._news:
            self._news.notify_all()

    # A session ----------------------------------------------------------------------------

    def _end_session(self) -> None:
        with self._turn:
            self._stop.set()
            self._wake()
            if self._thread is not None:
                self._thread.join()
                self._thread = None

    def _over(self) -> bool:
        """Whether the session has been told to end, or a fault has ended it."""
        return self._stop.is_set() or self.supervisor.state is not State.RUNNING

    def _drive(self) -> None:
        priority, cpu = int(self.values["realtime_priority"]), int(self.values["cpu"])
        for refused in prefer_this_thread(priority, cpu):
            self.get_logger().warning(refused)
        try:
            with no_collection():
                self._drive_lockstep() if self.lockstep else self.loop.run()
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

    def _drive_lockstep(self) -> None:
        while True:
            with self._news:
                if not self.loop.wait(self._has_news, LOCKSTEP_PATIENCE):
                    raise FaultError("sensors_stale", "the simulator sends nothing more")
                if self._over():
                    return
                last = self._last_stamp = self.sensors.complete_stamp() or 0
                self.loop.decide(self.controller.begin(self.sensors.fields()), LOCKSTEP_PATIENCE)
                if self._over():
                    return
                tick = self.controller.finish()
                # Told before it acts: whoever sees the outcome will soon see the tick.
                self.tell(Done(tick, 0, 0.0, 0.0))
                self._send(tick.command, last)
                self._answered = last

    def _has_news(self) -> bool:
        """Whether all sensors show one moment that no session has answered yet."""
        return self.sensors.complete_stamp() not in (None, self._last_stamp)

    def _make_safe(self) -> None:
        """Bring the command to the safe one as fast as the interface's rate limit allows."""
        with self._news:
            self._answered = None  # the simulator may ask again: no moving command for it
        deadline = time.monotonic() + BRAKING
        try:
            while not self.lockstep and time.monotonic() < deadline and self.controller.brake():
                self.send(self.controller.command)
                self.time.pause(self.interface.control_dt, self._news)
        finally:
            self.send(self.interface.safe)

    # What the loop says (core.loop.Port) --------------------------------------------------

    def ask(self, request: Request) -> None:
        """A question to the master."""
        self._request.data = self._request_layout.pack(
            self._session,
            request.macro,
            request.tick,
            request.bundle,
            vectors=(request.observation,),
        )
        self._request_publisher.publish(self._request)

    def send(self, command: Floats) -> None:
        """The command (A,) to the robot, stamped now."""
        self._send(command, self.get_clock().now().nanoseconds)

    def _send(self, command: Floats, stamp: int) -> None:
        if self._commander is not None:
            self._commander.send(command, stamp)

    def tell(self, done: Done) -> None:
        """Count a tick, and have it told outside the tick."""
        tick = done.tick
        self.timing.add(
            done.lateness,
            done.compute,
            missed=done.missed,
            late=tick.late,
            saturated=tick.saturated,
        )
        self._reporter.tell(self._session, done)

    def _diagnose(self) -> None:
        self._reporter.diagnose(
            diagnose(
                self.supervisor.status,
                self.timing.summary(),
                self.interface,
                self.sensors.ages(self.time.now()),
                self.bundle.manifest.skills,
                self.controller.hierarchy,
                self._reporter.refusals,
                self._reporter.unused,
            )
        )


def _describe(status: Status) -> str:
    parts = (status.state.value, status.fault, status.detail)
    return ": ".join(part for part in parts if part)


def main() -> None:
    """Entry point."""
    sys.exit(run(SkillNode))


if __name__ == "__main__":
    main()
