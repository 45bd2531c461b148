"""ROS 2 nodes: they convert messages, call the core, and convert back."""

from mlsh_ros.bringup.import_check import require_one_root

require_one_root()  # before any of them imports sim or policies
