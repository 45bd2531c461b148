"""Recordings (MCAP, rosbag2): writing, reading, checking and replaying them."""
