"""Run folders: what is in them, going on after any kind of end, and what is refused."""

import csv
import errno
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from policies.bundle.export import provenance_of
from policies.mlsh.config import write_config
from policies.mlsh.iteration import Iteration, group_statistics
from policies.training import divergence, start_run
from policies.training.divergence import read_failure, repeat
from policies.training.export_run import export_run
from policies.training.metrics import (
    CsvLog,
    column_names,
    describe,
    read_rows,
    skill_mutual_information,
)
from policies.training.run import create_run, open_run
from policies.training.train import WRITTEN, learn_masters, train
from sim.envs.reference_returns import ReferenceReturns
from sim.errors import UserError
from sim.files.arrays import load_arrays, save_arrays
from sim.physics.robot_model import ROBOTS, load_robot
from sim.randomization.schema import load_sim_params
from tests.support.bundles import small_config

pytestmark = pytest.mark.usefixtures("without_curves")  # `whole` has them
TIMES = {"seconds", "steps_per_second"}


def config(**changes):
    # 400 steps per iteration: five iterations, a checkpoint after every second one.
    return replace(small_config(), **{"checkpoint_every": 2} | changes)


def stop_after(count):
    """`should_stop` that holds after so many iterations."""
    asked = iter(range(100))
    return lambda: next(asked) >= count


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_failed_simulation_is_kept_and_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT where it stands
    run = create_run(config(), tmp_path / "run")

    def spoil(training):
        if training.learner.iteration == 1:  # the second group gets another task next
            training.learner.env.world.physics.batch.bind("qvel")[3, 0] = np.nan

    training = train(run, on_iteration=spoil)
    assert training.finished
    assert [row["diverged"] for row in training.rows] == [0, 1, 1, 1, 1]
    failure = read_failure(run.path / "failures" / "0.npz")
    assert (failure.simulation, failure.tick) == (3, 0)
    assert repeat(failure, run.config)
    sound = replace(failure, state=np.nan_to_num(failure.state))
    assert not repeat(sound, run.config)
    (run.path / "failures" / "0.npz").write_bytes(b"half")
    assert "0.npz: not a readable checkpoint" in refusal(
        read_failure, run.path / "failures" / "0.npz"
    )


