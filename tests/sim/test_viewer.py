"""MuJoCo's viewer shows what was driven, at its pace; here with a window that only notes it."""

from contextlib import nullcontext

import mujoco
import numpy as np
import pytest

from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.rendering.scene import EpisodeReplay, Frame, SceneRenderer
from sim.rendering.viewer import LEFT, PAUSE, RIGHT, SPACE, require_display, show
from sim.tasks.registry import make_family

OMNI = load_robot("omni")
BANDITS, ROOMS = make_family("moving_bandits"), make_family("rooms")
PERIOD = 0.5
RED, BLUE = (0.9, 0.1, 0.3), (0.2, 0.2, 0.9)


def scene(title, family=BANDITS, ticks=3, start=0.0, step=0.1):
    """The robot goes along x."""
    layout = {k: np.asarray(v)[None] for k, v in family.reset(0, np.random.default_rng(0)).items()}
    xs = start + step * np.arange(ticks)
    frames = [
        Frame({"position": np.array([x, 0.0])}, f"tick {i}", RED if i < 1 else BLUE, np.r_[x, 0])
        for i, x in enumerate(xs)
    ]
    return EpisodeReplay(family, title, layout, frames)


class Desk:
    """Launches windows; they share a clock, and close when `shown` pictures have been seen."""

    def __init__(self, shown, keys=None):
        self.left, self.keys = shown, keys or {}
        self.windows, self.time, self.naps = [], 0.0, []

    def launch(self, model, data, on_key):
        self.windows.append(FakeWindow(self, model, data, on_key))
        return self.windows[-1]

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds
        self.naps.append(seconds)
        if "nap" in self.keys and len(self.naps) >= 3:  # wake up who paused
            self.windows[-1].on_key(self.keys.pop("nap"))

    def show(self, *scenes, robot=OMNI):
        show(robot, scenes, period=PERIOD, launch=self.launch, now=self.now, sleep=self.sleep)
        return [each for window in self.windows for each in window.seen]


class FakeWindow:
    def __init__(self, desk, model, data, on_key):
        self.desk, self.data, self.on_key = desk, data, on_key
        self.cam, self.user_scn = mujoco.MjvCamera(), mujoco.MjvScene(model, 1000)
        self.text, self.seen, self.closed = "", [], False

    def is_running(self):
        return self.desk.left > 0 and not self.closed

    def lock(self):
        return nullcontext()

    def set_texts(self, texts):
        self.text = texts[0][2]

    def sync(self):
        lines = [g.rgba[:3] for g in self.user_scn.geoms[: self.user_scn.ngeom]]
        x, where = self.data.joint("slide_x").qpos[0], self.data.body("base_link").xpos[0]
        assert x == where  # posed, not only set
        self.seen.append((self.desk.time, self.text, float(x), np.array(lines)))
        self.desk.left -= 1
        if key := self.desk.keys.get(len(self.seen)):
            self.on_key(key)

    def close(self):
        self.closed = True


def test_every_frame_is_shown_when_it_is_due_with_its_caption():
    seen = Desk(4).show(scene("one"))
    assert [text for _, text, *_ in seen] == [f"one\ntick {i}" for i in (0, 1, 2, 0)]
    assert [time for time, *_ in seen] == [0, 0.5, 1.0, 1.5 + PAUSE]  # and over again
    np.testing.assert_allclose([x for _, _, x, _ in seen], [0, 0.1, 0.2, 0])


def test_a_picture_that_takes_long_does_not_make_the_next_ones_hurry():
    desk = Desk(3)
    slow, launch = iter([0.7, 0.0, 0.0]), desk.launch  # s, more than a period

    def launch_slow(*arguments):
        window = launch(*arguments)
        sync = window.sync

        def late():
            sync()
            desk.time += next(slow)

        window.sync = late
        return window

    desk.launch = launch_slow
    times = [time for time, *_ in desk.show(scene("one"))]
    assert times == [0, 0.7, 1.2]


def test_the_trail_grows_in_the_colors_of_the_skills():
    *_, third = Desk(3).show(scene("one"))
    trail = third[3][:2]  # from 0 to 1 and from 1 to 2; after that comes the ring
    np.testing.assert_allclose(trail, [RED, BLUE], atol=1e-6)
    assert len(third[3]) == 2 + 48


@pytest.mark.parametrize(
    ("key", "titles"),
    [(RIGHT, "a b b b c"), (LEFT, "a a a a b"), (SPACE, "a a a b b")],
)
def test_keys_change_the_episode(key, titles):
    desk = Desk(5, keys={1: key, "nap": SPACE if key == SPACE else 0})
    seen = desk.show(scene("a"), scene("b"), scene("c"))
    assert " ".join(text[0] for _, text, *_ in seen) == titles


def test_left_in_the_midst_of_an_episode_begins_it_again():
    desk = Desk(9, keys={7: LEFT})  # tick 3 of b, 1.5 s after its beginning
    seen = desk.show(scene("a"), scene("b", ticks=5))
    shown = " ".join(text[0] + text[-1] for _, text, *_ in seen)
    assert shown == "a0 a1 a2 b0 b1 b2 b3 b0 b1"


def test_a_paused_window_stands_still_and_can_be_closed():
    desk = Desk(5, keys={2: SPACE})
    sleep = desk.sleep

    def close_at_last(seconds):
        sleep(seconds)
        if len(desk.naps) > 20:
            desk.windows[0].closed = True

    desk.sleep = close_at_last
    assert len(desk.show(scene("a"))) == 2


def test_every_family_gets_its_own_window_in_turn():
    desk = Desk(8)
    desk.show(scene("a"), scene("b", ROOMS, start=0.5))
    assert [len(window.seen) for window in desk.windows] == [3, 3, 2]
    assert all(window.closed for window in desk.windows)


def test_the_window_closes_when_showing_fails():
    desk = Desk(5)
    broken = scene("a")
    broken.layout.clear()
    with pytest.raises(KeyError):
        desk.show(broken)
    assert desk.windows[0].closed


def test_a_long_way_is_followed_and_a_short_one_seen_whole():
    short, long = scene("a"), scene("b", step=50.0)
    desk = Desk(1)
    desk.show(short)
    assert desk.windows[0].cam.type == mujoco.mjtCamera.mjCAMERA_FREE
    desk = Desk(1)
    desk.show(long)
    camera = desk.windows[0].cam
    assert camera.type == mujoco.mjtCamera.mjCAMERA_TRACKING
    stage = SceneRenderer(OMNI, BANDITS)
    assert camera.trackbodyid == stage.model.body("base_link").id
    views = [stage.view(long, tick) for tick in range(3)]
    assert [view.lookat.tolist() for view in views] == [[0, 0], [50, 0], [100, 0]]
    # The walls of the rooms are seen too, wherever the goal is: they are as wide as 2.08 m.
    np.testing.assert_allclose(
        SceneRenderer(OMNI, ROOMS).view(scene("c", ROOMS)).lookat, 0, atol=1e-9
    )


def test_without_a_display_there_is_one_line(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UserError, match=r"no display .*DISPLAY is not set.*-o FILE\.mp4") as info:
        require_display()
    assert "\n" not in str(info.value)


def test_a_display_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":nobody")
    with pytest.raises(UserError, match=r"no window with OpenGL on display ':nobody'"):
        require_display()
