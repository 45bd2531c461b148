"""The interface of every robot, with the terms of families, and of one with every feature."""

from dataclasses import replace

import numpy as np

from sim.interface import Interface, Rays
from sim.physics.robot_model import load_robot, robot_names
from sim.tasks.registry import FAMILIES, make_family
from tests.support.robots import odd_interface


def odd() -> Interface:
    """Of the robot in tests/sim/test_robot.py: offset, negative scale, clip, several terms."""
    return odd_interface()


def ugly() -> Interface:
    """Numbers without a short decimal form."""
    term, other, *rest = odd().observation
    term = replace(term, scale=1 / 3, clip=(-np.pi, 1e-17), noise=2 / 7)
    return replace(odd(), observation=(term, replace(other, max_age=1e9 / 7), *rest))


def sluggish() -> Interface:
    """The command follows the policy slowly."""
    return replace(odd(), action=tuple(replace(t, smoothing_time=0.08) for t in odd().action))


RAYS = Rays("s", 0.0, 1.0, range_min=0.1, range_max=1.0)


def by_family() -> dict[str, Interface]:
    """By family, its robot with its terms; of families that make the same of it, the first."""
    found: dict[str, Interface] = {}
    for family in map(make_family, FAMILIES):
        interface = load_robot(family.robot).interface.with_terms(family.terms)
        if interface not in found.values():
            found[family.name] = interface
    return found


ROBOTS = {name: load_robot(name).interface for name in robot_names()}
INTERFACES = {
    "odd": odd(),
    "ugly": ugly(),
    "sluggish": sluggish(),
    **ROBOTS,
    **{name: each for name, each in by_family().items() if each not in ROBOTS.values()},
}


def other(path, value):
    """A valid value that differs; None where the field cannot change alone."""
    alone = {
        "size",
        "sensor",
        "elements",
        "rays",
        "task",
        "qpos",
        "qvel",
        "required_values",  # if empty
        "term",
        "tracking",
        "kind",
    }  # with others, see the next test
    tied = {*RAYS.required_values(2), "elements"}  # a scan's geometry stands twice, and must agree
    if tied & set(path):
        return None
    if path[-1] in alone and not (path[-1] in ("sensor", "task") and value):
        return None
    if path[-1] in ("control_dt", "physics_dt"):
        return {"control_dt": 2 * value, "physics_dt": value / 2}[path[-1]]
    if path[-1] in ("clip", "limit", "inf_values"):
        return [-3.0, 3.0]
    if isinstance(value, bool):
        return not value
    if "fields" in path:
        return f"more.{value}"
    return value + "x" if isinstance(value, str) else value + 1e-3 * (-1 if path[-1] == 0 else 1)
