"""How long a command takes to publish while the network of one subscriber has stalled.

python -m tests.benchmarks.stalled_network [PROFILE.xml]

A publisher sends commands at 50 Hz through a link of its own network namespace, behind which
somebody subscribes, as a laptop on a wireless link would. After a while the link carries 8 kbit/s
only. Needs Linux with user namespaces, `ip` and `tc`; nothing outside is touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from mlsh_ros.bringup.network import PROFILES
from tests.benchmarks import one_line_errors

RATE = 50  # Hz
BEFORE, AFTER = 3.0, 20.0  # s before the link stalls, and after it
STALL = "tc qdisc add dev near root tbf rate 8kbit burst 2k limit 10m"
LINK = """
ip link set lo up
ip link add near type veth peer name far
unshare -n sleep 120 & other=$!
sleep 0.5
ip link set far netns $other
ip addr add 10.9.0.1/24 dev near
ip link set near up multicast on
ip route add 224.0.0.0/4 dev near
inside() { nsenter -t $other -n "$@"; }
inside ip link set lo up
inside ip addr add 10.9.0.2/24 dev far
inside ip link set far up
inside ip route add 224.0.0.0/4 dev far
inside "$PYTHON" -m tests.benchmarks.stalled_network subscribe & listener=$!
"$PYTHON" -m tests.benchmarks.stalled_network publish
kill $listener $other
"""


def subscribe() -> None:
    """Listen until killed."""
    import rclpy
    from std_msgs.msg import Float64MultiArray

    rclpy.init()
    node = rclpy.create_node("laptop")
    node.create_subscription(Float64MultiArray, "command", lambda _: None, 1)
    rclpy.spin(node)


class OtherThread(threading.Thread):
    """Measures for how long it did not run."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.longest = 0.0

    def run(self) -> None:
        """Run until the process ends."""
        last = time.monotonic()
        while True:
            time.sleep(0.001)
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now


def publish() -> None:
    """Send commands and say how long the slowest ones took."""
    import rclpy
    from std_msgs.msg import Float64MultiArray

    rclpy.init()
    node = rclpy.create_node("robot")
    publisher = node.create_publisher(Float64MultiArray, "command", 1)
    deadline = time.monotonic() + 20.0
    while not publisher.get_subscription_count():
        if time.monotonic() > deadline:
            sys.exit("the subscriber was not found")
        time.sleep(0.1)
    command = Float64MultiArray(data=[0.0] * 150)
    other = OtherThread()
    other.start()
    for seconds, what in ((BEFORE, "link in order"), (AFTER, "link stalled")):
        longest, sent, begin = 0.0, 0, time.monotonic()
        other.longest = 0.0
        while (now := time.monotonic()) < begin + seconds:
            publisher.publish(command)
            took = time.monotonic() - now
            longest, sent = max(longest, took), sent + 1
            time.sleep(max(0.0, 1 / RATE - took))
        time.sleep(0.1)  # for the other thread
        print(
            f"{what}: {sent} commands, the slowest took {longest * 1e3:.0f} ms, "
            f"another thread stood for {other.longest * 1e3:.0f} ms"
        )
        if what == "link in order":
            subprocess.run(STALL.split(), check=True)
    os._exit(0)  # the middleware would wait for the link


@one_line_errors
def main() -> None:
    """Entry point."""
    given = sys.argv[1:]
    if given == ["subscribe"]:
        subscribe()
    elif given == ["publish"]:
        publish()
    else:
        environment = {
            name: value for name, value in os.environ.items() if name not in PROFILES
        } | {"PYTHON": sys.executable, "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}
        environment |= dict.fromkeys(PROFILES, str(Path(given[0]).resolve())) if given else {}
        command = ["unshare", "-rn", "bash", "-c", LINK]
        sys.exit(subprocess.run(command, env=environment, timeout=180).returncode)


if __name__ == "__main__":
    main()
