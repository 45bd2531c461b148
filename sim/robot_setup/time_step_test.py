"""Compares a model's motion with that of a simulation whose time step is ten times finer.

An integrator that neglects a part of the dynamics simulates another robot; only a comparison with
a finer simulation shows it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from sim.interface import Floats, Interface
from sim.interface.validators import MAX_SUBSTEPS, SHORTEST_STEP
from sim.physics.batched_physics import BatchedPhysics
from sim.physics.mjcf_addresses import actuators

FINER = 10
DIFFERS = 0.02  # part of a value by which it may differ
WATCHED = 1.0  # s behind the ramp of a command


@dataclass(frozen=True)
class Answer:
    """Response of one element of the command to a step from its safe value to a limit."""

    label: str  # `speed.0 at 0.22`
    unit: str
    of: str  # what the actuator holds: position or velocity
    way: float  # in the unit, to where it is at the end
    half: float  # s to half of the way
    gain: float  # the most that it gains in a tick, per second


def coarse(interface: Interface, model: mujoco.MjModel) -> Iterator[str]:
    """Reports differences between a simulation at physics_dt and one with finer steps.

    Where a command leads to is always compared. Acceleration and the time to half of the way are
    compared where that time differs by more than a physics step, which is what steps cost.

    None where no finer ones can be simulated: then a step is a millisecond at most.
    """
    if interface.physics_dt / FINER < SHORTEST_STEP or interface.substeps * FINER > MAX_SUBSTEPS:
        return
    for known, finer in zip(
        _answers(interface, model, 1), _answers(interface, model, FINER), strict=True
    ):
        for what, unit, a, b, least in _pairs(known, finer, interface.physics_dt):
            if abs(a - b) > max(DIFFERS * max(abs(a), abs(b)), least):
                yield (
                    f"{known.label}: {what} is {a:.3g} {unit} at physics_dt "
                    f"{interface.physics_dt:g} s, and {b:.3g} {unit} with steps {FINER} times "
                    "finer: the simulation is not yet the model; a smaller timestep, or another "
                    "integrator"
                )
                break


def _pairs(a: Answer, b: Answer, step: float) -> Iterator[tuple[str, str, float, float, float]]:
    """Yields each comparison: description, unit, both values, smallest significant difference."""
    least = 1e-6 + 0.2 * DIFFERS * abs(b.way)
    yield f"its {a.of} {WATCHED:g} s later", a.unit, a.way, b.way, least
    # To be late by a physics step is what steps are.
    if abs(b.way) < 1e-3 or abs(a.half - b.half) <= step:
        return
    if a.of == "velocity":
        yield "its acceleration", f"{a.unit} per s", a.gain, b.gain, 0.0
    yield "the time to half of its way", "s", a.half, b.half, 0.0


def _answers(interface: Interface, model: mujoco.MjModel, divide: int) -> list[Answer]:
    """Returns one response per element, simulated together."""
    model = copy.copy(model)
    model.opt.timestep = interface.physics_dt / divide
    fine = replace(interface, physics_dt=interface.physics_dt / divide)
    safe, drives = interface.safe_command, _drives(interface)
    physics = BatchedPhysics(
        fine, model, len(drives), max(1, min(len(drives), os.cpu_count() or 1))
    )
    bound = {"position": "actuator_length", "velocity": "actuator_velocity"}
    shown = {of: physics.batch.bind(field) for of, field in bound.items()}
    physics.reset(np.arange(len(drives), dtype=np.int32))
    command = np.tile(safe, (len(drives), 1))
    target = command.copy()
    for row, (element, aim) in enumerate(drives):
        target[row, element] = aim
    ids = [index for term in interface.action for index in actuators(model, term)]
    columns = [ids[element] for element, _ in drives]
    # Biased by a position: a servo of one.
    holds = ["position" if model.actuator_biasprm[i][1] else "velocity" for i in columns]
    for _ in range(_ticks(interface, 0.0)):
        physics.step(command)
    rows = np.arange(len(drives))
    trace = [{of: values[rows, columns].copy() for of, values in shown.items()}]
    ticks = _ticks(interface, max(_ramps(interface, drives)))
    for _ in range(ticks):
        command = interface.command(interface.action_for(target), command)
        physics.step(command)
        trace.append({of: values[rows, columns].copy() for of, values in shown.items()})
    units = [term.unit for term in interface.action for _ in range(term.size)]
    answers = []
    for row, (element, aim) in enumerate(drives):
        name, of = interface.action_names[element], holds[row]
        values = np.array([each[of][row] for each in trace])
        answers.append(
            _answer(f"{name} at {aim:g}", units[element], of, values, interface.control_dt)
        )
    return answers


def _drives(interface: Interface) -> list[tuple[int, float]]:
    """Returns each element with its limit that is further from the safe value."""
    ends = np.stack(interface.limits)
    furthest = np.abs(ends - interface.safe_command).argmax(axis=0)
    return [(i, float(ends[side, i])) for i, side in enumerate(furthest)]


def _ramps(interface: Interface, drives: list[tuple[int, float]]) -> list[float]:
    rates = np.concatenate([term.rate_limits for term in interface.action])
    return [abs(aim - interface.safe_command[element]) / rates[element] for element, aim in drives]


def _ticks(interface: Interface, ramp: float) -> int:
    return max(2, round((min(ramp, WATCHED) + WATCHED) / interface.control_dt))


def _answer(label: str, unit: str, of: str, values: Floats, tick: float) -> Answer:
    gained = values - values[0]
    way = float(gained[-1])
    reached = gained * np.sign(way) >= abs(way) / 2
    after = int(np.argmax(reached)) if way else 0
    half = 0.0
    if after:
        low, high = gained[after - 1], gained[after]
        half = (after - 1 + float((way / 2 - low) / (high - low))) * tick
    return Answer(label, unit, of, way, half, float(np.abs(np.diff(values)).max()) / tick)
