"""The control tick and its safety: controller, monitor, supervisor, gate. Imports no ROS."""
