"""Real nodes as processes, and an observer of what they send."""

import os
import threading
import time
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from tests.support.bundles import domain
from tests.support.node_process import NodeProcess

rclpy = pytest.importorskip("rclpy")
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from mlsh_ros.messages.labeled_array import response_layout, trace_layout
from mlsh_ros.messages.topics import CALL_AGAIN
from mlsh_ros.nodes.node import EXCHANGE, LATCHED, SENSOR, TRACE

rclpy = pytest.importorskip("rclpy")

DT = 0.1  # s, a tick of omni

N = 5  # ticks of a macro step of the restless bundle

RATE = 0.5  # m/s, that the command may change in a tick

MAX_AGE = 0.3  # s, of odom

START_TIMEOUT = 1.2  # s, given to skill_node where nothing comes; 5 otherwise

LATE_DECISIONS = 2  # given to skill_node

SLACK = 0.25  # s, for a machine that has other work

LATCHED_SAFE = "safe command, latched"

HEAD = "| cause | fault | detected after (s) | bound (s) | safe command after (s) | action |\n"


def tell(rows, *, head=""):
    """Write measured reactions to faults to the end of the file that MLSH_FAULTS names, if any.

    A row is (cause, fault, s until it was detected, bound in s, s until the safe command, action).
    """
    if place := os.environ.get("MLSH_FAULTS"):
        lines = [
            f"| {cause} | `{fault}` | {took:.3f} | {bound:.2f} | {safe:.3f} | {action} |\n"
            for cause, fault, took, bound, safe, action in rows
        ]
        with open(place, "a") as stream:
            stream.write(head + "".join(lines))


def wait_for(happened, timeout, what):
    deadline = time.monotonic() + timeout
    while not (value := happened()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.01)
    return value


