"""The client of a graph: it never hangs, and what it records is one whole episode."""

import os
import subprocess
import sys
import threading
import time
from array import array
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from lifecycle_msgs.msg import State as LifecycleState
from lifecycle_msgs.srv import GetState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from mlsh_ros.evaluation import ros_rollout as remote_module
from mlsh_ros.evaluation.backends import run_ros
from mlsh_ros.evaluation.case import resolve_cases
from mlsh_ros.evaluation.ros_rollout import Remote
from mlsh_ros.messages.labeled_array import OUTCOME, trace_layout
from mlsh_ros.nodes.node import LATCHED, TRACE, array_message
from sim.errors import UserError
from tests.support.bundles import fresh_domain

# Bookkeeping, without ROS -----------------------------------------------------------------------


def message(layout, values):
    dim = SimpleNamespace(label=layout.label)
    return SimpleNamespace(layout=SimpleNamespace(dim=[dim]), data=array("d", values))


class Feed:
    """A Remote that hears what a test tells it."""

    def __init__(self, bundle):
        self.remote = Remote(bundle)
        interface = bundle.interface
        self.layout = trace_layout(interface.observation_names, interface.action_names)

    def trace(self, session, tick):
        rest = [0] * (self.layout.size - 2)
        self.remote._on_trace(message(self.layout, [session, tick, *rest]))

    def outcome(self, episode, tick, done=False):
        self.remote._on_outcome(message(OUTCOME, [episode, tick, 0.5, 0, done]))

    def record(self, number):
        return self.remote._record("family/task", "master", number, False)


@pytest.fixture
def feed(bundle, monkeypatch):
    monkeypatch.setattr(remote_module, "CALL", 0.5)
    return Feed(bundle)


def test_an_episode_is_the_ticks_of_its_session_only(feed):
    feed.trace(1, 49)  # of the session before, late
    for tick in range(3):
        feed.trace(2, tick)
        feed.outcome(7, tick, done=tick == 2)
    feed.trace(2, 3)  # ticked once more before it was stopped
    episode = feed.record(7)
    assert len(episode.skill) == len(episode.reward) == 3
    assert episode.value == 1.5
    assert episode.observation.dtype == np.float32


def test_a_trace_that_comes_after_its_outcome_is_awaited(feed):
    feed.trace(1, 0)
    feed.outcome(0, 0)
    feed.outcome(0, 1, done=True)
    timer = threading.Timer(0.1, feed.trace, (1, 1))
    timer.start()
    assert len(feed.record(0).skill) == 2
    timer.join()


def test_an_episode_may_take_its_time_but_not_fall_silent(feed, monkeypatch):
    """Three ticks, each well within the patience of 0.5 s and together beyond it; then nothing."""
    for name in ("set_parameters", "trigger", "_check"):
        monkeypatch.setattr(feed.remote, name, lambda *_, **__: None)

    def tell():
        for tick in range(3):
            time.sleep(0.3)
            feed.outcome(0, tick)

    thread = threading.Thread(target=tell)
    thread.start()
    with pytest.raises(UserError, match=r"of t: 3 of 9 ticks, then nothing for 0\.5 s"):
        feed.remote.run_episode(task="t", master="m", seed=0, number=0, ticks=9, realtime=False)
    thread.join()


def test_lost_messages_are_an_error_not_a_shorter_episode(feed):
    feed.trace(1, 0)
    feed.outcome(0, 0)
    feed.outcome(0, 1, done=True)
    with pytest.raises(UserError, match=r"1 traces for 2 ticks.*lost"):
        feed.record(0)
    feed.remote._outcomes.pop(0)
    with pytest.raises(UserError, match="lost"):
        feed.record(0)


# Against nodes that misbehave -------------------------------------------------------------------


class Impostor:
    """Some node that has the names of ours."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("skill_node", context=self.context)
        self.state = self.node.create_publisher(String, "~/state", LATCHED)
        self.trace = self.node.create_publisher(Float64MultiArray, "~/trace", TRACE)
        self.release = threading.Event()
        self.node.create_service(Trigger, "~/silent", self._silent)
        self.node.create_service(Trigger, "~/no", self._no)
        self.node.create_service(Trigger, "~/later", self._later)
        self.node.create_service(Trigger, "~/soon", self._soon)
        self.calls = 0  # of `later` and `soon`
        self.asked = 0  # how it is
        self.node.create_service(
            GetState,
            "~/get_state",
            self._lose_the_first_answer,
            callback_group=ReentrantCallbackGroup(),
        )
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()

    def _spin(self):
        while not self.closing.is_set():
            self.executor.spin_once(timeout_sec=0.05)

    async def _lose_the_first_answer(self, _, response):
        self.asked += 1
        if self.asked == 1:
            await Future()
        response.current_state.id = LifecycleState.PRIMARY_STATE_ACTIVE
        return response

    def _silent(self, _, response):
        self.release.wait(10.0)
        return response

    def _no(self, _, response):
        response.message = "because"
        return response

    def _soon(self, _, response):
        self.calls += 1
        response.success = self.calls > 2
        response.message = "cannot start: no node receives 'cmd_vel'"
        return response

    def _later(self, _, response):
        self.calls += 1
        response.success = self.calls > 2
        response.message = "cannot arm: this request may be an old one; call again"
        return response

    def close(self):
        self.release.set()
        self.closing.set()
        self.thread.join()  # before anything that it uses goes away
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def impostor(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(fresh_domain()))
    monkeypatch.setattr(remote_module, "CALL", 2.0)
    monkeypatch.setattr(remote_module, "START_UP", 1.0)
    made = Impostor()
    yield made
    made.close()


@pytest.mark.ros
@pytest.mark.realtime
def test_the_client_gives_up_by_name_instead_of_waiting_for_ever(bundle, impostor):
    dead = []

    def alive():
        if dead:
            raise UserError("sim_node ended with SIGKILL")

    with Remote(bundle, alive=alive) as remote:
        with pytest.raises(UserError, match="'skill_node/no' refuses: because"):
            remote.trigger("skill_node/no")
        with pytest.raises(UserError, match="'skill_node/absent' is not available"):
            remote.trigger("skill_node/absent")
        with pytest.raises(UserError, match="node 'absent' is not available"):
            remote.set_parameters("absent", x=1)
        with pytest.raises(UserError, match="master_node is not active after 1 s"):
            remote.wait_until_active("master_node")
        threading.Timer(0.3, dead.append, (1,)).start()
        start = time.monotonic()
        with pytest.raises(UserError, match="sim_node ended"):
            remote.trigger("skill_node/silent")
        assert time.monotonic() - start < 1.5
        dead.clear()
        impostor.release.set()


@pytest.mark.ros
@pytest.mark.realtime
def test_a_service_that_asks_for_another_call_is_called_again(bundle, impostor, monkeypatch):
    monkeypatch.setattr(remote_module, "PAUSE", 0.1)
    with Remote(bundle) as remote:
        remote.trigger("skill_node/later")
        assert impostor.calls == 3
        impostor.calls = -20
        with pytest.raises(UserError, match=r"refuses: cannot arm: .*; call again"):
            remote.trigger("skill_node/later")
        assert impostor.calls == -10


@pytest.mark.ros
@pytest.mark.realtime
def test_a_refusal_may_be_over_when_nodes_have_discovered_each_other(
    bundle, impostor, monkeypatch
):
    monkeypatch.setattr(remote_module, "PAUSE", 0.1)
    with Remote(bundle) as remote:
        with pytest.raises(UserError, match="refuses: cannot start: no node receives"):
            remote.trigger("skill_node/soon")
        assert impostor.calls == 1
        remote.trigger("skill_node/soon", 5.0)
        assert impostor.calls == 3
        start = time.monotonic()
        with pytest.raises(UserError, match="'skill_node/no' refuses: because"):
            remote.trigger("skill_node/no", 0.5)
        assert 0.5 <= time.monotonic() - start < 2.0


@pytest.mark.ros
@pytest.mark.realtime
def test_a_lost_answer_is_asked_for_again(bundle, impostor, monkeypatch):
    monkeypatch.setattr(remote_module, "START_UP", 10.0)
    monkeypatch.setattr(remote_module, "AGAIN", 0.3)
    impostor.state.publish(String(data="ready"))
    with Remote(bundle) as remote:
        remote.wait_until_active("skill_node")
    assert impostor.asked == 2


@pytest.mark.ros
@pytest.mark.realtime
def test_a_service_that_never_answers_and_a_trace_of_another_bundle(bundle, impostor):
    with Remote(bundle) as remote:
        with pytest.raises(UserError, match="'skill_node/silent' does not answer within 2 s"):
            remote.trigger("skill_node/silent")
        other = array_message(trace_layout(("other.0",), ("wheel.0",)))
        other.data = [0.0] * 11
        impostor.trace.publish(other)
        deadline = time.monotonic() + 5
        while remote._fault is None and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(UserError, match="cannot be used: its element"):
            remote.trigger("skill_node/silent")
        impostor.release.set()


# Against the real ones --------------------------------------------------------------------------


def children(word):
    """Processes that we have started whose command line has a word."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_text()
        except OSError:
            continue
        if parent == os.getpid() and word in command:
            found.append(int(folder.name))
    return found


@pytest.mark.ros
@pytest.mark.realtime
@pytest.mark.parametrize("victim", ["sim_node", "master_node", "skill_node"])
def test_a_node_that_dies_ends_the_evaluation_by_name_and_leaves_no_process(bundle, victim):
    killed = []

    def kill(trace, value):
        if trace["tick"] > 5 and not killed:
            (number,) = children(f"mlsh_ros.nodes.{victim}")
            killed.append(time.monotonic())
            os.kill(number, 9)

    cases = resolve_cases(bundle, master="goal-0")
    domain = fresh_domain()
    with pytest.raises(UserError, match=f"{victim} ended with SIGKILL"):
        run_ros(cases, episodes=1, seed=0, mode="realtime", domain=domain, on_tick=kill)
    assert time.monotonic() - killed[0] < 6.0
    assert children("mlsh_ros.nodes") == []


@pytest.mark.ros
def test_an_interruption_leaves_no_process(bundle):
    def interrupt(trace, value):
        raise KeyboardInterrupt

    cases = resolve_cases(bundle, master="goal-0")
    with pytest.raises(KeyboardInterrupt):
        run_ros(
            cases,
            episodes=1,
            seed=0,
            mode="lockstep",
            domain=fresh_domain(),
            on_tick=interrupt,
        )
    assert children("mlsh_ros.nodes") == []


@pytest.mark.slow
@pytest.mark.ros
def test_two_evaluations_in_one_domain_do_not_disturb_each_other(bundle, tmp_path):
    domain = str(fresh_domain())
    command = [sys.executable, "-m", "mlsh_ros.cli.main", "evaluate", str(bundle.source)]
    command += ["--backend", "ros", "--domain", domain]
    command += ["--episodes", "3", "--master", "goal-0", "-o"]
    both = [
        subprocess.Popen(
            [*command, str(tmp_path / str(i))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [p.returncode for p in both] == [0, 0], said
    one, other = ((tmp_path / str(i) / "report.json").read_text() for i in range(2))
    assert one == other
