"""recorder_node: records the topics of all nodes to an MCAP file."""

from __future__ import annotations

import json
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from mlsh_ros.bringup.graphs import RECORDER
from mlsh_ros.bringup.params import RECORDER_NODE
from mlsh_ros.control.clock import steady_time
from mlsh_ros.messages.conversion import command_writers, topic_readers
from mlsh_ros.messages.topics import (
    MASTER,
    OUTCOME,
    QUEUE,
    RECORDING,
    REQUEST,
    RESPONSE,
    STATE,
    TRACE,
    WAITING,
    Topic,
    recorded_topics,
)
from mlsh_ros.nodes.clock import steady
from mlsh_ros.nodes.node import LATCHED, CoreNode, message_type, one_line, run
from mlsh_ros.recording.completeness import Completeness
from mlsh_ros.recording.output_folder import check_place, default_folder
from policies.bundle.bound_bundle import load_bound
from policies.bundle.manifest import MANIFEST
from sim.errors import UserError
from sim.interface.bindings import read_bindings

if TYPE_CHECKING:
    from mlsh_ros.recording.bag_writer import Recorder

# s that a recorder which is told to end waits, by the state of skill_node, which may have been
# told at the same time: to begin to stop, for its last command, for its last word.
PATIENCE = {"running": 1.0, "stopping": 3.5, "ready": 0.5}
QUIET = 0.3  # s in which a node that has stopped says nothing more of what it did
LATE = 5  # times between two looks from which on this node was held up
# s in which DDS fetches what was lost meanwhile: a silent writer says what there is every 3 s.
REPAIR = 3.5
TOLD = (TRACE, REQUEST, RESPONSE, OUTCOME)
DRAIN = 1.5  # s in which what has been received has to be written at the end
LOOK = 0.1  # s between two looks at who is heard, and two words of its own state
# What it says of itself beside WAITING and RECORDING.
FAULT, ENDING, ENDED = "fault", "ending", "ended"


