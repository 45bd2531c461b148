"""skill_node: runs the control loop and publishes the robot's commands.

Its parameters are declared in `mlsh_ros.bringup.params`, its control step is
`mlsh_ros.control.control_step`, its services are in `mlsh_ros.nodes.session_services`.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from rclpy.duration import Duration
from std_msgs.msg import Float64MultiArray, String

from mlsh_ros.bringup.params import SKILL_NODE
from mlsh_ros.control.clock import HOLD, SimulatedClock, steady_time
from mlsh_ros.control.command_gate import FRESH, CommandGate, WatchdogReport
from mlsh_ros.control.controller import Controller, Request
from mlsh_ros.control.diagnostics import diagnose
from mlsh_ros.control.emergency_stop import KEPT, EmergencyStop
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.loop import ControlLoop, LockstepLoop, TickRecord
from mlsh_ros.control.realtime import gc_disabled, set_realtime_priority
from mlsh_ros.control.safety_monitor import SafetyMonitor, make_safety_monitor
from mlsh_ros.control.sensor_buffer import Sample, SensorBuffer
from mlsh_ros.control.session import Session
from mlsh_ros.control.supervisor import State, Status, Supervisor
from mlsh_ros.control.timing import TickTiming
from mlsh_ros.control.waker import Waker
from mlsh_ros.messages.conversion import TopicReader, command_writers, stamp_of
from mlsh_ros.messages.labeled_array import request_layout, response_layout
from mlsh_ros.messages.topics import RECORDER_STATE, WATCHDOG_BEAT
from mlsh_ros.nodes.arming_checks import ArmingChecks
from mlsh_ros.nodes.clock import TOPIC as CLOCK
from mlsh_ros.nodes.clock import make_clock, steady
from mlsh_ros.nodes.commander import Commander
from mlsh_ros.nodes.inputs import Inputs
from mlsh_ros.nodes.master_node import REQUEST_TOPIC, RESPONSE_TOPIC
from mlsh_ros.nodes.node import (
    EXCHANGE,
    LATCHED,
    SENSOR,
    CoreNode,
    array_message,
    message_type,
    one_line,
    run,
)
from mlsh_ros.nodes.reporter import DIAGNOSTICS_PERIOD, Reporter
from mlsh_ros.nodes.safety_listener import SafetyListener
from mlsh_ros.nodes.session_services import SessionServices, describe
from mlsh_ros.nodes.uniqueness import Receivers, Single, SinglePublishers
from mlsh_ros.nodes.watchdog_link import WatchdogLink
from mlsh_ros.nodes.watchdog_node import WATCHDOG
from policies.bundle.bound_bundle import load_bound
from policies.bundle.bundle import Bundle
from policies.bundle.robot_compatibility import check_agrees
from policies.bundle.runtime import load_skills
from sim.errors import UserError, unknown
from sim.interface import Floats

DELIVERY = 0.2  # s that the last command may take to arrive before the node ends
LONG_BRAKING = 3.0  # s of braking that are worth a warning
ARMED = (State.READY, State.RUNNING, State.STOPPING)


class SkillNode(CoreNode):
    """Wiring: sensors -> controller -> command, every `control_dt`, while RUNNING."""

    def __init__(self) -> None:
        self.supervisor = Supervisor(self._on_status)
        self._state_publisher: Any = None
        self._stop = threading.Event()  # ends a session
        self._new_data = threading.Condition()  # a sensor sample or a decision has come
        # The thread that ticks may hold its lock while it waits for the supervisor.
        self._waker = Waker(self._new_data)
        super().__init__("skill_node", SKILL_NODE)
        self._commander: Commander | None = None
        # Counts starts from a number that no other process has: an answer to a session of before
        # is not taken, whoever says it again. float64 holds it.
        self._session_number = secrets.randbits(40) << 10
        self._sent = 0.0  # s, when the newest command was
        self._checked = 0.0  # s, when it was checked
        self.estop = EmergencyStop()  # what panels say outlives cleanup and configure
        self._own_timers: list[Any] = []
        self._answered: int | None = None  # ns, stamp of the sensors that a command answered
        self.timing = TickTiming()
        # Of a change of parameters that is not yet accepted.
        self._next_bundle: tuple[Bundle, Sequence[Any]] | None = None
        self.check_changes(self._on_parameters)
        self.add_post_set_parameters_callback(self._after_parameters)

    # Lifecycle ----------------------------------------------------------------------------

    def configure(self) -> None:
        """Load the bundle and connect."""
        # The parameter may have changed since the node began.
        self.bundle = bundle = self._load_bundle(str(self.get_parameter("bundle").value))
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
        self.sensors = SensorBuffer(self.interface, ordered=not self.lockstep)
        inputs = self.made(Inputs(self), Inputs.destroy)
        self.time = make_clock(
            self,
            self._new_data,
            inputs,
            lockstep=self.lockstep,
            compare=bool(self.values["check_clock"]),
        )
        writers = command_writers(
            self.interface.action, stamped=bool(self.values["enable_stamped_cmd_vel"])
        )
        commander = self.made(Commander(self, writers, lifecycle=True), self._forget_commander)
        if self.lockstep and commander.unstamped:
            raise UserError(
                f"mode 'lockstep' needs commands with a header; {commander.unstamped[0]} has none"
            )
        self._commander = commander
        self.gate = CommandGate(
            self.interface,
            self.supervisor,
            self._publish,
            self._watch_of_session,
            paced=not self.lockstep,
        )
        self.loop = self._make_loop(make_safety_monitor(manifest, self.values))
        self.session = Session(
            self.supervisor,
            self.gate,
            self._drive,
            self,
            self._stop,
            self._waker.wake,
            self._log_error,
        )
        self._reporter = self.made(Reporter(self, self.interface), Reporter.destroy)
        self._request_layout = request_layout(self.interface.observation_names)
        self._answer_layout = response_layout(manifest.skills)
        self._request = array_message(self._request_layout)
        self._request_publisher = self.made(
            self.create_lifecycle_publisher(Float64MultiArray, REQUEST_TOPIC, EXCHANGE),
            self.destroy_publisher,
        )
        self._singles = SinglePublishers(self, self._single_topics())
        self._receivers = Receivers(self, {w.topic: w.type for w in writers})
        self._watchdog = WatchdogLink(
            self.interface,
            self.gate,
            simulated=isinstance(self.time, SimulatedClock),
            required=bool(self.values["watchdog"]),
            paused=self.lockstep,
            on_trip=self._on_trip,
        )
        self._safety = self.made(self._make_safety_listener(), SafetyListener.destroy)
        self._checks = self._make_checks()
        self._listen(inputs)  # messages come from now on, in threads of their own
        self._safety.start()
        if self._state_publisher is None:
            self._state_publisher = self.create_publisher(String, "~/state", LATCHED)
        self._session_services = self.made(self._make_services(), SessionServices.destroy)
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
            inputs.listen(
                message_type(reader.type), reader.topic, use, quality, self._refuse_sensor
            )
        inputs.listen(Float64MultiArray, RESPONSE_TOPIC, self._on_answer, EXCHANGE, refuse)
        inputs.listen(String, RECORDER_STATE, self._on_recorder, LATCHED, refuse)

    def _single_topics(self) -> list[Single]:
        """Topics that permit only one publisher."""
        sensors = [reader.topic for reader in self.sensors.readers]
        shared = str(self.values["shared_topics"]).split()
        for topic in shared:
            if topic not in sensors:
                raise unknown("sensor topic in shared_topics", topic, sensors)
        writers = command_writers(self.interface.action, stamped=True)
        commands = [Single(w.topic, own=True, friends=(WATCHDOG,)) for w in writers]
        others = [RESPONSE_TOPIC, WATCHDOG_BEAT, *(t for t in sensors if t not in shared)]
        if self.get_parameter("use_sim_time").value:
            others.append(CLOCK)
        return [*commands, *map(Single, others)]

    def _make_safety_listener(self) -> SafetyListener:
        required = float(self.values["estop_max_age"]) if self.values["estop"] else None
        self.estop.max_age = required
        safety = SafetyListener(
            self,
            self.estop,
            on_estop=self._on_estop,
            on_poll=self._watch,
            on_look=self._look,
            on_failure=lambda text: self.supervisor.fault("internal", text),
            refuse=self._reporter.refused,
        )
        self._watchdog.listen(safety, self._reporter.refused)
        return safety

    def _make_checks(self) -> ArmingChecks:
        return ArmingChecks(
            self,
            lambda: self.bundle,
            self.estop,
            self._watchdog,
            self._safety,
            self._singles,
            self._reporter,
            self.sensors,
            self.time,
            self._new_data,
            self._receivers,
            lockstep=self.lockstep,
        )

    def _load_bundle(self, name: str) -> Bundle:
        bindings, robot = str(self.values["bindings"]), str(self.values["robot"])
        bundle = load_bound(name, bindings)
        if robot:
            check_agrees(bundle, robot, bindings)
        return bundle

    def _make_services(self) -> SessionServices:
        return SessionServices(
            self,
            self.supervisor,
            self.session,
            self._checks,
            self.estop,
            forget_sensors=self._forget_sensors,
            prepare=self._prepare,
            sensors_missing=self.sensors.unheard,
        )

    def _make_loop(self, safety_monitor: SafetyMonitor) -> ControlLoop | LockstepLoop:
        parts = (self.controller, self.sensors, safety_monitor, self, self._new_data, self._stop)
        if self.lockstep:
            return LockstepLoop(*parts)
        timeout = float(self.values["start_timeout"])
        return ControlLoop(*parts, start_timeout=timeout, clock=self.time)

    def activate(self) -> None:
        """Start reporting; the robot does not move before `arm` and `start`."""
        self._reporter.begin()
        self._own_timers = [self.create_timer(DIAGNOSTICS_PERIOD, self._diagnose, clock=steady())]
        if self.values["auto_arm"]:
            self._session_services.begin_auto_arm()
        self.supervisor.activate()

    def deactivate(self) -> None:
        """Bring the robot to its safe command and disarm; a fault is kept."""
        self.supervisor.deactivate()  # first: from now on arming and starting are refused
        for timer in self._own_timers:
            self.destroy_timer(timer)
        self._own_timers = []
        if self._commander is None:
            return
        self._session_services.cancel_auto_arm()
        self.session.end()
        self.supervisor.rest()
        self._commander.wait_for_delivery(Duration(seconds=DELIVERY))
        self._reporter.end()

    def _forget_commander(self, commander: Commander) -> None:
        commander.destroy()
        self._commander = None

    # Sessions begin and bundles change -------------------------------------------------------

    def _prepare(self) -> None:
        """Prepare a new session."""
        with self._new_data:
            self._session_number += 1
            self.controller.reset()
            self.timing.clear()
            if isinstance(self.loop, LockstepLoop):
                self.loop.forget_later_stamps()
            self._forget_sensors()

    def _forget_sensors(self) -> None:
        """Remove all samples, because the robot may have been moved since."""
        if not self.lockstep:  # there the simulator waits for an answer to what it has shown
            with self._new_data:
                self.sensors.clear()

    def _on_parameters(self, given: dict[str, Any]) -> None:
        if "bundle" in given and self._commander is not None:
            self._session_services.serve_endings()  # one request may have any number of bundles
            self._next_bundle = None  # if the new one is refused
            bundle = self._load_bundle(str(given["bundle"]))
            bundle.check_replaces(self.bundle)
            self._next_bundle = bundle, load_skills(bundle)

    def _after_parameters(self, changes: list[Any]) -> None:
        """After all parameters are accepted: replace the bundle at the next macro step."""
        taken, self._next_bundle = self._next_bundle, None
        if taken is None or all(change.name != "bundle" for change in changes):
            return
        self.bundle, skills = taken
        with self._new_data:
            self.controller.swap(skills, self.bundle.fingerprint)
        self.get_logger().info(f"bundle {self.bundle.source} from the next macro step on")

    # What else may stop the robot -----------------------------------------------------------

    def _on_estop(self, fault: FaultError) -> None:
        """Latch a request to stop as an event; the panel's state may be another one already."""
        self.supervisor.fault(fault.name, fault.detail, only_in=ARMED)

    def _watch(self) -> None:
        """Called in every poll of the thread that receives the emergency stop."""
        state = self.supervisor.state
        if state in ARMED and (fault := self._checks.fault(braking=state is State.STOPPING)):
            self.supervisor.fault(fault.name, fault.detail)

    def _look(self) -> None:
        """Called after every check of the ROS graph."""
        others = self._singles.second(patient=True)  # always: it counts for how long one is there
        if self.supervisor.state not in ARMED:  # there the loss of a panel is no fault
            self.estop.forget_released(steady_time() - KEPT)
        elif others:
            self.supervisor.fault("second_publisher", others)
        elif self.supervisor.state is State.RUNNING and (gone := self._receivers.missing()):
            self.supervisor.fault("no_receiver", gone)

    def _on_trip(self, text: str) -> None:
        if self.supervisor.state is not State.DISARMED:
            self.gate.hand_over()
            self.supervisor.fault("watchdog", text)

    def _on_recorder(self, message: String) -> None:
        self._checks.recorder = message.data

    # Messages in --------------------------------------------------------------------------

    def _on_sensor(self, reader: TopicReader, message: Any) -> None:
        # What is refused is not used: the term grows stale, and that stops the robot.
        fields, stamp = reader.read(message), stamp_of(message, reader.topic)
        with self._new_data:
            sample = Sample(fields, self.time.receive_time(stamp), stamp)
            if not self.sensors.put(reader.topic, sample):
                self._refuse_sensor(f"{reader.topic}: its stamp is no later than the one before")
            self._new_data.notify_all()
            if self._answered == stamp and self._commander is not None:
                # The simulator asks again: our answer was lost.
                self._commander.send_again()

    def _refuse_sensor(self, text: str) -> None:
        self.sensors.refuse(text)
        self._reporter.refused(text)

    def _on_answer(self, message: Float64MultiArray) -> None:
        scalars, _ = self._answer_layout.read(message, RESPONSE_TOPIC)
        macro, skill = int(scalars["macro"]), int(scalars["skill"])
        with self._new_data:
            over = self._stop.is_set() or self.supervisor.state is not State.RUNNING
            if int(scalars["session"]) != self._session_number or over:
                self._reporter.unused += 1
                return
            try:
                self._reporter.unused += not self.controller.set_decision(macro, skill)
            except ValueError as error:
                self.supervisor.fault("invalid_decision", str(error))
            self._new_data.notify_all()

    def _on_status(self, status: Status) -> None:
        if status.state is State.FAULT:
            self._stop.set()
            self._waker.wake()
        if self._state_publisher is None:
            return
        try:
            self._state_publisher.publish(String(data=describe(status)))
        except Exception as error:  # the state has changed, and who changed it goes on
            self._reporter.log(f"the state was not published: {one_line(error)}", error=True)
        self._reporter.log(describe(status), error=status.state is State.FAULT)

    # A session ----------------------------------------------------------------------------

    def _drive(self) -> None:
        priority, cpu = int(self.values["realtime_priority"]), int(self.values["cpu"])
        for refused in set_realtime_priority(priority, cpu):
            self.get_logger().warning(refused)
        try:
            with gc_disabled():
                self.loop.run()
        finally:
            with self._new_data:
                self._answered = None  # the simulator may ask again: no moving command for it

    # How braking passes the time (control.session.Pace) ---------------------------------------

    def now(self) -> float:
        """Time by the clock of the ticks, s, by which the next command is checked."""
        self._checked = steady_time()
        return self.time.now()

    def wait_a_tick(self) -> None:
        """Wait for one control period; in lockstep without a delay."""
        if not self.lockstep:
            self.time.wait_for(self.interface.control_dt, self._new_data)

    # What the loop says (control.loop.LoopIO) --------------------------------------------------

    def request_decision(self, request: Request) -> None:
        """Send a request to the master."""
        self._request.data = self._request_layout.pack(
            self._session_number,
            request.macro,
            request.tick,
            request.bundle,
            vectors=(request.observation,),
        )
        self._request_publisher.publish(self._request)

    def begin_session(self, initial: Floats) -> None:
        """Begin the session at this command (A,)."""
        self.gate.begin(initial, self._watchdog.follow())

    def _watch_of_session(self) -> WatchdogReport | None:
        """Returns the state of the watchdog_node that was active when the session began."""
        return self._watchdog.watch(self._safety.since, self._sent)

    def send_command(
        self,
        command: Floats,
        stamp: int | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> bool:
        """Send the command (A,) to the robot, see `LoopIO.send_command`."""
        if deaf := self._safety.deaf():
            raise FaultError("internal", deaf)
        sent = self.gate.drive(command, self.now(), stamp, before)
        if sent and stamp is not None:
            self._answered = stamp
        return sent

    def _publish(self, command: Floats, stamp: int | None) -> None:
        assert self._commander is not None
        self._sent = steady_time()
        leeway = self.gate.leeway
        if isinstance(self.time, SimulatedClock) and leeway < math.inf:
            leeway = FRESH * HOLD  # watchdog_node waits for so long by the system's clock
        by = self._checked + leeway
        self._commander.send(command, self._stamp() if stamp is None else stamp, by)

    def _stamp(self) -> int:
        """Time stamp, ns; simulated time has its own receiver, so services do not delay it."""
        if self.lockstep or not self.get_parameter("use_sim_time").value:
            return int(self.get_clock().now().nanoseconds)
        return round(self.time.now() * 1e9)

    def _log_error(self, text: str) -> None:
        self.get_logger().error(text)

    def publish_tick(self, done: TickRecord) -> None:
        """Count a tick, and publish it outside the tick."""
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
                self.controller.schedule,
                self._reporter.refusals,
                self._reporter.unused,
            )
        )


def main() -> NoReturn:
    """Entry point."""
    run(SkillNode)


if __name__ == "__main__":
    main()
