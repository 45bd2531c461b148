"""The node graph: what it declares, how ROS's launch and `mlsh launch` start it, how it ends.

`launch` is part of a ROS installation and cannot be had from a package registry. Where it is not
installed, the launch files run against a stand-in that records what they declare.
"""

import ast
import importlib
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml

from mlsh_ros.bringup.graphs import GRAPHS, ROBOT, SIM, SOON
from mlsh_ros.bringup.network import (
    LAUNCHER,
    LOCAL,
    PROFILES,
    RANGE,
    RMW,
    localhost_environment,
    why_not_localhost,
)
from mlsh_ros.bringup.node_graph import RENAMED_ARGUMENTS, RESPAWN, Arg, NodeSpec
from mlsh_ros.bringup.params import NODES, RENAMED
from mlsh_ros.bringup.params_file import overrides_from_file
from mlsh_ros.bringup.process_launcher import _reason
from mlsh_ros.bringup.resolve_arguments import resolve_arguments
from policies.bundle.bundle import write_bundle
from policies.bundle.robot_compatibility import check_agrees
from sim.errors import UserError
from sim.interface.robot_file import ROBOTS, read_interface, robot_names
from tests.support.bundles import changed_robot, restless_bundle
from tests.support.changelog import renamed

TREE = Path(__file__).parents[2]
LAUNCH_FILES = sorted((TREE / "launch").iterdir())
# Arguments of no node's parameter; a robot's speed is nobody's.
FOR_THE_STARTER = {"namespace", "params_file", "log_level", "record", "use_respawn"}
FOR_THE_STARTER |= {"use_sim_time", "real_time_factor"}
OF_A_WORLD = [
    "task",
    "family",
    "seed",
    "sim_params",
    "auto_reset",
]  # arguments that only a simulation has
EXAMPLE = TREE / "config" / "params.example.yaml"
DT = 0.1  # s, a tick of omni
START_UP = 40.0  # s; DDS discovery alone takes up to five

graphs = pytest.mark.parametrize("graph", GRAPHS.values(), ids=list(GRAPHS))


# The graph as data -----------------------------------------------------------------------------


@graphs
def test_every_parameter_and_argument_exists_is_used_and_described(graph):
    arguments = {a.name: a for a in graph.arguments}
    assert len(arguments) == len(graph.arguments)
    used = set(FOR_THE_STARTER) | {n.when.name for n in graph.nodes if n.when}
    for node in graph.nodes:
        known = {param.name: param for param in NODES[node.executable]}
        assert set(node.parameters) <= set(known), f"{node.name} has no such parameter"
        for arg, implied in node.if_true.items():
            assert arguments[arg.name].choices == ("true", "false")
            assert all(type(known[name].default) is type(value) for name, value in implied.items())
            used.add(arg.name)
        for name, value in node.parameters.items():
            if not isinstance(value, Arg):
                assert type(value) is type(known[name].default)
                continue
            used.add(value.name)
            choices = arguments[value.name].choices
            if isinstance(known[name].default, bool):
                assert choices, f"{value.name} takes true or false and must say so"
                assert set(choices) <= {"true", "false"}
            if known[name].choices:
                assert choices
                assert set(choices) <= set(known[name].choices)
    assert used == set(arguments)
    for a in graph.arguments:
        assert len(a.description.split()) >= 3, f"{a.name} needs a description"
        assert a.description.endswith(".")
        assert not a.choices or a.default in a.choices
    graph.parameters(graph.resolve({}))  # the defaults hold


@graphs
def test_both_sides_get_the_same_bundle_mode_and_message_type(graph):
    for name in ("bundle", "mode", "enable_stamped_cmd_vel"):
        given = [n.parameters[name] for n in graph.nodes if _declares(n, name)]
        assert given
        assert set(given) == {Arg(name)}, f"{name} does not reach every node that has it"


def _declares(node: NodeSpec, name: str) -> bool:
    return any(param.name == name for param in NODES[node.executable])


def test_both_graphs_have_the_same_arguments_and_a_robot_fewer_choices():
    names = [a.name for a in ROBOT.arguments]
    assert [a.name for a in SIM.arguments] == names + OF_A_WORLD
    robot = {a.name: a for a in ROBOT.arguments}
    for a in SIM.arguments[: len(names)]:
        if a.name == "bundle":
            assert robot[a.name].required
            assert (robot[a.name].default, a.required) == ("", False)
        elif a != robot[a.name]:
            assert robot[a.name].choices == (robot[a.name].default,), a.name
    assert {n for n, a in robot.items() if len(a.choices) == 1} == {
        "auto_arm",
        "real_time_factor",
        "mode",
        "watchdog",
    }


def test_a_robot_never_starts_by_itself_and_follows_the_clock():
    parameters = ROBOT.parameters(ROBOT.resolve({}))
    assert parameters["skill_node"]["auto_arm"] is False
    assert parameters["skill_node"]["mode"] == "realtime"
    assert "sim_node" not in parameters
    others = (
        ("auto_arm", "true"),
        ("mode", "lockstep"),
        ("watchdog", "false"),
        ("real_time_factor", "5"),
    )
    for name, value in others:
        with pytest.raises(UserError, match=f"no value for {name} {value!r}"):
            ROBOT.resolve({name: value})


@graphs
def test_a_node_with_a_condition_is_started_when_its_argument_is_true(graph, stand_in, tmp_path):
    path = TREE / "launch" / f"{graph.name}.launch.py"
    always = [node.executable for node in graph.enabled_nodes(graph.resolve({}))]
    assert "recorder_node" not in always
    assert list(started(path)) == always
    given = {"record": "true", "record_dir": str(tmp_path / "new")}
    assert list(graph.parameters(graph.resolve(given))) == ["recorder_node", *always]
    handler, recorder = made(path, **given)
    assert recorder.kwargs["executable"] == "recorder_node"
    (on_io,) = handler.args
    assert on_io.kwargs["target_action"] is recorder
    # The others wait until it listens, however its words are cut into pieces.
    end, context = recorder.kwargs["on_exit"], Context({})
    killed = SimpleNamespace(process_name="recorder_node-1", returncode=-9)
    with pytest.raises(UserError, match="recorder_node ended with status -9"):
        end(killed, context)
    say, text = on_io.kwargs["on_stdout"], "loading\nrecording to x.mcap\n"
    assert say is on_io.kwargs["on_stderr"]
    assert say(SimpleNamespace(text=text[:15].encode())) is None
    later = say(SimpleNamespace(text=text[15:].encode()))
    assert [node.kwargs["executable"] for node in later] == always
    assert not say(SimpleNamespace(text=text.encode())), "started twice"
    assert end(killed, context) is None, "a robot drives on without a recorder"
    (parameters,) = recorder.kwargs["parameters"]
    assert parameters["record_dir"].args[0] == str(tmp_path / "new")
    for node in graph.nodes:
        if node.when is not None:
            choices = {a.name: a.choices for a in graph.arguments}[node.when.name]
            assert choices in (("true", "false"), ("true",))


