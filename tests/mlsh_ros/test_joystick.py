"""A joystick permits the robot to move, and its loss stops it."""

import random
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from mlsh_ros.bringup.graphs import GRAPHS
from mlsh_ros.control.joystick import AGAIN, PROFILES, SERVICES, UNSTOPPED, Buttons, Joystick
from mlsh_ros.control.supervisor import State
from sim.errors import UserError

PAD = PROFILES["game_controller"]
MAX_AGE = 0.5
LOOK = 0.02
profiles = pytest.mark.parametrize("profile", PROFILES)


def pressed(*names, buttons=PAD, size=21):
    """`buttons` of a message in which these are pressed."""
    numbers = {getattr(buttons, name) for name in names}
    return [int(i in numbers) for i in range(size)]


def made(buttons=PAD, at=0.0):
    """A joystick that is looked at from now on."""
    joystick = Joystick(buttons, MAX_AGE)
    joystick.look(at, None)
    return joystick


def held(at=0.0):
    """A joystick whose dead-man's switch has just been pressed."""
    joystick = made(at=at)
    joystick.hear(pressed(), at)
    joystick.hear(pressed("hold"), at)
    assert joystick.holds
    return joystick


@profiles
def test_each_button_asks_once_for_what_it_is_named_for(profile):
    buttons = PROFILES[profile]
    joystick = made(buttons)
    joystick.hear(pressed(buttons=buttons), 0.0)
    joystick.hear(pressed("hold", buttons=buttons), 0.1)
    for i, name in enumerate([*SERVICES, "next_master"]):
        now = 0.2 + i / 10
        joystick.look(now, State.READY)
        both = pressed("hold", name, buttons=buttons)
        assert joystick.hear(both, now).requests == (name,)
        assert joystick.hear(both, now + 0.02).requests == ()  # it is still pressed
        assert joystick.hear(pressed("hold", buttons=buttons), now + 0.04).requests == ()
    assert joystick.stop_requested(1.0) == ""


def test_start_needs_the_dead_mans_switch():
    joystick = made()
    joystick.hear(pressed(), 0.0)
    asked = joystick.hear(pressed("start"), 0.1)
    assert asked.requests == ()
    assert asked.notes == (f"start: hold button {PAD.hold} while you press it",)


def test_its_release_stops_the_robot_and_if_it_does_not_stop_so_does_the_emergency_stop():
    joystick = held()
    assert joystick.look(0.1, State.RUNNING).requests == ()
    joystick.hear(pressed(), 0.2)
    assert joystick.look(0.2, State.RUNNING).requests == ("stop",)
    asked, now = 0, 0.2
    while now < 0.2 + UNSTOPPED:
        now += LOOK
        joystick.hear(pressed(), now)
        asked += len(joystick.look(now, State.RUNNING).requests)
    assert asked == pytest.approx(UNSTOPPED / AGAIN, abs=1)
    joystick.look(now + LOOK, State.RUNNING)
    assert joystick.stop_requested(now) == "the robot does not stop"
    # It holds, until a person resets it.
    joystick.look(now + 0.1, State.FAULT)
    joystick.hear(pressed("hold"), now + 0.1)
    assert joystick.stop_requested(now + 0.1)
    assert joystick.hear(pressed("reset"), now + 0.2).requests == ("reset",)
    assert joystick.stop_requested(now + 0.2) == ""


def test_a_robot_that_stops_is_not_asked_again():
    joystick = held()
    joystick.hear(pressed(), 0.1)
    assert joystick.look(0.1, State.RUNNING).requests == ("stop",)
    for state in (State.STOPPING, State.READY, State.FAULT, State.DISARMED, None):
        assert joystick.look(5.0, state).requests == ()
    assert joystick._latched == ""


def test_who_starts_the_robot_otherwise_while_nobody_holds_is_stopped_too():
    joystick = Joystick(PAD, MAX_AGE)
    joystick.hear(pressed(), 0.0)
    assert joystick.look(0.1, State.RUNNING).requests == ("stop",)


def test_a_silent_joystick_requests_the_emergency_stop_until_it_is_back():
    joystick = Joystick(PAD, MAX_AGE)
    assert joystick.stop_requested(0.0) == "the joystick is silent"
    joystick.hear(pressed(), 1.0)
    assert joystick.stop_requested(1.0 + MAX_AGE) == ""
    assert joystick.stop_requested(1.0 + MAX_AGE + 0.001) == "the joystick is silent"
    joystick.hear(pressed(), 3.0)
    assert joystick.stop_requested(3.0) == ""


def test_a_driver_that_repeats_the_old_buttons_of_a_pad_that_comes_back_holds_nothing():
    """game_controller_node keeps them; only what is pressed after that counts."""
    joystick = held()
    for tenths in range(31):
        joystick.look(tenths / 10, State.STOPPING)
    assert joystick.hear(pressed("hold", "start", "arm"), 3.0).requests == ()
    assert not joystick.holds
    joystick.hear(pressed("hold"), 3.1)
    assert not joystick.holds
    joystick.hear(pressed(), 3.2)
    joystick.hear(pressed("hold"), 3.3)
    assert joystick.holds
    assert joystick.hear(pressed("hold", "start"), 3.4).requests == ("start",)


