"""Episodes of decisions, with rewards, from recordings: what a master can be learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.messages.conversion import LARGEST, OTHER, MessageError
from mlsh_ros.messages.labeled_array import OUTCOME
from mlsh_ros.messages.topics import OUTCOME as OUTCOME_TOPIC
from mlsh_ros.recording.bag_reader import Entry, Recording
from mlsh_ros.sim2real.data.episode_layout import layout_of
from mlsh_ros.sim2real.data.recording_data import check_distinct
from mlsh_ros.sim2real.data.signal_listener import Listener
from mlsh_ros.sim2real.data.signals import Segment, Signals
from mlsh_ros.sim2real.data.tick_moments import NANO
from mlsh_ros.sim2real.data.windows import fields_of
from policies.bundle.bundle import Bundle
from policies.bundle.task_compatibility import resolve_task
from policies.offpolicy.replay import Episode
from sim.errors import UserError, listed
from sim.interface import Floats
from sim.tasks.task_id import TaskId

NUMBERS = ("std_msgs/msg/Float32", "std_msgs/msg/Float64")  # types of a reward
# Rewards (T - 1,) of the ticks of a segment but the last, and if the task ended it there.
Reward = Callable[[Signals, Segment], tuple[Floats, bool]]


@dataclass(frozen=True)
class _Recorded:
    """One recording."""

    file: Path
    signals: Signals
    time: Floats  # (n,) s, on the scale of the signals, when each reward was received ..
    reward: Floats  # (n,) .. and its value

    def error(self, text: str) -> UserError:
        """Returns an error that names the recording."""
        return UserError(f"recording {self.file}: {text}")


def read_episodes(
    paths: Sequence[Path],
    bundle: Bundle,
    tasks: Sequence[TaskId],
    reward_topic: str | None = None,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> list[list[Episode]]:
    """Read the episodes of recordings, once for each task.

    An episode is a session of skill_node, or what is left of it between gaps and resets of a
    simulator. The reward of a tick is the task's for the state that the next tick observed, or the
    sum of what came on `reward_topic` until then. The last tick of an episode has none.

    Args:
        paths: made by recorder_node, with the skills of `bundle`.
        bundle: whose skills ran.
        tasks: whose rewards are computed; any, whatever the recorded master was for.
        reward_topic: a topic of numbers in place of the task's reward, for a single task.
        note: called with a line for each thing that a recording lacks.

    Returns:
        Episodes of each task, with observations (H + 1, O) that are not normalized.

    Raises:
        UserError: a recording is of other skills, or has no decisions, or not what the reward
            needs.
    """
    if reward_topic is not None and len(tasks) > 1:
        raise UserError(
            f"--reward-topic {reward_topic}: one reward for {len(tasks)} tasks, {tasks[0]} to "
            f"{tasks[-1]}; give one task"
        )
    check_distinct(paths)
    recordings = [_read(path, bundle, reward_topic, note) for path in paths]
    found = []
    for task in tasks:
        episodes = []
        for recorded in recordings:
            reward = _reward_of(recorded, bundle, task, given=reward_topic is not None)
            for segment in recorded.signals.segments():
                episode = _episode(recorded.signals, segment, bundle, reward)
                episodes += [] if episode is None else [episode]
        found.append(episodes)
    return found


def _read(
    path: Path, bundle: Bundle, reward_topic: str | None, note: Callable[[str], None]
) -> _Recorded:
    recording = Recording(path)
    _check_skills(recording, bundle)
    listener = Listener(recording.bound(bundle).interface)
    topic = None if reward_topic is None else reward_topic.lstrip("/")
    origin: int | None = None
    rewards: list[tuple[int, float]] = []
    seen: set[str] = set()

    def wanted(name: str, relative: str) -> bool:
        seen.add(name)
        return relative in listener.topics or topic in (name.lstrip("/"), relative.lstrip("/"))

    for entry in recording.entries(
        lambda each: wanted(each.name, each.relative_name or each.name)
    ):
        message = recording.message(entry)
        if topic in (entry.topic.lstrip("/"), entry.source.name.lstrip("/")):
            rewards.append((entry.received, _number(entry, message)))
        if entry.topic in listener.topics:
            origin = entry.received if origin is None else origin
            listener.take(entry.topic, entry.type, entry.received, message)
    where = f"recording {recording.file}"
    if reward_topic is not None and not rewards:
        names = listed(sorted(seen), most=200) or "none"
        raise UserError(f"{where}: no message of --reward-topic {reward_topic}. Topics: {names}")
    signals = listener.finish(recording.file.name, recording.about.get("mode", ""))
    cut = [f"it breaks off ({recording.cut}); what comes before is used"] if recording.cut else []
    for text in (*cut, *signals.notes):
        note(f"note: {where}: {text}")
    if not all(session.traced for session in signals.sessions):
        raise UserError(f"{where}: no decision is in it, which the traces of skill_node tell")
    return _Recorded(
        file=recording.file,
        signals=signals,
        time=np.array([received - (origin or 0) for received, _ in rewards]) * NANO,
        reward=np.array([value for _, value in rewards]),
    )


def _check_skills(recording: Recording, bundle: Bundle) -> None:
    """Refuse a recording of other skills, or of other times of decision.

    Raises:
        UserError: names the recorded bundle and what differs.
    """
    own, ran = bundle.manifest.to_dict(), recording.manifest
    recording.check_robot(bundle.interface.robot)
    hashes = [own["files"][name] for name in bundle.manifest.skill_files]
    files = ran.get("files")
    recorded = (
        [files.get(n) for n in bundle.manifest.skill_files] if isinstance(files, dict) else []
    )
    for what, same in (
        ("skills", recorded == hashes and ran.get("skills") == own["skills"]),
        *((key, ran.get(key) == own[key]) for key in ("decision_ticks", "decision_lead")),
        ("interface", ran.get("interface") == own["interface"]),
    ):
        if not same:
            raise UserError(
                f"recording {recording.file}: bundle {recording.about.get('bundle')!r} ran, whose "
                f"{what} are not those of bundle {bundle.manifest.name!r}: of these it tells "
                "nothing"
            )


def _number(entry: Entry, message: Any) -> float:
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


def _reward_of(recorded: _Recorded, bundle: Bundle, task: TaskId, *, given: bool) -> Reward:
    """Returns the task's reward from recorded sensors, or with `given` the recorded one."""
    family, number = resolve_task(bundle, task)

    def computed(signals: Signals, segment: Segment) -> tuple[Floats, bool]:
        fields = fields_of(signals, segment)
        lost = [name for name, values in fields.items() if np.isnan(values).any()]
        needed = {*family.requires, *(term.name for term in family.terms)}
        if missing := sorted(needed.intersection(lost)):
            raise recorded.error(
                f"the reward of {task} needs {', '.join(missing)}, of which no message came "
                f"before tick {segment.session.tick[segment.begin]} of session "
                f"{segment.session.number}; give --reward-topic"
            )
        layout = layout_of(family, number, fields)
        if layout is None:
            raise recorded.error(
                f"the reward of {task} cannot be computed from recorded sensors; give "
                "--reward-topic"
            )
        after = {name: values[1:] for name, values in fields.items()}
        begun = {
            name: np.repeat(row[:1], len(segment) - 1, axis=0) for name, row in layout.items()
        }
        ended = bool(family.terminated(begun, after)[-1])
        return np.asarray(family.reward(begun, after), np.float64), ended

    def published(signals: Signals, segment: Segment) -> tuple[Floats, bool]:
        begin = segment.session.received[segment.begin : segment.end]
        tick = np.searchsorted(begin, recorded.time, side="right") - 1
        inside = (tick >= 0) & (tick < len(begin) - 1)
        total = np.zeros(len(begin) - 1)
        np.add.at(total, tick[inside], recorded.reward[inside])
        return total, False

    return published if given else computed


def _episode(signals: Signals, segment: Segment, bundle: Bundle, reward: Reward) -> Episode | None:
    """Returns the decisions of a segment; None if there is none whose observation is known."""
    n, lead = bundle.manifest.decision_ticks, bundle.manifest.decision_lead
    part = slice(segment.begin, segment.end)
    tick: NDArray[np.int64] = segment.session.tick[part]
    observation, skill = segment.session.observation[part], segment.session.skill[part]
    asked = np.where(tick == 0, 0, np.arange(len(tick)) - lead)  # row of the observation
    begins = np.flatnonzero((tick % n == 0) & (asked >= 0))
    begins = begins[begins < len(tick) - 1]
    if not len(begins):
        return None
    rewards, ended = reward(signals, segment)
    return Episode(
        obs=np.concatenate([observation[asked[begins]], observation[-1:]]),
        skill=skill[begins].astype(np.intp),
        rewards=np.split(rewards[begins[0] :], begins[1:] - begins[0]),
        terminated=ended,
        held=False,
    )
