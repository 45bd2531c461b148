"""The base of all nodes: QoS profiles, lifecycle, parameters, and process exit.

Every node runs its callbacks in one EventsExecutor thread; the main thread waits for a signal, so
that SIGINT, SIGTERM, SIGHUP and SIGQUIT are noticed at once and the node can still publish while
it goes down. A node that a launch file has started ends with its launcher, however that ends.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from mlsh_ros.bringup.network import LAUNCHER, why_not_localhost
from mlsh_ros.bringup.params import Param, Value, declare
from mlsh_ros.control.clock import steady_time
from mlsh_ros.messages import message_types as messages
from mlsh_ros.messages.conversion import MessageError, shorten
from mlsh_ros.messages.labeled_array import Layout
from mlsh_ros.nodes.output import detach_output
from sim.errors import UserError

# Streams: what counts is the newest. Commands must arrive; sensors match any publisher.
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# Events: each counts, and who asks gets an answer or asks again.
EXCHANGE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
TRACE = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
# States: the last one is delivered to those who join later, too.
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
# For ever: a spin without a time limit does not dispatch anything in some builds of rclpy 7.1.
FOREVER = 1e6
# rclpy waits for the disk of its log files, with the lock of the interpreter: where the disk
# stands still, so would every thread, also the one that brakes. Launchers keep what nodes print.
NO_LOG_FILES = ("--ros-args", "--disable-external-lib-logs")
# s that a node may take to let go of ROS when its robot is at rest; then its process ends anyway,
# by SIGALRM, and says where its threads stood. With WORDS, DELIVERY and skill_node's wait for its
# last command to arrive that is 5.4 s, less than what launch grants before SIGKILL.
RELEASE = 4.0
WORDS = 0.2  # s after that, in which it says where its threads stood
DELIVERY = 1.0  # s in which listeners may still fetch what a node that ends has said

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE
ENDINGS = (signal.SIGINT, signal.SIGTERM)
# A terminal is lost, or suspends what runs in it (Ctrl-Z): heard unless ignored, as under nohup.
LOST_TERMINAL = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
BACKGROUND = (signal.SIGTTIN, signal.SIGTTOU)  # would stand a node that is in the background


class CoreNode(LifecycleNode):  # type: ignore[misc]
    """A lifecycle node that logs invalid input as one line, without a traceback."""

    def __init__(self, name: str, params: Sequence[Param]) -> None:
        try:
            super().__init__(name)
        except ParameterException as error:  # of one that rclpy itself declares
            raise UserError(f"parameter: {one_line(error)}") from None
        self.values: dict[str, Value] = declare(self, params)
        self.check_changes(_refuse_another_clock)
        self._undo: list[Callable[[], object]] = []
        self.ending = False  # nobody brings it to work any more

    def configure(self) -> None:
        """Load and connect. Invalid input raises UserError."""

    def check_changes(self, check: Callable[[dict[str, Any]], None]) -> None:
        """Call `check` with the changed parameters by name; UserError refuses the change."""

        def callback(changes: Sequence[Any]) -> SetParametersResult:
            try:
                check({change.name: change.value for change in changes})
            except UserError as error:
                return SetParametersResult(successful=False, reason=str(error))
            return SetParametersResult(successful=True)

        self.add_on_set_parameters_callback(callback)

    def warn_refused(self, text: str) -> None:
        """Log a refused message."""
        self.get_logger().warning(f"refused: {shorten(text)}", throttle_duration_sec=1.0)

    def made(self, thing: Any, destroy: Callable[[Any], object]) -> Any:
        """Register how an object made by `configure` is destroyed; returns the object."""
        self._undo.append(lambda: destroy(thing))
        return thing

    def activate(self) -> None:
        """Start working."""

    def deactivate(self) -> None:
        """Stop working; must leave the robot safe."""

    def cleanup(self) -> None:
        """Undo `configure`, even if it failed half-way; the newest object first."""
        while self._undo:
            self._undo.pop()()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback; a failure leaves no objects behind."""
        done = self._guard(self.configure, "configure")
        if done != SUCCESS:
            self._guard(self.cleanup, "cleanup")
        return done

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback; after a failure the node is inactive."""
        if self.ending:
            self.get_logger().error("cannot activate: the process ends")
            return FAILURE
        if super().on_activate(state) != SUCCESS:
            return FAILURE
        done = self._guard(self.activate, "activate")
        if done != SUCCESS:
            self._guard(self.deactivate, "deactivate")
            super().on_deactivate(state)
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback; the safe command is sent before the publishers close."""
        done = self._guard(self.deactivate, "deactivate")
        super().on_deactivate(state)
        return done

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        return self._guard(self.cleanup, "cleanup")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback; a finalized node has no services and sends nothing."""
        self.on_deactivate(state)
        return self._guard(self.cleanup, "shutdown")

    def end(self) -> bool:
        """Leave the robot safe at the end of the process, if possible, in any state."""
        return bool(self._guard(self.deactivate, "end") == SUCCESS)

    def release(self) -> None:
        """Release everything when no executor runs any more."""
        self._guard(self.cleanup, "cleanup")

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
        """Subscribe to a topic with unchecked content.

        Bytes that are not of the type, and messages that `use` cannot use, are refused. Subscribed
        as raw bytes: an exception in the executor would name no topic, and leave messages behind.

        Args:
            kind: message class.
            topic: its name.
            use: handles a message; raises MessageError if it is invalid.
            quality: of service.
            refuse: called with one line that begins with the topic.
        """
        receive = receiver(kind, topic, use, refuse)
        return self.create_subscription(kind, topic, receive, quality, raw=True)

    def publisher_count(self, topic: str) -> int:
        """Number of publishers of a topic, after remapping, which rclpy's own count leaves out."""
        return int(self.count_publishers(self.resolve_topic_name(topic)))

    def trigger(self, name: str) -> bool:
        """Trigger a transition of this node; True if it succeeded."""
        return bool(getattr(self, f"trigger_{name}")() == SUCCESS)


