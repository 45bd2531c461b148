"""Text of the terms in a generated robot.yaml; unknown values are placeholders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sim.files.strict_yaml import comment
from sim.interface import Range
from sim.robot_setup.placeholders import TODO

JOINTS = "sensor_msgs/msg/JointState"
Ranges = tuple[Range | None, ...]  # per element; None is `TODO`


@dataclass(frozen=True)
class TermTemplate:
    """A term as it is written to robot.yaml; None becomes `TODO`."""

    name: str
    unit: str
    frame: str
    source: tuple[str, tuple[str, ...] | str]  # key in `mujoco`, value
    topic: str
    type: str
    fields: tuple[str, ...]
    limits: Ranges = ()
    why: str = ""  # of the limits
    safe_command: tuple[float, ...] | None = None
    safe_why: str = ""
    tracked: str = ""  # the observation term that measures it
    elements: tuple[int, ...] = ()  # of that term
    derive: str = ""  # what an observation term shows of its quaternion
    policy_input: bool = True
    turning: str = ""  # a joint that turns without end


PLAIN = re.compile(r"[A-Za-z_][\w./^]*( [A-Za-z]\w*)?", re.ASCII)
WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")


def text(value: str) -> str:
    """Returns a text as YAML, in quotes where it needs them."""
    plain = PLAIN.fullmatch(value) and value.lower() not in WORDS
    return value if plain else json.dumps(value)


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(values)}]"


def _names(values: Iterable[str]) -> str:
    return _list(text(value) for value in values)


def _each(values: Sequence[str]) -> str:
    """Returns one value if all elements share it, else a list."""
    return values[0] if len(set(values)) == 1 else _list(values)


def _with_reason(text: str, why: str) -> str:
    return text if text == TODO or not why else f"{text}   {comment(why)}"


def _limits(term: TermTemplate) -> str:
    shown = [TODO if b is None else f"[{b[0]!r}, {b[1]!r}]" for b in term.limits]
    return _with_reason(_each(shown), term.why) if shown else TODO


def _ros_lines(term: TermTemplate) -> list[str]:
    return [
        "    ros:",
        f"      topic: {text(term.topic)}",
        f"      type: {term.type}",
        f"      fields: {_names(term.fields)}",
        "      required_values: {}   # by path: what the message must say of itself, see scans",
    ]


def observation_lines(term: TermTemplate) -> list[str]:
    """Returns an observation term as lines of YAML."""
    key, value = term.source
    shown = text(value) if isinstance(value, str) else _names(value)
    more = []
    if term.turning:
        more.append(f"    wraps: {TODO}   # joint {text(term.turning)} turns without end")
    if term.derive:
        more.append(f"    derive: {term.derive}   # of its z axis to the world's")
    if not term.policy_input:
        more.append("    policy_input: false   # for the safety monitor, hidden from the policy")
    return [
        f"  - name: {text(term.name)}",
        f"    size: {len(term.fields)}",
        f"    unit: {text(term.unit)}",
        f"    frame: {text(term.frame)}",
        "    scale: 1.0   # the numbers as they are; training normalizes them",
        "    clip: null",
        f"    noise: {TODO}" if term.policy_input else "    noise: 0.0   # not observed",
        f"    max_age: {TODO}",
        f"    limit: {TODO if None in term.limits else _limits(term)}",
        "    inf_values: null   # infinite values are refused",
        *more,
        f"    mujoco: {{{key}: {shown}}}",
        *_ros_lines(term),
    ]


def action_lines(term: TermTemplate) -> list[str]:
    """Returns an action term as lines of YAML."""
    scales = [TODO if b is None else repr((b[1] - b[0]) / 2) for b in term.limits]
    offsets = [TODO if b is None else repr((b[1] + b[0]) / 2) for b in term.limits]
    elements = f", elements: {_list(map(str, term.elements))}" if term.elements else ""
    tracking = f"{{term: {text(term.tracked)}{elements}, tolerance: {TODO}, timeout: {TODO}}}"
    safe = TODO if term.safe_command is None else _list(map(repr, term.safe_command))
    lines = [
        f"  - name: {text(term.name)}",
        f"    size: {len(term.fields)}",
        f"    unit: {text(term.unit)}",
        f"    frame: {text(term.frame)}",
        f"    scale: {_with_reason(_each(scales), 'actions of -1 .. 1 span the limit')}",
        f"    offset: {_each(offsets)}",
        f"    limit: {_limits(term)}",
        f"    smoothing_time: {TODO}",
        f"    rate_limit: {TODO}",
        f"    tracking: {tracking if term.tracked else TODO}",
        f"    safe_command: {_with_reason(safe, term.safe_why)}",
        f"    mujoco: {{actuators: {_names(term.source[1])}}}",
    ]
    if term.type == JOINTS:
        lines.append(
            "    # A forward_command_controller: std_msgs/msg/Float64MultiArray, fields data[0] .."
        )
    return lines + _ros_lines(term)
