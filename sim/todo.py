"""What a drafted robot.yaml leaves open: physical quantities that no model tells."""

from __future__ import annotations

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
    "blend": "s, time constant with which the command follows its target; 0.0: at once",
    "rate_limit": "largest change of the command, in its unit per second, that the robot bears",
    "safe": "the command that stops the robot, one number per element",
    "tracking": "{term, tolerance, time}: the measurement that must follow the command, by how "
    "much it may differ and for how many s; null where nothing measures it",
    "tolerance": "how far the measurement may be from the command, in the term's unit",
    "time": "s that the measurement may be further than `tolerance` from the command",
    "unit": "the unit of the values, for people and for the check of `tracking`",
    "topic": "the ROS topic, relative",
    "type": "the ROS message type, such as nav_msgs/msg/Odometry",
    "fields": "the path of each element in the message: a.b, a[3].b, or a[joint] by name",
    "name": "a name for the term",
    "frame": "the frame of the values (REP-105 for mobile bases)",
}


def explain(place: str) -> str:
    """What to fill in at a place such as `observation.0.max_age`."""
    root, *parts = place.split(".")
    known = [key for part in parts for key in (part, f"{root}.{part}") if key in MEANING]
    meaning = MEANING[known[-1]] if known else MEANING.get(root, "a value")
    return f"{place}: {TODO}; fill in: {meaning}"
