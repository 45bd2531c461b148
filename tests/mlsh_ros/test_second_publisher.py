"""Who else publishes a topic that one node may publish. The ROS graph is made up here."""

from types import SimpleNamespace

import pytest

UNKNOWN = "_NODE_NAME_UNKNOWN_"


class Graph:
    """A node of /skill_node, and who publishes a topic, as the ROS graph has it."""

    def __init__(self, monkeypatch, single):
        self.module = pytest.importorskip("mlsh_ros.nodes.uniqueness")
        self.now, self.infos = 0.0, []
        monkeypatch.setattr(self.module, "steady_time", lambda: self.now)
        node = SimpleNamespace(
            get_name=lambda: "skill_node",
            get_namespace=lambda: "/",
            resolve_topic_name=lambda name: name,
            count_publishers=lambda _: len(self.infos),
            get_publishers_info_by_topic=lambda _: self.infos,
        )
        self.singles = self.module.SinglePublishers(node, [self.module.Single(**single)])

    def second(self, now, *names, patient=True):
        """What is said of publishers: nodes by name, or (name, number) if there are several."""
        self.now = now
        known = [name if isinstance(name, tuple) else (name, 0) for name in names]
        self.infos = [
            SimpleNamespace(
                node_name=name, node_namespace="/", endpoint_gid=[*f"{name}{number}".encode()]
            )
            for name, number in known
        ]
        return self.singles.second(patient=patient).partition(";")[0]


SENSOR = {"topic": "odom"}
COMMAND = {"topic": "cmd_vel", "own": True, "friends": ("watchdog_node",)}


@pytest.mark.parametrize("patient", [False, True])
def test_a_publisher_without_a_name_hides_no_other_one(monkeypatch, patient):
    """Somebody killed a node as it came up; it stays nameless for up to 20 s."""
    graph = Graph(monkeypatch, SENSOR)
    assert graph.second(0.0, "driver", UNKNOWN, patient=patient) == ""
    said = "/driver and /intruder publish 'odom'"
    assert graph.second(0.25, "driver", UNKNOWN, "intruder", patient=patient) == said
    graph = Graph(monkeypatch, COMMAND)
    ours = ("skill_node", "watchdog_node")
    assert graph.second(0.0, *ours, UNKNOWN, patient=patient) == ""
    said = "/intruder publishes 'cmd_vel' too"
    assert graph.second(0.25, *ours, UNKNOWN, "intruder", patient=patient) == said


@pytest.mark.parametrize(("single", "patience"), [(SENSOR, 30.0), (COMMAND, 2.0)])
def test_every_publisher_without_a_name_has_time_of_its_own_to_say_it(
    monkeypatch, single, patience
):
    graph = Graph(monkeypatch, single)
    own = "driver" if single is SENSOR else "skill_node"
    assert graph.second(0.0, own, (UNKNOWN, 1)) == ""
    assert graph.second(patience - 0.1, own, (UNKNOWN, 1), (UNKNOWN, 2)) == ""
    assert graph.second(patience + 0.1, own, (UNKNOWN, 2)) == ""  # the first is gone
    assert UNKNOWN in graph.second(2 * patience, own, (UNKNOWN, 2))


def test_a_node_that_was_started_again_is_one_until_its_first_process_is_forgotten(monkeypatch):
    graph = Graph(monkeypatch, SENSOR)
    assert graph.second(0.0, ("driver", 1), ("driver", 2)) == ""
    assert graph.second(29.0, ("driver", 1), ("driver", 2)) == ""
    assert graph.second(31.0, ("driver", 1), ("driver", 2)) == "2 nodes /driver publish 'odom'"
    assert graph.second(0.0, "driver", patient=False) == ""
