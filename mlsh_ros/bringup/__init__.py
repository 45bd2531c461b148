"""Which nodes are started, with which parameters, by `ros2 launch` or by `mlsh`."""