def _refuse_another_clock(given: dict[str, Any]) -> None:
    """Refuse a change of the clock: ticks, ages and stamps use the initial one."""
    if "use_sim_time" in given:
        raise UserError("use_sim_time: read when the node starts, not changed after")


def message_type(name: str) -> Any:
    """Returns the class of `nav_msgs/msg/Odometry`.

    Raises:
        UserError: the package or message is not installed.
    """
    if (found := messages.message_type(name)) is None:
        raise UserError(f"ROS message {name!r} is not installed")
    return found.make


def receiver(
    kind: Any, topic: str, use: Callable[[Any], None], refuse: Callable[[str], None]
) -> Callable[[bytes], None]:
    """Returns a function that handles a topic's bytes; see `CoreNode.listen`."""

    def receive(data: bytes) -> None:
        try:
            use(decoded(data, kind, topic))
        except MessageError as error:
            refuse(str(error))
        except Exception as error:
            refuse(f"{topic}: {one_line(error)}")

    return receive


def decoded(data: bytes, kind: Any, topic: str) -> Any:
    """Deserialize a message from CDR.

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


def run(make: Callable[[], CoreNode], args: Sequence[str] | None = None) -> NoReturn:
    """Run a node until a signal, its launcher's or the context's end; then end the process.

    The node has released all that it had. Python's own end, and that of the libraries, would take
    a second of computing time, or hang.
    """
    end_of_output = detach_output()
    status = 1
    try:
        status = _run(make, args)
    except Exception:
        traceback.print_exc()
    finally:
        end_of_output()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


def _run(make: Callable[[], CoreNode], args: Sequence[str] | None) -> int:
    # Not an Event: its lock could be held by the very thread that the handler interrupts.
    stop: SimpleQueue[int] = SimpleQueue()
    heard = [n for n in LOST_TERMINAL if signal.getsignal(n) is not signal.SIG_IGN]
    for number in (*ENDINGS, *heard):
        signal.signal(number, lambda number, _: stop.put(number))
    for number in BACKGROUND:
        signal.signal(number, signal.SIG_IGN)
    if reason := why_not_localhost(os.environ, rclpy.get_rmw_implementation_identifier()):
        sys.stderr.write(f"error: {reason}\n")
        return 1
    try:
        # rclpy's own handlers would end the context before the safe command could go out.
        given = sys.argv if args is None else args
        rclpy.init(args=[*given, *NO_LOG_FILES], signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy raises its C++ errors without a common base class
        sys.stderr.write(f"error: ROS could not be initialized: {one_line(error)}\n")
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
            node.release()
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
    alone = _orphaned()
    while stop.empty():
        if alone():
            node.get_logger().error("the launcher has ended; this node ends with it")
            status = 1
            break
        if not rclpy.ok() or not thread.is_alive():
            node.get_logger().error("ROS has ended")
            status = 1
            break
        with suppress(Empty):
            stop.get(timeout=0.2)
            break
    node.ending = True
    try:
        if not node.end():
            status = 1
        _deliver(node)
    finally:
        # Neither needs a lock of Python's, and the second no reader of our words.
        faulthandler.dump_traceback_later(RELEASE)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, RELEASE + WORDS)
        done.set_result(None)
        executor.wake()
        thread.join(timeout=2.0)
        executor.shutdown()
    return status


def _deliver(node: CoreNode) -> None:
    """Wait briefly until reliable subscribers have received all messages."""
    until = steady_time() + DELIVERY
    for publisher in node.publishers:
        left = max(until - steady_time(), 0.0)
        with suppress(Exception):  # it is a courtesy, and the node ends
            publisher.wait_for_all_acked(Duration(seconds=left))


def _orphaned() -> Callable[[], bool]:
    """Returns a function that is True once the launcher of this node has ended.

    A launcher that is killed, or whose terminal is lost, sends its nodes no signal; their parent
    process changes then.
    """
    launcher, parent = os.environ.get(LAUNCHER, ""), os.getppid()
    if not launcher.isdigit():
        return lambda: False
    return lambda: os.getppid() != parent or not _runs(int(launcher))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def one_line(error: Exception) -> str:
    """Formats an unexpected error as one line of the log."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
