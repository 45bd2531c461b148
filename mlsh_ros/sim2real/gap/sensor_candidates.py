"""Changes of sensors that may explain a difference: sign, order, scale, bias, and time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from mlsh_ros.sim2real.gap.candidates import Candidate, SearchWindows
from mlsh_ros.sim2real.gap.moments import Moments, arranged, moments_of, turned
from mlsh_ros.sim2real.gap.robot_changes import rows
from mlsh_ros.sim2real.replay.residuals import Element, Sensor
from sim.interface import Floats

EARLIEST, LATEST = -0.06, 0.3  # s of lag that are tried; what is more, a user sees
IN_TICKS = 0.02  # a time base that differs by less is the same


def sensor_candidates(view: SearchWindows) -> Iterator[Candidate]:
    """Yields signs, scales, biases and orders of the elements of each term."""
    scans = {t.name for t in view.open_loop.interface.observation if t.mujoco.rays}
    for term in view.compared:
        mine, sensor = view.mine(term), view.model.sensor(term)
        moments = moments_of(view.compared[term], mine)
        count = len(mine)
        if any(e.quaternion for e in mine):
            continue
        one = np.eye(count)

        def made(
            kind: str,
            where: Sequence[Element],
            value: float,
            matrix: Floats,
            free: int,
            *,
            term: str = term,
            sensor: Sensor = sensor,
            moments: Moments = moments,
        ) -> Candidate:
            shown = _then(sensor, matrix, np.zeros(len(matrix)))
            return Candidate(
                kind,
                tuple(e.name for e in where),
                value,
                view.model.with_sensor(term, shown),
                free,
                {term: moments.left(matrix)},
            )

        moving = [i for i, e in enumerate(mine) if e.moves]
        if mine[0].angle:
            turned_round = replace(sensor, matrix=rows(-_matrix(sensor, 1)))
            left = {term: view.left_at(term, turned_round, view.model.delay)}
            model = view.model.with_sensor(term, turned_round)
            yield Candidate("sign", (mine[0].name,), -1.0, model, 0, left)
            continue
        for i in moving:
            yield made("sign", [mine[i]], -1.0, _with(one, i, -1.0), 0)
            gain = moments.gain(i)
            yield made("scale", [mine[i]], gain, _with(one, i, gain), 1)
        if len(moving) > 1:
            gain = moments.common_gain(mine)
            yield made("scale", mine, gain, gain * one, 1)
            yield made("sign", mine, -1.0, -one, 0)
        for i, j in combinations(moving, 2):
            order = np.arange(count)
            order[[i, j]] = j, i
            yield made("swap", [mine[i], mine[j]], 0.0, arranged(order), 0)
        if count == 2 and len(moving) == 2:
            angle = moments.rotation()
            yield made("turn", mine, angle, turned(angle), 1)
        if term in scans:
            for shift in range(count):
                order = np.roll(np.arange(count), shift)
                if shift:
                    yield made("shift", mine, float(shift), arranged(order), 1)
                yield made("reverse", mine, float(shift), arranged(order[::-1]), 1)
        for i, e in enumerate(mine):
            if not e.remembers:
                bias = np.where(np.arange(count) == i, moments.mean, 0.0)
                unbiased = np.where(bias != 0, moments.unbiased(), view.left[term])
                model = view.model.with_sensor(term, _then(sensor, one, bias))
                value = float(moments.mean[i])
                yield Candidate("bias", (e.name,), value, model, 1, {term: unbiased})


def lag_candidates(view: SearchWindows) -> Iterator[Candidate]:
    """Yields delays of topics, of terms within them, and of the robot."""
    terms, step = view.terms(), 1 / view.prediction.fine
    tick = view.open_loop.interface.control_dt
    topics = {t: next(e.topic for e in view.mine(t)) for t in terms}
    of_task = {t.name for t in view.open_loop.interface.observation if t.mujoco.task}
    robots = [t for t in terms if t not in of_task]
    groups: list[tuple[str, tuple[str, ...], list[str]]] = [
        ("lag", (topic,), [t for t in terms if topics[t] == topic])
        for topic in dict.fromkeys(topics.values())
    ]
    several = len({topics[t] for t in robots}) > 1
    groups += [
        ("lag", tuple(e.name for e in view.mine(t)), [t])
        for t in terms
        if sum(topics[o] == topics[t] for o in terms) > 1
    ]
    if robots:
        # With a single topic these are indistinguishable; `delay` covers both then.
        groups = [g for g in groups if several or set(g[2]) != set(robots)]
        groups.append(("delay", () if several else (topics[robots[0]],), terms))
    table: dict[tuple[str, float], Floats] = {}

    def left(term: str, lag: float) -> Floats:
        if (term, lag) not in table:
            sensor = view.model.sensor(term)
            table[term, lag] = view.left_at(
                term, replace(sensor, lag=sensor.lag + lag), view.model.delay
            )
        return table[term, lag]

    before = view.windows.plan.before
    low, high = max(EARLIEST / tick, -2.0), min(LATEST / tick, before - 1.0)
    grid = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    for kind, where, group in groups:
        if not group:
            continue

        def score(lag: float, group: list[str] = group) -> float:
            return sum(view.nats(t, left(t, lag)) for t in group)

        best = _refine(score, grid)
        model = replace(view.model, delay=view.model.delay + best)
        if kind == "lag":
            model = view.model
            for t in group:
                sensor = model.sensor(t)
                model = model.with_sensor(t, replace(sensor, lag=sensor.lag + best))
        yield Candidate(kind, where, best * tick, model, 1, {t: left(t, best) for t in group})


def time_base_candidates(view: SearchWindows) -> Iterator[Candidate]:
    """Yields topics that are late by their own stamps, or that repeat old values."""
    tick = view.open_loop.interface.control_dt
    for topic in dict.fromkeys(e.topic for e in view.elements):
        terms = [t for t in view.terms() if view.mine(t)[0].topic == topic]
        if not terms or any(view.model.sensor(t).base != "time" for t in terms):
            continue
        shown = view.samples[terms[0]]
        for kind, base in (("late", "stamp"), ("stale", "first")):
            behind = shown.time - getattr(shown, base)
            if not np.isfinite(behind).all() or np.abs(behind).max(initial=0) < IN_TICKS:
                continue
            model, left = view.model, {}
            for t in terms:
                sensor = replace(model.sensor(t), base=base)
                left[t] = view.left_at(t, sensor, view.model.delay)
                model = model.with_sensor(t, sensor)
            value = np.median(behind) * tick if kind == "late" else np.mean(behind > IN_TICKS)
            yield Candidate(kind, (topic,), float(value), model, 0, left)


def _refine(score: Callable[[float], float], grid: Floats) -> float:
    """Returns the maximum of a score: on a grid, then between its points."""
    best = float(max(grid, key=score))
    step = float(grid[1] - grid[0]) if len(grid) > 1 else 0.0
    for _ in range(3):
        around = np.linspace(best - step, best + step, 9)
        best, step = float(max(around, key=score)), step / 4
    return best


def _with(matrix: Floats, index: int, value: float) -> Floats:
    changed = np.array(matrix)
    changed[index, index] = value
    return changed


def _matrix(sensor: Sensor, count: int) -> Floats:
    return np.array(sensor.matrix if sensor.matrix else np.eye(count), np.float64)


def _then(sensor: Sensor, matrix: Floats, bias: Floats) -> Sensor:
    """Composes a sensor with another matrix and bias."""
    before = _matrix(sensor, len(matrix))
    offset = np.array(sensor.bias) if sensor.bias else np.zeros(len(matrix))
    return replace(
        sensor, matrix=rows(matrix @ before), bias=tuple((matrix @ offset + bias).tolist())
    )
