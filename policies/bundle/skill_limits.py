"""Limits of observation terms while a particular skill is active (`mlsh export --skill-limits`).

They are checked here when a bundle is made or loaded; `mlsh_ros.control.safety_monitor` compares
every observation with them while the skill is active, and stops the robot with the fault `limit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sim.errors import UserError, invalid, unknown
from sim.files.strict_yaml import read_mapping
from sim.interface import STRICT, Interface, Ranges, spread_range

SkillLimits = dict[str, dict[str, Ranges]]
_ADAPTER = TypeAdapter(SkillLimits, config=STRICT)


def check_skill_limits(
    limits: Mapping[str, Mapping[str, Ranges]], skills: Sequence[str], interface: Interface
) -> None:
    """Refuse unknown skills and terms, and limits wider than the robot's own.

    Raises:
        ValueError: no such skill or term; an empty limit, or one beyond the interface's own.
    """
    terms = {term.name: term for term in interface.observation}
    for skill, own in limits.items():
        if skill not in skills:
            raise unknown("skill", skill, skills)
        for name, limit in own.items():
            if name not in terms:
                raise unknown("observation term", name, terms)
            term = terms[name]
            term.check_limit(f"skill_limits.{skill}", limit)
            if term.limits is None:
                continue
            (low, high), bounds = spread_range(limit, term.count), term.limits
            if (low < bounds[0]).any() or (high > bounds[1]).any():
                raise UserError(
                    f"term {name!r}: skill_limits.{skill} {limit} is beyond the robot's own limit "
                    f"{term.limit}"
                )


def read_skill_limits(path: Path, skills: Sequence[str], interface: Interface) -> SkillLimits:
    """Read limits from a YAML file: skill, observation term, [lowest, highest].

    Raises:
        UserError: the file or its content is invalid; one line that names it.
    """
    data = read_mapping(path)
    try:
        limits = _ADAPTER.validate_python(data)
        check_skill_limits(limits, skills, interface)
    except ValidationError as error:
        raise invalid(path, error, _ADAPTER) from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return limits
