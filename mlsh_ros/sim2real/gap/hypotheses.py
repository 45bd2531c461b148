"""Searches for model changes that explain the difference, the best ones first.

Three kinds are tried: of sensors (`_sensors`: sign, order, scale, bias), of time (`_lags`: delays
of sensors and commands) and of the robot (`robot_changes.families`: actuators, mass, friction). A
new kind is a generator of candidates here, or a family there, and its words in `findings.SAID`.

Every assumption predicts what all sensors would have shown. It gains what it makes the recording
more probable, in nats: per element, half the number of ticks times the logarithm of what is left
of the mean square. So a cause that explains several terms at once, such as a weak actuator, beats
one that explains a single one of them, and what has more free numbers has to explain more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from mlsh_ros.sim2real.data.tick_moments import Ints
from mlsh_ros.sim2real.data.windows import (
    TermSamples,
    Windows,
    angular,
    from_compared,
    subsample,
    to_compared,
)
from mlsh_ros.sim2real.gap.moments import Moments, arranged, moments_of, turned
from mlsh_ros.sim2real.gap.robot_changes import Family, blend, families, rows
from mlsh_ros.sim2real.replay.open_loop_replay import NOMINAL, ModelChange, OpenLoopReplay
from mlsh_ros.sim2real.replay.prediction import Prediction
from mlsh_ros.sim2real.replay.residuals import (
    Comparison,
    Element,
    Model,
    Sensor,
    compare,
    mean_squares,
)
from sim.interface import Floats

ROUNDS = 4  # causes that are looked for, one after the other
# A cause must take away this part of an element's own movement: what is less, a policy that was
# trained with a few percent of noise does not notice, and a few causes together could fake it.
MATERIAL = 0.03
CLEARER = 0.85  # and leave at most this part of what was there
NATS = 12.0  # and make the recording e^12 times as probable, beyond its own free numbers
EARLIEST, LATEST = -0.06, 0.3  # s of lag that are tried; what is more, a user sees
MOST = 4000  # samples per term in the search
COST = (
    2.5e-6  # s per physics step and degree of freedom, here: only sets how many windows are used
)
PATIENCE = 1.5  # s of simulation per set of assumptions
FEWEST, ENOUGH = 4, 24  # windows
REFINED, POINTS = 3, 4  # families of changes that are looked at more closely, values between two
EVIDENT, AS_GOOD = ("late", "stale", "sign", "swap"), 0.9
IN_TICKS = 0.02  # a time base that differs by less is the same


@dataclass(frozen=True)
class Hypothesis:
    """An explanation of a part of the difference."""

    kind: str  # see findings.SAID
    where: tuple[str, ...]  # elements, topics or action elements that it is about
    value: float  # of its one number, if it has one; times in s
    nats: float  # gained
    whole: bool  # `where` are topics
    share: float  # of the affected elements' movement that it explains, the most of them
    model: Model  # with it, and with all causes before it


@dataclass(frozen=True)
class _Candidate:
    """A hypothesis before its evaluation."""

    kind: str
    where: tuple[str, ...]
    value: float
    model: Model
    free: int  # numbers that were fitted
    left: dict[str, Floats]  # per term that it touches, mean squares (count,)


@dataclass(frozen=True)
class Search:
    """Searches hypotheses for a recording.

    Args:
        twin: of the robot.
        windows: all.
        elements: all that can be compared.
    """

    twin: OpenLoopReplay
    windows: Windows
    elements: list[Element]

    def causes(self) -> tuple[list[Hypothesis], Model]:
        """Returns the hypotheses, the best first, and the model with all of them."""
        found: list[Hypothesis] = []
        model = Model()
        few = self._few(len(self.families(NOMINAL)))
        for _ in range(ROUNDS):
            looked_at = _View.of(self, *few, model)
            judged = [cause for cause in looked_at.judged() if cause is not None]
            if not judged:
                break
            best = _simplest(judged)
            found.append(best)
            model = best.model
        return found, model

    def _few(self, tries: int) -> tuple[Windows, Ints]:
        """Returns the windows with the most motion, as many as the computing time allows.

        Includes the windows before them, which give the unmeasured part of the state; and the
        indices of those that are evaluated.
        """
        plan, interface = self.windows.plan, self.twin.interface
        nv = self.twin.degrees
        steps = plan.ticks * interface.substeps * tries
        count = int(np.clip(PATIENCE / (COST * nv * steps), FEWEST, ENOUGH))
        moved = self.windows.command.std(axis=1).sum(axis=1)
        liveliest = np.argsort(-moved, kind="stable")
        half = liveliest[: max(count, len(liveliest) * 2 // 3)]
        keep = np.unique(half[np.linspace(0, len(half) - 1, min(count, len(half))).astype(int)])
        chosen = np.unique(np.r_[keep, self.windows.previous[keep]])
        chosen = chosen[chosen >= 0]
        return subsample(self.windows, chosen), np.flatnonzero(np.isin(chosen, keep))

    def families(self, base: ModelChange) -> list[Family]:
        """Returns the changes of the robot itself that are tried."""
        return families(self.twin.interface, self.windows.command, base)


@dataclass(frozen=True)
class _View:
    """The windows of the search, compared with a model of the robot."""

    search: Search
    windows: Windows
    state: Floats
    model: Model
    prediction: Prediction
    samples: dict[str, TermSamples]
    compared: dict[str, Comparison]
    left: dict[str, Floats]  # per term, mean squares

    @classmethod
    def of(cls, search: Search, with_previous: Windows, keep: Ints, model: Model) -> _View:
        twin = search.twin
        whole = corrected(with_previous, twin, model)
        state = twin.states(whole, model.change)[keep]
        few = windows = subsample(whole, keep)
        prediction = twin.run(windows, state, (model.change,))
        terms = list(dict.fromkeys(element.term for element in search.elements))
        samples = {term: fewer(few.samples[term]) for term in terms}
        mine = {term: [e for e in search.elements if e.term == term] for term in terms}
        compared = {
            term: compare(
                term, mine[term], samples[term], prediction, model.sensor(term), model.delay
            )
            for term in terms
            if len(samples[term].time)
        }
        left = {term: mean_squares(c.residual) for term, c in compared.items()}
        return cls(search, windows, state, model, prediction, samples, compared, left)

    @property
    def ticks(self) -> int:
        return self.windows.count * self.windows.plan.length

    def mine(self, term: str) -> list[Element]:
        return [e for e in self.search.elements if e.term == term]

    def terms(self) -> list[str]:
        """Terms with motion."""
        return [t for t in self.compared if any(e.moves for e in self.mine(t))]

    # Judging ----------------------------------------------------------------------------------

    def judged(self) -> list[Hypothesis | None]:
        """Returns the hypothesis of every assumption; empty where it explains too little."""
        if not self._worth_a_look(self.left):
            return []
        tries = [*self._sensors(), *self._lags(), *self._bases()]
        causes = [self._judge(each) for each in tries]
        nats = [cause.nats if cause else -np.inf for cause in causes]
        best = int(np.argmax(nats)) if nats else -1
        if best >= 0 and causes[best] and not self._worth_a_look(self.left | tries[best].left):
            return causes  # nothing is left that a change of the robot could explain better
        return [*causes, *(self._judge(each) for each in self._robots())]

    def _worth_a_look(self, left: dict[str, Floats]) -> bool:
        return any(
            value > e.noise**2 + (MATERIAL * e.size) ** 2 + e.rounding**2
            for term in self.compared
            for e, value in zip(self.mine(term), left[term], strict=True)
        )

    def _nats(self, term: str, left: Floats) -> float:
        """Returns the gain in log likelihood of a term with a smaller remaining difference."""
        floor = np.array([max(e.floor, 1e-12) ** 2 for e in self.mine(term)])
        return float(0.5 * self.ticks * np.log((self.left[term] + floor) / (left + floor)).sum())

    def _gain(self, each: _Candidate) -> float:
        free = 0.5 * each.free * np.log(max(self.ticks, 2))
        return float(sum(self._nats(t, left) for t, left in each.left.items()) - free)

    def _judge(self, each: _Candidate) -> Hypothesis | None:
        nats, share, clear = self._gain(each), 0.0, False
        for term, left in each.left.items():
            before, after = np.sqrt(self.left[term]), np.sqrt(left)
            for e, a, b in zip(self.mine(term), before, after, strict=True):
                share = max(share, (a - b) / e.size)
                # Noise stays, whatever explains the rest.
                clear = clear or bool((a - b) >= MATERIAL * e.size and b <= CLEARER * a)
        if nats < NATS or not clear:
            return None
        topics = {e.topic for e in self.search.elements}
        whole = set(each.where) <= topics
        return Hypothesis(each.kind, each.where, each.value, nats, whole, float(share), each.model)

    # Sensors ----------------------------------------------------------------------------------

    def _sensors(self) -> Iterator[_Candidate]:
        for term in self.compared:
            mine, sensor = self.mine(term), self.model.sensor(term)
            moments = moments_of(self.compared[term], mine)
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
            ) -> _Candidate:
                shown = _then(sensor, matrix, np.zeros(len(matrix)))
                return _Candidate(
                    kind,
                    tuple(e.name for e in where),
                    value,
                    self.model.with_sensor(term, shown),
                    free,
                    {term: moments.left(matrix)},
                )

            moving = [i for i, e in enumerate(mine) if e.moves]
            if mine[0].angle:
                turned_round = replace(sensor, matrix=rows(-_matrix(sensor, 1)))
                left = {term: self._left_at(term, turned_round, self.model.delay)}
                model = self.model.with_sensor(term, turned_round)
                yield _Candidate("sign", (mine[0].name,), -1.0, model, 0, left)
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
            if self._rays(term):
                for shift in range(count):
                    order = np.roll(np.arange(count), shift)
                    if shift:
                        yield made("shift", mine, float(shift), arranged(order), 1)
                    yield made("reverse", mine, float(shift), arranged(order[::-1]), 1)
            for i, e in enumerate(mine):
                if not e.remembers:
                    bias = np.where(np.arange(count) == i, moments.mean, 0.0)
                    unbiased = np.where(bias != 0, moments.unbiased(), self.left[term])
                    model = self.model.with_sensor(term, _then(sensor, one, bias))
                    value = float(moments.mean[i])
                    yield _Candidate("bias", (e.name,), value, model, 1, {term: unbiased})

    def _rays(self, term: str) -> bool:
        return any(
            t.name == term and t.mujoco.rays for t in self.search.twin.interface.observation
        )

    # Time -------------------------------------------------------------------------------------

    def _left_at(self, term: str, sensor: Sensor, delay: float) -> Floats:
        found = compare(term, self.mine(term), self.samples[term], self.prediction, sensor, delay)
        return mean_squares(found.residual)

    def _lags(self) -> Iterator[_Candidate]:
        terms, step = self.terms(), 1 / self.prediction.fine
        tick = self.search.twin.interface.control_dt
        topics = {t: next(e.topic for e in self.mine(t)) for t in terms}
        robots = [t for t in terms if not self._of_task(t)]
        groups: list[tuple[str, tuple[str, ...], list[str]]] = [
            ("lag", (topic,), [t for t in terms if topics[t] == topic])
            for topic in dict.fromkeys(topics.values())
        ]
        several = len({topics[t] for t in robots}) > 1
        groups += [
            ("lag", tuple(e.name for e in self.mine(t)), [t])
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
                sensor = self.model.sensor(term)
                table[term, lag] = self._left_at(
                    term, replace(sensor, lag=sensor.lag + lag), self.model.delay
                )
            return table[term, lag]

        before = self.windows.plan.before
        low, high = max(EARLIEST / tick, -2.0), min(LATEST / tick, before - 1.0)
        grid = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
        for kind, where, group in groups:
            if not group:
                continue

            def score(lag: float, group: list[str] = group) -> float:
                return sum(self._nats(t, left(t, lag)) for t in group)

            best = _refine(score, grid)
            model = replace(self.model, delay=self.model.delay + best)
            if kind == "lag":
                model = self.model
                for t in group:
                    sensor = model.sensor(t)
                    model = model.with_sensor(t, replace(sensor, lag=sensor.lag + best))
            yield _Candidate(kind, where, best * tick, model, 1, {t: left(t, best) for t in group})

    def _of_task(self, term: str) -> bool:
        return any(
            t.name == term and t.mujoco.task for t in self.search.twin.interface.observation
        )

    def _bases(self) -> Iterator[_Candidate]:
        """Returns topics that are late by their own stamps, or that repeat old values."""
        tick = self.search.twin.interface.control_dt
        for topic in dict.fromkeys(e.topic for e in self.search.elements):
            terms = [t for t in self.terms() if self.mine(t)[0].topic == topic]
            if not terms or any(self.model.sensor(t).base != "time" for t in terms):
                continue
            shown = self.samples[terms[0]]
            for kind, base in (("late", "stamp"), ("stale", "first")):
                behind = shown.time - getattr(shown, base)
                if not np.isfinite(behind).all() or np.abs(behind).max(initial=0) < IN_TICKS:
                    continue
                model, left = self.model, {}
                for t in terms:
                    sensor = replace(model.sensor(t), base=base)
                    left[t] = self._left_at(t, sensor, self.model.delay)
                    model = model.with_sensor(t, sensor)
                value = np.median(behind) * tick if kind == "late" else np.mean(behind > IN_TICKS)
                yield _Candidate(kind, (topic,), float(value), model, 0, left)

    # The robot itself -------------------------------------------------------------------------

    def _robots(self) -> Iterator[_Candidate]:
        families = self.search.families(self.model.change)
        tried = [self._simulate(*family) for family in families]
        best = [max(t, key=self._gain) for t in tried]
        order = np.argsort([-self._gain(each) for each in best], kind="stable")
        for i in order[:REFINED]:
            for _ in range(2):
                tried[i] = self._closer(families[i], tried[i])
            best[i] = max(tried[i], key=self._gain)
        yield from best

    def _simulate(
        self, kind: str, where: tuple[str, ...], values: list[tuple[float, ModelChange]]
    ) -> list[_Candidate]:
        changes = tuple(change for _, change in values)
        shown = self.search.twin.bare().run(self.windows, self.state, changes)
        count, tries = self.windows.count, []
        for n, (value, change) in enumerate(values):
            part = shown.rows(n * count, count)
            left = {}
            for term in self.compared:
                if term not in part.values:
                    continue
                found = compare(
                    term,
                    self.mine(term),
                    self.samples[term],
                    part,
                    self.model.sensor(term),
                    self.model.delay,
                )
                # A simulation that fails explains nothing.
                left[term] = np.nan_to_num(mean_squares(found.residual), nan=1e9, posinf=1e9)
            free = 0 if kind == "crossed" else 1
            tries.append(
                _Candidate(kind, where, value, replace(self.model, change=change), free, left)
            )
        return tries

    def _closer(
        self,
        family: Family,
        tried: list[_Candidate],
    ) -> list[_Candidate]:
        """Returns values between the best one and its neighbors."""
        kind, where, _ = family
        if len(tried) < 2:
            return tried
        tried = sorted(tried, key=lambda each: each.value)
        at = max(range(len(tried)), key=lambda i: self._gain(tried[i]))
        low, middle, high = tried[max(at - 1, 0)], tried[at], tried[min(at + 1, len(tried) - 1)]
        between = []
        for a, b in ((low, middle), (middle, high)):
            if a.value == b.value:
                continue
            for part in np.linspace(0, 1, POINTS + 2)[1:-1]:
                value = float((1 - part) * a.value + part * b.value)
                mixed = blend(a.model.change, b.model.change, float(part))
                between.append((value, mixed))
        return [*tried, *self._simulate(kind, where, between)] if between else tried


def _simplest(causes: list[Hypothesis]) -> Hypothesis:
    """Returns the best hypothesis, or a similar one that needs no fitted number."""
    enough = AS_GOOD * max(cause.nats for cause in causes)
    shown = [cause for cause in causes if cause.kind in EVIDENT and cause.nats >= enough]
    return max(shown or causes, key=lambda cause: cause.nats)


def corrected(windows: Windows, twin: OpenLoopReplay, model: Model) -> Windows:
    """Returns the windows with the start corrected by a model of the sensors."""
    start = dict(windows.start)
    for term in twin.interface.observation:
        sensor = model.sensors.get(term.name)
        if sensor is None or term.derive is not None or not (sensor.matrix or sensor.bias):
            continue
        viewed = to_compared(term, start[term.name])
        start[term.name] = from_compared(term, sensor.true(viewed))
        assert angular(term) or start[term.name].shape == windows.start[term.name].shape
    return replace(windows, start=start)


def fewer(samples: TermSamples) -> TermSamples:
    """Returns an evenly spread subset."""
    count = len(samples.time)
    if count <= MOST:
        return samples
    rows = np.zeros(count, bool)
    rows[np.linspace(0, count - 1, MOST).astype(int)] = True
    return samples.take(rows)


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
