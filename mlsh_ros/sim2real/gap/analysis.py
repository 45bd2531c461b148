"""The analysis of `mlsh gap`: all measurements of recordings against their simulation."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlsh_ros.recording.replay import Result
from mlsh_ros.sim2real.data.recording_data import Loaded, Where, check_distinct, load
from mlsh_ros.sim2real.data.signals import Signals, Wrap, because
from mlsh_ros.sim2real.data.target import Subject, identity_of, nominal
from mlsh_ros.sim2real.data.windows import Plan, Windows, make_windows, merge, plan_for, subsample
from mlsh_ros.sim2real.gap import findings as say
from mlsh_ros.sim2real.gap.closed_loop_return import (
    ClosedLoopReturn,
    closed_loop_returns,
    interval,
)
from mlsh_ros.sim2real.gap.data_quality import (
    Channel,
    ChannelTiming,
    Drift,
    Saturation,
    channels,
    out_of_distribution,
    saturation,
    timing,
)
from mlsh_ros.sim2real.gap.findings import Finding
from mlsh_ros.sim2real.gap.hypotheses import CLEARER, MATERIAL, NATS, Hypothesis, Search, corrected
from mlsh_ros.sim2real.gap.joints import angles
from mlsh_ros.sim2real.gap.measures import (
    HORIZONS,
    SINCE,
    Measure,
    Trace,
    measure,
    stale_shares,
    trace_of,
)
from mlsh_ros.sim2real.gap.training_range import graphs_of, known_to, read_by
from mlsh_ros.sim2real.replay.late_commands import late_commands
from mlsh_ros.sim2real.replay.open_loop_replay import OpenLoopReplay, twin_of
from mlsh_ros.sim2real.replay.prediction import Prediction
from mlsh_ros.sim2real.replay.residuals import (
    SMALLEST,
    Element,
    Model,
    action_labels,
    element_names,
    elements_of,
)
from policies.bundle.bundle import Bundle
from sim.errors import UserError
from sim.interface import Floats, Interface
from sim.physics.robot_model import Robot
from sim.randomization.schema import SimParams, load_sim_params

SCHEMA = 2
NO_GAP = "no gap"
SHORT = 0.3  # s, windows of a robot that does not forget
# What is left of a nudge after a second, from where on it is such a robot: of a velocity, else.
LASTS, GROWS = 0.5, 1.5
STILL = 1e-3  # of an action's limits: commands that change less move nothing
LEAST = 1e-3  # in a term's unit: movement below which a robot without commands is at rest
LITTLE = 5.0  # s of driving that say little
PLOTTED = 8  # elements of which a window is drawn: the worst, then the first


@dataclass(frozen=True)
class Gap:
    """Result of the comparison."""

    subject: Subject  # a bundle, or a robot, whatever drove it
    robot: Robot  # the nominal one
    sim_params: str  # in which it was simulated, name or file; empty: the nominal model
    recordings: list[str]
    notes: list[str]  # what could not be used or compared
    findings: list[Finding]  # worst first
    causes: list[Hypothesis]
    measures: list[Measure]  # against the nominal simulation
    explained: list[Measure]  # against the simulation with all causes
    channels: list[list[Channel]]  # per recording
    timing: ChannelTiming
    saturation: list[Saturation]
    out_of_distribution: list[Drift]
    closed_loop_returns: list[ClosedLoopReturn]
    replayed: list[Result]
    traces: dict[str, tuple[Trace, Trace]]  # per element: nominal, and with all causes
    windows: int
    seconds: float  # of driving that were compared

    @property
    def name(self) -> str:
        """Name of the bundle or robot."""
        subject = self.subject
        return subject.manifest.name if isinstance(subject, Bundle) else subject.name

    @property
    def digest(self) -> str | None:
        """Digest of the bundle."""
        return self.subject.manifest.digest if isinstance(self.subject, Bundle) else None

    @property
    def skills(self) -> tuple[str, ...]:
        """Names of the bundle's skills; empty for a robot."""
        return self.subject.manifest.skills if isinstance(self.subject, Bundle) else ()

    @property
    def verdict(self) -> list[str]:
        """Findings in plain words, the most important first."""
        if self.findings:
            return [str(finding) for finding in self.findings]
        return [f"{NO_GAP} in what could be compared" if self.notes else NO_GAP]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with a versioned schema; unknown values are null."""
        data = {
            "schema": SCHEMA,
            "bundle": self.name if isinstance(self.subject, Bundle) else None,
            "digest": self.digest,
            "robot": self.robot.name,
            "nominal": identity_of(self.robot),
            "sim_params": self.sim_params or None,
            "recordings": self.recordings,
            "notes": self.notes,
            "verdict": self.verdict,
            "findings": [asdict(f) for f in self.findings],
            "compared": {"windows": self.windows, "seconds": self.seconds},
            "worst": self._worst(),
            "terms": {m.element.name: _measured(m, self.skills) for m in self.measures},
            "explained": {
                m.element.name: {"rmse": m.rmse, "nrmse": m.nrmse} for m in self.explained
            },
            "topics": [{c.topic: asdict(c) for c in each} for each in self.channels],
            "timing": asdict(self.timing),
            "action": {e.name: asdict(e) for e in self.saturation},
            "range": {d.name: asdict(d) for d in self.out_of_distribution},
            "tasks": {f"{e.task} {e.master}": _scored(e) for e in self.closed_loop_returns},
            "replay": {
                "ticks": sum(r.ticks for r in self.replayed),
                "decisions": sum(r.decisions for r in self.replayed),
                "different_ticks": sum(r.different_ticks for r in self.replayed),
                "different_decisions": sum(r.different_decisions for r in self.replayed),
                "unseen_ticks": sum(len(r.unseen) for r in self.replayed),
            },
        }
        return _plain(data)  # type: ignore[no-any-return]

    def _worst(self) -> dict[str, float | None]:
        """The largest number of each kind, for automatic checks."""
        every = [c for each in self.channels for c in each]
        errors = [m.nrmse for m in self.measures if not math.isnan(m.nrmse)]
        lags = [abs(m.lag) for m in self.measures if m.lag is not None]
        gains = [abs(m.gain - 1) for m in self.measures if m.gain is not None]
        losses = [
            -e.difference[0] / max(float(np.abs(e.simulation).mean()), 1e-12)
            for e in self.closed_loop_returns
            for e in self.closed_loop_returns
        ]
        return {
            "findings": float(len(self.findings)),
            "nrmse": max(errors, default=None),
            "lag": max(lags, default=None),
            "gain_error": max(gains, default=None),
            "stale": max((c.stale for c in every), default=None),
            "lost": max((c.lost for c in every), default=None),
            "outside": max((d.outside for d in self.out_of_distribution), default=None),
            "saturated": max((e.saturated for e in self.saturation), default=None),
            "lateness_p99": self.timing.lateness_p99,
            "return_loss": max(losses, default=None),
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


def _measured(m: Measure, skills: Sequence[str]) -> dict[str, Any]:
    whole = {
        key: getattr(m, key)
        for key in (
            "samples", "rmse", "usual", "nrmse", "bias", "gain", "gain_error", "lag",
            "correlation", "noise", "outliers",
        )
    }  # fmt: skip
    return whole | {
        "unit": m.element.unit,
        "movement": m.element.scale,
        "rmse_after": {f"{h:g}": v for h, v in zip(HORIZONS, m.horizons, strict=True)},
        "nrmse_by_skill": dict(zip(skills, m.by_skill, strict=True)),
        "nrmse_by_ticks_since_switch": {str(s): v for s, v in zip(SINCE, m.by_since, strict=True)},
    }


def _scored(e: ClosedLoopReturn) -> dict[str, Any]:
    mean, low, high = e.difference
    return {
        "drives": len(e.robot),
        "ticks": e.ticks,
        "robot_return": float(e.robot.mean()),
        "robot_return_95": interval(e.robot),
        "simulation_return": float(e.simulation.mean()),
        "simulation_return_95": interval(e.simulation),
        "difference": mean,
        "difference_95": (low, high),
        "robot_success": float(e.robot_success.mean()),
        "simulation_success": float(e.simulation_success.mean()),
    }


def _plain(data: Any) -> Any:
    """Replaces NaN and infinity, which JSON does not have."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data


