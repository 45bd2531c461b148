"""Simulates a recording: a bundle drives a perturbed robot offline."""

from __future__ import annotations

import numpy as np

from mlsh_ros.control.control_step import ControlStep, no_safety_rules
from mlsh_ros.control.controller import Controller
from mlsh_ros.evaluation.in_process_master import decide_with
from mlsh_ros.messages.conversion import topic_readers
from mlsh_ros.sim2real.data.signal_listener import Listener
from mlsh_ros.sim2real.data.signals import Signals
from policies.bundle.bundle import Bundle
from policies.bundle.runtime import load_master, load_skills
from policies.bundle.task_compatibility import resolve_task
from sim.envs.world import World
from sim.physics.robot_model import load_robot
from sim.randomization.schema import SimParams
from sim.seeding import episode_rng

START = 10**18  # ns
WIRE = 300_000  # ns from a message's making to its recording
PAUSE = 10**9  # ns between sessions
STANDS = 0.2  # s before a session: a robot stands on its wheels, a model falls onto them
ONE = np.zeros(1, np.int32)


def synthesize_recording(
    bundle: Bundle,
    sim_params: SimParams | None,
    *,
    sessions: int,
    seed: int,
    every: int = 1,
    lockstep: bool = False,
    ticks: int | None = None,
) -> Signals:
    """Drive sessions of one episode each, masters in turn, in simulated real time or in lockstep.

    Args:
        bundle: its skills and masters.
        sim_params: of the robot that sessions.
        sessions: episodes.
        seed: of goals, starts and noise.
        every: physics steps per message of a sensor.
        lockstep: a message of each sensor and tick.
        ticks: at most, of an episode.
    """
    manifest, interface = bundle.manifest, bundle.interface
    listener, now = Listener(interface), START
    topics = [
        (r.topic, [term.name for term, _ in r.terms]) for r in topic_readers(interface.observation)
    ]
    period = round(interface.physics_dt * 1e9)
    skills, masters = load_skills(bundle), sorted(manifest.masters)
    worlds: dict[str, World] = {}
    for session in range(sessions):
        master = masters[session % len(masters)]
        network = load_master(bundle, master)
        family, number = resolve_task(bundle, manifest.masters[master].task_id)
        if family.name not in worlds:
            worlds[family.name] = World(
                load_robot(interface.robot), family, 1, sim_params=sim_params
            )
        world = worlds[family.name]
        controller = Controller(interface, skills, manifest.decision_ticks, manifest.decision_lead)
        world.reset(ONE, [number], [episode_rng(seed, session)])
        step = ControlStep(controller, decide_with(controller, network), no_safety_rules)
        safe = interface.safe_command[None]
        for _ in range(round(STANDS / interface.physics_dt)):
            world.step_physics(safe, 1)
        for _ in range(min(family.ticks, ticks or family.ticks)):
            fields: dict[str, np.ndarray] = {}
            command = interface.safe_command
            for sub in range(interface.substeps):
                if (sub % every == 0 and not lockstep) or sub == 0:
                    shown = world.measurements(world.true_state())
                    fields = {name: value[0].copy() for name, value in shown.items()}
                    for topic, names in topics:
                        part = {name: fields[name] for name in names}
                        listener.add_fields(topic, now + WIRE, now, part)
                if sub == 0:
                    tick = step(fields, now * 1e-9)
                    head = [session + 1, tick.tick, tick.skill, tick.late, 0, 0.0, 0.0, 0.0]
                    head[5] = float(tick.saturated)
                    parts = [np.array(head), tick.observation, tick.action, tick.command]
                    listener.add_tick(now + WIRE, master, np.concatenate(parts))
                    command = tick.command
                    world.command = command[None]
                world.step_physics(command[None], 1)
                now += period
            _, outcome = world.evaluate_step()
            if (outcome.terminated | outcome.truncated)[0]:
                break
        now += PAUSE
    mode = "lockstep" if lockstep else "realtime"
    return listener.finish("rehearsal", mode, simulated=lockstep)
