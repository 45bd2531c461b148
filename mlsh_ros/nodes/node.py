"""What the nodes share: QoS, life, and death.

Every node runs its callbacks in one EventsExecutor thread; the main thread waits for a signal, so
that SIGINT and SIGTERM are noticed at once and the node can still publish while it goes down.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from mlsh_ros.core import messages
from mlsh_ros.core.conversion import MessageError
from mlsh_ros.core.packing import Layout
from mlsh_ros.params import Param, Value, declare
from sim.errors import UserError

# Commands must arrive, the newest only. Sensors match any publisher, the newest only.
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
EXCHANGE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
TRACE = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
# For ever: a spin without a time limit does not dispatch anything in some builds of rclpy 7.1.
FOREVER = 1e6

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE


class CoreNode(LifecycleNode):  # type: ignore[misc]
    """A lifecycle node whose faults of input are one line in the log, not a traceback."""

    def __init__(self, name: str, params: Sequence[Param]) -> None:
        super().__init__(name)
        self.values: dict[str, Value] = declare(self, params)

    def configure(self) -> None:
        """Load and connect. Faults of input raise UserError."""

    def activate(self) -> None:
        """Begin to work."""

    def deactivate(self) -> None:
        """Stop working; must leave the robot safe."""

    def cleanup(self) -> None:
        """Undo `configure`."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        return self._guard(self.configure, "configure")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        if super().on_activate(state) != SUCCESS:
            return FAILURE
        return self._guard(self.activate, "activate")

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback; the safe command goes out before the publishers close."""
        done = self._guard(self.deactivate, "deactivate")
        super().on_deactivate(state)
        return done

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        return self._guard(self.cleanup, "cleanup")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        return self._guard(self.deactivate, "shutdown")

    def _guard(self, action: Callable[[], None], what: str) -> TransitionCallbackReturn:
        try:
            action()
        except UserError as error:
            self.get_logger().error(f"{what}: {error}")
            return FAILURE
        except Exception as error:  # rclpy would swallow it without a word
            self.get_logger().error(f"{what}: {one_line(error)}")
            return FAILURE
        return SUCCESS

    def listen(
        self,
        kind: Any,
        topic: str,
        use: Callable[[Any], None],
        quality: QoSProfile,
        refuse: Callable[[str], None],
    ) -> Any:
        """Subscribe to a topic, on which anybody may say anything.

        Bytes that are not of the type, and messages that `use` cannot use, are refused. Taken as
        they are: an exception in the executor would name no topic, and leave messages behind.

        Args:
            kind: message class.
            topic: its name.
            use: takes a message; raises MessageError if it does not hold.
            quality: of service.
            refuse: told, in one line that begins with the topic.
        """

        def receive(data: bytes) -> None:
            try:
                use(decoded(data, kind, topic))
            except MessageError as error:
                refuse(str(error))
            except Exception as error:
                refuse(f"{topic}: {one_line(error)}")

        return self.create_subscription(kind, topic, receive, quality, raw=True)

    def trigger(self, name: str) -> bool:
        """Make a transition of this node from inside; says whether it succeeded."""
        return bool(getattr(self, f"trigger_{name}")() == SUCCESS)


def message_type(name: str) -> Any:
    """`nav_msgs/msg/Odometry` to its class.

    Raises:
        UserError: the package or message is not installed.
    """
    if (found := messages.message_type(name)) is None:
        raise UserError(f"ROS message {name!r} is not installed")
    return found.make


def decoded(data: bytes, kind: Any, topic: str) -> Any:
    """CDR as a message.

    Raises:
        MessageError: the bytes are not of this type.
    """
    try:
        return deserialize_message(data, kind)
    except Exception:  # of rclpy, or of whatever the bytes drive it to
        raise MessageError(f"{topic}: {len(data)} bytes are not a {kind.__name__}") from None


def array_message(layout: Layout) -> Any:
    """An empty Float64MultiArray whose label names the elements of `layout`."""
    from std_msgs.msg import Float64MultiArray, MultiArrayDimension

    message = Float64MultiArray()
    size = len(layout.names)
    message.layout.dim = [MultiArrayDimension(label=layout.label, size=size, stride=size)]
    return message


def run(make: Callable[[], CoreNode], args: Sequence[str] | None = None) -> int:
    """Run a node until SIGINT, SIGTERM or the end of the context; returns the exit status."""
    # Not an Event: its lock could be held by the very thread that the handler interrupts.
    stop: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stop.put(number))
    try:
        # rclpy's own handlers would end the context before the safe command could go out.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy raises its C++ errors without a common base class
        sys.stderr.write(f"error: ROS could not be initialised: {one_line(error)}\n")
        return 1
    node: CoreNode | None = None
    status = 0
    try:
        node = make()
        status = _spin(node, stop)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        status = 1
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return status


def _spin(node: CoreNode, stop: SimpleQueue[int]) -> int:
    from rclpy.experimental.events_executor import EventsExecutor

    executor = EventsExecutor()
    executor.add_node(node)
    done = Future()

    def spin() -> None:
        # An illegal transition asked for by service raises out of spin: log it and go on.
        while not done.done():
            try:
                executor.spin_until_future_complete(done, timeout_sec=FOREVER)
            except ExternalShutdownException:
                return
            except Exception as error:
                node.get_logger().error(f"callback failed: {one_line(error)}")

    if node.values["autostart"] and not (node.trigger("configure") and node.trigger("activate")):
        return 1
    thread = threading.Thread(target=spin, name="executor", daemon=True)
    thread.start()
    status = 0
    while stop.empty():
        if not rclpy.ok() or not thread.is_alive():
            node.get_logger().error("ROS has ended")
            status = 1
            break
        with suppress(Empty):
            stop.get(timeout=0.2)
            break
    try:
        node.deactivate()
    finally:
        done.set_result(None)
        executor.wake()
        thread.join(timeout=2.0)
        executor.shutdown()
    return status


def one_line(error: Exception) -> str:
    """An error that nobody expected, as one line of the log."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
