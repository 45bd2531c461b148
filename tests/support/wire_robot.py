"""A robot on the wire that says what a test wants."""

import threading
import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from mlsh_ros.nodes.node import (
    EXCHANGE,
    message_type,
)

STAMP = 1_700_000_000 * 10**9  # ns


def plausible(reader):
    """Per term (size,), values that any robot may show."""
    return {
        t.name: np.clip(np.linspace(-0.3, 0.3, t.size), *(t.inf_values or (-1, 1)))
        / (np.sqrt(0.2) if t.derive else 1.0)  # a quaternion has length 1
        for t, _ in reader.terms
    }


def good(reader, stamp=STAMP, **fields):
    message = message_type(reader.type)()
    reader.write(message, plausible(reader) | fields)
    if hasattr(message, "header"):
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    return message


class Robot:
    """Plays omni: says 50 times a second where it is; it moves at once as it is told."""

    def __init__(self, observer, readers):
        self.observer, self.readers = observer, readers
        self.publishers = {
            r.topic: observer.node.create_publisher(message_type(r.type), r.topic, EXCHANGE)
            for r in readers
        }
        self.position, self.closing = np.zeros(2), threading.Event()
        self.rolls = np.zeros(2)  # m/s, until it is told otherwise
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.closing.wait(0.02):
            velocity = (*self.observer.commands()[-1:], self.rolls)[0]
            self.position = self.position + 0.02 * velocity
            for reader in self.readers:
                self.publishers[reader.topic].publish(self.sees(reader, velocity))

    def sees(self, reader, velocity, age=0):
        fields = plausible(reader)
        if reader.topic == "odom":
            fields |= {"position": self.position, "velocity": velocity}
        return good(reader, time.time_ns() - age, **fields)

    def close(self):
        self.closing.set()
        self.thread.join()
