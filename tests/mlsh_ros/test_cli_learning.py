"""Commands that learn, and those that read it: no result is taken for what it is not."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlsh_ros.cli import main as cli
from policies.bundle.bundle import PRETRAINED
from policies.experiments import run_comparison
from sim.errors import UserError
from sim.physics.robot_model import ROBOTS

B = "moving_bandits"
TINY = {
    "mlsh.groups": 2,
    "mlsh.envs": 4,
    "mlsh.warmup": 1,
    "mlsh.joint": 1,
    "skill.epochs": 2,
    "steps": 1200,
    "checkpoint_every": 1,
    "threads": 1,
}
SET = [f"--set={key}={value}" for key, value in TINY.items()]


def assert_refused(result, *said):
    code, _, err = result
    assert code in (1, 2), result
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert "internal" not in err, err
    for text in said:
        assert text in err, err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished tiny run on a robot of one's own; not to be changed."""
    from policies.training import train as training

    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(ROBOTS / "omni", folder / "mine")
    words = ["mlsh", "train", B, "--robot", "./mine", "--output", "tiny", *SET]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", words)
        patch.setattr(training, "ADAPTATION_UPDATES", 1)
        patch.setattr("policies.training.adapt.SCORED_TICKS", 32 * 50)
        with pytest.raises(SystemExit) as caught:
            cli.main()
    assert caught.value.code == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy that a test may damage, with its robot beside it."""
    shutil.copytree(trained / "mine", tmp_path / "mine")
    return Path(shutil.copytree(trained / "tiny", tmp_path / "tiny"))


# summary --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_summary_says_which_run_a_row_is_of(mlsh, run):
    code, out, err = mlsh("compare-runs", "tiny")
    assert (code, err) == (0, "")
    head, row, last, *_ = out.splitlines()
    assert head.split()[:6] == ["run", "family", "robot", "seed", "steps", "seconds"]
    assert row.split()[:5] == ["tiny", B, "./mine", "0", "1,200"]
    assert row.split()[-1] == "0"  # no skill was started anew
    assert "worst: tiny, seed 0" in last


@pytest.mark.slow
def test_summary_refuses_a_robot_that_was_changed(mlsh, run, tmp_path):
    model = tmp_path / "mine" / "model.xml"
    model.write_text(model.read_text() + "<!-- heavier -->")
    assert_refused(
        mlsh("compare-runs", "tiny"), "'tiny' differs from what its checkpoint was", "model.xml"
    )


@pytest.mark.slow
def test_summary_refuses_masters_from_before_the_training_went_on(mlsh, run):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("steps: 1200", "steps: 1600"))
    assert_refused(
        mlsh("compare-runs", "tiny"), "not finished: 3 of 4 iterations; mlsh train --resume"
    )
    from policies.training.run import open_run
    from policies.training.train import train

    assert train(open_run(run), resume=True).finished  # the masters are those of before
    assert_refused(
        mlsh("compare-runs", "tiny"),
        "adaptation.csv is of iteration 3",
        "checkpoint is of iteration 4; mlsh train --resume tiny",
    )
    assert mlsh("train", "--resume", "tiny")[0] == 0
    code, out, _ = mlsh("compare-runs", "tiny")
    assert code == 0
    assert "1,600" in out


@pytest.mark.parametrize("again", ["tiny", "./tiny/", "link", "copy"])
def test_summary_counts_no_training_twice(mlsh, run, again):
    Path("link").symlink_to("tiny")
    shutil.copytree("tiny", "copy")
    assert_refused(mlsh("compare-runs", "tiny", again), "are the same training", "give it once")


@pytest.mark.parametrize("families", [(B, B), (B, "rooms")])
def test_summary_of_two_families_has_no_task_of_both(monkeypatch, families):
    def read(path):
        config = SimpleNamespace(family=path.name, seed=0, robot="omni")
        trained = SimpleNamespace(config=config, settings_digest=path, robot_digest="")
        return run_comparison.FinishedRun(path, trained, 1, 1.0, 10, {"goal-0": 0.5}, 0)

    monkeypatch.setattr(run_comparison, "_read", read)
    found = run_comparison.compare_runs([Path(str(i), each) for i, each in enumerate(families)])
    tasks = ["goal-0"] if len({*families}) == 1 else [f"{each}/goal-0" for each in families]
    assert found.tasks == tasks
    assert [list(run.scores) for run in found.runs] == [[tasks[0]], [tasks[-1]]]


def test_summary_does_without_a_whole_log(mlsh, run):
    log = run / "metrics.csv"
    whole = log.read_text().splitlines(keepends=True)
    for damaged in ("", "".join(whole[:2]), "".join([*whole[:2], "1,2,3\n"]), whole[0] * 2):
        log.write_text(damaged)
        code, out, err = mlsh("compare-runs", "tiny")
        assert (code, err) == (0, "")
        assert out.splitlines()[1].split()[-1] == "-"
        assert (
            "metrics.csv of tiny is incomplete: the number of reinitialized skills is not known"
            in out
        )
    log.write_text("".join([*whole[:2], whole[2].rstrip("\n") + ",9,9\n", *whole[3:]]))
    assert mlsh("compare-runs", "tiny")[0] == 0


@pytest.mark.parametrize("kept", [0, 1, 2, 4])
def test_summary_refuses_half_of_the_masters(mlsh, run, kept):
    place = run / "adaptation.csv"
    lines = place.read_text().splitlines(keepends=True)
    assert len(lines) == 5
    place.write_text("".join(lines[:kept]))
    assert_refused(
        mlsh("compare-runs", "tiny"), "'tiny' is not finished", "damaged", "--resume tiny"
    )


@pytest.mark.parametrize("goal", ["nan", "0", "95", "-1", "x"])
def test_a_goal_is_a_part(mlsh, goal):
    assert_refused(mlsh("compare-runs", "x", "--target-score", goal), "--target-score")
    assert_refused(mlsh("sweep", B, "--target-score", goal), "--target-score")


# train ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        ["--seed", "0"],
        ["--seed", "7"],
        ["--robot", "omni"],
        ["--preset", "default"],
        ["--output", "x"],
        ["--set", "mlsh.groups=3"],
        ["--sim-params", "slow"],
    ],
)
def test_resume_takes_no_word_that_it_would_not_heed(mlsh, run, more):
    before = (run / "checkpoint.npz").read_bytes()
    result = mlsh("train", "--resume", "tiny", *more)
    assert_refused(result, "--resume takes all settings from the run; leave out", more[0])
    assert (run / "checkpoint.npz").read_bytes() == before


@pytest.mark.parametrize("key", ["seed=3", "robot=rover", "family=rooms", "sim_params=slow"])
@pytest.mark.parametrize(
    "command",
    [
        ["train", B],
        ["finetune", B, "--task", "ring_bandits"],
        ["eval-transfer", B, "ring_bandits"],
    ],
)
def test_a_setting_is_not_what_an_option_is(mlsh, command, key, tmp_path):
    assert_refused(mlsh(*command, "--set", key), f"setting '{key}'")
    assert not list(tmp_path.iterdir())


DAMAGE = {
    "no header": lambda lines: lines[1:],
    "empty": lambda lines: [],
    "another header": lambda lines: [lines[0].replace("iteration", "iterations"), *lines[1:]],
    "a row cut short": lambda lines: [*lines[:2], "2,800\n", *lines[3:]],
    "a row too long": lambda lines: [*lines[:2], lines[2].rstrip() + ",1,2\n", *lines[3:]],
    "no numbers": lambda lines: [*lines[:2], lines[2].replace(",", ",x"), *lines[3:]],
    "zeros": lambda lines: [*lines[:2], "\0" * 50 + "\n"],
    "a quote that does not end": lambda lines: [*lines[:2], '"' + lines[2], *lines[3:]],
}


# One kind of damage always, all of them with `make test-slow`.
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(how, marks=[] if how == "a row cut short" else [pytest.mark.slow])
        for how in DAMAGE
    ],
)
def test_training_goes_on_with_a_damaged_log_which_is_kept(mlsh, run, how):
    log = run / "metrics.csv"
    damaged = "".join(DAMAGE[how](log.read_text().splitlines(keepends=True)))
    log.write_text(damaged)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("steps: 1200", "steps: 1600"))
    code, out, err = mlsh("train", "--resume", "tiny")
    assert (code, err) == (0, "")
    assert "metrics.csv was damaged; the damaged file is kept as tiny/metrics-damaged-1.csv" in out
    assert (run / "metrics-damaged-1.csv").read_text() == damaged
    last = log.read_text().splitlines()[-1]
    assert last.split(",")[:2] == ["4", "1600"]
    assert "damaged" not in mlsh("train", "--resume", "tiny")[1]  # it is whole now


@pytest.mark.slow
def test_a_finished_run_goes_without_a_log(mlsh, run):
    (run / "metrics.csv").write_text("x")
    code, out, err = mlsh("train", "--resume", "tiny")
    assert (code, err) == (0, "")
    assert "trained in" in out
    (run / "metrics.csv").unlink()
    assert mlsh("train", "--resume", "tiny")[0] == 0


def test_a_wrong_setting_says_where_all_are(mlsh):
    assert_refused(mlsh("train", B, "--set", "nonsense=1"), "all: mlsh train --list-settings")
    code, out, err = mlsh("train", "--list-settings")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "mlsh.warmup=1" in lines
    assert "network.hidden=[64, 64]" in lines
    assert len(lines) > 50
    from policies.mlsh.presets import default_config

    config = default_config(B, "omni")
    given = [line for line in lines if re.match(r"[a-z_.]+=", line)]
    free = [line for line in given if not line.startswith("family_parameters=")]
    assert config.with_values(free) == config


# sweep ----------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep", B, "--seeds", "1e9"], "at most 10000"),
        (["sweep", B, "--jobs", "1e9"], "at most 256"),
        (["sweep", B, "--seeds", "10000", "--set", "mlsh.warmup=1,2"], "20,000 runs; at most"),
        (["eval-transfer", B, "ring_bandits", "--seeds", "1e9"], "at most 10000"),
        (["eval-transfer", B, "ring_bandits", "--episodes", "1e12"], "at most"),
        (["finetune", B, "--task", "ring_bandits", "--episodes", "1e12"], "at most"),
        (["sweep", B, "--episodes", "1e15"], "at most 100,000"),
        (["finetune", B, "--task", "ring_bandits", "--updates", "1e15"], "at most 1000000"),
        (["eval-transfer", B, "ring_bandits", "--updates", "1e15"], "at most 1000000"),
    ],
)
def test_nothing_is_begun_that_no_computer_holds(mlsh, tmp_path, words, said):
    assert_refused(mlsh(*words), said)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


# finetune and transfer ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["family_parameters.ticks=100"],
            "all masters of bundle 'moving_bandits' on moving_bandits have 50",
        ),
        (["mlsh.envs=4000"], "--episodes"),
        (["mlsh.groups=7"], "one master for each task"),
        (["steps=77"], "--updates"),
        (["mlsh.warmup=50"], "has no effect with --learner q"),
        (["master.entropy=0.1"], "settings of the section offpolicy have"),
        (["mlsh={envs: 32}"], "mlsh."),
        (["mlsh.joint=3"], "settings that have: master.*"),
        (["skill.epochs=3"], "there is no PPO from scratch beside them"),
        (["mlsh.skills=3"], "is fixed by the skills of the bundle"),
        (["network.hidden=[8]"], "is fixed by the skills of the bundle"),
        (["network.hidden_from_skills=[position]"], "is fixed by the skills of the bundle"),
        (["mlsh.probe=none"], "has no effect with --learner q"),
    ],
)
def test_finetune_refuses_what_it_would_not_heed(mlsh, tmp_path, settings, said):
    assert_refuses_settings(mlsh, tmp_path, settings, said)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["mlsh.warmup=50"], "without master.entropy"),
        (["master.entropy=0.1", "mlsh.warmup=1"], "falls to zero over mlsh.warmup"),
        (["offpolicy.horizon=3"], "offpolicy has no effect with --learner ppo"),
        (["mlsh.probe=none", "mlsh.probe_logit_clip=1"], "without the probe"),
    ],
)
def test_finetune_with_ppo_refuses_what_it_would_not_heed(mlsh, tmp_path, settings, said):
    assert_refuses_settings(mlsh, tmp_path, settings, said, "--learner", "ppo")


def assert_refuses_settings(mlsh, tmp_path, settings, said, *words):
    words = (*words, *(f"--set={setting}" for setting in settings))
    result = mlsh("finetune", B, "--task", f"{B}/goal-0", "--name", "x", "--no-baseline", *words)
    assert_refused(result, said)
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_is_changed_where_it_stands_says_what_is_new(mlsh, tmp_path):
    shutil.copytree(PRETRAINED / B, tmp_path / "mine")
    words = ["--task", "ring_bandits/sector-0", "--no-baseline", "--updates", "1"]
    for more, said in (([], "added"), (["--overwrite-master", "--overwrite"], "replaced")):
        code, out, err = mlsh("finetune", "mine", *words, "-o", "mine", *more)
        assert code == 0, err
        assert f"mine: master 'sector-0' {said}\n" in out
    code, out, err = mlsh("finetune", "mine", *words, "-o", "other", "--overwrite-master")
    assert code == 0, err
    assert "master 'sector-0'" not in out


def test_finetune_of_another_family_has_that_family_s_parameters(mlsh):
    words = ["finetune", B, "--task", "ring_bandits/sector-0", "--no-baseline"]
    said = "family_parameters.ticks 100: all masters of bundle"
    assert_refused(mlsh(*words, "--set", "family_parameters.ticks=100"), said)


def test_transfer_refuses_a_family_that_is_made_unfit(mlsh):
    result = mlsh("eval-transfer", B, "ring_bandits", "--set", "network.hidden=[8]")
    assert_refused(result, "is fixed by the skills of the bundle")


# Nothing is left of what was refused ------------------------------------------------------------


def test_a_training_that_is_refused_leaves_no_folder(mlsh, tmp_path):
    settings = ["--set", "mlsh.decision_ticks=200", "--set", "mlsh.rollout_ticks=200"]
    assert_refused(mlsh("train", B, *settings), "an episode of moving_bandits has 50 ticks")
    assert not [*tmp_path.glob("runs/*")]


def test_a_family_that_does_not_fit_the_robot_leaves_no_folder(mlsh, tmp_path):
    result = mlsh("train", "body_rooms", "--robot", "omni", "-o", "mine")
    assert_refused(result, "needs the observation term 'orientation'")
    assert not [*tmp_path.glob("runs/*"), *tmp_path.glob("mine")]


# Ctrl-C ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_training_ends_at_whatever_tells_it_to(mlsh, monkeypatch, number, ignored):
    told = []

    def train(run, *, should_stop, **_):
        signal.raise_signal(number)
        told.append(should_stop())
        raise UserError("this is enough")

    monkeypatch.setattr("policies.training.train.train", train)
    mine = signal.SIG_IGN if ignored else lambda *_: None
    before = signal.signal(number, mine)
    try:
        assert_refused(mlsh("train", B, "-o", "run", *SET), "this is enough")
        assert signal.getsignal(number) == mine
    finally:
        signal.signal(number, before)
    assert told == [not ignored]


def state(pid):
    """State and parent of a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None