class Observer:
    """Another computer in the graph: keeps what it hears, with the time of its publication."""

    def __init__(self, bundle, namespace=""):
        interface = bundle.interface
        self.traces = trace_layout(interface.observation_names, interface.action_names)
        self.answers = response_layout(bundle.manifest.skills)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("observer", context=self.context, namespace=namespace)
        self.heard = {}
        self.epoch = time.time() - time.monotonic()  # s, of the clock of publishers
        for topic, kind, quality in (
            ("cmd_vel", TwistStamped, TRACE),  # every command, not the newest only
            ("skill_node/state", String, LATCHED),
            ("master_node/master", String, LATCHED),
            ("skill_node/trace", Float64MultiArray, TRACE),
            ("decision/response", Float64MultiArray, EXCHANGE),
            ("odom", Odometry, SENSOR),
        ):
            self.heard[topic] = []
            self.node.create_subscription(kind, topic, self._keeper(topic), quality)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.clients = {}  # kept: rclpy may still be waiting on one that is destroyed
        self.called = self.refused = 0  # requests, and those that were to be called again
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()

    def _spin(self):
        while not self.closing.is_set():
            self.executor.spin_once(timeout_sec=0.05)

    def _keeper(self, topic):
        # When it was published: this process may stand still, and then take the messages of one
        # topic before earlier ones of another.
        def keep(message, info):
            published = info["source_timestamp"] * 1e-9 - self.epoch
            self.heard[topic].append((published, message))

        return keep

    def destroy(self, publisher):
        """In the thread that waits for its events; in another one rclpy may end that thread."""
        done = self.executor.create_task(self.node.destroy_publisher, publisher)
        wait_for(done.done, 5.0, f"the end of the publisher of {publisher.topic_name}")

    def close(self):
        self.closing.set()
        self.thread.join()  # before anything that it uses goes away
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def client(self, kind, name):
        """The client of a service, known to it."""
        if new := name not in self.clients:
            self.clients[name] = self.node.create_client(kind, name)
        assert self.clients[name].wait_for_service(timeout_sec=15.0), name
        if new:
            self.greet(name.rpartition("/")[0])
        return self.clients[name]

    def call(self, kind, name, timeout=8.0, **values):
        client = self.client(kind, name)
        deadline = time.monotonic() + 5.0
        while True:
            future = client.call_async(kind.Request(**values))
            wait_for(future.done, timeout, f"answer of {name}")
            answer = future.result()
            # skill_node stood still, or the machine is so busy that it seems to have.
            again = kind is Trigger and answer.message.endswith(CALL_AGAIN)
            self.called, self.refused = self.called + 1, self.refused + again
            if not again or time.monotonic() > deadline:
                return answer
            time.sleep(0.2)

    def greet(self, node):
        """Until the node knows where to send its answers; see Remote._know_each_other."""
        client = self.node.create_client(GetState, f"{node}/get_state")
        self.clients[client] = client
        assert client.wait_for_service(timeout_sec=15.0), node
        for _ in range(15):
            future = client.call_async(GetState.Request())
            deadline = time.monotonic() + 1.0
            while not future.done() and time.monotonic() < deadline:
                time.sleep(0.005)
            if future.done():
                return
        pytest.fail(f"{node} does not answer")

    def state(self):
        return self.heard["skill_node/state"][-1][1].data if self.heard["skill_node/state"] else ""

    def times(self, state):
        """When a state that begins so was told."""
        told = self.heard["skill_node/state"]
        return [t for t, message in told if message.data.startswith(state)]

    def commands(self, after=0.0):
        """(n, 2) commands after a time."""
        told = [m.twist.linear for t, m in self.heard["cmd_vel"] if t > after]
        return np.array([(v.x, v.y) for v in told]).reshape(-1, 2)

    def ticks_between(self):
        """(n,) ticks since the command before, by their stamps; at least 1."""
        stamps = [m.header.stamp for _, m in self.heard["cmd_vel"]]
        moments = np.array([s.sec + s.nanosec * 1e-9 for s in stamps])
        return np.maximum(1, np.round(np.diff(moments, prepend=moments[:1]) / DT))

    def assert_path(self, rate):
        """No command differs from the one before by more than `rate` for each tick between."""
        path = self.commands()
        ticks = self.ticks_between()[1 : len(path)]
        steps = np.abs(np.diff(path, axis=0)).max(axis=1)
        assert (steps <= rate * ticks + 1e-6).all(), steps.max()

    def safe_since(self):
        """When the first of the safe commands came that were the last ones."""
        told = [(t, m.twist.linear) for t, m in self.heard["cmd_vel"]]
        moving = [t for t, v in told if v.x or v.y]
        return min(t for t, _ in told if t > max(moving, default=0.0))

    def ticks(self):
        return [self.traces.read(m)[0] for _, m in list(self.heard["skill_node/trace"])]

    def wait(self, state, timeout=15.0):
        happened = lambda: self.state().startswith(state)  # noqa: E731
        wait_for(happened, timeout, lambda: f"{state}; it is {self.state()}")

    def arm(self):
        self.wait("disarmed")
        answer = self.call(Trigger, "skill_node/arm")
        deadline = time.monotonic() + 25.0
        # skill_node hears of the reset of a watchdog_node with the next heartbeat.
        passing = (
            "a killed node is remembered",
            "watchdog_node is tripped",
            "no heartbeat of watchdog_node has come",  # discovery on a busy machine
        )
        while any(p in answer.message for p in passing) and time.monotonic() < deadline:
            time.sleep(0.5)
            answer = self.call(Trigger, "skill_node/arm")
        assert answer.success, answer.message
        self.wait("ready")

    def drive(self):
        """Start, and wait until the robot has been moving for a while."""
        self.arm()
        wait_for(lambda: self.heard["odom"], 15.0, "sensors")
        answer = self.call(Trigger, "skill_node/start")
        assert answer.success, answer.message
        self.wait_until_it_moves()

    def wait_until_it_moves(self):
        """Until the robot has been moving for a while."""
        # Past the first decision, and fast enough that coming to rest takes more than a tick.
        wait_for(
            lambda: (
                len(self.heard["skill_node/trace"]) > N + 3
                and np.abs(self.commands()[-1:]).max(initial=0.0) > RATE
            ),
            20.0,
            lambda: f"moving: {self.state()}, {self.ticks()[-3:]}, {self.commands()[-5:]}",
        )

    def change(self, node, transition, *, illegal=False):
        values = {"transition": Transition(id=transition)}
        try:
            patience = 0.3 if illegal else 8.0
            return self.call(ChangeState, f"{node}/change_state", patience, **values).success
        except pytest.fail.Exception:
            if illegal:
                return False  # Jazzy gives no answer, Kilted says no
            raise

    def lifecycle(self, node):
        return self.call(GetState, f"{node}/get_state").current_state.label


