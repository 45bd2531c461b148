"""Deployment: thin ROS 2 nodes over a core that knows no ROS."""
