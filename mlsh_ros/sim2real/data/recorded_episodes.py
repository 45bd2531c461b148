"""Episodes of decisions with rewards from recordings, as data for learning masters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.control.supervisor import State
from mlsh_ros.messages.conversion import OTHER
from mlsh_ros.messages.topics import OUTCOME, STATE
from mlsh_ros.recording.bag_reader import Recording
from mlsh_ros.sim2real.data.recorded_rewards import (
    Reward,
    reward_by_reception,
    reward_by_stamp,
    reward_in,
    reward_of_task,
)
from mlsh_ros.sim2real.data.recording_data import check_distinct
from mlsh_ros.sim2real.data.signal_listener import Listener
from mlsh_ros.sim2real.data.signals import RecordedSession, Segment, Signals
from mlsh_ros.sim2real.data.tick_moments import NANO
from policies.bundle.bundle import Bundle
from policies.bundle.runtime import TOLERANCE, Network, load_skills
from policies.bundle.task_compatibility import resolve_task
from policies.offpolicy.replay import Episode
from sim.errors import UserError, listed
from sim.tasks.task_id import TaskId

Note = Callable[[str], None]


@dataclass(frozen=True)
class _Recorded:
    """One recording."""

    where: str  # names it in errors
    signals: Signals
    segments: list[Segment]  # of ticks of the bundle's skills
    faulted: list[RecordedSession]  # sessions that ended in a fault
    reward: Reward | None  # of the topic; None: the task's


def read_episodes(
    paths: Sequence[Path],
    bundle: Bundle,
    tasks: Sequence[TaskId],
    reward_topic: str | None = None,
    *,
    note: Note = lambda _: None,
) -> list[list[Episode]]:
    """Read the episodes of recordings, once for each task.

    An episode is a session of skill_node, or what is left of it between gaps and resets of a
    simulator, up to a change of the skills. The reward of a tick is the task's for the state that
    the next tick observed, or what came on `reward_topic` for it. The last tick of an episode has
    none, unless a simulator says that the task ended with it. A fault terminates an episode:
    nothing is paid any more, or, so that a fault is never better than going on, the lowest
    recorded reward for the rest of the task's ticks if it is negative.

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
    skills, limits = load_skills(bundle), [resolve_task(bundle, t)[0].ticks for t in tasks]
    recordings = [_read(p, bundle, skills, reward_topic, limits[0], note) for p in paths]
    found = []
    for task, limit in zip(tasks, limits, strict=True):
        episodes: list[Episode] = []
        faulted: list[bool] = []
        for recorded in recordings:
            reward = recorded.reward or reward_of_task(
                recorded.signals, recorded.where, bundle, task
            )
            for segment in recorded.segments:
                episode = _episode(segment, bundle, reward)
                if episode is not None:
                    episodes.append(episode)
                    faulted.append(_ends_in_fault(segment, recorded.faulted))
        found.append(_with_faults(episodes, faulted, limit))
    return found


def _read(
    path: Path,
    bundle: Bundle,
    skills: Sequence[Network],
    reward_topic: str | None,
    limit: int,
    note: Note,
) -> _Recorded:
    recording = Recording(path)
    where = f"recording {recording.file}"
    _check_skills(recording, bundle)
    listener = Listener(recording.bound(bundle).interface)
    topic = None if reward_topic is None else reward_topic.lstrip("/")
    origin: int | None = None
    rewards: list[tuple[int, float]] = []
    states: list[tuple[int, str]] = []
    outcomes = False  # the rewards are those of sim_node
    seen: set[str] = set()

    def wanted(name: str, relative: str) -> bool:
        seen.add(name)
        known = relative in listener.topics or relative == STATE
        return known or topic in (name.lstrip("/"), relative.lstrip("/"))

    for entry in recording.entries(
        lambda each: wanted(each.name, each.relative_name or each.name)
    ):
        message = recording.message(entry)
        if topic in (entry.topic.lstrip("/"), entry.source.name.lstrip("/")):
            rewards.append((entry.received, reward_in(entry, message)))
            outcomes = entry.topic == OUTCOME
        if entry.topic == STATE:
            try:
                states.append((entry.received, str(message.data)))
            except OTHER as error:
                raise UserError(f"{where}: a message of {STATE}: {error}") from None
        if entry.topic in listener.topics:
            origin = entry.received if origin is None else origin
            listener.take(entry.topic, entry.type, entry.received, message)
    if reward_topic is not None and not rewards:
        names = listed(sorted(seen), most=200) or "none"
        raise UserError(f"{where}: no message of --reward-topic {reward_topic}. Topics: {names}")
    signals = listener.finish(recording.file.name, recording.about.get("mode", ""))
    for text in (*recording.unreadable, *signals.notes):
        note(f"note: {where}: {text}")
    if not all(session.traced for session in signals.sessions):
        raise UserError(f"{where}: it has no traces of skill_node, and the decisions are in these")

    def seconds(received: int) -> float:
        return (received - (origin or 0)) * NANO

    reward: Reward | None = None
    if outcomes and signals.lockstep:
        reward = reward_by_stamp(signals, where, limit)
    elif rewards and signals.lockstep:
        raise UserError(
            f"{where}: --reward-topic {reward_topic}: in lockstep only {OUTCOME} says to which "
            "tick a reward belongs"
        )
    elif rewards:
        reward = reward_by_reception(
            np.array([seconds(received) for received, _ in rewards]),
            np.array([value for _, value in rewards]),
        )
    return _Recorded(
        where=where,
        signals=signals,
        segments=_of_skills(signals, skills, f"{where}: bundle {bundle.manifest.name!r}", note),
        faulted=_faulted(signals, [(seconds(at), text) for at, text in states]),
        reward=reward,
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
                f"{what} are not those of bundle {bundle.manifest.name!r}: nothing can be learned "
                "about these from it"
            )


