"""Single wrong things in a bundle or a robot, and who refuses each: the table behind
docs/mutations.md, which `python -m tests.support.mutations > docs/mutations.md` writes.

A mutation is tried twice: as a slip (nothing else is changed), and as made by somebody who repairs
the hashes and the digest afterwards, so that only its meaning can give it away.
"""

import copy
import io
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from policies.bundle.bundle import PRETRAINED, load_bundle
from policies.bundle.manifest import GOLDEN, MANIFEST, digest_of, sha256
from policies.bundle.runtime import load_master, load_skills
from policies.bundle.task_compatibility import check_fits
from sim.errors import UserError
from sim.physics.robot_model import ROBOTS, load_robot

BUNDLE, ROBOT = "moving_bandits", "omni"
SKILL, OTHER_SKILL = "skills/0.onnx", "skills/1.onnx"
MASTER, OTHER_MASTER = "masters/goal-0.onnx", "masters/goal-1.onnx"
YAML, MODEL = "robot.yaml", "model.xml"
# Guards in the order in which a bundle meets them.
HASH, VALIDATION, ROWS = "hashes", "validation", "golden rows"
DISK, FITS = "robot's own files", "check_fits"


@dataclass(frozen=True)
class Copy:
    """A bundle and the robot that it was trained for, in a place where they may be damaged."""

    root: Path

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def robot(self) -> Path:
        return self.root / "robot"

    def manifest(self) -> dict[str, Any]:
        return json.loads((self.bundle / MANIFEST).read_text())

    def write_manifest(self, data: dict[str, Any]) -> None:
        (self.bundle / MANIFEST).write_text(json.dumps(data))

    def repair(self) -> None:
        """What a forger would do: hashes and digest as `make_manifest` computes them."""
        data = self.manifest()
        if isinstance(data.get("files"), dict):
            for name in data["files"]:
                if (path := self.bundle / name).is_file():
                    data["files"][name] = sha256(path.read_bytes())
        data["digest"] = digest_of(data)
        self.write_manifest(data)


@dataclass(frozen=True)
class Mutation:
    """One wrong thing."""

    name: str
    where: str  # file
    change: Callable[[Copy], None]
    # Why nothing refuses it: a named exception. None: something has to.
    excuse: str | None = None
    repaired: bool = True  # False: repairing the hashes undoes it

    @property
    def in_bundle(self) -> bool:
        """Whether the hashes of the bundle see it."""
        return self.where not in (YAML, MODEL)


def fresh(root: Path) -> Copy:
    """The shipped bundle and its robot, whole."""
    shutil.copytree(PRETRAINED / BUNDLE, root / "bundle")
    shutil.copytree(ROBOTS / ROBOT, root / "robot")
    return Copy(root)


def refused_as_slip(mutation: Mutation, root: Path) -> str | None:
    """The line with which `load_bundle` refuses it, hashes left as they were."""
    place = fresh(root)
    mutation.change(place)
    return _refusal(lambda: load_bundle(place.bundle))


def refused_as_forgery(mutation: Mutation, root: Path) -> tuple[str, str] | None:
    """The guard that refuses it after hashes and digest have been repaired, and its line."""
    place = fresh(root)
    mutation.change(place)
    if mutation.in_bundle:
        place.repair()
    if line := _refusal(lambda: load_bundle(place.bundle)):
        return VALIDATION, line
    bundle = load_bundle(place.bundle)
    masters = bundle.manifest.masters

    def run() -> None:
        load_skills(bundle)
        for name in masters:
            load_master(bundle, name)

    if line := _refusal(run):
        return ROWS, line
    if line := _refusal(lambda: load_robot(str(place.robot)).compile()):
        return DISK, line
    robot = load_robot(str(place.robot))
    for entry in masters.values():
        if line := _refusal(lambda entry=entry: check_fits(bundle, robot, entry.task_id)):
            return FITS, line
    return None


def _refusal(call: Callable[[], object]) -> str | None:
    try:
        call()
    except UserError as error:
        return str(error)
    return None