@pytest.mark.parametrize("looks", [(), (0,), (2,), (0, 1, 2, 3)], ids=str)
def test_messages_that_waited_while_the_process_stood_still_ask_for_nothing(looks):
    """Whichever of them the executor takes before or after the timer that is overdue."""
    joystick = held()
    joystick.look(0.1, State.READY)
    waited = (pressed(), pressed("hold"), pressed("hold", "arm"), pressed("hold", "start"))
    for i, message in enumerate(waited):
        if i in looks:
            joystick.look(5.0 + i / 1000, State.READY)
        assert joystick.hear(message, 5.0 + i / 1000).requests == ()
    assert not joystick.holds
    now = 5.1
    while now < 6.0:
        assert joystick.look(now, State.READY).requests == ()
        assert joystick.hear(pressed("hold"), now).requests == ()
        now += 0.05
    assert not joystick.holds  # it has to be seen released again
    assert joystick.hear(pressed("hold", "start"), now).requests == ()


@pytest.mark.parametrize("heard", [False, True])
def test_an_emergency_stop_counts_whenever_it_was_pressed(heard):
    """Also in the first message, and in one that waited: only what starts is distrusted."""
    joystick = held() if heard else made()
    for message in (pressed("emergency_stop"), pressed()):
        joystick.hear(message, 5.0)
    assert joystick.stop_requested(5.0) == "its emergency stop is pressed"


@pytest.mark.parametrize("state", [State.READY, State.RUNNING])
def test_a_start_that_is_served_after_the_release_is_taken_back(state):
    """skill_node checks for a while before it begins; a stop voids the request."""
    joystick = held()
    assert joystick.hear(pressed("hold", "start"), 0.1).requests == ("start",)
    joystick.hear(pressed(), 0.2)
    assert joystick.look(0.2, state).requests == ("stop",)
    assert joystick.look(0.2 + AGAIN / 2, state).requests == ()
    joystick.hear(pressed(), 0.2 + AGAIN)
    assert joystick.look(0.2 + AGAIN, state).requests == ("stop",)


def test_the_emergency_stop_holds_after_its_release():
    joystick = held()
    joystick.hear(pressed("hold", "emergency_stop"), 0.1)
    assert joystick.stop_requested(0.1) == "its emergency stop is pressed"
    asked = joystick.hear(pressed("emergency_stop", "reset"), 0.2)
    assert asked.requests == ()
    assert asked.notes == ("reset: release the emergency stop first",)
    joystick.hear(pressed(), 0.3)
    assert joystick.stop_requested(0.3)
    joystick.hear(pressed("reset"), 0.4)
    assert not joystick.stop_requested(0.4)


def test_whatever_is_pressed_nothing_moves_without_the_switch_and_nothing_moves_on():
    """Over random buttons, pauses and states."""
    rng, moments = random.Random(0), 0
    names = [*PAD.by_name]
    for _ in range(300):
        joystick, now, since, seen_released = made(), 0.0, None, False
        heard, looked = None, 0.0
        for _ in range(60):
            now += rng.choice([LOOK, LOOK, LOOK, 0.2, 0.7])
            gone = heard is None or now - heard > MAX_AGE or now - looked > MAX_AGE
            state = rng.choice([State.RUNNING, State.RUNNING, State.READY])
            if rng.random() < 0.7:
                down = {name for name in names if rng.random() < (0.7 if name == "hold" else 0.1)}
                asked = joystick.hear(pressed(*down), now)
                seen_released = (seen_released and not gone) or "hold" not in down
                heard, gone = now, False
                permitted = seen_released and "hold" in down
                assert permitted or "start" not in asked.requests
                assert permitted or not joystick.holds
            elif gone:
                seen_released = False
            asked, looked = joystick.look(now, state), now
            may = joystick.holds and not gone and not joystick.stop_requested(now)
            if state is not State.RUNNING or may:
                since = None
                continue
            since = now if since is None else since
            moments += 1
            if now - since > UNSTOPPED:
                assert joystick.stop_requested(now)
            if since == now:
                assert asked.requests == ("stop",)
    assert moments > 1000


@profiles
def test_a_pad_with_other_buttons_is_refused(profile):
    joystick = Joystick(PROFILES[profile], MAX_AGE)
    most = max(PROFILES[profile].by_name.values())
    with pytest.raises(UserError, match=rf"{most} buttons, and button {most} is \w+: of another"):
        joystick.hear([0] * most, 0.0)
    with pytest.raises(UserError, match=r"button 1 is 7; valid: 0, 1"):
        joystick.hear([0, 7] + [0] * most, 0.0)
    assert joystick.stop_requested(0.0)


