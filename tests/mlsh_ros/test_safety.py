"""What a stranger may do to running nodes: none of it makes the robot move, jump or not stop.

Every command on the wire is heard, and the largest step of all of them is held against the rate
limit.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from geometry_msgs.msg import Twist, TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import SetParameters
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool, Float64MultiArray, Int8, String
from std_srvs.srv import Trigger

from mlsh_ros.bringup.network import LAUNCHER
from mlsh_ros.messages.conversion import topic_readers
from mlsh_ros.messages.labeled_array import response_layout
from mlsh_ros.nodes.node import EXCHANGE, LATCHED, RELEASE, CoreNode
from mlsh_ros.nodes.uniqueness import Single, SinglePublishers
from mlsh_ros.nodes.watchdog_node import STOPPED, TRIPPED
from tests.support.bundles import changed_robot, restless_bundle
from tests.support.nodes import (
    DT,
    LATCHED_SAFE,
    RATE,
    SLACK,
    World,
    assert_brought_to_rest,
    assert_ended_at_rest,
    new_domain,
    tell,
    wait_for,
)
from tests.support.wire_robot import Robot

pytestmark = [pytest.mark.ros, pytest.mark.realtime, pytest.mark.timeout(240)]

ROWS: list[tuple[str, str, float, float, float, str]] = []
LARGEST: list[float] = []  # steps of a command, in m/s, one per test
HEARTBEAT_LOST = 0.5 + DT  # s until a tick misses the heartbeat
LOOK = 0.5  # s between two looks at who publishes what
LAUNCHER_LOST = 0.2  # s between two looks at whether the launcher is there
DRIFT = 0.1  # m/s that a robot may still move by at rest
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
VOLATILE, TRANSIENT_LOCAL = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL


def panel_quality(reliability=RELIABLE, durability=VOLATILE, depth=1):
    return QoSProfile(depth=depth, reliability=reliability, durability=durability)


class Scene:
    """A robot with everything that watches it."""

    def __init__(self, bundle, stack):
        self.world = World(bundle, stack)
        self.observer = self.world.observer
        self.watchdog = []
        self.observer.node.create_subscription(
            String, "watchdog_node/state", lambda m: self.watchdog.append(m.data), LATCHED
        )
        self.world.start("watchdog_node")
        self.world.start_all()
        wait_for(lambda: self.watchdog, 15.0, "watchdog_node")

    def restart(self, name):
        """Start a node that has ended once more; the robot is disarmed then."""
        self.world.start(name)
        time.sleep(4.0)  # its services are known
        self.ready()

    @contextmanager
    def panel(self, name="panel", *, latched=False, reliability=RELIABLE):
        """A publisher of the emergency stop, in a node of its own."""
        node = rclpy.create_node(name, context=self.observer.context)
        durability = TRANSIENT_LOCAL if latched else VOLATILE
        quality = panel_quality(reliability, durability)
        publisher = node.create_publisher(Bool, "estop", quality)
        listeners = 2 * (2 + latched if reliability == RELIABLE else 1)  # of both nodes
        wait_for(lambda: publisher.get_subscription_count() >= listeners, 15.0, "listeners")
        time.sleep(0.3)  # the listeners know it a moment after it knows them
        try:
            yield lambda pressed: publisher.publish(Bool(data=pressed))
        finally:
            node.destroy_node()

    def call(self, name):
        return self.observer.call(Trigger, f"skill_node/{name}")

    def ask(self, name, *, answered=False):
        """Call a service and do not wait for it; or again until it is known to answer."""
        client = self.observer.client(Trigger, f"skill_node/{name}")
        for _ in range(10):
            future = client.call_async(Trigger.Request())
            deadline = time.monotonic() + 1.0
            while answered and not future.done() and time.monotonic() < deadline:
                time.sleep(0.005)
            if future.done() or not answered:
                return future
        pytest.fail(f"{name} is not answered")

    def drive(self):
        self.observer.heard["skill_node/trace"].clear()
        self.observer.drive()

    def ready(self):
        """Whatever was before, the robot is disarmed and nothing is latched."""
        answers = []

        def disarmed():
            # A panel that is gone counts as there until the graph has been looked at again, and
            # each node looks for itself; its last word may have reached one of them alone.
            watchdog = self.observer.call(Trigger, "watchdog_node/reset").message
            answers[:] = watchdog, self.call("reset").message, self.call("disarm").message
            time.sleep(0.1)
            latched = f"{STOPPED}: " in watchdog or f"{TRIPPED}: " in watchdog
            return self.observer.state().startswith("disarmed") and not latched

        wait_for(disarmed, 15.0, lambda: f"disarmed: {answers}, {self.observer.state()}")

    def nothing_moves(self, seconds=0.5):
        since = time.monotonic()
        time.sleep(seconds)
        assert not self.observer.commands(since).any()

    def assert_no_jump(self):
        """No command differs from the one before by more than the rate limit.

        Where the observer missed one, which stamps tell, by as much more.
        A session begins at the measured velocity, which is not quite 0 at rest.
        """
        path = self.observer.commands()
        ticks = self.observer.ticks_between()[: len(path)]
        steps = np.abs(np.diff(path, axis=0, prepend=0.0)).max(axis=1, initial=0.0)
        begins = ~np.concatenate([np.zeros((1, 2)), path])[:-1].any(axis=1)
        assert (steps <= RATE * ticks + np.where(begins, DRIFT, 1e-9)).all(), steps.max()
        LARGEST.append(float((steps / ticks)[~begins].max(initial=0.0)))

    def expect(self, cause, fault, since, bound):
        """The fault within its bound, and the robot at rest by the rate limit."""
        self.observer.wait(f"fault: {fault}", bound + 3.0)
        told = self.observer.times(f"fault: {fault}")[-1]
        safe = assert_brought_to_rest(self.observer, told) - since
        ROWS.append((cause, fault.partition(":")[0], told - since, bound, safe, LATCHED_SAFE))
        assert told - since < bound + SLACK


@pytest.fixture(scope="module", autouse=True)
def table():
    ROWS.clear()
    LARGEST.clear()
    yield
    tell(ROWS)
    if place := os.environ.get("MLSH_FAULTS"):
        with open(place, "a") as stream:
            stream.write(f"\nLargest step of a command: {max(LARGEST):.3f}, limit {RATE}\n")


@pytest.fixture(scope="module")
def scene(bundle):
    with new_domain() as stack:
        made = Scene(bundle, stack)
        yield made
        # The observer calls again where skill_node stood still, which it does in some tests.
        assert made.observer.refused <= made.observer.called / 10


@pytest.fixture(autouse=True)
def no_step_is_too_large(scene):
    """Over everything that a test does, from the first command on."""
    tripped = scene.watchdog[-1].startswith("tripped")
    for name, node in list(scene.world.nodes.items()):  # a test before this one failed
        if node.poll() is not None:
            scene.restart(name)
    if tripped or scene.observer.state() != "disarmed":
        scene.ready()
    scene.observer.heard["cmd_vel"].clear()
    yield
    scene.assert_no_jump()


# Lifecycle ---------------------------------------------------------------------------------------


def test_services_work_only_while_the_node_is_active(scene):
    observer = scene.observer
    scene.drive()
    assert observer.change("skill_node", Transition.TRANSITION_DEACTIVATE)
    observer.wait("disarmed")
    scene.nothing_moves()
    for service in ("arm", "start", "stop", "disarm", "reset"):
        answer = scene.call(service)
        assert not answer.success
        assert answer.message == f"cannot {service}: skill_node is not active; activate it"
    assert observer.change("skill_node", Transition.TRANSITION_ACTIVATE)
    scene.nothing_moves(1.0)
    assert observer.state() == "disarmed"
    scene.drive()
    scene.call("stop")
    scene.ready()


def test_a_fault_survives_the_lifecycle(scene):
    observer = scene.observer
    scene.drive()
    with scene.panel() as say:
        say(True)
        observer.wait("fault: estop")
        say(False)
    assert observer.change("skill_node", Transition.TRANSITION_DEACTIVATE)
    assert observer.change("skill_node", Transition.TRANSITION_ACTIVATE)
    assert observer.state().startswith("fault: estop")
    assert scene.call("arm").message.startswith("cannot arm: the state is fault: estop")
    scene.ready()


@pytest.mark.parametrize(("service", "after"), [("stop", "ready"), ("disarm", "disarmed")])
def test_a_service_brings_the_robot_to_rest(scene, service, after):
    scene.observer.client(Trigger, f"skill_node/{service}")  # before the time counts
    scene.drive()
    since = time.monotonic()
    assert scene.call(service).success
    ROWS.append(assert_ended_at_rest(scene.observer, f"~/{service}", since, DT, f"`{after}`"))
    scene.observer.wait(after)
    scene.ready()


def test_a_deactivation_brings_the_robot_to_rest(scene):
    scene.observer.client(ChangeState, "skill_node/change_state")  # before the time counts
    scene.drive()
    since = time.monotonic()
    assert scene.observer.change("skill_node", Transition.TRANSITION_DEACTIVATE)
    cause = "skill_node deactivated"
    ROWS.append(assert_ended_at_rest(scene.observer, cause, since, DT, "`disarmed`"))
    scene.nothing_moves()
    assert scene.observer.change("skill_node", Transition.TRANSITION_ACTIVATE)
    scene.ready()


# Emergency stop ----------------------------------------------------------------------------------


@pytest.mark.parametrize("latched", [False, True])
@pytest.mark.parametrize("reliability", [RELIABLE, BEST_EFFORT])
def test_a_pulse_of_any_panel_stops_the_robot(scene, latched, reliability):
    scene.drive()
    sort = f"{reliability.name.lower()}, {'latched' if latched else 'volatile'}"
    with scene.panel(latched=latched, reliability=reliability) as say:
        since = time.monotonic()
        say(True)
        say(False)  # back to back
        scene.expect(f"estop pressed and released at once ({sort})", "estop", since, DT)
    scene.ready()


def test_a_pulse_is_heard_while_a_bundle_is_loaded(scene, bundle):
    """Whatever the executor of skill_node does."""
    scene.drive()
    change = [Parameter("bundle", value=str(bundle.source)).to_parameter_msg()]
    with scene.panel() as say:
        client = scene.observer.node.create_client(SetParameters, "skill_node/set_parameters")
        assert client.wait_for_service(timeout_sec=15.0)
        time.sleep(0.3)
        loads = [client.call_async(SetParameters.Request(parameters=change)) for _ in range(5)]
        since = time.monotonic()
        say(True)
        say(False)
        scene.observer.wait("fault: estop", 2.0)
        assert scene.observer.times("fault")[-1] - since < 0.2
        wait_for(lambda: all(load.done() for load in loads), 20.0, "the bundle")
    scene.observer.clients["bundle"] = client  # kept, see Observer
    scene.ready()


@pytest.mark.parametrize("released", [True, False])
def test_a_stop_is_heard_while_a_robot_is_being_armed(scene, released):
    """Arming waits until a second has passed since the node was configured."""
    observer = scene.observer
    with scene.panel() as say:
        for _ in range(5):
            begun = len(observer.heard["skill_node/state"])
            for transition in ("DEACTIVATE", "CLEANUP", "CONFIGURE"):
                number = getattr(Transition, f"TRANSITION_{transition}")
                assert observer.change("skill_node", number)
            scene.ask("arm", answered=True)  # refused, as the node is not active
            assert observer.change("skill_node", Transition.TRANSITION_ACTIVATE)
            time.sleep(0.2)  # the panel is known
            armed = scene.ask("arm")
            time.sleep(0.1)
            if busy := not armed.done():
                say(True)
                if released:
                    say(False)
            wait_for(armed.done, 8.0, "an answer")
            if busy:
                break
            scene.ready()  # the machine was too busy to be asked in time
        assert busy
        said = {m.data for _, m in observer.heard["skill_node/state"][begun:]}
        assert said == {"disarmed"}
        assert not armed.result().success
        assert armed.result().message == (
            "cannot arm: topic 'estop' was true during the checks"
            if released
            else "cannot arm: estop: topic 'estop' is true, from /panel"
        )
        say(False)
        time.sleep(0.3)
    scene.ready()


def test_a_panel_that_was_pressed_before_the_nodes_came_is_heard(scene):
    scene.ready()
    with scene.panel(latched=True) as say:
        say(True)
        skill = scene.world.nodes["skill_node"]
        skill.terminate()
        skill.wait(10.0)
        scene.observer.heard["skill_node/state"].clear()
        scene.world.start("skill_node")
        scene.observer.wait("disarmed")
        refused = scene.call("arm")
        assert refused.message == "cannot arm: estop: topic 'estop' is true, from /panel"
        say(False)
        time.sleep(0.3)
        scene.observer.arm()
        assert scene.call("disarm").success


def test_no_panel_speaks_for_another(scene):
    scene.drive()
    with scene.panel("front", latched=True) as front, scene.panel("back") as back:
        front(True)
        scene.observer.wait("fault: estop: topic 'estop' is true, from /front")
        for _ in range(5):
            back(False)
            time.sleep(0.05)
        refused = scene.call("reset").message
        assert refused.endswith("is true, from /front; release it first")
        front(False)
        time.sleep(0.3)
        assert scene.call("reset").success
        time.sleep(0.3)
        scene.observer.arm()
        assert scene.call("disarm").success
        front(True)
        time.sleep(0.3)
    time.sleep(0.5)  # both are gone, and one said stop
    refused = scene.call("arm")
    assert refused.message.endswith("is true, from a publisher that is gone")
    assert scene.call("reset").success
    # watchdog_node has heard it too, and would trip as soon as the robot moves.
    held = "watchdog_node is stopped: topic 'estop' is true, from /front"
    assert scene.call("arm").message == f"cannot arm: {held}; reset it too"
    assert scene.observer.call(Trigger, "watchdog_node/reset").message == "watching"
    scene.observer.arm()
    assert scene.call("disarm").success
    scene.ready()


def test_garbage_on_the_emergency_stop_topic_harms_nobody(scene):
    with scene.panel() as say:
        node = rclpy.create_node("vandal", context=scene.observer.context)
        publisher = node.create_publisher(Bool, "estop", panel_quality(depth=10))
        wait_for(lambda: publisher.get_subscription_count() >= 4, 15.0, "listeners")
        for data in (b"\0\1\0\0", b"\0\1\0\0\0\0"):  # no value, and more than one
            publisher.publish(data)
        time.sleep(0.3)
        scene.drive()
        publisher.publish(b"\0\1\0\0")
        say(True)
        scene.observer.wait("fault: estop", 2.0)
        say(False)
        node.destroy_node()
        time.sleep(0.3)
    scene.ready()


# The watchdog is watched -------------------------------------------------------------------------


def test_the_robot_stops_when_its_watchdog_is_frozen(scene):
    scene.drive()
    watchdog = scene.world.nodes["watchdog_node"]
    since = time.monotonic()
    watchdog.send_signal(signal.SIGSTOP)
    try:
        lost = "watchdog_lost: the last heartbeat"
        scene.expect("watchdog_node stopped (SIGSTOP)", lost, since, HEARTBEAT_LOST)
        assert scene.call("reset").success
        assert scene.call("arm").message.startswith("cannot arm: watchdog_lost: the last heartb")
    finally:
        watchdog.send_signal(signal.SIGCONT)
    time.sleep(1.0)
    # Thawed, it has heard that the robot came to rest.
    scene.nothing_moves()
    scene.ready()


def test_the_robot_stops_when_its_watchdog_is_deactivated(scene):
    observer = scene.observer
    scene.drive()
    since = time.monotonic()
    assert observer.change("watchdog_node", Transition.TRANSITION_DEACTIVATE)
    lost = "watchdog_lost: watchdog_node is not active"
    scene.expect("watchdog_node deactivated", lost, since, HEARTBEAT_LOST)
    assert scene.call("reset").success
    assert scene.call("arm").message.startswith("cannot arm: watchdog_lost")
    assert observer.change("watchdog_node", Transition.TRANSITION_ACTIVATE)
    time.sleep(0.3)
    scene.drive()
    scene.call("stop")
    scene.ready()


def test_the_robot_stops_when_its_watchdog_is_killed(scene):
    scene.drive()
    since = time.monotonic()
    scene.world.nodes["watchdog_node"].kill()
    scene.expect("watchdog_node killed -9", "watchdog_lost", since, HEARTBEAT_LOST)
    scene.restart("watchdog_node")
    scene.observer.arm()  # not before DDS has forgotten the dead one
    scene.ready()


def test_a_watchdog_that_is_told_to_end_leaves_no_robot_moving(scene):
    scene.drive()
    watchdog = scene.world.nodes["watchdog_node"]
    since = time.monotonic()
    watchdog.terminate()
    scene.expect("watchdog_node told to end (SIGTERM)", "watchdog_lost", since, HEARTBEAT_LOST)
    assert watchdog.wait(10.0) == 0
    scene.restart("watchdog_node")
    scene.observer.arm()
    scene.ready()


def test_nodes_that_are_ended_together_report_no_fault(bundle):
    """As Ctrl-C and `ros2 launch` end them: watchdog_node watches until the robot is at rest."""
    with new_domain() as stack:
        world = World(bundle, stack)
        for name in ("watchdog_node", "sim_node", "master_node", "skill_node"):
            world.start(name)
        observer = world.observer
        wait_for(lambda: observer.heard["master_node/master"], 15.0, "master_node")
        observer.drive()
        nodes = list(world.nodes.values())
        for node in nodes:
            node.send_signal(signal.SIGINT)
        assert [node.wait(10.0) for node in nodes] == [0] * len(nodes)
        wait_for(lambda: observer.state() == "disarmed", 5.0, observer.state)
        assert not observer.times("fault")
        assert not observer.commands()[-1].any()


# One speaker for one thing -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "kind"), [("decision/response", Float64MultiArray), ("odom", Odometry)]
)
def test_a_second_publisher_is_named_and_stops_the_robot(scene, topic, kind):
    scene.drive()
    node = rclpy.create_node("intruder", context=scene.observer.context)
    since = time.monotonic()
    node.create_publisher(kind, topic, EXCHANGE)
    try:
        scene.expect(f"/intruder publishes {topic}", "second_publisher", since, LOOK)
        assert "/intruder" in scene.observer.state()
        assert topic in scene.observer.state()
        assert scene.call("reset").success
        assert "/intruder" in scene.call("arm").message
    finally:
        node.destroy_node()
    time.sleep(1.0)
    scene.ready()


def test_a_robot_without_a_driver_is_not_started_and_does_not_drive_on(bundle):
    """One that comes later would jump to the command of a robot that drives."""
    with new_domain() as stack:
        world = World(bundle, stack)
        world.start("sim_node")
        world.start("master_node")
        world.start("skill_node", "-r", "cmd_vel:=wheels")
        observer = world.observer
        wait_for(lambda: observer.heard["master_node/master"], 15.0, "master_node")
        wait_for(lambda: observer.heard["odom"], 15.0, "sensors")
        observer.arm()
        refused = observer.call(Trigger, "skill_node/start").message
        nobody = "no node but watchdog_node and recorder_node receives 'cmd_vel'"
        assert refused == f"cannot start: {nobody}; start the driver of the robot"
        with other_node("deaf") as deaf:  # DDS has one type for a topic in each participant
            deaf.create_subscription(Twist, "wheels", lambda _: None, EXCHANGE)
            expects = "/deaf expects geometry_msgs/msg/Twist on 'cmd_vel', which has geometry_msgs"
            start = partial(observer.call, Trigger, "skill_node/start")
            wait_for(lambda: expects in start().message, 10.0, "/deaf")
        with other_node("driver") as driver:
            wheels = driver.create_publisher(TwistStamped, "cmd_vel", EXCHANGE)
            driver.create_subscription(TwistStamped, "wheels", wheels.publish, EXCHANGE)
            wait_for(lambda: start().success, 10.0, "/driver")
            observer.wait("running", 2.0)
            time.sleep(0.5)
            since = time.monotonic()
        observer.wait("fault: no_receiver", LOOK + 3.0)
        assert observer.times("fault: no_receiver")[-1] - since < LOOK + 2 * SLACK


@contextmanager
def other_node(name):
    """A node of a participant of its own, which is spun."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node(name, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    spun = threading.Thread(target=executor.spin, daemon=True)
    spun.start()
    try:
        yield node
    finally:
        executor.shutdown()
        spun.join(5.0)
        node.destroy_node()
        context.shutdown()


