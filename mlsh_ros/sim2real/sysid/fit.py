"""Solves an identification problem: search, fix unidentifiable parameters, search again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mlsh_ros.sim2real.sysid.identifiability import drop, errors
from mlsh_ros.sim2real.sysid.least_squares import Problem
from mlsh_ros.sim2real.sysid.optimizer import (
    cross_ridge,
    descend,
    move_along_valley,
    optimize,
    scan,
    scan_friction,
    scan_valleys,
)
from mlsh_ros.sim2real.sysid.parameters import DELAYS
from sim.interface import Floats
from sim.randomization.quantities import LONGEST

ROUNDS = 10  # of moves, until something is let go


def solve(problem: Problem) -> Floats:
    """Identify; returns (k,) standard errors of the remaining unknowns."""
    fix_gauge(problem)
    problem.forget_starts()
    scan(problem)
    problem.forget_starts()
    drop(problem, strict=True)
    for _ in range(2):
        optimize(problem)
        if scan(problem) | scan_friction(problem):
            optimize(problem)
        problem.reweigh()
        problem.forget_starts()
    while True:
        optimize(problem)
        if scan(problem):
            optimize(problem)
        for _ in range(ROUNDS):
            descend(problem)
            if not (move_along_valley(problem) | scan_valleys(problem)) and not cross_ridge(
                problem
            ):
                break
        if not drop(problem, strict=False):
            break
    found = errors(problem)
    move_gauge(problem)
    return found


def fix_gauge(problem: Problem) -> None:
    """Fix the delay of one sensor: delays of commands and of sensors have the same effect.

    If all of both are unknown, one sensor's delay counts as 0; the others may be negative.
    """
    shown = {term.name for term in problem.follower.terms}
    late = [e for e in problem.unknowns if e.quantity == "sensor_delay"]
    names = {e.name.partition(".")[0]: e for e in late}
    motors = [e for e in problem.unknowns if e.quantity == "command_delay"]
    if not motors or len(motors) != problem.follower.interface.action_size:
        return
    if shown - set(names):
        return
    problem.gauge = next(n for n in names if n in shown)
    own = names[problem.gauge].high
    for index, each in enumerate(problem.unknowns):
        if each.name == f"{problem.gauge}.delay_s":
            gone = index
        elif each.quantity == "sensor_delay":
            problem.unknowns[index] = replace(each, low=-own)
        elif each.quantity == "command_delay":  # which has that sensor's in it
            problem.unknowns[index] = replace(each, high=min(each.high + own, LONGEST))
    problem.put(problem.values, problem.unknowns.pop(gone), 0.0)
    problem.leave_out(own)


def move_gauge(problem: Problem) -> None:
    """Shift the delays so that the fastest sensor has none; those of commands grow accordingly."""
    if not problem.gauge:
        return
    shown = {term.name for term in problem.follower.terms}
    index = [i for i, t in enumerate(problem.follower.robot_terms) if t.name in shown]
    sensors = problem.follower.differences.of(problem.values[None], DELAYS[1])[0]
    commands = problem.follower.differences.of(problem.values[None], DELAYS[0])[0]
    least = float(sensors[index].min())
    sensors[index] -= least
    commands += least
    np.clip(commands, 0.0, None, out=commands)
    problem.leave_out(0.0)
    problem.forget_starts()
