"""How well skill_node keeps its time through ROS, beside a bare loop and a plain rclpy timer.

    python -m mlsh_ros.bench.ros [--rates 50 200 500 1000] [--seconds 20] [--repeats 3] [--busy]

Three processes over DDS on this computer: skill_node and master_node with the bundle of
`mlsh_ros.bench.tick` (48 observations, 12 actions, 2 x 256), and this one, which plays the robot.
A turn of each rate measures, one after the other: a thread that only sleeps, a node with an rclpy
timer that publishes the same command, and skill_node.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mlsh_ros.bench.tick import JOINTS, bare, make_bundle
from mlsh_ros.core.packing import trace_layout
from mlsh_ros.network import confined
from policies.bundle import Bundle

os.environ.update(confined(os.environ))
START_UP = 30.0  # s
TIMER = """
import sys, time
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import JointState
rate, seconds = float(sys.argv[1]), float(sys.argv[2])
rclpy.init()
node = Node("plain")
publisher = node.create_publisher(JointState, "plain_command", 1)
message = JointState(name=[f"joint_{i}" for i in range(12)], position=[0.0] * 12)
start = []
def tick():
    now = time.monotonic()
    start.append(now)
    message.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(message)
node.create_timer(1 / rate, tick)
end = time.monotonic() + seconds
while time.monotonic() < end:
    rclpy.spin_once(node, timeout_sec=0.1)
print(" ".join(repr(t) for t in start))
rclpy.shutdown()
"""


class Robot:
    """Plays the robot: publishes its sensors, drives skill_node, keeps what it tells."""

    def __init__(self, bundle: Bundle, rate: float) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Float64MultiArray, String

        from mlsh_ros.nodes.node import LATCHED, SENSOR, TRACE

        interface = bundle.interface
        self._layout = trace_layout(interface.observation_names, interface.action_names)
        self.traces: list[dict[str, float]] = []
        self.transport: list[float] = []  # s, from a command's stamp to its arrival
        self.state = ""
        rclpy.init()
        self.node = rclpy.create_node("bench_robot")
        names = [f"joint_{i}" for i in range(JOINTS)]
        self._message = JointState(name=names)
        for field in ("position", "velocity", "effort"):
            setattr(self._message, field, [0.1] * JOINTS)
        self._sensors = self.node.create_publisher(JointState, "joint_states", SENSOR)
        self._references = self.node.create_publisher(JointState, "references", SENSOR)
        self.node.create_subscription(Float64MultiArray, "skill_node/trace", self._on_trace, TRACE)
        self.node.create_subscription(String, "skill_node/state", self._on_state, LATCHED)
        self.node.create_subscription(JointState, "command", self._on_command, 1)
        self.node.create_timer(1 / rate, self._publish)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _publish(self) -> None:
        self._message.header.stamp = self.node.get_clock().now().to_msg()
        self._sensors.publish(self._message)
        self._references.publish(self._message)

    def _on_trace(self, message: object) -> None:
        self.traces.append(self._layout.read(message)[0])

    def _on_state(self, message: object) -> None:
        self.state = str(getattr(message, "data", ""))

    def _on_command(self, message: object) -> None:
        stamp = message.header.stamp  # type: ignore[attr-defined]
        self.transport.append(time.time() - stamp.sec - stamp.nanosec * 1e-9)

    def _spin(self) -> None:
        while not self._closing.is_set():
            self.executor.spin_once(timeout_sec=0.1)

    def call(self, service: str) -> None:
        """One of skill_node's."""
        from std_srvs.srv import Trigger

        client = self.node.create_client(Trigger, f"skill_node/{service}")
        assert client.wait_for_service(timeout_sec=START_UP)
        time.sleep(1.0)  # both sides know each other
        future = client.call_async(Trigger.Request())
        deadline = time.monotonic() + START_UP
        while not future.done() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert future.result().success, future.result().message

    def close(self) -> None:
        """Leave."""
        import rclpy

        self._closing.set()
        self._thread.join()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()


