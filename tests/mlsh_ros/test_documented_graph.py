"""docs/security.md and docs/safety.md say which topics and services the nodes have, and how."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.nodes import World, new_domain, wait_for

pytestmark = [pytest.mark.ros, pytest.mark.realtime]

ROOT = Path(__file__).parents[2]
NODES = (
    "skill_node",
    "watchdog_node",
    "master_node",
    "sim_node",
    "recorder_node",
    "joystick_node",
)
COMMANDS, SENSORS = {"cmd_vel"}, {"odom", "goals"}  # of omni on moving_bandits
# What rclpy gives every node; both pages say so in words.
EVERYONES = {"rosout", "parameter_events", "transition_event"}
SERVICES = re.compile(r"/(\w*parameter\w*|\w*state\w*|\w*transition\w*|get_type_description)$")


def table(page, head):
    """The rows of a table, cell by cell."""
    lines = [line.strip() for line in (ROOT / "docs" / page).read_text().splitlines()]
    start = lines.index(head) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def names(cell, node=""):
    return {
        name.lstrip("/").replace("~", node) for name in re.findall(r"`([^`]+)`", cell)
    } - EVERYONES


@pytest.fixture(scope="module", params=[False, True], ids=["clock", "simulated time"])
def graph(request, bundle, tmp_path_factory):
    """What the nodes of a graph have: (publishers, subscriptions with QoS, services) of each."""
    with new_domain() as stack:
        world = World(bundle, stack)
        time_too = {"use_sim_time": True} if request.param else {}
        world.start(
            "recorder_node", record_dir=str(tmp_path_factory.mktemp("r") / "r"), **time_too
        )
        world.start("watchdog_node", **time_too)
        world.start("sim_node", **time_too)
        world.start("joystick_node", **time_too)
        world.start("master_node", **time_too)
        world.start("skill_node", **time_too)
        node = world.observer.node
        state = world.observer.heard["skill_node/state"]
        wait_for(lambda: state, 20.0, "skill_node")
        wait_for(lambda: set(NODES) <= set(node.get_node_names()), 20.0, node.get_node_names)
        found, before = look(node), None
        deadline = time.monotonic() + 20
        while found != before and time.monotonic() < deadline:  # until all have found each other
            before = found
            time.sleep(1.5)
            found = look(node)
        yield request.param, found


def look(node):
    publishers, subscriptions, services = (
        {name: set() for name in NODES},
        {name: {} for name in NODES},
        {name: set() for name in NODES},
    )
    for topic, _ in node.get_topic_names_and_types():
        short = topic.lstrip("/")
        for each in node.get_publishers_info_by_topic(topic):
            if owner := of(each.node_name):
                publishers[owner].add(short)
        for each in node.get_subscriptions_info_by_topic(topic):
            quality = each.qos_profile
            if owner := of(each.node_name):
                how = (quality.reliability.name, quality.durability.name)
                subscriptions[owner].setdefault(short, set()).add(how)
    for name, space in node.get_node_names_and_namespaces():
        for service, _ in node.get_service_names_and_types_by_node(name, space):
            if (owner := of(name)) and not SERVICES.search(service):
                services[owner].add(service.lstrip("/"))
    for name in NODES:
        publishers[name] = {
            topic for topic in publishers[name] if topic.rpartition("/")[2] not in EVERYONES
        }
    return publishers, subscriptions, services


def of(name):
    """Whose part a node is: `skill_node_safety` is one of skill_node."""
    return next((node for node in NODES if name == node or name.startswith(f"{node}_")), None)


def test_the_table_for_sros_is_what_the_nodes_have(graph):
    simulated, (publishers, subscriptions, services) = graph
    rows = table("security.md", "| node | publishes | subscribes | answers |")
    told = {row[0].partition(" ")[0]: row for row in rows}
    assert set(NODES) <= set(told)
    for node in NODES:
        _, publishes, subscribes, answers = told[node]
        assert names(publishes, node) == publishers[node], node
        heard = set(subscriptions[node])
        assert ("clock" in heard) is simulated, node  # in words: every node, with use_sim_time
        assert names(subscribes, node) == heard - {"clock"}, node
        assert names(answers, node) == services[node], node


def qualities(text):
    """The QoS of each subscription that a cell names."""
    found = set()
    for part in re.split(r"; (?=best|reliable)", text):
        reliability = "BEST_EFFORT" if part.startswith("best effort") else "RELIABLE"
        found.add((reliability, "TRANSIENT_LOCAL" if "transient local" in part else "VOLATILE"))
    return found


def test_the_table_of_subscriptions_is_what_the_nodes_have(graph):
    simulated, (_, subscriptions, _) = graph
    kinds = {
        "commands": COMMANDS,
        "sensors, the task's topics too": SENSORS,
        "sensors that measure commands": {"odom"},
        "sensors, commands": SENSORS | COMMANDS,
    }
    told = {name: {} for name in NODES}
    for who, topic, _, quality, _ in table(
        "safety.md", "| node | topic | kind | QoS | why it fits |"
    ):
        if "use_sim_time" in who and not simulated:
            continue
        if "in lockstep" in who or who.startswith("`mlsh"):  # not in this graph
            continue
        owners = [name for name in NODES if name in who] or list(NODES)
        for owner in owners:
            for name in kinds.get(topic) or names(topic):
                told[owner].setdefault(name, set()).update(qualities(quality))
    for node in NODES:
        assert told[node] == subscriptions[node], node


def test_the_script_of_the_tutorial_calls_a_service(bundle, tmp_path):
    page = (ROOT / "docs" / "tutorials" / "onto-the-robot.md").read_text()
    (code,) = re.findall(r'```python title="call.py"\n(.*?)```', page, re.DOTALL)
    with new_domain() as stack:
        World(bundle, stack).start("watchdog_node")
        done = subprocess.run(
            [sys.executable, "-c", code, "/watchdog_node/reset"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1, done.stderr  # refused, because there is
    assert "nothing to reset" in done.stdout