def test_a_panel_of_another_type_is_named_and_stops_the_robot(scene):
    """It would press a button that nobody hears."""
    scene.drive()
    node = rclpy.create_node("odd", context=scene.observer.context)
    since = time.monotonic()
    node.create_publisher(Int8, "estop", EXCHANGE)
    try:
        scene.expect("estop of another type", "estop_lost", since, LOOK)
        said = "/odd publishes 'estop' as std_msgs/msg/Int8, which nobody hears"
        assert said in scene.observer.state()
        assert scene.call("reset").success
        assert said in scene.call("arm").message
    finally:
        node.destroy_node()
    time.sleep(1.0)
    scene.ready()


def test_a_second_publisher_of_a_remapped_topic_is_named():
    """The ROS graph has the names after remapping; no process is started here."""
    with new_domain():
        context = rclpy.Context()
        rclpy.init(context=context)
        rules = ["--ros-args", "-r", "odom:=base/odom", "-r", "/clock:=/one/clock"]
        node = rclpy.create_node("driver", context=context, cli_args=rules)
        other = rclpy.create_node("other", context=context)
        for topic in ("base/odom", "one/clock"):
            other.create_publisher(String, topic, EXCHANGE)
        for topic in ("odom", "/clock"):
            node.create_publisher(String, topic, EXCHANGE)
        expected = {
            Single("odom", own=True): "/other publishes 'odom' too",
            Single("/clock"): "/driver and /other publish '/clock'",
        }
        try:
            for single, text in expected.items():
                second = partial(SinglePublishers(node, [single]).second, patient=False)
                wait_for(second, 15.0, text)
                assert second().startswith(text)
            assert CoreNode.publisher_count(node, "odom") == 2
        finally:
            node.destroy_node()
            other.destroy_node()
            context.shutdown()


