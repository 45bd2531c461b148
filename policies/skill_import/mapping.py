"""Maps the observation to a policy's input, and the policy's output to the action.

Both are a selection of elements, each scaled and shifted. Contradictions of robot and policy are
refused here, before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.bundle.held import Elements, Held
from policies.skill_import.description import POSE, Input, SkillDescription
from policies.skill_import.outputs import POSITION, SAME, Outputs, named_fields
from policies.skill_import.selection import Selection, SkillMapping
from sim.errors import UserError, listed, unknown
from sim.interface import Floats, History, Interface, ObservationTerm, PreviousAction, spread

Columns = tuple[NDArray[Any], Floats, Floats]  # place in the observation, scale, offset


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
            f"its training: set control_dt in robot.yaml to {description.control_dt:g}, or give a "
            f"policy trained with {interface.control_dt:g} s"
        )
    output = Outputs(interface, description, where)
    inputs = _Inputs(interface, description, output, description.skills[skill], where)
    return SkillMapping(
        inputs.selection(),
        output.selection(),
        description.action.clip,
        interface.observation_size,
    )


def entries(
    interface: Interface, description: SkillDescription, skill: str, where: str
) -> list[str]:
    """Each entry of `observation` with its number of elements in one tick, such as `command 3`.

    Args:
        interface: of the bundle.
        description: of the policy, of which `make_mapping` has made a mapping.
        skill: whose constants are used.
        where: the description, for errors.
    """
    output = Outputs(interface, description, where)
    inputs = _Inputs(interface, description, output, description.skills[skill], where)
    return inputs.entries()


class _Inputs:
    """Finds the inputs of a policy in the observation."""

    def __init__(
        self,
        interface: Interface,
        description: SkillDescription,
        output: Outputs,
        constants: dict[str, Held],
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

    def entries(self) -> list[str]:
        """Source of each entry, and its number of elements."""
        return [
            f"{each.term or each.constant or 'previous_action'} {len(self._part(i, each, 0)[0])}"
            for i, each in enumerate(self.description.observation)
        ]

    def not_zero_at_start(self) -> list[str]:
        """Entries whose earlier ticks are not zero where our observation has zeros."""
        found = []
        for i, each in enumerate(self.description.observation):
            _, _, offset = self._part(i, each, lag=1)
            if (abs(offset) > SAME).any():
                name = each.term or each.constant
                found.append(repr(name) if name else "the previous action")
        return found

    def _part(self, number: int, each: Input, lag: int) -> Columns:
        """Index, scale and offset of an entry of the description, `lag` ticks ago."""
        where = f"{self.where}: observation.{number}"
        if each.constant is not None:
            held = self.constants[each.constant]
            if isinstance(held, Elements):
                return self._elements(held, each, lag, where)
            values = np.array(held, np.float64)
            none = np.zeros(len(values))
            scale, offset = self._affine(each, len(values), where)
            return none, none, scale * (values - offset)
        if each.previous_action:
            return self._previous(each, lag, where)
        assert each.term is not None
        term = self._term(each.term, where)
        order = self._order(term, each, where)
        return self._measured(term, order, each, lag, where, self._joints_of(term))

    def _term(self, name: str, where: str) -> ObservationTerm:
        if name not in self.terms:
            raise unknown(f"observation term for the policy of {where}:", name, self.terms)
        if not self.terms[name].policy_input:
            raise UserError(
                f"{where}: term {name!r} has `policy_input: false`; name a term that policies "
                "see, or set it to true in robot.yaml"
            )
        return self.terms[name]

    def _elements(self, held: Elements, each: Input, lag: int, where: str) -> Columns:
        """Elements of a term that the skill gives the policy as its constant."""
        term = self._term(held.term, where)
        if (last := max(held.elements)) >= term.count:
            raise UserError(
                f"{where}: constant {each.constant!r} is element {last} of term {held.term!r}, "
                f"whose elements are 0 to {term.count - 1}; name some of these"
            )
        return self._measured(term, np.array(held.elements), each, lag, where)

    def _measured(
        self,
        term: ObservationTerm,
        order: NDArray[np.intp],
        each: Input,
        lag: int,
        where: str,
        joints: Sequence[int] | None = None,
    ) -> Columns:
        scale, offset = self._affine(each, len(order), where, joints)
        index = self._columns(term.name, lag, where)[order]
        # The observation has the value less its offset, scaled.
        return index, scale / term.scales[order], scale * (term.offsets[order] - offset)

    def _order(self, term: ObservationTerm, each: Input, where: str) -> NDArray[np.intp]:
        """Elements of a term in the policy's order: that of its joints, if it is of joints.

        A term may measure some of the joints. A driver may name joints otherwise than the model.
        Elements that have names, none of which is a joint of the policy, have no order that the
        policy could know.
        """
        joints = self.description.joints
        of_pose = each.offset == POSE
        if of_pose and (term.derive is not None or term.unit not in POSITION):
            raise UserError(
                f"{where}: offset {POSE} is of the positions of the joints, term {term.name!r} "
                f"is in {term.unit}; give the offset as numbers"
            )
        namings = _namings(term)
        for names in namings:
            if joints and set(joints) <= set(names):
                return np.array([names.index(name) for name in joints])
        for names in namings:
            if names and set(names) <= set(joints):
                return np.array([names.index(name) for name in joints if name in names])
        known = next((names for names in namings if names), ())
        if of_pose or set(known) & set(joints) or (namings and namings[0] and term.count > 1):
            missing = next((name for name in joints if name not in known), None)
            problem = "is of joints, and the description has no `joints`; list them there"
            if missing is not None:
                problem = f"does not measure joint {missing!r}"
            valid = listed(known) or "none"
            raise UserError(f"{where}: term {term.name!r} {problem}. Valid: {valid}")
        return np.arange(term.count)

    def _joints_of(self, term: ObservationTerm) -> list[int] | None:
        """Places, among the policy's joints, of those that a term measures; None: of all."""
        joints, namings = self.description.joints, _namings(term)
        if not any(set(joints) <= set(names) for names in namings):
            for names in namings:
                if names and set(names) <= set(joints):
                    return [i for i, name in enumerate(joints) if name in names]
        return None

    def _affine(
        self, each: Input, size: int, where: str, joints: Sequence[int] | None = None
    ) -> tuple[Floats, Floats]:
        """(size,) scale and offset; default positions are those of `joints`, by default of all."""
        default = np.array(self.description.default_positions)
        if joints is not None and len(default) == len(self.description.joints):
            default = default[[*joints]]
        offset = default if each.offset == POSE else np.asarray(each.offset)
        found = []
        for key, value in (("scale", np.asarray(each.scale)), ("offset", offset)):
            if value.ndim and value.size != size:
                raise UserError(
                    f"{where}: {key} has {value.size} values for {size} elements; give one for "
                    "all, or one for each"
                )
            found.append(np.broadcast_to(value, size).astype(np.float64))
        return found[0], found[1]

    def _columns(self, name: str, lag: int, where: str) -> NDArray[np.int64]:
        """Places of a term in the observation, now or `lag` ticks ago."""
        slices = self.interface.observation_slices
        places = np.arange(slices[name].start, slices[name].stop)
        if lag == 0:
            return places
        wanted, others = self.description.history, []
        assert wanted is not None
        for term in self.interface.computed:
            if not isinstance(term, History) or name not in term.terms:
                continue
            if lag <= term.ticks and term.start == wanted.start:
                return self._in_history(term, name, lag)
            others.append(term)
        if other := next((term for term in others if term.start != wanted.start), None):
            raise UserError(
                f"{self.where}: history.start is {wanted.start!r}, that of history "
                f"{other.name!r} in robot.yaml is {other.start!r}; set both to that of the "
                "training"
            )
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

    def _previous(self, each: Input, lag: int, where: str) -> Columns:
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
                f"target of {ours_offset[i]:g} for {output.names[i]!r} and is "
                f"{output.default[i]:g} for the policy; set the action's offset in robot.yaml to "
                "the default positions"
            )
        scale, offset = self._affine(each, len(place), where)
        shown = spread(found[0].scale, self.interface.action_size)[place]
        index = self._columns(found[0].name, lag, where)[place]
        return index, scale * ours_scale / output.scale / shown, -scale * offset


def _namings(term: ObservationTerm) -> list[tuple[str, ...]]:
    """Names of the elements of a term, those of the driver and those of the model."""
    if term.derive is not None:
        return []
    return [named_fields(term), term.mujoco.qpos or term.mujoco.qvel]


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
    held = [each for values in description.skills.values() for each in values.values()]
    used |= {each.term for each in held if isinstance(each, Elements)}
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
    if history is not None and any(each.constant for each in description.observation):
        notes.append(
            f"after a change of the skill all {history.ticks} ticks of the history have the "
            "constants of the new skill at once; in training the earlier ones had the old command"
        )
    if history is not None and history.start == "zeros":
        constants = next(iter(description.skills.values()))
        outputs = Outputs(interface, description, where)
        inputs = _Inputs(interface, description, outputs, constants, where)
        notes += [
            f"in the first {history.ticks - 1} ticks the history of {name} is that of the value "
            "zero, not zero after offset and scale"
            for name in inputs.not_zero_at_start()
        ]
    return notes