def test_text_that_looks_like_a_number_stays_text():
    values = SIM.resolve({"master": "1", "bundle": "007", "seed": "7", "auto_reset": "false"})
    parameters = SIM.parameters(values)
    master = parameters["master_node"]
    assert (master["bundle"], master["master"]) == ("007", "1")
    assert parameters["sim_node"]["seed"] == 7
    assert parameters["sim_node"]["auto_reset"] is False


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("namspace", "bot1", "no argument 'namspace'. Did you mean 'namespace'? Valid: robot, "),
        ("mode", "fast", "no value for mode 'fast'. Valid: realtime, lockstep"),
        (
            "auto_reset",
            "True",
            "no value for auto_reset 'True'. Did you mean 'true'? Valid: true, false",
        ),
        ("seed", "abc", "argument seed: 'abc' is not a whole number"),
        ("seed", "1.5", "argument seed: '1.5' is not a whole number"),
        ("seed", "-1", "argument seed: -1 is below 0"),
        ("real_time_factor", "fast", "argument real_time_factor: 'fast' is not a number"),
        ("real_time_factor", "0.05", "argument real_time_factor: 0.05 is below 0.1"),
        ("real_time_factor", "21", "argument real_time_factor: 21.0 is above 20"),
        ("real_time_factor", "nan", "argument real_time_factor: nan is not finite"),
        ("use_respawn", "yes", "no value for use_respawn 'yes'. Valid: true, false"),
        ("use_sim_time", "True", "no value for use_sim_time 'True'. Did you mean 'true'? "),
        ("namespace", "bot-1", "namespace 'bot-1' is not valid; letters, digits, "),
        ("namespace", "fleet/1", "namespace 'fleet/1' is not valid; "),
        ("params_file", "/nowhere.yaml", "params_file /nowhere.yaml does not exist"),
    ],
)
def test_a_bad_argument_is_refused_in_one_line(name, value, message):
    with pytest.raises(UserError) as caught:
        SIM.parameters(SIM.resolve({name: value}))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "old", [old for old, new in RENAMED_ARGUMENTS.items() if new in SIM.resolve({})]
)
def test_a_former_argument_is_refused_with_its_new_name(old, stand_in, monkeypatch):
    new = RENAMED_ARGUMENTS[old]
    expected = f"^no argument '{old}'. It is now called '{new}'. Valid: robot, "
    with pytest.raises(UserError, match=expected):
        SIM.resolve({old: "false"})
    # `ros2 launch` takes any argument, and would drive without it.
    path = TREE / "launch" / "sim.launch.py"
    monkeypatch.setattr(sys, "argv", ["ros2", "launch", "mlsh_ros", path.name, f"{old}:=false"])
    with pytest.raises(UserError, match=expected):
        started(path, **{old: "false"})
    # Another launch file may have an argument of that name.
    monkeypatch.setattr(sys, "argv", ["ros2", "launch", "mine.launch.py", f"{old}:=false"])
    assert "sim_node" in started(path, **{old: "false"})
    assert {(f"``{old}{of}``", f"``{new}{of}``") for of in ("", ":=")} & renamed()


@graphs
def test_any_speed_but_the_clocks_makes_every_node_follow_simulated_time(graph):
    by_default = graph.parameters(graph.resolve({}))
    assert not any("use_sim_time" in parameters for parameters in by_default.values())
    told = [{"use_sim_time": "true"}] + [
        {"real_time_factor": "5"},
        {"real_time_factor": "0.5"},
    ] * graph.simulates
    for given in told:
        parameters = graph.parameters(graph.resolve(given))
        assert [p["use_sim_time"] for p in parameters.values()] == [True] * len(parameters)


def test_lockstep_has_no_speed():
    with pytest.raises(UserError, match=r"^argument real_time_factor: 5 is for mode realtime; "):
        SIM.parameters(SIM.resolve({"real_time_factor": "5", "mode": "lockstep"}))
    SIM.parameters(
        SIM.resolve({"real_time_factor": "1.0", "mode": "lockstep", "use_sim_time": "true"})
    )


def test_a_world_in_a_namespace_has_its_own_clock_a_robot_has_not():
    """Two worlds on one /clock would pull at each other's time; a robot's is somebody else's."""
    for namespace in ("a", "/a", "/a/"):
        assert SIM.remappings(SIM.resolve({"namespace": namespace})) == {"/clock": "/a/clock"}
    assert SIM.remappings(SIM.resolve({})) == SIM.remappings(SIM.resolve({"namespace": "/"})) == {}
    assert ROBOT.remappings(ROBOT.resolve({"namespace": "a"})) == {}


@graphs
def test_what_is_started_again_is_neither_the_world_nor_a_recording(graph):
    again = graph.resolve({"use_respawn": "true"})
    names = {node.name for node in graph.nodes if graph.respawns(node, again)}
    assert names == {"master_node", "watchdog_node", "joystick_node", "skill_node"}
    assert not any(graph.respawns(node, graph.resolve({})) for node in graph.nodes)


# Bundle, robot and task agree, or no node is started ---------------------------------------------


def settled(graph, **given):
    given = {"bundle": "moving_bandits", **given}
    return resolve_arguments(graph, graph.resolve(given))


def test_robot_and_task_are_the_bundles_where_nobody_says_otherwise():
    values = settled(SIM)
    assert (values["robot"], values["task"], values["master"]) == (
        "omni",
        "moving_bandits/goal-0",
        "",
    )
    assert settled(SIM, master="goal-1")["task"] == "moving_bandits/goal-1"
    values = settled(SIM, bundle="body_bandits")
    assert (values["robot"], values["task"]) == ("rover", "body_bandits/goal-0")
    assert settled(ROBOT, bundle="body_bandits")["robot"] == ""
    assert settled(ROBOT, bundle="body_bandits", robot="rover")["robot"] == "rover"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bundle": "nowhere"}, "no bundle 'nowhere'. Valid: ant_bandits, "),
        ({"master": "1"}, "no master '1'. Valid: goal-0, goal-1"),
        (
            {"robot": "nobody"},
            f"no robot 'nobody'. Valid: {', '.join(robot_names())}; or the path of a folder. The "
            "bundle is",
        ),
        ({"task": "moving_bandits"}, "task 'moving_bandits' names a family only. Valid: "),
        ({"task": "moving_bandits/goal-9"}, "no task 'moving_bandits/goal-9'. Did you mean "),
        (
            {"task": "rooms/corner-0"},
            "no master of bundle 'moving_bandits' was trained on task 'rooms/corner-0'. Valid: "
            "moving_bandits/goal-0 (goal-0), moving_bandits/goal-1 (goal-1); or name one as ",
        ),
        (
            {"task": "rooms/corner-0", "master": "goal-0"},
            "task 'rooms/corner-0' on robot 'omni' has no term 'goals', which bundle ",
        ),
        (
            {"robot": "rover"},
            "term 'position' of task 'moving_bandits/goal-0' on robot 'rover' is not ",
        ),
    ],
)
def test_a_world_that_does_not_fit_the_bundle_is_refused_in_one_line(given, message):
    with pytest.raises(UserError) as caught:
        settled(SIM, **given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def forged(bundle, path, **changes):
    """The bundle with another interface, written so that it holds in itself."""
    interface = bundle.interface
    if changes:
        action = (replace(interface.action[0], **changes), *interface.action[1:])
        interface = replace(interface, action=action)
    files = {name: data for name, data in bundle.files.items() if name != "manifest.json"}
    return write_bundle(replace(bundle.manifest, interface=interface), files, path).source


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"limit": (-2.0, 2.0)}, "base_velocity.limit[0] is -2.0 in the bundle and -1.0 there"),
        ({"rate_limit": 50.0}, "base_velocity.rate_limit is 50.0 in the bundle and 5.0 there"),
        ({"name": "base"}, "order of terms is 'base' in the bundle and 'base_velocity' there"),
    ],
)
def test_a_forged_interface_is_refused_by_a_robot_that_knows_itself(
    bundle, tmp_path, changes, key
):
    path = forged(bundle, tmp_path / "forged", **changes)
    settled(ROBOT, bundle=str(path))  # it holds in itself, and nobody knows better
    with pytest.raises(UserError) as caught:
        settled(ROBOT, bundle=str(path), robot="omni")
    assert str(caught.value).startswith(f"bundle 'restless' is not for the robot in {ROBOTS}")
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)
    settled(ROBOT, bundle=str(bundle.source), robot="omni")
    folder = tmp_path / "mine"  # of a robot's own computer: no model
    folder.mkdir()
    shutil.copy(ROBOTS / "omni" / "robot.yaml", folder)
    settled(ROBOT, bundle=str(bundle.source), robot=str(folder))
    with pytest.raises(UserError, match="robot is 'omni' in the bundle and 'rover' there"):
        settled(ROBOT, bundle=str(bundle.source), robot="rover")