def timeless(rows):
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that trained to its end without a break."""
    run = create_run(config(), tmp_path_factory.mktemp("runs") / "whole")
    train(run)
    return run


@pytest.fixture
def copy(whole, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(whole.path, tmp_path / "copy")
    return open_run(tmp_path / "copy")


# What is in it ------------------------------------------------------------------------------


def test_contents(whole):
    files = {p.name for p in whole.path.iterdir()}
    assert files == {
        "config.yaml",
        "versions.json",
        "metrics.csv",
        "checkpoint.npz",
        "curves.png",
        "tensorboard",
    }
    assert whole.config == config()
    assert {"python", "torch", "mujoco", "numpy"} <= set(whole.provenance["versions"])
    assert list((whole.path / "tensorboard").iterdir())
    rows = read_rows(whole.path / "metrics.csv")
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["steps"] for row in rows] == [400, 800, 1200, 1600, 2000]
    known = set(column_names(("goal-0", "goal-1"), 2))
    assert set().union(*rows) <= known
    # Each group is in its joint phase in every second iteration, and then its task has a row.
    assert all(("return/goal-0" in r) != ("return/goal-1" in r) for r in rows)


def test_masters_are_learned_into_the_run(copy, monkeypatch):
    monkeypatch.setattr("policies.training.train.ADAPTATION_UPDATES", 1)
    monkeypatch.setattr("policies.training.adapt.SCORED_TICKS", 32 * 50)
    result = learn_masters(copy)
    lines = (copy.path / "adaptation.csv").read_text().splitlines()
    assert lines[0].startswith("task,updates,steps,seconds,greedy_return,success,iteration")
    assert {line.split(",")[6] for line in lines[1:]} == {"5"}
    assert len(lines) == 1 + 2 * 2  # two tasks, before and after the update
    assert [p.steps for p in result.curves[0]] == [0, 2000]
    again = learn_masters(copy)
    assert [p.greedy for p in again.curves[1]] == [p.greedy for p in result.curves[1]]


# Going on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [False, True], ids=["asked to stop", "killed"])
def test_resumed_training_is_the_uninterrupted_one(whole, tmp_path, killed):
    run = create_run(config(), tmp_path / "run")
    if killed:

        def die(training):
            if training.learner.iteration == 3:  # the latest checkpoint is of iteration 2
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(run, on_iteration=die)
        with (run.path / "metrics.csv").open("a") as stream:
            stream.write("1")  # and half a row, which looks like one of the first iteration
    else:
        stopped = train(run, should_stop=stop_after(3))
        assert not stopped.finished
        assert stopped.learner.iteration == 3
        assert int(load_arrays(run.checkpoint)["iteration"]) == 3
    done = train(open_run(run.path), resume=True)
    assert done.finished
    rows, expected = (read_rows(r.path / "metrics.csv") for r in (run, whole))
    assert timeless(rows) == timeless(expected)
    assert [row["iteration"] for row in done.rows] == [1, 2, 3, 4, 5]
    arrays, others = load_arrays(run.checkpoint), load_arrays(whole.checkpoint)
    assert arrays.keys() == others.keys()
    assert [k for k in arrays if not np.array_equal(arrays[k], others[k])] == ["seconds"]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)  # and time goes on as well


def test_a_randomized_run_is_resumed_bit_for_bit_and_its_provenance_says_so(tmp_path):
    sim_params = load_sim_params("slow", load_robot("omni"))
    chosen = config(domain_randomization=True, sim_params=sim_params, steps=1200)
    one, two = (create_run(chosen, tmp_path / name) for name in ("one", "two"))
    train(one)
    assert not train(two, should_stop=stop_after(2)).finished
    done = train(open_run(two.path), resume=True)
    arrays, others = (load_arrays(run.checkpoint) for run in (one, two))
    assert [k for k in arrays if not np.array_equal(arrays[k], others[k])] == ["seconds"]
    assert done.learner.env.world.varied is not None
    assert (arrays["env.varied"] != 0).any()
    facts = {"command": "mlsh", "versions": {}, "commit": None}
    said = provenance_of(open_run(two.path).config, facts, 0, 0).config
    assert said["domain_randomization"] is True
    assert said["sim_params"]["actuators"]["drive_x"]["delay_s"] == 0.1


def test_resuming_a_finished_run_changes_nothing(copy):
    before = (copy.path / "metrics.csv").read_bytes()
    assert train(copy, resume=True).finished
    assert (copy.path / "metrics.csv").read_bytes() == before


def test_a_run_that_goes_on_with_other_versions_says_so_once(tmp_path):
    run = create_run(config(), tmp_path / "run")
    train(run, should_stop=stop_after(1))
    path = run.path / "versions.json"
    facts = json.loads(path.read_text())
    now = facts["versions"]["torch"]
    facts["versions"] |= {"torch": "0.1"}
    path.write_text(json.dumps(facts))
    said = f"torch 0.1 -> {now}"
    for iterations in (1, 1):
        gone_on = train(open_run(run.path), resume=True, should_stop=stop_after(iterations))
        assert gone_on.other_versions == [said]
        assert open_run(run.path).trained.changes == (f"from iteration 1: {said}",)
    path.unlink()  # who exports it is told
    assert train(open_run(run.path), resume=True).other_versions == []
    assert train(open_run(run.path), resume=True).finished


def test_stopped_before_the_first_iteration(tmp_path):
    run = create_run(config(), tmp_path / "run")
    assert not train(run, should_stop=lambda: True).finished
    assert int(load_arrays(run.checkpoint)["iteration"]) == 0
    assert train(run, resume=True, should_stop=stop_after(1)).rows[-1]["iteration"] == 1


def test_rows_that_cannot_be_rewritten_stay(copy, monkeypatch):
    path = copy.path / "metrics.csv"
    before = path.read_bytes()
    monkeypatch.setattr("csv.DictWriter.writerows", no_space)
    assert "No space left" in refusal(train, copy, resume=True)
    assert path.read_bytes() == before


def test_csv_keeps_what_came_before(tmp_path):
    path = tmp_path / "metrics.csv"
    columns = ["iteration", "a", "b"]
    log = CsvLog(path, columns, keep_until=0)
    for i in range(1, 4):
        log.write({"iteration": i, "a": i / 3, "unheard of": 1})
        assert len(read_rows(path)) == i  # on disk at once
    log.close()
    CsvLog(path, columns, keep_until=2).close()
    assert read_rows(path) == [{"iteration": 1, "a": 0.333333}, {"iteration": 2, "a": 0.666667}]


def test_csv_of_fewer_columns_is_continued_and_of_others_set_aside(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("iteration,a\n1,0.5\n")
    log = CsvLog(path, ["iteration", "new", "a"], keep_until=1)
    assert log.set_aside is None
    log.write({"iteration": 2, "new": 3, "a": 1})
    log.close()
    assert read_rows(path) == [{"iteration": 1, "a": 0.5}, {"iteration": 2, "new": 3, "a": 1}]
    for header in ("a,iteration", "iteration,other", "iteration,a,a"):
        path.write_text(f"{header}\n")
        log = CsvLog(path, ["iteration", "new", "a"], keep_until=1)
        log.close()
        assert log.set_aside is not None


# Refused --------------------------------------------------------------------------------------


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["metrics.csv", "versions.json", "adaptation.csv"])
def test_a_pipe_is_not_waited_for(copy, name):
    (copy.path / name).unlink(missing_ok=True)
    os.mkfifo(copy.path / name)
    assert f"{name!r} is neither a file nor a folder" in refusal(open_run, copy.path)


def test_no_run(whole):
    text = refusal(open_run, whole.path.parent / "none")
    assert "none" in text
    assert "Runs beside it: whole" in text


def test_a_run_is_not_overwritten(whole):
    assert "exists; give another --output, or go on with --resume" in refusal(
        create_run, config(), whole.path
    )


def test_a_run_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    assert "could not be written" in refusal(create_run, config(), tmp_path / "file" / "run")


def test_stopped_before_the_first_checkpoint(copy):
    copy.checkpoint.unlink()
    assert "no checkpoint.npz" in refusal(open_run, copy.path)


class Bomb:
    """Unpickling it leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def flip(data: bytes, at: float) -> bytes:
    index = int(len(data) * at)
    return data[:index] + bytes([data[index] ^ 255]) + data[index + 1 :]


