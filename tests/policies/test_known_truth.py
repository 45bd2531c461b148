"""The rule for the truth that verdicts are compared with."""

from dataclasses import replace

import pytest

from policies.training.verdict import Verdict
from tests.benchmarks.known_truth import Facts, truth

# Two skills, of which the first goes to goal a and the second does nothing.
HALF = Facts(
    skills=2,
    fewest=2,
    own={"a": 0.9, "b": 0.0},
    alone={"a": (0.9, 0.0), "b": (0.0, 0.0)},
    fresh={"b": 0.0},
)


def facts(**changed) -> Facts:
    return replace(HALF, **changed)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (facts(own={"a": 0.9, "b": 0.7}), Verdict.SERVED),
        (facts(fewest=3), Verdict.TOO_FEW_SKILLS),
        # The second skill serves b, and no master has selected it.
        (facts(alone={"a": (0.9, 0.0), "b": (0.0, 0.8)}, fresh={"b": 0.8}), "undecided"),
        # A master over both skills has 0.5 more than the better one.
        (facts(fresh={"b": 0.5}), Verdict.NEEDS_SEQUENCE),
        # Over all tasks one skill has (0.9 + 0) / 2 = 0.45, and so have fresh masters.
        (HALF, Verdict.COLLAPSED),
        (facts(continued=True), Verdict.NOT_LEARNED),
        (facts(continued=None), None),
        # Two skills have (0.9 + 0.5) / 2 = 0.7, the first one alone 0.45.
        (facts(alone={"a": (0.9, 0.0), "b": (0.0, 0.5)}, fresh={"b": 0.5}), Verdict.NOT_LEARNED),
        # Nothing anywhere: (0.1 + 0) / 2 by one skill is all that there is, and no collapse.
        (
            facts(
                own={"a": 0.1, "b": 0.0},
                alone={"a": (0.1, 0), "b": (0, 0)},
                fresh={"a": 0, "b": 0},
            ),
            Verdict.NOT_LEARNED,
        ),
        # On the first task, too, fresh masters are needed before anything is said.
        (facts(own={"a": 0.5, "b": 0.0}), None),
    ],
)
def test_truth(given, expected):
    assert truth(given) is (Verdict.MASTERS_UNDECIDED if expected == "undecided" else expected)


def test_no_intervention_is_needed_where_the_score_or_the_plan_decides():
    bare = facts(alone={}, fresh={})
    assert not bare.decided
    assert replace(bare, own={"a": 0.9, "b": 0.8}).decided
    assert replace(bare, fewest=3).decided