@pytest.mark.parametrize("name", ["omni", "rover"])
def test_any_difference_of_an_interface_is_found(bundle, name):
    """Of every key of every term of the robot's own; a task family's are not the robot's."""
    own = read_interface(ROBOTS / name / "robot.yaml")
    family = tuple(t for t in bundle.interface.observation if t.mujoco.task)
    assert family

    def carries(interface):
        manifest = SimpleNamespace(name="b")
        return SimpleNamespace(manifest=manifest, interface=interface)

    check_agrees(carries(own.with_terms(family)), name)
    check_agrees(carries(own), name)
    terms = own.observation
    wrong = [
        replace(own, observation=(*family, *terms)),
        replace(own, observation=terms[::-1]),
        replace(own, observation=terms[1:]),
        replace(own, control_dt=own.control_dt * 2),
        replace(own, robot="other"),
        *(
            replace(
                own, observation=tuple(replace(t, **change) if t is each else t for t in terms)
            )
            for each in terms
            for change in ({"noise": each.noise + 1.0}, {"max_age": 9.0}, {"frame": "moon"})
        ),
    ]
    for interface in wrong:
        with pytest.raises(UserError, match=r"^bundle 'b' is not for the robot in "):
            check_agrees(carries(interface), name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/**/skill_node: {ros__parameters: {robot: ''}}", 'robot must stay "omni"'),
        ("/**: {ros__parameters: {bundle: nowhere}}", 'bundle must stay "moving_bandits"'),
        ("/bot1/skill_node: {ros__parameters: {bundle: b}}", "skill_node: bundle must stay"),
        (
            "/bot2/skill_node: {ros__parameters: {bundle: nowhere}}",
            "no node of this graph is at '/bot2/skill_node'. Valid: /**, /bot1/skill_node, ",
        ),
        ("bot1: {skill_node: {ros__parameters: {bundle: b}}}", "skill_node: bundle must stay"),
    ],
)
def test_a_parameter_file_cannot_avoid_the_comparison(tmp_path, text, said):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    given = {"robot": "omni", "namespace": "bot1", "params_file": str(path)}
    with pytest.raises(UserError, match=re.escape(said)):
        ROBOT.parameters(settled(ROBOT, **given))


@pytest.mark.parametrize(
    ("text", "given", "words"),
    [
        # One node for itself, where the others are at the default.
        ("skill_node: {ros__parameters: {bundle: rooms}}", {}, "bundle is "),
        ("watchdog_node: {ros__parameters: {bundle: rooms}}", {}, "bundle is "),
        ("sim_node: {ros__parameters: {robot: rover}}", {}, "robot is "),
        ("skill_node: {ros__parameters: {robot: rover}}", {}, "robot is "),
        ("skill_node: {ros__parameters: {use_sim_time: true}}", {}, "use_sim_time is "),
        ("master_node: {ros__parameters: {use_sim_time: true}}", {}, "use_sim_time is "),
        ("watchdog_node: {ros__parameters: {mode: lockstep}}", {}, "mode is "),
        (
            "sim_node: {ros__parameters: {enable_stamped_cmd_vel: false}}",
            {},
            "enable_stamped_cmd_vel is ",
        ),
        # Two sections.
        (
            "skill_node: {ros__parameters: {bundle: rooms}}\n"
            "watchdog_node: {ros__parameters: {bundle: body_bandits}}",
            {},
            'bundle is "body_bandits" for watchdog_node and "rooms" for skill_node',
        ),
        (
            "/**: {ros__parameters: {bundle: rooms}}\n"
            "skill_node: {ros__parameters: {bundle: body_bandits}}",
            {},
            "all nodes need the same: say it once, under /**, or as bundle:=",
        ),
        (
            "master_node: {ros__parameters: {task: moving_bandits/goal-0}}\n"
            "sim_node: {ros__parameters: {task: moving_bandits/goal-1}}",
            {},
            "task is ",
        ),
        # Against what was given, be it the default.
        (
            "/**: {ros__parameters: {bundle: rooms}}",
            {"bundle": "moving_bandits"},
            'bundle must stay "moving_bandits", as the argument says',
        ),
        ("sim_node: {ros__parameters: {seed: 5}}", {"seed": "0"}, "sim_node: seed must stay 0"),
        ("/**: {ros__parameters: {mode: lockstep}}", {"mode": "realtime"}, "mode must stay"),
        (
            "sim_node: {ros__parameters: {auto_reset: true}}",
            {"auto_reset": "false"},
            "auto_reset must stay false",
        ),
        (
            "/**: {ros__parameters: {use_sim_time: false}}",
            {"use_sim_time": "true"},
            "use_sim_time must stay true",
        ),
    ],
)
def test_the_nodes_of_a_graph_agree_with_each_other_and_the_arguments(
    tmp_path, text, given, words
):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        resolve_arguments(SIM, SIM.resolve({**given, "params_file": str(path)}), given)
    assert str(caught.value).startswith(f"params_file {path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_file_says_for_all_nodes_is_the_argument(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        "/**: {ros__parameters: {bundle: body_bandits, mode: lockstep, use_sim_time: true}}\n"
        "sim_node: {ros__parameters: {seed: 5}}\n"
    )
    values = resolve_arguments(SIM, SIM.resolve({"params_file": str(path), "seed": "5"}), {"seed"})
    assert (values["bundle"], values["mode"], values["robot"]) == (
        "body_bandits",
        "lockstep",
        "rover",
    )
    typed = SIM.parameters(values)
    assert {p["bundle"] for p in typed.values() if "bundle" in p} == {"body_bandits"}
    assert {p["mode"] for p in typed.values() if "mode" in p} == {"lockstep"}
    assert all(p["use_sim_time"] for p in typed.values())


def test_a_robot_gets_no_bundle_that_nobody_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("skill_node: {ros__parameters: {max_late_decisions: 5}}")
    for given in ({}, {"robot": "omni"}, {"params_file": str(path)}):
        with pytest.raises(UserError, match=r"^argument bundle must be given.* moving_bandits, "):
            resolve_arguments(ROBOT, ROBOT.resolve(given), given)
    assert resolve_arguments(SIM, SIM.resolve({}))["bundle"] == "moving_bandits"


@pytest.mark.parametrize("name", ["heavy", "./heavy", "moving_bandits", "omni"])
def test_a_recording_does_not_take_the_place_of_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    given = {"record": "true", "record_dir": name, "sim_params": "heavy", "robot": "omni"}
    with pytest.raises(UserError, match=rf"^record_dir {name}: its folder would stand where "):
        settled(SIM, **given)
    settled(SIM, **given | {"record_dir": "recording"})
    settled(SIM, **given | {"record": "false"})


def test_no_parameter_file_takes_a_node_out_of_simulated_time(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("/**/watchdog_node: {ros__parameters: {use_sim_time: false}}")
    given = {"params_file": str(path)}
    SIM.parameters(SIM.resolve(given))
    with pytest.raises(UserError, match="watchdog_node: use_sim_time must stay true"):
        SIM.parameters(SIM.resolve({**given, "real_time_factor": "5"}))


def test_a_robots_computer_needs_no_mujoco_and_a_simulation_says_that_it_does():
    code = """if True:
        import sys
        sys.modules["mujoco"] = None
        from mlsh_ros.bringup.graphs import ROBOT, SIM
        from mlsh_ros.bringup.resolve_arguments import resolve_arguments
        resolve_arguments(ROBOT, ROBOT.resolve({"robot": "omni", "bundle": "moving_bandits"}))
        import mlsh_ros.nodes.skill_node
        try:
            resolve_arguments(SIM, SIM.resolve({}))
        except ValueError as error:
            print(error)
    """
    pytest.importorskip("rclpy")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mujoco is not installed, which a simulation needs; pip install")


@pytest.mark.parametrize("namespace", ["", "/", "bot1", "/bot1", "fleet/bot_1", "/fleet/bot1/"])
def test_a_good_namespace_is_taken(namespace):
    assert SIM.resolve({"namespace": namespace})["namespace"] == namespace


# Parameter files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("skill_node: [", "not YAML: "),
        ("- 1", "a mapping is expected, got list"),
        ("", "a mapping is expected, got NoneType"),
        (
            "/bot1/skill_node: {ros__parameters: {max_late_decision: 5}}",
            "skill_node: no parameter 'max_late_decision'. Did you mean 'max_late_decisions'? ",
        ),
        (
            "bot1: {sim_node: {ros__parameters: {greedy: false}}}",
            "sim_node: no parameter 'greedy'. Did you mean 'seed'? Valid: autostart, ",
        ),
        (
            "/**: {ros__parameters: {auto_arm: true}}",
            "skill_node: auto_arm must stay false",
        ),
        (
            "/**/skill_node: {ros__parameters: {mode: lockstep}}",
            'skill_node: mode must stay "realtime"',
        ),
        (
            "/*: {ros__parameters: {mode: lockstep}}",
            'recorder_node: mode must stay "realtime"',
        ),
        (
            "skil_node: {ros__parameters: {max_late_decisions: 5}}",
            "no node of this graph is at 'skil_node'. Valid: /**, /skill_node, ",
        ),
        (
            "/r1/skill_node: {ros__parameters: {max_late_decisions: 5}}",
            "no node of this graph is at '/r1/skill_node'. Valid: /**, /skill_node, ",
        ),
        (
            "/*/skill_node: {ros__parameters: {max_late_decisions: 5}}",
            "no node of this graph is at '/*/skill_node'",
        ),
        ("/r1/**: {ros__parameters: {seed: 1}}", "no node of this graph is at '/r1/**'"),
        (
            "/**: {ros__parameters: {max_late_decison: 5}}",
            "/**: no parameter 'max_late_decison'. Did you mean 'max_late_decisions'?",
        ),
        (
            "/**/skill_node: {ros__parameters: {estop: true, estop: false}}",
            "not YAML: key 'estop' is given twice",
        ),
        (
            "skill_node: {max_late_decisions: 5}",
            "skill_node/max_late_decisions: ros__parameters is miss",
        ),
        ("skill_node: {ros__parameters: }", "skill_node: ros__parameters has no parameters"),
        ("skill_node: {ros__parameters: 5}", "skill_node: ros__parameters has no parameters"),
        ("skill_node: !!binary gIGC", "not YAML: tag 'binary' is not accepted"),
        ("a: " + "[" * 1000, "not YAML: nested too deeply"),
    ],
)
def test_a_bad_parameter_file_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        ROBOT.parameters(ROBOT.resolve({"params_file": str(path)}))
    assert str(caught.value).startswith(f"params_file {path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_former_parameter_is_refused_with_its_new_name(tmp_path, old, new):
    node = next(name for name, params in NODES.items() if new in [p.name for p in params])
    path = tmp_path / "params.yaml"
    for section in (f"/**/{node}", "/**"):
        path.write_text(f"{section}: {{ros__parameters: {{{old}: 1}}}}")
        with pytest.raises(UserError, match=f": no parameter '{old}'. It is now called '{new}'. "):
            SIM.parameters(SIM.resolve({"params_file": str(path)}))
    assert (f"``{old}``", f"``{new}``") in renamed()


def test_a_good_parameter_file_is_taken(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        "/**: {ros__parameters: {auto_arm: true, use_sim_time: true}}\n"
        "/bot1/skill_node: {ros__parameters: {max_late_decisions: 5, use_sim_time: true}}\n"
        "bot1: {sim_node: {ros__parameters: {real_time_factor: 5.0}}}\n"
        "/*/master_node: {ros__parameters: {seed: 5, qos_overrides./x.publisher.depth: 1}}\n"
    )
    SIM.parameters(SIM.resolve({"params_file": str(path), "namespace": "bot1"}))


@pytest.mark.parametrize("namespace", ["", "bot1", "fleet/bot1"])
@pytest.mark.parametrize(
    ("section", "reached"),
    [
        ("skill_node", ("",)),
        ("/skill_node", ("",)),
        ("/**/skill_node", ("", "bot1", "fleet/bot1")),
        ("**/skill_node", ("", "bot1", "fleet/bot1")),
        ("/*/skill_node", ("bot1",)),
        ("/bot1/skill_node", ("bot1",)),
        ("bot1/skill_node", ("bot1",)),
        ("/bot1/*", ("bot1",)),
        ("/bot1/**", ("bot1",)),
        ("/**", ("", "bot1", "fleet/bot1")),
        ("/fleet/**", ("fleet/bot1",)),
    ],
)
def test_a_section_reaches_the_nodes_that_ros_gives_it_to(tmp_path, namespace, section, reached):
    """As rclpy does; tried with its own nodes."""
    path = tmp_path / "params.yaml"
    path.write_text(f"'{section}': {{ros__parameters: {{bundle: rooms}}}}\n")
    said = overrides_from_file(str(path), namespace).get("skill_node", {})
    assert said == ({"bundle": ["rooms"]} if namespace in reached else {})


def test_the_example_file_documents_every_parameter():
    """Each parameter stands there once, at its default, under its description and range.

    Those that a launch argument gives are commented out: the file would contradict it.
    """
    entry = re.compile(r"    (# )?([a-z_]+): (\S+)$")
    sections: dict[str, dict[str, tuple[bool, object, str]]] = {}
    comment: list[str] = []
    for line in EXAMPLE.read_text().splitlines():
        if line.startswith("/**/"):
            current = sections.setdefault(line.removeprefix("/**/").rstrip(":"), {})
        elif match := entry.match(line):
            off, name, value = match.groups()
            assert name not in current
            current[name] = (bool(off), yaml.safe_load(value), " ".join(comment))
            comment = []
        elif line.startswith("    # "):
            comment.append(line.removeprefix("    # "))
        else:
            comment = []
    assert {node: list(found) for node, found in sections.items()} == {
        node: [param.name for param in params] for node, params in NODES.items()
    }
    nodes = {node.name: node.parameters for node in SIM.nodes}
    for node, params in NODES.items():
        for param in params:
            off, value, text = sections[node][param.name]
            assert value == param.default
            assert type(value) is type(param.default)
            assert text.startswith(param.description)
            if param.low is not None:
                assert f"From {param.low:.10g} to {param.high:.10g}." in text, param.name
            if param.choices:
                assert f"One of: {', '.join(param.choices)}." in text
            given = nodes[node].get(param.name)
            assert off == isinstance(given, Arg), param.name
            if isinstance(given, Arg):
                assert f"Launch argument: {given.name}." in text
            assert ("May change while the node runs" in text) == (not param.read_only)
    for graph in GRAPHS.values():
        graph.parameters(graph.resolve({"params_file": str(EXAMPLE)}))


# Launch files against a stand-in for `launch` --------------------------------------------------


class Recorded:
    """Any class of launch: remembers how it was made."""

    def __init__(self, *args, **kwargs):
        self.kind, self.args, self.kwargs = type(self).__name__, args, kwargs

    def perform(self, context):
        return context.launch_configurations[self.args[0]]


class Context:
    """A launch context with the values of arguments."""

    is_shutdown = False

    def __init__(self, values):
        self.launch_configurations = dict(values)


@pytest.fixture
def stand_in(monkeypatch):
    """`launch` and `launch_ros` replaced; returns the warnings that launch was asked to log."""
    warnings = []

    class Stand(ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (Recorded,), {})

    names = "", ".actions", ".events", ".events.process", ".substitutions", ".logging"
    names += (".event_handlers",)
    names = [f"launch{n}" for n in names]
    names += ["launch_ros", "launch_ros.actions", "launch_ros.parameter_descriptions"]
    for name in names:
        module = Stand(name)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)
    logger = SimpleNamespace(warning=warnings.append)
    sys.modules["launch.logging"].get_logger = lambda name: logger
    monkeypatch.delitem(sys.modules, "mlsh_ros.bringup.launch_description", raising=False)
    yield warnings
    sys.modules.pop("mlsh_ros.bringup.launch_description", None)
    vars(importlib.import_module("mlsh_ros")).pop("launching", None)


def described(path):
    """The actions of a launch file by kind."""
    description = runpy.run_path(str(path))["generate_launch_description"]()
    by_kind = {}
    for action in description.args[0]:
        by_kind.setdefault(action.kind, []).append(action)
    return by_kind


def started(path, **given):
    """The nodes that a launch file starts with these arguments, by executable."""
    return {node.kwargs["executable"]: node.kwargs for node in made(path, **given)}


def made(path, **given):
    """The actions that a launch file makes of these arguments."""
    actions = described(path)
    values = {a.args[0]: a.kwargs["default_value"] for a in actions["DeclareLaunchArgument"]}
    if values["bundle"] is None:
        values["bundle"] = "moving_bandits"  # launch wants it to be given
    (later,) = actions["OpaqueFunction"]
    return later.kwargs["function"](Context(values | given), *later.kwargs["args"])


def test_there_is_a_launch_file_for_every_graph_and_it_holds_nothing_else():
    assert [path.name for path in LAUNCH_FILES] == sorted(f"{n}.launch.py" for n in GRAPHS)
    for path in LAUNCH_FILES:
        tree = ast.parse(path.read_text())
        names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert names == {
            "launch",
            "mlsh_ros.bringup.graphs",
            "mlsh_ros.bringup.launch_description",
        }
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.Import)]


def test_a_simulation_is_confined_unless_the_user_has_said_otherwise():
    by_profile = {RANGE: "SYSTEM_DEFAULT", **dict.fromkeys(PROFILES, str(LOCAL))}
    assert localhost_environment({}) == localhost_environment({RANGE: "LOCALHOST"}) == by_profile
    assert localhost_environment(by_profile) == {}  # of a process that one of ours has started
    assert LOCAL.is_file()
    assert localhost_environment({RANGE: "SUBNET"}) == {}
    assert localhost_environment({PROFILES[0]: "mine.xml"}) == {RANGE: "LOCALHOST"}
    assert localhost_environment({RMW: "rmw_cyclonedds_cpp"}) == {RANGE: "LOCALHOST"}


def test_a_middleware_that_does_not_read_the_profile_is_refused(monkeypatch, tmp_path):
    environment = localhost_environment({})
    assert why_not_localhost(environment, "rmw_fastrtps_cpp") == ""
    refused = why_not_localhost(environment, "rmw_cyclonedds_cpp")
    assert refused.endswith("not rmw_cyclonedds_cpp; set ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST")
    assert why_not_localhost({RANGE: "SUBNET"}, "rmw_cyclonedds_cpp") == ""
    gone = tmp_path / "gone.xml"
    monkeypatch.setattr("mlsh_ros.bringup.network.LOCAL", gone)
    environment = {RANGE: "SYSTEM_DEFAULT", PROFILES[0]: str(gone)}
    assert why_not_localhost(environment, "rmw_fastrtps_cpp").startswith(f"{gone} is missing")


@graphs
def test_a_launch_file_declares_what_the_graph_says(graph, stand_in, monkeypatch):
    for name in localhost_environment({}):
        monkeypatch.delenv(name, raising=False)
    actions = described(TREE / "launch" / f"{graph.name}.launch.py")
    assert [
        (a.args[0], a.kwargs["default_value"], a.kwargs["description"], a.kwargs["choices"])
        for a in actions["DeclareLaunchArgument"]
    ] == [
        (a.name, None if a.required else a.default, a.description, list(a.choices) or None)
        for a in graph.arguments
    ]
    assert [a.name for a in graph.arguments if a.required] == ["bundle"] * (graph is ROBOT)
    # A simulation stays on this computer; where a real robot is, the user says.
    given = {a.args[0]: a.args[1] for a in actions.get("SetEnvironmentVariable", [])}
    assert given.pop(LAUNCHER) == str(os.getpid())  # with which the nodes end
    assert given == (localhost_environment({}) if graph is SIM else {})


@graphs
def test_a_launch_file_starts_the_nodes_of_the_graph(graph, stand_in):
    nodes = started(TREE / "launch" / f"{graph.name}.launch.py", master="goal-1", namespace="bot1")
    given = settled(graph, master="goal-1", namespace="bot1")
    expected = graph.parameters(given)
    chosen = graph.enabled_nodes(graph.resolve({}))
    assert list(nodes) == [node.executable for node in chosen]
    for node in chosen:
        made = nodes[node.executable]
        assert made["package"] == "mlsh_ros"
        assert (made["name"], made["namespace"]) == (node.name, "bot1")
        (parameters,) = made["parameters"]
        assert {k: v.args[0] for k, v in parameters.items()} == expected[node.name]
        # Without its type launch would make a number of master:=1.
        for value in parameters.values():
            assert value.kwargs["value_type"] is type(value.args[0])
    assert stand_in == []


def test_a_parameter_file_comes_after_the_arguments(stand_in):
    nodes = started(TREE / "launch" / "sim.launch.py", params_file=str(EXAMPLE))
    for made in nodes.values():
        assert made["parameters"][1:] == [str(EXAMPLE)]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", "abc", "'abc' is not a whole number"),
        ("namespace", "bot-1", "namespace 'bot-1' is not valid"),
        ("params_file", "/nowhere.yaml", "params_file /nowhere.yaml does not exist"),
    ],
)
def test_launch_refuses_before_it_starts_a_node(stand_in, name, value, message):
    with pytest.raises(UserError, match=message):
        started(TREE / "launch" / "sim.launch.py", **{name: value})


@graphs
def test_launch_starts_dead_nodes_again_if_it_is_asked_to(graph, stand_in, tmp_path):
    path = TREE / "launch" / f"{graph.name}.launch.py"
    record = {"record": "true", "record_dir": str(tmp_path / "new")}
    handler, recorder = made(path, use_respawn="true", **record)
    (on_io,) = handler.args
    rest = on_io.kwargs["on_stdout"](SimpleNamespace(text=b"recording to x.mcap"))
    for node in [recorder, *rest]:
        again = node.kwargs["executable"] not in ("recorder_node", "sim_node")
        assert node.kwargs["respawn"] == again
        soon = node.kwargs["executable"] == "master_node"  # it keeps nothing
        assert node.kwargs["respawn_delay"] == (SOON if soon else RESPAWN)
        # on_exit is called before launch starts it again, and would end the graph.
        assert (node.kwargs["on_exit"] is None) == again
    for node in started(path).values():
        assert not node["respawn"]
        assert node["on_exit"] is not None


@graphs
def test_launch_gives_a_world_its_own_clock(graph, stand_in):
    path = TREE / "launch" / f"{graph.name}.launch.py"
    own = [("/clock", "/a/clock")] if graph.simulates else []
    for node in started(path, namespace="a", use_sim_time="true").values():
        assert node["remappings"] == own
        assert node["parameters"][0]["use_sim_time"].args[0] is True
    assert all(node["remappings"] == [] for node in started(path).values())


@pytest.mark.parametrize(
    ("pushed", "namespace", "where"),
    [
        ("", "", ""),
        ("", "r1", "/r1"),
        ("/r1", "", "/r1"),
        ("r1", "", "/r1"),
        ("/fleet/r1", "", "/fleet/r1"),
        ("/fleet", "r1", "/fleet/r1"),
        ("/fleet", "/r1", "/r1"),
        ("/", "", ""),
    ],
)
@graphs
def test_a_parameter_file_is_judged_in_the_namespace_in_which_the_nodes_are(
    graph, stand_in, tmp_path, pushed, namespace, where
):
    """ROS ignores a section of another namespace: an emergency stop would be off without a word.

    Law: a file is accepted if and only if its section is where launch puts the nodes.
    """
    path, params = TREE / "launch" / f"{graph.name}.launch.py", tmp_path / "params.yaml"
    given = {"ros_namespace": pushed, "namespace": namespace, "params_file": str(params)}
    places = {"", "/r1", "/fleet", "/fleet/r1"}
    assert where in places
    for place in places:
        params.write_text(f"{place}/skill_node: {{ros__parameters: {{estop: true}}}}\n")
        if place != where:
            with pytest.raises(UserError, match=rf"no node of this graph is at '?{place}/skill"):
                started(path, **given)
            continue
        for node in started(path, **given).values():
            own = node["namespace"]  # launch_ros puts a relative one behind the pushed one
            absolute = own if own.startswith("/") else f"{pushed.rstrip('/')}/{own}"
            assert absolute.rstrip("/") == where
    # What the file says for all nodes is the argument, where the nodes are and only there.
    params.write_text(f"{where}/**: {{ros__parameters: {{mode: lockstep}}}}\n")
    if graph.simulates:
        modes = [node["parameters"][0].get("mode") for node in started(path, **given).values()]
        assert {mode.args[0] for mode in modes if mode is not None} == {"lockstep"}


def test_launch_warns_of_an_argument_that_it_would_ignore(stand_in, monkeypatch):
    """One of the command line; others are of a launch file that includes this one."""
    monkeypatch.setattr(
        sys, "argv", ["ros2", "launch", "namspace:=bot1", "of_another_launch_file:=1"]
    )
    started(
        TREE / "launch" / "sim.launch.py", namspace="bot1", of_another_launch_file="1", mastr="x"
    )
    assert stand_in == ["argument 'namspace' is not used. Did you mean 'namespace'?"]


def test_a_node_that_ends_ends_the_launch_and_shows_in_its_status(stand_in):
    on_exit = started(TREE / "launch" / "sim.launch.py")["skill_node"]["on_exit"]
    context = Context({})

    def event(status):
        return SimpleNamespace(process_name="skill_node-2", returncode=status)

    (action,) = on_exit(event(0), context)
    assert action.kind == "Shutdown"
    # launch's exit status is 1 after an exception, and only then.
    with pytest.raises(UserError, match="skill_node ended with status 1"):
        on_exit(event(1), context)
    context.is_shutdown = True
    assert on_exit(event(-2), context) is None


# Launch files with the real `launch` -----------------------------------------------------------


@pytest.mark.ros
@pytest.mark.realtime
def test_the_real_launch_runs_the_simulation(monkeypatch):
    # Not `launch` itself: without ROS, our folder launch/ answers to that name.
    pytest.importorskip("launch_ros", reason="not a ROS installation")
    index = pytest.importorskip("ament_index_python")
    try:
        share = Path(index.get_package_share_directory("mlsh_ros"))
    except (LookupError, OSError):
        pytest.skip("mlsh_ros is not built by colcon, or its install/setup.bash is not sourced")
    from launch import LaunchDescription, LaunchService
    from launch.actions import (
        EmitEvent,
        IncludeLaunchDescription,
        RegisterEventHandler,
        TimerAction,
    )
    from launch.event_handlers import OnProcessExit, OnProcessIO
    from launch.events import Shutdown
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    said, ended = [], {}

    def hear(event):
        said.append((event.process_name, event.text.decode()))
        running = "skill_node]: running" in said[-1][1]
        return [EmitEvent(event=Shutdown(reason="test"))] if running else None

    def note(event, context):
        ended[event.process_name.partition("-")[0]] = event.returncode

    included = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch" / "sim.launch.py")),
        launch_arguments={"namespace": "bot1", "mode": "lockstep", "master": "goal-1"}.items(),
    )
    too_late = EmitEvent(event=Shutdown(reason="too late"))
    service = LaunchService(noninteractive=True)
    service.include_launch_description(
        LaunchDescription(
            [
                RegisterEventHandler(OnProcessIO(on_stdout=hear, on_stderr=hear)),
                RegisterEventHandler(OnProcessExit(on_exit=note)),
                included,
                TimerAction(period=START_UP, actions=[too_late]),
            ]
        )
    )
    assert service.run() == 0
    text = "".join(line for _, line in said)
    assert "bot1.skill_node]: running" in text
    assert "active: master 'goal-1'" in text
    assert "lockstep" in text
    assert ended == {"skill_node": 0, "master_node": 0, "sim_node": 0}


# mlsh launch, over DDS -------------------------------------------------------------------------


MLSH = ("-m", "mlsh_ros.cli.main")
# As where python has file capabilities: the kernel sends no signal at the death of the parent.
MLSH_WITHOUT_DEATH_SIGNAL = (
    "-c",
    "from mlsh_ros.bringup import process_launcher; from mlsh_ros.cli.main import main; "
    "process_launcher._die_with_parent = lambda: None; main()",
)


class Up:
    """`mlsh launch` as a process of its own; ends with the `with` block."""

    def __init__(self, folder, *arguments, mlsh=MLSH):
        self.output = folder / "output.txt"
        self.arguments, self.mlsh = arguments, mlsh

    def __enter__(self):
        with self.output.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, *self.mlsh, "launch", *self.arguments],
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.nodes = set()
        return self

    def __exit__(self, *_):
        for pid in (self.process.pid, *self.nodes):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    @property
    def text(self):
        return self.output.read_text()

    def wait_for(self, line):
        deadline = time.monotonic() + START_UP
        while line not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)
        self.nodes |= children(self.process.pid)

    def end(self, number):
        self.nodes |= children(self.process.pid)
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


def children(pid):
    """Ids of the processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids, seconds):
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


@pytest.fixture
def watcher():
    """A node of ROS that keeps what it hears; `watcher(type, topic)` gives the list."""
    rclpy = pytest.importorskip("rclpy")
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("watcher")

    def watch(kind, topic, quality=1000):
        heard = []
        node.create_subscription(kind, topic, heard.append, quality)
        return heard

    def spin_until(happened):
        deadline = time.monotonic() + START_UP
        while not happened() and time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.1)
        return happened()

    watch.spin_until = spin_until
    yield watch
    node.destroy_node()
    rclpy.try_shutdown()


@pytest.mark.ros
@pytest.mark.realtime
def test_up_drives_in_a_namespace_and_ends_with_the_safe_command(bundle, tmp_path, watcher):
    from geometry_msgs.msg import TwistStamped
    from std_msgs.msg import Float64MultiArray

    commands = watcher(TwistStamped, "/bot1/cmd_vel")
    outcomes = watcher(Float64MultiArray, "/bot1/sim_node/outcome")
    arguments = (f"bundle:={bundle.source}", "namespace:=bot1", "task:=moving_bandits/goal-1")
    with Up(tmp_path, "sim", *arguments) as up:
        up.wait_for("[bot1.skill_node]: running")
        driven = watcher.spin_until(lambda: len(outcomes) >= 5 and len(commands) >= 5)
        assert driven, f"{len(commands)} commands, {len(outcomes)} outcomes\n{up.text}"
        assert any(speed(c) != 0 for c in commands)
        assert len(up.nodes) == 4
        assert up.end(signal.SIGINT) == 0, up.text
        assert wait_until_gone(up.nodes, 0.0), "a node outlived mlsh launch"
        assert watcher.spin_until(lambda: speed(commands[-1]) == 0)
    assert "moving_bandits/goal-1" in up.text
    assert up.text.rstrip().endswith("[bot1.skill_node]: disarmed")
    assert "Traceback" not in up.text


def test_bindings_that_no_node_could_use_are_refused_before_any_starts(tmp_path):
    file = tmp_path / "bindings.yaml"
    file.write_text(
        "schema: 2\nrobot: omni\nobservation:\n"
        "  position: {type: geometry_msgs/msg/Point, fields: [x, y]}\n"
    )
    said = f"{file}: topic 'odom' is given two message types: geometry_msgs/msg/Point, nav_msgs"
    for graph in (SIM, ROBOT):
        with pytest.raises(UserError, match=re.escape(said)):
            settled(graph, bundle="moving_bandits", bindings=str(file))


@pytest.mark.ros
@pytest.mark.realtime
def test_nodes_with_bindings_drive_on_other_topics_and_their_recording_replays_equal(
    bundle, tmp_path, watcher
):
    """All of them from one argument; what was recorded says so by itself."""
    from geometry_msgs.msg import Twist

    from mlsh_ros.recording.bag_reader import Recording
    from mlsh_ros.recording.replay import replay

    bindings = tmp_path / "bindings.yaml"
    bindings.write_text("""
schema: 2
robot: omni
observation:
  position: {topic: base/odom}
  velocity: {topic: base/odom}
action:
  base_velocity:
    topic: base/cmd
    type: geometry_msgs/msg/Twist
    fields: [linear.x, linear.y]
""")
    commands = watcher(Twist, "/base/cmd")
    bag = tmp_path / "bag"
    arguments = f"bundle:={bundle.source}", f"bindings:={bindings}", "record:=true"
    with Up(tmp_path, "sim", *arguments, f"record_dir:={bag}") as up:
        up.wait_for("[skill_node]: running")
        assert watcher.spin_until(lambda: len(commands) > 10), up.text
        assert up.end(signal.SIGINT) == 0, up.text
    recording = Recording(bag)
    topics = {entry.topic for entry in recording.entries()}
    assert topics >= {"base/odom", "base/cmd"}
    assert not topics & {"odom", "cmd_vel"}
    result = replay(Recording(bag), bundle)
    assert result.ticks > 10
    assert result.equal
    assert not result.unseen


def speed(command):
    return abs(command.twist.linear.x) + abs(command.twist.linear.y)


@pytest.mark.ros
@pytest.mark.realtime
def test_up_robot_does_not_move_before_it_is_told_to(bundle, tmp_path, watcher):
    from geometry_msgs.msg import TwistStamped

    commands = watcher(TwistStamped, "/cmd_vel")
    with Up(tmp_path, "robot", f"bundle:={bundle.source}") as up:
        up.wait_for("[skill_node]: disarmed")
        end = time.monotonic() + 3.0
        watcher.spin_until(lambda: time.monotonic() > end)
        assert len(up.nodes) == 3
        assert up.end(signal.SIGTERM) == 0, up.text
        assert wait_until_gone(up.nodes, 0.0)
    assert commands == []
    assert "running" not in up.text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("sim", "bundle:=nowhere"), "no bundle 'nowhere'. Valid: "),
        (("sim", "task:=rooms/corner-0"), "no master of bundle 'moving_bandits' was trained on "),
        (
            ("robot", "bundle:=moving_bandits", "robot:=rover"),
            "bundle 'moving_bandits' is not for the robot in ",
        ),
        (("robot",), "argument bundle must be given, as bundle:=NAME or a path: "),
        (("robot", "robot:=omni"), "argument bundle must be given, as bundle:=NAME or a path: "),
    ],
)
def test_up_refuses_what_does_not_fit_before_it_starts_a_node(
    mlsh, monkeypatch, arguments, reason
):
    pytest.importorskip("rclpy")
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *_, **__: pytest.fail("started"))
    code, out, err = mlsh("launch", *arguments)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith(f"error: {reason}")


def test_a_process_of_up_that_refuses_ends_by_itself(tmp_path):
    pytest.importorskip("rclpy")
    with Up(tmp_path, "sim", "bundle:=nowhere") as up:
        assert up.process.wait(timeout=START_UP) == 1, up.text
    (line,) = up.text.splitlines()
    assert line.startswith("error: no bundle 'nowhere'. Valid: ")


@pytest.mark.ros
@pytest.mark.realtime
def test_up_says_why_a_node_does_not_start(bundle, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("/**/skill_node: {ros__parameters: {start_timeout: 99.0}}")
    with Up(tmp_path, "sim", f"bundle:={bundle.source}", f"params_file:={path}") as up:
        assert up.process.wait(timeout=START_UP) == 1, up.text
    assert "Traceback" not in up.text
    assert up.text.splitlines()[-1].startswith("error: skill_node ended with status 1: ")
    assert "start_timeout" in up.text.splitlines()[-1]


# `mlsh launch robot` with scripts of the current test in place of the nodes.
WITH_STAND_INS = (
    "-c",
    """
import dataclasses
from mlsh_ros.bringup import graphs
from mlsh_ros.bringup.node_graph import NodeSpec
from mlsh_ros.cli.main import main

class StandIn(NodeSpec):
    module = property(lambda self: f"stand_in_{self.executable}")

recorder = StandIn("recorder_node", ready_message="recording to ", required=False)
nodes = recorder, StandIn("master_node"), StandIn("skill_node")
graphs.GRAPHS["robot"] = dataclasses.replace(graphs.ROBOT, nodes=nodes)
main()
""",
)
WAITS = "import time; print('{}', flush=True); time.sleep(60)"
ENDS_BADLY = """
import signal, sys, time
def end(*_):
    print("[ERROR] [1.5] [recorder_node]: end: the disk is full", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
print("recording to bag", flush=True)
time.sleep(60)
"""


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Starts them; gets the text of each script."""
    pytest.importorskip("rclpy")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)

    def start(**scripts):
        for name, text in scripts.items():
            (tmp_path / f"stand_in_{name}.py").write_text(text)
        return Up(tmp_path, "robot", "bundle:=moving_bandits", mlsh=WITH_STAND_INS)

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_heard_while_nodes_are_being_started(stand_ins, number):
    """A recorder whose disk does not answer would be waited for; then all others were started."""
    scripts = dict.fromkeys(("master_node", "skill_node"), WAITS.format("started"))
    with stand_ins(recorder_node=WAITS.format("hangs"), **scripts) as up:
        up.wait_for("[recorder_node] hangs")
        began = time.monotonic()
        assert up.end(number) == 0, up.text
        assert time.monotonic() - began < 10.0  # START_UP of the launcher is 30 s
        assert wait_until_gone(up.nodes, 0.0)
    assert "started" not in up.text


def test_a_node_that_fails_at_its_end_is_named_and_shows_in_the_status(stand_ins):
    scripts = dict.fromkeys(("master_node", "skill_node"), WAITS.format("started"))
    with stand_ins(recorder_node=ENDS_BADLY, **scripts) as up:
        up.wait_for("[skill_node] started")
        assert up.end(signal.SIGINT) == 1, up.text
    assert up.text.splitlines()[-1] == "recorder_node ended with status 3: end: the disk is full"
    # The others had no time to listen: they ended by the signal, which is no failure.
    assert "skill_node ended" not in up.text


def test_a_node_that_has_to_be_killed_is_named(monkeypatch, tmp_path):
    pytest.importorskip("rclpy")
    from mlsh_ros.bringup.process_launcher import Processes

    class StandIn(NodeSpec):
        module = property(lambda self: self.executable)

    stays = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAITS.format("here")
    (tmp_path / "skill_node.py").write_text(stays)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("mlsh_ros.bringup.process_launcher.grace", lambda values: 0.3)
    graph = replace(ROBOT, nodes=(StandIn("skill_node", ready_message="here"),))
    arguments, said = {"bundle": "moving_bandits"}, []
    with Processes(graph, arguments, lambda *line: said.append(line)) as processes:
        assert processes.failures == []
    assert said == [("skill_node", "here")]
    assert processes.failures == ["skill_node did not end by itself and was killed"]


def test_an_error_that_was_got_over_is_no_reason():
    old = (80.0, "[ERROR] [1.0] [skill_node]: fault: watchdog: tripped: command stood")
    assert _reason([old, (99.0, "error: no bundle 'x'"), (99.1, "bye")], 95.0) == "no bundle 'x'"
    assert _reason([old, (99.0, "[INFO] [2.0] [skill_node]: disarmed")], 95.0) == "disarmed"
    assert _reason([old], 95.0) == _reason([], 95.0) == "no output in its last 5 s"
    # Where another node took long to end, the last seconds of this one are before that.
    assert _reason([old], 75.0) == "fault: watchdog: tripped: command stood"


@pytest.mark.ros
@pytest.mark.realtime
def test_who_was_killed_has_said_no_reason(bundle, tmp_path):
    with Up(tmp_path, "sim", f"bundle:={bundle.source}", "namespace:=victim") as up:
        up.wait_for("[victim.skill_node]: running")
        (victim,) = (p for p in up.nodes if named(p, "skill_node"))
        os.kill(victim, signal.SIGKILL)
        assert up.process.wait(timeout=20) == 1
    assert up.text.splitlines()[-1] == "error: skill_node ended with SIGKILL"


@pytest.mark.ros
@pytest.mark.realtime
def test_two_worlds_in_one_domain_go_their_own_ways_and_the_dead_come_back(tmp_path, watcher):
    """Each has its topics, its robot and its time; one loses a node, the other does not notice."""
    from geometry_msgs.msg import TwistStamped
    from rosgraph_msgs.msg import Clock
    from std_msgs.msg import Float64MultiArray, String

    from mlsh_ros.nodes.node import LATCHED

    # Ten processes begin while others drive: who hears whom is asked here, not how soon.
    robot = changed_robot(tmp_path / "patient", "omni", ("max_age: 0.3", "max_age: 2.0"))
    bundle = restless_bundle(tmp_path / "restless", robot=robot)
    params = tmp_path / "params.yaml"
    patient = "max_late_decisions: 50, max_missed_ticks: 50"
    params.write_text(f"/**/skill_node: {{ros__parameters: {{{patient}}}}}")
    names, speeds = ("a", "b"), {"a": 0.75, "b": 1.5}
    commands = {n: watcher(TwistStamped, f"/{n}/cmd_vel") for n in names}
    outcomes = {n: watcher(Float64MultiArray, f"/{n}/sim_node/outcome") for n in names}
    clocks = {n: watcher(Clock, f"/{n}/clock") for n in names}
    states = {n: watcher(String, f"/{n}/skill_node/state", LATCHED) for n in names}
    everybodys = watcher(Clock, "/clock")
    with ExitStack() as stack:
        ups = {}
        for name in names:
            (tmp_path / name).mkdir()
            arguments = f"bundle:={bundle.source}", f"namespace:=/{name}", "use_respawn:=true"
            arguments += f"robot:={robot}", f"params_file:={params}"
            fast = f"real_time_factor:={speeds[name]}"
            ups[name] = stack.enter_context(Up(tmp_path / name, "sim", *arguments, fast))
        for name, up in ups.items():
            up.wait_for(f"[{name}.skill_node]: running")
        driven = watcher.spin_until(lambda: all(len(outcomes[n]) >= 10 for n in names))
        assert driven, [(len(outcomes[n]), states[n], up.text) for n, up in ups.items()]
        assert any(speed(c) != 0 for n in names for c in commands[n])
        began = {n: (seconds(clocks[n][-1].clock), time.monotonic()) for n in names}

        def pace(name):
            then, wall = began[name]
            return (seconds(clocks[name][-1].clock) - then) / (time.monotonic() - wall)

        # A simulation that other processes held up catches up, and what this process hears may
        # have waited for it: both are over after a while, and a wrong pace is not.
        end = time.monotonic() + 2.0
        watcher.spin_until(lambda: time.monotonic() > end)
        near = {n: pytest.approx(wanted, rel=0.25) for n, wanted in speeds.items()}
        kept = watcher.spin_until(lambda: all(pace(n) == near[n] for n in names))
        assert kept, {n: pace(n) for n in names}
        for name in names:
            told = np.array([seconds(c.clock) for c in clocks[name]])
            assert (np.diff(told) > 0).all()  # of one clock only
            assert len(commands[name]) > 20, f"{states[name]}\n{ups[name].text}"
            between = np.diff([seconds(c.header.stamp) for c in commands[name][5:]])
            assert between.mean() == pytest.approx(DT, rel=0.05)  # ticks of its own time
            assert (between >= 0).all()
        assert everybodys == []
        # A dead skill_node comes back, and does not move; the other world goes on.
        (victim,) = (p for p in ups["a"].nodes if named(p, "skill_node"))
        os.kill(victim, signal.SIGKILL)
        ups["a"].wait_for("skill_node ended with SIGKILL")
        ups["a"].wait_for("started again in 2 s")
        ups["a"].wait_for("tripped: command (")
        assert watcher.spin_until(lambda: speed(commands["a"][-1]) == 0)
        for heard in (*outcomes.values(), *commands.values(), *states.values()):
            heard.clear()
        assert watcher.spin_until(lambda: len(states["a"]) >= 1), ups["a"].text
        assert [s.data for s in states["a"]] == ["disarmed"]
        assert commands["a"]
        assert all(speed(c) == 0 for c in commands["a"])
        assert watcher.spin_until(lambda: len(outcomes["b"]) >= 20)
        assert states["b"] == []
        assert ups["b"].process.poll() is None
        # Without its world a graph is of no use.
        ups["a"].nodes |= children(ups["a"].process.pid)
        (world,) = (p for p in ups["a"].nodes if named(p, "sim_node"))
        os.kill(world, signal.SIGKILL)
        assert ups["a"].process.wait(timeout=20) == 1
        assert "error: sim_node ended with SIGKILL" in ups["a"].text
        assert ups["b"].end(signal.SIGINT) == 0, ups["b"].text


def seconds(stamp):
    return stamp.sec + stamp.nanosec * 1e-9


def named(pid, name):
    try:
        return f"mlsh_ros.nodes.{name}" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


@pytest.mark.ros
@pytest.mark.realtime
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process of its parent's death")
@pytest.mark.parametrize("mlsh", [MLSH, MLSH_WITHOUT_DEATH_SIGNAL])
def test_no_node_outlives_an_up_that_is_killed(bundle, tmp_path, mlsh):
    """A robot would drive on with nobody to stop it."""
    pytest.importorskip("rclpy")
    from tests.support.nodes import DT, Observer, assert_ended_at_rest, new_domain, tell

    # Told by the kernel at once, or looked up every 0.2 s.
    bound, how = (DT, "death signal") if mlsh is MLSH else (0.2 + DT, "no death signal")
    arguments = ("sim", f"bundle:={bundle.source}", "namespace:=killed")
    with new_domain() as stack:
        observer = Observer(bundle, namespace="killed")
        stack.callback(observer.close)
        up = stack.enter_context(Up(tmp_path, *arguments, mlsh=mlsh))
        up.wait_for("[killed.skill_node]: running")
        observer.wait_until_it_moves()
        nodes = up.nodes
        assert len(nodes) == 4
        since = time.monotonic()
        up.end(signal.SIGKILL)
        cause = f"mlsh launch killed -9 ({how})"
        tell([assert_ended_at_rest(observer, cause, since, bound, "the end of all nodes")])
        assert wait_until_gone(nodes, 10.0)
