"""skill_node: owns the control tick and the robot's command."""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.duration import Duration
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from mlsh_ros.bringup.params import SKILL_NODE
from mlsh_ros.control.clock import SimulatedClock
from mlsh_ros.control.command_gate import CommandGate, Watch
from mlsh_ros.control.controller import Controller, Request
from mlsh_ros.control.diagnostics import diagnose
from mlsh_ros.control.emergency_stop import EmergencyStop
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.heartbeat import Beat, Heartbeat, heartbeat_layout, interface_number
from mlsh_ros.control.loop import Done, LockstepLoop, Loop
from mlsh_ros.control.realtime import no_collection, prefer_this_thread
from mlsh_ros.control.safety_monitor import Guard, make_guard
from mlsh_ros.control.sensor_buffer import Sample, Sensors
from mlsh_ros.control.session import Session
from mlsh_ros.control.supervisor import State, Status, Supervisor
from mlsh_ros.control.timing import Timing
from mlsh_ros.messages.conversion import (
    MessageError,
    TopicReader,
    command_writers,
    shorten,
    stamp_of,
)
from mlsh_ros.messages.labelled_array import answer_layout, request_layout
from mlsh_ros.messages.topics import RECORDER_STATE, RECORDING, WATCHDOG_BEAT, WATCHDOG_STATE
from mlsh_ros.nodes.clock import TOPIC as CLOCK
from mlsh_ros.nodes.clock import make_clock, steady
from mlsh_ros.nodes.commander import Commander
from mlsh_ros.nodes.inputs import Inputs
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
from mlsh_ros.nodes.safety_listener import SafetyListener
from mlsh_ros.nodes.uniqueness import Single, SinglePublishers
from mlsh_ros.nodes.watchdog_node import STOPPED, TRIPPED, WATCHDOG
from policies.bundle.bundle import Bundle, load_bundle
from policies.bundle.robot_compatibility import check_agrees
from policies.bundle.runtime import load_skills
from sim.errors import UserError, unknown
from sim.interface import Floats

AUTOSTART = 0.5  # s between two attempts to start by itself
DELIVERY = 0.2  # s that the last command may take to arrive before the node ends
DISCOVERY = 1.0  # s that a latched emergency stop may take to be heard by a node that was started
FRESH = 0.5  # s that sensors may take to come after the robot was armed
SOON = 0.5  # s after which watchdog_node knows that an emergency stop is released
DEAF = 0.5  # s after which the thread that hears the emergency stop counts as stuck
LONG_BRAKING = 3.0  # s of braking that are worth a warning
ARMED = (State.READY, State.RUNNING, State.STOPPING)


