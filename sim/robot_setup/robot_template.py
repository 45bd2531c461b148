"""Generates a robot.yaml template from an MJCF model; unknown values stay placeholders.

No physical quantity is made up: a value that the model does not contain is `TODO`, which `mlsh
check-robot` refuses by name, together with advice. Parts of the model that are not of the robot,
and quantities that no robot measures, are left out with a note.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from sim.errors import UserError, listed
from sim.files.migrations import SCHEMA
from sim.files.strict_yaml import comment
from sim.physics.robot_bodies import BALL, FREE, HINGE, SLIDE, is_robot, measured_joints, roots
from sim.robot_setup.placeholders import TODO
from sim.robot_setup.template_text import action_lines, observation_lines, text
from sim.robot_setup.term_templates import action_terms, base_terms, joint_terms, sensor_terms


def draft(name: str, model: mujoco.MjModel, notes: Sequence[str] = ()) -> str:
    """Returns the text of a robot.yaml.

    Args:
        name: of the robot.
        model: compiled from the MJCF.
        notes: comments at the top.

    Raises:
        UserError: an element that a term would refer to has no name in the model.
    """
    _check_names(model)
    base = _planar_base(model)
    notes = [*notes, *_left_out(model)]
    observation = [*base_terms(base), *joint_terms(model, base), *sensor_terms(model, notes)]
    action = action_terms(model, base, observation, notes)
    if not observation or not action:
        what = "joint or sensor to observe" if not observation else "actuator to command"
        raise UserError(f"the model has no {what}")
    lines = [
        "# Drafted from model.xml. TODO: measure or decide; `mlsh check-robot` says what it is.",
        *(comment(f"Note: {note}") for note in notes),
        f"schema: {SCHEMA}",
        f"robot: {text(name)}",
        f"control_dt: {TODO}",
        f"physics_dt: {float(model.opt.timestep)!r}   # the model's timestep",
        "",
        "observation:",
    ]
    for term in observation:
        lines += observation_lines(term)
    lines += ["", "action:"]
    for term in action:
        lines += action_lines(term)
    return "\n".join(lines) + "\n"


def _check_names(model: mujoco.MjModel) -> None:
    missing = []
    for joint in measured_joints(model):
        if not model.joint(joint).name:
            missing.append(f"joint {joint} (of body {model.body(model.jnt_bodyid[joint]).name!r})")
    for kind, count in (("actuator", model.nu), ("sensor", model.nsensor)):
        missing += [f"{kind} {i}" for i in range(count) if not getattr(model, kind)(i).name]
    if missing:
        raise UserError(f"without a name in the model, give each one: {listed(missing)}")


def _left_out(model: mujoco.MjModel) -> list[str]:
    """Returns a note for each part of the model without a term."""
    notes, passive, scenery = [], [], []
    known = measured_joints(model)
    for j in range(model.njnt):
        body = model.body(model.jnt_bodyid[j])
        name = model.joint(j).name or body.name or str(j)
        if not is_robot(model, body.id):
            scenery.append(name)
        elif model.jnt_type[j] in (FREE, BALL):
            notes.append(
                f"joint {name} is read through sensors only; velocities in "
                "the robot's own frame: <velocimeter> and <gyro> at a site"
            )
        elif j not in known:
            passive.append(name)
    if scenery:
        notes.append(f"left out, no actuator moves what they belong to: {listed(scenery)}")
    if passive:
        notes.append(
            "left out, neither driven nor measured (no jointpos sensor in the model): "
            f"joint {listed(passive)}"
        )
    return notes + [
        f"keyframe {model.key(k).name or k}: simulation begins at the default pose, not there"
        for k in range(model.nkey)
    ]


def _planar_base(model: mujoco.MjModel) -> dict[str, str]:
    """Returns joints `x`, `y` and perhaps `yaw` of a body that slides on the world, or empty."""
    for body in sorted(roots(model)):
        found = {}
        for j in np.flatnonzero(model.jnt_bodyid == body).tolist():
            axis = model.jnt_axis[j].round(6).tolist()
            place = (int(model.jnt_type[j]), axis.index(1.0) if sorted(axis) == [0, 0, 1] else -1)
            if key := {(SLIDE, 0): "x", (SLIDE, 1): "y", (HINGE, 2): "yaw"}.get(place):
                found[key] = model.joint(j).name
        if {"x", "y"} <= set(found) and all(found.values()):
            return found
    return {}
