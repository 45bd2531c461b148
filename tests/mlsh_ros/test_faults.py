"""Every fault, injected into real processes: detected by name, in time, and latched at rest.

With MLSH_FAULTS=FILE the measured table is written to its end; test_nodes.py adds the clock's.
"""

import signal
import threading
import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import Trigger

from mlsh_ros.messages.labeled_array import response_layout
from mlsh_ros.nodes.node import COMMAND, EXCHANGE, LATCHED, array_message
from mlsh_ros.nodes.watchdog_node import HAND_OVER
from tests.support.nodes import (
    DT,
    HEAD,
    LATCHED_SAFE,
    LATE_DECISIONS,
    MAX_AGE,
    SLACK,
    N,
    assert_brought_to_rest,
    new_domain,
    tell,
    wait_for,
)
from tests.support.nodes import World as Nodes

pytestmark = [pytest.mark.ros, pytest.mark.realtime, pytest.mark.timeout(240)]

ESTOP_MAX_AGE = 0.5  # s, of robot.yaml's skill_node
LOOK = 0.5  # s between two looks at who else publishes commands
PATIENCE = 3  # ticks in which a dead skill_node must have been replaced by the safe command
BOUND = PATIENCE * DT + HAND_OVER  # s until watchdog_node brakes
ROWS: list[tuple[str, str, float, float, float, str]] = []


class Estop:
    """Somebody's emergency stop, who says that all is well ten times a second."""

    def __init__(self, observer):
        self.publisher = observer.node.create_publisher(Bool, "estop", COMMAND)
        self.pressed, self.closing = False, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.closing.wait(0.1):
            self.publisher.publish(Bool(data=self.pressed))

    def press(self):
        self.pressed = True
        self.publisher.publish(Bool(data=True))

    def fall_silent(self):
        self.closing.set()
        self.thread.join()


class Scene:
    """A robot that drives, one injection after the other."""

    def __init__(self, nodes):
        self.nodes, self.observer = nodes, nodes.observer
        self.watchdog = []
        self.observer.node.create_subscription(
            String, "watchdog_node/state", lambda m: self.watchdog.append(m.data), LATCHED
        )
        self.diagnostics = {}
        self.observer.node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, 10
        )
        self.estop = Estop(self.observer)
        nodes.start("watchdog_node")
        nodes.start_all(estop=True, estop_max_age=ESTOP_MAX_AGE)
        wait_for(lambda: self.watchdog, 15.0, "watchdog_node")
        wait_for(self.estop.publisher.get_subscription_count, 15.0, "skill_node at the estop")
        time.sleep(0.3)  # heard at least once

    def _on_diagnostics(self, message):
        self.diagnostics |= {status.name: status for status in message.status}

    def told_in_diagnostics(self):
        state = self.diagnostics.get("skill_node: state")
        return state if state and state.level == DiagnosticStatus.ERROR else None

    def inject(self, what):
        answer = self.observer.call(
            SetParameters,
            "sim_node/set_parameters",
            parameters=[Parameter("fault", value=what).to_parameter_msg()],
        )
        assert answer.results[0].successful, answer.results[0].reason

    def drive(self):
        # A test before this one may have failed.
        if self.watchdog[-1].startswith("tripped"):
            self.observer.call(Trigger, "watchdog_node/reset")
        if self.observer.state().startswith("fault"):
            self.recover()
        self.observer.heard["skill_node/trace"].clear()
        self.observer.drive()

    def expect(self, injected, fault, since, bound, at_rest=True):
        """The fault in time, the robot at rest, and no way back but a reset."""
        observer = self.observer
        observer.wait(f"fault: {fault}", bound + 3.0)
        told = observer.times("fault")[-1]
        took = told - since
        safe = assert_brought_to_rest(observer, told) - since if at_rest else float("nan")
        ROWS.append((injected, fault, took, bound, safe, LATCHED_SAFE))
        assert took < bound + SLACK, (injected, took, bound)
        assert not observer.call(Trigger, "skill_node/start").success
        assert not observer.call(Trigger, "skill_node/arm").success

    def recover(self):
        answer = self.observer.call(Trigger, "skill_node/reset")
        assert answer.success, answer.message
        self.observer.wait("disarmed")


