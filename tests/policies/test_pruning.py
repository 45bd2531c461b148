"""Skills that nothing trained are not exported."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from policies.bundle.bundle import load_bundle
from policies.mlsh.skill_probe import WINDOW, Probe
from policies.training.export_run import export_run
from policies.training.pruning import describe_pruned, prune, untrained_skills
from policies.training.run import Run, create_run, open_run
from policies.training.train import train
from sim.errors import UserError
from sim.files.arrays import load_arrays, save_arrays
from tests.support.bundles import small_config


def config(skills=3):
    base = small_config()
    method = replace(base.mlsh, skills=skills, envs=2 * skills)
    return replace(base, mlsh=method, steps=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    """A training of three skills; not to be changed."""
    run = create_run(config(), tmp_path_factory.mktemp("runs") / "run")
    train(run)
    return run


@pytest.fixture
def run(trained, tmp_path, monkeypatch) -> Run:
    """A copy, whose masters are learned in a moment: their scores do not matter here."""
    monkeypatch.setattr("policies.training.train.ADAPTATION_UPDATES", 1)
    monkeypatch.setattr("policies.training.adapt.MAX_UPDATE_STEPS", 400)
    monkeypatch.setattr("policies.training.adapt.SCORED_TICKS", 16 * 50)
    shutil.copytree(trained.path, tmp_path / "run")
    return open_run(tmp_path / "run")


def checkpoint(probes, *, resets=0, by_state=0.0, steps=(5, 5, 5)):
    """A checkpoint of three skills after such probes; the last skill was reset."""
    probe = Probe(config().mlsh, tasks=2)
    probe.recent.extend([np.array(row) for row in probes])
    probe.probed.extend(k % 2 for k in range(len(probes)))
    probe.by_state.append(np.array([0.0, 0.0, by_state]))
    probe.resets[2] = resets
    arrays = {"skills.policy.steps": np.array(steps)[:, None]}
    return {**probe.state(), **arrays}


TWO_GOALS = [(0.9, 0.0, 0.02), (0.0, 0.9, -0.01)] * (WINDOW // 2)


def test_a_skill_that_found_no_use_is_left_out():
    assert untrained_skills(config(), checkpoint(TWO_GOALS)) == (2,)
    # Alone it earns something on a task, or a master uses it in some states.
    helpful = [(0.9, 0.0, 0.5), *TWO_GOALS[1:]]
    assert untrained_skills(config(), checkpoint(helpful)) == ()
    assert untrained_skills(config(), checkpoint(TWO_GOALS, by_state=0.9)) == ()


def test_a_training_that_has_seen_little_is_believed_only_about_skills_that_were_reset():
    assert untrained_skills(config(), checkpoint(TWO_GOALS[:2])) == ()
    assert untrained_skills(config(), checkpoint(TWO_GOALS[:2], resets=1)) == (2,)
    assert untrained_skills(config(), checkpoint([])) == ()
    # The goal that it may be for was not probed yet.
    assert untrained_skills(config(), checkpoint(TWO_GOALS[:1], resets=1)) == ()


def test_a_skill_that_was_never_updated_is_left_out_but_never_all_of_them():
    assert untrained_skills(config(), checkpoint([], steps=(5, 0, 5))) == (1,)
    assert untrained_skills(config(), checkpoint([], steps=(0, 0, 0))) == ()
    assert untrained_skills(config(), checkpoint([(0.1, 0.1, 0.1)] * WINDOW)) == ()


def test_what_is_said_of_it():
    assert describe_pruned(config(), ()) == ""
    text = describe_pruned(config(), (2,))
    assert text.startswith("skill-2 of 3 left out")
    assert "3 skills for 2 tasks" in text


@pytest.mark.parametrize("left_out", [(), (1,), (0, 2)])
def test_the_others_move_up(left_out):
    arrays = {"skills.policy": np.arange(6).reshape(3, 2), "masters.policy": np.arange(3)}
    smaller, kept = prune(config(), arrays, left_out)
    stays = [k for k in range(3) if k not in left_out]
    assert smaller.mlsh.skills == len(stays)
    assert np.array_equal(kept["skills.policy"], arrays["skills.policy"][stays])
    assert np.array_equal(kept["masters.policy"], arrays["masters.policy"])


def test_a_bundle_has_the_trained_skills_only(run, tmp_path):
    arrays = load_arrays(run.checkpoint)
    found_no_use = {**arrays, **checkpoint(TWO_GOALS, resets=3)}
    found_no_use["skills.policy.steps"] = np.full_like(arrays["skills.policy.steps"], 5)
    save_arrays(run.checkpoint, found_no_use)
    result = export_run(run.path, tmp_path / "bundle")
    assert result.left_out.startswith("skill-2 of 3")
    assert result.adapted.pruned == (2,)
    bundle = load_bundle(str(tmp_path / "bundle"))  # parity, golden rows, digests, provenance
    assert bundle.manifest.skills == ("skill-0", "skill-1")
    assert bundle.golden.action.shape[0] == 2
    assert all(logits.shape[1] == 2 for logits in bundle.golden.logits.values())
    assert bundle.manifest.provenance.config["mlsh"]["skills"] == 2
    assert "skill-2 of 3 left out" in bundle.manifest.provenance.command


@pytest.mark.parametrize("limited", ["skill-1", "skill-2"])
def test_limits_are_those_of_the_skills_of_the_training(run, tmp_path, limited):
    """skill-0 is left out, so that the others are numbered anew."""
    arrays = load_arrays(run.checkpoint)
    no_use = [(row[2], row[0], row[1]) for row in TWO_GOALS]
    arrays |= checkpoint(no_use)
    arrays["skills.policy.steps"] = np.full((3, 1), 5)
    save_arrays(run.checkpoint, arrays)
    file = tmp_path / "limits.yaml"
    file.write_text(f"{limited}: {{position: [-1.5, 1.5]}}\n")
    result = export_run(run.path, tmp_path / "bundle", skill_limits=file)
    new = f"skill-{int(limited[-1]) - 1}"
    assert result.bundle.manifest.skill_limits == {new: {"position": (-1.5, 1.5)}}
    file.write_text("skill-0: {position: [-1.5, 1.5]}\n")
    with pytest.raises(UserError, match="'skill-0' has limits, and is left out of the bundle"):
        export_run(run.path, tmp_path / "other", skill_limits=file)
    assert not (tmp_path / "other").exists()
