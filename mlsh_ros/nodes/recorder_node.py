"""recorder_node: writes everything that the other nodes say to an MCAP file."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from mlsh_ros.core.place import check_place, default_folder
from mlsh_ros.core.topics import QUEUE, STATE, Topic, recorded_topics
from mlsh_ros.nodes.node import CoreNode, message_type, one_line, run
from mlsh_ros.params import RECORDER_NODE
from policies.bundle import MANIFEST, load_bundle
from sim.errors import UserError

if TYPE_CHECKING:
    from mlsh_ros.core.recording import Recorder

# s that a recorder which is told to end waits for skill_node, told at the same time, to begin to
# stop, and then for its last command.
NOTICE, BRAKING = 1.0, 3.5


class RecorderNode(CoreNode):
    """Wiring: subscriptions that take bytes as they are -> Recorder."""

    def __init__(self) -> None:
        super().__init__("recorder_node", RECORDER_NODE)
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
        self._subscriptions_made = [
            self.create_subscription(
                kind, topic.name, partial(self._on_message, topic.name), _qos(topic), raw=True
            )
            for kind, topic in zip(types, topics, strict=True)
        ]
        self._timer = self.create_timer(float(self.values["flush_every"]), self._flush)
        self.get_logger().info(f"recording to {self._recorder.file}")

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
        self.get_logger().info(f"{self._recorder.count} messages in {self._recorder.file}")

    def cleanup(self) -> None:
        """Forget the recording, so that another one can begin."""
        self.deactivate()
        self._recorder = None

    def _hear_out(self) -> None:
        began = time.monotonic()
        while self._state in ("running", "stopping"):
            if time.monotonic() - began > (BRAKING if self._state == "stopping" else NOTICE):
                return
            time.sleep(0.02)

    def _on_message(self, topic: str, data: bytes) -> None:
        if self._recorder is None:
            return
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
