"""Compares recorded returns with simulated returns from the same initial states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.control.control_step import ControlStep, no_safety_rules
from mlsh_ros.control.controller import Controller
from mlsh_ros.evaluation.in_process_master import decide_with
from mlsh_ros.sim2real.data.episode_layout import layout_of
from mlsh_ros.sim2real.data.signals import Segment, Signals
from mlsh_ros.sim2real.data.windows import fields_of
from mlsh_ros.sim2real.replay.open_loop_replay import OpenLoopReplay
from policies.bundle.bundle import Bundle
from policies.bundle.runtime import load_master, load_skills
from policies.bundle.task_compatibility import resolve_task
from sim.interface import Floats, ObservationMemory
from sim.randomization.perturbations import NOMINAL, PerturbedSim
from sim.seeding import episode_rng
from sim.statistics import mean_interval
from sim.tasks.family_calls import FamilyCalls

MOST = 64  # sessions that are simulated


@dataclass(frozen=True)
class ClosedLoopReturn:
    """One task's returns per session: of the robot and of the simulation from the same start."""

    task: str
    master: str
    ticks: int  # that are counted, at most
    robot: Floats  # (n,)
    simulation: Floats  # (n,)
    robot_success: NDArray[np.bool_]  # (n,) at the last tick that is counted
    simulation_success: NDArray[np.bool_]
    seen: NDArray[np.float32]  # (m, O) all observations in the simulation
    action: NDArray[np.float32]  # (m, A) all actions in it

    @property
    def difference(self) -> tuple[float, float, float]:
        """Robot less simulation: mean and its 95 % interval over sessions; nan for one."""
        gap = self.robot - self.simulation
        return (float(gap.mean()), *mean_interval(gap))


def closed_loop_returns(
    signals: list[Signals],
    bundle: Bundle,
    open_loop: OpenLoopReplay,
    note: Callable[[str], None] = lambda _: None,
) -> list[ClosedLoopReturn]:
    """Returns the results per recorded master whose task can be reconstructed.

    Args:
        signals: of the recordings.
        bundle: that drove.
        open_loop: the simulation.
        note: called with a text on sessions whose simulation diverged; they are left out.
    """
    found = []
    sessions = [(each, s) for each in signals for s in each.segments() if _first(s)]
    for name in dict.fromkeys(segment.session.master for _, segment in sessions):
        if name not in bundle.manifest.masters:
            continue
        mine = [(each, s) for each, s in sessions if s.session.master == name][:MOST]
        line = _returns(mine, bundle, open_loop, name, note)
        if line is not None:
            found.append(line)
    return found


def _first(segment: Segment) -> bool:
    """True if a session begins there: its first ticks are not lost."""
    return segment.begin == 0 and int(segment.session.tick[0]) == 0