# How it is found ------------------------------------------------------------------------------


def analyze(
    subject: Subject,
    bags: Sequence[Path],
    *,
    robot: str | None = None,
    sim_params: str = "",
    master: str | None = None,
    where: Where | None = None,
) -> Gap:
    """Compare recordings with the simulation.

    Args:
        subject: the bundle that ran, or a robot, whatever drove it.
        bags: recordings.
        robot: the nominal one, name or folder; None: the subject's.
        sim_params: in which it is simulated, name or file; empty: the nominal model.
        master: master that selected the skills; needed if a recording does not contain it.
        where: the robot's topics in a recording of another recorder.

    Raises:
        UserError: no recording can be used, or a name is unknown.
    """
    if master is not None and isinstance(subject, Bundle):
        subject.master(master)
    check_distinct(bags)
    loaded, notes = _load(subject, bags, where)
    return analyze_signals(
        subject,
        [_named(each.signals, master) for each in loaded],
        [each.replayed for each in loaded if each.replayed is not None],
        robot=robot,
        sim_params=sim_params,
        notes=notes,
    )


def _load(
    subject: Subject, bags: Sequence[Path], where: Where | None
) -> tuple[list[Loaded], list[str]]:
    loaded, notes = [], []
    for bag in bags:
        try:
            loaded.append(load(bag, subject, where))
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
    drives = [d if d.master else replace(d, master=master) for d in signals.drives]
    return replace(signals, drives=drives)


