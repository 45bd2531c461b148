"""Who else publishes a topic that one node may publish, and who receives the commands.

The ROS graph is made up here.
"""

import itertools
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


KIND = "geometry_msgs/msg/TwistStamped"


def missing(*infos):
    """What is said of a topic `wheels` with these subscriptions: name, namespace, type, QoS."""
    module = pytest.importorskip("mlsh_ros.nodes.uniqueness")
    fields = ("node_name", "node_namespace", "topic_type", "qos_profile")
    graph = [SimpleNamespace(**dict(zip(fields, info, strict=True))) for info in infos]
    node = SimpleNamespace(
        get_namespace=lambda: "/r1",
        resolve_topic_name=lambda name: f"/r1/{name}",
        get_subscriptions_info_by_topic=lambda name: graph if name == "/r1/wheels" else [],
    )
    return module.Receivers(node, {"wheels": KIND}).missing()


def test_only_who_can_receive_commands_and_is_no_tool_is_a_driver():
    """Every mixture of up to three subscriptions has a driver if one of them is one."""
    qos = pytest.importorskip("rclpy.qos")
    from mlsh_ros.nodes.node import COMMAND, LATCHED, SENSOR
    from mlsh_ros.nodes.uniqueness import OFFERED

    nobody = "no node but watchdog_node and recorder_node receives 'wheels'"
    asks = "volatile publisher and transient local subscription"
    often = qos.QoSProfile(depth=1, deadline=qos.Duration(seconds=0.1))
    drivers = [
        ("base", "/r1", KIND, COMMAND),
        ("base", "/", KIND, SENSOR),
        ("seen", "/", KIND, OFFERED),  # as the graph has one like ours
        (UNKNOWN, UNKNOWN, KIND, COMMAND),  # one that speaks DDS, without ROS, has no name
        ("recorder_node", "/r2", KIND, COMMAND),  # of another robot; it is not ours
    ]
    others = [
        (("watchdog_node", "/r1", KIND, SENSOR), nobody),
        (("recorder_node", "/r1", KIND, SENSOR), nobody),
        (("_ros2cli_4711", "/", KIND, SENSOR), nobody),
        (("_ros2cli_daemon_0_1f", "/", KIND, COMMAND), nobody),
        (("rosbag2_recorder", "/r1", KIND, COMMAND), nobody),
        (("old", "/r1", "geometry_msgs/msg/Twist", COMMAND), "/r1/old expects geometry_msgs/"),
        (("late", "/r1", KIND, LATCHED), f"/r1/late cannot receive 'wheels': {asks}"),
        (("strict", "/", KIND, often), "/strict cannot receive 'wheels': "),
        ((UNKNOWN, UNKNOWN, KIND, LATCHED), asks),
    ]
    assert missing() == nobody
    for info, why in others:
        assert why.lower() in missing(info).lower()
    for few in range(1, 4):
        for some in itertools.combinations([*drivers, *(info for info, _ in others)], few):
            assert (missing(*some) == "") == any(info in drivers for info in some), some