def _returns(
    sessions: list[tuple[Signals, Segment]],
    bundle: Bundle,
    open_loop: OpenLoopReplay,
    master: str,
    note: Callable[[str], None],
) -> ClosedLoopReturn | None:
    task = bundle.manifest.masters[master].task_id
    family, number = resolve_task(bundle, task)
    recorded = [fields_of(each, segment) for each, segment in sessions]
    count = [min(len(segment), family.ticks) for _, segment in sessions]
    first = {k: np.stack([fields[k][0] for fields in recorded]) for k in recorded[0]}
    layout = layout_of(family, number, first)
    if layout is None or any(not np.isfinite(v).all() for v in first.values()):
        return None
    rows = [{k: v[i : i + 1] for k, v in layout.items()} for i in range(len(sessions))]
    robot, robot_success, known, calls = [], [], [], FamilyCalls(family)
    for row, fields, n in zip(rows, recorded, count, strict=True):
        # The state after a tick is what the next one sees.
        wide = {k: np.repeat(v, n - 1, axis=0) for k, v in row.items()}
        shown = {k: v[1:n] for k, v in fields.items()}
        there = np.all([np.isfinite(v).all(axis=1) for v in shown.values()], axis=0)  # (n - 1,)
        part = [{k: v[there] for k, v in each.items()} for each in (wide, shown)]
        robot.append(float(calls.reward(*part).sum()))
        known.append(there)
        robot_success.append(bool(calls.success(wide, shown)[-1]))
    rewards, success, diverged, seen, action = _simulate(
        bundle, open_loop, master, layout, first, max(count)
    )
    last = np.array(count) - 2
    lost = diverged[last, np.arange(len(sessions))]
    if lost.any():
        note(
            f"{task}: the simulation diverged in {lost.sum()} of {len(lost)} sessions, whose "
            "returns are not compared"
        )
    # Of the others nothing is known.
    each = np.flatnonzero(np.array([there.any() for there in known]) & ~lost)
    if not len(each):
        return None
    return ClosedLoopReturn(
        task=str(task),
        master=master,
        ticks=max(count) - 1,
        robot=np.array(robot)[each],
        # Of the ticks whose reward on the robot is known.
        simulation=np.array([rewards[: len(known[i]), i][known[i]].sum() for i in each]),
        robot_success=np.array(robot_success)[each],
        simulation_success=success[last[each], each],
        seen=seen,
        action=action,
    )


def _simulate(
    bundle: Bundle,
    open_loop: OpenLoopReplay,
    master: str,
    layout: dict[str, Floats],
    first: dict[str, Floats],
    ticks: int,
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
    """(ticks - 1, n) rewards, success and divergence so far in simulation.

    And all observations and actions.
    """
    manifest, interface = bundle.manifest, bundle.interface
    count = len(next(iter(first.values())))
    skills, network = load_skills(bundle), load_master(bundle, master)
    steps = []
    for _ in range(count):
        controller = Controller(interface, skills, manifest.decision_ticks, manifest.decision_lead)
        steps.append(ControlStep(controller, decide_with(controller, network), no_safety_rules))
    physics = open_loop.placed(first)
    varied = None
    if open_loop.sim_params != NOMINAL:
        varied = PerturbedSim(physics, physics.interface, open_loop.sim_params, NOMINAL)
    calls = FamilyCalls(resolve_task(bundle, manifest.masters[master].task_id)[0])
    rewards, success, diverged, seen, done = [], [], [], [], []
    failed = np.zeros(count, bool)

    def shown() -> dict[str, Floats]:
        robot = physics.fields()
        seen = robot if varied is None else varied.measurements(robot)
        return {**seen, **calls.fields(layout, robot)}

    physics.refresh_sensors()
    if varied is not None:
        ids = np.arange(count, dtype=np.int32)
        varied.draw(ids, [episode_rng(0, i) for i in range(count)])
        varied.begin(ids, physics.fields())
    fields, memory = shown(), ObservationMemory(interface, (count,))
    for _ in range(ticks - 1):
        made = [
            step({name: value[i] for name, value in fields.items()}, 0.0)
            for i, step in enumerate(steps)
        ]
        commands = np.array([tick.command for tick in made])
        done += [tick.action for tick in made]
        memory.remember(np.array([t.observation for t in made]), np.array(done[-count:]))
        if varied is None:
            physics.step(commands)
        else:
            varied.advance(commands, open_loop.interface.substeps)
        now = np.flatnonzero(physics.diverged()).astype(np.int32)
        failed[now] = True
        if len(now):  # as `World` does: the others go on, with finite values
            physics.reset(now)
        if varied is not None:
            varied.tick(physics.fields(), now)
        fields = shown()
        seen.append(interface.observe(fields, memory=memory)[~failed])
        rewards.append(calls.reward(layout, fields))
        diverged.append(failed.copy())
        success.append(calls.success(layout, fields) & ~failed)
    return (
        np.array(rewards),
        np.array(success),
        np.array(diverged),
        np.concatenate(seen),
        np.array(done),
    )