def test_answers_of_an_earlier_process_are_not_taken_again(scene):
    observer = scene.observer
    scene.drive()
    wait_for(lambda: len(observer.heard["decision/response"]) >= 3, 10.0, "answers")
    scene.call("stop")
    layout = response_layout(scene.world.bundle.manifest.skills)
    first = {int(layout.read(m)[0]["session"]) for _, m in observer.heard["decision/response"]}
    scene.call("disarm")
    skill = scene.world.nodes["skill_node"]
    skill.terminate()
    skill.wait(10.0)
    observer.heard["skill_node/state"].clear()
    observer.heard["decision/response"].clear()
    scene.world.start("skill_node")
    scene.drive()
    scene.call("stop")
    again = {int(layout.read(m)[0]["session"]) for _, m in observer.heard["decision/response"]}
    assert first
    assert again
    assert not first & again
    assert min(first | again) > 1000
    scene.ready()


# A process that stands still ---------------------------------------------------------------------


def test_a_thawed_skill_node_does_not_undo_what_the_watchdog_has_done(scene):
    scene.drive()
    skill = scene.world.nodes["skill_node"]
    skill.send_signal(signal.SIGSTOP)
    wait_for(lambda: scene.watchdog[-1].startswith("tripped"), 3.0, "watchdog")
    time.sleep(1.0)
    since = time.monotonic()
    skill.send_signal(signal.SIGCONT)
    scene.observer.wait("fault", 3.0)
    time.sleep(0.5)
    assert not scene.observer.commands(since).any()
    scene.ready()


