"""Receives the emergency stop and the watchdog's heartbeat in a thread of its own."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import get_rmw_implementation_identifier
from std_msgs.msg import Bool

from mlsh_ros.control.clock import steady_time
from mlsh_ros.control.emergency_stop import NOBODY, TOPIC, EmergencyStop, Publisher
from mlsh_ros.control.faults import FaultError
from mlsh_ros.messages.conversion import MessageError
from mlsh_ros.nodes.inputs import side_node
from mlsh_ros.nodes.node import one_line, receiver

POLL = 0.01  # s between two looks for messages
GAP = 0.2  # s without a look, after which what has been heard is not the newest any more
DEAF = 0.5  # s without a look, after which the thread counts as stuck
GRAPH = 0.25  # s between two looks at who publishes what
_DEPTH = 1000  # words of a panel that may come between two looks
# A publisher matches if it offers what is asked for. The first hears every publisher; the second
# asks a reliable one for lost words again; the third is given the last word of a latched one that
# was said before we joined.
_ESTOP = [
    QoSProfile(depth=_DEPTH, reliability=reliability, durability=durability)
    for reliability, durability in (
        (ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE),
        (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE),
        (ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL),
    )
]


class SafetyListener:
    """A separate node without executor, whose messages are taken by its own thread.

    Work that keeps the executor of `owner` busy, such as a service that brakes or the loading of a
    bundle, cannot delay its messages.

    Args:
        owner: the node that it receives for; topics are named and remapped as there.
        estop: updated with every message of a panel.
        on_estop: called with the fault whenever a panel requests a stop, whatever followed.
        on_poll: called after every poll for messages.
        on_look: called after every check of the graph.
        on_failure: called with the reason when the thread cannot continue.
        refuse: called with one line that begins with the topic, for bytes that are not a message.
    """

    def __init__(
        self,
        owner: Node,
        estop: EmergencyStop,
        *,
        on_estop: Callable[[FaultError], None],
        on_poll: Callable[[], None] = lambda: None,
        on_look: Callable[[], None] = lambda: None,
        on_failure: Callable[[str], None],
        refuse: Callable[[str], None],
    ) -> None:
        self._owner, self._estop = owner, estop
        self._on_estop, self._on_poll, self._on_look = on_estop, on_poll, on_look
        self._on_failure, self._refuse = on_failure, refuse
        self.node = side_node(owner, "safety")
        self._topic = owner.resolve_topic_name(TOPIC)
        self._panels = [self._listen(Bool, self._topic, quality) for quality in _ESTOP]
        self._take_word = word_taker()
        self._others: list[tuple[Any, Any, Callable[[bytes], None]]] = []
        self._closing = threading.Event()
        self.began = self.alive = steady_time()  # s, when its thread last looked
        self._since = self.began
        self._silent = self.began, self.began  # s, its last look, and when that was seen to be old
        self.polled = self.began  # s; every message that had come by then has been handled
        self._thread = threading.Thread(target=self._run, name="safety", daemon=True)

    def listen(
        self,
        kind: Any,
        topic: str,
        use: Callable[[Any], None],
        quality: QoSProfile,
        refuse: Callable[[str], None],
    ) -> None:
        """Receive another topic in the same thread, see `CoreNode.listen`; call before `start`."""
        subscription = self._listen(kind, self._owner.resolve_topic_name(topic), quality)
        self._others.append((subscription, kind, receiver(kind, topic, use, refuse)))

    def newest(
        self, kind: Any, topic: str, quality: QoSProfile
    ) -> Callable[[], tuple[bytes | None, float]]:
        """Returns a function for the newest bytes of a topic, and when they were received.

        The bytes are None if there is nothing new; the time is in s, by the system's clock. Has
        no cost while it is not called.
        """
        subscription = self._listen(kind, self._owner.resolve_topic_name(topic), quality)

        def take() -> tuple[bytes | None, float]:
            taken = subscription.handle.take_message(kind, True)
            if taken is None:
                return None, 0.0
            return bytes(taken[0]), taken[1]["received_timestamp"] * 1e-9

        return take

    @property
    def since(self) -> float:
        """Time since which messages were received without a pause of the process, s."""
        if self.stuck():
            return self._since  # the process runs, so that this thread is not excused
        now = steady_time()
        return now if now - self.alive > GAP else self._since

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def deaf(self) -> str:
        """Returns the reason that no emergency stop would be heard now; empty if there is none."""
        silence = steady_time() - self.alive
        return f"the emergency stop topic was not read for {silence:.2f} s" * (silence > DEAF)

    def stuck(self) -> str:
        """Returns the reason that the thread does not look any more; empty if there is none.

        After a pause of the process it is given the time to look.
        """
        now, alive = steady_time(), self.alive
        if now - alive <= GAP:
            return ""
        if self._silent[0] != alive:
            self._silent = alive, now
        return self.deaf() if now - self._silent[1] > DEAF else ""

    def catch_up(self) -> str:
        """Wait until all that has come by now is handled; returns why that is not so, or ""."""
        called = steady_time()
        while self.polled < called:
            if steady_time() - called > DEAF:
                return self.deaf() or "the emergency stop topic is read too late"
            time.sleep(POLL)
        return ""

    def destroy(self) -> None:
        """Stop the thread and destroy the node."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self.node.destroy_node()

    def _listen(self, kind: Any, topic: str, quality: QoSProfile) -> Any:
        return self.node.create_subscription(kind, topic, lambda _: None, quality)

    def _run(self) -> None:
        look = 0.0
        try:
            while not self._closing.wait(POLL):
                now = steady_time()
                if now - self.alive > GAP:
                    self._since = now
                self.alive = now
                if now >= look:
                    look = now + GRAPH
                    self._look()
                # A look takes long on a busy machine: what comes meanwhile is not as old as it.
                self._poll(steady_time())
                self._on_poll()
        except Exception as error:  # the thread would end without a word
            self._on_failure(f"the safety listener has ended: {one_line(error)}")

    def _poll(self, now: float) -> None:
        for subscription in self._panels:
            for _ in range(_DEPTH):  # limited, so that a flood of messages cannot block the loop
                try:
                    word = self._take_word(subscription)
                except MessageError as error:
                    self._refuse(str(error))
                    continue
                if word is None:
                    break
                panel, pressed, number = word
                if self._estop.hear(panel, pressed, now, number):
                    if not self._estop.knows(panel):
                        self._find_panels()  # so that the fault can name it
                    self._on_estop(self._estop.requested(panel))
        for subscription, kind, receive in self._others:
            for _ in range(_DEPTH):
                taken = subscription.handle.take_message(kind, True)
                if taken is None:
                    break
                receive(taken[0])
        self.polled = now

    def _look(self) -> None:
        """Check the present publishers."""
        self._find_panels()
        self._on_look()

    def _find_panels(self) -> None:
        self._estop.publishers(
            {
                bytes(info.endpoint_gid[: GidInfo.SIZE]): Publisher(
                    f"{info.node_namespace.rstrip('/')}/{info.node_name}",
                    info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
                    info.topic_type,
                )
                for info in self.node.get_publishers_info_by_topic(self._topic)
            },
            steady_time(),
        )


