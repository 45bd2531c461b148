"""Hypotheses in sentences, each with a recommendation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mlsh_ros.sim2real.gap.hypotheses import Hypothesis


def joined(where: Sequence[str]) -> str:
    """Joins names by commas and "and"; of many only the first and the last."""
    if len(where) > 4:
        return f"{where[0]} .. {where[-1]}"
    return ", ".join(where[:-1]) + (" and " if len(where) > 1 else "") + where[-1] if where else ""


def verb(where: Sequence[str], one: str, several: str) -> str:
    """Returns the form of a verb that fits one name or several."""
    return several if len(where) > 1 else one


def in_times(value: float) -> str:
    """Formats 1.2 as 1.20 times."""
    return f"{value:.2f} times"


def in_ms(seconds: float) -> str:
    """Formats 0.012 as 12 ms."""
    return f"{1e3 * seconds:.0f} ms"


def in_degrees(angle: float) -> str:
    """Formats rad as degrees."""
    return f"{np.rad2deg(angle):.0f} degrees"


Say = Callable[[Hypothesis], tuple[str, str]]


def _lag(cause: Hypothesis) -> tuple[str, str]:
    what = joined(cause.where)
    if cause.value > 0:
        return (
            f"{what} {verb(cause.where, 'lags', 'lag')} {in_ms(cause.value)}, "
            f"{'the other topics' if cause.whole else 'the rest of the topic'} "
            f"{'do' if cause.whole else 'does'} not",
            "look for a filter or a slow driver; or add this delay to the sensor in the model",
        )
    return (
        f"{what} {verb(cause.where, 'is', 'are')} {in_ms(-cause.value)} ahead of the simulation",
        "the model's sensor or actuator is slower than the robot's",
    )


def _delay(cause: Hypothesis) -> tuple[str, str]:
    if cause.value < 0:
        return (
            f"everything is {in_ms(-cause.value)} ahead of the simulation",
            "the model's actuators are slower than the robot's",
        )
    if cause.where:
        return (
            f"the robot follows its commands {in_ms(cause.value)} late, by all that "
            f"{joined(cause.where)} shows",
            "add this delay to the actuators of the model; or look for a filter in the sensor: "
            "with one topic, and stamps that say nothing of it, the two cannot be told apart",
        )
    return (
        f"the robot follows its commands {in_ms(cause.value)} late, according to all topics",
        "add this delay to the actuators of the model, or shorten the way of the command",
    )


def _gain(cause: Hypothesis) -> tuple[str, str]:
    what = joined(cause.where)
    if cause.value < -0.5:
        return (
            f"actuator {what} turns the wrong way, {in_times(cause.value)} its command",
            "change the sign in robot.yaml or the wiring",
        )
    if abs(cause.value) < 0.1:
        return f"actuator {what} does nothing", "is it switched on, and on this topic?"
    weak = "weak" if cause.value < 1 else "strong"
    return (
        f"actuator {what} is too {weak}: it does {in_times(cause.value)} its command",
        "calibrate it, or give the model this gain",
    )


SAID: dict[str, Say] = {
    "sign": lambda c: (
        f"{joined(c.where)} {verb(c.where, 'has', 'have')} the wrong sign",
        "check its axis in robot.yaml and in the driver (REP-103: x ahead, y left, z up)",
    ),
    "scale": lambda c: (
        f"{joined(c.where)} {verb(c.where, 'is', 'are')} scaled by {c.value:.2f}",
        "check units and calibration (wheel radius, encoder counts, degrees for radians)",
    ),
    "swap": lambda c: (
        f"{joined(c.where)} seem swapped",
        "check the order and names of the fields in robot.yaml and in the driver",
    ),
    "turn": lambda c: (
        f"{joined(c.where)} are turned by {in_degrees(c.value)}",
        "their frame differs from that in robot.yaml: check frame_id and how it is mounted",
    ),
    "shift": lambda c: (
        f"{joined(c.where)} begin {c.value:.0f} rays further on",
        "check where the scan's angle_min points",
    ),
    "reverse": lambda c: (
        f"{joined(c.where)} come in the reverse order",
        "check the scan's sense of turning",
    ),
    "bias": lambda c: (
        f"{joined(c.where)} has a bias of {c.value:.3g}",
        "calibrate its zero, or randomize the bias in training",
    ),
    "lag": _lag,
    "delay": _delay,
    "late": lambda c: (
        f"{joined(c.where)} arrives {in_ms(c.value)} after its stamps",
        "the sensor's way to the controller is slow: shorten it, or add this delay to the sensor",
    ),
    "stale": lambda c: (
        f"{joined(c.where)} is stale in {100 * c.value:.0f} % of the samples",
        "old values come again: look at the driver's rate and buffers",
    ),
    "gain": _gain,
    "ceiling": lambda c: (
        f"actuator {joined(c.where)} saturates at {c.value:.2f} of the largest command",
        "lower its limit in robot.yaml, or look for a current or voltage limit",
    ),
    "mass": lambda c: (
        f"the robot moves as if it had {in_times(c.value)} its mass (or weaker servos)",
        "weigh it; give the model its mass and payload, or identify them",
    ),
    "damping": lambda c: (
        f"the robot moves as if its joints had {in_times(c.value)} their damping",
        "look for friction in the drive, or identify the damping",
    ),
    "friction": lambda c: (
        f"the robot moves as if its contacts had {in_times(c.value)} their friction",
        "another floor or other tyres: identify the friction, or randomize it in training",
    ),
    "crossed": lambda c: (
        f"actuators {joined(c.where)} seem swapped",
        "check the order and names of the command's fields, and the wiring",
    ),
    "turned_command": lambda c: (
        f"commands {joined(c.where)} act turned by {in_degrees(c.value)}",
        "their frame differs from that in robot.yaml",
    ),
}
