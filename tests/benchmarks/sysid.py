"""Accuracy of `mlsh sysid` on recordings with hidden sim-parameter files.

`python -m tests.benchmarks.sysid [--bundle NAME] [--seed N] [--count N] [--sessions N]
[--slippery]`

Sim parameters are drawn from the robot's domain_randomization.yaml, all of them are listed. Even
numbers: the robot was weighed, its motors are not known. Odd numbers: the motors are known, its
mass is not. That is because no recording tells mass and force apart. Slippery floors have 5 to 30
percent of the model's friction.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace

import numpy as np

from mlsh_ros.sim2real.sysid.identify import Identified, identify
from mlsh_ros.sim2real.sysid.parameters import NOMINAL, sim_params_of, values_of
from policies.bundle.bundle import load_bundle
from sim.interface import Floats, Interface
from sim.physics.robot_model import load_robot
from sim.randomization.model_fields import body_names
from sim.randomization.parameters import ParameterVector
from sim.randomization.schema import SimParams, read_ranges, robot_terms
from tests.benchmarks import one_line_errors
from tests.support.synthetic_recording import synthesize_recording

WEIGHED = ("mass_factor", "body_mass_factors", "payload_kg")
MOTORS = ("gain_factor",)
SLIPPERY = (0.05, 0.3)  # friction_factor
EXACT = ("push_velocity", "push_every")  # stay nominal


def hidden(
    interface: Interface,
    bodies: list[str],
    ranges: SimParams,
    seed: int,
    n: int,
    *,
    whole: bool = True,
) -> Floats:
    """(values,) of hidden robot n; delays are whole physics steps, as in `sim`, or any."""
    both = ParameterVector(interface, bodies, NOMINAL, ranges)
    rng = np.random.default_rng([seed, n])
    values = both.draw(rng.random((1, both.size)))
    nominal = values_of(interface, bodies, NOMINAL)[None]
    for name in (*EXACT, *(WEIGHED if n % 2 == 0 else MOTORS)):
        both.of(values, name)[:] = both.of(nominal, name)
    for name in ("command_delay", "sensor_delay") if whole else ():
        part = both.of(values, name)
        part[:] = np.round(part / interface.physics_dt) * interface.physics_dt
    out: Floats = values[0]
    return out


def judge(
    found: Identified, both: ParameterVector, truth: Floats, interface: Interface, weight: float
) -> list[str]:
    """A line per number: truth, found, error. Delays are of the whole way, as that is all."""
    lines = []
    untold = {n.unknown.name for n in found.numbers if n.why_not}
    sensors = both.of(truth[None], "sensor_delay")[0]
    simulated = [i for i, t in enumerate(robot_terms(interface)) if not t.mujoco.rays]
    least = float(sensors[simulated].min()) if found.gauge else 0.0
    for number in found.numbers:
        each = number.unknown
        true = float(both.of(truth[None], each.quantity)[0, each.element])
        name = each.name
        if each.quantity == "mass_factor" and "payload_kg" in untold:
            # What is found is of all that weighs.
            true += float(both.of(truth[None], "payload_kg")[0, 0]) / weight
            name = "mass_factor with load"
        if each.quantity == "command_delay":
            true += least
        elif each.quantity == "sensor_delay":
            true -= least
        if number.why_not:
            lines.append(f"  {name:28} true {true:8.4f}  not told")
            continue
        off = number.value - true
        much = f"{1e3 * off:+.1f} ms" if "delay" in each.quantity else f"{off:+.4f}"
        if "factor" in each.quantity or each.quantity == "scale":
            much = f"{100 * off / true:+.1f} %"
        lines.append(
            f"  {name:28} true {true:8.4f}  found {number.value:8.4f} "
            f"+- {number.error:.4f}  off {much}"
        )
    return lines


@one_line_errors
def main() -> None:
    """Print all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="moving_bandits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--slippery", action="store_true")
    options = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.ERROR)  # of numbers that start at a bound
    bundle = load_bundle(options.bundle)
    interface, robot = bundle.interface, load_robot(bundle.interface.robot)
    ranges, bodies = read_ranges(robot), body_names(robot.compile())
    if options.slippery:
        ranges = replace(ranges, physics=replace(ranges.physics, friction_factor=SLIPPERY))
    both = ParameterVector(interface, bodies, NOMINAL, ranges)
    weight = float(robot.compile().body_mass.sum())
    for n in range(options.first, options.first + options.count):
        began = time.process_time()
        truth = hidden(interface, bodies, ranges, options.seed, n)
        sim_params = sim_params_of(interface, bodies, truth, NOMINAL)
        signals = synthesize_recording(
            bundle, sim_params, sessions=options.sessions, seed=options.seed + n
        )
        keep = WEIGHED if n % 2 == 0 else MOTORS
        mine = [name for name in keep if both.differs(name)]
        found = identify(bundle, [signals], ranges=ranges, fix=mine)
        ratio = found.before / max(found.after, 1e-12)
        print(
            f"sim parameters {n} ({'weighed' if n % 2 == 0 else 'motors known'}): held-out RMSE "
            f"{found.before:.4g} -> {found.after:.4g}, {ratio:.1f} x lower "
            f"({time.process_time() - began:.0f} CPU s)"
        )
        print("\n".join(judge(found, both, truth, interface, weight)), flush=True)


if __name__ == "__main__":
    main()