class GidInfo(ctypes.Structure):
    """rmw_message_info_t of rmw/types.h, with space for later members."""

    SIZE = 16  # bytes of RMW_GID_STORAGE_SIZE
    _fields_ = (
        ("source_timestamp", ctypes.c_int64),
        ("received_timestamp", ctypes.c_int64),
        ("publication_sequence_number", ctypes.c_uint64),
        ("reception_sequence_number", ctypes.c_uint64),
        ("implementation_identifier", ctypes.c_char_p),
        ("publisher_gid", ctypes.c_uint8 * SIZE),
        ("later", ctypes.c_uint8 * 128),
    )


NOTHING_THERE = 401  # RCL_RET_SUBSCRIPTION_TAKE_FAILED
TRACEABLE = "rmw_fastrtps"
Word = tuple[bytes, bool, int]  # whose, pressed, the number of the message


def word_taker() -> Callable[[Any], Word | None]:
    """Returns a function that takes the next std_msgs/Bool of a subscription and its publisher.

    rclpy does not report the publisher of a message, rcl does. If rcl cannot be loaded, the
    publisher is NOBODY, which `EmergencyStop` treats more strictly; and with middleware that does
    not name it as the ROS graph does (https://github.com/ros2/rmw_cyclonedds/issues/377).
    """
    if not get_rmw_implementation_identifier().startswith(TRACEABLE):
        return _anonymous
    try:
        take = ctypes.CDLL("librcl.so").rcl_take
        reset_error = ctypes.CDLL("librcutils.so").rcutils_reset_error
    except (OSError, AttributeError):
        return _anonymous
    take.argtypes, take.restype = [ctypes.c_void_p] * 4, ctypes.c_int

    def word(subscription: Any) -> Word | None:
        pressed, info = ctypes.c_bool(), GidInfo()  # std_msgs/Bool is one bool in C
        with subscription.handle:
            status = take(
                subscription.handle.pointer, ctypes.byref(pressed), ctypes.byref(info), None
            )
        if status == NOTHING_THERE:
            return None
        if status != 0:
            reset_error()
            raise MessageError(f"{TOPIC}: a message is not a Bool")
        number = info.publication_sequence_number
        return bytes(info.publisher_gid), pressed.value, number if number < 2**63 else 0

    return word


def _anonymous(subscription: Any) -> Word | None:
    taken = subscription.handle.take_message(Bool, False)
    return None if taken is None else (NOBODY, bool(taken[0].data), 0)
