"""What stops a robot is said of an offline evaluation, too; what is not finite ends it."""

from dataclasses import replace

import numpy as np
import pytest

from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import resolve_cases
from mlsh_ros.evaluation.report.verdict import verdict
from mlsh_ros.evaluation.scores import summarize
from policies.bundle.bundle import load_bundle, write_bundle
from policies.bundle.manifest import MANIFEST
from sim.errors import UserError

TASK = "moving_bandits/goal-0"


@pytest.fixture
def shipped():
    return load_bundle("moving_bandits")


def drive(bundle):
    return run_offline(resolve_cases(bundle, task=TASK), episodes=2, seed=0)


def spoiled(value):
    return lambda observation: np.full((1, 2), value, np.float32)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_logits_that_are_not_finite_end_it_by_the_nodes_name(shipped, monkeypatch, value):
    monkeypatch.setattr("mlsh_ros.evaluation.backends.load_master", lambda *_: spoiled(value))
    with pytest.raises(UserError, match=r"goal-0, episode 0, tick 0: master_silent: logits"):
        drive(shipped)


def test_an_action_that_is_not_finite_ends_it_by_the_nodes_name(shipped, monkeypatch):
    monkeypatch.setattr(
        "mlsh_ros.evaluation.backends.load_skills", lambda _: [spoiled(np.inf)] * 2
    )
    with pytest.raises(UserError, match=r"episode 0, tick 0: invalid_value: .*not finite"):
        drive(shipped)


def test_a_limit_that_is_broken_is_kept_and_told(shipped):
    assert not any(episode.fault for episode in drive(shipped))
    narrow = {"skill-0": {"velocity": (-1e-3, 1e-3)}, "skill-1": {"velocity": (-1e-3, 1e-3)}}
    bundle = replace(shipped, manifest=replace(shipped.manifest, skill_limits=narrow))
    done = drive(bundle)
    assert all(": limit: velocity." in episode.fault for episode in done)
    assert [e.value for e in done] == [e.value for e in drive(shipped)]
    result = summarize(resolve_cases(bundle, task=TASK), "sim", 0, done)
    assert len(result.to_dict()["tasks"][0]["faults"]) == 2
    assert "skill_node would have stopped the robot in 2 episodes" in verdict(result)


@pytest.mark.parametrize("file", ["masters/goal-0.onnx", "skills/0.onnx"])
def test_a_network_that_can_overflow_is_no_bundle(shipped, tmp_path, file):
    # Its weights are finite, and a forger chooses golden rows on which its outputs are, too.
    from policies.bundle.onnx_reader import read_graph
    from policies.bundle.onnx_writer import write_graph

    graph = read_graph(shipped.files[file], file).initializers
    layers = [(graph[f"weight{i}"], graph[f"bias{i}"]) for i in range(3)]
    layers[2] = (np.full_like(layers[2][0], 3e38), layers[2][1])
    files = {name: data for name, data in shipped.files.items() if name != MANIFEST}
    shift, scale, clip = graph["shift"], graph["scale"], graph["high"].item()
    files[file] = write_graph("spoiled", shift, scale, clip, layers)
    with pytest.raises(UserError, match=r"layer 2 can reach .* its output would not be finite"):
        write_bundle(shipped.manifest, files, tmp_path / "bundle")
