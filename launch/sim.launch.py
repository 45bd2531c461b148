"""MuJoCo as the robot, with the policy: ros2 launch mlsh_ros sim.launch.py --show-args."""

from launch import LaunchDescription

from mlsh_ros.bringup.graphs import SIM
from mlsh_ros.bringup.launch_description import build_launch_description


def generate_launch_description() -> LaunchDescription:
    """Everything stands in mlsh_ros.bringup.graphs."""
    return build_launch_description(SIM)
