"""A rollout without ROS: what the nodes do in lock-step, in one process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlsh_ros.core.controller import Controller, Skill, Tick
from mlsh_ros.core.records import Episode
from sim.bounds import episode_rng
from sim.world import World

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
        watch: is shown the world before each tick, and as the last one left it; not the state
            that a simulation which diverged is put back to.
    """
    world.reset(np.zeros(1, INT32), [task], [episode_rng(seed, number)])
    controller.reset()
    ticks: list[Tick] = []
    rewards: list[float] = []
    shown, success, done = world.shown(world.fields()), False, False
    while not done:
        request = controller.begin({name: value[0] for name, value in shown.items()})
        if request is not None:
            logits = master(request.observation[None])[0]
            controller.hierarchy.answer(request.macro, int(logits.argmax()))
        tick = controller.finish()
        watch(world, tick)
        fields, outcome = world.obey(tick.command[None])
        shown = world.shown(fields)
        ticks.append(tick)
        rewards.append(float(outcome.reward[0]))
        done = bool((outcome.terminated | outcome.truncated)[0])
        success = bool(world.family.success(world.layout, fields)[0])
    if not outcome.diverged[0]:
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
        late=controller.hierarchy.late,
        lateness=None,
        compute=None,
    )
