"""Findings in sentences, sorted by severity, each with a recommendation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlsh_ros.recording.replay import Result
from mlsh_ros.sim2real.data.signals import Wrap
from mlsh_ros.sim2real.gap.cause_texts import SAID, in_ms, in_times, joined, verb
from mlsh_ros.sim2real.gap.closed_loop_return import ClosedLoopReturn
from mlsh_ros.sim2real.gap.data_quality import Channel, ChannelTiming, Drift, Saturation
from mlsh_ros.sim2real.gap.hypotheses import Hypothesis
from mlsh_ros.sim2real.gap.joints import HOLDS, Angle
from mlsh_ros.sim2real.gap.measures import Measure
from mlsh_ros.sim2real.replay.residuals import NOISY

# Ranks: what makes everything else doubtful, what is a cause, and what follows from causes.
DOUBT, CAUSE, SYMPTOM = 0, 1, 2
STALE = 0.02  # share of the samples; a value that stays for once is no fault
LOST = 0.02  # share of the messages
# Share of the ticks outside of what is seen in simulation; or, without a simulation of the task,
# of the few golden rows.
OUTSIDE, OUTSIDE_GOLDEN = 0.05, 0.25
MUCH = 0.03  # of an element's movement, for undeclared noise
WHITE = 0.7  # part of what is left that must change from sample to sample to be noise
UNEXPLAINED = 0.06  # of an element's movement
OUTLIERS = 0.005  # share of the samples; a blow that the simulation takes otherwise is rarer
SATURATED = 0.25  # share of the ticks, more than in simulation
LATE_DECISIONS, MISSED = 0.01, 0.001  # share of the ticks
LATE = 0.1  # of the control period, lateness p99
# Of the control period, p99 of what is between ticks: if that is the recorder, velocities show it.
UNEVEN = 0.15
CONTRADICTS = 0.1  # of an angle, that its velocity does not sum up to
WORSE = 0.05  # of the simulation's return
WRAPPED = 100.0  # before all causes: it is seen without a simulation
# How the numbers of one thing that is found twice belong together.
ADDED, MULTIPLIED = ("lag", "delay"), ("gain", "scale")
FACTORS = (*MULTIPLIED, "mass", "damping", "friction")
AT_ONCE = 1e-3  # s
UNSEEN = 0.01  # share of the ticks


@dataclass(frozen=True)
class Finding:
    """One line of the verdict."""

    kind: str
    rank: int
    severity: float  # within its rank, larger is worse
    text: str
    advice: str
    where: tuple[str, ...] = ()
    value: float | None = None  # of the cause's one number; times in s

    def __str__(self) -> str:
        return f"{self.text}: {self.advice}"


def _often(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _once(causes: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Merges repeated hypotheses of one kind into the first, so that findings do not contradict.

    A later value is added to or multiplied with the first; for masses, damping and friction it
    replaces it. If the values cancel, the hypothesis is removed.
    """
    found: dict[tuple[str, tuple[str, ...]], Hypothesis] = {}
    for cause in causes:
        key = cause.kind, cause.where
        if key in found:
            value = cause.value
            if cause.kind in ADDED:
                value = found[key].value + cause.value
            elif cause.kind in MULTIPLIED:
                value = found[key].value * cause.value
            cause = replace(found[key], value=value)
        found[key] = cause
    return [
        cause
        for cause in found.values()
        if not (cause.kind in ADDED and abs(cause.value) < AT_ONCE)
        and not (cause.kind in FACTORS and abs(cause.value - 1) < MUCH)
    ]


def from_causes(causes: Sequence[Hypothesis], ceilings: dict[str, float]) -> list[Finding]:
    """Returns the findings that explain the difference, in the order of the search.

    Args:
        causes: of the search.
        ceilings: per action element, the largest command.
    """
    found = []
    causes = _once(causes)
    for n, cause in enumerate(causes):
        text, advice = SAID[cause.kind](cause)
        if cause.kind == "ceiling" and len(cause.where) == 1:
            limit = cause.value * ceilings[cause.where[0]]
            text = f"actuator {cause.where[0]} saturates at {limit:.3g}"
        # Found one after the other, each the best of its round: that order is kept.
        severity = 1 + min(cause.share, 1.0) / 100 - n * 1e-3 + (len(causes) - n)
        found.append(
            Finding(cause.kind, CAUSE, severity, text, advice, cause.where, float(cause.value))
        )
    return found


def from_channels(channels: Sequence[Channel], causes: Sequence[Hypothesis]) -> list[Finding]:
    """Returns findings about the messages: stale, lost."""
    explained = {topic for c in causes if c.kind == "stale" for topic in c.where}
    found = []
    for c in channels:
        if c.stale is not None and c.stale > STALE and c.topic not in explained:
            text = f"{c.topic} is stale in {100 * c.stale:.0f} % of the samples"
            advice = "old values come again: look at the driver's rate and buffers"
            found.append(Finding("stale", CAUSE, c.stale, text, advice, (c.topic,), c.stale))
        if c.lost is not None and c.longest is not None and c.lost > LOST:
            text = (
                f"{100 * c.lost:.0f} % of the messages of {c.topic} are lost, "
                f"at worst for {in_ms(c.longest)}"
            )
            advice = (
                "look at the network, the queue and the load; is the recorder on the same host?"
            )
            found.append(Finding("lost", CAUSE, c.lost, text, advice, (c.topic,), c.lost))
    return found


