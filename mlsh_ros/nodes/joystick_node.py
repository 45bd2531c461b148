"""joystick_node: arms, starts and stops the robot by a joystick, and chooses the master.

It is a panel of the emergency stop: it says all the time whether a stop is requested, so that
skill_node notices its end, too.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from mlsh_ros.bringup.params import JOYSTICK_NODE
from mlsh_ros.control.clock import steady_time
from mlsh_ros.control.emergency_stop import TOPIC as ESTOP
from mlsh_ros.control.joystick import PROFILES, SERVICES, Asked, Joystick
from mlsh_ros.control.supervisor import State
from mlsh_ros.messages.conversion import MessageError
from mlsh_ros.messages.topics import MASTER, WATCHDOG_STATE
from mlsh_ros.messages.topics import STATE as STATE_TOPIC
from mlsh_ros.nodes.clock import steady
from mlsh_ros.nodes.node import EXCHANGE, LATCHED, CoreNode, message_type, run
from mlsh_ros.nodes.watchdog_node import TRIPPED
from policies.bundle.bundle import load_bundle
from sim.errors import UserError

TOPIC, KIND = "joy", "sensor_msgs/msg/Joy"
# Every press counts, also of a driver that is best effort.
PRESSES = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
LOOK = 0.02  # s between two looks at the time
WORD = 0.05  # s between two words of the emergency stop
HEARD = 0.3  # s after which those who listen know that the emergency stop is released
OVERDUE = 1.0  # s after which nobody expects a reset any more


class JoystickNode(CoreNode):
    """Wiring: joy -> services of skill_node, emergency stop, master of master_node."""

    def __init__(self) -> None:
        super().__init__("joystick_node", JOYSTICK_NODE)
        self._own_timers: list[Any] = []

    def configure(self) -> None:
        """Connect."""
        bundle = str(self.values["bundle"])
        self._masters = [*load_bundle(bundle).manifest.masters] if bundle else []
        buttons = PROFILES[str(self.values["joystick_profile"])]
        self.joystick = Joystick(buttons, float(self.values["joystick_max_age"]))
        self._driver: State | None = None
        self._master, self._said, self._reset_at = "", "", 0.0
        self._stops = self.made(
            self.create_publisher(Bool, ESTOP, EXCHANGE), self.destroy_publisher
        )
        self._own = {
            name: self.made(self.create_client(Trigger, f"skill_node/{name}"), self.destroy_client)
            for name in SERVICES
        }
        self._watchdog = self.made(
            self.create_client(Trigger, "watchdog_node/reset"), self.destroy_client
        )
        self._set_master = self.made(
            self.create_client(SetParameters, "master_node/set_parameters"), self.destroy_client
        )
        self._tripped = False
        for kind, topic, use, quality in (
            (message_type(KIND), TOPIC, self._on_joy, PRESSES),
            (String, STATE_TOPIC, self._on_state, LATCHED),
            (String, WATCHDOG_STATE, self._on_watchdog, LATCHED),
            (String, MASTER, self._on_master, LATCHED),
        ):
            heard = self.listen(kind, topic, use, quality, self.warn_refused)
            self.made(heard, self.destroy_subscription)

    def activate(self) -> None:
        """Begin to say whether a stop is requested."""
        self._own_timers = [
            self.create_timer(LOOK, self._look, clock=steady()),
            self.create_timer(WORD, self._tell, clock=steady()),
        ]
        self._tell()
        self.get_logger().info(f"buttons: {self._described()}")

    def deactivate(self) -> None:
        """Say nothing any more: skill_node stops a robot that moves."""
        for timer in self._own_timers:
            self.destroy_timer(timer)
        self._own_timers, self._reset_at = [], 0.0

    def _described(self) -> str:
        buttons = PROFILES[str(self.values["joystick_profile"])].by_name
        return ", ".join(f"{name} {number}" for name, number in buttons.items())

    # What is heard ---------------------------------------------------------------------------

    def _on_joy(self, message: Any) -> None:
        if self.publisher_count(TOPIC) > 1:
            raise MessageError(
                f"{self.resolve_topic_name(TOPIC)}: several nodes publish it; end all but one (a "
                "killed one is known for up to 20 s)"
            )
        try:
            asked = self.joystick.hear(message.buttons, steady_time())
        except UserError as error:
            raise MessageError(f"{TOPIC}: {error}") from None
        if self._own_timers:
            self._follow(asked)

    def _on_state(self, message: String) -> None:
        word = message.data.partition(":")[0]
        self._driver = State(word) if word in {each.value for each in State} else None

    def _on_watchdog(self, message: String) -> None:
        self._tripped = message.data.startswith(TRIPPED)

    def _on_master(self, message: String) -> None:
        self._master = message.data

    # What is asked for -----------------------------------------------------------------------

    def _look(self) -> None:
        now = steady_time()
        self._follow(self.joystick.look(now, self._driver))
        if self._reset_at and now >= self._reset_at:
            expected = now < self._reset_at + OVERDUE
            self._reset_at = 0.0
            if expected:
                self._ask(self._own["reset"], "reset")

    def _tell(self) -> None:
        why = self.joystick.stop_requested(steady_time())
        if why != self._said:
            self._said = why
            log = self.get_logger()
            place = f" ({self.resolve_topic_name(TOPIC)})" if why else ""
            told = f"stop: {why}{place}" if why else "no stop is requested"
            (log.warning if why else log.info)(told)
        self._stops.publish(Bool(data=bool(why)))

    def _follow(self, asked: Asked) -> None:
        for note in asked.notes:
            self.get_logger().warning(note)
        for request in asked.requests:
            if request == "next_master":
                self._choose_next()
            elif request == "reset":
                self._reset()
            else:
                self._ask(self._own[request], request)
        if asked.requests or self.joystick.stop_requested(steady_time()) != self._said:
            self._tell()

    def _reset(self) -> None:
        """Reset watchdog_node and skill_node, when they know that no stop is requested."""
        if self._tripped:
            self._ask(self._watchdog, "watchdog_node/reset")
        self._reset_at = steady_time() + HEARD

    def _choose_next(self) -> None:
        if not self._masters:
            self.get_logger().warning("next_master: parameter bundle names no masters")
            return
        at = self._masters.index(self._master) + 1 if self._master in self._masters else 0
        name = self._masters[at % len(self._masters)]
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=name)
        request = SetParameters.Request(parameters=[Parameter(name="master", value=value)])
        self._ask(self._set_master, f"master {name!r}", request)

    def _ask(self, client: Any, what: str, request: Any = None) -> None:
        if not client.service_is_ready():
            self.get_logger().error(f"{what}: {client.srv_name} is not there")
            return
        future = client.call_async(Trigger.Request() if request is None else request)
        future.add_done_callback(partial(self._on_answer, what))

    def _on_answer(self, what: str, future: Any) -> None:
        if (answer := future.result()) is None:
            return  # the client was destroyed
        results = getattr(answer, "results", None)
        done = answer.success if results is None else all(each.successful for each in results)
        said = answer.message if results is None else "; ".join(each.reason for each in results)
        log = self.get_logger()
        if done:
            log.info(f"{what}: {said or 'done'}")
        elif what == "stop" and self._driver is not State.RUNNING:
            log.debug(f"{what}: {said}")  # of a robot that was only about to start
        else:
            log.warning(f"{what}: {said}")


def main() -> NoReturn:
    """Entry point."""
    run(JoystickNode)


if __name__ == "__main__":
    main()
