"""What anybody on the network may send: refused by name, acted on by nobody, survived by all.

One table of bad messages, as bytes, made from what an interface names. It is held against the core
for every robot and family, and sent over DDS to running nodes.
"""

import random
import struct
import time
from contextlib import suppress

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from rclpy.serialization import serialize_message
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import SetBool, Trigger

from mlsh_ros.control.controller import Controller
from mlsh_ros.control.sensor_buffer import Sample, SensorBuffer
from mlsh_ros.messages.command_limits import violation
from mlsh_ros.messages.conversion import (
    MessageError,
    command_writers,
    shorten,
    stamp_of,
    topic_readers,
)
from mlsh_ros.messages.labeled_array import response_layout
from mlsh_ros.nodes import safety_listener
from mlsh_ros.nodes.node import (
    COMMAND,
    EXCHANGE,
    LATCHED,
    array_message,
    decoded,
    message_type,
)
from policies.bundle.bundle import load_bundle
from policies.bundle.runtime import load_master, load_skills
from sim.interface import ObservationMemory
from tests.support.interfaces import by_family
from tests.support.nodes import DT, RATE, SLACK, Observer, World, new_domain, wait_for
from tests.support.terms import JOINTS
from tests.support.wire_robot import STAMP, Robot, good, plausible

FAMILIES = by_family()  # those that make an interface of their own


# The table --------------------------------------------------------------------------------------


def is_integer(reader, path):
    """True if a path leads to a field of integers."""
    value = good(reader)
    for name, index in path:
        value = getattr(value, name)
        value = value if index is None else value[0]
    return isinstance(value, int)


def bad_values(reader):
    """Numbers that no policy may see, in every element."""
    for term, paths in reader.terms:
        for value in (np.nan, np.inf, -np.inf, 1e300, -1e300):
            if term.inf_values is not None and not np.isnan(value):
                continue  # infinite is a value there (REP-117)
            for i in range(len(paths)):
                values = plausible(reader)[term.name]
                values[i] = value
                # Several terms may be computed from the same fields of a message.
                same = {other.name: values for other, its in reader.terms if its == paths}
                if is_integer(reader, paths[i]):  # it cannot hold any of them
                    with pytest.raises(MessageError, match=r"^\w+: .*(beyond|to integer)"):
                        good(reader, **same)
                    continue
                yield f"{term.name}.{i} {value}", good(reader, **same)


def bad_arrays(reader):
    """Arrays without an element that is needed, or without any."""
    for term, paths in reader.terms:
        for path in paths[-1:]:
            steps = [name for name, index in path]
            indexed = [name for name, index in path if index is not None]
            if not indexed:
                continue
            for keep in (-1, 0):
                message = good(reader)
                owner = message
                for name in steps[: steps.index(indexed[0])]:
                    owner = getattr(owner, name)
                setattr(owner, indexed[0], getattr(owner, indexed[0])[:keep])
                yield f"{term.name} short {keep}", message


def bad_words(reader):
    """Another frame, another scan; times that are none."""
    for path, expected in reader.required_values:
        message = owner = good(reader)
        for name, _ in path[:-1]:
            owner = getattr(owner, name)
        other = "elsewhere" if isinstance(expected, str) else expected + 0.5
        setattr(owner, path[-1][0], other)
        yield f"{path[-1][0]} {other}", message
    if hasattr(message_type(reader.type)(), "header"):
        for sec, nanosec in ((-1, 0), (-(2**31), 0), (1, 10**9), (1, 2**32 - 1)):
            message = good(reader)
            message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
            yield f"stamp {sec} {nanosec}", message


def bad_bytes(wire, cuts):
    """Bytes that are no message of the type whose good one `wire` is."""
    for size in cuts:
        yield f"cut at {size}", wire[:size]
    yield "unknown encoding", b"\0\x7f" + wire[2:]
    rng = random.Random(4)
    for size in (5, 64, len(wire)):
        yield f"{size} bytes of garbage", rng.randbytes(size)
        yield f"{size} bytes of garbage in CDR", b"\0\1\0\0" + rng.randbytes(size)