@pytest.fixture(scope="module")
def scene(bundle):
    with new_domain() as stack:
        made = Scene(Nodes(bundle, stack))
        yield made
        made.estop.fall_silent()  # before its node goes away


@pytest.fixture(scope="module", autouse=True)
def table():
    ROWS.clear()
    yield
    tell(ROWS, head=HEAD)


SENSORS = {
    "silent": ("sensors_stale", MAX_AGE + DT),
    "nan": ("sensors_stale", MAX_AGE + DT),
    "frozen": ("sensors_stale", MAX_AGE + DT),
    "old": ("sensors_stale", MAX_AGE + DT),
    "ahead": ("sensors_stale", DT),
    "beyond": ("limit", DT),
    # 0.5 s are tolerated, from when it has slowed down by more than the tolerance.
    "stuck": ("tracking", 0.5 + 5 * DT),
}


@pytest.mark.parametrize("what", SENSORS)
def test_a_fault_of_the_robot(scene, what):
    fault, bound = SENSORS[what]
    scene.drive()
    scene.diagnostics.pop("skill_node: state", None)
    since = time.monotonic()
    scene.inject(what)
    try:
        scene.expect(f"robot: {what}", fault, since, bound)
        state = wait_for(scene.told_in_diagnostics, 2.5, "an error in /diagnostics")
        assert state.message.startswith(fault)
    finally:
        scene.inject("none")
    scene.recover()


def test_a_decision_for_a_skill_that_does_not_exist(scene):
    scene.drive()
    observer = scene.observer
    layout = response_layout(scene.nodes.bundle.manifest.skills)
    # Under the name of a master that was started again: another name is a fault by itself.
    master = rclpy.create_node("master_node", context=observer.context)
    publisher = master.create_publisher(Float64MultiArray, "decision/response", EXCHANGE)
    wait_for(lambda: publisher.get_subscription_count() >= 2, 10.0, "skill_node")
    message = array_message(layout)
    session = int(observer.ticks()[-1]["session"])
    message.data = layout.pack(session, 10**6, 0, 99, vectors=(np.zeros(2),))
    since = time.monotonic()
    publisher.publish(message)
    scene.expect("master: skill 99", "invalid_decision", since, DT)
    master.destroy_node()
    scene.recover()


def test_the_emergency_stop_and_its_silence(scene):
    scene.drive()
    since = time.monotonic()
    scene.estop.press()
    scene.expect("estop: true", "estop", since, 0.1)
    refused = scene.observer.call(Trigger, "skill_node/reset")
    pressed = "topic 'estop' is true, from /observer"
    assert refused.message == f"cannot reset: {pressed}; release it first"
    refused = scene.observer.call(Trigger, "skill_node/arm")
    assert refused.message == f"cannot arm: the state is fault: estop: {pressed}; reset first"
    scene.estop.pressed = False
    time.sleep(0.3)
    scene.recover()
    scene.drive()
    since = time.monotonic()
    scene.estop.fall_silent()
    scene.expect("estop: silent", "estop_lost", since, ESTOP_MAX_AGE + 0.05)
    scene.recover()
    refused = scene.observer.call(Trigger, "skill_node/arm")
    assert refused.message.startswith("cannot arm: estop_lost: topic 'estop' is silent for")
    scene.observer.destroy(scene.estop.publisher)
    scene.estop = Estop(scene.observer)
    time.sleep(0.8)


def test_another_node_that_publishes_commands(scene):
    scene.drive()
    observer = scene.observer
    since = time.monotonic()
    intruder = observer.node.create_publisher(TwistStamped, "cmd_vel", COMMAND)
    scene.expect("/observer publishes cmd_vel", "second_publisher", since, LOOK)
    scene.recover()
    refused = observer.call(Trigger, "skill_node/arm")
    assert refused.message.startswith("cannot arm: /observer publishes 'cmd_vel' too")
    observer.destroy(intruder)


