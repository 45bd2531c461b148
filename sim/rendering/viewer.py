"""Replays recorded episodes in MuJoCo's interactive viewer."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle, groupby
from typing import Any, Protocol

import mujoco

from sim.errors import UserError
from sim.physics.robot_model import Robot
from sim.rendering.scene import PAUSE, EpisodeReplay, SceneRenderer

IDLE = 0.05  # s, between looks at the window while it is paused
SPACE, RIGHT, LEFT = 32, 262, 263  # GLFW's numbers of keys
INSTEAD = "with -o FILE.mp4 (or .gif, .png) no display is needed"


class Window(Protocol):
    """The methods of `mujoco.viewer.Handle` that are used."""

    cam: mujoco.MjvCamera
    user_scn: mujoco.MjvScene

    def is_running(self) -> bool:
        """True until the window is closed."""

    def lock(self) -> AbstractContextManager[Any]:
        """Lock that protects changes of the model's data and the window's scene."""

    def set_texts(self, texts: Any) -> None:
        """Set (font, place, left column, right column) over the picture."""

    def sync(self) -> None:
        """Redraw with the changed data."""

    def close(self) -> None:
        """Close the window."""


Launch = Callable[[mujoco.MjModel, mujoco.MjData, Callable[[int], None]], Window]


@dataclass
class Keys:
    """State of the user's requests, set by key presses."""

    paused: bool = False
    step: int = 0  # episodes to go on, or back

    def press(self, key: int) -> None:
        """Handle a key; the window calls this from its own thread."""
        if key == SPACE:
            self.paused = not self.paused
        elif key in (LEFT, RIGHT):
            self.step, self.paused = 1 if key == RIGHT else -1, False

    def take_step(self) -> int:
        """Returns the requested change of episode, once."""
        step, self.step = self.step, 0
        return step


def require_display() -> None:
    """Refuse to continue without a display for OpenGL; MuJoCo's viewer itself would wait forever.

    Raises:
        UserError: it cannot.
    """
    names = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in names):
        raise UserError(f"no display for the viewer: DISPLAY is not set; {INSTEAD}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its way to say why
        import glfw

        window = None
        if glfw.init():
            glfw.window_hint(glfw.VISIBLE, glfw.FALSE)
            window = glfw.create_window(64, 64, "", None, None)
            glfw.terminate()
    if not window:
        shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        raise UserError(f"no window with OpenGL on display {shown!r} for the viewer; {INSTEAD}")


def launch(
    model: mujoco.MjModel, data: mujoco.MjData, on_key: Callable[[int], None]
) -> Window:  # pragma: no cover  needs a display
    """Open MuJoCo's own window.

    Raises:
        UserError: macOS without mjpython.
    """
    import mujoco.viewer

    try:
        window: Window = mujoco.viewer.launch_passive(
            model, data, key_callback=on_key, show_left_ui=False, show_right_ui=False
        )
    except RuntimeError as error:
        raise UserError(f"no viewer: {' '.join(str(error).split())}; {INSTEAD}") from None
    return window


def show(
    robot: Robot,
    scenes: Sequence[EpisodeReplay],
    *,
    period: float,
    launch: Launch = launch,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the episodes one after the other, again and again, until the window is closed.

    Space pauses, the arrow keys go to the next episode, or back to the beginning of this one and
    from there to the one before.

    Args:
        robot: the robot.
        scenes: at least one, none empty.
        period: s per frame.
        launch: opens a window for a model and its data.
        now: s, any origin.
        sleep: waits for s.

    Raises:
        UserError: raised by `launch`.
    """
    groups = [list(group) for _, group in groupby(scenes, key=lambda scene: scene.family)]
    for group in cycle(groups):
        keys, stage = Keys(), SceneRenderer(robot, group[0].family)
        window = launch(stage.model, stage.data, keys.press)
        try:
            player = _Player(stage, window, keys, period, now, sleep)
            player.play(group, again=len(groups) == 1)
            if not window.is_running():
                return
        finally:
            window.close()


class _Player:
    """Plays scenes of one family in one window."""

    def __init__(
        self,
        stage: SceneRenderer,
        window: Window,
        keys: Keys,
        period: float,
        now: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._stage, self._window, self._keys = stage, window, keys
        self._period, self._now, self._sleep = period, now, sleep

    def play(self, scenes: Sequence[EpisodeReplay], *, again: bool) -> None:
        """Play all scenes once, or with `again` until the window is closed."""
        number = 0
        while self._window.is_running() and (again or number < len(scenes)):
            number = max(0, number + self._scene(scenes[number % len(scenes)]))

    def _scene(self, scene: EpisodeReplay) -> int:
        """Show one scene; returns the change of episode."""
        self._aim(scene)
        due = self._now()
        last = len(scene.frames) - 1
        for tick in range(len(scene.frames)):
            self._show(scene, tick)
            due = max(due + self._period + PAUSE * (tick == last), self._now())
            self._sleep(max(0.0, due - self._now()))
            while self._keys.paused and self._window.is_running():
                self._sleep(IDLE)
                due = self._now()
            if step := self._keys.take_step():
                begun = tick * self._period > 1.0
                return step if step > 0 or not begun else 0
            if not self._window.is_running():
                break
        return 1

    def _aim(self, scene: EpisodeReplay) -> None:
        camera, view = self._window.cam, self._stage.view(scene)
        with self._window.lock():
            camera.azimuth, camera.elevation, camera.distance = 90, -55, view.distance
            camera.type = mujoco.mjtCamera.mjCAMERA_FREE
            camera.lookat[:] = *view.lookat, 0
            if view.follows:
                camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
                camera.trackbodyid = self._stage.base

    def _show(self, scene: EpisodeReplay, tick: int) -> None:
        frame = scene.frames[tick]
        with self._window.lock():
            self._stage.pose(frame, scene.layout)
            self._window.user_scn.ngeom = 0
            self._stage.draw_trail(self._window.user_scn, scene, tick)
        text = f"{scene.title}\n{frame.caption}"
        font, place = mujoco.mjtFontScale.mjFONTSCALE_150, mujoco.mjtGridPos.mjGRID_TOPLEFT
        help_ = mujoco.mjtGridPos.mjGRID_BOTTOMLEFT
        keys = "space: pause\nleft, right: episode"
        self._window.set_texts([(font, place, text, ""), (font, help_, keys, "")])
        self._window.sync()
