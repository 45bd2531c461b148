"""Determines which parameters a recording can identify."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mlsh_ros.sim2real.sysid.least_squares import Problem
from mlsh_ros.sim2real.sysid.parameters import FIRST_KEPT, Unknown
from sim.interface import Floats

BLIND = 100.0  # ranges: the standard error of what changes nothing
TELLS = 0.15  # standard error, of the range's width, up to which a number is identifiable
TINY = 1e-9
ALIKE = 0.4  # of the largest standard error: who else may stay as it is in its place
DEAR = 0.1  # of the cost: an unknown that explains more is no idle one
GIVES_WAY = 5  # steps of the others, when one stays as it was
TOGETHER = 0.9  # correlation of two errors from which on only their sum is identifiable


def errors(problem: Problem) -> Floats:
    """(k,) standard errors of the unknowns, in widths of their ranges."""
    if not problem.unknowns:
        return np.zeros(0)
    return _errors(problem, *problem.jacobian(), strict=False)[0]


def _errors(
    problem: Problem, jacobian: Floats, left: Floats, strict: bool
) -> tuple[Floats, Floats]:
    """(k,) standard errors, (k, k) their correlations; strict: of the declared noise alone."""
    count = len(problem.unknowns)
    # Not of the product: it has lost what the weakest of many unknowns show.
    _, size, way = np.linalg.svd(np.linalg.qr(jacobian, mode="r"))
    inverse = (way.T / (size**2 + BLIND**-2)) @ way
    # Strict: as if the declared noise were all there is.
    variance = 1.0 if strict else float(left @ left) / max(len(left) - count, 1)
    covariance = variance * inverse
    if not strict:
        # What is left of a window hangs together: how much would each change if one were missing?
        window = problem.follower.window[problem.fitted]
        changes = []
        for one in np.unique(window):
            mine = jacobian[window == one]
            score = np.linalg.solve(
                # What only this window tells changes without bound, but is no division by zero.
                (1 + TINY) * np.eye(count) - mine.T @ mine @ inverse,
                mine.T @ left[window == one],
            )
            changes.append(inverse @ score)
        clustered = (1 - 1 / len(changes)) * np.transpose(changes) @ np.array(changes)
        worse = np.maximum(np.diag(clustered), np.diag(covariance)) / np.diag(covariance)
        covariance = covariance * np.sqrt(np.outer(worse, worse))
    error = np.sqrt(np.diag(covariance))
    return error, covariance / np.outer(error, error)


def drop(problem: Problem, *, strict: bool) -> bool:
    """Fix the unknowns that the recording does not determine; True if there were any."""
    dropped = not strict and weigh_together(problem)
    while problem.unknowns:
        # Before the first fit, large residuals carry no information about an unknown.
        jacobian, left = problem.jacobian(far=not strict)
        error, correlation = _errors(problem, jacobian, left, strict)
        if error.max() <= TELLS:
            break
        wanted = [i for i, e in enumerate(error) if e > max(TELLS, ALIKE * error.max())]
        if not strict:
            wanted = [i for i in wanted if not _needed(problem, i, jacobian)]
        if not wanted:
            break
        out = min(wanted, key=lambda i: FIRST_KEPT.index(problem.unknowns[i].quantity))
        each = problem.unknowns.pop(out)
        # Those of them that can be identified without it.
        others = [
            problem.unknowns[i - (i > out)].name
            for i in range(len(error))
            if i != out and abs(correlation[out, i]) > TOGETHER
        ]
        problem.not_identifiable[each.name] = (
            f"only together with {', '.join(others)}"
            if others
            else "too little of it shows in the recording"
        )
        problem.put(problem.values, each, each.known)
        _take_over(problem, each)
        dropped = True
    return dropped


def _needed(problem: Problem, index: int, jacobian: Floats) -> bool:
    """True if the others explain much less without it, even after they have adapted."""
    unit, others = problem.unit(), np.arange(len(problem.unknowns)) != index
    each = problem.unknowns[index]
    slopes = jacobian[:, others] / problem.shares()[others]
    now = float(problem.cost(problem.values[None])[0])
    unit[index] = (each.known - each.low) / (each.high - each.low)
    for _ in range(GIVES_WAY):
        left = problem.residuals(problem.columns(unit[:, None]))[:, 0]
        if float(left @ left) - now < DEAR * now:
            return False
        way = np.linalg.lstsq(slopes, left, rcond=None)[0]
        unit[others] = np.clip(unit[others] - way, 0, 1)
    return True


def weigh_together(problem: Problem) -> bool:
    """Add the payload to the mass, if that fits as well; True if it did.

    For a base that only slides, only the sum can be identified. The slopes sometimes indicate
    otherwise: a servo that saturates a step earlier makes motions jump.
    """
    found = {each.quantity: each for each in problem.unknowns}
    load, mass = found.get("payload_kg"), found.get("mass_factor")
    if load is None or mass is None:
        return False
    shift = np.array([0.0, load.known - problem.value(load), load.width / 2])
    columns = np.tile(problem.values, (len(shift), 1))
    of = problem.follower.differences.of
    of(columns, load.quantity)[:, load.element] += shift
    of(columns, mass.quantity)[:, mass.element] -= shift / problem.mass_kg()
    cost = problem.cost(columns)
    if cost.max() - cost[0] > TELLS * cost[0]:
        return False
    problem.not_identifiable[load.name] = f"only together with {mass.name}"
    problem.unknowns.remove(load)
    problem.values = columns[1]
    _take_over(problem, load)
    return True


def _take_over(problem: Problem, gone: Unknown) -> None:
    """Extend the bound of the mass by the range of the payload."""
    if gone.quantity != "payload_kg":
        return
    more = gone.high / problem.mass_kg()
    problem.unknowns = [
        replace(e, high=e.high + more) if e.quantity == "mass_factor" else e
        for e in problem.unknowns
    ]