def test_two_things_on_one_button_are_refused():
    same = {name: i for i, name in enumerate(PAD.by_name)} | {"start": 0}
    with pytest.raises(UserError, match=r"button 0 is given to hold and to start"):
        Buttons(**same)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=list(GRAPHS))
def test_with_a_joystick_its_silence_is_a_fault_whatever_a_parameter_file_says(graph, tmp_path):
    given = {"joystick": "true", "bundle": "moving_bandits"}
    parameters = graph.parameters(graph.resolve(given))
    assert parameters["skill_node"]["estop"] is True
    assert parameters["skill_node"]["auto_arm"] is False
    assert parameters["joystick_node"]["joystick_profile"] == "game_controller"
    path = tmp_path / "params.yaml"
    path.write_text("skill_node: {ros__parameters: {estop: false}}\n")
    with pytest.raises(UserError, match="skill_node: estop must stay true"):
        graph.parameters(graph.resolve({**given, "params_file": str(path)}))
    # Without a joystick the file decides.
    without = graph.resolve({"bundle": "moving_bandits", "params_file": str(path)})
    assert "estop" not in graph.parameters(without)["skill_node"]
    assert "joystick_node" not in graph.parameters(without)


# Through real nodes ------------------------------------------------------------------------------


class Pad:
    """A driver of a pad, which repeats the buttons 20 times a second."""

    def __init__(self, observer):
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import Joy

        self._make = Joy
        self._publisher = observer.node.create_publisher(Joy, "joy", QoSProfile(depth=10))
        self.down, self._plugged, self._closing = (), True, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._closing.wait(0.05):
            if self._plugged:
                self._publisher.publish(self._make(buttons=pressed(*self.down)))

    def press(self, *names, keep=()):
        """Press and release buttons, while others are kept."""
        self.down = (*keep, *names)
        time.sleep(0.2)
        self.down = keep

    @contextmanager
    def unplugged(self):
        self._plugged = False
        yield
        self._plugged = True

    def close(self):
        self._closing.set()
        self._thread.join()


@pytest.mark.ros
@pytest.mark.realtime
@pytest.mark.timeout(240)
def test_a_person_arms_drives_and_stops_a_robot_with_a_joystick(bundle):
    pytest.importorskip("rclpy")
    from tests.support.nodes import (
        RATE,
        SLACK,
        World,
        assert_brought_to_rest,
        new_domain,
        wait_for,
    )

    with new_domain() as stack:
        world = World(bundle, stack)
        observer = world.observer
        world.start("watchdog_node")
        world.start("joystick_node")
        world.start_all(estop=True)
        observer.wait("disarmed")
        pad = Pad(observer)
        stack.callback(pad.close)

        def press_until(state, *names, keep=()):
            deadline = time.monotonic() + 25.0
            while not observer.state().startswith(state) and time.monotonic() < deadline:
                pad.press(*names, keep=keep)
                time.sleep(0.3)
            observer.wait(state, 0.5)

        def drive():
            press_until("ready", "arm")
            pad.down = ("hold",)
            time.sleep(0.2)
            press_until("running", "start", keep=("hold",))
            observer.wait_until_it_moves()

        drive()
        # Another master, while it moves.
        first = observer.heard["master_node/master"][-1][1].data
        pad.press("next_master", keep=("hold",))
        heard = observer.heard["master_node/master"]
        wait_for(lambda: heard[-1][1].data != first, 3.0, "another master")
        # The release of the switch is a stop, under the rate limit.
        since = time.monotonic()
        pad.down = ()
        observer.wait("ready", 5.0)
        assert observer.times("stopping")[-1] - since < 0.05 + 0.02 + SLACK
        assert_brought_to_rest(observer, observer.times("stopping")[-1])
        # Its cable is pulled.
        pad.down = ("hold",)
        time.sleep(0.2)
        press_until("running", "start", keep=("hold",))
        observer.wait_until_it_moves()
        since = time.monotonic()
        with pad.unplugged():
            observer.wait("fault: estop: topic 'estop' is true, from /joystick_node", 3.0)
            assert observer.times("fault")[-1] - since < MAX_AGE + 0.05 + SLACK
            assert_brought_to_rest(observer, observer.times("fault")[-1])
        # Back again, the old buttons move nothing.
        time.sleep(0.5)
        assert observer.state().startswith("fault")
        pad.down = ()
        time.sleep(0.2)
        press_until("disarmed", "reset")
        drive()
        # The node itself ends.
        since = time.monotonic()
        world.nodes["joystick_node"].send_signal(signal.SIGKILL)
        observer.wait("fault: estop_lost", 3.0)
        assert observer.times("fault")[-1] - since < 0.5 + 0.05 + SLACK
        assert_brought_to_rest(observer, observer.times("fault")[-1])
        observer.assert_path(RATE)