class SkillNode(CoreNode):
    """Wiring: sensors -> controller -> command, every `control_dt`, while RUNNING."""

    def __init__(self) -> None:
        self.supervisor = Supervisor(self._on_status)
        self._state_publisher: Any = None
        self._stop = threading.Event()  # ends a session
        self._news = threading.Condition()  # a sensor sample or a decision has come
        super().__init__("skill_node", SKILL_NODE)
        self._commander: Commander | None = None
        # Counts starts from a number that no other process has: an answer to a session of before
        # is not taken, whoever says it again. float64 holds it.
        self._session_number = secrets.randbits(40) << 10
        self._sent = 0.0  # s, when the newest command was
        self.estop = EmergencyStop()  # what panels say outlives cleanup and configure
        self._timers: list[Any] = []
        self._autostart: Any = None  # timer
        self._answered: int | None = None  # ns, stamp of the sensors that a command answered
        self.timing = Timing()
        # Of a change of parameters that is not yet accepted.
        self._next_bundle: tuple[Bundle, Sequence[Any]] | None = None
        self.add_on_set_parameters_callback(self._on_parameters)
        self.add_post_set_parameters_callback(self._after_parameters)

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
        self.watched = bool(self.values["watchdog"])
        self.controller = Controller(
            self.interface,
            load_skills(bundle),
            manifest.decision_ticks,
            manifest.decision_lead,
            bundle.fingerprint,
        )
        self.sensors = Sensors(self.interface, ordered=not self.lockstep)
        inputs = self.made(Inputs(self), Inputs.destroy)
        self.time = make_clock(
            self,
            self._news,
            inputs,
            lockstep=self.lockstep,
            compare=bool(self.values["check_clock"]),
        )
        writers = command_writers(
            self.interface.action, stamped=bool(self.values["stamped_cmd_vel"])
        )
        commander = self.made(Commander(self, writers, lifecycle=True), self._forget_commander)
        if self.lockstep and commander.unstamped:
            raise UserError(
                f"mode 'lockstep' needs commands with a header; {commander.unstamped[0]} has none"
            )
        self._commander = commander
        self.gate = CommandGate(
            self.interface, self.supervisor, self._publish, self._watch_of_session
        )
        self.loop = self._make_loop(make_guard(manifest, self.values))
        self.session = Session(
            self.supervisor, self.gate, self._drive, self, self._stop, self._wake, self._log_error
        )
        self._reporter = self.made(Reporter(self, self.interface), Reporter.destroy)
        self._request_layout = request_layout(self.interface.observation_names)
        self._answer_layout = answer_layout(manifest.skills)
        self._request = array_message(self._request_layout)
        self._request_publisher = self.made(
            self.create_lifecycle_publisher(Float64MultiArray, REQUEST_TOPIC, EXCHANGE),
            self.destroy_publisher,
        )
        self._listen(inputs)
        self._safety = self.made(self._make_safety_listener(), SafetyListener.destroy)
        if self._state_publisher is None:
            self._state_publisher = self.create_publisher(String, "~/state", LATCHED)
        for name, action in (
            ("arm", self._arm),
            ("disarm", self._disarm),
            ("start", self._start),
            ("stop", self._end),
            ("reset", self._reset),
        ):
            service = self.create_service(Trigger, f"~/{name}", partial(self._serve, name, action))
            self.made(service, self.destroy_service)
        self._on_status(self.supervisor.status)
        self._introduce()

    def _introduce(self) -> None:
        manifest = self.bundle.manifest
        self.get_logger().info(
            f"bundle {manifest.name!r} for robot {self.interface.robot!r}: "
            f"{len(manifest.skills)} skills, a decision every {manifest.decision_ticks} ticks "
            f"of {self.interface.control_dt:g} s"
        )
        if (braking := self.interface.braking_time[0]) > LONG_BRAKING:
            self.get_logger().warning(
                f"a stop takes up to {braking:.1f} s, by the rate limits of {self.interface.robot}"
            )

    def _listen(self, inputs: Inputs) -> None:
        # In lockstep a lost message would stop the world.
        quality = EXCHANGE if self.lockstep else SENSOR
        refuse = self._reporter.refused
        for reader in self.sensors.readers:
            use = partial(self._on_sensor, reader)
            inputs.listen(message_type(reader.type), reader.topic, use, quality, refuse)
        self._recorder = ""
        inputs.listen(Float64MultiArray, ANSWER_TOPIC, self._on_answer, EXCHANGE, refuse)
        inputs.listen(String, RECORDER_STATE, self._on_recorder, LATCHED, refuse)
        self._singles = SinglePublishers(self, self._single_topics())

    def _single_topics(self) -> list[Single]:
        """What only one node may publish."""
        sensors = [reader.topic for reader in self.sensors.readers]
        shared = str(self.values["shared_topics"]).split()
        for topic in shared:
            if topic not in sensors:
                raise unknown("sensor topic in shared_topics", topic, sensors)
        writers = command_writers(self.interface.action, stamped=True)
        commands = [Single(w.topic, own=True, friends=(WATCHDOG,)) for w in writers]
        others = [ANSWER_TOPIC, WATCHDOG_BEAT, *(t for t in sensors if t not in shared)]
        if self.get_parameter("use_sim_time").value:
            others.append(CLOCK)
        return [*commands, *map(Single, others)]

    def _make_safety_listener(self) -> SafetyListener:
        required = float(self.values["estop_max_age"]) if self.values["estop"] else None
        self.estop.max_age = required
        self._heartbeats = heartbeat_layout(self.interface)
        self.heartbeat = Heartbeat(
            interface_number(self.interface), simulated=isinstance(self.time, SimulatedClock)
        )
        self._watchdog = ""
        safety = SafetyListener(
            self,
            self.estop,
            on_estop=self._watch,
            on_poll=self._watch,
            on_look=self._look,
            on_failure=lambda text: self.supervisor.fault("internal", text),
            refuse=self._reporter.refused,
        )
        refuse = self._reporter.refused
        safety.listen(String, WATCHDOG_STATE, self._on_watchdog, LATCHED, refuse)
        safety.listen(Float64MultiArray, WATCHDOG_BEAT, self._on_heartbeat, SENSOR, refuse)
        safety.start()
        return safety

    def _make_loop(self, guard: Guard) -> Loop | LockstepLoop:
        parts = (self.controller, self.sensors, guard, self, self._news, self._stop)
        if self.lockstep:
            return LockstepLoop(*parts)
        timeout = float(self.values["start_timeout"])
        return Loop(*parts, start_timeout=timeout, clock=self.time)

    def activate(self) -> None:
        """Report; nothing moves before `arm` and `start`."""
        self._reporter.begin()
        self._timers = [self.create_timer(DIAGNOSTICS_PERIOD, self._diagnose, clock=steady())]
        if self.values["start_by_itself"]:
            self._autostart = self.create_timer(AUTOSTART, self._start_by_itself, clock=steady())
        self.supervisor.activate()

    def deactivate(self) -> None:
        """Bring the robot to its safe command and disarm; a fault stays."""
        self.supervisor.deactivate()  # first: from now on nobody can arm or start
        self._forget_autostart()
        for timer in self._timers:
            self.destroy_timer(timer)
        self._timers = []
        if self._commander is None:
            return
        self.session.end()
        self.supervisor.rest()
        self._commander.wait_for_delivery(Duration(seconds=DELIVERY))
        self._reporter.end()

    def _forget_commander(self, commander: Commander) -> None:
        commander.destroy()
        self._commander = None

    # Services -----------------------------------------------------------------------------

    def _serve(
        self,
        name: str,
        action: Callable[[], str],
        _: Trigger.Request,
        response: Trigger.Response,
    ) -> Trigger.Response:
        self._forget_autostart()  # someone else decides now
        refusal = action() if self.supervisor.active else "skill_node is not active; activate it"
        response.success = not refusal
        response.message = f"cannot {name}: {refusal}" if refusal else self.supervisor.state.value
        return response

    def _arm(self) -> str:
        """DISARMED to READY; returns why not, if not."""
        if self.supervisor.state is not State.DISARMED:
            return self._here()
        if refusal := self._unfit():
            return refusal
        if not self.lockstep:
            with self._news:  # what came before may be of a robot that has been moved since
                self.sensors.clear()
        return "" if self.supervisor.go(State.READY) else self._here()

    def _disarm(self) -> str:
        self.session.end()
        fault = self.supervisor.state is State.FAULT
        return "" if self.supervisor.go(State.DISARMED) else self._here(hint=fault)

    def _start(self) -> str:
        """READY to RUNNING; returns why not, if not."""
        if self.supervisor.state is State.READY and (
            refusal := self._unrecorded() or self._unready()
        ):
            return refusal
        return "" if self.session.start(self._prepare) else self._here()

    def _unready(self) -> str:
        """Why the robot would not move at once; empty if it would.

        It would begin to move whenever that came, with nobody prepared for it.
        """
        if fault := self._estop_fault() or self._unwatched():
            return str(fault)
        if self._watchdog.startswith(TRIPPED):
            return f"{WATCHDOG} is {self._watchdog}; reset it first"
        if not self.count_publishers(ANSWER_TOPIC):
            return f"nobody publishes {ANSWER_TOPIC!r}; master_node has to be there"
        with self._news:
            self._news.wait_for(lambda: not self._unsensed(), FRESH)
        late = ", ".join(self._unsensed())
        return f"sensors do not show the robot: {late}" if late else ""

    def _unsensed(self) -> list[str]:
        """Topics that do not show the robot now."""
        if self.lockstep:  # time stands until the answer
            return [f"{topic} (never received)" for topic in self.sensors.missing()]
        return self.sensors.stale(self.time.now(), self.time.stamping())

    def _prepare(self) -> None:
        with self._news:
            self._session_number += 1
            self.controller.reset()
            self.timing.clear()
            if isinstance(self.loop, LockstepLoop):
                self.loop.forget_later_stamps()
            else:
                # What was seen before `start` may be of a robot that has been moved since.
                self.sensors.clear()

    def _end(self) -> str:
        self.session.end()
        return ""

    def _reset(self) -> str:
        """FAULT to DISARMED, and forget emergency stops that are gone; why not, if not."""
        self.session.end()
        forgotten = self.estop.reset()
        if self.estop.pressed and (fault := self._estop_fault()):
            return f"{fault.detail}; release it first"
        return "" if self.supervisor.reset() or forgotten else self._here(hint=False)

    def _here(self, *, hint: bool = True) -> str:
        """Which state is in the way of a service; with a hint, what leads out of it."""
        status = self.supervisor.status
        hints = {State.DISARMED: "; arm first", State.FAULT: "; reset first"}
        return f"the state is {_describe(status)}{hints.get(status.state, '') if hint else ''}"

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
                    bundle = load_bundle(str(change.value))
                    bundle.check_replaces(self.bundle)
                    self._next_bundle = bundle, load_skills(bundle)
                except UserError as error:
                    self._next_bundle = None
                    return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _after_parameters(self, changes: list[Any]) -> None:
        """All of them are accepted: replace the bundle at the next macro step."""
        taken, self._next_bundle = self._next_bundle, None
        if taken is None or all(change.name != "bundle" for change in changes):
            return
        self.bundle, skills = taken
        self.controller.swap(skills, self.bundle.fingerprint)
        self.get_logger().info(f"bundle {self.bundle.source} from the next macro step on")

    # What else may stop the robot -----------------------------------------------------------

    def _unfit(self) -> str:
        """Why the robot must not be armed now; empty if it may."""
        try:
            now = load_bundle(self.bundle.source).manifest.digest
        except UserError as error:
            return f"the bundle on disk does not hold any more: {error}"
        if now != self.bundle.manifest.digest:
            return f"the bundle {self.bundle.source} was changed on disk after it was loaded"
        if assumed := self.interface.assumed_start:
            return (
                f"nothing says from which command a session begins: action {assumed[0]!r} has "
                "neither `tracking` nor `initial_command: safe`"
            )
        # One that was pressed before this node was started may not have been heard yet.
        time.sleep(max(0.0, self._safety.began + DISCOVERY - time.monotonic()))
        if self._watchdog.startswith(TRIPPED):
            return f"{WATCHDOG} is {self._watchdog}; reset it first"
        self.estop.forget_released()
        if fault := self._estop_fault() or self._unwatched() or self.time.fault():
            return str(fault)
        if self._watchdog.startswith(STOPPED):
            time.sleep(SOON)  # it hears of a release a moment later
        if self._watchdog.startswith(STOPPED):
            return f"{WATCHDOG} is {self._watchdog}; reset it too"
        return self.estop.unheard() or self._singles.second(patient=False)

    def _estop_fault(self) -> FaultError | None:
        return self.estop.fault(time.monotonic())

    def _unwatched(self) -> FaultError | None:
        """The fault of the watchdog, if there is one now."""
        if not self.watched:
            return None
        # In lockstep a world that is paused takes no commands, for as long as it likes.
        sent = 0 if self.lockstep else self.gate.count
        return self.heartbeat.fault(time.monotonic(), sent)

    def _watch(self) -> None:
        """Called all the time, in the thread that hears the emergency stop."""
        if self.supervisor.state in ARMED and (fault := self._estop_fault() or self._unwatched()):
            self.supervisor.fault(fault.name, fault.detail)

    def _look(self) -> None:
        """Called when it has looked at the graph."""
        if self.supervisor.state in ARMED and (others := self._singles.second(patient=True)):
            self.supervisor.fault("second_publisher", others)

    def _on_watchdog(self, message: String) -> None:
        self._watchdog = message.data
        if message.data.startswith(TRIPPED) and self.supervisor.state is not State.DISARMED:
            self.gate.hand_over()
            self.supervisor.fault("watchdog", message.data)

    def _on_heartbeat(self, message: Float64MultiArray) -> None:
        try:
            scalars, vectors = self._heartbeats.read(message)
        except MessageError as error:
            raise MessageError(f"{WATCHDOG_BEAT}: {error}") from None
        beat = Beat(
            instance=int(scalars["instance"]),
            interface=int(scalars["interface"]),
            simulated=bool(scalars["simulated"]),
            active=bool(scalars["active"]),
            tripped=bool(scalars["tripped"]),
            heard=int(scalars["heard"]),
            patience=scalars["patience"],
            command=vectors["command"] if scalars["known"] else None,
            received=time.monotonic(),
        )
        self.heartbeat.hear(beat, self.gate.count)

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
            over = self._stop.is_set() or self.supervisor.state is not State.RUNNING
            if int(scalars["session"]) != self._session_number or over:
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

    def _drive(self) -> None:
        priority, cpu = int(self.values["realtime_priority"]), int(self.values["cpu"])
        for refused in prefer_this_thread(priority, cpu):
            self.get_logger().warning(refused)
        try:
            with no_collection():
                self.loop.run()
        finally:
            with self._news:
                self._answered = None  # the simulator may ask again: no moving command for it

    # How braking passes the time (control.session.Pace) ---------------------------------------

    def now(self) -> float:
        """S, by the clock of the ticks."""
        return self.time.now()

    def wait_a_tick(self) -> None:
        """Let a control period pass; in lockstep nobody waits for time."""
        if not self.lockstep:
            self.time.pause(self.interface.control_dt, self._news)

    # What the loop says (control.loop.Port) --------------------------------------------------

    def ask(self, request: Request) -> None:
        """A question to the master."""
        self._request.data = self._request_layout.pack(
            self._session_number,
            request.macro,
            request.tick,
            request.bundle,
            vectors=(request.observation,),
        )
        self._request_publisher.publish(self._request)

    def begin(self, initial: Floats) -> None:
        """The session begins, from this command (A,)."""
        beat = self.heartbeat.follow() if self.watched else None
        # In lockstep a world that is paused takes no commands, for as long as it likes.
        self.gate.begin(initial, beat.patience if beat and not self.lockstep else None)

    def _watch_of_session(self) -> Watch | None:
        """What the watchdog_node says that watched when the session began."""
        return self.heartbeat.watch(time.monotonic(), self._safety.since, self._sent)

    def send(self, command: Floats, stamp: int | None = None) -> None:
        """The command (A,) to the robot; stamped now, or as the answer to `stamp`, ns."""
        if (silence := time.monotonic() - self._safety.alive) > DEAF:
            raise FaultError(
                "internal", f"nobody has listened to the emergency stop for {silence:.2f} s"
            )
        if self.gate.drive(command, self.time.now(), stamp) and stamp is not None:
            self._answered = stamp

    def _publish(self, command: Floats, stamp: int | None) -> None:
        assert self._commander is not None
        self._sent = time.monotonic()
        self._commander.send(command, self._stamp() if stamp is None else stamp)

    def _stamp(self) -> int:
        """Ns; simulated time as the ticks hear it, which services cannot hold up."""
        if self.lockstep or not self.get_parameter("use_sim_time").value:
            return int(self.get_clock().now().nanoseconds)
        return round(self.time.now() * 1e9)

    def _log_error(self, text: str) -> None:
        self.get_logger().error(text)

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
        self._reporter.tell(self._session_number, done)

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
