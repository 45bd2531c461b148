"""Requests of the services of skill_node. No node is started here."""

import time
from types import SimpleNamespace
from unittest import mock

import pytest

from mlsh_ros.control.supervisor import State, Supervisor
from mlsh_ros.messages.topics import CALL_AGAIN
from mlsh_ros.nodes.request_age import OLD, PAUSE, RequestAge
from sim.errors import UserError

# How old a request is --------------------------------------------------------------------------


def watched(*, since=0.0):
    """Requests are looked at every 20 ms from 90 s to 100 s; another thread runs since then."""
    age = RequestAge(lambda: since)
    for look in range(501):
        age.look(90.0 + 0.02 * look)
    return age


@pytest.mark.parametrize(
    ("age", "refusal"),
    [
        (0.0, ""),
        (0.9, ""),
        (-0.9, ""),  # of a caller whose clock is a little ahead
        (1.1, f"this request is 1.1 s old, at most 1 s is accepted; {CALL_AGAIN}"),
        # Our clock was set back while we stood still.
        (-5.0, f"this request is dated 5.0 s after now, at most 1 s is accepted; {CALL_AGAIN}"),
    ],
)
def test_a_request_is_served_near_its_date_only(age, refusal):
    assert watched().refusal(age, 0, 100.0) == refusal


def test_for_a_second_after_a_pause_nobody_knows_how_old_a_request_is():
    """Its reception is dated after the pause, for nothing was received meanwhile."""
    said = "skill_node stood still less than 1 s ago, and this request may be an old one; "
    said += CALL_AGAIN
    age = watched(since=160.0)  # both threads stood still from 100 s to 160 s
    age.look(160.0)
    assert age.refusal(0.0, 0, 160.0) == said
    assert age.refusal(0.0, 0, 160.0 + OLD - 0.01) == said
    assert age.refusal(0.0, 0, 160.0 + OLD) == ""


def test_a_thread_that_is_busy_is_no_pause_of_the_process():
    """While this one brakes for 3 s, the other one runs; or the other one waits for the graph."""
    busy = watched(since=0.0)
    busy.look(103.0)
    assert busy.refusal(0.0, 0, 103.0) == ""
    assert watched(since=99.9).refusal(0.0, 0, 100.0) == ""
    late = watched(since=100.0)
    late.look(100.0 + PAUSE + 0.01)  # both
    assert late.refusal(0.0, 0, 100.0 + PAUSE + 0.01)


def test_the_first_look_of_a_node_follows_no_pause():
    age = RequestAge(lambda: 99.9)  # the other thread has just begun
    age.look(100.0)
    assert age.refusal(0.0, 0, 100.0) == ""


def test_a_request_from_before_a_stop_is_not_served_after_it():
    age = watched()
    age.ends(10**9, 100.0)
    assert age.refusal(0.2, 10**9 - 1, 100.0) == "stop or disarm was called after this request"
    assert age.refusal(0.2, 10**9 + 1, 100.0) == ""
    # Later it is refused for its age; our clock may have been set back since.
    assert age.refusal(0.2, 10**9 - 1, 100.0 + 2 * OLD) == ""


# Checks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lockstep", [True, False])
def test_in_lockstep_a_start_waits_until_the_simulator_sends_its_sensors_again(lockstep):
    """It does so after half a second without a command; those of a robot come all the time."""
    module = pytest.importorskip("mlsh_ros.nodes.arming_checks")
    missing = ["odom"]

    def wait_for(happened, patience):
        if patience > 0.5:  # s after which sim_node sends them again
            missing.clear()
        return happened()

    node, sensors = mock.MagicMock(), mock.MagicMock()
    node.get_parameter.return_value.value = False  # no recorder is required
    node.publisher_count.return_value = 1
    parts = [mock.MagicMock() for _ in range(5)]
    for side in (parts[1].fault, parts[2].fault, parts[2].tripped, parts[3].catch_up):
        side.return_value = ""  # emergency stop, watchdog and safety listener have no reason
    sensors.missing.side_effect = sensors.stale.side_effect = lambda *_: list(missing)
    new_data = mock.MagicMock(wait_for=wait_for)
    clock, receivers = mock.MagicMock(), mock.MagicMock()
    clock.fault.return_value, receivers.missing.return_value = None, ""
    checks = module.ArmingChecks(
        node, *parts, mock.MagicMock(), sensors, clock, new_data, receivers, lockstep=lockstep
    )
    assert checks.not_ready() == ("" if lockstep else "sensors without recent messages: odom")


# Services ---------------------------------------------------------------------------------------