# Ways to change one thing -----------------------------------------------------------------------


def put(data: Any, path: str, value: Any) -> None:
    """Set `a.0.b`; a function is applied to what was there, GONE takes it away."""
    *parents, leaf = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in parents:
        data = data[key]
    if value is GONE:
        del data[leaf]
    else:
        data[leaf] = value(copy.deepcopy(data[leaf])) if callable(value) else value


GONE = object()


def manifest(path: str, value: Any) -> Callable[[Copy], None]:
    def change(place: Copy) -> None:
        data = place.manifest()
        put(data, path, value)
        place.write_manifest(data)

    return change


def robot(path: str, value: Any) -> Callable[[Copy], None]:
    def change(place: Copy) -> None:
        data = yaml.safe_load((place.robot / YAML).read_text())
        put(data, path, value)
        (place.robot / YAML).write_text(yaml.safe_dump(data, sort_keys=False))

    return change


def both(path: str, value: Any) -> Callable[[Copy], None]:
    """The same wrong thing in the bundle and on the robot: wrong from the first training on."""

    def change(place: Copy) -> None:
        manifest(f"interface/{path}", value)(place)
        robot(path, value)(place)

    return change


def text(name: str, old: str, new: str) -> Callable[[Copy], None]:
    def change(place: Copy) -> None:
        path = place.robot / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Copy], None]:
    def apply(place: Copy) -> None:
        path = place.bundle / name
        path.write_bytes(change(path.read_bytes()))

    return apply


def exchange(one: str, other: str) -> Callable[[Copy], None]:
    def change(place: Copy) -> None:
        a, b = place.bundle / one, place.bundle / other
        left, right = a.read_bytes(), b.read_bytes()
        a.write_bytes(right)
        b.write_bytes(left)

    return change


def replaced(name: str, by: str) -> Callable[[Copy], None]:
    return lambda place: (place.bundle / name).write_bytes((place.bundle / by).read_bytes())


