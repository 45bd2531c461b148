"""From our observation to a policy's input, and from its output to our action: numbers alone.

Both are a selection of elements, each scaled and shifted. What robot and policy disagree on is
refused here, before anything is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.skill_import.description import POSE, Input, SkillDescription
from sim.errors import UserError, listed, unknown
from sim.interface import (
    ActionTerm,
    Floats,
    History,
    Interface,
    ObservationTerm,
    PreviousAction,
    parse_path,
    spread,
)

Float32 = NDArray[np.float32]
SAME = 1e-6  # of numbers that have to be equal
POSITION = ("rad", "m")  # units of commands that are positions of joints


@dataclass(frozen=True)
class Selection:
    """n numbers: element `index` of a vector, scaled and shifted."""

    index: NDArray[np.int64]  # (n,)
    scale: Floats  # (n,)
    offset: Floats  # (n,) added after the scale
    clip: tuple[float, float] | None = None  # of the result

    def __call__(self, vector: Float32) -> Float32:
        """(..., n) numbers of a vector, computed in 32 bits as the graph of a skill does."""
        scale, offset = self.scale.astype(np.float32), self.offset.astype(np.float32)
        picked: Float32 = vector[..., self.index] * scale + offset
        return picked if self.clip is None else np.clip(picked, *np.array(self.clip, np.float32))


@dataclass(frozen=True)
class SkillMapping:
    """The selections and limits with which a skill runs a policy."""

    input: Selection  # of the observation (O,)
    output: Selection  # of the policy's output
    output_clip: tuple[float, float] | None  # of the policy's output
    width: int  # O


def make_mapping(
    interface: Interface, description: SkillDescription, skill: str, where: str
) -> SkillMapping:
    """Find every input of a policy in a robot's observation, and every command in its output.

    Args:
        interface: of the bundle.
        description: of the policy, checked.
        skill: whose constants are used.
        where: the description, for errors.

    Raises:
        UserError: robot and policy disagree; one line that says on what.
    """
    if abs(description.control_dt - interface.control_dt) > SAME:
        raise UserError(
            f"{where}: the policy decides every {description.control_dt:g} s, robot "
            f"{interface.robot!r} every {interface.control_dt:g} s; a policy runs at the rate of "
            "its training"
        )
    output = _Outputs(interface, description, where)
    inputs = _Inputs(interface, description, output, description.skills[skill], where)
    return SkillMapping(
        inputs.selection(),
        output.selection(),
        description.action.clip,
        interface.observation_size,
    )


def named_fields(term: ObservationTerm | ActionTerm) -> tuple[str, ...]:
    """The name in brackets of each element in ROS; empty if they have none."""
    names = tuple(parse_path(path)[-1][1] or "" for path in term.ros.fields)
    return names if all(names) and not any(name.isdigit() for name in names) else ()


def joint_names(term: ObservationTerm) -> tuple[str, ...]:
    """The joint of each element of an observation term; empty if it is not of joints."""
    return named_fields(term) or term.mujoco.qpos or term.mujoco.qvel


class _Outputs:
    """Finds the joints of a policy in the action."""

    def __init__(self, interface: Interface, description: SkillDescription, where: str) -> None:
        self.interface, self.where = interface, where
        self.joints, count = description.joints, len(description.joints)
        if len(description.default_positions) != count:
            raise UserError(f"{where}: default_positions: one position per joint is missing")
        self.default = np.array(description.default_positions, np.float64)
        given = description.action.scale
        if isinstance(given, tuple) and len(given) != count:
            raise UserError(f"{where}: action.scale has {len(given)} values for {count} joints")
        self.scale = spread(given, count)
        robot, places = f"robot {interface.robot!r}", self._places()
        for name in self.joints:
            if name not in places:
                raise unknown(f"joint of {robot} that the policy drives:", name, places)
        if left := [name for name in places if name not in self.joints]:
            raise UserError(f"{where}: the policy does not drive joint {left[0]!r} of {robot}")
        self.place = np.array([places[name] for name in self.joints])  # (J,) in our action
        self._check_gains(description)

    def _places(self) -> dict[str, int]:
        """Per joint its place in our action."""
        found: dict[str, int] = {}
        robot, start = f"robot {self.interface.robot!r}", 0
        for term in self.interface.action:
            if term.unit not in POSITION:
                raise UserError(
                    f"{self.where}: the policy commands positions, action {term.name!r} of "
                    f"{robot} is in {term.unit}"
                )
            for i, name in enumerate(self._names(term)):
                if name in found:
                    raise UserError(f"{self.where}: two commands of {robot} drive {name!r}")
                found[name] = start + i
            start += term.size
        return found

    def _names(self, term: ActionTerm) -> tuple[str, ...]:
        """The joint that each element of an action term drives."""
        if names := named_fields(term):
            return names
        if term.tracking is not None and None not in term.measured:
            tracked = next(t for t in self.interface.observation if t.name == term.tracking.term)
            if known := joint_names(tracked):
                return tuple(known[i] for i in term.measured if i is not None)
        raise UserError(
            f"{self.where}: neither ros.fields nor tracking of action {term.name!r} of robot "
            f"{self.interface.robot!r} name joints"
        )

    def _check_gains(self, description: SkillDescription) -> None:
        for key in ("stiffness", "damping"):
            if (wanted := getattr(description, key)) is None:
                continue
            stated = [getattr(t, key) for t in self.interface.action]
            if any(value is None for value in stated):
                continue  # `unstated` says so
            own = np.concatenate(
                [spread(v, t.size) for v, t in zip(stated, self.interface.action, strict=True)]
            )[self.place]
            for name, mine, theirs in zip(
                self.joints, own, spread(wanted, len(self.joints)), strict=True
            ):
                if not np.isclose(mine, theirs, rtol=1e-3, atol=SAME):
                    raise UserError(
                        f"{self.where}: {key} of joint {name!r} was {theirs:g} in training, it is "
                        f"{mine:g} in robot.yaml; give the servo the gain of the policy"
                    )

    def selection(self) -> Selection:
        """Our action: command = offset + scale * action."""
        ours_scale, ours_offset = self.ours
        order = np.argsort(self.place)  # joint of the policy for each element of our action
        return Selection(
            index=order.astype(np.int64),
            scale=self.scale[order] / ours_scale,
            offset=(self.default[order] - ours_offset) / ours_scale,
        )

    @property
    def ours(self) -> tuple[Floats, Floats]:
        """(A,) scale and offset of our commands."""
        terms = self.interface.action
        return (
            np.concatenate([spread(t.scale, t.size) for t in terms]),
            np.concatenate([spread(t.offset, t.size) for t in terms]),
        )


class _Inputs:
    """Finds the inputs of a policy in the observation."""

    def __init__(
        self,
        interface: Interface,
        description: SkillDescription,
        output: _Outputs,
        constants: dict[str, tuple[float, ...]],
        where: str,
    ) -> None:
        self.interface, self.description, self.where = interface, description, where
        self.output, self.constants = output, constants
        self.terms = {t.name: t for t in interface.observation}

    def selection(self) -> Selection:
        """The whole input, histories included."""
        history = self.description.history
        lags = [0] if history is None else list(range(history.ticks))
        if history is not None and history.order == "oldest_first":
            lags.reverse()
        entries = list(enumerate(self.description.observation))
        if history is not None and history.layout == "by_tick":
            parts = [self._part(i, each, lag) for lag in lags for i, each in entries]
        else:
            parts = [self._part(i, each, lag) for i, each in entries for lag in lags]
        columns = [np.concatenate(values) for values in zip(*parts, strict=True)]
        clip = self.description.observation_clip
        return Selection(columns[0].astype(np.int64), columns[1], columns[2], clip)

    def not_zero_at_start(self) -> list[str]:
        """Entries whose earlier ticks are not zero where our observation has zeros."""
        found = []
        for i, each in enumerate(self.description.observation):
            _, _, offset = self._part(i, each, lag=1)
            if (abs(offset) > SAME).any():
                name = each.term or each.constant
                found.append(repr(name) if name else "the previous action")
        return found

    def _part(self, number: int, each: Input, lag: int) -> tuple[NDArray[Any], Floats, Floats]:
        """Index, scale and offset of an entry of the description, `lag` ticks ago."""
        where = f"{self.where}: observation.{number}"
        if each.constant is not None:
            values = np.array(self.constants[each.constant], np.float64)
            none = np.zeros(len(values))
            scale, offset = self._affine(each, len(values), where)
            return none, none, scale * (values - offset)
        if each.previous_action:
            return self._previous(each, lag, where)
        assert each.term is not None
        if each.term not in self.terms:
            raise unknown("observation term for the policy:", each.term, self.terms)
        term = self.terms[each.term]
        if not term.policy_input:
            raise UserError(f"{where}: term {term.name!r} has `policy_input: false`")
        order = self._order(term, each, where)
        scale, offset = self._affine(each, len(order), where)
        index = self._columns(term.name, lag, where)[order]
        # The observation has the value less its offset, scaled.
        return index, scale / term.scales[order], scale * (term.offsets[order] - offset)

    def _order(self, term: ObservationTerm, each: Input, where: str) -> NDArray[np.intp]:
        """Elements of a term in the policy's order: that of its joints, if it is of joints.

        A driver may name joints otherwise than the model. Elements that have names, none of which
        is a joint of the policy, have no order that the policy could know.
        """
        joints = self.description.joints
        of_pose = each.offset == POSE
        if of_pose and (term.derive is not None or term.unit not in POSITION):
            raise UserError(
                f"{where}: offset {POSE} is of the positions of the joints, term {term.name!r} "
                f"is in {term.unit}"
            )
        namings = (
            []
            if term.derive is not None
            else [named_fields(term), term.mujoco.qpos or term.mujoco.qvel]
        )
        for names in namings:
            if set(joints) <= set(names):
                return np.array([names.index(name) for name in joints])
        known = next((names for names in namings if names), ())
        if of_pose or set(known) & set(joints) or (namings and namings[0] and term.count > 1):
            missing = next(name for name in joints if name not in known)
            raise UserError(
                f"{where}: term {term.name!r} does not measure joint {missing!r}. It measures: "
                f"{listed(known)}"
            )
        return np.arange(term.count)

    def _affine(self, each: Input, size: int, where: str) -> tuple[Floats, Floats]:
        offset = self.output.default if each.offset == POSE else np.asarray(each.offset)
        found = []
        for key, value in (("scale", np.asarray(each.scale)), ("offset", offset)):
            if value.ndim and value.size != size:
                raise UserError(f"{where}: {key} has {value.size} values for {size} elements")
            found.append(np.broadcast_to(value, size).astype(np.float64))
        return found[0], found[1]

    def _columns(self, name: str, lag: int, where: str) -> NDArray[np.int64]:
        """Places of a term in the observation, now or `lag` ticks ago."""
        slices = self.interface.observation_slices
        places = np.arange(slices[name].start, slices[name].stop)
        if lag == 0:
            return places
        wanted = self.description.history
        for term in self.interface.computed:
            if isinstance(term, History) and name in term.terms:
                if wanted is not None and term.start != wanted.start:
                    raise UserError(
                        f"{self.where}: history.start is {wanted.start!r}, that of history "
                        f"{term.name!r} in robot.yaml is {term.start!r}"
                    )
                if lag <= term.ticks:
                    return self._in_history(term, name, lag)
        raise UserError(
            f"{where}: the policy takes {name!r} of {lag} ticks ago, and no history of robot "
            f"{self.interface.robot!r} has it; add one to `computed` in robot.yaml"
        )

    def _in_history(self, term: History, name: str, lag: int) -> NDArray[np.int64]:
        slices = self.interface.observation_slices
        widths = {each: slices[each].stop - slices[each].start for each in term.terms}
        before = sum(widths[each] for each in term.terms[: term.terms.index(name)])
        tick = int(np.flatnonzero(term.lags == lag)[0])
        if term.layout == "by_tick":
            start = tick * sum(widths.values()) + before
        else:
            start = term.ticks * before + tick * widths[name]
        start += slices[term.name].start
        return np.arange(start, start + widths[name])

    def _previous(self, each: Input, lag: int, where: str) -> tuple[NDArray[Any], Floats, Floats]:
        """The policy's own last output, from our last action."""
        found = [
            t for t in self.interface.computed if isinstance(t, PreviousAction) and t.clip is None
        ]
        if not found:
            raise UserError(
                f"{where}: the policy takes its previous action, and robot "
                f"{self.interface.robot!r} has none in its observation; add a term of kind "
                "previous_action without clip to `computed` in robot.yaml"
            )
        output, place = self.output, self.output.place
        ours_scale, ours_offset = (value[place] for value in output.ours)
        away = np.abs(ours_offset - output.default)
        if (i := int(np.argmax(away))) >= 0 and away[i] > SAME:
            raise UserError(
                f"{where}: the previous action is zero when a session begins, which would be a "
                f"target of {ours_offset[i]:g} for joint {output.joints[i]!r} and is "
                f"{output.default[i]:g} for the policy; set the action's offset in robot.yaml to "
                "the default positions"
            )
        scale, offset = self._affine(each, len(place), where)
        shown = spread(found[0].scale, self.interface.action_size)[place]
        index = self._columns(found[0].name, lag, where)[place]
        return index, scale * ours_scale / output.scale / shown, -scale * offset


