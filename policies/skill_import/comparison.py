"""Compares skills with the policies that they run; says nothing about their descriptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.bundle.manifest import Origin
from policies.bundle.runtime import TOLERANCE, Network
from policies.skill_import.original import PolicyFile, with_length_one
from policies.skill_import.selection import SkillMapping
from sim.errors import UserError

Float32 = NDArray[np.float32]
# Observations of simulated robots on which a skill is compared: all of its own, and of those of
# the other skills as many as fit. A fixed number: the policy runs on one row at a time, and the
# time has to grow with the number of skills, not with its square.
VISITED_ROWS = 10_000
PIECE = 500  # rows of a network that run at a time
TOGETHER = 10  # skills between two lines of progress


@dataclass(frozen=True)
class Skill:
    """A skill that runs a policy."""

    policy: PolicyFile
    mapping: SkillMapping
    data: bytes  # its ONNX file
    network: Network
    origin: Origin


@dataclass(frozen=True)
class Differences:
    """Between skills and policies, relative to actions that are larger than 1."""

    random: float  # the largest of all skills on random observations
    visited: float  # and on observations of simulated robots
    rows: int  # number of those, the smallest of all skills


def compare(
    skills: Mapping[str, Skill],
    random: Float32,
    visits: Sequence[Float32],
    rng: np.random.Generator,
    say: Callable[[str], None],
) -> Differences:
    """Compare every skill with its policy.

    Args:
        skills: by name.
        random: (n, O) observations.
        visits: for each skill the observations (m, O) of robots that it has driven.
        rng: draws from the visits of other skills.
        say: is called with each line of progress.

    Raises:
        UserError: skill and policy differ.
    """
    found, rows, visited = [], [], np.concatenate(visits)
    ends = np.cumsum([len(each) for each in visits])
    for k, each in enumerate(skills.values()):
        shown = visited[_compared(int(ends[k]) - len(visits[k]), int(ends[k]), len(visited), rng)]
        found.append([_difference(each, random), _difference(each, shown)])
        rows.append(len(shown))
        if (k + 1) % TOGETHER == 0:
            say(f"{k + 1} of {len(skills)} skills compared with their policies")
    differences = np.array(found)  # (skills, 2)
    if not (worst := differences.max(axis=1)).max() <= TOLERANCE:
        skill, each = list(skills.items())[int(np.argmax(worst))]
        raise UserError(
            f"{each.policy.file}: skill {skill!r} and its policy differ by {worst.max():.2g}, at "
            f"most {TOLERANCE:g} is accepted; nothing was written. Compare observation_clip and "
            "action.clip with the training: without them rounding may have this effect"
        )
    on_random, on_visited = (float(each) for each in differences.max(axis=0))
    return Differences(on_random, on_visited, min(rows))


def unmoved(skill: str, each: Skill, random: Float32) -> list[str]:
    """One line if the action of a skill is the same for all observations (n, O); else none."""
    actions = each.network(random[:PIECE])
    if np.ptp(actions, axis=0).any():
        return []
    return [
        f"skill {skill!r}: its action is the same for every observation; the weights of "
        f"{each.policy.path} may be zero: compare it with the file that the trainer has written"
    ]


def _compared(begin: int, end: int, size: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows of all visits on which the skill is compared whose own are `begin` to `end`."""
    others = size - (end - begin)
    count = min(others, max(0, VISITED_ROWS - (end - begin)))
    drawn = rng.choice(others, count, replace=False, shuffle=False)
    return np.concatenate([np.arange(begin, end), drawn + (end - begin) * (drawn >= begin)])


def _difference(skill: Skill, rows: Float32) -> float:
    """Largest difference of actions, relative to those that are larger than 1."""
    mapping, original, worst = skill.mapping, skill.policy.original, 0.0
    for begin in range(0, len(rows), PIECE):
        piece = rows[begin : begin + PIECE]
        piece = with_length_one(piece, mapping.input, original.direction)
        output = original(mapping.input(piece))
        if mapping.output_clip is not None:
            output = np.clip(output, *mapping.output_clip)
        expected = mapping.output(output)
        error = np.abs(skill.network(piece) - expected) / np.maximum(1, np.abs(expected))
        worst = max(worst, float(np.nan_to_num(error, nan=np.inf).max()))
    return worst
