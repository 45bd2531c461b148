"""Searches for model changes that explain the difference, the best ones first.

Three kinds are tried: of sensors (`sensor_candidates`: sign, order, scale, bias), of time
(`lag_candidates`: delays of sensors and commands) and of the robot (`robot_changes.families`:
actuators, mass, friction). A new kind is a generator of candidates, or a family, and its words in
`cause_texts.SAID`.

Every candidate predicts the measurements of all sensors. Its gain is the increase of the
log-likelihood of the recording, in nats: per element, minus half the number of ticks times the
logarithm of the remaining fraction of the mean square. A cause that explains several terms at
once, such as a weak actuator, is therefore preferred to one that explains a single term, and a
candidate with more free parameters has to explain more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mlsh_ros.sim2real.data.tick_moments import Ints
from mlsh_ros.sim2real.data.windows import Windows, subsample
from mlsh_ros.sim2real.gap.candidates import CLEARER, MATERIAL, NATS, Candidate, SearchWindows
from mlsh_ros.sim2real.gap.robot_changes import Family, blend, families
from mlsh_ros.sim2real.gap.sensor_candidates import (
    lag_candidates,
    sensor_candidates,
    time_base_candidates,
)
from mlsh_ros.sim2real.replay.model_change import NOMINAL, ModelChange
from mlsh_ros.sim2real.replay.open_loop_replay import OpenLoopReplay
from mlsh_ros.sim2real.replay.residuals import AssumedRobot, Element

ROUNDS = 4  # causes that are looked for, one after the other
COST = (
    2.5e-6  # s per physics step and degree of freedom, here: only sets how many windows are used
)
PATIENCE = 1.5  # s of simulation per set of assumptions
FEWEST, ENOUGH = 4, 24  # windows
REFINED, POINTS = 3, 4  # families of changes that are looked at more closely, values between two
EVIDENT, AS_GOOD = ("late", "stale", "sign", "swap"), 0.9


@dataclass(frozen=True)
class Hypothesis:
    """An explanation of a part of the difference."""

    kind: str  # see cause_texts.SAID
    where: tuple[str, ...]  # elements, topics or action elements that it is about
    value: float  # of its one number, if it has one; times in s
    nats: float  # gained
    whole: bool  # `where` are topics
    share: float  # of the affected elements' movement that it explains, the most of them
    model: AssumedRobot  # with it, and with all causes before it


@dataclass(frozen=True)
class Search:
    """Searches hypotheses for a recording.

    Args:
        open_loop: of the robot.
        windows: all.
        elements: all that can be compared.
    """

    open_loop: OpenLoopReplay
    windows: Windows
    elements: list[Element]

    def causes(self) -> tuple[list[Hypothesis], AssumedRobot]:
        """Returns the hypotheses, the best first, and the model with all of them."""
        found: list[Hypothesis] = []
        model = AssumedRobot()
        few = self._few(len(self.families(NOMINAL)))
        for _ in range(ROUNDS):
            view = SearchWindows.of(self.open_loop, self.elements, *few, model)
            changes = self.families(model.change)
            judged = [cause for cause in _judged(view, changes) if cause is not None]
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
        plan, interface = self.windows.plan, self.open_loop.interface
        nv = self.open_loop.degrees
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
        return families(self.open_loop.interface, self.windows.command, base)


def _judged(view: SearchWindows, changes: list[Family]) -> list[Hypothesis | None]:
    """Returns the hypothesis of every assumption; empty where it explains too little."""
    if not view.worth_a_look(view.left):
        return []
    tries = [*sensor_candidates(view), *lag_candidates(view), *time_base_candidates(view)]
    causes = [_judge(view, each) for each in tries]
    nats = [cause.nats if cause else -np.inf for cause in causes]
    best = int(np.argmax(nats)) if nats else -1
    if best >= 0 and causes[best] and not view.worth_a_look(view.left | tries[best].left):
        return causes  # nothing is left that a change of the robot could explain better
    return [*causes, *(_judge(view, each) for each in _robots(view, changes))]


def _judge(view: SearchWindows, each: Candidate) -> Hypothesis | None:
    nats, share, clear = view.gain(each), 0.0, False
    for term, left in each.left.items():
        before, after = np.sqrt(view.left[term]), np.sqrt(left)
        for e, a, b in zip(view.mine(term), before, after, strict=True):
            share = max(share, (a - b) / e.size)
            # Noise stays, whatever explains the rest.
            clear = clear or bool((a - b) >= MATERIAL * e.size and b <= CLEARER * a)
    if nats < NATS or not clear:
        return None
    topics = {e.topic for e in view.elements}
    whole = set(each.where) <= topics
    return Hypothesis(each.kind, each.where, each.value, nats, whole, float(share), each.model)


def _robots(view: SearchWindows, changes: list[Family]) -> Iterator[Candidate]:
    tried = [_simulate(view, *family) for family in changes]
    best = [max(t, key=view.gain) for t in tried]
    order = np.argsort([-view.gain(each) for each in best], kind="stable")
    for i in order[:REFINED]:
        for _ in range(2):
            tried[i] = _closer(view, changes[i], tried[i])
        best[i] = max(tried[i], key=view.gain)
    yield from best


def _simulate(
    view: SearchWindows, kind: str, where: tuple[str, ...], values: list[tuple[float, ModelChange]]
) -> list[Candidate]:
    changes = tuple(change for _, change in values)
    shown = view.open_loop.bare().run(view.windows, view.state, changes)
    count, tries = view.windows.count, []
    for n, (value, change) in enumerate(values):
        part = shown.rows(n * count, count)
        left = {}
        for term in view.compared:
            if term not in part.values:
                continue
            found = view.left_at(term, view.model.sensor(term), view.model.delay, part)
            # A simulation that fails explains nothing.
            left[term] = np.nan_to_num(found, nan=1e9, posinf=1e9)
        free = 0 if kind == "crossed" else 1
        tries.append(Candidate(kind, where, value, replace(view.model, change=change), free, left))
    return tries


def _closer(view: SearchWindows, family: Family, tried: list[Candidate]) -> list[Candidate]:
    """Returns values between the best one and its neighbors."""
    kind, where, _ = family
    if len(tried) < 2:
        return tried
    tried = sorted(tried, key=lambda each: each.value)
    at = max(range(len(tried)), key=lambda i: view.gain(tried[i]))
    low, middle, high = tried[max(at - 1, 0)], tried[at], tried[min(at + 1, len(tried) - 1)]
    between = []
    for a, b in ((low, middle), (middle, high)):
        if a.value == b.value:
            continue
        for part in np.linspace(0, 1, POINTS + 2)[1:-1]:
            value = float((1 - part) * a.value + part * b.value)
            mixed = blend(a.model.change, b.model.change, float(part))
            between.append((value, mixed))
    return [*tried, *_simulate(view, kind, where, between)] if between else tried


def _simplest(causes: list[Hypothesis]) -> Hypothesis:
    """Returns the best hypothesis, or a similar one that needs no fitted number."""
    enough = AS_GOOD * max(cause.nats for cause in causes)
    shown = [cause for cause in causes if cause.kind in EVIDENT and cause.nats >= enough]
    return max(shown or causes, key=lambda cause: cause.nats)
