"""Where a bundle breaks: scores over axes and pairs, and how they are asked for."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mlsh_ros.evaluation import robustness as module
from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import resolve_cases
from mlsh_ros.evaluation.measured import measured
from mlsh_ros.evaluation.robustness import (
    PAIR_POINTS,
    POINTS,
    QUANTITIES,
    Axis,
    Point,
    RobustnessMap,
    parse_axes,
    plot_map,
    points_of,
    robustness,
    sim_params_at,
)
from policies.bundle.bundle import load_bundle
from sim.envs.reference_returns import compute_reference_returns
from sim.errors import UserError
from sim.files.output import write_json
from sim.physics.robot_model import load_robot, robot_names
from sim.randomization.schema import check_sim_params, sim_params_from_dict

TASK = "moving_bandits/goal-0"


def test_axes_are_read_with_their_units():
    axes = parse_axes(["friction=0.3:1.2 delay=0:60ms", "payload=1:2kg", "sensor_delay=0:0.1s"])
    expected = [("friction", 0.3, 1.2), ("delay", 0.0, 0.06), ("payload", 1, 2)]
    expected.append(("sensor_delay", 0, 0.1))
    assert [(a.name, a.low, a.high) for a in axes] == expected
    assert axes[1].label == "delay (s)"
    np.testing.assert_allclose(axes[1].values(4), [0, 0.02, 0.04, 0.06])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frict=1:2", "no quantity to sweep 'frict'. Did you mean 'friction'?"),
        ("friction", "low:high is expected"),
        ("friction=1", "low:high is expected"),
        ("delay=0:6min", "low:high is expected, such as delay=0:60ms; delay is in s"),
        ("mass=300:3000ms", "mass is in x nominal, and may be followed by x or nothing"),
        ("friction=1:2kg", "friction is in x nominal"),
        ("payload=1:2s", "payload is in kg, and may be followed by kg or g or nothing"),
        ("sensor_delay=1:2kg", "sensor_delay is in s, and may be followed by s or ms or nothing"),
        ("dropout=0:1s", "dropout is in chance per tick"),
        ("joint_friction=0:1kg", "joint_friction is in N m or N"),
        ("friction=2:1", "the first must be the lower"),
        ("friction=nan:1", "the first must be the lower"),
        ("friction=1:2 friction=2:3", "'friction' is given twice"),
    ],
)
def test_what_is_no_axis_is_refused(text, words):
    with pytest.raises(UserError) as info:
        parse_axes([text])
    assert words in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("robot", robot_names())
def test_every_quantity_can_be_swept_on_every_robot_and_with_every_other(robot):
    interface = load_robot(robot).interface
    alone = {name: sim_params_at(interface, {name: 0.5}) for name in QUANTITIES}
    assert len({repr(each) for each in alone.values()}) == len(QUANTITIES)
    check_sim_params(sim_params_at(interface, dict.fromkeys(QUANTITIES, 0.5)), interface, "all")
    both = sim_params_at(interface, {"gain": 0.5, "delay": 0.25, "mass": 2, "payload": 3})
    motors = {(m.gain_factor, m.delay_s) for m in both.actuators.values()}
    assert motors == {((0.5, 0.5), (0.25, 0.25))}
    assert (both.physics.mass_factor, both.physics.payload_kg) == ((2, 2), (3, 3))


def test_points_are_scores_of_the_same_episodes(monkeypatch):
    monkeypatch.setattr(module, "POINTS", 3)
    monkeypatch.setattr(module, "PAIR_POINTS", 2)
    bundle, seen = load_bundle("moving_bandits"), []
    cases = resolve_cases(bundle, task="moving_bandits/goal-0")
    axes = parse_axes(["mass=1:9 delay=0:400ms"])
    how = {"episodes": 2, "seed": 4}
    found = robustness(cases, axes, on_point=lambda: seen.append(1), **how)
    assert len(seen) == points_of(axes) == 1 + 2 * 3 + 2 * 2
    _, points = found.axes["delay"]
    assert [p.values for p in points] == [{"delay": 0.0}, {"delay": 0.2}, {"delay": 0.4}]
    assert points[0].score == found.nominal.score  # where nothing differs
    assert points[0].score > points[1].score > points[2].score
    motors = {name: {"delay_s": 0.4} for name in ("drive_x", "drive_y")}
    late = sim_params_from_dict({"actuators": motors}, "test")
    done = run_offline([replace(cases[0], sim_params=late)], **how)
    # Against the bounds of the nominal model.
    limit = compute_reference_returns(load_robot("omni"), cases[0].family, cases[0].number, **how)
    expected = limit.normalize(np.mean([e.value for e in done]))
    assert points[2].score == pytest.approx(expected)
    gained = found.axes["mass"][1]
    corner = found.pairs["mass", "delay"]
    assert [tuple(p.values.values()) for p in corner] == [(1, 0), (1, 0.4), (9, 0), (9, 0.4)]
    assert [corner[0].score, corner[1].score] == [points[0].score, points[2].score]
    assert corner[2].score == gained[2].score


def made_up() -> RobustnessMap:
    axes = [Axis("friction", 0.2, 0.8), Axis("delay", 0.0, 0.06)]
    point = Point({}, 1.0, 1.0, 0.0)
    lines = {
        a.name: (
            a,
            [
                # A robot that is stopped in half of the episodes at the end of the delays.
                Point({a.name: float(v)}, float(v / a.high), 1.0, 0.5 * float(v == 0.06))
                for v in a.values(POINTS)
            ],
        )
        for a in axes
    }
    pair = [point] * PAIR_POINTS**2
    bundle = load_bundle("moving_bandits")
    cases = resolve_cases(bundle, task="moving_bandits/goal-0", sim_params="heavy")
    return RobustnessMap(
        measured(cases[0]), cases, 5, 0, point, lines, {("friction", "delay"): pair}
    )


def test_the_verdict_names_where_it_breaks_and_the_files_hold_it(tmp_path):
    found = made_up()
    # Scores are v / 0.8: less than 0.8 of 1 below 0.64; 0.2, 0.3 .. 0.8 were tried.
    said = "friction (x nominal): below 80% of the nominal score at 0.2, 0.3, 0.4, 0.5, 0.6"
    assert found.verdict("friction") == said
    stops = "; skill_node would stop the robot in 50% of the episodes at 0.06"
    assert found.verdict("delay").endswith(stops)
    write_json(tmp_path / "map.json", found.to_dict())
    data = json.loads((tmp_path / "map.json").read_text())
    assert data["schema"] == 2
    assert (data["robot"], data["sim_params"], data["seed"]) == ("omni", "heavy", 0)
    assert data["tasks"] == [{"task": "moving_bandits/goal-0", "master": "goal-0"}]
    assert all(len(data[f"{of}_digest"]) == 64 for of in ("interface", "model", "sim_params"))
    assert data["axes"]["friction"]["verdict"] == said
    assert [p["stopped"] for p in data["axes"]["delay"]["points"]] == [0.0] * 6 + [0.5]
    assert len(data["pairs"][0]["points"]) == PAIR_POINTS**2
    plot_map(found, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UserError, match="could not be written"):
        plot_map(found, tmp_path / "map.json" / "map.png")


def test_a_score_that_is_kept_does_not_hide_that_the_robot_would_be_stopped(monkeypatch):
    monkeypatch.setattr(module, "POINTS", 2)
    bundle = load_bundle("moving_bandits")
    narrow = {name: {"velocity": (-1e-3, 1e-3)} for name in bundle.manifest.skills}
    guarded = replace(bundle, manifest=replace(bundle.manifest, skill_limits=narrow))
    (axis,) = parse_axes(["mass=1:1.01"])
    found = [
        robustness(resolve_cases(each, task=TASK), [axis], episodes=2, seed=0)
        for each in (bundle, guarded)
    ]
    free, stopped = found
    assert [p.stopped for p in (free.nominal, *free.axes["mass"][1])] == [0.0] * 3
    assert [p.stopped for p in (stopped.nominal, *stopped.axes["mass"][1])] == [1.0] * 3
    assert free.verdict("mass") == "mass (x nominal): keeps 80% of the nominal score everywhere"
    assert stopped.verdict("mass") == (
        "mass (x nominal): keeps 80% of the nominal score everywhere; skill_node would stop the "
        "robot in 100% of the episodes at 1, 100% at 1.01"
    )


def test_a_nominal_score_below_zero_has_nothing_to_keep(tmp_path):
    found = replace(made_up(), nominal=Point({}, -0.1, 0.0, 0.0))
    assert found.verdict("friction") == (
        "friction (x nominal): the nominal score is -0.10, so no part of it is kept"
    )
    plot_map(replace(found, nominal=Point({}, 1.4, 1.0, 0.0)), tmp_path / "map.png")


def test_a_sweep_over_nothing_is_refused(mlsh):
    code, _, said = mlsh("evaluate", "moving_bandits", "--robustness", "")
    assert code == 1
    assert "--robustness: no quantity is given" in said
