"""Builds the MuJoCo scene of one tick: robot, goals and trail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.interface import PATH_TERMS, Floats, path_fields, path_term
from sim.physics.mjcf_addresses import BASE, Indices, Start, address, start_address
from sim.physics.robot_model import Robot
from sim.rendering.topdown import Shape, footprints
from sim.tasks.base import EpisodeState, TaskFamily
from sim.tasks.family_calls import FamilyCalls

Color = tuple[float, float, float]  # RGB, 0 to 1

CAMERA = "overview"
PAUSE = 0.8  # s, on the last frame of a scene, in a film or a window
MAX_GEOMS = 20_000  # the model's and those of the trail, one per tick
TRAIL_HEIGHT = 0.02  # m
THIN, PEN = 0.014, 0.03  # m, robot sizes: radius of trail and ring, whichever is more
RING_RADIUS = 0.25  # m, around a goal that counts and has none of its own
GRAYS = (0.299, 0.587, 0.114)  # how bright red, green and blue are (ITU-R BT.601)
RING_COLOR = (0.11, 0.15, 0.20)
WIDEST = 9.0  # robot sizes; what is wider does not fit a picture, and the camera follows
CLOSE = 6.0  # robot sizes from a robot that is followed
TALL = 0.25  # part of a view's width; higher walls hide what is behind them from the usual angle
SLANT, STEEP = -55, -80  # degrees, elevation of a free camera
HIGH = 1.4  # times its width, from where a free camera shows all of a square


@dataclass(frozen=True)
class Frame:
    """One tick."""

    fields: Mapping[str, NDArray[Any]]  # per term (size,), in the term's unit
    caption: str
    color: Color  # of the skill that acts from here to the next frame
    qpos: Floats | None = None  # (nq,) of the whole model; without it the fields say what they can


@dataclass(frozen=True)
class EpisodeReplay:
    """One episode."""

    family: TaskFamily
    title: str
    layout: EpisodeState  # of one simulation, (1, ...) per name; a copy, a World writes to its own
    frames: Sequence[Frame]  # in time order

    @property
    def path(self) -> Floats:
        """(n, 2) positions of the robot or of an arm's tool, per frame; empty without them."""
        seen = [[row[:2] for row in path_fields(f.fields).values()] for f in self.frames]
        places = [next((xy for xy in each if len(xy) == 2), None) for each in seen]
        return np.array([xy for xy in places if xy is not None], np.float64).reshape(-1, 2)

    @property
    def target(self) -> Floats | None:
        """(2,) the goal that counts, m; None in a family without one."""
        target = FamilyCalls(self.family).target(self.layout)
        return None if target is None else np.asarray(target[0], np.float64)

    @property
    def radius(self) -> float:
        """Radius of the goal that counts, m."""
        return FamilyCalls(self.family).radius or RING_RADIUS


@dataclass(frozen=True)
class View:
    """Target and distance of a free camera, m."""

    lookat: Floats  # (2,)
    distance: float
    follows: bool  # the way is too long for one picture
    elevation: float = SLANT  # degrees