def doubts(interface: Interface, description: SkillDescription, where: str) -> list[str]:
    """Lists what cannot be compared, or differs without being wrong; one line each.

    Args:
        interface: of the bundle.
        description: of the policy, for which `make_mapping` has found no mistake.
        where: the description.
    """
    notes = []
    for key in ("stiffness", "damping"):
        silent = [t.name for t in interface.action if getattr(t, key) is None]
        stated = [t for t in interface.action if getattr(t, key) is not None]
        if getattr(description, key) is None and stated:
            notes.append(
                f"the description does not state the {key} of the training; that of action "
                f"{stated[0].name!r} in robot.yaml is {getattr(stated[0], key)}"
            )
        if getattr(description, key) is not None and silent:
            notes.append(
                f"robot.yaml does not state the {key} of action {silent[0]!r}; in training it was "
                f"{getattr(description, key)}"
            )
    notes += [
        f"action {term.name!r} has a low-pass filter (smoothing_time), which slows the policy down"
        for term in interface.action
        if np.any(term.smoothing_times)
    ]
    used = {each.term for each in description.observation}
    notes += [
        f"term {term.name!r} is clipped in robot.yaml before the policy sees it"
        for term in interface.observation
        if term.name in used and term.clip is not None
    ]
    if description.action.clip is not None and any(
        each.previous_action for each in description.observation
    ):
        notes.append("the previous action that the policy sees is the one after action.clip")
    history = description.history
    if history is not None and history.start == "zeros":
        constants = next(iter(description.skills.values()))
        outputs = _Outputs(interface, description, where)
        inputs = _Inputs(interface, description, outputs, constants, where)
        notes += [
            f"in the first {history.ticks - 1} ticks the history of {name} is that of the value "
            "zero, not zero after offset and scale"
            for name in inputs.not_zero_at_start()
        ]
    return notes
