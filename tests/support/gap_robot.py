"""A robot with something wrong: the bundle on a simulation of its own, recorded as in real time.

No ROS and no clock: a session's physics steps and ticks lie on exact moments, sensors come every
physics step, and what is wrong stands between the simulation and the messages.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore

from mlsh_ros.control.control_step import ControlStep, no_safety_rules
from mlsh_ros.control.controller import Controller
from mlsh_ros.evaluation.in_process_master import decide_with
from mlsh_ros.messages.conversion import command_writers, topic_readers
from mlsh_ros.messages.labeled_array import OUTCOME, trace_layout
from mlsh_ros.messages.topics import APPLIED_COMMAND, MASTER, TRACE, recorded_topics
from mlsh_ros.messages.topics import OUTCOME as OUTCOME_TOPIC
from mlsh_ros.recording.bag_writer import Recorder
from mlsh_ros.sim2real.data.signal_listener import Listener
from mlsh_ros.sim2real.gap.analysis import analyze_signals
from policies.bundle.bundle import load_bundle, write_bundle
from policies.bundle.manifest import MANIFEST, make_manifest
from policies.bundle.runtime import load_master, load_skills
from sim.envs.world import World
from sim.physics.robot_model import load_robot
from sim.seeding import episode_rng
from sim.tasks.registry import find_task

START = 10**18  # ns
WIRE = 300_000  # ns, from a message's making to its recording
PAUSE = 10**9  # ns between sessions
BEFORE = 10  # physics steps at rest before a session
ONE = np.zeros(1, np.int32)


def same(fields, rng):
    return fields


@dataclass(frozen=True)
class Wrong:
    """What is wrong with the robot; nothing by default. Delays in s."""

    sense: Callable = same  # (fields, rng) to fields
    command: Callable = lambda command: command  # what the actuators make of it, (A,)
    model: Callable = lambda batch: None  # changes a Batch's model
    sensor_delay: dict[str, float] = field(default_factory=dict)  # per topic; stamps are honest
    filter_delay: dict[str, float] = field(default_factory=dict)  # per topic; stamps hide it
    actuation_delay: float = 0.0
    dropped: dict[str, float] = field(default_factory=dict)  # per topic, share of the messages
    frozen: dict[str, float] = field(default_factory=dict)  # per topic, share of the time
    freeze: float = 0.3  # s, that a frozen sensor stays so


class Robot:
    """Drives sessions and keeps what the recorder would have heard.

    Args:
        bundle: its skills and masters.
        wrong: what is wrong.
        robot: name or folder.
        every: physics steps per sensor message.
        jitter: s, standard deviation of a tick's lateness.
        hears: s, standard deviation of how late the recorder hears a tick.
        simulator: a command acts from the next physics step on, as in sim_node, which says so;
            otherwise from its own moment on, as in a robot.
        phase: s, from the sensors to the tick that uses them.
    """

    def __init__(
        self,
        bundle,
        wrong=None,
        *,
        robot=None,
        seed=0,
        every=1,
        jitter=0.0,
        hears=0.0,
        simulator=False,
        phase=0.0,
    ):
        self.bundle, self.wrong = bundle, wrong or Wrong()
        self.simulator, self.phase, self.applied = simulator, round(phase * 1e9), []
        self.steps = 0  # of the physics
        self.every, self.jitter, self.hears = every, jitter, hears
        self.robot = load_robot(robot or bundle.interface.robot)
        # Of the physics steps that the bundle knows: a robot may be simulated in finer ones.
        self.parts = round(bundle.interface.physics_dt / self.robot.interface.physics_dt)
        self.seed, self.rng = seed, np.random.default_rng(seed)
        self.heard = []  # (received, order of making, topic, content)
        self.now = START
        manifest = bundle.manifest
        self.controller = Controller(
            bundle.interface,
            load_skills(bundle),
            manifest.decision_ticks,
            manifest.decision_lead,
        )
        self.world, self.session = None, 0

    def drive(self, master, *, sessions=4, ticks=None, one_drive=False, network=None):
        """Drive sessions; or one of several episodes, as a simulator that loops has it.

        Another `network` may decide in the master's name, as one that draws its skills.
        """
        task = self.bundle.manifest.masters[master].task_id
        family, number = find_task(task)
        if self.world is None:
            self.world = World(self.robot, family, 1)
            self.wrong.model(self.world.physics.batch)
        network = network or load_master(self.bundle, master)
        for n in range(sessions):
            if not (one_drive and n):
                self.session += 1
                self.controller.reset()
            self.world.reset(ONE, [number], [episode_rng(self.seed, 10 * self.session + n)])
            self._session(master, network, ticks or family.ticks)
            self.now += 0 if one_drive else PAUSE
            if one_drive:
                done = np.array([n, (ticks or family.ticks) - 1, 0.0, 0.0, 1.0])
                self.heard.append((self.now, len(self.heard), OUTCOME_TOPIC, done))
        return self

    def _session(self, master, network, ticks):
        interface, world = self.bundle.interface, self.world
        pdt = round(interface.physics_dt * 1e9)
        readers = topic_readers(interface.observation)
        history, frozen = [], dict.fromkeys((r.topic for r in readers), (-1, None))
        pending = {r.topic: [] for r in readers}  # (received, fields)
        newest = {}
        commands = [(-1, interface.safe_command)]  # from which ns on
        for n in range(-BEFORE, ticks * interface.substeps):
            now = self.now + (n + BEFORE) * pdt
            self.steps += 1
            if n > 0:
                command = self._in_force(commands, now, pdt)
                for _ in range(self.parts):
                    world.physics.substep(command[None])
            history.append({name: value[0].copy() for name, value in world.true_state().items()})
            if n % self.every == 0:
                for reader in readers:
                    self._sense(reader, history, now, pdt, pending, frozen)
            late = abs(int(self.rng.normal(0, self.jitter) * 1e9)) if self.jitter else 0
            late += self.phase
            if n >= 0 and n % interface.substeps == 0:
                for topic, queue in pending.items():
                    while queue and queue[0][0] <= now + WIRE + late:
                        newest[topic] = queue.pop(0)[1]
                fields = {k: v for each in newest.values() for k, v in each.items()}
                command = self._tick(fields, master, network, now + WIRE + late)
                begin = now + late + round(self.wrong.actuation_delay * 1e9)
                commands.append((begin, command))
        self.now += (ticks * interface.substeps + BEFORE) * pdt

    def _in_force(self, commands, now, pdt):
        """Mean over the physics step that ends now; of a simulator, the newest one."""
        if self.simulator:
            command = next(command for begin, command in reversed(commands) if begin <= now)
            # As in sim_node, the session's first command begins the motion.
            if command is not commands[0][1] and command is not (self.applied or [None])[-1]:
                self.applied.append(command)
                numbers = [len(self.applied) - 1, self.steps, now * 1e-9, *command]
                self.heard.append((now + WIRE, len(self.heard), APPLIED_COMMAND, numbers))
            return self.wrong.command(np.asarray(command))
        total, end = 0.0, now
        for begin, command in reversed(commands):
            start = max(begin, now - pdt)
            if start < end:
                total = total + (end - start) / pdt * command
                end = start
            if begin <= now - pdt:
                break
        return self.wrong.command(np.asarray(total))

    def _sense(self, reader, history, now, pdt, pending, frozen):
        topic = reader.topic
        back = self.wrong.filter_delay.get(topic, 0.0) * 1e9 / pdt
        low = min(int(back), len(history) - 1)
        high, part = min(low + 1, len(history) - 1), back - int(back)
        names = [term.name for term, _ in reader.terms]
        new, old = history[-1 - low], history[-1 - high]
        fields = {name: (1 - part) * new[name] + part * old[name] for name in names}
        share = self.wrong.frozen.get(topic, 0.0)
        until, kept = frozen[topic]
        if now < until:
            fields = kept
        else:
            fields = self.wrong.sense(fields, self.rng)
            if share and self.rng.random() < share / (1 - share) * pdt / (self.wrong.freeze * 1e9):
                frozen[topic] = (now + round(self.wrong.freeze * 1e9), fields)
        if self.rng.random() < self.wrong.dropped.get(topic, 0.0):
            return
        received = now + WIRE + round(self.wrong.sensor_delay.get(topic, 0.0) * 1e9)
        pending[topic].append((received, fields))
        self.heard.append((received, len(self.heard), topic, (now, fields)))

    def _tick(self, fields, master, network, now):
        tick = ControlStep(
            self.controller, decide_with(self.controller, network), no_safety_rules
        )(fields, now * 1e-9)
        numbers = [self.session, tick.tick, tick.skill, tick.late, 0, tick.saturated, 0.0, 0.0]
        parts = [np.array(numbers, float), tick.observation, tick.action, tick.command]
        late = abs(int(self.rng.normal(0, self.hears) * 1e9)) if self.hears else 0
        self.heard.append((now + late, len(self.heard), TRACE, (master, np.concatenate(parts))))
        return tick.command

    # What was heard ---------------------------------------------------------------------------

    def signals(self, simulated=False):
        """Without a file, which takes the longest."""
        listener = Listener(self.bundle.interface)
        for received, _, topic, content in sorted(self.heard, key=lambda row: row[:2]):
            if topic == TRACE:
                listener.add_tick(received, *content)
            elif topic == APPLIED_COMMAND:
                listener.add_applied(np.array(content))
            else:
                listener.add_fields(topic, received, *content)
        return listener.finish("robot", "realtime", simulated=simulated or self.simulator)

    def messages(self):
        """(received, topic, message), in the order in which they came."""
        interface = self.bundle.interface
        readers = {r.topic: r for r in topic_readers(interface.observation)}
        layout = trace_layout(interface.observation_names, interface.action_names)
        writers = command_writers(interface.action)
        last = None
        for received, _, topic, content in sorted(self.heard, key=lambda row: row[:2]):
            if topic == OUTCOME_TOPIC:
                yield received, topic, array(OUTCOME, content)
                continue
            if topic != TRACE:
                stamp, fields = content
                yield received, topic, sensor(readers[topic], fields, stamp)
                continue
            master, numbers = content
            if master != last:
                yield received, MASTER, text(master)
                last = master
            for writer in writers:
                yield received - 1000, writer.topic, commanded(writer, numbers, layout)
            yield received, TRACE, array(layout, numbers)

    def bag(self, folder, messages=None, about=None, more=()):
        """Write a recording, of other messages if they are given, and with more topics."""
        interface = self.bundle.interface
        topics = [*recorded_topics(interface, stamped=True, lockstep=False), *more]
        kinds = {topic.name: topic.type for topic in topics}
        manifest = self.bundle.manifest
        told = {"bundle": manifest.name, "digest": manifest.digest, "mode": "realtime"}
        recorder = Recorder(
            folder,
            [(f"/bot/{t.name.lstrip('/')}", t) for t in topics],
            told if about is None else about,
            self.bundle.files[MANIFEST],
        )
        for received, topic, message in messages or self.messages():
            data = message
            if not isinstance(message, bytes):
                data = bytes(STORE.serialize_cdr(message, kinds[topic]))
            recorder.write(topic, data, received=received)
        recorder.close()
        return folder


# Tables of docs/results/gap.md ------------------------------------------------------------------


def uneven():
    """How much a robot with nothing wrong differs where ticks, or what hears them, come late."""
    bundle = load_bundle("moving_bandits")
    for jitter, hears in itertools.product((0.002, 0.005, 0.01, 0.02), (0.0, 0.002, 0.005)):
        robot = Robot(bundle, seed=1, jitter=jitter, hears=hears).drive("goal-1", sessions=5)
        gap = analyze_signals(bundle, [robot.signals()], [])
        worst = max(m.nrmse for m in gap.measures if m.element.term == "velocity")
        print(
            f"lateness {1e3 * jitter:.0f} ms, heard {1e3 * hears:.0f} ms late: 1 % of the periods "
            f"off by {1e3 * gap.timing.period_p99:.0f} ms, velocity by {worst:.1%}",
            [finding.kind for finding in gap.findings],
        )


def long(folder):
    """Write a bundle of 50 Hz, and ten minutes of a robot with a weak drive and uneven ticks."""
    old = load_bundle("moving_bandits")
    interface = replace(old.interface, control_dt=0.02)
    files = {name: data for name, data in old.files.items() if name != MANIFEST}
    manifest = make_manifest(replace(old.manifest, interface=interface), files)
    bundle = write_bundle(manifest, files, folder / "bundle")
    weak = Wrong(command=lambda command: command * [0.8, 1])
    robot = Robot(bundle, weak, seed=1, jitter=0.001)
    robot.drive("goal-1", sessions=60, ticks=500).bag(folder / "bag")


# Messages of rosbags ----------------------------------------------------------------------------

STORE = get_typestore(Stores.ROS2_JAZZY)


def blank(name):
    """A message with nothing in it."""
    values = {}
    for key, (kind, arg) in STORE.fielddefs[name][1]:
        if kind == Nodetype.BASE:
            values[key] = "" if arg[0] == "string" else 0
        elif kind == Nodetype.NAME:
            values[key] = blank(arg)
        elif kind == Nodetype.ARRAY:
            values[key] = np.zeros(arg[1])
        else:
            values[key] = []
    return STORE.types[name](**values)


def array(layout, numbers):
    message = blank("std_msgs/msg/Float64MultiArray")
    dim = blank("std_msgs/msg/MultiArrayDimension")
    dim.label, dim.size = layout.label, layout.size
    message.layout.dim = [dim]
    message.data = np.asarray(numbers, np.float64)
    return message


def text(value):
    message = blank("std_msgs/msg/String")
    message.data = value
    return message


def put(message, path, value):
    """Set an element by its path; arrays grow."""
    *parents, (last, at) = path
    for name, index in parents:
        message = getattr(message, name)
        if index is not None:
            while len(message) <= int(index):
                message.append(blank("geometry_msgs/msg/Pose"))
            message = message[int(index)]
    if at is None:
        setattr(message, last, value)
    else:
        values = list(getattr(message, last))
        values += [0.0] * (int(at) + 1 - len(values))
        values[int(at)] = value
        setattr(message, last, np.array(values, np.float32))


def sensor(reader, fields, stamp):
    message = blank(reader.type)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    for path, value in reader.required_values:
        put(message, path, value)
    for term, paths in reader.terms:
        for path, value in zip(paths, fields[term.name].tolist(), strict=True):
            put(message, path, value)
    return message


def commanded(writer, numbers, layout):
    message = blank(writer.type)
    commands = numbers[[i for i, name in enumerate(layout.names) if name.startswith("command.")]]
    for path, value in writer.required_values:
        put(message, path, value)
    for index, path in writer.elements:
        put(message, path, float(commands[index]))
    return message