class StopsByItself(Robot):
    """A base with a time-out of 0.5 s for its commands, as most drivers have."""

    def sees(self, reader, velocity, age=0):
        told = self.observer.heard["cmd_vel"]
        if not told or time.monotonic() - told[-1][0] > 0.5:
            velocity = np.zeros(2)
        return super().sees(reader, velocity, age)


def test_a_robot_that_came_to_rest_while_its_nodes_stood_still_is_not_moved(bundle):
    """As a container that is paused, or a computer that is suspended."""
    with new_domain() as stack:
        world = World(bundle, stack)
        observer = world.observer
        robot = StopsByItself(observer, topic_readers(bundle.interface.observation))
        stack.callback(robot.close)
        world.start("watchdog_node")
        world.start("master_node")
        world.start("skill_node")
        wait_for(lambda: observer.heard["master_node/master"], 15.0, "master_node")
        observer.drive()
        fast = lambda: np.abs(observer.commands()[-1:]).max(initial=0.0) > 0.6  # noqa: E731
        wait_for(fast, 20.0, lambda: observer.commands()[-3:])
        nodes = [world.nodes[name] for name in ("skill_node", "watchdog_node")]
        for each in nodes:
            each.send_signal(signal.SIGSTOP)
        time.sleep(3.0)
        since = time.monotonic()
        for each in nodes:
            each.send_signal(signal.SIGCONT)
        observer.wait("fault", 5.0)
        time.sleep(1.0)
        assert not observer.commands(since).any(), observer.commands(since)[:5]


