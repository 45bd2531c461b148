"""A copy of one skill learns with a new master: near the old one, in a file of its own."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from mlsh_ros.cli import main as cli
from policies.bundle.bundle import load_bundle, write_bundle
from policies.bundle.derived_skill import skill_to_unfreeze
from policies.bundle.manifest import MANIFEST, Origin
from policies.bundle.onnx_reader import read_graph
from policies.bundle.runtime import choose, load_master, load_skills
from policies.mlsh.actor_critic import Agent
from policies.training.adapt import EVALUATION_SEED, greedy_scores
from policies.training.finetune import finetune
from policies.training.run import environment
from policies.training.unfreeze import Unfreeze, UnfrozenSkill
from sim.errors import UserError
from sim.tasks.task_id import TaskId
from tests.support.bundles import made_up_bounds

BUNDLE = load_bundle("moving_bandits")
TASK = "moving_bandits/goal-1"
LIMITS = {"skill-1": {"velocity": (-0.9, 0.9)}}


@pytest.fixture(autouse=True, scope="module")
def light():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("policies.training.adapt.SCORED_TICKS", 16 * 50)
        patch.setattr("policies.training.adapt.MAX_UPDATE_STEPS", 400)
        patch.setattr("policies.mlsh.mlsh.all_reference_returns", made_up_bounds)
        yield


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """The shipped bundle, its second skill with limits of its own."""
    files = {name: data for name, data in BUNDLE.files.items() if name != MANIFEST}
    manifest = replace(BUNDLE.manifest, skill_limits=LIMITS)
    return write_bundle(manifest, files, tmp_path_factory.mktemp("limited") / "bundle")


def learn(bundle, path, *, skill=1, kl=0.05, joint=4, task=TASK, **changes):
    given = {"name": "new", "updates": 1, "seed": 5, "facts": environment()} | changes
    unfreeze = Unfreeze(skill, kl, joint)
    return finetune(bundle, TaskId.parse(task), path, unfreeze=unfreeze, **given)


@pytest.fixture(scope="module")
def result(limited, tmp_path_factory):
    # Without the probe the master uses both skills.
    settings = ["skill.learning_rate=0.01", "skill.epochs=10", "mlsh.probe=none"]
    return learn(limited, tmp_path_factory.mktemp("made") / "more", settings=settings)


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is written ------------------------------------------------------------------------------


def test_the_old_skill_files_stay_and_a_new_one_follows(limited, result):
    more = load_bundle(result.bundle.source)
    assert more.manifest.skills == ("skill-0", "skill-1", "skill-2")
    assert more.skill_hashes()[:2] == limited.skill_hashes()
    assert more.skills[:2] == limited.skills
    assert more.skills[2] not in limited.skills
    skills = load_skills(more)  # compares with the golden rows
    obs = more.golden.observation
    # Of the skill that it is from, and of no other.
    off = [np.abs(skills[2](obs) - skills[k](obs)).mean() for k in range(2)]
    assert 0 < off[1] < off[0] / 4


def test_no_other_skill_moves_in_training(result):
    skills = result.adapted.learner.agent.skills.policy
    for k in range(2):
        graph = read_graph(BUNDLE.skills[k], f"skill {k}").initializers
        same = [
            np.array_equal(graph[f"{kind}{i}"], array)
            for i, layer in enumerate(skills.layers(k))
            for kind, array in zip(("weight", "bias"), layer, strict=True)
        ]
        assert all(same) == (k == 0)


def test_the_copy_has_the_limits_of_its_original(result):
    limits = result.bundle.manifest.skill_limits
    assert limits == LIMITS | {"skill-2": LIMITS["skill-1"]}


def test_the_manifest_says_where_the_skill_is_from(result):
    assert BUNDLE.manifest.derived == {}
    assert "derived" not in BUNDLE.manifest.to_dict()
    (derivation,) = result.bundle.manifest.derived.values()
    assert derivation.skill == "skill-1"
    assert derivation.kl_limit == 0.05
    assert 0.04 < derivation.kl <= 0.05  # the learning rate drives it to the limit
    assert derivation.provenance.updates == result.adapted.kept[0].updates
    assert derivation.provenance.config["family"] == "moving_bandits"
    assert result.bundle.manifest.provenance == BUNDLE.manifest.provenance


def test_old_masters_choose_as_they_did_and_never_the_new_skill(limited, result):
    rng = np.random.default_rng(0)
    for name in ("goal-0", "goal-1"):
        old, new = (
            load_master(b, name)(limited.golden.observation) for b in (limited, result.bundle)
        )
        assert np.array_equal(new[:, :2], old)
        assert (new.argmax(axis=1) == old.argmax(axis=1)).all()
        assert all(choose(row, rng) < 2 for row in new for _ in range(20))
        assert result.bundle.manifest.masters[name] == limited.manifest.masters[name]


def test_the_new_master_chooses_the_copy_in_place_of_its_original(result):
    logits = load_master(result.bundle, "new")(result.bundle.golden.observation)
    rng = np.random.default_rng(0)
    drawn = [choose(row, rng) for row in logits for _ in range(20)]
    assert 2 in drawn
    assert set(drawn) <= {0, 2}
    (kept,) = result.adapted.kept
    assert result.bundle.manifest.masters["new"].score.value == kept.greedy
    assert [p.updates for p in result.masters["new"]] == list(range(6))


def test_a_master_that_goes_on_from_an_old_one_can_learn_to_choose_the_copy(result, tmp_path):
    """It begins with the choices of the old one; what it never chose has a chance as well."""
    bundle = load_bundle(result.bundle.source)
    given = {"name": "next", "updates": 0, "seed": 5, "facts": environment()}
    for old, never, like in (("goal-1", 2, 1), ("new", 1, 2)):
        path = tmp_path / old
        found = finetune(bundle, TaskId.parse(TASK), path, start_from=old, **given).bundle
        before, after = (found.golden.logits[name] for name in (old, "next"))
        others = [k for k in range(3) if k != never]
        assert np.array_equal(after[:, others], before[:, others])
        assert after[:, never] == pytest.approx(after[:, like] - 1, abs=1e-4)
        assert (found.golden.skill["next"] == found.golden.skill[old]).all()


def test_the_update_that_scores_best_is_kept(result):
    """Updates 4 and 5 move the skill; the first two train its value function."""
    curve, (kept,) = result.masters["new"], result.adapted.kept
    best = max(curve[4:], key=lambda point: point.greedy)
    assert kept.updates == best.updates
    assert kept.steps == best.steps
    learner = result.adapted.learner
    assert greedy_scores(learner, 16) == [(best.greedy, best.success)]
    assert greedy_scores(learner, 16, EVALUATION_SEED + 1) == [(kept.greedy, kept.success)]
    assert kept.greedy != best.greedy


def test_another_task_can_be_learned_over_the_larger_bundle(result, tmp_path):
    first = result.bundle
    other = finetune(
        first,
        TaskId.parse("ring_bandits/sector-0"),
        tmp_path / "other",
        updates=1,
        seed=1,
        facts=environment(),
    )
    assert other.bundle.skill_hashes() == first.skill_hashes()
    assert other.bundle.manifest.derived == first.manifest.derived
    again = learn(other.bundle, tmp_path / "again", skill=2, joint=3, name="third")
    assert again.bundle.skill_hashes()[:3] == first.skill_hashes()
    assert again.bundle.manifest.derived["skill-3"].skill == "skill-2"
    assert again.bundle.manifest.skill_limits["skill-3"] == LIMITS["skill-1"]


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("wider", [{}, {"skill-2": {"velocity": (-1.0, 0.9)}}])
def test_limits_that_grow_are_refused(result, wider):
    with pytest.raises(ValueError, match="those of skill-2 are not those of skill-1"):
        replace(result.bundle.manifest, skill_limits=LIMITS | wider)


def test_skills_that_cannot_be_unfrozen_are_refused():
    text = refusal(skill_to_unfreeze, BUNDLE, "skill-2")
    assert text.startswith("no skill 'skill-2'. Did you mean 'skill-")
    origin = Origin("MIT", "somebody", "0" * 64, {})
    imported = dict.fromkeys(BUNDLE.manifest.skills, origin)
    foreign = replace(BUNDLE, manifest=replace(BUNDLE.manifest, imported=imported))
    text = refusal(skill_to_unfreeze, foreign, "skill-0")
    assert "is imported: its graph is run as it is and cannot be trained" in text


def test_the_bundle_itself_is_not_replaced(limited):
    before = {path: path.read_bytes() for path in limited.source.rglob("*") if path.is_file()}
    text = refusal(learn, limited, limited.source)
    assert "has another bundle already" in text
    assert {p: p.read_bytes() for p in limited.source.rglob("*") if p.is_file()} == before


def test_a_skill_that_is_not_used_is_refused(monkeypatch, tmp_path):
    def only_the_first(agent, obs):
        return np.tile(np.float32([99, -99]), (len(obs), 1))

    monkeypatch.setattr(Agent, "logits", only_the_first)
    text = refusal(learn, BUNDLE, tmp_path / "more")
    assert "skill 1 is not used on this task, so that a copy of it cannot learn: " in text
    assert "skill 0 100%, skill 1 0% of ticks" in text
    assert not (tmp_path / "more").exists()


def test_a_skill_that_diverges_ends_it_in_one_line(monkeypatch, tmp_path):
    def diverge(self, obs):
        self._level.policy.numpy[self.skill] = np.nan

    monkeypatch.setattr(UnfrozenSkill, "_move_back", diverge)
    text = refusal(learn, BUNDLE, tmp_path / "more")
    assert "update 4 diverged: parameters of skill 1 not finite; nothing is written" in text
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--unfreeze", "skill-7"], "no skill 'skill-7'"),
        (["--unfreeze", "skill-1", "--learner", "q"], "--unfreeze: needs --learner ppo"),
        (["--unfreeze", "skill-1", "--from-recording", "x"], "--unfreeze: needs --learner ppo in"),
        (["--unfreeze", "skill-1", "--kl", "0"], "0 is not at least 0.0001"),
        (["--unfreeze", "skill-1", "--joint-updates", "0"], "0 is not at least 3"),
        (["--kl", "0.1"], "--kl: has no effect without --unfreeze"),
        (["--joint-updates", "3"], "--joint-updates: has no effect without --unfreeze"),
    ],
)
def test_options_that_do_not_hold_are_refused(monkeypatch, capsys, tmp_path, options, said):
    monkeypatch.chdir(tmp_path)
    command = ["mlsh", "finetune", "moving_bandits", "--task", TASK, "-o", "more", *options]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert said in f"{capsys.readouterr().err}{caught.value.code}"
    assert not (tmp_path / "more").exists()