def is_running(pid):
    known = state(pid)
    return known is not None and known[0] != "Z"


def assert_ended(pids):
    deadline = time.monotonic() + 5  # Python's own resource tracker ends after its parent
    while left := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def children(pid):
    pids = [int(each.name) for each in Path("/proc").glob("[0-9]*")]
    return [each for each in pids if (known := state(each)) and known[1] == str(pid)]


@pytest.mark.parametrize(
    ("words", "mapped", "wait", "said"),
    [
        (
            ["finetune", B, "--task", "ring_bandits", "--updates", "100000"],
            "runs/.moving_bandits-ring_bandits.lock",  # from before its simulations on
            2.0,
            "no bundle was",
        ),
        pytest.param(
            ["eval-transfer", B, "ring_bandits", "--updates", "100000"],
            None,
            6.0,
            "nothing was written",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["sweep", B, "--seeds", "2", "-o", "s"],
            "s/mlsh-0/metrics.csv",
            0.0,
            "what is done under s",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_ctrl_c_is_one_line_at_once(tmp_path, words, mapped, wait, said):
    command = [sys.executable, "-m", "mlsh_ros.cli.main", *words]
    running = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        maps = Path(f"/proc/{running.pid}/maps")
        if mapped:
            while not (tmp_path / mapped).exists() and time.monotonic() < deadline:
                time.sleep(0.1)
        else:
            while time.monotonic() < deadline:
                mapping = maps.read_text()
                if "libmujoco" in mapping and "libtorch_python" in mapping:
                    break
                time.sleep(0.05)
        time.sleep(wait)
        assert running.poll() is None, running.communicate()
        below = children(running.pid)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        start = time.monotonic()
        _, err = running.communicate(timeout=20)
        took = time.monotonic() - start
    finally:
        running.kill()
    assert running.returncode == 130
    assert err.startswith("interrupted; ")
    assert said in err
    assert err.count("\n") == 1, err
    assert took < 5
    assert_ended(below)


@pytest.mark.slow
def test_the_runs_of_a_sweep_end_with_it_however_it_ends(tmp_path):
    command = [sys.executable, "-m", "mlsh_ros.cli.main", "sweep", B, "--seeds", "1", "-o", "s"]
    null = subprocess.DEVNULL
    running = subprocess.Popen(command, cwd=tmp_path, stdout=null, stderr=null)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "s/mlsh-0/metrics.csv").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        below = children(running.pid)
        assert below
    finally:
        running.kill()  # which nobody can act on
        running.wait()
    assert_ended(below)
