"""Optimizer: descent, moves along valleys, and jumps across ridges."""

from __future__ import annotations

import io

import mujoco.sysid as mj
import numpy as np

from mlsh_ros.sim2real.sysid.least_squares import Problem
from mlsh_ros.sim2real.sysid.parameters import DELAYS
from sim.interface import Floats

SCAN = 25  # delays, or frictions, tried over all that is possible
NEARBY = 2  # physics steps that a single actuator is tried later, a single sensor earlier
NEAR = 0.05  # physics steps that a delay is tried beside where it is
WEAKEST = 3  # least determined directions, along which a search is made
WEAK = 1e-3  # of the strongest way of slopes: along weaker ones nothing is made up for
FLAT = 0.5  # of the ranges' widths: how far along them
GAINS = 1e-3  # of the cost: a move that gains less is none
SLIPS = 0.1  # of the cost, or of what noise costs, that another friction has to explain
ITERATIONS = 25
ENOUGH = 1e-6  # of the cost, or of what noise costs: an iteration that gains less is the last one


def optimize(problem: Problem) -> None:
    """Levenberg-Marquardt method within bounds, as in mujoco.sysid."""
    if not problem.unknowns:
        return
    params = mj.ParameterDict()
    for each, unit in zip(problem.unknowns, problem.unit(), strict=True):
        params.add(mj.Parameter(each.name, float(np.clip(unit, 0.0, 1.0)), 0.0, 1.0))

    def residual(x: Floats, _: object) -> tuple[list[Floats], None, None]:
        columns = x if x.ndim == 2 else x[:, None]
        left = problem.residuals(problem.columns(columns))
        return [left if x.ndim == 2 else left[:, 0]], None, None

    costs = [np.inf]

    def slopes(x: Floats, left: Floats) -> Floats:
        costs.append(float((left**2).sum()))
        if costs[-2] - costs[-1] < ENOUGH * max(costs[-1], len(left)):
            return np.zeros((len(left), len(x)))  # without a gradient it ends here
        return problem.slopes(x[:, 0])

    found, _ = mj.optimize(
        params,
        residual,
        optimizer="mujoco",
        verbose=False,
        jacobian=slopes,
        x_scale="jac",
        max_iters=ITERATIONS,
        xtol=1e-5,
        gtol=1e-6,
        mu_factor=4.0,  # its own takes a hundred tries to find that it is at the end
        output=io.StringIO(),
    )
    problem.values = problem.columns(found.as_vector()[:, None])[0]


def descend(problem: Problem) -> None:
    """Descend with fixed delays: a joint descent ends early at the kinks of the delays."""
    everything = problem.unknowns
    problem.unknowns = [e for e, late in zip(everything, problem.late(), strict=True) if not late]
    optimize(problem)
    problem.unknowns = everything


def move_along_valley(problem: Problem) -> bool:
    """Move delays to the lowest cost while all other unknowns adapt; True if any moved.

    At a whole step a delay has a kink, at which the other unknowns hold it: neither side improves
    alone. All delays are moved to whole steps, then those of commands against those of sensors,
    then single ones.
    """
    late = problem.late()
    if not late.any() or late.all():
        return False
    dt = problem.follower.interface.physics_dt
    low, width = np.array([each.low for each in problem.unknowns]), problem.spans()
    unit = problem.unit()
    basis, triangle = np.linalg.qr(problem.slopes(unit)[:, ~late])
    moved = False
    motors = np.isin(np.arange(len(late)), problem.indices(DELAYS[0]))
    against = np.where(motors, 1.0, -1.0)
    ways = [(late, against)] if motors.any() and problem.gauge else []
    ways += [(one, np.ones(len(late))) for one in (late, *np.eye(len(late), dtype=bool)[late])]
    for mine, way in ways:
        now = low + unit * width
        whole = [np.round(now / dt), *(np.floor(now / dt) + n * way for n in (-1, 0, 1, 2))]
        whole += [np.round(now / dt) + n * way for n in (-2, -1, 1, 2)]
        near = [now - NEAR * dt * way, now + NEAR * dt * way]
        tried = [now, *(np.where(mine, x, now) for x in (*(w * dt for w in whole), *near))]
        units = np.clip((np.array(tried) - low) / width, 0, 1).T
        left = problem.residuals(problem.columns(units))
        along = basis.T @ left
        cost = (left**2).sum(axis=0) - (along**2).sum(axis=0)
        best = int(cost.argmin())
        if cost[0] - cost[best] <= GAINS * cost[0]:
            continue
        there = units[:, best]
        there[~late] -= np.linalg.lstsq(triangle, along[:, best], rcond=WEAK)[0]
        there = np.clip(there, 0, 1)
        # The others give way as far as slopes say: look whether that is so.
        if problem.cheapest(problem.columns(np.stack([unit, there], axis=1)), GAINS):
            unit, moved = there, True
    return moved


