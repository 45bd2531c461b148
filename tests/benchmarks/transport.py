"""Effects on running nodes when other DDS participants are killed or join, on two transports.

    python -m tests.benchmarks.transport --kills 100 --joins 100

Alone on the machine. A simulated robot drives in real time, its master is killed with SIGKILL and
started again, and plain participants join and leave. A listener of its own counts the gaps in what
it hears of odometry and commands; the state of skill_node tells the faults.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from mlsh_ros.bringup.graphs import SIM
from mlsh_ros.bringup.network import LOCAL, PROFILES, RANGE
from mlsh_ros.bringup.process_launcher import Processes
from tests.benchmarks import one_line_errors

GAP = 0.19  # s without a message that come every 0.1 s or more often
STALL = 0.05  # s for which the listener itself did not run
# A profile that leaves the transports to rmw_fastrtps, which takes shared memory and UDP.
SHARED_PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"><profiles>
  <participant profile_name="shared" is_default_profile="true"><rtps><builtin><discovery_config>
    <leaseAnnouncement><sec>0</sec><nanosec>200000000</nanosec></leaseAnnouncement>
  </discovery_config></builtin></rtps></participant>
</profiles></dds>
"""
SHARED, LOOPBACK_UDP = "shared memory", "loopback UDP"
LOOPBACK = {RANGE: "SYSTEM_DEFAULT", **dict.fromkeys(PROFILES, str(LOCAL))}
JOIN = """
import rclpy, sys, time
from std_msgs.msg import String
rclpy.init()
node = rclpy.create_node(sys.argv[1])
node.create_subscription(String, "skill_node/state", lambda _: None, 1)
rclpy.spin_once(node, timeout_sec=1.0)
"""


@dataclass
class Count:
    """What was seen on one transport."""

    trials: int = 0
    faults: list[str] = field(default_factory=list)
    gaps: int = 0  # longer than GAP, while the listener ran
    longest: float = 0.0  # s
    stalls: int = 0  # of the listener; its gaps then are not counted


class Listener:
    """Hears odometry, commands and states in a thread of its own."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.qos import qos_profile_sensor_data
        from std_msgs.msg import String

        from mlsh_ros.nodes.node import LATCHED, message_type

        rclpy.init()
        self.node = rclpy.create_node("bench_listener")
        self.last: dict[str, float] = {}
        self.state = self.watchdog = ""
        self.count = Count()
        self.counting = False
        for kind, topic in (
            ("nav_msgs/msg/Odometry", "odom"),
            ("geometry_msgs/msg/TwistStamped", "cmd_vel"),
        ):
            made = message_type(kind), topic, self._hear(topic), qos_profile_sensor_data
            self.node.create_subscription(*made)
        self.node.create_subscription(String, "skill_node/state", self._on_state, LATCHED)
        self.node.create_subscription(String, "watchdog_node/state", self._on_watchdog, LATCHED)
        self._stalled = self._looked = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop listening."""
        self._ended.set()
        self._thread.join()

    def _spin(self) -> None:
        import rclpy

        while not self._ended.is_set():
            now = time.monotonic()
            if now - self._looked > 0.01 + STALL:
                self._stalled = now
                self.count.stalls += self.counting
            self._looked = now
            rclpy.spin_once(self.node, timeout_sec=0.01)

    def _hear(self, topic: str) -> Any:
        def hear(_: Any) -> None:
            now = time.monotonic()
            gap = now - self.last.get(topic, now)
            self.last[topic] = now
            if not self.counting or now - self._stalled <= gap:
                return  # the listener itself was late
            self.count.longest = max(self.count.longest, gap)
            self.count.gaps += gap > GAP

        return hear

    def _on_state(self, message: Any) -> None:
        self.state = message.data
        if self.counting and message.data.startswith("fault"):
            self.count.faults.append(message.data)

    def _on_watchdog(self, message: Any) -> None:
        self.watchdog = message.data

    def call(self, name: str) -> bool:
        """Ask a service; whether it agreed."""
        from std_srvs.srv import Trigger

        client = self.node.create_client(Trigger, name)
        if not client.wait_for_service(timeout_sec=10.0):
            return False
        future = client.call_async(Trigger.Request())
        deadline = time.monotonic() + 10.0
        while not future.done() and time.monotonic() < deadline:
            time.sleep(0.01)
        result = future.result() if future.done() else None
        return bool(result and result.success)

    def drive(self) -> None:
        """See that the robot drives."""
        self.counting = False
        deadline = time.monotonic() + 60.0
        while self.state != "running" and time.monotonic() < deadline:
            if self.watchdog.startswith("tripped"):
                self.call("watchdog_node/reset")
            for name in ("reset", "arm", "start"):
                self.call(f"skill_node/{name}")
            time.sleep(0.5)
        if self.state != "running":
            raise SystemExit(f"error: the robot does not drive: {self.state}")
        time.sleep(1.0)
        self.counting = True


