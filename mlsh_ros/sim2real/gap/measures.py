"""Distances between recorded and simulated signals, element by element."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.data.tick_moments import Ints
from mlsh_ros.sim2real.data.windows import Windows
from mlsh_ros.sim2real.gap.candidates import fewer
from mlsh_ros.sim2real.gap.sensor_candidates import EARLIEST, IN_TICKS, LATEST
from mlsh_ros.sim2real.replay.prediction import Prediction
from mlsh_ros.sim2real.replay.residuals import (
    PERFECT,
    AssumedRobot,
    Comparison,
    Element,
    Sensor,
    centered,
    compare,
)
from sim.interface import Floats, Interface

HORIZONS = (0.0, 0.25, 0.5, 1.0, 2.0)  # s after a window's begin; the first one means one tick
SINCE = (0, 1, 2, 3, 6, 11)  # ticks since a switch, where the classes begin
STALE_MOVES = 0.05  # of its movement that an element must have moved while its value stood still
WILD = 8.0  # robust standard deviations beyond which a sample is an outlier ..
WILD_SHARE = 0.3  # .. if it is also this part of the movement away
TO_SIGMA = 1.4826  # from a median of magnitudes to a standard deviation
LAG_POINTS = 25
NOTHING = 1e-9  # of its movement: rounding


@dataclass(frozen=True)
class Measure:
    """One element. Where it remembers, windows are centered, and there is no bias."""

    element: Element
    samples: int
    rmse: float  # in the unit
    usual: float  # rms error of half of the windows is below it, in the unit
    nrmse: float  # of the element's own movement in the simulation; nan if it stands still
    bias: float | None
    gain: float | None  # recorded per simulated, at the best lag; None: it stands still
    gain_error: float | None  # 95 %
    lag: float | None  # s, recorded after simulated
    correlation: float | None
    noise: float  # white part of the difference, standard deviation; nan for single samples
    outliers: float  # share of the samples
    horizons: tuple[float, ...]  # rmse at HORIZONS
    by_skill: tuple[float, ...]  # nrmse of ticks in each skill; nan where there are none
    by_since: tuple[float, ...]  # nrmse of ticks since a switch, in classes SINCE


@dataclass(frozen=True)
class Trace:
    """One element over one window, for a plot."""

    time: Floats  # s
    recorded: Floats
    simulated: Floats


def measure(
    windows: Windows,
    prediction: Prediction,
    elements: list[Element],
    interface: Interface,
    skills: int,
    model: AssumedRobot = PERFECT,
) -> list[Measure]:
    """All elements, in order.

    Args:
        windows: all.
        prediction: of the simulation, under the model's change.
        elements: that can be compared.
        interface: of the bundle.
        skills: K.
        model: of sensors and delay; nominal by default.
    """
    found = []
    since = since_switch(windows)
    for term in dict.fromkeys(element.term for element in elements):
        mine = [e for e in elements if e.term == term]
        samples = windows.samples[term]
        shown = compare(term, mine, samples, prediction, model.sensor(term), model.delay)
        around = _around(term, mine, windows, prediction, model, shown)
        lags = lags_of(term, mine, windows, prediction, interface, model)
        tick = np.clip(samples.time.astype(int), 0, windows.plan.length - 1)
        column = tick + windows.plan.before
        skill = windows.skill[samples.window, column]
        after = since[samples.window, column]
        for i, element in enumerate(mine):
            found.append(
                _measure(
                    element,
                    i,
                    shown,
                    around[:, i],
                    lags[i],
                    skill,
                    after,
                    interface,
                    windows,
                    skills,
                )
            )
    return found


def _measure(
    element: Element,
    i: int,
    shown: Comparison,
    around: Floats,
    lag: float | None,
    skill: Ints,
    since: Ints,
    interface: Interface,
    windows: Windows,
    skills: int,
) -> Measure:
    error = shown.residual[:, i]
    raw = (shown.recorded - shown.simulated)[:, i]
    scale = element.scale if element.moves else np.nan
    error = np.where(np.abs(error) < NOTHING * max(element.scale, 1.0), 0.0, error)
    rmse = float(np.sqrt((error**2).mean()))
    gain, gain_error, correlation = _slope(element, i, shown, interface, windows)
    spread = TO_SIGMA * float(np.median(np.abs(error - np.median(error))))
    limit = max(WILD * spread, WILD_SHARE * element.size)
    values = np.stack([shown.recorded[:, i], shown.simulated[:, i]])
    wild = sudden(around > limit, values, limit / 2, shown.samples.window, shown.samples.time)

    def part(rows: NDArray[np.bool_]) -> float:
        return float(np.sqrt((error[rows] ** 2).mean()) / scale) if rows.any() else float("nan")

    edges = [*SINCE, np.iinfo(np.int64).max]
    return Measure(
        element=element,
        samples=len(error),
        rmse=rmse,
        usual=_usual(error, shown.samples.window),
        nrmse=rmse / scale,
        bias=None if element.remembers else float(raw.mean()),
        gain=gain,
        gain_error=gain_error,
        lag=lag,
        correlation=correlation,
        noise=_white(error, shown.samples.window),
        outliers=float(wild.mean()),
        horizons=_horizons(element, raw, shown, interface),
        by_skill=tuple(part(skill == k) for k in range(skills)),
        by_since=tuple(part((since >= a) & (since < b)) for a, b in itertools.pairwise(edges)),
    )


def _around(
    term: str,
    mine: list[Element],
    windows: Windows,
    prediction: Prediction,
    model: AssumedRobot,
    shown: Comparison,
) -> Floats:
    """(n, count) distance of a value from the range simulated around its time.

    An impact that comes slightly early is not a jump of the sensor.
    """
    samples, sensor, step = windows.samples[term], model.sensor(term), 1 / prediction.fine
    near = [shown.simulated]
    for shift in (-2, -1, 1, 2):
        delay = model.delay + shift * step
        near.append(compare(term, mine, samples, prediction, sensor, delay).simulated)
    low, high = np.min(near, axis=0) + shown.offset, np.max(near, axis=0) + shown.offset
    return np.asarray(np.maximum(np.maximum(low - shown.recorded, shown.recorded - high), 0.0))


def sudden(
    far: NDArray[np.bool_], values: Floats, least: float, window: Ints, time: Floats
) -> NDArray[np.bool_]:
    """(n,) True for samples far from the simulation that came there or left within one step.

    After a contact a robot may go another way than its simulation, and be far from it: step by
    step, or with a jolt as the simulation has them too.

    Args:
        far: (n,) samples.
        values: (2, n) recorded and simulated.
        least: change from one sample to the next that may be called sudden.
        window: (n,) of each sample.
        time: (n,) within it.
    """
    order = np.lexsort((time, window))
    far, near = far[order], window[order][1:] == window[order][:-1]
    recorded, simulated = np.abs(np.diff(values[:, order])) * near
    step = recorded > max(least, simulated.max(initial=0.0))
    goes_on = far[1:] & far[:-1] & near  # from one sample to the next
    begins, ends = far.copy(), far.copy()
    begins[1:] &= ~goes_on
    ends[:-1] &= ~goes_on
    edge = np.zeros(len(far), bool)
    edge[1:] |= begins[1:] & step
    edge[:-1] |= ends[:-1] & step
    segment = np.cumsum(begins)
    found = np.zeros(len(far), bool)
    found[order] = far & np.isin(segment, segment[edge])
    return found


def _slope(
    element: Element, i: int, shown: Comparison, interface: Interface, windows: Windows
) -> tuple[float | None, float | None, float | None]:
    """Regression of recorded on simulated with an offset: gain, its 95 %, correlation."""
    if not element.moves or len(shown.recorded) < 3:
        return None, None, None
    y, x = shown.recorded[:, [i]], shown.simulated[:, [i]]
    if element.remembers:
        y, x = centered(y, shown.samples.window), centered(x, shown.samples.window)
    y, x = y[:, 0] - y.mean(), x[:, 0] - x.mean()
    xx, yy = float(x @ x), float(y @ y)
    if not xx or not yy:
        return None, None, None
    gain = float(x @ y) / xx
    left = y - gain * x
    # Neighboring samples say much the same: a tick counts once.
    count = min(len(y), windows.count * windows.plan.length)
    error = 1.96 * float(np.sqrt((left @ left / len(y)) / (xx / len(x)) / max(count - 2, 1)))
    return gain, error, float(x @ y) / float(np.sqrt(xx * yy))


def lags_of(
    term: str,
    mine: list[Element],
    windows: Windows,
    prediction: Prediction,
    interface: Interface,
    model: AssumedRobot,
) -> list[float | None]:
    """Per element the lag (s) with the best match of recording and simulation."""
    tick = interface.control_dt
    samples = fewer(windows.samples[term])
    low = max(EARLIEST / tick, -2.0)
    high = min(LATEST / tick, windows.plan.before - 1.0)
    step = max(1 / prediction.fine, (high - low) / LAG_POINTS)
    grid = np.arange(np.floor(low / step), np.floor(high / step) + 1) * step
    sensor = model.sensor(term)

    def alike(lag: float) -> Floats:
        other: Sensor = replace(sensor, lag=sensor.lag + lag)
        shown = compare(term, mine, samples, prediction, other, model.delay)
        y, x = shown.recorded, shown.simulated
        keeps = np.array([e.remembers for e in mine])
        y = np.where(keeps, centered(y, samples.window), y - y.mean(axis=0))
        x = np.where(keeps, centered(x, samples.window), x - x.mean(axis=0))
        norm = np.sqrt((y**2).sum(axis=0) * (x**2).sum(axis=0))
        # By magnitude: a wrong sign is another matter.
        return np.asarray(np.abs((y * x).sum(axis=0)) / np.where(norm > 0, norm, np.inf))

    table = np.array([alike(lag) for lag in grid])
    result: list[float | None] = []
    for i, element in enumerate(mine):
        if not element.moves:
            result.append(None)
            continue
        best, width = float(grid[table[:, i].argmax()]), step
        for _ in range(2):
            around = np.linspace(best - width, best + width, 9)
            best = float(around[np.argmax([alike(lag)[i] for lag in around])])
            width /= 4
        result.append(best * tick)
    return result


def _usual(error: Floats, window: Ints) -> float:
    """Median over windows of their RMS error."""
    counts = np.bincount(window)
    squares = np.bincount(window, error**2)[counts > 0] / counts[counts > 0]
    return float(np.sqrt(np.median(squares)))


def _white(error: Floats, window: Ints) -> float:
    """Standard deviation of the change between samples, without outliers."""
    step = np.diff(error)[np.diff(window) == 0]
    return TO_SIGMA * float(np.median(np.abs(step))) / np.sqrt(2) if len(step) else np.nan


def _horizons(
    element: Element, raw: Floats, shown: Comparison, interface: Interface
) -> tuple[float, ...]:
    """RMSE some time after a window's begin, minus the initial difference if it persists."""
    samples, tick = shown.samples, interface.control_dt
    error = raw
    if element.remembers and len(raw):
        first = np.full(int(samples.window.max()) + 1, np.nan)
        start = samples.time < 0.5
        np.put(first, samples.window[start][::-1], raw[start][::-1])
        error = raw - first[samples.window]
    found = []
    for horizon in HORIZONS:
        rows = np.abs(samples.time * tick - max(horizon, tick)) <= tick / 2
        chosen = error[rows & np.isfinite(error)]
        found.append(float(np.sqrt((chosen**2).mean())) if len(chosen) else float("nan"))
    return tuple(found)


