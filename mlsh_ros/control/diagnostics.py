"""The diagnostics of skill_node as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from mlsh_ros.control.faults import FAULTS
from mlsh_ros.control.skill_schedule import SkillSchedule
from mlsh_ros.control.supervisor import State, Status
from mlsh_ros.control.timing import TimingSummary
from sim.interface import Interface


class DiagnosticLevel(IntEnum):
    """Levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Diagnostic:
    """One line of diagnostics."""

    name: str
    level: DiagnosticLevel
    message: str
    values: dict[str, str]


@dataclass(frozen=True)
class Refused:
    """Refused messages of one topic."""

    count: int
    reason: str  # of the newest


def diagnose(
    status: Status,
    timing: TimingSummary,
    interface: Interface,
    ages: Mapping[str, float],
    skills: tuple[str, ...],
    schedule: SkillSchedule,
    refused: Mapping[str, Refused],
    unused: int = 0,
) -> list[Diagnostic]:
    """Returns state, ticks, sensors and decisions of skill_node.

    Args:
        status: of the supervisor.
        timing: of the newest ticks.
        interface: with the largest age of each sensor.
        ages: per received topic, s.
        skills: their names.
        schedule: of the session.
        refused: refused messages, per topic.
        unused: number of decisions that were not requested.
    """
    return [
        _state(status),
        _ticks(timing, interface),
        _sensors(interface, ages, refused),
        _decisions(timing, skills, schedule, unused),
    ]


def _state(status: Status) -> Diagnostic:
    fault = status.state is State.FAULT
    values = {"state": status.state.value}
    if fault:
        values |= {"fault": status.fault, "meaning": FAULTS[status.fault], "seen": status.detail}
    message = f"{status.fault}: {status.detail}" if fault else status.state.value
    return Diagnostic(
        "state", DiagnosticLevel.ERROR if fault else DiagnosticLevel.OK, message, values
    )


def _ticks(timing: TimingSummary, interface: Interface) -> Diagnostic:
    values = {
        "ticks": str(timing.ticks),
        "missed": str(timing.missed),
        "saturated": str(timing.saturated),
        "period (s)": f"{interface.control_dt:g}",
    }
    for name, spread in (("lateness", timing.lateness), ("compute", timing.compute)):
        for what, value in zip(("p50", "p99", "max"), spread, strict=True):
            values[f"{name} {what} (ms)"] = f"{value * 1e3:.3f}"
    message = f"{timing.missed} of {timing.ticks + timing.missed} ticks missed"
    return Diagnostic(
        "ticks", DiagnosticLevel.WARN if timing.missed else DiagnosticLevel.OK, message, values
    )


def _sensors(
    interface: Interface, ages: Mapping[str, float], refused: Mapping[str, Refused]
) -> Diagnostic:
    values, silent = {}, []
    for topic in dict.fromkeys(term.ros.topic for term in interface.observation):
        limit = min(t.max_age for t in interface.observation if t.ros.topic == topic)
        age = ages.get(topic)
        values[f"{topic} age (s)"] = "never received" if age is None else f"{age:.3f}"
        if age is None or age > limit:
            silent.append(topic)
    for topic, of in refused.items():
        values |= {f"{topic} refused": str(of.count), f"{topic} refused last": of.reason}
    if silent:
        return Diagnostic("sensors", DiagnosticLevel.STALE, f"silent: {', '.join(silent)}", values)
    if refused:
        return Diagnostic(
            "sensors", DiagnosticLevel.WARN, f"refused: {', '.join(refused)}", values
        )
    return Diagnostic("sensors", DiagnosticLevel.OK, "fresh", values)


def _decisions(
    timing: TimingSummary, skills: tuple[str, ...], schedule: SkillSchedule, unused: int
) -> Diagnostic:
    skill = schedule.current
    name = "none yet" if skill is None else skills[skill]
    macros = max(1, timing.ticks // schedule.decision_ticks)
    values = {
        "skill": name,
        "switches": str(schedule.switches),
        "switches per decision": f"{schedule.switches / macros:.3f}",
        "late": str(timing.late_decisions),
        "not used": str(unused),
    }
    level = DiagnosticLevel.WARN if timing.late_decisions else DiagnosticLevel.OK
    return Diagnostic("decisions", level, f"skill {name}, {timing.late_decisions} late", values)
