"""Results of commands: what comes to their place while a command works stays where it is.

A command looks at the places of its files before it works, for minutes or hours, and writes them
afterwards. Here the work is replaced by a function that puts a file there.
"""

from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from mlsh_ros.cli.app import command
from policies.bundle.bundle import MANIFEST, load_bundle, write_bundle
from policies.experiments import results_table
from policies.experiments.transfer import Transferred
from policies.training.comparison import LearningComparison
from sim.errors import UserError
from sim.tasks.registry import make_family

B = "moving_bandits"
ADAPTED = SimpleNamespace(estimates=(), curves=[], kept=(), divergence="")
NOTHING = SimpleNamespace(tasks=[], adapted=ADAPTED)
IDENTIFIED = SimpleNamespace(
    lines=list,
    numbers=[SimpleNamespace(why_not="")],
    before=1.0,
    after=0.5,
    to_yaml=lambda bags: "new",
)
RESULT = SimpleNamespace(to_dict=dict)
RENDERED = "mlsh_ros.evaluation.report.report.render"
RECORDING = "mlsh_ros.sim2real.data.recording_data"
REPORT, MAP = ("report.json", "report.html"), ("robustness.json", "robustness.png")
# Of each command: its arguments, its files, the function that works, what it returns, and what
# else is replaced.
COMMANDS = {
    "evaluate": (
        (B, "-o", "."),
        REPORT,
        "mlsh_ros.evaluation.scores.summarize",
        RESULT,
        {"mlsh_ros.evaluation.backends.run_offline": [], RENDERED: "new"},
    ),
    "evaluate --robustness": (
        (B, "-o", ".", "--robustness", "mass=0.9:1.1"),
        MAP,
        "mlsh_ros.evaluation.robustness.robustness",
        RESULT,
        {"mlsh_ros.evaluation.robustness.map_image": b"new"},
    ),
    "gap": (
        (B, "bag.mcap", "-o", "."),
        ("gap.json", "gap.html"),
        "mlsh_ros.sim2real.gap.analysis.analyze",
        SimpleNamespace(to_json=lambda: "new"),
        {"mlsh_ros.sim2real.gap.report.render": "new"},
    ),
    "demo": (
        ("--bundle", B, "-o", "."),
        (*REPORT, "demo.gif", "demo.png"),
        "mlsh_ros.evaluation.scores.summarize",
        RESULT,
        {"mlsh_ros.evaluation.backends.run_ros": [], RENDERED: "new"},
    ),
    "plot": (
        (B, "-o", "paths.png"),
        ("paths.png",),
        "mlsh_ros.evaluation.trajectory_plot.draw_birdseye",
        Figure(),
        {"mlsh_ros.cli.plot.take": []},
    ),
    "play": ((B, "-o", "film.gif"), ("film.gif",), "mlsh_ros.cli.play.take", [], {}),
    "sysid": (
        (B, "bag.mcap", "-o", "found.yaml"),
        ("found.yaml",),
        "mlsh_ros.sim2real.sysid.identify.identify",
        IDENTIFIED,
        {f"{RECORDING}.check_distinct": None, f"{RECORDING}.load": SimpleNamespace(signals=None)},
    ),
    "finetune": (
        (B, "--task", "ring_bandits/sector-0", "-o", "new"),
        ("new-finetune.csv", "new-finetune.png"),
        "policies.training.comparison.compare",
        LearningComparison({}, {}, 50),
        {
            "policies.training.finetune.finetune": NOTHING,
            "policies.training.comparison.adaptation_image": b"new",
        },
    ),
    "eval-transfer": (
        (B, "ring_bandits", "-o", "all.csv"),
        ("all.csv",),
        "policies.experiments.transfer.adapt",
        SimpleNamespace(curves=[[]] * len(make_family("ring_bandits").tasks), diverged=0),
        {},
    ),
}
BUNDLES = {"export", "import-skill"}  # `write_bundle` writes what they make
CASES = [(name, file) for name, (_, files, *_) in COMMANDS.items() for file in files]


def test_the_table_has_every_command_that_replaces_files():
    replacing = {
        name
        for name, each in command().commands.items()
        if any("--overwrite" in option.opts for option in each.params)
    }
    assert {name.split()[0] for name in COMMANDS} | BUNDLES == replacing