class World:
    """Some nodes of one domain, and their observer."""

    def __init__(self, bundle, stack):
        self.bundle, self.stack = bundle, stack
        self.nodes = {}
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.observer = Observer(bundle)
        stack.callback(self.observer.close)

    def start(self, name, *arguments, **parameters):
        if name != "sim_node":
            parameters.setdefault("bundle", str(self.bundle.source))
        if name == "skill_node":
            parameters.setdefault("max_late_decisions", LATE_DECISIONS)
            parameters.setdefault("watchdog", "watchdog_node" in self.nodes)
        self.nodes[name] = launch(name, *arguments, env=self.environment, **parameters)
        self.stack.callback(end, self.nodes[name])
        return self.nodes[name]

    def start_all(self, **skill):
        # First what takes longest.
        self.start("sim_node")
        self.start("master_node")
        self.start("skill_node", **skill)
        wait_for(lambda: self.observer.heard["master_node/master"], 15.0, "master_node")
        return self.observer


def launch(name, *arguments, env=None, full=False, **parameters):
    command = ["--ros-args"]
    for key, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        command += ["-p", f"{key}:={text}"]
    return NodeProcess(name, [*command, *arguments], dict(env or os.environ), full=full)


def end(process):
    if process.poll() is None:
        process.kill()
    if not process.stdout.closed:
        said, _ = process.communicate()
        print(f"node {process.pid} said: {said[-4000:]}")  # shown if the test fails


@contextmanager
def new_domain():
    with domain() as number, pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("ROS_DOMAIN_ID", str(number))
        yield stack


def assert_ended_at_rest(observer, cause, since, bound, after):
    """What was done at `since` ended the session within `bound`, and brought the robot to rest.

    Returns:
        a row of the table of faults, see `tell`.
    """
    ends = lambda: [  # noqa: E731
        (t, m.data)
        for t, m in list(observer.heard["skill_node/state"])
        if t > since and m.data != "running"
    ]
    (told, state), *_ = wait_for(ends, bound + 3.0, lambda: f"an end; it is {observer.state()}")
    assert state == "stopping", state  # no fault
    safe = assert_brought_to_rest(observer, told) - since
    assert told - since < bound + SLACK, (cause, told - since, bound)
    observer.assert_path(RATE)
    return cause, state, told - since, bound, safe, f"safe command, then {after}"


def assert_brought_to_rest(observer, since):
    """The commands after `since` go to the safe one by the rate limit and stay there.

    Returns:
        when the first safe command came.
    """
    wait_for(lambda: len(c := observer.commands(since)) and not c[-1].any(), 3.0, "safe command")
    time.sleep(2.5 * DT)
    path = observer.commands(since - 2.5 * DT)
    assert not path[-1].any()
    assert np.abs(np.diff(path, axis=0)).max() <= RATE + 1e-9
    rest = observer.commands(since)
    assert (np.diff(np.abs(rest), axis=0) <= 1e-9).all()  # never faster again
    assert np.isfinite(observer.commands()).all()
    return observer.safe_since()
