"""What the nodes of a graph say, and how a listener that disturbs nobody subscribes to it."""

from __future__ import annotations

from dataclasses import dataclass

from mlsh_ros.core.conversion import command_writers, topic_readers
from sim.interface import Interface

ARRAY, TEXT = "std_msgs/msg/Float64MultiArray", "std_msgs/msg/String"
# The names under which a recording's reader finds them, whatever they were remapped to.
REQUEST, ANSWER = "decision/request", "decision/answer"
TRACE, STATE = "skill_node/trace", "skill_node/state"
MASTER, OUTCOME = "master_node/master", "sim_node/outcome"
QUEUE = 2000  # messages; what a busy disk may hold up


@dataclass(frozen=True)
class Topic:
    """A topic to listen to."""

    name: str  # relative, so that namespaces work
    type: str  # such as nav_msgs/msg/Odometry
    reliable: bool  # asks for lost messages again; only of who offers it
    latched: bool  # also what was said before we listened


def recorded_topics(interface: Interface, *, stamped: bool, lockstep: bool) -> list[Topic]:
    """Everything that tells what a robot saw, why it did what it did, and what it did.

    Sensors may offer BEST_EFFORT only, and who sends a command may wait until every reliable
    listener has it: there we listen without asking again. In lockstep the simulator offers more,
    and everything would stand still anyway if something was lost.

    Args:
        interface: of the bundle.
        stamped: velocity commands are TwistStamped.
        lockstep: simulator and controller wait for each other.
    """
    sensors = [(r.topic, r.type) for r in topic_readers(interface.observation)]
    commands = [(w.topic, w.type) for w in command_writers(interface.action, stamped=stamped)]
    light = [Topic(name, kind, lockstep, False) for name, kind in (*sensors, *commands)]
    told = [Topic(name, ARRAY, True, False) for name in (REQUEST, ANSWER, TRACE, OUTCOME)]
    return [*light, *told, *(Topic(name, TEXT, True, True) for name in (STATE, MASTER))]