def analyze_signals(
    subject: Subject,
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
    bundle = subject if isinstance(subject, Bundle) else None
    twin = _twin(subject, signals, robot, sim_params)
    interface = twin.interface
    told = [*notes, *(f"{s.name}: {note}" for s in signals for note in s.notes)]
    skills = len(bundle.manifest.skills) if bundle else 0
    got = _stepped(twin, signals, skills, told)
    twin, windows, restless, told = got.twin, got.windows, got.restless, got.notes
    elements, measures, causes = got.elements, got.measures, got.causes
    nominal, final, explained, model = got.nominal, got.final, got.explained, got.model
    own = {t.ros.topic for t in interface.observation if not t.mujoco.task}
    seconds = interface.control_dt * sum(len(s) for each in signals for s in each.stretches())
    stale = stale_shares(windows, nominal, elements)
    lines = [channels(each, stale) for each in signals]
    ticks, work = timing(signals), saturation(signals)
    scores, seen = _trained(bundle, signals, twin)
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
    if seconds < LITTLE:
        told.append(f"only {seconds:.1f} s of driving: too little to be sure of anything")
    return Gap(
        subject=subject,
        robot=twin.robot,
        sim_params=sim_params,
        recordings=[s.name for s in signals],
        notes=told,
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
        traces=_traces(measures, windows, nominal, final, twin, model),
        windows=windows.count,
        seconds=seconds,
    )


def _wraps(interface: Interface, signals: Sequence[Signals]) -> list[tuple[str, Wrap]]:
    names = {t.name: element_names(t) for t in interface.observation}
    return [(names[wrap.term][wrap.index], wrap) for each in signals for wrap in each.wraps]


@dataclass(frozen=True)
class _Compared:
    """Recordings compared with one simulation, and the hypotheses that explain the difference."""

    twin: OpenLoopReplay
    windows: Windows
    restless: bool
    elements: list[Element]
    nominal: Prediction
    measures: list[Measure]
    causes: list[Hypothesis]
    model: Model  # with all causes
    final: Prediction
    explained: list[Measure]
    notes: list[str]

    @property
    def left(self) -> dict[str, float]:
        """Unexplained difference of each element that moves."""
        return {
            m.element.name: float(np.nan_to_num(m.usual if self.restless else m.rmse, nan=np.inf))
            for m in self.explained
            if m.element.moves
        }

    @property
    def settled(self) -> bool:
        """True if shorter physics steps could not explain significantly more."""
        if self.causes:
            return self.ticks * float(np.log(list(self._over(self.left).values())).sum()) < NATS
        sizes = {e.name: float(np.hypot(e.noise, MATERIAL * e.size)) for e in self.elements}
        return all(left <= sizes[name] for name, left in self.left.items())

    def clearer(self, than: _Compared) -> bool:
        """True if it fits the recording clearly better, or as well with fewer hypotheses."""
        before = than._over(than.left)
        after = than._over({name: left for name, left in self.left.items() if name in before})
        ratios = [before[name] / over for name, over in after.items()]
        nats = self.ticks * float(np.log(ratios).sum())
        fewer = len(than.causes) - len(self.causes)
        clear = np.hypot.reduce(list(after.values())) <= CLEARER * np.hypot.reduce(
            [before[name] for name in after]
        )
        return bool((clear or fewer > 0) and nats + NATS * fewer >= NATS)

    @property
    def ticks(self) -> int:
        """Number of compared ticks."""
        return self.windows.count * self.windows.plan.length

    def _over(self, left: dict[str, float]) -> dict[str, float]:
        """Unexplained difference of each element relative to its floor: 1 is none."""
        floors = {e.name: max(e.floor, SMALLEST) for e in self.elements}
        return {name: float(np.hypot(1, each / floors[name])) for name, each in left.items()}


def _stepped(
    twin: OpenLoopReplay, signals: list[Signals], skills: int, notes: Sequence[str]
) -> _Compared:
    """Compares the recordings with the simulation, or with one that has shorter physics steps.

    A real robot has no physics steps: if those of the model are long, their effect belongs to the
    model and is not a difference of the robot. A simulator has the model's steps. A fault can look
    like shorter steps while it is unexplained, so both are compared after their hypotheses. For a
    robot that amplifies small deviations, any change of the steps changes the motion, which is no
    evidence.
    """
    own = _compared(twin, signals, skills, notes)
    finer = twin if all(each.simulated or each.lockstep for each in signals) else twin.finer()
    if finer is twin or own.restless or own.settled:
        return own
    other = _compared(finer, signals, skills, notes)
    return other if other.clearer(own) else own


def _compared(
    twin: OpenLoopReplay, signals: list[Signals], skills: int, notes: Sequence[str]
) -> _Compared:
    told, interface = list(notes), twin.interface
    windows = _windows(signals, plan_for(interface), twin, told)
    memory = twin.memory(windows)
    restless = _restless(memory, twin)
    if restless:
        windows = _windows(signals, plan_for(interface, SHORT, 0.0), twin, told)
        memory = twin.memory(windows)
        told.append(
            "the robot does not forget where it was pushed: it is compared in short windows, and "
            "from the recorded velocities"
        )
    windows, nominal = _finite(windows, twin, told)
    elements = elements_of(interface, nominal, windows, memory, twin.model)
    if not elements:
        raise UserError(
            f"{', '.join(s.name for s in signals)}: no sensor of {interface.robot} is in it"
            f"{because(told)}"
        )
    if all(each.simulated and not each.lockstep for each in signals) and not restless:
        windows, late = late_commands(twin, windows, nominal, elements)
        if late:
            most = 1e3 * interface.physics_dt * max(each.steps for each in late)
            told.append(
                f"the simulator took {len(late)} of {sum(s.ticks for s in signals)} commands up "
                f"to {most:.0f} ms late, as it does on a busy computer: they are compared as they "
                "acted"
            )
            nominal = twin.follow(windows)
            elements = elements_of(interface, nominal, windows, memory, twin.model)
    skipped = {t.name for t in interface.observation if not t.mujoco.task}
    skipped -= {e.term for e in elements}
    if skipped:
        told.append(
            f"not compared, because not recorded or simulated: {', '.join(sorted(skipped))}"
        )
    told += _unmoved(windows, elements, interface, told)
    measures = measure(windows, nominal, elements, interface, skills)
    causes, model = Search(twin, windows, elements).causes()
    final, explained = nominal, measures
    if causes:
        final = twin.follow(corrected(windows, twin, model), model.change)
        explained = measure(windows, final, elements, interface, skills, model)
    return _Compared(
        twin, windows, restless, elements, nominal, measures, causes, model, final, explained, told
    )


def _windows(
    signals: list[Signals], plan: Plan, twin: OpenLoopReplay, notes: Sequence[str]
) -> Windows:
    windows = merge([make_windows(each, plan, twin.interface) for each in signals])
    if not windows.count:
        raise UserError(
            f"{', '.join(s.name for s in signals)}: no stretch of ticks is long enough to compare"
            f"{because(notes)}"
        )
    return windows


def _unmoved(
    windows: Windows, elements: list[Element], interface: Interface, notes: Sequence[str]
) -> list[str]:
    """Returns a note on elements that did not move.

    Raises:
        UserError: no element moved.
    """
    low, high = interface.limits
    told = bool((windows.command.std(axis=(0, 1)) > STILL * (high - low)).any())
    if not any(e.recorded > (0 if told else LEAST) or e.scale > LEAST for e in elements) or all(
        e.still for e in elements
    ):
        why = "neither did its model, whatever the commands"
        if not told:
            why = "its commands did not change"
        raise UserError(
            f"the robot did not move: {why}; record a drive with motion{because(notes)}"
        )
    still = ", ".join(e.name for e in elements if e.still)
    return [f"not compared, because it did not move: {still}"] if still else []


def _restless(memory: dict[str, Floats], twin: OpenLoopReplay) -> bool:
    """True if a simulation from a slightly wrong state diverges from the true one."""
    units = {term.name: term.unit for term in twin.interface.observation}
    return any(
        bool((np.abs(kept) > (LASTS if units[name].endswith("/s") else GROWS)).any())
        for name, kept in memory.items()
    )


def _twin(
    subject: Subject, signals: list[Signals], robot: str | None, sim_params: str
) -> OpenLoopReplay:
    body = nominal(subject, robot)
    if not sim_params:
        return twin_of(subject, signals, body)
    differs = load_sim_params(sim_params, body)
    interface = _noisy(subject.interface, differs)
    return twin_of(subject, signals, body, interface=interface, sim_params=differs)


def _trained(
    bundle: Bundle | None, signals: list[Signals], twin: OpenLoopReplay
) -> tuple[list[ClosedLoopReturn], list[Drift]]:
    """Returns the returns of the skills, and how far the robot left their training range."""
    if bundle is None:
        return [], []
    scores = closed_loop_returns(signals, bundle, twin)
    graphs = graphs_of(bundle)
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


def _finite(
    windows: Windows, twin: OpenLoopReplay, notes: list[str]
) -> tuple[Windows, Prediction]:
    """Returns the windows in which the simulation does not diverge."""
    nominal = twin.follow(windows)
    good = np.ones(windows.count, bool)
    for name, values in list(nominal.values.items()):
        finite = np.isfinite(values).all(axis=(1, 2))
        # What a family makes of fields that were not recorded is not known.
        if not finite.any() and any(t.name == name for t in twin.family.terms):
            del nominal.values[name]
        else:
            good &= finite
    if good.all():
        return windows, nominal
    if not good.any():
        raise UserError(
            "the simulation fails in every window: is this the robot's model? " + "; ".join(notes)
        )
    notes.append(
        f"{(~good).sum()} of {windows.count} windows left out: the simulation fails there"
    )
    return _finite(subsample(windows, np.flatnonzero(good)), twin, notes)


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
    twin: OpenLoopReplay,
    model: Model,
) -> dict[str, tuple[Trace, Trace]]:
    moving = [m for m in measures if m.element.moves]
    mine: dict[str, list[Element]] = {}
    for m in measures:
        mine.setdefault(m.element.term, []).append(m.element)
    interface, found = twin.interface, {}
    for m in sorted(moving, key=lambda m: -m.nrmse)[:PLOTTED]:
        e, all_ = m.element, mine[m.element.term]
        found[e.name] = (
            trace_of(e, all_, windows, nominal, interface),
            trace_of(e, all_, windows, final, interface, model),
        )
    return found
