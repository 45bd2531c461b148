"""The two node graphs: a policy on a robot, and with the simulator in its place."""

from __future__ import annotations

from mlsh_ros.bringup.node_graph import BOOL, USE_SIM_TIME, Arg, Argument, Graph, NodeSpec
from mlsh_ros.bringup.params import MODES
from mlsh_ros.control.joystick import PROFILES

SOON = 0.2  # s; master_node keeps nothing, and skill_node waits a few macro steps only


def _arguments(
    *own: Argument,
    bundle: Argument,
    auto_arm: Argument,
    real_time_factor: Argument,
    mode: Argument,
    watchdog: Argument,
) -> tuple[Argument, ...]:
    """Returns the arguments that every graph has, in one order; then its own."""
    return (
        Argument(
            "robot",
            "",
            "Robot that the bundle must be for: a shipped one by name, or a folder; empty: the "
            "bundle's.",
        ),
        bundle,
        Argument(
            "bindings",
            "",
            "File of bindings: topics, message types and fields in place of the bundle's.",
        ),
        Argument("master", "", "Master of the bundle; empty: of the task, or the first."),
        Argument(
            "greedy",
            "true",
            "Select the most probable skill; false: sample it from the softmax of the master.",
            BOOL,
        ),
        Argument("namespace", "", "Namespace of all nodes and topics."),
        Argument(
            "params_file",
            "",
            "YAML file with node parameters; refused where it contradicts an argument that was "
            "given. See config/params.example.yaml.",
        ),
        Argument(
            USE_SIM_TIME,
            "false",
            "Ticks, ages and stamps follow /clock, which a simulator publishes.",
            BOOL,
        ),
        auto_arm,
        Argument("record", "false", "Record all topics of the nodes to an MCAP file.", BOOL),
        Argument(
            "record_dir",
            "",
            "Folder of the recording; it must not exist. Empty: named by time, in the working "
            "directory.",
        ),
        Argument(
            "log_level",
            "info",
            "Log level of all nodes.",
            ("debug", "info", "warn", "error", "fatal"),
        ),
        Argument(
            "use_respawn",
            "false",
            "Start master_node, watchdog_node, skill_node and joystick_node again when they have "
            "ended.",
            BOOL,
        ),
        real_time_factor,
        Argument(
            "enable_stamped_cmd_vel",
            "true",
            "Velocity commands are TwistStamped; false: Twist.",
            BOOL,
        ),
        mode,
        watchdog,
        Argument(
            "joystick",
            "false",
            "Start joystick_node: the robot moves only while a button of the joystick is held.",
            BOOL,
        ),
        Argument(
            "joystick_profile",
            "game_controller",
            "Order of the joystick's buttons: that of game_controller_node of the package joy, or "
            "of joy_node with such a pad.",
            tuple(PROFILES),
        ),
        *own,
    )


def _args(*names: str) -> dict[str, Arg]:
    """Returns parameters that have the values of the arguments of the same names."""
    return {name: Arg(name) for name in names}


# Neither recorder_node nor sim_node is started again: a recording is never written over, and a
# world that begins anew is another one, whose time goes back.
RECORDER = NodeSpec(
    "recorder_node",
    _args("bundle", "bindings", "mode", "enable_stamped_cmd_vel", "record_dir"),
    when=Arg("record"),
    # First it listens: what cannot be recorded is not driven, and no tick is missed.
    ready_message="recording to ",
    # A robot does not stop when its recorder fails.
    required=False,
)
_WATCHDOG = NodeSpec(
    "watchdog_node",
    _args("bundle", "bindings", "mode", "enable_stamped_cmd_vel"),
    when=Arg("watchdog"),
    respawn=True,
)
_SKILLS = NodeSpec(
    "skill_node",
    {
        **_args("bundle", "bindings", "robot", "enable_stamped_cmd_vel", "mode"),
        **_args("auto_arm", "watchdog"),
        "require_recorder": Arg("record"),
    },
    # The silence of joystick_node is a fault, and a person starts.
    if_true={Arg("joystick"): {"estop": True, "auto_arm": False}},
    respawn=True,
)
_JOYSTICK = NodeSpec(
    "joystick_node", _args("bundle", "joystick_profile"), when=Arg("joystick"), respawn=True
)


def _master(*names: str) -> NodeSpec:
    return NodeSpec("master_node", _args(*names), respawn=True, respawn_delay=SOON)


ROBOT = Graph(
    name="robot",
    description="A policy on a real robot; it does not move before ~/arm and ~/start are called.",
    arguments=_arguments(
        bundle=Argument(
            "bundle",
            "",
            "Bundle: a shipped one by name, or a folder or zip file.",
            required=True,
        ),
        auto_arm=Argument(
            "auto_arm", "false", "A robot never starts to move by itself.", ("false",)
        ),
        real_time_factor=Argument("real_time_factor", "1", "Always 1 on a robot.", ("1",)),
        mode=Argument("mode", "realtime", "Always realtime on a robot.", ("realtime",)),
        watchdog=Argument("watchdog", "true", "watchdog_node always runs on a robot.", ("true",)),
    ),
    nodes=(
        RECORDER,
        _master("bundle", "master", "greedy"),
        _WATCHDOG,
        _JOYSTICK,
        _SKILLS,
    ),
)
SIM = Graph(
    name="sim",
    description="A policy with a MuJoCo simulation of the robot.",
    arguments=_arguments(
        Argument(
            "task", "", "Task, as family/task; empty: the one that the master was trained for."
        ),
        Argument(
            "family",
            "",
            "Task family of your own, which sim_node imports: package.module:Class or FILE.py.",
        ),
        Argument("seed", "0", "Random seed of the episodes, for example of the places of goals."),
        Argument(
            "sim_params",
            "",
            "Sim parameters: a name shipped with the robot, or a YAML file.",
        ),
        Argument("auto_reset", "true", "Begin the next episode automatically.", BOOL),
        bundle=Argument(
            "bundle", "moving_bandits", "Bundle: a shipped one by name, or a folder or zip file."
        ),
        auto_arm=Argument(
            "auto_arm",
            "true",
            "Arm and start as soon as all sensors and the master are available.",
            BOOL,
        ),
        real_time_factor=Argument(
            "real_time_factor",
            "1",
            "Simulated seconds per second, 0.1 to 20, in realtime; not 1: needs use_sim_time.",
        ),
        mode=Argument("mode", "realtime", "realtime; lockstep: as fast as possible.", MODES),
        watchdog=Argument(
            "watchdog",
            "true",
            "Start watchdog_node; skill_node then arms only while it is active.",
            BOOL,
        ),
    ),
    nodes=(
        RECORDER,
        _master("bundle", "master", "greedy", "task"),
        _WATCHDOG,
        _JOYSTICK,
        _SKILLS,
        NodeSpec(
            "sim_node",
            _args(
                *("robot", "bundle", "bindings", "family", "task", "seed", "sim_params", "mode"),
                *("real_time_factor", "auto_reset", "enable_stamped_cmd_vel"),
            ),
        ),
    ),
)
GRAPHS = {graph.name: graph for graph in (SIM, ROBOT)}