def skill_node(bundle: Bundle, rate: float, seconds: float) -> tuple[dict[str, np.ndarray], float]:
    """Traces of a session as columns, with `transport`; and CPU of skill_node as a fraction."""
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    nodes = []
    for name, more in (
        ("master_node", ()),
        # At a rate that the machine does not keep, misses are to be counted, not to stop it.
        ("skill_node", ("-p", "missed_ticks:=1000", "-p", "late_decisions:=1000")),
    ):
        command = [sys.executable, "-m", f"mlsh_ros.nodes.{name}", "--ros-args"]
        command += ["-p", f"bundle:={bundle.source}", *more, "--log-level", "error"]
        nodes.append(subprocess.Popen(command, env=environment))
    robot = Robot(bundle, rate)
    try:
        deadline = time.monotonic() + START_UP
        while robot.state != "disarmed" and time.monotonic() < deadline:
            time.sleep(0.05)
        robot.call("arm")
        robot.call("start")
        while len(robot.traces) < rate and time.monotonic() < deadline:  # a second to warm up
            time.sleep(0.05)
        robot.traces.clear()
        robot.transport.clear()
        before = _cpu(nodes[1].pid)
        time.sleep(seconds)
        cpu = (_cpu(nodes[1].pid) - before) / seconds
        rows = list(robot.traces)
        assert robot.state == "running", robot.state
    finally:
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.wait(timeout=10)
        robot.close()
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return columns | {"transport": np.array(robot.transport)}, cpu


def plain_timer(rate: float, seconds: float) -> np.ndarray:
    """How far each period of a plain rclpy timer was from its length, s."""
    command = [sys.executable, "-c", TIMER, str(rate), str(seconds)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    begun = np.array([float(t) for t in text.split()])[int(rate) :]
    return np.abs(np.diff(begun) - 1 / rate)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _burn() -> None:
    while True:
        pass


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """One core that has other work."""
    process = multiprocessing.get_context("spawn").Process(target=_burn, daemon=True)
    if wanted:
        process.start()
    try:
        yield
    finally:
        if wanted:
            process.kill()
            process.join()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[50, 200, 500, 1000])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each rate and repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", action="store_true", help="with one core busy")
    given = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    print("ms, median of the repeats. jitter: how far a period is from its length")
    print("  rate   bare late  skill late   bare jitter  skill jitter  timer jitter    compute")
    print(
        "           p50/p99     p50/p99           p99           p99           p99    p50/p99",
        end="",
    )
    print("   transport p99   missed   CPU   period off")
    with busy(given.busy), tempfile.TemporaryDirectory() as folder:
        for rate in given.rates:
            bundle = make_bundle(rate, Path(folder) / f"bench-{rate:g}")
            rows = [_turn(bundle, rate, given.seconds) for _ in range(given.repeats)]
            m = {key: float(np.median([row[key] for row in rows])) for key in rows[0]}
            print(
                f"{rate:6g}  {m['bare50']:5.2f}/{m['bare99']:5.2f}  {m['skill50']:5.2f}/"
                f"{m['skill99']:5.2f}   {m['bare_jitter']:11.3f}   {m['skill_jitter']:11.3f}   "
                f"{m['timer_jitter']:11.3f}   {m['compute50']:4.2f}/{m['compute99']:4.2f}   "
                f"{m['transport']:13.2f}   {m['missed']:6.0f}   {m['cpu']:3.0%}   "
                f"{m['off'] * 100:+.5f} %"
            )


def _turn(bundle: Bundle, rate: float, seconds: float) -> dict[str, float]:
    floor = bare(rate, seconds)
    timer = plain_timer(rate, seconds + 2)
    columns, cpu = skill_node(bundle, rate, seconds)
    late, missed = columns["lateness"], columns["missed"]
    # A tick begins at its moment plus its lateness; moments are a period apart.
    begun = (1 + missed).cumsum() / rate + late
    return {
        "bare50": np.percentile(floor, 50) * 1e3,
        "bare99": np.percentile(floor, 99) * 1e3,
        "skill50": np.percentile(late, 50) * 1e3,
        "skill99": np.percentile(late, 99) * 1e3,
        "bare_jitter": np.percentile(np.abs(np.diff(floor)), 99) * 1e3,
        "skill_jitter": np.percentile(np.abs(np.diff(begun) - (1 + missed[1:]) / rate), 99) * 1e3,
        "timer_jitter": np.percentile(timer, 99) * 1e3,
        "compute50": np.percentile(columns["compute"], 50) * 1e3,
        "compute99": np.percentile(columns["compute"], 99) * 1e3,
        "transport": np.percentile(columns["transport"], 99) * 1e3,
        "missed": missed.sum(),
        "cpu": cpu,
        "off": (late[-1] - late[0]) / (begun[-1] - begun[0]),
    }


if __name__ == "__main__":
    main()
