"""Small real bundles with random weights, and changed copies of robots."""

import fcntl
import os
import random
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TextIO
from unittest import mock

import numpy as np

from policies.bundle.bundle import Bundle, write_bundle
from policies.bundle.onnx_reader import read_graph
from policies.bundle.onnx_writer import write_graph
from policies.mlsh.config import TrainConfig
from policies.mlsh.presets import default_config
from sim.envs.reference_returns import ReferenceReturns
from sim.physics.robot_model import robot_folder
from sim.seeding import Stream, generator

SLOTS, SLOT = 12, 8  # of ROS domains 1 to 96, and how many are in each
_locks: list[TextIO] = []


@cache
def _free() -> deque[int]:
    """The domains of this process that nothing uses; those of other test processes are others."""
    for slot in random.SystemRandom().sample(range(SLOTS), SLOTS):
        path = Path(tempfile.gettempdir()) / f"mlsh-test-domains-{os.getuid()}-{slot}"
        lock = open(path, "w")  # noqa: SIM115 (held until the process ends)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _locks.append(lock)
        return deque(range(1 + slot * SLOT, 1 + (slot + 1) * SLOT))
    raise RuntimeError(f"{SLOTS} processes that test with ROS run already; there are no domains")


@contextmanager
def domain() -> Iterator[int]:
    """A ROS domain, nobody else's for as long: never 0, where a user's own nodes may be.

    The one that has been free for longest: DDS remembers for a while who was killed in it.
    """
    number = _free().popleft()
    try:
        yield number
    finally:
        _free().append(number)


def fresh_domain() -> int:
    """A domain for one test, which ends all that it starts."""
    with domain() as number:
        return number


def small_config(
    seed: int = 0, family: str = "moving_bandits", robot: str = "omni"
) -> TrainConfig:
    """The default recipe in a size that one iteration of takes a few hundredths of a second."""
    config = default_config(family, robot, seed)
    method = replace(config.mlsh, groups=2, envs=4, warmup=1, joint=1)
    skill = replace(config.skill, epochs=2)
    return replace(config, mlsh=method, skill=skill, steps=2000, threads=1, checkpoint_every=1)


def changed_robot(path: Path, robot: str, *changes: tuple[str, str]) -> str:
    """A copy of a shipped robot's folder, whose robot.yaml says something else; its path."""
    shutil.copytree(robot_folder(robot), path)
    text = (path / "robot.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (path / "robot.yaml").write_text(text)
    return str(path)


COMPUTED = """
computed:
  - {name: last, kind: previous_action, scale: 0.5, clip: [-2.0, 2.0]}
  - {name: wanted, kind: constant, values: [0.25]}
  - name: past
    kind: history
    terms: [velocity, last]
    ticks: 3
    order: oldest_first
    layout: by_term
    start: zeros

action:
"""


def remembering_robot(path: Path, robot: str = "omni") -> str:
    """A shipped robot whose observation has the previous action, a constant and a history."""
    return changed_robot(path, robot, ("\naction:\n", COMPUTED))


def made_up_bounds(robot, family) -> list[ReferenceReturns]:
    return [ReferenceReturns(random=0.0, task_blind=20.0, optimum=40.0)] * len(family.tasks)


def restless_bundle(
    path: Path,
    lead: int = 1,
    family: str = "moving_bandits",
    robot: str = "omni",
    **parameters: float,
) -> Bundle:
    """A bundle whose masters are thermostats: they change the skill whenever the sign changes.

    Master goal-0 watches x, goal-1 watches y, of an ant the first two hips; skill 0 drives up
    all that it commands, skill 1 down, each with a random network on top.
    """
    # Imported here: on a machine with ROS and without torch the other tests still run.
    from policies.bundle.export import export, master_entry, provenance_of
    from policies.mlsh.mlsh import Mlsh
    from policies.training.adapt import AdaptationPoint
    from policies.training.run import environment

    config = replace(small_config(family=family, robot=robot), family_parameters=parameters)
    config = replace(config, mlsh=replace(config.mlsh, decision_lead=lead, decision_ticks=5))
    # Its weights are made up, so its scores are too: bounds take longer than the whole test.
    with mock.patch("policies.mlsh.mlsh.all_reference_returns", made_up_bounds):
        learner = Mlsh(config)
    agent = learner.agent
    for k, direction in enumerate((0.7, -0.7)):
        rng = generator(7, Stream.INIT, 0, k)
        agent.skills.policy.initialize(k, rng, output_gain=0.3)
        _, bias = agent.skills.policy.layers(k)[-1]
        bias[:] = direction
    agent.masters.policy.numpy[:] = 0
    watched = learner.env.interface.observation_slices.get("hip", slice(0, 0)).start
    for axis in range(agent.masters.count):
        (first, _), (second, _), (last, _) = agent.masters.policy.layers(axis)
        first[watched + axis, 0] = second[0, 0] = 3.0
        last[0] = (-3.0, 3.0)
    provenance = provenance_of(config, environment(), 0, 0)
    curve = [AdaptationPoint(0, 0, 0.0, 1.0, 0.0)]
    masters = {
        task: master_entry(f"{family}/{task}", curve, limit, provenance, 1)
        for task, limit in zip(learner.family.tasks, learner.reference_returns, strict=True)
    }
    bundle, _ = export(config, learner, masters, provenance, "restless", path)
    return bundle


def wide_bundle(bundle: Bundle, path: Path, width: int) -> Bundle:
    """The same bundle with hidden layers of that width, by units that change nothing."""

    def widened(data: bytes) -> bytes:
        arrays = read_graph(data, "a network").initializers
        sizes = [len(arrays["shift"]), width, width, len(arrays["bias2"])]
        layers = []
        for i in range(3):
            weight, bias = (
                np.zeros(sizes[i : i + 2], np.float32),
                np.zeros(sizes[i + 1], np.float32),
            )
            known = arrays[f"weight{i}"]
            weight[: len(known), : len(known[0])] = known
            bias[: len(known[0])] = arrays[f"bias{i}"]
            layers.append((weight, bias))
        return write_graph("wide", arrays["shift"], arrays["scale"], arrays["high"], layers)

    files = {
        name: widened(data) if name.endswith(".onnx") else data
        for name, data in bundle.files.items()
        if name != "manifest.json"
    }
    return write_bundle(bundle.manifest, files, path)


def unstable_robot(path: Path, robot: str = "omni") -> str:
    """A shipped robot with a mass beside it that a spring pushes away: it diverges within 2 s."""
    changed_robot(path, robot)
    model = path / "model.xml"
    mass = (
        '<body name="away"><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>'
        '<joint name="away" type="slide" axis="0 0 1" stiffness="-400"/></body></worldbody>'
    )
    text = model.read_text()
    assert "</worldbody>" in text
    model.write_text(text.replace("</worldbody>", mass))
    return str(path)
