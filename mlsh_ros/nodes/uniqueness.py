"""Detects other publishers of topics that only one node may publish."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo

from mlsh_ros.control.clock import steady_time

UNKNOWN = "_NODE_NAME_UNKNOWN_"  # what rmw calls a node whose name it has not heard
INTRODUCTION = 2.0  # s of discovery; a publisher without a node name by then is not of ROS
REMEMBERED = 30.0  # s after which DDS has forgotten a node that was killed
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
        self._strangers: dict[str, float] = {}  # per topic: s since which a publisher has no name
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
            self._strangers.pop(topic, None)
            return ""
        own = node.get_name(), node.get_namespace()
        infos = node.get_publishers_info_by_topic(name)
        names = [(info.node_name, info.node_namespace) for info in infos]
        if single.own and own in names:
            names.remove(own)
        # One that was killed while it came up never says its name.
        patience = REMEMBERED if patient and not single.own else INTRODUCTION
        if self._still_unknown(topic, names, patience):
            return ""
        rest = [n for n in names if not (n[1] == own[1] and n[0] in single.friends)]
        if single.own and rest:
            return f"{_full(rest[0])} publishes {topic!r} too; {HINT}"
        if len(set(rest)) > 1:
            return f"{' and '.join(sorted(map(_full, set(rest))))} publish {topic!r}; {HINT}"
        if len(rest) < 2 or (patient and self._old(topic, infos) < 2):
            return ""
        return f"{len(rest)} nodes {_full(rest[0])} publish {topic!r}; {HINT}"

    def _old(self, topic: str, infos: Iterable[TopicEndpointInfo]) -> int:
        """Number of publishers that have existed too long to be remains of an ended process."""
        now = steady_time()
        known, present = self._known.get(topic, {}), [bytes(info.endpoint_gid) for info in infos]
        self._known[topic] = {gid: known.get(gid, now) for gid in present}
        return sum(now - since > REMEMBERED for since in self._known[topic].values())

    def _still_unknown(
        self, topic: str, nodes: Collection[tuple[str, str]], patience: float
    ) -> bool:
        """True while a publisher without a known node may still turn out to be a permitted one.

        DDS knows a new publisher a moment before it knows which node it belongs to.
        """
        if not any(UNKNOWN in name for name, _ in nodes):
            self._strangers.pop(topic, None)
            return False
        now = steady_time()
        return now - self._strangers.setdefault(topic, now) < patience


def _full(name: tuple[str, str]) -> str:
    return f"{name[1].rstrip('/')}/{name[0]}"
