"""Numbers of the physics steps that the sensors of a simulator in real time show."""

from __future__ import annotations

import numpy as np

from mlsh_ros.sim2real.data.signals import PAUSE, Signals, SignalStream
from mlsh_ros.sim2real.data.tick_moments import NANO, Ints
from sim.interface import Floats

SAME_STAMP = 1000  # ns; a float64 of seconds since 1970 differs by up to 240 ns
MADE_UP = 2.0  # s; sim_node makes up for one second at most
SLOW = 0.95  # of the physics steps of real time: below, a note says so


def step_numbers(signals: Signals, shown: Ints) -> Ints | None:
    """(n,) numbers of the physics steps after which sensors were stamped.

    The simulator sends sensors after every step, and says after which one it first applied a
    command. In between the steps are counted; where the recorder lost some, the longest times
    between two stamps are those of the steps in between. A simulator on a busy computer may be
    slower than real time for a while, so that times alone do not tell one from the other.

    Args:
        signals: of the recording.
        shown: (n,) ns, different stamps in ascending order.

    Returns:
        None if the simulator does not say it, not of these sensors, or of more steps than the
        recorder can have lost within a segment.
    """
    moment, step = signals.applied_moment, signals.applied_step
    if not len(shown) or not len(moment) or (np.diff(moment) < 0).any():
        return None
    place = np.searchsorted(shown, moment - SAME_STAMP)
    known = place < len(shown)
    known[known] = np.abs(shown[place[known]] - moment[known]) <= SAME_STAMP
    place, step = place[known], step[known]
    if not len(place) or (np.diff(place) < 1).any():
        return None
    missing = np.diff(step) - np.diff(place)
    # A file may say any number: more steps than a pause that ends a segment has are none.
    if (missing < 0).any() or (missing * signals.interface.physics_dt > PAUSE).any():
        return None
    steps = np.ones(len(shown) - 1, np.int64)  # from each stamp to the next one
    for j in np.flatnonzero(missing):
        gaps = np.diff(shown[place[j] : place[j + 1] + 1])
        steps[place[j] : place[j + 1]] = _shared(gaps, int(step[j + 1] - step[j]))
    numbers = np.concatenate([[0], np.cumsum(steps)])
    return np.asarray(numbers + step[0] - numbers[place[0]])


def _shared(gaps: Ints, steps: int) -> Ints:
    """(n,) physics steps in each of n times between stamps, at least one, `steps` in all."""
    shares = np.ones(len(gaps), np.int64)
    for _ in range(steps - len(gaps)):
        shares[np.argmax(gaps / (shares + 1))] += 1
    return shares


def share_lost(signals: Signals, stream: SignalStream) -> float | None:
    """Share of the messages of a topic that a simulator in real time sent but are not recorded.

    None if it does not say how many there were, or the messages of the topic have no stamps.
    """
    moment, step = signals.applied_moment, signals.applied_step
    if len(moment) < 2 or (np.diff(moment) < 0).any() or not (stream.moment > 0).all():
        return None
    place = np.searchsorted(np.sort(stream.moment), moment + SAME_STAMP, side="right")
    steps, times = np.diff(step), np.diff(moment) * NANO
    # Not across a simulator that was started again, which counts from 0, nor with a number that
    # cannot be.
    within = (steps > 0) & (steps * signals.interface.physics_dt < times + MADE_UP)
    every, count = int(steps[within].sum()), int(np.diff(place)[within].sum())
    return max(every - count, 0) / every if every > 0 else None


def slower(signals: Signals) -> list[str]:
    """Reports a simulator in real time that made fewer physics steps than real time has."""
    moment, step = signals.applied_moment, signals.applied_step
    if len(moment) < 2:
        return []
    steps, times = np.diff(step), np.diff(moment) * NANO
    # In a longer pause a simulator may be stopped, and one that is started again counts from 0.
    driven = (times < PAUSE) & (steps > 0)
    made, passed = int(steps[driven].sum()), times[driven].sum() / signals.interface.physics_dt
    if not 0 < made < SLOW * passed:
        return []
    return [
        f"the simulator made {made} physics steps where real time has {passed:.0f}: the computer "
        "is too slow or busy; times are counted in its steps"
    ]


def due_times(received: Floats, numbers: Ints, step: float) -> Floats:
    """(n,) s, when these physics steps would have been due, if none of them came too early."""
    times = step * (numbers - numbers[0]).astype(np.float64)
    return np.asarray(times + (received - times).min())
