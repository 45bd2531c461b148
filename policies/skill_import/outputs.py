"""Maps the elements of a policy's output to the elements of the action."""

from __future__ import annotations

import numpy as np

from policies.skill_import.description import SkillDescription
from policies.skill_import.selection import Selection
from sim.errors import UserError, unknown
from sim.interface import ActionTerm, Floats, Interface, ObservationTerm, parse_path, spread

SAME = 1e-6  # of numbers that have to be equal
POSITION = ("rad", "m")  # units of commands that are positions of joints
VELOCITY = ("rad/s", "m/s")


def named_fields(term: ObservationTerm | ActionTerm) -> tuple[str, ...]:
    """The name in brackets of each element in ROS; empty if they have none."""
    names = tuple(parse_path(path)[-1][1] or "" for path in term.ros.fields)
    return names if all(names) and not any(name.isdigit() for name in names) else ()


def joint_names(term: ObservationTerm) -> tuple[str, ...]:
    """The joint of each element of an observation term; empty if it is not of joints."""
    return named_fields(term) or term.mujoco.qpos or term.mujoco.qvel


class Outputs:
    """Finds the elements of a policy's output in the action."""

    def __init__(self, interface: Interface, description: SkillDescription, where: str) -> None:
        self.interface, self.description, self.where = interface, description, where
        self.robot = f"robot {interface.robot!r}"
        commands_velocities = description.action.kind == "velocity"
        self.names, place = self._velocities() if commands_velocities else self._positions()
        self.place = np.array(place)  # of each element of the output in our action
        # An output of 0 is a joint's default position, or no velocity.
        still = (0.0,) * len(self.names)
        self.default = np.array(still if commands_velocities else description.default_positions)
        given = description.action.scale
        if given is None:
            raise UserError(
                f"{where}: action.scale, the factor of the output, is missing, and the policy has "
                "no metadata action_scale; give one number for all elements, or one for each"
            )
        if isinstance(given, tuple) and len(given) != len(self.names):
            raise UserError(
                f"{where}: action.scale has {len(given)} values for {len(self.names)} elements; "
                "give one for all, or one for each (left out, it is the policy's metadata "
                "action_scale)"
            )
        self.scale = spread(given, len(self.names))
        if not commands_velocities:
            self._check_gains(description)

    def _positions(self) -> tuple[tuple[str, ...], list[int]]:
        """Joints of the policy, and the place of each in our action."""
        joints = self.description.joints
        if len(self.description.default_positions) != len(joints):
            raise UserError(
                f"{self.where}: default_positions has {len(self.description.default_positions)} "
                f"values for {len(joints)} joints; give one for each"
            )
        places = self._places()
        for name in joints:
            if name not in places:
                raise unknown(
                    f"joint of {self.robot} that the policy of {self.where} drives:", name, places
                )
        if left := [name for name in places if name not in joints]:
            raise UserError(
                f"{self.where}: the policy does not drive joint {left[0]!r} of {self.robot}; "
                "leave its command out of robot.yaml, or give a policy that drives it"
            )
        return joints, [places[name] for name in joints]

    def _velocities(self) -> tuple[tuple[str, ...], list[int]]:
        """Elements of the terms that the policy commands, and the place of each in our action."""
        wanted, terms = self.description.action.terms, {t.name: t for t in self.interface.action}
        for name in wanted:
            if name not in terms:
                raise unknown(
                    f"action term of {self.robot} that the policy of {self.where} commands:",
                    name,
                    terms,
                )
            if terms[name].unit not in VELOCITY:
                raise UserError(
                    f"{self.where}: the policy commands velocities, action {name!r} of "
                    f"{self.robot} is in {terms[name].unit}; name terms in m/s or rad/s"
                )
            if wanted.count(name) > 1:
                raise UserError(
                    f"{self.where}: action.terms: {name!r} is given twice; name each term once"
                )
        if left := [name for name in terms if name not in wanted]:
            raise UserError(
                f"{self.where}: the policy does not command action {left[0]!r} of {self.robot}; "
                "add it to action.terms, or leave it out of robot.yaml"
            )
        labels, slices = self.interface.action_names, self.interface.action_slices
        place = [i for name in wanted for i in range(slices[name].start, slices[name].stop)]
        return tuple(labels[i] for i in place), place

    def _places(self) -> dict[str, int]:
        """Per joint its place in our action."""
        found: dict[str, int] = {}
        start = 0
        for term in self.interface.action:
            if term.unit not in POSITION:
                hint = "; leave it out of robot.yaml"
                if term.unit in VELOCITY:
                    hint = ", for which `kind` is velocity; set it in `action`"
                raise UserError(
                    f"{self.where}: the policy commands positions, action {term.name!r} of "
                    f"{self.robot} is in {term.unit}{hint}"
                )
            for i, name in enumerate(self._names(term)):
                if name in found:
                    raise UserError(
                        f"{self.where}: two commands of {self.robot} drive {name!r}; leave one of "
                        "them out of robot.yaml"
                    )
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
            f"{self.where}: neither ros.fields nor tracking of action {term.name!r} of "
            f"{self.robot} name joints; name them in ros.fields, such as position[knee]"
        )

    def _check_gains(self, description: SkillDescription) -> None:
        for key in ("stiffness", "damping"):
            if (wanted := getattr(description, key)) is None:
                continue
            own = self._gains(key)[self.place]  # NaN: not stated, which `doubts` says
            for name, mine, theirs in zip(
                self.names, own, spread(wanted, len(self.names)), strict=True
            ):
                if np.isfinite(mine) and not np.isclose(mine, theirs, rtol=1e-3, atol=SAME):
                    raise UserError(
                        f"{self.where}: {key} of joint {name!r} was {theirs:g} in training, it is "
                        f"{mine:g} in robot.yaml; give the servo the gain of the policy"
                    )

    def _gains(self, key: str) -> Floats:
        """(A,) gains of our commands; NaN of a term that does not state them."""
        stated = [(getattr(term, key), term.size) for term in self.interface.action]
        return np.concatenate(
            [
                np.full(size, np.nan) if value is None else spread(value, size)
                for value, size in stated
            ]
        )

    def selection(self) -> Selection:
        """Our action: command = offset + scale * action."""
        ours_scale, ours_offset = self.ours
        order = np.argsort(self.place)  # element of the output for each of our action
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
