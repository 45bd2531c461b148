"""A robot with a floating base."""

import json
from pathlib import Path

import yaml

from sim.interface import Interface, interface_from_dict
from sim.physics.robot_model import Robot, load_robot

# A body that floats, and can be turned about each of its axes.
MODEL = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast" gravity="0 0 0"/>
  <worldbody>
    <body name="base_link" pos="0 0 1">
      <freejoint name="root"/>
      <geom type="box" size=".1 .2 .3" mass="2" contype="0" conaffinity="0"/>
      <site name="imu"/>
    </body>
  </worldbody>
  <actuator>
    <motor name="roll" site="imu" gear="0 0 0 1 0 0" ctrlrange="-1 1"/>
    <motor name="pitch" site="imu" gear="0 0 0 0 1 0" ctrlrange="-1 1"/>
    <motor name="yaw" site="imu" gear="0 0 0 0 0 1" ctrlrange="-1 1"/>
  </actuator>
  <sensor>
    <framequat name="relative" objtype="site" objname="imu" reftype="body" refname="base_link"/>
    <framequat name="attitude" objtype="site" objname="imu"/>
    <framepos name="place" objtype="site" objname="imu"/>
    <gyro name="gyro" site="imu"/>
  </sensor>
</mujoco>
"""

WXYZ = [f"orientation.{axis}" for axis in "wxyz"]
IMU = {"topic": "imu", "type": "sensor_msgs/msg/Imu", "required_values": {}}
ODOM = {"topic": "odom", "type": "nav_msgs/msg/Odometry", "required_values": {}}


def term(name, size, unit, mujoco, ros, **more):
    """An observation term with nothing particular about it."""
    plain = {"frame": "base_link", "scale": 1.0, "clip": None, "noise": 0.0, "max_age": 0.1}
    plain |= {"limit": None, "inf_values": None}
    return {"name": name, "size": size, "unit": unit, **plain, "mujoco": mujoco, "ros": ros} | more


ATTITUDE = {"sensor": "attitude"}, {**IMU, "fields": WXYZ}
TILT = term("tilt", 4, "rad", *ATTITUDE, derive="tilt", policy_input=False, limit=[0.0, 1.0])
UP = term("up", 4, "1", *ATTITUDE, derive="gravity_up", scale=2.0, noise=0.1)
XY = [f"pose.pose.position.{axis}" for axis in "xy"]
RATES = [f"angular_velocity.{axis}" for axis in "xyz"]
ROBOT = {
    "schema": 2,
    "robot": "floater",
    "control_dt": 0.05,
    "physics_dt": 0.01,
    "observation": [
        term("position", 2, "m", {"sensor": "place", "elements": [0, 1]}, {**ODOM, "fields": XY}),
        TILT,
        UP,
        term(
            "heading",  # of the same quaternion as the two before it
            2,
            "1",
            {"sensor": "attitude", "elements": [3, 0]},
            {**IMU, "fields": ["orientation.z", "orientation.w"]},
        ),
        term("rates", 3, "rad/s", {"sensor": "gyro"}, {**IMU, "fields": RATES}),
    ],
    "action": [
        {
            "name": "torque",
            "size": 3,
            "unit": "N m",
            "frame": "base_link",
            "scale": 1.0,
            "offset": 0.0,
            "limit": [-1.0, 1.0],
            "smoothing_time": 0.0,
            "rate_limit": 20.0,
            "tracking": None,
            "safe_command": [0.0, 0.0, 0.0],
            "mujoco": {"actuators": ["roll", "pitch", "yaw"]},
            "ros": {
                "topic": "torque",
                "type": "geometry_msgs/msg/Vector3",
                "fields": ["x", "y", "z"],
                "required_values": {},
            },
        }
    ],
}
ROBOT = json.loads(json.dumps(ROBOT))  # no part of it stands in two places


def floater(folder: Path, data=ROBOT) -> Robot:
    (folder / "model.xml").write_text(MODEL)
    (folder / "robot.yaml").write_text(yaml.safe_dump(data))
    return load_robot(str(folder))


def interface(data=ROBOT) -> Interface:
    return interface_from_dict({k: v for k, v in data.items() if k != "schema"}, "floater")