class RecorderNode(CoreNode):
    """Wiring: raw subscriptions -> Recorder."""

    def __init__(self) -> None:
        super().__init__("recorder_node", RECORDER_NODE)
        # The other nodes are started when it listens: there is nobody yet who could tell it to.
        self.values = {**self.values, "autostart": True}
        self._recorder: Recorder | None = None
        self._subscriptions_made: dict[str, Any] = {}  # by topic
        self._own_timers: list[Any] = []
        self._driver = ""  # state of skill_node
        self._own_state = ""
        self._saying = threading.Lock()  # guards it and its publisher
        self._publisher: Any = None  # of it

    def configure(self) -> None:
        """Open the file and subscribe."""
        folder = Path(str(self.values["record_dir"]) or default_folder())
        check_place(folder)  # before what it needs is imported
        from mlsh_ros.recording.bag_writer import Recorder

        bundle = load_bound(str(self.values["bundle"]), str(self.values["bindings"]))
        stamped, mode = bool(self.values["enable_stamped_cmd_vel"]), str(self.values["mode"])
        topics = recorded_topics(bundle.interface, stamped=stamped, lockstep=mode == "lockstep")
        types = [message_type(topic.type) for topic in topics]
        names = [(self.resolve_topic_name(topic.name), topic) for topic in topics]
        about = {
            "bundle": bundle.manifest.name,
            "digest": bundle.manifest.digest,
            "mode": mode,
            "namespace": self.get_namespace(),
        }
        if bindings := str(self.values["bindings"]):
            about["bindings"] = json.dumps(read_bindings(Path(bindings)).to_dict())
        self._recorder = Recorder(folder, names, about, bundle.files[MANIFEST])
        self._driver = ""
        self._looked, self._held_up = steady_time(), -REPAIR  # s, of `_look`
        self._newest = 0.0  # s, when a node last said what it did
        # Of the executor's thread, which is known once it has heard something.
        self._hearer = threading.get_ident()
        sensors = [reader.topic for reader in topic_readers(bundle.interface.observation)]
        writers = command_writers(bundle.interface.action, stamped=stamped)
        self._heard = Completeness(bundle.manifest, sensors if mode == "lockstep" else ())
        self._awaited = {*sensors, STATE, MASTER}
        self._matched = {REQUEST, RESPONSE, TRACE, *(writer.topic for writer in writers)}
        if self._publisher is None:
            self._publisher = self.create_publisher(String, "~/state", LATCHED)
        self._tell(f"{WAITING}: {', '.join(self._unheard())}")
        for kind, topic in zip(types, topics, strict=True):
            self._subscriptions_made[topic.name] = self.create_subscription(
                kind, topic.name, partial(self._on_message, topic.name), _qos(topic), raw=True
            )
        self._own_timers = [
            self.create_timer(float(self.values["flush_every"]), self._flush, clock=steady()),
            self.create_timer(LOOK, self._look, clock=steady()),
        ]
        # Not to the log, which has a level: who starts the other nodes waits for it.
        sys.stdout.write(f"{RECORDER.ready_message}{self._recorder.file}\n")
        sys.stdout.flush()

    def activate(self) -> None:
        """Check that the recording is open; it began with `configure`."""
        if not self._subscriptions_made:
            raise UserError("the recording has ended; clean up and configure for another one")

    def deactivate(self) -> None:
        """Receive the last messages of skill_node, write all messages, and close the file."""
        if self._recorder is None or not self._subscriptions_made:
            return
        self._tell(ENDING, over=(WAITING, RECORDING))  # nothing may start on it any more
        self._hear_out()
        self._drain()
        for subscription in self._subscriptions_made.values():
            self.destroy_subscription(subscription)
        self._subscriptions_made = {}
        for timer in self._own_timers:
            self.destroy_timer(timer)
        lost = "; ".join(self._heard.lacking())
        if self._recorder.fault:  # it has been told
            raise UserError(self._recorder.fault)
        try:
            self._recorder.close(lost)
        except Exception as error:
            text = str(error) if isinstance(error, UserError) else one_line(error)
            self._tell(f"{FAULT}: {text}")
            raise
        self._tell(f"{ENDED}, incomplete: {lost}" if lost else ENDED, over=ENDING)
        if lost:
            self.get_logger().warning(f"the recording lacks {lost}")
        if silent := self._recorder.silent:
            self.get_logger().warning(f"nothing came from {', '.join(silent)}")
        self.get_logger().info(f"{self._recorder.count} messages in {self._recorder.file}")
        if self._own_state.startswith(FAULT):  # of a message that could not be written
            raise UserError(self._own_state)

    def cleanup(self) -> None:
        """Reset, so that another recording can begin."""
        self.deactivate()
        self._recorder = None
        super().cleanup()

    def _hear_out(self) -> None:
        began = steady_time()
        while steady_time() - began < PATIENCE.get(self._driver, 0.0):
            time.sleep(0.02)
        # What the network held up comes after the last word, one topic after the other.
        if self._driver != "running":
            began, lacks = steady_time(), bool(self._heard.lacking())
            while (now := steady_time()) - began < REPAIR:
                late = now - self._looked > LATE * LOOK or now - self._held_up < REPAIR
                if not (lacks or late) and now - max(began, self._newest) > QUIET:
                    break
                time.sleep(0.02)

    def _drain(self) -> None:
        """Wait until the executor has handled all received messages.

        Does nothing if the executor itself ends the recording.
        """
        executor = self.executor
        if executor is None or threading.get_ident() == self._hearer:
            return
        reached = threading.Event()
        executor.create_task(reached.set)
        if not reached.wait(DRAIN):
            self.get_logger().warning(f"{DRAIN:g} s were not enough to write what has come")

    def _on_message(self, topic: str, data: bytes) -> None:
        if self._recorder is None:
            return
        self._hearer = threading.get_ident()
        if topic in TOLD:
            self._newest = steady_time()
        self._awaited.discard(topic)
        if topic == STATE:  # CDR: four bytes of header, four of length, text, zero
            self._driver = data[8:].rstrip(b"\0").decode(errors="replace").partition(":")[0]
        try:
            self._recorder.write(topic, data, received=time.time_ns())
        except UserError as error:
            self._fail(str(error))
            return
        except Exception as error:
            self._fail(one_line(error))
            return
        self._heard.hear(topic, data)  # after it: what could not be written is lost

    def _look(self) -> None:
        """Report when all publishers are matched; DDS discovery may take seconds."""
        if (now := steady_time()) - self._looked > LATE * LOOK:
            self._held_up = now
        self._looked = now
        if self._own_state.startswith(WAITING):
            if unheard := self._unheard():
                self._tell(f"{WAITING}: {', '.join(unheard)}", over=WAITING)
            else:
                self.get_logger().info("hears every sensor, the master and skill_node")
                # The last: skill_node may start on it.
                self._tell(RECORDING, over=WAITING)
        else:
            self._tell_again()

    def _unheard(self) -> list[str]:
        """Topics without a message so far, or not yet matched; see `recorded_topics`."""
        listening = self._subscriptions_made
        alone = {
            topic
            for topic in self._matched
            if topic not in listening or not listening[topic].get_publisher_count()
        }
        return sorted(self._awaited | alone)

    def _tell(self, text: str, *, over: str | tuple[str, ...] = "") -> None:
        """Change the own state, if it begins with `over`, and publish it."""
        with self._saying:
            if self._own_state.startswith(over):
                self._own_state = text
        self._tell_again()

    def _tell_again(self) -> None:
        """Publish the own state, as `_look` does again and again: who is silent has ended."""
        with self._saying:
            try:
                self._publisher.publish(String(data=self._own_state))
            except Exception as error:  # it is published again
                self.get_logger().error(f"state {self._own_state!r}: {one_line(error)}")

    def _fail(self, text: str) -> None:
        """Report a fault; the other nodes continue, because a robot needs no recording."""
        if self._own_state != f"{FAULT}: {text}":
            self.get_logger().error(text)
        self._tell(f"{FAULT}: {text}")

    def _flush(self) -> None:
        if self._recorder is None:
            return
        try:
            self._recorder.flush()
        except UserError as error:
            self._fail(str(error))
        except Exception as error:
            self._fail(one_line(error))


def _qos(topic: Topic) -> QoSProfile:
    return QoSProfile(
        depth=QUEUE,
        reliability=ReliabilityPolicy.RELIABLE
        if topic.reliable
        else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL
        if topic.latched
        else DurabilityPolicy.VOLATILE,
    )


def main() -> NoReturn:
    """Entry point."""
    run(RecorderNode)


if __name__ == "__main__":
    main()
