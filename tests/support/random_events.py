"""Random sequences of events for the real nodes, and the laws that no order of them may break.

    python -m tests.support.random_events --seeds 10 --seconds 60

The exhaustive walk over the same laws, without ROS, is tests/laws/test_supervisor_states.py. A
sequence follows from its seed, as far as the nodes take the same time.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from mlsh_ros.bringup.network import localhost_environment
from mlsh_ros.messages.topics import CALL_AGAIN
from mlsh_ros.nodes.node import TRACE
from mlsh_ros.nodes.watchdog_node import HAND_OVER
from tests.support.bundles import restless_bundle
from tests.support.nodes import DT, LATE_DECISIONS, MAX_AGE, RATE, SLACK, N, World, new_domain
from tests.support.stalls import Witness

AT_ONCE = DT  # s until the first braking command, where nothing has to be noticed first
HEARTBEAT_LOST = 0.5 + DT  # s until a tick misses the heartbeat
MASTER_SILENT = (LATE_DECISIONS + 2) * N * DT
OVERDUE = 3 * DT + HAND_OVER  # s until watchdog_node brakes
# s after a change of the state in which a command that was permitted before may still leave: the
# thread that sends is another one.
RACE = 0.05
DRIFT = 0.1  # m/s between what is measured when a session begins and what odometry says then
STATES = QoSProfile(
    depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
WAYS_UP = {"unconfigured": "configure", "inactive": "activate"}
AFTER = {"configure": "inactive", "activate": "active", "deactivate": "inactive"}
AFTER |= {"cleanup": "unconfigured", "shutdown": "finalized"}
SERVICES = ("arm", "start", "stop", "disarm", "reset")


@dataclass(frozen=True)
class Said:
    """A message: who said what, and when; both times of the system's clock, in s."""

    left: float
    came: float
    number: int  # of those of its publisher
    stamp: float  # s, of its header
    what: object  # text, or (2,) a command or velocity


class Record:
    """All states, commands and velocities, with the time at which they left their node."""

    def __init__(self, node):
        self.states, self.watchdog, self.commands, self.velocities = [], [], [], []
        for kept, kind, topic, quality, read in (
            (self.states, String, "skill_node/state", STATES, lambda m: m.data),
            (self.watchdog, String, "watchdog_node/state", STATES, lambda m: m.data),
            (self.commands, TwistStamped, "cmd_vel", TRACE, lambda m: xy(m.twist.linear)),
            (self.velocities, Odometry, "odom", TRACE, lambda m: xy(m.twist.twist.linear)),
        ):
            node.create_subscription(kind, topic, keeper(kept, read), quality)


def xy(vector):
    return np.array([vector.x, vector.y])


def keeper(kept, read):
    def keep(message, info):
        stamp = getattr(getattr(message, "header", None), "stamp", None)
        sent = 0.0 if stamp is None else stamp.sec + stamp.nanosec * 1e-9
        left, came = info["source_timestamp"] * 1e-9, info["received_timestamp"] * 1e-9
        kept.append(Said(left, came, info["publication_sequence_number"], sent, read(message)))

    return keep


class Panel:
    """A publisher of the emergency stop, in a node of its own."""

    def __init__(self, name, context, *, latched, reliable):
        self.name, self.latched, self.reliable = name, latched, reliable
        self.node = rclpy.create_node(name, context=context)
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        quality = QoSProfile(depth=1, reliability=reliability, durability=durability)
        self.publisher = self.node.create_publisher(Bool, "estop", quality)
        self.pressed = False

    @property
    def listeners(self):
        """Subscriptions of both nodes that match it."""
        return 2 * (2 + self.latched if self.reliable else 1)

    def say(self, pressed):
        self.pressed = pressed
        self.publisher.publish(Bool(data=pressed))


class BrokenLawError(AssertionError):
    """What must not happen has happened; says after which events."""


