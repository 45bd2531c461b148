"""Variants, grids, and what comes out of many runs."""

import csv
import multiprocessing
import os
import re
import shutil
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mlsh_ros.cli import main as cli
from policies.bundle.adaptation import AdaptationPoint
from policies.experiments import results_table, sweep
from policies.experiments.ablations import (
    RENAMED,
    SETS,
    VARIANTS,
    WITHOUT_EFFECT,
    Variant,
    grid,
    variants,
)
from policies.experiments.results_table import plot, summarize, write_table
from policies.experiments.sweep import plan, run_job
from policies.mlsh.presets import default_config
from policies.offpolicy.learner import OffPolicyLearner
from policies.training.adapt import AdaptationResult, envs_for_episodes, from_scratch
from policies.training.adaptation_file import CurveOrigin, write_adaptation
from policies.training.run import Run, create_run
from policies.training.train import train
from sim.errors import UserError
from sim.files.arrays import load_arrays
from sim.physics.robot_model import ROBOTS
from tests.support.changelog import renamed

pytestmark = pytest.mark.usefixtures("without_curves")
SMALL = ["mlsh.groups=2", "mlsh.envs=4", "mlsh.warmup=1", "mlsh.joint=1", "steps=800"]
SMALL.insert(0, "family_parameters.ticks=20")  # scores are of 256 episodes


def jobs(folder, names, seeds=(0,), settings=SMALL, **more):
    chosen = grid(variants(names), settings)
    return plan("moving_bandits", "omni", chosen, list(seeds), folder, **more)