def bad_sensors(reader, cuts=(0, 3, 4, 9, -1)):
    """(what, CDR) for one topic."""
    wire = serialize_message(good(reader))
    found = [
        (what, serialize_message(message))
        for table in (bad_values, bad_arrays, bad_words)
        for what, message in table(reader)
    ]
    found += bad_bytes(wire, cuts)
    if hasattr(message_type(reader.type)(), "header"):
        # The length of frame_id: a text of 4 GB.
        found.append(("endless text", wire[:12] + b"\xff" * 4 + wire[16:]))
    return found


def bad_answers(layout, session, skill=1):
    """(what, CDR) of decisions that are none; `skill` was decided for macro step 0."""
    numbers = [float(session), 0.0, 0.0, float(skill), *np.zeros(layout.size - 4)]

    def said(data, label=layout.label, dims=1):
        message = array_message(layout)
        message.layout.dim[0].label = label
        message.layout.dim = message.layout.dim[:dims]
        message.data = list(data)
        return serialize_message(message)

    yield "one less", said(numbers[:-1])
    yield "one more", said([*numbers, 0.0])
    yield "empty", said([])
    yield "no label", said(numbers, dims=0)
    yield "another label", said(numbers, label="x" * 10_000)
    for i, name in enumerate(layout.names):
        for value in (np.nan, np.inf, -np.inf):
            yield f"{name} {value}", said([*numbers[:i], value, *numbers[i + 1 :]])
    for i in range(4):
        yield f"fraction {i}", said([*numbers[:i], numbers[i] + 0.5, *numbers[i + 1 :]])
    wire = said(numbers)
    yield from bad_bytes(wire, (0, 3, 4, 9, len(wire) // 2, len(wire) - 1))
    # The number of elements stands before the last of them: 4 billion.
    data = len(wire) - 8 * layout.size
    for at in (data - 4, data - 8):  # they are aligned to 8 bytes
        if struct.unpack_from("<I", wire, at) == (layout.size,):
            yield "endless array", wire[:at] + b"\xff" * 4 + wire[at + 4 :]


# The core ---------------------------------------------------------------------------------------


def take(sensors, reader, data):
    """As skill_node takes it; whether it was kept."""
    message = decoded(data, message_type(reader.type), reader.topic)
    sample = Sample(reader.read(message), 0.0, stamp_of(message, reader.topic))
    return sensors.put(reader.topic, sample)


def refusal(what, use, *args):
    """Why a message is refused."""
    try:
        use(*args)
    except MessageError as error:
        return str(error)
    pytest.fail(f"{what} was taken")


def length_of(message) -> int:
    """Bytes that the message needs; some middlewares give a few more, which mean nothing."""
    wire = serialize_message(message)
    spare = (n for n in range(4) if not equal(wire[: len(wire) - n - 1], message))
    return len(wire) - next(spare, 4)


def equal(data, message) -> bool:
    try:
        return decoded(data, type(message), "any") == message
    except MessageError:
        return False


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bad_message_is_refused_by_topic_and_changes_nothing(family):
    sensors = SensorBuffer(FAMILIES[family])
    for reader in sensors.readers:
        assert take(sensors, reader, serialize_message(good(reader)))
    before = sensors.fields()
    for reader in sensors.readers:
        length = length_of(good(reader))
        table = bad_sensors(reader, cuts=range(length))
        assert len(table) > length + 10
        for what, data in table:
            said = refusal(f"{reader.topic}: {what}", take, sensors, reader, data)
            assert said.startswith(f"{reader.topic}: "), what
            assert "\n" not in said
        # Twice the same, overtaken, without a stamp.
        for stamp in (STAMP, STAMP - 1, 0):
            assert not take(sensors, reader, serialize_message(good(reader, stamp)))
    assert all(values is before[name] for name, values in sensors.fields().items())
    assert sensors.stale(0.0, STAMP / 1e9) == []


def test_joints_that_cannot_be_told_apart_are_refused_in_any_order():
    (reader,) = topic_readers([JOINTS])
    kind = message_type(reader.type)

    def joints(names, positions):
        message = kind(name=names, position=positions)
        return reader.read(decoded(serialize_message(message), kind, "joint_states"))["joints"]

    assert joints(["b", "x", "a"], [1.0, 2.0, 3.0]).tolist() == [3.0, 1.0]
    for names, positions in (
        ([], []),
        (["a", "b"], []),
        (["a", "b"], [1.0]),
        (["a", "b"], [1.0, 2.0, 3.0]),
        (["a", "a", "b"], [1.0, 2.0, 3.0]),
        (["a", "c"], [1.0, 2.0]),
        (["A", "B"], [1.0, 2.0]),
        (["a", "b"], [1.0, np.nan]),
        (["a", "b"], [-np.inf, 1.0]),
        (["a", "b"], [1e300, 1.0]),
    ):
        with pytest.raises(MessageError, match=r"^joint_states: "):
            joints(names, positions)


def test_a_decision_that_is_none_is_refused(bundle):
    layout = response_layout(bundle.manifest.skills)

    def read(data):
        return layout.read(decoded(data, Float64MultiArray, "decision/response"))

    table = list(bad_answers(layout, 1))
    assert "endless array" in dict(table)
    for what, data in table:
        refusal(what, read, data)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_robot_may_not_be_told_is_named(family):
    interface = FAMILIES[family]
    low, high = interface.limits
    for command in (low, high, interface.safe_command, low.astype(np.float32).astype(float)):
        assert violation(interface, command) == ""
    for i, name in enumerate(interface.action_names):
        for value in (1e300, -1e300, high[i] + 1e-4, low[i] - 1e-4):
            command = interface.safe_command.copy()
            command[i] = value
            assert violation(interface, command).startswith(
                f"command {name} is {value:.6g}, its li"
            )
    for writer in command_writers(interface.action):
        kind = message_type(writer.type)
        for value in (np.nan, np.inf, -np.inf):
            message = kind()
            writer.write(message, np.full(interface.action_size, value))
            with pytest.raises(MessageError, match=f"^{writer.topic}: command is not finite"):
                writer.read(message, interface.safe_command.copy())


def test_a_line_of_what_strangers_say_is_no_longer_than_one_reads():
    assert shorten("x" * 300) == "x" * 300
    assert shorten("x" * 10**6) == "x" * 297 + "..."


TINY = (5e-324, -5e-324, 1e-310, 1e-40, -1e-45, np.float64(np.finfo(np.float32).tiny) / 2, -0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_numbers_are_numbers(family):
    """Denormals are what rounding to zero looks like on its way; nothing is refused for it."""
    interface = FAMILIES[family]
    for value in TINY:
        fields = {}
        for reader in topic_readers(interface.observation):
            small = [t for t, _ in reader.terms if not (t.inf_values or t.derive)]
            tiny = {t.name: np.full(t.size, value) for t in small}
            wire = serialize_message(good(reader, **tiny))
            fields |= reader.read(decoded(wire, message_type(reader.type), reader.topic))
        observation = interface.observe(fields, memory=ObservationMemory(interface))
        assert np.isfinite(observation).all()
        for term in interface.observation:
            if not (term.inf_values or term.derive):
                assert (np.abs(observation[interface.observation_slices[term.name]]) < 1e-37).all()


@pytest.mark.parametrize("name", ["moving_bandits", "body_bandits", "rooms"])
def test_tiny_numbers_do_not_hold_up_a_tick(name):
    """Processors are up to a hundred times slower with denormals."""
    bundle = load_bundle(name)
    manifest = bundle.manifest
    master = load_master(bundle, next(iter(manifest.masters)))
    controller = Controller(bundle.interface, load_skills(bundle), manifest.decision_ticks, 1)

    def tick(value):
        """Median s of ticks whose observation is `value` everywhere; the master decides each."""
        controller.reset()
        took = []
        for _ in range(200):
            fields = {t.name: np.full(t.size, value) for t in bundle.interface.observation}
            begun = time.perf_counter()
            request = controller.observe(fields)
            if request is not None:
                controller.set_decision(request.macro, 0)
            master(bundle.interface.observe(fields)[None])
            controller.act()
            took.append(time.perf_counter() - begun)
        return float(np.median(took))

    tick(0.3)
    ordinary, tiny = tick(0.3), max(tick(1e-40), tick(5e-324))
    assert tiny < 5 * ordinary, (tiny, ordinary)


# Over DDS ---------------------------------------------------------------------------------------


@pytest.fixture
def hardened(monkeypatch):
    """The observer hears the same bad messages, by rclpy's own way of taking them."""

    def spin(self):
        while not self.closing.is_set():
            with suppress(Exception):
                self.executor.spin_once(timeout_sec=0.05)

    monkeypatch.setattr(Observer, "_spin", spin)


@pytest.mark.ros
@pytest.mark.realtime
def test_a_robot_drives_on_whatever_else_is_sent_to_it(patient_bundle, hardened):
    """The whole table, from another process, to one running skill_node."""
    with new_domain() as stack:
        world = World(patient_bundle, stack)
        observer = world.observer
        told = {}

        def on_diagnostics(message):
            for status in message.status:
                told[status.name] = {v.key: v.value for v in status.values}

        observer.node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
        readers = topic_readers(patient_bundle.interface.observation)
        robot = Robot(observer, readers)
        stack.callback(robot.close)
        text = String(data="tripped: x" * 9)
        table = {reader.topic: bad_sensors(reader) for reader in readers}
        # Cut a text at its terminating zero, and it is still one.
        cuts = (0, 3, 4, 9, len(serialize_message(text)) // 2)
        for topic in ("watchdog_node/state", "recorder_node/state"):
            table[topic] = list(bad_bytes(serialize_message(text), cuts))
        table["estop"] = [(f"{data!r}", data) for data in (b"", b"\0\1", b"\0\1\0\0")]
        publishers = {
            **robot.publishers,
            "watchdog_node/state": publisher(observer, String, "watchdog_node/state", LATCHED),
            "recorder_node/state": publisher(observer, String, "recorder_node/state", LATCHED),
            "estop": publisher(observer, Bool, "estop", COMMAND),
        }
        requests = publisher(observer, Float64MultiArray, "decision/request", EXCHANGE)
        world.start("master_node")
        world.start("skill_node")
        wait_for(lambda: observer.heard["master_node/master"], 15.0, "master_node")
        observer.drive()
        # Under the name of a master that was started again: another name is a fault by itself.
        master = rclpy.create_node("master_node", context=observer.context)
        stack.callback(master.destroy_node)
        publishers["decision/response"] = master.create_publisher(
            Float64MultiArray, "decision/response", EXCHANGE
        )
        for topic, made in publishers.items():
            wait_for(made.get_subscription_count, 10.0, topic)
        session = int(observer.ticks()[-1]["session"])
        first = observer.ticks()[0]["skill"]
        table["decision/response"] = list(bad_answers(observer.answers, session, first))

        def heard(topic):
            return int(told.get("skill_node: sensors", {}).get(f"{topic} refused", 0))

        # Sensors and states are heard without asking again, the newest only: one at a time, and
        # again if the machine was too busy to hear each.
        counted = [topic for topic in table if topic != "estop"]  # rcl drops what is no Bool
        for _ in range(10):
            for topic, cases in table.items():
                for _, data in cases:
                    publishers[topic].publish(data)
                    requests.publish(data)  # no question either; to the master
                    time.sleep(0.003)
            time.sleep(1.2)  # diagnostics come once a second
            if all(heard(topic) >= len(table[topic]) for topic in counted):
                break
        for reader in readers:  # overtaken on its way; without a stamp among stamped ones
            for age in (DT, time.time_ns()):
                robot.publishers[reader.topic].publish(robot.sees(reader, np.zeros(2), int(age)))
        answer = array_message(observer.answers)
        for macro in (10**6, 10**9, -1):  # never asked
            answer.data = observer.answers.pack(session, macro, 0, 1, vectors=(np.zeros(2),))
            publishers["decision/response"].publish(answer)
        ticks = len(observer.ticks())
        wait_for(lambda: len(observer.ticks()) > ticks + 2.5 / DT, 10.0, observer.state)

        assert observer.state() == "running"
        for topic in counted:
            assert heard(topic) >= len(table[topic]), (topic, told["skill_node: sensors"])
            assert told["skill_node: sensors"][f"{topic} refused last"].startswith(f"{topic}: ")
        assert int(told["skill_node: decisions"]["not used"]) >= 4
        ticks = observer.ticks()
        assert [int(t["tick"]) for t in ticks] == list(range(len(ticks)))
        commands = observer.commands()
        assert np.isfinite(commands).all()
        assert np.abs(commands).max() <= 1.0
        assert np.abs(np.diff(commands, axis=0)).max() <= RATE + 1e-9
        assert observer.call(Trigger, "skill_node/stop").success
        assert observer.call(Trigger, "skill_node/disarm").success
        assert world.nodes["skill_node"].poll() is None


def publisher(observer, kind, topic, quality):
    return observer.node.create_publisher(kind, topic, quality)


def forward(speed):
    message = TwistStamped()
    message.twist.linear.x = speed
    return message


BAD_COMMANDS = {
    "garbage": b"\0\1\0\0garbage",
    "an empty message": b"\0\1\0\0",
    "nan": forward(np.nan),
    "inf_values": forward(-np.inf),
    "beyond": forward(1e300),
    "a little beyond": forward(1.01),
}


@pytest.mark.ros
@pytest.mark.realtime
def test_bad_commands_trip_the_watchdog_and_do_not_move_the_simulator(bundle, hardened):
    with new_domain() as stack:
        world = World(bundle, stack)
        observer = world.observer
        said = []
        observer.node.create_subscription(
            String, "watchdog_node/state", lambda m: said.append(m.data), LATCHED
        )
        sender = publisher(observer, TwistStamped, "cmd_vel", COMMAND)
        world.start("sim_node")
        world.start("watchdog_node", autostart=False)  # so that nobody brakes for sim_node
        wait_for(lambda: sender.get_subscription_count() >= 2, 20.0, "sim_node")
        wait_for(lambda: observer.heard["odom"], 15.0, "sim_node")
        for bad in BAD_COMMANDS.values():
            sender.publish(bad)
            time.sleep(0.1)
        assert observer.call(SetBool, "sim_node/pause", data=True).success
        speeds = [m.twist.twist.linear for _, m in observer.heard["odom"]]
        assert max(abs(v) for speed in speeds for v in (speed.x, speed.y)) < 1e-3

        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            assert observer.change("watchdog_node", transition)
        wait_for(lambda: sender.get_subscription_count() >= 3, 20.0, "watchdog_node")
        wait_for(lambda: said, 15.0, "watchdog_node")
        for what, bad in BAD_COMMANDS.items():
            begun = time.monotonic()
            sender.publish(bad)
            wait_for(lambda: said[-1].startswith("tripped: "), 2.0, f"{what}: {said[-1]}")
            assert time.monotonic() - begun < DT + SLACK, what
            assert said[-1].startswith(("tripped: cmd_vel: ", "tripped: command base_velocity.0"))
            assert observer.call(Trigger, "watchdog_node/reset").success
            wait_for(lambda: said[-1] == "watching", 2.0, what)
        finite = [c for c in observer.commands() if np.isfinite(c).all() and np.abs(c).max() < 1]
        assert not np.any(finite)  # what the watchdog sent
        for process in world.nodes.values():
            assert process.poll() is None


@pytest.mark.parametrize(
    ("middleware", "told_apart"),
    [
        ("rmw_fastrtps_cpp", True),
        ("rmw_fastrtps_dynamic_cpp", True),
        ("rmw_cyclonedds_cpp", False),
        ("rmw_zenoh_cpp", False),
    ],
)
def test_panels_are_told_apart_with_fast_dds_alone(monkeypatch, middleware, told_apart):
    """Others name the publisher of a message otherwise than the ROS graph does."""
    monkeypatch.setattr(safety_listener, "get_rmw_implementation_identifier", lambda: middleware)
    assert (safety_listener.word_taker() is not safety_listener._anonymous) is told_apart
