"""Compares MuJoCo's integrators on a robot's model: deviation from a fine one, and speed.

    python -m tests.benchmarks.integrators [ROBOT]

Every simulation gets random commands, each held for some ticks. The reference is RK4 with a tenth
of the step. Contacts make any two simulations drift apart, so the errors are those of the first
second, and medians; RK4 at the robot's own step says what can be had for four times the work.
"""

from __future__ import annotations

import sys
import time

import mujoco
import numpy as np

from sim.interface import Floats
from sim.physics.batched_physics import BAD, NUMBER, BatchedPhysics
from sim.physics.robot_model import Robot, load_robot
from tests.benchmarks import one_line_errors

INTEGRATORS = ("EULER", "IMPLICITFAST", "IMPLICIT", "RK4")
SIZE, SEED = 64, 0
HOLDS = (4, 1)  # ticks that a command is held
SECONDS = (0.25, 0.5, 1.0)  # when the errors are taken
LONG = 10.0  # s, for stability and speed
FINER = 10


def simulate(
    robot: Robot, integrator: str, finer: int, seconds: float, hold: int
) -> tuple[Floats, int, float]:
    """Where every simulation was.

    Returns:
        The term `position` (ticks, B, 2), m; how many simulations failed;
        physics steps per CPU second.
    """
    model = robot.compile()
    model.opt.integrator = getattr(mujoco.mjtIntegrator, f"mjINT_{integrator}")
    model.opt.timestep /= finer
    interface = robot.interface
    physics = BatchedPhysics(interface, model, SIZE, 1)
    physics.reset(np.arange(SIZE, dtype=np.int32))
    # Stepped below itself, because the step here is not the interface's.
    control = physics.batch.bind("ctrl")
    columns = [model.actuator(n).id for term in interface.action for n in term.mujoco.actuators]
    rng, low_high, seen = np.random.default_rng(SEED), interface.limits, []
    ticks, began = round(seconds / interface.control_dt), time.process_time()
    for tick in range(ticks):
        if tick % hold == 0:
            control[:, columns] = rng.uniform(*low_high, (SIZE, interface.action_size))
        physics.batch.step(nstep=interface.substeps * finer)
        seen.append(physics.fields()["position"])
    rate = SIZE * ticks * interface.substeps * finer / (time.process_time() - began)
    failed = int(physics.batch.warning[:, BAD, NUMBER].any(axis=1).sum())
    return np.array(seen), failed, rate


@one_line_errors
def main() -> None:
    """Entry point of the process."""
    robot = load_robot(sys.argv[1] if len(sys.argv) > 1 else "ant")
    dt = robot.interface.control_dt
    ends = [round(s / dt) - 1 for s in SECONDS]
    print(f"{robot.name}, {SIZE} simulations, a step of {1000 * robot.interface.physics_dt:g} ms")
    for hold in HOLDS:
        fine, _, _ = simulate(robot, "RK4", FINER, SECONDS[-1], hold)
        for integrator in INTEGRATORS:
            seen, failed, rate = simulate(robot, integrator, 1, LONG, hold)
            off = np.median(np.linalg.norm(seen[ends] - fine[ends], axis=-1), axis=1)
            at = ", ".join(f"{1000 * e:.0f}" for e in off)
            print(
                f"commands held {hold * dt:g} s, {integrator.lower()}: {at} mm off after "
                f"{', '.join(map(str, SECONDS))} s; {failed} of {SIZE} failed in {LONG:g} s; "
                f"{rate / 1000:.0f}k physics steps per CPU second"
            )


if __name__ == "__main__":
    main()
