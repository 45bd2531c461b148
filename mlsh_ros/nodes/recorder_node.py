"""recorder_node: writes everything that the other nodes say to an MCAP file."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from mlsh_ros.core.conversion import topic_readers
from mlsh_ros.core.place import check_place, default_folder
from mlsh_ros.core.topics import MASTER, QUEUE, STATE, Topic, recorded_topics
from mlsh_ros.graph import RECORDER
from mlsh_ros.nodes.clock import steady
from mlsh_ros.nodes.node import CoreNode, message_type, one_line, run
from mlsh_ros.params import RECORDER_NODE
from policies.bundle import MANIFEST, load_bundle
from sim.errors import UserError

if TYPE_CHECKING:
    from mlsh_ros.core.recording import Recorder

# s that a recorder which is told to end waits, by the state of skill_node, which may have been
# told at the same time: to begin to stop, for its last command, for its last word.
PATIENCE = {"running": 1.0, "stopping": 3.5, "ready": 0.5}


class RecorderNode(CoreNode):
    """Wiring: subscriptions that take bytes as they are -> Recorder."""

    def __init__(self) -> None:
        super().__init__("recorder_node", RECORDER_NODE)
        # The other nodes are started when it listens: there is nobody yet who could tell it to.
        self.values = {**self.values, "autostart": True}
        self._recorder: Recorder | None = None
        self._subscriptions_made: list[Any] = []
        self._timer: Any = None
        self._state = ""  # of skill_node

    def configure(self) -> None:
        """Open the file and listen."""
        folder = Path(str(self.values["record_to"]) or default_folder())
        check_place(folder)  # before what it needs is imported
        from mlsh_ros.core.recording import Recorder

        bundle = load_bundle(str(self.values["bundle"]))
        stamped, mode = bool(self.values["stamped_cmd_vel"]), str(self.values["mode"])
        topics = recorded_topics(bundle.interface, stamped=stamped, lockstep=mode == "lockstep")
        types = [message_type(topic.type) for topic in topics]
        names = [(self.resolve_topic_name(topic.name), topic) for topic in topics]
        about = {
            "bundle": bundle.manifest.name,
            "digest": bundle.manifest.digest,
            "mode": mode,
            "namespace": self.get_namespace(),
        }
        self._recorder = Recorder(folder, names, about, bundle.files[MANIFEST])
        self._state = ""
        sensors = [reader.topic for reader in topic_readers(bundle.interface.observation)]
        self._awaited = {*sensors, MASTER}
        self._subscriptions_made = [
            self.create_subscription(
                kind, topic.name, partial(self._on_message, topic.name), _qos(topic), raw=True
            )
            for kind, topic in zip(types, topics, strict=True)
        ]
        every = float(self.values["flush_every"])
        self._timer = self.create_timer(every, self._flush, clock=steady())
        # Not to the log, which has a level: who starts the other nodes waits for it.
        sys.stdout.write(f"{RECORDER.ready}{self._recorder.file}\n")
        sys.stdout.flush()

    def activate(self) -> None:
        """Nothing more: it has been listening since it was configured."""
        if not self._subscriptions_made:
            raise UserError("the recording has ended; clean up and configure for another one")

    def deactivate(self) -> None:
        """Hear skill_node out, and close the file."""
        if self._recorder is None or not self._subscriptions_made:
            return
        self._hear_out()
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self._subscriptions_made = []
        self.destroy_timer(self._timer)
        if self._recorder.fault:
            raise UserError(self._recorder.fault)
        self._recorder.close()
        if silent := self._recorder.silent:
            self.get_logger().warning(f"nothing came from {', '.join(silent)}")
        self.get_logger().info(f"{self._recorder.count} messages in {self._recorder.file}")

    def cleanup(self) -> None:
        """Forget the recording, so that another one can begin."""
        self.deactivate()
        self._recorder = None

    def _hear_out(self) -> None:
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE.get(self._state, 0.0):
            time.sleep(0.02)

    def _on_message(self, topic: str, data: bytes) -> None:
        if self._recorder is None:
            return
        if topic in self._awaited:
            self._awaited.discard(topic)
            if not self._awaited:
                # DDS may take seconds until all know each other; now nothing is missed.
                self.get_logger().info("hears every sensor and the master")
        if topic == STATE:  # CDR: four bytes of header, four of length, text, zero
            self._state = data[8:].rstrip(b"\0").decode(errors="replace").partition(":")[0]
        try:
            self._recorder.write(topic, data, received=time.time_ns())
        except UserError as error:
            self.get_logger().error(str(error))

    def _flush(self) -> None:
        if self._recorder is None:
            return
        try:
            self._recorder.flush()
        except UserError as error:
            # The others go on: a robot does not stop because nobody takes notes.
            self.get_logger().error(str(error))
        except Exception as error:
            self.get_logger().error(one_line(error))


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


def main() -> None:
    """Entry point."""
    sys.exit(run(RecorderNode))


if __name__ == "__main__":
    main()
