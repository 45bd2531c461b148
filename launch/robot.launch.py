"""The policy alone, for a real robot: ros2 launch mlsh_ros robot.launch.py --show-args."""

from launch import LaunchDescription

from mlsh_ros.graph import ROBOT
from mlsh_ros.launching import describe


def generate_launch_description() -> LaunchDescription:
    """Everything stands in mlsh_ros.graph."""
    return describe(ROBOT)
