"""Finds safety settings that are valid, but so wide that they never stop the robot."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sim.interface import ActionTerm, Interface, ObservationTerm, ranges, spread

TICKS = 10  # that a sensor or a command may be late, if that is longer than the times below
LONG_AGE = 1.0  # s
LONG_TIMEOUT = 3.0  # s
WIDE = 1e4  # of any unit: beyond what a robot measures or is told
LYING = np.pi / 2  # rad, tilt of a robot that lies on its side


def switched_off(interface: Interface) -> Iterator[str]:
    """Yields a line for every setting of safety that has no effect, with what is usual."""
    tick = interface.control_dt
    for term in interface.observation:
        yield from _age(interface, term)
        yield from _limit(term)
    for action in interface.action:
        yield from _tracking(action, tick)
        yield from _command(action, tick)
    for start in interface.start_pose.measured if interface.start_pose else ():
        (term,) = (each for each in interface.observation if each.name == start.term)
        most = np.pi if term.unit == "rad" else WIDE
        if (tolerance := float(np.max(start.tolerance))) >= most:
            yield (
                f"start_pose: tolerance {tolerance:g} {term.unit} of term {start.term}: a session "
                "may begin in any pose; usual is a part of the range in which it moves"
            )


def _age(interface: Interface, term: ObservationTerm) -> Iterator[str]:
    long = max(TICKS * interface.control_dt, LONG_AGE)
    if term.max_age <= long:
        return
    usual = f"usual are a few ticks, {3 * interface.control_dt:g} s"
    # The smallest age of a topic counts for all that is read from it.
    first = min(
        (each for each in interface.observation if each.ros.topic == term.ros.topic),
        key=lambda each: each.max_age,
    )
    if first.max_age < term.max_age:
        yield (
            f"term {term.name}: max_age {term.max_age:g} s has no effect, the {first.max_age:g} s "
            f"of {first.name} count for topic {term.ros.topic}; {usual}"
        )
    else:
        yield (
            f"term {term.name}: max_age {term.max_age:g} s: a sensor that falls silent stops the "
            f"robot only after {term.max_age:g} s; {usual}"
        )


def _limit(term: ObservationTerm) -> Iterator[str]:
    for low, high in ranges(term.limit) if term.limit is not None else ():
        if low <= -WIDE and high >= WIDE:
            yield (
                f"term {term.name}: limit [{low:g}, {high:g}] {term.unit} is never passed; usual "
                "is a little more than what the robot shows, and null says that nothing is checked"
            )
        elif term.derive == "tilt" and high > LYING:
            yield (
                f"term {term.name}: limit [{low:g}, {high:g}] rad is not passed by a robot that "
                f"lies on its side, at {LYING:.3g} rad; usual is 0.5 to 1.2"
            )
        else:
            continue
        return


def _tracking(action: ActionTerm, tick: float) -> Iterator[str]:
    if (tracking := action.tracking) is None:
        return
    if tracking.timeout > max(TICKS * tick, LONG_TIMEOUT):
        yield (
            f"action {action.name}: tracking.timeout {tracking.timeout:g} s: a command that is "
            f"not obeyed stops the robot only after {tracking.timeout:g} s; usual is 0.2 to 1 s"
        )
    low, high = action.limits
    # What moves at a speed is to be noticed when it stands.
    speed = action.unit.endswith("/s")
    safe = np.array(action.safe_command)
    reach = np.maximum(high - safe, safe - low) if speed else high - low
    tolerances = spread(tracking.tolerance, action.size)
    for i in _blind(action, tolerances >= reach):
        what = "its largest command" if speed else "the range of its commands"
        yield (
            f"action {action.name}.{i}: tracking.tolerance {tolerances[i]:g} {action.unit} is not "
            f"below {what}, {reach[i]:g}: a command that is not obeyed is not noticed; usual is a "
            "half of it at most, above the worst error of a robot that is in order"
        )


def _blind(action: ActionTerm, wrong: NDArray[np.bool_]) -> list[int]:
    """Returns the first element that is measured and wrong, if there is one."""
    found = [i for i in np.flatnonzero(wrong).tolist() if action.measured[i] is not None]
    return found[:1]


def _command(action: ActionTerm, tick: float) -> Iterator[str]:
    low, high = action.limits
    for i in np.flatnonzero((low <= -WIDE) | (high >= WIDE))[:1]:
        yield (
            f"action {action.name}.{i}: limit [{low[i]:g}, {high[i]:g}] {action.unit} is beyond "
            "what a robot is told; usual is what its driver or its joint permits"
        )
    steps = action.rate_limits * tick
    for i in np.flatnonzero(steps >= high - low)[:1]:
        yield (
            f"action {action.name}.{i}: rate_limit {action.rate_limits[i]:g} {action.unit} per s "
            f"limits nothing: it permits {steps[i]:g} per tick of {tick:g} s, the whole range is "
            f"{high[i] - low[i]:g}; usual is to take several ticks for it"
        )
