"""Variants, grids, and what comes out of many runs."""

import csv
import multiprocessing
import os
import signal

import numpy as np
import pytest

from mlsh_ros.cli import main as cli
from policies.experiments import sweep
from policies.experiments.ablations import SETS, VARIANTS, Variant, grid, variants
from policies.experiments.results_table import plot, summarise, write_table
from policies.experiments.sweep import interval, plan, run_job
from policies.mlsh.config import default_config
from policies.training.adapt import envs_for_episodes
from policies.training.run import create_run
from sim.errors import UserError
from sim.files.arrays import load_arrays

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


def test_the_list_says_what_each_variant_is(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["mlsh", "sweep", "--list"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {f"{name} {variant.why}" for name, variant in VARIANTS.items()} <= set(lines)
    assert f"baselines: {', '.join(SETS['baselines'])}" in lines


def test_a_grid_has_every_combination_and_a_variants_own_settings_win():
    two = {"a": Variant("", ("mlsh.warmup=0",)), "b": Variant("")}
    made = grid(two, ["mlsh.warmup=1,2", "mlsh.joint=3", "network.hidden=[8, 8]"])
    assert list(made) == ["a-warmup=1", "a-warmup=2", "b-warmup=1", "b-warmup=2"]
    assert list(grid(two, ["mlsh.information=0,0.5"]))[1] == "a-information=0.5"
    configs = {name: v.config("moving_bandits", "omni", 0) for name, v in made.items()}
    assert [c.mlsh.warmup for c in configs.values()] == [0, 0, 1, 2]
    assert {c.mlsh.joint for c in configs.values()} == {3}
    assert {c.network.hidden for c in configs.values()} == {(8, 8)}


def test_interval_is_the_spread_of_the_mean():
    # 100 values of deviation 1: the mean's is 0.1, and 95 % lie within 1.96 of them.
    values = np.random.default_rng(1).standard_normal(100)
    values = (values - values.mean()) / values.std()
    low, high = interval(values.tolist())
    assert low == pytest.approx(-0.196, abs=0.02)
    assert high == pytest.approx(0.196, abs=0.02)
    assert interval([3.0]) == (3.0, 3.0)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    do(jobs(folder, ["mlsh", "shared", "scratch"]))
    return folder


def test_every_way_to_learn_a_new_task_leaves_a_curve(swept, tmp_path):
    planned = jobs(swept, ["mlsh", "shared", "scratch"])
    assert all(job.done for job in planned)
    summaries = summarise(planned)
    assert [s.variant for s in summaries] == ["mlsh", "shared", "scratch"]
    for s in summaries:
        (outcome,) = s.outcomes
        assert outcome.share.shape == (2, 11)
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
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out = capsys.readouterr().out
    assert not ended.value.code
    assert "1/1" in out
    assert "the recipe" in out  # what the variant is
    assert "sweep.png" in out
    assert (swept / "mlsh-0" / "adaptation.csv").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"mlsh-0 has a run of other settings"):
        jobs(swept, ["mlsh"], settings=[*SMALL[:-1], "steps=1200"])


def test_a_new_task_can_be_learned_in_smaller_steps_without_training_again(
    swept, capsys, monkeypatch
):
    before = (swept / "mlsh-0" / "checkpoint.npz").read_bytes()
    settings = [f"--set={s}" for s in SMALL]
    words = ["mlsh", "sweep", "moving_bandits", "--seeds", "1", "-o", str(swept), *settings]
    monkeypatch.setattr("sys.argv", [*words, "--variant=mlsh", "--episodes", "10"])
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


def test_a_damaged_run_is_named_and_stops_no_other(tmp_path):
    (job,) = jobs(tmp_path, ["mlsh"])
    create_run(job.config, job.path)
    (job.path / "checkpoint.npz").write_bytes(b"half")
    assert "mlsh-0/checkpoint.npz: not a readable checkpoint" in run_job(job)


def first_seed_alone(job):
    """Seed 1 gets killed, unless it was before."""
    with (job.path.parent / "log").open("a") as log:
        log.write(f"{job.path.name} ")
    if job.path.name == "mlsh-1" and not (job.path.parent / "killed").exists():
        (job.path.parent / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    job.path.mkdir()
    job.result.touch()
    return ""


def test_a_killed_process_is_named_and_the_next_sweep_goes_on(tmp_path, monkeypatch):
    # Forked, so that the processes know the work above; torch is not used in them.
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(sweep.multiprocessing, "get_context", lambda method: fork)
    monkeypatch.setattr(sweep, "run_job", first_seed_alone)
    planned = jobs(tmp_path, ["mlsh"], seeds=(0, 1, 2))
    told = {job.path.name: reason for job, reason in sweep.sweep(planned, 1)}
    killed = "its process or another one was killed; sweep again to go on"
    assert told == {"mlsh-0": "", "mlsh-1": killed, "mlsh-2": killed}
    told = {job.path.name: reason for job, reason in sweep.sweep(planned, 1)}
    assert told == {"mlsh-0": "", "mlsh-1": "", "mlsh-2": ""}
    assert (tmp_path / "log").read_text() == "mlsh-0 mlsh-1 mlsh-1 mlsh-2 "
