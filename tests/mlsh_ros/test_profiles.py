"""The profiles of Fast DDS that this package has are read whole, and no send of theirs waits."""

import os
import subprocess
import sys

import pytest

from mlsh_ros.bringup.network import LOCAL, PROFILES, RANGE, ROBOT
from tests.support.bundles import fresh_domain

EPHEMERAL = 32768  # sockets that only send have ports from here on, those of DDS are below
# Prints address, port and whether a send would wait, of each UDP socket of a participant.
PARTICIPANT = """
import os, re, rclpy
from std_msgs.msg import String
rclpy.init()
node = rclpy.create_node("participant")
node.create_publisher(String, "said", 1).publish(String(data="something"))
with open("/proc/self/net/udp") as file:
    sockets = {line.split()[9]: line.split()[1] for line in list(file)[1:]}
for fd in os.listdir("/proc/self/fd"):
    try:
        inode = os.readlink(f"/proc/self/fd/{fd}").removeprefix("socket:[").removesuffix("]")
    except OSError:
        continue
    if inode in sockets:
        address, port = sockets[inode].split(":")
        with open(f"/proc/self/fdinfo/{fd}") as file:
            flags = int(re.search(r"flags:\\s+(\\d+)", file.read())[1], 8)
        print("socket", address, int(port, 16), int(not flags & os.O_NONBLOCK))
rclpy.shutdown()
"""
SPEAKER = """
import time, rclpy
from std_msgs.msg import String
rclpy.init()
node = rclpy.create_node("speaker")
publisher = node.create_publisher(String, "said", 1)
while True:
    publisher.publish(String(data="something"))
    time.sleep(0.05)
"""
LISTENER = """
import rclpy
from std_msgs.msg import String
rclpy.init()
node, heard = rclpy.create_node("listener"), []
node.create_subscription(String, "said", heard.append, 1)
for _ in range(200):
    rclpy.spin_once(node, timeout_sec=0.1)
    if heard:
        break
print("heard", heard[0].data)
rclpy.shutdown()
"""


def environment(profile, domain, where):
    kept = {name: value for name, value in os.environ.items() if name not in PROFILES}
    chosen = {} if profile is None else dict.fromkeys(PROFILES, str(profile))
    return {**kept, **chosen, "ROS_DOMAIN_ID": str(domain), RANGE: where}


def said(script, profile, domain, where="SYSTEM_DEFAULT"):
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(profile, domain, where),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout + done.stderr


def sockets(text):
    """(addresses and ports that are listened on, whether sends wait) of a participant."""
    rows = [line.split()[1:] for line in text.splitlines() if line.startswith("socket ")]
    heard = {(address, int(port)) for address, port, _ in rows if 7400 <= int(port) < EPHEMERAL}
    return heard, [bool(int(waits)) for _, port, waits in rows if int(port) >= EPHEMERAL]


@pytest.mark.ros
@pytest.mark.parametrize("profile", [LOCAL, ROBOT], ids=lambda path: path.stem)
def test_a_profile_is_read_whole_and_no_send_waits(profile, tmp_path):
    pytest.importorskip("rclpy")
    domain = fresh_domain()
    text = said(PARTICIPANT, profile, domain)
    assert "XMLPARSER" not in text
    listened, waits = sockets(text)
    assert listened
    assert waits
    assert not any(waits)
    # A word that Fast DDS does not know would have been told.
    other = tmp_path / "profile.xml"
    other.write_text(profile.read_text().replace("non_blocking_send", "non_blocking_sent"))
    assert "non_blocking_sent" in said(PARTICIPANT, other, domain)


@pytest.mark.ros
def test_the_profile_of_a_robot_listens_where_fast_dds_does_by_default():
    pytest.importorskip("rclpy")
    domain = fresh_domain()
    by_default, waits = sockets(said(PARTICIPANT, None, domain))
    assert any(waits)  # else the profile would not be needed
    assert sockets(said(PARTICIPANT, ROBOT, domain))[0] == by_default != set()


@pytest.mark.ros
@pytest.mark.parametrize("profiles", [(ROBOT, None), (None, ROBOT)])
def test_who_has_it_and_who_has_not_hear_each_other(profiles):
    pytest.importorskip("rclpy")
    domain, (speaks, listens) = fresh_domain(), profiles
    speaker = subprocess.Popen(
        [sys.executable, "-c", SPEAKER], env=environment(speaks, domain, "LOCALHOST")
    )
    try:
        assert "heard something" in said(LISTENER, listens, domain, "LOCALHOST")
    finally:
        speaker.kill()
        speaker.wait()
