"""Estimates commands that a simulator applied late on a busy computer.

If a command reaches sim_node after the physics step that should apply it, the previous command
stays in force for some more steps. That is a fault neither of the robot nor of its model. Each
late command is found by simulating it: it counts only if the simulation then matches the
recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlsh_ros.sim2real.data.windows import Windows
from mlsh_ros.sim2real.replay.open_loop_replay import NOMINAL, OpenLoopReplay
from mlsh_ros.sim2real.replay.prediction import Prediction
from mlsh_ros.sim2real.replay.residuals import Element
from sim.interface import Floats

FEW = 0.25  # of the windows, at most: what is in more of them is no accident
MOST = 8  # windows that are looked at
EACH = 4  # commands of one window
OFF = 0.05  # of an element's movement: a window, or a sample, that is further away
CURED = 0.3  # of a window's error: what a late command has to leave at most


@dataclass(frozen=True)
class Late:
    """A command that was applied late."""

    window: int
    step: int  # physics step of the window that should have been the first to apply it
    steps: int  # by how many it was later


def late_commands(
    open_loop: OpenLoopReplay, windows: Windows, nominal: Prediction, elements: Sequence[Element]
) -> tuple[Windows, list[Late]]:
    """Returns the windows with their commands as applied, and the late ones among them.

    Nothing is changed where more than a few windows differ, or where late commands leave any of
    them different.
    """
    used = [e for e in elements if e.moves and not (e.remembers or e.angle or e.quaternion)]
    if not used:
        return windows, []
    errors = np.array([_error(windows, nominal, used, w, w) for w in range(windows.count)])
    off = np.flatnonzero(errors > OFF)
    if not 0 < len(off) <= min(FEW * windows.count, MOST):
        return windows, []
    states, command = open_loop.states(windows), windows.command.copy()
    found: list[Late] = []
    for window in off.tolist():
        mine = _late_in(open_loop, windows, states[[window]], used, window)
        if not mine:
            return windows, []
        found += mine
        for late in mine:
            command[window] = _later(command[window], late.step, late.steps)
    return replace(windows, command=command), found


def _late_in(
    open_loop: OpenLoopReplay,
    windows: Windows,
    state: Floats,
    used: Sequence[Element],
    window: int,
) -> list[Late]:
    """Returns the late commands of one window; empty if they do not explain it."""
    command = windows.command[window]
    found: list[Late] = []
    for _ in range(EACH):
        now = _simulated(open_loop, windows, state, window, command[None])
        error = _error(windows, now, used, window, 0)
        if error <= OFF:
            return found
        step = _onset(windows, now, used, window, open_loop.interface.substeps)
        changes = np.flatnonzero((np.diff(command, axis=0) != 0).any(axis=1)) + 1
        tried = [
            (int(at), steps)
            for at in changes[changes < step][-2:]
            for steps in range(1, open_loop.interface.substeps + 1)
        ]
        if not tried:
            return []
        commands = np.array([_later(command, *each) for each in tried])
        prediction = _simulated(open_loop, windows, state, window, commands)
        left = [_error(windows, prediction, used, window, i) for i in range(len(tried))]
        best = int(np.argmin(left))
        if left[best] > CURED * error:
            return []
        found.append(Late(window, *tried[best]))
        command = commands[best]
    return []


def _later(command: Floats, step: int, steps: int) -> Floats:
    """(S, A) commands with the one of a step delayed by the given number of steps."""
    changed: Floats = command.copy()
    changed[step : step + steps] = command[step - 1]
    return changed


def _simulated(
    open_loop: OpenLoopReplay, windows: Windows, state: Floats, window: int, commands: Floats
) -> Prediction:
    """Simulates one window under several commands (C, S, A)."""
    one = np.full(len(commands), window)
    same = replace(
        windows,
        segment=windows.segment[one],
        begin=windows.begin[one],
        rest=windows.rest[one],
        previous=np.full(len(commands), -1),
        command=commands,
        skill=windows.skill[one],
        start={name: values[one] for name, values in windows.start.items()},
        samples={},
    )
    return open_loop.run(same, np.repeat(state, len(commands), axis=0), (NOMINAL,))


def _differences(
    windows: Windows, prediction: Prediction, used: Sequence[Element], window: int, row: int
) -> tuple[Floats, list[Floats]]:
    """Times in ticks, and the difference of each element relative to its movement."""
    time, found = np.zeros(0), []
    for element in used:
        samples = windows.samples[element.term]
        mine = samples.window == window
        time = samples.time[mine]
        shown = prediction.at(element.term, np.full(len(time), row, np.int64), time)
        off = samples.values[mine][:, element.index] - shown[:, element.index]
        found.append(np.abs(off) / element.size)
    return time, found


def _error(
    windows: Windows, prediction: Prediction, used: Sequence[Element], window: int, row: int
) -> float:
    """Largest RMS difference of all elements; 0 without measurements."""
    _, found = _differences(windows, prediction, used, window, row)
    return max((float(np.sqrt(np.mean(off**2))) for off in found if len(off)), default=0.0)


def _onset(
    windows: Windows, prediction: Prediction, used: Sequence[Element], window: int, substeps: int
) -> int:
    """The physics step of the window after which an element first deviates."""
    first = []
    for element in used:
        time, (off,) = _differences(windows, prediction, [element], window, 0)
        if (off > OFF).any():
            first.append(float(time[off > OFF].min()))
    return round((windows.plan.before + min(first)) * substeps) if first else 0
