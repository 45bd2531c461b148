"""Compares recordings with a simulation, and explains the difference by hypotheses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlsh_ros.sim2real.data.signals import Signals, because
from mlsh_ros.sim2real.data.window_plan import WindowPlan, plan_for
from mlsh_ros.sim2real.data.windows import Windows, make_windows, merge, subsample
from mlsh_ros.sim2real.gap.candidates import CLEARER, MATERIAL, NATS, corrected
from mlsh_ros.sim2real.gap.hypotheses import Hypothesis, Search
from mlsh_ros.sim2real.gap.measures import Measure, measure
from mlsh_ros.sim2real.replay.open_loop_replay import OpenLoopReplay
from mlsh_ros.sim2real.replay.prediction import Prediction
from mlsh_ros.sim2real.replay.residuals import SMALLEST, AssumedRobot, Element, elements_of
from sim.errors import UserError, listed
from sim.interface import Interface

SHORT = 0.3  # s, windows of a robot that does not forget
LEAST = 1e-3  # in a term's unit: movement below which a robot without commands is at rest


@dataclass(frozen=True)
class Compared:
    """Recordings compared with one simulation, and the hypotheses that explain the difference."""

    open_loop: OpenLoopReplay
    windows: Windows
    restless: bool
    elements: list[Element]
    nominal: Prediction
    measures: list[Measure]
    causes: list[Hypothesis]
    model: AssumedRobot  # with all causes
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

    def clearer(self, than: Compared) -> bool:
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


def compare_finer(
    open_loop: OpenLoopReplay, signals: list[Signals], skills: int, notes: Sequence[str]
) -> Compared:
    """Compares the recordings with the simulation, or with one that has shorter physics steps.

    A real robot has no physics steps: if those of the model are long, their effect belongs to the
    model and is not a difference of the robot. A simulator has the model's steps. A fault can look
    like shorter steps while it is unexplained, so both are compared after their hypotheses. For a
    robot that amplifies small deviations, any change of the steps changes the motion, which is no
    evidence.
    """
    own = _compared(open_loop, signals, skills, notes)
    finer = (
        open_loop
        if all(each.simulated or each.lockstep for each in signals)
        else open_loop.finer()
    )
    if finer is open_loop or own.restless or own.settled:
        return own
    other = _compared(finer, signals, skills, notes)
    if not other.elements:
        return own
    return other if other.clearer(own) else own


def _compared(
    open_loop: OpenLoopReplay, signals: list[Signals], skills: int, earlier: Sequence[str]
) -> Compared:
    notes, interface = list(earlier), open_loop.interface
    windows = windows_of(signals, plan_for(interface), open_loop, notes)
    memory = open_loop.memory(windows)
    restless = open_loop.amplifies(memory)
    if restless:
        windows = windows_of(signals, plan_for(interface, SHORT, 0.0), open_loop, notes)
        memory = open_loop.memory(windows)
    windows, nominal = _finite(windows, open_loop, notes)
    elements = elements_of(interface, nominal, windows, memory, open_loop.model)
    if not elements:
        raise UserError(
            f"{', '.join(s.name for s in signals)}: no sensor of robot {interface.robot} is "
            f"recorded{because(notes)}"
        )
    skipped = {t.name for t in interface.observation if not t.mujoco.task}
    skipped -= {e.term for e in elements}
    if skipped:
        notes.append(
            f"not compared, because not recorded or simulated: {', '.join(sorted(skipped))}"
        )
    notes += _unmoved(windows, elements, interface, notes)
    if unseen := open_loop.undetermined(windows):
        notes.append(
            "the motion is not compared: it depends on the velocity of "
            f"{listed(unseen)}, which no recorded sensor shows; it needs a term in robot.yaml, "
            "which may have policy_input: false"
        )
        elements = []
    elif restless:
        notes.append(
            "small errors of the robot's state grow or persist: it is compared in short windows, "
            "which begin with the recorded velocities"
        )
    measures = measure(windows, nominal, elements, interface, skills)
    causes, model = Search(open_loop, windows, elements).causes()
    final, explained = nominal, measures
    if causes:
        final = open_loop.follow(corrected(windows, open_loop, model), model.change)
        explained = measure(windows, final, elements, interface, skills, model)
    return Compared(
        open_loop,
        windows,
        restless,
        elements,
        nominal,
        measures,
        causes,
        model,
        final,
        explained,
        notes,
    )


def windows_of(
    signals: list[Signals], plan: WindowPlan, open_loop: OpenLoopReplay, notes: Sequence[str]
) -> Windows:
    """Returns the windows of all recordings.

    Raises:
        UserError: there is none.
    """
    windows = merge([make_windows(each, plan, open_loop.interface) for each in signals])
    if not windows.count:
        raise UserError(
            f"{', '.join(s.name for s in signals)}: no segment of ticks is long enough to compare"
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
    commanded = windows.has_changing_commands(interface)
    if not any(
        e.recorded > (0 if commanded else LEAST) or e.scale > LEAST for e in elements
    ) or all(e.still for e in elements):
        why = "neither does its simulation with the same commands"
        if not commanded:
            why = "its commands did not change"
        raise UserError(
            f"the robot did not move: {why}; record a drive with motion{because(notes)}"
        )
    still = ", ".join(_names([e for e in elements if e.still], elements))
    return [f"not compared, because it did not move: {still}"] if still else []


def _names(some: Sequence[Element], elements: Sequence[Element]) -> list[str]:
    """Returns the names of elements, or that of their term if they are all that it has."""
    count = Counter(e.term for e in elements)
    whole = {term for term, n in Counter(e.term for e in some).items() if n == count[term]}
    return list(dict.fromkeys(e.term if e.term in whole else e.name for e in some))


def _finite(
    windows: Windows, open_loop: OpenLoopReplay, notes: list[str]
) -> tuple[Windows, Prediction]:
    """Returns the windows in which the simulation does not diverge."""
    nominal = open_loop.follow(windows)
    good = np.ones(windows.count, bool)
    for name, values in list(nominal.values.items()):
        finite = np.isfinite(values).all(axis=(1, 2))
        # What a family makes of fields that were not recorded is not known.
        if not finite.any() and any(t.name == name for t in open_loop.family.terms):
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
    return _finite(subsample(windows, np.flatnonzero(good)), open_loop, notes)
