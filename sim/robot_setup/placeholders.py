"""Placeholders in a generated robot.yaml for quantities that the model does not contain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sim.files.strict_yaml import parse_yaml
from sim.interface import Interface, interface_from_dict

TODO = "TODO"  # stands in a draft where a person has to measure or decide
# By the last key of the place where it stands.
MEANING = {
    "control_dt": "s per tick: how often the robot takes a command; a multiple of physics_dt",
    "noise": "standard deviation of the measurement, in the term's unit, added in training; 0.0 "
    "where it is negligible",
    "max_age": "s after which a value is stale and the robot is stopped; two or three times the "
    "longest interval between two messages",
    "observation.limit": "[lowest, highest] in the term's unit, beyond which the robot is "
    "stopped; null where nothing is to be checked",
    "action.limit": "[lowest, highest] that may be commanded, in the term's unit",
    "scale": "command = offset + scale * action: the command that an action of 1 adds",
    "offset": "the command that an action of 0 means",
    "smoothing_time": "s, time constant with which the command follows its target; 0.0: at once",
    "rate_limit": "largest change of the command, in its unit per second, that the robot bears",
    "safe_command": "the command that stops the robot, one number per element",
    "tracking": "{term, tolerance, timeout}: the measurement that must follow the command, by how "
    "much it may differ and for how many s; null where nothing measures it",
    "tolerance": "how far the measurement may be from the command, in the term's unit",
    "timeout": "s that the measurement may be further than `tolerance` from the command",
    "wraps": "true if the driver's angle jumps at pi, false if it goes on counting; one for all "
    "elements, or a list",
    "unit": "the unit of the values, for people and for the check of `tracking`",
    "topic": "the ROS topic, relative",
    "type": "the ROS message type, such as nav_msgs/msg/Odometry",
    "fields": "the path of each element in the message: a.b, a[3].b, or a[joint] by name",
    "name": "a name for the term",
    "frame": "the frame of the values (REP-105 for mobile bases)",
}


def explain(place: str) -> str:
    """Describes the value to fill in at a key such as `observation.0.max_age`."""
    root, *parts = place.split(".")
    known = [key for part in parts for key in (part, f"{root}.{part}") if key in MEANING]
    meaning = MEANING[known[-1]] if known else MEANING.get(root, "a value")
    return f"{place}: {TODO}; fill in: {meaning}"


def todos(data: Any, place: str = "") -> Iterator[str]:
    """Returns every key of robot.yaml that is still open, such as `action.0.safe_command`."""
    parts: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(data, dict):
        parts = iter(data.items())
    elif isinstance(data, list):
        parts = iter(enumerate(data))
    elif data == TODO:
        yield place
    for key, value in parts:
        yield from todos(value, f"{place}.{key}" if place else f"{key}")


def filled(text: str) -> Interface:
    """Returns a draft that its reader accepts, with arbitrary numbers for the open values.

    Raises:
        UserError: it would be refused whatever is filled in.
    """
    data = parse_yaml(text, "robot.yaml")
    data.pop("schema")
    data["control_dt"] = data["physics_dt"]
    for term in data["observation"]:
        _fill(term, {"noise": 0.0, "max_age": 1.0, "limit": None, "wraps": False})
    for term in data["action"]:
        size = term["size"]
        _fill(term, {"scale": 1.0, "offset": 0.0, "limit": [-1.0, 1.0], "smoothing_time": 0.0})
        _fill(term, {"rate_limit": 1.0, "tracking": None, "unit": "1"})
        each = term["limit"] if isinstance(term["limit"][0], list) else [term["limit"]] * size
        _fill(term, {"safe_command": [low for low, _ in each]})
        _fill(term["tracking"] or {}, {"tolerance": 1.0, "timeout": 1.0})
        if TODO in term["ros"].values():
            term["ros"] |= {"topic": "todo", "type": "std_msgs/msg/Float64MultiArray"}
            term["ros"]["fields"] = [f"data[{i}]" for i in range(size)]
    return interface_from_dict(data, "robot.yaml")


def _fill(part: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if key in part and part[key] == TODO:
            part[key] = value
        elif key in part and isinstance(part[key], list):
            part[key] = [value if each == TODO else each for each in part[key]]
