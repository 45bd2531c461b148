"""Computation time of a control tick and lateness of the tick engine, without ROS.

    python -m tests.benchmarks.tick [--ticks 100000] [--seconds 10] [--repeats 3]

Robot: 48 observations, 12 actions, 2 skills and a master of 2 x 256 tanh units, random weights.
"""

from __future__ import annotations

import argparse
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from mlsh_ros.control.clock import Clock
from mlsh_ros.control.control_step import ControlStep
from mlsh_ros.control.controller import Controller, Request
from mlsh_ros.control.loop import ControlLoop, TickRecord
from mlsh_ros.control.realtime import gc_disabled
from mlsh_ros.control.safety_monitor import SafetyMonitor, SafetyRules
from mlsh_ros.control.sensor_buffer import Sample, SensorBuffer
from mlsh_ros.control.tick_schedule import TickSchedule
from mlsh_ros.evaluation.in_process_master import decide_with
from policies.bundle.bundle import Bundle, write_bundle
from policies.bundle.golden import Golden, golden_bytes
from policies.bundle.manifest import GOLDEN, Family, Manifest, Master, Provenance, Score
from policies.bundle.onnx_writer import write_graph
from policies.bundle.runtime import Network
from sim.interface import Floats, Interface, interface_from_dict
from tests.benchmarks import one_line_errors

JOINTS, N, HIDDEN = 12, 10, 256
TERMS = {  # of each joint, with topic and field: 48 observations
    "position": ("joint_states", "position"),
    "velocity": ("joint_states", "velocity"),
    "effort": ("joint_states", "effort"),
    "reference": ("references", "position"),
}
RATES = (50, 200, 500, 1000)  # Hz


def legged(rate: float) -> Interface:
    """An interface of the size of a quadruped's."""
    names = [f"joint_{i}" for i in range(JOINTS)]
    observation = [
        {
            "name": term,
            "size": JOINTS,
            "unit": "rad",
            "frame": "base_link",
            "scale": 0.5,
            "clip": [-10.0, 10.0],
            "noise": 0.0,
            "max_age": 10.0,
            "limit": [-100.0, 100.0],
            "inf_values": None,
            "mujoco": {"task": term},
            "ros": {
                "topic": topic,
                "type": "sensor_msgs/msg/JointState",
                "fields": [f"{field}[{name}]" for name in names],
                "required_values": {},
            },
        }
        for term, (topic, field) in TERMS.items()
    ]
    action = {
        "name": "target",
        "size": JOINTS,
        "unit": "rad",
        "frame": "base_link",
        "scale": 0.25,
        "offset": 0.1,
        "limit": [-2.0, 2.0],
        "smoothing_time": 0.05,
        "rate_limit": 10.0,
        "tracking": {"term": "position", "tolerance": 100.0, "timeout": 1.0},
        "safe_command": [0.1] * JOINTS,
        "mujoco": {"actuators": names},
        "ros": {
            "topic": "command",
            "type": "sensor_msgs/msg/JointState",
            "fields": [f"position[{name}]" for name in names],
            "required_values": {},
        },
    }
    data = {
        "robot": "legged",
        "control_dt": 1 / rate,
        "physics_dt": 1 / rate,
        "observation": observation,
        "action": [action],
    }
    return interface_from_dict(data, "bench")


def network(rng: np.random.Generator, inputs: int, outputs: int) -> bytes:
    """An ONNX file with random weights."""
    sizes = (inputs, HIDDEN, HIDDEN, outputs)
    layers = [
        (rng.normal(0, 0.1, (a, b)).astype(np.float32), np.zeros(b, np.float32))
        for a, b in pairwise(sizes)
    ]
    zeros, ones = np.zeros(inputs, np.float32), np.ones(inputs, np.float32)
    return write_graph("bench", zeros, ones, 10.0, layers)


def make_bundle(rate: float, path: Path) -> Bundle:
    """A whole bundle of that size with random weights, for nodes."""
    rng, interface = np.random.default_rng(0), legged(rate)
    size = interface.observation_size
    files = {f"skills/{k}.onnx": network(rng, size, JOINTS) for k in range(2)}
    files["masters/any.onnx"] = network(rng, size, 2)
    run = {name: Network(data, name) for name, data in files.items()}
    rows = rng.normal(size=(8, size)).astype(np.float32)
    logits = run["masters/any.onnx"](rows)
    golden = Golden(
        observation=rows,
        action=np.stack([run[f"skills/{k}.onnx"](rows) for k in range(2)]),
        logits={"any": logits},
        skill={"any": logits.argmax(axis=1).astype(np.int64)},
    )
    files[GOLDEN] = golden_bytes(golden)
    none = Provenance("bench", 0, 0, 0, {}, {}, None)
    manifest = Manifest(
        schema=2,
        name="bench",
        interface=interface,
        family=Family("bench", {}),
        decision_ticks=N,
        decision_lead=1,
        skills=("a", "b"),
        skill_limits={},
        masters={"any": Master("bench/any", Score(0.0, 0.0, 0.0, 1.0, 1), none)},
        provenance=none,
        files={},
        digest="0" * 64,
    )
    return write_bundle(manifest, files, path)


