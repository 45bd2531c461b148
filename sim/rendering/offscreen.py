"""Renders episodes off-screen to a video (MP4, GIF) or an image (PNG)."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sim.errors import UserError
from sim.files.output import check_format, replacing
from sim.physics.robot_model import Robot
from sim.rendering.scene import PAUSE, EpisodeReplay, Frame, SceneRenderer
from sim.rendering.video import find_encoder, write_mp4
from sim.tasks.base import TaskFamily

__all__ = [
    "SUFFIXES",
    "EpisodeReplay",
    "Frame",
    "NoGraphics",
    "OffscreenRenderer",
    "check_film",
    "film",
]

Draw = Callable[[mujoco.MjvScene], Image.Image]
Shown = list[tuple[EpisodeReplay, range]]  # the ticks of each episode that become pictures
OnPicture = Callable[[int, int], None]  # pictures drawn so far, of how many

SUFFIXES = (".mp4", ".gif", ".png")
MAX_PICTURES = 240  # in a GIF; longer films show every second tick, or every third, ...
MAX_RATE = 30  # pictures per second of a film; of faster ticks it shows every second, ...
COLORS = 256  # in a GIF's palette
INK, MUTED = (28, 38, 51), (64, 74, 89)  # text
PAPER = (255, 255, 255, 215)  # behind the text, which has to be read before any scene


class NoGraphics(UserError):  # noqa: N818  a state of the machine, not a bug
    """OpenGL is not available; callers report it and continue without pictures."""


def check_film(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a path that `film` cannot write, before any simulation runs.

    Raises:
        UserError: another suffix, no such folder, or MP4 without an encoder.
    """
    check_format(path, "picture", SUFFIXES, overwrite=overwrite)
    if path.suffix == ".mp4":
        find_encoder()


def film(
    robot: Robot,
    scenes: Sequence[EpisodeReplay],
    path: Path,
    *,
    size: tuple[int, int] = (480, 360),
    fps: float = 20,
    overwrite: bool = False,
    on_picture: OnPicture = lambda *_: None,
) -> None:
    """Draw the episodes one after the other.

    A ring marks the goal that counts, in a family that has one.

    Args:
        robot: the robot.
        scenes: at least one, none empty.
        path: `.mp4` or `.gif` for a film, `.png` for the last frame of the last scene.
        size: width and height in pixels; even numbers for an MP4.
        fps: frames of a scene per second of a film.
        overwrite: whether a file that is there may be replaced.
        on_picture: is called with the progress.

    Raises:
        UserError: see `check_film`; nothing to draw; or the file could not be written.
        NoGraphics: OpenGL is missing.
    """
    check_film(path, overwrite=overwrite)
    if not scenes or not all(scene.frames for scene in scenes):
        raise UserError(f"{path}: nothing to draw, a scene without frames or no scene at all")
    with ExitStack() as studios:
        studio = OffscreenRenderer(robot, size, studios)
        if path.suffix == ".mp4":
            _write_mp4(studio, scenes, path, fps, overwrite, on_picture)
            return
        with replacing(path, overwrite=overwrite) as fresh:
            if path.suffix == ".png":
                studio.picture(scenes[-1], len(scenes[-1].frames) - 1).save(fresh, optimize=True)
            else:
                _write_gif(studio, scenes, fresh, fps, on_picture)


def _shown(scenes: Sequence[EpisodeReplay], stride: int) -> Shown:
    # Backwards from the last tick, so that every scene shows its end.
    return [(scene, range(len(scene.frames))[::-1][::stride][::-1]) for scene in scenes]


def _stride(fps: float) -> int:
    """Number of ticks per frame of a film."""
    return int(np.ceil(fps / MAX_RATE))


