"""Node graphs, their parameters and arguments, for `ros2 launch` and for `mlsh`."""