def from_wraps(wraps: Sequence[tuple[str, Wrap]]) -> list[Finding]:
    """Returns findings about angles that jump by a turn; they were compared without the jumps."""
    times: dict[str, Wrap] = {}
    for name, wrap in wraps:
        times[name] = replace(wrap, times=wrap.times + (times[name].times if name in times else 0))
    return [
        Finding(
            "wraps",
            CAUSE,
            WRAPPED,
            f"{name} wraps at {wrap.at:.2f} rad, as it did {_often(wrap.times)}",
            "the model counts full turns: set `wraps: true` for this term in robot.yaml and train "
            "again, or let the driver count full turns",
            (name,),
            wrap.at,
        )
        for name, wrap in times.items()
    ]


def from_angles(angles: Sequence[Angle]) -> list[Finding]:
    """Returns findings about joint angles that disagree with their own measured velocity."""
    off = [a for a in angles if a.correlation > HOLDS and abs(a.ratio - 1) > CONTRADICTS]
    return [
        Finding(
            "angle",
            DOUBT,
            abs(float(np.log(a.ratio))),
            f"{a.name} turns {in_times(a.ratio)} as far as its velocity sums up to",
            "one of the two is wrong, and the simulation begins with both: check their scale, "
            "such as the gear ratio of the encoder",
            (a.name,),
            a.ratio,
        )
        for a in off
    ]


def from_measures(
    final: Sequence[Measure], timing: ChannelTiming, period: float, *, restless: bool = False
) -> list[Finding]:
    """Returns findings about unexplained differences: noise, outliers, and the rest.

    Args:
        final: measured against the model with all causes.
        timing: of the ticks.
        period: s, nominal.
        restless: the robot does not forget where it was pushed: a contact that comes a moment
            early makes another way of the rest of a window, so the usual window counts.
    """
    off = timing.period_p99 or 0.0
    uneven = off > UNEVEN * period
    found: list[Finding] = []
    noisy: dict[str, list[Measure]] = {}
    rest: dict[str, list[Measure]] = {}
    for m in final:
        e = m.element
        if m.outliers > OUTLIERS:
            text = f"{e.name} jumps in {100 * m.outliers:.1f} % of the samples"
            advice = "look for a loose contact, zeros for lost readings, or a filter that resets"
            found.append(
                Finding("outliers", CAUSE, m.outliers, text, advice, (e.name,), m.outliers)
            )
            continue
        if m.noise > np.hypot(NOISY * e.noise, MUCH * e.size) and m.noise > WHITE * m.rmse:
            noisy.setdefault(e.term, []).append(m)
        elif _off(m, restless) > np.hypot(NOISY * e.noise, UNEXPLAINED * e.size):
            rest.setdefault(e.term, []).append(m)
    for parts in noisy.values():
        worst = max(parts, key=lambda m: m.noise / m.element.size)
        e, names = worst.element, tuple(m.element.name for m in parts)
        text = (
            f"{joined(names)} {verb(names, 'is', 'are')} noisier than declared: "
            f"{worst.noise:.2g} {e.unit}, {e.noise:g} is declared"
        )
        share = worst.noise / e.size
        advice = "declare this noise for training, or filter the sensor"
        found.append(Finding("noise", CAUSE, share, text, advice, names, worst.noise))
    for parts in rest.values():
        shares = [_off(m, restless) / m.element.size for m in parts]
        names, share = tuple(m.element.name for m in parts), max(shares)
        worst = parts[int(np.argmax(shares))]
        text = (
            f"{joined(names)} {verb(names, 'differs', 'differ')} by {_part(worst, share)} "
            "for an unknown reason: none of the tested causes explains it"
        )
        advice = "the plots show where; the model lacks an effect there"
        if uneven:
            text += (
                f"; 1 % of the ticks were recorded more than {in_ms(off)} off "
                "their period: if the recorder was late and not the tick, the simulation applies "
                "their commands too late"
            )
            advice = "record on a computer that has time for it, and compare again"
        # After what is explained, however large.
        found.append(Finding("unexplained", SYMPTOM, share, text, advice, names, share))
    return found


def _part(m: Measure, share: float) -> str:
    """Describes a difference relative to the movement in simulation, if there is any."""
    if m.element.moves and m.element.scale >= m.element.beside:
        return f"{100 * share:.0f} % of its movement"
    return f"{m.rmse:.2g} {m.element.unit}, where the simulation hardly moves,"


def _off(m: Measure, restless: bool) -> float:
    return m.usual if restless else m.rmse


