"""The analysis of `mlsh gap`: all measurements of recordings against their simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlsh_ros.recording.replay import Result
from mlsh_ros.sim2real.data.recording_data import Loaded, Where, check_distinct, load
from mlsh_ros.sim2real.data.signals import Signals, Wrap
from mlsh_ros.sim2real.data.target import Target, nominal
from mlsh_ros.sim2real.data.windows import Windows
from mlsh_ros.sim2real.gap import findings as say
from mlsh_ros.sim2real.gap.closed_loop_return import ClosedLoopReturn, closed_loop_returns
from mlsh_ros.sim2real.gap.comparison import compare_finer
from mlsh_ros.sim2real.gap.data_quality import (
    Drift,
    channels,
    out_of_distribution,
    saturation,
    timing,
)
from mlsh_ros.sim2real.gap.gap import Gap
from mlsh_ros.sim2real.gap.joints import angles
from mlsh_ros.sim2real.gap.measures import Measure, Trace, stale_shares, trace_of
from mlsh_ros.sim2real.gap.training_range import graphs_of, known_to, read_by
from mlsh_ros.sim2real.replay.open_loop_replay import OpenLoopReplay, open_loop_of
from mlsh_ros.sim2real.replay.prediction import Prediction
from mlsh_ros.sim2real.replay.residuals import AssumedRobot, Element, action_labels, element_names
from policies.bundle.bundle import Bundle
from sim.errors import UserError, listed
from sim.interface import Interface
from sim.randomization.schema import SimParams, load_sim_params

NO_RANGE = "the range of training is not compared: the bundle has imported skills alone"
LITTLE = 5.0  # s of driving that say little
PLOTTED = 8  # elements of which a window is drawn: the worst, then the first


def analyze(
    target: Target,
    bags: Sequence[Path],
    *,
    robot: str | None = None,
    sim_params: str = "",
    master: str | None = None,
    where: Where | None = None,
) -> Gap:
    """Compare recordings with the simulation.

    Args:
        target: the bundle that ran, or a robot, whatever drove it.
        bags: recordings.
        robot: the nominal one, name or folder; None: the target's.
        sim_params: in which it is simulated, name or file; empty: the nominal model.
        master: master that selected the skills; needed if a recording does not contain it.
        where: the robot's topics in a recording of another recorder.

    Raises:
        UserError: no recording can be used, or a name is unknown.
    """
    if master is not None:
        if not isinstance(target, Bundle):
            raise UserError(
                f"--master {master}: robot {target.name!r} has no master; give a bundle instead"
            )
        target.master(master)
    check_distinct(bags)
    loaded, notes = _load(target, bags, where)
    return analyze_signals(
        target,
        [_named(each.signals, master) for each in loaded],
        [each.replayed for each in loaded if each.replayed is not None],
        robot=robot,
        sim_params=sim_params,
        notes=notes,
    )


def _load(
    target: Target, bags: Sequence[Path], where: Where | None
) -> tuple[list[Loaded], list[str]]:
    loaded, notes = [], []
    for bag in bags:
        try:
            loaded.append(load(bag, target, where))
        except UserError as error:
            notes.append(f"{error}; left out")
            if len(bags) == 1:
                raise
    if not loaded:
        raise UserError("; ".join(notes))
    return loaded, notes


def _named(signals: Signals, master: str | None) -> Signals:
    if master is None:
        return signals
    sessions = [d if d.master else replace(d, master=master) for d in signals.sessions]
    others = dict.fromkeys(d.master for d in sessions if d.master != master)
    notes = [f"--master {master} is ignored: its recorded master is {name}" for name in others]
    return replace(signals, sessions=sessions, notes=[*signals.notes, *notes])


def analyze_signals(
    target: Target,
    signals: list[Signals],
    replayed: list[Result],
    *,
    robot: str | None = None,
    sim_params: str = "",
    notes: Sequence[str] = (),
) -> Gap:
    """`analyze` for signals that have been read already.

    Raises:
        UserError: nothing in it can be compared.
    """
    bundle = target if isinstance(target, Bundle) else None
    open_loop = _open_loop(target, signals, robot, sim_params)
    interface = open_loop.interface
    every_note = [*notes, *(f"{s.name}: {note}" for s in signals for note in s.notes)]
    skills = len(bundle.manifest.skills) if bundle else 0
    got = compare_finer(open_loop, signals, skills, every_note)
    open_loop, windows, restless, remarks = got.open_loop, got.windows, got.restless, got.notes
    elements, measures, causes = got.elements, got.measures, got.causes
    nominal, final, explained, model = got.nominal, got.final, got.explained, got.model
    own = {t.ros.topic for t in interface.observation if not t.mujoco.task}
    seconds = interface.control_dt * sum(len(s) for each in signals for s in each.segments())
    stale = stale_shares(windows, nominal, elements)
    lines = [channels(each, stale) for each in signals]
    ticks, work = timing(signals), saturation(signals)
    scores, seen = _trained(bundle, signals, open_loop, remarks.append)
    largest = np.abs(windows.command).max(axis=(0, 1)).tolist()
    ceilings = dict(zip(action_labels(interface), largest, strict=True))
    found = [
        *say.from_wraps(_wraps(interface, signals)),
        *say.from_causes(causes, ceilings),
        *say.from_channels(
            # In lockstep it is the recorder that lost messages, as a note says.
            [
                replace(c, lost=0.0) if each.lockstep else c
                for each, line in zip(signals, lines, strict=True)
                for c in line
                if c.topic in own
            ],
            causes,
        ),
        # Elsewhere the simulation tells an angle's scale: it does not begin anew all the time.
        *(say.from_angles(angles(interface, signals)) if restless else []),
        *say.from_measures(explained, ticks, interface.control_dt, restless=restless),
        *say.from_ticks(ticks, interface.control_dt),
        *say.from_range(seen, sparse=not scores),
        *(say.from_efforts(work, _usual(bundle, scores)) if bundle else []),
        *say.from_replay(replayed),
    ]
    found += say.from_score(scores, found)
    if bundle and not seen:
        remarks.append(NO_RANGE)
    remarks += _sparse(windows) if measures else []
    if never := [d.name for d in seen if d.outside is None]:
        remarks.append(
            f"never observed, and not compared with the range of training: {listed(never)}"
        )
    if seconds < LITTLE:
        remarks.append(
            f"only {seconds:.1f} s of driving are recorded, too little for certain results"
        )
    return Gap(
        target=target,
        robot=open_loop.robot,
        sim_params=sim_params,
        recordings=[s.name for s in signals],
        notes=remarks,
        findings=say.ranked(found),
        causes=causes,
        measures=measures,
        explained=explained,
        channels=lines,
        timing=ticks,
        saturation=work,
        out_of_distribution=seen,
        closed_loop_returns=scores,
        replayed=replayed,
        traces=_traces(measures, windows, nominal, final, open_loop, model),
        windows=windows.count,
        seconds=seconds,
    )


def _sparse(windows: Windows) -> list[str]:
    """Notes on terms of which some windows have no sample: nothing of them is compared there."""
    found = []
    for term, samples in windows.samples.items():
        there = len(np.unique(samples.window))
        if there < windows.count:
            found.append(f"{term} is compared in {there} of {windows.count} windows")
    return found


def _wraps(interface: Interface, signals: Sequence[Signals]) -> list[tuple[str, Wrap]]:
    names = {t.name: element_names(t) for t in interface.observation}
    return [(names[wrap.term][wrap.index], wrap) for each in signals for wrap in each.wraps]


def _open_loop(
    target: Target, signals: list[Signals], robot: str | None, sim_params: str
) -> OpenLoopReplay:
    body = nominal(target, robot)
    if not sim_params:
        return open_loop_of(target, signals, body)
    differs = load_sim_params(sim_params, body)
    interface = _noisy(target.interface, differs)
    return open_loop_of(target, signals, body, interface=interface, sim_params=differs)


def _trained(
    bundle: Bundle | None,
    signals: list[Signals],
    open_loop: OpenLoopReplay,
    note: Callable[[str], None],
) -> tuple[list[ClosedLoopReturn], list[Drift]]:
    """Returns the returns of the skills, and how far the robot left their training range."""
    if bundle is None:
        return [], []
    scores = closed_loop_returns(signals, bundle, open_loop, note)
    graphs = graphs_of(bundle)
    if not graphs:  # imported skills alone: no network says what training saw, or what it reads
        return scores, []
    # The golden rows are few; the simulation from the same starts sees what training saw there.
    known = [known_to(bundle, graphs), *(line.seen for line in scores)]
    return scores, out_of_distribution(signals, np.concatenate(known), read_by(graphs))


def _noisy(interface: Interface, sim_params: SimParams) -> Interface:
    """Returns the interface with the noise of a set of sim parameters added."""
    more = {name: sensor.noise[0] for name, sensor in sim_params.sensors.items()}
    terms = [
        replace(term, noise=tuple(np.hypot(term.noises, more.get(term.name, 0.0)).tolist()))
        for term in interface.observation
    ]
    return replace(interface, observation=tuple(terms))


def _usual(bundle: Bundle, scores: list[ClosedLoopReturn]) -> list[float]:
    """(A,) fraction of the actions cut by a limit, in simulation or else in the golden rows."""
    size = bundle.interface.action_size
    known = [line.action for line in scores] or [bundle.golden.action.reshape(-1, size)]
    share = bundle.interface.saturated(np.concatenate(known)).mean(axis=0)
    return [float(each) for each in share]


def _traces(
    measures: list[Measure],
    windows: Windows,
    nominal: Prediction,
    final: Prediction,
    open_loop: OpenLoopReplay,
    model: AssumedRobot,
) -> dict[str, tuple[Trace, Trace]]:
    moving = [m for m in measures if m.element.moves]
    mine: dict[str, list[Element]] = {}
    for m in measures:
        mine.setdefault(m.element.term, []).append(m.element)
    interface, found = open_loop.interface, {}
    for m in sorted(moving, key=lambda m: -m.nrmse)[:PLOTTED]:
        e, all_ = m.element, mine[m.element.term]
        found[e.name] = (
            trace_of(e, all_, windows, nominal, interface),
            trace_of(e, all_, windows, final, interface, model),
        )
    return found
