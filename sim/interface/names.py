"""Valid names in robot.yaml: safe in lines of text, file paths, topics and terminals."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from sim.errors import short

LONGEST = 100  # characters
ROBOT = r"[A-Za-z0-9][A-Za-z0-9_-]*"
LABEL = r"[A-Za-z0-9_][A-Za-z0-9_./-]*"
UNIT = r"[A-Za-z0-9%°µ][A-Za-z0-9%°µ·²³ _/*^.()-]*"
TOPIC = r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*"
# Of our nodes and of every ROS graph. Whoever else used one would be taken for them.
NODES = (
    *("skill_node", "watchdog_node", "master_node", "recorder_node", "sim_node"),
    "joystick_node",
)
OWNED = (
    *("estop", "decision/request", "decision/response"),
    *("clock", "diagnostics", "rosout", "parameter_events"),
)


def _made_of(pattern: str, of: str) -> AfterValidator:
    compiled = re.compile(pattern, re.ASCII)

    def check(name: str) -> str:
        if not compiled.fullmatch(name):
            raise ValueError(f"{name!r} is not a name: {of}")
        return name

    return AfterValidator(check)


def in_sight(text: str) -> str:
    """Refuse a text that is too long or contains unprintable characters."""
    if len(text) > 2 * LONGEST:
        raise ValueError(f"{short(text)} is longer than {2 * LONGEST} characters")
    if not text.isprintable():
        raise ValueError(f"{text!r} has characters that cannot be printed")
    return text


def _in_quotes(text: object) -> object:
    """Refuse an unquoted number as a name, with the quoted spelling that YAML needs."""
    if isinstance(text, (int, float)):
        raise ValueError(f'{short(text)} is a number; a name of digits needs quotes: "{text}"')
    return text


def _free_topic(name: str) -> str:
    if name.startswith("/"):
        raise ValueError(f"topic {name!r} must be relative, without a leading '/'")
    if not re.fullmatch(TOPIC, name, re.ASCII):
        raise ValueError(
            f"{name!r} is not a relative topic name: letters, digits, _ and /, no digit first"
        )
    if name in OWNED or name.partition("/")[0] in NODES:
        raise ValueError(f"topic {name!r} belongs to the nodes themselves; give another one")
    return name


_Bounded = Annotated[str, Field(max_length=LONGEST)]
RobotName = Annotated[_Bounded, _made_of(ROBOT, "letters, digits, - and _ are accepted")]
Label = Annotated[_Bounded, _made_of(LABEL, "letters, digits, _ . / and - are accepted")]
Unit = Annotated[_Bounded, _made_of(UNIT, "a unit such as rad/s, m/s^2, N m or 1 is expected")]
Topic = Annotated[_Bounded, AfterValidator(_free_topic)]  # relative, so that namespaces work
# Of a joint, a sensor or a path in a message: whatever MuJoCo or a driver calls it.
Text = Annotated[str, BeforeValidator(_in_quotes), AfterValidator(in_sight)]