@pytest.mark.parametrize(("name", "file"), CASES)
def test_a_file_that_comes_while_a_command_works_stays(mlsh, tmp_path, monkeypatch, name, file):
    if name == "sysid":
        pytest.importorskip("scipy")
        pytest.importorskip("tabulate")
    arguments, _, work, result, others = COMMANDS[name]

    def worked(*_, **__):
        (tmp_path / file).write_text("of somebody else")
        return result

    for place, value in others.items():
        monkeypatch.setattr(place, lambda *_, value=value, **__: value)
    monkeypatch.setattr(work, worked)
    (tmp_path / "bag.mcap").touch()
    code, _, err = mlsh(name.split()[0], *arguments)
    assert (code, err.count("\n")) == (1, 1), err
    assert f"{file} exists; give another place, or --overwrite to replace it" in err
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "bag.mcap": "",
        file: "of somebody else",
    }


# What makes the last file of a result of several.
LAST = {
    "evaluate": RENDERED,
    "evaluate --robustness": "mlsh_ros.evaluation.robustness.map_image",
    "gap": "mlsh_ros.sim2real.gap.report.render",
    "demo": RENDERED,
    "finetune": "policies.training.comparison.adaptation_image",
}


def test_the_table_has_every_result_of_several_files():
    assert LAST.keys() == {name for name, (_, files, *_) in COMMANDS.items() if len(files) > 1}


@pytest.mark.parametrize("name", LAST)
def test_a_result_that_cannot_be_computed_leaves_the_earlier_one(
    mlsh, tmp_path, monkeypatch, name
):
    arguments, files, work, result, others = COMMANDS[name]
    for place, value in {work: result, **others}.items():
        monkeypatch.setattr(place, lambda *_, value=value, **__: value)
    monkeypatch.setattr(LAST[name], lambda *_, **__: 1 / 0)
    (tmp_path / "bag.mcap").touch()
    for file in files:
        (tmp_path / file).write_text("of monday")
    assert mlsh(name.split()[0], *arguments, "--overwrite")[0] != 0
    assert [(tmp_path / file).read_text() for file in files] == ["of monday"] * len(files)


def test_a_bundle_that_comes_while_another_is_made_stays(bundle, tmp_path):
    files = {name: data for name, data in bundle.files.items() if name != MANIFEST}
    there = write_bundle(bundle.manifest, files, tmp_path / "bundle")
    other = load_bundle(B)
    more = {name: data for name, data in other.files.items() if name != MANIFEST}
    with pytest.raises(UserError, match=r"has another bundle already; .* or --overwrite"):
        write_bundle(other.manifest, more, tmp_path / "bundle", overwrite=False)
    assert load_bundle(str(tmp_path / "bundle")).manifest == there.manifest


@pytest.mark.parametrize("file", ["sweep.csv", "sweep.png"])
@pytest.mark.parametrize("early", [True, False])
def test_a_sweep_replaces_no_file_of_somebody_else(tmp_path, monkeypatch, file, early):
    def run(*_):
        (tmp_path / file).write_text("of somebody else")
        return []

    monkeypatch.setattr(results_table, "sweep", run)
    monkeypatch.setattr(results_table, "plan", lambda *_: [])
    monkeypatch.setattr(results_table, "summarize", lambda _: ["one"])
    monkeypatch.setattr(results_table, "image", lambda *_: b"new")
    if early:
        run()
    with pytest.raises(UserError, match=rf"{file} (exists|is no table of a sweep)"):
        results_table.run_sweep(
            B,
            None,
            names=["mlsh"],
            settings=[],
            seeds=1,
            folder=tmp_path,
            processes=1,
            target_score=0.9,
        )
    assert [p.read_text() for p in tmp_path.iterdir()] == ["of somebody else"]


def test_a_transfer_goes_on_writing_its_own_file(tmp_path):
    from policies.experiments.transfer import HEADER, recorded

    family, place = make_family(B), tmp_path / "all.csv"
    results = [Transferred("q", seed, family, [[], []]) for seed in (0, 1)]
    assert len(list(recorded(results, place))) == 2
    assert place.read_text().strip() == ",".join(HEADER)
    with pytest.raises(UserError, match="exists; give another place"):
        list(recorded(results, place))
    assert len(list(recorded(results, place, overwrite=True))) == 2