def cross_ridge(problem: Problem) -> bool:
    """Cross the ridge between two whole steps, and stay if the cost is lower; True if it is.

    Delays of commands grow by a physics step and those of sensors shrink as much, or vice versa:
    only the reference sensor distinguishes these, and the other unknowns compensate for most of
    it.
    """
    motors, sensors = (problem.indices(quantity) for quantity in DELAYS)
    if not problem.gauge:
        return False
    before, now = problem.values.copy(), float(problem.cost(problem.values[None])[0])
    step = problem.follower.interface.physics_dt / problem.spans()
    for way in (1.0, -1.0):
        unit = problem.unit()
        unit[motors] += way * step[motors]
        unit[sensors] -= way * step[sensors]
        problem.values = problem.columns(np.clip(unit, 0, 1)[:, None])[0]
        descend(problem)
        move_along_valley(problem)
        if now - float(problem.cost(problem.values[None])[0]) > GAINS * now:
            return True
        problem.values = before.copy()
    return False


def scan(problem: Problem) -> bool:
    """Search delays for other minima; True if any moved.

    First those of all actuators together, then each sensor's, then that of the reference sensor:
    the delays of commands grow by as much as those of the other sensors shrink. Then, nearby,
    single actuators against single sensors.

    Between whole physics steps is a ridge that no descent crosses.
    """
    each = np.eye(len(problem.unknowns))
    motors, sensors = each[problem.indices(DELAYS[0])], each[problem.indices(DELAYS[1])]
    far = [motors.sum(axis=0), *sensors]
    if problem.gauge:
        far.append(motors.sum(axis=0) - sensors.sum(axis=0))
    single = motors if len(motors) > 1 else motors[:0]
    before = problem.values.copy()
    for way in far:
        _try_delays(problem, way, nearby=False)
    for motor in single:
        for sensor in sensors:
            _try_delays(problem, motor - sensor, nearby=True)
    return not np.allclose(problem.values, before)


def _try_delays(problem: Problem, way: Floats, *, nearby: bool) -> None:
    """Move delays along a direction (k,) to the lowest cost."""
    if not way.any():
        return
    dt = problem.follower.interface.physics_dt
    width = problem.spans()
    step, count = dt, NEARBY
    if not nearby:
        longest = float(width[way != 0].max())
        # Whole steps away lies the other side of the ridge, in between the ridge.
        step = dt * max(1, round(longest / (SCAN // 2) / dt))
        count = int(longest / step)
    shift = np.r_[0, np.arange(-count, count + 1)] * step
    unit = np.clip(problem.unit()[:, None] + (way / width)[:, None] * shift, 0, 1)
    problem.cheapest(problem.columns(unit))


def scan_friction(problem: Problem) -> bool:
    """Move friction to a much lower cost, if there is one; True if it moved.

    Without slip no derivative leads away from it, and it may have been dropped for that. The other
    unknowns start again then, because they compensated for slipping wheels.
    """
    each = next((e for e in problem.wanted if e.quantity == "friction_factor"), None)
    if each is None:
        return False
    columns = np.tile(problem.values, (SCAN + 1, 1))
    part = problem.follower.differences.of(columns, each.quantity)
    part[1:, each.element] = np.geomspace(each.low, each.high, SCAN)
    cost = problem.cost(columns)
    if cost[0] - cost.min() < SLIPS * max(cost[0], int(problem.fitted.sum())):
        return False
    for other in problem.unknowns:
        problem.put(problem.values, other, other.known)
    problem.put(problem.values, each, float(part[int(cost.argmin()), each.element]))
    if each not in problem.unknowns:
        problem.unknowns.append(each)
        del problem.not_identifiable[each.name]
    scan(problem)
    return True


def scan_valleys(problem: Problem) -> bool:
    """Move along the least determined directions; True if the cost decreased.

    Where servos saturate the valley has bumps that no descent crosses.
    """
    if not problem.unknowns:
        return False
    _, _, ways = np.linalg.svd(np.linalg.qr(problem.jacobian()[0], mode="r"))
    far = FLAT * 2.0 ** -np.arange(6)
    shift, unit = np.r_[-far, far], problem.unit()[:, None]
    units = [unit + (way * problem.shares())[:, None] * shift for way in ways[-WEAKEST:]]
    columns = problem.columns(np.clip(np.concatenate([unit, *units], axis=1), 0, 1))
    return problem.cheapest(columns, GAINS)
