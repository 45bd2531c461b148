"""Selects the observation term that draws the path of a robot in plots, pictures and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from sim.interface.interface import Interface
from sim.interface.terms import ObservationTerm

PATH_TERMS = ("position", "tool_position")  # of a base; of the tool of an arm that stands
Value = TypeVar("Value")


def path_term(interface: Interface, *, observed: bool = False) -> ObservationTerm | None:
    """Returns the term whose x and y draw the robot's path; None if it has none of them.

    Args:
        interface: of the robot.
        observed: only terms that are an input of the policy, so that its observations have them.
    """
    terms = {
        term.name: term
        for term in interface.observation
        if term.size >= 2 and (term.policy_input or not observed)
    }
    return next((terms[name] for name in PATH_TERMS if name in terms), None)


def path_fields(fields: Mapping[str, Value]) -> dict[str, Value]:
    """Returns the entries of `fields`, by name of the term, that a path is drawn from."""
    return {name: fields[name] for name in PATH_TERMS if name in fields}