def do(planned):
    """Jobs in this process, scored over few episodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("policies.training.adapt.SCORED_TICKS", 0)  # as few episodes as there may be
        assert [run_job(job) for job in planned] == [""] * len(planned)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_the_recipe_but_for_what_it_says(name):
    variant = VARIANTS[name]
    config = variant.config("moving_bandits", "omni", 3)
    assert config.seed == 3
    recipe = default_config("moving_bandits", "omni", 3)
    if variant.preset == "default":
        assert config == recipe.with_values(list(variant.settings))
        assert (config == recipe) == (not variant.settings)


def test_a_sets_name_stands_for_its_variants():
    assert list(variants(["baselines"])) == list(SETS["baselines"])
    assert list(variants(["ablations", "shared"])) == [*SETS["ablations"], "shared"]
    with pytest.raises(UserError, match="variant 'mish'"):
        variants(["mish"])


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_of_a_variant_is_refused_with_the_new_one(old, new):
    with pytest.raises(UserError, match=f"no variant '{old}'. It is now called '{new}'."):
        variants([old])
    assert ("variants of ``mlsh sweep``", f"``{old}``", f"``{new}``") in renamed()


def test_the_list_says_what_each_variant_is(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["mlsh", "sweep", "--list"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {f"{name} {variant.why}" for name, variant in VARIANTS.items()} <= set(lines)
    assert f"baselines: {', '.join(SETS['baselines'])}" in lines


def test_a_grid_has_every_combination():
    two = {"a": Variant("", ("mlsh.probe=none",)), "b": Variant("")}
    made = grid(two, ["mlsh.warmup=1,2", "mlsh.joint=3", "network.hidden=[8, 8]"])
    assert list(made) == ["a-warmup=1", "a-warmup=2", "b-warmup=1", "b-warmup=2"]
    assert (
        list(grid(two, ["mlsh.mutual_information_coef=0,0.5"]))[1]
        == "a-mutual_information_coef=0.5"
    )
    configs = {name: v.config("moving_bandits", "omni", 0) for name, v in made.items()}
    assert [c.mlsh.warmup for c in configs.values()] == [1, 2, 1, 2]
    assert [c.mlsh.probe for c in configs.values()] == ["none", "none", "centered", "centered"]
    assert {c.mlsh.joint for c in configs.values()} == {3}
    assert {c.network.hidden for c in configs.values()} == {(8, 8)}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    do(jobs(folder, ["mlsh"]))
    return folder


@pytest.fixture(scope="module")
def swept_all(swept):
    """The same folder with the other ways to learn a task too."""
    do(jobs(swept, ["shared", "scratch"]))
    return swept


@pytest.mark.slow
def test_every_way_to_learn_a_new_task_leaves_a_curve(swept_all, tmp_path):
    planned = jobs(swept_all, ["mlsh", "shared", "scratch"])
    assert all(job.curves() for job in planned)
    summaries = summarize(planned)
    assert [s.variant for s in summaries] == ["mlsh", "shared", "scratch"]
    for s in summaries:
        (outcome,) = s.outcomes
        assert outcome.scores.shape == (2, 11)
        assert outcome.steps.tolist() == [2000 * u for u in range(11)]
        assert outcome.worst <= outcome.score <= 1.1
        assert s.reached(outcome.worst) == 1
        assert s.reached(outcome.worst + 0.01) == 0
        assert (outcome.seconds > 0) == (s.variant != "scratch")
    write_table(summaries, tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    assert len(rows) == 3 * 2 * 11
    plot(summaries, 0.95, tmp_path / "all.png")
    assert (tmp_path / "all.png").stat().st_size > 10_000


def test_what_is_done_is_not_done_again_and_other_settings_are_refused(swept, capsys, monkeypatch):
    settings = [f"--set={s}" for s in SMALL]
    before = (swept / "mlsh-0" / "adaptation.csv").stat().st_mtime_ns
    words = ["mlsh", "sweep", "moving_bandits", "--seeds", "1", "-o", str(swept), *settings]
    monkeypatch.setattr("sys.argv", [*words, "--learner", "ppo"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out = capsys.readouterr().out
    assert not ended.value.code
    assert "1/1" in out
    assert "the recipe" in out  # what the variant is
    row = next(line for line in out.splitlines() if line.split()[:2] == ["mlsh", "1"])
    assert re.search(r"% +- +0 ", row), row  # the mean of one seed has no interval; the worst is 0
    assert "sweep.png" in out
    assert (swept / "mlsh-0" / "adaptation.csv").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"mlsh-0 has a run of other settings"):
        jobs(swept, ["mlsh"], settings=[*SMALL[:-1], "steps=1200"])


@pytest.mark.slow
def test_a_new_task_can_be_learned_in_smaller_steps_without_training_again(
    swept_all, capsys, monkeypatch
):
    swept = swept_all
    before = (swept / "mlsh-0" / "checkpoint.npz").read_bytes()
    settings = [f"--set={s}" for s in SMALL]
    words = ["mlsh", "sweep", "moving_bandits", "--seeds", "1", "-o", str(swept), *settings]
    monkeypatch.setattr("sys.argv", [*words, "--variant=mlsh", "--learner=ppo", "--episodes=10"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    # 10 episodes of 20 ticks.
    assert "updates of 200 steps" in capsys.readouterr().out
    do(jobs(swept, ["shared", "scratch"], episodes=10))
    for variant in ("mlsh", "shared", "scratch"):
        rows = list(csv.DictReader((swept / f"{variant}-0" / "adaptation-10.csv").open()))
        assert [int(r["steps"]) for r in rows if r["task"] == "goal-0"] == list(
            range(0, 2001, 200)
        )
    after = load_arrays(swept / "mlsh-0" / "checkpoint.npz")
    (swept / "before.npz").write_bytes(before)
    for name, array in load_arrays(swept / "before.npz").items():
        assert name == "seconds" or np.array_equal(array, after[name])
    (job,) = jobs(swept, ["mlsh"])
    with pytest.raises(
        UserError, match=r"3 episodes per update are 2 simulations of 50 ticks.* 4"
    ):
        envs_for_episodes(job.config, 3)


def test_new_tasks_are_learned_by_value_iteration_by_default(swept, capsys, monkeypatch):
    made = []
    monkeypatch.setattr(
        "policies.training.adapt.OffPolicyLearner",
        lambda *given: made.append(OffPolicyLearner(*given)) or made[-1],
    )
    before = {p.name: p.read_bytes() for p in (swept / "mlsh-0").glob("adaptation*.csv")}
    (job,) = jobs(swept, ["mlsh"], episodes=4, learner="q")
    do([job])
    assert len(made) == 1
    assert job.result.name == "adaptation-q-4.csv"
    # Two simulations of 50 ticks are five episodes of 20.
    assert [p.steps for p in job.curves().by_task["goal-0"]] == [100 * u for u in range(11)]
    assert all((swept / "mlsh-0" / name).read_bytes() == data for name, data in before.items())
    words = ["mlsh", "sweep", "moving_bandits", "--seeds", "1", "-o", str(swept)]
    monkeypatch.setattr("sys.argv", [*words, *(f"--set={s}" for s in SMALL)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    out = capsys.readouterr().out
    assert "updates of 100 steps" in out
    assert "sweep-q-4.csv" in out
    assert len(made) == 1


def test_only_who_probes_needs_episodes_for_each_skill(tmp_path):
    with pytest.raises(UserError, match=r"4 episodes per update are 2 simulations.* 4"):
        jobs(tmp_path, ["mlsh"], episodes=4)
    (job,) = jobs(tmp_path, ["scratch"], settings=SMALL[:1], episodes=4, learner="q")
    assert job.result.name == "adaptation-4.csv"  # it has no master that would learn by q


def test_a_damaged_run_is_named_and_stops_no_other(tmp_path):
    (job,) = jobs(tmp_path, ["mlsh"])
    create_run(job.config, job.path)
    (job.path / "checkpoint.npz").write_bytes(b"half")
    assert "mlsh-0/checkpoint.npz: not a readable checkpoint" in run_job(job)


def finish(job, origin=None):
    """Made-up curves where its result is to be."""
    job.path.mkdir(exist_ok=True)
    curve = [AdaptationPoint(u, 2000 * u, 0.0, u / 10, 0.0) for u in range(11)]
    origin = origin or CurveOrigin.of(*job.trained())
    write_adaptation(job.result, ("goal-0", "goal-1"), [curve, curve], origin)


def first_seed_alone(job):
    """Seed 1 gets killed, unless it was before."""
    with (job.path.parent / "log").open("a") as log:
        log.write(f"{job.path.name} ")
    if job.path.name == "scratch-1" and not (job.path.parent / "killed").exists():
        (job.path.parent / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    finish(job)
    return ""


def test_a_killed_process_is_named_and_the_next_sweep_goes_on(tmp_path, monkeypatch):
    # Forked, so that the processes know the work above; torch is not used in them.
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(sweep.multiprocessing, "get_context", lambda method: fork)
    monkeypatch.setattr(sweep, "run_job", first_seed_alone)
    planned = jobs(tmp_path, ["scratch"], seeds=(0, 1, 2), settings=[])
    told = {job.path.name: reason for job, reason in sweep.sweep(planned, 1)}
    killed = "its process or another one was killed; sweep again to go on"
    assert told == {"scratch-0": "", "scratch-1": killed, "scratch-2": killed}
    told = {job.path.name: reason for job, reason in sweep.sweep(planned, 1)}
    assert told == {"scratch-0": "", "scratch-1": "", "scratch-2": ""}
    assert (tmp_path / "log").read_text() == "scratch-0 scratch-1 scratch-1 scratch-2 "


# Results that are not of what stands there now ---------------------------------------------------


def swept_with_own_robot(tmp_path, name):
    """A robot of one's own, and a job with it that has its result."""
    robot = tmp_path / "mine"
    shutil.copytree(ROBOTS / "omni", robot)
    settings = () if name == "scratch" else tuple(SMALL)
    chosen = {name: replace(VARIANTS[name], settings=(*settings, *VARIANTS[name].settings))}

    def planned():
        return plan("moving_bandits", str(robot), chosen, [0], tmp_path / "sweep")

    (job,) = planned()
    create_run(job.config, job.path)
    if job.trains:
        train(Run(job.path))
    finish(job)
    return robot / "model.xml", planned