DAMAGE = {
    "empty": lambda data: b"",
    "text": lambda data: b"not a checkpoint\n",
    "a tenth": lambda data: data[: len(data) // 10],
    "almost all": lambda data: data[:-30],
    "no beginning": lambda data: data[100:],
    "a byte changed": lambda data: flip(data, 0.5),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_refused(copy, damage):
    copy.checkpoint.write_bytes(damage(copy.checkpoint.read_bytes()))
    for call in (lambda: train(copy, resume=True), lambda: learn_masters(copy)):
        assert f"{copy.checkpoint}: not a readable checkpoint" in refusal(call)


def test_no_damage_to_a_checkpoint_is_a_traceback(copy):
    whole, rng = copy.checkpoint.read_bytes(), np.random.default_rng(0)
    start = len(whole) - 4000  # the directory of the archive, where every byte means something
    for at in rng.integers(start, len(whole), 200):
        copy.checkpoint.write_bytes(whole[:at] + rng.bytes(1) + whole[at + 1 :])
        with suppress(UserError):  # a date or a flag may change unnoticed
            load_arrays(copy.checkpoint)


@pytest.mark.parametrize("kind", ["npz", "pickle", "npy"])
def test_a_pickle_is_refused_and_not_run(copy, tmp_path, kind):
    mark = tmp_path / "it-ran"
    if kind == "npz":
        arrays = {**load_arrays(copy.checkpoint), "age": np.array([Bomb(mark)], object)}
        np.savez(copy.checkpoint, **arrays)
    elif kind == "npy":
        with copy.checkpoint.open("wb") as stream:
            np.save(stream, np.array([Bomb(mark)], object))
    else:
        copy.checkpoint.write_bytes(pickle.dumps(Bomb(mark)))
    assert "not a readable checkpoint" in refusal(train, copy, resume=True)
    assert not mark.exists()


def test_an_array_file_is_no_checkpoint(copy):
    with copy.checkpoint.open("wb") as stream:
        np.save(stream, np.zeros(3))
    assert "not a readable checkpoint" in refusal(train, copy, resume=True)


def test_a_compressed_checkpoint_that_is_damaged(copy):
    arrays = load_arrays(copy.checkpoint)
    np.savez_compressed(copy.checkpoint, format=np.array(1), **arrays)
    assert load_arrays(copy.checkpoint).keys() == arrays.keys()
    whole = copy.checkpoint.read_bytes()
    for at in range(100, 5000, 100):
        copy.checkpoint.write_bytes(whole[:at] + b"\xff" * 20 + whole[at + 20 :])
        assert "not a readable checkpoint" in refusal(load_arrays, copy.checkpoint)


@pytest.mark.parametrize("value", [None, 0, 2, [1, 1]])
def test_a_checkpoint_of_another_format(copy, value):
    arrays = load_arrays(copy.checkpoint)
    if value is not None:
        arrays["format"] = np.array(value)
    np.savez(copy.checkpoint, **arrays)
    assert "of another format. Valid: 1" in refusal(train, copy, resume=True)


@pytest.mark.parametrize("name", ["skills.policy", "age", "seconds", "env.physics"])
def test_a_checkpoint_that_lacks_an_array(copy, name):
    arrays = load_arrays(copy.checkpoint)
    del arrays[name]
    save_arrays(copy.checkpoint, arrays)
    text = refusal(train, copy, resume=True)
    assert "does not fit config.yaml" in text
    assert name.removeprefix("env.") in text


def test_a_checkpoint_of_another_configuration(copy):
    other = config(mlsh=replace(config().mlsh, groups=1))
    write_config(other, copy.path / "config.yaml")
    text = refusal(train, copy, resume=True)
    advice = "Restore it, or continue the training with the changes: mlsh train --resume"
    assert f"mlsh.groups 2 -> 1. {advice}" in text
    text = refusal(train, copy, resume=True, allow_changes=True)
    assert "does not fit config.yaml and this version (masters.policy has shape (2, " in text


def changed(copy, **changes):
    write_config(replace(copy.config, **changes), copy.path / "config.yaml")
    return copy


def test_what_does_not_change_what_is_learned_may_be_changed(copy):
    steps = copy.config.mlsh.steps_per_iteration * 6
    done = train(changed(copy, steps=steps, threads=1, checkpoint_every=1), resume=True)
    assert done.finished
    assert done.learner.iteration == 6


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 77}, "seed 0 -> 77"),
        ({"mlsh": replace(config().mlsh, decision_ticks=5)}, "mlsh.decision_ticks 10 -> 5"),
        ({"robot": "rover"}, "robot 'omni' -> 'rover'"),
    ],
)
def test_a_changed_configuration_is_named_and_nothing_is_trained_or_told_from_it(
    copy, changes, named
):
    before = copy.checkpoint.read_bytes()
    for act in (lambda r: train(r, resume=True), learn_masters, lambda r: r.trained):
        text = refusal(act, changed(copy, **changes))
        assert named in text
        assert f"mlsh train --resume {copy.path} --allow-changes" in text
    assert copy.checkpoint.read_bytes() == before


