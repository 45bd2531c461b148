"""Validates a robot folder: errors, and warnings for robots without errors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from pydantic import TypeAdapter, ValidationError

from sim.errors import UserError, problems
from sim.interface import (
    ActionTerm,
    Interface,
    ObservationTerm,
    Range,
    exceeds,
    ranges,
    spread,
)
from sim.interface.robot_file import SIMULATION_ONLY, read_data
from sim.physics.batched_physics import BatchedPhysics
from sim.physics.mirror_check import check_mirror
from sim.physics.mjcf_addresses import actuators, address
from sim.physics.model_files import load_spec
from sim.physics.name_agreement import disagreements
from sim.physics.robot_model import Robot, load_robot
from sim.physics.servo import effect
from sim.randomization.model_fields import body_names
from sim.randomization.perturbations import NOMINAL, PerturbedSim, check_model
from sim.randomization.schema import FOLDER, RANGES, load_ranges, read_sim_params
from sim.robot_setup.placeholders import TODO, explain, todos
from sim.robot_setup.safety_settings import switched_off
from sim.robot_setup.step_test import FOLLOWS, StepTest, StepTestReport

LONG_STOP = 3.0  # s
MUCH = 1.5  # gain above which a measurement exceeds its command
MISREAD = 10.0  # how much smaller a range is than a limit where degrees were meant to be radians
JOINT_STATE = "sensor_msgs/msg/JointState"
# Sources in MuJoCo that have an address of their own.
PLACED = ("qpos", "qvel", "sensor")


def find_errors(folder: Path) -> list[str]:
    """Returns every error of a robot folder, each in a line that names the part.

    Errors that depend on others are reported once those are corrected.
    """
    try:
        data = read_data(folder / "robot.yaml")
    except UserError as error:
        return [str(error)]
    found = [explain(place) for place in todos(data)]
    for key in SIMULATION_ONLY:
        data.pop(key, None)  # checked with the model
    adapter = TypeAdapter(Interface)
    try:
        adapter.validate_json(json.dumps(data, default=str), strict=False)
    except ValidationError as error:
        found += [text for text, value in problems(error, adapter) if not _open(value)]
    if found:
        return found
    try:
        robot = load_robot(os.path.join(os.curdir, folder))  # never a shipped robot's name
    except UserError as error:
        return [str(error)]
    return _against_model(robot)


def _open(value: object) -> bool:
    return value == TODO or (isinstance(value, list) and TODO in value)


def _against_model(robot: Robot) -> list[str]:
    interface = robot.interface
    try:
        model = load_spec(robot.model_path).compile()
    except ValueError as error:  # and UserError, which is one
        said = " ".join(str(error).split()).removeprefix(f"{robot.model_path}: ")
        return [f"{robot.model_path.name}: {said}"]
    found = []
    # `Robot.compile` says the same, but ends at the first.
    if abs(model.opt.timestep - interface.physics_dt) > 1e-12:
        found.append(
            f"model.xml: timestep {model.opt.timestep} s is not robot.yaml's physics_dt "
            f"{interface.physics_dt} s"
        )
    found += [
        text
        for term in interface.observation
        if source(term)[0] in PLACED
        for text in _refusal(lambda term=term: address(model, term))  # type: ignore[misc]
    ]
    found += [
        text
        for action in interface.action
        for text in _refusal(lambda action=action: actuators(model, action))  # type: ignore[misc]
    ]
    found += _read_twice(model, interface)
    found = found or disagreements(model, interface)
    found = found or _refusal(lambda: robot.compile(robot.add_signals))
    if not found and (mirror := robot.mirror) is not None:
        found = _refusal(lambda: check_mirror(robot, mirror))
    return found or _sim_param_files(robot, model)


def _sim_param_files(robot: Robot, model: mujoco.MjModel) -> list[str]:
    """Returns the errors in domain_randomization.yaml and the sim-parameter files."""
    folder = robot.model_path.parent
    paths = sorted(folder.glob(f"{FOLDER}/*.yaml"))
    if (ranges := folder / RANGES).exists():
        paths.append(ranges)
    return [
        text
        for path in paths
        for text in _refusal(lambda path=path: _check_sim_params(robot, model, path))  # type: ignore[misc]
    ]


def _check_sim_params(robot: Robot, model: mujoco.MjModel, path: Path) -> None:
    interface = robot.interface
    sim_params = load_ranges(path, robot) if path.name == RANGES else read_sim_params(path)
    check_model(sim_params, interface, body_names(model), str(path))
    try:
        PerturbedSim(BatchedPhysics(interface, model, 1, 1), interface, NOMINAL, sim_params)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read_twice(model: mujoco.MjModel, interface: Interface) -> list[str]:
    """Reports message fields that two terms read as different quantities of the model."""
    known: dict[tuple[str, str], tuple[str, str]] = {}
    found = []
    for term in interface.observation:
        if not _refusal(lambda term=term: mujoco_sources(model, term)):  # type: ignore[misc]
            for field, place in zip(term.ros.fields, mujoco_sources(model, term), strict=True):
                other, there = known.setdefault((term.ros.topic, field), (term.name, place))
                if there != place:
                    found.append(
                        f"terms {other} and {term.name} both read {field} of topic "
                        f"{term.ros.topic}, which is {there} for one and {place} for the other; "
                        "two sensors are two topics"
                    )
                    break
    return found


def _refusal(call: Callable[[], object]) -> list[str]:
    try:
        call()
    except UserError as error:
        return [str(error)]
    return []


def source(term: ObservationTerm) -> tuple[str, Any]:
    """Returns the MuJoCo source of a term: its key and its value."""
    given = {key: value for key, value in asdict(term.mujoco).items() if value}
    kind = next(key for key in (*PLACED, *given) if key in given)
    return kind, given[kind]


def mujoco_sources(model: mujoco.MjModel, term: ObservationTerm) -> list[str]:
    """Returns the MuJoCo source of each element of a term, with its resolved address."""
    kind, value = source(term)
    if kind not in PLACED:
        return [f"{kind} of site {value['site']} [{i}]" for i in range(term.size)]
    array, columns = address(model, term)
    names = [value] * term.size if kind == "sensor" else value
    return [
        f"{kind} {name} = {array}[{column}]" for name, column in zip(names, columns, strict=True)
    ]


# Doubts -----------------------------------------------------------------------------------------


def find_warnings(interface: Interface, model: mujoco.MjModel, trial: StepTestReport) -> list[str]:
    """Returns warnings about settings that are valid but unlikely to be intended."""
    found = [*slow_stops(interface), *switched_off(interface), *_static(interface, model)]
    slowest = {each.term: each for each in sorted(trial.skipped, key=lambda each: each.seconds)}
    found += [
        f"action {term}.{each.element}: to reach {each.target:g} takes {each.seconds:.3g} s under "
        f"rate_limit and smoothing_time, more than {each.most:.3g} s: it is not tested"
        for term, each in slowest.items()
    ]
    for name, value in trial.held.beyond(interface).items():
        found.append(
            f"term {name}: its limit {_limit(interface, name)} is passed while the robot only "
            f"holds its safe command: it shows {value:.3g}"
        )
    passed: dict[str, list[tuple[float, StepTest]]] = {}
    answers: dict[tuple[str, int, str], str] = {}  # of one direction, if both say the same
    for drive in trial.drives:
        for name, value in drive.shown.beyond(interface).items():
            passed.setdefault(name, []).append((value, drive))
        for kind, text in _followed(interface, drive):
            answers.setdefault((drive.term, drive.element, kind), text)
    found += answers.values()
    for name, cases in passed.items():
        value, drive = max(cases, key=lambda case: abs(case[0]))
        found.append(
            f"term {name}: its limit {_limit(interface, name)} is reached in normal driving: it "
            f"shows {value:.3g} with {label(drive)}; the robot would be stopped"
        )
    return list(dict.fromkeys(found))


def slow_stops(interface: Interface) -> list[str]:
    """Reports a stop that takes longer than people expect."""
    seconds, name = interface.braking_time
    if seconds <= LONG_STOP:
        return []
    return [
        f"action {name}: a stop takes up to {seconds:.2f} s, from its limit to "
        f"`safe_command` under rate_limit; the robot still moves for that time. More than "
        f"{LONG_STOP:g} s is long: a larger rate_limit, or a `safe_command` nearer to the middle"
    ]


def label(drive: StepTest) -> str:
    """Returns the name of a test, such as `arm.0 at 1.2`."""
    return f"{drive.term}.{drive.element} at {drive.target:g}"


def _limit(interface: Interface, name: str) -> str:
    limit = next(term.limit for term in interface.observation if term.name == name)
    return "none" if limit is None else ", ".join(f"[{a:g}, {b:g}]" for a, b in ranges(limit))


def _followed(interface: Interface, drive: StepTest) -> Iterator[tuple[str, str]]:
    """Yields kind and text of each warning."""
    term = next(each for each in interface.action if each.name == drive.term)
    if not drive.shown.finite:
        yield "finite", f"{label(drive)}: the simulation does not stay finite"
    if (did := drive.followed) is None or (tracking := term.tracking) is None:
        return
    at = term.measured[drive.element]
    what = f"{label(drive)}: {tracking.term}" + ("" if at == drive.element else f".{at}")
    if did.gain < -0.1:
        yield "gain", f"{what} moves the other way (gain {did.gain:.2f}): a sign is wrong"
    elif did.gain < FOLLOWS:
        yield "gain", f"{what} hardly follows (gain {did.gain:.2f})"
    elif did.gain > MUCH:
        yield "gain", f"{what} goes further than it is told (gain {did.gain:.2f})"
    elif not did.settled:
        yield "settled", f"{what} had not settled; give it longer with --seconds"
    if did.overshoot > 0.2:
        yield "overshoot", f"{what} overshoots by {100 * did.overshoot:.0f} %"
    if did.stop is None:
        yield "stop", f"{what} does not come to rest under the rate limit while it is watched"
    elif did.stop > LONG_STOP:
        yield "stop", f"{what} takes {did.stop:.2f} s to come to rest"
    tolerance = spread(tracking.tolerance, term.size)[drive.element]
    if did.longest > tracking.timeout:
        yield (
            "tracking",
            f"{label(drive)}: tracking.tolerance {tolerance:g} would trip: the measured "
            f"error reaches {did.error:.2g} and is beyond it for {did.longest:.2g} s, "
            f"tracking.timeout is {tracking.timeout:g}",
        )


def _static(interface: Interface, model: mujoco.MjModel) -> Iterator[str]:
    tracked = {t.tracking.term for t in interface.action if t.tracking is not None}
    for term in interface.observation:
        if not term.policy_input and term.limit is None and term.name not in tracked:
            yield (
                f"term {term.name}: no policy input, not limited, not tracked: no part "
                "uses it, unless skill_limits name it"
            )
        if turning := _turning(model, term):
            yield (
                f"term {term.name}: joint {turning} turns without end: say `wraps: true` if its "
                "driver's angle jumps at pi, `wraps: false` if it goes on counting"
            )
    if model.nkey and interface.start_pose is None:
        yield (
            "model.xml has keyframes: simulation begins at its default pose, not at one of them; "
            "start_pose can name one"
        )
    driven = set()
    for action in interface.action:
        if action.tracking is None:
            yield (
                f"action {action.name}: no tracking: a command that is not obeyed will not be "
                "noticed, and lag is not measured here"
            )
        for i, name in enumerate(action.mujoco.actuators):
            driven.add(name)
            low, high = (float(bound[i]) for bound in action.limits)
            if action.ros.type == JOINT_STATE and (
                odd := effect(model, int(model.actuator(name).id)).odd
            ):
                yield f"actuator {name}: {action.ros.fields[i]} is sent as it is, but {odd}"
            if _undamped(model, int(model.actuator(name).id)):
                yield f"actuator {name}: position servo without damping: it will swing"
            yield from _range(model, action, name, (low, high))
    for index in range(model.nu):
        if (name := model.actuator(index).name) not in driven:
            yield f"actuator {name or index}: no action term drives it, it stays at 0"


def _turning(model: mujoco.MjModel, term: ObservationTerm) -> str:
    """Returns the first joint of an angle that could wrap while `wraps` is not set; else empty."""
    if term.wraps is not None or term.unit != "rad":
        return ""
    names: tuple[str, ...] = term.mujoco.qpos
    if term.mujoco.sensor:
        sensor = model.sensor(term.mujoco.sensor)
        if int(sensor.type[0]) == int(mujoco.mjtSensor.mjSENS_JOINTPOS):
            names = (model.joint(int(sensor.objid[0])).name,)
    for name in names:
        index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
        hinge = index >= 0 and model.jnt_type[index] == mujoco.mjtJoint.mjJNT_HINGE
        if hinge and not model.jnt_limited[index]:
            return name
    return ""


def _range(model: mujoco.MjModel, action: ActionTerm, name: str, limit: Range) -> Iterator[str]:
    """Reports a position servo with commands beyond its joint's range; often a unit mistake."""
    index = int(model.actuator(name).id)
    joint = int(model.actuator_trnid[index][0])
    if not _is_position_servo(model, index) or not model.jnt_limited[joint]:
        return
    low, high = (float(bound) for bound in model.jnt_range[joint])
    if exceeds(limit, (low, high)):
        degrees = limit[1] - limit[0] > MISREAD * (high - low)
        yield (
            f"action {action.name}: limit [{limit[0]:g}, {limit[1]:g}] is beyond "
            f"the range {low:g} .. {high:g} of joint {model.joint(joint).name}"
            + ('; MJCF angles are degrees without <compiler angle="radian"/>' if degrees else "")
        )


def _is_position_servo(model: mujoco.MjModel, index: int) -> bool:
    on_joint = int(model.actuator_trntype[index]) == int(mujoco.mjtTrn.mjTRN_JOINT)
    return on_joint and bool(model.actuator_biasprm[index][1] < 0)


def _undamped(model: mujoco.MjModel, index: int) -> bool:
    if not _is_position_servo(model, index):
        return False
    joint = model.actuator_trnid[index][0]
    passive = np.any(model.dof_damping[model.jnt_dofadr[joint]] > 0)
    return bool(model.actuator_biasprm[index][2] == 0 and not passive)