@pytest.mark.parametrize("name", ["scratch", "mlsh", "shared"])
def test_results_of_a_robot_that_was_changed_are_refused(tmp_path, name):
    model, planned = swept_with_own_robot(tmp_path, name)
    (job,) = planned()
    assert list(sweep.sweep([job], 1)) == [(job, "")]  # it is done
    model.write_text(model.read_text() + "<!-- heavier -->")
    before = job.result.read_bytes()
    with pytest.raises(UserError, match=r"robot .*mine"):
        planned()
    with pytest.raises(UserError, match=r"robot .*mine"):
        summarize([job])
    assert job.result.read_bytes() == before


def test_a_robot_that_is_changed_while_it_is_learned_from_has_no_result(tmp_path, monkeypatch):
    model, planned = swept_with_own_robot(tmp_path, "scratch")
    (job,) = planned()
    job.result.unlink()

    def learning(*_, **__):
        model.write_text(model.read_text() + "<!-- heavier -->")
        return AdaptationResult(None, [[AdaptationPoint(u, u, 0.0, 0.0, 0.0) for u in range(11)]])

    monkeypatch.setattr(sweep, "from_scratch", learning)
    assert "changed during the training: model.xml of robot" in run_job(job)
    assert not job.result.exists()


DAMAGE = {
    "empty": lambda text: "",
    "header only": lambda text: text.splitlines(keepends=True)[0],
    "a task cut off": lambda text: "".join(text.splitlines(keepends=True)[:12]),
    "cut short": lambda text: text[: len(text) - 200],
    "cut in the last number": lambda text: text[:-5],
    "a row less": lambda text: "".join(
        text.splitlines(keepends=True)[:5] + text.splitlines(keepends=True)[6:]
    ),
    "not finite": lambda text: text.replace("0.1000", "nan"),
    "a version that did not say what it is of": lambda text: "\r\n".join(
        ",".join(line.split(",")[:6]) for line in text.splitlines()
    ),
    "of an earlier iteration": lambda text: text.replace(",2,", ",1,"),
}


