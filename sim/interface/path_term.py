"""Selects the observation term that draws the path of a robot in plots, pictures and reports."""

from __future__ import annotations

from sim.interface.interface import Interface
from sim.interface.terms import ObservationTerm

PATH_TERMS = ("position", "tool_position")  # of a base; of the tool of an arm that stands


def path_term(interface: Interface) -> ObservationTerm | None:
    """Returns the term whose x and y draw the robot's path; None if it has none of them."""
    terms = {term.name: term for term in interface.observation if term.size >= 2}
    return next((terms[name] for name in PATH_TERMS if name in terms), None)