class Queue:
    """A service of rclpy with requests that were received some seconds ago."""

    def __init__(self, name, served):
        self.name, self.served, self.ages, self.answers = name, served, [], []
        self.handle = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def service_take_request(self, _):
        if not self.ages:
            return None, None
        stamp = time.time_ns() - round(self.ages.pop(0) * 1e9)
        return object(), SimpleNamespace(received_timestamp=stamp, source_timestamp=stamp)

    def send_response(self, answer, _):
        self.served.append(self.name)
        self.answers.append(answer)


class Services:
    """SessionServices whose requests are in `queues`, and the order in which they are served."""

    def __init__(self, monkeypatch, *states, **checks):
        module = pytest.importorskip("mlsh_ros.nodes.session_services")
        self.served = []
        names = ("arm", "disarm", "start", "stop", "reset")
        self.queues = {name: Queue(name, self.served) for name in names}
        side = mock.MagicMock()
        side.create_service.side_effect = lambda kind, name, call: self.queues[name[2:]]
        monkeypatch.setattr(module, "side_node", lambda *_: side)
        self.now = 100.0
        monkeypatch.setattr(module, "steady_time", lambda: self.now)
        node = mock.MagicMock()
        node.resolve_service_name.side_effect = lambda name: name
        self.supervisor = Supervisor()
        self.supervisor.activate()
        for state in states:
            assert self.supervisor.go(state)
        self.session = SimpleNamespace(
            end=lambda: self.session.failure,
            failure="",
            start=lambda _: self.supervisor.go(State.RUNNING),
        )
        self.checks = SimpleNamespace(
            not_fit=lambda: "", not_ready=lambda: "", listening_since=0.0
        )
        vars(self.checks).update(checks)
        self.services = module.SessionServices(
            node,
            self.supervisor,
            self.session,
            self.checks,
            mock.MagicMock(requests=0),
            forget_sensors=lambda: None,
            prepare=None,
            sensors_missing=lambda: self.missing,
        )
        self.missing, self.node = [], node

    def poll(self):
        self.services._poll()
        return self.served


def test_a_robot_that_is_to_start_by_itself_says_why_it_does_not(monkeypatch):
    """Each reason once, and not while the nodes come up."""
    services = Services(monkeypatch)
    refusals = {"arm": "/other/sim_node publishes 'odom' too", "start": ""}
    services.checks.not_fit = lambda: refusals["arm"]
    services.checks.not_ready = lambda: refusals["start"]
    node, publishers = services.node, []
    node.publisher_count.side_effect = lambda topic: len(publishers)
    warnings = []
    node.get_logger.return_value.warning.side_effect = warnings.append

    def try_for(seconds):
        for _ in range(round(seconds / 0.5)):
            services.now += 0.5
            services.services._arm_and_start()
        told = [text.partition("does not start by itself yet: ")[2] for text in warnings]
        warnings.clear()
        return told

    services.services.begin_auto_arm()
    assert try_for(5.0) == []
    assert try_for(5.0) == ["/other/sim_node publishes 'odom' too"]
    refusals["arm"] = "/other/sim_node publishes 'odom' too, for 3.5 s"
    assert len(try_for(0.5)) == 1
    refusals["arm"] = "/other/sim_node publishes 'odom' too, for 4.0 s"
    assert try_for(0.5) == []  # the same, older
    refusals["arm"], services.missing = "", ["odom (never received)", "goals (never received)"]
    assert try_for(2.0) == ["nothing has come from odom (never received), goals (never received)"]
    services.missing = []
    assert try_for(2.0) == ["no node publishes 'decision/response'"]
    publishers.append("master_node")
    refusals["start"] = "no node but watchdog_node and recorder_node receives 'cmd_vel'"
    assert try_for(2.0) == [refusals["start"]]
    refusals["start"] = ""
    assert try_for(2.0) == []
    assert services.supervisor.state is State.RUNNING


def test_a_flood_of_requests_keeps_no_stop_waiting(monkeypatch):
    services = Services(monkeypatch)
    services.queues["arm"].ages = [0.0] * 1000
    services.queues["disarm"].ages = [0.0]
    services.queues["stop"].ages = [0.0]
    assert services.poll() == ["stop", "disarm", "arm"]
    services.queues["stop"].ages = [0.0]
    assert services.poll()[3:] == ["stop", "arm"]


def test_a_stop_is_not_followed_by_the_start_that_it_was_to_end(monkeypatch):
    """Both came while skill_node was busy: `start`, and then `stop`."""
    services = Services(monkeypatch, State.READY)
    services.queues["start"].ages = [0.3]
    services.queues["stop"].ages = [0.1]
    assert services.poll() == ["stop", "start"]
    (answer,) = services.queues["start"].answers
    said = "cannot start: stop or disarm was called after this request"
    assert (answer.success, answer.message) == (False, said)
    assert services.supervisor.state is State.READY
    services.queues["start"].ages = [0.0]  # and this one is new
    services.poll()
    assert services.supervisor.state is State.RUNNING