# One kind of damage always, all of them with `make test-slow`.
@pytest.mark.parametrize(
    "how",
    [pytest.param(how, marks=[] if how == "cut short" else [pytest.mark.slow]) for how in DAMAGE],
)
def test_a_damaged_result_is_none_and_is_made_again(tmp_path, monkeypatch, how):
    name = "mlsh" if how == "of an earlier iteration" else "scratch"
    _, planned = swept_with_own_robot(tmp_path, name)
    (job,) = planned()
    whole = job.result.read_text()
    job.result.write_text(DAMAGE[how](whole))
    assert job.result.read_text() != whole
    (job,) = planned()
    assert summarize([job]) == []
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(sweep.multiprocessing, "get_context", lambda method: fork)
    monkeypatch.setattr(sweep, "run_job", finish_again)
    assert list(sweep.sweep([job], 1)) == [(job, "")]
    assert len(summarize([job])) == 1


def finish_again(job):
    finish(job)
    return ""


# Bounds ------------------------------------------------------------------------------------------


@pytest.mark.timeout(20)
def test_a_sweep_has_a_bound():
    with pytest.raises(UserError, match=r"--set makes 1,000,000,000 combinations; at most 10,000"):
        grid(variants(["mlsh"]), [f"mlsh.{k}=1,2,3,4,5,6,7,8,9,10" for k in "abcdefghi"])
    many = {f"v{i}": VARIANTS["mlsh"] for i in range(101)}
    with pytest.raises(UserError, match=r"101 variants with 100 seeds each are 10,100 runs"):
        plan("moving_bandits", "omni", many, list(range(100)), Path("nowhere"))


# Settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "settings", "said"),
    [
        (["mlsh"], ["seed=7"], "seed is set by --seeds"),
        (["mlsh"], ["robot=rover"], "robot is set by --robot"),
        (["mlsh"], ["family=rooms"], "family is the argument FAMILY"),
        (["mlsh"], ["threads=4"], "threads is 1 for each run"),
        (["no-warm-up"], ["mlsh.warmup=3,9"], "variant 'no-warm-up' is mlsh.warmup=0"),
        (["mlsh", "no-warm-up"], ["mlsh.warmup=3"], "variant 'no-warm-up' is mlsh.warmup=0"),
        (["no-warm-up"], ["mlsh={warmup: 3}"], "variant 'no-warm-up' is mlsh.warmup=0"),
        (["mlsh"], ["mlsh.warmup=1,2", "mlsh.warmup=3"], "give it once"),
        (["mlsh", "scratch"], ["mlsh.groups=2,4"], "'scratch' does not depend on mlsh.groups"),
        (["scratch"], ["mlsh.warmup=3"], "'scratch' does not depend on mlsh.warmup"),
        (["sb3", "mlsh"], ["skill.epochs=3,4"], "'sb3' does not depend on skill.epochs"),
    ],
)
def test_a_setting_that_something_else_decides_is_refused(names, settings, said):
    with pytest.raises(UserError) as refused:
        grid(variants(names), settings)
    assert said in str(refused.value)


def scores_from_scratch(config) -> list[float]:
    (curve,) = from_scratch(config, 1, updates=2, envs=4, episodes=4).curves
    return [point.greedy for point in curve]


@cache
def plain_scores() -> list[float]:
    return scores_from_scratch(default_config("moving_bandits", "omni").with_values(SMALL))


@pytest.mark.parametrize("setting", WITHOUT_EFFECT["scratch"])
def test_what_scratch_is_said_not_to_depend_on_changes_nothing(setting):
    config = default_config("moving_bandits", "omni").with_values(SMALL)
    other = {"mlsh.probe": "none", "mlsh.balanced_tasks": "false"}
    other |= {"mlsh.probe_ema": 0.5, "mlsh.reset_skill_below": 0.3}
    changed = config.with_values([f"{setting}={other.get(setting, 7)}"])
    assert changed != config
    assert scores_from_scratch(changed) == plain_scores()


def test_what_a_users_family_raises_ends_its_run_alone(tmp_path, monkeypatch):
    def learn(*_, **__):
        raise ZeroDivisionError("float\ndivision")

    monkeypatch.setattr(sweep, "train", learn)
    planned = jobs(tmp_path, ["mlsh"])
    assert run_job(planned[0]) == "ZeroDivisionError: float\\ndivision"


def test_the_table_of_another_sweep_is_not_replaced(tmp_path):
    table, figure = tmp_path / "sweep.csv", tmp_path / "sweep.png"
    planned = jobs(tmp_path, ["mlsh"])
    table.write_text("my,own,table\n")
    with pytest.raises(UserError, match="is no table of a sweep"):
        results_table._has_table(table, figure, planned)
    head = ",".join(results_table.HEADER)
    table.write_text(f"{head}\nmlsh,0,goal-0,0,0,1,1\nscratch,3,goal-0,0,0,1,1\n")
    with pytest.raises(UserError, match="has results of 'scratch' with seed 3"):
        results_table._has_table(table, figure, planned)
    table.write_text(f"{head}\nmlsh,0,goal-0,0,0,1,1\n")
    assert results_table._has_table(table, figure, planned)