def test_what_was_changed_on_the_way_stays_with_the_checkpoint(copy):
    steps = copy.config.mlsh.steps_per_iteration * 6
    train(changed(copy, seed=77, steps=steps), resume=True, allow_changes=True)
    assert copy.trained.changes == ("from iteration 5: seed 0 -> 77",)
    assert copy.trained.config.seed == 77
    train(copy, resume=True)
    assert copy.trained.changes == ("from iteration 5: seed 0 -> 77",)


@pytest.mark.slow
def test_a_robot_that_was_changed_is_named(tmp_path):
    robot = shutil.copytree(ROBOTS / "omni", tmp_path / "robot")
    run = create_run(config(robot=str(robot), steps=400), tmp_path / "run")
    train(run)
    assert run.trained.changes == ()
    text = (robot / "robot.yaml").read_text()
    (robot / "robot.yaml").write_text(f"# a comment\n{text}")
    assert run.trained.changes == ()
    (robot / "robot.yaml").write_text(text.replace("rate_limit: 5.0", "rate_limit: 6.0"))
    (robot / "model.xml").write_text((robot / "model.xml").read_text() + "<!-- heavier -->")
    assert "robot.yaml of robot" in refusal(lambda: run.trained)
    assert "model.xml of robot" in refusal(train, run, resume=True)