def since_switch(windows: Windows) -> Ints:
    """(W, P) ticks since the skill changed within the window, or since the window began."""
    count, ticks = windows.skill.shape
    since = np.full((count, ticks), 10**6)
    for t in range(1, ticks):
        switched = windows.skill[:, t] != windows.skill[:, t - 1]
        since[:, t] = np.where(switched, 0, since[:, t - 1] + 1)
    return since


def stale_shares(
    windows: Windows, prediction: Prediction, elements: list[Element]
) -> dict[str, float]:
    """Per topic, the fraction of samples that repeat a value although the robot has moved.

    A topic without samples, or whose elements do not move in the simulation, has none.
    """
    shares: dict[str, float] = {}
    for term in dict.fromkeys(element.term for element in elements):
        mine = [e for e in elements if e.term == term]
        samples = windows.samples[term]
        if not len(samples.time) or not any(e.moves for e in mine):
            continue
        behind = samples.time - samples.first > IN_TICKS
        now = prediction.at(term, samples.window, samples.time)
        then = prediction.at(term, samples.window, samples.first)
        least = np.array(
            [STALE_MOVES * max(e.scale, e.noise) if e.moves else np.inf for e in mine]
        )
        moved = (np.abs(now - then) > least).any(axis=1)
        share = float((behind & moved).mean())
        shares[mine[0].topic] = max(shares.get(mine[0].topic, 0.0), share)
    return shares


def trace_of(
    element: Element,
    mine: list[Element],
    windows: Windows,
    prediction: Prediction,
    interface: Interface,
    model: AssumedRobot = PERFECT,
) -> Trace:
    """Returns the window with the largest motion of an element, for a plot.

    Args:
        element: which.
        mine: all elements of its term, in order.
        windows: all.
        prediction: under the model's change.
        interface: for the length of a tick.
        model: of sensors and delay.
    """
    samples = windows.samples[element.term]
    values = samples.values[:, element.index]
    spread = [
        float(values[samples.window == w].std()) if (samples.window == w).any() else -1.0
        for w in range(windows.count)
    ]
    chosen = samples.take(samples.window == int(np.argmax(spread)))
    sensor = model.sensor(element.term)
    shown = compare(element.term, mine, chosen, prediction, sensor, model.delay)
    order = np.argsort(chosen.time, kind="stable")
    i = element.index
    simulated = shown.simulated[:, i] + shown.offset[:, i]
    return Trace(
        chosen.time[order] * interface.control_dt, shown.recorded[order, i], simulated[order]
    )
