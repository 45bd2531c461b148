"""watchdog_node: brings the robot to rest when skill_node dies, hangs or comes too late."""

from __future__ import annotations

import math
import sys
import threading
from functools import partial
from typing import Any

from std_msgs.msg import String
from std_srvs.srv import Trigger

from mlsh_ros.core.clock import PATIENCE
from mlsh_ros.core.conversion import CommandWriter, command_writers, shorten, stamp_of
from mlsh_ros.core.faults import FaultError
from mlsh_ros.core.watchdog import Watchdog
from mlsh_ros.nodes.clock import make_clock
from mlsh_ros.nodes.commander import Commander
from mlsh_ros.nodes.node import (
    LATCHED,
    SENSOR,
    CoreNode,
    message_type,
    one_line,
    run,
)
from mlsh_ros.params import WATCHDOG_NODE
from policies.bundle import load_bundle

WATCHDOG = "watchdog_node"
WATCHING, TRIPPED = "watching", "tripped"
# Of PATIENCE: skill_node comes first where time stands still, and brakes by itself.
SECOND = 2.0


class WatchdogNode(CoreNode):
    """Wiring: commands -> Watchdog -> braking commands.

    A process of its own, so that whatever stops skill_node does not stop it. It needs no
    heartbeat: the commands are one, and they are what keeps the robot moving.
    """

    def __init__(self) -> None:
        super().__init__(WATCHDOG, WATCHDOG_NODE)
        self._commander: Commander | None = None
        self._thread: threading.Thread | None = None
        self._news = threading.Condition()
        self._closing = False

    def configure(self) -> None:
        """Load the interface and connect."""
        interface = load_bundle(str(self.values["bundle"])).interface
        self.interface = interface
        dt = interface.control_dt
        self.watchdog = Watchdog(interface, float(self.values["patience"]) * dt)
        self.time, self._subscriptions_made = make_clock(
            self, self._news, patience=SECOND * PATIENCE
        )
        self._heard = self.time.steady()  # s of the system's clock, the newest command
        writers = command_writers(interface.action, stamped=bool(self.values["stamped_cmd_vel"]))
        self._state = self.create_publisher(String, "~/state", LATCHED)
        self._commander = Commander(self, writers, lifecycle=False)
        # Best effort: hears whoever sends, never waits for what is lost, holds nobody up.
        self._subscriptions_made += [
            self.listen(
                message_type(w.type), w.topic, partial(self._on_command, w), SENSOR, self._refuse
            )
            for w in writers
        ]
        self._service = self.create_service(Trigger, "~/reset", self._on_reset)

    def activate(self) -> None:
        """Begin to watch."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()
        self._tell(WATCHING)

    def deactivate(self) -> None:
        """Stop watching; a robot that is being braked is left at the safe command."""
        with self._news:
            self._closing = True
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def cleanup(self) -> None:
        """Disconnect."""
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self.destroy_service(self._service)
        self.destroy_publisher(self._state)
        if self._commander is not None:
            self._commander.destroy()
            self._commander = None

    def _on_command(self, writer: CommandWriter, message: Any) -> None:
        with self._news:
            command = self.watchdog.command.copy()
            writer.read(message, command)
            if self.watchdog.deadline is None:  # at rest until now
                self.time.begin()
            self.watchdog.hear(command, self.time.moment(stamp_of(message, writer.topic)))
            self._heard = self.time.steady()
            self._news.notify_all()

    def _refuse(self, text: str) -> None:
        """A command that cannot be read: nobody knows what the robot makes of it."""
        with self._news:
            self.watchdog.refuse(shorten(text))
            self._news.notify_all()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._news:
            response.success = bool(self.watchdog.cause)
            response.message = WATCHING if response.success else f"nothing to reset: {WATCHING}"
            self.watchdog.reset()
            self._tell(WATCHING)  # not later: it may be tripped again
            self._news.notify_all()
        return response

    def _run(self) -> None:
        try:
            while self._watch():
                self._brake()
        except Exception as error:  # otherwise the thread would end without a word
            self.get_logger().error(f"{WATCHDOG} has stopped watching: {one_line(error)}")
            self._tell(f"{TRIPPED}: {one_line(error)}")

    def _watch(self) -> bool:
        """Wait until a command stands too long; False: the node ends."""
        with self._news:
            while not self._closing and not self._expired():
                try:
                    self.time.wait(self._news, self.watchdog.deadline, self._heard)
                except FaultError as fault:  # a moving command in a time that stands still
                    self.watchdog.refuse(str(fault))
            return not self._closing

    def _expired(self) -> bool:
        """Whether the command has stood too long, and not because the machine was busy."""
        now = self.time.now() if self.time.fair(self._heard) else -math.inf
        return self.watchdog.check(now)

    def _brake(self) -> None:
        """Send the way to the safe command and then the safe command, until reset."""
        self._send()
        with self._news:
            turn = self.watchdog.resets
            if self.watchdog.cause:
                self._tell(f"{TRIPPED}: {self.watchdog.cause}")
        while self._wait_a_tick(turn):
            self._send()

    def _wait_a_tick(self, turn: int) -> bool:
        """Wait a tick; False: the node ends, or somebody has reset it, tripped again or not."""
        return not self.time.pause(
            self.interface.control_dt,
            self._news,
            lambda: self._closing or not self.watchdog.cause or self.watchdog.resets != turn,
        )

    def _send(self) -> None:
        assert self._commander is not None
        with self._news:
            if self.watchdog.cause:
                command = self.watchdog.brake()
                self._commander.send(command, self.get_clock().now().nanoseconds)

    def _tell(self, text: str) -> None:
        self._state.publish(String(data=text))
        if text.startswith(TRIPPED):
            self.get_logger().error(text)


def main() -> None:
    """Entry point."""
    sys.exit(run(WatchdogNode))


if __name__ == "__main__":
    main()