class Sequence:
    """A robot, all its nodes, and one random sequence of events.

    Args:
        bundle: of small random skills for `omni`.
        stack: ends what is started.
        seed: of the sequence.
    """

    def __init__(self, bundle, stack, seed):
        self.seed, self.rng = seed, np.random.default_rng(seed)
        self.world = World(bundle, stack)
        self.observer = self.world.observer
        self.record = Record(self.observer.node)
        self.braking = bundle.interface.braking_time[0]  # s
        self.began = time.monotonic()
        self.told = []  # events: (s since the begin, event, what came of it)
        self.situations = Counter()  # (lifecycle, state, event)
        self.took = {}  # cause -> [s until the safe command]
        self.silent = []  # (from, to) s in which skill_node is not active and sends nothing
        self.held = []  # (from, to) s in which a panel says stop
        self.thawed = []  # s, when both who may brake went on after a pause
        self.lifecycle, self.watching = "active", True
        self.world.start("watchdog_node")
        self.world.start_all()
        # Before anything is timed: a new client first has to be discovered by its node.
        for node, services in (("skill_node", SERVICES), ("watchdog_node", ("reset",))):
            self.observer.client(ChangeState, f"{node}/change_state")
            for service in services:
                self.observer.client(Trigger, f"{node}/{service}")
        kinds = (("front", True, True), ("back", False, True), ("side", False, False))
        self.panels = {}
        for name, latched, reliable in kinds:
            self._new_panel(name, latched, reliable)
        stack.callback(self._destroy_panels)
        self._until(lambda: self.record.watchdog and self.state == "disarmed", 20.0)

    # What is known ------------------------------------------------------------------------

    @property
    def state(self):
        return self.record.states[-1].what if self.record.states else ""

    @property
    def tripped(self):
        return bool(self.record.watchdog) and self.record.watchdog[-1].what.startswith("tripped")

    @property
    def moving(self):
        """Whether skill_node drives, and a command is in force that moves the robot."""
        last = self.record.commands[-1:]
        fresh = last and time.time() - last[0].left < 2.5 * DT and last[0].what.any()
        return self.state == "running" and bool(fresh)

    def _until(self, happened, seconds):
        deadline = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def _broken(self, law):
        return BrokenLawError(f"{law}\nseed {self.seed}, events so far:\n{self.story}")

    @property
    def story(self):
        """The events so far, a line each."""
        return "\n".join(f"  {t:7.3f}  {event}: {what}" for t, event, what in self.told)

    # The sequence -------------------------------------------------------------------------

    def run(self, seconds, *, kills=1):
        """Events for some seconds, then as many kills, then the end of all; checks all laws."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for event in self.rng.permutation(sorted(CALM)):
                if time.monotonic() > end:
                    break
                self._one(str(event))
        for event in self.rng.permutation(sorted(KILLS))[:kills]:
            self._one(str(event), patience=15.0)
        self._one(str(self.rng.choice(sorted(ENDS))), patience=15.0)
        self.check()

    def _one(self, event, patience=0.0):
        deadline = time.monotonic() + patience
        if patience or self.rng.random() < 0.8:
            while not self.recover() and time.monotonic() < deadline:
                time.sleep(0.5)
        if self.moving:
            time.sleep(self.rng.uniform(0.0, 2 * DT))  # anywhere within a tick
        state = self.state.split(":")[0]
        self.situations[self.lifecycle, state, event] += 1
        at = time.monotonic() - self.began
        self.told.append((at, event, f"in {self.lifecycle}, {self.state}"))
        what = getattr(self, event)()
        self.told[-1] = at, event, f"in {self.lifecycle}, {state}: {what}"
        time.sleep(self.rng.uniform(0.05, 0.4))

    def recover(self):
        """Do what a person does to have the robot drive; True if it moves."""
        if self.moving:
            return True
        for panel in self.panels.values():
            if panel.pressed:
                self._release(panel)
        while self.lifecycle in WAYS_UP:
            self._change(WAYS_UP[self.lifecycle])
        if not self.watching:
            self.activate_watchdog()
        words = [self._ask("skill_node/arm")]
        if words != ["ready"] and self.state != "ready":
            # A fault or a trip, or a panel that said stop and is gone.
            self._until(lambda: self._ask("watchdog_node/reset") and not self.tripped, 2.0)
            words = [self._ask(f"skill_node/{name}") for name in ("reset", "arm")]
        words.append(self._ask("skill_node/start"))
        went = self._until(lambda: self.moving, 2.0 if words[-1] == "running" else 0.2)
        self.told.append((time.monotonic() - self.began, "drive", "moves" if went else words))
        return went

    def _ask(self, service):
        """Call a service; returns what it says."""
        known = self.observer.clients.get(service)
        if known is None:
            return self.observer.call(Trigger, service).message
        for _ in range(4):
            future = known.call_async(Trigger.Request())
            if self._until(future.done, 3.0):
                return future.result().message
        raise self._broken(f"{service} does not answer")

    # Stops --------------------------------------------------------------------------------

    def _stop(self, cause, act, bound, *, told=True):
        """Do what stops the robot, and hold it to its bound if the robot moves.

        Args:
            cause: its name.
            act: does it; returns what to tell.
            bound: s until the first braking command.
            told: whether skill_node must have changed its state, too.
        """
        moved, since = self.moving, time.time()
        what = act()
        if not moved or str(what).endswith(CALL_AGAIN):
            return what
        limit = bound + self.braking + SLACK

        def rests():
            return not self.record.commands[-1].what.any() and not (told and self.moving_state)

        if not self._until(rests, limit + 1.0):
            raise self._broken(f"{cause}: no safe command within {limit + 1.0:.2f} s")
        safe = self.record.commands[-1].left
        for said in reversed(self.record.commands):
            if said.what.any():
                break
            safe = said.left
        self.took.setdefault(cause, []).append(max(safe - since, 0.0))
        if safe - since > limit:
            raise self._broken(
                f"{cause}: safe command after {safe - since:.3f} s, not {limit:.3f}"
            )
        return f"{what}, at rest after {max(safe - since, 0.0):.3f} s"

    @property
    def moving_state(self):
        return self.state == "running"

    def arm(self):
        return self._ask("skill_node/arm") if self.lifecycle in ("active", "inactive") else "-"

    def start(self):
        return self._ask("skill_node/start") if self.lifecycle in ("active", "inactive") else "-"

    def reset(self):
        # It ends a session, too.
        if self.lifecycle not in ("active", "inactive"):
            return "-"
        return self._stop("reset", lambda: self._ask("skill_node/reset"), AT_ONCE)

    def stop(self):
        if self.lifecycle not in ("active", "inactive"):
            return "-"
        return self._stop("stop", lambda: self._ask("skill_node/stop"), AT_ONCE)

    def disarm(self):
        if self.lifecycle not in ("active", "inactive"):
            return "-"
        return self._stop("disarm", lambda: self._ask("skill_node/disarm"), AT_ONCE)

    def reset_watchdog(self):
        return self._ask("watchdog_node/reset")

    def crowd(self):
        """Several requests at once, and perhaps an emergency stop in between."""
        if self.lifecycle not in ("active", "inactive"):
            return "-"
        names = [str(name) for name in self.rng.choice(SERVICES, 5)]
        futures = [
            self.observer.client(Trigger, f"skill_node/{name}").call_async(Trigger.Request())
            for name in names
        ]
        if self.rng.random() < 0.5:
            panel = self._any_panel()
            self._pulse(panel)
            names.append(panel.name)
        if not self._until(lambda: all(future.done() for future in futures), 8.0):
            raise self._broken(f"not all of {names} are answered")
        return ", ".join(names)

    def pulse(self):
        panel = self._any_panel()
        sort = "latched" if panel.latched else "volatile"
        sort = f"estop pressed and released ({'reliable' if panel.reliable else 'best effort'}"
        sort += ", latched)" if panel.latched else ", volatile)"

        def act():
            self._pulse(panel)
            return panel.name

        return self._stop(sort, act, AT_ONCE)

    def press(self):
        """A panel says stop, and a person tries to drive all the same."""
        panel = self._any_panel()

        def act():
            panel.say(True)
            if self.lifecycle in ("active", "inactive"):  # else skill_node does not listen
                self.held.append([time.time(), np.inf, panel.name])
            return panel.name

        what = self._stop("estop pressed", act, AT_ONCE)
        if self.lifecycle == "active":
            time.sleep(2 * DT)
            for name in ("watchdog_node/reset", "skill_node/reset", "skill_node/arm"):
                self._ask(name)
            what = f"{what}; {self._ask('skill_node/start')}"
        return what

    def release(self):
        panel = self._any_panel()
        self._release(panel)
        return panel.name

    def vanish(self):
        """A panel says stop, and is gone."""
        panel = self._any_panel()

        def act():
            panel.say(True)
            time.sleep(0.05)
            panel.node.destroy_node()
            return panel.name

        what = self._stop("estop pressed by a panel that ends", act, AT_ONCE)
        self._end_hold(panel)
        self._new_panel(panel.name, panel.latched, panel.reliable)
        return what

    def deactivate(self):
        return self._stop("skill_node deactivated", lambda: self._change("deactivate"), AT_ONCE)

    def cleanup(self):
        return self._change("cleanup")

    def configure(self):
        return self._change("configure")

    def activate(self):
        return self._change("activate")

    def deactivate_watchdog(self):
        if not self.watching:
            return "-"

        def act():
            self.observer.change("watchdog_node", Transition.TRANSITION_DEACTIVATE)
            self.watching = False
            return "not active"

        return self._stop("watchdog_node deactivated", act, HEARTBEAT_LOST)

    def activate_watchdog(self):
        if self.watching:
            return "-"
        self.observer.change("watchdog_node", Transition.TRANSITION_ACTIVATE)
        self.watching = True
        return "active"

    # Processes that stand still -----------------------------------------------------------

    def freeze_watchdog(self):
        return self._freeze("watchdog_node", HEARTBEAT_LOST, 1.0)

    def freeze_master(self):
        return self._freeze("master_node", MASTER_SILENT, 2.5)

    def freeze_sim(self):
        return self._freeze("sim_node", MAX_AGE + DT, 1.0)

    def freeze_skill(self):
        return self._freeze("skill_node", OVERDUE, 1.0)

    def pause(self):
        """Both stand still, as in a container that is paused: then one of them brakes."""
        both = [self.world.nodes[name] for name in ("skill_node", "watchdog_node")]
        for process in both:
            process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        moved = self.moving_state
        self.thawed.append(time.time())
        for process in both:
            process.send_signal(signal.SIGCONT)
        rests = lambda: not self.record.commands[-1].what.any()  # noqa: E731
        if moved and not self._until(rests, OVERDUE + self.braking + 2 * SLACK):
            raise self._broken("no safe command after both stood still")
        return "both went on"

    def blink(self):
        """Any node stands still for so short a time that it may go on as others begin to brake."""
        names = sorted(self.world.nodes)
        seconds = self.rng.uniform(0.02, 0.45)
        return self._freeze(names[self.rng.integers(len(names))], None, seconds)

    def _freeze(self, name, bound, seconds):
        process, until = self.world.nodes[name], time.monotonic() + seconds

        def act():
            process.send_signal(signal.SIGSTOP)
            return name

        try:
            # A skill_node that stands still tells no state; watchdog_node has to watch.
            if bound is None or (name == "skill_node" and not self.watching):
                what = act()
            else:
                cause = f"{name} stopped (SIGSTOP)"
                what = self._stop(cause, act, bound, told=name != "skill_node")
            time.sleep(max(until - time.monotonic(), 0.0))
        finally:
            process.send_signal(signal.SIGCONT)
        return f"{what}, for {seconds:.2f} s"

    # Processes that are killed ------------------------------------------------------------

    def kill_watchdog(self):
        return self._kill("watchdog_node", HEARTBEAT_LOST, self.record.watchdog)

    def kill_master(self):
        heard = self.observer.heard["master_node/master"]
        return self._kill("master_node", MASTER_SILENT, heard)

    def kill_skill(self):
        what = self._kill("skill_node", OVERDUE, self.record.states)
        self.lifecycle = "active"
        return what

    def _kill(self, name, bound, states):
        process = self.world.nodes[name]

        def act():
            process.kill()
            process.wait(5.0)
            return name

        what = self._stop(f"{name} killed -9", act, bound, told=name != "skill_node")
        if name == "skill_node":
            self._speaks_again()
            for panel in self.panels.values():
                if not panel.latched:  # the next process does not know what it said
                    self._end_hold(panel)
        known = len(states)
        self.world.start(name)
        if not self._until(lambda: len(states) > known, 20.0):
            raise self._broken(f"{name} does not come again")
        self.observer.greet(name)
        if name == "watchdog_node":
            self.watching = True
        return f"{what}; started again"

    # The end ------------------------------------------------------------------------------

    def shutdown(self):
        """A finalized node sends nothing more; then all others end."""
        if self.lifecycle == "active":
            self._stop("skill_node shut down", lambda: self._change("shutdown"), AT_ONCE)
        else:
            self._change("shutdown")
        return self.terminate()

    def terminate(self):
        """SIGTERM for all, as a launcher sends it that was told to end."""
        return self._end(signal.SIGTERM, sorted(self.world.nodes))

    def interrupt(self):
        """SIGINT for all, as Ctrl-C sends it."""
        return self._end(signal.SIGINT, sorted(self.world.nodes))

    def terminate_skill(self):
        return self._end(signal.SIGTERM, ["skill_node"])

    def hang_up(self):
        return self._end(signal.SIGHUP, ["skill_node"])

    def _end(self, number, names):
        processes = [self.world.nodes[name] for name in names]

        def act():
            for process in processes:
                process.send_signal(number)
            return ", ".join(names)

        whom = "skill_node" if names == ["skill_node"] else "all nodes"
        what = self._stop(f"{number.name} of {whom}", act, AT_ONCE, told=False)
        since = time.time()
        ended = [process.wait(15.0) for process in processes]
        if any(ended):
            raise self._broken(f"exit status {dict(zip(names, ended, strict=True))}")
        return f"{what}; ended after {time.time() - since:.2f} s"

    # Lifecycle and panels -----------------------------------------------------------------

    def _change(self, name):
        """A transition of skill_node, also one that its state does not have."""
        ways = {("unconfigured", "configure"), ("inactive", "activate"), ("active", "deactivate")}
        ways |= {("inactive", "cleanup")}
        legal = name == "shutdown" or (self.lifecycle, name) in ways
        kind = f"{self.lifecycle}_{name}" if name == "shutdown" else name
        number = getattr(Transition, f"TRANSITION_{kind.upper()}")
        if legal and name == "activate":
            self._speaks_again()
        done = self.observer.change("skill_node", number, illegal=not legal)
        if done != legal:
            raise self._broken(f"{name} in {self.lifecycle}: {'done' if done else 'refused'}")
        if not legal:
            return "refused"
        self.lifecycle = AFTER[name]
        if self.lifecycle != "active" and not (self.silent and self.silent[-1][1] == np.inf):
            self.silent.append([time.time(), np.inf])
        if name == "configure":
            time.sleep(0.5)  # its services and subscriptions are known
        return self.lifecycle

    def _speaks_again(self):
        if self.silent and self.silent[-1][1] == np.inf:
            self.silent[-1][1] = time.time()

    def _any_panel(self):
        names = sorted(self.panels)
        return self.panels[names[self.rng.integers(len(names))]]

    def _new_panel(self, name, latched, reliable):
        context = self.observer.context
        self.panels[name] = panel = Panel(name, context, latched=latched, reliable=reliable)
        listeners = panel.listeners if self.lifecycle in ("active", "inactive") else 1
        self._until(lambda: panel.publisher.get_subscription_count() >= listeners, 10.0)
        time.sleep(0.3)  # the listeners know it a moment after it knows them
        panel.say(False)  # before a latched one has said something, arming is refused

    def _pulse(self, panel):
        self._end_hold(panel)
        panel.say(True)
        panel.say(False)

    def _release(self, panel):
        self._end_hold(panel)
        panel.say(False)
        time.sleep(0.1)

    def _end_hold(self, panel):
        for hold in self.held:
            if hold[2] == panel.name and hold[1] == np.inf:
                hold[1] = time.time()

    def _destroy_panels(self):
        for panel in self.panels.values():
            panel.node.destroy_node()

    # The laws -----------------------------------------------------------------------------

    def check(self):
        """Judge everything that was said, in the order in which it left the nodes."""
        time.sleep(0.3)  # what is under way arrives
        if len(self.took) < 3:
            raise self._broken(f"hardly anything moved: {self.took}")
        for said in self.record.commands:
            if not (np.isfinite(said.what).all() and (np.abs(said.what) <= 1.0 + 1e-9).all()):
                raise self._broken(f"command {said.what}")
        self._check_states()
        self.largest = self._largest_step()
        if self.largest > RATE + 1e-6:
            raise self._broken(f"a step of {self.largest:.4f} m/s, the limit is {RATE}")
        for since, until, name in self.held:
            # A press that was not heard yet is no law; every listener hears it within a tick.
            begun = [s for s in self.record.states if since + 2 * DT < s.left < until]
            if any(s.what == "running" for s in begun):
                raise self._broken(f"a session began while {name} said stop")

    def _check_states(self):
        """Each command leaves in a state that permits it."""
        sources = (self.record.states, self.record.watchdog, self.record.commands)
        events = sorted(
            ((said.left, order, said) for order, kind in enumerate(sources) for said in kind),
            key=lambda each: each[:2],
        )
        state, changed, before = "", 0.0, ""  # of skill_node
        tripped, untripped = False, 0.0
        last = np.zeros(2)
        self.late = []  # s after a change of the state that forbids them
        for left, order, said in events:
            if order == 0:
                now = said.what.split(":")[0]
                if now != state:
                    state, changed, before = now, left, state
                continue
            if order == 1:
                trips = said.what.startswith("tripped")
                untripped = left if tripped and not trips else untripped
                tripped = trips
                continue
            away = (np.abs(said.what) > np.abs(last) + 1e-9).any()
            last = said.what
            allowed = {"running"} if away else {"running", "stopping", "fault"}
            braked = not away and (tripped or left - untripped < RACE)
            if any(since < left < until for since, until in self.silent) and not braked:
                raise self._broken(f"command {said.what} of a node that is not active")
            if state in allowed or braked:
                continue
            self.late.append(left - changed)
            if before not in allowed or self.late[-1] > RACE:
                raise self._broken(
                    f"command {said.what} in {state}, {left - changed:.3f} s after {before}"
                )

    def _largest_step(self):
        """The largest change of the command in a tick, m/s.

        A command that was lost on the way counts as a tick. What a session begins with, and
        braking after a pause of all who may brake, follow what is measured then.
        """
        commands = sorted(self.record.commands, key=lambda said: said.left)
        begins = [said.left for said in self.record.states if said.what == "running"]
        begins += self.thawed
        largest, last, before, newest = 0.0, np.zeros(2), 0.0, set()
        self.lost = 0
        for said in commands:
            ticks = 1.0
            if said.number > 1 and said.number - 1 not in newest:
                self.lost += 1
                ticks = max(1.0, round((said.stamp - before) / DT))
            newest = (newest - {said.number - 1}) | {said.number}
            step = np.abs(said.what - last).max() / ticks
            if any(before <= begin < said.left for begin in begins):
                first = np.array(
                    [v.what for v in self.record.velocities if -0.4 < v.left - said.left < 0.0]
                    or [last]
                )
                beyond = np.maximum(first.min(0) - said.what, said.what - first.max(0))
                step = min(step, max(beyond.max() - DRIFT, 0.0))
            largest, last, before = max(largest, float(step)), said.what, said.stamp
        return largest


CALM = {"arm", "start", "stop", "disarm", "reset", "reset_watchdog", "pulse", "press", "release"}
CALM |= {"vanish", "deactivate", "cleanup", "configure", "activate", "deactivate_watchdog"}
CALM |= {"activate_watchdog", "freeze_watchdog", "freeze_master", "freeze_sim", "freeze_skill"}
CALM |= {"blink", "crowd", "pause"}
KILLS = {"kill_watchdog", "kill_master", "kill_skill"}
ENDS = {"shutdown", "terminate", "interrupt", "terminate_skill", "hang_up"}


def sequence(bundle, seed, seconds, *, kills=1):
    """Run one sequence; returns it, judged."""
    with new_domain() as stack:
        made = Sequence(bundle, stack, seed)
        made.run(seconds, kills=kills)
        return made


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--events", action="store_true", help="print all of them")
    given = parser.parse_args()
    os.environ.update(localhost_environment(os.environ))
    done, broken, took, situations = [], [], {}, Counter()
    with tempfile.TemporaryDirectory() as folder:
        bundle = restless_bundle(Path(folder) / "restless")
        for seed in range(given.first, given.first + given.seeds):
            said = StringIO()  # by the nodes
            with Witness() as witness, redirect_stdout(said):
                try:
                    made = sequence(bundle, seed, given.seconds, kills=given.kills)
                except (Exception, pytest.fail.Exception) as error:
                    made, text = None, f"{type(error).__name__}: {error}"
            stall = f"longest wait for a core {witness.longest:.3f} s"
            if made is None:
                broken.append(seed)
                print(f"{said.getvalue()}\nseed {seed}: {text}\n  {stall}", flush=True)
                continue
            if given.events:
                print(made.story)
            done.append(made)
            situations += made.situations
            for cause, times in made.took.items():
                took.setdefault(cause, []).extend(times)
            print(
                f"seed {seed}: {sum(made.situations.values())} events, "
                f"{sum(map(len, made.took.values()))} stops, "
                f"{len(made.record.commands)} commands, {made.lost} lost, largest step "
                f"{made.largest:.4f}, {len(made.late)} after a change "
                f"(at most {max(made.late, default=0.0) * 1000:.1f} ms), {stall}",
                flush=True,
            )
    commands = sum(len(made.record.commands) for made in done)
    print(
        f"{len(done)} sequences hold, {len(broken)} do not {broken or ''}: "
        f"{sum(situations.values())} events in {len(situations)} situations, {commands:,} "
        f"commands, largest step {max((m.largest for m in done), default=0.0):.4f} of {RATE}"
    )
    print("| cause | times | longest until the safe command (s) |\n|---|---|---|")
    for cause, times in sorted(took.items()):
        print(f"| {cause} | {len(times)} | {max(times):.3f} |")


if __name__ == "__main__":
    main()
