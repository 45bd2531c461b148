"""A URDF read without MuJoCo: masses and places of its links, for comparison."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np

Pose = np.ndarray  # (4, 4)


def _numbers(element: ElementTree.Element | None, key: str, default: str) -> np.ndarray:
    return np.array(
        [float(x) for x in (default if element is None else element.get(key, default)).split()]
    )


def _turn(axis: np.ndarray, angle: float) -> np.ndarray:
    """(3, 3) of Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _origin(element: ElementTree.Element) -> Pose:
    """The pose of <origin>: roll, pitch and yaw about the fixed axes."""
    origin, pose = element.find("origin"), np.eye(4)
    roll, pitch, yaw = _numbers(origin, "rpy", "0 0 0")
    x, y, z = np.eye(3)
    pose[:3, :3] = _turn(z, yaw) @ _turn(y, pitch) @ _turn(x, roll)
    pose[:3, 3] = _numbers(origin, "xyz", "0 0 0")
    return pose


def _end(joint: ElementTree.Element, which: str) -> str:
    element = joint.find(which)
    return "" if element is None else element.get("link", "")


class UrdfTruth:
    """Links, masses and places as URDF defines them.

    Args:
        urdf: the file.
    """

    def __init__(self, urdf: Path) -> None:
        self.root = ElementTree.parse(urdf).getroot()
        self.links = {link.get("name", ""): link for link in self.root.findall("link")}
        self.above = {_end(joint, "child"): joint for joint in self.root.findall("joint")}

    def mass(self, link: str) -> float:
        """kg; 0 without <inertial>."""
        found = self.links[link].find("inertial/mass")
        return 0.0 if found is None else float(found.get("value", "0"))

    def center(self, link: str, angles: dict[str, float]) -> np.ndarray:
        """(3,) m, the center of mass in the frame of the root."""
        inertial = self.links[link].find("inertial")
        inside = np.eye(4) if inertial is None else _origin(inertial)
        return (self.pose(link, angles) @ inside)[:3, 3]

    def inertia(self, link: str, angles: dict[str, float]) -> np.ndarray:
        """(3, 3) kg m^2 about the center of mass, in the axes of the root."""
        inertial = self.links[link].find("inertial")
        if inertial is None:
            return np.zeros((3, 3))
        turn = (self.pose(link, angles) @ _origin(inertial))[:3, :3]
        (xx, xy, xz, yy, yz, zz) = (
            float(inertial.find("inertia").get(f"i{key}", "0"))  # type: ignore[union-attr]
            for key in ("xx", "xy", "xz", "yy", "yz", "zz")
        )
        return turn @ np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) @ turn.T

    def pose(self, link: str, angles: dict[str, float]) -> Pose:
        """The link's frame in the root's, for angles or offsets of the joints by name."""
        if link not in self.above:
            return np.eye(4)
        joint = self.above[link]
        value, move = angles.get(joint.get("name", ""), 0.0), np.eye(4)
        axis = _numbers(joint.find("axis"), "xyz", "1 0 0")
        if joint.get("type") in ("revolute", "continuous"):
            move[:3, :3] = _turn(axis, value)
        elif joint.get("type") == "prismatic":
            move[:3, 3] = axis / np.linalg.norm(axis) * value
        return self.pose(_end(joint, "parent"), angles) @ _origin(joint) @ move


def differences(urdf: Path, model: mujoco.MjModel, seed: int = 0) -> dict[str, float]:
    """Returns the largest differences between a model and its URDF, in a random pose.

    Args:
        urdf: the file.
        model: made of it; its base may float and be called `base_link`.
        seed: of the pose.

    Returns:
        `mass` in kg, `frame` and `center` in m, `axes` (of the frames, 1), `inertia` in kg m^2.
    """
    truth, data, rng = UrdfTruth(urdf), mujoco.MjData(model), np.random.default_rng(seed)
    angles = {}
    for j in range(model.njnt):
        if model.jnt_type[j] in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE):
            low, high = model.jnt_range[j] if model.jnt_limited[j] else (-3.0, 3.0)
            angles[model.joint(j).name] = data.qpos[model.jnt_qposadr[j]] = rng.uniform(low, high)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    names = [model.body(i).name for i in range(1, model.nbody)]
    renamed = [link for link in truth.links if link not in names]
    known = {n: n if n in truth.links else renamed[0] for n in names}
    origin = truth.pose(known[names[0]], angles)  # of the first body, where the base may float
    world = np.eye(4)
    world[:3, :3] = data.xmat[1].reshape(3, 3)
    world[:3, 3] = data.xpos[1]
    world = world @ np.linalg.inv(origin)
    worst = dict.fromkeys(("mass", "frame", "axes", "center", "inertia"), 0.0)
    for name, link in known.items():
        i, pose = model.body(name).id, world @ truth.pose(link, angles)
        found = {
            "mass": model.body_mass[i] - truth.mass(link),
            "frame": data.xpos[i] - pose[:3, 3],
            "axes": data.xmat[i].reshape(3, 3) - pose[:3, :3],
        }
        if truth.mass(link):
            center = world @ np.append(truth.center(link, angles), 1.0)
            axes = data.ximat[i].reshape(3, 3)
            ours = axes @ np.diag(model.body_inertia[i]) @ axes.T
            theirs = world[:3, :3] @ truth.inertia(link, angles) @ world[:3, :3].T
            found |= {"center": data.xipos[i] - center[:3], "inertia": ours - theirs}
        for key, value in found.items():
            worst[key] = max(worst[key], float(np.abs(value).max()))
    return worst