@contextmanager
def teleop(observer):
    """Sends velocity commands, as a person with a joystick does."""
    node = rclpy.create_node("teleop", context=observer.context)
    publisher = node.create_publisher(TwistStamped, "cmd_vel", EXCHANGE)
    wait_for(lambda: publisher.get_subscription_count() >= 2, 15.0, "listeners")
    time.sleep(0.3)

    def send(x):
        message = TwistStamped()
        message.twist.linear.x = float(x)
        publisher.publish(message)

    try:
        yield send
    finally:
        node.destroy_node()


def test_a_watchdog_that_is_not_active_watches_nobody(bundle):
    """What somebody commanded meanwhile is over when it is activated."""
    with new_domain() as stack:
        world = World(bundle, stack)
        observer = world.observer
        world.start("watchdog_node", autostart=False)
        assert observer.change("watchdog_node", Transition.TRANSITION_CONFIGURE)
        with teleop(observer) as send:
            send(1.0)
            send(np.nan)
            time.sleep(0.5)
        since = time.monotonic()
        assert observer.change("watchdog_node", Transition.TRANSITION_ACTIVATE)
        time.sleep(1.0)
        assert not len(observer.commands(since))


class Rolls(Robot):
    """Rolls on, whatever it is told."""

    def sees(self, reader, velocity, age=0):
        return super().sees(reader, self.rolls, age)


def test_a_watchdog_brakes_from_what_is_measured_now_or_not_at_all(bundle):
    """A bad command after a reset: nothing is known but what odom said long ago."""
    with new_domain() as stack:
        world = World(bundle, stack)
        observer, states = world.observer, []
        observer.node.create_subscription(
            String, "watchdog_node/state", lambda m: states.append(m.data), LATCHED
        )
        robot = Rolls(observer, topic_readers(bundle.interface.observation))
        robot.rolls = np.array([0.9, 0.0])
        world.start("watchdog_node")
        wait_for(lambda: states == ["watching"], 15.0, lambda: states)
        with teleop(observer) as send:
            send(np.nan)
            braked = lambda: len(observer.commands()) > 3  # noqa: E731
            wait_for(braked, 5.0, lambda: observer.commands())
            sent = observer.commands()[1:]  # after that of the joystick
            np.testing.assert_allclose(sent[0], [0.4, 0.0], atol=1e-6)  # 0.5 less than it rolls
            robot.close()
            time.sleep(0.5)  # older than max_age
            assert observer.call(Trigger, "watchdog_node/reset").success
            since = time.monotonic()
            send(np.nan)
            wait_for(lambda: states[-1].startswith("tripped"), 5.0, lambda: states)
            time.sleep(0.5)
            sent = observer.commands(since)
            assert not sent[np.isfinite(sent).all(axis=1)].any(), sent


