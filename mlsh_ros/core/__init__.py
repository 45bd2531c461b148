"""What the nodes do, without ROS: no rclpy, torch or mujoco is imported here."""
