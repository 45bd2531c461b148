"""A robot tried in simulation: held at its safe command, and every command driven to its limits.

The numbers are what a person needs to fill in and to judge robot.yaml: lag, gain, time to stop,
and whether the limits of what it may show would trip while nothing is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.interface import ActionTerm, Floats, Interface, spread
from sim.physics import Physics

STOPPED = 0.05  # part of the way that may be left when the robot counts as stopped or settled
FOLLOWS = 0.5  # gain below which a measurement does not follow its command
ONE = np.zeros(1, np.int32)


@dataclass(frozen=True)
class Shown:
    """What a robot showed while it did something, without its task's terms."""

    low: dict[str, Floats]  # per term (count,)
    high: dict[str, Floats]
    finite: bool

    def beyond(self, interface: Interface) -> dict[str, float]:
        """Per term whose `limit` was passed, the value that is furthest outside."""
        found = {}
        for term in interface.observation:
            if term.limits is None or term.name not in self.low:
                continue
            shown = np.concatenate([self.low[term.name], self.high[term.name]])
            outside = np.concatenate([term.limits[0], -term.limits[1]])
            outside -= np.concatenate([self.low[term.name], -self.high[term.name]])
            if outside.max() > 0:
                found[term.name] = float(shown[outside.argmax()])
        return found


@dataclass(frozen=True)
class Followed:
    """How a measurement followed its command to a limit and back to the safe value."""

    gain: float  # change of the measurement per change of the command, at the end
    lag: (
        float | None
    )  # s, mean delay, to a physics step; None: it had not settled, or did not follow
    settled: bool
    overshoot: float  # part of the way
    error: float  # largest difference to the command at the end of a tick
    longest: float  # s that it was beyond tracking.tolerance without a break
    stop: float | None  # s from the first braking tick to rest; None: longer than was waited


@dataclass(frozen=True)
class Drive:
    """One element of an action term, driven from its safe value to a limit and back."""

    term: str
    element: int
    target: float
    ramp: float  # s that the command itself takes back, under the rate limit
    shown: Shown
    followed: Followed | None  # None: no tracking


@dataclass(frozen=True)
class Trial:
    """All that was tried."""

    held: Shown
    drives: tuple[Drive, ...]


def try_robot(interface: Interface, model: mujoco.MjModel, seconds: float) -> Trial:
    """Hold the safe command, then drive every element to both limits and brake.

    Args:
        interface: the robot's own, without a task family's terms.
        model: compiled from the same folder.
        seconds: that each command is held.
    """
    physics = Physics(interface, model, 1, 1)
    physics.reset(ONE)
    held = _Record(physics)
    for _ in range(_steps(seconds, interface.physics_dt)):
        held.step(interface.safe)
    start = physics.snapshot()
    drives = []
    # Where holding still is already too much, driving says nothing.
    elements = range(interface.action_size) if held.shown().finite else ()
    for element in elements:
        for target in (float(limit[element]) for limit in interface.limits):
            if abs(target - interface.safe[element]) > 1e-9:
                physics.restore(start)
                drives.append(_drive(physics, element, target, seconds))
    return Trial(held.shown(), tuple(drives))


def _steps(seconds: float, dt: float) -> int:
    return max(1, round(seconds / dt))


class _Record:
    """Physics steps, with everything that the robot showed."""

    def __init__(self, physics: Physics) -> None:
        self.physics = physics
        self.terms = {t.name: t for t in physics.interface.observation}
        self.fields: dict[str, list[Floats]] = {name: [] for name in physics.fields()}
        self.commands: list[Floats] = []
        self.finite = True

    def step(self, command: Floats) -> None:
        self.physics.substep(command[None])
        self.finite &= not self.physics.diverged()[0]
        self.commands.append(command)
        for name, values in self.physics.fields().items():
            self.fields[name].append(self.terms[name].values(values[0]))

    def shown(self) -> Shown:
        arrays = {name: np.array(values) for name, values in self.fields.items()}
        low = {name: values.min(axis=0) for name, values in arrays.items()}
        return Shown(low, {n: v.max(axis=0) for n, v in arrays.items()}, self.finite)


def _drive(physics: Physics, element: int, target: float, seconds: float) -> Drive:
    interface = physics.interface
    term, index = _term(interface, element)
    aim = interface.safe.copy()
    aim[element] = target
    action, command, record = interface.action_for(aim), interface.safe, _Record(physics)
    name, at = interface.measured[element] or (None, 0)
    rest = None if name is None else float(physics.fields()[name][0, at])
    ramp = float(abs(target - interface.safe[element]) / term.rate_limits[index])
    ticks = _steps(ramp + 3 * float(term.blends[index]) + seconds, interface.control_dt)
    for tick in range(2 * ticks):
        driving = tick < ticks
        command = interface.command(action, command) if driving else interface.brake(command)
        for _ in range(interface.substeps):
            record.step(command)
    followed = None
    if name is not None and rest is not None and record.finite:
        measured = np.array(record.fields[name])[:, at]
        if record.terms[name].wrapped[at]:
            measured = np.unwrap([rest, *measured])[1:]
        commands = np.array(record.commands)[:, element]
        followed = _followed(interface, element, rest, measured, commands)
    return Drive(term.name, index, target, ramp, record.shown(), followed)


def _followed(
    interface: Interface, element: int, rest: float, measured: Floats, commands: Floats
) -> Followed:
    dt, half, safe = interface.physics_dt, len(commands) // 2, interface.safe[element]
    way = commands[half - 1] - safe  # not quite the limit if the command blends
    up, wanted = measured[:half] - rest, commands[:half] - safe
    gain = float(up[-1] / way)
    tail = up[-max(1, half // 10) :]
    settled = bool(np.ptp(tail) <= STOPPED * abs(way))
    # Area between command and answer per unit of way: for a linear system its mean delay.
    lag = None
    if settled and gain >= FOLLOWS:
        lag = max(0.0, float((wanted - up / gain).sum() * dt / way))
    term, index = _term(interface, element)
    ends = slice(interface.substeps - 1, None, interface.substeps)
    error = np.abs(measured - commands)[ends]
    tolerance = spread(term.tracking.tolerance, term.size)[index] if term.tracking else np.inf
    # At rest is where the robot came back to: a position servo sags, a base does not.
    left = np.abs(measured[half:] - measured[-1]) > STOPPED * abs(way)
    moving = int(np.flatnonzero(left)[-1] + 1) if left.any() else 0
    return Followed(
        gain=gain,
        lag=lag,
        settled=settled,
        overshoot=float(max(0.0, (up / (gain * way)).max() - 1)) if gain >= FOLLOWS else 0.0,
        error=float(error.max()),
        longest=_longest(error > tolerance) * interface.control_dt,
        stop=None if moving >= (len(commands) - half) * 0.95 else moving * dt,
    )


def _term(interface: Interface, element: int) -> tuple[ActionTerm, int]:
    for term in interface.action:
        part = interface.action_slices[term.name]
        if part.start <= element < part.stop:
            return term, element - part.start
    raise IndexError(element)


def _longest(flags: NDArray[np.bool_]) -> int:
    """Longest run of True."""
    longest = run = 0
    for flag in flags.tolist():
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest
