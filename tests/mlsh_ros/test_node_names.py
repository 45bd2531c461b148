"""Nodes do not take the names of what rclpy keeps in a node."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rclpy
from rclpy.lifecycle import LifecycleNode

import mlsh_ros.nodes

FILES = sorted(Path(mlsh_ros.nodes.__file__).parent.glob("*.py"))
CALLBACKS = {f"on_{name}" for name in ("activate", "cleanup", "configure", "deactivate")}
MEANT = {"__init__", "on_shutdown", *CALLBACKS}


def test_no_node_overwrites_what_rclpy_keeps():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = LifecycleNode("bare", context=context)
    taken = {*vars(node), *dir(LifecycleNode)} - MEANT
    node.destroy_node()
    context.shutdown()
    classes = [c for c in _classes() if _is_node(c)]
    assert {c.name for c in classes} >= {"CoreNode", "SkillNode", "SimNode", "WatchdogNode"}
    found = {c.name: sorted(_names(c) & taken) for c in classes}
    assert {name: both for name, both in found.items() if both} == {}


@pytest.mark.parametrize("line", ["self._services = 1", "self._timers: list = []"])
def test_an_overwritten_name_would_be_found(line):
    tree = ast.parse(f"class Mine(CoreNode):\n    def __init__(self):\n        {line}\n")
    (mine,) = tree.body
    assert _is_node(mine)
    assert _names(mine) & {"_services", "_timers"}


def _classes():
    for file in FILES:
        yield from (c for c in ast.parse(file.read_text()).body if isinstance(c, ast.ClassDef))


def _is_node(found):
    return any(getattr(base, "id", "") in ("CoreNode", "LifecycleNode") for base in found.bases)


def _names(found):
    """Methods, and attributes of `self` that are assigned."""
    methods = {m.name for m in found.body if isinstance(m, ast.FunctionDef)}
    stored = {
        node.attr
        for node in ast.walk(found)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and getattr(node.value, "id", "") == "self"
    }
    return methods | stored


def test_a_node_does_not_load_a_window_library():
    code = "import mlsh_ros.nodes.sim_node, sys; print('glfw' in sys.modules)"
    said = []
    for name in ("sim_node", "a_tool"):
        start = f"import sys; sys.argv[0] = '{name}'; {code}"
        env = {k: v for k, v in os.environ.items() if k != "MUJOCO_GL"}
        said.append(subprocess.check_output([sys.executable, "-c", start], text=True, env=env))
    assert said == ["False\n", "True\n"]
