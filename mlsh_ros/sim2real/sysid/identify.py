"""Identifies simulation parameters with standard errors and validates on held-out windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mlsh_ros.sim2real.data.signals import Signals, because
from mlsh_ros.sim2real.data.target import Target, identity_of, nominal
from mlsh_ros.sim2real.data.tick_moments import Ints
from mlsh_ros.sim2real.data.window_plan import plan_for
from mlsh_ros.sim2real.data.windows import Windows, make_windows, merge, subsample
from mlsh_ros.sim2real.replay.batched_replay import BatchedReplay
from mlsh_ros.sim2real.replay.open_loop_replay import open_loop_of
from mlsh_ros.sim2real.sysid.fit import solve
from mlsh_ros.sim2real.sysid.identifiability import TELLS
from mlsh_ros.sim2real.sysid.least_squares import FLOOR, Problem
from mlsh_ros.sim2real.sysid.parameters import (
    DELAYS,
    NOMINAL,
    Unknown,
    chosen,
    sim_params_of,
    unknowns,
)
from sim.errors import UserError, listed
from sim.files.migrations import SCHEMA
from sim.files.strict_yaml import comment, dump_yaml
from sim.interface import Floats, Interface
from sim.randomization.model_fields import body_names
from sim.randomization.perturbations import check_model
from sim.randomization.schema import SimParams, read_ranges, sim_params_to_dict

HELD_OUT = 4  # of so many windows the last one is not fitted
FEWEST = 4  # windows
MOST, BLOCK = 64, 8  # windows that are used, in runs of so many: two minutes identify a robot
NEAR = 1e-3  # of the way between its bounds: a number that ends nearer to one is held by it
NOISE = 0.01  # of an element's movement; what is left below that is no noise
UNEXPLAINED = 0.1  # of what moves; less is not worth a word


@dataclass(frozen=True)
class Number:
    """One unknown and its result."""

    unknown: Unknown
    value: float
    error: float  # standard error; nan where it is not identified
    why_not: str  # empty where it is identified

    @property
    def bound(self) -> bool:
        """True if the search ended at a bound, so that the true optimum is not known.

        A delay of 0 is not such a bound: the fastest sensor counts as on time, and none is
        earlier.
        """
        each, near = self.unknown, NEAR * (self.unknown.high - self.unknown.low)
        at = min(abs(self.value - each.low), abs(self.value - each.high)) <= near
        usual = each.quantity in DELAYS and self.value <= near
        return at and not usual and not self.why_not and abs(self.value - each.known) > near

    def __str__(self) -> str:
        name = self.unknown.name
        if self.why_not:
            return f"{name}: not identified, kept at {self.value:.4g}: {self.why_not}"
        if self.bound:
            return f"{name}: not measured, at its bound {self.value:.4g}; widen it with --ranges"
        return f"{name}: {self.value:.4g} +- {self.error:.2g}"


@dataclass(frozen=True)
class Term:
    """Prediction error of a term in the windows that were not fitted; in its unit."""

    name: str
    before: float  # RMSE of the nominal model
    after: float


@dataclass(frozen=True)
class Identified:
    """Result of the identification."""

    sim_params: SimParams
    numbers: list[Number]
    terms: list[Term]
    before: float  # RMSE of held-out windows, all elements, in units of their movement
    after: float
    fitted: int  # windows
    held_out: int
    gauge: bool  # only sums of the commands' and the sensors' delays are identified
    notes: list[str]
    nominal: dict[str, str]  # which robot differs

    def lines(self) -> list[str]:
        """Lines of text for the user."""
        found = [str(n) for n in self.numbers if not (n.why_not or n.bound)]
        not_found = [str(n) for n in self.numbers if n.bound]
        not_found += [str(n) for n in self.numbers if n.why_not]
        delays = (
            [
                "delays: only the sum of a command's and a sensor's is identifiable; the freshest "
                "sensor counts as on time"
            ]
            if self.gauge
            else []
        )
        rmse = [f"{t.name}: RMSE {t.before:.3g} before, {t.after:.3g} after" for t in self.terms]
        total = (
            f"prediction on {self.held_out} windows that were not fitted: RMSE {self.before:.3g} "
            f"before, {self.after:.3g} after, of what moves"
        )
        same = (
            [f"as the nominal model: differences below {FLOOR:.1%} of the movement are not judged"]
            if self.before <= FLOOR
            else []
        )
        notes = [f"note: {note}" for note in self.notes]
        return [*found, *not_found, *delays, total, *same, *rmse, *notes]

    def to_yaml(self, recordings: Sequence[str]) -> str:
        """A sim_params.yaml; the comments at the top describe its numbers."""
        head = [
            f"Identified from {', '.join(recordings)}: {self.fitted} windows.",
            f"Nominal robot: {', '.join(f'{k} {v}' for k, v in self.nominal.items())}",
            "Value +- standard error:",
            *self.lines(),
        ]
        text = "".join(f"{comment(line)}\n" for line in head)
        data = {"schema": SCHEMA, **sim_params_to_dict(self.sim_params)}
        return text + dump_yaml(data)


def identify(
    target: Target,
    recordings: Sequence[Signals],
    *,
    robot: str | None = None,
    prior: SimParams | None = None,
    ranges: SimParams | None = None,
    parameters: Sequence[str] = (),
    fix: Sequence[str] = (),
    threads: int = 1,
    report: Callable[[str], None] = lambda text: None,
) -> Identified:
    """Identify the parameters that differ.

    Args:
        target: the bundle that drove, or the robot, whatever drove it.
        recordings: of one robot.
        robot: the nominal one, name or folder; None: the target's.
        prior: differences that are known.
        ranges: of the parameters that may differ in addition; None: the robot's own.
        parameters: names to identify, or last parts of names; empty: all that have a range.
        fix: names to leave as they are.
        threads: of the simulation.
        report: called with a line of progress from time to time.

    Raises:
        UserError: nothing can be compared, or a name is none.
    """
    interface = target.interface
    body = nominal(target, robot)
    prior, ranges = prior or NOMINAL, ranges or read_ranges(body)
    open_loop = open_loop_of(target, recordings, body)
    names = body_names(open_loop.model)
    for each, where in ((prior, "prior"), (ranges, "ranges")):
        check_model(each, interface, names, where)
    wanted = chosen(unknowns(interface, names, prior, ranges), parameters, fix)
    notes = [f"{s.name}: {note}" for s in recordings for note in s.notes]
    windows, more = _windows(open_loop.interface, recordings, notes)
    if open_loop.amplifies(open_loop.memory(windows)):
        raise UserError(
            f"robot {body.name!r}: small errors of its state grow or persist for a second, as on "
            "legs or without friction: parameters cannot be identified from such a recording"
        )
    if unseen := open_loop.undetermined(windows):
        raise UserError(
            f"robot {body.name!r}: its motion depends on the velocity of {listed(unseen)}, which "
            "no recorded sensor shows; it needs a term in robot.yaml, which may have "
            "policy_input: false"
        )
    notes += more
    notes += [
        f"{s.name}: {wrap.term} element {wrap.index} wraps at {wrap.at:.2f} rad; its turns are "
        "counted"
        for s in recordings
        for wrap in s.wraps
    ]
    follower = BatchedReplay(open_loop, windows, ranges, prior, threads)
    if not follower.terms:
        raise UserError(
            f"no sensor of {interface.robot} that is simulated is recorded: {'; '.join(notes)}"
        )
    wanted, blind = _visible(wanted, follower)
    held = np.zeros(windows.count, bool)
    held[HELD_OUT - 1 :: HELD_OUT] = True
    report(
        f"searching {len(wanted)} numbers in {windows.count} windows of "
        f"{windows.plan.length * interface.control_dt:g} s"
    )
    fit = Problem(follower, list(wanted), ~held, report=report)
    start = fit.values.copy()
    errors = solve(fit)
    numbers = _numbers(wanted, fit, errors, blind)
    terms, before, after = _validate(fit, start, held)
    if after > UNEXPLAINED and after > before / 2:
        notes.append(
            f"most of the difference is left (RMSE {before:.3g}, now {after:.3g} of what moves): "
            "it lies outside the ranges, or in what was fixed or given as prior"
        )
    values = _with_noise(fit, ranges)
    sim_params = sim_params_of(interface, names, values, prior)
    return Identified(
        sim_params=sim_params,
        numbers=numbers,
        terms=terms,
        before=before,
        after=after,
        fitted=int((~held).sum()),
        held_out=int(held.sum()),
        gauge=bool(fit.gauge),
        notes=notes,
        nominal=identity_of(body),
    )


def _windows(
    interface: Interface, recordings: Sequence[Signals], earlier: Sequence[str]
) -> tuple[Windows, list[str]]:
    windows = merge(
        [make_windows(signals, plan_for(interface), interface) for signals in recordings]
    )
    own = [t for t in interface.observation if not t.mujoco.task and not t.mujoco.rays]
    seen = np.ones(windows.count, bool)
    for term in own:
        finite = np.isfinite(windows.start[term.name]).all(axis=1)
        if finite.any():
            seen &= finite
    notes = [
        f"{each.name}: cut at {each.broken} place(s): ticks are missing, or the clock jumped"
        for each in recordings
        if each.broken
    ]
    if not seen.all():
        notes.append(f"{(~seen).sum()} windows left out: sensors are missing at their start")
        windows = subsample(windows, np.flatnonzero(seen))
    if windows.count > MOST:
        notes.append(
            f"{MOST} of {windows.count} windows are used, in {MOST // BLOCK} runs spread evenly "
            "over the recordings: more take longer and add little"
        )
        windows = subsample(windows, _spread(windows.count))
    if windows.count < FEWEST:
        raise UserError(
            f"{windows.count} windows of {plan_for(interface).length} ticks are recorded, "
            f"{FEWEST} are needed: drive longer{because([*earlier, *notes])}"
        )
    if not windows.has_changing_commands(interface):
        raise UserError("the recorded commands never change; record a drive with motion")
    return windows, notes


def _spread(count: int) -> Ints:
    """(MOST,) runs of windows: one that follows another begins in its final state."""
    begins = np.linspace(0, count - BLOCK, MOST // BLOCK).astype(np.int64)
    return np.unique(begins[:, None] + np.arange(BLOCK))


def _visible(
    wanted: list[Unknown], follower: BatchedReplay
) -> tuple[list[Unknown], list[Unknown]]:
    """Unknowns of sensors that are compared, and of those that are not."""
    shown = {term.name for term in follower.terms}
    sensors = {term.name for term in follower.robot_terms}
    blind = [
        e for e in wanted if (name := e.name.partition(".")[0]) in sensors and name not in shown
    ]
    return [e for e in wanted if e not in blind], blind


def _numbers(
    wanted: list[Unknown], fit: Problem, errors: Floats, blind: list[Unknown]
) -> list[Number]:
    error_of = {each.name: error for each, error in zip(fit.unknowns, errors, strict=True)}
    numbers: list[Number] = []
    for each in wanted:
        error = error_of.get(each.name, np.nan) * each.width
        why = fit.not_identifiable.get(each.name, "")
        if each.name == f"{fit.gauge}.delay_s":
            # Its error is that of the others, which are counted from it.
            error = max(
                (n.error for n in numbers if n.unknown.quantity == each.quantity),
                default=TELLS * each.width,
            )
        numbers.append(Number(each, fit.value(each), float(error), why))
    return numbers + [
        Number(each, each.known, np.nan, "the term is not simulated, or not recorded")
        for each in blind
    ]


def _validate(fit: Problem, start: Floats, held: Floats) -> tuple[list[Term], float, float]:
    follower = fit.follower
    left = fit.differences(np.stack([start, fit.values]))
    rows = held[follower.window]
    terms, shares = [], []
    for term in follower.terms:
        mine = np.zeros(len(rows), bool)
        for element in follower.elements:
            if element.term == term.name:
                mine[element.rows] = True
        own = left[mine & rows]
        if not len(own):
            continue
        rmse = np.sqrt(np.mean(own**2, axis=0))
        terms.append(Term(term.name, float(rmse[0]), float(rmse[1])))
        shares.append(rmse / max(float(follower.measured[mine].std()), 1e-9))
    total = np.sqrt(np.mean(np.square(shares), axis=0))
    return terms, float(total[0]), float(total[1])


def _with_noise(fit: Problem, ranges: SimParams) -> Floats:
    """The values, with the remaining difference of noisy terms as their noise."""
    follower = fit.follower
    values: Floats = fit.values.copy()
    left = fit.differences(values[None])[:, 0]
    noise = follower.differences.of(values[None], "noise")[0]
    order = [term.name for term in follower.robot_terms]
    for term in follower.terms:
        if term.name not in ranges.sensors or ranges.sensors[term.name].noise == (0.0, 0.0):
            continue
        rows = [e.rows for e in follower.elements if e.term == term.name]
        own = np.concatenate([left[r] for r in rows])
        moved = float(np.concatenate([follower.measured[r] for r in rows]).std())
        # Half of the middle half: dropouts and pushes are no noise.
        spread = float(np.subtract(*np.percentile(own, [75, 25]))) / 1.349
        more = np.sqrt(max(spread**2 - np.mean(term.noises**2), 0.0))
        noise[order.index(term.name)] = more if more > NOISE * moved else 0.0
    return values
