"""Frozen skills on a family they never saw, over seeds, beside PPO from scratch."""

import csv
from dataclasses import dataclass

import pytest

from mlsh_ros.cli import main as cli
from policies.bundle.bundle import load_bundle
from policies.experiments.transfer import SCRATCH, SKILLS, transfer, transfer_config
from policies.training.adapt import envs_for_episodes
from policies.training.finetune import task_config
from sim.errors import UserError
from sim.tasks.registry import FAMILIES
from sim.tasks.ring_bandits import RingBandits
from sim.tasks.task_id import TaskId


def run(episodes=4, **changes):
    bundle = load_bundle("moving_bandits")
    config = transfer_config(bundle, "ring_bandits", threads=1, settings=[], baseline=False)
    envs = envs_for_episodes(config, episodes)
    given = {"updates": 1, "envs": envs, "baseline": False, **changes}
    return list(transfer(bundle, config, [0, 1], **given))


@pytest.fixture(autouse=True)
def light(monkeypatch):
    monkeypatch.setattr("policies.training.adapt.SCORED_TICKS", 32 * 50)


@pytest.mark.slow
def test_every_seed_learns_every_task_with_whole_episodes():
    results = run()
    assert [(r.learner, r.seed) for r in results] == [(SKILLS, 0), (SKILLS, 1)]
    for r in results:
        assert r.tasks == ("sector-0", "sector-1", "sector-2")
        # 4 episodes of 50 ticks.
        assert [[p.steps for p in curve] for curve in r.curves] == [[0, 200]] * 3
        assert r.solved == sum(c[-1].success > 0.5 for c in r.curves)
        assert r.mean == pytest.approx(sum(c[-1].greedy for c in r.curves) / 3)
    one, other = results
    assert [p.greedy for p in one.last] != [p.greedy for p in other.last]


def test_an_episode_longer_than_the_skills_rollouts_is_run_as_a_whole(monkeypatch):
    @dataclass(frozen=True)
    class Longer(RingBandits):
        name = "longer"
        ticks: int = 75

    monkeypatch.setitem(FAMILIES, "longer", Longer)
    bundle = load_bundle("moving_bandits")
    for family, ticks in (("ring_bandits", 50), ("longer", 80)):  # a multiple of N = 10
        config, _ = task_config(bundle, TaskId(family, "sector-0"), seed=0)
        assert config.mlsh.rollout_ticks == ticks


@pytest.mark.slow
def test_the_command_prints_each_learners_table_and_writes_every_number(
    tmp_path, monkeypatch, capsys
):
    target = tmp_path / "all.csv"
    words = [
        "mlsh",
        "eval-transfer",
        "moving_bandits",
        "ring_bandits",
        "--seeds",
        "1",
        "--updates",
        "1",
    ]
    monkeypatch.setattr("sys.argv", [*words, "--episodes", "4", "-o", str(target)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    out = capsys.readouterr().out
    assert f"{SKILLS}, 1 updates" in out
    assert f"{SCRATCH}, 1 updates" in out
    rows = list(csv.DictReader(target.open()))
    assert len(rows) == 2 * 3 * 2
    assert {r["episodes"] for r in rows} == {"0", "4"}


@pytest.mark.slow
def test_the_command_knows_the_tasks_of_a_changed_family(tmp_path, monkeypatch, capsys):
    """Two of the four directions that the bundle was trained on."""
    words = ["mlsh", "eval-transfer", "ant_four", "ant_movement", "--seeds=1", "--updates=1"]
    words += ["--no-baseline", "--set=family_parameters.directions=2", "--episodes=8"]
    words += ["--set=family_parameters.ticks=50", "--set=mlsh.rollout_ticks=50", "-o"]
    monkeypatch.setattr("sys.argv", [*words, str(tmp_path / "all.csv")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    out = capsys.readouterr().out
    assert "of 2 tasks" in out
    assert "right" in out
    assert "down" not in out


def test_too_few_episodes_for_the_probe_are_refused():
    with pytest.raises(UserError, match=r"3 episodes per update are 3 simulations .* needs 4"):
        run(episodes=3)
    config, _ = task_config(
        load_bundle("moving_bandits"), TaskId("ring_bandits", "sector-0"), seed=0
    )
    assert envs_for_episodes(config.with_values(["mlsh.probe=none"]), 3) == 3
