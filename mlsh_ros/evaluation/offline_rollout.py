"""Rollouts in one process that equal those of the nodes in lockstep.

The safety rules of skill_node are checked here too, except those about time and other nodes. The
first one that an episode violates is stored with it. The simulation continues where skill_node
would stop the robot, so that scores can be compared. A simulation that diverges ends its episode,
which is not solved; this is stored as well. Values that are not finite end the evaluation with an
error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mlsh_ros.bringup.params import SKILL_NODE
from mlsh_ros.control.control_step import ControlStep
from mlsh_ros.control.controller import Controller, Skill, Tick
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.safety_monitor import SafetyMonitor, make_safety_monitor
from mlsh_ros.evaluation.episode import Episode
from mlsh_ros.evaluation.in_process_master import decide_with
from policies.bundle.bundle import Bundle
from sim.envs.world import World
from sim.errors import UserError
from sim.interface import Floats
from sim.seeding import episode_rng

INT32 = np.int32
Watch = Callable[[World, Tick | None], None]  # the world before each tick; at the end with None


def run_episode(
    world: World,
    controller: Controller,
    master: Skill,
    *,
    task: int,
    label: str,
    master_name: str,
    seed: int,
    number: int,
    safety_monitor: SafetyMonitor,
    watch: Watch = lambda *_: None,
) -> Episode:
    """Drive one episode with the greedy master.

    Args:
        world: of size 1.
        controller: with the bundle's skills.
        master: (1, O) to (1, K).
        task: number of the task in the world's family.
        label: family/task.
        master_name: for the record.
        seed: of the evaluation.
        number: of the episode.
        safety_monitor: the rules of the bundle, see `default_safety_monitor`.
        watch: called with the world before each tick and after the last one; not with the state
            that a simulation which diverged is put back to.

    Raises:
        UserError: an observation, the master's logits or an action are not finite.
    """
    world.reset(np.zeros(1, INT32), [task], [episode_rng(seed, number)])
    controller.reset()
    judge = FirstFault(safety_monitor)
    step = ControlStep(controller, decide_with(controller, master), judge)
    ticks: list[Tick] = []
    rewards: list[float] = []
    shown, success, done = world.measurements(world.true_state()), False, False
    while not done:
        now = {name: value[0] for name, value in shown.items()}
        try:
            tick = step(now, len(ticks) * world.interface.control_dt)
        except (FaultError, ValueError) as error:
            text = str(error if isinstance(error, FaultError) else f"invalid_value: {error}")
            raise UserError(f"{label}, episode {number}, tick {len(ticks)}: {text}") from None
        watch(world, tick)
        fields, outcome = world.step_command(tick.command[None])
        shown = world.measurements(fields)
        ticks.append(tick)
        rewards.append(float(outcome.reward[0]))
        done = bool((outcome.terminated | outcome.truncated)[0])
        success = bool(world.success(fields)[0])
    diverged = bool(outcome.diverged[0])
    if diverged:
        judge.add(f"the simulation diverged at tick {len(ticks) - 1}")
    else:
        watch(world, None)
    return Episode(
        task=label,
        master=master_name,
        number=number,
        observation=np.stack([t.observation for t in ticks]),
        skill=np.array([t.skill for t in ticks]),
        action=np.stack([t.action for t in ticks]),
        command=np.stack([t.command for t in ticks]),
        reward=np.array(rewards),
        success=success,
        late=controller.schedule.late,
        lateness=None,
        compute=None,
        fault=judge.text,
        diverged=diverged,
    )


class FirstFault:
    """The rules of skill_node; stores the first violation of an episode and continues."""

    def __init__(self, safety_monitor: SafetyMonitor) -> None:
        self._safety_monitor, self.text = safety_monitor, ""
        safety_monitor.begin_session()

    def __call__(self, tick: Tick, fields: Mapping[str, Floats], now: float) -> None:
        """Check a tick like `SafetyMonitor.check`, without raising."""
        if self.text:
            return
        try:
            self._safety_monitor.check(tick, fields, now)
        except FaultError as error:
            self.text = f"tick {tick.tick}: {error}"

    def add(self, text: str) -> None:
        """Store what ended the episode, after the violation if there was one."""
        self.text = f"{self.text}; {text}" if self.text else text


def default_safety_monitor(bundle: Bundle) -> SafetyMonitor:
    """Returns the rules of skill_node with default parameters."""
    return make_safety_monitor(
        bundle.manifest, {param.name: param.default for param in SKILL_NODE}
    )
