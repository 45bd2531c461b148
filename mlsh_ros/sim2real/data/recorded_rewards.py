"""Rewards of recorded ticks: a task's own for the recorded sensors, or the numbers of a topic."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from mlsh_ros.messages.conversion import LARGEST, OTHER, MessageError
from mlsh_ros.messages.labeled_array import OUTCOME
from mlsh_ros.messages.topics import OUTCOME as OUTCOME_TOPIC
from mlsh_ros.recording.bag_reader import Entry
from mlsh_ros.sim2real.data.episode_layout import layout_of
from mlsh_ros.sim2real.data.signals import Segment, Signals
from mlsh_ros.sim2real.data.tick_moments import NANO, Ints
from mlsh_ros.sim2real.data.windows import fields_of
from policies.bundle.bundle import Bundle
from policies.bundle.task_compatibility import resolve_task
from sim.errors import UserError
from sim.interface import Floats
from sim.tasks.family_calls import FamilyCalls
from sim.tasks.task_id import TaskId

NUMBERS = ("std_msgs/msg/Float32", "std_msgs/msg/Float64")  # types of a reward
# Rewards (T - 1,) of the ticks of a segment but the last, and if the task ended it there; or (T,)
# if it is known that the task ended with the last.
Reward = Callable[[Segment], tuple[Floats, bool]]


def reward_in(entry: Entry, message: Any) -> float:
    """Returns the reward in a message of a topic of rewards.

    Raises:
        UserError: it is of another type, or not finite.
    """
    try:
        if entry.topic == OUTCOME_TOPIC:
            value = OUTCOME.read(message)[0]["reward"]
        elif entry.type in NUMBERS:
            value = float(message.data)
        else:
            raise MessageError(f"it is a {entry.type}; {' or '.join(NUMBERS)} is expected")
    except OTHER as error:
        raise UserError(f"--reward-topic {entry.topic}: {error}") from None
    if not abs(value) <= LARGEST:  # nan too
        raise UserError(f"--reward-topic {entry.topic}: a reward is {value}")
    return value


def reward_of_task(signals: Signals, where: str, bundle: Bundle, task: TaskId) -> Reward:
    """Returns the task's reward for the state that the next tick observed.

    Args:
        signals: of a recording.
        where: names it in errors.
        bundle: whose robot was recorded.
        task: any, whatever the recorded master was for.

    Raises:
        UserError: by the result, where the sensors do not show what the reward depends on.
    """
    family, number = resolve_task(bundle, task)
    calls = FamilyCalls(family)

    def reward(segment: Segment) -> tuple[Floats, bool]:
        fields = fields_of(signals, segment)
        lost = [name for name, values in fields.items() if np.isnan(values).any()]
        needed = {*family.requires, *(term.name for term in family.terms)}
        if missing := sorted(needed.intersection(lost)):
            raise UserError(
                f"{where}: the reward of {task} needs {', '.join(missing)}, of which no message "
                f"came before tick {segment.session.tick[segment.begin]} of session "
                f"{segment.session.number}; give --reward-topic"
            )
        layout = layout_of(family, number, fields)
        if layout is None:
            raise UserError(
                f"{where}: the reward of {task} cannot be computed from recorded sensors; give "
                "--reward-topic"
            )
        after = {name: values[1:] for name, values in fields.items()}
        begun = {
            name: np.repeat(row[:1], len(segment) - 1, axis=0) for name, row in layout.items()
        }
        ended = bool(calls.terminated(begun, after)[-1])
        return np.asarray(calls.reward(begun, after), np.float64), ended

    return reward


def reward_by_reception(time: Floats, value: Floats) -> Reward:
    """Returns the sum of what was received between the trace of a tick and that of the next one.

    Args:
        time: (n,) s on the scale of the signals, when each message was received.
        value: (n,) its number.
    """

    def reward(segment: Segment) -> tuple[Floats, bool]:
        begin = segment.session.received[segment.begin : segment.end]
        tick = np.searchsorted(begin, time, side="right") - 1
        inside = (tick >= 0) & (tick < len(begin) - 1)
        total = np.zeros(len(begin) - 1)
        np.add.at(total, tick[inside], value[inside])
        return total, False

    return reward


def reward_by_stamp(signals: Signals, where: str, limit: int) -> Reward:
    """Returns what sim_node said in lockstep of each tick, whenever it was received.

    There simulation and control do not follow a clock: an outcome is often received before the
    trace of its own tick.

    Args:
        signals: of a recording in lockstep.
        where: names it in errors.
        limit: ticks after which an episode is over; where one ends before, the task ended it.

    Raises:
        UserError: messages were recorded so late that their order does not tell the ticks, or
            later, by the result, that of a tick there is no outcome.
    """
    period = round(signals.interface.control_dt / NANO)
    answered = _answered(signals, where, period)
    rows = np.argsort(answered, kind="stable")
    answered, outcome = answered[rows], signals.outcome[rows]
    _, number, value, _, done = outcome.T
    ended = (done != 0) & (number + 1 < limit)

    def reward(segment: Segment) -> tuple[Floats, bool]:
        session, part = segment.session, slice(segment.begin, segment.end)
        moment, tick = session.moment[part], session.tick[part]
        known = np.flatnonzero(moment >= 0)
        # Within an episode of the simulator a tick is a period.
        begin = moment[known[0]] - tick[known[0]] * period if len(known) else 0
        due = begin + tick * period
        at = np.searchsorted(answered, due - period // 2)
        found = at < len(answered)
        found[found] = np.abs(answered[at[found]] - due[found]) < period // 2
        if not (len(known) and found[:-1].all()):
            first = tick[~found][0] if len(known) else tick[0]
            raise UserError(
                f"{where}: {OUTCOME_TOPIC} has no reward of tick {first} of session "
                f"{session.number}"
            )
        if found[-1] and ended[at[-1]]:
            return value[at], True
        return value[at[:-1]], False

    return reward


def _answered(signals: Signals, where: str, period: int) -> Ints:
    """(n,) stamp (ns) of the sensors that each simulated tick of the outcomes began from.

    An outcome tells the tick of its episode, and sim_node sends it between the sensors before and
    those after that tick. When an episode began is what most of its outcomes agree on.
    """
    order = signals.outcome_order
    before = np.full(len(order), -1, np.int64)
    for stream in signals.streams:
        place = np.searchsorted(stream.order, order) - 1
        before = np.maximum(before, np.where(place >= 0, stream.moment[place], -1))
    episode, tick = signals.outcome[:, 0], signals.outcome[:, 1].astype(np.int64)
    begin = before - tick * period
    new = (np.diff(episode) != 0) | (np.diff(tick) <= 0)
    edges = [0, *(np.flatnonzero(new) + 1).tolist(), len(order)]
    for a, b in itertools.pairwise(edges):
        own = begin[a:b]
        middle = np.sort(own)[len(own) // 2]
        if 2 * np.count_nonzero(np.abs(own - middle) < period // 2) <= len(own):
            raise UserError(
                f"{where}: the recorder fell behind, so that the outcomes of episode "
                f"{int(episode[a])} cannot be assigned to ticks"
            )
        begin[a:b] = middle
    return begin + tick * period