def model(change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        proto = onnx.load_from_string(data)
        change(proto)
        return proto.SerializeToString()

    return apply


def weights(name: str, value: Callable[[np.ndarray], np.ndarray]) -> Callable[[bytes], bytes]:
    def change(proto: Any) -> None:
        (tensor,) = [t for t in proto.graph.initializer if t.name == name]
        array = np.ascontiguousarray(value(numpy_helper.to_array(tensor).copy()))
        tensor.CopyFrom(numpy_helper.from_array(array, name))

    return model(change)


def node(kind: str, change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
    def apply(proto: Any) -> None:
        change(next(n for n in proto.graph.node if n.op_type == kind))

    return model(apply)


def golden(name: str, value: Any) -> Callable[[Copy], None]:
    def apply(data: bytes) -> bytes:
        with np.load(io.BytesIO(data)) as archive:
            arrays = dict(archive)
        put(arrays, name, value)
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        return stream.getvalue()

    return file(GOLDEN, apply)


def element(index: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array.flat[index] = value
        return array

    return change


def backwards(values: Any) -> Any:
    return values[::-1]


def external(proto: Any) -> None:
    tensor = proto.graph.initializer[-1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def half(proto: Any) -> None:
    tensor = proto.graph.initializer[-1]
    array = numpy_helper.to_array(tensor).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def rename_input(proto: Any) -> None:
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "other"


def reverse_inputs(each: Any) -> None:
    inputs = list(each.input)
    each.ClearField("input")
    each.input.extend([inputs[1], inputs[0], *inputs[2:]])


def attribute(name: str, value: Any) -> Callable[[Any], None]:
    return lambda each: each.attribute.append(helper.make_attribute(name, value))


# The table --------------------------------------------------------------------------------------

POSITION, VELOCITY, DRIVE = "observation/0", "observation/1", "action/0"

WXYZ = [f"orientation.{axis}" for axis in "wxyz"]
IMU = {"topic": "imu", "type": "sensor_msgs/msg/Imu", "fields": WXYZ, "required_values": {}}


def tilted(**changes: Any) -> Callable[[list[Any]], list[Any]]:
    """The observation with a tilt that only the guard looks at, or with what is no such thing."""
    term = {"name": "tilt", "size": 4, "unit": "rad", "frame": "base_link", "scale": 1.0}
    term |= {"clip": None, "noise": 0.0, "max_age": 0.1, "limit": [0.0, 0.8], "inf_values": None}
    term |= {"derive": "tilt", "policy_input": False, "mujoco": {"sensor": "attitude"}, "ros": IMU}
    return lambda observation: [*observation, {**term, **changes}]


# In the robot's interface: tried in the bundle's copy and in the robot's own file.
INTERFACE: dict[str, tuple[str, Any]] = {
    "other robot name": ("robot", "omni2"),
    "a line end in the robot's name": ("robot", "omni\nall is well"),
    "control_dt doubled": ("control_dt", 0.2),
    "control_dt no multiple of physics_dt": ("control_dt", 0.11),
    "physics_dt halved": ("physics_dt", 0.01),
    "control_dt 1e308": ("control_dt", 1e308),
    "physics_dt 1e-300": ("physics_dt", 1e-300),
    "an integer of 400 digits": (f"{POSITION}/scale", 10**400),
    "two terms in the other order": ("observation", lambda o: [o[1], o[0], *o[2:]]),
    "a term missing": ("observation", lambda o: o[1:]),
    "a term twice": ("observation", lambda o: [o[0], *o]),
    "no action": ("action", []),
    "missing key": (f"{POSITION}/unit", GONE),
    "extra key": (f"{POSITION}/gain", 1.0),
    "misspelt key": (f"{POSITION}/unitt", "m"),
    "other unit": (f"{POSITION}/unit", "mm"),
    "other frame": (f"{VELOCITY}/frame", "odom"),
    "size without its fields": (f"{POSITION}/size", 3),
    "scale 2": (f"{POSITION}/scale", 2.0),
    "scale's sign": (f"{POSITION}/scale", -1.0),
    "scale 0": (f"{POSITION}/scale", 0.0),
    "scale in the last digit": (f"{POSITION}/scale", float(np.nextafter(1, 2))),
    "clip added": (f"{POSITION}/clip", [-0.5, 0.5]),
    "clip backwards": (f"{POSITION}/clip", [1.0, -1.0]),
    "noise": (f"{POSITION}/noise", 0.1),
    "noise negative": (f"{POSITION}/noise", -0.1),
    "max_age": (f"{POSITION}/max_age", 30.0),
    "max_age 0": (f"{POSITION}/max_age", 0.0),
    "limit wider": (f"{VELOCITY}/limit", [-13.0, 13.0]),
    "limit taken away": (f"{VELOCITY}/limit", None),
    "limit backwards": (f"{VELOCITY}/limit", [1.3, -1.3]),
    "infinite values accepted": (f"{VELOCITY}/inf_values", [-1.3, 1.3]),
    "joints swapped": (f"{POSITION}/mujoco/qpos", backwards),
    "unknown joint": (f"{POSITION}/mujoco/qpos", ["slide_x", "slide_z"]),
    "a joint twice": (f"{POSITION}/mujoco/qpos", ["slide_x", "slide_x"]),
    "position read as velocity": (f"{POSITION}/mujoco", {"qvel": ["slide_x", "slide_y"]}),
    "message fields swapped": (f"{POSITION}/ros/fields", backwards),
    "other message field": (f"{VELOCITY}/ros/fields/0", "twist.twist.angular.x"),
    "other topic": (f"{VELOCITY}/ros/topic", "odometry"),
    "absolute topic": (f"{VELOCITY}/ros/topic", "/odom"),
    "a topic that is no ROS name": (f"{VELOCITY}/ros/topic", "a b"),
    "the emergency stop as a sensor": (f"{VELOCITY}/ros/topic", "estop"),
    "the command as a sensor": (f"{VELOCITY}/ros/topic", "cmd_vel"),
    "other message type": (f"{VELOCITY}/ros/type", "geometry_msgs/msg/TwistStamped"),
    "elements of a joint": (f"{POSITION}/mujoco/elements", [0, 1]),
    "rays beside a joint": (f"{POSITION}/mujoco/rays", {"site": "base_link"}),
    "a required value added": (f"{POSITION}/ros/required_values", {"child_frame_id": "odom"}),
    "required_values missing": (f"{POSITION}/ros/required_values", GONE),
    "a required value that is a list": (
        f"{POSITION}/ros/required_values",
        {"child_frame_id": [1]},
    ),
    "no message type": (f"{VELOCITY}/ros/type", "Odometry"),
    "a type of a module that is no message package": (f"{VELOCITY}/ros/type", "this/msg/Zen"),
    "command scale": (f"{DRIVE}/scale", 1.5),
    "command sign": (f"{DRIVE}/scale", -1.0),
    "command offset": (f"{DRIVE}/offset", 0.1),
    "command limit wider": (f"{DRIVE}/limit", [-2.0, 2.0]),
    "command limit narrower": (f"{DRIVE}/limit", [-0.5, 0.5]),
    "command limit backwards": (f"{DRIVE}/limit", [1.0, -1.0]),
    "rate_limit": (f"{DRIVE}/rate_limit", 50.0),
    "rate_limit 0": (f"{DRIVE}/rate_limit", 0.0),
    "smoothing_time": (f"{DRIVE}/smoothing_time", 0.5),
    "smoothing_time negative": (f"{DRIVE}/smoothing_time", -0.5),
    "tracking taken away": (f"{DRIVE}/tracking", None),
    "tracking of another unit": (f"{DRIVE}/tracking/term", "position"),
    "tracking tolerance": (f"{DRIVE}/tracking/tolerance", 5.0),
    "tracking timeout": (f"{DRIVE}/tracking/timeout", 5.0),
    "safe value": (f"{DRIVE}/safe_command", [0.5, 0.0]),
    "safe value outside the limit": (f"{DRIVE}/safe_command", [2.0, 0.0]),
    "actuators swapped": (f"{DRIVE}/mujoco/actuators", backwards),
    "an actuator twice": (f"{DRIVE}/mujoco/actuators", ["drive_x", "drive_x"]),
    "command fields swapped": (f"{DRIVE}/ros/fields", backwards),
    "command topic": (f"{DRIVE}/ros/topic", "cmd"),
    "derived from no quaternion": (f"{POSITION}/derive", "tilt"),
    "derived in an unknown way": (f"{POSITION}/derive", "lean"),
    "a term that is no policy input": (f"{POSITION}/policy_input", False),
    "policy_input neither true nor false": (f"{POSITION}/policy_input", "perhaps"),
    "no policy input": ("observation", lambda o: [{**t, "policy_input": False} for t in o]),
    "a tilt limit added": ("observation", tilted()),
    "a tilt limit in degrees": ("observation", tilted(limit=[0.0, 60.0])),
    "a tilt in degrees": ("observation", tilted(unit="deg")),
    "a tilt of x, y, z, w": ("observation", tilted(ros={**IMU, "fields": backwards(WXYZ)})),
    "a tilt of a joint": ("observation", tilted(mujoco={"qpos": ["slide_x"] * 4})),
    "NaN": (f"{DRIVE}/offset", float("nan")),
    "text for a number": (f"{DRIVE}/rate_limit", "fast"),
}

MANIFESTS: dict[str, tuple[str, Any]] = {
    "schema 3": ("schema", 3),
    "no schema": ("schema", GONE),
    "extra key": ("color", "red"),
    "N missing": ("decision_ticks", GONE),
    "N 5": ("decision_ticks", 5),
    "N 0": ("decision_ticks", 0),
    "N a fraction": ("decision_ticks", 2.5),
    "N of 400 digits": ("decision_ticks", 10**400),
    "N 1e308": ("decision_ticks", 1e308),
    "L 0": ("decision_lead", 0),
    "L 2": ("decision_lead", 2),
    "K one more": ("skills", lambda s: [*s, "skill-2"]),
    "K one less": ("skills", lambda s: s[:1]),
    "a skill's name twice": ("skills", ["skill-0", "skill-0"]),
    "a master less": ("masters", lambda m: {"goal-0": m["goal-0"]}),
    "a master renamed": ("masters", lambda m: {"goal-7": m["goal-0"], "goal-1": m["goal-1"]}),
    "a master whose name leads out": ("masters", lambda m: {**m, "../x": m["goal-0"]}),
    "unknown task": ("masters/goal-0/task", "moving_bandits/goal-7"),
    "task of another family": ("masters/goal-0/task", "ring_bandits/sector-0"),
    "other family": ("family/name", "ring_bandits"),
    "other family parameters": ("family/parameters", {"half_width": 3.0}),
    "limit of an unknown skill": ("skill_limits", {"skill-9": {"velocity": [-9.0, 9.0]}}),
    "limit of an unknown term": ("skill_limits", {"skill-0": {"height": [-9.0, 9.0]}}),
    "limit of a skill backwards": ("skill_limits", {"skill-0": {"velocity": [9.0, -9.0]}}),
    "limit of a skill wider": ("skill_limits", {"skill-0": {"velocity": [-9.0, 9.0]}}),
    "optimum below random": ("masters/goal-0/score/optimum", 1.0),
    "optimum equal to random": ("masters/goal-0/score/optimum", lambda _: 2.1181640625),
    "score from 0 episodes": ("masters/goal-0/score/episodes", 0),
    "negative steps": ("provenance/steps", -1),
    "a file not listed": ("files", lambda f: {k: v for k, v in f.items() if k != SKILL}),
    "a file listed that leads out": ("files", lambda f: {**f, "../x": "0" * 64}),
}

LABEL = "a label for people: nothing is computed from it"
UNCHECKED = {
    "other bundle name": ("name", "other", LABEL),
    "names of the skills swapped": (
        "skills",
        ["skill-1", "skill-0"],
        LABEL + " (skill k is skills/k.onnx); with skill_limits it would matter, see there",
    ),
    "other command line": ("provenance/command", "mlsh train", LABEL),
    "other seed": ("provenance/seed", 5, LABEL),
    "other commit": ("provenance/commit", None, LABEL),
    "other mean return": (
        "masters/goal-0/score/value",
        99.0,
        "a claim about a measurement; `mlsh evaluate` measures it anew",
    ),
    "other reference returns of a score": (
        "masters/goal-0/score/task_blind",
        9.0,
        "a claim about a measurement; `mlsh evaluate` computes the reference returns anew",
    ),
    "other task of the same family": (
        "masters/goal-0/task",
        "moving_bandits/goal-1",
        "two masters for one task are valid, and what a master is good at shows only when it "
        "drives: `mlsh evaluate` gives 3.8 in place of 44.7",
    ),
    "limit of a skill narrower": (
        "skill_limits",
        {"skill-0": {"velocity": [-0.5, 0.5]}},
        "stated by whoever exported the skill, recorded nowhere else; it is never "
        "beyond the robot's own",
    ),
}

FILES: dict[str, tuple[str, Callable[[Copy], None]]] = {
    "skill files swapped": (SKILL, exchange(SKILL, OTHER_SKILL)),
    "one skill in both places": (SKILL, replaced(SKILL, OTHER_SKILL)),
    "masters swapped": (MASTER, exchange(MASTER, OTHER_MASTER)),
    "one master in both places": (MASTER, replaced(MASTER, OTHER_MASTER)),
    "a master as a skill": (SKILL, replaced(SKILL, MASTER)),
    "missing": (SKILL, lambda p: (p.bundle / SKILL).unlink()),
    "an extra file": ("notes.txt", lambda p: (p.bundle / "notes.txt").write_text("x")),
    "a third skill": (
        "skills/2.onnx",
        lambda p: shutil.copy(p.bundle / SKILL, p.bundle / "skills/2.onnx"),
    ),
}

GRAPHS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty": (SKILL, lambda _: b""),
    "truncated": (SKILL, lambda data: data[:-100]),
    "cut in half": (MASTER, lambda data: data[: len(data) // 2]),
    "text": (SKILL, lambda _: b"not a graph"),
    "NaN weight": (SKILL, weights("weight0", element(0, np.nan))),
    "infinite bias": (MASTER, weights("bias1", element(0, np.inf))),
    "NaN in the normalization": (SKILL, weights("scale", element(0, np.nan))),
    "a weight's sign": (SKILL, weights("weight1", lambda w: np.where(w == w[0, 0], -w, w))),
    "weights 1 % larger": (SKILL, weights("weight2", lambda w: w * np.float32(1.01))),
    "a bias by 0.0001": (MASTER, weights("bias2", lambda b: b + np.float32(1e-4))),
    "weights that overflow": (MASTER, weights("weight2", lambda w: np.full_like(w, 3e38))),
    "weights of a skill that overflow": (
        SKILL,
        weights("weight0", lambda w: np.full_like(w, 3e38)),
    ),
    "weights transposed": (SKILL, weights("weight1", np.transpose)),
    "inputs in another order": (SKILL, weights("weight0", lambda w: w[::-1])),
    "actions in another order": (SKILL, weights("weight2", lambda w: w[:, ::-1])),
    "skills of a master in another order": (MASTER, weights("weight2", lambda w: w[:, ::-1])),
    "normalization shifted": (SKILL, weights("shift", lambda s: s + np.float32(0.1))),
    "normalization scaled": (MASTER, weights("scale", lambda s: s * np.float32(2))),
    "a scale's sign": (SKILL, weights("scale", lambda s: s * np.float32([-1] + [1] * 7))),
    "lower clip wider": (SKILL, weights("low", lambda c: c * np.float32(10))),
    "upper clip wider": (MASTER, weights("high", lambda c: c * np.float32(10))),
    "upper clip narrower": (SKILL, weights("high", lambda c: c * np.float32(0.05))),
    "fewer inputs": (SKILL, weights("weight0", lambda w: w[:-1])),
    "fewer outputs": (SKILL, weights("weight2", lambda w: w[:, :-1])),
    "a narrower layer": (SKILL, weights("weight1", lambda w: w[:, :-1])),
    "half precision": (SKILL, model(half)),
    "external data": (SKILL, model(external)),
    "a function": (
        SKILL,
        model(lambda m: m.functions.append(helper.make_function("x", "f", [], [], [], []))),
    ),
    "operator Loop": (SKILL, node("Sub", lambda n: setattr(n, "op_type", "Loop"))),
    "operator of another domain": (SKILL, node("Gemm", lambda n: setattr(n, "domain", "evil"))),
    "Tanh left out": (SKILL, node("Tanh", lambda n: setattr(n, "op_type", "Clip"))),
    "Sub as Mul": (SKILL, node("Sub", lambda n: setattr(n, "op_type", "Mul"))),
    "Sub the other way round": (SKILL, node("Sub", reverse_inputs)),
    "Gemm with alpha 2": (SKILL, node("Gemm", attribute("alpha", 2.0))),
    "Gemm transposed": (SKILL, node("Gemm", attribute("transB", 1))),
    "a node less": (SKILL, model(lambda m: m.graph.node.pop(3))),
    "input renamed": (SKILL, model(rename_input)),
    "weights missing": (SKILL, model(lambda m: m.graph.initializer.pop())),
    "weights twice": (SKILL, model(lambda m: m.graph.initializer.append(m.graph.initializer[0]))),
    "more weights": (
        SKILL,
        model(
            lambda m: m.graph.initializer.append(
                numpy_helper.from_array(np.zeros(9, np.float32), "more")
            )
        ),
    ),
    "unknown opset": (SKILL, model(lambda m: setattr(m.opset_import[0], "version", 999))),
}

ROWS_CHANGED: dict[str, tuple[str, Any]] = {
    "an observation": ("observation", element(3, 0.5)),
    "an action": ("action", element(3, 0.5)),
    "actions of the skills swapped": ("action", backwards),
    "logits": ("logits.goal-0", lambda x: x + np.float32(1e-4)),
    "logits backwards": ("logits.goal-0", lambda x: x[:, ::-1]),
    "choices": ("skill.goal-0", lambda x: 1 - x),
    "NaN": ("observation", element(0, np.nan)),
    "double precision": ("observation", lambda x: x.astype(np.float64)),
    "a row less": ("observation", lambda x: x[1:]),
    "no rows": ("observation", lambda x: x[:0]),
    "an array missing": ("skill.goal-0", GONE),
    "an array more": ("more", np.zeros(3)),
    "objects": ("action", np.array([{}], object)),
}

MODELS = {
    "other timestep": ('timestep="0.02"', 'timestep="0.01"'),
    "a joint renamed": ('joint name="slide_x"', 'joint name="slide_a"'),
    "an actuator renamed": ('name="drive_y"', 'name="drive_a"'),
    "ctrlrange narrower than the limit": (
        'joint="slide_x" kv="300" ctrlrange="-1 1"',
        'joint="slide_x" kv="300" ctrlrange="-.5 .5"',
    ),
    "no XML": ("</mujoco>", ""),
}

PHYSICS = (
    "the bundle holds no physics: the robot that it runs on has its own. `mlsh check-robot` "
    "measures the answer to every command, `mlsh evaluate` the return"
)


def hash_entry(place: Copy) -> None:
    data = place.manifest()
    data["files"][SKILL] = "0" * 64
    place.write_manifest(data)


def key_twice(place: Copy) -> None:
    """As text: a dictionary cannot have one twice."""
    path = place.bundle / MANIFEST
    path.write_text(path.read_text().replace("{", '{"decision_ticks": 99, ', 1))


def table() -> list[Mutation]:
    """Every mutation."""
    found = [
        Mutation(f"interface: {name}", MANIFEST, manifest(f"interface/{path}", value))
        for name, (path, value) in INTERFACE.items()
    ]
    found += [Mutation(name, MANIFEST, manifest(*how)) for name, how in MANIFESTS.items()]
    found += [Mutation(name, where, change) for name, (where, change) in FILES.items()]
    found += [Mutation(name, where, file(where, how)) for name, (where, how) in GRAPHS.items()]
    found += [Mutation(name, GOLDEN, golden(*how)) for name, how in ROWS_CHANGED.items()]
    found += [
        Mutation("hash of a file", MANIFEST, hash_entry, repaired=False),
        Mutation("digest", MANIFEST, manifest("digest", "0" * 64), repaired=False),
        Mutation("a key twice", MANIFEST, key_twice, repaired=False),
    ]
    found += [Mutation(name, YAML, robot(*how)) for name, how in INTERFACE.items()]
    found += [
        Mutation("schema 3", YAML, robot("schema", 3)),
        Mutation("a key twice", YAML, text(YAML, "robot: omni", "robot: omni\nrobot: omni")),
    ]
    found += [Mutation(name, MODEL, text(MODEL, *how)) for name, how in MODELS.items()]
    found += [
        Mutation(name, MANIFEST, manifest(path, value), excuse)
        for name, (path, value, excuse) in UNCHECKED.items()
    ]
    return [
        *found,
        Mutation(
            "comment in the graph",
            SKILL,
            file(SKILL, model(lambda m: setattr(m, "doc_string", "hello"))),
            LABEL,
        ),
        Mutation(
            "a weight by less than the tolerance",
            SKILL,
            file(SKILL, weights("bias2", lambda b: b + np.float32(1e-7))),
            "the outputs move by less than 1e-5, as between two processors",
        ),
        Mutation("gain of a servo", MODEL, text(MODEL, 'kv="300"', 'kv="30"'), PHYSICS),
        Mutation("mass", MODEL, text(MODEL, 'mass="20"', 'mass="40"'), PHYSICS),
        Mutation(
            "message fields swapped, everywhere",
            "both",
            both(f"{VELOCITY}/ros/fields", backwards),
        ),
        Mutation(
            "command fields swapped, everywhere",
            "both",
            both(f"{DRIVE}/ros/fields", backwards),
        ),
        Mutation(
            "a type of a module that is no message package, everywhere",
            "both",
            both(*INTERFACE["a type of a module that is no message package"]),
            "which packages there are is known to a computer with ROS alone: the nodes refuse it "
            "before any code of it runs",
        ),
    ]


# The document -----------------------------------------------------------------------------------

HEAD = """# Mutations: one wrong thing at a time, and who refuses it

Written by `python -m tests.support.mutations > docs/mutations.md`, which
`tests/hostile_input/test_mutations.py` checks.

Each line is one wrong thing in a shipped bundle or in the robot that it was trained for. *Slip*:
nothing else was changed. *Forgery*: hashes and digest were repaired, as by somebody who knows the
format, so that only the meaning can give it away. The guards, in the order in which a bundle meets
them:

- **hashes**: `load_bundle`, before anything in the bundle is used;
- **validation**: `load_bundle`, what a manifest, a graph or golden rows may say, and whether they
  agree;
- **golden rows**: `load_skills` and `load_master`, recorded outputs that every machine has to
  reproduce;
- **robot's own files**: `load_robot` and `Robot.compile`, robot.yaml against itself and model.xml;
- **check_fits**: the robot on disk against the robot in the bundle. It needs robot.yaml, so it
  guards `mlsh evaluate`, `mlsh finetune` and sim_node; a robot's own computer has only the bundle.

{count} mutations: {refused} refused, {excused} named exceptions (at the end), none silent.
Forgeries by guard: {tally}.
The digest is no signature: who can write all of a bundle can make another one that holds
([security](security.md)).
"""

EXCEPTIONS = """
## Named exceptions

In the bundle the hashes refuse a slip of these too. A forgery passes, and so does a slip in
model.xml, for a reason.

| file | what is wrong | why nothing refuses it |
|---|---|---|"""


def outcome(mutation: Mutation, root: Path) -> tuple[str | None, tuple[str, str] | None]:
    """Who refuses a mutation, as a slip and as a forgery."""
    slip = refused_as_slip(mutation, root / "slip") if mutation.in_bundle else None
    return slip, refused_as_forgery(mutation, root / "forgery")


def row(mutation: Mutation, slip: str | None, forgery: tuple[str, str] | None) -> str:
    """A line of the table, as far as it is the same on every machine."""
    if mutation.excuse is not None:
        return f"| {mutation.where} | {mutation.name} | {mutation.excuse} |"
    guard = forgery[0] if forgery else "undone by the repair"
    return f"| {mutation.where} | {mutation.name} | {HASH if slip else '-'} | {guard} |"


def words(line: str) -> str:
    """A refusal without the folder that this run took."""
    line = re.sub(r" \(\S*/(slip|forgery)/bundle\)", "", line)
    line = re.sub(r"\S*/(slip|forgery)/(bundle|robot)[/:]* ?", "", line).replace("|", "\\|")
    return line if len(line) <= 140 else f"{line[:137]}..."


def document() -> str:
    """docs/mutations.md."""
    rows, exceptions, guards = [], [], Counter[str]()
    for each in table():
        with tempfile.TemporaryDirectory() as folder:
            slip, forgery = outcome(each, Path(folder))
        if each.excuse is not None:
            exceptions.append(row(each, slip, forgery))
            continue
        guards[forgery[0] if forgery else "undone by the repair"] += 1
        line = forgery[1] if forgery else slip or "nobody"
        rows.append(f"{row(each, slip, forgery)} {words(line)} |")
    count = len(rows) + len(exceptions)
    tally = ", ".join(f"{guard} {number}" for guard, number in guards.most_common())
    return "\n".join(
        [
            HEAD.format(count=count, refused=len(rows), tally=tally, excused=len(exceptions)),
            "| file | what is wrong | slip | forgery | in these words |",
            "|---|---|---|---|---|",
            *rows,
            EXCEPTIONS,
            *exceptions,
            "",
        ]
    )


if __name__ == "__main__":
    print(document(), end="")
