"""Topics of the node graph with their types; those that are recorded, and their QoS.

docs/reference/topics.md explains them; the QoS of the nodes themselves is in docs/safety.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlsh_ros.messages.conversion import command_writers, topic_readers
from sim.interface import Interface

ARRAY, TEXT = "std_msgs/msg/Float64MultiArray", "std_msgs/msg/String"
DIAGNOSTIC_ARRAY = "diagnostic_msgs/msg/DiagnosticArray"
# The names under which a recording's reader finds them, whatever they were remapped to.
REQUEST, RESPONSE = "decision/request", "decision/response"
FORMER_NAMES = {"decision/answer": RESPONSE}  # in recordings of former versions
TRACE, STATE = "skill_node/trace", "skill_node/state"
MASTER, OUTCOME = "master_node/master", "sim_node/outcome"
APPLIED_COMMAND = "sim_node/applied_command"  # in lockstep there is none
WATCHDOG_STATE, WATCHDOG_BEAT = "watchdog_node/state", "watchdog_node/heartbeat"
CALL_AGAIN = "call again"  # ends the answer to a request that may be an old one
DIAGNOSTICS = "/diagnostics"  # REP-107: one for all robots of a domain, in no namespace
# What recorder_node says of itself, on a topic that it does not record.
RECORDER_STATE, WAITING, RECORDING = "recorder_node/state", "waiting", "recording"
QUEUE = 2000  # messages; what a busy disk may hold up


@dataclass(frozen=True)
class Topic:
    """A topic to subscribe to."""

    name: str  # relative, so that namespaces work; but for DIAGNOSTICS
    type: str  # such as nav_msgs/msg/Odometry
    reliable: bool  # asks for lost messages again; only of who offers it
    latched: bool  # also what was said before we listened
    optional: bool = False  # a graph may be without it; its silence is no news


def recorded_topics(interface: Interface, *, stamped: bool, lockstep: bool) -> list[Topic]:
    """Returns all topics that record observations, decisions, actions and their causes.

    Sensors may offer BEST_EFFORT only, and the publisher of a command may wait until every
    reliable subscriber has received it, so these subscriptions are best effort. In lockstep the
    simulator offers reliable topics, and a lost message would stop the simulation anyway.

    The order of subscription matters: DDS announces subscriptions one after the other. A publisher
    that has matched one of the last, the sensors and the latched topics, has matched all others.

    Args:
        interface: of the bundle.
        stamped: velocity commands are TwistStamped.
        lockstep: simulator and controller wait for each other.
    """
    sensors = [(r.topic, r.type) for r in topic_readers(interface.observation)]
    commands = [(w.topic, w.type) for w in command_writers(interface.action, stamped=stamped)]
    told = [Topic(name, ARRAY, True, False) for name in (REQUEST, RESPONSE, TRACE)]
    simulated = (OUTCOME,) if lockstep else (OUTCOME, APPLIED_COMMAND)  # a real robot has none
    told += [Topic(name, ARRAY, True, False, optional=True) for name in simulated]
    shared = Topic(DIAGNOSTICS, DIAGNOSTIC_ARRAY, True, False)
    light = [Topic(name, kind, lockstep, False) for name, kind in (*commands, *sensors)]
    watched = Topic(WATCHDOG_STATE, TEXT, True, True, optional=True)
    latched = [Topic(name, TEXT, True, True) for name in (STATE, MASTER)]
    return [*told, shared, *light, watched, *latched]
