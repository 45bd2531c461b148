"""ROS 2 nodes: they convert messages, call the control package, and convert back."""

import os
import signal
import sys

from mlsh_ros.bringup.import_check import require_one_root

_NODES = ("skill_node", "master_node", "watchdog_node", "sim_node", "recorder_node")

# A process that is to be a node imports for a second before `node.run` listens to signals; until
# then Ctrl-C just ends it. Whoever else imports this package keeps a handler of their own.
_started = os.path.basename(sys.argv[0]) in _NODES or any(
    argument.startswith("mlsh_ros.nodes.") for argument in sys.orig_argv[1:]
)
if _started and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
# No node draws. Importing mujoco otherwise asks for the version of GLFW in a process of its own,
# which takes time and shows a traceback where the node is ended meanwhile.
if _started:
    os.environ.setdefault("MUJOCO_GL", "disable")

require_one_root()  # before any of them imports sim or policies
