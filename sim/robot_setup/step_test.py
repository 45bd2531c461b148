"""Step-response tests in simulation: rest at the safe command, then every command to its limits.

A person needs the results to fill in and to assess robot.yaml: lag, gain, time to stop, and the
limits that would stop a robot that is in order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.interface import ActionTerm, Floats, Interface, spread
from sim.physics.batched_physics import BatchedPhysics

STOPPED = 0.05  # part of the way that may be left when the robot counts as stopped or settled
FOLLOWS = 0.5  # gain below which a measurement does not follow its command
ONE = np.zeros(1, np.int32)
LONGEST = 100.0  # s that a command may take to a limit for it to be tested
MOST_STEPS = 200_000  # of physics, on the way there
AT_ONCE = 64  # drives that are simulated at a time
EVERY = slice(None)


@dataclass(frozen=True)
class ObservedRange:
    """Range of the robot's measurements during a test, without its task's terms."""

    low: dict[str, Floats]  # per term (count,)
    high: dict[str, Floats]
    finite: bool

    def beyond(self, interface: Interface) -> dict[str, float]:
        """Returns for each term that exceeded its `limit` the value that is furthest outside."""
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
class StepResponse:
    """Response of a measurement to a command that steps to a limit and back to the safe value."""

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
class StepTest:
    """One element of an action term, driven from its safe value to a limit and back."""

    term: str
    element: int
    target: float
    ramp: float  # s that the command itself takes back, under the rate limit
    shown: ObservedRange
    followed: StepResponse | None  # None: no tracking


@dataclass(frozen=True)
class SkippedTest:
    """A command that reaches a limit so slowly that it is not tested."""

    term: str
    element: int
    target: float
    seconds: float  # that it takes
    most: float  # s that are tested


@dataclass(frozen=True)
class StepTestReport:
    """Results of all step tests."""

    held: ObservedRange
    drives: tuple[StepTest, ...]
    skipped: tuple[SkippedTest, ...] = ()


def run_step_tests(interface: Interface, model: mujoco.MjModel, seconds: float) -> StepTestReport:
    """Hold the safe command, then drive every element to both limits and brake.

    Args:
        interface: the robot's own, without a task family's terms.
        model: compiled from the same folder.
        seconds: that each command is held.

    Returns:
        The results; commands that take longer than `LONGEST` to a limit are not tested.
    """
    physics = BatchedPhysics(interface, model, 1, 1)
    physics.reset(ONE)
    held = _Record(physics)
    for _ in range(_steps(seconds, interface.physics_dt)):
        held.step(interface.safe_command[None])
    # A robot that diverges at its safe command cannot be tested in motion.
    elements = range(interface.action_size) if held.finite.all() else ()
    aims = [
        (element, target)
        for element in elements
        for target in (float(limit[element]) for limit in interface.limits)
        if abs(target - interface.safe_command[element]) > 1e-9
    ]
    skipped = [each for aim in aims if (each := _too_slow(interface, aim)) is not None]
    aims = [aim for aim in aims if _too_slow(interface, aim) is None]
    start = physics.snapshot()
    drives = [
        drive
        for first in range(0, len(aims), AT_ONCE)
        for drive in _drive(interface, model, start, aims[first : first + AT_ONCE], seconds)
    ]
    return StepTestReport(held.shown(0), tuple(drives), tuple(skipped))


def _times(interface: Interface, aim: tuple[int, float]) -> tuple[float, float]:
    """Returns the s that a command takes to a limit under the rate limit, and by smoothing."""
    element, target = aim
    term, index = _term(interface, element)
    ramp = float(abs(target - interface.safe_command[element]) / term.rate_limits[index])
    return ramp, 3 * float(term.smoothing_times[index])


def _too_slow(interface: Interface, aim: tuple[int, float]) -> SkippedTest | None:
    element, target = aim
    seconds = sum(_times(interface, aim))
    most = min(LONGEST, MOST_STEPS * interface.physics_dt)
    if seconds <= most:
        return None
    term, index = _term(interface, element)
    return SkippedTest(term.name, index, target, seconds, most)


def _steps(seconds: float, dt: float) -> int:
    return max(1, round(seconds / dt))


class _Record:
    """Physics steps of n simulations, with the range of all measurements."""

    def __init__(self, physics: BatchedPhysics) -> None:
        self.physics = physics
        self.terms = {t.name: t for t in physics.interface.observation}
        self.low = {name: np.full(v.shape, np.inf) for name, v in self._values().items()}
        self.high = {name: -values for name, values in self.low.items()}
        self.finite = np.ones(physics.size, np.bool_)

    def _values(self) -> dict[str, Floats]:
        return {name: self.terms[name].values(v) for name, v in self.physics.fields().items()}

    def step(
        self, command: Floats, judged: slice | NDArray[np.bool_] = EVERY
    ) -> dict[str, Floats]:
        """Hold a command (n, A); returns the measurements, of which rows `judged` are recorded."""
        self.physics.substep(command)
        self.finite[judged] &= ~self.physics.diverged()[judged]
        values = self._values()
        for name, shown in values.items():
            low, high = self.low[name], self.high[name]
            low[judged] = np.minimum(low[judged], shown[judged])
            high[judged] = np.maximum(high[judged], shown[judged])
        return values

    def shown(self, row: int) -> ObservedRange:
        low = {name: values[row] for name, values in self.low.items()}
        high = {name: values[row] for name, values in self.high.items()}
        return ObservedRange(low, high, bool(self.finite[row]))


def _drive(
    interface: Interface,
    model: mujoco.MjModel,
    start: Mapping[str, NDArray[np.generic]],
    aims: Sequence[tuple[int, float]],
    seconds: float,
) -> Iterator[StepTest]:
    """Run step tests of several (element, target) at once, each in its own simulation."""
    count = len(aims)
    physics = BatchedPhysics(interface, model, count, min(count, os.cpu_count() or 1))
    physics.reset(np.arange(count, dtype=np.int32))
    physics.restore({name: np.repeat(values, count, axis=0) for name, values in start.items()})
    command = np.tile(interface.safe_command, (count, 1))
    target, ramps, ticks = command.copy(), [], []
    for row, (element, aim) in enumerate(aims):
        target[row, element] = aim
        ramp, smoothing = _times(interface, (element, aim))
        ramps.append(ramp)
        ticks.append(_steps(ramp + smoothing + seconds, interface.control_dt))
    action, record, half = interface.action_for(target), _Record(physics), np.array(ticks)
    watched = [interface.measured[element] for element, _ in aims]
    rest = [None if each is None else physics.fields()[each[0]][:, each[1]] for each in watched]
    measured = np.full((2 * max(ticks) * interface.substeps, count), np.nan)
    commands = measured.copy()
    for tick in range(2 * max(ticks)):
        driving = (tick < half)[:, None]
        command = np.where(driving, interface.command(action, command), interface.brake(command))
        for step in range(tick * interface.substeps, (tick + 1) * interface.substeps):
            values = record.step(command, tick < 2 * half)
            for row, each in enumerate(watched):
                commands[step, row] = command[row, aims[row][0]]
                if each is not None:
                    measured[step, row] = values[each[0]][row, each[1]]
    for row, (element, aim) in enumerate(aims):
        term, index = _term(interface, element)
        of, begun, followed = watched[row], rest[row], None
        steps = 2 * ticks[row] * interface.substeps
        if of is not None and begun is not None and record.finite[row]:
            path = measured[:steps, row]
            if record.terms[of[0]].wrapped[of[1]]:
                path = np.unwrap([begun[row], *path])[1:]
            told = commands[:steps, row]
            followed = _followed(interface, element, float(begun[row]), path, told)
        yield StepTest(term.name, index, aim, ramps[row], record.shown(row), followed)


def _followed(
    interface: Interface, element: int, rest: float, measured: Floats, commands: Floats
) -> StepResponse:
    dt, half, safe = interface.physics_dt, len(commands) // 2, interface.safe_command[element]
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
    return StepResponse(
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
