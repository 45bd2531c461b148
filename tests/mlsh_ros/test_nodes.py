"""The real nodes, each in its own process, over real DDS on this computer."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from mlsh_ros.evaluation.backends import run_offline, run_ros
from mlsh_ros.evaluation.case import resolve_cases
from mlsh_ros.messages.conversion import topic_readers
from mlsh_ros.nodes.node import EXCHANGE, LATCHED, message_type
from tests.support.bundles import changed_robot, fresh_domain, restless_bundle, wide_bundle
from tests.support.nodes import (
    DT,
    HEAD,
    LATCHED_SAFE,
    RATE,
    SLACK,
    START_TIMEOUT,
    N,
    Observer,
    World,
    assert_brought_to_rest,
    end,
    launch,
    new_domain,
    rclpy,
    tell,
    wait_for,
)
from tests.support.wire_robot import good

pytestmark = [pytest.mark.ros, pytest.mark.realtime]


HEAD += "|---|---|---|---|---|---|\n"


@pytest.fixture
def world(bundle):
    with new_domain() as stack:
        yield World(bundle, stack)


# Start, stop, fault ---------------------------------------------------------------------------


def test_a_robot_is_not_started_without_master_and_sensors(world):
    """Whenever they came it would begin to move, with nobody prepared for it."""
    observer = world.observer
    world.start("skill_node")
    observer.wait("disarmed")
    refused = observer.call(Trigger, "skill_node/start")
    disarmed = "cannot start: the state is disarmed; arm first"
    assert (refused.success, refused.message) == (False, disarmed)
    for service in ("disarm", "reset"):
        refused = observer.call(Trigger, f"skill_node/{service}")
        assert refused.message == f"cannot {service}: the state is disarmed"

    observer.arm()
    refused = observer.call(Trigger, "skill_node/start")
    silent = "cannot start: no node publishes 'decision/response'; master_node must be running"
    assert (refused.success, refused.message) == (False, silent)
    world.start("master_node")
    wait_for(lambda: observer.heard["master_node/master"], 15.0, "master_node")
    refusal = lambda: observer.call(Trigger, "skill_node/start").message  # noqa: E731
    blind = (
        "cannot start: sensors without recent messages: odom (never received), goals (never "
        "received)"
    )
    # skill_node may find the master's publisher a moment after the observer has.
    wait_for(lambda: refusal() == blind, 5.0, refusal)
    assert observer.state() == "ready"
    time.sleep(1.0)
    assert observer.heard["cmd_vel"] == []
    assert observer.heard["decision/response"] == []


def test_a_robot_faults_whose_sensors_end_as_it_starts(world):
    observer = world.start_all(start_timeout=START_TIMEOUT)
    for _ in range(2):  # and again after the reset
        wait_for(lambda: observer.heard["odom"], 15.0, "sensors")
        observer.arm()
        observer.heard["cmd_vel"].clear()
        start_as_sensors_end(world)
        begun = time.monotonic()
        unheard = "odom (never received), goals (never received)"
        observer.wait(f"fault: sensors_missing: nothing usable within 1.2 s: {unheard}", 5.0)
        assert observer.times("fault")[-1] - begun < START_TIMEOUT + SLACK
        # Nothing was commanded, so there is nothing to brake from: to send the safe command to a
        # robot that is somewhere else would make it jump.
        assert not len(observer.commands())
        # Latched: no start, and a newcomer hears of it.
        refused = observer.call(Trigger, "skill_node/start")
        assert not refused.success
        assert refused.message.startswith("cannot start: the state is fault: sensors_missing")
        newcomer = Observer(world.bundle)
        newcomer.wait("fault: sensors_missing", 5.0)
        newcomer.close()
        assert observer.call(Trigger, "skill_node/reset").success
        observer.wait("disarmed", 2.0)
        assert not observer.call(Trigger, "skill_node/reset").success
        world.nodes["sim_node"].send_signal(signal.SIGCONT)
        time.sleep(0.3)  # sensors are fresh again

    # A stop while it waits is a stop, not a fault.
    observer.arm()
    start_as_sensors_end(world)
    assert observer.call(Trigger, "skill_node/stop").success
    observer.wait("ready", 2.0)
    assert observer.call(Trigger, "skill_node/disarm").success
    observer.wait("disarmed", 2.0)


def start_as_sensors_end(world):
    """Nothing comes from the moment on at which the robot is started."""
    for _ in range(20):
        world.nodes["sim_node"].send_signal(signal.SIGSTOP)
        if world.observer.call(Trigger, "skill_node/start").success:
            return
        world.nodes["sim_node"].send_signal(signal.SIGCONT)  # it took longer than MAX_AGE
        time.sleep(0.2)
    pytest.fail("not started")


def test_a_robot_that_is_to_be_recorded_does_not_start_before_the_recorder_hears(world):
    observer = world.observer
    world.start_all(require_recorder=True)
    wait_for(lambda: observer.heard["odom"], 15.0, "sensors")
    observer.arm()

    def refusal():
        answer = observer.call(Trigger, "skill_node/start")
        assert not answer.success
        observer.wait("ready", 2.0)
        return answer.message

    way_out = "set require_recorder to false to go on without a recording"
    assert refusal() == f"cannot start: recorder_node is not there; {way_out}"
    recorder = observer.node.create_publisher(String, "recorder_node/state", LATCHED)
    said = ["waiting: odom, goals"]
    repeats = observer.node.create_timer(0.1, lambda: recorder.publish(String(data=said[0])))
    for text in (said[0], "fault: no space left on device", "ended"):
        said[0] = text
        wait_for(lambda text=text: text in refusal(), 5.0, text)
        assert refusal() == f"cannot start: recorder_node is {text}; {way_out}"
    # DDS keeps the last word of one that was killed.
    repeats.cancel()
    recorder.publish(String(data="recording"))
    wait_for(lambda: "recorder_node has been silent for" in refusal(), 5.0, refusal)
    said[0] = "recording"
    repeats.reset()
    wait_for(lambda: observer.call(Trigger, "skill_node/start").success, 5.0, "a start")
    # Once it is started nobody asks any more: a dead recorder stops no robot.
    said[0] = "ended"
    recorder.publish(String(data="ended"))
    time.sleep(0.3)
    assert observer.state() == "running"
    assert observer.call(Trigger, "skill_node/stop").success
    assert "ended" in refusal()
    without = Parameter("require_recorder", value=False).to_parameter_msg()
    answer = observer.call(SetParameters, "skill_node/set_parameters", parameters=[without])
    assert answer.results[0].successful
    assert observer.call(Trigger, "skill_node/start").success


def test_a_recorder_that_was_killed_is_noticed_by_the_next_start(world, tmp_path):
    """DDS knows it for up to 20 s: its state, its publisher, its subscriptions."""
    observer, said = world.observer, []
    observer.node.create_subscription(
        String, "recorder_node/state", lambda message: said.append(message.data), LATCHED
    )
    world.start("recorder_node", record_dir=str(tmp_path / "bag"))
    world.start_all(require_recorder=True)
    wait_for(lambda: said and said[-1] == "recording", 40.0, lambda: said[-1:])
    observer.arm()
    assert observer.call(Trigger, "skill_node/start").success
    assert observer.call(Trigger, "skill_node/stop").success
    world.nodes["recorder_node"].kill()
    world.nodes["recorder_node"].wait(5.0)
    refused = observer.call(Trigger, "skill_node/start")
    assert not refused.success
    assert re.match(r"cannot start: recorder_node has been silent for \d\.\d s", refused.message)
    assert observer.state() == "ready"


# Lifecycle and parameters ---------------------------------------------------------------------


def test_lifecycle_by_service_and_an_illegal_transition_does_no_harm(world):
    observer = world.observer
    for name in ("skill_node", "master_node", "sim_node"):
        world.start(name, autostart=False)
    for name in ("sim_node", "master_node", "skill_node"):
        assert observer.lifecycle(name) == "unconfigured"
        assert not observer.change(name, Transition.TRANSITION_ACTIVATE, illegal=True)
        for _ in range(2):
            assert observer.change(name, Transition.TRANSITION_CONFIGURE)
            assert observer.lifecycle(name) == "inactive"
            assert observer.change(name, Transition.TRANSITION_ACTIVATE)
            assert observer.change(name, Transition.TRANSITION_DEACTIVATE)
            assert observer.change(name, Transition.TRANSITION_CLEANUP)
            assert observer.lifecycle(name) == "unconfigured"
        assert observer.change(name, Transition.TRANSITION_CONFIGURE)
        assert observer.change(name, Transition.TRANSITION_ACTIVATE)
    observer.drive()
    # Deactivated while it drives: to rest first.
    since = time.monotonic()
    assert observer.change("skill_node", Transition.TRANSITION_DEACTIVATE)
    assert_brought_to_rest(observer, since)
    assert observer.state() == "disarmed"
    assert not observer.call(Trigger, "skill_node/start").success
    for process in world.nodes.values():
        process.terminate()
    assert [p.wait(timeout=5.0) for p in world.nodes.values()] == [0, 0, 0]


WRONG = [
    ("skill_node", {"start_timeout": 99.0}, "start_timeout"),
    ("skill_node", {"max_late_decisions": "many"}, "max_late_decisions"),
    (
        "skill_node",
        {"late_decisions": 5},
        "no parameter 'late_decisions'. It is now called 'max_late_decisions'. Valid: ",
    ),
    ("skill_node", {"mode": "fast"}, "mode: 'fast' is not one of realtime, lockstep"),
    ("skill_node", {"bundle": "moving_bandit"}, "Did you mean 'moving_bandits'?"),
    ("master_node", {"seed": -2}, "seed"),
    ("master_node", {"master": "goal"}, "no master 'goal'"),
    ("sim_node", {"robot": "omnii"}, "no robot 'omnii'. Did you mean 'omni'?"),
    ("sim_node", {"task": "moving_bandits"}, "names a family only"),
    ("sim_node", {"mode": "lockstep", "enable_stamped_cmd_vel": False}, "needs stamps"),
    ("sim_node", {"real_time_factor": 5.0}, "real_time_factor 5 needs use_sim_time"),
    (
        "sim_node",
        {"real_time_factor": 5.0, "mode": "lockstep"},
        "real_time_factor 5 is for mode realtime",
    ),
    ("skill_node", {"robot": "rover"}, "is not for the robot in"),
    # Parameters that rclpy declares.
    ("skill_node", {"use_sim_time": "hello"}, "Trying to set parameter 'use_sim_time' to 'hello'"),
    ("recorder_node", {"start_type_description_service": 5}, "start_type_description_service"),
]


@pytest.mark.parametrize("name", ["skill_node", "sim_node"])
def test_an_interrupt_while_a_node_imports_is_no_traceback(tmp_path, name):
    slow = tmp_path / "std_msgs"
    slow.mkdir()
    (slow / "__init__.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(30)\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    node = subprocess.Popen(
        [sys.executable, "-m", f"mlsh_ros.nodes.{name}"],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert node.stdout.readline() == "importing\n"
        node.send_signal(signal.SIGINT)
        assert node.communicate(timeout=20)[0] == ""
    finally:
        node.kill()
    assert node.returncode == -signal.SIGINT


def test_a_wrong_parameter_is_one_line_and_a_failure(bundle, tmp_path):
    robot = changed_robot(
        tmp_path / "plain",
        "omni",
        ("geometry_msgs/msg/TwistStamped", "std_msgs/msg/Float64MultiArray"),
        ("[twist.linear.x, twist.linear.y]", '["data[0]", "data[1]"]'),
    )
    plain = restless_bundle(tmp_path / "bundle", robot=robot)
    lockstep = {"bundle": str(plain.source), "mode": "lockstep"}
    said = "needs commands with a header; cmd_vel (std_msgs/msg/Float64MultiArray) has none"
    wrong = [*WRONG, ("skill_node", lockstep, said)]
    with new_domain():
        # At once: most of the time is for imports.
        running = []
        for name, parameters, said in wrong:
            if name != "sim_node":
                parameters = {"bundle": str(bundle.source), **parameters}
            running.append((launch(name, **parameters), parameters, said))
        for process, parameters, said in running:
            try:
                output = process.communicate(timeout=60)[0]
            finally:
                end(process)
            assert process.returncode == 1, (parameters, output)
            assert len(output.splitlines()) == 1, (parameters, output)
            assert said in output
            assert "error" in output.lower()


def test_the_master_can_be_changed_while_it_drives(world):
    observer = world.start_all()

    def use(master):
        return observer.call(
            SetParameters,
            "master_node/set_parameters",
            parameters=[Parameter("master", value=master).to_parameter_msg()],
        ).results[0]

    observer.drive()
    assert observer.heard["master_node/master"][-1][1].data == "goal-0"
    refused = use("goal-7")
    assert not refused.successful
    assert refused.reason.startswith("no master 'goal-7'")
    assert refused.reason.endswith("Valid: goal-0, goal-1")
    assert use("goal-1").successful
    changed = time.monotonic()
    assert observer.heard["master_node/master"][-1][1].data == "goal-1"
    wait_for(lambda: observer.heard["skill_node/trace"][-1][0] > changed + 1.5, 5.0, "ticks")
    # Goal-0 watches x, goal-1 watches y; the logits say who has answered.
    from policies.bundle.runtime import load_master

    for name, told in (
        ("goal-0", lambda t: t < changed - SLACK),
        ("goal-1", lambda t: t > changed),
    ):
        master = load_master(world.bundle, name)
        answers = [
            observer.answers.read(m) for t, m in observer.heard["decision/response"] if told(t)
        ]
        assert answers
        seen = {
            int(observer.traces.read(m)[0]["tick"]): observer.traces.read(m)[1]["observation"]
            for _, m in observer.heard["skill_node/trace"]
        }
        for scalars, vectors in answers:
            tick = int(scalars["tick"])
            if tick == 0:
                continue  # the first observation is read anew when the decision has come
            expected = master(seen[tick].astype(np.float32)[None])[0]
            np.testing.assert_array_equal(vectors["logits"].astype(np.float32), expected)
    for name in ("goal-0", "goal-1") * 3:
        assert use(name).successful
    ticks = observer.ticks()
    assert [int(t["tick"]) for t in ticks] == list(range(len(ticks)))
    # A core that stands still for half a tick costs one; seven changes cost none.
    assert sum(t["missed"] for t in ticks) <= 1
    assert sum(t["late"] for t in ticks) <= 1


def opposite(bundle, path):
    """The same bundle with its two skills exchanged."""
    from policies.bundle.bundle import write_bundle
    from policies.bundle.golden import golden_bytes
    from policies.bundle.manifest import GOLDEN

    golden = replace(bundle.golden, action=bundle.golden.action[::-1].copy())
    files = {name: data for name, data in bundle.files.items() if name != "manifest.json"}
    first, second = bundle.manifest.skill_files
    files |= {first: files[second], second: files[first], GOLDEN: golden_bytes(golden)}
    return write_bundle(bundle.manifest, files, path)


def test_a_whole_bundle_is_changed_while_it_drives(world, bundle, tmp_path):
    other = opposite(bundle, tmp_path / "opposite")
    observer = world.start_all()

    def use(node, path):
        return observer.call(
            SetParameters,
            f"{node}/set_parameters",
            parameters=[Parameter("bundle", value=str(path)).to_parameter_msg()],
        ).results[0]

    observer.drive()
    refused = use("skill_node", "moving_bandits")
    assert not refused.successful
    assert "cannot replace" in refused.reason
    assert "decision_ticks 10 is not 5" in refused.reason
    for changes in (
        {"bundle": str(other.source), "max_late_decisions": 3},  # one may not be changed
        {"use_sim_time": True},
    ):
        parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in changes.items()]
        name = "skill_node/set_parameters_atomically"
        refused = observer.call(SetParametersAtomically, name, parameters=parameters).result
        assert not refused.successful
    for node in ("master_node", "skill_node"):
        answer = use(node, other.source)
        assert answer.successful, answer.reason
    swapped = len(observer.ticks())
    wait_for(lambda: len(observer.ticks()) > swapped + 4 * N, 10.0, "ticks")
    ticks = observer.ticks()
    assert [int(t["tick"]) for t in ticks] == list(range(len(ticks)))
    # Which skills made the actions: those of one bundle up to a macro step, then of the other.
    from policies.bundle.runtime import load_skills

    old, new = load_skills(bundle), load_skills(other)
    made = []
    for _, m in list(observer.heard["skill_node/trace"]):
        scalars, vectors = observer.traces.read(m)
        row = vectors["observation"].astype(np.float32)[None]
        skill = int(scalars["skill"])
        by = [
            bool((s[skill](row)[0] == vectors["action"].astype(np.float32)).all())
            for s in (old, new)
        ]
        assert by in ([True, False], [False, True])
        made.append(by[1])
    at = made.index(True)
    assert at % N == 0
    assert all(made[at:])
    for source in (bundle.source, other.source) * 2:
        for node in ("master_node", "skill_node"):
            assert use(node, source).successful
    # A core that stands still for half a tick costs one; ten changes cost none.
    ticks = observer.ticks()
    assert sum(t["missed"] for t in ticks) <= 1
    assert sum(t["late"] for t in ticks) <= 1
    path = observer.commands()
    assert np.abs(np.diff(path, axis=0)).max() <= RATE + 1e-9


def test_a_bundle_as_large_as_is_accepted_is_read_while_the_robot_drives(world, bundle, tmp_path):
    """It is read and checked in skill_node itself, beside the thread that ticks."""
    large = wide_bundle(bundle, tmp_path / "large", 2000)
    size = sum(file.stat().st_size for file in large.source.rglob("*.onnx"))
    assert 58 * 2**20 < size < 64 * 2**20  # as many as 64 MiB
    observer = world.start_all()
    observer.drive()
    time.sleep(3.0)
    before = max(tick["lateness"] for tick in observer.ticks())
    begun, took = len(observer.ticks()), []
    for source in (large.source, bundle.source) * 5:
        since = time.monotonic()
        answer = observer.call(
            SetParameters,
            "skill_node/set_parameters",
            30.0,
            parameters=[Parameter("bundle", value=str(source)).to_parameter_msg()],
        ).results[0]
        took.append(time.monotonic() - since)
        assert answer.successful, answer.reason
        time.sleep(0.3)
    ticks = observer.ticks()[begun:]
    lateness = max(tick["lateness"] for tick in ticks)
    print(
        f"{size / 2**20:.1f} MiB, read in {max(took):.3f} s at most: ticks are up to "
        f"{lateness * 1000:.1f} ms late, before it {before * 1000:.1f} ms"
    )
    assert observer.state() == "running"
    # On an idle computer none; on a busy one reading takes a second and may cost a tick, which
    # docs/results.md has the numbers of. The robot goes on.
    assert sum(tick["missed"] for tick in ticks) <= len(took)
    observer.assert_path(RATE)


def test_a_respawned_master_joins_without_a_jump(world):
    observer = world.start_all(max_late_decisions=100)
    observer.drive()
    world.nodes["master_node"].kill()
    wait_for(lambda: any(t["late"] for t in observer.ticks()), 5.0, "a late decision")
    world.start("master_node")
    answers = len(observer.heard["decision/response"])
    wait_for(lambda: len(observer.heard["decision/response"]) > answers + 2, 20.0, "answers again")
    last = len(observer.ticks())
    wait_for(
        lambda: len(observer.ticks()) > last + 2 * N, 5.0, lambda: f"ticks: {observer.state()}"
    )
    ticks = observer.ticks()
    assert observer.state() == "running"
    assert not any(t["late"] for t in ticks[-N:])
    assert [int(t["tick"]) for t in ticks] == list(range(len(ticks)))
    assert np.abs(np.diff(observer.commands(), axis=0)).max() <= RATE + 1e-9


def test_a_graph_of_the_simulation_starts_by_itself_and_stays_stopped(world):
    observer = world.observer
    world.start("sim_node")
    world.start("skill_node", auto_arm=True)
    observer.wait("ready")
    time.sleep(0.7)
    assert observer.state() == "ready"  # no master yet
    world.start("master_node")
    observer.wait("running", 10.0)
    wait_for(lambda: len(observer.ticks()) > 3, 5.0, "ticks")
    assert observer.call(Trigger, "skill_node/stop").success
    time.sleep(1.2)
    assert observer.state() == "ready"
    assert not observer.commands()[-1].any()


def test_a_change_that_is_refused_as_a_whole_changes_nothing(world, bundle):
    """No node takes a part of it."""
    observer = world.start_all()
    before = observer.heard["master_node/master"][-1][1].data
    other = next(name for name in bundle.manifest.masters if name != before)
    for node, changes in (
        ("master_node", {"master": other}),
        ("sim_node", {"fault": "silent"}),
    ):
        parameters = [
            Parameter(name, value=value).to_parameter_msg()
            for name, value in {**changes, "use_sim_time": True}.items()
        ]
        name = f"{node}/set_parameters_atomically"
        result = observer.call(SetParametersAtomically, name, parameters=parameters).result
        assert not result.successful
    observer.heard["odom"].clear()
    wait_for(lambda: len(observer.heard["odom"]) > 2, 10.0, "sensors")
    assert observer.heard["master_node/master"][-1][1].data == before


@pytest.mark.parametrize("dated", ["by the caller", "by reception"])
def test_a_request_that_waited_while_the_node_stood_still_starts_nothing(world, dated):
    """Whoever called has given up, and may be beside the robot."""
    # All that has come meanwhile is received when it goes on.
    said = {
        "by the caller": r"this request is \d\.\d s old, at most 1 s is accepted; call again",
        # Whether a request is received before or after the pause is up to the middleware.
        "by reception": "(this request is|skill_node stood still less) .*; call again",
    }[dated]
    observer = world.start_all(check_clock=dated == "by the caller")
    observer.arm()
    for name in ("reset", "stop", "disarm", "start"):  # its clients are known
        observer.call(Trigger, f"skill_node/{name}")
    observer.wait("disarmed")
    skill = world.nodes["skill_node"]
    skill.send_signal(signal.SIGSTOP)
    futures = [
        observer.clients[f"skill_node/{name}"].call_async(Trigger.Request())
        for name in ("arm", "start", "reset")
    ]
    time.sleep(2.0)
    since = time.monotonic()
    skill.send_signal(signal.SIGCONT)
    wait_for(lambda: all(future.done() for future in futures), 10.0, "answers")
    for future in futures:
        assert not future.result().success
        assert re.search(said, future.result().message)
    assert observer.state() == "disarmed"
    assert not observer.commands(since).any()
    time.sleep(0.7)
    observer.drive()


# Simulated time -------------------------------------------------------------------------------


SPEED = 0.5  # at which the longest stall that no MachineStallError names is less than half a tick
STANDS = 1.0  # s of the system's clock that simulated time may stand; twice that for the watchdog


def test_simulated_time_that_stands_leaves_no_command_standing(world):
    observer = world.observer
    watchdog = []
    observer.node.create_subscription(
        String, "watchdog_node/state", lambda m: watchdog.append(m.data), LATCHED
    )
    world.start("watchdog_node", use_sim_time=True)
    world.start("sim_node", use_sim_time=True, real_time_factor=SPEED)
    world.start("master_node", use_sim_time=True)
    world.start("skill_node", use_sim_time=True)
    wait_for(lambda: observer.heard["master_node/master"], 15.0, "master_node")
    wait_for(lambda: watchdog, 15.0, "watchdog_node")
    observer.wait("disarmed")
    wait_for(lambda: observer.call(Trigger, "skill_node/arm").success, 15.0, "/clock")
    assert observer.call(Trigger, "skill_node/disarm").success
    intruder = rclpy.create_node("second_clock", context=observer.context)
    intruder.create_publisher(Clock, "/clock", 1)
    refused = lambda: observer.call(Trigger, "skill_node/arm").message  # noqa: E731
    wait_for(lambda: "/second_clock" in (said := refused()) and "/clock" in said, 5.0, refused)
    intruder.destroy_node()
    wait_for(lambda: observer.call(Trigger, "skill_node/arm").success, 15.0, refused)
    assert observer.call(Trigger, "skill_node/disarm").success
    observer.drive()

    # It is the same behavior, only slower.
    begun, ticks = time.monotonic(), len(observer.ticks())
    wait_for(lambda: len(observer.ticks()) >= ticks + 25, 10.0, "ticks")
    assert time.monotonic() - begun == pytest.approx(25 * DT / SPEED, rel=0.1)
    ticks = observer.ticks()
    assert [int(t["tick"]) for t in ticks] == list(range(len(ticks)))
    assert sum(t["missed"] for t in ticks) == sum(t["late"] for t in ticks) == 0
    assert max(t["lateness"] for t in ticks) < DT / 2
    assert np.abs(np.diff(observer.commands(), axis=0)).max() <= RATE + 1e-9
    stamps = [m.header.stamp for _, m in observer.heard["cmd_vel"]]
    moments = np.array([s.sec + s.nanosec * 1e-9 for s in stamps])
    assert np.diff(moments).mean() == pytest.approx(DT, rel=0.05)

    # The world is held.
    paused = time.monotonic()
    assert observer.call(SetBool, "sim_node/pause", data=True).success
    observer.wait("fault: clock_stopped: simulated time has stood at ", 5.0)
    told = observer.times("fault")[-1]
    assert told - paused < STANDS + SLACK
    safe = assert_brought_to_rest(observer, told) - paused
    tell([("sim_node paused", "clock_stopped", told - paused, STANDS, safe, LATCHED_SAFE)])
    assert observer.call(Trigger, "skill_node/reset").success
    refused = observer.call(Trigger, "skill_node/arm")
    assert refused.message.startswith("cannot arm: clock_stopped: simulated time has stood at ")
    assert watchdog == ["watching"]  # it was not needed
    assert observer.call(SetBool, "sim_node/pause", data=False).success
    time.sleep(0.1)
    observer.arm()
    assert observer.call(SetBool, "sim_node/pause", data=True).success
    time.sleep(STANDS + SLACK)  # armed, it is not started while time stands
    refused = observer.call(Trigger, "skill_node/start").message
    assert refused.startswith("cannot start: clock_stopped: simulated time has stood at ")
    assert observer.call(Trigger, "skill_node/disarm").success
    assert observer.call(SetBool, "sim_node/pause", data=False).success
    observer.heard["skill_node/trace"].clear()
    time.sleep(0.1)
    observer.drive()

    # Nobody is left but the watchdog.
    world.nodes["skill_node"].send_signal(signal.SIGSTOP)
    world.nodes["sim_node"].kill()
    stopped = time.monotonic()
    wait_for(lambda: watchdog[-1].startswith("tripped: "), 5.0, "the watchdog")
    assert time.monotonic() - stopped < 2 * STANDS + SLACK
    assert_brought_to_rest(observer, time.monotonic() - SLACK)


def test_a_stop_by_service_does_not_hold_up_simulated_time(world):
    """Braking takes ticks of a time that skill_node hears in the thread that serves `stop`."""
    observer = world.observer
    watchdog = []
    observer.node.create_subscription(
        String, "watchdog_node/state", lambda m: watchdog.append(m.data), LATCHED
    )
    for name, more in (
        ("watchdog_node", {}),
        ("sim_node", {"real_time_factor": 0.5}),
        ("master_node", {}),
        ("skill_node", {}),
    ):
        world.start(name, use_sim_time=True, **more)
    wait_for(lambda: observer.heard["master_node/master"] and watchdog, 15.0, "nodes")
    observer.wait("disarmed")
    wait_for(lambda: observer.call(Trigger, "skill_node/arm").success, 15.0, "/clock")
    assert observer.call(Trigger, "skill_node/disarm").success
    observer.drive()  # so fast that braking takes two ticks
    begun = time.monotonic()
    assert observer.call(Trigger, "skill_node/stop").success
    assert time.monotonic() - begun < 3 * DT / 0.5 + SLACK
    assert_brought_to_rest(observer, begun)
    time.sleep(3 * DT / 0.5)
    assert observer.state() == "ready"
    assert watchdog == ["watching"]


# Lockstep ------------------------------------------------------------------------------------


def test_in_lockstep_an_earlier_moment_is_not_answered_and_the_same_one_alike(world):
    observer, readers = world.observer, topic_readers(world.bundle.interface.observation)
    publishers = {
        r.topic: observer.node.create_publisher(message_type(r.type), r.topic, EXCHANGE)
        for r in readers
    }

    def show(tick):
        """As a simulation shows itself: all sensors with the stamp of the tick."""
        for reader in readers:
            publishers[reader.topic].publish(good(reader, tick * round(DT * 1e9)))

    def answered():
        """Ticks that commands are stamped with."""
        stamps = [m.header.stamp for _, m in list(observer.heard["cmd_vel"])]
        return [round((s.sec + s.nanosec * 1e-9) / DT) for s in stamps]

    world.start("master_node")
    world.start("skill_node", mode="lockstep")
    wait_for(lambda: observer.heard["master_node/master"], 15.0, "master_node")
    observer.arm()
    wait_for(lambda: all(p.get_subscription_count() for p in publishers.values()), 15.0, "ears")
    show(100)
    started = lambda: observer.call(Trigger, "skill_node/start").success  # noqa: E731
    wait_for(started, 5.0, "sensors")
    wait_for(answered, 5.0, "a command")
    show(101)
    wait_for(lambda: answered() == [100, 101], 5.0, answered)
    show(99)
    time.sleep(3 * DT)
    assert answered() == [100, 101]
    show(101)  # a simulation asks again whose answer was lost
    wait_for(lambda: answered()[:3] == [100, 101, 101], 5.0, answered)
    time.sleep(3 * DT)
    assert set(answered()) == {100, 101}
    commands = observer.commands()
    assert (commands[1:] == commands[1]).all()  # the very same command
    assert len(observer.ticks()) == 2
    assert observer.state() == "running"
    show(102)
    wait_for(lambda: 102 in answered(), 5.0, answered)


# Real time ------------------------------------------------------------------------------------


def test_realtime_through_ros_is_as_good_as_offline():
    from policies.bundle.bundle import load_bundle

    bundle = load_bundle("moving_bandits")
    cases = resolve_cases(bundle, task="moving_bandits/goal-0")
    offline = run_offline(cases, episodes=2, seed=0)
    domain = fresh_domain()
    through_ros = run_ros(cases, episodes=2, seed=0, mode="realtime", domain=domain)
    a, b = (np.mean([e.value for e in x]) for x in (offline, through_ros))
    assert abs(a - b) < 0.1 * a
    assert [e.late for e in through_ros] == [0, 0]
    for episode in through_ros:
        assert len(episode.reward) == len(episode.skill) == 50
        # The record is of one session: positions follow each other.
        steps = np.diff(episode.term(bundle.interface, "position"), axis=0)
        assert np.abs(steps).max() < 0.35
