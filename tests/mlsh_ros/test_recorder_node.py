"""What recorder_node says of itself, and who relies on it. No node is started here."""

import threading
from types import SimpleNamespace
from unittest import mock

import pytest

from mlsh_ros.messages.topics import RECORDING, STATE, TRACE, WAITING
from sim.errors import UserError


class Publisher:
    """Keeps what is published; fails as often as `failures` says."""

    def __init__(self):
        self.said, self.failures = [], 0

    def publish(self, message):
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no memory")
        self.said.append(message.data)


class Recorder:
    """As the one that writes; what it raises is `write_error` and `close_error`."""

    fault, count, silent, file = "", 0, (), "bag_0.mcap"
    write_error = close_error = None

    def __init__(self):
        self.written, self.closed = [], None

    def write(self, topic, data, *, received):
        if self.write_error:
            raise self.write_error
        self.written.append((topic, data))

    def close(self, lost=""):
        if self.close_error:
            raise self.close_error
        self.closed = lost


@pytest.fixture
def node():
    """A recorder_node that records, without ROS."""
    module = pytest.importorskip("mlsh_ros.nodes.recorder_node")
    made = module.RecorderNode.__new__(module.RecorderNode)
    made.log = mock.MagicMock()
    lacking = []
    vars(made).update(
        _recorder=Recorder(),
        _subscriptions_made={TRACE: None},
        _own_timers=[],
        _driver="",
        _own_state=RECORDING,
        _saying=threading.Lock(),
        _publisher=Publisher(),
        _awaited=set(),
        _newest=0.0,
        _looked=0.0,
        _held_up=0.0,
        _heard=SimpleNamespace(lacking=lambda: lacking, hear=mock.MagicMock()),
        _unheard=lambda: [],
        _hear_out=lambda: made.seen.append(made._publisher.said[-1]),
        _drain=lambda: None,
        destroy_subscription=lambda _: None,
        get_logger=lambda: made.log,
        seen=[],
        lacking=lacking,
    )
    return made


def test_a_recorder_that_ends_is_ready_for_no_start_before_it_hears_out(node):
    node.deactivate()
    assert node.seen == ["ending"]
    assert node._publisher.said == ["ending", "ended"]
    assert node._recorder.closed == ""


def test_what_is_missing_is_said_at_the_end(node):
    node.lacking.append("odom: 3 of 9 messages")
    node.deactivate()
    assert node._publisher.said[-1] == "ended, incomplete: odom: 3 of 9 messages"
    assert node._recorder.closed == "odom: 3 of 9 messages"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("bag_0.mcap: No space left on device"), "bag_0.mcap: No space left on device"),
        (ValueError("of mcap"), "ValueError: of mcap"),
    ],
)
def test_a_file_that_cannot_be_closed_is_a_fault_and_not_an_end(node, error, said):
    node._recorder.close_error = error
    with pytest.raises(type(error)):
        node.deactivate()
    assert node._publisher.said == ["ending", f"fault: {said}"]


def test_a_state_that_could_not_be_published_is_published_again(node):
    node._own_state = f"{WAITING}: odom"
    node._publisher.failures = 1
    node._look()  # nobody is missing any more
    assert node._publisher.said == []
    node._look()
    node._look()
    assert node._publisher.said == [RECORDING, RECORDING]  # and again: it lives


def test_a_message_that_could_not_be_written_does_not_count_and_is_told(node):
    node._on_message(STATE, b"\0\1\0\0\6\0\0\0ready\0")
    assert node._heard.hear.call_args.args[0] == STATE
    node._recorder.write_error = KeyError("channel")
    for _ in range(2):
        node._on_message(TRACE, b"")
    assert node._heard.hear.call_count == 1
    assert node._publisher.said[-1] == "fault: KeyError: 'channel'"
    assert node.log.error.call_count == 1
    node._recorder.write_error = None
    with pytest.raises(UserError, match="fault: KeyError"):  # for the status of the process
        node.deactivate()
    assert node._recorder.closed == ""  # with what there is
    assert not [text for text in node._publisher.said if text.startswith("end")]


# What skill_node makes of it  -------------------------------------------------------------------


def checks_of(monkeypatch, silence):
    module = pytest.importorskip("mlsh_ros.nodes.arming_checks")
    monkeypatch.setattr(module, "SILENCE", silence)
    node = mock.MagicMock()
    node.get_parameter.return_value.value = True
    node.publisher_count.return_value = 1
    parts = [mock.MagicMock() for _ in range(10)]
    return module.ArmingChecks(node, *parts, lockstep=False)


def test_a_recorder_that_repeats_nothing_is_not_taken_for_one_that_records(monkeypatch):
    """DDS still knows a killed one, its last state and its subscriptions."""
    checks = checks_of(monkeypatch, silence=0.1)
    assert checks._not_recorded().startswith("recorder_node has sent no state yet; set require_re")
    checks.recorder = RECORDING
    assert checks._not_recorded().startswith("recorder_node has been silent for ")
    closing = threading.Event()

    def repeat():
        while not closing.wait(0.01):
            checks.recorder = RECORDING

    thread = threading.Thread(target=repeat)
    thread.start()
    monkeypatch.setattr("mlsh_ros.nodes.arming_checks.SILENCE", 20.0)
    assert checks._not_recorded() == ""
    closing.set()
    thread.join()
    checks.recorder = "ending"
    assert checks._not_recorded().startswith("recorder_node is ending; set require_recorder")