def test_a_tripped_watchdog_is_one_whatever_is_said_in_its_name(scene):
    """Such as by a recording that is played: its last word is latched."""
    with teleop(scene.observer) as send:
        send(np.nan)
        wait_for(lambda: scene.watchdog[-1].startswith("tripped"), 3.0, "watchdog")
    player = rclpy.create_node("player", context=scene.observer.context)
    publisher = player.create_publisher(String, "watchdog_node/state", LATCHED)
    wait_for(lambda: publisher.get_subscription_count() >= 2, 15.0, "listeners")
    publisher.publish(String(data="watching"))
    wait_for(lambda: scene.watchdog[-1] == "watching", 3.0, "the player")
    try:
        time.sleep(0.3)
        scene.call("reset")
        refused = lambda: scene.call("arm").message  # noqa: E731
        told = "cannot arm: watchdog_node is tripped; reset it first"
        wait_for(lambda: refused() == told, 5.0, refused)
    finally:
        player.destroy_node()
    scene.observer.heard["cmd_vel"].clear()  # what is no number is no step
    scene.ready()


def test_what_somebody_else_says_of_the_watchdog_prevents_nothing_for_ever(scene):
    """As a recording of a robot that was stopped: its last word is latched."""
    for word in ("tripped: of a recording", "stopped: of a recording"):
        player = rclpy.create_node("player", context=scene.observer.context)
        publisher = player.create_publisher(String, "watchdog_node/state", LATCHED)
        wait_for(lambda p=publisher: p.get_subscription_count() >= 2, 15.0, "listeners")
        publisher.publish(String(data=word))
        assert publisher.wait_for_all_acked(Duration(seconds=5))
        time.sleep(0.3)  # what has arrived has been read
        player.destroy_node()
        if word.startswith("stopped"):  # no heartbeat says otherwise, but watchdog_node does
            refused = f"cannot arm: watchdog_node is {word}; reset it too"
            assert scene.call("arm").message == refused
            answer = scene.observer.call(Trigger, "watchdog_node/reset")
            assert answer.message == "nothing to reset: watching"
        wait_for(lambda: scene.call("arm").success, 3.0, lambda: scene.call("arm").message)
        assert scene.call("disarm").success


# The launcher ------------------------------------------------------------------------------------


STAND_IN = f"""
import os, signal, subprocess, sys, time
os.environ[{LAUNCHER!r}] = str(os.getpid())
for name in sys.argv[2:]:
    command = ["-m", "mlsh_ros.nodes." + name, "--ros-args"]
    if name != "sim_node":
        command += ["-p", "bundle:=" + sys.argv[1]]
    print(subprocess.Popen([sys.executable, *command]).pid, flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_no_node_outlives_its_launcher(bundle, number):
    """A launcher of a few lines starts all nodes as a launch file does, and ends at once.

    No node gets a signal: each looks whether its launcher is there.
    """
    names = ["sim_node", "watchdog_node", "master_node", "skill_node"]
    with new_domain() as stack:
        world = World(bundle, stack)
        observer = world.observer
        launcher = subprocess.Popen(
            [sys.executable, "-c", STAND_IN, str(bundle.source), *names],
            stdout=subprocess.PIPE,
            text=True,
            env=world.environment,
        )
        stack.callback(launcher.kill)
        nodes = [int(launcher.stdout.readline()) for _ in names]
        stack.callback(kill_all, nodes)
        wait_for(lambda: observer.heard["master_node/master"], 30.0, "master_node")
        observer.wait("disarmed", 30.0)
        observer.drive()
        since = time.monotonic()
        launcher.send_signal(number)
        launcher.wait(5.0)
        cause = f"launcher ended ({number.name})"
        bound = LAUNCHER_LOST + DT
        ROWS.append(assert_ended_at_rest(observer, cause, since, bound, "the end of all nodes"))
        wait_for(lambda: not any(map(runs, nodes)), 10.0, "the nodes' end")


def kill_all(processes):
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def runs(process):
    """Whether a process runs; one that nobody waits for is a zombie."""
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


ENDINGS = [signal.SIGTERM, signal.SIGINT]  # of the process
LOST_TERMINAL = [signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP]


@pytest.mark.parametrize("number", ENDINGS + LOST_TERMINAL)
def test_a_signal_brings_the_robot_to_rest(bundle, number):
    with new_domain() as stack:
        world = World(bundle, stack)
        observer = world.start_all()
        observer.drive()
        process = world.nodes["skill_node"]
        since = time.monotonic()
        process.send_signal(number)
        cause = f"skill_node told to end ({number.name})"
        ROWS.append(assert_ended_at_rest(observer, cause, since, DT, "its end"))
        assert process.wait(10.0) == 0
        assert "Traceback" not in process.communicate()[0]


def test_a_robot_comes_to_rest_although_nobody_reads_what_the_nodes_say(bundle):
    """A terminal that is held (Ctrl-S) or a pager: what writes to it waits."""
    with new_domain() as stack:
        world = World(bundle, stack)
        for name in ("sim_node", "watchdog_node", "master_node", "skill_node"):
            world.start(name, full=True)
        observer = world.observer
        wait_for(lambda: observer.heard["master_node/master"], 15.0, "master_node")
        observer.drive()
        panel = observer.node.create_publisher(Bool, "estop", panel_quality())
        wait_for(lambda: panel.get_subscription_count() >= 4, 15.0, "listeners")
        panel.publish(Bool(data=True))
        observer.wait("fault: estop", 3.0)
        assert_brought_to_rest(observer, observer.times("fault")[-1])
        world.nodes["skill_node"].send_signal(signal.SIGTERM)
        assert world.nodes["skill_node"].wait(10.0) == 0


def test_no_node_has_a_file_open_for_writing(scene):
    """A disk may stand still: rclpy waits for it with every line of a log file, and all threads
    with it."""
    scene.drive()
    scene.call("stop")
    assert {name: written_files(node.pid) for name, node in scene.world.nodes.items()} == {
        name: [] for name in scene.world.nodes
    }
    scene.ready()


def written_files(process):
    """Files on a disk that a process has open for writing."""
    found = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            flags = Path(f"/proc/{process}/fdinfo/{link.name}").read_text().split()[3]
            file = link.resolve()
            memory = file.is_relative_to("/dev")  # also shared memory of DDS
            if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY and file.is_file() and not memory:
                found.append(str(file))
    return found


STUCK = """
import time
from mlsh_ros.nodes import node
from mlsh_ros.bringup.params import MASTER_NODE

