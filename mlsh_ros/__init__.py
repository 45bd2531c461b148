"""Deployment: ROS 2 nodes over a control package that does not import ROS."""