def test_a_bundle_that_was_changed_on_disk_is_not_armed(scene):
    file = scene.nodes.bundle.source / "skills" / "0.onnx"
    data = file.read_bytes()
    try:
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        refused = scene.observer.call(Trigger, "skill_node/arm")
        assert "is no longer valid" in refused.message
        assert "'skills/0.onnx'" in refused.message
    finally:
        file.write_bytes(data)
    scene.observer.arm()
    assert scene.observer.call(Trigger, "skill_node/disarm").success


def test_a_dead_master(scene):
    scene.drive()
    since = time.monotonic()
    scene.nodes.nodes["master_node"].kill()
    bound = (LATE_DECISIONS + 2) * N * DT
    scene.expect("master_node killed", "master_silent", since, bound)
    # `max_late_decisions` may pass, and the one after that is not sent any more.
    assert scene.observer.times("fault")[-1] - since > (LATE_DECISIONS * N - 1) * DT
    late = [t["tick"] for t in scene.observer.ticks() if t["late"]]
    assert [tick % N for tick in late] == [0] * LATE_DECISIONS
    scene.recover()
    scene.nodes.start("master_node")
    heard = scene.observer.heard["master_node/master"]
    wait_for(lambda: len(heard) > 1, 15.0, "the new master")


def test_a_skill_node_that_hangs_and_comes_back(scene):
    scene.drive()
    process = scene.nodes.nodes["skill_node"]
    last = time.monotonic()
    process.send_signal(signal.SIGSTOP)
    try:
        told = watchdog_acts(scene, last)
        safe = assert_brought_to_rest(scene.observer, told) - last
        took = told - last
        ROWS.append(("skill_node stopped", "watchdog", took, BOUND, safe, "safe command"))
    finally:
        process.send_signal(signal.SIGCONT)
    # It has missed its ticks, has not heard the emergency stop for too long, and hears from the
    # watchdog: whichever it notices first.
    scene.observer.wait("fault", 3.0)
    causes = tuple(f"fault: {name}" for name in ("deadline", "estop_lost", "watchdog"))
    assert scene.observer.state().startswith(causes)
    scene.recover()
    refused = scene.observer.call(Trigger, "skill_node/arm")
    assert refused.message.startswith("cannot arm: watchdog_node is tripped: command (")
    assert scene.observer.call(Trigger, "watchdog_node/reset").success
    scene.drive()
    assert scene.observer.call(Trigger, "skill_node/stop").success
    assert scene.observer.call(Trigger, "skill_node/disarm").success


def test_a_killed_skill_node(scene):
    scene.drive()
    last = time.monotonic()
    scene.nodes.nodes["skill_node"].kill()
    told = watchdog_acts(scene, last)
    safe, took = assert_brought_to_rest(scene.observer, told) - last, told - last
    ROWS.append(("skill_node killed -9", "watchdog", took, BOUND, safe, "safe command"))
    # Latched: it goes on saying so, to whoever comes too.
    said = len(scene.observer.commands())
    time.sleep(5 * DT)
    assert len(scene.observer.commands()) >= said + 3
    assert not scene.observer.commands()[-3:].any()
    assert scene.watchdog[-1].startswith("tripped: command (")


def watchdog_acts(scene, since):
    """When the first command of the watchdog came; within PATIENCE ticks of the last one."""
    observer = scene.observer
    begun = len(scene.watchdog)
    wait_for(lambda: len(scene.watchdog) > begun, 3.0, "watchdog")
    times = lambda: [t for t, _ in list(observer.heard["cmd_vel"]) if t > since - DT]  # noqa: E731
    gaps = lambda: np.diff(times())  # noqa: E731
    wait_for(lambda: gaps().max(initial=0.0) > 2 * DT, 3.0, "a command of the watchdog")
    times, gaps = times(), gaps()
    at = int(gaps.argmax())
    assert gaps[at] < BOUND + SLACK / 5, (gaps, scene.watchdog[-1])
    return times[at + 1]