def from_ticks(timing: ChannelTiming, period: float) -> list[Finding]:
    """Returns findings about the controller's timing."""
    found, ticks = [], max(timing.ticks, 1)
    missed, late = timing.missed or 0, timing.late_decisions or 0
    if missed / ticks > MISSED:
        share = missed / ticks
        text = f"{missed} of {timing.ticks} ticks were left out"
        found.append(Finding("missed", CAUSE, share, text, "the computer is too busy", (), share))
    if late / ticks > LATE_DECISIONS:
        share = late / ticks
        text = f"{late} decisions of the master came late"
        advice = "give the master's node more of the computer"
        found.append(Finding("late_decisions", CAUSE, share, text, advice, (), share))
    if timing.lateness_p99 is not None and timing.lateness_p99 > LATE * period:
        text = f"1 % of the ticks began more than {in_ms(timing.lateness_p99)} late"
        advice = "look at load and scheduling on the robot's computer"
        share = timing.lateness_p99 / period
        found.append(Finding("lateness", SYMPTOM, share, text, advice, (), timing.lateness_p99))
    return found


def from_range(drifts: Sequence[Drift], *, sparse: bool) -> list[Finding]:
    """Returns findings about untrained observations; `sparse`: little training data is known."""
    least = OUTSIDE_GOLDEN if sparse else OUTSIDE
    known = [(d.outside, d.name) for d in drifts if d.outside is not None]
    out = sorted((each for each in known if each[0] > least), key=lambda each: -each[0])
    if not out:
        return []
    names, share = tuple(name for _, name in out), out[0][0]
    most = f", {names[0]}" if len(names) > 1 else ""
    text = f"{joined(names)} left the range of training{most} in {100 * share:.0f} % of the ticks"
    advice = "the networks guess there: keep the robot inside, or train on a wider range"
    return [Finding("drift", SYMPTOM, share, text, advice, names, share)]


def from_efforts(efforts: Sequence[Saturation], usual: Sequence[float]) -> list[Finding]:
    """Returns findings about actions at their limits, compared with the usual fraction."""
    found = []
    for effort, normal in zip(efforts, usual, strict=False):
        if effort.saturated > normal + SATURATED:
            text = (
                f"action {effort.name} is cut by its limit in {100 * effort.saturated:.0f} % of "
                f"the ticks, in simulation in {100 * normal:.0f} %"
            )
            advice = "the policy requests more than the limits allow: look for an opposing force"
            share = effort.saturated - normal
            found.append(Finding("saturated", SYMPTOM, share, text, advice, (effort.name,), share))
    return found


def from_replay(replayed: Sequence[Result]) -> list[Finding]:
    """Returns findings about skills and decisions that differ from the bundle's."""
    found = []
    ticks = sum(r.different_ticks for r in replayed)
    decisions = sum(r.different_decisions for r in replayed)
    if ticks:
        first = next(r.first_tick for r in replayed if r.first_tick)
        text = f"{ticks} ticks differ from what this bundle's skills compute ({first})"
        advice = "another bundle or another build ran on the robot: compare with `mlsh replay`"
        found.append(Finding("skills", DOUBT, 1.0, text, advice, (), float(ticks)))
    if decisions:
        first = next(r.first_decision for r in replayed if r.first_decision)
        text = f"{decisions} decisions differ from what this bundle's master computes ({first})"
        advice = "another master decided, or it drew its skills: see `mlsh replay --master`"
        found.append(Finding("decisions", DOUBT, 0.9, text, advice, (), float(decisions)))
    unseen = sum(len(r.unseen) for r in replayed)
    total = max(sum(r.ticks for r in replayed), 1)
    if unseen / total > UNSEEN:
        text = f"the observations of {unseen} of {total} ticks are of no recorded sensor message"
        advice = "the recording lost messages, or another interface ran on the robot"
        found.append(Finding("unseen", DOUBT, 0.5, text, advice, (), unseen / total))
    return found


def from_score(returns: Sequence[ClosedLoopReturn], others: Sequence[Finding]) -> list[Finding]:
    """Returns findings about returns; `others` are all other findings."""
    above = any(each.rank < SYMPTOM for each in others)
    found = []
    for line in returns:
        mean, low, high = line.difference
        reference = float(np.abs(line.simulation).mean())
        if not (np.isfinite(low) and high < 0 and -mean > WORSE * reference):
            continue
        text = (
            f"{line.task} earns {line.robot.mean():.1f} on the robot and "
            f"{line.simulation.mean():.1f} in simulation ({mean:+.1f}, 95 % {low:+.1f} to "
            f"{high:+.1f}), success {line.robot_success.mean():.0%} and "
            f"{line.simulation_success.mean():.0%}"
        )
        advice = "this is what the gap costs; "
        advice += "the causes are listed above" if above else "no cause was found"
        share = -mean / max(reference, 1e-12)
        found.append(Finding("return", SYMPTOM, 10 + share, text, advice, (line.task,), share))
    return found


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """Returns the findings, the most important first."""
    return sorted(findings, key=lambda f: (f.rank, -f.severity))