@pytest.mark.parametrize("name", ["arm", "start", "reset"])
def test_what_may_have_waited_in_a_pause_changes_no_state(monkeypatch, name):
    """Its reception is new; `reset` would remove the fault that was latched on waking."""
    services = Services(monkeypatch, *([State.READY] if name == "start" else []))
    if name == "reset":
        services.supervisor.fault("watchdog_lost", "no heartbeat")
    before = services.supervisor.state
    services.poll()
    services.now += 60.0  # nothing looked for requests, nor for anything else
    services.checks.listening_since = services.now
    services.queues[name].ages = [0.0]
    services.queues["stop"].ages = [60.0]
    assert services.poll() == ["stop", name]
    (answer,) = services.queues[name].answers
    assert not answer.success
    assert answer.message.endswith(CALL_AGAIN)
    assert services.supervisor.state is before


def test_a_pause_while_a_start_is_checked_starts_nothing(monkeypatch):
    services = Services(monkeypatch, State.READY)

    def stands_still():
        services.now += 60.0
        services.checks.listening_since = services.now
        return ""

    services.checks.not_ready = stands_still
    services.queues["start"].ages = [0.0]
    services.poll()
    (answer,) = services.queues["start"].answers
    assert answer.message == f"cannot start: skill_node stood still while it checked; {CALL_AGAIN}"
    assert services.supervisor.state is State.READY


def test_every_stop_that_waits_is_served_before_a_start_between_them(monkeypatch):
    services = Services(monkeypatch, State.READY)
    services.queues["stop"].ages = [0.3, 0.1]
    services.queues["start"].ages = [0.2]
    assert services.poll() == ["stop", "stop", "start"]
    answer = services.queues["start"].answers[0]
    assert answer.message == "cannot start: stop or disarm was called after this request"
    assert services.supervisor.state is State.READY


def test_a_stop_during_the_checks_of_a_start_is_served_before_it(monkeypatch):
    def check():
        services.queues["stop"].ages = [0.0]
        return ""

    services = Services(monkeypatch, State.READY, not_ready=check)
    services.queues["start"].ages = [0.0]
    assert services.poll() == ["stop", "start"]
    answer = services.queues["start"].answers[0]
    assert answer.message == "cannot start: stop or disarm was called after this request"
    assert services.supervisor.state is State.READY


def test_a_pause_while_a_stop_brakes_is_one_for_the_requests_behind_it(monkeypatch):
    """The process is suspended meanwhile: what was received then is dated as new."""

    def end():
        services.now += 60.0
        services.checks.listening_since = services.now

    services = Services(monkeypatch, State.READY)
    services.poll()
    services.now += 0.02
    services.session.end = end
    services.queues["stop"].ages = [0.1]
    services.queues["arm"].ages = [0.0]
    assert services.poll() == ["stop", "arm"]
    assert "stood still less than 1 s ago" in services.queues["arm"].answers[0].message


@pytest.mark.parametrize("fault", ["internal", "estop"])  # the cause of the stop comes first
def test_no_service_that_ends_a_session_says_rest_where_braking_failed(monkeypatch, fault):
    services = Services(monkeypatch, State.READY, State.RUNNING)
    failure = "a braking command could not be sent: the publisher is gone"
    services.supervisor.fault(fault, failure if fault == "internal" else "topic 'estop' is true")
    services.session.failure = failure

    def call(name):
        services.queues[name].ages = [0.0]
        services.poll()
        answer = services.queues[name].answers[-1]
        return answer.success, answer.message

    assert call("stop") == (False, f"cannot stop: {failure}")
    assert call("disarm") == (False, f"cannot disarm: {failure}")
    assert call("stop") == (False, f"cannot stop: {failure}")
    refused = f"cannot reset: {failure}; see that the robot is at rest, and call reset again"
    services.services._estop.pressed = False
    assert call("reset") == (False, refused)
    assert services.supervisor.state is State.FAULT
    assert call("reset") == (True, "disarmed")  # a person has been told


@pytest.mark.parametrize("entries", [2, 100])
def test_a_stop_waits_for_one_bundle_at_most(monkeypatch, entries):
    """One request of rclpy may set a parameter any number of times, each by itself."""
    services = Services(monkeypatch, State.READY, State.RUNNING)
    node = pytest.importorskip("mlsh_ros.nodes.skill_node").SkillNode
    loaded = []

    def load(name):
        loaded.append(len(services.served))
        services.queues["stop"].ages = [0.0]  # called during each of them
        raise UserError(name)

    this = SimpleNamespace(
        _commander=object(), _session_services=services.services, _load_bundle=load
    )
    for n in range(entries):
        with pytest.raises(UserError):
            node._on_parameters(this, {"bundle": f"bundle {n}"})
    assert loaded == list(range(entries))  # every stop was answered before the next one