@pytest.mark.slow
def test_a_file_that_the_robot_s_model_includes_was_changed(tmp_path):
    robot = shutil.copytree(ROBOTS / "omni", tmp_path / "robot")
    model = robot / "model.xml"
    text = model.read_text()
    assert "</mujoco>" in text
    model.write_text(text.replace("</mujoco>", '<include file="more.xml"/></mujoco>'))
    (robot / "more.xml").write_text('<mujoco><option gravity="0 0 -9.81"/></mujoco>')
    run = create_run(config(robot=str(robot), steps=400), tmp_path / "run")
    train(run)
    assert run.trained.changes == ()
    (robot / "more.xml").write_text('<mujoco><option gravity="0 0 -1"/></mujoco>')
    assert "more.xml of robot" in refusal(lambda: run.trained)


# Two at a time ----------------------------------------------------------------------------------


def test_a_run_has_one_writer_at_a_time(copy):
    before = copy.checkpoint.read_bytes()
    code = """
import sys, time
from pathlib import Path
from policies.training.run import Run
with Run(Path(sys.argv[1])).locked():
    print("ready", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(copy.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "ready\n"
        for act in (lambda r: train(r, resume=True), learn_masters):
            text = refusal(act, copy)
            assert f"is in use: another process (process {other.pid}) writes there" in text
        assert "is in use" in refusal(create_run, config(), copy.path)
    finally:
        other.kill()
        other.communicate()
    assert copy.checkpoint.read_bytes() == before
    assert train(copy, resume=True).finished


def test_a_run_that_stopped_before_its_first_checkpoint_may_be_begun_anew(tmp_path):
    run = create_run(config(steps=400), tmp_path / "run")
    again = create_run(config(steps=400, seed=1), run.path)
    assert train(again).finished


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"command": 1}', '{"command": 1, "command": 2}', "[" * 100_000]
)
def test_broken_versions(copy, text):
    (copy.path / "versions.json").write_text(text)
    assert "versions.json: not" in refusal(lambda: copy.provenance)


def test_versions_are_json(whole):
    assert json.loads((whole.path / "versions.json").read_text()) == whole.provenance


# A full disk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["os.fsync", "numpy.savez", "os.replace"])
def test_a_full_disk_keeps_the_previous_checkpoint(copy, monkeypatch, when):
    before = copy.checkpoint.read_bytes()
    monkeypatch.setattr(when, no_space)
    text = refusal(save_arrays, copy.checkpoint, {"a": np.zeros(3)})
    assert "No space left on device" in text
    assert "what was there is kept" in text
    monkeypatch.undo()
    assert copy.checkpoint.read_bytes() == before
    assert not list(copy.path.glob(".*"))


def test_a_loss_that_is_not_finite_ends_training_before_the_checkpoint(tmp_path):
    run = create_run(config(), tmp_path / "run")

    def spoil(training):
        if training.learner.iteration == 3:
            training.learner.agent.masters.value.numpy[:] = np.nan

    with np.errstate(all="ignore"):
        text = refusal(train, run, on_iteration=spoil)
    assert "master/policy_loss, master/value_loss not finite in iteration 4; the last" in text
    assert int(load_arrays(run.checkpoint)["iteration"]) == 2
    assert f"then: mlsh train --resume {run.path} --allow-changes" in text
    assert train(run, resume=True).finished


def test_a_loss_that_is_not_finite_before_the_first_checkpoint(tmp_path):
    run = create_run(config(), tmp_path / "run")

    def spoil(training):
        training.learner.agent.masters.value.numpy[:] = np.nan

    with np.errstate(all="ignore"):
        text = refusal(train, run, on_iteration=spoil)
    assert "there is no checkpoint yet: train again with a lower learning rate, such as" in text
    setting = text.rpartition("--set ")[2]
    assert create_run(config().with_values([setting]), run.path).config.master.learning_rate


def test_a_disk_that_fills_up_while_training(tmp_path, monkeypatch):
    run = create_run(config(), tmp_path / "run")

    def fill(training):
        if training.learner.iteration == 3:
            monkeypatch.setattr("os.fsync", no_space)

    text = refusal(train, run, on_iteration=fill)
    assert "checkpoint.npz: could not be written (No space left on device)" in text
    monkeypatch.undo()
    assert int(load_arrays(run.checkpoint)["iteration"]) == 2
    assert train(run, resume=True).finished


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_on_a_full_disk_closes(tmp_path):
    path = tmp_path / "metrics.csv"
    log = CsvLog(path, ["iteration"], keep_until=0)
    log.close()
    with Path("/dev/full").open("w") as log._stream:
        log._writer = csv.DictWriter(log._stream, ["iteration"])
        with pytest.raises(OSError, match="No space left"):
            log.write({"iteration": 1})
        log.close()  # what it refuses was reported when the row was written


def test_saved_arrays_come_back(tmp_path):
    arrays = {"a": np.arange(3), "b.c": np.float32([[0.1]]), "d": np.array(True)}
    save_arrays(tmp_path / "x.npz", arrays)
    back = load_arrays(tmp_path / "x.npz")
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[k], v) and back[k].dtype == v.dtype for k, v in arrays.items())
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert archive.testzip() is None


# Metrics ----------------------------------------------------------------------------------------


def iteration(**changed):
    """Of two groups, each with a task of its own."""
    two = np.zeros(2)
    values = {
        "number": 1,
        "steps": 1,
        "age": np.array([5, 5]),
        "task": np.array([0, 1]),
        "returns": two,
        "success": two,
        "usage": np.zeros((2, 2)),
        "state_information": np.zeros((2, 2)),
        "alone": np.full((2, 2), np.nan),
        "probing": two.astype(bool),
        "master": None,
        "skill": None,
        "reset_skill": None,
        "distance": 1.0,
        "diverged": 0,
    }
    return Iteration(**values | changed)


def test_success_of_rollouts_in_which_no_episode_ended_is_unknown():
    done = np.array([[False, True], [False, True]])  # (T, B): one simulation per group
    rollout = SimpleNamespace(
        reward=np.ones((2, 2)),
        counted_ticks=lambda limit: np.full(2, 2.0),
        done=done,
        success=done & [[False, False], [False, True]],
        is_random=np.zeros((2, 2), bool),
        skill=np.zeros((2, 2), int),
    )
    groups = SimpleNamespace(by_group=lambda x: x[:, None], all_gather=lambda x: x)
    success = group_statistics(rollout, groups, 2, 4)["success"]
    np.testing.assert_array_equal(success, [np.nan, 0.5])
    references = [ReferenceReturns(0.0, 0.5, 1.0)] * 2
    row = describe(iteration(success=success), ("a", "b"), references, 5, 1.0, 1.0)
    assert "success/a" not in row
    assert row["success/b"] == 0.5


@pytest.mark.parametrize(
    ("usage", "bits"),
    [
        ([[1, 0], [0, 1]], 1.0),  # each task has a skill of its own
        ([[1, 0], [1, 0]], 0.0),  # one skill for all
        ([[0.5, 0.5], [0.5, 0.5]], 0.0),  # both, whatever the task
        # H(.6, .4) - H(.8, .2) / 2 - H(.4, .6) / 2 = .97095 - .36096 - .48548
        ([[0.8, 0.2], [0.4, 0.6]], 0.12451),
    ],
)
def test_mutual_information_of_skill_and_task(usage, bits):
    it = iteration(usage=np.array(usage, float))
    assert skill_mutual_information(it, warmup=5) == pytest.approx(bits, abs=1e-5)
    assert skill_mutual_information(it, warmup=6) == 0  # nobody has warmed up


@pytest.mark.parametrize("name", ["config.yaml", "curves.png", "notes.txt"])
def test_a_folder_with_files_of_something_else_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("a: 1")
    said = refusal(create_run, config(), tmp_path)
    assert said == (
        f"{tmp_path} has files that are not of a run, such as {name!r}; give another --output"
    )
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "a: 1"


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start_run.time, "strftime", lambda _: "20260101-120000")
    paths = [start_run.start_run("moving_bandits").path for _ in range(3)]
    stem = "runs/moving_bandits-omni-s0-20260101-120000"
    assert [str(path) for path in paths] == [stem, f"{stem}-2", f"{stem}-3"]


def test_a_link_that_leads_nowhere_is_no_part_of_a_run(copy):
    (copy.path / ".#config.yaml").symlink_to("nobody@nowhere.123")
    assert open_run(copy.path).trained


def test_failures_of_an_earlier_sitting_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = create_run(config(), tmp_path / "run")

    def spoil(training):
        training.learner.env.world.physics.batch.bind("qvel")[3, 0] = np.nan

    train(run, should_stop=stop_after(2), on_iteration=spoil)
    folder = run.path / "failures"
    first = {each.name: each.read_bytes() for each in folder.iterdir()}
    assert first
    shown = []
    train(run, resume=True, on_iteration=lambda t: (spoil(t), shown.append(t.earlier_failures)))
    assert {each.name: each.read_bytes() for each in folder.iterdir()}.items() > first.items()
    assert shown[-1] == len(first)


def test_a_failure_of_another_model_is_one_line(copy, tmp_path, monkeypatch, capsys):
    arrays = {"simulation": 0, "tick": 1, "state": [1.0], "command": [0.0], "varied": []}
    place = copy.path / "failures" / "0.npz"
    place.parent.mkdir()
    save_arrays(place, {name: np.asarray(value) for name, value in arrays.items()})
    monkeypatch.setattr(sys, "argv", ["divergence", str(place)])
    assert divergence.main() == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {place}: is of another model (")
    assert said.count("\n") == 1


def test_a_command_with_bytes_that_are_no_text_can_be_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mlsh", "train", "--sim-params", "s\udce9.yaml"])
    run = create_run(config(), tmp_path / "run")
    assert "s\\udce9.yaml" in str(run.provenance["command"])


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ((2048, 2048), r"network.hidden \[2048, 2048\]: a network would have 16,8\d\d,\d+ bytes"),
        ((2000, 2000), r"2 skills and 3 masters would have 80,\d+,\d+ bytes, at most 67,108,864"),
    ],
)
def test_networks_that_no_bundle_can_hold_are_refused_before_the_training(tmp_path, hidden, said):
    made = config(family="ring_bandits" if "masters" in said else "moving_bandits")
    wide = replace(made, network=replace(made.network, hidden=hidden))
    assert re.search(said, refusal(create_run, wide, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", WRITTEN)
def test_no_training_writes_through_a_link(copy, tmp_path, name):
    """Before it begins: the last of these files would be written at its end."""
    away = tmp_path / "of somebody else"
    place = copy.path / name
    if place.exists():
        place.rename(away)
    else:
        away.mkdir()
    place.symlink_to(away)
    before = sorted(tmp_path.rglob("*"))
    said = refusal(train, copy, resume=True)
    assert said.startswith(f"{place}: is a symbolic link, which is not followed; put the f")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("value", [np.inf, np.nan, "x", [1, 2], [], -1, 1e300])
def test_a_checkpoint_without_a_number_of_iterations_is_one_line(copy, value):
    arrays = load_arrays(copy.checkpoint)
    save_arrays(copy.checkpoint, {**arrays, "iteration": np.array(value)})
    for call in (
        lambda: train(copy, resume=True),
        lambda: learn_masters(copy),
        lambda: export_run(copy.path, copy.path / "bundle"),
    ):
        assert "checkpoint.npz: does not fit config.yaml and this version" in refusal(call)


@pytest.mark.parametrize("versions", [[], "1.0", None, 3])
def test_versions_that_are_no_mapping_are_one_line(copy, versions):
    path = copy.path / "versions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"versions": versions}))
    said = refusal(lambda: export_run(copy.path, copy.path / "bundle"))
    assert said == (f"{path}: not readable (versions: a mapping is expected, got {versions!r})")
    assert not (copy.path / "bundle").exists()