class Stuck(node.CoreNode):
    def __init__(self):
        super().__init__("stuck", MASTER_NODE)
        self.create_timer(0.01, self.never_returns)

    def never_returns(self):
        print("stuck", flush=True)
        time.sleep(1000)

raise SystemExit(node.run(Stuck))
"""


def test_a_node_with_a_callback_that_never_returns_ends_all_the_same(bundle):
    with new_domain() as stack:
        environment = World(bundle, stack).environment
        process = subprocess.Popen(
            [sys.executable, "-c", STUCK],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout.readline() == "stuck\n"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30.0)
        assert time.monotonic() - began < RELEASE + 2.0
        assert process.returncode == -signal.SIGALRM
        assert "in never_returns" in errors  # where its thread stands


def test_a_finalized_node_has_no_services_and_sends_nothing(bundle):
    with new_domain() as stack:
        world = World(bundle, stack)
        observer = world.start_all()
        observer.drive()
        observer.client(ChangeState, "skill_node/change_state")  # before the time counts
        began = time.monotonic()
        assert observer.change("skill_node", Transition.TRANSITION_ACTIVE_SHUTDOWN)
        since = time.monotonic()
        cause = "skill_node shut down"
        ROWS.append(assert_ended_at_rest(observer, cause, began, DT, "finalized"))
        # One that nobody has a client of: those are listed too.
        names = lambda: dict(observer.node.get_service_names_and_types())  # noqa: E731
        wait_for(lambda: "/skill_node/disarm" not in names(), 5.0, "services are gone")
        time.sleep(0.5)
        assert not observer.commands(since).any()
        assert not observer.node.count_publishers("cmd_vel")


# Stops and starts --------------------------------------------------------------------------------


def test_a_robot_whose_watchdog_died_while_skill_node_stood_still_is_braked(bundle):
    """skill_node does not leave the robot to a watchdog_node that is not there."""
    with new_domain() as stack:
        world = World(bundle, stack)
        world.start("watchdog_node")
        observer = world.start_all()
        observer.drive()
        skill = world.nodes["skill_node"]
        skill.send_signal(signal.SIGSTOP)
        world.nodes["watchdog_node"].kill()
        time.sleep(0.4)  # longer than the patience of the watchdog
        assert observer.commands()[-1].any()
        skill.send_signal(signal.SIGCONT)
        wait_for(lambda: not observer.commands()[-1].any(), 5.0, lambda: observer.commands()[-3:])
        assert observer.state().startswith("fault")
        observer.assert_path(RATE)


def test_a_watchdog_that_brakes_is_not_reset(tmp_path):
    """Nor does a reset that is refused, or the lifecycle, make it forget what it watches."""
    robot = changed_robot(tmp_path / "slow", "omni", ("rate_limit: 5.0", "rate_limit: 0.4"))
    bundle = restless_bundle(tmp_path / "bundle", robot=robot)
    with new_domain() as stack:
        world = World(bundle, stack)
        world.start("watchdog_node")
        world.start("sim_node", robot=robot)
        world.start("master_node")
        world.start("skill_node")
        observer, states = world.observer, []
        observer.node.create_subscription(
            String, "watchdog_node/state", lambda m: states.append(m.data), LATCHED
        )
        wait_for(lambda: observer.heard["master_node/master"], 15.0, "master_node")
        observer.arm()
        assert observer.call(Trigger, "skill_node/start").success
        reset = lambda: observer.call(Trigger, "watchdog_node/reset")  # noqa: E731
        assert reset().message == "nothing to reset: watching"
        fast = lambda: np.abs(observer.commands()[-1:]).max(initial=0.0) > 0.5  # noqa: E731
        wait_for(fast, 40.0, lambda: f"{observer.state()} {observer.commands()[-3:]}")
        world.nodes["skill_node"].kill()
        assert reset().message == "nothing to reset: watching"  # and it watches on
        wait_for(lambda: states[-1].startswith("tripped"), 5.0, lambda: states)
        assert reset().message == "cannot reset: watchdog_node still brakes the robot"
        resting = lambda: not observer.commands()[-2:].any()  # noqa: E731
        wait_for(resting, 10.0, lambda: observer.commands()[-3:])
        observer.assert_path(0.04)
        down, up = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE
        cleanup, configure = Transition.TRANSITION_CLEANUP, Transition.TRANSITION_CONFIGURE
        for ways in ((down, up), (down, cleanup, configure, up)):
            for transition in ways:
                assert observer.change("watchdog_node", transition)
            since = time.monotonic()
            wait_for(lambda: states[-1].startswith("tripped"), 5.0, lambda: states)
            time.sleep(0.5)
            # The robot may have been moved by somebody else meanwhile.
            assert not len(observer.commands(since))
        answer = reset()
        assert answer.success, answer.message
        assert answer.message == "watching"


@pytest.mark.parametrize("pressed", [False, True])
def test_a_stop_that_takes_longer_than_anybody_waits_does_not_jump(tmp_path, pressed):
    """By the rate limit it takes over three seconds: (0.9 - 0.0) / 0.25 per second are 3.6 s.

    An emergency stop meanwhile is a fault at once, and braking goes on.
    """
    robot = changed_robot(
        tmp_path / "slow",
        "omni",
        ("rate_limit: 5.0", "rate_limit: 0.25"),
        ("safe_command: [0.0, 0.0]", "safe_command: [0.9, 0.9]"),
    )
    bundle = restless_bundle(tmp_path / "bundle", robot=robot)
    with new_domain() as stack:
        world = World(bundle, stack)
        world.start("watchdog_node")
        world.start("sim_node", robot=robot)
        world.start("master_node")
        world.start("skill_node")
        observer = world.observer
        wait_for(lambda: observer.heard["master_node/master"], 15.0, "master_node")
        observer.arm()
        assert observer.call(Trigger, "skill_node/start").success
        panel = observer.node.create_publisher(Bool, "estop", panel_quality(depth=10))
        wait_for(lambda: panel.get_subscription_count() >= 4, 15.0, "listeners")
        far = lambda: observer.commands()[-1:].min(initial=1.0) <= 0.025  # noqa: E731
        wait_for(far, 40.0, lambda: f"{observer.state()} {observer.commands()[-3:]}")
        began = time.monotonic()
        stopped = observer.client(Trigger, "skill_node/stop").call_async(Trigger.Request())
        if pressed:
            time.sleep(1.0)
            since = time.monotonic()
            panel.publish(Bool(data=True))
            panel.publish(Bool(data=False))
            observer.wait("fault: estop", 2.0)
            took = observer.times("fault: estop")[0] - since
            assert took < DT + SLACK
            assert not stopped.done()
        wait_for(stopped.done, 20.0, "an answer")
        assert stopped.result().success
        assert time.monotonic() - began > 3.0
        time.sleep(0.3)
        path = observer.commands()
        assert (path[-1] == 0.9).all()
        assert np.abs(np.diff(path, axis=0)).max() <= 0.025 + 1e-9
        if pressed:
            assert (
                np.diff(observer.commands(since), axis=0) >= -1e-9
            ).all()  # to 0.9, and no way back
        observer.wait("fault: estop" if pressed else "ready")


def test_a_session_begins_where_the_robot_is(patient_bundle):
    """A robot that rolls at 0.9 m/s when it is started; the rate limit is 0.5 m/s a tick."""
    with new_domain() as stack:
        world = World(patient_bundle, stack)
        robot = Robot(world.observer, topic_readers(patient_bundle.interface.observation))
        stack.callback(robot.close)
        robot.rolls = np.array([0.9, -0.9])
        world.start("master_node")
        world.start("skill_node")
        observer = world.observer
        wait_for(lambda: observer.heard["master_node/master"], 15.0, "master_node")
        observer.arm()
        assert observer.call(Trigger, "skill_node/start").success
        wait_for(lambda: len(observer.commands()), 10.0, observer.state)
        first = observer.commands()[0]
        assert np.abs(first - robot.rolls).max() <= RATE + 1e-9
        assert np.abs(first).max() > 0.3  # from the safe command it could be 0.5 away from 0 only


def test_a_robot_beyond_the_limit_of_its_commands_is_not_started(patient_bundle):
    with new_domain() as stack:
        world = World(patient_bundle, stack)
        robot = Robot(world.observer, topic_readers(patient_bundle.interface.observation))
        stack.callback(robot.close)
        robot.rolls = np.array([1.6, 0.0])
        world.start("master_node")
        world.start("skill_node")
        observer = world.observer
        wait_for(lambda: observer.heard["master_node/master"], 15.0, "master_node")
        observer.arm()
        assert observer.call(Trigger, "skill_node/start").success
        observer.wait("fault", 10.0)
        # Which of the two comes first is no matter: omni has a limit on what it measures, too.
        assert observer.state().startswith(("fault: start_out_of_limit", "fault: limit"))
        assert not len(observer.commands())


def test_a_simulation_in_lockstep_may_stand_still(bundle):
    """As long as it likes, up to the patience of skill_node: nobody counts seconds there."""
    with new_domain() as stack:
        world = World(bundle, stack)
        world.start("watchdog_node", mode="lockstep")
        world.start("sim_node", mode="lockstep")
        world.start("master_node")
        world.start("skill_node", mode="lockstep")
        observer = world.observer
        wait_for(lambda: observer.heard["master_node/master"], 15.0, "master_node")
        observer.arm()
        assert observer.call(Trigger, "skill_node/start").success
        wait_for(lambda: len(observer.heard["skill_node/trace"]) > 20, 20.0, observer.state)
        sim = world.nodes["sim_node"]
        sim.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        sim.send_signal(signal.SIGCONT)
        ticks = len(observer.heard["skill_node/trace"])
        wait_for(
            lambda: len(observer.heard["skill_node/trace"]) > ticks + 20, 20.0, observer.state
        )
        assert observer.state() == "running"
        assert observer.call(Trigger, "skill_node/stop").success
        time.sleep(0.3)
        assert np.abs(np.diff(observer.commands(), axis=0)).max() <= RATE + 1e-9
