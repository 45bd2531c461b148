"""Timing of a bare loop and of a plain rclpy timer, each in a process, as a reference.

    python -m tests.benchmarks.scheduler_baseline bare|timer RATE SECONDS FILE

Writes to FILE (.npy) when every period began, s after its own moment of an even grid.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.benchmarks import one_line_errors
from tests.benchmarks.tick import JOINTS, bare

KINDS = ("bare", "timer")


def timer(rate: float, seconds: float) -> np.ndarray:
    """A node whose timer publishes a command of the same size, and does nothing else."""
    import rclpy
    from rclpy.node import Node
    from sensor_msgs.msg import JointState

    rclpy.init()
    node = Node("plain")
    publisher = node.create_publisher(JointState, "plain_command", 1)
    message = JointState(name=[f"joint_{i}" for i in range(JOINTS)], position=[0.0] * JOINTS)
    begun: list[float] = []

    def tick() -> None:
        begun.append(time.monotonic())
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    node.create_timer(1 / rate, tick)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
    rclpy.shutdown()
    at = np.array(begun)
    return np.asarray(at - at[0] - np.arange(len(at)) / rate)


class Floor:
    """One of `KINDS` in a process of its own."""

    def __init__(self, kind: str, rate: float, seconds: float, folder: Path) -> None:
        self._rate, self._file = rate, folder / f"{kind}.npy"
        command = [sys.executable, "-m", __spec__.name, kind, f"{rate:g}", f"{seconds:g}"]
        self._process = subprocess.Popen(
            [*command, str(self._file)], env={**os.environ, "PYTHONSAFEPATH": "1"}
        )

    def wait(self) -> np.ndarray:
        """Lateness of each period, s, less the first second."""
        assert self._process.wait() == 0
        return np.asarray(np.load(self._file)[int(self._rate) :])


@one_line_errors
def main() -> None:
    """Entry point of the process."""
    kind, rate, seconds, file = sys.argv[1:]
    run = {"bare": bare, "timer": timer}[kind]
    np.save(file, run(float(rate), float(seconds)))


if __name__ == "__main__":
    main()
