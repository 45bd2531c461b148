"""Looks in the ROS graph for second publishers of a topic, and for those who receive commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rclpy.duration import Infinite
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    qos_check_compatible,
)
from rclpy.topic_endpoint_info import TopicEndpointInfo

from mlsh_ros.control.clock import steady_time
from mlsh_ros.nodes.node import COMMAND

UNKNOWN = "_NODE_NAME_UNKNOWN_"  # what rmw calls a node whose name it has not heard
INTRODUCTION = 2.0  # s of discovery; a publisher without a node name by then is not of ROS
REMEMBERED = 30.0  # s after which DDS has forgotten a node that was killed
HEARING = ("watchdog_node", "recorder_node")  # of our nodes, those who hear the commands
# How names of tools begin that only listen: `ros2 topic echo`, `ros2 bag record`.
LISTENERS = ("_ros2cli", "rosbag2_recorder")
# `COMMAND` as the graph has it, where what a profile leaves open has its value.
OFFERED = QoSProfile(
    depth=COMMAND.depth,
    reliability=COMMAND.reliability,
    durability=DurabilityPolicy.VOLATILE,
    deadline=Infinite,
    liveliness=LivelinessPolicy.AUTOMATIC,
    liveliness_lease_duration=Infinite,
)
HINT = "end one (a killed node is remembered for up to 20 s)"


@dataclass(frozen=True)
class Single:
    """A topic that permits only one publisher."""

    topic: str
    own: bool = False  # that one is ours
    friends: tuple[str, ...] = ()  # nodes of our namespace that may publish it beside


class SinglePublishers:
    """Checks the ROS graph for second publishers.

    Args:
        node: our own.
        topics: to look at; named and remapped as there.
    """

    def __init__(self, node: Node, topics: Iterable[Single]) -> None:
        # The graph has the names after remapping.
        self._node = node
        self._topics = [(each, node.resolve_topic_name(each.topic)) for each in topics]
        # Per topic and publisher: since when it has been seen beside another one, s.
        self._known: dict[str, dict[bytes, float]] = {}

    def second(self, *, patient: bool) -> str:
        """Describes the first topic with two publishers in one line; empty if there is none.

        Args:
            patient: two publishers of the same name may be a killed one and its restarted
                successor; this is accepted until DDS has removed the first.
        """
        found = (self._second(single, name, patient) for single, name in self._topics)
        return next((text for text in found if text), "")

    def _second(self, single: Single, name: str, patient: bool) -> str:
        topic, node = single.topic, self._node
        if node.count_publishers(name) < 2:
            return ""
        own = node.get_name(), node.get_namespace()
        infos = node.get_publishers_info_by_topic(name)
        seen = self._seen(topic, infos)
        # DDS knows a new publisher a moment before it knows which node it belongs to, which may be
        # a permitted one. One that was killed while it came up never says its name.
        patience = REMEMBERED if patient and not single.own else INTRODUCTION
        names = [
            (info.node_name, info.node_namespace)
            for info, age in zip(infos, seen, strict=True)
            if age >= patience or UNKNOWN not in info.node_name
        ]
        if single.own and own in names:
            names.remove(own)
        rest = [n for n in names if not (n[1] == own[1] and n[0] in single.friends)]
        if single.own and rest:
            return f"{_full(rest[0])} publishes {topic!r} too; {HINT}"
        if len(set(rest)) > 1:
            return f"{' and '.join(sorted(map(_full, set(rest))))} publish {topic!r}; {HINT}"
        # Too old to be remains of an ended process.
        old = sum(age > REMEMBERED for age in seen)
        if len(rest) < 2 or (patient and old < 2):
            return ""
        return f"{len(rest)} nodes {_full(rest[0])} publish {topic!r}; {HINT}"

    def _seen(self, topic: str, infos: Iterable[TopicEndpointInfo]) -> list[float]:
        """For how long each publisher has been seen beside another one, s."""
        now, known = steady_time(), self._known.get(topic, {})
        present = [bytes(info.endpoint_gid) for info in infos]
        since = {gid: known.get(gid, now) for gid in present}
        self._known[topic] = since  # of two threads
        return [now - since[gid] for gid in present]


def _full(name: tuple[str, str]) -> str:
    return f"{name[1].rstrip('/')}/{name[0]}"


class Receivers:
    """Checks the ROS graph for the driver of the robot, which receives the commands.

    A driver that comes later would get the command of a robot that drives, and jump to it.

    Args:
        node: that publishes the commands.
        kinds: type of the commands, by topic.
    """

    def __init__(self, node: Node, kinds: Mapping[str, str]) -> None:
        self._node, self._kinds = node, kinds

    def missing(self) -> str:
        """Describes the first topic that no driver receives; empty if there is none.

        No driver are the nodes of this package that hear the commands, in this namespace, and the
        tools of `LISTENERS`; nor is a node that expects messages of another type, or a quality of
        service that the commands do not have: DDS delivers nothing to it. One without a name
        counts, because a driver that speaks DDS without ROS has none.
        """
        for topic, kind in self._kinds.items():
            infos = self._node.get_subscriptions_info_by_topic(
                self._node.resolve_topic_name(topic)
            )
            others = [info for info in infos if not self._only_hears(info)]
            refusals = [_undelivered(info, topic, kind) for info in others]
            if all(refusals):
                nobody = f"no node but {' and '.join(HEARING)} receives {topic!r}"
                return refusals[0] if refusals else nobody
        return ""

    def _only_hears(self, info: TopicEndpointInfo) -> bool:
        ours = info.node_namespace == self._node.get_namespace() and info.node_name in HEARING
        return ours or info.node_name.startswith(LISTENERS)


def _undelivered(info: TopicEndpointInfo, topic: str, kind: str) -> str:
    """Returns why DDS delivers no command of this type to a subscription, or ""."""
    name = _full((info.node_name, info.node_namespace))
    if info.topic_type != kind:
        return f"{name} expects {info.topic_type} on {topic!r}, which has {kind}"
    fits, why = qos_check_compatible(OFFERED, info.qos_profile)
    if fits == QoSCompatibility.ERROR:
        return f"{name} cannot receive {topic!r}: {why.removeprefix('ERROR: ').strip('; ')}"
    return ""