class Stand:
    """The engine with everything but ROS: sensors that are always fresh, a master at hand."""

    def __init__(self, rate: float) -> None:
        rng = np.random.default_rng(0)
        self.interface = legged(rate)
        size = self.interface.observation_size
        skills = [Network(network(rng, size, JOINTS), "skill") for _ in range(2)]
        self.master = Network(network(rng, size, 2), "master")
        self.controller = Controller(self.interface, skills, N, 1)
        self.sensors = SensorBuffer(self.interface)
        rules = SafetyRules(
            max_late_decisions=3, max_missed_ticks=10**9, max_switches=10, max_clock_jump=10.0
        )
        self.guard = SafetyMonitor(self.interface, ("a", "b"), {}, rules)
        self.stop = threading.Event()
        self.done: list[TickRecord] = []
        self.last = 0
        self._rows = rng.normal(0, 1, (1000, len(TERMS), JOINTS))
        self.refresh(0)
        self.loop = ControlLoop(
            self.controller,
            self.sensors,
            self.guard,
            self,
            threading.Condition(),
            self.stop,
            start_timeout=1.0,
            clock=Clock(),
        )

    def refresh(self, number: int) -> None:
        """New sensor values."""
        now, row = time.monotonic(), self._rows[number % len(self._rows)]
        fields = dict(zip(TERMS, row, strict=True))
        self.sensors.put("references", Sample({"reference": fields.pop("reference")}, now, 0))
        self.sensors.put("joint_states", Sample(fields, now, 0))

    def request_decision(self, request: Request) -> None:
        """The master answers at once."""
        decide_with(self.controller, self.master)(request)

    def begin_session(self, initial: Floats) -> None:
        """No command is judged."""

    def send_command(self, command: Floats, stamp: int | None = None) -> bool:
        """Every command counts as sent, to no listener."""
        return True

    def publish_tick(self, done: TickRecord) -> None:
        """Keep the timing; the next tick sees other values."""
        self.done.append(done)
        self.refresh(len(self.done))
        if len(self.done) == self.last:
            self.stop.set()


def core(ticks: int) -> np.ndarray:
    """(ticks,) seconds of a whole tick: age checks, observe, networks, limits, guard."""
    stand = Stand(50)
    step = ControlStep(
        stand.controller, decide_with(stand.controller, stand.master), stand.guard.check
    )
    took = np.empty(ticks)
    with gc_disabled():
        for n in range(ticks):
            stand.refresh(n)
            start = time.perf_counter()
            stand.guard.check_timing(start, start, 0)
            stand.sensors.stale(time.monotonic())
            fields = stand.sensors.fields()
            step(fields, start)
            took[n] = time.perf_counter() - start
    return took


def engine(rate: float, seconds: float) -> tuple[np.ndarray, int, float]:
    """Lateness of every tick, s; ticks missed; mean period's error as a fraction."""
    stand = Stand(rate)
    stand.last = round(rate * seconds)
    with gc_disabled():
        stand.loop.run()
    missed = sum(d.missed for d in stand.done)
    late = np.array([d.lateness for d in stand.done])
    span = (len(late) + missed - 1) / rate  # s between the first tick's moment and the last one's
    return late, missed, (late[-1] - late[0]) / span


def bare(rate: float, seconds: float) -> np.ndarray:
    """Lateness of a thread that does nothing but sleep until the next moment: the floor."""
    grid, late = TickSchedule(1 / rate, time.monotonic()), []
    with gc_disabled():
        for _ in range(round(rate * seconds)):
            time.sleep(max(0.0, grid.due - time.monotonic()))
            late.append(time.monotonic() - grid.due)
            grid.advance(time.monotonic())
    return np.array(late)


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each rate and repeat")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    took = core(given.ticks) * 1e3
    p50, p99, p999 = np.percentile(took[100:], (50, 99, 99.9))
    say = f"core tick, {given.ticks:,} ticks: p50 {p50:.3f} ms, p99 {p99:.3f} ms, "
    print(say + f"p99.9 {p999:.3f} ms, max {took[100:].max():.3f} ms")
    print("lateness in ms, median of the repeats; the bare loop and the engine take turns")
    print("  rate   bare p50  bare p99   engine p50  engine p99   ratio p99   missed   period off")
    for rate in RATES:
        rows = []
        for _ in range(given.repeats):
            floor = bare(rate, given.seconds) * 1e3
            late, missed, error = engine(rate, given.seconds)
            rows.append([*np.percentile(floor, (50, 99)), *np.percentile(late * 1e3, (50, 99))])
            rows[-1] += [missed, error * 100]
        b50, b99, e50, e99, missed, error = np.median(rows, axis=0)
        ratio = np.median([row[3] / row[1] for row in rows])
        print(
            f"{rate:5d} Hz  {b50:8.3f}  {b99:8.3f}   {e50:10.3f}  {e99:10.3f}   {ratio:9.2f}   "
            f"{missed:6.0f}   {error:+.4f} %"
        )


if __name__ == "__main__":
    main()