class SceneRenderer:
    """Poses the robot, the goals and the trail according to a frame.

    Args:
        robot: the robot.
        family: whose scene it is; `EpisodeReplay.family` of all that is shown here.

    Raises:
        UserError: the robot's model is invalid, or the family's scene.
    """

    def __init__(self, robot: Robot, family: TaskFamily) -> None:
        self._calls = FamilyCalls(family)
        self.model = robot.compile(self._calls.scene)
        self.data = mujoco.MjData(self.model)
        # Colors are those of skills: a blue goal would seem to be the blue skill's.
        drawn = (self.model.geom_contype == 0) & (self.model.geom_conaffinity == 0)
        goals = drawn & (self.model.body_mocapid[self.model.geom_bodyid] >= 0)
        colors = self.model.geom_rgba[goals, :3]
        self.model.geom_rgba[goals, :3] = (colors @ GRAYS)[:, None]
        self._terms: list[tuple[str, Indices]] = [
            (t.name, address(self.model, t)[1])
            for t in robot.interface.observation
            if t.mujoco.qpos
        ]
        start = start_address(self.model, robot.interface)
        self._base = start if start is not None and len(start.quaternion) else None
        mujoco.mj_forward(self.model, self.data)
        self._size = self._robot_size()
        term = path_term(robot.interface)
        base = term is None or term.name == PATH_TERMS[0]  # a tool is smaller than its arm
        self._pen = max(THIN, PEN * self._size) if base else THIN
        self._scene: mujoco.MjvScene | None = None
        self._camera = mujoco.MjvCamera()

    # Posing -------------------------------------------------------------------------------

    def pose(self, frame: Frame, layout: EpisodeState) -> None:
        """Move `data` to a frame."""
        if frame.qpos is not None:
            self.data.qpos[:] = frame.qpos
        else:
            self._pose_by_fields(frame)
        for body, place in self._calls.place(layout, self.model).items():
            index = self.model.body(body).mocapid[0]
            self.data.mocap_pos[index, : place.shape[1]] = place[0]
        mujoco.mj_forward(self.model, self.data)

    def _pose_by_fields(self, frame: Frame) -> None:
        for name, columns in self._terms:
            # What is not observed is not known, nor is what a term shows a part of.
            if name in frame.fields and len(frame.fields[name]) == len(columns):
                self.data.qpos[columns] = frame.fields[name]
        if self._base is not None:
            self._pose_base(self._base, frame)
            if "orientation" in frame.fields and "height" not in frame.fields:
                self._put_on_floor(self._base)

    def _put_on_floor(self, base: Start) -> None:
        """Move a robot whose height is not observed so that its lowest geom touches the floor."""
        model, data = self.model, self.data
        mujoco.mj_kinematics(model, data)
        body = model.geom_bodyid
        moves = (model.body_weldid[body] > 0) & (model.body_mocapid[body] < 0)
        vertical = data.geom_xmat[moves, 6:]  # (n, 3) heights of the geoms' axes
        middle, half = model.geom_aabb[moves, :3], model.geom_aabb[moves, 3:]
        ball = model.geom_type[moves] == mujoco.mjtGeom.mjGEOM_SPHERE
        reach = np.where(ball, half[:, 0], (np.abs(vertical) * half).sum(axis=1))
        bottom = data.geom_xpos[moves, 2] + (vertical * middle).sum(axis=1) - reach
        data.qpos[base.quaternion[0] - 1] -= bottom.min()

    def _pose_base(self, base: Start, frame: Frame) -> None:
        """Pose a base on a free joint, as far as its fields contain its pose."""
        if "position" in frame.fields:
            self.data.qpos[base.xy] = frame.fields["position"][:2]
        if "heading" in frame.fields:
            z, w = frame.fields["heading"]
            self.data.qpos[base.quaternion] = w, 0, 0, z

    def footprints(self) -> list[Shape]:
        """Returns the outlines of the scenery at the present pose, seen from above."""
        return footprints(self.model, self.data)

    # Pictures -----------------------------------------------------------------------------

    def build_scene(self, scene: EpisodeReplay, tick: int, aspect: float) -> mujoco.MjvScene:
        """Returns the scene at `tick`; valid until the next call.

        Args:
            scene: the episode.
            tick: the number of its frame.
            aspect: width of the picture by its height.
        """
        if self._scene is None:
            self._scene = mujoco.MjvScene(self.model, maxgeom=MAX_GEOMS)
        self.pose(scene.frames[tick], scene.layout)
        self._aim(scene, tick, aspect)
        every = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self.model, self.data, mujoco.MjvOption(), None, self._camera, every, self._scene
        )
        self.draw_trail(self._scene, scene, tick)
        return self._scene

    def draw_trail(self, into: mujoco.MjvScene, scene: EpisodeReplay, tick: int) -> None:
        """Add the trail up to `tick`, and a ring around the goal that counts."""
        # A little higher every tick: where the path crosses itself, the later part lies on top.
        way = scene.path[: tick + 1]
        points = [_point(xy, TRAIL_HEIGHT + 2e-4 * i) for i, xy in enumerate(way)]
        for frame, (start, end) in zip(scene.frames, pairwise(points), strict=False):
            _line(into, start, end, self._pen, frame.color)
        if scene.target is not None:
            for start, end in pairwise(_circle(scene.target, scene.radius, self._pen)):
                _line(into, start, end, self._pen, RING_COLOR)

    def view(self, scene: EpisodeReplay, tick: int = 0) -> View:
        """Returns a free camera that covers the scene, else the path, else follows the robot."""
        way = self._way(scene)
        shapes = self.footprints()
        around = [shape.outline for shape in shapes if shape.fixed]
        highest = max((shape.top for shape in shapes if shape.solid), default=0.0)
        for points in (np.concatenate([way, *around]), way):
            if not len(points):
                continue
            low, high = points.min(axis=0), points.max(axis=0)
            span = float((high - low).max())
            if span <= WIDEST * self._size:
                elevation = STEEP if highest > TALL * span else SLANT
                return View((low + high) / 2, HIGH * span + 1.5 * self._size, False, elevation)
        path = scene.path
        middle = path[tick] if tick < len(path) else self.data.xpos[self.base, :2].copy()
        return View(middle, CLOSE * self._size, True)

    @property
    def base(self) -> int:
        """Number of the body that a camera follows."""
        named = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, BASE)
        return named if named >= 0 else int(np.argmax(self.model.body_dofnum > 0))

    def _way(self, scene: EpisodeReplay) -> Floats:
        """(n, 2) the path and the goals, which a picture should include."""
        places = self._calls.place(scene.layout, self.model).values()
        goals = [place[0, :2] for place in places]
        return np.concatenate([np.reshape(goals, (-1, 2)), scene.path])

    def _robot_size(self) -> float:
        """Diameter of the moving geoms, m, in the model's default pose."""
        model, body = self.model, self.model.geom_bodyid
        moves = (model.body_weldid[body] > 0) & (model.body_mocapid[body] < 0)
        offset = self.data.geom_xpos[moves] - self.data.xpos[self.base]
        reach = np.linalg.norm(offset, axis=1) + model.geom_rbound[moves]
        return 2 * float(reach.max(initial=1e-3))

    def _aim(self, scene: EpisodeReplay, tick: int, aspect: float) -> None:
        """Use the model's own camera if one covers the scene, else a free camera from above."""
        index = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_CAMERA, CAMERA)
        if index >= 0 and self._sees(index, self._way(scene), aspect):
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._camera.fixedcamid = index
            return
        view = self.view(scene, tick)
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        self._camera.azimuth, self._camera.elevation = 90, view.elevation  # y is up in the picture
        self._camera.lookat[:] = _point(view.lookat, 0.0)
        self._camera.distance = view.distance

    def _sees(self, camera: int, points: Floats, aspect: float) -> bool:
        """True if all points (n, 2) on the floor are in the picture of a model's camera."""
        offset = np.pad(points, ((0, 0), (0, 1))) - self.data.cam_xpos[camera]
        x, y, z = (offset @ self.data.cam_xmat[camera].reshape(3, 3)).T  # it looks along -z
        edge = -z * np.tan(np.radians(self.model.cam_fovy[camera]) / 2)
        inside = (z < 0) & (np.abs(y) < edge) & (np.abs(x) < aspect * edge)
        return bool(inside.all())


def _circle(xy: Floats, radius: float, height: float) -> list[Floats]:
    angles = np.linspace(0, 2 * np.pi, 49)
    edge = xy + radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return [_point(each, height) for each in edge]


def _line(into: mujoco.MjvScene, start: Floats, end: Floats, radius: float, color: Color) -> None:
    geom = into.geoms[into.ngeom]
    capsule = mujoco.mjtGeom.mjGEOM_CAPSULE
    rgba = np.array([*color, 1], np.float32)
    mujoco.mjv_initGeom(geom, capsule, np.zeros(3), np.zeros(3), np.eye(3).ravel(), rgba)
    mujoco.mjv_connector(geom, capsule, radius, start, end)
    geom.emission = 0.1  # about the color of the caption's swatch, in this light
    geom.category = mujoco.mjtCatBit.mjCAT_DECOR
    into.ngeom += 1


def _point(xy: NDArray[Any], height: float) -> Floats:
    return np.array([xy[0], xy[1], height], np.float64)
