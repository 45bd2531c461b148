"""Verdicts on trainings and evaluations whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from policies.mlsh.presets import default_config
from policies.training.verdict import (
    Evidence,
    Verdict,
    bits,
    evidence_of,
    explain,
    judge,
)
from sim.envs.reference_returns import ReferenceReturns
from tests.support.bundles import small_config


def scored(*scores, **measured) -> Evidence:
    """Two skills that are far apart, unless `measured` says otherwise."""
    usual = {"skills": 2, "information": 0.0, "by_state": 0.0, "distance": 0.4}
    tasks = {f"task-{i}": score for i, score in enumerate(scores)}
    alone = measured.pop("alone", ())
    each = {f"task-{i}": np.array(row) for i, row in enumerate(alone)}
    return Evidence(tasks, alone=each, **(usual | measured))


# Most numbers were measured on trainings and on the shipped bundles.
CASES = {
    "two goals, a skill for each": (
        scored(0.98, 0.97, information=0.9, alone=((0.98, -0.05), (-0.05, 0.98))),
        Verdict.SERVED,
    ),
    "four skills for two goals, two of them alike": (
        scored(
            *(0.95, 0.95),
            skills=4,
            information=0.9,
            distance=0.02,
            alone=((0.98, -0.05, -0.05, 0.97), (-0.05, 1.0, 0.02, 0.02)),
        ),
        Verdict.SERVED,
    ),
    "two skills for three goals, 0.70 of 1.00 bit": (
        scored(
            *(0.95, 0.94, -0.02),
            information=0.70,
            by_state=0.35,
            alone=((0.98, -0.04), (-0.05, 0.97), (-0.01, -0.05)),
        ),
        Verdict.TOO_FEW_SKILLS,
    ),
    # Two skills serve the three sectors in the shipped bundle, so that they are not too few.
    "ring after 2 M steps, seed 0: two skills, which do something on every sector": (
        scored(
            *(0.65, 0.97, 0.75),
            information=0.83,
            distance=0.5,
            alone=((0.01, 0.67), (0.97, -0.01), (0.0, 0.79)),
        ),
        Verdict.NOT_LEARNED,
    ),
    "ring after 2 M steps, seed 3: one sector at half, as by one skill alone": (
        scored(
            *(0.79, 0.98, 0.45),
            information=0.79,
            distance=0.525,
            alone=((0.82, -0.01), (0.01, 0.97), (0.40, 0.03)),
        ),
        Verdict.NOT_LEARNED,
    ),
    "ring after 600,000 steps, seed 0": (
        scored(
            *(0.58, 0.76, 0.54),
            information=0.80,
            distance=0.52,
            alone=((-0.01, 0.64), (0.81, 0.0), (0.0, 0.67)),
        ),
        Verdict.NOT_LEARNED,
    ),
    "two skills for three goals, as an evaluation knows it": (
        scored(0.95, 0.94, -0.02, information=0.70),
        Verdict.TOO_FEW_SKILLS,
    ),
    "the released code after 1 M steps: 2.3 of 44.8, skills 0.01 apart": (
        scored(0.0, 0.01, distance=0.01, alone=((0.01, 0.0), (0.0, 0.01))),
        Verdict.NOT_LEARNED,
    ),
    "a bonus of 10 per tick: 506 of 544.8 is 9 % of the way from random": (
        scored(0.09, 0.02, distance=0.02),
        Verdict.NOT_LEARNED,
    ),
    "both skills go to goal 0": (
        scored(0.97, -0.04, distance=0.03, alone=((0.97, 0.96), (-0.04, -0.05))),
        Verdict.COLLAPSED,
    ),
    "skill 0 goes to goal 0, skill 1 has learned nothing": (
        scored(0.97, -0.04, alone=((0.97, 0.0), (-0.04, 0.0))),
        Verdict.COLLAPSED,
    ),
    "one skill for both goals, as an evaluation knows it": (
        scored(0.97, -0.04),
        Verdict.COLLAPSED,
    ),
    "ring from scratch: half of the time each, by state; no information on the sector": (
        scored(
            *(0.46, 0.47, 0.45),
            by_state=0.5,
            alone=((0.60, 0.55), (-0.01, 0.49), (0.0, 0.43)),
        ),
        Verdict.NEEDS_SEQUENCE,
    ),
    # New masters by `q` have 51 % over such skills: no master can tell them apart either.
    "ring from scratch, masters as good as the best skill": (
        scored(*(0.46, 0.47, 0.45), alone=((0.60, 0.55), (-0.01, 0.49), (0.0, 0.43))),
        Verdict.NOT_LEARNED,
    ),
    "ring after 600,000 steps, seed 1: better than the best skill on one task of three": (
        scored(0.49, 0.44, 0.45, alone=((0.27, 0.34), (0.47, 0.33), (0.50, 0.46))),
        Verdict.NOT_LEARNED,
    ),
    "two goals after 300,000 steps, one of which is served after a million": (
        scored(0.05, 0.89, information=0.69, alone=((0.01, 0.03), (0.88, 0.35))),
        Verdict.NOT_LEARNED,
    ),
    # Collapsed at this time, the masters are not alike, and the skill is reset: served after 1 M.
    "two goals after 250,000 steps, seed 0: masters choose differently, 0.46 of 1.00 bit": (
        scored(0.02, 0.79, information=0.46, distance=0.18, alone=((-0.02, 0.03), (0.86, 0.29))),
        Verdict.NOT_LEARNED,
    ),
    "mazes with four directions of the ant, 0.48 of 2.00 bits": (
        scored(
            *(0.58, 0.62, 0.71, 0.70),
            skills=4,
            information=0.48,
            by_state=0.8,
            distance=0.3,
            trained_elsewhere=True,
        ),
        Verdict.NEEDS_SEQUENCE,
    ),
    "patrol: whatever skill is led by, 1.2 of 16": (
        scored(*(0.07, 0.07), trained_elsewhere=True, alone=((0.06, 0.07), (0.07, 0.06))),
        Verdict.NEEDS_SEQUENCE,
    ),
    "skills for both goals, masters at random": (
        scored(0.5, 0.5, alone=((0.98, -0.05), (-0.05, 0.98))),
        Verdict.MASTERS_UNDECIDED,
    ),
    "each goal its own skill, one of them still slow": (
        scored(0.9, 0.4, information=1.0, alone=((0.9, 0.0), (0.0, 0.4))),
        Verdict.NOT_LEARNED,
    ),
    "four skills for two goals, one goal still slow: two of the skills are not needed": (
        scored(
            *(0.9, 0.4),
            skills=4,
            information=0.95,
            alone=((0.9, 0.0, 0.0, 0.0), (0.0, 0.4, 0.0, 0.0)),
        ),
        Verdict.NOT_LEARNED,
    ),
    "four skills for two goals, as an evaluation knows it": (
        scored(0.9, 0.4, skills=4, information=0.95),
        Verdict.NOT_LEARNED,
    ),
    "a single task, for which two skills do the same": (
        scored(0.5, distance=0.01, alone=((0.5, 0.5),)),
        Verdict.NOT_LEARNED,
    ),
    "masters that know better than any skill, which all do harm alone": (
        scored(0.3, 0.3, information=1.0, alone=((-0.5, -0.9), (-0.9, -0.4))),
        Verdict.NEEDS_SEQUENCE,
    ),
    "one of two goals still slow, as an evaluation knows it": (
        scored(0.9, 0.4, information=1.0),
        Verdict.NOT_LEARNED,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_verdict(name):
    evidence, expected = CASES[name]
    assert judge(evidence) is expected


@pytest.mark.parametrize("name", CASES)
def test_one_line_names_the_tasks_and_what_to_do(name):
    evidence, verdict = CASES[name]
    text = explain(evidence, small_config().mlsh)
    assert bool(text) == (verdict is not Verdict.SERVED)
    assert "\n" not in text
    for task, score in evidence.scores.items():
        told = f"{task} at {100 * score:.0f} %"
        assert (told in text) == (score < 0.7)
    if text:
        assert text.startswith(verdict.value)
        assert ". Try " in text
        assert "Try" not in explain(evidence)  # nothing is known of the training


@pytest.mark.parametrize(
    ("information", "distance", "said"),
    [
        (0.05, 0.4, "(masters choose alike on all tasks, 0.05 of 1.00 bits)"),
        (0.05, 0.02, "(masters choose alike on all tasks, 0.05 of 1.00 bits; two skills are 0.02"),
        (0.4, 0.02, "(two skills are 0.02 apart)"),
    ],
)
def test_a_collapse_is_said_by_what_is_alike(information, distance, said):
    evidence = scored(
        *(0.9, 0.3),
        information=information,
        distance=distance,
        alone=((0.9, 0.85), (0.3, 0.25)),
    )
    assert judge(evidence) is Verdict.COLLAPSED
    assert said in explain(evidence)


def test_a_task_may_be_probed_before_it_has_a_master():
    row = {"return/a": 0.5, "alone/b/skill-0": 0.1, "alone/b/skill-1": 0.2, "skill_distance": 0.5}
    limits = [ReferenceReturns(0.0, 0.0, 1.0)] * 2
    evidence = evidence_of([row], ("a", "b"), limits, small_config().mlsh)
    assert judge(evidence) is Verdict.NOT_LEARNED
    assert explain(evidence).startswith("not learned yet: a at 50 %")


def test_what_is_tried():
    few, _ = CASES["two skills for three goals, 0.70 of 1.00 bit"]
    assert "--set mlsh.skills=3" in explain(few, small_config().mlsh)
    between, _ = CASES["ring after 600,000 steps, seed 0"]
    assert "a larger --set steps, another --seed, --set mlsh.skills=3" in explain(
        between, small_config().mlsh
    )
    sequence, _ = CASES["mazes with four directions of the ant, 0.48 of 2.00 bits"]
    assert "mlsh finetune" in explain(sequence, small_config().mlsh)


@pytest.mark.parametrize("case", CASES)
def test_settings_of_a_training_are_not_advised_for_imported_skills(case):
    evidence = replace(CASES[case][0], imported=True)
    text = explain(evidence, small_config().mlsh)
    assert "--set" not in text
    assert (text == "") == (judge(evidence) is Verdict.SERVED)
    assert not text or text.endswith(
        ". Try more episodes (mlsh finetune --updates 40), another mlsh import-skill "
        "--decision-ticks"
    )


def test_what_is_off_is_tried_first_against_collapse():
    collapsed, _ = CASES["both skills go to goal 0"]
    method = replace(small_config().mlsh, probe="none", reset_skill_below=0.0)
    text = explain(collapsed, method)
    assert "Try --set mlsh.probe=centered, --set mlsh.reset_skill_below=0.12" in text
    assert "alike on all tasks, 0.00 of 1.00 bits; two skills are 0.03 apart" in text
    on = explain(collapsed, default_config("moving_bandits", "omni").mlsh)
    assert "Try --set mlsh.mutual_information_coef=0.5, --set mlsh.groups=20, another --seed" in on


def test_evidence_is_of_the_latest_fifth_of_a_training():
    tasks, limits = ("left", "right"), [ReferenceReturns(2.0, 20.0, 42.0)] * 2
    before = {"return/left": 2.0, "mutual_information": 0.0, "state_information": 0.5}
    latest = {
        "return/left": 42.0,
        "return/right": 12.0,
        "mutual_information": 0.8,
        "state_information": 0.1,
        "skill_distance": 0.3,
    }
    probe = {"alone/right/skill-0": 0.1, "alone/right/skill-1": 0.3}
    rows = [before] * 8 + [latest, latest | probe]
    found = evidence_of(rows, tasks, limits, small_config().mlsh)
    assert found is not None
    assert found.scores == pytest.approx({"left": 1.0, "right": 0.25})
    assert (found.information, found.by_state, found.distance) == (0.8, 0.1, 0.3)
    assert found.alone["right"] == pytest.approx([0.1, 0.3])
    assert list(found.alone) == ["right"]
    assert evidence_of([], tasks, limits, small_config().mlsh) is None
    # An earlier version wrote neither.
    old = [{"return/left": 42.0, "mutual_information": 0.8, "skill_distance": 0.3}]
    found = evidence_of(old, tasks, limits, small_config().mlsh)
    assert found is not None
    assert (found.by_state, found.alone) == (0.0, {})


def test_information_that_is_possible():
    assert (bits(2, 3), bits(4, 2), bits(4, 9), bits(1, 3)) == (1.0, 1.0, 2.0, 0.0)
