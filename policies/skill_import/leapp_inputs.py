"""Maps each input of a LEAPP export to an observation term, a command or a feedback."""

from __future__ import annotations

from collections.abc import Iterable

from policies.skill_import.description import Input, LeappDescription
from policies.skill_import.leapp_file import CONNECTION, LeappFile, Tensor
from policies.skill_import.leapp_graph import QUATERNIONS, LeappGraph, Part
from policies.skill_import.original import Quaternion
from policies.skill_import.outputs import POSITION, VELOCITY, named_fields
from sim.errors import UserError, listed, short, unknown
from sim.interface import Interface, ObservationTerm
from sim.interface.message_quantities import meaning_of

XYZ = "xyz"
BASE = "base_link"  # REP-105's name of the body's frame
COMMAND = ("command/", "command:")  # with which kinds and connections of commands begin
ROTATION, VECTOR = "state/body/rotation", "state/vector3d"
JOINTS = {"state/joint/position": POSITION, "state/joint/velocity": VELOCITY}
BODY = {"state/body/angular_velocity": "rad/s", "state/body/linear_velocity": "m/s"}
# What Isaac Lab reads for a kind; the kind alone leaves the frame open.
READ = {
    "state/joint/position": ("joint_pos",),
    "state/joint/velocity": ("joint_vel",),
    "state/body/angular_velocity": tuple(f"root_{of}ang_vel_b" for of in ("", "link_", "com_")),
    "state/body/linear_velocity": tuple(f"root_{of}lin_vel_b" for of in ("", "link_", "com_")),
    ROTATION: ("root_quat_w", "root_link_quat_w"),
    VECTOR: ("projected_gravity_b",),
}
HINT = "or name its observation term of robot.yaml under `terms`"


