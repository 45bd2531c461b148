"""Translates the YAML of a LEAPP export, with additions of the user, to a description."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from policies.bundle.manifest import sha256
from policies.skill_import.description import LeappDescription, Output, SkillDescription
from policies.skill_import.leapp_file import LeappFile, Tensor, read_leapp
from policies.skill_import.leapp_graph import LeappGraph
from policies.skill_import.leapp_inputs import LeappInputs
from policies.skill_import.original import ForeignPolicy, LeappOriginal
from sim.errors import UserError, invalid, listed, short
from sim.interface import Floats, Interface

TARGETS = "target/joint/position"
GAINS = {"kp": "stiffness", "kd": "damping"}


@dataclass(frozen=True)
class _Action:
    """The outputs: default + scale * output is a target for each joint."""

    target: Tensor
    joints: tuple[str, ...]
    output: str  # what the skill computes: the output that is fed back, or the targets
    default: Floats
    scale: Floats


def translate(given: LeappDescription, file: Path, interface: Interface) -> ForeignPolicy:
    """Returns the policy of a LEAPP export, with the description that its YAML makes.

    Args:
        given: what the user states.
        file: where.
        interface: of the bundle, whose terms the inputs are.

    Raises:
        UserError: something that the YAML has is not supported, does not fit the ONNX file or the
            robot, or is missing.
    """
    leapp = read_leapp(file.parent / given.leapp)
    graph = LeappGraph(leapp.model_path)
    _check_files(leapp, graph)
    action = _action(leapp, graph)
    inputs = LeappInputs(given, leapp, graph, interface, action.target, action.output)
    gains = _gains(leapp, graph, action.joints)
    try:
        description = SkillDescription(
            policy=leapp.model.parameters.model_path,
            license=given.license,
            source=given.source,
            control_dt=_control_dt(given, leapp, file),
            observation=tuple(inputs.observation),
            action=Output("position", tuple(action.scale.tolist()), output=action.output),
            skills=given.skills,
            joints=action.joints,
            default_positions=tuple(action.default.tolist()),
            stiffness=gains.get("stiffness"),
            damping=gains.get("damping"),
        )
    except ValidationError as error:
        raise invalid(leapp.path, error) from None
    size = len(action.joints)
    model = graph.piece(inputs.parts, inputs.width, action.output, size)
    original = LeappOriginal(
        leapp.model_path,
        tuple(inputs.parts),
        inputs.quaternions,
        action.target.name,
        action.default,
        action.scale,
    )
    return ForeignPolicy(file, leapp.model_path, model, graph.digest, original, description)


def _check_files(leapp: LeappFile, graph: LeappGraph) -> None:
    """Refuse an ONNX file that is not the one that the YAML is of."""
    stated = leapp.model.parameters.sha256sum
    if (found := sha256(graph.path.read_bytes())) != stated:
        raise UserError(
            f"{leapp.path}: sha256sum of {graph.path.name} is {short(stated)}, that of the file "
            f"is {found}; export both again"
        )
    for what, tensors, shapes in zip(
        ("input", "output"), (leapp.model.inputs, leapp.model.outputs), graph.shapes(), strict=True
    ):
        stated_shapes = {each.name: each.shape for each in tensors}
        for name in {**stated_shapes, **shapes}:
            ours, theirs = stated_shapes.get(name), shapes.get(name)
            if ours != theirs:
                raise UserError(
                    f"{leapp.path}: {what} {name!r} has the shape {_shape(ours)}, "
                    f"{_shape(theirs)} in {graph.path.name}; export both again"
                )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str([*shape])


def _control_dt(given: LeappDescription, leapp: LeappFile, file: Path) -> float:
    frequency, stated = leapp.pipeline.configs.frequency, given.control_dt
    if frequency is None and stated is None:
        raise UserError(
            f"{file}: control_dt is missing, and {leapp.path} states no frequency of the policy; "
            "add control_dt"
        )
    if frequency is None:
        return float(stated or 0)
    if stated is not None and not np.isclose(stated * frequency, 1, atol=1e-6):
        raise UserError(
            f"{file}: control_dt is {stated:g} s, the frequency in {leapp.path} is {frequency:g} "
            f"Hz, {1 / frequency:g} s; leave control_dt out, or correct the frequency"
        )
    return 1 / frequency


def _action(leapp: LeappFile, graph: LeappGraph) -> _Action:
    outputs, feedback = leapp.model.outputs, leapp.feedback()
    known = (TARGETS, *GAINS)
    for each in outputs:
        if each.kind not in known and each.name not in feedback.values():
            raise UserError(
                f"{leapp.path}: output {each.name!r} is of kind {short(each.kind)}. Valid: "
                f"{', '.join(known)}"
            )
    targets = [each for each in outputs if each.kind == TARGETS]
    if len(targets) != 1:
        raise UserError(
            f"{leapp.path}: one output of kind {TARGETS} is expected, it has "
            f"{listed(each.name for each in targets) or 'none'}"
        )
    (target,) = targets
    joints, size = target.names(str(leapp.path)), target.size
    if not feedback:
        return _Action(target, joints, target.name, np.zeros(size), np.ones(size))
    default = scale = np.zeros(0)
    for source, output in feedback.items():
        what = f"{leapp.path}: {output!r} is fed back as {source!r}"
        try:
            if next(each.size for each in outputs if each.name == output) != size:
                raise UserError(f"{target.name!r} has {size} elements")
            default, scale = graph.action(output, target.name, size)
        except UserError as error:
            raise UserError(
                f"{what} and is not the previous action ({str(error)[:150]}); "
                "recurrent states and histories inside of the graph are not supported; export a "
                "policy without them"
            ) from None
        first = leapp.initial_values()
        if first and source not in first:
            raise UserError(
                f"{what}, of which the initial values have none. They have: {listed(first)}; "
                "export both again"
            )
        if (begun := first.get(source, np.zeros(0))).any():
            raise UserError(
                f"{what}, with {short(begun.tolist())} on the first tick; it is zero when a "
                "session begins: export it with zeros"
            )
    if len(used := {*feedback.values()}) > 1:
        raise UserError(
            f"{leapp.path}: one action is fed back, it has {listed(sorted(used))}; export the "
            "policy with one"
        )
    return _Action(target, joints, used.pop(), default, scale)


def _gains(
    leapp: LeappFile, graph: LeappGraph, joints: tuple[str, ...]
) -> dict[str, tuple[float, ...]]:
    """Gains of the servos in the order of the joints, by their key in a description.

    No servo of positions has the stiffness 0: the exporter did not know the gains.
    """
    found: dict[str, tuple[float, ...]] = {}
    for tensor in leapp.model.outputs:
        if tensor.kind not in GAINS:
            continue
        where = f"{leapp.path}: output {tensor.name!r} of kind {tensor.kind!r}"
        if GAINS[tensor.kind] in found:
            raise UserError(f"{where}: another output is of this kind too; export one of each")
        names, values = tensor.names(str(leapp.path)), graph.constant(tensor.name)
        if values is None or values.size != tensor.size:
            raise UserError(
                f"{where} is not stored in the graph as a constant; gains that a policy computes "
                "are not supported: leave the output out of the export"
            )
        if wrong := sorted({*names} ^ {*joints}):
            raise UserError(
                f"{where} is of other joints than {TARGETS}: {listed(wrong)}; export both for the "
                "same"
            )
        by_joint = dict(zip(names, values.tolist(), strict=True))
        found[GAINS[tensor.kind]] = tuple(by_joint[name] for name in joints)
    return found if any(found.get("stiffness", (1.0,))) else {}