def measure(kills: int, joins: int) -> dict[str, Count]:
    """Kills of the master and joins of participants, on the transport of this environment."""
    arguments = {"use_respawn": "true", "auto_arm": "false", "log_level": "warn"}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        # Masters are away for longer than a robot would wait.
        file.write("/**/skill_node:\n  ros__parameters: {max_late_decisions: 60}\n")
        file.flush()
        arguments["params_file"] = file.name
        return _measure(Processes(SIM, arguments, lambda *_: None), kills, joins)


def _measure(processes: Processes, kills: int, joins: int) -> dict[str, Count]:
    found = {}
    with processes as up:
        listener = Listener()
        time.sleep(3.0)
        for what, trials in (("master killed", kills), ("participant joins", joins)):
            listener.count = Count()
            for number in range(trials):
                if listener.state != "running":
                    listener.drive()
                listener.counting = True
                if what == "master killed":
                    os.kill(up.pid("master_node"), signal.SIGKILL)
                    until = time.monotonic() + 2.8
                    while time.monotonic() < until:
                        up.check()
                        time.sleep(0.05)
                else:
                    subprocess.run(
                        [sys.executable, "-c", JOIN, f"guest_{number}"], check=True, timeout=30
                    )
                listener.count.trials += 1
            listener.counting = False
            found[what] = listener.count
        listener.end()
    return found


def _run(name: str, settings: dict[str, str], options: argparse.Namespace) -> None:
    clean = {key: value for key, value in os.environ.items() if key not in LOOPBACK}
    clean["ROS_DOMAIN_ID"] = str(random.SystemRandom().randrange(1, 101))
    command = [sys.executable, "-m", "tests.benchmarks.transport", "--transport", name]
    command += ["--kills", str(options.kills), "--joins", str(options.joins)]
    if status := subprocess.run(command, env={**clean, **settings}, check=False).returncode:
        raise SystemExit(status)  # it has said why


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--joins", type=int, default=100)
    parser.add_argument(
        "--transport", choices=[SHARED, LOOPBACK_UDP], help="measure this one, in this process"
    )
    options = parser.parse_args()
    if options.transport is None:
        print("| transport | event | trials | faults | gaps > 0.19 s | longest gap (s) | stalls |")
        print("|---|---|---|---|---|---|---|", flush=True)
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as profile:
            profile.write(SHARED_PROFILE)
            profile.flush()
            shared = {RANGE: "LOCALHOST", **dict.fromkeys(PROFILES, profile.name)}
            _run(LOOPBACK_UDP, LOOPBACK, options)
            _run(SHARED, shared, options)
        return
    for what, count in measure(options.kills, options.joins).items():
        row = (options.transport, what, count.trials, len(count.faults), count.gaps)
        print("|", " | ".join(map(str, row)), f"| {count.longest:.3f} | {count.stalls} |")
        for fault in count.faults:
            print(f"  {fault}")
    sys.stdout.flush()
    os._exit(0)  # a thread still spins, on a context that would be taken from under it


if __name__ == "__main__":
    main()
