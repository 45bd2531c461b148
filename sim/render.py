"""Pictures of episodes: an animated GIF, or a still PNG, drawn without a display."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sim.addresses import Start, address, start_address
from sim.errors import UserError
from sim.interface import Floats
from sim.robot import Robot
from sim.tasks.task import Layout, TaskFamily

Colour = tuple[float, float, float]  # RGB, 0 to 1
Draw = Callable[[mujoco.MjvScene], Image.Image]

CAMERA = "overview"
SUFFIXES = (".gif", ".png")
MAX_GEOMS = 20_000  # the model's and those of the trail, one per tick
MAX_PICTURES = 240  # in a GIF; longer films show every second tick, or every third, ...
PAUSE = 800  # ms, on the last picture of a scene
COLOURS = 256  # in a GIF's palette
INK, MUTED = (28, 38, 51), (91, 104, 121)  # text
TRAIL_HEIGHT, TRAIL_RADIUS = 0.02, 0.014  # m
RING_RADIUS, RING_WIDTH = 0.25, 0.014  # m, around the goal that counts
RING_COLOUR = (0.11, 0.15, 0.20)


class NoGraphics(UserError):  # noqa: N818  a state of the machine, not a bug
    """OpenGL cannot draw here; callers say so and go on without pictures."""


@dataclass(frozen=True)
class Frame:
    """One tick."""

    fields: Mapping[str, NDArray[Any]]  # per term (size,), in the term's unit
    caption: str
    colour: Colour  # of the skill that acts from here to the next frame


@dataclass(frozen=True)
class Scene:
    """One episode."""

    title: str
    layout: Layout  # of one simulation, (1, ...) per name; a copy, a World writes to its own
    frames: Sequence[Frame]  # in time order


def film(
    robot: Robot,
    family: TaskFamily,
    scenes: Sequence[Scene],
    path: Path,
    *,
    size: tuple[int, int] = (480, 360),
    fps: int = 20,
) -> None:
    """Draw the episodes one after the other.

    Args:
        robot: the robot.
        family: places the goals. If it has a `target(layout)`, (1, 2) in m, a ring of its `radius`
            marks the goal that counts.
        scenes: at least one, none empty.
        path: `.gif` for a film, `.png` for the last frame of the last scene.
        size: width and height in pixels.
        fps: frames per second of a film.

    Raises:
        UserError: another suffix, no such folder, or nothing to draw.
        NoGraphics: OpenGL is missing.
    """
    _check(path, scenes)
    model = robot.compile(family.scene)
    with _offscreen(model, size) as draw:
        stage = _Stage(robot, family, model)
        if path.suffix == ".png":
            _picture(stage, draw, scenes[-1], len(scenes[-1].frames) - 1).save(path, optimize=True)
        else:
            _write_gif(stage, draw, scenes, path, fps)


def _check(path: Path, scenes: Sequence[Scene]) -> None:
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: no picture format {path.suffix!r}. Valid: {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: folder {str(path.parent)!r} does not exist")
    if not scenes or not all(scene.frames for scene in scenes):
        raise UserError(f"{path}: nothing to draw, a scene without frames or no scene at all")


def _write_gif(stage: _Stage, draw: Draw, scenes: Sequence[Scene], path: Path, fps: int) -> None:
    stride = -(-sum(len(scene.frames) for scene in scenes) // MAX_PICTURES)
    # Backwards from the last tick, so that every scene shows its end.
    ticks = [range(len(scene.frames))[::-1][::stride][::-1] for scene in scenes]
    # The ends hold every colour of the trails.
    palette = _palette(
        [_picture(stage, draw, s, t[-1]) for s, t in zip(scenes, ticks, strict=True)]
    )
    pictures = (
        _picture(stage, draw, scene, tick).quantize(palette=palette, dither=Image.Dither.NONE)
        for scene, shown in zip(scenes, ticks, strict=True)
        for tick in shown
    )
    step = round(1000 * stride / fps)
    durations = [step if tick != shown[-1] else PAUSE for shown in ticks for tick in shown]
    next(pictures).save(
        path, save_all=True, append_images=pictures, duration=durations, loop=0, optimize=True
    )


def _palette(pictures: Sequence[Image.Image]) -> Image.Image:
    width, height = pictures[0].size
    sheet = Image.new("RGB", (width, height * len(pictures)))
    for row, picture in enumerate(pictures):
        sheet.paste(picture, (0, row * height))
    return sheet.quantize(COLOURS, method=Image.Quantize.MEDIANCUT)


def _picture(stage: _Stage, draw: Draw, scene: Scene, tick: int) -> Image.Image:
    """The frame at `tick` of a scene, with the path to it and its caption."""
    picture = draw(stage.compose(scene, tick))
    _write(picture, scene.title, scene.frames[tick])
    return picture


class _Stage:
    """Puts the robot, the goals and the trail where a frame has them."""

    def __init__(self, robot: Robot, family: TaskFamily, model: mujoco.MjModel) -> None:
        terms = [t for t in robot.interface.observation if t.mujoco.qpos]
        self._joints = [(t.name, address(model, t)[1]) for t in terms]  # columns of qpos
        start = start_address(model, robot.interface)
        self._base = start if start is not None and len(start.quaternion) else None
        self._family = family
        self._model, self._data = model, mujoco.MjData(model)
        self._scene = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        self._camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, self._camera)
        self._camera.azimuth, self._camera.elevation = 90, -55  # y is up in the picture
        index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, CAMERA)
        if index >= 0:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._camera.fixedcamid = index

    def compose(self, scene: Scene, tick: int) -> mujoco.MjvScene:
        """What there is to see at `tick`; valid until the next call."""
        self._pose(scene.frames[tick], scene.layout)
        self._aim(scene)
        every = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, self._data, mujoco.MjvOption(), None, self._camera, every, self._scene
        )
        self._trail(scene.frames[: tick + 1])
        if target := getattr(self._family, "target", None):
            self._ring(target(scene.layout)[0])
        return self._scene

    def _pose(self, frame: Frame, layout: Layout) -> None:
        for name, columns in self._joints:
            if name in frame.fields:  # what is not observed is not known
                self._data.qpos[columns] = frame.fields[name]
        if self._base is not None:
            self._pose_base(self._base, frame)
        for body, place in self._family.place(layout).items():
            index = self._model.body(body).mocapid[0]
            self._data.mocap_pos[index, : place.shape[1]] = place[0]
        mujoco.mj_forward(self._model, self._data)

    def _pose_base(self, base: Start, frame: Frame) -> None:
        """A base on a free joint, as far as its fields say where it is."""
        if "position" in frame.fields:
            self._data.qpos[base.xy] = frame.fields["position"][:2]
        if "heading" in frame.fields:
            z, w = frame.fields["heading"]
            self._data.qpos[base.quaternion] = w, 0, 0, z

    def _aim(self, scene: Scene) -> None:
        """Show the goals and the whole path, if the model has no camera of its own for that."""
        places = self._family.place(scene.layout).values()
        points = [each[0, :2] for each in places] + _path(scene.frames)
        if points:
            low, high = np.min(points, axis=0), np.max(points, axis=0)
            self._camera.lookat[:2] = (low + high) / 2
            self._camera.distance = 2 * self._model.stat.extent + 1.4 * np.max(high - low)

    def _trail(self, frames: Sequence[Frame]) -> None:
        # A little higher every tick: where the path crosses itself, the later part lies on top.
        points = [_point(xy, TRAIL_HEIGHT + 2e-4 * i) for i, xy in enumerate(_path(frames))]
        for frame, start, end in zip(frames, points, points[1:], strict=False):
            self._line(start, end, TRAIL_RADIUS, frame.colour)

    def _ring(self, xy: Floats) -> None:
        radius = getattr(self._family, "radius", RING_RADIUS)
        angles = np.linspace(0, 2 * np.pi, 49)
        edge = xy + radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        points = [_point(each, RING_WIDTH) for each in edge]
        for start, end in pairwise(points):
            self._line(start, end, RING_WIDTH, RING_COLOUR)

    def _line(self, start: Floats, end: Floats, radius: float, colour: Colour) -> None:
        geom = self._scene.geoms[self._scene.ngeom]
        capsule = mujoco.mjtGeom.mjGEOM_CAPSULE
        rgba = np.array([*colour, 1], np.float32)
        mujoco.mjv_initGeom(geom, capsule, np.zeros(3), np.zeros(3), np.eye(3).ravel(), rgba)
        mujoco.mjv_connector(geom, capsule, radius, start, end)
        geom.emission = 0.1  # about the colour of the caption's swatch, in this light
        geom.category = mujoco.mjtCatBit.mjCAT_DECOR
        self._scene.ngeom += 1


def _path(frames: Sequence[Frame]) -> list[NDArray[Any]]:
    """Where the robot was, (2,) per frame; empty for a robot that does not say."""
    places = [f.fields["position"][:2] for f in frames if "position" in f.fields]
    return [xy for xy in places if len(xy) == 2]


def _point(xy: NDArray[Any], height: float) -> Floats:
    return np.array([xy[0], xy[1], height], np.float64)


def _write(picture: Image.Image, title: str, frame: Frame) -> None:
    """Title and caption on top, with a swatch of the skill's colour."""
    pen = ImageDraw.Draw(picture)
    unit = picture.height / 22  # a line of text
    pad = 0.6 * unit
    pen.text((pad, pad), title, INK, ImageFont.load_default(size=unit * 1.05))
    top = pad + 1.55 * unit
    swatch = tuple(round(255 * part) for part in frame.colour)
    pen.rounded_rectangle((pad, top, pad + 0.8 * unit, top + 0.8 * unit), unit / 5, swatch)
    small = ImageFont.load_default(size=unit * 0.85)
    pen.text((pad + 1.25 * unit, top - 0.08 * unit), frame.caption, MUTED, small)


@contextmanager
def _offscreen(model: mujoco.MjModel, size: tuple[int, int]) -> Iterator[Draw]:
    """A function that draws scenes of `model`, as long as the context lives.

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
    pixels = np.empty((height, width, 3), np.uint8)
    area = mujoco.MjrRect(0, 0, width, height)

    def draw(scene: mujoco.MjvScene) -> Image.Image:
        mujoco.mjr_render(area, scene, context)
        mujoco.mjr_readPixels(pixels, None, area, context)
        return Image.fromarray(pixels[::-1])  # OpenGL counts rows from below

    try:
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        yield draw
    finally:
        context.free()
        gl.free()


def _gl_context() -> Any:
    """MuJoCo's class for a context; on Linux always EGL, which needs no display."""
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
