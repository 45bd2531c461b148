"""sim_node: MuJoCo as the robot, on the topics of the real robot."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger

from mlsh_ros.bringup.params import SIM_NODE
from mlsh_ros.control.clock import HOLD, steady_time
from mlsh_ros.messages.command_limits import is_safe, violation
from mlsh_ros.messages.conversion import (
    CommandWriter,
    MessageError,
    command_writers,
    topic_readers,
)
from mlsh_ros.messages.fault_injection import inject_fault
from mlsh_ros.messages.labeled_array import OUTCOME, applied_layout
from mlsh_ros.nodes.clock import steady, wall_period
from mlsh_ros.nodes.node import (
    COMMAND,
    EXCHANGE,
    TRACE,
    CoreNode,
    array_message,
    message_type,
    one_line,
    run,
)
from policies.bundle.bundle import Bundle, load_bundle
from policies.bundle.task_compatibility import resolve_task
from sim.envs.world import World
from sim.errors import UserError
from sim.interface import Interface
from sim.interface.bindings import bind, read_bindings
from sim.physics.robot_model import load_robot
from sim.randomization.schema import load_sim_params
from sim.seeding import episode_rng
from sim.tasks.base import TaskFamily
from sim.tasks.registry import find_task, use_families
from sim.tasks.task_id import TaskId

ASK_AGAIN = 0.5  # s without a command in lockstep before the sensors are sent again
LOST = 1.0  # s behind the clock after which time is lost, not caught up in a burst
LATE = 1.5  # ticks since the last command of a robot that moves


class SimNode(CoreNode):
    """Wiring: command -> World -> sensors and outcome.

    An episode begins at a reset and waits, sensors flowing, for the first command. In lockstep
    the world then moves one tick for each command that carries the stamp of the last sensors; in
    realtime it moves with the clock, `real_time_factor` times as fast, and a new command acts
    at the next physics step, which is published on ~/applied_command. In lockstep and with
    use_sim_time it publishes its own time on /clock: that of its ticks or physics steps since the
    node began. Pausing stops the time, and a late command delays it briefly.
    """

    def __init__(self) -> None:
        super().__init__("sim_node", SIM_NODE)
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()  # the world: services and the physics thread both use it
        self._timer: Any = None
        self._answer = threading.Event()  # a command has come
        self._configured = False
        # Not the parameters themselves: the physics thread must not wait for their services.
        self._fault = str(self.values["fault"])
        self._next_episode = int(self.values["episode"])
        self._bundle: Bundle | None = None
        self.check_changes(self._on_parameters)
        self.add_post_set_parameters_callback(self._after_parameters)

    def configure(self) -> None:
        """Build the world and connect."""
        self.lockstep = self.values["mode"] == "lockstep"
        self.simulated = self.lockstep or bool(self.get_parameter("use_sim_time").value)
        self.robot = load_robot(str(self.values["robot"]))
        use_families(str(self.values["family"]))
        bundle = str(self.values["bundle"])
        self._bundle = load_bundle(bundle) if bundle else None
        self._task = str(self.get_parameter("task").value)  # may have changed meanwhile
        family, self._number = self._find(self._task)
        name = str(self.values["sim_params"])
        self._sim_params = load_sim_params(name, self.robot) if name else None
        self.world = World(self.robot, family, size=1, sim_params=self._sim_params)
        bindings = str(self.values["bindings"])
        self._bindings = read_bindings(Path(bindings)) if bindings else None
        self.interface = self._bound(self.world.interface)
        self._period = wall_period(
            self.interface.physics_dt,
            float(self.values["real_time_factor"]),
            lockstep=self.lockstep,
            simulated=self.simulated,
        )
        stamped = bool(self.values["enable_stamped_cmd_vel"])
        writers = command_writers(self.interface.action, stamped=stamped)
        sources = [(message_type(r.type), r) for r in topic_readers(self.interface.observation)]
        sinks = [(message_type(w.type), w) for w in writers]
        types = [(make, r.topic) for make, r in sources] + [(make, w.topic) for make, w in sinks]
        for make, topic in types:
            if self.lockstep and not hasattr(make(), "header"):
                raise UserError(
                    f"mode 'lockstep' needs stamps; {make.__name__} {topic!r} has none"
                )
        self._frames = {t.ros.topic: t.frame for t in reversed(self.interface.observation)}
        # Lockstep makes hundreds of ticks a second: who was held up may still ask for them.
        quality = TRACE if self.lockstep else EXCHANGE
        publish = partial(self._publish_from, self.create_lifecycle_publisher)
        self._sensors = [(publish(make, r.topic, quality), make, r) for make, r in sources]
        self._clock_publisher = self._publish_from(
            self.create_publisher, Clock, "/clock", EXCHANGE
        )
        self._outcome = array_message(OUTCOME)
        self._outcome_publisher = publish(Float64MultiArray, "~/outcome", TRACE)
        self._applied_layout = applied_layout(self.interface.action_names)
        self._applied = array_message(self._applied_layout)
        self._count = 0  # of the commands that were applied
        if not self.lockstep:
            applied = "~/applied_command"
            self._applied_publisher = publish(Float64MultiArray, applied, TRACE)
        for make, w in sinks:
            use = partial(self._on_command, w)
            commands = self.listen(make, w.topic, use, COMMAND, self.warn_refused)
            self.made(commands, self.destroy_subscription)
        for kind, name, action in (
            (Trigger, "~/reset", self._on_reset),
            (SetBool, "~/pause", self._on_pause),
        ):
            self.made(self.create_service(kind, name, action), self.destroy_service)
        self._topics = {w.topic for w in writers}
        # The simulated clock: ticks and resets, or physics steps, since the node began.
        self._moment = 0
        self._configured = True
        self._started = self._done = self._paused = False
        self._substep = 0
        self._forget_commands()

    def activate(self) -> None:
        """Begin the first episode."""
        self._reset()
        if self.lockstep:
            self._timer = self.create_timer(ASK_AGAIN, self._ask_again, clock=steady())
        else:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
            self._thread.start()
        self.get_logger().info(f"robot {self.robot.name!r} on task {self._task!r}, {self._how()}")

    def deactivate(self) -> None:
        """Stop the physics."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None

    def _how(self) -> str:
        factor = float(self.values["real_time_factor"])
        how = str(self.values["mode"]) + (f", {factor:g} times as fast" if factor != 1 else "")
        return how + (f", sim parameters {self.values['sim_params']}" if self._sim_params else "")

    def cleanup(self) -> None:
        """Disconnect."""
        self._configured = False
        super().cleanup()

    def _publish_from(
        self, create: Callable[..., Any], kind: Any, topic: str, quality: Any
    ) -> Any:
        """Create a publisher that is destroyed with the configuration."""
        return self.made(create(kind, topic, quality), self.destroy_publisher)

    def _bound(self, interface: Interface) -> Interface:
        if self._bindings is None:
            return interface
        return bind(interface, self._bindings, self.values["bindings"])

    # Episodes -----------------------------------------------------------------------------

    def _find(self, task: str) -> tuple[TaskFamily, int]:
        wanted = TaskId.parse(task)
        if self._bundle is None:
            return find_task(wanted)
        return resolve_task(self._bundle, wanted)

    def _set_task(self, task: str) -> None:
        family, number = self._find(task)
        if family.name != self.world.family.name:
            self.world = World(self.robot, family, size=1, sim_params=self._sim_params)
        self._task, self._number = task, number

    def _forget_commands(self) -> None:
        self._received = self.world.command.copy()  # (1, A)
        self._new = True  # no physics step has applied it yet
        self._awaited = set(self._topics)  # of whose command the lockstep tick still waits
        self._unanswered = 0  # physics steps since the last command
        self._waited = False  # in vain for the next one

    def _reset(self) -> None:
        with self._lock:
            task = str(self.get_parameter("task").value)
            if task != self._task:
                self._set_task(task)
            self._episode, self._next_episode = self._next_episode, self._next_episode + 1
            seed = int(self.get_parameter("seed").value)
            rng = episode_rng(seed, self._episode)
            self.world.reset(np.zeros(1, np.int32), [self._number], [rng])
            self._forget_commands()
            self._started = self._done = False
            self._substep = 0
            if self.lockstep:  # sensors of before must not pass for those of the new episode
                self._moment += 1
        if self.lockstep:
            self._send_sensors(self._now_ns())

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._reset()
        except UserError as error:
            response.message = str(error)
            return response
        response.success = True
        response.message = f"episode {self._episode} of {self._task}"
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._paused = request.data
        response.success = True
        return response

    def _on_parameters(self, given: dict[str, Any]) -> None:
        if "task" not in given:
            return
        task = str(given["task"])
        family, _ = self._find(task)
        # The publishers stand: another set of terms needs another sim_node.
        if self._configured:
            there = self._bound(self.robot.interface.with_terms(family.terms))
            if there != self.interface:
                raise UserError(f"task {task!r} has other observation terms than {self._task!r}")

    def _after_parameters(self, changes: list[Any]) -> None:
        """After all parameters are accepted."""
        for change in changes:
            if change.name == "fault":
                self._fault = str(change.value)
            if change.name == "episode":
                self._next_episode = int(change.value)

    def _judge(self) -> None:
        """Publish the outcome of a simulated tick, and begin the next episode if it has ended."""
        fields, outcome = self.world.evaluate_step()
        if self.lockstep:
            self._moment += 1
        self._done = bool((outcome.terminated | outcome.truncated)[0])
        tick, reward = int(self.world.ticks[0]) - 1, float(outcome.reward[0])
        success = bool(self.world.success(fields)[0])
        if outcome.diverged[0]:
            episode = f"episode {self._episode} of {self._task}"
            self.get_logger().error(f"{episode}: the simulation diverged at tick {tick}")
        self._outcome.data = OUTCOME.pack(self._episode, tick, reward, success, self._done)
        self._outcome_publisher.publish(self._outcome)

    # Commands in, sensors out -------------------------------------------------------------

    def _on_command(self, writer: CommandWriter, message: Any) -> None:
        if self.lockstep:
            stamp = message.header.stamp
            if stamp.sec * 10**9 + stamp.nanosec != self._now_ns() or self._done or self._paused:
                return
        with self._lock:
            command = self._received.copy()
            writer.read(message, command[0])
            if text := violation(self.interface, command[0]):
                raise MessageError(f"{writer.topic}: {text}")
            self._received, self._started, self._new = command, True, True
            self._unanswered, self._waited = 0, False
            self._answer.set()
            self._awaited.discard(writer.topic)
            if not self.lockstep or self._awaited:
                return
            self._awaited = set(self._topics)
            self.world.command = command
            self.world.step_physics(command, self.interface.substeps)
            self._judge()
        if self._done and self.values["auto_reset"]:
            self._reset()
        elif not self._done:
            self._send_sensors(self._now_ns())

    def _now_ns(self) -> int:
        step = self.interface.control_dt if self.lockstep else self.interface.physics_dt
        return round(self._moment * step * 1e9)

    def _send_sensors(self, now: int) -> None:
        shown = self.world.measurements(self.world.true_state())
        fields = {name: value[0] for name, value in shown.items()}
        stamp = Time(nanoseconds=now).to_msg()
        first = True
        for publisher, make, reader in self._sensors:
            message = make()
            if hasattr(message, "header"):
                message.header.stamp = stamp
                message.header.frame_id = self._frames[reader.topic]
            reader.write(message, fields)
            if not first or inject_fault(self._fault, message, reader, now):
                publisher.publish(message)
            first = False
        if self.simulated and self.values["publish_clock"]:
            # The last: who ticks by it has the sensors of this moment.
            self._clock_publisher.publish(Clock(clock=stamp))

    def _ask_again(self) -> None:
        if not self._done and not self._paused:
            self._send_sensors(self._now_ns())

    def _run(self) -> None:
        try:
            self._simulate()
        except Exception as error:  # otherwise the thread would end without a word
            self.get_logger().error(f"the simulation has stopped: {one_line(error)}")

    def _simulate(self) -> None:
        """Run the physics against the clock, on an absolute time grid."""
        # Simulated time may as well pass a little later, and others need theirs to follow it.
        lost = self._period * self.interface.substeps if self.simulated else LOST
        due = steady_time()
        while not self._stop.is_set():
            due += self._period
            if not (self.simulated and self._paused):
                self._hold()
                self._go_on()
            delay = due - steady_time()
            if delay < -lost:
                due = steady_time()
            time.sleep(max(0.0, delay))

    def _hold(self) -> None:
        """Stop the simulated time while the next command is late on a busy machine.

        Only briefly and once: a sender that has stopped is not waited for.
        """
        if not self.simulated or self._waited:
            return
        with self._lock:
            late = self._unanswered > LATE * self.interface.substeps
            if not late or self._done or is_safe(self.interface, self._received[0]):
                return
            self._answer.clear()
        self._waited = not self._answer.wait(HOLD)

    def _go_on(self) -> None:
        """Run one physics step."""
        with self._lock:
            self._moment += 1
            self._unanswered += 1
            moves = self._started and not self._done and not self._paused
            if moves:
                self.world.command = self._received
                stuck = self._fault == "stuck"
                self.world.step_physics(
                    np.tile(self.interface.safe_command, (1, 1)) if stuck else self._received, 1
                )
                self._substep += 1
                if self._substep % self.interface.substeps == 0:
                    self._judge()
            now = self._now_ns() if self.simulated else self.get_clock().now().nanoseconds
            if moves and self._new:
                self._new = False
                applied, self._count = (self._count, self._moment, now * 1e-9), self._count + 1
                self._applied.data = self._applied_layout.pack(*applied, vectors=self._received)
                self._applied_publisher.publish(self._applied)
            self._send_sensors(now)
            again = self._done and bool(self.values["auto_reset"])
        if again:
            self._reset()
            self._started = True  # the controller is not restarted: time goes on


def main() -> NoReturn:
    """Entry point."""
    run(SimNode)


if __name__ == "__main__":
    main()
