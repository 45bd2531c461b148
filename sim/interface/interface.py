"""`Interface`: the terms of robot.yaml in vector order, with `observe` and `command`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, RootModel, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.errors import invalid, short, validated
from sim.interface.computed import ComputedTerm, ComputedTerms, Memory
from sim.interface.measured_state import beyond_limit, measured_command, measurement
from sim.interface.names import RobotName
from sim.interface.start_pose import StartPose
from sim.interface.term_sources import WithLaterKeys, drop_later
from sim.interface.terms import ActionTerm, ObservationTerm, check_tracking
from sim.interface.validators import STRICT, Floats, Step, Tick, check_steps, check_unique, spread

MAX_TERMS = 1000


@dataclass(frozen=True, config=STRICT)
class Interface(WithLaterKeys):
    """A robot's whole contract, in vector order. It travels inside every bundle."""

    robot: RobotName  # name of the robot
    control_dt: Tick  # s per tick; multiple of physics_dt
    physics_dt: Step  # s, time per physics step
    # Measurements of the robot, in the order of the observation vector.
    observation: Annotated[tuple[ObservationTerm, ...], Field(min_length=1, max_length=MAX_TERMS)]
    # Commands that the robot takes, in the order of the action vector.
    action: Annotated[tuple[ActionTerm, ...], Field(min_length=1, max_length=MAX_TERMS)]
    # Terms that no sensor measures, in order, behind those of `observation` and of the task
    # family: the previous action, constants, and then histories.
    computed: Annotated[tuple[ComputedTerm, ...], Field(max_length=MAX_TERMS)] = ()
    # Pose in which an episode begins and near which a session has to begin; null: the default pose
    # of the model, and a session may begin in any pose.
    start_pose: StartPose | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_steps(self.control_dt, self.physics_dt)
        check_unique("observation term", [t.name for t in (*self.observation, *self.computed)])
        if not any(term.policy_input for term in self.observation):
            raise ValueError("no observation term has policy_input: a policy would see nothing")
        for action in self.action:
            check_tracking(action, self.observation)
        check_unique("action term", [t.name for t in self.action])
        _ = self.computed_terms  # refuses those that do not fit
        if self.start_pose is not None:
            self.start_pose.check([t for t in self.observation if not t.mujoco.task])
        self._check_topics()
        # The later of two writers would win in silence.
        check_unique("actuator", [name for t in self.action for name in t.mujoco.actuators])
        check_unique(
            "ROS field", [f"{t.ros.topic} {f}" for t in self.action for f in t.ros.fields]
        )
        return self

    def _check_topics(self) -> None:
        """Refuse an observation term that reads a command topic, which only echoes the command."""
        commands = {term.ros.topic for term in self.action}
        for term in self.observation:
            if term.ros.topic in commands:
                raise ValueError(
                    f"observation term {term.name!r} reads topic {term.ros.topic!r}, on which "
                    "the command goes out; it has to show what the robot measures"
                )

    # Sizes and layout ---------------------------------------------------------------------

    @cached_property
    def observation_size(self) -> int:
        """O, elements of an observation."""
        return sum(self._widths.values())

    @cached_property
    def computed_terms(self) -> ComputedTerms:
        """The terms of the observation that no sensor measures."""
        measured = {term.name: term.width for term in self.observation if term.policy_input}
        return ComputedTerms(self.computed, measured, self.action_size)

    @cached_property
    def _widths(self) -> dict[str, int]:
        """Elements of every term of the observation, in order."""
        measured = {term.name: term.width for term in self.observation}
        return {**measured, **self.computed_terms.widths}

    @cached_property
    def action_size(self) -> int:
        """A, elements of an action."""
        return sum(term.size for term in self.action)

    @cached_property
    def substeps(self) -> int:
        """Physics steps per tick."""
        return round(self.control_dt / self.physics_dt)

    @cached_property
    def observation_slices(self) -> dict[str, slice]:
        """Slice of each observation term in the vector; empty for a term that is not observed."""
        return _slices(self._widths.items())

    @cached_property
    def action_slices(self) -> dict[str, slice]:
        """Slice of each action term in the vector."""
        return _slices((term.name, term.size) for term in self.action)

    @cached_property
    def observation_names(self) -> tuple[str, ...]:
        """A label for every element of the observation, `term.0` and so on."""
        return tuple(f"{name}.{i}" for name, width in self._widths.items() for i in range(width))

    @cached_property
    def action_names(self) -> tuple[str, ...]:
        """A label for every element of the action."""
        return tuple(f"{t.name}.{i}" for t in self.action for i in range(t.size))

    def with_terms(self, extra: Sequence[ObservationTerm]) -> Interface:
        """This robot with a task family's own terms appended to the measured ones.

        Raises:
            UserError: the robot has a term of the same name.
        """
        try:
            return replace(self, observation=(*self.observation, *extra))
        except ValidationError as error:
            raise invalid(f"robot {self.robot!r} with a task family's terms", error) from None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that must agree between training and robot."""
        text = json.dumps(asdict(self, dict_factory=drop_later), sort_keys=True)  # type: ignore[call-overload]
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def measured_only(self) -> Interface:
        """This robot without computed terms; its observation is the first part of this one's."""
        return replace(self, computed=())

    # The two functions --------------------------------------------------------------------

    def observe(
        self,
        fields: Mapping[str, NDArray[Any]],
        out: NDArray[np.float32] | None = None,
        noise: Mapping[str, Floats] | None = None,
        memory: Memory | None = None,
    ) -> NDArray[np.float32]:
        """Convert measured values, and the memory of earlier ticks, to an observation.

        Args:
            fields: per term name an array (..., size), as sensors and messages have it; the
                leading axes are the same for all. Names that are no terms are ignored.
            out: written to if given, (..., O).
            noise: per term name (..., count), in its unit, added to the values of the term.
            memory: of the session, which is not changed; see `sim.interface.memory`. Needed by
                robots whose observation has computed terms other than constants.

        Returns:
            The observation (..., O), float32.

        Raises:
            ValueError: a term is missing or has another shape, where `out` is untouched; or the
                memory is missing.
        """
        if missing := [term.name for term in self.observation if term.name not in fields]:
            raise ValueError(f"observation term {missing[0]!r} is missing; got {sorted(fields)}")
        lead = np.shape(fields[self.observation[0].name] if out is None else out)[:-1]
        for term in self.observation:
            if (shape := np.shape(fields[term.name])) != (*lead, term.size):
                raise ValueError(
                    f"observation term {term.name!r} has shape {shape}, not {(*lead, term.size)}"
                )
        if out is None:
            out = np.empty((*lead, self.observation_size), np.float32)
        for term, where, scale, clip in self._shown:
            values = term.values(fields[term.name])
            if noise and term.name in noise:
                values = values + noise[term.name]
            if term.offset is not None:
                values = values - term.offsets
            scaled = values * scale
            if clip is not None:
                scaled = np.clip(scaled, *clip)
            out[..., where] = scaled
        if self.computed:
            self.computed_terms.write(out, memory)
        return out

    @cached_property
    def _shown(self) -> list[tuple[ObservationTerm, slice, Any, Any]]:
        """Observed terms with their slice, scale and clip; arrays where the elements differ."""
        shown: list[tuple[ObservationTerm, slice, Any, Any]] = []
        for term in self.observation:
            scale = term.scales if isinstance(term.scale, tuple) else term.scale
            many = term.clip is not None and isinstance(term.clip[0], tuple)
            clip = np.array(term.clip).T if many else term.clip
            if term.policy_input:
                shown.append((term, self.observation_slices[term.name], scale, clip))
        return shown

    def command(self, action: NDArray[Any], previous: Floats) -> Floats:
        """Convert an action to a command in physical units: scale, offset, limit, low-pass, rate.

        Args:
            action: the policy's output (..., A).
            previous: the command of the tick before, (..., A).

        Returns:
            The command (..., A), float64.

        Raises:
            ValueError: the action is not finite, nothing may be commanded from it; or it has
                another shape than the command before.
        """
        if np.shape(action) != np.shape(previous):
            raise ValueError(f"action has shape {np.shape(action)}, not {np.shape(previous)}")
        if not np.isfinite(action).all():
            raise ValueError(f"action is not finite: {short(np.asarray(action).tolist())}")
        target = np.clip(self._offset + self._scale * action.astype(np.float64), *self.limits)
        target = previous + self._share * (target - previous) if self._smooths else target
        return np.clip(target, previous - self.rate_step, previous + self.rate_step)

    def brake(self, previous: Floats) -> Floats:
        """One tick nearer to the safe command (..., A), as fast as the rate limit allows."""
        return np.clip(self.safe_command, previous - self.rate_step, previous + self.rate_step)

    def initial_command(self, fields: Mapping[str, NDArray[Any]]) -> Floats:
        """Returns the command (..., A) at which a session begins: the measured state of the robot.

        An element that a tracked observation term measures begins at its measured value, clipped
        to its limit. The others begin at the safe command; `assumed_start` lists those of them for
        which this is an assumption.

        Args:
            fields: per observation term (..., size). The elements of a missing term are NaN.
        """
        shape = next((np.shape(value)[:-1] for value in fields.values()), ())
        command = np.tile(self.safe_command, (*shape, 1))
        for i, (name, element) in self._starts.items():
            command[..., i] = measurement(self, i, (name, element), fields)
        return np.clip(command, *self.limits)

    def measured_command(self, fields: Mapping[str, NDArray[Any]]) -> Floats:
        """Returns the command (..., A) that the measured state corresponds to; NaN: not measured.

        Unlike `initial_command` it assumes nothing: an element that no tracked term measures is
        NaN, also where a session begins at the safe command.

        Args:
            fields: per observation term (..., size). The elements of a missing term are NaN.
        """
        return measured_command(self, fields)

    def start_beyond_limit(self, fields: Mapping[str, NDArray[Any]]) -> str:
        """Describes the first element measured beyond its limit and tolerance; else empty.

        An element that is not in the start pose is described too.
        """
        if beyond := beyond_limit(self, self._starts, self._tolerance, fields):
            return f"{beyond} first"
        if self.start_pose is None or not (text := self.start_pose.away(self.observation, fields)):
            return ""
        return f"{text}; bring the robot there first"

    @cached_property
    def assumed_start(self) -> tuple[str, ...]:
        """Elements whose initial value is given neither by a measurement nor by robot.yaml."""
        silent = [term.initial_command is None for term in self.action for _ in range(term.size)]
        found = zip(self.action_names, silent, self.measured, strict=True)
        return tuple(name for name, says_nothing, by in found if says_nothing and by is None)

    @cached_property
    def is_measured(self) -> NDArray[np.bool_]:
        """(A,) True for elements of the command that a tracked term measures."""
        return np.array([by is not None for by in self.measured])

    @cached_property
    def _starts(self) -> dict[int, tuple[str, int]]:
        """Term and element that measure each action element which begins at its measured value."""
        safe = [term.initial_command == "safe" for term in self.action for _ in range(term.size)]
        return {i: by for i, by in enumerate(self.measured) if by is not None and not safe[i]}

    @cached_property
    def _tolerance(self) -> Floats:
        """(A,) allowed difference between measurement and command; 0 if it is not measured."""
        return self._spread(lambda t: t.tracking.tolerance if t.tracking is not None else 0.0)

    def time_to_rest(self, command: Floats) -> float:
        """Time to brake from a command (A,) to the safe one, s; NaN elements take no time."""
        away = np.abs(command - self.safe_command) / self.rate_step
        return float(np.ceil(np.nanmax(away, initial=0.0) - 1e-9)) * self.control_dt

    @cached_property
    def braking_time(self) -> tuple[float, str]:
        """Longest time to stop under the rate limits, s, and the element that takes it."""
        low, high = self.limits
        ticks = np.maximum(self.safe_command - low, high - self.safe_command) / self.rate_step
        worst = int(np.argmax(ticks))
        return float(ticks[worst]) * self.control_dt, self.action_names[worst]

    def saturated(self, action: NDArray[Any]) -> NDArray[np.bool_]:
        """Mask (..., A) of action elements cut by a limit (not by the rate limit)."""
        target = self._offset + self._scale * action.astype(np.float64)
        return (target < self.limits[0]) | (target > self.limits[1])

    def action_for(self, command: Floats) -> Floats:
        """The action whose target is `command`: the inverse of scale and offset."""
        return (command - self._offset) / self._scale

    @cached_property
    def safe_command(self) -> Floats:
        """(A,) the command that stops the robot."""
        return np.concatenate([np.asarray(term.safe_command, np.float64) for term in self.action])

    @cached_property
    def limits(self) -> tuple[Floats, Floats]:
        """(A,) lowest and highest command."""
        low, high = zip(*(term.limits for term in self.action), strict=True)
        return np.concatenate(low), np.concatenate(high)

    @cached_property
    def measured(self) -> tuple[tuple[str, int] | None, ...]:
        """(A,) observation term and element that measure each command; None: not measured."""
        return tuple(
            None if term.tracking is None or element is None else (term.tracking.term, element)
            for term in self.action
            for element in term.measured
        )

    @cached_property
    def _scale(self) -> Floats:
        return self._spread(lambda t: t.scale)

    @cached_property
    def _offset(self) -> Floats:
        return self._spread(lambda t: t.offset)

    @cached_property
    def _share(self) -> Floats:
        """(A,) fraction of the distance to its target by which a command moves in a tick."""
        times = self._spread(lambda t: t.smoothing_time)
        with np.errstate(divide="ignore"):
            return np.where(times > 0, -np.expm1(-self.control_dt / times), 1.0)

    @cached_property
    def _smooths(self) -> bool:
        return bool(self._spread(lambda t: t.smoothing_time).any())

    @cached_property
    def rate_step(self) -> Floats:
        """(A,) largest change of a command from one tick to the next."""
        return self._spread(lambda t: t.rate_limit) * self.control_dt

    def _spread(self, value: Callable[[ActionTerm], float | tuple[float, ...]]) -> Floats:
        return np.concatenate([spread(value(term), term.size) for term in self.action])


_ADAPTER = TypeAdapter(Interface)


def interface_from_dict(data: object, where: str) -> Interface:
    """Validate plain data (from YAML or JSON) into an `Interface`.

    Raises:
        UserError: one line that names `where`, the key and what is wrong with it.
    """
    return validated(_ADAPTER, data, where)


def interface_to_dict(interface: Interface) -> dict[str, Any]:
    """The interface as plain data; `interface_from_dict` reads it back equal."""
    data: dict[str, Any] = RootModel[Interface](interface).model_dump(mode="json")
    return data


def _slices(terms: Iterable[tuple[str, int]]) -> dict[str, slice]:
    slices, start = {}, 0
    for name, size in terms:
        slices[name] = slice(start, start + size)
        start += size
    return slices