def _of_skills(
    signals: Signals, skills: Sequence[Network], where: str, note: Note
) -> list[Segment]:
    """Returns the segments of a recording up to the first tick of another bundle's skills.

    The bundle may be replaced while the robot moves, and the recording holds the first one's
    manifest. What the skills of a bundle are is what they answer.

    Args:
        signals: of the recording.
        skills: that are expected.
        where: names recording and bundle.
        note: called with a line where ticks are left out.
    """
    found, left_out, first = [], 0, ""
    for segment in signals.segments():
        other = np.flatnonzero(~_answers(segment, skills))
        if not len(other):
            found.append(segment)
            continue
        session, end = segment.session, segment.begin + int(other[0])
        left_out += segment.end - end
        first = first or f"tick {session.tick[end]} of session {session.number}"
        if end > segment.begin:
            found.append(replace(segment, end=end))
    if left_out:
        note(
            f"note: {where} was replaced while it ran: from {first} on, {left_out} of "
            f"{signals.ticks} ticks are of other skills and are left out"
        )
    return found


def _answers(segment: Segment, skills: Sequence[Network]) -> NDArray[np.bool_]:
    """(T,) True where the recorded action is that of the skill that is said to have run."""
    part = slice(segment.begin, segment.end)
    observation, action = segment.session.observation[part], segment.session.action[part]
    skill, same = segment.session.skill[part], np.zeros(len(segment), bool)
    for k, network in enumerate(skills):
        rows = np.flatnonzero(skill == k)
        if len(rows):
            error = np.abs(network(observation[rows]) - action[rows]).max(axis=1)
            same[rows] = error <= TOLERANCE
    return same


def _faulted(signals: Signals, states: Sequence[tuple[float, str]]) -> list[RecordedSession]:
    """Returns the sessions that ended in a fault.

    Args:
        signals: of the recording.
        states: what skill_node said and when, s on the scale of the signals.
    """
    found: list[RecordedSession] = []
    began: float | None = None  # when it said that it drives; None: it does not
    for at, text in states:
        state = text.partition(":")[0]
        if state == State.FAULT.value and began is not None:
            ran = [
                each
                for each in signals.sessions
                if each.received[0] <= at and each.received[-1] >= began
            ]
            found += ran[-1:]
        began = at if state == State.RUNNING.value else None
    return found


def _ends_in_fault(segment: Segment, faulted: list[RecordedSession]) -> bool:
    last = segment.end == len(segment.session)
    return last and any(segment.session is each for each in faulted)


def _with_faults(episodes: list[Episode], faulted: list[bool], ticks: int) -> list[Episode]:
    """Returns the episodes with those terminated that a fault ended; see `read_episodes`."""
    lowest = min((float(r.min()) for e in episodes for r in e.rewards), default=0.0)
    found = []
    for episode, fault in zip(episodes, faulted, strict=True):
        if fault and not episode.terminated:
            rest = ticks - sum(len(each) for each in episode.rewards) if lowest < 0 else 0
            last = np.append(episode.rewards[-1], np.full(max(rest, 0), lowest))
            episode = replace(episode, rewards=[*episode.rewards[:-1], last], terminated=True)
        found.append(episode)
    return found


def _episode(segment: Segment, bundle: Bundle, reward: Reward) -> Episode | None:
    """Returns the decisions of a segment; None if there is none whose observation is known."""
    n, lead = bundle.manifest.decision_ticks, bundle.manifest.decision_lead
    part = slice(segment.begin, segment.end)
    tick: NDArray[np.int64] = segment.session.tick[part]
    observation, skill = segment.session.observation[part], segment.session.skill[part]
    asked = np.where(tick == 0, 0, np.arange(len(tick)) - lead)  # row of the observation
    begins = np.flatnonzero((tick % n == 0) & (asked >= 0))
    if not len(begins):
        return None
    rewards, ended = reward(segment)
    begins = begins[begins < len(rewards)]
    if not len(begins):
        return None
    return Episode(
        obs=np.concatenate([observation[asked[begins]], observation[-1:]]),
        skill=skill[begins].astype(np.intp),
        rewards=np.split(rewards[begins[0] :], begins[1:] - begins[0]),
        terminated=ended,
        held=False,
    )
