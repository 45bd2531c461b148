"""ROS messages as data: topics, types, fields, conversion. Imports no ROS."""
