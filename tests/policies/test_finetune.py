"""One more master: the skills stay as they are, to the byte."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from policies.bundle.bundle import load_bundle, write_bundle
from policies.bundle.manifest import MANIFEST
from policies.bundle.onnx_reader import read_graph
from policies.bundle.runtime import load_policy
from policies.bundle.task_compatibility import check_fits
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.rollout import Collector
from policies.training import finetune as module
from policies.training.adapt import (
    AdaptationPoint,
    adapt,
    envs_per_update,
    from_scratch,
    greedy_scores,
)
from policies.training.finetune import add_masters, finetune, install_skills, task_config
from policies.training.finetune_plot import adaptation_image, plot_adaptation, write_curves
from policies.training.run import environment
from sim.envs.reference_returns import ReferenceReturns
from sim.errors import UserError
from sim.files.output import lock_beside, locked
from sim.physics.robot_model import ROBOTS, load_robot
from sim.tasks.moving_bandits import MovingBandits
from sim.tasks.registry import FAMILIES, make_family
from sim.tasks.task_id import TaskId
from tests.support.fenced_bandits import FencedBandits

OTHER = "ring_bandits/sector-1"


@pytest.fixture(autouse=True)
def light(monkeypatch):
    monkeypatch.setattr("policies.training.adapt.SCORED_TICKS", 32 * 50)
    monkeypatch.setattr("policies.training.adapt.MAX_UPDATE_STEPS", 400)


def learn(bundle, path, task=OTHER, **changes):
    given = {"name": "new", "updates": 1, "seed": 5, "facts": environment()} | changes
    return finetune(bundle, TaskId.parse(task), path, **given)


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


# What changes and what does not -----------------------------------------------------------------


def test_skills_are_called_by_their_names_in_the_bundle(bundle, tmp_path):
    named = replace(bundle, manifest=replace(bundle.manifest, skills=("near", "far")))
    lines = []
    task = "moving_bandits/goal-1"
    learn(named, tmp_path / "b", task, learner="q", episodes=4, baseline=False, say=lines.append)
    assert re.search(r"[:(] ?near -?[\d.e-]+, far -?[\d.e-]+", lines[0]), lines[0]
    assert "skill-" not in lines[0]


def test_a_bundle_that_comes_while_a_master_learns_stays(bundle, tmp_path):
    other, path = load_bundle("moving_bandits"), tmp_path / "new"
    files = {n: d for n, d in other.files.items() if n != MANIFEST}

    def arrive(_):
        if not path.exists():
            write_bundle(other.manifest, files, path)

    more = {"learner": "q", "episodes": 4, "on_update": arrive}
    text = refusal(learn, bundle, path, "moving_bandits/goal-1", **more)
    assert "new has another bundle already; give another --output, or --overwrite" in text
    assert load_bundle(str(path)).manifest == other.manifest


@pytest.mark.slow
def test_a_master_for_a_task_of_another_family(bundle, tmp_path):
    latest = []
    result = learn(bundle, tmp_path / "more", updates=2, on_update=latest.append)
    more = load_bundle(tmp_path / "more")
    same = [name for name in bundle.files if more.files.get(name) == bundle.files[name]]
    # Every file of the old bundle but the manifest and the golden rows is there to the byte.
    assert sorted(set(bundle.files) - set(same)) == ["golden.npz", "manifest.json"]
    assert more.skill_hashes() == bundle.skill_hashes()
    assert set(more.files) - set(bundle.files) == {"masters/new.onnx"}
    # The old masters are described as before; the new one by what it is.
    masters = dict(more.manifest.masters)
    entry = masters.pop("new")
    assert masters == bundle.manifest.masters
    assert entry.task == OTHER
    assert entry.score.value == result.adapted.curves[0][-1].greedy
    assert entry.score.episodes == 32
    assert entry.provenance.seed == 5
    assert (entry.provenance.updates, entry.provenance.steps) == (2, 800)
    assert entry.provenance.config["family"] == "ring_bandits"
    assert more.manifest.provenance == bundle.manifest.provenance  # of the skills
    assert result.parity.worst <= 1e-5
    assert [p.updates for (p,) in latest] == [0, 1, 2]


@pytest.mark.slow
def test_a_master_for_each_task_of_a_family(bundle, tmp_path):
    result = learn(bundle, tmp_path / "more", "ring_bandits", name=None)
    more = load_bundle(tmp_path / "more")
    names = [f"sector-{i}" for i in range(3)]
    assert list(result.masters) == names
    assert set(more.manifest.masters) == {"goal-0", "goal-1", *names}
    assert more.skill_hashes() == bundle.skill_hashes()
    # Each is the one that learned its task.
    learner = result.adapted.learner
    assert learner.env.tasks.tolist() == [0, 1, 2]
    for row, (name, curve) in enumerate(result.masters.items()):
        graph = read_graph(more.master(name), name)
        for i, (weight, _) in enumerate(learner.agent.masters.policy.layers(row)):
            assert np.array_equal(graph.initializers[f"weight{i}"], weight)
        assert more.manifest.masters[name].task == f"ring_bandits/{name}"
        assert more.manifest.masters[name].score.value == curve[-1].greedy
        load_policy(more, name)  # compares with the golden rows
    assert len({more.master(name) for name in names}) == 3
    text = refusal(learn, bundle, tmp_path / "x", "ring_bandits")
    assert text.startswith("name 'new': one name for 3 masters, of ring_bandits/sector-0 to ")


@pytest.mark.slow
def test_a_master_is_replaced_only_when_told(bundle, tmp_path):
    result = learn(bundle, tmp_path / "more", name="goal-1", replacing=True)
    old, new = bundle.manifest.masters, result.bundle.manifest.masters
    assert list(new) == list(old)
    assert new["goal-0"] == old["goal-0"]
    assert new["goal-1"].task == OTHER
    assert result.bundle.master("goal-0") == bundle.master("goal-0")
    assert result.bundle.master("goal-1") != bundle.master("goal-1")
    load_policy(result.bundle, "goal-1")


def test_golden_rows_are_extended(bundle, tmp_path):
    learn(bundle, tmp_path / "more")
    old, new = bundle.golden, load_bundle(tmp_path / "more").golden
    assert np.array_equal(new.observation, old.observation)
    assert np.array_equal(new.action, old.action)
    for name in old.logits:
        assert np.array_equal(new.logits[name], old.logits[name])
        assert np.array_equal(new.skill[name], old.skill[name])
    assert set(new.logits) - set(old.logits) == {"new"}
    for name in (*old.logits, "new"):
        load_policy(load_bundle(tmp_path / "more"), name)  # compares with the golden rows


def test_same_seed_same_bundle(bundle, tmp_path):
    facts = environment()
    for target in ("one", "two"):
        learn(bundle, tmp_path / target, facts=facts)
    one, two = (load_bundle(tmp_path / target) for target in ("one", "two"))
    assert one.files == two.files


def test_into_the_bundle_itself(bundle, bundle_path):
    learn(load_bundle(bundle_path), bundle_path)
    assert set(load_bundle(bundle_path).manifest.masters) == {"goal-0", "goal-1", "new"}
    assert load_bundle(bundle_path).skill_hashes() == bundle.skill_hashes()
    assert [p.name for p in bundle_path.parent.iterdir()] == [bundle_path.name]


def test_start_from_a_master_of_the_bundle(bundle, tmp_path):
    # Without an update, what is learned is what it started from.
    result = learn(bundle, tmp_path / "more", updates=0, start_from="goal-1")
    golden = result.bundle.golden
    assert np.array_equal(golden.logits["new"], golden.logits["goal-1"])
    assert result.adapted.learner.method.probe == "none"
    assert "no master 'goal-7'" in refusal(learn, bundle, tmp_path / "x", start_from="goal-7")


def test_agent_with_installed_skills_is_the_bundle(bundle):
    config, _ = task_config(bundle, TaskId("moving_bandits", "goal-0"), seed=0)
    agent = Mlsh(replace(config, mlsh=replace(config.mlsh, groups=1))).agent
    install_skills(agent, bundle)
    golden = bundle.golden
    x = agent.normalizer(golden.observation)
    for k in range(2):
        means = agent.means(x, np.full(len(x), k))
        assert np.abs(means - golden.action[k]).max() <= 1e-5


# Refused ----------------------------------------------------------------------------------------


@pytest.fixture
def never(monkeypatch):
    """Whatever is refused is refused before anything is learned."""

    def learning(*args, **kwargs):
        raise AssertionError("learned before it was refused")

    monkeypatch.setattr(module, "adapt", learning)


@pytest.mark.usefixtures("never")
class TestRefused:
    def test_name_clash(self, bundle, tmp_path):
        text = refusal(learn, bundle, tmp_path / "x", name="goal-1")
        assert "has a master 'goal-1' already" in text
        assert "--overwrite-master. Taken: goal-0, goal-1" in text

    @pytest.mark.parametrize(("key", "given", "own"), [("ticks", 10, 5), ("lead", 0, 1)])
    def test_decisions_that_are_not_the_bundles(self, bundle, tmp_path, key, given, own):
        settings = [f"mlsh.decision_{key}={given}"]
        text = refusal(learn, bundle, tmp_path / "x", settings=settings)
        assert text == f"mlsh.decision_{key} {given}: all masters of bundle 'restless' have {own}"

    @pytest.mark.parametrize("name", ["a b", "../x", "", "x\n"])
    def test_name_that_a_file_cannot_have(self, bundle, tmp_path, name):
        assert "master name" in refusal(learn, bundle, tmp_path / "x", name=name)

    def test_place_that_is_taken(self, bundle, tmp_path):
        (tmp_path / "thesis.txt").write_text("years of work")
        assert "is not a bundle" in refusal(learn, bundle, tmp_path)
        assert (tmp_path / "thesis.txt").read_text() == "years of work"

    def test_another_bundle_stays(self, bundle, bundle_path, tmp_path):
        # It has a master that the new one would not have.
        master = bundle.manifest.masters["goal-0"], bundle.master("goal-0")
        there = shutil.copytree(bundle_path, tmp_path / "x")
        other = add_masters(bundle, {"own": master}, there)
        text = refusal(learn, bundle, there)
        assert "x has another bundle already; give another --output, or --overwrite" in text
        assert load_bundle(there).manifest == other.manifest

    def test_bundle_that_another_process_writes(self, bundle, tmp_path):
        with locked(lock_beside(tmp_path / "x"), "x"):
            assert "x' is in use: another process" in refusal(learn, bundle, tmp_path / "x")

    @pytest.mark.parametrize(
        ("task", "words"),
        [
            ("ring_bandits/", "Valid: ring_bandits/sector-0"),
            ("chess", "no task family 'chess'"),
            ("ring_bandits/sector-9", "no task 'ring_bandits/sector-9'"),
            ("chess/white", "no task family 'chess'"),
        ],
    )
    def test_unknown_task(self, bundle, tmp_path, task, words):
        assert words in refusal(learn, bundle, tmp_path / "x", task=task)

    def test_unknown_robot(self, bundle, tmp_path):
        assert "no robot 'omnu'. Did you mean 'omni'?" in refusal(
            learn, bundle, tmp_path / "x", robot="omnu"
        )

    @pytest.mark.parametrize(
        "another", [{"hidden": [32, 32]}, {"skill_hidden": [8]}, {"activation": "elu"}], ids=str
    )
    def test_configuration_of_another_bundle(self, bundle, bundle_path, tmp_path, another):
        files = {n: d for n, d in bundle.files.items() if n != MANIFEST}
        config = dict(bundle.manifest.provenance.config)
        config["network"] = {**config["network"], **another}
        provenance = replace(bundle.manifest.provenance, config=config)
        manifest = replace(bundle.manifest, provenance=provenance)
        other = write_bundle(manifest, files, bundle_path)
        text = refusal(learn, other, tmp_path / "x")
        assert "provenance.config is not of this bundle" in text
        assert "(2, 5, 1, (64, 64), 'Tanh')" in text

    def test_no_configuration(self, bundle, bundle_path, tmp_path):
        files = {n: d for n, d in bundle.files.items() if n != MANIFEST}
        provenance = replace(bundle.manifest.provenance, config={})
        other = write_bundle(replace(bundle.manifest, provenance=provenance), files, bundle_path)
        assert "provenance: family: field required" in refusal(learn, other, tmp_path / "x")


def altered_robot(folder: Path, old: str, new: str) -> str:
    shutil.copytree(ROBOTS / "omni", folder)
    text = (folder / "robot.yaml").read_text()
    assert text.count(old) >= 1
    (folder / "robot.yaml").write_text(text.replace(old, new, 1))
    return str(folder)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name: position", "name: place", "no term 'position'"),
        ("scale: 1.0", "scale: 2.0", "term 'position'"),
        ("limit: [-1.0, 1.0]", "limit: [-2.0, 2.0]", "term 'base_velocity'"),
        ("rate_limit: 5.0", "rate_limit: 6.0", "term 'base_velocity'"),
        ("control_dt: 0.1 ", "control_dt: 0.2 ", "another interface"),
        ("robot: omni", "robot: other", "another interface"),
    ],
)
@pytest.mark.usefixtures("never")
def test_a_robot_that_does_not_fit_is_refused_by_term(bundle, tmp_path, old, new, words):
    robot = altered_robot(tmp_path / "robot", old, new)
    text = refusal(learn, bundle, tmp_path / "x", robot=robot)
    assert words in text
    assert "'restless'" in text


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("shown", [2, 3])
def test_a_task_that_does_not_fit_is_refused_by_term(bundle, monkeypatch, shown):
    # A family that shows three goals, or two under another name, is not for these skills.
    family = MovingBandits(shown=shown)
    (goals,) = family.terms
    renamed = replace(goals, name="targets") if shown == 2 else goals
    offered = SimpleNamespace(name="x", terms=(renamed,))
    monkeypatch.setattr("policies.bundle.task_compatibility.find_task", lambda *_: (offered, 0))
    text = refusal(check_fits, bundle, load_robot("omni"), TaskId("x", "y"))
    assert ("no term 'goals'" if shown == 2 else "term 'goals' of task 'x/y'") in text


def test_tasks_that_fit(bundle):
    for task in (OTHER, "moving_bandits/goal-0"):
        check_fits(bundle, load_robot("omni"), TaskId.parse(task))


# Learning ---------------------------------------------------------------------------------------


def test_from_scratch_learns_one_policy(bundle):
    config, number = task_config(bundle, TaskId.parse(OTHER), seed=1)
    assert number == 1
    result = from_scratch(config, number, updates=3, episodes=8)
    learner, (curve,) = result.learner, result.curves
    assert [p.updates for p in curve] == [0, 1, 2, 3]
    # The same experience as a master's: 400 steps per update here.
    assert [p.steps for p in curve] == [0, 400, 800, 1200]
    assert learner.agent.skills.count == 1
    assert learner.env.tasks.tolist() == [1]
    # It really learned: 10 epochs of one or more minibatches in each of three updates.
    assert learner.agent.skills.policy_adam.steps.min() >= 3
    # Nothing of the bundle is in it.
    assert learner.agent.normalizer.fixed is None
    assert learner.agent.normalizer.count == 1200


def test_updates_see_as_many_steps_as_the_paper(bundle, monkeypatch):
    monkeypatch.undo()
    config, _ = task_config(bundle, TaskId.parse(OTHER), seed=1)
    assert envs_per_update(config) * config.mlsh.rollout_ticks == 2000
    longer = replace(config, mlsh=replace(config.mlsh, rollout_ticks=1000))
    assert envs_per_update(longer) == 4  # two simulations per skill, whatever the rollout's length


@pytest.mark.slow
def test_greedy_scores_are_of_first_episodes_only(bundle, monkeypatch):
    # Fenced episodes end early and others begin within the same ticks: those do not count.
    monkeypatch.setitem(FAMILIES, "fenced_bandits", FencedBandits)
    config, _ = task_config(bundle, TaskId("moving_bandits", "goal-0"), seed=0)
    method = replace(config.mlsh, groups=2, envs=4)
    learner = Mlsh(
        replace(config, family="fenced_bandits", mlsh=method), freeze_skills=True, tasks=[0, 1]
    )
    install_skills(learner.agent, bundle)
    seen = []

    def collect(self, *args, **kwargs):
        rollout = original(self, *args, **kwargs)
        rollout.reward[:] = 1
        seen.append(rollout)
        return rollout

    original = Collector.collect
    monkeypatch.setattr("policies.training.adapt.Collector.collect", collect)
    scores = greedy_scores(learner, episodes=6)
    (rollout,) = seen
    # One reward per tick: the return is the length of the first episode.
    lengths = rollout.done.argmax(axis=0) + 1
    assert lengths.min() < 50
    assert [value for value, _ in scores] == pytest.approx(lengths.reshape(2, 6).mean(axis=1))
    before = learner.state()
    greedy_scores(learner, episodes=6)
    assert all(np.array_equal(before[k], v) for k, v in learner.state().items())


def test_adapting_leaves_tasks_and_skills_alone(bundle):
    config, _ = task_config(bundle, TaskId("moving_bandits", "goal-0"), seed=0)
    result = adapt(config, lambda a: install_skills(a, bundle), [1, 0], updates=3, episodes=4)
    learner = result.learner
    assert learner.env.tasks.tolist() == [1, 0]
    assert not learner.agent.skills.policy_adam.steps.any()
    assert [len(curve) for curve in result.curves] == [4, 4]


def test_curves_are_written(tmp_path):
    curve = [AdaptationPoint(i, 400 * i, 0.5 * i, 10.0 + i, 0.25) for i in range(3)]
    curves = {"master only": curve, "PPO from scratch": curve}
    two = {OTHER: curves, "ring_bandits/sector-2": {"master only": curve}}
    write_curves(two, tmp_path / "curves.csv")
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert lines[0] == "task,learner,updates,steps,seconds,greedy_return,success"
    assert lines[2] == "ring_bandits/sector-1,master only,1,400,0.5000,11.0000,0.2500"
    assert lines[7].startswith("ring_bandits/sector-2,master only,0,")
    assert len(lines) == 10
    limits = dict.fromkeys(two, ReferenceReturns(random=2, task_blind=20, optimum=40))
    for name, shown in (("one", {OTHER: curves}), ("two", two)):
        plot_adaptation(shown, limits, 50, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    (tmp_path / "file").write_text("")
    assert "could not be written" in refusal(write_curves, two, tmp_path / "file" / "x.csv")


def test_the_legend_of_the_curves_hides_none_of_them(monkeypatch):
    monkeypatch.setattr("policies.training.finetune_plot.to_png", lambda figure: figure)
    curve = [AdaptationPoint(i, 400 * i, 0.5 * i, 10.0 + i, 0.25) for i in range(3)]
    limits = {OTHER: ReferenceReturns(random=2, task_blind=20, optimum=40)}
    figure = adaptation_image({OTHER: {"master only": curve}}, limits, 50)
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert [text.get_text() for text in legend.get_texts()] == ["master only", "optimum", "random"]


def test_a_goal_that_training_did_not_see_is_found():
    config, number = task_config(load_bundle("rooms"), TaskId("rooms", "inner-1"), seed=0)
    assert load_bundle("rooms").manifest.family.parameters == {"held_out": 1}
    assert make_family(config.family, config.family_parameters).tasks[number] == "inner-1"
