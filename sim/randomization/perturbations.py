"""`PerturbedSim`: a batch of simulations whose parameters deviate from the nominal model.

Delays of commands and of sensors are simulated here, with ring buffers of past values; pushes too.
`sensor_model.py` applies scale, bias, noise and dropout, `model_fields.py` writes into the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError, unknown
from sim.interface import Floats, Interface, ObservationTerm
from sim.physics.batched_physics import BatchedPhysics
from sim.randomization.model_fields import ModelFieldWriter, body_names
from sim.randomization.parameters import ParameterVector
from sim.randomization.quantities import VECTOR, Per
from sim.randomization.schema import (
    SimParams,
    check_sim_params,
    first_of_shared,
    is_of_imu,
    message_values,
    robot_terms,
)
from sim.randomization.sensor_model import SensorModel, mount_of
from sim.seeding import Stream, generator

BLOCK = 32  # ticks for which noise is drawn at once
KEYS = 2**53  # whole numbers that a float holds
VALUES, NOISE, PUSH = 0, 1, 2  # places in Stream.SIM_PARAMS
NOMINAL = SimParams()

Ids = NDArray[np.int32]
Whole = NDArray[np.intp]
# Quantities of a term; a bias is of an element.
SENSOR = tuple(row.name for row in VECTOR if row.per is Per.TERM)


class PerturbedSim:
    """Perturbations of the nominal model in B simulations.

    Everything is a function of a key that each episode draws from its own randomness, so that a
    simulation does not depend on the others. In this order:

        push -> delay of commands -> physics -> delay -> mount of the IMU -> scale, bias, noise
            -> dropout -> shown

    Args:
        physics: the simulations.
        interface: of the robot, with or without the terms of a family.
        sim_params: what all of them have in common.
        ranges: what each episode draws around it.

    Attributes:
        state: (B, m) all that the next tick depends on beside the physics, a row per simulation.
        spread: part of the way from nominal to what the ranges give, of the episodes to come.

    Raises:
        UserError: the robot or its model has nothing that could differ so; names it.
    """

    def __init__(
        self,
        physics: BatchedPhysics,
        interface: Interface,
        sim_params: SimParams,
        ranges: SimParams,
    ) -> None:
        self._physics, self._interface = physics, interface
        bodies = body_names(physics.model)
        check_model(sim_params, interface, bodies, "sim_params")
        check_model(ranges, interface, bodies, "domain_randomization")
        self._differences = both = ParameterVector(interface, bodies, sim_params, ranges)
        self._expanded = ModelFieldWriter(physics.batch, interface, both, both.differing)
        if both.differs("push_every") and not physics.movable:
            raise UserError(
                "pushes need a robot that can be moved: a body 'base_link' on a free joint, or a "
                "term 'position' from two slides"
            )
        self._drawn, self.spread = ranges != NOMINAL, 1.0
        self._noisy, self._drops = both.differs("noise"), both.differs("dropout")
        self._terms = robot_terms(interface)
        self._columns = _columns(self._terms)
        changed = np.stack([both.changed(name) for name in SENSOR])  # (quantities, terms)
        biased = np.array([both.changed("bias")[columns].any() for columns in self._columns])
        turned = np.array([is_of_imu(term) for term in self._terms]) & both.differs("imu_mount")
        self._turned = turned  # (terms,) bool
        self._touched = np.flatnonzero(changed.any(axis=0) | biased | turned).tolist()
        self._late = np.flatnonzero(both.changed("sensor_delay")).tolist()  # shown late
        self._late_columns = _columns([self._terms[i] for i in self._late])
        self._late_commands = both.differs("command_delay")
        self._pushes = both.differs("push_every")
        self._channels, self._source = _channels(self._terms), first_of_shared(self._terms)
        self._make_state()
        self.restore(self.state.copy())

    def _make_state(self) -> None:
        size, both = self._physics.size, self._differences
        depth = {
            name: 1 + int(self._steps(both.most(name)).max(initial=0))
            for name in ("command_delay", "sensor_delay")
        }
        elements = sum(term.size for term in self._terms)
        late = sum(self._terms[i].size for i in self._late)
        shapes = {
            "key": (),
            "tick": (),  # of the episode
            "step": (),  # of physics, in the episode
            "values": (both.size,),
            "commands": (depth["command_delay"], self._interface.action_size),
            "seen": (depth["sensor_delay"], late),  # entries that are never read may be outdated
            "last": (elements if self._drops else 0,),  # shown at the last tick
        }
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes.values())]).tolist()
        self.state = np.zeros((size, ends[-1]))
        parts = {
            name: self.state[:, start:stop].reshape(size, *shape)
            for (name, shape), start, stop in zip(shapes.items(), ends, ends[1:], strict=False)
        }
        self._key, self._tick, self._step = (parts[name] for name in ("key", "tick", "step"))
        self._values, self._last = parts["values"], parts["last"]
        self._commands, self._seen = parts["commands"], parts["seen"]
        self._values[:] = both.draw(np.zeros((size, both.size)))
        self._commands[:] = self._interface.safe_command
        # What follows from the state.
        self._rows = np.arange(size)
        self._command_lag = np.zeros((size, self._interface.action_size), np.intp)
        self._lag = np.zeros((size, len(self._late)), np.intp)
        self._gauss = np.zeros((size, BLOCK, 1 + int(self._channels.max(initial=0))))
        self._chance = np.ones((size, BLOCK, len(self._terms)))

    @property
    def drawn(self) -> Floats:
        """(B, n) those of the parameters that differ from episode to episode."""
        return self._values[:, self._differences.varying]

    # Episodes -----------------------------------------------------------------------------

    def draw(self, ids: Ids, rngs: Sequence[np.random.Generator]) -> None:
        """Draw the parameters of the next episodes of simulations `ids`; call before the reset."""
        self._key[ids] = [int(rng.integers(KEYS)) for rng in rngs]
        if not self._drawn:
            return
        share = [
            generator(int(key), Stream.SIM_PARAMS, VALUES).random(self._differences.size)
            for key in self._key[ids]
        ]
        self._values[ids] = self._differences.draw(np.array(share), self.spread)
        self._become(ids)

    def begin(self, ids: Ids, fields: dict[str, Floats]) -> None:
        """Begin the episodes of simulations `ids`, with `fields` (of all simulations)."""
        self._tick[ids] = self._step[ids] = 0
        self._settle(ids, fields)
        self._draw_noise(ids)
        self._keep(ids, fields)

    def hold(self, ids: Ids, command: Floats) -> None:
        """Set the commands (n, A) that simulations `ids` had before their episodes begin."""
        self._commands[ids] = command[:, None]

    def _become(self, ids: Ids) -> None:
        """Apply the values of simulations `ids` to their models and delays."""
        self._expanded.write(ids, self._values[ids])
        self._command_lag[ids] = self._steps(self._of("command_delay")[ids])
        self._lag[ids] = self._steps(self._of("sensor_delay")[ids][:, self._late])

    def _settle(self, ids: Ids, fields: dict[str, Floats]) -> None:
        """Fill the delay buffer of simulations `ids` with their present fields."""
        self._seen[ids] = self._stack(fields, ids, self._late)[:, None]

    def _draw_noise(self, ids: Iterable[int]) -> None:
        """Draw the noise of simulations `ids` for the current block of ticks."""
        if not (self._noisy or self._drops):
            return
        for i in ids:
            block = int(self._tick[i]) // BLOCK
            rng = generator(int(self._key[i]), Stream.SIM_PARAMS, NOISE, block)
            self._gauss[i] = rng.standard_normal(self._gauss.shape[1:])
            self._chance[i] = rng.random(self._chance.shape[1:])
            if block == 0:
                self._chance[i, 0] = 1.0  # nothing was shown before

    # A tick -------------------------------------------------------------------------------

    def advance(self, command: Floats, steps: int) -> None:
        """Run physics steps with a command (B, A); the sensors are read after the last one."""
        self._push()
        if not (self._late or self._late_commands):
            for _ in range(steps if steps < self._interface.substeps else 0):
                self._physics.substep(command)
            if steps == self._interface.substeps:
                self._physics.step(command)
            self._step += steps
            return
        for left in reversed(range(steps)):
            # The simulations in which a delayed sensor will measure this state, some ticks later.
            due = np.flatnonzero(((self._lag - left) % steps == 0).any(axis=1) | (left == 0))
            ids = due.astype(np.int32)
            self._physics.substep(self._delayed(command), ids if left else None)
            self._step += 1
            if self._late and len(ids):
                slot = self._slot(self._seen)[ids]
                self._seen[ids, slot] = self._stack(self._physics.fields(), ids, self._late)

    def tick(self, fields: dict[str, Floats], moved: Ids) -> None:
        """End a tick with `fields`; the history of the teleported simulations `moved` restarts."""
        self._tick += 1
        if len(moved):
            self._settle(moved, fields)
        self._draw_noise(np.flatnonzero(self._tick % BLOCK == 0).tolist())
        self._keep(slice(None), fields)

    def _push(self) -> None:
        """At the beginning of a tick, push the simulations that are due."""
        if not self._pushes:
            return
        every = self._of("push_every")[:, 0]
        ticks = np.where(every > 0, every, np.inf) / self._interface.control_dt
        count, before = (np.floor((tick + 0.5) / ticks) for tick in (self._tick, self._tick - 1))
        begins = (self._step % self._interface.substeps == 0) & (self._tick > 0)
        ids = np.flatnonzero((count > before) & begins)
        if not len(ids):
            return
        angle = [
            generator(int(self._key[i]), Stream.SIM_PARAMS, PUSH, int(count[i])).uniform(
                -np.pi, np.pi
            )
            for i in ids
        ]
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        self._physics.push(ids, self._of("push_velocity")[ids] * direction)

    def _delayed(self, command: Floats) -> Floats:
        """Returns the commands (B, A) that act in the next physics step."""
        if not self._late_commands:
            return command
        depth = self._commands.shape[1]
        self._commands[self._rows, self._slot(self._commands)] = command
        slot = (self._step[:, None].astype(np.intp) - self._command_lag) % depth
        acting: Floats = self._commands[self._rows[:, None], slot, np.arange(command.shape[1])]
        return acting

    def _slot(self, ring: Floats) -> Whole:
        return np.asarray(self._step.astype(np.intp) % ring.shape[1])

    # What is shown ------------------------------------------------------------------------

    def measurements(self, fields: dict[str, Floats]) -> dict[str, Floats]:
        """Returns the sensor values per term (B, size); `fields` are the present true values."""
        shown = dict(fields)
        for i in self._touched:
            shown[self._terms[i].name] = self._show(i, fields[self._terms[i].name])
        return shown

    def _show(self, i: int, value: Floats) -> Floats:
        term, columns = self._terms[i], self._columns[i]
        if i in self._late:
            value = self._seen_then(self._late.index(i))
        now = self._tick.astype(np.intp) % BLOCK
        noise = dropped = None
        if self._noisy:
            gauss = self._gauss[self._rows, now][:, self._channels[columns]]
            noise = self._of("noise")[:, [i]] * gauss
        if self._drops:
            dropped = self._chance[self._rows, now, self._source[i]] < self._of("dropout")[:, i]
        sensor = SensorModel(
            scale=self._of("scale")[:, [i]],
            bias=self._of("bias")[:, columns],
            mount=mount_of(self._of("imu_mount")) if self._turned[i] else None,
            inf_values=term.inf_values,
        )
        last = self._last[:, columns]
        return sensor.measured(value, noise=noise, dropped=dropped, last=last)

    def _seen_then(self, late: int) -> Floats:
        """Returns the delayed values (B, size) of a term."""
        slot = (self._step.astype(np.intp) - self._lag[:, late]) % self._seen.shape[1]
        then: Floats = self._seen[self._rows, slot][:, self._late_columns[late]]
        return then

    def _keep(self, ids: Ids | slice, fields: dict[str, Floats]) -> None:
        """Store the present measurements, which a dropout repeats."""
        if self._drops:
            everything = list(range(len(self._terms)))
            self._last[ids] = self._stack(self.measurements(fields), ids, everything)

    # State --------------------------------------------------------------------------------

    def restore(self, state: Floats, ids: Ids | None = None) -> None:
        """Continue from rows of a `state`, of all simulations or of `ids`.

        Raises:
            ValueError: it is of another robot, other sim parameters or another number of
                simulations.
        """
        ids = np.arange(self._physics.size, dtype=np.int32) if ids is None else ids
        if state.shape != (len(ids), self.state.shape[1]):
            raise ValueError(
                f"the snapshot has sim parameters {state.shape}, "
                f"not {(len(ids), self.state.shape[1])}"
            )
        self.state[ids] = state
        self._become(ids)
        self._draw_noise(ids.tolist())

    def _of(self, name: str) -> Floats:
        values: Floats = self._differences.of(self._values, name)
        return values

    def _steps(self, seconds: Floats) -> Whole:
        """Convert delays in seconds to the nearest number of physics steps."""
        return np.floor(seconds / self._interface.physics_dt + 0.5).astype(np.intp)

    def _stack(self, fields: dict[str, Floats], ids: Ids | slice, terms: list[int]) -> Floats:
        """Returns the values (len(ids), elements) of some terms."""
        none = np.zeros((self._physics.size, 0))
        return np.concatenate(
            [none[ids], *(fields[self._terms[i].name][ids] for i in terms)], axis=1
        )


def check_model(
    sim_params: SimParams, interface: Interface, bodies: list[str], where: str
) -> None:
    """`check_sim_params`, and refuse bodies that the model does not have.

    Raises:
        UserError: names `where`, the thing and the valid choices.
    """
    check_sim_params(sim_params, interface, where)
    for name in sim_params.physics.body_mass_factors:
        if name not in bodies[1:]:
            raise UserError(f"{where}: body_mass_factors: {unknown('body', name, bodies[1:])}")


def _columns(terms: Sequence[ObservationTerm]) -> list[slice]:
    ends = np.cumsum([0, *(term.size for term in terms)]).tolist()
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _channels(terms: Sequence[ObservationTerm]) -> Whole:
    """Returns for each element a number that identifies its message field."""
    numbers: dict[tuple[str, str], int] = {}
    return np.array(
        [numbers.setdefault(p, len(numbers)) for t in terms for p in message_values(t)], np.intp
    )