def _write_gif(
    studio: OffscreenRenderer,
    scenes: Sequence[EpisodeReplay],
    path: Path,
    fps: float,
    on_picture: OnPicture,
) -> None:
    total = sum(len(scene.frames) for scene in scenes)
    stride = max(-(-total // MAX_PICTURES), _stride(fps))
    shown = _shown(scenes, stride)
    # The ends hold every color of the trails.
    palette = _palette([studio.picture(scene, ticks[-1]) for scene, ticks in shown])
    pictures = (
        picture.quantize(palette=palette, dither=Image.Dither.NONE)
        for picture, _ in studio.pictures(shown, on_picture)
    )
    # GIF counts in 10 ms: rounded up and down in turns, so that a film keeps its pace.
    marks = [10 * round(100 * i * stride / fps) for i in range(MAX_PICTURES + 1)]
    durations = [
        marks[i + 1] - marks[i] if tick != ticks[-1] else round(1000 * PAUSE)
        for _, ticks in shown
        for i, tick in enumerate(ticks)
    ]
    next(pictures).save(
        path, save_all=True, append_images=pictures, duration=durations, loop=0, optimize=True
    )


def _write_mp4(
    studio: OffscreenRenderer,
    scenes: Sequence[EpisodeReplay],
    path: Path,
    fps: float,
    overwrite: bool,
    on_picture: OnPicture,
) -> None:
    stride = _stride(fps)
    rate = fps / stride
    pause = round(rate * PAUSE)
    pictures = (
        picture
        for picture, is_last in studio.pictures(_shown(scenes, stride), on_picture)
        for _ in range(1 + pause * is_last)
    )
    write_mp4(pictures, path, size=studio.size, rate=rate, overwrite=overwrite)


def _palette(pictures: Sequence[Image.Image]) -> Image.Image:
    width, height = pictures[0].size
    sheet = Image.new("RGB", (width, height * len(pictures)))
    for row, picture in enumerate(pictures):
        sheet.paste(picture, (0, row * height))
    return sheet.quantize(COLORS, method=Image.Quantize.MEDIANCUT)


class OffscreenRenderer:
    """Draws frames of any family's scenes; the graphics contexts exist until `exits` is closed.

    Args:
        robot: the robot.
        size: width and height of the pictures in pixels.
        exits: releases the graphics contexts when it is closed.
    """

    def __init__(self, robot: Robot, size: tuple[int, int], exits: ExitStack) -> None:
        self._robot, self.size, self._exits = robot, size, exits
        self._open: list[tuple[TaskFamily, SceneRenderer, Draw]] = []

    def pictures(self, shown: Shown, on_picture: OnPicture) -> Iterator[tuple[Image.Image, bool]]:
        """Yields every picture in order, and whether it is the last of its scene."""
        total, done = sum(len(ticks) for _, ticks in shown), 0
        for scene, ticks in shown:
            for tick in ticks:
                yield self.picture(scene, tick), tick == ticks[-1]
                done += 1
                on_picture(done, total)

    def picture(self, scene: EpisodeReplay, tick: int) -> Image.Image:
        """The frame at `tick` of a scene, with the path to it and its caption."""
        picture = self.draw(scene, tick)
        _write(picture, scene.title, scene.frames[tick])
        return picture

    def draw(self, scene: EpisodeReplay, tick: int) -> Image.Image:
        """The frame at `tick` of a scene, with the path to it and without any text.

        Raises:
            NoGraphics: OpenGL is missing.
        """
        stage, draw = self._of(scene.family)
        return draw(stage.build_scene(scene, tick, self.size[0] / self.size[1]))

    def _of(self, family: TaskFamily) -> tuple[SceneRenderer, Draw]:
        for known, stage, draw in self._open:
            if known == family:
                return stage, draw
        stage = SceneRenderer(self._robot, family)
        draw = self._exits.enter_context(_offscreen(stage.model, self.size))
        self._open.append((family, stage, draw))
        return stage, draw


def _write(picture: Image.Image, title: str, frame: Frame) -> None:
    """Draw title and caption at the top, with a swatch of the skill's color."""
    pen = ImageDraw.Draw(picture, "RGBA")
    unit = picture.height / 22  # a line of text
    pad = 0.6 * unit
    large = ImageFont.load_default(size=unit * 1.05)
    small = ImageFont.load_default(size=unit * 0.85)
    top = pad + 1.55 * unit
    right = max(pad + large.getlength(title), pad + 1.25 * unit + small.getlength(frame.caption))
    box = (pad / 2, pad / 2, right + pad / 2, top + 1.3 * unit)
    pen.rounded_rectangle(box, unit / 4, PAPER)
    pen.text((pad, pad), title, INK, large)
    swatch = tuple(round(255 * part) for part in frame.color)
    pen.rounded_rectangle((pad, top, pad + 0.8 * unit, top + 0.8 * unit), unit / 5, swatch)
    pen.text((pad + 1.25 * unit, top - 0.08 * unit), frame.caption, MUTED, small)


@contextmanager
def _offscreen(model: mujoco.MjModel, size: tuple[int, int]) -> Iterator[Draw]:
    """A function that draws scenes of `model` while the context exists.

    MuJoCo's own Renderer would need MUJOCO_GL=egl before `mujoco` is first imported.
    """
    width, height = size
    model.vis.global_.offwidth, model.vis.global_.offheight = size
    gl = None
    try:
        gl = _gl_context()(width, height)
        gl.make_current()
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    except Exception as error:  # each layer below fails with a type of its own
        if gl is not None:
            gl.free()
        raise NoGraphics(
            f"no OpenGL to draw with ({_first_sentence(error)}). "
            "On Debian or Ubuntu: apt install libegl1 libgl1-mesa-dri"
        ) from None
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    pixels = np.empty((height, width, 3), np.uint8)
    area = mujoco.MjrRect(0, 0, width, height)

    def draw(scene: mujoco.MjvScene) -> Image.Image:
        gl.make_current()  # another family's may have been in use
        mujoco.mjr_render(area, scene, context)
        mujoco.mjr_readPixels(pixels, None, area, context)
        return Image.fromarray(pixels[::-1])  # OpenGL counts rows from below

    try:
        yield draw
    finally:
        gl.make_current()
        context.free()
        gl.free()


def _gl_context() -> Any:
    """Returns MuJoCo's class for a context; on Linux always EGL, which needs no display."""
    if not hasattr(mujoco, "GLContext"):
        raise ImportError("MUJOCO_GL=disabled switches it off")
    if not sys.platform.startswith("linux"):
        return mujoco.GLContext
    os.environ.setdefault("EGL_LOG_LEVEL", "fatal")  # Mesa would print what is raised below
    ctypes.CDLL("libEGL.so.1")  # first: its error says which file is missing, the next does not
    from mujoco.egl import GLContext

    return GLContext


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__