class LeappInputs:
    """Finds the entry of a description that each input is, and what the input is made of."""

    def __init__(
        self,
        given: LeappDescription,
        leapp: LeappFile,
        graph: LeappGraph,
        interface: Interface,
        target: Tensor,
        output: str,
    ) -> None:
        """Find all inputs.

        Args:
            given: what the user states.
            leapp: LEAPP's YAML.
            graph: that of its ONNX file.
            interface: of the bundle.
            target: the output with targets of joints, in whose order their measurements are put.
            output: of the graph, for which the inputs are.

        Raises:
            UserError: an input is nothing that the robot has.
        """
        self.given, self.leapp, self.graph = given, leapp, graph
        self.robot = f"robot {interface.robot!r}"
        self.terms = [t for t in interface.observation if t.policy_input]
        self.target, self.output = target, output
        self.joints = target.names(str(leapp.path))
        self.observation: list[Input] = []
        self.parts: list[Part] = []
        self.quaternions: dict[str, Quaternion] = {}
        self.width = 0
        self.entities: dict[str, str] = {}
        names = [each.name for each in leapp.model.inputs]
        for name in given.terms:
            if name not in names:
                raise unknown(f"input of {leapp.path} that `terms` names:", name, names)
        self._entity(target)
        feedback = leapp.feedback()
        for tensor in leapp.model.inputs:
            if tensor.name in feedback:
                self._add(tensor, Input(previous_action=True), range(tensor.size))
            elif tensor.name not in given.terms and _is_command(tensor):
                self._command(tensor)
            else:
                self._state(tensor)

    def _where(self, tensor: Tensor) -> str:
        return f"{self.leapp.path}: input {tensor.name!r}"

    def _add(
        self,
        tensor: Tensor,
        source: Input,
        order: Iterable[int],
        size: int | None = None,
    ) -> None:
        """Append an input whose elements are those of a source, of `size`, in an order."""
        index = tuple(self.width + i for i in order)
        self.parts.append(Part(tensor.name, tensor.shape, index))
        self.observation.append(source)
        self.width += tensor.size if size is None else size

    def _command(self, tensor: Tensor) -> None:
        for skill, values in self.given.skills.items():
            if (held := values.get(tensor.name)) is not None and len(held) != tensor.size:
                names = tensor.names(str(self.leapp.path)) if tensor.element_names else ()
                of = f": {', '.join(names)}" if names else ""
                raise UserError(
                    f"{self._where(tensor)} has {tensor.size} elements{of}; skill {skill!r} "
                    f"states {len(held)}; give one for each"
                )
        self._add(tensor, Input(constant=tensor.name), range(tensor.size))

    def _state(self, tensor: Tensor) -> None:
        """An input that is an observation term of robot.yaml."""
        kind, named = tensor.kind, self.given.terms.get(tensor.name)
        if named is None:
            self._check_read(tensor)
        if kind in JOINTS:
            self._joints(tensor, kind)
        elif kind in BODY or kind == VECTOR:
            self._vector(tensor, kind)
        elif kind == ROTATION:
            self._orientation(tensor)
        else:
            self._named(tensor)

    def _named(self, tensor: Tensor) -> None:
        """An input of another kind, whose term the user names: in the order of its elements."""
        terms = [t for t in self.terms if t.count == tensor.size]
        term = self._one(tensor, terms, f"of {tensor.size} elements")
        source = Input(term=term.name)
        if not tensor.element_names:
            self._add(tensor, source, range(tensor.size))
            return
        names, joints, axes = tensor.names(str(self.leapp.path)), self.joints, _axes(term)
        if {*names} <= {*joints} and self._has_joints(term):
            self._add(tensor, source, map(joints.index, names), len(joints))
        elif sorted(names) == sorted(axes):
            self._add(tensor, source, map(axes.index, names))
        else:
            raise UserError(
                f"{self._where(tensor)}: element_names are {listed(names)}, which are not those "
                f"of observation term {term.name!r} of {self.robot}; leave element_names out to "
                "take its elements in their order"
            )

    def _has_joints(self, term: ObservationTerm) -> bool:
        """True for a term of the joints that the policy moves."""
        of = named_fields(term), term.mujoco.qpos, term.mujoco.qvel
        return term.derive is None and any({*self.joints} <= {*each} for each in of)

    def _check_read(self, tensor: Tensor) -> None:
        """Refuse what the kind does not say, or says of another frame."""
        kind = tensor.kind
        if kind not in READ:
            raise UserError(
                f"{self._where(tensor)} is of kind {short(kind)}. Valid: {', '.join(READ)}, "
                f"command/..; {HINT}"
            )
        read = self._entity(tensor)
        if not read and kind == VECTOR:
            raise UserError(
                f"{self._where(tensor)} of kind {kind!r} does not say which vector it is "
                f"({CONNECTION} is missing); {HINT}"
            )
        if read and read not in READ[kind]:
            raise UserError(
                f"{self._where(tensor)} of kind {kind!r} is read from {short(read)}. Valid: "
                f"{', '.join(READ[kind])}; {HINT}"
            )

    def _entity(self, tensor: Tensor) -> str:
        """Returns what a tensor is read from, of the one robot; empty: it is not stated."""
        if (text := tensor.isaaclab_connection) is None:
            return ""
        _, _, rest = text.partition(":")
        entity, _, name = rest.partition(":")
        self.entities.setdefault(entity, tensor.name)
        if len(self.entities) > 1:
            (first, one), (second, other) = self.entities.items()
            raise UserError(
                f"{self.leapp.path}: {CONNECTION} of {one!r} is of {first!r}, that of {other!r} "
                f"of {second!r}; one robot is expected"
            )
        return name

    def _one(self, tensor: Tensor, terms: list[ObservationTerm], what: str) -> ObservationTerm:
        """The only term that an input can be, or the one of these that the user names."""
        where = f"{self._where(tensor)} of kind {tensor.kind!r}"
        found = {t.name: t for t in terms}
        if (named := self.given.terms.get(tensor.name)) is not None:
            if named not in found:
                raise unknown(f"observation term of {self.robot} that is {what}:", named, found)
            return found[named]
        if not terms:
            raise UserError(
                f"{where}: no observation term of {self.robot} is {what}. Its terms: "
                f"{listed(t.name for t in self.terms)}; {HINT}"
            )
        if len(terms) > 1:
            raise UserError(
                f"{where}: {listed(found)} of {self.robot} are {what}; name one under `terms`"
            )
        return terms[0]

    def _joints(self, tensor: Tensor, kind: str) -> None:
        names, joints = tensor.names(str(self.leapp.path)), self.joints
        for name in names:
            if name not in joints:
                raise unknown(f"joint of {self.target.name!r} for {tensor.name!r}:", name, joints)
        terms = [t for t in self.terms if t.unit in JOINTS[kind] and self._has_joints(t)]
        term = self._one(tensor, terms, f"of these joints in {' or '.join(JOINTS[kind])}")
        self._add(tensor, Input(term=term.name), map(joints.index, names), len(joints))

    def _vector(self, tensor: Tensor, kind: str) -> None:
        """A vector in the frame of the body."""
        in_body = self._in_body(tensor, [t for t in self.terms if _axes(t)])
        if kind in BODY:
            terms = [t for t in in_body if t.unit == BODY[kind]]
            what = f"a vector in {BASE} in {BODY[kind]}"
        elif tensor.name in self.given.terms:
            terms, what = [*in_body, *self._gravity_terms(tensor)], "a vector"
        else:
            terms, what = self._gravity_terms(tensor), f"the direction of gravity in {BASE}"
        term = self._one(tensor, terms, what)
        axes, names = _axes(term) or [*XYZ], tensor.names(str(self.leapp.path))
        if sorted(names) != [*XYZ]:
            raise UserError(
                f"{self._where(tensor)}: element_names are {listed(names)}. Valid: x, y, z"
            )
        self._add(tensor, Input(term=term.name), map(axes.index, names))

    def _gravity_terms(self, tensor: Tensor) -> list[ObservationTerm]:
        return self._in_body(tensor, [t for t in self.terms if t.derive == "projected_gravity"])

    def _in_body(self, tensor: Tensor, terms: list[ObservationTerm]) -> list[ObservationTerm]:
        """Those of vectors in the frame that Isaac Lab reads; any frame if the user names one."""
        named = tensor.name in self.given.terms
        return [t for t in terms if named or t.frame == BASE]

    def _orientation(self, tensor: Tensor) -> None:
        names, where = tensor.names(str(self.leapp.path)), self._where(tensor)
        if names not in QUATERNIONS:
            valid = "; ".join(", ".join(each) for each in QUATERNIONS)
            raise UserError(f"{where}: element_names are {', '.join(names)}. Valid: {valid}")
        found = self.graph.gravity(tensor.name, names, self.output)
        if found is None:
            raise UserError(
                f"{where} of kind {ROTATION!r} is used for more than the direction of gravity; "
                "export the policy with the heading left out of its observation"
            )
        found_terms = self._gravity_terms(tensor)
        term = self._one(tensor, found_terms, f"the direction of gravity in {BASE}")
        self.parts.append(Part(found, (1, 3), tuple(range(self.width, self.width + 3))))
        self.observation.append(Input(term=term.name))
        self.width += 3
        self.quaternions[found] = Quaternion(tensor.name, tensor.shape, QUATERNIONS[names])


def _is_command(tensor: Tensor) -> bool:
    return any(
        (text or "").startswith(COMMAND) for text in (tensor.kind, tensor.isaaclab_connection)
    )


def _axes(term: ObservationTerm) -> list[str]:
    """The axis of each element of a term that is a whole vector in its message; empty: none."""
    meanings = [meaning_of(path) for path in term.ros.fields]
    axes = [each.label for each in meanings]
    whole = sorted(axes) == [*XYZ] and all(each.quantity == term.unit for each in meanings)
    return axes if term.derive is None and whole else []
