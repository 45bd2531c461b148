"""MuJoCo as the robot, with the policy: ros2 launch mlsh_ros sim.launch.py --show-args."""

from launch import LaunchDescription

from mlsh_ros.graph import SIM
from mlsh_ros.launching import describe


def generate_launch_description() -> LaunchDescription:
    """Everything stands in mlsh_ros.graph."""
    return describe(SIM)
